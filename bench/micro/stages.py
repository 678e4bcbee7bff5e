"""What the stages of a call cost: each way through the engine against a bare transport call and JSON.

No socket, and every call asks something new except where a kept answer is what is measured. The usage
ledger counts in memory, the breaker watches, replies are kept. Redaction and screening go by the length
of a prompt, so they stand on a row of their own and are left out of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count

from bench.micro.figures import Figure, Scale, ratio
from bench.micro.overhead import HEADERS, KEYS, MODEL, PROMPT, NoTransport, cpu_of, rounds_of, text_of
from headgate.backend import BackendConfig, GeminiBackend, GeminiRequest, PreprocessConfig
from headgate.core.ports import Request
from headgate.gemini import ResilientGeminiClient

__all__ = ["AT_ONCE", "GROUP", "HIT", "STAGES", "WITH_QUOTAS", "measure"]

GROUP = "A call through its stages, without a socket"
BARE = "transport and JSON by hand"
CLIENT = "headgate.gemini"
WITH_QUOTAS = "with declared quotas"
STAGES = "every stage, a new question"
HIT = "every stage, a kept answer"
PREPARED = "every stage, redacted and screened"
AT_ONCE = 32

_QUOTAS: dict[str, object] = {"rpm": 10**9, "tpm": 10**12, "rpd": 10**9, "concurrency": 10**6}
"""More than is ever used: nothing waits."""

_NOT_PREPARED = PreprocessConfig(
    sanitize_input=False, enforce_token_limits=False, strip_sensitive_data=False
)

Once = Callable[[], Awaitable[object]]


def measure(scale: Scale) -> list[Figure]:
    """Every figure of this group."""
    return [*asyncio.run(_figures(scale, 1)), *asyncio.run(_figures(scale, AT_ONCE))]


async def _figures(scale: Scale, at_once: int) -> list[Figure]:
    group = f"{GROUP}, {at_once} at a time"
    ways = _ways()
    calls = max(scale.calls // 4, at_once)
    for way in ways.values():  # what is made once is made before
        await cpu_of(way, at_once, at_once)
    takings = [partial(cpu_of, way, calls, at_once) for way in ways.values()]
    taken = dict(zip(ways, await rounds_of(scale.repeats, takings), strict=True))
    costs = {name: Figure(group, f"{name}, CPU", "µs", values) for name, values in taken.items()}
    figures = list(costs.values())
    for name in list(ways)[1:]:
        added = tuple(above - below for above, below in zip(taken[name], taken[BARE], strict=True))
        figures.append(Figure(group, f"added by {name}, CPU", "µs", added))
        figures.append(ratio(group, f"{name} to {BARE}", costs[name], costs[BARE]))
    return figures


def _ways() -> dict[str, Once]:
    """Each way through, the bare one first."""
    return {
        BARE: _by_hand(),
        CLIENT: _client(),
        f"{CLIENT} {WITH_QUOTAS}": _client(_QUOTAS),
        STAGES: _backend(),
        f"{STAGES}, {WITH_QUOTAS}": _backend(quotas=_QUOTAS),
        HIT: _backend(prompts=lambda: PROMPT),
        PREPARED: _backend(PreprocessConfig()),
    }


def _by_hand() -> Once:
    transport, request = NoTransport(), Request("POST", "http://127.0.0.1", {}, b"{}")

    async def once() -> str:
        exchange = await transport.open(request, HEADERS, None)
        return text_of(await exchange.read())

    return once


def _client(quotas: dict[str, object] | None = None) -> Once:
    client = ResilientGeminiClient(keys=KEYS, quotas=quotas, transport=NoTransport(), environ={})

    async def once() -> object:
        return await client.generate_reply(PROMPT, MODEL)

    return once


def _backend(
    how: PreprocessConfig = _NOT_PREPARED,
    *,
    quotas: dict[str, object] | None = None,
    prompts: Callable[[], str] | None = None,
) -> Once:
    config = BackendConfig(
        preprocess_config=how,
        quotas=quotas or {},
        usage="off",  # in memory only
        max_concurrent_requests=2 * AT_ONCE,
        connection_pool_size=2 * AT_ONCE,
    )
    backend = GeminiBackend(config, keys=KEYS, transport=NoTransport(), environ={})
    numbers = count()
    new = prompts or (lambda: f"{PROMPT} Of day {next(numbers)}.")

    async def once() -> object:
        return await backend.execute_gemini_enhanced(GeminiRequest(prompt=new(), model=MODEL))

    return once
