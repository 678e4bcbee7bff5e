"""ASGI middleware: a span and a duration for every request of an application (S2-23).

Span and labels carry the route's template, never a raw path: what callers make up must not become
series without end. Stable names of OpenTelemetry's HTTP conventions (1.44) stand beside the accepted
ones.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from headgate.telemetry.logs import bound_request
from headgate.telemetry.metering import REQUEST_DURATION, record_metric, record_seconds
from headgate.telemetry.request_facts import UNMATCHED, method_of, request_facts
from headgate.telemetry.switch import SWITCH, Setup

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["UNMATCHED", "TelemetryMiddleware"]

_log = logging.getLogger("headgate.telemetry")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_DURATION = "http_request_duration"
_REFUSED, _LONGEST_ID = "-", 128


class TelemetryMiddleware:
    """Traces and times requests. It never fails one, and does nothing while telemetry is off.

    A request's trace goes on from its `traceparent` header. Streams are measured to their end.

    Args:
        app: the ASGI application.
        route: names the template of a request's route from its scope, once it was served, where the
            routes of Starlette and FastAPI are not what serves it.
    """

    def __init__(self, app: App, *, route: Callable[[Scope], str | None] | None = None) -> None:
        self._app = app
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection; only HTTP is looked at."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        setup = SWITCH.setup
        with bound_request(_request_id(scope)):
            if setup is None:
                await self._app(scope, receive, send)
            else:
                await self._traced(setup, scope, receive, send)

    async def _traced(self, setup: Setup, scope: Scope, receive: Receive, send: Send) -> None:
        began = asyncio.get_running_loop().time()
        # Mounted applications change the scope on the way: it is kept as it came.
        asked = {**scope, "app": scope.get("app", self._app)}
        seen: dict[str, int] = {}
        span = _quietly(lambda: _begun(setup, scope))

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
            await send(message)

        error: BaseException | None = None
        try:
            with _current(span):
                await self._app(scope, receive, noting)
        except BaseException as raised:
            error = raised
            raise
        finally:
            seconds = asyncio.get_running_loop().time() - began
            path = _quietly(lambda: self._template(asked, scope)) or UNMATCHED
            _quietly(lambda: _ended(span, asked, path, seen.get("status"), seconds, error))

    def _template(self, asked: Scope, served: Scope) -> str | None:
        if self._route is not None:
            return self._route(served)
        return matched(asked) or route_of(served)


def route_of(scope: Scope) -> str | None:
    """The template of the route that an application left in the scope; None where it left none."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) and path else None


def matched(scope: Scope) -> str | None:
    """The template of the route of a Starlette or FastAPI application that takes a request, under its
    mounts; None if none does.

    Args:
        scope: as it came, with the application.
    """
    routes = getattr(scope.get("app"), "routes", None)
    return None if routes is None else _template(routes, scope)


def _template(routes: Iterable[Any], scope: Scope) -> str | None:
    nearly: str | None = None  # the path is right and the method is not
    for route in routes:
        match, child = route.matches(scope)
        if match.value == 0:
            continue
        path = str(getattr(route, "path", ""))
        inner = getattr(route, "routes", None)
        if inner:
            below = _template(inner, {**scope, **child})
            if below is not None:
                return path + below or "/"
        elif match.value == 2:
            return path or "/"
        else:
            nearly = nearly or path
    return nearly


def _ended(
    span: Span | None,
    scope: Scope,
    path: str,
    status: int | None,
    seconds: float,
    error: BaseException | None,
) -> None:
    method, scheme = method_of(scope), str(scope.get("scheme", "http"))
    code = "unknown" if status is None else str(status)
    record_metric(_DURATION, seconds * 1000, "ms", {"method": method, "path": path, "status": code})
    labels: dict[str, str | int] = {
        "http.request.method": method,
        "url.scheme": scheme,
        "http.route": path,
    }
    if status is not None:
        labels["http.response.status_code"] = status
    record_seconds(REQUEST_DURATION, seconds, labels)
    if span is None:
        return
    from opentelemetry.trace import StatusCode  # noqa: PLC0415 - an extra, and it is on

    span.update_name(f"{method} {path}")
    if path != UNMATCHED:
        span.set_attribute("http.route", path)
    if status is not None:
        span.set_attributes({"http.status_code": status, "http.response.status_code": status})
    if error is not None or status is None or status >= 500:
        span.set_attribute("error.type", code if error is None else type(error).__qualname__)
        span.set_status(StatusCode.ERROR)
    span.end()


def _begun(setup: Setup, scope: Scope) -> Span | None:
    from opentelemetry.propagate import get_global_textmap  # noqa: PLC0415 - an extra, and it is on

    headers = {
        name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", ())
    }
    propagator, context = get_global_textmap(), None
    if not propagator.fields.isdisjoint(headers):  # most requests begin a trace of their own
        context = propagator.extract(headers)
    kind = setup.api.SpanKind.SERVER
    span: Span = setup.tracer.start_span(method_of(scope), context=context, kind=kind)
    if span.is_recording():
        span.set_attributes(request_facts(scope, headers.get("host", "")))
    return span


def _request_id(scope: Scope) -> str | None:
    """What the caller, or a proxy before us, calls the request; only if it is fit for a log line."""
    for name, value in scope.get("headers", ()):
        if name == b"x-request-id":
            text = str(value.decode("latin-1"))
            good = len(text) <= _LONGEST_ID and text.isascii() and text.isprintable() and text
            return text if good else _REFUSED
    return None


def _current(span: Span | None) -> AbstractContextManager[object]:
    if span is None:
        return nullcontext()
    from opentelemetry.trace import use_span  # noqa: PLC0415 - an extra, and it is on

    return use_span(span, record_exception=False, set_status_on_exception=False)


def _quietly(step: Callable[[], Any]) -> Any:
    """What a step gives; None where it failed: a request must not fail because it is watched."""
    try:
        return step()
    except Exception:  # noqa: BLE001 - whatever it is, the request matters more
        _log.exception("telemetry failed; the request goes on")
        return None
