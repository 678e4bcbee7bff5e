"""Paced limits and restored charges, instant by instant."""

from __future__ import annotations

import pytest

from headgate.core.quota import Ask, Costs, Counts, Grant, Kind, Limit, Mode, Refusal, Restore
from headgate.policy.quota.ledger import QuotaLedger
from headgate.policy.quota.pacing import QUIET, Pace

NOW = 1_772_000_000_000
WINDOW = 60_000
ONE: Costs = {Counts.REQUESTS: 1}
TEN = Limit("rpm", Counts.REQUESTS, 10, guard=49)  # five at once, and one each 12 010 ms
APART = 12_010
TOKENS = Limit("tpm", Counts.TOTAL, 900, guard=49)
UNIT = 60_050 / 450  # milliseconds a token, at the first burst


def paced(*limits: Limit, rested: bool = True) -> QuotaLedger:
    """A domain paced since before NOW; with all of its burst unless it is to be otherwise."""
    ledger = QuotaLedger([list(limits)])
    ledger.pace(0, "", NOW - (59_000 if not rested else 120_100))
    ledger.advance(NOW)
    return ledger


def pace_of(ledger: QuotaLedger, number: int = 0) -> Pace:
    return ledger.accounts[0].paces[number]


def take(ledger: QuotaLedger, rid: str, moment: int, cost: int = 1) -> None:
    costs = {Counts.REQUESTS: cost, Counts.TOTAL: cost}
    assert isinstance(ledger.acquire(Ask(rid, costs), moment, 1), Grant), f"{rid} at {moment - NOW}"


def wait(ledger: QuotaLedger, moment: int, cost: int = 1) -> int | None:
    """How long an ask waits that is refused now: exactly, unless the pace changes before."""
    ask = Ask("refused", {Counts.REQUESTS: cost, Counts.TOTAL: cost})
    refusal = ledger.acquire(ask, moment, 1)
    assert isinstance(refusal, Refusal), refusal
    assert refusal.limit == ledger.accounts[0].limits[0].name
    assert refusal.at is not None
    return refusal.at - moment


# ── the burst and the pace ──────────────────────────────────────────────────────────────────────


def test_at_first_nothing_of_the_burst_is_free() -> None:
    ledger = QuotaLedger([[TEN]])
    ledger.pace(0, "rpm", NOW)
    assert pace_of(ledger).burst == 5
    assert wait(ledger, NOW) == APART
    assert isinstance(ledger.acquire(Ask("a", ONE), NOW + APART - 1, 1), Refusal)
    take(ledger, "a", NOW + APART)
    assert wait(ledger, NOW + APART) == APART


def test_half_of_the_limit_goes_at_once_then_one_by_one() -> None:
    ledger = paced(TEN)
    for number in range(5):
        take(ledger, str(number), NOW)
    assert wait(ledger, NOW) == APART
    assert wait(ledger, NOW, cost=2) == 2 * APART
    assert ledger._choice.index == [], "it is not looked at before"
    take(ledger, "later", NOW + APART)
    assert wait(ledger, NOW + APART) == APART


def test_each_refusal_halves_the_burst_down_to_one() -> None:
    ledger = paced(TEN)
    bursts = []
    for step in range(1, 5):
        ledger.pace(0, "rpm", NOW + 50 * step)
        bursts.append(pace_of(ledger).burst)
    assert bursts == [2, 1, 1, 1]
    ledger.pace(0, "rpm", NOW + 100_000)
    assert pace_of(ledger).due == NOW + 100_000 + WINDOW


def test_refusals_of_one_burst_are_one_event() -> None:
    ledger = paced(TEN)
    ledger.pace(0, "rpm", NOW)
    for late in (0, 1, 49):
        ledger.pace(0, "rpm", NOW + late)
    assert pace_of(ledger).burst == 2
    ledger.pace(0, "rpm", NOW + 50)
    assert pace_of(ledger).burst == 1


def test_what_is_taken_stays_taken_where_the_burst_shrinks() -> None:
    ledger = paced(TEN)
    for number in range(3):
        take(ledger, str(number), NOW)
    ledger.pace(0, "rpm", NOW)  # three taken of a burst of two: one must be given back, at 8 a window
    apart = 60_050 / 8
    assert wait(ledger, NOW) == pytest.approx(2 * apart, abs=2)


def test_where_calls_wait_the_burst_shrinks_and_the_pace_grows() -> None:
    ledger = paced(TEN)
    for number in range(200):
        answer = ledger.acquire(Ask(str(number), ONE), NOW + number * 1_500, 1)
        assert isinstance(answer, Grant | Refusal)
    assert pace_of(ledger).burst <= 2
    assert sum(ledger.accounts[0].used) >= 8, "eight or nine a minute instead of five"


def test_a_limit_that_is_always_busy_stays_paced() -> None:
    ledger = paced(TEN)
    for step in range((QUIET + 2 * WINDOW) // 6_000):
        for number in range(2):
            ledger.acquire(Ask(f"{step} {number}", ONE), NOW + step * 6_000, 1)
    assert pace_of(ledger).burst < 5


def test_where_nothing_is_asked_the_burst_grows_and_pacing_ends() -> None:
    ledger = paced(TEN)
    for step in range(3):
        ledger.pace(0, "rpm", NOW + 50 * step)
    told = NOW + 100
    assert pace_of(ledger).burst == 1
    bursts = []
    for window in range(1, 6):
        ledger.advance(told + window * WINDOW)
        bursts.append(pace_of(ledger).burst)
    assert bursts == [2, 3, 4, 5, 5]
    ledger.advance(told + QUIET - 1)
    assert ledger.accounts[0].paces
    ledger.advance(told + QUIET + WINDOW)
    assert not ledger.accounts[0].paces
    assert ledger.accounts[0].paced == 0
    for number in range(10):
        take(ledger, str(number), told + QUIET + WINDOW)


def test_windows_nobody_looked_at_count() -> None:
    ledger = paced(TEN)
    for step in range(3):
        ledger.pace(0, "rpm", NOW + 50 * step)
    ledger.advance(NOW + 100 + 3 * WINDOW)
    assert pace_of(ledger).burst == 4


def test_a_burst_that_is_partly_taken_stays() -> None:
    ledger = paced(TEN)
    ledger.pace(0, "rpm", NOW)
    take(ledger, "a", NOW + WINDOW - 4_000)  # given back in 7 506 ms each
    take(ledger, "b", NOW + WINDOW - 3_000)
    ledger.advance(NOW + WINDOW)
    assert pace_of(ledger).burst == 1, "more than half was taken"
    other = paced(TEN)
    other.pace(0, "rpm", NOW)
    take(other, "a", NOW + WINDOW - 5_000)
    other.advance(NOW + WINDOW)
    assert pace_of(other).burst == 2, "some, but less than half"


def test_the_burst_of_tokens_grows_in_larger_steps() -> None:
    ledger = paced(TOKENS)
    for step in range(12):
        ledger.pace(0, "tpm", NOW + 50 * step)
    assert pace_of(ledger).burst == 1
    ledger.advance(NOW + 550 + WINDOW)
    assert pace_of(ledger).burst == 1 + 900 // 64


@pytest.mark.parametrize(
    "limit",
    [
        Limit("one", Counts.REQUESTS, 1),
        Limit("day", Counts.REQUESTS, 9, Kind.CALENDAR),
        Limit("slots", Counts.SLOTS, 9, Kind.CONCURRENT),
    ],
    ids=lambda limit: limit.name,
)
def test_some_limits_are_not_paced(limit: Limit) -> None:
    ledger = QuotaLedger([[limit]], [NOW + 86_400_000])
    ledger.pace(0, "", NOW)
    assert not ledger.accounts[0].paces
    assert ledger.accounts[0].paced == 0


def test_of_two_limits_the_named_one_is_paced_and_the_slower_binds() -> None:
    slow = Limit("slow", Counts.REQUESTS, 4, guard=49)
    ledger = QuotaLedger([[TEN, slow]])
    ledger.pace(0, "nobody's", NOW)
    ledger.pace(0, "slow", NOW)
    assert set(ledger.accounts[0].paces) == {1}
    ledger.pace(0, "", NOW + 1)
    assert set(ledger.accounts[0].paces) == {0, 1}
    assert ledger.acquire(Ask("a", ONE), NOW + 1, 1) == Refusal(NOW + 60_050 // 2, "slow")
    assert ledger._choice.index == [], "neither limit lets one go, and one alone is not enough"
    ledger.advance(NOW + APART + 100)
    assert ledger._choice.index == []


# ── what calls use ──────────────────────────────────────────────────────────────────────────────


def test_a_cancelled_call_gives_its_part_of_the_burst_back() -> None:
    ledger = paced(TEN)
    for number in range(5):
        take(ledger, str(number), NOW)
    ledger.cancel("2", NOW)
    take(ledger, "again", NOW)
    assert wait(ledger, NOW) == APART
    ledger.cancel("0", NOW + APART - 10)  # all but 10 ms of it has been given back by now
    take(ledger, "more", NOW + APART - 10)
    assert wait(ledger, NOW + APART - 10) == pytest.approx(APART, abs=2)


def test_a_settled_call_corrects_the_pace() -> None:
    ledger = paced(TOKENS)
    take(ledger, "a", NOW, 450)
    assert wait(ledger, NOW, 100) == pytest.approx(100 * UNIT, abs=2)
    ledger.settle("a", {Counts.TOTAL: 400}, NOW)
    assert wait(ledger, NOW, 100) == pytest.approx(50 * UNIT, abs=2)
    take(ledger, "b", NOW, 50)
    ledger.settle("b", {Counts.TOTAL: 150}, NOW)
    assert wait(ledger, NOW, 100) == pytest.approx(200 * UNIT, abs=3)


def test_what_was_given_back_is_not_given_back_again() -> None:
    ledger = paced(TOKENS)
    take(ledger, "a", NOW, 100)
    passed = int(100 * UNIT) + 1
    ledger.settle("a", {Counts.TOTAL: 1}, NOW + passed)
    take(ledger, "b", NOW + passed, 450)
    assert wait(ledger, NOW + passed, 100) == pytest.approx(100 * UNIT, abs=2)


def test_a_repeated_ask_takes_the_pace_from_the_repetition() -> None:
    ledger = paced(TEN)
    for number in range(5):
        take(ledger, str(number), NOW)
    before = pace_of(ledger).arrival
    take(ledger, "4", NOW)
    assert pace_of(ledger).arrival == before, "the same instant, the same call"
    take(ledger, "0", NOW + 10_000)
    assert pace_of(ledger).arrival == pytest.approx(before + 10_000_000, abs=10)


# ── large calls ─────────────────────────────────────────────────────────────────────────────────


def test_a_call_above_the_burst_raises_it() -> None:
    """It waits until the burst is empty, and then for its own excess, at the pace it leaves."""
    ledger = paced(TOKENS, rested=False)
    apart = 60_050 / 300
    ready = pace_of(ledger).arrival / 1000 + 150 * apart
    ask = Ask("a", {Counts.TOTAL: 600})
    assert isinstance(ledger.acquire(ask, int(ready) - 2, 1), Refusal)
    assert pace_of(ledger).burst == 450
    take(ledger, "a", int(ready) + 2, 600)
    assert pace_of(ledger).burst == 600
    # The next waits for the look at the burst at the latest.
    assert wait(ledger, int(ready) + 2, 100) == pytest.approx(100 * apart, abs=2)


def test_a_call_that_is_sent_anyway_raises_nothing() -> None:
    ledger = paced(TOKENS)
    take(ledger, "a", NOW, 450)
    ledger.charge(Ask("b", {Counts.TOTAL: 500}), 0, NOW)
    assert pace_of(ledger).burst == 450
    assert pace_of(ledger).arrival / 1000 - NOW == pytest.approx(950 * UNIT, abs=2)


def test_a_call_above_two_thirds_goes_alone() -> None:
    ledger = paced(TOKENS, rested=False)
    arrival = -(-pace_of(ledger).arrival // 1000)
    assert wait(ledger, NOW, 601) == pace_of(ledger).due - NOW, (
        "asked again when the burst is looked at"
    )
    alone = arrival + 2 * 60_050
    assert isinstance(ledger.acquire(Ask("a", {Counts.TOTAL: 601}), alone - 2, 1), Refusal)
    sent = NOW + 180_500  # half a second before the burst is looked at, and shrinks
    take(ledger, "a", sent, 601)
    ledger.advance(sent + 700)
    assert pace_of(ledger).burst == 225
    assert isinstance(ledger.acquire(Ask("b", {Counts.TOTAL: 1}), sent + 120_000, 1), Refusal)
    take(ledger, "b", sent + 2 * 60_050 + 30_000)


def test_a_call_goes_alone_at_the_first_moment_it_can() -> None:
    ledger = paced(TOKENS, rested=False)
    alone = -(-pace_of(ledger).arrival // 1000) + 2 * 60_050
    take(ledger, "a", alone, 601)


def test_a_limit_that_changes_keeps_what_is_taken() -> None:
    ledger = paced(TEN)
    for number in range(5):
        take(ledger, str(number), NOW)
    ledger.learn(0, Limit("rpm", Counts.REQUESTS, 7), NOW)  # at most four at once, three a window
    assert pace_of(ledger).burst == 4
    assert wait(ledger, NOW) == pytest.approx(2 * 60_050 / 3, abs=3)
    ledger.learn(0, Limit("rpm", Counts.REQUESTS, 1), NOW)
    assert not ledger.accounts[0].paces
    assert ledger.accounts[0].paced == 0


def test_in_a_large_pool_a_call_waits_no_longer_than_the_first_pace_lets_it() -> None:
    ledger = QuotaLedger([[TOKENS] for _ in range(70)])
    for handle in range(70):
        ledger.pace(handle, "tpm", NOW)
    ledger.advance(NOW + 59_000)
    refusal = ledger.acquire(Ask("a", {Counts.TOTAL: 449}), NOW + 59_000, 1)
    assert refusal == Refusal(NOW + 59_001), "six have not been looked at"
    for handle in range(6):
        ledger.shut(handle, NOW + 59_000)
    refusal = ledger.acquire(Ask("a", {Counts.TOTAL: 449}), NOW + 59_000, 1)
    assert refusal == Refusal(NOW + int(449 * UNIT))
    for handle in range(6, 70):
        ledger.penalize(handle, NOW + 90_000, NOW + 59_500)
    refusal = ledger.acquire(Ask("a", {Counts.TOTAL: 449}), NOW + 59_950, 1)
    assert refusal == Refusal(NOW + 60_000), "the looks at the bursts; nobody waits for a pace"


# ── restored charges ────────────────────────────────────────────────────────────────────────────


def test_restored_amounts_are_absolute_by_member_and_bucket() -> None:
    day = Limit("rpd", Counts.REQUESTS, 100, Kind.CALENDAR, mode=Mode.ENVELOPE)
    slots = Limit("slots", Counts.SLOTS, 9, Kind.CONCURRENT)
    ledger = QuotaLedger([[TEN, day, slots], [TEN]], [NOW + 86_400_000])
    for member, limit, expires, amount in (
        ("a", "rpm", NOW + 500, 3), ("a", "rpm", NOW + 500, 3), ("b", "rpm", NOW + 500, 2),
        ("a", "rpm", NOW + 900, 1), ("a", "rpd", NOW + 900, 40), ("b", "rpd", NOW + 900, -5),
        ("a", "slots", NOW + 900, 1), ("a", "other", NOW + 900, 1), ("a", "", NOW + 900, 1),
        ("a", "rpm", NOW, 9), ("b", "rpm", NOW + 500, 1), ("a", "rpd", NOW + 900, 30),
    ):  # fmt: skip
        ledger.restore(Restore(member, 0, limit, expires, amount), NOW)
    ledger.restore(Restore("a", 2, "rpm", NOW + 900, 1), NOW)
    ledger.restore(Restore("a", -1, "rpm", NOW + 900, 1), NOW)
    ledger.restore(Restore("c", 0, "rpm", NOW, 9), NOW)
    assert ledger.accounts[0].used == [5, 30, 0]
    assert ledger.accounts[1].used == [0]
    assert set(ledger._restored) == {(0, 0, NOW + 500), (0, 0, NOW + 900), (0, 1, NOW + 900)}
    ledger.advance(NOW + 500)
    assert ledger.accounts[0].used == [1, 30, 0]
    ledger.advance(NOW + 900)
    assert ledger.accounts[0].used == [0, 0, 0]
    assert not ledger._restored, "nothing is remembered of what has ended"


def test_a_full_restored_limit_closes_the_domain_and_its_end_opens_it() -> None:
    ledger = QuotaLedger([[TEN]])
    ledger.restore(Restore("a", 0, "rpm", NOW + 70_000, 10), NOW)
    assert ledger.acquire(Ask("a", ONE), NOW, 1) == Refusal(NOW + 70_000, "rpm")
    ledger.restore(Restore("a", 0, "rpm", NOW + 70_000, 9), NOW)
    take(ledger, "a", NOW)
    ledger.settle("a", ONE, NOW)
    assert ledger.accounts[0].buckets == [{NOW + 70_000: 9, NOW + 60_100: 1}]
