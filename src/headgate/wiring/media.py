"""Images and files of a call: what they are, and how large they may be."""

from __future__ import annotations

from mimetypes import guess_type

from headgate.core.call import Blob
from headgate.core.errors import InvalidCallError
from headgate.providers.gemini_files import GeminiFiles

__all__ = [
    "INLINE_LIMIT",
    "PDF_LIMIT",
    "check_inline",
    "check_upload",
    "media_type_of",
    "sniffed",
]

INLINE_LIMIT = 100 * 1024 * 1024
PDF_LIMIT = 50 * 1024 * 1024
"""Largest inline data Google documents (rate limits and files pages, 2026). That of a PDF holds for one
that is uploaded, too (document understanding page, 2026)."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (4, b"ftypheic", "image/heic"),
    (4, b"ftypmif1", "image/heif"),
    (4, b"ftyp", "video/mp4"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"ID3", "audio/mp3"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
)


def sniffed(data: bytes) -> str | None:
    """The media type that the first bytes tell; None where they tell none."""
    for offset, magic, mime_type in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return mime_type
    return None


def media_type_of(data: bytes, name: str) -> str:
    """The media type by the first bytes, else by the name. Raises `InvalidCallError`."""
    found = sniffed(data) or guess_type(name)[0]
    if found is not None:
        return found
    raise InvalidCallError(
        f"The media type of {name} is not recognised: pass Blob(mime_type, data) to say what it is."
    )


def check_inline(blob: Blob) -> None:
    """Raise `InvalidCallError` for data that cannot be sent inside of a call."""
    limit = PDF_LIMIT if blob.mime_type == "application/pdf" else INLINE_LIMIT
    if not blob.data or len(blob.data) > limit:
        size = len(blob.data)
        raise InvalidCallError(
            f"{blob.mime_type} data of {size} bytes cannot be sent inline: 1 to {limit} bytes can."
        )


def check_upload(blob: Blob) -> None:
    """Raise `InvalidCallError` for data that the upstream cannot take as a file."""
    limit = PDF_LIMIT if blob.mime_type == "application/pdf" else GeminiFiles.largest
    if not blob.data or len(blob.data) > limit:
        size = len(blob.data)
        raise InvalidCallError(
            f"{blob.mime_type} data of {size} bytes cannot be sent: 1 to {limit} bytes can."
        )
