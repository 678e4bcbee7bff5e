"""The quota ledger by example, its choice, and what one admission costs at any size."""

from __future__ import annotations

from collections import Counter
from random import Random  # noqa: TID251 - seeded
from typing import ClassVar

import pytest

from headgate.core.quota import Ask, Costs, Counts, Grant, Kind, Limit, Mode, Refusal
from headgate.policy.quota.accounts import OPEN, Account, room_class
from headgate.policy.quota.ledger import TTL, QuotaLedger
from headgate.policy.quota.price import EXPONENTIAL, next_random, price

NOW = 1_772_000_000_000


def rpm(amount: int) -> Limit:
    return Limit("rpm", Counts.REQUESTS, amount)


def tpm(amount: int, counts: Counts = Counts.TOTAL) -> Limit:
    return Limit(f"tpm-{counts}", counts, amount)


def ask(rid: str, tokens: int = 1, **more: object) -> Ask:
    costs: Costs = dict.fromkeys((Counts.INPUT, Counts.OUTPUT, Counts.TOTAL), tokens)
    return Ask(rid, {Counts.REQUESTS: 1, Counts.SLOTS: 1, **costs}, **more)


def domain_of(answer: Grant | Refusal) -> int:
    assert isinstance(answer, Grant), answer
    return answer.domain


# ── refusals ────────────────────────────────────────────────────────────────────────────────────


def test_a_refusal_names_the_instant_and_the_limit() -> None:
    ledger = QuotaLedger([[rpm(1), tpm(100)]])
    ledger.acquire(ask("a"), NOW, 1)
    assert ledger.acquire(ask("b"), NOW + 10, 1) == Refusal(NOW + 60_400, "rpm")
    ledger.penalize(0, NOW + 90_000, NOW + 20)
    assert ledger.acquire(ask("b"), NOW + 30, 1) == Refusal(NOW + 90_000, "rest")


def test_what_no_limit_allows_never_waits() -> None:
    ledger = QuotaLedger([[tpm(100)], [tpm(200)]])
    assert ledger.acquire(ask("a", 201), NOW, 1) == Refusal(None, never=True)
    assert ledger.acquire(ask("a", 200), NOW, 1) == Grant("a", 1)
    refusal = ledger.acquire(ask("b", 150, exclude=(1,)), NOW, 1)
    assert refusal == Refusal(None), "another caller may wait for domain 1, this one may not use it"
    assert QuotaLedger([]).acquire(ask("a"), NOW, 1) == Refusal(None)


def test_one_limit_of_many_refuses_an_impossible_ask_for_all() -> None:
    both = [tpm(100, Counts.INPUT), tpm(10, Counts.OUTPUT)]
    ledger = QuotaLedger([both, [tpm(50)]])
    costs = {Counts.INPUT: 5, Counts.OUTPUT: 11, Counts.TOTAL: 51}
    assert ledger.acquire(Ask("a", costs), NOW, 1) == Refusal(None, never=True)


def test_a_slot_in_flight_is_waited_for_no_longer_than_a_lapse() -> None:
    slots = Limit("slots", Counts.SLOTS, 1, Kind.CONCURRENT)
    ledger = QuotaLedger([[slots]])
    ledger.acquire(ask("a"), NOW, 1)
    refusal = ledger.acquire(ask("b"), NOW + 5, 1)
    assert isinstance(refusal, Refusal)
    assert refusal.at is not None
    assert NOW + 5 < refusal.at <= NOW + 5 + TTL
    assert refusal.limit == "slots"
    ledger.settle("a", {}, NOW + 6)
    assert domain_of(ledger.acquire(ask("b"), NOW + 6, 1)) == 0


@pytest.mark.parametrize("domains", [65, 300])
def test_in_a_large_pool_a_refusal_never_names_too_late_an_instant(domains: int) -> None:
    ledger = QuotaLedger([[rpm(1)] for _ in range(domains)])
    for number in range(domains):
        ledger.acquire(ask(str(number)), NOW + number * 150, number + 1)
    refusal = ledger.acquire(ask("x"), NOW + domains * 150, 1)
    assert isinstance(refusal, Refusal)
    assert refusal.at == NOW + 60_400
    assert domain_of(ledger.acquire(ask("x"), refusal.at, 1)) >= 0


def test_in_a_large_pool_what_can_never_be_is_not_waited_for() -> None:
    ledger = QuotaLedger([[tpm(100)] for _ in range(65)])
    assert ledger.acquire(ask("a", 101), NOW, 1) == Refusal(None, never=True)


# ── choice ──────────────────────────────────────────────────────────────────────────────────────


def test_the_middle_band_is_searched() -> None:
    """49 000 input and 5 000 output tokens are free: 30 000 + 1 000 has room."""
    ledger = QuotaLedger([[tpm(49_000, Counts.INPUT), tpm(5_000, Counts.OUTPUT)]])
    costs = {Counts.REQUESTS: 1, Counts.INPUT: 30_000, Counts.OUTPUT: 1_000}
    assert domain_of(ledger.acquire(Ask("a", costs), NOW, 1)) == 0


def test_the_middle_band_turns_so_that_no_domain_is_favoured() -> None:
    pool = [[tpm(60_000, Counts.INPUT), tpm(2_000, Counts.OUTPUT)] for _ in range(8)]
    ledger = QuotaLedger(pool)
    costs = {Counts.REQUESTS: 1, Counts.INPUT: 10_000, Counts.OUTPUT: 1}
    taken = Counter(domain_of(ledger.acquire(Ask(str(n), costs), NOW, n + 1)) for n in range(24))
    assert len(taken) == 8
    assert max(taken.values()) <= 6


def test_the_emptier_of_two_like_domains_is_taken() -> None:
    ledger = QuotaLedger([[rpm(10)], [rpm(10)]])
    taken = [domain_of(ledger.acquire(ask(str(n)), NOW, n + 1)) for n in range(20)]
    assert Counter(taken[:10]) == {0: 5, 1: 5}
    assert Counter(taken) == {0: 10, 1: 10}


def test_a_small_ask_leaves_the_tokens_of_few_requests_alone() -> None:
    """A request is dear where there are few; the tokens there are for the large asks."""
    ledger = QuotaLedger([[rpm(10), tpm(1_000_000)], [rpm(200), tpm(60_000)]])
    assert domain_of(ledger.acquire(ask("small", 200), NOW, 1)) == 1
    assert domain_of(ledger.acquire(ask("large", 30_000), NOW, 1)) == 0


def test_a_wish_is_granted_unless_it_is_dear_full_or_excluded() -> None:
    ledger = QuotaLedger([[rpm(100)], [rpm(100)], [rpm(10)]])
    assert domain_of(ledger.acquire(ask("a", prefer=1), NOW, 1)) == 1
    assert domain_of(ledger.acquire(ask("b", prefer=1), NOW, 1)) == 1, "a little fuller is not dear"
    assert domain_of(ledger.acquire(ask("c", prefer=2), NOW, 1)) != 2, "ten times the price"
    assert domain_of(ledger.acquire(ask("d", prefer=1, exclude=(1,)), NOW, 1)) != 1
    ledger.shut(1, NOW)
    assert domain_of(ledger.acquire(ask("e", prefer=1), NOW, 1)) != 1


def test_of_like_prices_the_least_recent_serves() -> None:
    ledger = QuotaLedger([[rpm(10)] for _ in range(3)])
    taken = []
    for number in range(6):
        taken.append(domain_of(ledger.acquire(ask(str(number)), NOW, number + 1)))
        ledger.cancel(str(number), NOW)
    assert taken == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("seed", range(1, 20))
def test_the_one_domain_that_is_not_excluded_is_found(seed: int) -> None:
    ledger = QuotaLedger([[rpm(10)] for _ in range(40)])
    others = tuple(handle for handle in range(40) if handle != 23)
    assert domain_of(ledger.acquire(ask("a", exclude=others), NOW, seed)) == 23


def test_samples_come_from_all_of_a_large_pool() -> None:
    ledger = QuotaLedger([[rpm(1_000)] for _ in range(200)])
    chance = Random(3)
    taken = Counter(
        domain_of(ledger.acquire(ask(str(n)), NOW, chance.randint(1, 2**31 - 2))) for n in range(4_000)
    )
    assert len(taken) == 200
    assert max(taken.values()) <= 2 * min(taken.values()), "four samples keep the load even"


def test_the_price_is_an_integer_below_two_to_the_53() -> None:
    assert EXPONENTIAL[0] == 1000

    def of(need: int, used: int, amount: int) -> int:
        return price({Counts.REQUESTS: need}, [rpm(amount)], [used])

    assert of(1, 0, 10) < of(1, 5, 10) < of(1, 10, 10) == of(1, 99, 10)
    assert of(10**8, 10**9, 10**9) < 2**53
    assert next_random(1) == 16807
    assert next_random(2**31 - 2) == 2**31 - 1 - 16807


def test_classes_grow_with_the_number_and_are_exact_about_order() -> None:
    classes = [room_class(number) for number in range(1, 5_000)]
    assert classes == sorted(classes)
    for number in (1, 2, 3, 7, 8, 9, 100, 1_023, 1_024, 30_000, 10**9, 2**53 + 1):
        floor = [n for n in range(max(1, number - 3), number + 4) if room_class(n) > room_class(number)]
        assert all(n >= number for n in floor)
    assert room_class(10**15) < OPEN


# ── tests of a domain that rested ───────────────────────────────────────────────────────────────


def test_after_a_rest_one_call_tests_the_domain() -> None:
    ledger = QuotaLedger([[rpm(10)]])
    ledger.penalize(0, NOW + 1_000, NOW, canary=True)
    assert isinstance(ledger.acquire(ask("a"), NOW + 999, 1), Refusal)
    assert ledger.acquire(ask("a"), NOW + 1_000, 1) == Grant("a", 0, canary=True)
    assert ledger.acquire(ask("b"), NOW + 1_001, 1) == Refusal(NOW + 1_000 + TTL, "rest")
    ledger.settle("a", {}, NOW + 2_000, served=False)
    assert ledger.acquire(ask("c"), NOW + 2_000, 1) == Grant("c", 0, canary=True)
    ledger.settle("c", {}, NOW + 3_000)
    assert ledger.acquire(ask("d"), NOW + 3_000, 1) == Grant("d", 0)
    assert ledger.acquire(ask("e"), NOW + 3_000, 1) == Grant("e", 0)


def test_a_test_that_was_cancelled_or_abandoned_is_made_again() -> None:
    ledger = QuotaLedger([[rpm(10)]])
    ledger.penalize(0, NOW, NOW, canary=True)
    assert ledger.acquire(ask("a"), NOW, 1) == Grant("a", 0, canary=True)
    ledger.cancel("a", NOW)
    assert ledger.acquire(ask("b"), NOW, 1) == Grant("b", 0, canary=True)
    refusal = ledger.acquire(ask("c"), NOW + 1, 1)
    assert refusal == Refusal(NOW + TTL, "rest")
    assert isinstance(ledger.acquire(ask("c"), NOW + TTL - 1, 1), Refusal)
    assert ledger.acquire(ask("c"), NOW + TTL, 1) == Grant("c", 0, canary=True)
    ledger.reopen(0, NOW + TTL)
    assert ledger.acquire(ask("d"), NOW + TTL, 1) == Grant("d", 0)


def test_a_limit_told_counts_at_once() -> None:
    ledger = QuotaLedger([[rpm(10)]])
    for number in range(4):
        ledger.acquire(ask(str(number)), NOW, number + 1)
    ledger.learn(0, rpm(4), NOW)
    assert isinstance(ledger.acquire(ask("x"), NOW, 1), Refusal)
    ledger.learn(0, rpm(5), NOW)
    assert domain_of(ledger.acquire(ask("x"), NOW, 1)) == 0
    ledger.learn(0, tpm(100), NOW + 70_000)
    assert domain_of(ledger.acquire(ask("y", 60), NOW + 70_000, 1)) == 0
    assert ledger.acquire(ask("z", 60), NOW + 70_000, 1) == Refusal(NOW + 130_400, "tpm-total")


# ── late and lost ───────────────────────────────────────────────────────────────────────────────


def test_a_dead_caller_keeps_its_charge_and_gives_back_its_slot() -> None:
    slots = Limit("slots", Counts.SLOTS, 1, Kind.CONCURRENT)
    output = Limit("out", Counts.OUTPUT, 10, mode=Mode.ENVELOPE)
    ledger = QuotaLedger([[slots, output]])
    ledger.acquire(ask("a", 7), NOW, 1)
    ledger.advance(NOW + TTL)
    assert ledger.accounts[0].used == [0, 7]
    ledger.settle("a", {Counts.OUTPUT: 4}, NOW + TTL + 5)
    assert ledger.accounts[0].used == [0, 4], "the estimate went, the truth came, from now on"
    end = NOW + TTL + 200 + 60_000
    ledger.advance(end - 1)
    assert ledger.accounts[0].used == [0, 4]
    ledger.advance(end)
    assert ledger.accounts[0].used == [0, 0]


def test_what_was_used_beyond_an_estimate_that_expired_is_charged_anew() -> None:
    ledger = QuotaLedger([[tpm(100)]])
    ledger.acquire(ask("a", 30), NOW, 1)
    ledger.advance(NOW + 60_400)
    assert ledger.accounts[0].used == [0]
    ledger.settle("a", {Counts.TOTAL: 45}, NOW + 70_000)
    assert ledger.accounts[0].used == [15]
    ledger.settle("a", {Counts.TOTAL: 45}, NOW + 70_001)
    assert ledger.accounts[0].used == [15]


# ── cost ────────────────────────────────────────────────────────────────────────────────────────


class Counted(Account):
    """Counts what is done to accounts."""

    done: ClassVar[Counter[str]] = Counter()

    def fits(self, costs: Costs, now: int) -> bool:
        self.done["fits"] += 1
        return super().fits(costs, now)

    def price(self, costs: Costs) -> int:
        self.done["price"] += 1
        return super().price(costs)

    def room(self, now: int) -> int:
        self.done["room"] += 1
        return super().room(now)

    def release(self, number: int, expires: int) -> None:
        self.done["release"] += 1
        super().release(number, expires)


def operations(monkeypatch: pytest.MonkeyPatch, domains: int, admissions: int) -> dict[str, float]:
    """Operations per admission in a pool that is used to 60 % throughout."""
    monkeypatch.setattr("headgate.policy.quota.books.Account", Counted)
    chance = Random(11)
    limits = [rpm(40), tpm(40_000)]
    ledger = QuotaLedger([limits for _ in range(domains)])
    step = 60_000 / (0.6 * 40 * domains)
    warm = int(24 * domains * 1.2) if domains < 1_000 else 0
    now, settles = float(NOW), []
    for number in range(warm + admissions):
        if number == warm:
            Counted.done.clear()
        now += step
        rid = str(number)
        answer = ledger.acquire(
            ask(rid, chance.randint(100, 1_000)), int(now), chance.randint(1, 10**9)
        )
        assert isinstance(answer, Grant), answer
        settles.append(rid)
        if len(settles) > 3:
            ledger.settle(settles.pop(0), {Counts.TOTAL: 90}, int(now))
    return {name: count / admissions for name, count in Counted.done.items()}


def test_an_admission_costs_the_same_among_10_and_among_10_000(monkeypatch: pytest.MonkeyPatch) -> None:
    few = operations(monkeypatch, 10, 3_000)
    many = operations(monkeypatch, 10_000, 3_000)
    without_time = {name: count for name, count in few.items() if name != "release"}
    for name, count in without_time.items():
        assert many[name] <= 1.2 * count, f"{name}: {count:.2f} among 10, {many[name]:.2f} among 10 000"
    assert few["fits"] <= 13
    assert few["release"] <= 2.05, "a bucket of a limit is released once"


def test_a_large_ask_costs_what_a_small_one_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for tokens in (1, 30_000):
        monkeypatch.setattr("headgate.policy.quota.books.Account", Counted)
        ledger = QuotaLedger([[rpm(100), tpm(10**9)] for _ in range(50)])
        Counted.done.clear()
        for number in range(500):
            ledger.acquire(ask(str(number), tokens), NOW + number, number + 1)
        ledger.advance(NOW + 120_000)
        counts.append(dict(Counted.done))
    assert counts[0] == counts[1]


def test_a_pool_of_which_most_rest_finds_the_one_that_does_not() -> None:
    ledger = QuotaLedger([[rpm(5)] for _ in range(1_000)])
    for handle in range(1_000):
        if handle != 617:
            ledger.penalize(handle, NOW + 60_000, NOW)
    assert domain_of(ledger.acquire(ask("a"), NOW, 1)) == 617
