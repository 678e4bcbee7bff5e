"""What the synchronous twins cost: the hop into the bridge's thread and back."""

from __future__ import annotations

import asyncio
import time

from bench.micro.figures import Figure, Scale, in_turn, per_call
from headgate.wiring.blocking import Bridge

__all__ = ["GROUP", "measure"]

GROUP = "The blocking bridge"


async def _nothing() -> None:
    await asyncio.sleep(0)


def measure(scale: Scale) -> list[Figure]:
    bridge = Bridge()
    bridge.run(_nothing())

    def awaited() -> float:
        async def main() -> float:
            began = time.perf_counter()
            for _ in range(scale.calls):
                await asyncio.create_task(_nothing())
            return per_call(time.perf_counter() - began, scale.calls)

        return asyncio.run(main())

    def hopped() -> float:
        began = time.perf_counter()
        for _ in range(scale.calls):
            bridge.run(_nothing())
        return per_call(time.perf_counter() - began, scale.calls)

    def cpu() -> float:
        began = time.process_time()
        for _ in range(scale.calls):
            bridge.run(_nothing())
        return per_call(time.process_time() - began, scale.calls)

    values = in_turn(scale.repeats, [awaited, hopped, cpu])
    bridge.stop()
    names = ("a task in a running loop, wall time", "a hop, wall time", "a hop, CPU")
    return [Figure(GROUP, name, "µs", value) for name, value in zip(names, values, strict=True)]
