"""The metrics of a gateway: one registry for its life, whatever configurations come and go in it.

Where several workers serve one port, each publishes what it counts in a folder that all share
(`HEADGATE_METRICS_FOLDER`, set by whoever starts them), and the one that is scraped answers for all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from headgate.core.errors import ConfigurationError, StoreError
from headgate.core.ports import Clock, Observer
from headgate.core.replies import ReplyCache
from headgate.telemetry.metrics import FOLDER_VARIABLE
from headgate.telemetry.metrics.family import Feeder
from headgate.telemetry.metrics.http_measures import HttpMeasures
from headgate.telemetry.metrics.metrics import Metrics
from headgate.wiring.gateway import Upstream
from headgate.wiring.gateway_usage import GatewayUsage
from headgate.wiring.metrics import (
    CacheState,
    EngineState,
    metrics_of,
    price_of,
    watch_cache,
    watch_engine,
    watch_rows,
)
from headgate.wiring.model_data import gemini_prices
from headgate.wiring.settings import process_environment
from headgate.wiring.usage import costs_of

if TYPE_CHECKING:
    from headgate.telemetry.metrics.publication import Publication

__all__ = ["GatewayMetrics"]

_LOOK_SECONDS = 0.5
"""Between two looks at whether the event loop comes round in time."""

_LOOKS = 10
"""After so many it publishes: 5 s, see `publication.EVERY_SECONDS`."""

_log = logging.getLogger("headgate.telemetry")


class GatewayMetrics:
    """What `/metrics` shows. Made before the engines, which report to its `observer`.

    Args:
        folder: where this worker publishes, if it is one of several.

    Raises `ConfigurationError` where that cannot be written.

    Attributes:
        metrics: the counts.
        registry: a `prometheus_client` registry, for whoever has metrics of its own; None without the
            extra.
        further: called before each scrape, by whoever has state of its own to look at.
    """

    def __init__(self, clock: Clock, folder: Path | None = None) -> None:
        self._clock = clock
        self.registry, self.metrics = _made(clock)
        self.metrics.engine.price = price_of(costs_of(gemini_prices), clock)
        self.metrics.feed(Feeder.ENGINE, Feeder.GATEWAY)
        self._states: tuple[EngineState, ...] = ()
        self._caches: tuple[CacheState, ...] = ()
        self.further: list[Callable[[], Awaitable[None]]] = []
        self._keys: list[Any] = []
        self._publication = self._published(folder)

    @classmethod
    def of_worker(cls, clock: Clock, environ: Mapping[str, str] | None = None) -> GatewayMetrics:
        """Those of this process, which may be one of several workers."""
        folder = process_environment(environ).get(FOLDER_VARIABLE)
        return cls(clock, Path(folder) if folder else None)

    @property
    def observer(self) -> Observer:
        """To be told of attempts and calls, by any thread."""
        return self.metrics.engine

    @property
    def http(self) -> HttpMeasures:
        """To be told of requests."""
        return self.metrics.http

    def meet(self, upstreams: Sequence[Upstream], cache: ReplyCache | None) -> None:
        """From now on the state of these is shown, and of those before no more."""
        for state in self._states:
            state.end()
        for kept in self._caches:
            kept.end()
        self._states = tuple(
            watch_engine(self.metrics, one.name, one.engine, self._clock) for one in upstreams
        )
        self._caches = () if cache is None else (watch_cache(self.metrics, cache),)
        if self.registry is None:
            return
        from headgate.telemetry.keys import KeyCollector  # noqa: PLC0415 - an extra

        for before in self._keys:
            self.registry.unregister(before)
        self._keys = [
            KeyCollector(one.books.metrics, prefix=one.metric_prefix, group=one.group)
            for one in upstreams
        ]
        for keys in self._keys:
            self.registry.register(keys)

    def watch_usage(self, usage: GatewayUsage) -> None:
        """Show what becomes of the rows of the usage ledger."""
        self.metrics.feed(Feeder.LEDGER)
        watch_rows(self.metrics, usage.writer)

    async def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics of all workers as text, and its content type. Made in a thread: a thousand series
        take twelve milliseconds.

        Args:
            accept: as the scrape says it.

        Raises:
            ConfigurationError: the `metrics` extra is not installed.
            StoreError: the folder that the workers share cannot be used.
        """
        if self.registry is None:
            raise ConfigurationError("Metrics need prometheus-client: install headgate[metrics].")
        from headgate.telemetry.metrics.exposition import exposed  # noqa: PLC0415 - an extra

        await self._refresh()
        if self._publication is None:
            return await asyncio.to_thread(exposed, self.registry, accept)
        try:
            return await asyncio.to_thread(self._publication.exposition, accept)
        except OSError as error:  # its own counts alone would look like a restart
            raise StoreError(
                f"The metrics of the workers cannot be gathered ({type(error).__name__}): is the "
                "folder for temporary files there, and not full?"
            ) from None

    async def tend(self) -> None:
        """For as long as the gateway serves: see whether the event loop is late, and publish."""
        looks = 0
        if self._publication is not None:  # the others know of this worker from now on
            await self._publish(self._publication)
        while True:
            due = self._clock.monotonic() + _LOOK_SECONDS
            await self._clock.sleep(_LOOK_SECONDS)
            late = max(0.0, self._clock.monotonic() - due)
            self.metrics.see("headgate_event_loop_lag_seconds", late)
            looks += 1
            if self._publication is not None and looks % _LOOKS == 0:
                await self._publish(self._publication)

    def close(self) -> None:
        """Publish a last time: what this worker counted stays."""
        if self._publication is not None:
            self._publication.close()
            self._publication = None

    async def _refresh(self) -> None:
        further = (look() for look in self.further)
        await asyncio.gather(*(state.refresh() for state in self._states), *further)

    async def _publish(self, publication: Publication) -> None:
        """Whatever comes of it, the gateway serves on."""
        try:
            await self._refresh()
            await asyncio.to_thread(publication.publish)
        except Exception as error:  # noqa: BLE001 - see above
            _log.warning("metrics=not_published error=%s", type(error).__name__)

    def _published(self, folder: Path | None) -> Publication | None:
        if folder is None or self.registry is None:
            return None
        from headgate.telemetry.metrics.publication import Publication  # noqa: PLC0415 - an extra

        try:
            return Publication(folder, token_hex(8), self.registry)
        except OSError as error:
            raise ConfigurationError(
                f"{FOLDER_VARIABLE} names no folder that can be written ({type(error).__name__}); it "
                "is set by whoever starts workers."
            ) from None


def _made(clock: Clock) -> tuple[Any, Metrics]:
    try:
        from prometheus_client import CollectorRegistry  # noqa: PLC0415 - an extra
    except ImportError:
        return None, Metrics(clock)
    registry = CollectorRegistry()
    return registry, metrics_of(registry, clock)
