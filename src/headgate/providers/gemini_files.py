"""Files of the Gemini API: resumable uploads, and what is told of a file.

The steps are Google's (Files API guide and reference, v1beta, read 2026-11; the headers as its own SDK
sends them): a start that names size and type, pieces to the place its answer names, the last of them
with `finalize`. The place is an absolute address; only its path and query are used, at the upstream
that was asked, so that no key ever goes to another host, and a proxy in between stays in between.
"""

from __future__ import annotations

import re
from datetime import datetime
from urllib.parse import urlsplit

import msgspec

from headgate.core.call import Raw, RawReply
from headgate.core.files import FileState, StoredFile
from headgate.providers.gemini_errors import UNREADABLE

__all__ = ["GeminiFiles"]

_VERSION = "v1beta"
_MODEL = "files"
"""Stands for a model in records of these calls: a word of ours that no model has."""

_NAME = re.compile(r"files/[A-Za-z0-9_-]{1,64}")

_NAME_DIGITS = 32
"""Hexadecimal digits of the digest in a name, 128 bits. An id has up to 40 characters, lower-case
letters, digits and dashes, and no dash at its ends (reference of `File.name`)."""

_STATES = {"ACTIVE": FileState.ACTIVE, "FAILED": FileState.FAILED}


class _Status(msgspec.Struct):
    message: str | None = None


class _File(msgspec.Struct, rename="camel"):
    name: str | None = None
    uri: str | None = None
    state: str | None = None
    expiration_time: str | None = None
    error: _Status | None = None


class _Answer(msgspec.Struct):
    file: _File | None = None


_DECODE_ANSWER = msgspec.json.Decoder(_Answer, strict=False)
_DECODE_FILE = msgspec.json.Decoder(_File, strict=False)


class GeminiFiles:
    """See `FileDesk`."""

    largest = 2 * 1024**3
    piece = 8 * 1024**2
    seconds_kept = 48 * 3600.0
    """Largest file, and how long it is kept: files page of the Gemini API, read 2026-11. Pieces are as
    Google's SDK cuts them; the granularity its upstream asks for, 256 KiB, divides them."""

    def name_for(self, digest: str) -> str:
        """See `FileDesk.name_for`."""
        return f"files/hg-{digest[:_NAME_DIGITS]}"

    def begin(self, name: str, mime_type: str, size: int) -> Raw:
        """See `FileDesk.begin`."""
        file = {"mimeType": mime_type, "sizeBytes": str(size)}
        if name:
            file["name"] = name
        headers = {
            "content-type": "application/json",
            "x-goog-upload-protocol": "resumable",
            "x-goog-upload-command": "start",
            "x-goog-upload-header-content-length": str(size),
            "x-goog-upload-header-content-type": mime_type,
        }
        body = msgspec.json.encode({"file": file})
        return Raw("POST", f"/upload/{_VERSION}/files", _MODEL, headers, body)

    def place(self, reply: RawReply) -> str:
        """See `FileDesk.place`."""
        try:
            there = urlsplit(reply.headers.get("x-goog-upload-url", ""))
        except ValueError:
            return ""
        if not there.path.startswith("/upload/"):
            return ""
        return f"{there.path}?{there.query}" if there.query else there.path

    def send(self, place: str, piece: bytes, offset: int, *, last: bool) -> Raw:
        """See `FileDesk.send`. It may not be repeated: what arrived of it has to be asked for."""
        headers = {
            "x-goog-upload-command": "upload, finalize" if last else "upload",
            "x-goog-upload-offset": str(offset),
        }
        return Raw("POST", place, _MODEL, headers, piece, repeatable=False)

    def ask(self, place: str) -> Raw:
        """See `FileDesk.ask`."""
        return Raw("POST", place, _MODEL, {"x-goog-upload-command": "query"})

    def arrived(self, reply: RawReply) -> int | None:
        """See `FileDesk.arrived`."""
        if reply.headers.get("x-goog-upload-status") == "final":
            return None
        received = reply.headers.get("x-goog-upload-size-received", "")
        return int(received) if received.isascii() and received.isdigit() else 0

    def look(self, name: str) -> Raw:
        """See `FileDesk.look`."""
        return Raw("GET", f"/{_VERSION}/{name}", _MODEL)

    def told(self, reply: RawReply) -> StoredFile:
        """See `FileDesk.told`. The answer to an upload has the file inside of an object."""
        try:
            file = _DECODE_ANSWER.decode(reply.body).file or _DECODE_FILE.decode(reply.body)
        except UNREADABLE:
            return StoredFile()
        if not _NAME.fullmatch(file.name or ""):
            return StoredFile()  # it would become part of a path
        return StoredFile(
            name=file.name or "",
            uri=file.uri or "",
            state=_STATES.get(file.state or "", FileState.PROCESSING),
            expires=_instant(file.expiration_time),
            message="" if file.error is None else file.error.message or "",
        )


def _instant(text: str | None) -> float | None:
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return None if at.tzinfo is None else at.timestamp()
