"""Redaction is reversible at every cut of a stream, and its time is linear in the text."""

from __future__ import annotations

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.privacy.markers import take_out
from headgate.policy.privacy.recognise import find
from headgate.policy.screening.invisible import clean
from headgate.policy.screening.signals import escape_template_tokens, signals

PIECES = st.sampled_from(
    [
        "ada@example.org",
        "+46 8 123 456 78",
        " 078-05-1120 ",
        "4111111111111111",
        "[EMAIL_1]",
        "[",
        "[IP_",
        "x ",
    ]
)
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=8).map(" ".join)


@given(TEXTS)
def test_what_was_taken_out_can_be_put_back(text: str) -> None:
    taken = take_out(text, numbered=True)
    assert taken.restore(taken.text) == text
    pieces = find(text)
    assert all(0 <= piece.start < piece.stop <= len(text) for piece in pieces)
    assert all(one.stop <= two.start for one, two in itertools.pairwise(pieces))


@given(TEXTS)
def test_what_is_put_back_into_json_leaves_it_json(text: str) -> None:
    """Values are put back into structured replies as text: none may end a string or begin an escape."""
    for piece in find(text):
        value = text[piece.start : piece.stop]
        assert json.loads(f'"{value}"') == value


@given(TEXTS, st.lists(st.integers(0, 200), max_size=12))
def test_a_stream_is_restored_wherever_it_is_cut(text: str, cuts: list[int]) -> None:
    taken = take_out(text, numbered=True)
    edges = [0, *sorted(min(cut, len(taken.text)) for cut in cuts), len(taken.text)]
    restorer = taken.restorer()
    parts = [taken.text[one:two] for one, two in itertools.pairwise(edges)]
    assert "".join([*map(restorer.feed, parts), restorer.finish()]) == text


def test_every_single_cut_of_a_marker() -> None:
    taken = take_out("to ada@example.org and 4111111111111111.", numbered=True)
    for one in range(len(taken.text)):
        for two in range(one, len(taken.text)):
            restorer = taken.restorer()
            parts = (taken.text[:one], taken.text[one:two], taken.text[two:])
            assert (
                "".join([*map(restorer.feed, parts), restorer.finish()]).count("ada@example.org") == 1
            )


@given(st.text(max_size=80))
def test_cleaning_is_idempotent_and_only_removes(text: str) -> None:
    once = clean(text)
    assert len(once.text) + once.removed == len(text)
    assert clean(once.text).removed == 0 or once.removed > 0


@given(st.text(max_size=200))
def test_screening_takes_any_text(text: str) -> None:
    assert 0 <= signals(text).score <= 1
    escaped = escape_template_tokens(text)
    assert escape_template_tokens(escaped) == escaped
