"""`python -m tools.stack`: the content service as deploy/compose runs it, on loopback.

Three instances behind nginx, a Valkey of their own, Prometheus: until Ctrl-C, which ends all of it.
With keys of Gemini in the environment it asks Gemini; without any, an emulator that makes answers up.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from headgate.core.errors import HeadgateError
from headgate.emulator import Emulator, EmulatorConfig, Latency, Limits, Project
from headgate.wiring.clock import SystemClock
from headgate.wiring.settings import process_environment
from tools.stack.topology import Ports, Stack

__all__ = ["main"]

_KEYS = (
    "GEMINI_API_KEY",
    "GEMINI_API_KEYS",
    "GEMINI_API_KEYS_FILE",
    "GEMINI_API_KEY_FILE",
    "GOOGLE_API_KEY",
)
_PASSED = (
    "GEMINI_",
    "GOOGLE_API_KEY",
    "HEADGATE_",
    "QUOTA_",
    "RATE_LIMIT_",
    "CACHE_",
    "SESSION_",
    "OTEL_",
)
_STORES = ("HEADGATE_STORE", "HEADGATE_CALLER_KEYS", "HEADGATE_CALLER_KEYS_FILE")
"""Not passed on: the stack has a store of its own, and listens where nobody else can call."""

_EMULATED_KEY = "an-emulator-takes-any-key"


def main() -> int:
    """Run it. The exit code: 0 after Ctrl-C, 3 where something is missing or wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools.stack", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="of nginx (8080); 0 takes a free one")
    parser.add_argument(
        "--prometheus", type=int, default=9090, help="its port (9090); 0 takes a free one"
    )
    parser.add_argument("--instances", type=int, default=3, metavar="N", help="of the service (3)")
    chosen = parser.parse_args()
    code = 0
    try:
        asyncio.run(_run(chosen))
    except* HeadgateError as errors:
        for error in errors.exceptions:
            _say(getattr(error, "message", str(error)))
        code = 3
    return code


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


async def _run(chosen: argparse.Namespace) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    ports = Ports(chosen.port, chosen.prometheus)
    with tempfile.TemporaryDirectory(prefix="headgate-stack-", ignore_cleanup_errors=True) as folder:
        async with _upstream(process_environment(None)) as environ:
            _say("Starting: a few seconds …")
            stack = Stack(
                Path(folder), environ, SystemClock(), count=chosen.instances, ports=ports, say=_say
            )
            async with stack:
                _introduce(stack, Path(folder))
                await ended.wait()
                _say("Ending.")


@asynccontextmanager
async def _upstream(environ: Mapping[str, str]) -> AsyncIterator[dict[str, str]]:
    """Settings of the instances, with an API that answers them."""
    passed = {
        name: value
        for name, value in environ.items()
        if name.startswith(_PASSED) and name not in _STORES
    }
    if any(environ.get(name, "").strip() for name in _KEYS):
        _say("Keys of Gemini are set: it is asked for what the service makes.")
        yield passed
        return
    project = Project("stack", {"stack": _EMULATED_KEY}, limits={"*": Limits(rpm=15, rpd=1500)})
    config = EmulatorConfig(projects=[project], latency=Latency(first_byte=0.5))
    async with Emulator(config) as emulator:
        _say(
            "No key of Gemini is set: an emulator makes answers up. Set GEMINI_API_KEYS for real ones."
        )
        yield {**passed, "GEMINI_API_KEY": _EMULATED_KEY, "HEADGATE_GEMINI_BASE_URL": emulator.base_url}


def _introduce(stack: Stack, folder: Path) -> None:
    instances = ", ".join(str(port) for port in stack.instance_ports)
    _say(f"The service is at {stack.address}, its instances on ports {instances}.")
    _say(f"Prometheus is at http://127.0.0.1:{stack.prometheus_port}, logs are in {folder}.")
    _say("Ctrl-C ends all of it.")


if __name__ == "__main__":
    sys.exit(main())
