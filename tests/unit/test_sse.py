"""Server-sent events out of bytes, however the network cuts them."""

from __future__ import annotations

import pytest

from headgate.core.ports import Event
from headgate.transport.sse import LONGEST_EVENT, EventTooLongError, SseDecoder


def decode(*pieces: bytes, longest: int = LONGEST_EVENT) -> list[Event]:
    decoder = SseDecoder(longest)
    events = [event for piece in pieces for event in decoder.feed(piece)] + list(decoder.end())
    assert b"".join(event.raw for event in events) == b"".join(pieces), "not a byte may be lost"
    return [event for event in events if not event.is_filler]


def framed(*data: bytes) -> list[Event]:
    return [Event(item) for item in data]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_lines_end_in_three_ways(end: bytes) -> None:
    raw = b"data: one" + end + end + b"data: two" + end + end
    assert decode(raw) == framed(b"one", b"two")


STREAMS = {
    "crlf": (b"data: {\"a\":1}\r\n\r\ndata: b\r\n\r\n", framed(b'{"a":1}', b"b")),
    "cr": (b"data: a\r\rdata: b\r\r", framed(b"a", b"b")),
    "lf": (b"data: a\n\ndata: b\n\n", framed(b"a", b"b")),
    "mixed": (b"data: a\r\n\ndata: b\r\r\ndata: c\n\r", framed(b"a", b"b", b"c")),
    "bom": (b"\xef\xbb\xbfdata: a\r\n\r\n", framed(b"a")),
    "utf-8": ("data: 漢字 🚦\r\n\r\n".encode(), framed("漢字 🚦".encode())),
    "two data lines": (b"data: a\ndata: b\n\n", framed(b"a\nb")),
    "no space": (b"data:a\n\ndata:  b\n\n", framed(b"a", b" b")),
    "comments": (b": ping\n\n:\ndata: a\n: more\n\n", framed(b"a")),
    "other fields": (b"event: x\nid: 7\nretry: 5\ndata: a\n\n", framed(b"a")),
    "fields alone": (b"event: x\nid: 7\n\n", []),
    "blank lines": (b"\n\n\r\n\r\ndata: a\n\n\n\n", framed(b"a")),
    "unterminated": (b"data: a\n\ndata: b", framed(b"a", b"b")),
    "one line break short": (b"data: a\n", framed(b"a")),
    "empty data": (b"data:\n\ndata\n\n", framed(b"", b"")),
    "stray": (b'data: a\n\n{\n  "error": {"code": 503}\n}\n',
              [Event(b"a"), Event(b'{\n  "error": {"code": 503}\n}', framed=False)]),
    "stray without a break": (b'data: a\n{"error": 1}\n\n',
                              [Event(b"a"), Event(b'{"error": 1}', framed=False)]),
    "html": (b"<html>\r\n</html>", [Event(b"<html>\n</html>", framed=False)]),
    "nothing": (b"", []),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_the_stream_is_the_same_split_at_every_byte(name: str) -> None:
    raw, expected = STREAMS[name]
    assert decode(raw) == expected
    assert decode(*(raw[at : at + 1] for at in range(len(raw)))) == expected
    for at in range(len(raw) + 1):
        assert decode(raw[:at], raw[at:]) == expected, f"split at byte {at}"
        assert decode(raw[:at], b"", raw[at:]) == expected


def test_a_byte_order_mark_counts_at_the_start_only() -> None:
    assert decode(b"data: a\n\n\xef\xbb\xbfdata: b\n\n") == [
        Event(b"a"),
        Event(b"\xef\xbb\xbfdata: b", framed=False),
    ]


def test_events_come_as_soon_as_they_are_complete() -> None:
    decoder = SseDecoder()
    assert list(decoder.feed(b"data: a\n")) == []
    assert list(decoder.feed(b"\ndata: b")) == framed(b"a")
    assert list(decoder.feed(b"\r")) == []
    assert list(decoder.feed(b"\n\r")) == framed(b"b")


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_an_endless_line_is_refused(size: int) -> None:
    pieces = [b"data: ", *[b"x" * size] * (1001 // size)]
    with pytest.raises(EventTooLongError, match="1000 bytes"):
        decode(*pieces, longest=1000)


def test_an_endless_event_of_short_lines_is_refused() -> None:
    with pytest.raises(EventTooLongError):
        decode(*[b"data: xxxx\n"] * 200, longest=1000)


def test_many_short_events_are_not_one_long_one() -> None:
    assert len(decode(*[b"data: xxxx\n\n"] * 500, longest=100)) == 500


def test_a_line_of_eight_mebibytes_passes() -> None:
    line = b"x" * (8 * 1024 * 1024)
    pieces = [line[at : at + 65536] for at in range(0, len(line), 65536)]
    (got,) = decode(b"data: ", *pieces, b"\r\n\r\n")
    assert got.data == line


def test_an_events_repr_holds_no_prompt() -> None:
    assert "secret words" not in repr(Event(b"secret words"))
