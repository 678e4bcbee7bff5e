"""What a process may send without the store: the arithmetic of shares, a journal that keeps to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from headgate.core.quota import Ask, Counts, Grant, Kind, Limit, Mode, Refusal
from headgate.policy.quota.journal import FAR, Journal
from headgate.policy.quota.share import (
    LATE,
    LONGEST_CALL,
    Standing,
    Terms,
    day_terms,
    most_used,
    share_of,
    terms,
)
from headgate.policy.quota.windows import RESET_LATE

DAY = 86_400_000
RPM = Limit("rpm", Counts.REQUESTS, 10)
RPD = Limit("rpd", Counts.REQUESTS, 100, Kind.CALENDAR, DAY)
OTPM = Limit("otpm", Counts.OUTPUT, 100, mode=Mode.ENVELOPE)
SLOTS = Limit("slots", Counts.SLOTS, 4, Kind.CONCURRENT)
RESETS = [10 * DAY, 11 * DAY, 12 * DAY, 13 * DAY]
NOON = 10 * DAY + DAY // 2


def ask(rid: str, **costs: int) -> Ask:
    return Ask(rid, {Counts(name): amount for name, amount in costs.items()})


# ── shares ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("amount", [1, 2, 3, 10, 17, 1000])
@pytest.mark.parametrize("processes", [1, 2, 4, 16, 33])
def test_ranked_shares_add_up_to_the_limit_and_unranked_ones_to_no_more(
    amount: int, processes: int
) -> None:
    assert sum(share_of(amount, processes, rank) for rank in range(processes)) == amount
    assert 0 <= amount - share_of(amount, processes) * processes < processes


def test_who_does_not_know_the_others_or_is_not_known_has_no_share() -> None:
    assert Standing(0).share(100) == 0
    assert Standing(4, entitled=False).share(100) == 0
    assert Standing(4, rank=1).share(6) == 2


# ── terms of windows ────────────────────────────────────────────────────────────────────────────


def test_the_cap_stands_until_everything_the_store_can_have_granted_has_ended() -> None:
    who, now = Standing(4, hold=5_000, since=0), 1_000_000
    got = terms(RPM, 7, who, now, ())
    assert (got.cap, got.share) == (7, 2)
    last_grant = now + 5_000
    assert got.until >= last_grant + RPM.guard + RPM.window
    assert got.until <= last_grant + RPM.window + 3 * LATE


def test_where_calls_count_at_their_end_a_call_under_way_is_waited_for() -> None:
    who, now = Standing(4, hold=5_000, since=0), 1_000_000
    assert terms(OTPM, 7, who, now, ()).until >= now + LONGEST_CALL + OTPM.window
    assert terms(SLOTS, 1, who, now, ()).until >= now + LONGEST_CALL


def test_debt_is_no_claim_to_more_than_the_limit() -> None:
    assert terms(RPM, 14, Standing(4, since=0), 1_000_000, ()).cap == RPM.amount


def test_alone_with_a_whole_window_in_the_journal_nothing_changes() -> None:
    now = 1_000_000
    got = terms(RPM, 3, Standing(1, since=now - 70_000), now, ())
    assert got == Terms(RPM.amount, now, RPM.amount)


def test_alone_but_new_the_charges_of_a_predecessor_are_waited_for() -> None:
    now = 1_000_000
    got = terms(RPM, 3, Standing(1, since=now - 20_000), now, ())
    assert got.cap == 3
    assert now + 40_000 < got.until < now + 45_000
    assert terms(RPM, 0, Standing(1), now, ()).until > now + RPM.window  # the store was never there


# ── terms of days ───────────────────────────────────────────────────────────────────────────────


def test_a_day_goes_on_with_the_allowance_until_it_has_ended_everywhere() -> None:
    got = day_terms(RPD, 20, 5, Standing(4, since=0, hold=5_000), NOON, RESETS)
    assert got == Terms(25, RESETS[1] + RESET_LATE + LATE, 25)


def test_a_newcomer_has_no_allowance() -> None:
    got = day_terms(RPD, 2, 5, Standing(4, since=0, entitled=False), NOON, RESETS)
    assert (got.cap, got.share) == (2, 0)


def test_alone_since_yesterday_the_whole_day_is_known() -> None:
    who = Standing(1, since=NOON - DAY)
    assert day_terms(RPD, 20, 0, who, NOON, RESETS).until == NOON
    today = Standing(1, since=NOON - 1_000)
    assert day_terms(RPD, 20, 30, today, NOON, RESETS).cap == 50


def test_what_others_can_have_used_is_bounded_by_the_windows_of_the_same_count() -> None:
    tpm = Limit("tpm", Counts.INPUT, 1_000)
    assert most_used([RPM, tpm, RPD], Counts.REQUESTS, 1) == 10
    assert most_used([RPM, tpm, RPD], Counts.REQUESTS, 60_001) == 20
    assert most_used([RPM, tpm, RPD], Counts.INPUT, 59_000) == 1_000
    assert most_used([RPM, RPD], Counts.INPUT, 1) is None


# ── the journal ─────────────────────────────────────────────────────────────────────────────────


def held_by(journal: Journal, number: int = 0) -> int:
    return journal.held(0, number)


def test_a_cap_refuses_until_it_ends_and_names_that_instant() -> None:
    journal, now = Journal([[RPM]]), 1_000_000
    for n in range(3):
        journal.charge(ask(f"a{n}", requests=1), 0, now)
    journal.bound(lambda *_: Terms(3, now + 30_000, 10), now)
    refused = journal.acquire(ask("b", requests=1), now, 1)
    assert refused == Refusal(now + 30_000, "rpm")
    assert isinstance(journal.acquire(ask("b", requests=1), now + 30_000, 1), Grant)
    assert held_by(journal) == 4


def test_what_is_given_back_may_be_spent_again_below_the_cap() -> None:
    journal, now = Journal([[RPM]]), 1_000_000
    for n in range(3):
        journal.charge(ask(f"a{n}", requests=1), 0, now)
    journal.bound(lambda *_: Terms(3, now + 90_000, 2), now)
    journal.cancel("a0", now)
    assert isinstance(journal.acquire(ask("b", requests=1), now, 1), Grant)
    assert isinstance(journal.acquire(ask("c", requests=1), now, 1), Refusal)


def test_a_share_counts_only_what_is_new_and_keeps_the_name_of_its_limit() -> None:
    journal, now = Journal([[RPM]]), 1_000_000
    for n in range(6):
        journal.charge(ask(f"a{n}", requests=1), 0, now)
    journal.bound(lambda *_: Terms(10, now, 2), now)
    got = [journal.acquire(ask(f"b{n}", requests=1), now, 1) for n in range(3)]
    assert [type(one) for one in got] == [Grant, Grant, Refusal]
    assert isinstance(got[2], Refusal)
    assert got[2].limit == "rpm"
    assert not got[2].never


def test_an_ask_above_the_share_may_still_succeed_one_above_the_limit_never() -> None:
    journal = Journal([[RPM]])
    journal.bound(lambda *_: Terms(0, 90_000, 1), 1_000)
    for cost, never in ((5, False), (11, True)):
        refused = journal.acquire(ask(f"a{cost}", requests=cost), 1_000, 1)
        assert isinstance(refused, Refusal)
        assert refused.never is never


def test_bounds_go_without_a_trace_and_leave_what_was_charged() -> None:
    journal, now = Journal([[RPM, SLOTS], [RPM]]), 1_000_000
    journal.charge(ask("old", requests=1, slots=1), 0, now)
    before = journal.accounts[0].limits, journal.accounts[1].limits
    journal.bound(lambda *_: Terms(9, now + 30_000, 5), now)
    journal.acquire(Ask("new", {Counts.REQUESTS: 1, Counts.SLOTS: 1}, exclude=(1,)), now, 1)
    journal.unbound(now)
    assert (journal.accounts[0].limits, journal.accounts[1].limits) == before
    assert [held_by(journal), journal.held(0, 1)] == [2, 2]
    journal.settle("new", {}, now)
    journal.settle("old", {}, now)
    assert [held_by(journal), journal.held(0, 1)] == [2, 0]
    journal.advance(FAR - 1)
    assert held_by(journal) == 0
    assert not journal.holds_any()


def test_going_again_only_narrows_the_cap_and_keeps_what_counts_as_new() -> None:
    journal, now = Journal([[RPM]]), 1_000_000
    journal.bound(lambda *_: Terms(4, now + 30_000, 2), now)
    journal.acquire(ask("a", requests=1), now, 1)
    journal.acquire(ask("b", requests=1), now, 1)
    journal.bound(lambda *_: Terms(9, now + 50_000, 2), now)
    assert isinstance(journal.acquire(ask("c", requests=1), now, 1), Refusal)
    assert journal.accounts[0].used[0] == RPM.amount - 4 + 2
    assert held_by(journal) == 2


def test_what_will_have_ended_is_not_counted_as_held() -> None:
    journal = Journal([[RPM]])
    journal.charge(ask("a", requests=1), 0, 1_000_000)
    journal.charge(ask("b", requests=1), 0, 1_030_000)
    assert journal.held(0, 0, 1_070_000) == 1
    journal.bound(lambda *_: Terms(1, 1_200_000, 1), 1_030_000)
    assert journal.held(0, 0, 1_070_000) == 1


# ── what changes is told ────────────────────────────────────────────────────────────────────────

ALL = [RPM, OTPM, SLOTS, RPD]


def test_changes_add_up_to_what_is_held_however_a_call_ends() -> None:
    """Told change by change, a store knows the same as if it were told everything at the end."""
    journal = Journal([ALL], RESETS)
    told: Counter[tuple[int, str, int]] = Counter()
    journal.bound(lambda _, number: Terms(ALL[number].amount, NOON, ALL[number].amount), NOON)
    costs = {"requests": 1, "output": 20, "slots": 1}

    def tell(rid: str, now: int, change: Callable[[], object]) -> None:
        for domain, limit, expires, amount in journal.changes(rid, now, change):
            told[domain, limit.name, expires] += amount
        assert +told == Counter(
            {(c.domain, c.limit.name, c.expires): c.amount for c in journal.charges()}
        )
        assert min(told.values()) >= 0

    ends: list[Callable[[str, int], object]] = [
        lambda rid, now: journal.settle(rid, {Counts.OUTPUT: 5}, now),
        lambda rid, now: journal.settle(rid, {Counts.OUTPUT: 35}, now),
        lambda rid, now: journal.settle(rid, {Counts.REQUESTS: 3}, now),
        journal.cancel,
        journal.renew,
        lambda *_: None,
    ]
    for number, end in enumerate(ends):
        rid, now = f"call {number}", NOON + 1_000 * number
        tell(rid, now, partial(journal.acquire, ask(rid, **costs), now, 1))
        tell(rid, now + 500, partial(end, rid, now + 500))


def test_a_reservation_that_lapsed_is_told_to_hold_at_least_as_long() -> None:
    journal, now = Journal([[OTPM]]), 1_000_000
    made = journal.changes("a", now, lambda: journal.charge(ask("a", output=20), 0, now))
    journal.advance(now + 90_000)  # nobody renewed it
    assert max(charge.expires for charge in made) >= max(c.expires for c in journal.charges())
    late = journal.changes("a", now + 95_000, lambda: journal.settle("a", {}, now + 95_000))
    assert all(charge.amount > 0 for charge in late)


def test_a_charge_made_before_can_be_written_down() -> None:
    journal, now = Journal([[RPM]]), 1_000_000
    assert journal.add(0, "rpm", now + 5_000, 3, now) is not None
    assert journal.add(0, "rpm", now, 3, now) is None
    assert journal.add(0, "unheard of", now + 5_000, 3, now) is None
    assert held_by(journal) == 3
    journal.advance(now + 5_000)
    assert held_by(journal) == 0
