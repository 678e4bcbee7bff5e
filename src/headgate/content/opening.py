"""Who meets whom in a content service: settings in, an application out. Nothing is opened yet."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from headgate.content.application import ContentApp
from headgate.content.cache import LayeredCache, open_cache
from headgate.content.explanations import Explanations
from headgate.content.fallback_shelf import open_shelf
from headgate.content.gauges import BreakerCounts, Gauges
from headgate.content.generator import Generator
from headgate.content.health import Health
from headgate.content.http_caching import CachingHeaders, KeptResults
from headgate.content.images import GeminiImages, ImageMaker, Images
from headgate.content.of_process import explain_with
from headgate.content.openapi import described
from headgate.content.page import Page
from headgate.content.pictures import check_pillow
from headgate.content.ports import Addition, Layer, Layers, NoLayers, NoResults, Results
from headgate.content.quota_config import QuotaConfig
from headgate.content.quota_guard import adopt
from headgate.content.routes import ContentHandlers
from headgate.content.routes_admin import AdminHandlers
from headgate.content.settings import ContentSettings, load_content, with_packages
from headgate.content.studio import Studio
from headgate.content.subtopics import Subtopics
from headgate.content.tracker import QuotaTracker
from headgate.content.visitors import Visitors
from headgate.core.errors import ConfigurationError
from headgate.core.ports import Clock, Observer, QuotaStore, Transport
from headgate.wiring.clock import SystemClock
from headgate.wiring.content import ContentEngine, build_content
from headgate.wiring.observers import LogObserver, Observers
from headgate.wiring.values import ValueBounds, open_values

if TYPE_CHECKING:
    from headgate.telemetry.metrics.metrics import Metrics

__all__ = ["Outside", "open_content"]

_log = logging.getLogger("headgate.content")

_SESSION_BOUNDS = ValueBounds(entries=10_000, bytes=16_000_000)
_RESULT_BOUNDS = ValueBounds(entries=1000, bytes=64_000_000)


@dataclass(frozen=True, slots=True)
class Outside:
    """What a service is given instead of what its settings name; all of it stays its giver's.

    Attributes:
        environ: where settings of `[gemini]` are read from.
        transport: what sends, instead of HTTP.
        store: where quota ledgers live.
        maker: what makes images.
        observers: hear every attempt, wait and call.
        base_url: of the API.
        ledger: how the usage ledger is, in a word, for `/api/health`.
        closing: called when the service ends.
        registry: a `prometheus_client` registry for its metrics, instead of one of its own.
        scraped: is given what is to be called before each scrape of that registry.
        measured: is given the metrics once they stand, to count what it knows of.
    """

    clock: Clock = field(default_factory=SystemClock)
    environ: Mapping[str, str] | None = None
    transport: Transport | None = None
    store: QuotaStore | None = None
    maker: ImageMaker | None = None
    observers: Sequence[Observer] = ()
    base_url: str | None = None
    ledger: Callable[[], str] = lambda: "not_configured"
    closing: Callable[[], Awaitable[None]] | None = None
    registry: Any = None
    scraped: Callable[[Callable[[], Awaitable[None]]], None] | None = None
    measured: Callable[[Metrics], None] | None = None


def open_content(settings: ContentSettings | None = None, outside: Outside | None = None) -> ContentApp:
    """The application of a content service.

    Args:
        settings: None: those of environment and file.

    Raises:
        ConfigurationError: a setting is wrong, a package is missing, or there is no key.
    """
    outside = outside or Outside()
    settings = load_content(environ=outside.environ) if settings is None else settings
    settings = with_packages(settings)
    check_pillow()
    metrics, registry = _metrics(settings, outside)
    counts: tuple[Observer, ...] = ()
    if metrics is not None:
        counts = (cast("Observer", metrics.engine), BreakerCounts(metrics))
    room = build_content(
        settings.needs,
        clock=outside.clock,
        observer=Observers(LogObserver(_log), *counts, *outside.observers),
        warn=_log.warning,
        environ=outside.environ,
        base_url=outside.base_url,
        transport=outside.transport,
        store=outside.store,
    )
    measures = None if metrics is None else metrics.content
    layers = _layers(settings, outside.clock, metrics)
    generator = Generator(room, measures=measures)
    tracker = _tracker(settings, generator, layers, outside.clock, metrics)
    studio = Studio(settings, outside.clock, generator, tracker, layers, measures)
    return _assembled(studio, room, outside, metrics, registry)


def _metrics(settings: ContentSettings, outside: Outside) -> tuple[Metrics | None, Any]:
    if not settings.metrics:
        return None, None
    try:
        from prometheus_client import CollectorRegistry  # noqa: PLC0415 - an extra

        from headgate.telemetry.metrics.family import Feeder  # noqa: PLC0415 - with it
        from headgate.wiring.metrics import metrics_of  # noqa: PLC0415 - with it
    except ImportError:
        raise ConfigurationError("Metrics need prometheus-client: install headgate[metrics].") from None
    registry = outside.registry or CollectorRegistry()
    metrics = metrics_of(registry, outside.clock)
    metrics.feed(Feeder.CONTENT)
    if outside.measured is not None:
        outside.measured(metrics)
    _log.info("Prometheus metrics loaded successfully")
    _log.info("Prometheus metrics initialized - available at /metrics")
    return metrics, registry


def _layers(settings: ContentSettings, clock: Clock, metrics: Metrics | None) -> Layers:
    if not settings.caching:
        return NoLayers()

    def seen(operation: str, result: str, layer: Layer | None) -> None:
        if metrics is not None:
            what, how = cast("Any", operation), cast("Any", result)
            metrics.content.cache_operation(what, how, layer=layer)

    cache: LayeredCache = open_cache(settings.cache, clock, seen)
    return cache


def _tracker(
    settings: ContentSettings,
    generator: Generator,
    layers: Layers,
    clock: Clock,
    metrics: Metrics | None,
) -> QuotaTracker | None:
    if not settings.quota_tracking:
        return None

    def exceeded(limit: str | None) -> None:
        if metrics is not None and limit is not None:
            metrics.content.quota_exceeded(cast("Any", limit))

    tracker = QuotaTracker(
        QuotaConfig.of(settings),
        book=generator.book(settings.model),
        book_of=generator.book,
        shelf=open_shelf(settings.cache, clock, beside=layers)
        if isinstance(layers, LayeredCache)
        else None,
        clock=clock,
        on_exceeded=exceeded,
    )
    adopt(tracker)
    _log.info("Quota tracker loaded successfully")
    return tracker


def _assembled(
    studio: Studio,
    room: ContentEngine,
    outside: Outside,
    metrics: Metrics | None,
    registry: Any,
) -> ContentApp:
    settings, tracker = studio.settings, studio.tracker
    health = Health(settings, room, studio.layers, tracker, studio.clock, ledger=outside.ledger)
    protection = room.engine.protection
    gauges = None
    if metrics is not None:
        from headgate.wiring.metrics import watch_engine  # noqa: PLC0415 - an extra

        main = None if tracker is None else tracker.book
        state = None
        if outside.registry is None:  # else another engine speaks for the provider there
            state = watch_engine(metrics, "gemini", room.engine, studio.clock)
        gauges = Gauges(studio.layers, protection, studio.generator.books, main, engine=state)
        metrics.watch(gauges, Gauges.read)
        if outside.scraped is not None:
            outside.scraped(gauges.look)
    maker = outside.maker or GeminiImages(studio.generator)
    explanations = Explanations(studio)
    explain_with(explanations)
    images = Images(studio, maker)
    content = ContentHandlers(studio, Subtopics(studio), explanations, images, health)
    admin = AdminHandlers(studio, protection, registry=registry, gauges=gauges)
    rows = (*content.rows(), *admin.rows())
    admin.document = described(rows)
    additions, results, closers = _additions(settings, studio.layers, studio.clock)
    closers += [] if tracker is None else [tracker.shelf.aclose]
    closers += [studio.layers.aclose, room.aclose]
    if outside.closing is not None:
        closers.append(outside.closing)

    async def closing() -> None:
        for close in closers:
            await close()
        if tracker is not None:
            tracker.close()

    async def joining() -> None:
        if tracker is not None:
            await tracker.book.join()

    return ContentApp(
        settings,
        rows,
        studio.clock,
        joining=joining,
        health=health,
        additions=additions,
        results=results,
        measures=studio.measures,
        quota=None if tracker is None else tracker.config,
        closing=closing,
    )


def _additions(
    settings: ContentSettings, layers: Layers, clock: Clock
) -> tuple[list[Addition], Results, list[Callable[[], Awaitable[None]]]]:
    """What joins the application: sessions, results that can be fetched again, the page."""
    store = settings.cache.store
    beside = layers.values if isinstance(layers, LayeredCache) else None
    visits = open_values(store, "sessions", _SESSION_BOUNDS, clock=clock, beside=beside)
    additions: list[Addition] = [Visitors(visits, settings.cache)]
    closers: list[Callable[[], Awaitable[None]]] = [visits.aclose]
    results: Results = NoResults()
    kept = None
    if settings.caching:
        bodies = open_values(store, "results", _RESULT_BOUNDS, clock=clock, beside=visits)
        closers.append(bodies.aclose)
        results = kept = KeptResults(bodies, float(settings.cache.redis_ttl))
        if isinstance(layers, LayeredCache):
            layers.join(bodies)
    additions.append(CachingHeaders(kept, settings.cache))
    if settings.page:
        additions.append(Page())
    return additions, results, closers
