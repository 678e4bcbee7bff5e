"""Pages of lists. A cursor holds the place of the last item shown, so nothing is shown twice or left
out where items come and go between two pages."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct

from headgate.gateway.manage.trouble import TroubleError

__all__ = ["MOST_ITEMS", "Page", "Paged", "Place", "cut", "place_in", "written"]

T = TypeVar("T")

MOST_ITEMS = 200
"""Of a page."""

Place = list[str | int | float]
"""Where an item stands: what the list is sorted by, unique."""

Limit = Annotated[int, Meta(ge=1, le=MOST_ITEMS, description="Items of a page at the most.")]
Cursor = Annotated[
    str, Meta(max_length=500, description="`next` of the page before; empty: the first page.")
]


class Paged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which page."""

    limit: Limit = 50
    cursor: Cursor = ""


class Page(Struct, Generic[T], frozen=True):
    """A page.

    Attributes:
        next: the cursor of the page after it; None: this is the last.
    """

    items: list[T]
    next: str | None = None


def cut(things: Iterable[T], place: Callable[[T], Place], which: Paged) -> tuple[list[T], str | None]:
    """The things on a page and the cursor of the next, in the order of their places.

    Raises `TroubleError` for a cursor that is none of ours.
    """
    after = place_in(which.cursor)
    found = sorted(((place(thing), thing) for thing in things), key=lambda pair: pair[0])
    if after is not None:
        try:
            found = [pair for pair in found if pair[0] > after]
        except TypeError:  # a cursor of another list
            raise _strange() from None
    shown = found[: which.limit]
    more = written(shown[-1][0]) if len(found) > which.limit else None
    return [thing for _, thing in shown], more


def written(place: Place) -> str:
    """A place as a cursor."""
    return urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def place_in(cursor: str) -> Place | None:
    """The place in a cursor; None for an empty one. Raises `TroubleError`."""
    if not cursor:
        return None
    try:
        raw: Any = urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))
        return msgspec.json.decode(raw, type=Place)
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        raise _strange() from None


def _strange() -> TroubleError:
    return TroubleError("invalid", "cursor is not one that this list gave; begin again without it.")
