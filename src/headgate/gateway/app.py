"""The gateway as an ASGI application: who may call, which surface and engine a request is for.

Proxied routes go through no framework: a look at the path, a look at the caller's key, then the call.
The caller is known before anything of the body is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from secrets import token_hex
from typing import NamedTuple

import msgspec

from headgate.core.callers import Caller
from headgate.core.errors import ConfigurationError, HeadgateError, QueueFullError
from headgate.core.ports import Clock
from headgate.core.replies import ReplyCache
from headgate.gateway.answers import CLOSE, refuse, respond
from headgate.gateway.beside import Beside, serve_beside
from headgate.gateway.callers import Callers
from headgate.gateway.conduct import Conduct, Errand
from headgate.gateway.desk import CallerDesk
from headgate.gateway.generation import Estate, Generation
from headgate.gateway.health import live, ready
from headgate.gateway.incoming import Incoming, Message, Receive, Scope, Send
from headgate.gateway.local import check_local
from headgate.gateway.manage.entrance import Management, is_managed
from headgate.gateway.problems import Headers, RequestRefusedError, problem_of
from headgate.gateway.reloading import Reloading
from headgate.gateway.resources import Resources, Upload
from headgate.gateway.surface import Surface
from headgate.gateway.surface_anthropic import AnthropicSurface
from headgate.gateway.surface_gemini import GeminiSurface
from headgate.gateway.surface_openai import OpenAISurface
from headgate.gateway.templates import template
from headgate.gateway.visits import Visits
from headgate.gateway.worker_link import Crew
from headgate.telemetry.metrics.http_measures import HttpVisit
from headgate.telemetry.request_traces import traced
from headgate.telemetry.switch import SWITCH
from headgate.wiring.gateway import Upstream
from headgate.wiring.gateway_metrics import GatewayMetrics
from headgate.wiring.gateway_settings import GatewaySettings

__all__ = ["PUBLIC_PATHS", "Gateway"]

PUBLIC_PATHS = ("/livez", "/readyz")
"""What answers without a credential. `/metrics` does where everybody may call."""

_JSON: Headers = [(b"content-type", b"application/json")]

_LARGEST_UNREAD = 65_536
"""Bytes of a refused request's body that are read and dropped, so that its connection can go on."""


class _Served(NamedTuple):
    surface: Surface
    upstream: Upstream | None


class Gateway:
    """The ASGI application over some engines.

    Args:
        upstreams: a request for a provider that is not among them is refused, in its own shape.
        cache: the one the upstreams were opened with; closed with them.
        crew: of a worker, what it was told at its start.
        desk: knows the callers and what they may, and hears what the engines do; without one callers
            are those of the settings, and may anything. Closed with the gateway.
        metrics: that the engines of `upstreams` report to; closed with the gateway.

    Attributes:
        visits: the requests that are being served.
        draining: whether it tells load balancers to go elsewhere.
        refusing: whether new calls are refused.
        crew: how many workers are there, where there are several.
        management: the management API, if it has one.
        reloading: what keeps its configuration as the files say, if anything does.
        beside: another application on the same address, if there is one; closed with the gateway.
        desk: as given.
        metrics: what `/metrics` shows.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        upstreams: Sequence[Upstream],
        clock: Clock,
        cache: ReplyCache | None = None,
        crew: Crew | None = None,
        desk: CallerDesk | None = None,
        metrics: GatewayMetrics | None = None,
    ) -> None:
        self._clock = clock
        self.desk = desk
        self._callers = Callers(settings.callers) if desk is None else desk.callers
        self._resources = Resources(clock, crew.seal if crew is not None else "")
        self._estate = Estate()
        self.metrics = metrics or GatewayMetrics(clock)
        self._meet(Generation(1, settings, upstreams, cache, self._estate))
        self.visits = Visits()
        self.draining = False
        self.refusing = False
        self.crew = crew
        self.management: Management | None = None
        self.reloading: Reloading | None = None
        self.beside: Beside | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return  # no WebSockets here, and whoever serves this opens and closes the engines
        if self.beside is not None and self.beside.owns(scope["path"]):
            await serve_beside(self.beside, self.visits, scope, receive, send)
            return
        incoming = Incoming(scope)
        served = self._surface(incoming)
        setup = SWITCH.setup
        route = template("" if served is None else served.surface.name, incoming.path)
        with self.metrics.http.visit(incoming.method, route) as visit:
            noting = partial(_note, visit, send)
            if setup is None:
                await self._serve(incoming, served, scope, receive, noting)
                return
            work = partial(self._serve, incoming, served, scope, receive)
            await traced(setup, scope, incoming.headers, route, noting, work)

    async def _serve(
        self, incoming: Incoming, served: _Served | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        extra: Headers = [CLOSE] if self.draining else []
        if served is None:
            if self.management is not None and is_managed(incoming.path):
                application = await self.management.opened()
                managed = partial(application, incoming, receive, send, extra)
                await self.visits.serve(scope, receive, managed)
                return
            await self._own(incoming, send, extra)
            return
        try:
            if self._callers.stale:
                await self._callers.refresh()
            try:
                errand = self._errand(served, incoming, extra)
            except RequestRefusedError as error:
                if error.http_status != 401 or not self._callers.may_have_news:
                    raise
                await self._callers.refresh()
                errand = self._errand(served, incoming, extra)
        except HeadgateError as error:
            if isinstance(error, RequestRefusedError):
                extra += _about_refusal(error, incoming)
            await refuse(send, served.surface, problem_of(error, token_hex(8)), extra=extra)
            return
        work = partial(self._conduct, errand, incoming, receive, send)
        generation = self._generation
        generation.calls += 1
        try:
            await self.visits.serve(scope, receive, work)
        finally:
            generation.calls -= 1
            if generation.retired:
                await asyncio.shield(generation.end_if_idle())

    def drain(self) -> None:
        """Tell load balancers to go elsewhere, and let go of those who only listen."""
        self.draining = True
        if self.management is not None:
            self.management.drain()
        if self.beside is not None:
            self.beside.drain()

    async def aclose(self) -> None:
        """Give back what the engines hold."""
        if self.reloading is not None:
            await self.reloading.aclose()
        if self.management is not None:
            await self.management.aclose()
        if self.beside is not None:
            await self.beside.aclose()
        await self._generation.aclose()
        if self.desk is not None:
            await self.desk.aclose()  # after the engines: it hears of what they end
        await asyncio.to_thread(self.metrics.close)

    # ── the configuration ───────────────────────────────────────────────────────────────────────

    def _meet(self, generation: Generation) -> None:
        """What new calls meet from now on."""
        settings, upstreams = generation.settings, generation.upstreams
        by_name = {upstream.name: upstream for upstream in upstreams}
        surfaces: tuple[Surface, ...] = (
            GeminiSurface(settings.gemini_version), AnthropicSurface(), OpenAISurface(),
        )  # fmt: skip
        self._served = {
            surface.name: _Served(surface, by_name.get(surface.name)) for surface in surfaces
        }
        self._generation = generation
        self._upstreams = upstreams
        self._most_calls = settings.max_calls
        self._conduct = Conduct(self._clock, settings, self._resources, self.desk)
        self._public_url = settings.public_url
        self.metrics.meet(upstreams, generation.cache)

    async def take_over(
        self, settings: GatewaySettings, upstreams: Sequence[Upstream], cache: ReplyCache | None
    ) -> int:
        """Let new calls meet another configuration; those under way keep the one they began with.

        Returns the number of the generation.
        """
        before = self._generation
        self._meet(Generation(before.number + 1, settings, upstreams, cache, self._estate))
        if self.desk is not None:
            self.desk.retune(settings)
        await before.retire()
        return self._generation.number

    @property
    def settings(self) -> GatewaySettings:
        """Those that new calls meet."""
        return self._generation.settings

    @property
    def upstreams(self) -> Sequence[Upstream]:
        """Those that new calls go to."""
        return self._upstreams

    @property
    def cache(self) -> ReplyCache | None:
        """Where answers of new calls are kept."""
        return self._generation.cache

    @property
    def generation(self) -> int:
        """Which configuration new calls meet, counted from 1."""
        return self._generation.number

    @property
    def under_way(self) -> int:
        """Requests that are being served."""
        return len(self.visits)

    @property
    def needs_callers(self) -> bool:
        """Whether a call needs a caller's key."""
        return self._callers.required

    @property
    def known_callers(self) -> int:
        """How many callers there are."""
        return len(self._callers)

    # ── which surface ───────────────────────────────────────────────────────────────────────────

    def _surface(self, incoming: Incoming) -> _Served | None:
        """The one that is named by the path's prefix, or whose request it is beyond doubt. Takes the
        prefix off the path."""
        first, _, rest = incoming.path[1:].partition("/")
        served = self._served.get(first)
        if served is not None:
            incoming.path = f"/{rest}"
            return served
        owners = [one for one in self._served.values() if one.surface.owns(incoming)]
        return owners[0] if len(owners) == 1 else None

    def _errand(self, served: _Served, incoming: Incoming, extra: Headers) -> Errand:
        """What is to be done for a request. Raises `RequestRefusedError`."""
        caller, upload = self._who(incoming)
        if self.desk is not None:
            self.desk.enter(caller, served.surface.name)
        route = served.surface.route(incoming)
        if route is None or (route.ticket and upload is None):
            what = f"The gateway knows no {incoming.path[:80]!r} of this API."
            raise RequestRefusedError(what, status=404)
        if incoming.method != route.method:
            what = f"{incoming.path[:80]!r} takes {route.method}, not {incoming.method[:10]!r}."
            raise RequestRefusedError(what, status=405, allow=route.method)
        if route.method in ("POST", "PATCH") and route.is_json:
            _check_type(incoming)
        if served.upstream is None:
            name = served.surface.name
            raise RequestRefusedError(f"This gateway has no key for {name}.", status=404)
        if self.refusing or len(self.visits) >= self._most_calls:
            what = "shuts down" if self.refusing else "serves as many calls as it may"
            raise QueueFullError(f"The gateway {what}. Try again in a moment.", retry_after=1.0)
        address = ""
        if route.makes:
            address = f"{self._public_url or incoming.address}/{served.surface.name}"
        return Errand(
            served.surface, route, served.upstream, caller.name, extra, address, upload, owner=caller
        )

    def _who(self, incoming: Incoming) -> tuple[Caller, Upload | None]:
        """The caller, and the upload that goes on: its ticket is as good as a key, for google-genai
        sends none with the bytes. Raises `RequestRefusedError`."""
        upload = None
        if incoming.path.startswith("/upload/") and b"upload_id=" in incoming.query_string:
            upload = self._resources.upload(incoming.query.get("upload_id", ""))
        if upload is None:
            caller = self._callers.known(incoming.credential)
        else:
            caller = self._callers.named(upload.caller)
        if not self._callers.required:
            check_local(incoming)
        return caller, upload

    # ── what is the gateway's own ───────────────────────────────────────────────────────────────

    async def _own(self, incoming: Incoming, send: Send, extra: Headers) -> None:
        """Health and metrics; whatever else there is no path for."""
        path = incoming.path
        if path in (*PUBLIC_PATHS, "/metrics") and incoming.method not in ("GET", "HEAD"):
            await _plain(send, 405, "GET is what this path takes.", [*extra, (b"allow", b"GET, HEAD")])
        elif path == "/livez":
            await respond(send, 200, _JSON + extra, live())
        elif path == "/readyz":
            status, body = ready(self._upstreams, draining=self.draining, crew=self.crew)
            await respond(send, status, _JSON + extra, body)
        elif path == "/metrics":
            await self._show_metrics(incoming, send, extra)
        else:
            names = ", ".join(f"/{name}" for name in self._served)
            await _plain(send, 404, f"No such path. Surfaces are at {names}.", extra)

    async def _show_metrics(self, incoming: Incoming, send: Send, extra: Headers) -> None:
        try:
            if self._callers.stale:
                await self._callers.refresh()
            self._callers.known(incoming.credential)
            if not self._callers.required:
                check_local(incoming)
        except HeadgateError as error:
            if error.http_status == 401:
                extra = [*extra, (b"www-authenticate", b"Bearer")]
            await _plain(send, error.http_status, error.message, extra)
            return
        try:
            text, kind = await self.metrics.exposition(incoming.text(b"accept"))
        except HeadgateError as error:
            status = 501 if isinstance(error, ConfigurationError) else error.http_status
            await _plain(send, status, error.message, extra)
            return
        await respond(send, 200, [(b"content-type", kind.encode()), *extra], text)


def _note(visit: HttpVisit, send: Send, message: Message) -> Awaitable[None]:
    """Send, and note with which status."""
    if message["type"] == "http.response.start":
        visit.status, visit.headers = message["status"], message.get("headers", ())
        if SWITCH.setup is not None:
            visit.within_span()
    return send(message)


def _check_type(incoming: Incoming) -> None:
    """Bodies are JSON as it is: what is compressed or of another kind could not be read for policy."""
    given = incoming.headers.get(b"content-type", b"")
    if given not in (b"application/json", b""):
        kind = given.partition(b";")[0].strip().lower()
        if kind != b"application/json" and not kind.endswith(b"+json"):
            raise RequestRefusedError("The body must be application/json.", status=415)
    if incoming.headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        what = "The body must not be compressed: send it without content-encoding."
        raise RequestRefusedError(what, status=415)


def _about_refusal(error: RequestRefusedError, incoming: Incoming) -> Headers:
    """Headers of an answer that is given before the body was read."""
    headers: Headers = []
    if error.allow:
        headers.append((b"allow", error.allow.encode()))
    try:
        declared = incoming.declared_length()
    except RequestRefusedError:
        declared = None
    if error.closes or declared is None or declared > _LARGEST_UNREAD:
        headers.append(CLOSE)
    return headers


async def _plain(send: Send, status: int, sentence: str, extra: Headers) -> None:
    body = msgspec.json.encode({"error": {"code": status, "message": sentence}})
    await respond(send, status, _JSON + extra, body)
