"""The configuration at run time: read it masked, change it as a whole, look at its history.

A change is checked, a new engine is built from it, and only then does it take over (C20). Whatever is
wrong is found before: then nothing has changed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from threading import Lock

import msgspec
from msgspec import Struct, structs

from headgate.backend.generations import EngineRoom
from headgate.backend.settings import BackendConfig
from headgate.core.errors import ConfigurationError
from headgate.core.ports import Clock
from headgate.stores.urls import StoreUrl
from headgate.stores.usage_url import UsageUrl

__all__ = ["ConfigChange", "Configuration"]

_MOST_CHANGES = 100


class ConfigChange(Struct, frozen=True, kw_only=True):
    """One change that took effect.

    Attributes:
        number: counts from 1.
        at: when, aware UTC.
        changed: names of the fields that differ from the configuration before.
        config: what took over, with secrets masked.
    """

    number: int
    at: datetime
    changed: tuple[str, ...]
    config: BackendConfig


class Configuration:
    """The configuration of one backend.

    Args:
        changed: told each configuration that took over, once it has.
    """

    def __init__(
        self, room: EngineRoom, clock: Clock, changed: Callable[[BackendConfig], None]
    ) -> None:
        self._room = room
        self._clock = clock
        self._changed = changed
        self._lock = Lock()
        self._numbers = 0
        self._history: deque[ConfigChange] = deque(maxlen=_MOST_CHANGES)

    def current(self) -> BackendConfig:
        """S3-20: what new calls meet. Passwords in places are masked."""
        return masked(self._room.config)

    def history(self) -> tuple[ConfigChange, ...]:
        """The last hundred changes, the newest first."""
        with self._lock:
            return tuple(reversed(self._history))

    async def update(self, config: BackendConfig | Mapping[str, object]) -> None:
        """S3-21: let a whole configuration take over. Calls under way keep the one they began with.

        Args:
            config: a `BackendConfig`, or one as it came from JSON: what it leaves out has its default.
                A place that is masked as `current` shows it means the one there is.

        Raises:
            ConfigurationError: it names what is wrong; then everything is as it was.
        """
        old = self._room.config
        new = _unmasked(read_config(config), old)
        if new.session_file != old.session_file:
            raise ConfigurationError(
                "session_file is fixed for a backend's life: sessions would be lost. Build another."
            )
        if new.usage != old.usage:
            raise ConfigurationError(
                "usage is fixed for a backend's life: its ledger would be torn in two. Build another."
            )
        await self._room.swap(new)
        self._changed(new)
        with self._lock:
            self._numbers += 1
            at = datetime.fromtimestamp(self._clock.wall(), UTC)
            change = ConfigChange(
                number=self._numbers, at=at, changed=differing(old, new), config=masked(new)
            )
            self._history.append(change)


def read_config(given: BackendConfig | Mapping[str, object]) -> BackendConfig:
    """A configuration out of what was given. Raises `ConfigurationError`, never with a secret."""
    if isinstance(given, BackendConfig):
        return given
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"config takes a BackendConfig; got {type(given).__name__}.")
    try:
        return msgspec.convert(dict(given), BackendConfig)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"config: {error}.") from None


def masked(config: BackendConfig) -> BackendConfig:
    """The configuration as it may be shown."""
    store = None if config.store is None else _shown(config.store)
    usage = None if config.usage is None else UsageUrl.read(config.usage).shown
    return structs.replace(config, store=store, usage=usage)


def differing(old: BackendConfig, new: BackendConfig) -> tuple[str, ...]:
    """Names of the fields that differ."""
    return tuple(name for name in new.__struct_fields__ if getattr(old, name) != getattr(new, name))


def _unmasked(new: BackendConfig, old: BackendConfig) -> BackendConfig:
    if old.store is not None and new.store == _shown(old.store):
        new = structs.replace(new, store=old.store)
    if old.usage is not None and new.usage == UsageUrl.read(old.usage).shown:
        new = structs.replace(new, usage=old.usage)
    return new


def _shown(url: str) -> str:
    try:
        return StoreUrl.read(url).shown
    except ValueError:  # it will be refused where it is used
        return "…"
