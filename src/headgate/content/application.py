"""The application: who may come in, which handler serves, how an answer leaves. Mountable anywhere.

    app = headgate.content.app()            # by the environment
    Mount("/content", app=headgate.content.app(settings))

One table (`routes.py`) says what there is; this runs it: caller and limits before anything of a body is
read, errors in the accepted shape, counts, additions, the end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from headgate.content.answers import Events, JsonAnswer, refusal
from headgate.content.doorkeeper import Access, Doorkeeper
from headgate.content.inbound import Inbound
from headgate.content.ports import Addition, NoResults, ReplyFacts, Results
from headgate.content.problems import FAULT, Problem, RefusedError, problem_of
from headgate.content.quota_config import QuotaConfig
from headgate.content.settings import ContentSettings
from headgate.core.errors import HeadgateError
from headgate.core.ports import Clock
from headgate.core.request_ids import REQUEST_ID
from headgate.engine.fresh_ids import fresh_id
from headgate.telemetry.metrics.content_families import UNMATCHED
from headgate.telemetry.middleware import matched
from headgate.telemetry.request_traces import traced
from headgate.telemetry.switch import SWITCH

if TYPE_CHECKING:
    from headgate.content.health import Health
    from headgate.content.routes import Row
    from headgate.telemetry.metrics.content_measures import ContentMeasures

__all__ = ["ContentApp"]

_log = logging.getLogger("headgate.content")


class ContentApp:
    """The ASGI application.

    Args:
        rows: what is served.
        additions: what joins it.
        results: keeps replies that can be fetched again.
        quota: in whose words refusals are told.
        health: told when the service drains.
        joining: makes the service known to those that share its store.
        closing: gives back everything that is open, at the end.

    Attributes:
        settings: as given.
        serving: requests that are being served.
    """

    def __init__(
        self,
        settings: ContentSettings,
        rows: Sequence[Row],
        clock: Clock,
        *,
        health: Health | None = None,
        joining: Callable[[], Awaitable[None]] | None = None,
        additions: Sequence[Addition] = (),
        results: Results | None = None,
        measures: ContentMeasures | None = None,
        quota: QuotaConfig | None = None,
        closing: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.settings = settings
        self.serving = 0
        self._health = health
        self._joining = joining
        self._clock = clock
        self._additions = additions
        self._results = results or NoResults()
        self._measures = measures
        self._quota = quota
        self._closing = closing
        self._idle = asyncio.Event()
        self._door = Doorkeeper(
            settings.callers, admin_key=settings.admin_key, open_routes=settings.open_routes
        )
        self._inbound = Inbound(settings, clock)
        routes = [Route(row.path, self._endpoint(row), methods=[row.method]) for row in rows]
        for addition in additions:
            routes += [self._joined(route) for route in addition.routes() if isinstance(route, Route)]
        self._app = Starlette(routes=routes, exception_handlers={HTTPException: self._unmatched})
        self._app.router.redirect_slashes = False  # it would lead to whatever host a request names

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request, or the life of a server."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            self.serving += 1
            self._idle.clear()
            try:
                await self._in_its_trace(scope, receive, send)
            finally:
                self.serving -= 1
                if not self.serving:
                    self._idle.set()

    async def _in_its_trace(self, scope: Any, receive: Any, send: Any) -> None:
        setup = SWITCH.setup
        if setup is None:
            await self._app(scope, receive, send)
            return
        route = matched({**scope, "app": self._app}) or UNMATCHED
        work = partial(self._app, scope, receive)
        await traced(setup, scope, dict(scope["headers"]), route, send, work)

    async def join(self) -> None:
        """Become known to who shares the store. Where it is away, that happens later."""
        if self._joining is not None:
            try:
                await self._joining()
            except HeadgateError as error:
                _log.warning("join=failed error=%s", error.kind)

    def drain(self) -> None:
        """Tell load balancers to go elsewhere; requests are still served."""
        if self._health is not None:
            self._health.draining = True

    async def emptied(self) -> None:
        """Wait until no request is being served."""
        if self.serving:
            await self._idle.wait()

    async def aclose(self) -> None:
        """Give back what is open."""
        closing, self._closing = self._closing, None
        if closing is not None:
            await closing()

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.join()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    # ── one request ─────────────────────────────────────────────────────────────────────────────

    def _endpoint(self, row: Row) -> Any:
        async def serve(request: Request) -> Response:
            return await self._serve(
                request, row.name, row.access, row.handler, fetchable=row.fetchable
            )

        return serve

    def _joined(self, route: Route) -> Route:
        """A route of an addition, run as ours are."""
        handler = route.endpoint
        name = route.name or UNMATCHED
        is_page = route.path == "/" or route.path.startswith("/assets/")
        access = Access.PAGE if is_page else Access.CALLERS

        async def serve(request: Request) -> Response:
            return await self._serve(request, name, access, handler, fetchable=False)

        methods = sorted(route.methods or {"GET"})
        return Route(route.path, serve, methods=methods, name=route.name)

    async def _serve(
        self, request: Request, name: str, access: Access, handler: Any, *, fetchable: bool
    ) -> Response:
        request_id = fresh_id()
        request.state.request_id = request_id
        token = REQUEST_ID.set(request_id)
        began = self._clock.monotonic()
        visit = None if self._measures is None else self._measures.http_request(request.method, name)

        def ended(status: int | None) -> None:
            if visit is not None:
                visit.status, visit.request_id = status or visit.status, request_id
                visit.__exit__(None, None, None)
            took = (self._clock.monotonic() - began) * 1000
            _log.info("request=%s endpoint=%s status=%s ms=%.0f", request_id, name, status, took)

        try:
            response = await self._answer(request, name, access, handler, fetchable=fetchable)
        except BaseException:
            ended(None)
            raise
        finally:
            REQUEST_ID.reset(token)
        if isinstance(response, Events):  # most of its work is still to come
            response.ended = partial(ended, response.status_code)
            response.failed = partial(self._count_error, name)
        else:
            ended(response.status_code)
        return response

    async def _answer(
        self, request: Request, name: str, access: Access, handler: Any, *, fetchable: bool
    ) -> Response:
        admin = access is Access.OPERATORS
        facts = ReplyFacts(name, private=self._door.private, admin=admin)
        try:
            caller = self._door.admit(request, access)
            request.state.caller = caller
            if access is Access.CALLERS and request.method == "POST":
                await self._inbound.check(request, caller)
            for addition in self._additions:
                await addition.enter(request)
            response: Response = await handler(request)
            if fetchable and isinstance(response, JsonAnswer) and response.status_code == 200:
                await self._name_place(request, response)
        except HeadgateError as error:
            problem = problem_of(error, request.state.request_id, self._quota)
            response = self._refused(name, error, problem)
        except ClientDisconnect:
            response = Response(status_code=499)
        except Exception as error:  # noqa: BLE001 - its client is told, and the log
            _log.exception(
                "request=%s endpoint=%s failed", request.state.request_id, name, exc_info=error
            )
            body = {"error": FAULT, "request_id": request.state.request_id}
            response = self._refused(name, None, Problem(500, body, "fault"))
        self._dress(request, response, facts)
        return response

    def _dress(self, request: Request, response: Response, facts: ReplyFacts) -> None:
        for addition in self._additions:
            addition.dress(request, response, facts)
        response.headers.setdefault("cache-control", "no-store")
        response.headers["x-request-id"] = request.state.request_id
        response.headers["x-content-type-options"] = "nosniff"

    async def _name_place(self, request: Request, response: JsonAnswer) -> None:
        """Say where a reply can be fetched again (S4-11)."""
        digest = await self._results.keep(bytes(response.body))
        if digest is not None:
            mounted = request.scope.get("root_path", "")
            response.headers["content-location"] = f"{mounted}/api/results/{digest}"

    def _refused(self, name: str, error: HeadgateError | None, problem: Problem) -> Response:
        self._count_error(name, problem.kind)
        if self._measures is not None and isinstance(error, RefusedError) and error.validator:
            self._measures.validation_failure(error.validator, error.issue)
        return refusal(problem)

    def _count_error(self, name: str, kind: str) -> None:
        if self._measures is not None:
            self._measures.error(name, kind)

    async def _unmatched(self, request: Request, error: Exception) -> Response:
        """What no route takes, or not with this method."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        sentence = "There is no such path." if status == 404 else "This path takes another method."
        request.state.request_id = fresh_id()
        body: dict[str, object] = {"error": sentence, "request_id": request.state.request_id}
        if self._measures is not None:
            with self._measures.http_request(request.method, UNMATCHED) as visit:
                visit.status = status
        response = refusal(Problem(status, body, "not_found", headers))
        self._dress(request, response, ReplyFacts(UNMATCHED, private=self._door.private))
        return response
