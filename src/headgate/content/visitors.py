"""Visitors: what the page remembers of whoever uses it, on whichever instance the next request lands.

A visitor is known by an opaque id in a cookie; what is remembered is in the store that instances share,
under a digest of the id, so that who reads the store can be nobody. There is no cookie before there is
something to remember, and an id that we did not give is never taken up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from http import HTTPStatus
from secrets import token_urlsafe
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headgate.content.cache_forms import decoded, encoded
from headgate.content.cache_settings import CacheSettings
from headgate.content.ports import Json, ReplyFacts
from headgate.content.problems import RefusedError
from headgate.core.errors import StoreError
from headgate.core.values import ValueStore
from headgate.policy.loopback import is_loopback

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.routing import BaseRoute

__all__ = ["MOST_BYTES", "Visitor", "Visitors"]

ROOM = "sessions"
"""Of the shared store: what fills up the cache drives no session out."""

MOST_BYTES = 8192
"""Of JSON that is remembered of a visitor."""

_NAMESPACE = "visitor"
_ID_BYTES = 32
_LONGEST_ID = 64
_TOUCHED_FROM = 0.1
"""The part of its life that a session has lost when a look at it begins it anew."""


class Visitor:
    """One visitor during one request.

    Attributes:
        cookie: the id to give out; None: the one there is stays; empty: it ends.
    """

    def __init__(self, values: ValueStore, seconds: float, given: str) -> None:
        self._values = values
        self._seconds = seconds
        self._id = given if 0 < len(given) <= _LONGEST_ID else ""
        self.cookie: str | None = None

    async def read(self) -> Mapping[str, Json]:
        """What is remembered; nothing of an unknown visitor. Lets it last longer."""
        if not self._id:
            return {}
        key = _digest(self._id)
        found = await self._values.get(_NAMESPACE, key)
        data = found.data
        if data is None and found.unsent is not None:  # from when the store was away
            data = found.unsent
            await self._values.put(_NAMESPACE, key, data, self._seconds)
        if data is None:
            return {}
        if found.left < self._seconds * (1 - _TOUCHED_FROM):
            await self._values.touch(_NAMESPACE, key, self._seconds)
            self.cookie = self._id
        remembered = decoded(data)
        return remembered if isinstance(remembered, dict) else {}

    async def write(self, remembered: Mapping[str, Json]) -> None:
        """Remember this and nothing else. Raises `ValueError`: it is too much, or no JSON."""
        data = encoded(dict(remembered))
        if data is None or len(data) > MOST_BYTES:
            raise ValueError(f"A session holds a JSON object of up to {MOST_BYTES} bytes.")
        if not await self.read():
            self._id = token_urlsafe(_ID_BYTES)  # never one that somebody else chose
        await self._values.put(_NAMESPACE, _digest(self._id), data, self._seconds)
        self.cookie = self._id

    async def end(self) -> None:
        """Forget everything of the visitor. Raises `StoreError` where the store is away."""
        self.cookie = ""
        if self._id:
            await self._values.drop(_NAMESPACE, _digest(self._id))


class Visitors:
    """An `Addition`: `request.state.visitor`, its cookie, and `/api/session` for the page.

    Args:
        values: where sessions are kept; closed by `aclose`.
    """

    def __init__(self, values: ValueStore, settings: CacheSettings) -> None:
        self._values = values
        self._seconds = float(settings.session_ttl)
        self._name = settings.session_cookie

    async def enter(self, request: Request) -> None:
        """Make the visitor known; nothing is loaded before somebody asks."""
        given = request.cookies.get(self._name, "")
        request.state.visitor = Visitor(self._values, self._seconds, given)

    def dress(self, request: Request, response: Response, facts: ReplyFacts) -> None:
        """Set the cookie where it is new, is to last longer, or ends."""
        del facts
        visitor: Visitor | None = getattr(request.state, "visitor", None)
        if visitor is None or visitor.cookie is None:
            return
        response.set_cookie(
            self._name,
            visitor.cookie,
            max_age=int(self._seconds) if visitor.cookie else 0,
            path="/",
            httponly=True,
            secure=not is_loopback(request.url.hostname or ""),
            samesite="lax",
        )

    def routes(self) -> Sequence[BaseRoute]:
        """Read, replace and end the own session."""
        return [Route("/api/session", self._session, methods=["GET", "PUT", "DELETE"], name="session")]

    async def aclose(self) -> None:
        """Give connections back."""
        await self._values.aclose()

    async def _session(self, request: Request) -> Response:
        visitor: Visitor = request.state.visitor
        if request.method == "DELETE":
            try:
                await visitor.end()
            except StoreError:
                sentence = "The session cannot be ended just now."
                raise _refusal(HTTPStatus.SERVICE_UNAVAILABLE, sentence) from None
            return Response(status_code=HTTPStatus.NO_CONTENT)
        if request.method == "PUT":
            return await self._replaced(request, visitor)
        return self._told(await visitor.read())

    async def _replaced(self, request: Request, visitor: Visitor) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # which no form of another site can send
            raise _refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body must be application/json.")
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                sentence = f"A session holds up to {MOST_BYTES} bytes."
                raise _refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
        try:
            remembered = decoded(body)
        except (ValueError, RecursionError):
            raise _refusal(HTTPStatus.BAD_REQUEST, "The body is no JSON.") from None
        if not isinstance(remembered, dict):
            raise _refusal(HTTPStatus.BAD_REQUEST, "A session is a JSON object.")
        try:
            await visitor.write(remembered)
        except ValueError as error:
            raise _refusal(HTTPStatus.BAD_REQUEST, str(error)) from None
        return self._told(remembered)

    def _told(self, remembered: Mapping[str, Json]) -> Response:
        return JSONResponse({"session": dict(remembered), "expires_in": int(self._seconds)})


def _refusal(status: HTTPStatus, sentence: str) -> RefusedError:
    return RefusedError(sentence, status=status)


def _digest(session_id: str) -> str:
    return sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()
