"""The emulator as a running server: in this event loop, or in a thread of its own."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

import msgspec
from aiohttp import web

from headgate.core.errors import ConfigurationError
from headgate.core.ports import Clock
from headgate.emulator import dialect
from headgate.emulator.anthropic_delivery import ClaudeDelivery
from headgate.emulator.books import Books
from headgate.emulator.chance import seeded
from headgate.emulator.config import EmulatorConfig, Fault
from headgate.emulator.delivery import Delivery
from headgate.emulator.faults import FaultPlan
from headgate.emulator.openai_delivery import OpenAIDelivery
from headgate.emulator.pace import Pace
from headgate.emulator.problems import describe
from headgate.emulator.report import Report
from headgate.emulator.surface_anthropic import AnthropicSurface, is_anthropic
from headgate.emulator.surface_codegen import CodegenDelivery, CodegenSurface, is_codegen
from headgate.emulator.surface_gemini import GeminiSurface
from headgate.emulator.surface_openai import OpenAISurface, is_openai
from headgate.emulator.threaded import InThread
from headgate.wiring.clock import SystemClock

__all__ = ["Emulator", "serve_forever"]

# Idle connections are never closed by a timer: in virtual time it would fire between two requests,
# and a client that reuses the connection at that moment fails for no reason of its own.
_NO_KEEPALIVE_LIMIT = 1e9
_SHUTDOWN_SECONDS = 0.05
# A burst of clients must not overflow the queue: the kernel would drop a connection in silence and
# try again a real second later, which in virtual time is for ever.
_BACKLOG = 4096


class Emulator:
    """An upstream with real quotas and scripted faults, on a local port.

    Use it as an async context manager, or `in_thread()` from synchronous code. It keeps its own
    time: Unix time at the start plus what the clock's monotonic time has moved since.

    Args:
        config: projects, keys, limits, faults. Raises `ConfigurationError` if something is off.
        clock: where time comes from; the machine's by default.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
    """

    def __init__(
        self,
        config: EmulatorConfig,
        *,
        clock: Clock | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.config = config.checked()
        self._clock: Clock = clock or SystemClock()
        self._host = host
        self._port = port
        self._origin = self._clock.monotonic()
        self._born = self._clock.wall()
        self._books = Books(self.config, self._born)
        self._faults = FaultPlan(self.config.faults, seeded(self.config.seed, "faults"))
        self._pace = Pace(self.config.latency, seeded(self.config.seed, "latency"))
        chance = seeded(self.config.seed, "refusals")
        self._surface = GeminiSurface(self.config, self._books, self._faults, chance, self)
        self._claude = AnthropicSurface(
            self.config, self._books, self._faults, seeded(self.config.seed, "notices"), self
        )
        self._openai = OpenAISurface(
            self.config, self._books, self._faults, seeded(self.config.seed, "openai"), self
        )
        self.codegen = CodegenSurface(self.config, self._books, self._faults, self._clock, self)
        self._runner: web.ServerRunner | None = None
        self._stopping = asyncio.Event()
        self._serving: set[asyncio.Task[Any] | None] = set()

    def __repr__(self) -> str:
        return f"Emulator(projects={[p.name for p in self.config.projects]}, port={self._port})"

    # ── life ─────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Listen. Raises `ConfigurationError` if the port is taken."""
        if self._runner is not None:
            raise ConfigurationError("this emulator runs already; make another one for another port.")
        server = web.Server(
            self._handle,
            access_log=None,  # it would write `?key=…`
            keepalive_timeout=_NO_KEEPALIVE_LIMIT,
            handler_cancellation=True,
        )
        self._stopping = asyncio.Event()  # belongs to this loop from the first stall on
        runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        site = web.TCPSite(runner, self._host, self._port, backlog=_BACKLOG)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            place = f"{self._host}:{self._port}"
            raise ConfigurationError(
                f"the emulator cannot listen on {place}: {error.strerror}."
            ) from error
        self._runner = runner
        self._port = runner.addresses[0][1]

    async def stop(self) -> None:
        """Close every connection at once; answers on their way are dropped, stalls end."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        self._stopping.set()
        await self.codegen.sender.stop()
        serving = [task for task in self._serving if task is not None]
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await runner.cleanup()

    async def __aenter__(self) -> Emulator:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def in_thread(self) -> InThread:
        """A context manager that runs this emulator in a thread, for synchronous code."""
        return InThread(self)

    # ── control ──────────────────────────────────────────────────────────────

    @property
    def base_url(self) -> str:
        """`http://host:port`, without a version."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def now(self) -> float:
        """The upstream's own Unix time; it never steps."""
        return self._born + self.life()

    def life(self) -> float:
        """Seconds since the emulator was made."""
        return self._clock.monotonic() - self._origin

    def report(self) -> Report:
        """What it saw until now."""
        return self._books.report(self.life())

    def reset(self) -> None:
        """Forget what it saw, used quota and scripted faults; configured faults stay."""
        self._books.reset(self.life())
        self._faults.clear()
        self._surface.files.room.clear()
        self._claude.reset()
        self.codegen.reset()

    def script(self, kind: str, *, times: int = 1, **where: Any) -> None:
        """Let the next matching requests meet a fault, after those scripted before.

        Args:
            kind: see `Fault`.
            times: how many requests.
            **where: the other fields of `Fault`.
        """
        if times < 1:
            raise ConfigurationError(f"`times` is {times}; allowed: 1 or more.")
        try:
            fault = msgspec.convert({"kind": kind, **where}, Fault)
        except msgspec.ValidationError as error:
            raise ConfigurationError(describe(error, Fault, "the scripted fault")) from error
        self._faults.script(fault, times)

    # ── requests ─────────────────────────────────────────────────────────────

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        self._serving.add(task)
        try:
            if request.path == "/emulator" or request.path.startswith("/emulator/"):
                return await self._control(request)
            outside = (request, self._clock, self._pace, self._stopping, self.now())
            if is_anthropic(request):
                return await self._claude.serve(request, ClaudeDelivery(*outside))
            if is_openai(request):
                return await self._openai.serve(request, OpenAIDelivery(*outside))
            if is_codegen(request):
                return await self.codegen.serve(request, CodegenDelivery(*outside))
            return await self._surface.serve(request, Delivery(*outside))
        except ConnectionError:  # the client went away in the middle of a write
            return web.Response()
        finally:
            self._serving.discard(task)

    async def _control(self, request: web.BaseRequest) -> web.StreamResponse:
        match (request.method, request.path):
            case ("GET", "/emulator/report"):
                return _json(self.report().to_dict())
            case ("POST", "/emulator/reset"):
                self.reset()
                return _json({})
            case ("POST", "/emulator/script"):
                try:
                    wanted = msgspec.json.decode(await request.read(), type=dict[str, Any])
                    self.script(str(wanted.pop("kind", "")), **wanted)
                except (msgspec.DecodeError, ConfigurationError, TypeError) as error:
                    return _json({"error": str(error)}, 400)
                return _json({})
        return _json(
            {"error": "GET /emulator/report, POST /emulator/reset, POST /emulator/script"}, 404
        )


async def serve_forever(emulator: Emulator) -> None:
    """Serve until the task is cancelled."""
    async with emulator:
        await asyncio.Event().wait()


def _json(value: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=dialect.pretty(value), status=status, content_type="application/json")
