"""The content service: its heuristics, what it takes in, and its reservations, over anything at all."""

from __future__ import annotations

import asyncio
import unicodedata
from collections import deque
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.content import picture

from headgate.content.fields import presentation_of, topic_of
from headgate.content.pictures import LONGEST_SIDE, prepared
from headgate.content.problems import RefusedError
from headgate.content.quota_alone import lone_book
from headgate.content.quota_config import Held, NoRoom, QuotaConfig
from headgate.content.subtopics import readable_key
from headgate.policy.content_quality import (
    Assessment,
    assess_explanation,
    assess_subtopics,
    assess_topic,
    count_words,
)
from headgate.testing import VirtualClock

TEXTS = st.text(max_size=300)
SENTENCE = "Bees gather nectar from flowers and make honey of it in the hive all summer long. "


# ── heuristics (S4 §5.6) ────────────────────────────────────────────────────────────────────────


def check(found: Assessment, valid_from: float) -> None:
    assert 0.0 <= found.score <= 1.0
    assert round(found.score, 2) == found.score
    assert found.valid == (found.score >= valid_from)
    assert bool(found.codes) == bool(found.issues or found.warnings) == (found.remarks is not None)


@given(st.lists(TEXTS, max_size=20), st.integers(1, 20))
def test_subtopics_have_a_score_and_one_more_duplicate_never_raises_it(
    items: list[str], expected: int
) -> None:
    found = assess_subtopics(items, expected)
    check(found, 0.6)
    assert found == assess_subtopics(list(items), expected)
    if len(items) >= 0.7 * expected:
        assert assess_subtopics([*items, items[0]], expected).score <= found.score


@given(TEXTS, TEXTS)
def test_any_text_has_a_score_as_an_explanation_and_as_a_topic(text: str, topic: str) -> None:
    check(assess_explanation(text, topic), 0.5)
    check(assess_topic(topic), 0.5)
    assert assess_explanation(f"I cannot help with that. {text}", topic).score == 0.0


@given(st.integers(0, 1500))
def test_the_length_of_an_explanation_costs_what_is_documented(words: int) -> None:
    text = " ".join((SENTENCE * 100).split()[:words]) + " End here."
    found = assess_explanation(text, "Bees")
    total = count_words(text)
    if 20 <= total <= 500:
        assert found.score >= 0.7
    if total > 500:
        assert 0.8 <= found.score <= 1.0
        assert "too_long" in found.codes
    if total < 20:
        assert found.score <= 0.6
        assert "too_short" in found.codes


@pytest.mark.parametrize(
    ("text", "words"), [("a b-c d's", 3), ("变量和函数", 3), ("Python 变量", 2), ("", 0), ("می‌روم", 2)]
)
def test_words_are_counted_in_every_script(text: str, words: int) -> None:
    assert count_words(text) == words


def test_the_documented_examples() -> None:
    assert assess_subtopics(["Bees"] * 2 + ["a"], 3).score == 0.6
    assert assess_subtopics([" ".join("abcdefghi")] * 1, 1).score == 0.9
    assert assess_explanation("Short.", "Bees").score == 0.1
    assert assess_explanation(SENTENCE * 2, "Bees").score == 1.0
    assert assess_explanation(SENTENCE * 2, "Submarines").score == 0.9
    assert [assess_topic(text).score for text in ("Bees", "image", "")] == [1.0, 0.3, 0.0]


# ── what is taken in ────────────────────────────────────────────────────────────────────────────


@given(st.text(max_size=250))
def test_a_topic_is_taken_as_people_read_it_or_refused(text: str) -> None:
    try:
        topic = topic_of({"topic": text})
    except RefusedError as error:
        assert error.validator == "request"  # noqa: PT017 - both ends are right
        return
    assert 1 <= len(topic) <= 200
    assert topic == unicodedata.normalize("NFC", text).strip()
    assert not any(unicodedata.category(sign) in ("Cc", "Cs", "Co") for sign in topic)
    assert not any(ord(sign) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(sign) < 0xFDF0 for sign in topic)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("topic", "focus", "educationLevel", "levelOfDetail", "learningStyle", "language")


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6), st.text(max_size=40))
def test_any_body_is_read_or_refused(body: dict[str, Any], accept_language: str) -> None:
    try:
        order = presentation_of(body, accept_language)
    except RefusedError as error:
        assert error.http_status == 400  # noqa: PT017 - both ends are right
        return
    assert order.words in (100, 150, 300)


@given(st.lists(TEXTS, min_size=1, max_size=4), st.lists(TEXTS, min_size=1, max_size=4))
def test_keys_of_different_questions_differ(one: list[str], other: list[str]) -> None:
    folded = [[" ".join(t.casefold().split()) for t in x] for x in (one, other)]
    if folded[0] != folded[1]:
        assert readable_key(*one) != readable_key(*other)


@cache
def pictures() -> tuple[bytes, ...]:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    return (
        picture("PNG", (40, 30)), picture("JPEG", (40, 30), exif=exif), picture("GIF", (8, 8)),
        picture("WEBP", (40, 30)), picture("PNG", (3000, 20)),
    )  # fmt: skip


@settings(max_examples=150)
@given(st.data())
def test_uploads_are_pictures_or_refused_whatever_their_bytes(data: st.DataObject) -> None:
    blob = bytearray(data.draw(st.sampled_from(pictures())))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(blob) - 1))
        blob[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(blob)))
    try:
        made = prepared(bytes(blob[: cut or None]))
    except RefusedError as error:
        assert error.http_status in (400, 413, 415)  # noqa: PT017 - both ends are right
        return
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(made)) as shown:
        assert shown.format == "JPEG"
        assert max(shown.size) <= LONGEST_SIDE
        assert not shown.getexif()
        assert "icc_profile" not in shown.info


def test_a_picture_is_turned_as_its_camera_meant_and_loses_where_it_was_taken() -> None:
    from io import BytesIO

    from PIL import Image

    original = Image.new("RGB", (40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90°
    exif.get_ifd(0x8825)[1] = "N"
    out = BytesIO()
    original.save(out, "JPEG", exif=exif, comment=b"CANARY-place")
    made = prepared(out.getvalue())
    assert b"CANARY" not in made
    with Image.open(BytesIO(made)) as shown:
        assert shown.size == (20, 40)
        assert not shown.getexif()


@pytest.mark.parametrize("size", [(20_000, 20_000), (60_000, 60_000)])
def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *size, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(RefusedError, match="million pixels") as caught:
        prepared(bomb)
    assert caught.value.http_status == 413


# ── reservations (S4-01, S4-02) ─────────────────────────────────────────────────────────────────

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(1, 6), st.integers(1, 900)),
        st.tuples(st.just("settle"), st.integers(0, 900), st.just(0)),
        st.tuples(st.just("free"), st.just(0), st.just(0)),
        st.tuples(st.just("sleep"), st.integers(1, 40), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(STEPS)
def test_however_they_are_asked_for_no_window_holds_more_than_the_limits(
    steps: list[tuple[str, int, int]],
) -> None:
    clock = VirtualClock()
    config = QuotaConfig(
        requests_per_minute=8, rpm_safety_margin=1.0, tokens_per_minute=4000, tpm_safety_margin=1.0
    )
    book = lone_book(config, clock)
    held: deque[Held] = deque()

    async def history() -> None:
        for step, first, second in steps:
            before = await book.fills()
            if step == "reserve":
                got = await book.reserve((second,) * first)
                if isinstance(got, NoRoom):
                    assert await book.fills() == before  # all or nothing
                    assert 0 <= got.fits < first
                    assert got.seconds is None or got.seconds > 0
                else:
                    assert len(got) == first
                    held.extend(got)
            elif step == "settle" and held:
                one = held.popleft()
                await book.settle(one, min(first, one.tokens))
            elif step == "free" and held:
                await book.free([held.pop()])
            elif step == "sleep":
                await clock.sleep(first)
            for row in await book.fills() or ():
                for fill in row:
                    assert 0 <= fill.used <= fill.limit.amount
        await book.free(list(held))

    clock.run(history())


async def test_many_at_once_never_share_a_place(clock: VirtualClock) -> None:
    book = lone_book(QuotaConfig(), clock)
    got = await asyncio.gather(*(book.reserve((100,) * 5) for _ in range(10)))
    assert sum(not isinstance(one, NoRoom) for one in got) == 2
    fills = await book.fills()
    assert fills is not None
    assert {fill.limit.name: fill.used for fill in fills[0]}["rpm"] == 10
