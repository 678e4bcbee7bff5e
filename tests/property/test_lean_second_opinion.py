"""h11, a parser by other people in another language, reads what the lean transport took for an answer.

Sound and doubtful answers are changed at random places, tens of thousands of times: whatever is taken
for whole must be the same answer to h11, with nothing behind it. F35, X-32.
"""

from __future__ import annotations

from random import Random  # noqa: TID251 - the same changes in every run

import h11
from tests.property.test_lean_answers import DOUBTFUL, SOUND, parsed

CHANGES = 20_000
TOKENS = [
    b"\r\n", b"\n", b"\r", b"\x00", b"\x0b", b"\xff", b" ", b"\t", b":", b",", b";", b'"', b"-", b"+",
    b"_",
    b"0", b"5", b"a", b"x", b"0\r\n\r\n", b"chunked", b"X: y\r\n", b"Connection: close\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n", b"HTTP/1.1 200 OK\r\n", b"100 Continue\r\n\r\n",
]  # fmt: skip

STRICTER = ("illegal status line", "no response line received", "Only Transfer-Encoding: chunked")
"""Where h11 refuses more, and nobody is misled: NUL in a reason, which we drop; a blank line behind an
interim answer; a coding among the trailers, which we drop as well."""


def second(raw: bytes) -> tuple[int | None, bytes, bytes] | str:
    """Status, body and what is behind, or why there is none."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(raw)
    status, body = None, b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return status, body, connection.trailing_data[0]
            elif not isinstance(event, h11.InformationalResponse):
                return "it is not whole"
    except h11.RemoteProtocolError as error:
        return str(error)


def changed(raw: bytes, chance: Random) -> bytes:
    text = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        at, kind = chance.randrange(len(text) + 1), chance.random()
        if kind < 0.5:
            text[at:at] = chance.choice(TOKENS)
        elif kind < 0.75:
            del text[at : at + chance.randint(1, 6)]
        else:
            text[at : at + 1] = bytes([chance.randrange(256)])
    return bytes(text)


def test_what_is_taken_for_an_answer_is_the_same_to_another_parser() -> None:
    chance = Random(20261121)
    sources = [raw for raw, *_ in SOUND.values()] + [
        raw for raw in DOUBTFUL.values() if len(raw) < 2000
    ]
    taken = 0
    for _ in range(CHANGES):
        raw = changed(chance.choice(sources), chance)
        ours = parsed(raw) if raw else None
        if ours is None or ours.refused or not ours.whole:
            continue
        taken += 1
        theirs = second(raw)
        if isinstance(theirs, str):
            assert theirs.startswith(STRICTER), (raw, theirs)
            continue
        status, body, behind = theirs
        assert (status, body) == (ours.status, ours.body), raw
        assert not ours.again or not behind.strip(b"\r\n"), raw
    assert taken > CHANGES / 200, "most changes break an answer, but some do not"
