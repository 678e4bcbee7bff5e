"""Invariants of keys, days, redaction and retries, over anything that may come."""

# ruff: noqa: PT017 - a history may end in an answer or in an error; either is looked at

from __future__ import annotations

import base64
import contextlib
import string
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support import (
    bad_key,
    broken_inside,
    failure,
    key_books,
    keys,
    number_of,
    overloaded,
    quota,
    said,
    scripted,
)

from headgate.core.errors import HeadgateError, KeyFormatError
from headgate.gemini import GeminiKeyRotationError
from headgate.policy.days import day_start, next_reset
from headgate.policy.redaction import redact
from headgate.testing import BROKEN, Answer, VirtualClock
from headgate.wiring.keys import parse_keys

fixed = settings(max_examples=300, deadline=None, derandomize=True, database=None)

# ── keys ────────────────────────────────────────────────────────────────────────────────────────

# Keys and names have no letter in common: a part of a key in a message can only come from a key.
KEY = st.text(alphabet=string.ascii_uppercase + "0123456789+/=~", min_size=6, max_size=40)
NAME = st.text(alphabet="abcdefgh-_ é漢", max_size=12).map(str.strip)
BLANK = st.text(alphabet=" \t\n", max_size=3)


@st.composite
def entries(draw: st.DrawFn) -> tuple[str, list[tuple[str, str, str]]]:
    values = draw(st.lists(KEY, min_size=1, max_size=6, unique=True))
    names = draw(st.lists(NAME.filter(bool), min_size=len(values), max_size=len(values), unique=True))
    rows = [
        (value, draw(st.sampled_from([name, ""])), draw(NAME))
        for value, name in zip(values, names, strict=True)
    ]
    pieces: list[str] = []
    for value, name, project in rows:
        pieces += draw(st.lists(BLANK, max_size=2))  # empty entries are skipped
        fields = [value, name, project]
        while len(fields) > 1 and not fields[-1] and draw(st.booleans()):
            fields.pop()
        pieces.append("|".join(draw(BLANK) + field + draw(BLANK) for field in fields))
    return ",".join(pieces), rows


@fixed
@given(entries())
def test_what_is_written_by_the_grammar_is_read_back(
    written: tuple[str, list[tuple[str, str, str]]],
) -> None:
    text, rows = written
    found = parse_keys(text)
    assert [key.value for key in found] == [value for value, _, _ in rows]
    expected = [name or f"key_{position}" for position, (_, name, _) in enumerate(rows, start=1)]
    assert [key.name for key in found] == expected
    for key, (_, _, project) in zip(found, rows, strict=True):
        assert key.domain == (project or f"key:{key.name}")


@fixed
@given(
    values=st.lists(KEY, min_size=1, max_size=4),
    glue=st.lists(
        st.sampled_from([",", "|", "||", "|||", " ", ",|", "|a", "\u2019", "\n"]), max_size=8
    ),
    order=st.randoms(use_true_random=False),
)
def test_no_error_ever_holds_five_characters_of_a_key(
    values: list[str], glue: list[str], order: Any
) -> None:
    pieces = [*values, *values[:1], *glue]
    order.shuffle(pieces)
    try:
        parse_keys("".join(pieces))
    except KeyFormatError as error:
        shown = f"{error!r} {error} {error.message}".replace("GEMINI_API_KEYS", "").replace(
            "KeyFormatError", ""
        )
        for value in values:
            assert not any(value[at : at + 5] in shown for at in range(len(value) - 4))
        assert error.position >= 1


# ── days ────────────────────────────────────────────────────────────────────────────────────────

PACIFIC = ZoneInfo("America/Los_Angeles")
FIRST = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
LAST = datetime(2041, 1, 1, tzinfo=UTC).timestamp()
# The days on which clocks change: the second Sunday of March, the first of November.
CHANGES = [
    datetime(year, month, day, 12, tzinfo=PACIFIC).timestamp()
    for year in range(2020, 2041)
    for month, first in ((3, 8), (11, 1))
    for day in range(first, first + 7)
    if datetime(year, month, day, 12, tzinfo=PACIFIC).weekday() == 6
]


def check_day(wall: float) -> None:
    start, end = day_start(wall), next_reset(wall)
    assert start <= wall < end
    assert end - wall <= 25 * 3600
    for instant in (start, end):
        local = datetime.fromtimestamp(instant, PACIFIC)
        assert (local.hour, local.minute, local.second, local.microsecond) == (0, 0, 0, 0)
    assert (end - start) / 3600 in (23, 24, 25)
    assert next_reset(start) == end
    assert day_start(end) == end


@fixed
@given(
    st.one_of(
        st.floats(FIRST, LAST, allow_nan=False),
        st.builds(
            lambda day, offset: day + offset, st.sampled_from(CHANGES), st.floats(-90_000, 90_000)
        ),
    )
)
@example(FIRST)
def test_a_reset_is_the_next_local_midnight(wall: float) -> None:
    check_day(wall)


def test_every_day_on_which_clocks_change_has_23_or_25_hours() -> None:
    lengths = [round((next_reset(noon) - day_start(noon)) / 3600) for noon in CHANGES]
    assert lengths == [23, 25] * 21
    for noon in CHANGES:
        for minutes in range(-14 * 60, 14 * 60, 30):
            check_day(noon + minutes * 60)


# ── redaction ───────────────────────────────────────────────────────────────────────────────────

SECRET = st.text(alphabet=string.ascii_letters + string.digits + "-_./+=", min_size=12, max_size=60)
FILL = st.text(alphabet="!?<>{}:; \n", max_size=20)


@fixed
@given(secret=SECRET, data=st.data())
def test_twelve_characters_of_a_secret_never_stay_together(secret: str, data: st.DataObject) -> None:
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    forms = [secret, quote(secret, safe=""), encoded]
    pieces = data.draw(
        st.lists(
            st.one_of(
                FILL,
                st.builds(
                    lambda form, cut: form[min(cut) : max(cut) + 1],
                    st.sampled_from(forms),
                    st.tuples(st.integers(0, 80), st.integers(0, 80)),
                ),
            ),
            max_size=8,
        )
    )
    got = redact("".join(pieces), secret, limit=10_000)
    for form in forms:
        assert not any(form[at : at + 12] in got for at in range(len(form) - 11))


@fixed
@given(
    text=st.text(max_size=300), secret=st.text(alphabet=string.ascii_letters, min_size=1, max_size=40)
)
def test_redaction_twice_is_redaction_once_and_never_longer_than_its_limit(
    text: str, secret: str
) -> None:
    once = redact(text, secret, limit=100)
    assert len(once) <= 100
    if secret not in "[key]":
        assert secret not in once


# ── retries ─────────────────────────────────────────────────────────────────────────────────────

ANSWERS: list[Answer | Any] = [
    said(),
    quota("Minute", "5s"),
    quota("Minute", "50s"),
    quota("Minute"),
    quota("Day", "22s"),
    quota("Day", "7200s"),
    failure(429, "Slow down."),
    failure(429, "Resource has been exhausted (e.g. check quota)."),
    bad_key(),
    failure(403, "The caller does not have permission", "PERMISSION_DENIED"),
    failure(404, "This model is no longer available to new users.", "NOT_FOUND"),
    overloaded(),
    broken_inside(),
    BROKEN,
    Answer(200, b"<html>"),
    Answer(500),
    failure(400, "nonsense", "INVALID_ARGUMENT"),
    failure(503, "late", headers={"retry-after": "nan"}),
    failure(503, "late", headers={"retry-after": "10"}),
]


@settings(fixed, max_examples=250)
@given(
    script=st.lists(st.sampled_from(range(len(ANSWERS))), min_size=1, max_size=40),
    count=st.integers(1, 5),
    retries=st.integers(0, 4),
    wait=st.sampled_from([0.0, 10.0, 60.0, 100_000.0]),
    timeout=st.sampled_from([None, 1.0, 30.0, 500.0]),
)
def test_no_script_of_outcomes_makes_a_call_send_without_end(
    script: list[int], count: int, retries: int, wait: float, timeout: float | None
) -> None:
    clock = VirtualClock()
    client, transport = scripted(
        [ANSWERS[number] for number in script],
        clock,
        count,
        max_retries=retries,
        max_wait_seconds=wait,
    )

    async def call() -> None:
        options = {} if timeout is None else {"timeout": timeout}
        await client.generate_content("hi", "gemini-3.8-flash", **options)

    try:
        clock.run(call())
    except HeadgateError as error:
        assert isinstance(error, GeminiKeyRotationError)
        assert "CANARY" not in str(error)
    assert 1 <= len(transport.sent) <= count * (retries + 1)
    if timeout is not None:
        assert clock.monotonic() <= timeout + 1e-6
    totals = key_books(client)
    assert sum(total for total, *_ in totals) == len(transport.sent)
    sent = [number_of(sent) for sent in transport.sent]
    assert [total for total, *_ in totals] == [sent.count(number) for number in range(count)]
    for total, successes, failures, quotas in totals:
        assert total == successes + failures
        assert quotas <= failures
    assert transport.open_exchanges == 0


@settings(fixed, max_examples=100)
@given(
    script=st.lists(st.sampled_from(range(len(ANSWERS))), min_size=1, max_size=40),
    retries=st.integers(0, 3),
)
def test_keys_of_one_project_send_no_more_than_keys_apart(script: list[int], retries: int) -> None:
    clock = VirtualClock()
    client, transport = scripted(
        [ANSWERS[number] for number in script],
        clock,
        keys=keys(3, project="p"),
        max_retries=retries,
        max_wait_seconds=1e6,
    )
    with contextlib.suppress(GeminiKeyRotationError):
        clock.run(client.generate_content("hi", "gemini-3.8-flash"))
    assert 1 <= len(transport.sent) <= 3 * (retries + 1)


def test_the_grammar_is_not_trivially_empty() -> None:
    with pytest.raises(KeyFormatError):
        parse_keys("A|a|b|c")
    assert parse_keys(" , ") == ()
