"""The gateway as an ASGI application: who may call, which surface and engine a request is for.

Proxied routes go through no framework: a look at the path, a look at the caller's key, then the call.
The caller is known before anything of the body is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from secrets import token_hex
from typing import NamedTuple

import msgspec

from headgate.core.errors import ConfigurationError, HeadgateError, QueueFullError
from headgate.core.ports import Clock
from headgate.core.replies import ReplyCache
from headgate.gateway.answers import CLOSE, refuse, respond
from headgate.gateway.callers import Callers
from headgate.gateway.conduct import Conduct, Errand
from headgate.gateway.health import METRICS_TYPE, Metrics, live, ready
from headgate.gateway.incoming import Incoming, Receive, Scope, Send
from headgate.gateway.local import check_local
from headgate.gateway.problems import Headers, RequestRefusedError, problem_of
from headgate.gateway.resources import Resources, Upload
from headgate.gateway.surface import Surface
from headgate.gateway.surface_anthropic import AnthropicSurface
from headgate.gateway.surface_gemini import GeminiSurface
from headgate.gateway.surface_openai import OpenAISurface
from headgate.gateway.visits import Visits
from headgate.wiring.gateway import Upstream
from headgate.wiring.gateway_settings import GatewaySettings

__all__ = ["PUBLIC_PATHS", "Gateway"]

PUBLIC_PATHS = ("/livez", "/readyz")
"""What answers without a credential. `/metrics` does where everybody may call."""

_JSON: Headers = [(b"content-type", b"application/json")]

_WHO_ARE_YOU = (
    "This gateway does not know the key of the request. Send a caller key of this gateway where your "
    "SDK sends its API key; keys of the provider stay in the gateway."
)
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

    Attributes:
        visits: the requests that are being served.
        draining: whether it tells load balancers to go elsewhere.
        refusing: whether new calls are refused.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        upstreams: Sequence[Upstream],
        clock: Clock,
        cache: ReplyCache | None = None,
    ) -> None:
        by_name = {upstream.name: upstream for upstream in upstreams}
        surfaces: tuple[Surface, ...] = (
            GeminiSurface(settings.gemini_version), AnthropicSurface(), OpenAISurface(),
        )  # fmt: skip
        self._served = {
            surface.name: _Served(surface, by_name.get(surface.name)) for surface in surfaces
        }
        self._upstreams = upstreams
        self._callers = Callers(settings.callers)
        self._most_calls = settings.max_calls
        self._resources = Resources(clock)
        self._conduct = Conduct(clock, settings, self._resources)
        self._cache = cache
        self._public_url = settings.public_url
        self._metrics = Metrics(upstreams)
        self.visits = Visits()
        self.draining = False
        self.refusing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return  # no WebSockets here, and whoever serves this opens and closes the engines
        incoming = Incoming(scope)
        extra: Headers = [CLOSE] if self.draining else []
        served = self._surface(incoming)
        if served is None:
            await self._own(incoming, send, extra)
            return
        try:
            errand = self._errand(served, incoming, extra)
        except HeadgateError as error:
            if isinstance(error, RequestRefusedError):
                extra += _about_refusal(error, incoming)
            await refuse(send, served.surface, problem_of(error, token_hex(8)), extra=extra)
            return
        work = partial(self._conduct, errand, incoming, receive, send)
        await self.visits.serve(scope, receive, work)

    async def aclose(self) -> None:
        """Give back what the engines hold."""
        for upstream in self._upstreams:
            await upstream.engine.aclose()
        if self._cache is not None:
            await self._cache.aclose()

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
        return Errand(served.surface, route, served.upstream, caller, extra, address, upload)

    def _who(self, incoming: Incoming) -> tuple[str, Upload | None]:
        """The caller, and the upload that goes on: its ticket is as good as a key, for google-genai
        sends none with the bytes. Raises `RequestRefusedError`."""
        upload = None
        if incoming.path.startswith("/upload/") and b"upload_id=" in incoming.query_string:
            upload = self._resources.upload(incoming.query.get("upload_id", ""))
        caller = self._callers.name_of(incoming.credential) if upload is None else upload.caller
        if caller is None:
            raise RequestRefusedError(_WHO_ARE_YOU, status=401)
        if not self._callers:
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
            status, body = ready(self._upstreams, draining=self.draining)
            await respond(send, status, _JSON + extra, body)
        elif path == "/metrics":
            await self._show_metrics(incoming, send, extra)
        else:
            names = ", ".join(f"/{name}" for name in self._served)
            await _plain(send, 404, f"No such path. Surfaces are at {names}.", extra)

    async def _show_metrics(self, incoming: Incoming, send: Send, extra: Headers) -> None:
        if self._callers.name_of(incoming.credential) is None:
            await _plain(send, 401, _WHO_ARE_YOU, [*extra, (b"www-authenticate", b"Bearer")])
            return
        try:
            if not self._callers:
                check_local(incoming)
        except RequestRefusedError as error:
            await _plain(send, error.http_status, error.message, extra)
            return
        try:
            text = await self._metrics.text()
        except ConfigurationError as error:
            await _plain(send, 501, error.message, extra)
            return
        await respond(send, 200, [(b"content-type", METRICS_TYPE), *extra], text)


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
