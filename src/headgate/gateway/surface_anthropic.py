"""The Anthropic surface: messages, whole and streamed, their count, and the list of models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from headgate.core.call import Operation, Raw
from headgate.gateway.incoming import Incoming
from headgate.gateway.problems import Headers, Problem
from headgate.gateway.surface import Asked, Framing, Route
from headgate.providers.anthropic_raw import survey

__all__ = ["AnthropicSurface"]

_MODELS = re.compile(r"/v1/models(?:/([A-Za-z0-9][A-Za-z0-9._@-]*))?/?")

_MESSAGE_FIELDS = ("beta",)
_LIST_FIELDS = ("limit", "after_id", "before_id", "beta")

_SENT_ON = {
    b"content-type": "content-type",
    b"user-agent": "user-agent",
    b"anthropic-version": "anthropic-version",
    b"anthropic-beta": "anthropic-beta",
}
"""Headers that go upstream, by their names here and there."""

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class AnthropicSurface:
    """See `Surface`."""

    name = "anthropic"
    passed_back: Mapping[str, bytes] = {"content-type": b"content-type", "request-id": b"request-id"}

    def route(self, incoming: Incoming) -> Route | None:
        """See `Surface.route`."""
        path = incoming.path.rstrip("/")
        if path == "/v1/messages":
            return Route("POST", path + _query(incoming, _MESSAGE_FIELDS))
        if path == "/v1/messages/count_tokens":
            return Route("POST", path + _query(incoming, _MESSAGE_FIELDS), Operation.COUNT)
        found = _MODELS.fullmatch(path)
        if found is None:
            return None
        return Route("GET", path + _query(incoming, _LIST_FIELDS), Operation.LIST, found[1] or "")

    def owns(self, incoming: Incoming) -> bool:
        """See `Surface.owns`."""
        path = incoming.path
        if path.startswith("/v1/messages"):
            return True
        return path.startswith("/v1/models") and b"anthropic-version" in incoming.headers

    def ask(self, route: Route, incoming: Incoming, body: bytes) -> Asked:
        """See `Surface.ask`."""
        headers = incoming.only(_SENT_ON)
        if route.operation is Operation.LIST:
            return Asked(Operation.LIST, route.model, Raw("GET", route.path, route.model, headers))
        asked = survey(body)
        kind = Operation.STREAM if asked.streams else Operation.GENERATE
        raw = Raw("POST", route.path, asked.model, headers, body, asked.weight)
        return Asked(route.operation or kind, asked.model, raw)

    def framing(self, route: Route) -> Framing:  # noqa: ARG002 - the same for every path
        """See `Surface.framing`."""
        return _EVENTS

    def passed_refusal(self, route: Route, body: bytes) -> bytes:  # noqa: ARG002 - the port
        """See `Surface.passed_refusal`."""
        return body

    def refusal(self, problem: Problem) -> tuple[Headers, bytes]:
        """See `Surface.refusal`."""
        headers = [(b"request-id", problem.request_id.encode())]
        return headers, msgspec.json.encode(_envelope(problem))


class _Events:
    """As they come."""

    content_type = b"text/event-stream; charset=utf-8"

    def piece(self, raw: bytes) -> bytes:
        return raw

    def end(self) -> bytes:
        return b""

    def broken(self, problem: Problem) -> bytes:
        return b"event: error\ndata: " + msgspec.json.encode(_envelope(problem)) + b"\n\n"


_EVENTS = _Events()


def _query(incoming: Incoming, names: tuple[str, ...]) -> str:
    if not incoming.query_string:
        return ""
    query = incoming.query
    given = "&".join(f"{name}={quote(query[name], safe='')}" for name in names if name in query)
    return f"?{given}" if given else ""


def _envelope(problem: Problem) -> dict[str, object]:
    """Anthropic's shape of an error."""
    kind = _TYPES.get(problem.status, "api_error")
    if problem.status == 503 and problem.kind == "unavailable":
        kind = "overloaded_error"
    error = {"type": kind, "message": problem.message}
    return {"type": "error", "error": error, "request_id": problem.request_id}
