"""The JSON body of a request, as every provider here sends one, and what each asks of one it gets.

Media are written in slices and put together by a join, which lets other threads run. One call of
`b64encode` over 30 MB would hold up the event loop for 70 ms, even from another thread.
"""

from __future__ import annotations

import math
from binascii import b2a_base64
from collections.abc import Iterator, Mapping

import msgspec

from headgate.core.errors import InvalidCallError

__all__ = ["Media", "is_given", "json_body"]

_SLICE = 3 * 65_536
"""Bytes of media that are encoded at a time, about half a millisecond. A multiple of three: only the
last slice is padded."""

_HOLE = b"\0"
"""Where media go in a body. No JSON string holds it: control characters are escaped (RFC 8259, 7)."""


class Media:
    """A string in a body: bytes in base64.

    Args:
        before: what the string begins with, such as the head of a data URL.
    """

    __slots__ = ("before", "data")

    def __init__(self, data: bytes, before: str = "") -> None:
        self.data = data
        self.before = before

    def written(self) -> Iterator[bytes]:
        """The string as JSON, piece by piece."""
        yield msgspec.json.encode(self.before)[:-1]
        whole = memoryview(self.data)
        for start in range(0, len(whole), _SLICE):
            yield b2a_base64(whole[start : start + _SLICE], newline=False)
        yield b'"'


def json_body(body: Mapping[str, object]) -> bytes:
    """The bytes of a body.

    Raises:
        InvalidCallError: something in it has no JSON form: an object of some class, half a surrogate
            pair, a structure without end, or a number that is none.
    """
    try:
        media: list[Media] = []
        encoded = msgspec.json.encode(body, enc_hook=lambda value: _hole(value, media))
        # NaN and infinity are written as null, which an upstream takes for "not given".
        where = _not_finite(body) if b"null" in encoded else None
    except (TypeError, msgspec.EncodeError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidCallError(f"An option or the prompt cannot be written as JSON: {error}.") from None
    if where is not None:
        raise InvalidCallError(f"{where} is not a finite number; JSON has no form for it.")
    return b"".join(_filled(encoded, media)) if media else encoded


def is_given(value: msgspec.Raw) -> bool:
    """Whether a member is there; proxies write null for what they leave out.

    Its type must be `Raw` alone: of `Raw | None` msgspec takes nothing but null.
    """
    return bytes(value) not in (b"", b"null")


def _hole(value: object, media: list[Media]) -> msgspec.Raw:
    if not isinstance(value, Media):
        raise TypeError(f"objects of type {type(value).__name__} have no JSON form")
    media.append(value)
    return msgspec.Raw(_HOLE)


def _filled(encoded: bytes, media: list[Media]) -> Iterator[bytes]:
    first, *others = encoded.split(_HOLE)
    yield first
    for value, after in zip(media, others, strict=True):
        yield from value.written()
        yield after


def _not_finite(value: object, where: str = "") -> str | None:
    """The place of the first NaN or infinity in a value, or None."""
    if isinstance(value, float) and not math.isfinite(value):
        return where
    if isinstance(value, Mapping):
        rows = [(f"{where}.{name}" if where else str(name), inner) for name, inner in value.items()]
    elif isinstance(value, list | tuple):
        rows = [(f"{where}[{index}]", inner) for index, inner in enumerate(value)]
    else:
        return None
    return next((found for place, inner in rows if (found := _not_finite(inner, place))), None)
