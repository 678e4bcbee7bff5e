"""What is counted of our own sending, and what a search for a limit makes of answers and refusals."""

from __future__ import annotations

import pytest

from headgate.policy.days import next_reset
from headgate.policy.learning import DAY, PATIENCE, Interval, Pacing
from headgate.policy.tally import WINDOW, Tally, Use

WALL = 1_772_000_000.0


def tally(*moments: float, model: str = "m", most: int = 100) -> Tally:
    made = Tally(most)
    for moment in moments:
        made.sent(0, model, moment, WALL + moment)
    return made


# ── the tally ───────────────────────────────────────────────────────────────────────────────────


def test_it_counts_what_lies_in_the_minute_before() -> None:
    counted = tally(0.5, 0.7, 30, 59.9)
    assert counted.used(0, "m", 59.9, WALL).requests == 4
    assert counted.used(0, "m", 60.0, WALL).requests == 4
    assert counted.used(0, "m", 60.1, WALL).requests == 2, "the second that is cut in two is left out"
    assert counted.used(0, "m", 91.0, WALL).requests == 1
    assert counted.used(0, "m", 200.0, WALL) == Use(day_requests=4)


def test_no_sum_is_above_what_the_minute_holds() -> None:
    moments = [0.37 * number for number in range(600)]
    counted = Tally()
    for number, moment in enumerate(moments):
        counted.sent(0, "m", moment, WALL)
        inside = sum(moment - WINDOW < other <= moment for other in moments[: number + 1])
        seen = counted.used(0, "m", moment, WALL).requests
        assert inside - 4 <= seen <= inside, "a second's worth may be missing, never too much"


def test_an_answer_adds_its_tokens_where_the_request_was_sent() -> None:
    counted = tally(0.0, 10.0)
    counted.served(0, "m", 0.0, 100)
    counted.served(0, "m", 10.0, 20)
    assert counted.used(0, "m", 50.0, WALL) == Use(2, 120, 2, 120, 2, 120)
    assert counted.used(0, "m", 65.0, WALL) == Use(1, 20, 1, 20, 2, 120)
    counted.served(0, "m", 0.0, 7)  # its second has left the window: it counts for the day only
    assert counted.used(0, "m", 65.0, WALL) == Use(1, 20, 1, 20, 2, 127)


def test_what_was_refused_or_never_sent_does_not_count() -> None:
    counted = tally(1.0, 1.2, 1.4)
    counted.taken_back(0, "m", 1.2)
    assert counted.used(0, "m", 2.0, WALL) == Use(requests=2, day_requests=2)
    counted.served(0, "m", 1.0, 5)
    counted.served(0, "m", 1.4, 5)
    counted.taken_back(0, "m", 1.4)  # of the answered ones none can be taken back
    assert counted.used(0, "m", 2.0, WALL).requests == 2
    for _ in range(5):
        counted.taken_back(0, "m", 1.2)
    assert counted.used(0, "m", 200.0, WALL).day_requests == 0


def test_a_day_ends_at_midnight_in_california() -> None:
    counted = tally()
    midnight = next_reset(WALL)
    counted.sent(0, "m", 1.0, midnight - 1)
    assert counted.used(0, "m", 1.5, midnight - 0.5).day_requests == 1
    assert counted.used(0, "m", 2.5, midnight + 0.5).day_requests == 0
    counted.sent(0, "m", 3.0, midnight + 1)
    assert counted.used(0, "m", 3.0, midnight + 1) == Use(requests=2, day_requests=1)


def test_domains_and_models_are_counted_apart() -> None:
    counted = tally(1.0)
    counted.sent(1, "m", 1.0, WALL)
    counted.sent(0, "n", 1.0, WALL)
    assert len(counted) == 3
    assert all(
        counted.used(domain, model, 1.0, WALL).requests == 1
        for domain, model in ((0, "m"), (1, "m"), (0, "n"))
    )
    assert counted.used(9, "m", 1.0, WALL) == Use()
    counted.served(9, "m", 1.0, 5)
    counted.taken_back(9, "m", 1.0)
    assert list(counted.charges(9, "m", 1.0)) == []


def test_charges_say_when_each_second_leaves_the_window() -> None:
    counted = tally(3.2, 3.9, 10.0)
    counted.served(0, "m", 10.0, 50)
    assert list(counted.charges(0, "m", 20.0)) == [(44.0, 2, 0), (51.0, 1, 50)]
    counted.taken_back(0, "m", 3.2)
    counted.taken_back(0, "m", 3.9)
    assert list(counted.charges(0, "m", 20.0)) == [(51.0, 1, 50)]


def test_the_memory_of_a_pair_is_bounded_by_the_window() -> None:
    counted = Tally()
    for number in range(10_000):
        counted.sent(0, "m", number * 0.5, WALL)
    assert len(list(counted.charges(0, "m", -1e9))) <= WINDOW + 2


def test_the_number_of_pairs_is_bounded_and_idle_ones_make_room() -> None:
    counted = Tally(most=3)
    for number in range(5):
        counted.sent(number, "m", 0.0, WALL)
    assert len(counted) == 3
    assert counted.used(4, "m", 0.0, WALL) == Use()
    counted.sent(1, "m", 100.0, WALL)
    counted.sent(4, "m", 100.0, WALL)
    assert len(counted) == 2, "0 and 2 had been idle for a minute"
    assert counted.used(4, "m", 100.0, WALL).requests == 1


# ── the search for a limit ──────────────────────────────────────────────────────────────────────


def test_nothing_is_limited_before_the_first_refusal() -> None:
    interval = Interval()
    assert interval.served(500, 1.0) is None
    assert interval.level is None


def test_a_refusal_right_after_what_was_served_finds_the_limit_itself() -> None:
    interval = Interval()
    interval.served(10, 1.0)
    assert interval.refused(10, 1.5, 2.0) == 10


def test_a_refusal_above_what_was_served_leaves_a_tenth() -> None:
    interval = Interval()
    interval.served(3, 1.0)
    assert interval.refused(20, 1.5, 2.0) == 18
    assert interval.served(19, 3.0) == 19, "what is served is allowed"


def test_the_refusals_of_one_burst_are_one_event_and_close_in_on_the_limit() -> None:
    interval = Interval()
    levels = [interval.refused(use, 1.0, 1.0 + use / 1000) for use in range(39, 9, -1)]
    assert levels[0] == 35
    assert levels[-1] == 9
    assert interval.served(10, 2.0) == 10
    assert interval.refusals == 1


def test_one_refusal_halves_at_the_most() -> None:
    interval = Interval()
    interval.served(100, 1.0)
    interval.refused(100, 2.0, 3.0)
    assert interval.refused(1, 70.0, 71.0) == 50, "it may have meant something else"
    assert interval.refused(1, 70.5, 71.5) == 50, "nor does the rest of its burst"
    assert interval.refused(1, 140.0, 141.0) == 25


def test_what_was_served_across_two_windows_is_no_proof_against_a_refusal() -> None:
    interval = Interval()
    interval.served(20, 1.0)  # ten at the end of a window of theirs, ten at the begin of the next
    assert interval.refused(20, 1.5, 2.0) == 20
    assert interval.refused(10, 70.0, 70.1) == 10
    assert interval.refused(10, 140.0, 140.1) == 9


def climb(interval: Interval, start: float, windows: int) -> list[int]:
    levels = []
    for number in range(windows):
        assert interval.level is not None
        interval.served(interval.level, start + number * WINDOW)
        levels.append(interval.level)
    return levels


def test_it_climbs_after_a_quiet_time_and_only_while_it_is_used_up() -> None:
    interval = Interval()
    interval.served(10, 1.0)
    interval.refused(10, 2.0, 2.0)
    assert climb(interval, 3.0, 4) == [10] * 4
    assert interval.served(5, 2.0 + PATIENCE) is None, "nobody needs more"
    assert climb(interval, 2.0 + PATIENCE, 4) == [11, 13, 17, 25]


def test_each_refusal_doubles_the_quiet_time_up_to_a_day() -> None:
    interval, now, gaps = Interval(), 0.0, []
    interval.served(10, 0.0)
    interval.refused(10, 0.0, 0.0)
    for _ in range(12):
        begin = now
        while interval.served(10, now) is None:
            now += WINDOW
        gaps.append(now - begin)
        interval.refused(10, now, now)
    assert gaps[:3] == [PATIENCE, 2 * PATIENCE, 4 * PATIENCE]
    assert gaps[-1] == DAY
    assert interval.level == 10


def test_a_limit_believed_far_too_low_is_left_behind_in_a_few_windows() -> None:
    interval = Interval()
    interval.refused(1, 0.0, 0.0)  # the day's quota, say, by someone else's use
    assert interval.level == 1
    levels = climb(interval, PATIENCE, 14)
    assert levels[-1] > 1000
    interval.refused(levels[-1], 1e6, 1e6)
    assert interval.level is not None
    before = interval.level
    assert climb(interval, 1e6 + PATIENCE, 1)[0] > before, "its patience is that of a first refusal"


@pytest.mark.parametrize(("amount", "events"), [(2, 1), (10, 3), (60, 5), (1000, 9)])
def test_pacing_is_exhausted_after_as_many_refusals_as_halvings(amount: int, events: int) -> None:
    pacing = Pacing(amount)
    assert [pacing.tighten(float(number)) for number in range(events)] == [False] * events
    assert pacing.tighten(float(events))


def test_pacing_widens_by_one_for_each_quiet_minute() -> None:
    pacing = Pacing(8)
    assert not pacing.tighten(0.0)  # 4
    assert not pacing.tighten(1.0)  # 2
    assert not pacing.tighten(2.0)  # 1
    assert not pacing.tighten(2.0 + 3 * WINDOW), "4 again, then 2"
    assert not pacing.tighten(3.0 + 3 * WINDOW)
    assert pacing.tighten(4.0 + 3 * WINDOW)


def test_a_limit_of_one_cannot_be_paced() -> None:
    assert Pacing(1).tighten(0.0)
