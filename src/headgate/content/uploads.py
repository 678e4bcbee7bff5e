"""Bodies within bounds: read piece by piece, refused as soon as they are too large; the file in a form.

A form is read in memory, where it is bounded anyway: no file is written, and none is left open by a
form that breaks off.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headgate.content.pictures import MOST_IMAGE_BYTES, too_large
from headgate.content.problems import RefusedError

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["UploadRoom", "image_in", "read_bounded"]

_FRAME_BYTES = 64 * 1024
"""Of a form around its file: boundaries, heads, other fields."""

MOST_UPLOADED_BYTES = 256 * 1024 * 1024
"""Of all uploads that are under way at once: twenty-five of the largest."""

_MOST_PARTS = 10
_LONGEST_HEAD = 8 * 1024
_LONGEST_BOUNDARY = 70  # RFC 2046, section 5.1.1


class UploadRoom:
    """What all uploads of a process may hold together: beyond, they are refused before they are read.

    Args:
        most: bytes; an upload of unknown length counts as the largest.
    """

    def __init__(self, most: int = MOST_UPLOADED_BYTES) -> None:
        self._most = most
        self._held = 0

    @contextmanager
    def place(self, request: Request) -> Iterator[None]:
        """For one upload, while it is read and worked on. Raises `RefusedError`: 503."""
        declared = request.headers.get("content-length", "")
        largest = MOST_IMAGE_BYTES + _FRAME_BYTES
        size = min(int(declared), largest) if declared.isascii() and declared.isdecimal() else largest
        if self._held + size > self._most:
            raise RefusedError(
                "Too many images are being sent just now. Try again in a moment.",
                status=503,
                headers={"retry-after": "5"},
            )
        self._held += size
        try:
            yield
        finally:
            self._held -= size


async def read_bounded(request: Request, most: int) -> bytes:
    """The body. Raises `RefusedError`: 413, it is larger than `most` bytes."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise _too_large(most)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


async def image_in(request: Request) -> bytes:
    """The file of the field `image`. Raises `RefusedError`."""
    from python_multipart.multipart import parse_options_header  # noqa: PLC0415 - an extra

    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= _LONGEST_BOUNDARY:
        raise _refused("Send a form (multipart/form-data) with the field image.", 415, "malformed")
    try:
        body = await read_bounded(request, MOST_IMAGE_BYTES + _FRAME_BYTES)
    except RefusedError:
        raise too_large() from None
    for head, data in _parts(body, boundary):
        how, fields = parse_options_header(_disposition(head))
        if how == b"form-data" and fields.get(b"name") == b"image" and b"filename" in fields:
            if len(data) > MOST_IMAGE_BYTES:
                raise too_large()
            return data
    raise _refused("The field image is missing.", 400, "missing")


def _parts(body: bytes, boundary: bytes) -> list[tuple[bytes, bytes]]:
    """Head and content of each part, whole ones only. Raises `RefusedError` for a form that is none."""
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary, _MOST_PARTS + 1)
    found: list[tuple[bytes, bytes]] = []
    for piece in pieces[1:]:
        if piece.startswith(b"--"):
            return found
        head, blank, data = piece.partition(b"\r\n\r\n")
        if not blank or not head.lstrip(b" \t").startswith(b"\r\n") or len(head) > _LONGEST_HEAD:
            break
        found.append((head, data))
    raise _refused("The form is malformed.", 400, "malformed")


def _disposition(head: bytes) -> bytes:
    """The value of its `Content-Disposition`."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            return value.strip()
    return b""


def _too_large(most: int) -> RefusedError:
    return _refused(f"The body is larger than {most} bytes.", 413, "too_large")


def _refused(sentence: str, status: int, issue: str) -> RefusedError:
    return RefusedError(sentence, status=status, validator="request", issue=issue)
