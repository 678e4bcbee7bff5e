"""Entity tags and encodings, by the tables and examples of RFC 9110."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.content.conditional import Verdict, accepts_gzip, judged

TAG = '"abc"'

# RFC 9110, 8.8.3.2: a weak comparison takes no notice of W/, a strong one refuses both where it is.
NONE_MATCH = [
    (None, Verdict.WHOLE),
    ('"abc"', Verdict.UNCHANGED),
    ('W/"abc"', Verdict.UNCHANGED),
    ("*", Verdict.UNCHANGED),
    (' "x" , "abc" ', Verdict.UNCHANGED),
    ('"x","y,\\","abc"', Verdict.UNCHANGED),
    ('"x", , W/"abc"', Verdict.UNCHANGED),
    ('"ABC"', Verdict.WHOLE),
    ('"abcd"', Verdict.WHOLE),
    ('""', Verdict.WHOLE),
    ("abc", Verdict.WHOLE),
    ('w/"abc"', Verdict.WHOLE),
    ('"x" "abc"', Verdict.WHOLE),
    ('"abc', Verdict.WHOLE),
    ("", Verdict.WHOLE),
]


@pytest.mark.parametrize(("field", "verdict"), NONE_MATCH)
def test_if_none_match_compares_weakly(field: str | None, verdict: Verdict) -> None:
    assert judged(TAG, None, field) is verdict


@pytest.mark.parametrize(
    ("field", "verdict"),
    [
        ('"abc"', Verdict.WHOLE),
        ('"x", "abc"', Verdict.WHOLE),
        ("*", Verdict.WHOLE),
        ('W/"abc"', Verdict.REFUSED),
        ('"x"', Verdict.REFUSED),
        ("", Verdict.REFUSED),
    ],
)
def test_if_match_compares_strongly_and_goes_first(field: str, verdict: Verdict) -> None:
    assert judged(TAG, field, None) is verdict
    expected = Verdict.UNCHANGED if verdict is Verdict.WHOLE else Verdict.REFUSED
    assert judged(TAG, field, TAG) is expected


# RFC 9110, 12.5.3, and its examples.
@pytest.mark.parametrize(
    ("field", "accepted"),
    [
        (None, False), ("", False), ("compress, gzip", True), ("*", True),
        ("compress;q=0.5, gzip;q=1.0", True),
        ("gzip;q=1.0, identity; q=0.5, *;q=0", True), ("gzip;q=0", False), ("gzip; Q=0.000", False),
        ("*;q=0", False), ("br, *;q=0.1", True), ("gzip;q=0, *", False), ("br", False), ("GZip", True),
        ("x-gzip", True), ("gzip;q=high", False), ("gzip;level=1", True), ("gzipped", False),
    ],
)  # fmt: skip
def test_accept_encoding(field: str | None, accepted: bool) -> None:
    assert accepts_gzip(field) is accepted


@given(st.text(alphabet='abcW/"*, \t\\é', max_size=30))
def test_any_field_is_answered(field: str) -> None:
    """Quickly and without an error; a list with our tag, in whatever company, names it."""
    assert judged(TAG, None, field) in (Verdict.WHOLE, Verdict.UNCHANGED)
    accepts_gzip(field)


@given(st.lists(st.tuples(st.booleans(), st.text(alphabet="ab,*\\é ", max_size=4)), max_size=4))
def test_lists_of_tags_are_taken_apart(tags: list[tuple[bool, str]]) -> None:
    named = [(weak, tag.replace(" ", "")) for weak, tag in tags]
    field = ", ".join(f'{"W/" if weak else ""}"{tag}"' for weak, tag in named)
    for wanted in ("ab", "", "a"):
        found = any(tag == wanted for _, tag in named)
        assert (judged(f'"{wanted}"', None, field) is Verdict.UNCHANGED) == found
