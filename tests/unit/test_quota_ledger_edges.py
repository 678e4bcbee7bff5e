"""The quota ledger where it is easily wrong: large pools, repeats, unnamed costs, lost resets."""

from __future__ import annotations

import pytest

from headgate.core.quota import Ask, Costs, Counts, Grant, Kind, Limit, Mode, Refusal
from headgate.policy.quota.ledger import TTL, QuotaLedger
from headgate.policy.quota.price import next_random, next_seed
from headgate.policy.quota.windows import DAY, expiry

NOW = 1_772_000_000_000
ONE: Costs = {Counts.REQUESTS: 1}
RPM = Limit("rpm", Counts.REQUESTS, 1)
SLOTS = Limit("slots", Counts.SLOTS, 1, Kind.CONCURRENT)


def both(tokens: int, output: int) -> list[Limit]:
    return [Limit("in", Counts.INPUT, tokens), Limit("out", Counts.OUTPUT, output)]


# ── refusals ────────────────────────────────────────────────────────────────────────────────────


def test_a_slot_is_waited_for_until_the_first_reservation_lapses() -> None:
    ledger = QuotaLedger([[SLOTS], [SLOTS]])
    ledger.acquire(Ask("a", ONE), NOW, 1)
    ledger.acquire(Ask("b", ONE), NOW + 500, 1)
    assert ledger.acquire(Ask("c", ONE), NOW + 30_000, 1) == Refusal(NOW + TTL, "slots")
    ledger.renew("a", NOW + 40_000)
    assert ledger.acquire(Ask("c", ONE), NOW + 50_000, 1) == Refusal(NOW + 500 + TTL, "slots")
    assert isinstance(ledger.acquire(Ask("c", ONE), NOW + 500 + TTL, 1), Grant)


def test_what_an_envelope_holds_in_flight_is_waited_for_a_window_after_the_first_lapse() -> None:
    limit = Limit("otpm", Counts.OUTPUT, 10, mode=Mode.ENVELOPE)
    ledger = QuotaLedger([[limit]])
    ledger.acquire(Ask("a", {Counts.OUTPUT: 10}), NOW, 1)
    refusal = ledger.acquire(Ask("b", {Counts.OUTPUT: 1}), NOW + 7, 1)
    assert refusal == Refusal(NOW + TTL + 100 + 60_000, "otpm")
    ledger.advance(NOW + TTL)
    assert isinstance(ledger.acquire(Ask("b", {Counts.OUTPUT: 1}), refusal.at - 1, 1), Refusal)
    assert isinstance(ledger.acquire(Ask("b", {Counts.OUTPUT: 1}), refusal.at, 1), Grant)


def full_band(domains: int) -> QuotaLedger:
    """Domains that perhaps have room for an ask of 900 and 9: only their tightest limit is short."""
    ledger = QuotaLedger([both(1000, 10) for _ in range(domains)])
    for handle in range(domains):
        ledger.charge(Ask(f"fill {handle}", {Counts.INPUT: 200, Counts.OUTPUT: 1}), handle, NOW)
    return ledger


def test_a_search_that_was_cut_goes_on_with_the_next_ask() -> None:
    ledger = full_band(200)
    ask = {Counts.INPUT: 900, Counts.OUTPUT: 9}
    ledger.settle("fill 150", {Counts.INPUT: 0, Counts.OUTPUT: 1}, NOW)
    times = [NOW]
    while True:
        answer = ledger.acquire(Ask("large", ask), times[-1], 1)
        if isinstance(answer, Grant):
            break
        assert answer == Refusal(times[-1] + 1), "three quarters have not been looked at"
        times.append(answer.at)
    assert answer.domain == 150
    assert len(times) <= 4, "64 domains at a time"


def test_a_search_of_all_there_is_waits_for_what_happens_next() -> None:
    ledger = full_band(64)
    ask = Ask("large", {Counts.INPUT: 900, Counts.OUTPUT: 9})
    assert ledger.acquire(ask, NOW + 1, 1) == Refusal(NOW + 60_400, "in")
    more = full_band(65)
    for handle in (3, 4):
        more.shut(handle, NOW)
    assert more.acquire(ask, NOW + 1, 1) == Refusal(NOW + 60_400), "63 are looked at in one search"


def test_one_search_that_was_cut_says_nothing_of_the_next() -> None:
    ledger = full_band(100)
    large = {Counts.INPUT: 900, Counts.OUTPUT: 9}
    assert ledger.acquire(Ask("large", large), NOW, 1) == Refusal(NOW + 1)
    others = {Counts.INPUT: 1000, Counts.OUTPUT: 10}
    for handle in range(100):
        ledger.charge(Ask(f"more {handle}", others), handle, NOW)
    assert ledger.acquire(Ask("small", ONE), NOW, 1) == Refusal(NOW + 60_400)


def test_where_nothing_will_happen_nobody_comes_back() -> None:
    ledger = QuotaLedger([[RPM] for _ in range(65)])
    for handle in range(65):
        ledger.shut(handle, NOW)
    assert ledger.acquire(Ask("a", ONE), NOW, 1) == Refusal(None)
    ledger.penalize(7, NOW + 5_000, NOW)
    assert ledger.acquire(Ask("a", ONE), NOW, 1) == Refusal(NOW + 5_000)


# ── costs ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("costs", [{}, {Counts.REQUESTS: 1}, {Counts.INPUT: 0, Counts.REQUESTS: 1}])
def test_of_whatever_is_counted_a_call_takes_one(costs: Costs) -> None:
    ledger = QuotaLedger([[Limit("rpm", Counts.REQUESTS, 9), Limit("tpm", Counts.INPUT, 2)]])
    for rid in "ab":
        assert isinstance(ledger.acquire(Ask(rid, costs), NOW, 1), Grant)
    assert ledger.accounts[0].used == [2, 2]
    assert ledger.acquire(Ask("c", costs), NOW, 1) == Refusal(NOW + 60_400, "tpm")
    ledger.settle("a", {Counts.INPUT: 0}, NOW)
    assert isinstance(ledger.acquire(Ask("c", costs), NOW, 1), Grant), "it used nothing after all"


def test_a_cost_nobody_limits_does_not_matter() -> None:
    pool = [[Limit("in", Counts.INPUT, 1_000)] for _ in range(40)]
    ledger = QuotaLedger(pool)
    many = {Counts.INPUT: 10, Counts.OUTPUT: 10**9}
    assert isinstance(ledger.acquire(Ask("a", many), NOW, 1), Grant)
    ledger.learn(0, Limit("out", Counts.OUTPUT, 10), NOW)
    assert isinstance(ledger.acquire(Ask("b", many, exclude=range(1, 40)), NOW, 1), Refusal)
    assert isinstance(ledger.acquire(Ask("c", {Counts.INPUT: 9}, exclude=range(1, 40)), NOW, 1), Grant)


def test_the_middle_band_begins_at_the_cost_that_is_not_named() -> None:
    ledger = QuotaLedger([both(49_000, 5)])
    assert isinstance(ledger.acquire(Ask("a", {Counts.INPUT: 30_000}), NOW, 1), Grant)


def test_what_is_left_of_a_day_is_told_with_each_grant() -> None:
    days = [
        Limit("rpd", Counts.REQUESTS, 3, Kind.CALENDAR),
        Limit("tpd", Counts.INPUT, 50, Kind.CALENDAR),
    ]
    ledger = QuotaLedger([[days[0], RPM, days[1]], [RPM]], [NOW + DAY])
    costs = {Counts.REQUESTS: 1, Counts.INPUT: 20}
    first = ledger.charge(Ask("a", costs), 0, NOW)
    assert first == Grant("a", 0, left=(2, 30))
    assert ledger.charge(Ask("b", costs), 0, NOW).left == (1, 10)
    assert ledger.charge(Ask("c", costs), 0, NOW).left == (0, 0), (
        "there is no room for it, and it is sent"
    )
    assert ledger.accounts[0].used == [3, 3, 60]
    assert ledger.charge(Ask("d", costs), 1, NOW).left == ()
    assert ledger.charge(Ask("a", costs), 1, NOW + 1) == Grant("a", 0, left=(0, 0)), "charged once"
    assert ledger.accounts[1].used == [1]


# ── repeats ─────────────────────────────────────────────────────────────────────────────────────


def test_an_ask_that_is_repeated_is_charged_from_the_repetition() -> None:
    ledger = QuotaLedger([[RPM]])
    for moment in (NOW, NOW, NOW + 20, NOW + 30_000):
        assert ledger.acquire(Ask("a", ONE), moment, 1) == Grant("a", 0)
        assert ledger.accounts[0].used == [1]
    assert ledger.acquire(Ask("b", ONE), NOW + 60_400, 1) == Refusal(NOW + 90_400, "rpm")


def test_a_repeated_ask_keeps_its_reservation_alive() -> None:
    ledger = QuotaLedger([[SLOTS]])
    ledger.acquire(Ask("a", ONE), NOW, 1)
    ledger.acquire(Ask("a", ONE), NOW + TTL - 1, 1)
    assert isinstance(ledger.acquire(Ask("b", ONE), NOW + TTL, 1), Refusal)


def test_where_the_charge_has_ended_the_same_id_is_a_new_ask() -> None:
    day = Limit("rpd", Counts.REQUESTS, 9, Kind.CALENDAR)
    ledger = QuotaLedger([[RPM, day]], [NOW + DAY])
    ledger.acquire(Ask("a", ONE), NOW, 1)
    ledger.acquire(Ask("b", ONE), NOW + 60_400, 1)
    assert isinstance(ledger.acquire(Ask("a", ONE), NOW + 60_500, 1), Refusal), "another took its place"
    assert ledger.accounts[0].used == [1, 2], "the first may have been sent: its day stays charged"
    assert isinstance(ledger.acquire(Ask("a", ONE), NOW + 120_800, 1), Grant)


def test_the_id_of_an_abandoned_reservation_is_a_new_ask() -> None:
    ledger = QuotaLedger([[SLOTS, Limit("rpd", Counts.REQUESTS, 2, Kind.CALENDAR)]], [NOW + DAY])
    for moment in (NOW, NOW + TTL):
        assert isinstance(ledger.acquire(Ask("a", ONE), moment, 1), Grant)
    assert ledger.accounts[0].used == [1, 2]
    assert isinstance(ledger.acquire(Ask("b", ONE), NOW + TTL, 1), Refusal)


# ── penalties ───────────────────────────────────────────────────────────────────────────────────


def test_a_rest_that_begins_during_a_test_does_not_forget_it() -> None:
    ledger = QuotaLedger([[Limit("rpm", Counts.REQUESTS, 9)]])
    ledger.penalize(0, NOW, NOW, canary=True)
    assert ledger.acquire(Ask("a", ONE), NOW, 1) == Grant("a", 0, canary=True)
    ledger.penalize(0, NOW + 500, NOW)
    ledger.settle("a", ONE, NOW)
    assert ledger.acquire(Ask("b", ONE), NOW + 500, 1) == Grant("b", 0, canary=True)


def test_a_penalty_told_twice_is_one() -> None:
    ledger = QuotaLedger([[Limit("rpm", Counts.REQUESTS, 9)]])
    for _ in range(2):
        ledger.penalize(0, NOW + 500, NOW, canary=True)
    assert ledger.acquire(Ask("a", ONE), NOW + 500, 1) == Grant("a", 0, canary=True)
    ledger.penalize(0, NOW + 500, NOW + 501, canary=True)
    assert isinstance(ledger.acquire(Ask("b", ONE), NOW + 501, 1), Refusal), "the test goes on"
    ledger.settle("a", ONE, NOW + 502)
    ledger.penalize(0, NOW + 500, NOW + 503, canary=True)
    assert ledger.acquire(Ask("b", ONE), NOW + 503, 1) == Grant("b", 0)
    ledger.penalize(0, NOW + 900, NOW + 600)
    ledger.penalize(0, NOW + 700, NOW + 600, canary=True)
    assert ledger.acquire(Ask("c", ONE), NOW + 900, 1) == Grant("c", 0, canary=True), "asked for"


# ── resets, chance ──────────────────────────────────────────────────────────────────────────────


def test_without_a_reset_to_come_a_charge_is_held_longer_than_any_day() -> None:
    day = Limit("rpd", Counts.REQUESTS, 1, Kind.CALENDAR)
    ledger = QuotaLedger([[day]], [NOW - 5])
    assert ledger.acquire(Ask("a", ONE), NOW, 1) == Grant("a", 0, left=(0,))
    assert ledger.acquire(Ask("b", ONE), NOW, 1) == Refusal(NOW + 350 + 2 * DAY, "rpd")
    ledger.resets = [NOW + 60_000]
    ledger.settle("a", ONE, NOW)
    assert ledger.acquire(Ask("b", ONE), NOW + 350 + 2 * DAY, 1) == Grant("b", 0, left=(0,))
    assert expiry(day, NOW, [NOW + 60_000]) == NOW + 120_000


def test_the_draws_of_one_ask_do_not_foretell_those_of_the_next() -> None:
    """A seed one higher draws a fixed distance away: the very same domains of 7, 49, 2401 …"""
    assert next_seed(1) == 48271
    for domains in (7, 49, 100, 2401):
        seed, same = 17, 0
        for _ in range(1000):
            following = next_seed(seed)
            same += next_random(seed) % domains == next_random(following) % domains
            seed = following
        assert same <= 1000 * 3 / domains, f"{same} of 1000 among {domains}"
