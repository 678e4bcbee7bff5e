"""The wire of Gemini's files: what is asked for, and what is read of the answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import key

from headgate.core.call import RawReply
from headgate.core.files import FileState, StoredFile
from headgate.providers.gemini_files import GeminiFiles

DESK = GeminiFiles()
DIGEST = "0123456789abcdef" * 4


def answer(body: object = None, **headers: str) -> RawReply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return RawReply(200, named, b"" if body is None else json.dumps(body).encode())


def test_a_name_follows_from_the_content_and_is_one_that_google_takes() -> None:
    """Up to 40 characters after `files/`: lower-case letters, digits, dashes inside."""
    name = DESK.name_for(DIGEST)
    assert name == f"files/hg-{DIGEST[:32]}"
    assert len(name.removeprefix("files/")) <= 40


def test_an_upload_is_begun_with_size_and_type_and_no_key() -> None:
    raw = DESK.begin("files/a", "video/mp4", 7)
    assert (raw.method, raw.path) == ("POST", "/upload/v1beta/files")
    assert raw.headers["x-goog-upload-command"] == "start"
    assert raw.headers["x-goog-upload-header-content-length"] == "7"
    assert raw.headers["x-goog-upload-header-content-type"] == "video/mp4"
    assert json.loads(raw.body) == {
        "file": {"mimeType": "video/mp4", "sizeBytes": "7", "name": "files/a"}
    }
    assert "name" not in json.loads(DESK.begin("", "video/mp4", 7).body)["file"]
    assert not any("key" in name for name in raw.headers)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://google.example/upload/v1beta/files?upload_id=7&x=1",
         "/upload/v1beta/files?upload_id=7&x=1"),
        ("/upload/v1beta/files", "/upload/v1beta/files"),
        ("https://evil.example/v1beta/models", ""),
        ("https://[/upload/v1beta/files", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_bytes_go_to_the_upstream_that_was_asked_whatever_host_is_named(url: str, place: str) -> None:
    """Only the path is used: no key follows an address to another host."""
    assert DESK.place(answer(x_goog_upload_url=url)) == place


def test_the_last_piece_ends_the_upload_and_none_is_sent_twice() -> None:
    first, last = DESK.send("/p", b"ab", 0, last=False), DESK.send("/p", b"c", 2, last=True)
    assert [raw.headers["x-goog-upload-command"] for raw in (first, last)] == [
        "upload",
        "upload, finalize",
    ]
    assert [raw.headers["x-goog-upload-offset"] for raw in (first, last)] == ["0", "2"]
    assert [raw.repeatable for raw in (first, last, DESK.ask("/p"))] == [False, False, True]


@pytest.mark.parametrize(
    ("headers", "arrived"),
    [
        ({"x_goog_upload_status": "active", "x_goog_upload_size_received": "262144"}, 262_144),
        ({"x_goog_upload_status": "final", "x_goog_upload_size_received": "5"}, None),
        ({"x_goog_upload_status": "active"}, 0),
        ({"x_goog_upload_size_received": "-3"}, 0),
        ({"x_goog_upload_size_received": "²"}, 0),
    ],
)
def test_how_much_has_arrived(headers: dict[str, str], arrived: int | None) -> None:
    assert DESK.arrived(answer(**headers)) == arrived


FILE: dict[str, Any] = {
    "name": "files/abc",
    "mimeType": "video/mp4",
    "sizeBytes": "123",
    "expirationTime": "2026-11-23T10:00:00.123456789Z",
    "uri": "https://generativelanguage.googleapis.com/v1beta/files/abc",
    "state": "ACTIVE",
    "somethingNew": {"a": [1]},
}


@pytest.mark.parametrize("body", [FILE, {"file": FILE}])
def test_a_file_is_read_alone_and_as_the_answer_to_an_upload(body: dict[str, Any]) -> None:
    told = DESK.told(answer(body))
    assert told == StoredFile("files/abc", FILE["uri"], FileState.ACTIVE, told.expires)
    assert told.expires == pytest.approx(1_795_428_000.123, abs=0.01)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"state": "PROCESSING"}, FileState.PROCESSING),
        ({"state": "STATE_UNSPECIFIED"}, FileState.PROCESSING),
        ({"state": None}, FileState.PROCESSING),
        ({"state": "FAILED", "error": {"message": "no video"}}, FileState.FAILED),
    ],
)
def test_the_state_of_a_file(change: dict[str, Any], wanted: FileState) -> None:
    told = DESK.told(answer({**FILE, **change}))
    assert told.state is wanted
    assert told.message == ("no video" if wanted is FileState.FAILED else "")


@pytest.mark.parametrize("text", [None, "soon", "2026-11-23T10:00:00", ""])
def test_an_instant_that_is_none_is_not_believed(text: str | None) -> None:
    assert DESK.told(answer({**FILE, "expirationTime": text})).expires is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"null", b'{"file": 3}'])
def test_an_answer_that_tells_of_no_file_is_an_empty_one(body: bytes) -> None:
    told = DESK.told(RawReply(200, {}, body))
    assert (told.name, told.uri) == ("", "")
    assert key(0) not in repr(told)


@pytest.mark.parametrize("name", ["files/../models/x", "files/a?key=b", "models/x", "files/", 7, None])
def test_a_name_that_could_lead_elsewhere_is_none(name: object) -> None:
    assert DESK.told(answer({**FILE, "name": name})) == StoredFile()


@given(st.binary(max_size=300) | st.dictionaries(st.text(max_size=8), st.text(max_size=20)), st.text())
@settings(max_examples=150, deadline=None)
def test_whatever_is_answered_raises_nothing(body: bytes | dict[str, str], url: str) -> None:
    """And nothing of it leads to another host, or out of the uploads."""
    raw = body if isinstance(body, bytes) else json.dumps({**FILE, **body}).encode()
    told = DESK.told(RawReply(200, {}, raw))
    assert told.name == "" or DESK.look(told.name).path.startswith("/v1beta/files/")
    place = DESK.place(answer(x_goog_upload_url=url))
    assert place == "" or place.startswith("/upload/")
