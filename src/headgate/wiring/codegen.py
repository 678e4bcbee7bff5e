"""Who meets whom behind a Codegen client: provider, limits, breaker, cache, transport."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from headgate.core.call import Key
from headgate.core.ports import Clock, Transport
from headgate.core.resource import ResourceObserver
from headgate.engine.class_limits import ClassLimits
from headgate.engine.resource_path import PathRules, ResourcePath
from headgate.policy.backoff import Backoff
from headgate.policy.breaker import Breaker
from headgate.policy.freshness import Freshness
from headgate.policy.pace import Allowance, Pace
from headgate.providers.codegen import CODEGEN_ENDPOINTS, CodegenProvider
from headgate.wiring.codegen_options import codegen_data

__all__ = ["CodegenSettings", "Retrying", "build_codegen", "codegen_transport"]

CHANCE = random.random  # noqa: TID251 - chance enters here

_LONGEST_CONNECT = 10.0  # seconds
_A_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Retrying:
    """How a client tries again; times in seconds, `attempts` all tries of a call."""

    attempts: int
    base_delay: float
    max_delay: float
    factor: float
    jitter: bool
    statuses: frozenset[int]


@dataclass(frozen=True, slots=True)
class CodegenSettings:
    """What the path of a Codegen client is built from. Times in seconds.

    Attributes:
        ttl: of answers that have no lifetime of their own; None keeps nothing.
        ttl_for_all: whether it holds for the others too.
        buffer: share of every limit that is left free.
    """

    token: str = field(repr=False)
    base_url: str
    headers: Mapping[str, str] = field(repr=False)
    timeout: float
    retrying: Retrying
    requests: int
    period: float
    buffer: float
    ttl: float | None
    ttl_for_all: bool
    cache_size: int


def build_codegen(
    settings: CodegenSettings,
    *,
    transport: Transport,
    clock: Clock,
    observer: ResourceObserver,
    chance: Callable[[], float] = CHANCE,
    before: tuple[CodegenSettings, ResourcePath] | None = None,
) -> ResourcePath:
    """The path of one client. No I/O, no event loop needed.

    Args:
        before: the path it replaces, with its settings: what was sent, what is kept and what the
            breaker knows is taken over as far as it still holds.
    """
    limits = ClassLimits(_paces(settings), clock)
    breaker = Breaker()
    cache: Freshness[bytes] | None = None if settings.ttl is None else Freshness(settings.cache_size)
    if before is not None:
        old, path = before
        if old.token == settings.token:
            limits.adopt(path.limits)
        if old.base_url == settings.base_url:
            breaker = path.breaker
        if cache is not None and path.cache is not None and old.cache_size == settings.cache_size:
            cache = path.cache  # its keys name token and base URL
    retrying = settings.retrying
    rules = PathRules(
        timeout=settings.timeout,
        retries=retrying.attempts - 1,
        backoff=Backoff(
            retrying.base_delay, retrying.factor, max(retrying.base_delay, retrying.max_delay)
        ),
        jitter=retrying.jitter,
        longest_wait=retrying.max_delay,
        statuses=retrying.statuses,
        ttls=_ttls(settings),
    )
    return ResourcePath(
        key=Key("codegen", settings.token, "codegen"),
        provider=CodegenProvider(settings.base_url, settings.headers),
        transport=transport,
        clock=clock,
        chance=chance,
        limits=limits,
        breaker=breaker,
        cache=cache,
        rules=rules,
        observer=observer,
        lock=None if before is None else before[1].lock,
    )


def codegen_transport(settings: CodegenSettings, clock: Clock) -> Transport:
    """HTTP with pooled connections. Each attempt brings its own deadline."""
    from headgate.transport.http import HttpTransport, Timeouts  # noqa: PLC0415 - slow to import

    return HttpTransport(clock, Timeouts(min(_LONGEST_CONNECT, settings.timeout), _A_DAY))


def _paces(settings: CodegenSettings) -> dict[str, Pace]:
    """A pace for each class. The user's own limit caps the standard class only (C18)."""
    data = codegen_data()
    floor, ceiling = data.adaptive["floor"], data.adaptive["ceiling"]
    paces = {}
    for group, (requests, seconds) in data.limits.items():
        documented = Allowance(_buffered(requests, settings.buffer), seconds)
        if group == "standard":
            allowed = Allowance(_buffered(settings.requests, settings.buffer), settings.period)
            paces[group] = Pace(documented, allowed, floor=floor, ceiling=ceiling)
        else:
            paces[group] = Pace(documented, floor=floor, ceiling=ceiling)
    return paces


def _buffered(limit: int, buffer: float) -> int:
    """floor(limit × (1 − buffer)), in decimal: 100 less 0.71 is 29. At least 1."""
    return max(1, int(round(limit * (1 - buffer), 6)))


def _ttls(settings: CodegenSettings) -> dict[str, float]:
    if settings.ttl is None:
        return {}
    shelves = {endpoint.shelf for endpoint in CODEGEN_ENDPOINTS.values() if endpoint.shelf}
    if settings.ttl_for_all:
        return dict.fromkeys(shelves, settings.ttl)
    return {shelf: codegen_data().shelves.get(shelf, settings.ttl) for shelf in shelves}
