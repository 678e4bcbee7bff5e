"""Images and files of a request: checked, and made into what travels inside of the call or is uploaded.

What the API refuses is refused here, by name and before any quota is spent: an empty file, a media type
that is none, bytes that are something else than they claim, and data beyond the API's limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from headgate.backend.structures import GeminiRequest
from headgate.core.call import Blob, Upload
from headgate.core.errors import InvalidCallError
from headgate.wiring.media import INLINE_LIMIT, check_inline, check_upload, sniffed

__all__ = ["IMAGE_TYPES", "media_of"]

IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif")
"""What models take as an image (Gemini API, image understanding page, 2026)."""

_MEDIA_TYPE = re.compile(r"[a-z]+/[a-z0-9][a-z0-9.+\-]{0,126}")
_SAME = {"image/jpg": "image/jpeg", "audio/mpeg": "audio/mp3", "audio/x-wav": "audio/wav"}
_CONTAINERS = ("video/", "audio/", "image/")  # of one box format: only images must be what they say

Check = Callable[[Blob], None]
"""Raises `InvalidCallError` for media that are too large for the way they are to travel."""


def media_of(request: GeminiRequest) -> tuple[Blob, ...]:
    """The media of a request, images first, as the API's guide advises. Raises `InvalidCallError`."""
    upload: object = request.upload
    if not isinstance(upload, bool | None):
        raise InvalidCallError(f"upload takes True, False or nothing; got {type(upload).__name__}.")
    check = check_inline if upload is False else check_upload
    images, files = _listed(request.images, "images"), _listed(request.files, "files")
    blobs = [_image(number, item, check) for number, item in enumerate(images, 1)]
    blobs += [_file(number, item, check) for number, item in enumerate(files, 1)]
    if upload is True:
        return tuple(_uploaded(blob) for blob in blobs)
    total = sum(len(blob.data) for blob in blobs)
    if total <= INLINE_LIMIT:
        return tuple(blobs)
    if upload is False:
        raise InvalidCallError(
            f"Images and files have {total} bytes together; a call takes {INLINE_LIMIT} inline. Send "
            "fewer at once, or let the large ones be uploaded (leave out upload=False).",
            kind="too_large",
        )
    return _largest_uploaded(blobs, total)


def _largest_uploaded(blobs: Sequence[Blob], total: int) -> tuple[Blob, ...]:
    """The largest are uploaded, until the others fit inside of the call."""
    out: set[int] = set()
    for number in sorted(range(len(blobs)), key=lambda number: -len(blobs[number].data)):
        if total <= INLINE_LIMIT:
            break
        out.add(number)
        total -= len(blobs[number].data)
    return tuple(_uploaded(blob) if number in out else blob for number, blob in enumerate(blobs))


def _uploaded(blob: Blob) -> Blob:
    return replace(blob, upload=Upload())


def _listed(value: object, field: str) -> Sequence[object]:
    if value is None:
        return ()
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise InvalidCallError(f"{field} takes a list; got {type(value).__name__}.")
    return value


def _image(number: int, item: object, check: Check) -> Blob:
    place = f"images[{number - 1}]"
    mime_type, data = _tuple(item, 2, place, "(media type, bytes)")
    blob = _blob(mime_type, data, place, check)
    if blob.mime_type not in IMAGE_TYPES:
        raise InvalidCallError(
            f"{place} is {blob.mime_type}; models take {', '.join(IMAGE_TYPES)}. Convert it, or pass "
            "it in `files`."
        )
    return blob


def _file(number: int, item: object, check: Check) -> Blob:
    name, mime_type, data = _tuple(item, 3, f"files[{number - 1}]", "(name, media type, bytes)")
    if not isinstance(name, str) or not name.strip():
        raise InvalidCallError(f"files[{number - 1}] has no name.")
    return _blob(mime_type, data, f"files[{number - 1}] ({name[:80]})", check)


def _tuple(item: object, size: int, place: str, shape: str) -> Sequence[object]:
    if isinstance(item, str | bytes) or not isinstance(item, Sequence) or len(item) != size:
        raise InvalidCallError(f"{place} is no {shape}.")
    return item


def _blob(mime_type: object, data: object, place: str, check: Check) -> Blob:
    if not isinstance(mime_type, str) or not isinstance(data, bytes | bytearray | memoryview):
        raise InvalidCallError(f"{place} takes a media type as text, and bytes.")
    said = mime_type.split(";")[0].strip().lower()
    said = _SAME.get(said, said)
    if not _MEDIA_TYPE.fullmatch(said):
        raise InvalidCallError(f"{place}: {mime_type[:80]!r} is no media type, such as image/png.")
    blob = Blob(said, bytes(data))
    if not blob.data:
        raise InvalidCallError(f"{place} is empty.")
    try:
        check(blob)
    except InvalidCallError as error:
        raise InvalidCallError(f"{place}: {error.message}", kind="too_large") from None
    found = sniffed(blob.data)
    if found is not None and found != said and _contradicts(said, found):
        raise InvalidCallError(f"{place} says it is {said}, and its first bytes say {found}.")
    return blob


def _contradicts(said: str, found: str) -> bool:
    if said.startswith("image/") or said == "application/pdf":
        return True
    return not (said.startswith(_CONTAINERS) and found.startswith(_CONTAINERS))
