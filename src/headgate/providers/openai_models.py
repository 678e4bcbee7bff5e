"""The model list of the OpenAI API: how it is asked for, and what it tells. No sockets.

A model there has an id, a day and an owner; nothing of what it can do.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from urllib.parse import quote

import msgspec
from msgspec import Struct

from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Request

__all__ = ["ListedModel", "get_request", "list_request", "read_list", "read_model"]

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Model(Struct):
    id: str
    created: int | float | None = None
    owned_by: str | None = None


class _List(Struct):
    data: list[_Model]


class ListedModel(Struct, frozen=True):
    """A model of the list.

    Attributes:
        created: the day it was made; None where that is not told.
    """

    id: str
    created: date | None = None
    owner: str = ""


_DECODE_MODEL = msgspec.json.Decoder(_Model, strict=False)
_DECODE_LIST = msgspec.json.Decoder(_List, strict=False)


def list_request(base_url: str) -> Request:
    """Ask for the list, which has one page; it costs no quota."""
    return Request("GET", f"{base_url.rstrip('/')}/models", {}, b"")


def get_request(base_url: str, model: str) -> Request:
    """Ask for one model; it costs no quota."""
    return Request("GET", f"{base_url.rstrip('/')}/models/{quote(model, safe='/:@')}", {}, b"")


def read_list(body: bytes) -> tuple[ListedModel, ...] | Outcome:
    """The list, or why it is none."""
    try:
        found = _DECODE_LIST.decode(body)
    except _UNREADABLE:
        return _no_list("model list")
    return tuple(_listed(model) for model in found.data)


def read_model(body: bytes) -> ListedModel | Outcome:
    """One model, or why it is none."""
    try:
        return _listed(_DECODE_MODEL.decode(body))
    except _UNREADABLE:
        return _no_list("model")


def _listed(model: _Model) -> ListedModel:
    try:
        made = datetime.fromtimestamp(model.created, UTC).date() if model.created else None
    except (ValueError, OverflowError, OSError):
        made = None
    return ListedModel(model.id, made, model.owned_by or "")


def _no_list(what: str) -> Outcome:
    return Outcome(Kind.PROTOCOL, f"The answer is no {what}; is this an OpenAI-compatible API?", 200)
