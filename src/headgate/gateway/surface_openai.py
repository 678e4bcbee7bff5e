"""The OpenAI surface: chat completions, embeddings and the list of models, of any compatible upstream.

The base URL of clients holds the version, so paths come with `/v1` and without.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from headgate.core.call import Operation, Raw
from headgate.gateway.incoming import Incoming
from headgate.gateway.problems import Headers, Problem
from headgate.gateway.surface import Asked, Framing, Route
from headgate.providers.openai_raw import survey

__all__ = ["OpenAISurface"]

_CHAT, _EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
_MODELS = re.compile(r"/v1/models(?:/([A-Za-z0-9][A-Za-z0-9._@:/-]*))?")

_SENT_ON = {
    b"content-type": "content-type",
    b"user-agent": "user-agent",
}
"""Headers that go upstream, by their names here and there."""

_OTHERS_MARKS = (b"anthropic-version", b"x-api-key", b"x-goog-api-key", b"x-goog-api-client")

_TYPES = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "permission_denied"),
    404: ("invalid_request_error", "not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


_DECODE_LIST = msgspec.json.Decoder(list[msgspec.Raw])


class OpenAISurface:
    """See `Surface`."""

    name = "openai"
    passed_back: Mapping[str, bytes] = {
        "content-type": b"content-type",
        "x-request-id": b"x-request-id",
        "openai-processing-ms": b"openai-processing-ms",
        "openai-version": b"openai-version",
    }

    def route(self, incoming: Incoming) -> Route | None:
        """See `Surface.route`."""
        path = incoming.path.rstrip("/")
        if not path.startswith("/v1/"):
            path = f"/v1{path}"
        if path == _CHAT:
            return Route("POST", path)
        if path == _EMBEDDINGS:
            return Route("POST", path, Operation.EMBED)
        found = _MODELS.fullmatch(path)
        if found is None or ".." in path or "//" in path:
            return None
        return Route("GET", path, Operation.LIST, found[1] or "")

    def owns(self, incoming: Incoming) -> bool:
        """See `Surface.owns`."""
        path = incoming.path.rstrip("/")
        if path in (_CHAT, _EMBEDDINGS):
            return True
        headers = incoming.headers
        plain = b"authorization" in headers and not any(mark in headers for mark in _OTHERS_MARKS)
        return plain and (path == "/v1/models" or (path.startswith("/v1/models/") and ":" not in path))

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
        """See `Surface.passed_refusal`. Google's compatible endpoint puts errors into a list of one, of
        which openai-python shows nothing: it comes out of there."""
        if not body.lstrip().startswith(b"["):
            return body
        try:
            (error,) = _DECODE_LIST.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
            return body
        return bytes(error)

    def refusal(self, problem: Problem) -> tuple[Headers, bytes]:
        """See `Surface.refusal`."""
        return [(b"x-request-id", problem.request_id.encode())], msgspec.json.encode(_envelope(problem))


class _Events:
    """As they come."""

    content_type = b"text/event-stream; charset=utf-8"

    def piece(self, raw: bytes) -> bytes:
        return raw

    def end(self) -> bytes:
        return b""

    def broken(self, problem: Problem) -> bytes:
        return b"data: " + msgspec.json.encode(_envelope(problem)) + b"\n\n"


_EVENTS = _Events()


def _envelope(problem: Problem) -> dict[str, object]:
    """OpenAI's shape of an error."""
    other = ("server_error" if problem.status >= 500 else "invalid_request_error", problem.kind)
    kind, code = _TYPES.get(problem.status, other)
    if problem.kind == "budget":  # as OpenAI calls it, so that programs stop instead of waiting
        kind = code = "insufficient_quota"
    error = {"message": problem.message, "type": kind, "param": None, "code": code}
    return {"error": error}
