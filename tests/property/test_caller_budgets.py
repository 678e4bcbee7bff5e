"""Budgets and limits of callers, over random histories: nothing is spent twice, nothing is refused for
free room, and both stores decide alike."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.core.callers import (
    Budget,
    BudgetWindow,
    CallerLimitError,
    CallerLimits,
    Denied,
    Held,
    Hold,
    Settled,
)
from headgate.gateway.meters import Meters, Taken
from headgate.policy.budget import HOLD_SECONDS, nano, period_end, period_of
from headgate.stores.callers import MemoryCallers
from headgate.stores.callers_sqlite import SqliteCallers
from headgate.testing import VirtualClock
from headgate.wiring.callers import open_buckets

NOON = 1_795_262_400.0
AMOUNT = 100

steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 2), st.integers(0, 60), st.sampled_from([None, 1, 3])),
        st.tuples(st.just("end"), st.integers(0, 30), st.floats(0, 1), st.none()),
        st.tuples(
            st.just("wait"), st.integers(0, 1), st.sampled_from([1.0, 61.0, 90_000.0]), st.none()
        ),
    ),
    max_size=40,
)


@settings(max_examples=30)
@given(steps)
def test_whatever_happens_no_more_is_spent_than_there_is_and_both_stores_agree(
    history: list[tuple[str, int, float, int | None]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stores = (MemoryCallers(), SqliteCallers(Path(folder) / "callers.db"))
        under_way: list[tuple[Hold, int, float]] = []
        now = NOON
        for number, (what, which, size, concurrent) in enumerate(history):
            if what == "wait":
                now += size
                continue
            settled: list[Settled] = []
            asked: list[Hold] = []
            if what == "end" and under_way:
                ask, held, _ = under_way.pop(which % len(under_way))
                settled = [Settled(ask.id, int(held * size))]
            if what == "ask":
                wish = int(size)
                budget = Budget(AMOUNT, list(BudgetWindow)[which])
                other = None if which else Budget(AMOUNT, BudgetWindow.TOTAL)
                asked = [
                    Hold(f"{number} {turn}", "c", paid, (2 * wish, wish), concurrent)
                    for turn, paid in enumerate((budget, other, budget)[: 1 + number % 3])
                ]
            verdicts, again = (store.hold(settled, (), asked, now) for store in stores)
            assert verdicts == again
            for ask, verdict in zip(asked, verdicts, strict=True):
                alive = sum(now < begun + HOLD_SECONDS for _, _, begun in under_way)
                if isinstance(verdict, Held):
                    assert ask.concurrent is None or alive < ask.concurrent
                    assert verdict.amount in (ask.wishes if ask.budget else (0,))
                    under_way.append((ask, verdict.amount, now))
                elif verdict.crowded:
                    assert ask.concurrent is not None
                    assert alive >= ask.concurrent
                else:
                    room = AMOUNT - verdict.spent - verdict.held
                    assert isinstance(verdict, Denied)
                    assert room <= 0 or ask.wishes[-1] > room
            for window in BudgetWindow:
                found, same = (store.spending("c", window, now) for store in stores)
                assert found == same
                assert 0 <= found.spent + found.held <= AMOUNT
        stores[1].close()


@given(st.floats(0, 4e9), st.sampled_from(list(BudgetWindow)))
def test_a_window_holds_the_instant_it_is_named_for_and_ends_after_it(
    now: float, window: BudgetWindow
) -> None:
    end = period_end(window, now)
    if end is None:
        assert window is BudgetWindow.TOTAL
        return
    assert end > now
    assert period_of(window, now) == period_of(window, end - 1) != period_of(window, end)


@given(st.integers(1, 10**15))
def test_dollars_are_exact_to_the_nano_dollar(amount: int) -> None:
    assert nano(amount / 10**9) == amount


calls = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.3, 5.0, 61.0]),  # seconds until it comes
        st.integers(1, 400),  # tokens it is taken for
        st.floats(0, 1),  # of those, what it uses
        st.booleans(),  # whether it is refused after all, as by a budget
    ),
    max_size=60,
)


@settings(max_examples=60)
@given(calls, st.integers(1, 30), st.integers(50, 1_000))
def test_no_more_passes_than_the_buckets_have(
    history: list[tuple[float, int, float, bool]], rpm: int, tpm: int
) -> None:
    """From the first call on, at most a full bucket and what it refilled; a refusal takes nothing."""
    clock = VirtualClock()
    meters = Meters(open_buckets(clock, {}), clock)
    limits = CallerLimits(rpm, tpm)

    async def main() -> None:
        began, requests, tokens = clock.monotonic(), 0, 0
        open_calls: list[tuple[Taken, int]] = []
        waits: list[float] = []
        for wait, want, share, refused in history:
            await clock.sleep(wait)
            for taken, used in open_calls:
                meters.settle(taken, used)
            open_calls.clear()
            try:
                taken = await meters.take("c", limits, want)
            except CallerLimitError as error:
                waits.append(error.retry_after or 0.0)
                continue
            if refused:
                meters.undo(taken)
                continue
            used = int(want * share)
            requests, tokens = requests + 1, tokens + used
            open_calls.append((taken, used))
            elapsed = clock.monotonic() - began
            assert requests <= rpm + elapsed * rpm / 60 + 1e-6
            # One that is larger than the bucket is let in when it is full, and nothing after it until
            # the rest is paid.
            assert tokens <= tpm + elapsed * tpm / 60 + max(0, want - tpm) + 1e-6
        assert all(wait >= 1 for wait in waits)

    clock.run(main())


@settings(max_examples=40)
@given(st.integers(1, 30), st.lists(st.integers(1, 20), min_size=1, max_size=20))
def test_refused_calls_leave_the_buckets_as_they_were(rpm: int, tries: list[int]) -> None:
    """However often a caller is refused by its second limit, its first one has as much as before."""
    clock = VirtualClock()
    meters = Meters(open_buckets(clock, {}), clock)

    async def main() -> None:
        both = CallerLimits(requests_per_minute=1, requests_per_day=None, tokens_per_minute=10_000)
        await meters.take("c", both, 10)
        for want in tries:
            try:
                await meters.take("c", both, want)
            except CallerLimitError:
                continue
            raise AssertionError("there was one request a minute")
        tokens = CallerLimits(tokens_per_minute=10_000)
        await meters.take("c", tokens, 9_990)

    clock.run(main())
