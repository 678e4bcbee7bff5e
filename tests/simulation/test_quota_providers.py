"""The ledger in front of providers that count by four mechanisms, saturated, in virtual time.

Nothing may be refused, and next to nothing of a limit may stay unused. A saturated caller asks again
at the instant each refusal names. The figures stand in the failure messages and in
docs/explanation/ledger.md; `python -m tests.simulation.test_quota_providers` prints them.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random  # noqa: TID251 - seeded
from statistics import fmean

import pytest

from headgate.core.quota import Ask, Costs, Counts, Grant, Limit, Mode, Refusal
from headgate.emulator.quotas import FixedWindow, Quota, SlidingCounter, SlidingLog, TokenBucket
from headgate.policy.quota.ledger import QuotaLedger

MINUTE = 60_000
GUARD = 350
START = 1_772_000_000_000
SEEDS = range(20)


@dataclass(frozen=True)
class Sent:
    """A call the ledger admitted and what it used."""

    admitted: int
    settled: int
    amount: int


def saturated(
    limit: Limit,
    seed: int,
    minutes: int,
    latency: Callable[[Random], int],
    sizes: tuple[int, int] = (1, 1),
) -> list[Sent]:
    """Everything one domain admits when somebody always waits.

    In the first minute the demand only just fills the limit, at random moments: else all calls of all
    minutes would come in bursts of L, and a count over whole minutes would say nothing.
    """
    chance = Random(seed)
    ledger = QuotaLedger([[limit]])
    flying: list[tuple[int, int]] = []
    sent: list[Sent] = []
    now, end = START, START + (minutes + 2) * MINUTE
    ramp = sorted(chance.randrange(MINUTE) for _ in range(limit.amount * 2 // sum(sizes)))
    waiting = deque(START + moment for moment in ramp)
    number, cost = 0, chance.randint(*sizes)
    while now < end:
        while flying and flying[0][0] <= now:
            ledger.settle(str(heapq.heappop(flying)[1]), {}, now)
        upcoming = flying[0][0] if flying else end
        if waiting and waiting[0] > now:
            now = min(waiting[0], upcoming)
            continue
        answer = ledger.acquire(Ask(str(number), {limit.counts: cost}), now, seed * 7919 + number + 1)
        if isinstance(answer, Refusal):
            assert answer.at is not None
            now = min(answer.at, upcoming) if upcoming > now else answer.at
            continue
        if waiting:
            waiting.popleft()
        reply = now + latency(chance)
        sent.append(Sent(now, reply, cost))
        heapq.heappush(flying, (reply, number))
        number, cost = number + 1, chance.randint(*sizes)
    return sent


def utilisation(sent: list[Sent], limit: Limit, minutes: int) -> float:
    """How full a sliding window at the provider is on average, after two minutes of warming up.

    The same as admitted ÷ allowed, but for the calls at the two ends, which count in part: a plain
    count would depend on which side of an end a cluster of calls happens to lie.
    """
    begin, end = START + 2 * MINUTE, START + (2 + minutes) * MINUTE
    area = sum(
        call.amount * max(0, min(call.admitted + MINUTE, end) - max(call.admitted, begin))
        for call in sent
    )
    return area / (limit.amount * minutes * MINUTE)


def exact_mechanisms(limit: int, chance: Random) -> Iterator[Quota]:
    for _ in range(3):
        yield FixedWindow(limit, 60, chance.uniform(0, 60))
    yield SlidingLog(limit, 60)
    yield TokenBucket(limit, 60)


def refused(provider: Quota, arrivals: list[tuple[int, int]]) -> int:
    """How many the provider refuses. Times are exact in binary if milliseconds count from START."""
    count = 0
    for moment, amount in arrivals:
        now = (moment - START) / 1000
        if provider.room(now, amount):
            provider.charge(now, amount)
        else:
            count += 1
    return count


def jittered(sent: list[Sent], chance: Random, jitter: int) -> list[tuple[int, int]]:
    """When the calls are counted: anywhere up to `jitter` late, or only at the two ends of that."""
    ends = chance.random() < 0.5
    counted = [
        (
            call.admitted + (chance.choice((0, jitter)) if ends else chance.randint(0, jitter)),
            call.amount,
        )
        for call in sent
    ]
    return sorted(counted)


def early(name: str, counts: Counts, amount: int) -> Limit:
    return Limit(name, counts, amount, guard=GUARD)


LATENCIES: dict[float, Callable[[Random], int]] = {
    0.5: lambda chance: chance.randint(100, 900),
    10.0: lambda chance: chance.randint(2_000, 18_000),
    40.0: lambda chance: chance.randint(10_000, 70_000),
}


def requests_figures(amount: int, seconds: float, seeds: range) -> tuple[list[float], int, int]:
    """Utilisations, refusals of the exact mechanisms, refusals of a sliding counter."""
    limit = early("rpm", Counts.REQUESTS, amount)
    uses, wrong, fading = [], 0, 0
    for seed in seeds:
        chance = Random(1_000 + seed)
        sent = saturated(limit, seed, 12, LATENCIES[seconds])
        uses.append(utilisation(sent, limit, 12))
        arrivals = jittered(sent, chance, GUARD)
        wrong += sum(refused(provider, arrivals) for provider in exact_mechanisms(amount, chance))
        fading += refused(SlidingCounter(amount, 60, chance.uniform(0, 60)), arrivals)
    return uses, wrong, fading


SEEDS_OF = {10: 20, 60: 20, 600: 3}  # 20 of each from the command line


@pytest.mark.parametrize("amount", SEEDS_OF)
def test_requests_are_never_refused_and_hardly_any_is_wasted(amount: int) -> None:
    for first, seconds in enumerate(LATENCIES):
        seeds = range(first, SEEDS_OF[amount], len(LATENCIES))
        uses, wrong, _ = requests_figures(amount, seconds, seeds)
        figures = (
            f"L = {amount}, {seconds} s: {min(uses):.4f} … {fmean(uses):.4f} used, {wrong} refused"
        )
        assert wrong == 0, figures
        assert min(uses) >= 0.99, figures


def test_latency_does_not_matter_where_the_provider_counts_at_arrival() -> None:
    limit = early("rpm", Counts.REQUESTS, 60)
    admitted = [[call.admitted for call in saturated(limit, 5, 12, LATENCIES[s])] for s in LATENCIES]
    assert admitted[0] == admitted[1] == admitted[2]


def tokens_figures(seeds: range) -> tuple[list[float], int]:
    limit, sizes = early("tpm", Counts.TOTAL, 400_000), (200, 400)  # at most a thousandth
    uses, wrong = [], 0
    for seed in seeds:
        chance = Random(2_000 + seed)
        sent = saturated(limit, seed, 12, LATENCIES[10.0], sizes)
        uses.append(utilisation(sent, limit, 12))
        arrivals = jittered(sent, chance, GUARD)
        wrong += sum(refused(provider, arrivals) for provider in exact_mechanisms(limit.amount, chance))
    return uses, wrong


def test_tokens_with_exact_estimates_are_used_to_99_percent() -> None:
    uses, wrong = tokens_figures(range(1))
    figures = f"{min(uses):.4f} … {fmean(uses):.4f} used, {wrong} refused"
    assert wrong == 0, figures
    assert min(uses) >= 0.99, figures


def envelope_figures(seconds: float, seeds: range) -> tuple[list[float], float, int]:
    """Utilisations, what the formula promises, refusals when counted anywhere during the call."""
    limit = Limit("tpm", Counts.OUTPUT, 60, mode=Mode.ENVELOPE)
    uses, wrong, latencies = [], 0, []
    for seed in seeds:
        chance = Random(3_000 + seed)
        sent = saturated(limit, seed, 12, LATENCIES[seconds])
        uses.append(utilisation(sent, limit, 12))
        latencies += [call.settled - call.admitted for call in sent]
        for arrivals in (
            [(call.settled, call.amount) for call in sent],
            [(chance.randint(call.admitted, call.settled), call.amount) for call in sent],
        ):
            exact = exact_mechanisms(limit.amount, chance)
            wrong += sum(refused(provider, sorted(arrivals)) for provider in exact)
    return uses, MINUTE / (MINUTE + fmean(latencies) + 50), wrong


@pytest.mark.parametrize("seconds", [0.5, 10.0, 40.0])
def test_counted_at_any_moment_of_the_call_it_is_never_refused(seconds: float) -> None:
    uses, formula, wrong = envelope_figures(seconds, SEEDS)
    figures = f"{min(uses):.4f} … {fmean(uses):.4f}, formula {formula:.4f}, {wrong} refused"
    assert wrong == 0, figures
    assert fmean(uses) >= formula - 0.01, figures


def test_a_sliding_counter_refuses_some_and_that_is_known() -> None:
    """No log can please it: it weighs the last window's calls as if they were spread evenly."""
    _, wrong, fading = requests_figures(60, 0.5, range(5))
    assert wrong == 0
    assert fading > 0


def test_the_bound_is_needed_jitter_beyond_the_guard_is_refused() -> None:
    """The simulator can tell: without room for the jitter the same providers do refuse."""
    limit = Limit("rpm", Counts.REQUESTS, 60, guard=0)
    wrong = 0
    for seed in range(5):
        chance = Random(seed)
        arrivals = jittered(saturated(limit, seed, 12, LATENCIES[0.5]), chance, 2_000)
        wrong += sum(refused(provider, arrivals) for provider in exact_mechanisms(60, chance))
    assert wrong > 0


# ── the choice among unlike domains ─────────────────────────────────────────────────────────────

SMALL, LARGE, LARGE_SHARE = 200, 30_000, 0.07
MIXED = [(10, 1_000_000)] * 3 + [(200, 60_000)] * 3 + [(60, 250_000)] * 2
ALIKE = [(60, 150_000)] * 8
LOOK_AHEAD = 64


def ask_of(rid: int, tokens: int) -> Ask:
    costs: Costs = {Counts.REQUESTS: 1, Counts.TOTAL: tokens}
    return Ask(str(rid), costs)


def optimum(pool: list[tuple[int, int]]) -> float:
    """Calls a minute that a linear programme with full knowledge serves of the 93:7 mix.

    What a domain can serve of small and large asks is a polygon with sides across (1, 0), (0, 1),
    (1, 1) and (small, large); the pool's is their Minkowski sum, whose sides lie across the same four.
    So the optimum is the least, over the four, of what the pool can do ÷ what an ask of the mix needs.
    """
    rates = []
    for small, large in ((1, 0), (0, 1), (1, 1), (SMALL, LARGE)):
        most = 0.0
        for requests, tokens in pool:
            corner = (tokens - SMALL * requests) / (LARGE - SMALL)  # both limits full
            corners = [(min(requests, tokens / SMALL), 0.0), (0.0, min(requests, tokens / LARGE))]
            if 0 <= corner <= requests:
                corners.append((requests - corner, corner))
            most += max(small * x + large * y for x, y in corners)
        rates.append(most / (small * (1 - LARGE_SHARE) + large * LARGE_SHARE))
    return min(rates)


@dataclass(frozen=True)
class Served:
    """Calls a minute and mean seconds of waiting, after warming up."""

    rate: float
    wait: float


def serve(pool: list[tuple[int, int]], rate: float, seed: int, minutes: int) -> Served:
    """A queue in order of arrival with look-ahead, in front of the pool, as a ledger's caller does it.

    Arrivals are random within each second, with the rate kept in each minute, so that the share of
    the optimum is a matter of the choice and not of the luck of the arrivals.
    """
    chance = Random(seed)
    ledger = QuotaLedger(
        [
            [early("rpm", Counts.REQUESTS, requests), early("tpm", Counts.TOTAL, tokens)]
            for requests, tokens in pool
        ]
    )
    arrivals = _arrivals(chance, rate, minutes)
    queue: deque[tuple[int, int]] = deque()
    warm, end = START + 4 * MINUTE, START + minutes * MINUTE
    served = waited = rid = 0
    at = 0
    now = START
    while now < end:
        while at < len(arrivals) and arrivals[at][0] <= now:
            queue.append(arrivals[at])
            at += 1
        wake = end
        full: set[int] = set()
        for position in range(min(LOOK_AHEAD, len(queue))):
            arrived, tokens = queue[position]
            if tokens in full:
                continue
            rid += 1
            answer = ledger.acquire(ask_of(rid, tokens), now, chance.randint(1, 2**31 - 2))
            if isinstance(answer, Grant):
                queue[position] = (0, 0)
                if now >= warm:
                    served, waited = served + 1, waited + now - arrived
            else:
                assert answer.at is not None
                full.add(tokens)
                wake = min(wake, answer.at)
                if len(full) == 2:
                    break
        queue = deque(entry for entry in queue if entry[1])
        now = min(wake, arrivals[at][0] if at < len(arrivals) else end, end)
    return Served(served * MINUTE / (end - warm), waited / max(served, 1) / 1000)


def _arrivals(chance: Random, rate: float, minutes: int) -> list[tuple[int, int]]:
    found = []
    for minute in range(minutes):
        count = round(rate * (minute + 1)) - round(rate * minute)
        large = round(rate * LARGE_SHARE * (minute + 1)) - round(rate * LARGE_SHARE * minute)
        kinds = [LARGE] * large + [SMALL] * (count - large)
        chance.shuffle(kinds)
        moments = sorted(START + minute * MINUTE + chance.randrange(MINUTE) for _ in kinds)
        found += list(zip(moments, kinds, strict=True))
    return found


def test_the_optimum_is_right_where_it_can_be_seen() -> None:
    assert optimum(ALIKE) == pytest.approx(480), "all requests; tokens for 525 would be there"
    assert optimum([(1000, 228_600)]) == pytest.approx(100), "2 286 tokens an ask on average"
    # All tokens spent but those of the first three, which have requests for ten large asks each.
    assert optimum(MIXED) == pytest.approx((900_000 + 180_000 + 500_000) / 2286)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_mixed_pool_serves_94_percent_of_the_optimum(seed: int) -> None:
    best = optimum(MIXED)
    got = serve(MIXED, 0.95 * best, seed, 14)
    figures = f"{got.rate:.1f} a minute, {got.rate / best:.4f} of {best:.1f}, {got.wait:.2f} s waited"
    assert got.rate >= 0.94 * best, figures
    assert got.wait <= 1.5, figures


def test_a_pool_of_like_domains_serves_97_percent() -> None:
    best = optimum(ALIKE)
    got = serve(ALIKE, 1.05 * best, 3, 10)
    figures = f"{got.rate:.1f} a minute, {got.rate / best:.4f} of {best:.1f}"
    assert got.rate >= 0.97 * best, figures


def main() -> None:
    for amount in (10, 60, 600):
        for seconds in (10.0,):
            uses, wrong, fading = requests_figures(amount, seconds, SEEDS)
            print(f"requests L={amount} latency={seconds}: min {min(uses):.4f} mean {fmean(uses):.4f}"
                  f" refused {wrong}, by a sliding counter {fading}")  # fmt: skip
    uses, wrong = tokens_figures(SEEDS)
    print(f"tokens: min {min(uses):.4f} mean {fmean(uses):.4f} refused {wrong}")
    for seconds in LATENCIES:
        uses, formula, wrong = envelope_figures(seconds, SEEDS)
        print(f"envelope {seconds}: min {min(uses):.4f} mean {fmean(uses):.4f} formula {formula:.4f}"
              f" refused {wrong}")  # fmt: skip
    for name, pool in (("mixed", MIXED), ("alike", ALIKE)):
        best = optimum(pool)
        for load in (0.7, 0.85, 0.95, 1.2):
            got = [serve(pool, load * best, seed, 24) for seed in range(4)]
            rate, wait = fmean(one.rate for one in got), fmean(one.wait for one in got)
            print(f"{name} at {load}: {rate / best:.4f} of {best:.1f}, waited {wait:.2f} s")


if __name__ == "__main__":
    main()
