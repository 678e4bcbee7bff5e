"""The JSON body of a request, as every provider here sends one, and what each asks of one it gets."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from headgate.core.errors import InvalidCallError

__all__ = ["is_given", "json_body"]


def json_body(body: Mapping[str, object]) -> bytes:
    """The bytes of a body.

    Raises:
        InvalidCallError: something in it has no JSON form: an object of some class, half a surrogate
            pair, a structure without end, or a number that is none.
    """
    try:
        encoded = msgspec.json.encode(body)
        # NaN and infinity are written as null, which an upstream takes for "not given".
        where = _not_finite(body) if b"null" in encoded else None
    except (TypeError, msgspec.EncodeError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidCallError(f"An option or the prompt cannot be written as JSON: {error}.") from None
    if where is not None:
        raise InvalidCallError(f"{where} is not a finite number; JSON has no form for it.")
    return encoded


def is_given(value: msgspec.Raw) -> bool:
    """Whether a member is there; proxies write null for what they leave out.

    Its type must be `Raw` alone: of `Raw | None` msgspec takes nothing but null.
    """
    return bytes(value) not in (b"", b"null")


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
