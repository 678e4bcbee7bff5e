"""The engine room of stores: what `HEADGATE_STORE` and `store=` name is made here, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex
from urllib.parse import parse_qs, urlsplit

from headgate.core.errors import ConfigurationError
from headgate.core.ports import Clock, QuotaStore
from headgate.stores.memory import MemoryStore
from headgate.stores.urls import BORN, MEMORY, PROCESSES, StoreUrl

__all__ = ["IN_MEMORY", "check_store", "given_store", "open_store"]

IN_MEMORY = StoreUrl.read(MEMORY)


def given_store(store: object) -> tuple[str | None, QuotaStore | None]:
    """What the argument `store=` of a client is: a setting, or a store that stays the caller's.

    Raises:
        ConfigurationError: it is neither.
    """
    if store is None or isinstance(store, str):
        return store, None
    if all(callable(getattr(store, name, None)) for name in ("declare", "transact", "aclose")):
        return None, store  # type: ignore[return-value] # as far as can be seen
    raise ConfigurationError(f"store takes a URL or a QuotaStore; got {type(store).__name__}.")


def open_store(url: StoreUrl, *, clock: Clock, chance: Callable[[], float]) -> QuotaStore:
    """The store at a URL. Connects to nothing yet; whoever has it made closes it.

    Raises:
        ConfigurationError: it needs a package that is not installed, or an option of it is wrong.
    """
    if url.memory:
        return MemoryStore(clock)
    # Out of reach of those who keep quotas in one process, who need no client library.
    try:
        from headgate.stores.sharing import SharedStore  # noqa: PLC0415 - with the next
        from headgate.stores.valkey import ValkeyStore  # noqa: PLC0415 - an extra
    except ImportError:
        raise _missing() from None
    # Here, and only here, a store of many processes is made: what is to stand before it stands here.
    shared = ValkeyStore(url.written, clock=clock, chance=chance)
    processes = _processes(url)
    born = _option(url, BORN)
    return SharedStore(
        shared, clock=clock, chance=chance, processes=processes, member=token_hex(8), born=born
    )  # fmt: skip


def check_store(url: StoreUrl) -> None:
    """Raise the `ConfigurationError` that `open_store` would."""
    if url.memory:
        return
    try:
        from headgate.stores.valkey_link import Address  # noqa: PLC0415 - an extra
    except ImportError:
        raise _missing() from None
    Address(url.written)
    _processes(url)


def _processes(url: StoreUrl) -> int | None:
    """How many processes share the store, if its URL says so."""
    said = _option(url, PROCESSES)
    if said is None:
        return None
    if not said.isdecimal() or int(said) < 1:
        raise ConfigurationError(f"The store's URL takes {PROCESSES}=1 or more.")
    return int(said)


def _option(url: StoreUrl, name: str) -> str | None:
    said = parse_qs(urlsplit(url.nodes[0]).query).get(name)
    return None if said is None else said[-1]


def _missing() -> ConfigurationError:
    return ConfigurationError("A store that processes share needs redis: install headgate[redis].")
