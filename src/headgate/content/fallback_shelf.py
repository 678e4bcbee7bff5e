"""Where results are kept that may stand in once there is no quota for better (S4-07, S4-09)."""

from __future__ import annotations

from headgate.content.cache import LayeredCache
from headgate.content.cache_settings import CacheSettings
from headgate.core.ports import Clock
from headgate.wiring.values import ValueBounds, open_values

__all__ = ["open_shelf"]

ROOM = "fallback"
"""Of the shared store: what may stand in outlives results, and neither drives the other out."""

_BOUNDS = ValueBounds(entries=1000, bytes=64_000_000)


def open_shelf(
    settings: CacheSettings, clock: Clock, *, beside: LayeredCache | None = None
) -> LayeredCache:
    """The shelf. Connects to nothing yet; whoever opens it closes it.

    Args:
        beside: the cache of the results, on the same store: `LayeredCache.clear` clears both then.

    Raises:
        ConfigurationError: the store needs a package that is not installed, or an option is wrong.
    """
    neighbour = None if beside is None else beside.values
    values = open_values(settings.store, ROOM, _BOUNDS, clock=clock, beside=neighbour)
    if beside is not None:
        beside.join(values)
    return LayeredCache(values, clock)
