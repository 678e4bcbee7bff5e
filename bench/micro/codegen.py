"""The Codegen client: what it adds to a call, how much of a limit it uses, what a long stream holds.

Throughput and memory are taken in virtual time against the emulated API, so no machine is too slow for
them; the overhead is taken in real time over a transport that answers at once.
"""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec

from bench.micro.figures import Figure, Scale, per_call
from headgate.codegen import AsyncCodegenClient, ClientConfig, UserResponse
from headgate.core.ports import Event, Request
from headgate.emulator.codegen_config import CodegenTeam
from headgate.emulator.codegen_desk import Asked, CodegenDesk
from headgate.emulator.codegen_world import Answer
from headgate.testing import VirtualClock

__all__ = ["CALL", "MEMORY", "THROUGHPUT", "measure"]

CALL = "A Codegen call without a socket"
THROUGHPUT = "Creating runs in bulk, share of what 10 a minute allow"
MEMORY = "Streaming a list"

TOKEN = "bench-token-number-one"  # noqa: S105 - made up
USER = {"id": 7, "github_user_id": "9007", "github_username": "ada", "role": "ADMIN", "email": None}
BODY = json.dumps(USER).encode()
MECHANISMS = ("token_bucket", "sliding_log", "fixed")

Once = Callable[[], Awaitable[object]]


class _Exchange:
    headers: Mapping[str, str] = {}

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self._body = body

    async def read(self) -> bytes:
        return self._body

    async def events(self) -> AsyncGenerator[Event]:
        yield Event(self._body)

    async def aclose(self) -> None:
        pass


class _Transport:
    """Answers at once, with what a function makes of the request."""

    def __init__(self, answer: Callable[[Request], tuple[int, bytes]]) -> None:
        self._answer = answer

    async def open(
        self,
        request: Request,
        credential: Mapping[str, str],  # noqa: ARG002
        deadline: float | None,  # noqa: ARG002
        *,
        not_after: float | None = None,  # noqa: ARG002
    ) -> _Exchange:
        return _Exchange(*self._answer(request))

    async def aclose(self) -> None:
        pass


class _FastClock:
    """Runs a thousand times as fast, so that no limit ever makes a call wait."""

    def monotonic(self) -> float:
        return time.perf_counter() * 1_000_000

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 1_000_000)


class _JumpingClock:
    """Sleeping moves it on at once; a `VirtualClock` would look at sockets that are not there."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    def wall(self) -> float:
        return 1_795_262_400.0 + self._now

    async def sleep(self, seconds: float) -> None:
        self._now += max(0.0, seconds)


def _config(**settings: Any) -> ClientConfig:
    quiet: dict[str, Any] = {"log_requests": False, "log_level": "ERROR"}
    return ClientConfig(environ={}, api_token=TOKEN, org_id="1", **{**quiet, **settings})


def _overhead(scale: Scale) -> list[Figure]:
    transport = _Transport(lambda _: (200, BODY))
    lasting = _config(cache_ttl_seconds=1e15)  # by a clock that fast
    client = AsyncCodegenClient(lasting, transport=transport, clock=_FastClock())
    request = Request("GET", "http://x/v1/users/me", {}, b"")

    async def bare() -> object:
        exchange = await transport.open(request, {}, None)
        body = await exchange.read()
        await exchange.aclose()
        return msgspec.json.decode(body)

    async def modelled() -> object:
        return UserResponse.model_validate(await bare())

    async def through() -> object:
        return await client.get_current_user(fresh=True)

    async def kept() -> object:
        return await client.get_current_user()

    ways: dict[str, Once] = {
        "bare transport and JSON": bare,
        "the same and the model": modelled,
        "client, asked anew": through,
        "client, answered from the cache": kept,
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(scale.repeats):
        for name, way in ways.items():
            taken[name].append(per_call(asyncio.run(_timed(way, scale.calls)), scale.calls))
    return [Figure(CALL, name, "µs", tuple(values)) for name, values in taken.items()]


async def _timed(way: Once, calls: int) -> float:
    await way()
    begun = time.perf_counter()
    for _ in range(calls):
        await way()
    return time.perf_counter() - begun


def _emulated(clock: VirtualClock, **fields: object) -> tuple[_Transport, CodegenDesk]:
    """The emulated API with its limits, without a socket."""
    team = msgspec.convert({"name": "bench", "keys": {"main": TOKEN}, **fields}, CodegenTeam)
    desk = CodegenDesk([team], clock.wall())

    def answer(request: Request) -> tuple[int, bytes]:
        path, _, query = request.url.partition("/v1")[2].partition("?")
        values = dict(pair.split("=") for pair in query.split("&") if pair)
        asked = Asked(request.method, f"/v1{path}", values, f"Bearer {TOKEN}", request.body)
        found = desk.operation(asked)
        seat = desk.seat(asked)
        if isinstance(found, Answer) or seat is None:
            raise AssertionError(asked)
        said = desk.refused(seat, found[0], clock.wall()) or desk.serve(
            seat, found, asked, clock.wall()
        )
        return said.status, said.body

    return _Transport(answer), desk


def _throughput(scale: Scale) -> list[Figure]:
    count = 300 if scale.calls > 100 else 15
    figures = []
    for mechanism in MECHANISMS:
        clock = VirtualClock()
        transport, desk = _emulated(clock, mechanism=mechanism)
        client = AsyncCodegenClient(_config(), transport=transport, clock=clock)

        async def create(client: AsyncCodegenClient = client) -> float:
            items = [{"prompt": str(number)} for number in range(count)]
            result = await client.bulk_create_agent_runs(1, items)
            assert result.success_rate == 100, result.errors[:1]
            return result.duration_seconds

        took = clock.run(create())
        assert len(desk.worlds["bench"].runs) == count
        least = (count - 10) * 6 if mechanism == "token_bucket" else (-(-count // 10) - 1) * 60
        figures.append(Figure(THROUGHPUT, mechanism, "%", (100 * least / took,)))
    return figures


def _memory(scale: Scale) -> list[Figure]:
    """How large a process of its own becomes while a short list passes, and while a long one does."""
    few, many = (10_000, 1_000_000) if scale.calls > 100 else (200, 1_000)
    figures = []
    for total in (few, many):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            largest = alone.submit(_streamed, total).result()
        figures.append(Figure(MEMORY, f"a process at its largest, {total:,} items", "MiB", (largest,)))
    return figures


def _streamed(total: int) -> float:
    """Read a list of so many items; the most memory this process ever had, in MiB."""

    def answer(request: Request) -> tuple[int, bytes]:
        query = dict(pair.split("=") for pair in request.url.partition("?")[2].split("&"))
        skip, limit = int(query["skip"]), int(query["limit"])
        items = [{**USER, "id": number} for number in range(skip, min(total, skip + limit))]
        page = {"items": items, "total": total, "page": 1, "size": limit, "pages": 1}
        return 200, msgspec.json.encode(page)

    config = _config(rate_limit_requests_per_period=120)
    client = AsyncCodegenClient(config, transport=_Transport(answer), clock=_JumpingClock())

    async def read() -> int:
        count = 0
        async for _ in client.get_users_stream(1):
            count += 1
        return count

    assert asyncio.run(read()) == total
    return _largest()


def _largest() -> float:
    """MiB. `ru_maxrss` would not do: on Linux it begins with what the parent had when it forked."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure(scale: Scale) -> list[Figure]:
    """Every figure of this group."""
    return [*_overhead(scale), *_throughput(scale), *_memory(scale)]
