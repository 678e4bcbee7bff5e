"""What clients write as JSON, and into it, through each surface: never a fault, and what passes passes
to the byte.

The cases are our own, after RFC 8259: `GOOD` is JSON, `BAD` is none, of `ODD` the standard leaves it to
the reader (sections 4, 6 and 8), so either answer will do.
"""

from __future__ import annotations

import json
import logging

import pytest
from tests.gateway import Got, ask, scripted_gateway
from tests.support import stream
from tests.unit.test_gateway import by_api

from headgate.testing import Answer, Sent, VirtualClock
from headgate.wiring.gateway_settings import GatewaySettings

MODEL = "gemini-3.5-flash"
SURFACES: dict[str, bytes] = {
    f"/gemini/v1beta/models/{MODEL}:generateContent": b'{"contents":[],%b}',
    f"/gemini/v1beta/models/{MODEL}:streamGenerateContent": b'{"contents":[],%b}',
    f"/gemini/v1beta/models/{MODEL}:countTokens": b'{"contents":[],%b}',
    "/gemini/v1beta/models/gemini-embedding-001:batchEmbedContents": b'{"requests":[{}],%b}',
    "/gemini/v1beta/cachedContents": b'{"model":"models/m",%b}',
    "/anthropic/v1/messages": b'{"model":"m","max_tokens":1,"messages":[],%b}',
    "/anthropic/v1/messages/count_tokens": b'{"model":"m","messages":[],%b}',
    "/openai/v1/chat/completions": b'{"model":"m","messages":[],%b}',
    "/openai/v1/embeddings": b'{"model":"m","input":"a",%b}',
}
"""A body of each path, with a place for a member or more."""

GOOD = [
    b"null", b"true", b"false", b"0", b"-0", b"1e5", b"1E+05", b"1.5e-300", b"-1.25",
    b"9007199254740993", b'""', b'"\\u0000"', b'"\\"\\\\\\/\\b\\f\\n\\r\\t"', b'"\\uD83D\\uDE00"',
    b'"\x7f"', "\"\u2028\u2029\ufeff\u202e\u200d\"".encode(), '"\U0001f9d1\u200d\U0001f680"'.encode(),
    b"[]", b"{}", b" [ 1 ,\t2\r\n] ", b'{"":0}', b'{"a":1,"a":2}', b"[[[[[[[[[[]]]]]]]]]]",
    b'{"\\u0061":[{"b":[]}]}', b"[" + b"0," * 5000 + b"0]", b'"' + b"a" * 100_000 + b'"',
]  # fmt: skip

BAD = [
    b"", b"nul", b"True", b"nan", b"NaN", b"Infinity", b"-Infinity", b"undefined", b"-", b"+1", b"01",
    b"-01", b"1.", b".5", b"1.e2", b"1e", b"1e+", b"1eE2", b"0x1f", b"1_000", b"1 2", b"--1", b"1,",
    b"'a'", b'"', b'"a', b'"\\', b'"\\x"', b'"\\u"', b'"\\u12"', b'"\\uZZZZ"', b'"\\u{41}"', b'"a\nb"',
    b'"a\tb"', b'"\x00"', b'"\x1f"', b"[", b"]", b"[1", b"[1,", b"[1,]", b"[,1]", b"[1 2]", b"[1:2]",
    b"{", b"}", b'{"a"}', b'{"a":}', b'{"a":1', b'{"a":1,}', b"{,}", b"{a:1}", b"{1:1}", b'{"a" 1}',
    b'{"a":1 "b":2}', b'{"a"::1}', b"// c\n1", b"/* c */ 1", b"# c\n1", b"\xef\xbb\xbf1", b"\x0c1",
    b"1\x00", b"\xa01", b'["a", "b"', b'{"a":"b"}}', b"[" * 300, b'{"a":' * 300,
]  # fmt: skip

ODD = [
    b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\\ud800"',
    b'"\\udc00\\ud800"', b'"\\uD83D\\uD83D"', b"1" * 5000, b"-" + b"9" * 5000, b"1e9999", b"1e-9999",
    b"0." + b"1" * 5000, b"[" * 150 + b"]" * 150,
]  # fmt: skip


class Door:
    """A gateway over an upstream that answers whatever it is asked."""

    def __init__(self, clock: VirtualClock) -> None:
        self.gateway, self.transport = scripted_gateway(answered, clock)

    async def ask(self, path: str, body: bytes | object, **headers: str) -> tuple[Got, bool]:
        """The answer to a body; whether it went upstream, byte for byte."""
        before = len(self.transport.sent)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        got = await ask(self.gateway, "POST", path, body, names)
        assert got.ended
        assert not self.gateway.visits
        assert not self.transport.open_exchanges
        sent = [one.request.body for one in self.transport.sent[before:]]
        if isinstance(body, bytes):
            assert sent in ([], [body]), "what passes passes as it came"
        return got, bool(sent)


def answered(sent: Sent) -> Answer:
    return stream("a") if sent.request.streaming else by_api(sent)


@pytest.mark.parametrize("path", SURFACES)
async def test_json_passes_and_what_is_none_is_refused(clock: VirtualClock, path: str) -> None:
    """F34 and trust.md 1.3: good ones are sent on, bad ones get 400 in the surface's shape."""
    template, door = SURFACES[path], Door(clock)
    for case in GOOD + BAD + ODD:
        got, sent = await door.ask(path, template.replace(b"%b", b'"x":' + case))
        if case in GOOD:
            assert (got.status, sent) == (200, True), case
        elif case in BAD:
            assert (got.status, sent) == (400, False), case
            assert b'"error"' in got.body, case
        else:
            assert (got.status, sent) in ((200, True), (400, False)), case


@pytest.mark.parametrize("path", SURFACES)
async def test_a_body_that_is_no_object_is_refused(clock: VirtualClock, path: str) -> None:
    cases = [case for case in [*GOOD, *BAD, *ODD] if not case.strip().startswith(b"{")]
    door = Door(clock)
    for case in cases:
        got, sent = await door.ask(path, case)
        assert (got.status, sent) == (400, False), case


@pytest.mark.parametrize("path", SURFACES)
@pytest.mark.parametrize("opener", [b"[", b'{"a":', b'[{"a":'])
async def test_a_body_nested_without_end_is_refused_before_it_is_parsed(
    clock: VirtualClock, path: str, opener: bytes
) -> None:
    """F33: 200,000 levels; and the cap of X-30 is a setting."""
    body = SURFACES[path].replace(b"%b", b'"x":' + opener * 200_000)
    got, sent = await Door(clock).ask(path, body)
    assert (got.status, sent) == (400, False)
    assert "nested more than 200 levels" in got.body.decode()


async def test_how_deep_a_body_may_be_is_a_setting(clock: VirtualClock) -> None:
    gateway, _ = scripted_gateway(by_api, clock, settings=GatewaySettings(max_json_depth=3))
    (path, *_) = SURFACES
    for depth, status in ((2, 200), (3, 400)):
        body = b'{"contents":' + b"[" * depth + b"]" * depth + b"}"
        assert (await ask(gateway, "POST", path, body)).status == status


NAUGHTY = [
    "", " ", "\x00", "\x1b[31mred\x1b[0m", "a\r\nset-cookie: b", "\u202eevil\u202c",
    "\u200b\u200d\ufeff", "e\u0301\u0301\u0301" * 50, "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "Ω≈ç√∫˜µ≤≥÷", "社會科學院", "ثم نفس", "'; DROP TABLE usage;--", "<script>alert(1)</script>",
    "{{7*7}}",
    "${jndi:ldap://x}", "$(id)", "`id`", "../../etc/passwd", "%00", "%s%s%n", "1e309", "nan", "null",
    "undefined", "true", "0x7fffffffffffffff", "-1", "\\", '"', "\ud7ff\ue000\uffff", "\U0010ffff",
    "a" * 60_000, "\u0085\u2028\u2029", "con", "http://[::1",
]  # fmt: skip


@pytest.mark.parametrize("path", SURFACES)
async def test_naughty_strings_pass_byte_for_byte(
    clock: VirtualClock, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As a prompt; nothing of one is taken for a control character of a log either."""
    caplog.set_level(logging.DEBUG)
    door = Door(clock)
    for text in NAUGHTY:
        for ascii_only in (True, False):
            value = json.dumps(text, ensure_ascii=ascii_only).encode()
            got, sent = await door.ask(path, SURFACES[path].replace(b"%b", b'"x":' + value))
            assert (got.status, sent) == (200, True), text[:40]
    check_log(caplog)


@pytest.mark.parametrize("path", ["/anthropic/v1/messages", "/openai/v1/chat/completions"])
async def test_naughty_names_of_models_do_no_harm(
    clock: VirtualClock, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The name of a model is part of records, log lines and metrics."""
    caplog.set_level(logging.DEBUG)
    door = Door(clock)
    for text in NAUGHTY:
        body = {"model": text, "messages": [], "max_tokens": 1}
        got, _ = await door.ask(path, body)
        assert got.status in (200, 400), text[:40]
    check_log(caplog)


@pytest.mark.parametrize("name", ["user-agent", "x-headgate-timeout", "x-headgate-priority",
                                  "x-stainless-timeout", "cache-control", "anthropic-beta",
                                  "content-type", "x-goog-api-client", "traceparent"])  # fmt: skip
async def test_naughty_headers_do_no_harm(clock: VirtualClock, name: str) -> None:
    """As bytes, as any client may send them; what is no plain text does not go upstream."""
    (path, *_), body, door = SURFACES, b'{"contents":[]}', Door(clock)
    for text in NAUGHTY:
        got, _ = await door.ask(path, body, **{name: text.encode().decode("latin-1")})
        assert got.status in (200, 400, 415, 504), text[:40]
    for sent in door.transport.sent:
        for value in sent.request.headers.values():
            assert value.isascii()
            assert value.isprintable()


def check_log(caplog: pytest.LogCaptureFixture) -> None:
    for record in caplog.records:
        assert not set(record.getMessage()) & {"\r", "\n", "\x00", "\x1b"}, record
