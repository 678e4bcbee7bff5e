"""The part of the Gemini surface that is about files."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from headgate.emulator.errors import Refused, bad_request, unknown_fields
from headgate.emulator.files import FileRoom, missing

if TYPE_CHECKING:
    from headgate.emulator.config import Project

__all__ = ["Answered", "FileDesk", "file_method"]
_UPLOAD = re.compile(r"/upload/(?:v1|v1beta|v1alpha)/files/?")
_FILES = re.compile(r"/(?:v1|v1beta|v1alpha)/(files(?:/[\w-]+)?)/?")
_BY_VERB = {"GET": "files.get", "DELETE": "files.delete"}
_LARGEST_START = 65_536
_PAGE = 10  # the page size Google documents for this list, 2026

Answered = tuple[dict[str, Any], dict[str, str]]
"""A body and the headers that come with it."""


def file_method(request: web.BaseRequest) -> str:
    """Which method of files a request asks for; empty: none."""
    if _UPLOAD.fullmatch(request.path):
        return "files.upload" if request.method == "POST" else ""
    found = _FILES.fullmatch(request.path)
    if found is None:
        return ""
    if found[1] == "files":
        return "files.list" if request.method == "GET" else ""
    return _BY_VERB.get(request.method, "")


class FileDesk:
    """Answers what is asked about files. Bytes of an upload need no key: whoever has its address may
    send them, as Google's SDK does."""

    def __init__(self, room: FileRoom) -> None:
        self.room = room

    def uploader(self, request: web.BaseRequest) -> str | None:
        """The project of an upload that goes on; None: none does."""
        incoming = self.room.upload(request.query.get("upload_id", ""))
        return None if incoming is None else incoming.project

    async def answer(
        self, method: str, request: web.BaseRequest, project: Project, now: float
    ) -> Answered:
        """Raises `Refused`."""
        origin = f"{request.scheme}://{request.host}"
        if method == "files.upload":
            if upload_id := request.query.get("upload_id", ""):
                return await self._continued(upload_id, request, project, origin, now)
            asked = await _started(request)
            headers = {name.lower(): value for name, value in request.headers.items()}
            upload_id = self.room.begin(project.name, asked, headers, now)
            url = f"{origin}{request.path}?upload_id={upload_id}&upload_protocol=resumable"
            return {}, {
                "X-Goog-Upload-URL": url,
                "X-Goog-Upload-Control-URL": url,
                "X-Goog-Upload-Status": "active",
                "X-Goog-Upload-Chunk-Granularity": "262144",
            }
        found = _FILES.fullmatch(request.path)
        name = "" if found is None else found[1]
        if method == "files.list":
            return self._page(request, project.name, origin, now), {}
        if method == "files.delete":
            self.room.delete(name, project.name, now)
            return {}, {}
        return self.room.described(name, project.name, origin, now), {}

    async def _continued(
        self, upload_id: str, request: web.BaseRequest, project: Project, origin: str, now: float
    ) -> Answered:
        incoming = self.room.upload(upload_id)
        if incoming is None or incoming.project != project.name:
            raise Refused(missing(upload_id))
        commands = [
            word.strip() for word in request.headers.get("X-Goog-Upload-Command", "").split(",")
        ]
        if commands == ["query"]:
            return {}, _active(incoming.received)
        if "upload" not in commands:
            raise Refused(bad_request(f"Unknown upload command {commands}.", "upload"))
        offset = request.headers.get("X-Goog-Upload-Offset", "")
        name = await self.room.receive(
            upload_id, offset, _pieces(request), last="finalize" in commands, now=now
        )
        if not name:
            return {}, _active(incoming.received)
        shown = self.room.described(name, project.name, origin, now)
        return {"file": shown}, {"X-Goog-Upload-Status": "final"}

    def _page(self, request: web.BaseRequest, project: str, origin: str, now: float) -> dict[str, Any]:
        try:
            size = int(request.query.get("pageSize") or request.query.get("page_size") or _PAGE)
            start = int(request.query.get("pageToken") or request.query.get("page_token") or 0)
        except ValueError:
            raise Refused(bad_request("Invalid page size or page token.")) from None
        files = self.room.listed(project, origin, now)
        size = max(1, min(size, 100))
        shown = files[start : start + size]
        page: dict[str, Any] = {"files": shown} if shown else {}
        return {**page, "nextPageToken": str(start + size)} if start + size < len(files) else page


def _active(received: int) -> dict[str, str]:
    return {"X-Goog-Upload-Status": "active", "X-Goog-Upload-Size-Received": str(received)}


async def _pieces(request: web.BaseRequest) -> AsyncIterator[bytes]:
    async for piece in request.content.iter_any():
        yield piece


async def _started(request: web.BaseRequest) -> dict[str, Any]:
    """What a request says of the file it announces. Raises `Refused`."""
    raw = bytearray()
    async for piece in request.content.iter_any():
        raw += piece
        if len(raw) > _LARGEST_START:
            raise Refused(bad_request("Request payload size exceeds the limit.", "payload_size"))
    try:
        return msgspec.json.decode(bytes(raw) or b"{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = f"Invalid JSON payload received. {error}"
        raise Refused(unknown_fields([("", text)])) from None
