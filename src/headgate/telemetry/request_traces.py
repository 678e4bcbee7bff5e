"""Spans of the requests that servers of ours are asked: a trace that a client began goes on here.

    POST /gemini/{version}/models/{model}:generateContent     SERVER, its parent is the client's span
    └── headgate.call generate                                the engine's, see `call_traces.py`

`traceparent` and `tracestate` are read as W3C Trace Context (level 2) writes them; `baggage` is not: it
is not meant for us, and nothing of it goes on. Whether a request is traced is decided before
anything is made of it, so that one that is not costs a look at a header and a draw.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

from headgate.telemetry.request_facts import UNMATCHED, method_of, request_facts
from headgate.telemetry.switch import KEPT, UNSAMPLED, Setup, Unsampled

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

__all__ = ["CANCELLED", "traced"]

_log = logging.getLogger("headgate.telemetry")

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

CANCELLED = "cancelled"
"""`error.type` of a request whose client went away before there was an answer."""

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_VERSION, _NO_VERSION = b"00", b"ff"
_NO_TRACE, _NO_SPAN = b"0" * 32, b"0" * 16
_ODD = b"13579bdf"
"""Last digits of flags whose lowest bit is set: sampled."""

_LONGEST_STATE = 512
"""Characters of a `tracestate`; W3C asks that at least so many go on. Longer ones are left out."""

_ROOT = Unsampled()


class _Parent(NamedTuple):
    """The span of the client that a request belongs to, as its headers have it."""

    trace: bytes
    span: bytes
    flags: bytes
    state: str

    @property
    def is_sampled(self) -> bool:
        return self.flags[1] in _ODD

    def context(self, setup: Setup) -> SpanContext:
        """As OpenTelemetry has it."""
        api = setup.api
        found: SpanContext = api.SpanContext(
            int(self.trace, 16),
            int(self.span, 16),
            is_remote=True,
            trace_flags=api.TraceFlags(int(self.flags, 16)),
            trace_state=api.TraceState.from_header([self.state]),
        )
        return found

    def unsampled(self) -> Unsampled:
        """What goes on of it where it is not sampled: the same parent."""
        return Unsampled(b"-".join((_VERSION, self.trace, self.span, self.flags)).decode(), self.state)


async def traced(
    setup: Setup,
    scope: MutableMapping[str, Any],
    headers: Mapping[bytes, bytes],
    route: str,
    send: Send,
    work: Callable[[Send], Awaitable[None]],
) -> None:
    """Serve a request within its trace. Tracing fails no request.

    Args:
        scope: of the request, of ASGI, as it came.
        headers: of the request, by names in lower case.
        route: the template of its path, from a closed set.
        send: of ASGI.
        work: serves it, and takes what it is to send with.
    """
    parent = _parent_of(headers, scope["headers"])
    if parent is not None and not parent.is_sampled:
        await _unsampled(parent.unsampled(), work, send)
        return
    if parent is None and setup.keeps is not None and not setup.keeps():
        await _unsampled(_ROOT, work, send)
        return
    span = _quietly(lambda: _begun(setup, scope, headers, route, parent))
    if span is None:
        await work(send)
        return
    await _sampled(setup, span, work, send)


def _parent_of(headers: Mapping[bytes, bytes], listed: Iterable[tuple[bytes, bytes]]) -> _Parent | None:
    """Who asks, as far as it says so in the way it must; otherwise the trace begins here.

    Args:
        listed: the headers once more, where one that is repeated still is.
    """
    given = headers.get(b"traceparent")
    if given is None:
        return None
    found = _TRACEPARENT.fullmatch(given)
    if found is None or [name for name, _ in listed].count(b"traceparent") > 1:
        return None
    version, trace, span, flags, more = found.groups()
    if version == _NO_VERSION or (version == _VERSION and more is not None):
        return None
    if trace == _NO_TRACE or span == _NO_SPAN:
        return None
    return _Parent(trace, span, flags, _state_of(listed) if b"tracestate" in headers else "")


def _state_of(listed: Iterable[tuple[bytes, bytes]]) -> str:
    """What vendors wrote beside it, in one header or several; empty where it is longer or stranger than
    it may be."""
    text = b",".join(value for name, value in listed if name == b"tracestate").decode("latin-1")
    return text if len(text) <= _LONGEST_STATE and text.isascii() and text.isprintable() else ""


async def _unsampled(what: Unsampled, work: Callable[[Send], Awaitable[None]], send: Send) -> None:
    token = UNSAMPLED.set(what)
    try:
        await work(send)
    finally:
        UNSAMPLED.reset(token)


async def _sampled(
    setup: Setup, span: Span, work: Callable[[Send], Awaitable[None]], send: Send
) -> None:
    answered: dict[str, Any] = {}

    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            answered.update(message)
        await send(message)

    error: BaseException | None = None
    try:
        with setup.api.use_span(span, record_exception=False, set_status_on_exception=False):
            await work(noting)
    except BaseException as raised:
        error = raised
        raise
    finally:
        _quietly(lambda: _ended(setup, span, answered, error))


def _begun(
    setup: Setup,
    scope: MutableMapping[str, Any],
    headers: Mapping[bytes, bytes],
    route: str,
    parent: _Parent | None,
) -> Span:
    api = setup.api
    context = None
    if parent is not None:
        context = api.set_span_in_context(api.NonRecordingSpan(parent.context(setup)))
    span: Span = setup.tracer.start_span(
        f"{method_of(scope)} {route}",
        context=context,
        kind=api.SpanKind.SERVER,
        attributes={KEPT: True} if parent is None and setup.keeps is not None else None,
    )
    if span.is_recording():
        host = headers.get(b"host", b"").decode("latin-1")
        span.set_attributes(request_facts(scope, host))
        if route != UNMATCHED:
            span.set_attribute("http.route", route)
    return span


def _ended(setup: Setup, span: Span, answered: Mapping[str, Any], error: BaseException | None) -> None:
    status = answered.get("status")
    facts: dict[str, str | int] = {}
    for name, value in answered.get("headers", ()):
        if name == b"x-headgate-request-id":
            facts["headgate.request_id"] = value.decode("latin-1")
    failed = error is not None
    if error is not None:
        facts["error.type"] = type(error).__qualname__
    elif status is None:
        facts["error.type"] = CANCELLED
    elif status >= 500:
        facts["error.type"] = str(status)
        failed = True
    if status is not None:
        facts["http.status_code"] = facts["http.response.status_code"] = status
    span.set_attributes(facts)
    if failed:
        span.set_status(setup.api.StatusCode.ERROR)
    span.end()


def _quietly(step: Callable[[], Any]) -> Any:
    """What a step gives; None where it failed: a request must not fail because it is traced."""
    try:
        return step()
    except Exception:  # noqa: BLE001 - whatever it is, the request matters more
        _log.exception("tracing a request failed; the request goes on")
        return None
