"""A process that measures the limiters of one module, one taking a line. Standard library only.

    python -m bench.micro.limiters.worker bench.micro.limiters.ours
    stdin:  {"name": "…", "url": "redis://…" or null, "cost": 1, "at_once": 32, "seconds": 0.3}
    stdout: {"ready": {"package": "version", …}, "names": [[name, "memory" or "store"], …]}, then
            {"cpu": µs a decision, "wall": µs a decision, "share": admitted share}, or {"error": "…"}

The module has `LIMITERS`: name to home and an async context manager that takes a URL and a key and
gives `decide(cost) -> admitted`, plain or awaitable. Ours run in our environment, rivals in theirs;
the loop around a decision is this one for both.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from inspect import iscoroutinefunction
from typing import Any, TypeAlias

__all__ = ["Decide", "Open"]

Decide: TypeAlias = Callable[[int], bool] | Callable[[int], Awaitable[bool]]
Open: TypeAlias = Callable[[str, str], AbstractAsyncContextManager[Decide]]

_ROUND = 50  # decisions between two looks at the clock; dear ones look each time
_DEAR = 0.002  # seconds


async def _taking(opened: Open, asked: dict[str, Any]) -> dict[str, float]:
    cost, at_once = asked["cost"], asked["at_once"]
    made = admitted = 0
    async with opened(asked["url"] or "", f"bench-{secrets.token_hex(4)}") as found:
        decide: Any = found
        waits = iscoroutinefunction(decide)
        for _ in range(2):  # every caller's connection, scripts, caches
            if waits:
                await asyncio.gather(*(decide(cost) for _ in range(at_once)))
            else:
                decide(cost)
        begun = time.perf_counter()
        await decide(cost) if waits else decide(cost)
        size = 1 if time.perf_counter() - begun > _DEAR else _ROUND

        async def caller(end: float) -> None:
            nonlocal made, admitted
            going = True
            while going:  # once at least, however busy the machine
                good = 0
                if waits:
                    for _ in range(size):
                        good += await decide(cost)
                else:
                    for _ in range(size):
                        good += decide(cost)
                made, admitted = made + size, admitted + good
                going = time.perf_counter() < end

        gc.collect()
        begun, worked = time.perf_counter(), time.process_time()
        end = begun + asked["seconds"]
        await asyncio.gather(*(caller(end) for _ in range(at_once)))
        took, worked = time.perf_counter() - begun, time.process_time() - worked
    return {"cpu": worked / made * 1e6, "wall": took / made * 1e6, "share": admitted / made}


def main(module: str) -> None:
    """Serve takings until stdin ends."""
    found = importlib.import_module(module)
    homes = [(name, home) for name, (home, _) in found.LIMITERS.items()]
    print(json.dumps({"ready": found.versions(), "names": homes}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            said: dict[str, object] = dict(
                asyncio.run(_taking(found.LIMITERS[asked["name"]][1], asked))
            )
        except Exception as error:  # noqa: BLE001 - one that fails is a result, not the end
            said = {"error": f"{type(error).__name__}: {error}"[:200]}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
