"""What machines ask a gateway about itself: does it live, does it take calls, what does it count."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from headgate.core.errors import ConfigurationError
from headgate.wiring.gateway import Upstream

__all__ = ["METRICS_TYPE", "Metrics", "live", "ready"]

METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


def live() -> bytes:
    """The process answers: that alone, whatever it depends on."""
    return b'{"status":"live"}'


def ready(upstreams: Sequence[Upstream], *, draining: bool) -> tuple[int, bytes]:
    """Status and body: whether calls should come here. Keys that cool down come back, so one that was
    not refused for good is enough."""
    shown = {upstream.name: "ready" if upstream.usable else "no usable key" for upstream in upstreams}
    if draining:
        return 503, msgspec.json.encode({"status": "draining", "upstreams": shown})
    good = any(upstream.usable for upstream in upstreams)
    word = "ready" if good else "no usable key"
    return 200 if good else 503, msgspec.json.encode({"status": word, "upstreams": shown})


class Metrics:
    """The metrics of this gateway's keys as Prometheus reads them, in a registry of its own."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._upstreams = upstreams
        self._registry: Any = None  # made when first asked for: it is an extra

    async def text(self) -> bytes:
        """All of them; made in a thread, for a thousand series take twelve milliseconds.

        Raises `ConfigurationError` without the `metrics` extra.
        """
        try:
            from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - an extra

            from headgate.telemetry.keys import KeyCollector  # noqa: PLC0415
        except ImportError:
            raise ConfigurationError(
                "Metrics need prometheus-client: install headgate[metrics]."
            ) from None
        if self._registry is None:
            registry = CollectorRegistry()
            for upstream in self._upstreams:
                registry.register(
                    KeyCollector(
                        upstream.books.metrics, prefix=upstream.metric_prefix, group=upstream.group
                    )
                )
            self._registry = registry
        text: bytes = await asyncio.to_thread(generate_latest, self._registry)
        return text
