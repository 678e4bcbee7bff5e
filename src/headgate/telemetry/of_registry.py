"""What a registry has one of: it is made and registered when it is first asked for, and found after."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from headgate.core.ports import Clock

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["Books", "bridge", "is_bridged", "one_of"]


class Books(Protocol):
    """Counts that a registry can read."""

    def describe(self) -> Iterable[Metric]:
        """The families without samples, so that a registry notices a second collector."""

    def collect(self) -> Iterable[Metric]:
        """The families as they stand now."""


B = TypeVar("B", bound=Books)

_lock = threading.Lock()
_books: weakref.WeakKeyDictionary[Any, dict[object, Any]] = weakref.WeakKeyDictionary()
_bridges: weakref.WeakKeyDictionary[Any, Callable[[], bool]] = weakref.WeakKeyDictionary()


def bridge(registry: object, counts_requests: Callable[[], bool] | None) -> None:
    """OpenTelemetry's metrics are shown by this registry from now on; None: no longer.

    Args:
        counts_requests: whether an instrument of its own has counted HTTP requests yet.
    """
    with _lock:
        if counts_requests is None:
            _bridges.pop(registry, None)
        else:
            _bridges[registry] = counts_requests


def is_bridged(books: object) -> bool:
    """Whether the registry of these books shows HTTP requests as OpenTelemetry counted them."""
    with _lock:
        found = [
            counts_requests
            for registry, counts_requests in _bridges.items()
            if any(held is books for held in _books.get(registry, {}).values())
        ]
    return any(counts_requests() for counts_requests in found)


def one_of(registry: object, kind: Callable[[Clock], B], clock: Clock) -> B:
    """The registry's books of a kind. Without the `metrics` extra they are kept and nobody reads them.

    Args:
        registry: a `prometheus_client` registry; None for the default one.
        kind: makes them; a class.

    Raises:
        TypeError: that is no registry.
    """
    try:
        from prometheus_client import REGISTRY, CollectorRegistry  # noqa: PLC0415 - an extra
    except ImportError:
        return kind(clock)
    target = REGISTRY if registry is None else registry
    if not isinstance(target, CollectorRegistry):
        raise TypeError(f"registry takes a CollectorRegistry; got {type(target).__name__}")
    with _lock:
        shelf = _books.setdefault(target, {})
        if kind not in shelf:
            books = kind(clock)
            target.register(books)
            shelf[kind] = books
        found: B = shelf[kind]
        return found
