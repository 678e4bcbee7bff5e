"""Kept answers as bytes: what is not whole, of this version and in its place is none (F37)."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.replies import KEY, OTHER, answer, kept

from headgate.core.call import Reply, Usage
from headgate.stores.replies_wire import (
    COMPRESSED_FROM,
    LARGEST_FRAME,
    frame,
    pack,
    unframe,
    unpack,
)
from headgate.testing import VirtualClock

CLOCK = VirtualClock()


def packed(reply: Reply | None = None) -> bytes:
    value = pack(kept(CLOCK, reply, fresh=60, revalidate=5, rescue=7))
    assert value is not None
    return value


def test_an_answer_comes_back_as_it_was() -> None:
    lasting = unpack(unframe(KEY, frame(KEY, packed())))
    assert lasting.reply == answer()
    assert (lasting.fresh, lasting.revalidate, lasting.rescue) == pytest.approx((60, 5, 7))
    assert lasting.whole == pytest.approx(72)


def test_a_small_answer_is_small() -> None:
    """What has its default takes no room."""
    assert len(packed(Reply(text="", finish_reason="STOP", usage=Usage(prompt=5)))) < 90


def test_text_is_compressed_where_that_pays() -> None:
    words = packed(answer("All work and no play makes Jack a dull boy. " * 1000))
    assert len(frame(KEY, words)) < len(words) / 4
    noise = packed(answer("x", content=({"data": os.urandom(COMPRESSED_FROM).hex()[:100]},)))
    assert len(frame(KEY, noise)) == len(noise) + 6


@pytest.mark.parametrize("text", ["short", "long " * 5000], ids=["plain", "compressed"])
def test_no_flipped_bit_is_taken_for_an_answer(text: str) -> None:
    whole = frame(KEY, packed(answer(text)))
    for at in range(min(len(whole), 300)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at % 8)
        with pytest.raises(ValueError, match=r"damaged|version"):
            unframe(KEY, bytes(damaged))


def test_nor_is_what_was_cut() -> None:
    whole = frame(KEY, packed(answer("long " * 5000)))
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=r"damaged|short|version"):
            unframe(KEY, whole[:length])


def test_nor_is_the_answer_to_another_question() -> None:
    with pytest.raises(ValueError, match="damaged"):
        unframe(OTHER, frame(KEY, packed()))


@given(st.binary(max_size=200))
def test_nor_is_anything_else(noise: bytes) -> None:
    with pytest.raises(ValueError, match=r"damaged|short|version"):
        unframe(KEY, noise)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_answer_raise_one_error(noise: bytes) -> None:
    try:
        lasting = unpack(noise)
    except ValueError:
        return
    assert isinstance(lasting.reply, Reply)


def test_a_small_frame_that_would_fill_memory_is_refused() -> None:
    bomb = frame(KEY, b"\x00" * (LARGEST_FRAME + 1))
    assert len(bomb) < 100_000
    with pytest.raises(ValueError, match="too large"):
        unframe(KEY, bomb)


def test_every_field_of_a_reply_has_a_default() -> None:
    """Those that have theirs are left out, so a reply of tomorrow can be read without them."""
    for struct in (Reply, Usage):
        assert len(struct.__struct_fields__) == len(struct.__struct_defaults__)
