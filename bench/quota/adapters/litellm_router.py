"""LiteLLM's Router, in process; the argument is its routing strategy, or `enforce`.

Every key is a deployment of one model group with its own `rpm` and `tpm`. Retries are the Router's
(three, and none within a deployment); cool-downs are its defaults. `enforce` is its default strategy
with the optional pre-call check of declared limits. Told of a store, the Router uses it as its Redis.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

from bench.quota.protocol import Ask, Key, Setup, serve

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the internet for prices
os.environ["LITELLM_LOG"] = "ERROR"

_REPLY = json.dumps(
    {
        "candidates": [
            {"content": {"parts": [{"text": "-"}], "role": "model"}, "finishReason": "STOP"}
        ],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
    }
).encode()


@asynccontextmanager
async def contender(setup: Setup, strategy: str) -> AsyncIterator[Ask]:
    litellm = _imported()
    litellm.suppress_debug_info = True
    limits = [{"rpm": key.rpm, "tpm": key.tpm} for key in setup.keys]
    deployments = [
        {
            "model_name": "pool",
            "litellm_params": {
                "model": f"gemini/{setup.model}",
                "api_base": f"{setup.base_url}/v1beta",
                "api_key": key.value,
                "max_retries": 0,
                **{name: value for name, value in limit.items() if value},
            },
        }
        for key, limit in zip(setup.keys, limits, strict=True)
    ]
    chosen: dict[str, Any] = {"routing_strategy": strategy}
    if strategy == "enforce":
        chosen = {"optional_pre_call_checks": ["enforce_model_rate_limits"]}
    router = litellm.Router(
        model_list=deployments, num_retries=3, timeout=setup.patience, redis_url=setup.store, **chosen
    )

    async def ask(prompt: str) -> None:
        await router.acompletion(model="pool", messages=[{"role": "user", "content": prompt}])

    yield ask


def _imported() -> Any:
    import litellm  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - after the settings

    return litellm


def preload() -> None:
    """Import it, which takes seconds of CPU, and what a first call imports.

    What that is, a child finds out by making one; nothing else of it is left here.
    """
    _imported()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(_first_call())
        finally:
            with os.fdopen(writing, "w") as names:
                names.write("\n".join(sys.modules))
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as names:
        found = names.read().split()
    os.waitpid(child, 0)
    for name in found:
        if name not in sys.modules:
            with suppress(Exception):  # some exist only under a name of their maker's
                importlib.import_module(name)


async def _first_call() -> None:
    """One call to an upstream that says the same to everybody."""

    async def answer(reading: asyncio.StreamReader, writing: asyncio.StreamWriter) -> None:
        await reading.readuntil(b"\r\n\r\n")
        writing.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n")
        writing.write(b"content-length: %d\r\n\r\n%b" % (len(_REPLY), _REPLY))
        writing.close()

    upstream = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = upstream.sockets[0].getsockname()[1]
    key = Key("none", "none", "none", 100, None)
    nowhere = Setup(f"http://127.0.0.1:{port}", "gemini-3.8-flash", 10.0, (key,))
    async with asyncio.timeout(20), contender(nowhere, "enforce") as ask:
        await ask("Say nothing.")


def main(arguments: list[str]) -> None:
    (strategy,) = arguments
    serve(lambda setup: contender(setup, strategy), f"litellm {version('litellm')}")


if __name__ == "__main__":
    main(sys.argv[1:])
