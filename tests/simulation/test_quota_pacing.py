"""Paced limits in front of providers whose mechanism nobody told: few refusals teach, then none comes.

A saturated caller asks again at the instant each refusal of the ledger names. Every call is counted
some time up to the guard after its admission; a refusal by the provider is told to the ledger at once.
`python -m tests.simulation.test_quota_pacing` prints the figures of docs/explanation/ledger.md.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, log2
from random import Random  # noqa: TID251 - seeded
from statistics import fmean

import pytest

from headgate.core.quota import Ask, Counts, Limit, Refusal
from headgate.emulator.quotas import FixedWindow, Quota, SlidingCounter, SlidingLog, TokenBucket
from headgate.policy.quota.ledger import QuotaLedger

MINUTE = 60_000
START = 1_772_000_000_000
JITTER = 250


class FlooredCounter:
    """A sliding counter that rounds the share of the last window down."""

    def __init__(self, limit: int, window: int, phase: float) -> None:
        self.limit, self.window, self.phase = limit, window, phase
        self.counts: dict[int, int] = {}

    def room(self, now: float, amount: int) -> bool:
        number, into = divmod(now - self.phase, self.window)
        fading = int(self.counts.get(int(number) - 1, 0) * (1 - into / self.window))
        return fading + self.counts.get(int(number), 0) + amount <= self.limit

    def charge(self, now: float, amount: int) -> None:
        number = int((now - self.phase) // self.window)
        self.counts[number] = self.counts.get(number, 0) + amount


Provider = Quota | FlooredCounter
Maker = Callable[[int, Random], Provider]

COUNTERS: dict[str, Maker] = {
    "exact": lambda limit, chance: SlidingCounter(limit, 60, chance.uniform(0, 60)),
    "floored": lambda limit, chance: FlooredCounter(limit, 60, chance.uniform(0, 60)),
}
OTHERS: dict[str, Maker] = {
    "fixed window": lambda limit, chance: FixedWindow(limit, 60, chance.uniform(0, 60)),
    "sliding log": lambda limit, chance: SlidingLog(limit, 60),
    "token bucket": lambda limit, chance: TokenBucket(limit, 60),
}


@dataclass
class Run:
    """What became of a saturated domain.

    Attributes:
        first: when the ledger was told of the first refusal, in ms since START.
        surprised: refused calls that had been admitted before the ledger was told of the first.
        refused: moments of the provider's other refusals, in ms since START.
        accepted: moments and amounts of what it accepted.
        ledger: as it stands at the end.
    """

    first: int
    surprised: int
    refused: list[int]
    accepted: list[tuple[int, int]]
    ledger: QuotaLedger

    def used(self, limit: int, minutes: tuple[int, int]) -> float:
        """Share of the limit that was accepted within these minutes."""
        begin, end = (minute * MINUTE for minute in minutes)
        amount = sum(each for moment, each in self.accepted if begin <= moment < end)
        return amount * MINUTE / (limit * (end - begin))


def saturated(
    limit: Limit, provider: Provider, chance: Random, minutes: int, *, known: int = 0,
    sizes: tuple[int, int] = (1, 1), pause: float = 0.0, spread: bool = True, told: float = 0.0,
) -> Run:  # fmt: skip
    """Somebody always waits, but for pauses.

    Args:
        known: refusals the ledger was told before; 0: it does not know that it has to pace.
        spread: in the first minute the demand just fills the limit, at random moments; else all comes
            at once.
        told: how likely the ledger is told of one more refusal with a call.
        pause: how likely a pause of up to two windows is after a call.
    """
    ledger = QuotaLedger([[limit]])
    for step in range(known):
        ledger.pace(0, limit.name, START - 100_000 + step * 1_000)
    on_the_way: list[tuple[int, int, int]] = []
    run = Run(minutes * MINUTE, 0, [], [], ledger)
    now, end, number, cost = START, START + minutes * MINUTE, 0, chance.randint(*sizes)
    first = 0 if known else end  # when the ledger was told
    ramp = sorted(chance.randrange(MINUTE) for _ in range(limit.amount * 2 // sum(sizes)))
    waiting = deque(START + moment for moment in ramp if spread)
    while now < end:
        while on_the_way and on_the_way[0][0] <= now:
            moment, admitted, amount = heapq.heappop(on_the_way)
            if provider.room((moment - START) / 1000, amount):
                provider.charge((moment - START) / 1000, amount)
                run.accepted.append((moment - START, amount))
            else:
                if admitted <= first:
                    run.surprised += 1
                else:
                    run.refused.append(moment - START)
                first = min(first, now)
                run.first = first - START
                ledger.pace(0, "", now)
        following = on_the_way[0][0] if on_the_way else end
        if waiting and waiting[0] > now:
            now = min(waiting[0], following)
            continue
        answer = ledger.acquire(Ask(str(number), {limit.counts: cost}), now, 1)
        if isinstance(answer, Refusal):
            assert answer.at is not None
            now = min(answer.at, following)
            continue
        if waiting:
            waiting.popleft()
        late = chance.choice((0, JITTER, chance.randint(0, JITTER)))
        heapq.heappush(on_the_way, (now + late, now, cost))
        number, cost = number + 1, chance.randint(*sizes)
        if chance.random() < told:
            ledger.pace(0, limit.name, now)
        if chance.random() < pause:
            waiting.append(now + chance.randint(0, 2 * MINUTE))
    return run


def rpm(amount: int) -> Limit:
    return Limit("rpm", Counts.REQUESTS, amount, guard=JITTER)


def bound(amount: int) -> int:
    return ceil(log2(amount)) + 1


def promised(amount: int, burst: int) -> float:
    return (1 - burst / amount) * MINUTE / (MINUTE + JITTER)


def figures(runs: list[Run], amount: int, minutes: tuple[int, int]) -> str:
    used = fmean(run.used(amount, minutes) for run in runs)
    late, surprised = [len(run.refused) for run in runs], [run.surprised for run in runs]
    return f"L = {amount}: {used:.4f} used, {surprised} refused before it was told, {late} after"


def learning(name: str, amount: int, seeds: range, *, spread: bool) -> list[Run]:
    runs = []
    for seed in seeds:
        chance = Random(seed * 1_000 + amount)
        provider = COUNTERS[name](amount, chance)
        runs.append(saturated(rpm(amount), provider, chance, 16, spread=spread))
    return runs


@pytest.mark.parametrize("spread", [True, False], ids=["spread", "in bursts"])
@pytest.mark.parametrize("name", COUNTERS)
@pytest.mark.parametrize(("amount", "seeds"), [(2, 4), (3, 4), (10, 4), (60, 2), (200, 1)])
def test_few_refusals_teach_a_sliding_counter(name: str, amount: int, seeds: int, spread: bool) -> None:
    """At most ⌈log₂ L⌉ + 1 of calls let go after the first was told, then none; and little is lost."""
    runs = learning(name, amount, range(seeds), spread=spread)
    said = figures(runs, amount, (8, 16))
    for run in runs:
        assert len(run.refused) <= bound(amount), said
        assert all(m < run.first + 3 * MINUTE for m in run.refused), f"{run.refused} {said}"
        if spread:
            assert run.surprised <= 3, said
        if run.first < 3 * MINUTE:  # the burst takes some windows to shrink
            floor = promised(amount, 1) - 0.01 - 1 / (8 * amount)
            assert run.used(amount, (8, 16)) >= floor, said


@pytest.mark.parametrize("name", [*COUNTERS, *OTHERS])
@pytest.mark.parametrize(("amount", "known"), [(10, 1), (60, 1), (60, 9)])
def test_what_is_paced_is_never_refused(name: str, amount: int, known: int) -> None:
    """By any mechanism, whatever the burst, in bursts and after pauses, and however it changes."""
    maker = {**COUNTERS, **OTHERS}[name]
    for seed in range(3):
        chance = Random(seed * 77 + known)
        provider = maker(amount, chance)
        restless = {"pause": 0.3 / amount, "told": 0.2 / amount} if seed else {}
        run = saturated(rpm(amount), provider, chance, 20, known=known, spread=False, **restless)
        said = figures([run], amount, (4, 20))
        assert not run.refused, f"seed {seed}: {run.refused} {said}"
        if not restless:
            assert run.used(amount, (4, 20)) >= promised(amount, 1) - 0.015, said


@pytest.mark.parametrize("name", [*COUNTERS, "token bucket"])
@pytest.mark.parametrize("sizes", [(1, 90), (200, 500), (1, 1_000)], ids=str)
def test_paced_tokens_are_never_refused(name: str, sizes: tuple[int, int]) -> None:
    """Also calls above the burst, which raise it, and such above two thirds of the limit."""
    limit = Limit("tpm", Counts.TOTAL, 1_000, guard=JITTER)
    for seed in range(3):
        chance = Random(seed)
        provider = {**COUNTERS, **OTHERS}[name](limit.amount, chance)
        told = 0.05 if seed == 2 else 0.0
        run = saturated(
            limit, provider, chance, 40, known=4, sizes=sizes, pause=0.02, told=told, spread=False
        )
        assert len(run.accepted) > 10
        assert not run.refused, f"seed {seed}: {run.refused}"


@pytest.mark.parametrize(("amount", "holds"), [(60, 6), (60, 2), (200, 20)])
def test_a_bucket_smaller_than_the_limit_is_learned(amount: int, holds: int) -> None:
    """Nobody tells how much it holds: the burst halves until it fits."""
    for seed in range(2):
        bucket = TokenBucket(holds, 60 * holds / amount)  # fills as fast as one of the whole limit
        run = saturated(rpm(amount), bucket, Random(seed), 16, spread=False)
        said = figures([run], amount, (8, 16))
        assert len(run.refused) <= bound(amount), said
        assert all(moment < 8 * MINUTE for moment in run.refused), said
        assert run.used(amount, (8, 16)) >= promised(amount, 1) - 0.015, said


def main() -> None:
    for name in COUNTERS:
        for amount in (10, 60, 600):
            for spread in (True, False):
                runs = learning(name, amount, range(20 if amount < 100 else 3), spread=spread)
                print(name, "spread" if spread else "bursts", figures(runs, amount, (8, 16)))


if __name__ == "__main__":
    main()
