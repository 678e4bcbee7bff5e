"""One call through the gateway: read the request, take it down the engine's path, write the answer.

Bytes pass as they came, both ways; what is read of them is read once, for policy.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import cast

from msgspec import Struct, structs

from headgate.core.call import Call, Keeping, Operation, Priority, Raw, RawReply, Reply
from headgate.core.callers import Caller, CallerLimitError
from headgate.core.errors import HeadgateError, InvalidCallError, UpstreamError
from headgate.core.ports import Clock
from headgate.engine.fresh_ids import fresh_id
from headgate.engine.passage import Answer, Passage
from headgate.engine.stream import ReplyStream
from headgate.gateway.answers import ALWAYS, CLOSE, about, passed_back, refuse, respond
from headgate.gateway.callers import EVERYBODY
from headgate.gateway.desk import CallerDesk
from headgate.gateway.incoming import ClientGoneError, Incoming, Receive, Send, read_body
from headgate.gateway.problems import Headers, Problem, RequestRefusedError, fault, problem_of
from headgate.gateway.resources import Resources, Upload
from headgate.gateway.surface import Asked, Framing, Route, Surface
from headgate.gateway.terms import urgency
from headgate.gateway.visits import End, Visit
from headgate.policy.json_depth import is_deeper
from headgate.wiring.gateway import Upstream
from headgate.wiring.gateway_settings import GatewaySettings

__all__ = ["Conduct", "Errand"]

_log = logging.getLogger("headgate.gateway")

_DRAINED = "The gateway shuts down. Another of its processes, or this one in a moment, will answer."

_LONGEST_CALL = 86_400.0
"""Seconds; a client that names more means that it does not care."""


class Errand(Struct, frozen=True):
    """A request that may be served, and how.

    Attributes:
        caller: whose it is, empty where everybody may call.
        extra: headers of the answer beside its own.
        address: of the gateway, with the surface's prefix, as the client reached it.
        upload: that goes on here.
        owner: the caller, with what it may.
    """

    surface: Surface
    route: Route
    upstream: Upstream
    caller: str
    extra: Headers
    address: str = ""
    upload: Upload | None = None
    owner: Caller = EVERYBODY


class Conduct:
    """Serves calls.

    Args:
        resources: knows whose the things are that calls name.
        desk: lets calls of callers in; without one everything is.
    """

    def __init__(
        self,
        clock: Clock,
        settings: GatewaySettings,
        resources: Resources,
        desk: CallerDesk | None = None,
    ) -> None:
        self._clock = clock
        self._most_bytes = settings.max_body_mib * 1024 * 1024
        self._most_deep = settings.max_json_depth
        self._cache_seconds = settings.cache_seconds
        self._resources = resources
        self._desk = desk

    async def __call__(
        self, errand: Errand, incoming: Incoming, receive: Receive, send: Send, visit: Visit
    ) -> None:
        """Answer the request, with an error in the surface's shape where need be."""
        request_id = fresh_id()
        writing = _Writing(errand, send, self._clock)
        try:
            call = await self._call(errand, incoming, receive, request_id)
            if self._desk is not None and self._desk.watches(errand.owner):
                call = await self._admitted(self._desk, errand, call)
            answer, passage = await self._answer(errand, incoming, call)
            if isinstance(answer, ReplyStream):
                await writing.stream(answer, passage)
            else:
                await writing.whole(answer, passage, self._heard(errand, answer, passage))
        except ClientGoneError:
            return
        except HeadgateError as error:
            await writing.failed(error, request_id)
        except asyncio.CancelledError:
            if visit.end is not End.DRAINED:
                raise
            visit.settle()
            await writing.cut(request_id)
        except Exception:  # noqa: BLE001 - a fault of ours, told as one
            _log.exception("call %s: a fault of the gateway", request_id)
            await writing.problem(fault(request_id))
        finally:
            if self._desk is not None:
                self._desk.leave(request_id)

    @staticmethod
    async def _admitted(desk: CallerDesk, errand: Errand, call: Call) -> Call:
        """The call as its caller may make it; the answer tells what is left of the caller's limits."""
        try:
            call, headers = await desk.admit(errand.owner, call, errand.upstream)
        except CallerLimitError as error:
            errand.extra.extend(error.headers)
            raise
        errand.extra.extend(headers)
        return call

    async def _answer(self, errand: Errand, incoming: Incoming, call: Call) -> tuple[Answer, Passage]:
        upstream = errand.upstream
        if errand.route.pages and call.raw is not None:
            token = incoming.query.get("pageToken") or incoming.query.get("page_token") or ""
            return await self._resources.page(call, call.raw, token, upstream)
        return await upstream.engine.pipeline.run(call)

    def _heard(self, errand: Errand, reply: Reply, passage: Passage) -> Headers:
        if not errand.route.is_kept or reply.raw is None:
            return []
        return self._resources.heard(errand.route, passage, reply.raw, errand.caller, errand.address)

    async def _placed(self, errand: Errand, asked: Asked) -> tuple[Raw, str]:
        """What is to be sent, and the domain that alone may: of what a project keeps, that project."""
        if errand.upload is not None:
            return structs.replace(asked.raw, path=errand.upload.path), errand.upload.domain
        if not asked.names:
            return asked.raw, ""
        return asked.raw, await self._resources.place(asked.names, errand.upstream)

    async def _call(
        self, errand: Errand, incoming: Incoming, receive: Receive, request_id: str
    ) -> Call:
        body = b""
        if errand.route.method in ("POST", "PATCH"):
            body = await read_body(incoming, receive, self._most_bytes)
            if errand.route.is_json and is_deeper(body, self._most_deep):
                raise RequestRefusedError(_too_deep(self._most_deep))
        asked = errand.surface.ask(errand.route, incoming, body)
        raw, domain = await self._placed(errand, asked)
        deadline, wait = self._bounds(asked.operation, incoming, errand.upstream.max_wait)
        return Call(
            asked.operation,
            asked.model,
            (),
            request_id=request_id,
            deadline=deadline,
            max_wait=wait,
            priority=urgency(_priority(incoming), errand.owner),
            caller=errand.caller,
            keeping=self._keeping(errand, incoming) if self._cache_seconds else None,
            raw=raw,
            domain=domain,
        )

    def _keeping(self, errand: Errand, incoming: Incoming) -> Keeping | None:
        """How the answer may be kept: for its caller alone, and not where the client forbids it."""
        wish = incoming.text(b"cache-control").lower()
        if "no-store" in wish:
            return None
        partition = f"gateway {errand.caller}"
        return Keeping(
            partition=partition,
            namespace=errand.caller,  # so that one caller's answers can be forgotten
            ttl=self._cache_seconds,
            reads="no-cache" not in wish,
        )

    def _bounds(
        self, operation: Operation, incoming: Incoming, max_wait: float
    ) -> tuple[float | None, float]:
        """Deadline and longest wait for a key. `x-headgate-timeout` bounds the whole call and lets it
        wait that long; what SDKs tell of their own timeouts is a deadline only of what does not
        stream, for of a stream they bound the silence."""
        if given := incoming.text(b"x-headgate-timeout"):
            seconds = _seconds(given)
            if seconds is None:
                raise InvalidCallError(
                    f"x-headgate-timeout takes a number of seconds above 0; got {given[:40]!r}."
                )
            return self._clock.monotonic() + seconds, math.inf
        if operation is Operation.STREAM:
            return None, max_wait
        for name in _SDK_TIMEOUTS:
            seconds = _seconds(incoming.text(name)) if name in incoming.headers else None
            if seconds is not None:
                return self._clock.monotonic() + seconds, max_wait
        return None, max_wait


def _too_deep(most: int) -> str:
    return (
        f"The body is nested more than {most} levels deep, the most this gateway reads. Its operator "
        "can raise HEADGATE_GATEWAY_MAX_JSON_DEPTH."
    )


_SDK_TIMEOUTS = (b"x-server-timeout", b"x-stainless-timeout")


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return min(seconds, _LONGEST_CALL) if seconds > 0 else None


def _priority(incoming: Incoming) -> Priority | None:
    word = incoming.headers.get(b"x-headgate-priority")
    if word is None:
        return None
    found = _PRIORITIES.get(word.strip().lower())
    if found is None:
        raise InvalidCallError(f"x-headgate-priority takes {', '.join(Priority)}.")
    return found


_PRIORITIES = {priority.value.encode(): priority for priority in Priority} | {
    b"medium": Priority.NORMAL
}


class _Writing:
    """The answer to one request, whichever it becomes."""

    def __init__(self, errand: Errand, send: Send, clock: Clock) -> None:
        self._errand = errand
        self._send = send
        self._clock = clock
        self._framing: Framing | None = None  # once the head of a stream went out
        self._begun = False

    async def whole(self, reply: Reply, passage: Passage, further: Headers) -> None:
        """An answer as the upstream sent it, and further headers with it."""
        raw = cast("RawReply", reply.raw)
        headers = passed_back(self._errand.surface, raw.headers)
        headers += [*about(passage, self._clock), *further]
        self._begun = True
        await respond(self._send, 200, headers + self._errand.extra, raw.body)

    async def stream(self, stream: ReplyStream, passage: Passage) -> None:
        """A stream, event by event; whatever happens, it is given back."""
        framing = self._errand.surface.framing(self._errand.route)
        headers = [*ALWAYS, *passed_back(self._errand.surface, stream.headers)]
        headers = [pair for pair in headers if pair[0] != b"content-type"]
        headers += [(b"content-type", framing.content_type), *about(passage, self._clock)]
        headers += self._errand.extra
        send = self._send
        try:
            self._begun = True
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            self._framing = framing
            async for chunk in stream:
                if piece := framing.piece(chunk.raw):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": framing.end()})
        finally:
            await stream.aclose()

    async def failed(self, error: HeadgateError, request_id: str) -> None:
        """A typed error: the upstream's own final refusal as it came, anything else in our words."""
        verbatim = error.outcome.raw if isinstance(error, UpstreamError) else None
        if verbatim is None or self._begun:
            await self.problem(problem_of(error, request_id), error)
            return
        problem = problem_of(error, request_id)
        headers = passed_back(self._errand.surface, verbatim.headers)
        headers += [
            (b"x-headgate-request-id", request_id.encode()),
            (b"x-headgate-attempts", b"%d" % problem.attempts),
            (b"x-headgate-key", problem.key_name.encode("ascii", "replace")),
            *problem.headers(),
            *self._errand.extra,
        ]
        body = self._errand.surface.passed_refusal(self._errand.route, verbatim.body)
        await respond(self._send, verbatim.status, headers, body)

    async def cut(self, request_id: str) -> None:
        """The gateway shuts down before the answer was whole."""
        problem = Problem(503, "draining", _DRAINED, request_id, retry_after=1.0, again=True)
        await self.problem(problem)

    async def problem(self, problem: Problem, error: HeadgateError | None = None) -> None:
        """An error in the surface's shape; of a stream that has begun it is the last event."""
        if self._framing is not None:
            await self._send({"type": "http.response.body", "body": self._framing.broken(problem)})
            return
        if self._begun:
            return  # of a whole answer nothing can be taken back
        extra = list(self._errand.extra)
        if isinstance(error, RequestRefusedError) and error.closes and CLOSE not in extra:
            extra.append(CLOSE)
        listed = self._errand.route.listed
        await refuse(self._send, self._errand.surface, problem, listed=listed, extra=extra)
