"""What a process writes down of a group, how it sees that a store forgot, and what it tells it."""

from __future__ import annotations

import pytest

from headgate.core.quota import (
    Ask,
    Batch,
    BatchReply,
    Counts,
    Grant,
    Kind,
    Limit,
    Penalty,
    Refusal,
    Restore,
    Settlement,
)
from headgate.policy.quota.share import Standing
from headgate.stores.journal import MOST_RESTORES, GroupJournal, Mark

NOW = 1_795_262_400_000
AHEAD = 5_000
"""How far the store's clock is ahead of ours."""
RPM = Limit("rpm", Counts.REQUESTS, 40, window=60_000)
RPD = Limit("rpd", Counts.REQUESTS, 200, Kind.CALENDAR, 86_400_000)
FOUR = Standing(4, since=0, hold=5_000)


def reply(*answers: Grant | Refusal, seq: int, epoch: int = 7, now: int = NOW) -> BatchReply:
    return BatchReply(answers, now + AHEAD, epoch, seq)


def asks(*rids: str) -> list[Ask]:
    return [Ask(rid, {Counts.REQUESTS: 1}) for rid in rids]


def journal(*limits: Limit) -> GroupJournal:
    """One of one domain whose store was reached once."""
    made = GroupJournal("group", [limits or (RPM,)], "me")
    made.contact(reply(seq=2), made.mark, NOW, NOW)
    return made


def grant(it: GroupJournal, rid: str, *, at: int = NOW, left: tuple[int, ...] = ()) -> None:
    it.granted(asks(rid), reply(Grant(rid, 0, left=left), seq=it.mark.seq + 1), at)


def decide(it: GroupJournal, *rids: str, at: int = NOW) -> list[bool]:
    answers = it.decide(asks(*rids), 1, at, ready=0, alone=True).answers
    return [isinstance(answer, Grant) for answer in answers]


# ── whether the store has forgotten ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("epoch", "seq", "lost"),
    [(7, 11, False), (7, 10, True), (7, 3, True), (8, 11, True), (0, 0, False)],
)
def test_another_epoch_or_a_step_that_was_there_before(epoch: int, seq: int, lost: bool) -> None:
    it = journal()
    it.mark = Mark(7, 10)
    assert it.contact(reply(seq=seq, epoch=epoch), it.mark, NOW, NOW) is lost


def test_replies_out_of_order_are_no_loss() -> None:
    """Two event loops of a process ask at the same time."""
    it = journal()
    sent = it.mark
    assert not it.contact(reply(seq=9), sent, NOW, NOW)
    assert not it.contact(reply(seq=8), sent, NOW, NOW)
    assert it.mark == Mark(7, 9)


def test_a_late_reply_of_lost_books_does_not_bring_them_back() -> None:
    it = journal()
    sent = it.mark
    assert it.contact(reply(seq=1, epoch=8), sent, NOW, NOW)
    assert not it.contact(reply(seq=9, epoch=7), sent, NOW, NOW)
    assert it.mark == Mark(8, 1)
    it.granted(asks("late"), reply(Grant("late", 0), seq=9, epoch=7), NOW)
    assert [one.amount for one in it.untold()] == [1]  # these books do not know it


def test_only_books_that_nobody_else_has_written_in_are_complete_at_once() -> None:
    fresh, used = GroupJournal("group", [(RPM,)], "me"), GroupJournal("group", [(RPM,)], "me")
    fresh.contact(reply(seq=2), fresh.mark, NOW, NOW + 5)
    used.contact(reply(seq=3), used.mark, NOW, NOW + 5)
    assert (fresh.since, used.since) == (0, NOW)


# ── what is told ────────────────────────────────────────────────────────────────────────────────


def test_what_the_store_granted_is_told_only_when_it_has_forgotten() -> None:
    it = journal()
    grant(it, "a")
    assert it.untold() == ()
    it.restore_all()
    (told,) = it.untold()
    assert (told.member, told.domain, told.limit, told.amount) == ("me", 0, "rpm", 1)
    ends = NOW + AHEAD + RPM.guard + RPM.window
    assert ends <= told.expires <= ends + 1_200  # in the store's time, never earlier
    it.told([told])
    assert it.untold() == ()
    it.apply(Batch(settles=(Settlement("a", {Counts.REQUESTS: 3}),)), NOW + 100)
    assert [one.amount for one in it.untold()] == [3]  # these books do not know the reservation


def test_what_was_granted_alone_is_told_and_replaced_until_it_is_confirmed() -> None:
    it = journal()
    it.leave(Standing(1, since=0), NOW)
    assert decide(it, "a", "b") == [True, True]
    (first,) = it.untold()
    it.apply(Batch(cancels=("b",)), NOW + 10)
    it.told([first])  # confirms two, but it is one now
    (second,) = it.untold()
    assert (first.amount, second.amount) == (2, 1)
    assert (first.expires, first.limit) == (second.expires, second.limit)
    it.told([second])
    assert not it.owes


def test_many_charges_are_told_a_call_at_a_time() -> None:
    it = GroupJournal("group", [(RPM,)] * (MOST_RESTORES + 5), "me")
    it.contact(reply(seq=2), it.mark, NOW, NOW)
    for number in range(MOST_RESTORES + 5):
        it.granted(asks(f"r{number}"), reply(Grant(f"r{number}", number), seq=3), NOW)
    it.restore_all()
    first = it.untold()
    assert len(first) == MOST_RESTORES
    it.told(first)
    assert len(it.untold()) == 5


def test_a_cancel_that_is_owed_spares_a_reservation_in_use() -> None:
    """An id that was lost and refused is asked again: its old cancel must not free the new grant."""
    it = journal()
    it.forsake(asks("r", "other"))
    grant(it, "r")
    facts = it.facts()
    assert facts is not None
    assert facts.cancels == ("other",)
    it.apply(Batch(cancels=("r",)), NOW)
    it.keep(Batch(cancels=("r",)))
    facts = it.facts()
    assert facts is not None
    assert facts.cancels == ("r",)


def test_of_one_granted_alone_the_lost_twin_at_the_store_is_given_back() -> None:
    it = journal()
    it.leave(Standing(1, since=0), NOW)
    it.forsake(asks("r"))
    assert decide(it, "r") == [True]
    facts = it.facts()
    assert facts is not None
    assert facts.cancels == ("r",)


def test_penalties_are_kept_for_the_store_and_limits_learned_after_the_bounds() -> None:
    it = journal()
    it.leave(FOUR, NOW)
    said = Penalty(0, shut=True, limit=Limit("rpm", Counts.REQUESTS, 30, window=60_000))
    it.apply(Batch(penalties=(said,)), NOW)
    it.keep(Batch(penalties=(said,)))
    account = it._journal.accounts[0]
    assert (account.shut, account.limits[0].amount) == (True, 40)
    it.rejoin(NOW)
    assert [limit.amount for limit in account.limits] == [30]
    facts = it.facts()
    assert facts is not None
    assert facts.penalties == (said,)


def test_a_charge_of_before_is_told_under_the_own_name_a_strange_one_as_it_is() -> None:
    it = journal()
    ends = NOW + AHEAD + 10_000
    strange = Restore("recall", 0, "unheard of", ends, 2)
    it.apply(Batch(restores=(Restore("recall", 0, "rpm", ends, 3), strange)), NOW)
    told = {one.member: one for one in it.untold()}
    assert told["recall"] == strange
    assert told["me"].amount == 3
    assert told["me"].expires >= ends
    it.told(list(told.values()))
    assert not it.owes


# ── what may be charged alone ───────────────────────────────────────────────────────────────────


def test_only_what_outlasts_the_first_seconds_counts_as_held() -> None:
    it = journal()
    for number in range(6):
        grant(it, f"old{number}", at=NOW - 56_000)
    for number in range(3):
        grant(it, f"young{number}", at=NOW - 30_000)
    it.leave(FOUR, NOW)
    later = NOW + 6_000  # the six have ended
    assert decide(it, "a", at=later) == [False]
    later = NOW + 31_000  # the three have, too
    assert decide(it, "a", "b", "c", "d", at=later) == [True, True, True, False]


def test_of_a_day_a_part_of_what_was_left_less_what_others_can_have_used() -> None:
    it = journal(RPM, RPD)
    grant(it, "a", at=NOW - 10_000, left=(150,))
    assert it._terms(0, 1, FOUR, NOW).cap == 1 + (150 - 40) // 4
    alone = Standing(1, since=NOW - 20_000)
    assert it._terms(0, 1, alone, NOW).cap == 1 + 150
    assert it._terms(0, 1, FOUR, NOW + 50_000).cap == 1 + (150 - 80) // 4  # a minute has passed
    tomorrow = NOW + 21 * 3_600_000
    it.leave(FOUR, tomorrow)
    assert it._terms(0, 1, FOUR, tomorrow).cap == 0


def test_a_day_without_a_limit_per_minute_rests() -> None:
    it = journal(RPD)
    grant(it, "a", left=(150,))
    assert it._terms(0, 0, FOUR, NOW).cap == 1
    assert it._terms(0, 0, Standing(1, since=NOW), NOW).cap == 151
