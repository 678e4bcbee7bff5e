"""Answers as the lean transport parses them: cut anywhere they are the same, and where they could mean
two things they are none. The corpus is of the shapes that HTTP Garden, the RFCs' security sections and
CVEs of the past years list for clients; F13, F23, F35 coming in, X-32."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.transport.lean_parser import AnswerParser, load_library
from headgate.transport.response_head import InvalidAnswerError, framing_of

LIBRARY = load_library()


@dataclass
class Taken:
    """What came of an answer."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    whole: bool = False
    refused: str | None = None
    again: bool = False

    def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        assert not self.status, "one answer has one head"
        self.status, self.headers = status, headers

    def take(self, piece: bytes) -> None:
        assert piece
        self.body += piece


def parsed(*pieces: bytes, head_only: bool = False) -> Taken:
    taken = Taken()
    parser = AnswerParser(LIBRARY)
    parser.expect(taken, head_only=head_only)
    try:
        for piece in pieces:
            parser.feed(piece)
    except InvalidAnswerError as error:
        taken.refused = str(error)
    taken.whole = parser.done
    taken.again = parser.done and parser.reusable and taken.refused is None
    return taken


def answer(*lines: str | bytes, body: bytes = b"", status: str = "HTTP/1.1 200 OK") -> bytes:
    encoded = [line if isinstance(line, bytes) else line.encode("latin-1") for line in (status, *lines)]
    return b"\r\n".join(encoded) + b"\r\n\r\n" + body


LENGTH = "Content-Length: 5"
CHUNKED = "Transfer-Encoding: chunked"

SOUND: dict[str, tuple[bytes, int, bytes, bool]] = {
    "a length": (answer(LENGTH, "X-A: b", body=b"hello"), 200, b"hello", True),
    "no body": (answer("Content-Length: 0"), 200, b"", True),
    "an empty header": (answer("X-Empty:", LENGTH, body=b"hello"), 200, b"hello", True),
    "no reason": (answer(LENGTH, body=b"hello", status="HTTP/1.1 429"), 429, b"hello", True),
    "chunks": (answer(CHUNKED, body=b"2\r\nhe\r\n003\r\nllo\r\n0\r\n\r\n"), 200, b"hello", True),
    "chunks in capitals": (
        answer("TRANSFER-ENCODING: Chunked", body=b"A\r\n0123456789\r\n0\r\n\r\n"), 200,
        b"0123456789", True,
    ),
    "chunk extensions": (
        answer(CHUNKED, body=b'5;a=b;c="d"\r\nhello\r\n0;last\r\n\r\n'), 200, b"hello", True,
    ),
    "trailers": (
        answer(CHUNKED, body=b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Type: x\r\n\r\n"), 200,
        b"hello", True,
    ),
    "to be closed": (answer(LENGTH, "Connection: close", body=b"hello"), 200, b"hello", False),
    "an old one": (answer(LENGTH, body=b"hello", status="HTTP/1.0 200 OK"), 200, b"hello", False),
    "an old one that is kept": (
        answer(LENGTH, "Connection: keep-alive", body=b"hello", status="HTTP/1.0 200 OK"), 200,
        b"hello", True,
    ),
    "an interim one before": (
        answer(status="HTTP/1.1 100 Continue") + answer("Link: x", status="HTTP/1.1 103 Early Hints")
        + answer(LENGTH, body=b"hello"), 200, b"hello", True,
    ),
    "204": (answer("X-A: b", status="HTTP/1.1 204 No Content"), 204, b"", True),
    "304 that tells a length": (answer(LENGTH, status="HTTP/1.1 304 Not Modified"), 304, b"", False),
    "bytes of every kind": (
        answer("Content-Length: 256", body=bytes(range(256))), 200, bytes(range(256)), True,
    ),
    "an unknown status": (
        answer(LENGTH, body=b"hello", status="HTTP/1.1 999 Odd"), 999, b"hello", True,
    ),
}  # fmt: skip


def cuts(raw: bytes) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1, len(raw) - 1), max_size=12).map(lambda places: sorted(set(places)))


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    return [raw[begin:end] for begin, end in zip([0, *places], [*places, len(raw)], strict=True)]


@pytest.mark.parametrize("name", SOUND)
def test_an_answer_is_what_it_says(name: str) -> None:
    raw, status, body, again = SOUND[name]
    taken = parsed(raw)
    assert (taken.refused, taken.whole) == (None, True)
    assert (taken.status, taken.body, taken.again) == (status, body, again)


@pytest.mark.parametrize("name", SOUND)
def test_it_is_the_same_byte_by_byte(name: str) -> None:
    """F13: slices of one byte."""
    raw = SOUND[name][0]
    assert parsed(*(raw[at : at + 1] for at in range(len(raw)))) == parsed(raw)


@pytest.mark.parametrize("name", SOUND)
def test_it_is_the_same_however_it_is_cut(name: str) -> None:
    raw = SOUND[name][0]
    whole = parsed(raw)

    @given(cuts(raw))
    def check(places: list[int]) -> None:
        assert parsed(*cut(raw, places)) == whole

    check()


@pytest.mark.parametrize("name", SOUND)
def test_before_its_end_it_is_not_whole(name: str) -> None:
    """F23: at no length but the last is it taken for complete; a 304 needs no more than its head."""
    raw = SOUND[name][0]
    for end in range(1, len(raw)):
        assert not parsed(raw[:end]).whole


@given(
    body=st.binary(min_size=1, max_size=200),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    data=st.data(),
)
def test_any_chunking_of_any_body_is_that_body(
    body: bytes, sizes: list[int], data: st.DataObject
) -> None:
    chunks, at = b"", 0
    for size in [*sizes, len(body)]:
        piece = body[at : at + size]
        at += size
        if piece:
            chunks += b"%x\r\n%b\r\n" % (len(piece), piece)
    raw = answer(CHUNKED, body=chunks + b"0\r\n\r\n")
    taken = parsed(*cut(raw, data.draw(cuts(raw))))
    assert (taken.body, taken.whole, taken.refused) == (body, True, None)


DOUBTFUL: dict[str, bytes] = {
    "two lengths": answer(LENGTH, "Content-Length: 6", body=b"hello!"),
    "the same length twice": answer(LENGTH, LENGTH, body=b"hello"),
    "lengths in a list": answer("Content-Length: 5, 5", body=b"hello"),
    "a length and chunks": answer(LENGTH, CHUNKED, body=b"0\r\n\r\n"),
    "chunks and a length": answer(CHUNKED, LENGTH, body=b"0\r\n\r\n"),
    "a negative length": answer("Content-Length: -5", body=b"hello"),
    "a signed length": answer("Content-Length: +5", body=b"hello"),
    "a hexadecimal length": answer("Content-Length: 0x5", body=b"hello"),
    "a length with an underscore": answer("Content-Length: 0_5", body=b"hello"),
    "a length of letters": answer("Content-Length: five", body=b"hello"),
    "an empty length": answer("Content-Length:", body=b"hello"),
    "a length beyond 64 bits": answer("Content-Length: 18446744073709551621", body=b"hello"),
    "a length with a no-break space": answer("Content-Length: 5\xa0", body=b"hello"),
    "a fractional length": answer("Content-Length: 5.0", body=b"hello"),
    "gzip as coding": answer("Transfer-Encoding: gzip", body=b"hello"),
    "gzip, chunked": answer("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "chunked, identity": answer("Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
    "identity": answer("Transfer-Encoding: identity", body=b"hello"),
    "chunked twice": answer(CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
    "chunked in quotes": answer('Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"),
    "chunked with a parameter": answer("Transfer-Encoding: chunked;a=b", body=b"0\r\n\r\n"),
    "an empty coding": answer("Transfer-Encoding:", body=b"hello"),
    "xchunked": answer("Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "a vertical tab before chunked": answer("Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "chunks in HTTP/1.0": answer(CHUNKED, body=b"0\r\n\r\n", status="HTTP/1.0 200 OK"),
    "a space before the colon": answer("Content-Length : 5", body=b"hello"),
    "a tab before the colon": answer("Content-Length\t: 5", body=b"hello"),
    "no name": answer(": 5", body=b"hello"),
    "no colon": answer("Content-Length 5", body=b"hello"),
    "a folded line": answer("X-A: b", " c: d", LENGTH, body=b"hello"),
    "a folded coding": answer("Transfer-Encoding:", "\tchunked", body=b"0\r\n\r\n"),
    "a space before the first name": answer(" X-A: b", LENGTH, body=b"hello"),
    "a NUL in a value": answer("X-A: b\x00c", LENGTH, body=b"hello"),
    "a NUL in a name": answer("X\x00A: b", LENGTH, body=b"hello"),
    "a bare CR in a value": answer("X-A: b\rX-B: c", LENGTH, body=b"hello"),
    "bare LFs": answer(LENGTH, body=b"hello").replace(b"\r\n", b"\n"),
    "one bare LF": b"HTTP/1.1 200 OK\r\nX-A: b\nContent-Length: 5\r\n\r\nhello",
    "a bare LF after the status": b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\nhello",
    "a bare CR that ends the head": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\rhello",
    "brackets in a name": answer("Content(Length): 5", body=b"hello"),
    "an old coding header in 204": answer(
        CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n", status="HTTP/1.1 204 No"
    ),
    "a body in 204": answer(LENGTH, body=b"hello", status="HTTP/1.1 204 No"),
    "a body in 304": answer(LENGTH, body=b"hello", status="HTTP/1.1 304 No"),
    "chunk size with an underscore": answer(CHUNKED, body=b"0_5\r\nhello\r\n0\r\n\r\n"),
    "chunk size with a prefix": answer(CHUNKED, body=b"0x5\r\nhello\r\n0\r\n\r\n"),
    "chunk size with a sign": answer(CHUNKED, body=b"+5\r\nhello\r\n0\r\n\r\n"),
    "negative chunk size": answer(CHUNKED, body=b"-5\r\nhello\r\n0\r\n\r\n"),
    "empty chunk size": answer(CHUNKED, body=b"\r\nhello\r\n0\r\n\r\n"),
    "chunk size behind a space": answer(CHUNKED, body=b" 5\r\nhello\r\n0\r\n\r\n"),
    "chunk size before a space": answer(CHUNKED, body=b"5 \r\nhello\r\n0\r\n\r\n"),
    "chunk size beyond 64 bits": answer(CHUNKED, body=b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    "chunk size ended by LF": answer(CHUNKED, body=b"5\nhello\r\n0\r\n\r\n"),
    "chunk size ended by CR": answer(CHUNKED, body=b"5\rhello\r\n0\r\n\r\n"),
    "chunk ended by LF": answer(CHUNKED, body=b"5\r\nhello\n0\r\n\r\n"),
    "chunk longer than its size": answer(CHUNKED, body=b"4\r\nhello\r\n0\r\n\r\n"),
    "chunk shorter than its size": answer(CHUNKED, body=b"6\r\nhello\r\n0\r\n\r\n"),
    "an LF in an extension": answer(CHUNKED, body=b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    "a NUL in an extension": answer(CHUNKED, body=b"5;\x00\r\nhello\r\n0\r\n\r\n"),
    "a bad trailer": answer(CHUNKED, body=b"0\r\nX A: b\r\n\r\n"),
    "a length as trailer": answer(CHUNKED, body=b"0\r\nContent-Length: 5\r\n\r\n"),
    "HTTP/2.0": answer(LENGTH, body=b"hello", status="HTTP/2.0 200 OK"),
    "HTTP/0.9": answer(LENGTH, body=b"hello", status="HTTP/0.9 200 OK"),
    "HTTP/1.2": answer(LENGTH, body=b"hello", status="HTTP/1.2 200 OK"),
    "http/1.1": answer(LENGTH, body=b"hello", status="http/1.1 200 OK"),
    "RTSP": answer(LENGTH, body=b"hello", status="RTSP/1.0 200 OK"),
    "ICE": answer(LENGTH, body=b"hello", status="ICE/1.0 200 OK"),
    "RTSP behind an interim one": answer(status="HTTP/1.1 100 C")
    + answer(LENGTH, status="HTTP/2.0 200 OK"),
    "a blank line first": b"\r\n" + answer(LENGTH, body=b"hello"),
    "a body without a head": b'{"a": 1}\r\n\r\n',
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "a status of two digits": answer(LENGTH, body=b"hello", status="HTTP/1.1 20 OK"),
    "a status of four digits": answer(LENGTH, body=b"hello", status="HTTP/1.1 2000 OK"),
    "a status below 100": answer(LENGTH, body=b"hello", status="HTTP/1.1 099 OK"),
    "a signed status": answer(LENGTH, body=b"hello", status="HTTP/1.1 +20 OK"),
    "two spaces before the status": answer(LENGTH, body=b"hello", status="HTTP/1.1  200 OK"),
    "switching protocols": answer("Upgrade: h2c", "Connection: upgrade", status="HTTP/1.1 101 S"),
    "an interim one with a body": answer(LENGTH, body=b"hello", status="HTTP/1.1 100 C"),
    "an interim one in chunks": answer(CHUNKED, body=b"0\r\n\r\n", status="HTTP/1.1 103 C"),
    "interim ones for ever": answer(status="HTTP/1.1 100 C") * 17,
    "too many headers": answer(*(f"X-{number}: a" for number in range(129)), LENGTH, body=b"hello"),
    "a head too long": answer("X-A: " + "a" * 66_000, LENGTH, body=b"hello"),
    "a reason too long": answer(LENGTH, status="HTTP/1.1 200 " + "a" * 200_000)[:100_000],
    "a name too long": answer("X" * 100_000)[:90_000],
    "something behind it": answer(LENGTH, body=b"hello") + b" and more",
    "a second answer behind it": answer(LENGTH, body=b"hello") * 2,
    "half an answer behind it": answer(LENGTH, body=b"hello") + b"HTTP/1.1 2",
    "a second answer behind chunks": answer(CHUNKED, body=b"0\r\n\r\n") + answer(LENGTH, body=b"hello"),
    "something behind one that closes": answer(LENGTH, "Connection: close", body=b"hello") + b"x",
    "a second answer behind 204": answer(status="HTTP/1.1 204 N") + answer(LENGTH, body=b"hello"),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_could_mean_two_things_is_refused(name: str) -> None:
    taken = parsed(DOUBTFUL[name])
    assert taken.refused
    assert not taken.again


@pytest.mark.parametrize(
    "headers",
    [
        [(b"Content-Length", b"5"), (b"content-length", b"5")],
        [(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")],
        [(b"TRANSFER-ENCODING", b"chunked"), (b"Transfer-Encoding", b"chunked")],
        [(b"Content-Length", b"1234567890123456789")],
    ],
)
def test_lengths_are_doubted_here_too_and_not_by_the_library_alone(
    headers: list[tuple[bytes, bytes]],
) -> None:
    with pytest.raises(InvalidAnswerError):
        framing_of(headers, 200, head_only=False)


NEEDS_ONE_PIECE = {"a body in 204", "a body in 304", "an old coding header in 204"}
"""Whole at the end of their head: what follows meets a connection that serves nobody."""


@pytest.mark.parametrize("name", [name for name in DOUBTFUL if len(DOUBTFUL[name]) < 5_000])
def test_and_the_connection_is_not_used_again_however_it_is_cut(name: str) -> None:
    """Fed one byte at a time, until it is whole: refused, or whole and the rest nobody asked for."""
    raw = DOUBTFUL[name]
    taken = Taken()
    parser = AnswerParser(LIBRARY)
    parser.expect(taken)
    fed = 0
    try:
        while fed < len(raw) and not parser.done:
            parser.feed(raw[fed : fed + 1])
            fed += 1
    except InvalidAnswerError:
        return
    behind = {name for name in DOUBTFUL if "behind" in name and "interim" not in name}
    assert name in behind | NEEDS_ONE_PIECE
    assert fed < len(raw) or not parser.reusable, "its connection sees the rest while nobody waits"
    if name in NEEDS_ONE_PIECE:
        assert not parser.reusable


@pytest.mark.parametrize(
    "raw",
    [
        answer(LENGTH),
        answer(CHUNKED),
        answer("X-A: b"),
        answer("Content-Length: 0"),
    ],
)
def test_a_head_asked_for_alone_is_whole_without_a_body(raw: bytes) -> None:
    taken = parsed(raw, head_only=True)
    assert (taken.whole, taken.body, taken.refused) == (True, b"", None)
    assert taken.again == (b"Length: 0" in raw), "another length might follow on that connection"


def test_endless_extensions_trailers_and_blanks_are_cut() -> None:
    """F23: what is no body has an end, however slowly it comes."""
    for raw in (b"1;" + b"a" * 70_000, b"0\r\nX-A: " + b"a" * 70_000, b"1" + b";a=b" * 20_000):
        pieces = [answer(CHUNKED), *(raw[at : at + 1000] for at in range(0, len(raw), 1000))]
        assert parsed(*pieces).refused == "more than 65536 bytes that are no body"


@given(st.binary(max_size=300), st.data())
def test_no_bytes_at_all_break_it(noise: bytes, data: st.DataObject) -> None:
    """Any bytes, alone or in the place of a head's end or a body, are taken, refused or waited for."""
    start = data.draw(st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", answer(CHUNKED), answer(LENGTH)]))
    raw = start + noise
    if len(raw) > 1:
        taken = parsed(*cut(raw, data.draw(cuts(raw))))
        assert taken.refused is None or taken.refused.isprintable()


@given(
    st.lists(
        st.sampled_from([raw for raw, _, _, again in SOUND.values() if again]), min_size=2, max_size=6
    )
)
def test_answers_of_one_connection_do_not_mix(answers: list[bytes]) -> None:
    """One parser, one answer after the other: each is what it would be alone."""
    parser = AnswerParser(LIBRARY)
    for raw in answers:
        taken = Taken()
        parser.expect(taken)
        assert parser.silent
        parser.feed(raw)
        alone = parsed(raw)
        assert (taken.status, taken.headers, taken.body) == (alone.status, alone.headers, alone.body)
        assert parser.done
        assert parser.reusable
