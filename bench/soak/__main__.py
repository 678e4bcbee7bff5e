"""Run a soak: `python -m bench.soak --minutes 10`, or `--seconds 20` to see that it works.

An emulator with faults, a gateway with its defaults, its cache and its ledger, and 24 clients. Ten
times, or as often as there is time for, everybody rests until nothing is under way; what the gateway
holds then is compared. Ends with status 1 if anything grew, or if an answer was one that must not be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from random import Random

from bench.soak.load import Clients
from bench.soak.verdict import Rest, grown
from headgate.emulator import (
    Emulator,
    EmulatorConfig,
    Fault,
    OpenAIOrganisation,
    Organisation,
    Project,
)

_CLIENTS = 24
_RESTS = 10
_LEAST_ROUND = 4.0
_REST_SECONDS = 12.0
"""The longest a call may be under way after its client was told to rest: its time-outs are shorter."""

_CHANCES = {
    "reset": 0.02, "close": 0.02, "overload": 0.03, "html": 0.01, "broken_json": 0.01, "stall": 0.002,
    "reset_mid": 0.02, "half_event": 0.01, "silent_eof": 0.01, "malformed_sse": 0.01,
    "stall_mid": 0.005, "slow_chunks": 0.02,
}  # fmt: skip


def config() -> EmulatorConfig:
    """Four projects, and a good part of all calls that go wrong."""
    faults = [Fault(kind, probability=chance, seconds=0.5) for kind, chance in _CHANCES.items()]
    projects = [Project(f"p{number}", {f"k{number}": f"AIzaSOAK-{number}"}) for number in range(4)]
    return EmulatorConfig(
        projects=projects,
        organisations=[Organisation("o0", {"c0": "sk-ant-SOAK-0"})],
        openai=[OpenAIOrganisation("o0", {"o0": "sk-SOAK-0"})],
        faults=faults,
        seed=7,
    )


class Gateway:
    """The process that is watched."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.held: dict[str, int] = {}
        self.port = 0
        self.ready = asyncio.Event()
        self.said: list[str] = []

    @classmethod
    async def start(cls, upstream: str, folder: Path) -> Gateway:
        """Start it; it takes calls once it is `ready`."""
        environ = {
            "PATH": os.environ["PATH"],
            "GEMINI_API_KEYS": ",".join(f"AIzaSOAK-{n}|k{n}|p{n}" for n in range(4)),
            "ANTHROPIC_API_KEYS": "sk-ant-SOAK-0|c0|o0",
            "OPENAI_API_KEYS": "sk-SOAK-0|o0|o0",
            "HEADGATE_GEMINI_BASE_URL": upstream,
            "HEADGATE_ANTHROPIC_BASE_URL": upstream,
            "HEADGATE_OPENAI_BASE_URL": f"{upstream}/v1",
            "HEADGATE_USAGE": str(folder / "usage.sqlite3"),
            "HEADGATE_ATTEMPT_TIMEOUT_SECONDS": "3",
            "HEADGATE_STREAM_IDLE_SECONDS": "3",
            "HEADGATE_GATEWAY_CACHE_SECONDS": "2",
            "HEADGATE_GATEWAY_CACHE_MIB": "2",
            "HEADGATE_GATEWAY_LINGER_SECONDS": "0",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.soak.serve", env=environ, stdout=PIPE, stderr=PIPE
        )
        return cls(process)

    async def listen(self) -> None:
        """Hear what it says until it ends."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        await asyncio.gather(self._numbers(self._process.stdout), self._words(self._process.stderr))

    async def _numbers(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self.held = json.loads(line)

    async def _words(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            text = line.decode(errors="replace")
            if "The gateway is at " in text:
                self.port = int(text.rpartition(":")[2].strip(" .\n"))
                self.ready.set()
            if "a fault of the gateway" in text or "Traceback" in text or "Exception" in text:
                self.said.append(text.strip())

    async def rest(self) -> None:
        """Wait until nothing is under way and the number of tasks is the same for a second."""
        end, same, before = time.monotonic() + _REST_SECONDS, 0, -1
        while time.monotonic() < end and same < 4:
            await asyncio.sleep(0.25)
            held = self.held
            same = same + 1 if held["tasks"] == before and not held["visits"] else 0
            before = held["tasks"]

    async def stop(self) -> int:
        """End it as an operator would."""
        self._process.send_signal(signal.SIGTERM)
        return await self._process.wait()


async def soak(seconds: float, folder: Path) -> tuple[list[Rest], Clients, list[str]]:
    """Run it: what was held at each rest, the clients, and what went wrong besides."""
    with Emulator(config()).in_thread() as emulator:
        gateway = await Gateway.start(emulator.base_url, folder)
        async with asyncio.TaskGroup() as group:
            group.create_task(gateway.listen())
            await gateway.ready.wait()
            clients = Clients("127.0.0.1", gateway.port, _CLIENTS, Random(7))
            rounds = max(2, min(_RESTS, int(seconds / _LEAST_ROUND)))
            rests: list[Rest] = []
            began = time.monotonic()
            for _ in range(rounds):
                await clients.work(seconds / rounds)
                await gateway.rest()
                held = {name: gateway.held[name] for name in ("tasks", "files", "threads", "memory")}
                rests.append(Rest(time.monotonic() - began, clients.asked, **held))
                print("  ".join(f"{name} {value:,.0f}" for name, value in rests[-1]._asdict().items()))
            code = await gateway.stop()
    trouble = sorted(set(gateway.said))
    return rests, clients, [*trouble, *([f"it ended with status {code}"] if code else [])]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, help="instead of minutes, to see that it works")
    given = parser.parse_args()
    seconds = given.seconds or given.minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        rests, clients, trouble = asyncio.run(soak(seconds, Path(folder)))
    # In a short run much is still made for the first time: code, tables, buffers of the allocator.
    trouble += grown(rests, share=0.05 if seconds >= 300 else 0.25)
    trouble += sorted(set(clients.wrong))
    for name, count in sorted(clients.answers.items()):
        print(f"{count:9,}  {name}")
    print(f"{clients.asked:,} requests in {rests[-1].at:.0f} s")
    for sentence in trouble:
        print(f"WRONG: {sentence}")
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
