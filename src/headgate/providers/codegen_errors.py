"""What an answer of the Codegen API means. The status decides; words are only passed on.

Error bodies, by the vendor's OpenAPI file: `{message, status_code}` for 402, 403, 404 and 429,
`{detail: [{loc, msg, type}]}` for 422; 400 and 500 are named without a schema, 401 in prose only.
Nothing documents a rate or retry header; `Retry-After` is obeyed where a proxy sends one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from headgate.core.outcome import Kind, Outcome
from headgate.policy.hints import header_hint

__all__ = ["field_errors", "read_answer"]

_KINDS = {
    401: Kind.BAD_KEY,
    402: Kind.BILLING,
    403: Kind.RESOURCE,
    408: Kind.TIMEOUT,
    429: Kind.QUOTA_MINUTE,
    502: Kind.OVERLOAD,
    503: Kind.OVERLOAD,
}
_LONGEST_MESSAGE = 400  # characters of a body that is no JSON


def read_answer(status: int, headers: Mapping[str, str], body: bytes) -> tuple[Outcome, object]:
    """The outcome, and the JSON of an error."""
    data = _json(body)
    if 200 <= status < 300:
        if data is _NO_JSON and status != 204:
            said = "The answer is not JSON. Check that the base URL leads to the API itself."
            return Outcome(Kind.PROTOCOL, said, status), None
        return Outcome(Kind.SUCCESS, status=status), None
    if status < 400:
        said = f"The upstream answered {status}, a redirect, which is never followed with a token."
        return Outcome(Kind.REQUEST, said, status), None
    kind = _KINDS.get(status, Kind.SERVER if status >= 500 else Kind.REQUEST)
    shown = None if data is _NO_JSON else data
    return Outcome(kind, _message(status, shown, body), status, header_hint(headers)), shown


def field_errors(data: object) -> dict[str, list[str]]:
    """`detail` of a 422 as field to messages. A field is named as in the request: `prompt`, `a.0`."""
    found: dict[str, list[str]] = {}
    detail = data.get("detail") if isinstance(data, dict) else None
    for entry in detail if isinstance(detail, list) else ():
        if not isinstance(entry, dict):
            continue
        loc = entry.get("loc")
        path = [str(part) for part in loc] if isinstance(loc, list) else []
        if path and path[0] in ("body", "query", "path", "header"):
            path = path[1:] or path
        name = ".".join(path) or "request"
        found.setdefault(name, []).append(str(entry.get("msg") or entry.get("type") or "is invalid"))
    return found


_NO_JSON: Any = object()


def _json(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return _NO_JSON


def _message(status: int, data: object, body: bytes) -> str:
    if fields := field_errors(data):
        said = "; ".join(f"{name}: {', '.join(errors)}" for name, errors in fields.items())
    elif isinstance(data, dict):
        said = str(data.get("message") or data.get("detail") or data.get("error") or "")
    else:
        said = ""
    if not said:
        said = body[:_LONGEST_MESSAGE].decode("utf-8", "replace").strip() if data is None else ""
    return said or f"The upstream answered {status} without a word."
