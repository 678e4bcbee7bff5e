"""What choosing a key costs: one lease and its settlement, for few keys and for very many."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from functools import partial

from bench.micro.figures import Figure, Scale, in_turn, per_call, ratio
from headgate.core.call import Key
from headgate.core.outcome import Kind, Outcome
from headgate.engine.pool import KeyPool
from headgate.policy.keyring import KeyRing
from headgate.policy.leases import Lease
from headgate.testing import VirtualClock

__all__ = ["GROUP", "SITUATIONS", "measure"]

GROUP = "Choosing a key (lease and settle)"
MODEL = "gemini-3.8-flash"
SUCCESS = Outcome(Kind.SUCCESS, status=200)
REFUSED = Outcome(Kind.QUOTA_MINUTE, "quota", 429, 1.0)
ALWAYS = 1e9  # seconds; longer than any benchmark


def measure(scale: Scale) -> list[Figure]:
    figures = []
    for name, prepare in SITUATIONS.items():
        steps = [prepare(size) for size in scale.sizes]
        for step in steps:
            step(scale.calls)  # each model's queue sees every domain once, at its first turn
        values = in_turn(scale.repeats, [partial(_timed, step, scale.calls * 10) for step in steps])
        rows = [
            Figure(GROUP, f"{name}, {size:,} keys", "µs", value)
            for size, value in zip(scale.sizes, values, strict=True)
        ]
        figures += rows
        figures.append(
            ratio(GROUP, f"{name}: {scale.sizes[-1]:,} to {scale.sizes[0]:,}", rows[-1], rows[0])
        )
    return figures


def _timed(step: Callable[[int], None], calls: int) -> float:
    gc.collect()
    began = time.process_time()
    step(calls)
    return per_call(time.process_time() - began, calls)


def _pool(size: int, clock: VirtualClock, project: str | None = None) -> KeyPool:
    keys = [Key(f"key_{n}", f"value-{n}", project or f"project-{n}") for n in range(size)]
    return KeyPool(KeyRing(keys), clock)


def _steady(pool: KeyPool) -> Callable[[int], None]:
    def step(calls: int) -> None:
        lease_of, settle = pool.lease, pool.settle
        for _ in range(calls):
            lease = lease_of(MODEL)
            assert isinstance(lease, Lease)
            settle(lease, SUCCESS)

    return step


def _all_ready(size: int) -> Callable[[int], None]:
    return _seen(_pool(size, VirtualClock()), size)


def _one_project(size: int) -> Callable[[int], None]:
    return _steady(_pool(size, VirtualClock(), "project"))


def _one_ready(size: int) -> Callable[[int], None]:
    pool = _pool(size, VirtualClock())
    for index in range(size - 1):
        pool.park(index, ALWAYS)
    return _steady(pool)


def _seen(pool: KeyPool, size: int) -> Callable[[int], None]:
    """The first turn over all domains, which is a little cheaper than later ones, is not measured."""
    step = _steady(pool)
    step(size)
    return step


def _mix(size: int) -> Callable[[int], None]:
    clock, chance = VirtualClock(), random.Random(1)
    pool = _pool(size, clock)
    for index in range(0, size, 2):
        pool.park(index, chance.uniform(0.0, 2_000.0))

    def step(calls: int) -> None:
        for _ in range(calls):
            clock.advance(0.01)
            lease = pool.lease(MODEL)
            if isinstance(lease, Lease):
                pool.settle(lease, REFUSED if chance.random() < 0.05 else SUCCESS)

    return step


SITUATIONS: dict[str, Callable[[int], Callable[[int], None]]] = {
    "all ready": _all_ready,
    "all but one cooling": _one_ready,
    "half cooling, one refusal in twenty": _mix,
    "all in one project": _one_project,
}
"""What the keys are like, and what makes a step of so many calls over so many keys."""
