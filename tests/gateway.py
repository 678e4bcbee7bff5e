"""A gateway to test: over a scripted transport in virtual time, or on a port over an emulator."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from headgate.core.call import Key
from headgate.core.ports import Clock
from headgate.gateway import Gateway
from headgate.gateway.caller_opening import open_desk
from headgate.gateway.desk import CallerDesk
from headgate.gateway.server_protocol import ServerBounds
from headgate.gateway.worker_link import Crew
from headgate.testing import Answer, Broken, ScriptedTransport, Sent, VirtualClock
from headgate.wiring.clock import SystemClock
from headgate.wiring.gateway import open_cache, open_upstreams
from headgate.wiring.gateway_metrics import GatewayMetrics
from headgate.wiring.gateway_settings import GatewaySettings
from headgate.wiring.observers import Observers

GEMINI_KEYS = ("AIzaCANARY-gateway-1-xxxxxxxxxx", "AIzaCANARY-gateway-2-xxxxxxxxxx")
CLAUDE_KEYS = ("sk-ant-CANARY-gateway-1-xxxxxxxxxx", "sk-ant-CANARY-gateway-2-xxxxxxxxxx")
OPENAI_KEYS = ("sk-CANARY-gateway-1-xxxxxxxxxx", "sk-CANARY-gateway-2-xxxxxxxxxx")
CALLER_KEY = "CANARY-caller-key-of-ann-0123456789"
CALLERS = (
    Key("ann", CALLER_KEY, "key:ann"),
    Key("bob", "CANARY-caller-key-of-bob-0123456789", "key:bob"),
)


def listed(keys: Iterable[str], *, group: str = "") -> str:
    return ",".join(f"{key}|k{number}|{group}" for number, key in enumerate(keys))


ENVIRON = {
    "GEMINI_API_KEYS": listed(GEMINI_KEYS),
    "ANTHROPIC_API_KEYS": listed(CLAUDE_KEYS),
    "OPENAI_API_KEYS": listed(OPENAI_KEYS),
}


def gateway_over(
    clock: Clock,
    *,
    transport: ScriptedTransport | None = None,
    settings: GatewaySettings | None = None,
    environ: Mapping[str, str] | None = None,
    observers: Iterable[Any] = (),
    desk: CallerDesk | None = None,
    crew: Crew | None = None,
) -> Gateway:
    """A gateway over engines that are built as `headgate serve` builds them."""
    settings = settings or GatewaySettings()
    cache = open_cache(settings, clock, {})
    metrics = GatewayMetrics(clock)
    desk = desk or open_desk(settings, clock, environ or {}, registry=metrics.registry)
    upstreams = open_upstreams(
        clock=clock,
        cache=cache,
        observer=Observers(*observers, desk, metrics.observer),
        warn=lambda _: None,
        environ=ENVIRON if environ is None else environ,
        transport=transport,
        sending=settings.transport,
    )
    return Gateway(settings, upstreams, clock, cache, crew, desk=desk, metrics=metrics)


def scripted_gateway(
    script: Iterable[Answer | Broken] | Callable[[Sent], Answer | Broken],
    clock: VirtualClock,
    **options: Any,
) -> tuple[Gateway, ScriptedTransport]:
    """A gateway whose upstreams answer from a script."""
    transport = ScriptedTransport(script, clock)
    return gateway_over(clock, transport=transport, **options), transport


# ── asking without sockets ──────────────────────────────────────────────────────────────────────


@dataclass
class Got:
    """An answer of the application. `pieces` are the bodies of its messages that hold any."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    ended: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One request to the application: it may go away, and see what has come so far."""

    def __init__(
        self,
        gateway: Gateway,
        method: str,
        path: str,
        body: bytes | object = b"",
        headers: Mapping[str, str] | None = None,
        *,
        pieces: Iterable[bytes] | None = None,
    ) -> None:
        self.got = Got()
        self._gateway = gateway
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._pieces = list(pieces) if pieces is not None else [sent]
        self._gone = asyncio.Event()
        given = {"host": "127.0.0.1:8080", **{k.lower(): v for k, v in (headers or {}).items()}}
        if method == "POST":
            given.setdefault("content-type", "application/json")
            if pieces is None:
                given.setdefault("content-length", str(len(sent)))
            else:
                given.setdefault("transfer-encoding", "chunked")
        path, _, query = path.partition("?")
        self._scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
        }

    def go_away(self) -> None:
        self._gone.set()

    async def run(self) -> Got:
        await self._gateway(self._scope, self._receive, self._send)
        return self.got

    async def _receive(self) -> dict[str, Any]:
        if self._pieces:
            piece = self._pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        assert not self.got.ended, "nothing may follow the end"
        if message["type"] == "http.response.start":
            assert not self.got.status, "one answer to a request"
            self.got.status = message["status"]
            self.got.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        assert self.got.status
        if message.get("body"):
            self.got.pieces.append(message["body"])
        self.got.ended = not message.get("more_body", False)


async def ask(gateway: Gateway, method: str, path: str, *rest: Any, **options: Any) -> Got:
    return await Client(gateway, method, path, *rest, **options).run()


# ── on a port ───────────────────────────────────────────────────────────────────────────────────


class GatewayInThread:
    """Serves a gateway in a thread of its own while the context lasts."""

    def __init__(
        self,
        upstream_url: str,
        *,
        settings: GatewaySettings | None = None,
        environ: Mapping[str, str] | None = None,
        observers: Iterable[Any] = (),
        bounds: ServerBounds | None = None,
    ) -> None:
        urls = {
            "HEADGATE_GEMINI_BASE_URL": upstream_url,
            "HEADGATE_ANTHROPIC_BASE_URL": upstream_url,
            "HEADGATE_OPENAI_BASE_URL": f"{upstream_url}/v1",
        }
        self._environ = {**urls, **(ENVIRON if environ is None else environ)}
        self._settings = settings or GatewaySettings(linger_seconds=0.0, drain_seconds=5.0)
        self._bounds = bounds
        self._observers = observers
        self.base_url = ""
        self.gateway: Gateway = None  # type: ignore[assignment] # there from __enter__ on
        self._server: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> GatewayInThread:
        ready: concurrent.futures.Future[str] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        self.base_url = ready.result(timeout=20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.join()

    @property
    def connections(self) -> set[Any]:
        """That are open, as the server sees them."""
        connections: set[Any] = self._server._server.server_state.connections
        return connections

    def stop(self) -> None:
        """As a signal would."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._server.stop)

    def join(self) -> None:
        assert self._thread is not None
        self._thread.join(timeout=20)
        assert not self._thread.is_alive(), "the gateway did not stop"

    def _run(self, ready: concurrent.futures.Future[str]) -> None:
        try:
            asyncio.run(self._serve(ready))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def _serve(self, ready: concurrent.futures.Future[str]) -> None:
        from headgate.gateway.server import GatewayServer

        self._loop = asyncio.get_running_loop()
        self.gateway = gateway_over(
            SystemClock(), settings=self._settings, environ=self._environ, observers=self._observers
        )
        self._server = GatewayServer(
            self.gateway,
            "127.0.0.1",
            0,
            linger_seconds=self._settings.linger_seconds,
            drain_seconds=self._settings.drain_seconds,
            body_bytes=self._settings.max_body_mib * 1024 * 1024,
            bounds=self._bounds or ServerBounds.of(self._settings),
        )
        await self._server.serve(ready.set_result)
