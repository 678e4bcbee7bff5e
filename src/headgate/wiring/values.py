"""The engine room of kept values: what keeps them is made here, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headgate.core.ports import Clock
from headgate.core.values import ValueStore
from headgate.stores.urls import StoreUrl
from headgate.stores.values import MemoryValues
from headgate.wiring.build import CHANCE
from headgate.wiring.stores import check_store

__all__ = ["ValueBounds", "open_values"]


@dataclass(frozen=True, slots=True)
class ValueBounds:
    """How much is kept, and how long at most in the memory of a process.

    Attributes:
        entries, bytes: in the memory of each process.
        memory_seconds: after which a value leaves that memory, however long it is good.
        shared_bytes: in the store that processes share.
    """

    entries: int = 1000
    bytes: int = 64_000_000
    memory_seconds: float = float("inf")
    shared_bytes: int = 256_000_000


def open_values(
    url: StoreUrl,
    room: str,
    bounds: ValueBounds,
    *,
    clock: Clock,
    chance: Callable[[], float] = CHANCE,
    beside: ValueStore | None = None,
) -> ValueStore:
    """Values in the memory of this process, or over the store at a URL. Connects to nothing yet.

    Args:
        room: a name; rooms share nothing but the store.
        beside: another room of the same store: they share connections, and one says for all that the
            store is away.

    Raises:
        ConfigurationError: the store needs a package that is not installed, or an option is wrong.
    """
    memory = MemoryValues(
        clock,
        most_entries=bounds.entries,
        most_bytes=bounds.bytes,
        longest=bounds.memory_seconds,
    )
    if url.memory:
        return memory
    check_store(url)
    from headgate.stores.values_valkey import ValkeyValues  # noqa: PLC0415 - an extra

    return ValkeyValues(
        url.written,
        room=room,
        memory=memory,
        most_shared_bytes=bounds.shared_bytes,
        clock=clock,
        chance=chance,
        beside=beside if isinstance(beside, ValkeyValues) else None,
    )
