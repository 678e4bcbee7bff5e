"""When what ended by itself is started again."""

from __future__ import annotations

from headgate.policy.restarts import MOST, STEADY_SECONDS, Restarts


def test_the_first_restart_comes_at_once_and_the_others_ever_later() -> None:
    restarts = Restarts()
    assert [restarts.ended(0.0) for _ in range(MOST + 1)] == [0.0, 0.5, 1.0, 2.0, 4.0, None]


def test_who_lived_long_begins_anew() -> None:
    restarts = Restarts()
    for _ in range(3 * MOST):
        assert restarts.ended(STEADY_SECONDS) == 0.0
    assert restarts.ended(STEADY_SECONDS - 0.1) == 0.5


def test_who_is_given_up_stays_so() -> None:
    restarts = Restarts()
    assert [restarts.ended(1.0) for _ in range(MOST + 3)][-3:] == [None, None, None]
