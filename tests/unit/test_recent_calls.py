"""What health is judged by: the calls of the last minutes, by model."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.backend.recent_calls import Recent, RecentCalls
from headgate.core.call import Operation, Usage
from headgate.core.records import CallRecord
from headgate.testing import VirtualClock


def record(clock: VirtualClock, model: str = "m", **fields: Any) -> CallRecord:
    now = clock.monotonic()
    values: dict[str, Any] = {
        "request_id": "r", "operation": Operation.GENERATE, "started": now - 2, "ended": now,
        "attempts": 1, "rotations": 0, "retries": 0, "waited": 0.0, "key_name": None,
        "usage": Usage(), "error": None,
    }  # fmt: skip
    return CallRecord(model=model, **(values | fields))


@pytest.mark.parametrize(
    ("error", "errors"),
    [
        ("server", 1), ("unavailable", 1), ("network", 1), ("timeout", 1), ("quota", 1),
        ("invalid", 0), ("blocked", 0), ("auth", 0), ("no_access", 0), ("busy", 0), ("too_large", 0),
    ],
)  # fmt: skip
async def test_some_failures_say_something_of_the_model(
    clock: VirtualClock, error: str, errors: int
) -> None:
    calls = RecentCalls(clock, 900, lambda: True)
    calls.call(record(clock))
    calls.call(record(clock, error=error))
    assert calls.of("m") == Recent(2, 1, errors, 4.0)


async def test_what_says_nothing_at_all_is_not_counted(clock: VirtualClock) -> None:
    calls = RecentCalls(clock, 900, lambda: True)
    calls.call(record(clock, error="cancelled"))
    calls.call(record(clock, operation=Operation.COUNT))
    RecentCalls(clock, 900, lambda: False).call(record(clock))
    assert (calls.of("m"), calls.models(), calls.reached()) == (Recent(), [], {})


async def test_minutes_pass_and_the_last_one_that_was_reached_stays(clock: VirtualClock) -> None:
    calls = RecentCalls(clock, 120, lambda: True)
    reached = clock.monotonic()
    calls.call(record(clock))
    await clock.sleep(100)
    calls.call(record(clock, attempts=0, error="unavailable"))
    assert calls.of("m") == Recent(2, 1, 1, 4.0)
    assert calls.reached() == {"m": reached}
    await clock.sleep(100)
    assert calls.of("m") == Recent(1, 0, 1, 2.0)
    await clock.sleep(200)
    assert calls.of("m") == Recent()
    assert calls.models() == ["m"]


async def test_callers_may_name_any_model(clock: VirtualClock) -> None:
    calls = RecentCalls(clock, 900, lambda: True)
    for number in range(1200):
        calls.call(record(clock, f"made-up-{number}"))
    assert len(calls.models()) == 1000
    assert calls.of("made-up-0") == Recent()
    assert calls.of("made-up-1199").requests == 1
