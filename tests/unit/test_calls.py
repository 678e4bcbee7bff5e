"""What doors take out of a call's options."""

from __future__ import annotations

import pytest

from headgate.core.call import Priority
from headgate.core.errors import InvalidCallError
from headgate.wiring.calls import LONGEST_CALLER, standing


@pytest.mark.parametrize(
    ("word", "priority"),
    [
        (None, Priority.NORMAL),
        ("critical", Priority.CRITICAL),
        ("HIGH", Priority.HIGH),
        ("Normal", Priority.NORMAL),
        ("medium", Priority.NORMAL),
        (" low ", Priority.LOW),
        (Priority.LOW, Priority.LOW),
    ],
)
def test_priorities_have_names_in_any_case(word: object, priority: Priority) -> None:
    options = {"priority": word, "temperature": 1}
    assert standing(options) == (priority, "")
    assert options == {"temperature": 1}


@pytest.mark.parametrize("word", ["urgent", "", 1, 0, True, 2.5, b"high", ["high"]])
def test_anything_else_is_refused_with_the_names(word: object) -> None:
    """Bare numbers too: of the scales in use 1 is the most urgent in one and not in another."""
    with pytest.raises(InvalidCallError, match="critical, high, normal, low or medium"):
        standing({"priority": word})


def test_a_caller_is_a_text_of_bounded_length() -> None:
    assert standing({"caller": "team-a"}) == (Priority.NORMAL, "team-a")
    assert standing({"caller": None}) == (Priority.NORMAL, "")
    for wrong in (7, b"team", "x" * (LONGEST_CALLER + 1)):
        with pytest.raises(InvalidCallError, match="caller takes a text"):
            standing({"caller": wrong})


def test_ranks_follow_urgency() -> None:
    assert [priority.rank for priority in Priority] == [0, 1, 2, 3]
