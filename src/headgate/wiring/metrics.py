"""Who tells a registry's metrics what: engines, caches, the usage ledger, inbound limits.

metrics = metrics_of(registry, clock)         one for a registry, however often it is asked for
engine = build_…(observer=Observers(…, metrics.engine))
state = watch_engine(metrics, "gemini", engine, clock)
await state.refresh()                         before a scrape: the shared ledger is read
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol, runtime_checkable

from headgate.core.errors import StoreError
from headgate.core.ports import Clock
from headgate.core.quota import Counts, Fill, Kind, Limit
from headgate.core.records import AttemptRecord
from headgate.core.replies import ReplyCache
from headgate.engine.gate import QuotaGate
from headgate.engine.learner import QuotaLearner
from headgate.policy.breaker import BreakerState
from headgate.policy.days import utc_day
from headgate.policy.keyring import EVERY_MODEL
from headgate.policy.quota.table import QuotaTable
from headgate.policy.quota.windows import DAY
from headgate.policy.tally import WINDOW, Use
from headgate.stores.memory import MemoryStore
from headgate.telemetry.metrics.books import Labels, Sheet
from headgate.telemetry.metrics.engine_measures import EngineMeasures, Foresight, Price
from headgate.telemetry.metrics.family import Feeder
from headgate.telemetry.metrics.labels import alias_of
from headgate.telemetry.metrics.metrics import Metrics
from headgate.telemetry.of_registry import one_of
from headgate.telemetry.usage_rows import CostOf
from headgate.wiring.build import Engine
from headgate.wiring.model_data import gemini_prices
from headgate.wiring.observers import Observers
from headgate.wiring.usage import costs_of

__all__ = [
    "CacheState",
    "EngineState",
    "count_calls",
    "counting_metrics",
    "foresight_of",
    "metrics_of",
    "price_of",
    "watch_cache",
    "watch_engine",
    "watch_rows",
]

_ADMITTED = "headgate_admitted_requests_total"


def metrics_of(registry: object, clock: Clock) -> Metrics:
    """The metrics of a registry, made and registered when they are first asked for.

    Args:
        registry: a `prometheus_client` registry; None for the default one.

    Raises:
        TypeError: that is no registry.
    """
    found = one_of(registry, Metrics, clock)
    if not found.version:
        try:
            found.version = version("headgate")
        except PackageNotFoundError:
            found.version = "unknown"  # run from a source tree that nobody installed
    return found


def price_of(costs: CostOf, clock: Clock) -> Price:
    """What tokens cost today."""

    return lambda provider, model, usage: costs(provider, model, usage, utc_day(clock.wall()))


def count_calls(registry: object, provider: str, engine: Engine, clock: Clock) -> EngineState:
    """Have a registry's metrics hear of an engine's calls, and read its state for as long as what this
    gives is held."""
    metrics = counting_metrics(registry, clock)
    if isinstance(engine.observer, Observers):
        engine.observer.add(metrics.engine)
    return watch_engine(metrics, provider, engine, clock)


def counting_metrics(registry: object, clock: Clock) -> Metrics:
    """The metrics of a registry, which know what tokens cost, for engines to report to."""
    metrics = metrics_of(registry, clock)
    if metrics.engine.price is None:
        metrics.engine.price = price_of(costs_of(gemini_prices), clock)
    metrics.feed(Feeder.ENGINE)
    return metrics


# ── one engine ──────────────────────────────────────────────────────────────────────────────────


def watch_engine(metrics: Metrics, provider: str, engine: Engine, clock: Clock) -> EngineState:
    """Have an engine's state read at each scrape, for as long as what this gives is held."""
    metrics.feed(Feeder.ENGINE)
    metrics.engine.serves(provider, foresight_of(engine))
    state = EngineState(metrics, provider, engine, clock)
    metrics.watch(state, EngineState.read)
    return state


def foresight_of(engine: Engine) -> Foresight | None:
    """What tells its avoidable refusals; None where nothing counts what was sent."""
    return None if engine.learner is None else _Sent(engine.learner, engine.table)


@runtime_checkable
class _Tells(Protocol):
    """A store of quota ledgers that can be read without charging anything."""

    async def fills(self, group: str) -> tuple[tuple[Fill, ...], ...]: ...


@runtime_checkable
class _Shared(Protocol):
    """A store that may be away."""

    outages: int

    @property
    def away(self) -> bool: ...
    @property
    def seconds_away(self) -> float: ...
    @property
    def local_grants(self) -> int: ...


class EngineState:
    """What an engine knows at the moment, put on the sheet of a scrape."""

    def __init__(self, metrics: Metrics, provider: str, engine: Engine, clock: Clock) -> None:
        self._metrics = metrics
        self._measures: EngineMeasures = metrics.engine
        self._provider = provider
        self._engine = engine
        self._now = clock.monotonic
        self._fills: dict[str, tuple[tuple[Fill, ...], ...]] = {}
        store: object = None if engine.gate is None else engine.gate.store
        self._store = store if isinstance(store, _Shared) else None
        self._totals = _Totals(metrics, self._of_store)

    @property
    def fills(self) -> dict[str, tuple[tuple[Fill, ...], ...]]:
        """How full the limits of each model were when that was last read, by handle of the domain."""
        return self._fills

    async def refresh(self) -> None:
        """Read the quota ledgers, once for all who look. What does not answer is left out."""
        gate = self._engine.gate
        if gate is None or not isinstance(gate.store, _Tells):
            return
        found = {}
        try:
            for model in self._ledgers(gate):
                found[model] = await gate.store.fills(await gate.group(model))
        except StoreError:
            pass  # nothing is said of what is not known
        self._fills = found

    def _ledgers(self, gate: QuotaGate) -> list[str]:
        """Those of models that are there, or that somebody declared; of several that are counted
        together, their class. Callers may name any model, and each name has a ledger: to ask for all
        of them would take a scrape longer with every name that is made up."""
        table = self._engine.table
        known = {*table.models, *table.presets, *(name for _, name in table.project_models)}
        known.update(table.class_of(model) for _, _, model in self._pairs())
        return [name for name in gate.models if name in known]

    def _refresh_at_once(self) -> None:
        """Ledgers of this process are there without waiting."""
        if self._engine.gate is None or not isinstance(self._engine.gate.store, MemoryStore):
            return
        reading = self.refresh()
        try:
            reading.send(None)
        except StopIteration:
            return
        reading.close()  # it would have had to wait after all

    def read(self, sheet: Sheet) -> None:
        """Put it on a sheet."""
        self._refresh_at_once()
        self._read_keys(sheet)
        self._read_fills(sheet)
        self._read_protection(sheet)
        self._read_store(sheet)

    def _read_keys(self, sheet: Sheet) -> None:
        provider, now = self._provider, self._now()
        states = self._engine.pool.states()
        usable = {alias_of(state.key.domain) for state in states if state.disabled is None}
        pairs = {(domain, model) for _, domain, model in self._pairs() if domain in usable}
        totals = {"active": 0, "exhausted": 0, "disabled": 0}
        for pair in pairs:
            sheet.put("headgate_quota_wait_seconds", 0, provider, *pair)
        for state in states:
            word = "exhausted" if state.parks else "active"
            totals["disabled" if state.disabled is not None else word] += 1
            alias = alias_of(state.key.domain)
            for model, park in state.parks.items() if alias in usable else ():
                wait = max(0.0, park.until - now)
                for name in self._parked(alias, model, pairs):
                    sheet.put("headgate_quota_wait_seconds", wait, provider, alias, name)
        for word, number in totals.items():
            sheet.put("headgate_provider_keys", number, provider, word)

    def _parked(self, alias: str, model: str, pairs: set[tuple[str, str]]) -> set[str]:
        """The models that a cool-down is shown with."""
        if "#" in model:
            return set()  # counting tokens has limits of its own
        if model != EVERY_MODEL:
            return {self._measures.label(model)}
        return {name for domain, name in pairs if domain == alias}

    def _pairs(self) -> list[tuple[str, ...]]:
        rows = self._metrics.rows(_ADMITTED)
        return [labels for labels, _ in rows if labels[0] == self._provider]

    def _read_fills(self, sheet: Sheet) -> None:
        names = self._engine.pool.domain_names
        for model, domains in self._fills.items():
            for domain, fills in zip(names, domains, strict=False):
                for fill in fills:
                    labels = (self._provider, alias_of(domain), model, fill.limit.name)
                    sheet.put("headgate_quota_used", fill.used, *labels)
                    sheet.put("headgate_quota_limit", fill.limit.amount, *labels)

    def _read_protection(self, sheet: Sheet) -> None:
        protection, provider = self._engine.protection, self._provider
        for model, found in protection.states().items():
            label = self._measures.label(model)
            for state in BreakerState:
                sheet.put("headgate_breaker_state", state is found, provider, label, state.value)
            if (limit := protection.limit(model)) is not None:
                sheet.put("headgate_concurrency_limit", limit, provider, label)
        if protection.rules.guards:
            sheet.put("headgate_in_flight", protection.in_flight, provider)
            sheet.put("headgate_queue_depth", protection.waiting, provider, "places")
        if self._engine.gate is not None:
            sheet.put("headgate_queue_depth", self._engine.gate.waiting, provider, "quota")

    def _read_store(self, sheet: Sheet) -> None:
        if self._store is not None:
            sheet.put("headgate_store_up", not self._store.away, "quota", self._provider)
        self._totals.put(sheet)

    def _of_store(self) -> dict[Labels, float]:
        store = self._store
        if store is None:
            return {}
        labels = ("quota", self._provider)
        return {
            ("headgate_store_outages_total", *labels): store.outages,
            ("headgate_store_away_seconds_total", *labels): store.seconds_away,
            ("headgate_fail_open_total", "quota"): store.local_grants,
        }

    def end(self) -> None:
        """Another engine takes over: what this one counted stays counted."""
        self._totals.end()


class _Totals:
    """What something counted since it is watched, that comes and goes while the process lives: with it
    no counter falls, which would look like a restart.

    Args:
        read: what it has counted in all, by family and labels.
    """

    def __init__(self, metrics: Metrics, read: Callable[[], Mapping[Labels, float]]) -> None:
        self._metrics = metrics
        self._read = read
        self._before = read()

    def put(self, sheet: Sheet) -> None:
        for (name, *labels), value in self._counted():
            sheet.put(name, value, *labels)

    def end(self) -> None:
        """From now on it is among what the process has counted."""
        counted = self._counted()
        self._read = dict
        for (name, *labels), value in counted:
            self._metrics.add(name, value, *labels)

    def _counted(self) -> list[tuple[Labels, float]]:
        return [(key, value - self._before.get(key, 0.0)) for key, value in self._read().items()]


class _Sent:
    """Foresight out of what the learner counts: what was sent, calls under way included."""

    def __init__(self, learner: QuotaLearner, table: QuotaTable) -> None:
        self._learner = learner
        self._table = table

    def predicted(self, record: AttemptRecord) -> bool:
        """See `Foresight.predicted`."""
        limits = self._table.limits(record.domain, record.model)
        if not limits:
            return False
        use = self._learner.sent(record.domain, record.model)
        return any(_is_full(limit, use) for limit in limits)


def _is_full(limit: Limit, use: Use) -> bool:
    """Whether a limit had no room for one more, whatever it was."""
    requests = limit.counts is Counts.REQUESTS
    if not requests and limit.counts not in (Counts.INPUT, Counts.TOTAL):
        return False  # of output and places nothing is counted there
    if limit.kind is Kind.CALENDAR or limit.window >= DAY:
        return (use.day_requests if requests else use.day_tokens) >= limit.amount
    if limit.kind is Kind.ROLLING and limit.window == WINDOW * 1000:
        return (use.requests if requests else use.tokens) >= limit.amount
    return False


# ── what engines share ──────────────────────────────────────────────────────────────────────────


class CacheState:
    """What a cache of replies says, put on the sheet of a scrape."""

    def __init__(self, metrics: Metrics, cache: ReplyCache) -> None:
        self._cache = cache
        self._totals = _Totals(metrics, self._of_cache)

    def read(self, sheet: Sheet) -> None:
        """Put it on a sheet."""
        figures = self._cache.figures()
        sheet.put("headgate_cache_items", figures.entries, "replies")
        sheet.put("headgate_cache_bytes", figures.bytes, "replies")
        self._totals.put(sheet)

    def end(self) -> None:
        """Another cache takes over: what became of the entries of this one stays counted."""
        self._totals.end()

    def _of_cache(self) -> dict[Labels, float]:
        figures = self._cache.figures()
        told: dict[Labels, float] = {("headgate_cache_failures_total", "replies"): figures.failed}
        for reason in ("expired", "evicted", "corrupt"):
            told["headgate_cache_dropped_total", "replies", reason] = getattr(figures, reason)
        return told


def watch_cache(metrics: Metrics, cache: ReplyCache) -> CacheState:
    """Have a cache of replies read at each scrape, for as long as what this gives is held."""
    state = CacheState(metrics, cache)
    metrics.watch(state, CacheState.read)
    return state


class _Writes(Protocol):
    """A writer of usage rows."""

    written: int
    dropped: int

    @property
    def waiting(self) -> int: ...


def watch_rows(metrics: Metrics, writer: _Writes) -> None:
    """Have a writer of the usage ledger read at each scrape."""
    metrics.watch(writer, _read_rows)


def _read_rows(writer: _Writes, sheet: Sheet) -> None:
    sheet.put("headgate_usage_rows_total", writer.written, "written")
    sheet.put("headgate_usage_rows_total", writer.dropped, "lost")
    sheet.put("headgate_usage_rows_waiting", writer.waiting)
