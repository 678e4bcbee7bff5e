"""What happened to a call, out of its rows: times between attempts, and what is not known."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_usage_ledger import row

from headgate.core.usage import UsageRow
from headgate.policy.call_story import story_of


def attempt(number: int, began: float, ended: float, **changes: object) -> UsageRow:
    values = {"request_id": "r", "attempt": number, "at": ended, "duration": ended - began}
    return row(1, **{**values, **changes})


def test_no_row_is_no_story() -> None:
    assert story_of([]) is None


def test_waits_lie_between_attempts_and_before_the_first() -> None:
    story = story_of([
        attempt(2, 13.0, 14.0, call="success", call_seconds=4.5, cost=5, input_tokens=3),
        attempt(1, 10.0, 11.0, result="quota", error="rate_limit", cost=0, input_tokens=1),
    ])  # fmt: skip
    assert story is not None
    assert [one.row.attempt for one in story.attempts] == [1, 2]
    assert [one.waited for one in story.attempts] == pytest.approx([0.5, 2.0])
    assert [one.began for one in story.attempts] == [10.0, 13.0]
    assert story.outside == pytest.approx(2.5)
    assert (story.cost, story.unpriced, story.input_tokens, story.output_tokens) == (5, 0, 4, 10)
    assert story.end is not None
    assert story.end.attempt == 2


def test_when_a_call_went_on_after_its_last_attempt_its_beginning_is_not_known() -> None:
    story = story_of([
        attempt(1, 10.0, 11.0, result="quota", call="rate_limit", call_seconds=30.0, cost=None)
    ])  # fmt: skip
    assert story is not None
    assert story.attempts[0].waited is None
    assert story.outside == pytest.approx(29.0)
    assert (story.cost, story.unpriced) == (0, 1)


def test_a_row_without_an_attempt_tells_when_the_call_began_and_ended() -> None:
    """A call that waited so long that its attempt was written before it gave up."""
    end = attempt(0, 40.0, 40.0, result="quota", call="quota", call_seconds=31.0)
    story = story_of([attempt(1, 10.0, 11.0, result="quota"), end])
    assert story is not None
    assert story.end is end
    assert [one.waited for one in story.attempts] == [1.0]
    assert story.outside == pytest.approx(30.0)


def test_a_kept_reply_has_no_attempt() -> None:
    end = attempt(0, 40.0, 40.0, call="success", call_seconds=0.001, from_cache=True, saved=7)
    story = story_of([end])
    assert story is not None
    assert (story.attempts, story.end, story.cost) == ((), end, 0)
    assert story.outside == pytest.approx(0.001)


def test_a_call_under_way_has_no_end() -> None:
    story = story_of([attempt(1, 10.0, 11.0)])
    assert story is not None
    assert (story.end, story.outside, story.attempts[0].waited) == (None, None, None)
    assert story.any.model == "m"


SPANS = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 20)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    min_size=1,
    max_size=6,
)


@given(SPANS, st.randoms(use_true_random=False))
def test_time_outside_is_what_no_attempt_covers(
    spans: list[tuple[float, float]], order: object
) -> None:
    """Whichever overlap, in whatever order rows come: never below 0, never more than the call took,
    and right for a walk in small steps."""
    first, last = min(begin for begin, _ in spans), max(end for _, end in spans)
    whole = last - first
    rows = [attempt(number, *span) for number, span in enumerate(spans, 1)]
    rows.append(attempt(0, last, last, call="success", call_seconds=whole))
    order.shuffle(rows)  # type: ignore[attr-defined] # a Random
    story = story_of(rows)
    assert story is not None
    edges = sorted({edge for span in spans for edge in span})
    gaps = sum(
        right - left
        for left, right in pairwise(edges)
        if not any(begin <= left and right <= end for begin, end in spans)
    )
    assert story.outside == pytest.approx(gaps, abs=1e-6)
    assert 0 <= story.outside <= whole + 1e-9
