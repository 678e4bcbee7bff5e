"""A request to the management API on its way: who asks, what for, with what; then the answer.

Whoever may not manage is told so before anything of the body is read and before any path is looked up.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from headgate.core.errors import HeadgateError
from headgate.gateway.answers import ALWAYS, CLOSE, respond
from headgate.gateway.incoming import ClientGoneError, Incoming, Receive, Send, read_body
from headgate.gateway.manage.doors import Doors
from headgate.gateway.manage.house import House
from headgate.gateway.manage.openapi import document
from headgate.gateway.manage.page import page_file
from headgate.gateway.manage.repeats import Repeats, Told
from headgate.gateway.manage.table import Ask, Endpoint, Stream, Table
from headgate.gateway.manage.trouble import Problem, TroubleError, problem_of
from headgate.gateway.manage.written import to_json
from headgate.gateway.problems import Headers, RequestRefusedError
from headgate.gateway.visits import End, Visit

__all__ = ["Application"]

_log = logging.getLogger("headgate.manage")

_JSON: Headers = [(b"content-type", b"application/json")]
_END_SECONDS = 2.0
"""For requests whose clients went away: those that wait have had the time of the drain."""

_LARGEST_UNREAD = 65_536
"""Bytes of a refused request's body that are read and dropped, so that its connection can go on."""


class _Done(NamedTuple):
    status: int
    body: bytes | None
    replayed: bool = False


class Application:
    """The management API.

    Args:
        most_bytes: of a body.
    """

    def __init__(self, house: House, doors: Doors, table: Table, most_bytes: int) -> None:
        self.house = house
        self.doors = doors
        self._table = table
        self._most = most_bytes
        self._repeats = Repeats(house.clock)
        self._running: set[asyncio.Task[_Done]] = set()
        self._document: bytes | None = None

    async def __call__(
        self, incoming: Incoming, receive: Receive, send: Send, extra: Headers, visit: Visit
    ) -> None:
        """Answer one request, with a problem where need be."""
        answering = _Answering(incoming, send, extra, secrets.token_hex(8))
        try:
            await self._serve(incoming, receive, answering)
        except ClientGoneError:
            return
        except HeadgateError as error:
            await answering.failed(error)
        except asyncio.CancelledError:
            if visit.end is not End.DRAINED:
                raise
            visit.settle()
            await answering.failed(TroubleError("busy", "The gateway shuts down."))
        except Exception:  # noqa: BLE001 - a fault of ours, told as one
            _log.exception("management request %s: a fault of the gateway", answering.request_id)
            await answering.failed(TroubleError("fault", "The gateway made a mistake."))

    def drain(self) -> None:
        """The gateway ends: those who listen are let go."""
        self.house.feed.close()

    async def aclose(self) -> None:
        """Wait a moment for what was begun with an idempotency key, and let go of everything."""
        running = set(self._running)
        if running:
            _, late = await asyncio.wait(running, timeout=_END_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.house.aclose()

    # ── a request ───────────────────────────────────────────────────────────────────────────────

    async def _serve(self, incoming: Incoming, receive: Receive, answering: _Answering) -> None:
        path = incoming.path
        if path.startswith("/docs"):
            self._check_method(incoming, ("GET", "HEAD"))
            kind, body = page_file(path)
            await answering.page(kind, body)
            return
        self.doors.check(incoming)
        if path == "/openapi.json":
            self._check_method(incoming, ("GET", "HEAD"))
            if self._document is None:
                self._document = msgspec.json.encode(document(self._table))
            await answering.done(_Done(200, self._document))
            return
        endpoint, values = self._find(incoming)
        ask, body = await self._understood(endpoint, values, incoming, receive)
        await self._answer(endpoint, ask, body, incoming, answering)

    def _find(self, incoming: Incoming) -> tuple[Endpoint, Mapping[str, str]]:
        found = self._table.find(incoming.method, incoming.path)
        if found is None:
            raise TroubleError("not-found", f"There is nothing at {incoming.path[:120]!r}.")
        if found.endpoint is None:
            self._check_method(incoming, found.allowed)
            raise AssertionError  # a method that is allowed has an endpoint
        return found.endpoint, found.path

    @staticmethod
    def _check_method(incoming: Incoming, allowed: tuple[str, ...]) -> None:
        if incoming.method not in allowed:
            what = f"{incoming.path[:120]!r} takes {', '.join(allowed)}; got {incoming.method[:10]!r}."
            raise TroubleError("method-not-allowed", what, allow=allowed)

    async def _understood(
        self, endpoint: Endpoint, values: Mapping[str, str], incoming: Incoming, receive: Receive
    ) -> tuple[Ask[Any, Any], bytes]:
        query = _converted(dict(incoming.query), endpoint.query)
        body = b""
        if endpoint.changes:
            _check_type(incoming)
            body = await read_body(incoming, receive, self._most)
        given = None
        if endpoint.body is not None:
            given = _decoded(body or b"{}", endpoint.body)
        elif body.strip() not in (b"", b"{}"):
            raise TroubleError("invalid", "This endpoint takes no body.")
        return Ask(values, query, given, incoming.text(b"last-event-id")), body

    async def _answer(
        self,
        endpoint: Endpoint,
        ask: Ask[Any, Any],
        body: bytes,
        incoming: Incoming,
        answering: _Answering,
    ) -> None:
        key = incoming.headers.get(b"idempotency-key")
        if key is not None and endpoint.method == "POST":
            if endpoint.may_stream and getattr(ask.body, "stream", False):
                raise TroubleError("invalid", "A stream cannot be repeated: send no idempotency-key.")
            place = f"{incoming.path}?{incoming.query_string.decode('latin-1')}"
            await answering.done(await self._once(key.decode("latin-1"), endpoint, ask, place, body))
            return
        result = await endpoint.handle(self.house, ask)
        if isinstance(result, Stream):
            await answering.stream(result)
        else:
            await answering.done(_done(endpoint, result))

    async def _once(
        self, key: str, endpoint: Endpoint, ask: Ask[Any, Any], place: str, body: bytes
    ) -> _Done:
        """Do it unless it was done. It goes on though its client went away: that one will ask again."""
        told = self._repeats.begin(key, endpoint.method, place, body)
        if told is not None:
            return _Done(told.status, told.body, replayed=True)

        async def work() -> _Done:
            return _done(endpoint, await endpoint.handle(self.house, ask))

        task = asyncio.get_running_loop().create_task(work())
        self._running.add(task)
        task.add_done_callback(partial(self._did, key, endpoint))
        return await asyncio.shield(task)

    def _did(self, key: str, endpoint: Endpoint, task: asyncio.Task[_Done]) -> None:
        self._running.discard(task)
        if task.cancelled() or task.exception() is not None:
            self._repeats.drop(key)
            return
        done = task.result()
        self._repeats.end(key, Told(done.status, None if endpoint.shown_once else done.body or b""))


def _done(endpoint: Endpoint, result: object) -> _Done:
    return _Done(endpoint.status, None if endpoint.answer is None else to_json(result))


def _converted(given: Mapping[str, str], kind: type[Struct]) -> Any:
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise TroubleError("invalid", f"Query: {error}.") from None


def _decoded(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise TroubleError("invalid", f"Body: {error}.") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise TroubleError("invalid", "Body: it is not JSON.") from None


def _check_type(incoming: Incoming) -> None:
    """A body is JSON; where there is none, nothing need be said of it. A form of another site's page
    cannot send JSON without asking first."""
    if incoming.declared_length() == 0:
        return
    kind = incoming.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    plain = incoming.headers.get(b"content-encoding", b"identity").strip().lower() == b"identity"
    if kind != b"application/json" or not plain:
        raise TroubleError("unsupported-media-type", "The body must be application/json as it is.")


class _Answering:
    """The answer to one request, whichever it becomes."""

    def __init__(self, incoming: Incoming, send: Send, extra: Headers, request_id: str) -> None:
        self._incoming = incoming
        self._send = send
        self._extra = [*extra, (b"x-headgate-request-id", request_id.encode())]
        self._begun = False
        self._streams = False
        self.request_id = request_id

    async def done(self, done: _Done) -> None:
        self._begun = True
        headers = list(self._extra)
        if done.replayed:
            headers.append((b"idempotency-replayed", b"true"))
        if done.body:
            headers += _JSON
        await respond(self._send, done.status, headers, done.body or b"")

    async def page(self, headers: Headers, body: bytes) -> None:
        self._begun = True
        await respond(self._send, 200, [*headers, *self._extra], body)

    async def stream(self, stream: Stream) -> None:
        self._begun = True
        headers = [*ALWAYS, (b"content-type", b"text/event-stream"), *self._extra]
        try:
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            self._streams = True
            async for piece in stream.pieces:
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            await self._send({"type": "http.response.body", "body": b""})
            self._streams = False
        finally:
            await stream.pieces.aclose()

    async def failed(self, error: HeadgateError) -> None:
        problem = problem_of(error, self.request_id)
        if self._streams:
            body = b"event: problem\ndata: %s\n\n" % to_json(problem)
            await self._send({"type": "http.response.body", "body": body})
        elif not self._begun:
            headers = [*self._extra, *self._about(error, problem)]
            await respond(self._send, problem.status, headers, to_json(problem))

    def _about(self, error: HeadgateError, problem: Problem) -> Headers:
        headers: Headers = [(b"content-type", b"application/problem+json")]
        if problem.status == 401:
            headers.append((b"www-authenticate", b'Bearer realm="headgate management"'))
        if isinstance(error, TroubleError) and error.allow:
            headers.append((b"allow", ", ".join(error.allow).encode()))
        if problem.retry_after is not None:
            headers.append((b"retry-after", b"%d" % max(1, round(problem.retry_after))))
        if self._leaves_body(error) and CLOSE not in self._extra:
            headers.append(CLOSE)
        return headers

    def _leaves_body(self, error: HeadgateError) -> bool:
        """Whether more of the body may be unread than a server should read and drop."""
        if isinstance(error, RequestRefusedError) and error.closes:
            return True
        try:
            declared = self._incoming.declared_length()
        except RequestRefusedError:
            return True
        return declared is None or declared > _LARGEST_UNREAD
