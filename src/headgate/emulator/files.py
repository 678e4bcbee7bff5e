"""Files of the Gemini surface: resumable uploads, and what a project keeps for two days.

Kept is what there is to say of a file, not its bytes. A file that is missing, has expired or belongs to
another project is refused alike, with 403: which of them it is nobody is told.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from headgate.emulator.errors import Refusal, Refused, bad_request

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["KEPT_SECONDS", "LARGEST", "FileRoom", "Incoming", "missing"]

KEPT_SECONDS = 48 * 3600.0
LARGEST = 2 * 1024**3
"""How long files are kept, and how large they may be (Gemini API, files page, 2026)."""

_ID = re.compile(r"files/[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_PIECES = 256 * 1024
"""Bytes that every piece but the last is a multiple of, as the real one asks for."""


@dataclass
class Incoming:
    """An upload under way."""

    project: str
    name: str
    mime_type: str
    size: int
    display_name: str
    received: int = 0
    digest: _Hash = field(default_factory=sha256)


@dataclass(frozen=True)
class _Kept:
    project: str
    name: str
    mime_type: str
    size: int
    display_name: str
    digest: str
    created: float
    ready: float

    @property
    def until(self) -> float:
        return self.created + KEPT_SECONDS


class FileRoom:
    """What all projects keep. Times are the emulator's own, in Unix seconds.

    Args:
        seconds: how long a file is processed before calls may name it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._serial = 0
        self._incoming: dict[str, Incoming] = {}
        self._kept: dict[str, _Kept] = {}

    def clear(self) -> None:
        """Forget all files and uploads."""
        self._incoming.clear()
        self._kept.clear()

    # ── uploads ──────────────────────────────────────────────────────────────

    def begin(
        self, project: str, asked: Mapping[str, Any], headers: Mapping[str, str], now: float
    ) -> str:
        """Begin an upload; its id. Raises `Refused`."""
        size = headers.get("x-goog-upload-header-content-length", "")
        mime_type = headers.get("x-goog-upload-header-content-type", "")
        if headers.get("x-goog-upload-protocol") != "resumable" or not size.isdigit():
            raise Refused(bad_request("Upload protocol, size and type have to be named.", "upload"))
        if int(size) > LARGEST:
            raise Refused(bad_request(f"File is too large: at most {LARGEST} bytes.", "upload"))
        file = asked.get("file") or {}
        self._serial += 1
        name = str(file.get("name") or f"files/{self._serial:012x}")
        name = name if name.startswith("files/") else f"files/{name}"
        if not _ID.fullmatch(name):
            text = "* CreateFileRequest.file.name: only lower-case letters, digits and dashes\n"
            raise Refused(bad_request(text, "upload"))
        self._refuse_taken(name, now)
        display = str(file.get("displayName") or file.get("display_name") or "")
        upload = f"u{self._serial:012x}"
        self._incoming[upload] = Incoming(
            project, name, mime_type or str(file.get("mimeType") or ""), int(size), display
        )
        return upload

    def _refuse_taken(self, name: str, now: float) -> None:
        known = self._kept.get(name)
        if known is not None and known.until > now:
            text = f"File {name.removeprefix('files/')} already exists."
            error = {"code": 409, "message": text, "status": "ALREADY_EXISTS"}
            raise Refused(Refusal(409, {"error": error}, "file_exists"))

    def upload(self, upload_id: str) -> Incoming | None:
        """An upload under way."""
        return self._incoming.get(upload_id)

    async def receive(
        self, upload_id: str, offset: str, pieces: AsyncIterable[bytes], *, last: bool, now: float
    ) -> str:
        """Take bytes of an upload; with the last of them the name of the file there is now, else "".
        Bytes that came before a connection broke have arrived. Raises `Refused`."""
        incoming = self._incoming[upload_id]
        if not offset.isdigit() or int(offset) != incoming.received:
            text = f"Upload offset is {offset or 'missing'}; {incoming.received} bytes have arrived."
            raise Refused(bad_request(text, "upload"))
        async for piece in pieces:
            incoming.received += len(piece)
            incoming.digest.update(piece)
        if not last:
            if incoming.received % _PIECES:
                raise Refused(bad_request(f"Pieces are multiples of {_PIECES} bytes.", "upload"))
            return ""
        if incoming.received != incoming.size:
            text = f"{incoming.received} bytes have arrived of {incoming.size}."
            raise Refused(bad_request(text, "upload"))
        del self._incoming[upload_id]
        self._refuse_taken(incoming.name, now)  # by an upload that began later, or in another project
        self._kept[incoming.name] = _Kept(
            incoming.project, incoming.name, incoming.mime_type, incoming.size, incoming.display_name,
            incoming.digest.hexdigest(), now, now + self._seconds,
        )  # fmt: skip
        return incoming.name

    # ── files ────────────────────────────────────────────────────────────────

    def described(self, name: str, project: str, origin: str, now: float) -> dict[str, Any]:
        """A file as it is shown to its project. Raises `Refused`."""
        kept = self._find(name, project, now)
        shown: dict[str, Any] = {
            "name": kept.name,
            "mimeType": kept.mime_type,
            "sizeBytes": str(kept.size),
            "createTime": _instant(kept.created),
            "updateTime": _instant(kept.ready),
            "expirationTime": _instant(kept.until),
            "sha256Hash": base64.b64encode(kept.digest.encode()).decode(),  # of the digits, as it is
            "uri": f"{origin}/v1beta/{kept.name}",
            "state": "ACTIVE" if kept.ready <= now else "PROCESSING",
            "source": "UPLOADED",
        }
        return {**shown, "displayName": kept.display_name} if kept.display_name else shown

    def listed(self, project: str, origin: str, now: float) -> list[dict[str, Any]]:
        """All files of a project, the newest first."""
        own = [kept for kept in self._kept.values() if kept.project == project and kept.until > now]
        own.sort(key=lambda kept: -kept.created)
        return [self.described(kept.name, project, origin, now) for kept in own]

    def delete(self, name: str, project: str, now: float) -> None:
        """Drop a file. Raises `Refused`."""
        self._find(name, project, now)
        del self._kept[name]

    def check(self, name: str, project: str, now: float) -> None:
        """Whether a call of a project may name a file. Raises `Refused`."""
        kept = self._find(name, project, now)
        if kept.ready > now:
            short = name.removeprefix("files/")
            text = f"The File {short} is not in an ACTIVE state and usage is not allowed."
            error = {"code": 400, "message": text, "status": "FAILED_PRECONDITION"}
            raise Refused(Refusal(400, {"error": error}, "file_processing"))

    def _find(self, name: str, project: str, now: float) -> _Kept:
        kept = self._kept.get(name)
        if kept is None or kept.project != project or kept.until <= now:
            raise Refused(missing(name.removeprefix("files/")))
        return kept


def missing(name: str) -> Refusal:
    """Of a file that is not there, or not for whoever asks."""
    text = f"You do not have permission to access the File {name} or it may not exist."
    error = {"code": 403, "message": text, "status": "PERMISSION_DENIED"}
    return Refusal(403, {"error": error}, "resource")


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
