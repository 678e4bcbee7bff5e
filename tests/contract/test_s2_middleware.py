"""S2-23: TelemetryMiddleware traces and times requests, by route and never by path, and fails none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from tests.telemetry import Seen, telemetry

from headgate.telemetry import TelemetryMiddleware, current_request_id
from headgate.telemetry.middleware import UNMATCHED, matched, route_of
from headgate.testing import VirtualClock


async def item(request: Request) -> Response:
    await asyncio.sleep(2.0)  # noqa: TID251 - the loop's time is the test's clock
    return PlainTextResponse(request.path_params["name"])


async def broken(request: Request) -> Response:
    raise RuntimeError("mine")


async def stream(request: Request) -> Response:
    async def pieces() -> Any:
        for piece in ("a", "b"):
            await asyncio.sleep(3.0)  # noqa: TID251 - the loop's time is the test's clock
            yield piece

    return StreamingResponse(pieces())


async def refused(request: Request) -> Response:
    return PlainTextResponse("no", 503)


ROUTES = [
    Route("/items/{name}", item),
    Route("/broken", broken),
    Route("/stream", stream),
    Route("/refused", refused),
    Mount("/api/{version}", routes=[Route("/items/{name}", item)]),
    Mount("/inner", app=Starlette(routes=[Route("/items/{name}", item)])),
]


def scope(path: str = "/items/a", method: str = "GET", **fields: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"key=CANARY-in-a-query",
        "root_path": "",
        "headers": [(b"host", b"gate.example")],
        "server": ("10.0.0.1", 8443),
        **fields,
    }


async def ask(app: Any, asked: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    asked_for: list[None] = []

    async def receive() -> dict[str, Any]:
        if asked_for:
            await asyncio.Event().wait()  # the caller stays
        asked_for.append(None)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await TelemetryMiddleware(app)(asked or scope(), receive, send)
    return sent


def labels(seen: Seen, name: str = "cak.http_request_duration") -> list[dict[str, Any]]:
    return [dict(point.attributes) for point in seen.points()[name]]


async def test_s2_23_a_request_is_a_span_and_a_duration(clock: VirtualClock) -> None:
    with telemetry() as seen:
        await ask(Starlette(routes=ROUTES))
        points = seen.points()
    span = seen.span
    assert (span.name, span.kind) == ("GET /items/{name}", SpanKind.SERVER)
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "http.method": "GET",
        "http.url": "https://gate.example/items/a",
        "http.scheme": "https",
        "http.status_code": 200,
        "http.request.method": "GET",
        "http.route": "/items/{name}",
        "http.response.status_code": 200,
        "url.path": "/items/a",
        "url.scheme": "https",
        "network.protocol.version": "1.1",
        "server.address": "10.0.0.1",
        "server.port": 8443,
    }
    (accepted,) = points["cak.http_request_duration"]
    assert accepted.sum == pytest.approx(2_000.0)
    assert accepted.attributes == {"method": "GET", "path": "/items/{name}", "status": "200"}
    (stable,) = points["http.server.request.duration"]
    assert stable.sum == pytest.approx(2.0)
    assert stable.attributes == {
        "http.request.method": "GET",
        "url.scheme": "https",
        "http.route": "/items/{name}",
        "http.response.status_code": 200,
    }


@pytest.mark.parametrize(
    ("path", "method", "name"),
    [
        ("/api/v1/items/a", "GET", "GET /api/{version}/items/{name}"),
        ("/inner/items/a", "GET", "GET /inner/items/{name}"),
        ("/items/a", "POST", "POST /items/{name}"),
        ("/nowhere/17", "GET", "GET _unmatched"),
        ("/items/a", "BREW", "_OTHER /items/{name}"),
    ],
)
async def test_s2_23_names_are_templates(
    path: str, method: str, name: str, clock: VirtualClock
) -> None:
    with telemetry() as seen:
        await ask(Starlette(routes=ROUTES), scope(path, method))
        (label,) = labels(seen)
    assert seen.span.name == name
    assert f"{label['method']} {label['path']}" == name


async def test_s2_23_an_application_may_add_it_as_its_own_middleware(clock: VirtualClock) -> None:
    app = Starlette(routes=ROUTES)
    app.add_middleware(TelemetryMiddleware)
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    with telemetry() as seen:
        for path in ("/items/a", "/inner/items/a", "/api/v1/items/a"):
            await app(scope(path), asyncio.Event().wait, send)  # type: ignore[arg-type]
    assert [span.name for span in seen.spans] == [
        "GET /items/{name}", "GET /inner/items/{name}", "GET /api/{version}/items/{name}",
    ]  # fmt: skip


async def test_s2_23_ten_thousand_paths_are_few_series(clock: VirtualClock) -> None:
    app = Starlette(routes=[Route("/x/{name}", refused)])
    with telemetry() as seen:
        for number in range(2_000):
            await ask(app, scope(f"/x/{number}"))
            await ask(app, scope(f"/{number}"))
            await ask(app, scope(f"/{number}/x", f"M{number}"))
        assert len(labels(seen)) == 3
    assert len({span.name for span in seen.spans}) == 3


async def test_s2_23_fastapi_leaves_its_route_in_the_scope() -> None:
    class FastRoute:
        path = "/items/{name}"

    assert route_of(scope(route=FastRoute())) == "/items/{name}"
    assert route_of(scope()) is None
    assert matched(scope()) is None


async def test_s2_23_a_route_of_ones_own_is_taken(clock: VirtualClock) -> None:
    async def app(asked: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None: ...

    with telemetry() as seen:
        middleware = TelemetryMiddleware(app, route=lambda asked: f"/mine/{asked['method']}")
        await middleware(scope(), None, send)  # type: ignore[arg-type]
    assert seen.span.name == "GET /mine/GET"


async def test_s2_23_what_an_application_raises_is_seen_and_raised(clock: VirtualClock) -> None:
    with telemetry() as seen:
        with pytest.raises(RuntimeError, match="mine"):
            await ask(Starlette(routes=ROUTES), scope("/broken"))
        (label,) = labels(seen)
    assert label == {"method": "GET", "path": "/broken", "status": "500"}, (
        "Starlette answers, then raises"
    )
    assert seen.span.status.status_code is StatusCode.ERROR
    assert (seen.span.attributes or {})["error.type"] == "RuntimeError"


async def test_s2_23_no_status_is_unknown(clock: VirtualClock) -> None:
    async def silent(asked: Any, receive: Any, send: Any) -> None: ...

    with telemetry() as seen:
        await ask(silent)
        assert labels(seen) == [{"method": "GET", "path": UNMATCHED, "status": "unknown"}]
    assert (seen.span.attributes or {})["error.type"] == "unknown"
    assert "http.status_code" not in (seen.span.attributes or {})


async def test_s2_23_a_5xx_is_an_error_and_a_4xx_is_none(clock: VirtualClock) -> None:
    with telemetry() as seen:
        await ask(Starlette(routes=ROUTES), scope("/refused"))
        await ask(Starlette(routes=ROUTES), scope("/nowhere"))
    first, second = seen.spans
    assert (first.status.status_code, (first.attributes or {})["error.type"]) == (
        StatusCode.ERROR,
        "503",
    )
    assert second.status.status_code is StatusCode.UNSET


async def test_s2_23_a_stream_is_measured_to_its_end(clock: VirtualClock) -> None:
    with telemetry() as seen:
        sent = await ask(Starlette(routes=ROUTES), scope("/stream"))
        (point,) = seen.points()["cak.http_request_duration"]
    assert [message.get("body") for message in sent[1:3]] == [b"a", b"b"]
    assert point.sum == pytest.approx(6_000.0)


async def test_s2_23_a_trace_from_elsewhere_goes_on_and_is_current(clock: VirtualClock) -> None:
    inside = []

    async def app(asked: Any, receive: Any, send: Any) -> None:
        inside.append(get_current_span().get_span_context())

    header = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    with telemetry() as seen:
        await ask(app, scope(headers=[header]))
    assert seen.span.context is not None
    assert seen.span.context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert seen.span.parent is not None
    assert seen.span.parent.span_id == 0xB7AD6B7169203331
    assert inside == [seen.span.context]


async def test_s2_23_what_is_no_http_passes_untouched(clock: VirtualClock) -> None:
    seen_by_app = []

    async def app(asked: Any, receive: Any, send: Any) -> None:
        seen_by_app.append((asked, receive, send))

    for kind in ("websocket", "lifespan"):
        given: tuple[Any, ...] = ({"type": kind}, object(), object())
        with telemetry() as seen:
            await TelemetryMiddleware(app)(*given)
        assert seen.spans == []
        assert seen_by_app[-1] == given


async def test_s2_23_where_it_is_off_the_application_is_called_as_it_is(clock: VirtualClock) -> None:
    sent = await ask(Starlette(routes=ROUTES))
    assert sent[0]["status"] == 200


async def test_s2_23_telemetry_that_fails_fails_no_request(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bad(*_: Any, **__: Any) -> None:
        raise RuntimeError("telemetry is broken")

    with telemetry():
        for name in ("_begun", "_ended", "matched"):
            monkeypatch.setattr(f"headgate.telemetry.middleware.{name}", bad)
        sent = await ask(Starlette(routes=ROUTES))
    assert sent[0]["status"] == 200
    assert caplog.text.count("telemetry failed; the request goes on") == 3


@pytest.mark.parametrize(
    ("given", "bound"),
    [(b"abc-123", "abc-123"), (b"a" * 129, "-"), (b"a\nb", "-"), ("é".encode(), "-"), (b"", "-")],
)
@pytest.mark.parametrize("on", [False, True])
async def test_what_a_request_is_called_is_on_its_log_lines(
    given: bytes, bound: str, on: bool, clock: VirtualClock
) -> None:
    """A header that is not fit for a log line is not let in."""
    inside = []

    async def app(asked: Any, receive: Any, send: Any) -> None:
        inside.append(current_request_id())

    run: Callable[[], Awaitable[Any]] = lambda: ask(app, scope(headers=[(b"x-request-id", given)]))  # noqa: E731
    if on:
        with telemetry():
            await run()
    else:
        await run()
    assert inside == [bound]
    assert current_request_id() is None
