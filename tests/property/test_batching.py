"""S3-02k: whatever fails, leaves or comes when, every item has exactly one outcome."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from headgate.core.errors import DeadlineExceededError, HeadgateError, InvalidCallError, StoreError
from headgate.engine.batching import Aggregator
from headgate.testing import VirtualClock


@dataclass(frozen=True)
class Caller:
    """Somebody who asks.

    Attributes:
        at: when, in tenths of a second.
        group: of what.
        fate: what becomes of the item upstream.
        leaves: after so many tenths of a second; None: stays.
        patience: seconds to the deadline, or None.
    """

    at: int
    group: str
    fate: str
    leaves: int | None
    patience: float | None
    urgent: bool
    weight: int


CALLERS = st.builds(
    Caller,
    at=st.integers(0, 30),
    group=st.sampled_from("xy"),
    fate=st.sampled_from(["fine", "fine", "fine", "bad"]),
    leaves=st.sampled_from([None, None, 0, 3, 12]),
    patience=st.sampled_from([None, None, 0.3, 4.0]),
    urgent=st.booleans(),
    weight=st.integers(0, 6),
)


class Upstream:
    """Takes a second for a batch; of some batches it says nothing good at all."""

    def __init__(self, clock: VirtualClock, broken: set[int]) -> None:
        self.clock = clock
        self.broken = broken
        self.batches: list[tuple[str, tuple[int, ...]]] = []
        self.under_way = 0

    async def __call__(
        self, group: str, items: Sequence[tuple[int, str]], deadline: float | None
    ) -> list[int | Exception]:
        number = len(self.batches)
        self.batches.append((group, tuple(item for item, _ in items)))
        self.under_way += 1
        try:
            await self.clock.sleep(1.0)
        finally:
            self.under_way -= 1
        if number in self.broken:
            raise StoreError("no answer")
        return [InvalidCallError("bad") if fate == "bad" else item for item, fate in items]


@given(
    callers=st.lists(CALLERS, min_size=1, max_size=14),
    broken=st.sets(st.integers(0, 6), max_size=3),
    size=st.integers(1, 4),
    window=st.sampled_from([0.05, 0.5, 5.0]),
)
def test_every_item_has_exactly_one_outcome(
    callers: list[Caller], broken: set[int], size: int, window: float
) -> None:
    clock = VirtualClock()
    upstream = Upstream(clock, broken)
    outcomes: Counter[int] = Counter()

    async def scene() -> None:
        batches: Aggregator[str, tuple[int, str], int] = Aggregator(
            upstream, clock, size=lambda: size, window=lambda: window, most=lambda: 100, most_weight=12
        )

        async def ask(number: int, caller: Caller) -> None:
            await clock.sleep(caller.at / 10)
            deadline = None if caller.patience is None else clock.monotonic() + caller.patience
            began = clock.monotonic()
            try:
                got = await batches.ask(
                    caller.group, (number, caller.fate),
                    deadline=deadline, weight=caller.weight, urgent=caller.urgent,
                )  # fmt: skip
            except HeadgateError as error:
                outcomes[number] += 1
                if isinstance(error, DeadlineExceededError):
                    assert deadline is not None
                    assert clock.monotonic() >= deadline - 1e-6
                elif isinstance(error, InvalidCallError):
                    assert caller.fate == "bad"
            except asyncio.CancelledError:
                outcomes[number] += 1
                assert caller.leaves is not None, "only who leaves is cancelled"
                raise
            else:
                outcomes[number] += 1
                assert got == number, "an outcome of one's own"
                # It waited for the window, or for a batch before it, and was answered in a second.
                assert clock.monotonic() - began <= window + 1.0 + 1e-6

        async def play(number: int, caller: Caller) -> None:
            task = asyncio.ensure_future(ask(number, caller))
            if caller.leaves is not None:
                await clock.sleep((caller.at + caller.leaves) / 10 + 0.001)
                task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()

        await asyncio.gather(*(play(number, caller) for number, caller in enumerate(callers)))
        await batches.aclose()
        assert batches.here == 0
        assert upstream.under_way == 0
        assert not batches._groups, "nothing is collected and never sent, and nothing is kept"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    clock.run(scene())
    assert outcomes == Counter(range(len(callers)))
    carried = Counter(item for _, items in upstream.batches for item in items)
    assert max(carried.values(), default=0) <= 1, "no item is sent twice"
    for group, items in upstream.batches:
        assert 1 <= len(items) <= size
        assert {callers[item].group for item in items} == {group}
        assert len(items) == 1 or sum(callers[item].weight for item in items) <= 12
