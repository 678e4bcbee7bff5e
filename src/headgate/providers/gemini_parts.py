"""Parts of a prompt as every method of the Gemini API takes them."""

from __future__ import annotations

from collections.abc import Mapping

from headgate.core.call import Blob, Part
from headgate.providers.json_body import Media

__all__ = ["wire_parts"]


def wire_parts(parts: tuple[Part | Mapping[str, object], ...]) -> list[Mapping[str, object]]:
    """Texts and media in the API's form; a mapping is in it already."""
    return [{"text": part} if isinstance(part, str) else _wire_part(part) for part in parts]


def _wire_part(part: Blob | Mapping[str, object]) -> Mapping[str, object]:
    if not isinstance(part, Blob):
        return part
    if part.upload is not None:
        return {"fileData": {"mimeType": part.mime_type, "fileUri": part.upload.uri}}
    return {"inlineData": {"mimeType": part.mime_type, "data": Media(part.data)}}
