"""The Gemini surface: `/v1`, `/v1beta` and `/v1alpha` alike, as google-genai and plain HTTP use them.

A stream is always asked for as events, because that alone shows early whether it fails; who asked for a
JSON array gets one, made of the same texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from headgate.core.call import Operation, Raw
from headgate.gateway.incoming import Incoming
from headgate.gateway.problems import Headers, Problem
from headgate.gateway.surface import Asked, Framing, Route
from headgate.gateway.surface_gemini_resources import ask_resource, resource_route
from headgate.providers.gemini_raw import named, weigh

__all__ = ["AS_ASKED", "GeminiSurface"]

AS_ASKED = "as_asked"
"""In place of a version: the one of the request."""

_PATH = re.compile(r"/(v1|v1beta|v1alpha)/models(?:/([A-Za-z0-9][A-Za-z0-9._@-]*))?(?::([A-Za-z]+))?/?")

_VERBS = {
    "generateContent": Operation.GENERATE,
    "streamGenerateContent": Operation.STREAM,
    "countTokens": Operation.COUNT,
    "embedContent": Operation.EMBED,
    "batchEmbedContents": Operation.EMBED,
}

_LIST_FIELDS = {
    "pageSize": "pageSize",
    "page_size": "pageSize",
    "pageToken": "pageToken",
    "page_token": "pageToken",
}

_SENT_ON = {
    b"content-type": "content-type",
    b"user-agent": "user-agent",
    b"x-goog-api-client": "x-goog-api-client",
}
"""Headers that go upstream, by their names here and there."""

_OURS = ("/v1beta/", "/v1alpha/", "/upload/v1", "/v1/cachedContents", "/v1/files")
"""Beginnings of paths that no other API has."""

_STATUS_WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    422: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

_EVENT_END = b"\r\n\r\n"
_BLANK_LINES = re.compile(rb"(?:\r\n|\n|\r){2,}")


class GeminiSurface:
    """See `Surface`.

    Args:
        version: of the upstream's API, in place of the one of each request; `AS_ASKED` leaves it.
    """

    name = "gemini"
    passed_back: Mapping[str, bytes] = {
        "content-type": b"content-type",
        "content-disposition": b"content-disposition",
        "x-gemini-service-tier": b"x-gemini-service-tier",
        "x-goog-upload-status": b"x-goog-upload-status",
        "x-goog-upload-size-received": b"x-goog-upload-size-received",
        "x-goog-upload-chunk-granularity": b"x-goog-upload-chunk-granularity",
    }

    def __init__(self, version: str = AS_ASKED) -> None:
        self._version = None if version == AS_ASKED else version

    def route(self, incoming: Incoming) -> Route | None:
        """See `Surface.route`."""
        found = _PATH.fullmatch(incoming.path)
        if found is None:
            return resource_route(incoming, self._version)
        version, model, verb = self._version or found[1], found[2] or "", found[3]
        base = f"/{version}/models"
        if verb is None:
            path = f"{base}/{model}" if model else base + _page(incoming)
            return Route("GET", path, Operation.LIST, model)
        operation = _VERBS.get(verb)
        if operation is None or not model:
            return None
        path = f"{base}/{model}:{verb}"
        if operation is not Operation.STREAM:
            return Route("POST", path, operation, model)
        listed = b"alt=sse" not in incoming.query_string and incoming.query.get("$alt") != "sse"
        return Route("POST", f"{path}?alt=sse", operation, model, listed)

    def owns(self, incoming: Incoming) -> bool:
        """See `Surface.owns`. Only the plain list of models is claimed by others too."""
        path = incoming.path
        if path.startswith(_OURS) or (":" in path and path.startswith("/v1/models/")):
            return True
        headers = incoming.headers
        marked = b"x-goog-api-key" in headers or b"x-goog-api-client" in headers
        return path.startswith("/v1/models") and (marked or b"key=" in incoming.query_string)

    def ask(self, route: Route, incoming: Incoming, body: bytes) -> Asked:
        """See `Surface.ask`."""
        assert route.operation is not None  # noqa: S101 - every path of this API says what it is
        if route.is_kept:
            return ask_resource(route, incoming, body)
        headers = incoming.only(_SENT_ON)
        if route.method == "GET":
            raw = Raw("GET", route.path, route.model, headers)
            return Asked(route.operation, route.model, raw)
        weight = weigh(route.operation, body)
        raw = Raw("POST", route.path, route.model, headers, body, weight)
        return Asked(route.operation, route.model, raw, named(body))

    def framing(self, route: Route) -> Framing:
        """See `Surface.framing`."""
        return _Array() if route.listed else _EVENTS

    def passed_refusal(self, route: Route, body: bytes) -> bytes:
        """See `Surface.passed_refusal`. Asked for as events, it stands in no list."""
        return b"[" + body + b"]" if route.listed else body

    def refusal(self, problem: Problem) -> tuple[Headers, bytes]:
        """See `Surface.refusal`."""
        return [], msgspec.json.encode(_envelope(problem)) + b"\n"


class _Events:
    """As they come."""

    content_type = b"text/event-stream"

    def piece(self, raw: bytes) -> bytes:
        return raw

    def end(self) -> bytes:
        return b""

    def broken(self, problem: Problem) -> bytes:
        # google-genai raises for a chunk whose JSON begins with the key `error`, and for no other.
        return b"data: " + msgspec.json.encode(_envelope(problem)) + _EVENT_END


class _Array:
    """The texts of the events as a JSON array, with the separators Google writes."""

    content_type = b"application/json; charset=UTF-8"

    def __init__(self) -> None:
        self._begun = False

    def piece(self, raw: bytes) -> bytes:
        # One event mostly; all of them where an answer that was kept is told again.
        members = []
        for block in _BLANK_LINES.split(raw):
            lines = [line for line in block.splitlines() if line.startswith(b"data:")]
            text = b"\n".join(line[5:].removeprefix(b" ") for line in lines)
            if text and text != b"[DONE]":
                members.append(self._member(text))
        return b"".join(members)

    def end(self) -> bytes:
        return b"]" if self._begun else b"[]"

    def broken(self, problem: Problem) -> bytes:
        return self._member(msgspec.json.encode(_envelope(problem))) + b"]"

    def _member(self, text: bytes) -> bytes:
        before = b"\r\n," if self._begun else b"["
        self._begun = True
        return before + text


_EVENTS = _Events()


def _page(incoming: Incoming) -> str:
    query = incoming.query
    given = {there: query[here] for here, there in _LIST_FIELDS.items() if here in query}
    return (
        "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in given.items())
        if given
        else ""
    )


def _envelope(problem: Problem) -> dict[str, object]:
    """Google's shape of an error, with what is ours beside it."""
    details: list[dict[str, object]] = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": f"HEADGATE_{problem.kind.upper()}",
            "domain": "headgate",
            "metadata": {"requestId": problem.request_id},
        }
    ]
    if problem.retry_after is not None and math.isfinite(problem.retry_after):
        delay = max(1, math.ceil(round(problem.retry_after, 3)))
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{delay}s"})
    status = _STATUS_WORDS.get(problem.status, "UNKNOWN")
    error = {"code": problem.status, "message": problem.message, "status": status, "details": details}
    return {"error": error}
