"""What the endpoints of the management API work with: the gateway, a backend, the books."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from headgate.backend.commands import GeminiBackend
from headgate.core.ports import Clock
from headgate.core.replies import ReplyCache
from headgate.gateway.desk import CallerDesk
from headgate.gateway.manage.alarms import Alarms
from headgate.gateway.manage.doors import Openness
from headgate.gateway.manage.feed import EventFeed
from headgate.gateway.manage.key_watch import KeyWatch
from headgate.gateway.manage.orders import Orders
from headgate.gateway.manage.trouble import TroubleError
from headgate.gateway.reloading import Reloading
from headgate.wiring.gateway import Upstream
from headgate.wiring.gateway_settings import GatewaySettings
from headgate.wiring.gateway_usage import GatewayUsage

__all__ = ["House", "Managed"]


class Managed(Protocol):
    """The gateway, as those who manage see it."""

    @property
    def settings(self) -> GatewaySettings:
        """Those that new calls meet."""

    @property
    def upstreams(self) -> Sequence[Upstream]:
        """Those that new calls go to."""

    @property
    def cache(self) -> ReplyCache | None:
        """Where answers of new calls are kept."""

    @property
    def desk(self) -> CallerDesk | None:
        """Knows the callers and what they may."""

    @property
    def draining(self) -> bool:
        """Whether the gateway ends."""

    @property
    def under_way(self) -> int:
        """Requests that are being served."""

    @property
    def generation(self) -> int:
        """Which configuration new calls meet, counted from 1."""

    @property
    def needs_callers(self) -> bool:
        """Whether a call needs a caller's key."""

    @property
    def known_callers(self) -> int:
        """How many callers there are."""


@dataclass(slots=True)
class House:
    """Everything there is to manage.

    Attributes:
        alarms: the alerts of every provider.
        environ: where settings are read from; None: the process environment.
        usage: what writes the usage ledger; None where none is kept.
        reloading: what reads the configuration again; None where it was given.
    """

    gateway: Managed
    backend: GeminiBackend
    orders: Orders
    alarms: Alarms
    feed: EventFeed
    clock: Clock
    openness: Openness
    usage: GatewayUsage | None = None
    reloading: Reloading | None = None
    environ: Mapping[str, str] | None = None
    started: float = 0.0
    watch: KeyWatch = field(init=False)
    _tasks: set[asyncio.Task[None]] = field(init=False, default_factory=set)
    _watching: asyncio.Task[None] | None = field(init=False, default=None)
    _alerting: asyncio.Task[None] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.started = self.clock.wall()
        self.watch = KeyWatch(lambda: self.gateway.upstreams, self.feed, self.clock)

    def instant(self, seconds: float) -> datetime:
        """A Unix second as a date."""
        return datetime.fromtimestamp(seconds, UTC)

    def upstream(self, provider: str) -> Upstream:
        """The upstream of a provider. Raises `TroubleError`."""
        for upstream in self.gateway.upstreams:
            if upstream.name == provider:
                return upstream
        names = ", ".join(upstream.name for upstream in self.gateway.upstreams)
        raise TroubleError(
            "not-found", f"There are no keys of {provider[:40]!r}; there are of {names}."
        )

    def check_project(self, path: str) -> None:
        """Raises `TroubleError` for a path that does not lie below one of the configured roots."""
        roots = [Path(root).resolve() for root in self.gateway.settings.project_roots]
        if not roots:
            raise TroubleError(
                "conflict",
                "No folder of projects is configured, so none may be named over HTTP.",
                hint="Set HEADGATE_GATEWAY_PROJECT_ROOTS to the folders that hold them, and restart.",
            )
        try:
            real = Path(path).resolve()
        except (OSError, ValueError):
            real = None
        if real is None or not any(real.is_relative_to(root) for root in roots):
            raise TroubleError("invalid", "project_path must lie below one of the configured roots.")

    def listened(self) -> None:
        """Somebody listens: what happens by itself is looked for from now on, until nobody does."""
        if self._watching is None or self._watching.done():
            self._watching = self.beside(self.watch.run())
        if self._alerting is None:
            self._alerting = self.beside(self.alarms.tell(self.feed))

    def beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let something run beside everything else; it ends with the gateway."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """Let go of everything."""
        self.feed.close()
        self.alarms.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.backend.aclose()
