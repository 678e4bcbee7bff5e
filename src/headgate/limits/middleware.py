"""ASGI middleware: a limit for every caller of an application.

Headers are those of the IETF draft draft-ietf-httpapi-ratelimit-headers-10 (September 2025), the body
of a refusal is problem+json (RFC 9457).
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from typing import Any

from headgate.core.buckets import RateLimitExceeded
from headgate.limits.identity import PeerAddress
from headgate.limits.limiter import Decision, Limit, LimitLike, RateLimiter

__all__ = ["RateLimitMiddleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Identify = Callable[[Scope], "str | Awaitable[str | None] | None"]

_PROBLEMS = "https://iana.org/assignments/http-problem-types#"
_TRY_AGAIN_LATER = 1013  # WebSocket close code


class RateLimitMiddleware:
    """Lets a caller's request through, or answers 429. Streams pass untouched.

    Args:
        app: the ASGI application.
        limits: `Limit`s or pairs of max_requests and window_seconds; all of them hold.
        identify: makes the identifier out of the ASGI scope, sync or async; None lets the request
            through without a limit. The default is the peer's address.
        trusted_proxies: for the default: networks whose `X-Forwarded-For` is believed.
    """

    def __init__(
        self,
        app: App,
        limiter: RateLimiter,
        *,
        limits: Iterable[LimitLike],
        identify: Identify | None = None,
        trusted_proxies: Collection[str] = (),
    ) -> None:
        if identify is not None and trusted_proxies:
            raise ValueError("trusted_proxies belongs to the default identify; give one of the two")
        self._app = app
        self._limiter = limiter
        self._limits = _named(
            [limit if isinstance(limit, Limit) else Limit(*limit) for limit in limits]
        )
        if not self._limits:
            raise ValueError("at least one limit is needed")
        self._identify = identify or PeerAddress(trusted_proxies)
        policy = ", ".join(
            f'"{limit.name}";q={limit.max_requests};w={math.ceil(limit.window_seconds)}'
            for limit in self._limits
        )
        self._policy = (b"ratelimit-policy", policy.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        found = self._identify(scope)
        identifier = await found if inspect.isawaitable(found) else found
        if identifier is None:
            await self._app(scope, receive, send)
            return
        try:
            decision = await self._limiter.decide(identifier, self._limits)
        except RateLimitExceeded as error:
            await self._refuse(scope, receive, send, error.retry_after, None)
            return
        if not decision.allowed:
            await self._refuse(scope, receive, send, decision.retry_after, decision)
            return
        await self._app(scope, receive, self._telling(send, decision))

    def _telling(self, send: Send, decision: Decision) -> Send:
        headers = (self._policy, _state(decision))

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        return telling

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, retry_after: int, decision: Decision | None
    ) -> None:
        status, body = _problem(retry_after, decision)
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"retry-after", str(retry_after).encode()),
            (b"cache-control", b"no-store"),
        ]
        if decision is not None:
            headers += [self._policy, _state(decision)]
        kind = "http"
        if scope["type"] == "websocket":
            await receive()  # the handshake, which is refused
            if "websocket.http.response" not in scope.get("extensions", {}):
                await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
                return
            kind = "websocket.http"
        await send({"type": f"{kind}.response.start", "status": status, "headers": headers})
        await send({"type": f"{kind}.response.body", "body": body})


def _named(limits: list[Limit]) -> list[Limit]:
    """The limits, each under a name of its own."""
    names = [limit.name for limit in limits]
    if len(set(names)) < len(names):
        raise ValueError(f"limits of one middleware need different names; got {', '.join(names)}")
    return limits


def _state(decision: Decision) -> tuple[bytes, bytes]:
    """`RateLimit`: what is left of each limit, and seconds until it is whole again."""
    items = (
        f'"{left.limit.name}";r={math.floor(left.tokens)};t={math.ceil(left.full_in)}'
        for left in decision.limits
    )
    return b"ratelimit", ", ".join(items).encode()


def _problem(retry_after: int, decision: Decision | None) -> tuple[int, bytes]:
    if decision is None:
        status, kind, title = 503, "temporary-reduced-capacity", "Limits cannot be checked"
        detail = f"The store of rate limits does not answer. Retry after {retry_after} seconds."
    else:
        status, kind, title = 429, "quota-exceeded", "Too many requests"
        detail = f"Rate limit exceeded. Retry after {retry_after} seconds"
    problem: dict[str, object] = {
        "type": f"{_PROBLEMS}{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        "retry_after": retry_after,
    }
    if decision is not None:
        violated = [left.limit.name for left in decision.limits if left.exceeded]
        problem["violated-policies"] = violated
    return status, json.dumps(problem).encode()
