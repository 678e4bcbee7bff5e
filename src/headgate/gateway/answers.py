"""Answers on their way out: heads with what a client may know of its call, bodies as they came."""

from __future__ import annotations

from collections.abc import Mapping

from headgate.core.ports import Clock
from headgate.engine.passage import Passage
from headgate.gateway.incoming import Send
from headgate.gateway.problems import Headers, Problem
from headgate.gateway.surface import Surface

__all__ = ["ALWAYS", "CLOSE", "about", "passed_back", "refuse", "respond"]

ALWAYS: Headers = [
    (b"cache-control", b"no-store"),
    (b"vary", b"authorization, x-api-key, x-goog-api-key"),
    (b"x-content-type-options", b"nosniff"),
]
"""On every answer: no cache between may give one caller's answer to another."""

CLOSE = (b"connection", b"close")


def about(passage: Passage, clock: Clock) -> Headers:
    """What a call took: id, attempts, key by its name, cache, times in milliseconds."""
    now, lease = clock.monotonic(), passage.lease
    total = (now - passage.started) * 1000
    timing = b"total;dur=%.1f" % total
    if passage.waited:
        timing += b", wait;dur=%.1f" % (passage.waited * 1000)
    headers = [
        (b"x-headgate-request-id", passage.call.request_id.encode()),
        (b"x-headgate-attempts", b"%d" % passage.attempts),
        (b"x-headgate-cache", _cache(passage)),
    ]
    if lease is not None:
        headers.append((b"x-headgate-key", lease.key.name.encode("ascii", "replace")))
        timing += b", upstream;dur=%.1f" % ((now - lease.taken) * 1000)
    if passage.fallback is not None:
        headers.append((b"x-headgate-fallback", passage.fallback.encode("ascii", "replace")))
    headers.append((b"server-timing", timing))
    return headers


def _cache(passage: Passage) -> bytes:
    if passage.recalled is not None:
        return b"hit"
    return b"off" if passage.call.keeping is None else b"miss"


def passed_back(surface: Surface, upstream: Mapping[str, str]) -> Headers:
    """The upstream's headers that clients of a surface get. Any other stays here: most speak of the
    connection, or of a key that is not the client's."""
    allowed = surface.passed_back
    return [
        (allowed[name], value.encode("latin-1", "replace"))
        for name, value in upstream.items()
        if name in allowed
    ]


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """A whole answer."""
    length = (b"content-length", b"%d" % len(body))
    await send(
        {"type": "http.response.start", "status": status, "headers": [*ALWAYS, *headers, length]}
    )
    await send({"type": "http.response.body", "body": body})


async def refuse(
    send: Send, surface: Surface, problem: Problem, *, listed: bool = False, extra: Headers
) -> None:
    """An error in the surface's own shape."""
    own, body = surface.refusal(problem)
    headers = [
        (b"content-type", b"application/json; charset=UTF-8"),
        (b"x-headgate-request-id", problem.request_id.encode()),
        (b"x-headgate-attempts", b"%d" % problem.attempts),
        *own,
        *problem.headers(),
        *extra,
    ]
    if problem.key_name:
        headers.append((b"x-headgate-key", problem.key_name.encode("ascii", "replace")))
    await respond(send, problem.status, headers, b"[" + body + b"]" if listed else body)
