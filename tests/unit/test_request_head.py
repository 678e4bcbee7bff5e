"""Heads of requests: nothing in them ends a line early or tells another length; X-32, F35 going out."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headgate.core.outcome import Kind
from headgate.core.ports import TransportError
from headgate.transport.request_head import Targets, head_of, merged

KEY = {"x-goog-api-key": "AIzaCANARY-one"}


def head(url: str = "https://api.example/v1/x", method: str = "POST", **headers: str) -> bytes:
    return head_of(Targets().find(method, url), method, headers, KEY, 3)


@pytest.mark.parametrize(
    ("url", "first", "host"),
    [
        ("https://api.example/v1/a:b?alt=sse", "POST /v1/a:b?alt=sse", "api.example"),
        ("https://api.example", "POST /", "api.example"),
        ("https://api.example:443/x", "POST /x", "api.example"),
        ("http://api.example:443/x", "POST /x", "api.example:443"),
        ("http://API.Example:80/x", "POST /x", "api.example"),
        ("http://[::1]:8080/x", "POST /x", "[::1]:8080"),
        (
            "http://127.0.0.1:9/a%2Fb/ü?q=é&r=%20#part",
            "POST /a%2Fb/%C3%BC?q=%C3%A9&r=%20",
            "127.0.0.1:9",
        ),
        ("https://bücher.example/", "POST /", "xn--bcher-kva.example"),
    ],
)
def test_a_url_becomes_a_request_line_and_a_host(url: str, first: str, host: str) -> None:
    lines = head(url).decode().split("\r\n")
    assert lines[:2] == [f"{first} HTTP/1.1", f"Host: {host}"]


@pytest.mark.parametrize(
    "url",
    [
        "", "api.example/x", "ftp://api.example/x", "https://", "https:///x", "https://api.example:0/",
        "https://api.example:99999/", "https://api.example:x/", "https://user:word@api.example/",
        "https://api.example/a b", "https://api.example/a\r\nX-Evil: 1", "https://api.example/\x00",
        "https://api example/", "https://api.example\\@other.example/", "https://[::1/", "https://a<b/",
        "https://api.example/\x7f", "https://[v1.x]/",
    ],
)  # fmt: skip
def test_what_is_no_url_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(TransportError) as caught:
        head(url)
    assert (caught.value.outcome.kind, caught.value.sent) == (Kind.REQUEST, False)


@pytest.mark.parametrize("method", ["", "PO ST", "GET\r\nX: y", "GET /", "é"])
def test_what_is_no_method_is_refused(method: str) -> None:
    with pytest.raises(TransportError) as caught:
        head(method=method)
    assert caught.value.outcome.kind is Kind.REQUEST


def tried(headers: dict[str, str]) -> tuple[list[bytes], TransportError | None]:
    try:
        raw = head_of(Targets().find("POST", "http://a/"), "POST", headers, KEY, 3)
    except TransportError as error:
        return [], error
    return raw.split(b"\r\n"), None


@given(name=st.text(max_size=8), value=st.text(max_size=12))
@example(name="x", value="a\r\nEvil: 1")
@example(name="x\r\nEvil", value="1")
@example(name="x", value="a\nb")
@example(name="x", value="a\rb")
@example(name="x", value="a\x00b")
@example(name="x y", value="1")
@example(name="x:", value="1")
@example(name="", value="1")
@example(name="x", value="漢")
@example(name="x", value="tab\tand é")
def test_a_head_has_the_lines_it_was_given_or_is_none(name: str, value: str) -> None:
    """Over any name and value: one line each, the last one blank, or a refusal that sent nothing."""
    lines, refusal = tried({name: value})
    if refusal is not None:
        assert (refusal.outcome.kind, refusal.sent) == (Kind.REQUEST, False)
        assert value not in refusal.outcome.message or len(value) < 3
        return
    assert len(lines) == 7
    assert lines[2] == f"{name}: {value}".encode("latin-1")
    assert lines[4:] == [b"Content-Length: 3", b"", b""]
    assert not any(byte in b"".join(lines) for byte in b"\r\n\x00")


@pytest.mark.parametrize(
    "name",
    ["Content-Length", "transfer-encoding", "Host", "connection", "TE", "Upgrade", "expect", "trailer"],
)
def test_where_a_message_ends_is_not_for_others_to_say(name: str) -> None:
    with pytest.raises(TransportError) as caught:
        head(**{name: "7"})
    assert caught.value.outcome.kind is Kind.REQUEST
    assert "7" not in caught.value.outcome.message


def test_the_key_of_the_call_goes_out_and_no_other() -> None:
    """A caller's own header of that name, in whatever case, does not go out beside the pool's key."""
    headers = merged({"X-Goog-Api-Key": "the caller's", "a": "b", "A": "c"}, KEY)
    assert headers == [("x-goog-api-key", "AIzaCANARY-one"), ("A", "c")]


def test_a_refusal_never_shows_a_value() -> None:
    with pytest.raises(TransportError) as caught:
        merged({}, {"x-goog-api-key": "AIzaCANARY\n"})
    assert "CANARY" not in str(caught.value)


def test_a_length_stands_where_a_body_may() -> None:
    target = Targets().find
    assert b"Content-Length: 0\r\n" in head_of(target("POST", "http://a/"), "POST", {}, {}, 0)
    assert b"Content-Length" not in head_of(target("GET", "http://a/"), "GET", {}, {}, 0)
    assert b"Content-Length: 2\r\n" in head_of(target("DELETE", "http://a/"), "DELETE", {}, {}, 2)


def test_remembered_targets_and_names_are_bounded() -> None:
    from headgate.transport import request_head

    targets = Targets()
    for number in range(3000):
        targets.find("GET", f"http://a/{number}")
        merged({f"x-number-{number}": "1"}, {})
    assert len(targets._known) <= 1024
    assert len(request_head._plain_names) <= 512
    assert merged({"x-number-2999": "1"}, {}) == [("x-number-2999", "1")]
