"""Answers in memory: bounds, expiry, namespaces, what was invalidated meanwhile."""

from __future__ import annotations

import tracemalloc
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.reply_cache import OVERHEAD, Invalidations, ReplyShelf, matches


def key(number: int) -> str:
    return sha256(b"%d" % number).hexdigest()


def put(shelf: ReplyShelf, name: str, value: bytes = b"x", *, now: float = 0.0, **more: object) -> bool:
    more.setdefault("until", now + 100.0)
    return shelf.put(name, value, made=now, now=now, **more)  # type: ignore[arg-type]


def test_the_one_used_longest_ago_makes_room() -> None:
    shelf = ReplyShelf(2, 10**6)
    assert put(shelf, "a")
    assert put(shelf, "b")
    assert shelf.get("a", 1.0) is not None
    assert put(shelf, "c")
    assert shelf.get("b", 1.0) is None
    assert shelf.get("a", 1.0) is not None
    assert (len(shelf), shelf.evicted) == (2, 1)


def test_bytes_are_counted_exactly_and_bounded() -> None:
    shelf = ReplyShelf(1000, 4 * (OVERHEAD + 1000))
    for number in range(10):
        assert put(shelf, key(number), b"x" * 1000)
    assert len(shelf) == 4
    assert shelf.bytes == 4 * (OVERHEAD + 1000)
    assert put(shelf, key(9), b"y" * 10)  # in the place of the one before it
    assert shelf.bytes == 3 * (OVERHEAD + 1000) + OVERHEAD + 10


def test_what_takes_more_than_a_quarter_is_not_kept_nor_what_was_there_before() -> None:
    shelf = ReplyShelf(10, 4 * (OVERHEAD + 1000))
    assert put(shelf, "a", b"small")
    assert not put(shelf, "a", b"x" * 1001)
    assert shelf.get("a", 0.0) is None
    assert shelf.bytes == 0


@pytest.mark.parametrize(("entries", "size"), [(0, 10**6), (10, 0)])
def test_without_room_nothing_is_kept(entries: int, size: int) -> None:
    shelf = ReplyShelf(entries, size)
    assert not put(shelf, "a")
    assert len(shelf) == 0


def test_an_entry_leaves_at_its_instant() -> None:
    shelf = ReplyShelf(10, 10**6)
    put(shelf, "a", until=5.0)
    assert shelf.get("a", 4.999) is not None
    assert shelf.get("a", 5.0) is None
    assert (len(shelf), shelf.bytes, shelf.expired) == (0, 0, 1)


def test_expired_entries_leave_a_few_at_a_time_without_being_asked_for() -> None:
    """No call pays for all, and none stays for ever."""
    shelf = ReplyShelf(10_000, 10**8)
    for number in range(1000):
        put(shelf, key(number), until=30.0)
    put(shelf, "long", until=10_000.0)
    shelf.get("nobody", 200.0)
    assert 980 < len(shelf) < 1001
    for _ in range(200):
        shelf.get("nobody", 200.0)
    assert (len(shelf), shelf.expired) == (1, 1000)
    assert shelf.get("long", 200.0) is not None


def test_an_entry_that_was_replaced_does_not_leave_with_the_old_one() -> None:
    shelf = ReplyShelf(10, 10**6)
    put(shelf, "a", until=30.0)
    put(shelf, "a", until=10_000.0)
    for _ in range(10):
        shelf.get("nobody", 500.0)
    assert shelf.get("a", 500.0) is not None
    assert shelf.expired == 0


def test_shrinking_keeps_what_was_used_last() -> None:
    shelf = ReplyShelf(10, 10**6)
    for name in "abcdef":
        put(shelf, name)
    shelf.get("a", 1.0)
    shelf.resize(2, 10**6)
    assert [shelf.get(name, 1.0) is not None for name in "abcdef"] == [
        True, False, False, False, False, True
    ]  # fmt: skip
    shelf.resize(0, 10**6)
    assert (len(shelf), shelf.bytes) == (0, 0)


def test_namespaces_are_dropped_by_pattern() -> None:
    shelf = ReplyShelf(100, 10**6)
    for number, name in enumerate(["docs-1", "docs-2", "docs-2", "chat", "", ""]):
        put(shelf, key(number), namespace=name)
    assert shelf.invalidate("docs-*") == 3
    assert shelf.invalidate("docs-*") == 0
    assert shelf.invalidate("") == 2
    assert len(shelf) == 1
    assert shelf.invalidate("*") == 1
    assert shelf.bytes == 0


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("a", "a", True), ("a", "ab", False), ("", "", True), ("", "a", False), ("*", "", True),
        ("*", "anything", True), ("a*", "a", True), ("*a", "ba", True), ("a*a", "a", False),
        ("a*b*c", "a-b-b-c", True), ("a*b*c", "acb", False), ("**", "x", True), ("a.c", "abc", False),
        ("[a]*", "[a]b", True), ("a?", "ab", False),
    ],
)  # fmt: skip
def test_a_star_stands_for_anything_and_nothing_else_does(pattern: str, name: str, fits: bool) -> None:
    assert matches(pattern, name) is fits


def test_no_pattern_takes_long() -> None:
    """A regular expression would take until the sun goes out."""
    assert not matches("*a" * 2000 + "b", "a" * 20_000)


def test_what_was_asked_for_before_an_invalidation_is_known() -> None:
    past = Invalidations()
    before = past.turn
    past.note("docs-*")
    assert past.since(before, "docs-1")
    assert not past.since(before, "chat")
    assert not past.since(past.turn, "docs-1")
    past.note("other")
    assert past.since(before, "docs-1"), "also after another"
    for _ in range(300):
        past.note("other")
    assert past.since(before, "chat"), "nobody remembers so far back"
    assert not past.since(past.turn - 10, "chat")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "get", "drop", "pass", "invalidate", "resize"]),
            st.integers(0, 12),
            st.integers(0, 2000),
        ),
        max_size=60,
    )
)
def test_the_books_agree_whatever_happens(history: list[tuple[str, int, int]]) -> None:
    """Bytes, bounds and what can be found, against a plain dictionary."""
    shelf, now = ReplyShelf(5, 6 * (OVERHEAD + 1000)), 0.0
    plain: dict[str, tuple[bytes, float]] = {}
    for what, number, size in history:
        name = key(number)
        if what == "put":
            until = now + 1 + number * 40
            if shelf.put(name, b"x" * size, made=now, until=until, now=now, namespace=f"n{number % 3}"):
                plain[name] = (b"x" * size, until)
            else:
                plain.pop(name, None)
        elif what == "get":
            found = shelf.get(name, now)
            if found is not None:
                assert (found.value, found.until) == plain[name]
                assert now < found.until
        elif what == "drop":
            shelf.drop(name)
            plain.pop(name, None)
        elif what == "pass":
            now += size / 10
        elif what == "invalidate":
            shelf.invalidate(f"n{number % 3}")
        else:
            shelf.resize(1 + number, 6 * (OVERHEAD + 1000))
        kept = [shelf.get(each, now) for each in plain]
        held = [one for one in kept if one is not None]
        assert len(shelf) >= len(held)
        assert shelf.bytes <= shelf.most_bytes
        assert len(shelf) <= shelf.most_entries
    assert shelf.invalidate("*") >= 0
    assert (len(shelf), shelf.bytes) == (0, 0)


def test_the_overhead_covers_what_an_entry_really_takes() -> None:
    """Measured: 20 000 entries, each in a namespace and with a stamp, take no more than is counted."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        shelf = ReplyShelf(10**6, 10**9)
        for number in range(20_000):
            value = b"x" * (150 + number % 7)
            shelf.put(
                key(number), value, made=number / 7, until=number / 7 + 9e4, now=0.0,
                namespace=f"n{number % 50}", stamp=10**15 + number,
            )  # fmt: skip
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.5 * shelf.bytes < taken <= shelf.bytes
