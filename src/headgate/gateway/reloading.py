"""A configuration that changes while the gateway runs: read again, checked, taken over as a whole.

It begins with a file that was changed, a SIGHUP, or a request to the management API. Everything is
loaded and built before anything is changed; what is wrong leaves everything as it was, and is told in
the log and at `/manage/v1/config`. Calls under way keep the configuration they began with.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from headgate.core.errors import HeadgateError, StoreError
from headgate.core.ports import Clock
from headgate.core.replies import ReplyCache
from headgate.wiring.gateway import Upstream, hand_on, open_cache
from headgate.wiring.gateway_settings import GatewaySettings, load_gateway
from headgate.wiring.key_check import AnySettings
from headgate.wiring.settings import resolve_alone
from headgate.wiring.watching import Stamps, stamps

__all__ = ["LOOK_SECONDS", "Cause", "Change", "Opening", "Reloading", "Reloads"]

_log = logging.getLogger("headgate.gateway")

LOOK_SECONDS = 1.0
"""How often files are looked at. One that is other than at the last look is still being written."""

_MOST_CHANGES = 100

_WITH_THE_START = frozenset({
    "admin", "callers", "drain_seconds", "head_seconds", "linger_seconds", "max_body_mib",
    "max_connections", "max_head_kib", "max_headers", "max_json_depth", "reader_stall_seconds",
    "callers_file", "slowest_sender_kib", "usage_retention_days", "workers",
})  # fmt: skip
"""Settings that belong to the process, its port or its books."""

_NOT_SAID = frozenset({"resolved", "keys_origin", "quota_rpm", "quota_tpm", "quota_rpd", "quota_tpd"})
"""Fields of settings that follow from others."""


class Cause(StrEnum):
    """What a configuration was read for."""

    START = "start"
    FILE = "file"
    SIGNAL = "signal"
    REQUEST = "request"


class Change(Struct, frozen=True):
    """A configuration that was read.

    Attributes:
        at: Unix seconds.
        taken: whether it took over.
        changed: names of settings, such as `gemini.max_retries`.
        pending: those of them that take effect with the next start.
        trouble: why it was not taken over.
    """

    number: int
    at: float
    cause: Cause
    taken: bool
    changed: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    trouble: str | None = None


Opening = Callable[[GatewaySettings, ReplyCache | None, Sequence[Upstream]], tuple[Upstream, ...]]
"""Opens the upstreams of a configuration with this cache, over those of the one before. Raises
`ConfigurationError`."""


class Reloads(Protocol):
    """A gateway whose configuration can change."""

    @property
    def settings(self) -> GatewaySettings: ...  # noqa: D102 - as `Gateway`
    @property
    def upstreams(self) -> Sequence[Upstream]: ...  # noqa: D102
    @property
    def cache(self) -> ReplyCache | None: ...  # noqa: D102
    async def take_over(  # noqa: D102
        self, settings: GatewaySettings, upstreams: Sequence[Upstream], cache: ReplyCache | None
    ) -> int: ...


class Reloading:
    """Keeps a gateway's configuration as its files say.

    Args:
        opening: opens upstreams as they were opened at the start.
        environ: where settings are read from; None: the process environment.

    Attributes:
        trouble: why the configuration as it stands in the files is not the one that is served.
    """

    def __init__(
        self,
        gateway: Reloads,
        opening: Opening,
        clock: Clock,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._gateway = gateway
        self._opening = opening
        self._clock = clock
        self._environ = environ
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[object]] = set()
        self._changes: deque[Change] = deque(maxlen=_MOST_CHANGES)
        self._pending: dict[str, None] = {}
        self.trouble: str | None = None
        self._listeners: list[Callable[[Change], None]] = []
        self._number = 0
        self._note(Cause.START, taken=True)

    @property
    def changes(self) -> tuple[Change, ...]:
        """The last hundred, the newest first."""
        return tuple(reversed(self._changes))

    @property
    def pending(self) -> tuple[str, ...]:
        """Settings that were changed and take effect with the next start."""
        return tuple(self._pending)

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Tell of each change from now on."""
        self._listeners.append(listener)

    # ── when ────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Look at the files from now on, on the running loop."""
        self._keep(asyncio.get_running_loop().create_task(self._watch()))

    def soon(self, cause: Cause) -> None:
        """Read the configuration again; from the running loop."""
        self._keep(asyncio.get_running_loop().create_task(self.reload(cause)))

    async def aclose(self) -> None:
        """Look no more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _keep(self, task: asyncio.Task[object]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self) -> object:
        seen = tried = await asyncio.to_thread(stamps, self._environ)
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            now: Stamps = await asyncio.to_thread(stamps, self._environ)
            if now != seen:
                seen = now  # perhaps it is being written: the next look tells
            elif seen != tried:
                tried = seen
                await self.reload(Cause.FILE)

    # ── what ────────────────────────────────────────────────────────────────────────────────────

    async def reload(self, cause: Cause) -> Change | None:
        """Read the configuration, and let it take over if it is right and other than before.

        Returns what became of it; None: nothing about it is new. Never raises for what is wrong.
        """
        async with self._lock:
            try:
                return await self._reload(cause)
            except HeadgateError as error:
                return self._refused(cause, error.message)
            except Exception:  # noqa: BLE001 - a fault of ours leaves everything as it was, too
                _log.exception("configuration: a fault of the gateway")
                return self._refused(cause, "The gateway made a mistake; its log says which.")

    async def _reload(self, cause: Cause) -> Change | None:
        gateway = self._gateway
        old, before = gateway.settings, tuple(gateway.upstreams)
        given, settings, cache, upstreams = await asyncio.to_thread(self._loaded, old, before)
        changed = [f"gateway.{name}" for name in _differing(old, given)]
        changed = sorted(changed + _differing_upstreams(before, upstreams))
        self.trouble = None
        fixed = [name for name in changed if _waits(name)]
        news = [name for name in fixed if name not in self._pending]
        self._pending = dict.fromkeys(fixed)
        moved = settings != old or upstreams != before or cache is not gateway.cache
        if not moved and not news:
            return None
        if moved:
            try:
                await hand_on(before, upstreams)
            except StoreError as error:  # it stands in for itself meanwhile, by what each process knows
                _log.warning("configuration: quotas begin anew for other keys: %s", error.message)
            await gateway.take_over(settings, upstreams, cache)
        _log.info(
            "configuration: taken over cause=%s changed=%s%s",
            cause.value,
            ",".join(changed) or "nothing that is shown",
            f" with_the_next_start={','.join(fixed)}" if fixed else "",
        )
        return self._note(cause, taken=True, changed=tuple(changed), pending=tuple(fixed))

    def _loaded(
        self, old: GatewaySettings, before: tuple[Upstream, ...]
    ) -> tuple[GatewaySettings, GatewaySettings, ReplyCache | None, tuple[Upstream, ...]]:
        """The settings as they stand in the files, as they are met, and all that is built from them. In
        a thread: files are read, and many keys take a while. Raises `ConfigurationError`."""
        given = load_gateway(self._environ)
        kept = {name: getattr(old, name) for name in _WITH_THE_START if hasattr(old, name)}
        settings = replace(given, **kept)
        cache = self._cache(old, settings, before)
        return given, settings, cache, self._opening(settings, cache, before)

    def _cache(
        self, old: GatewaySettings, new: GatewaySettings, before: Sequence[Upstream]
    ) -> ReplyCache | None:
        """The one there is, where it will do: what is kept stays kept."""
        held = self._gateway.cache
        url = resolve_alone("store", environ=self._environ).value
        same = all(upstream.settings.store == url for upstream in before if upstream.name == "gemini")
        if held is not None and new.cache_seconds and old.cache_mib == new.cache_mib and same:
            return held
        return open_cache(new, self._clock, self._environ)

    # ── what became of it ───────────────────────────────────────────────────────────────────────

    def _refused(self, cause: Cause, why: str) -> Change:
        if why != self.trouble or cause is not Cause.FILE:
            _log.error("configuration: not taken over cause=%s: %s", cause.value, why)
        self.trouble = why
        return self._note(cause, taken=False, trouble=why)

    def _note(
        self,
        cause: Cause,
        *,
        taken: bool,
        changed: tuple[str, ...] = (),
        pending: tuple[str, ...] = (),
        trouble: str | None = None,
    ) -> Change:
        self._number += 1
        change = Change(self._number, self._clock.wall(), cause, taken, changed, pending, trouble)
        self._changes.append(change)
        for listener in self._listeners:
            listener(change)
        return change


def _waits(name: str) -> bool:
    """Whether a setting takes effect with the next start only."""
    return name.removeprefix("gateway.") in _WITH_THE_START or name.endswith(".usage")


def _differing(old: object, new: object) -> list[str]:
    """Names of the settings that differ. Values are not told: some are credentials."""
    return [
        field.name
        for field in fields(old)  # type: ignore[arg-type] # a dataclass of settings
        if field.name not in _NOT_SAID and getattr(old, field.name) != getattr(new, field.name)
    ]


def _differing_upstreams(old: Sequence[Upstream], new: Sequence[Upstream]) -> list[str]:
    before: dict[str, AnySettings] = {one.name: one.settings for one in old}
    after: dict[str, AnySettings] = {one.name: one.settings for one in new}
    found = [f"{name}.keys" for name in sorted(before.keys() ^ after.keys())]
    for name in before.keys() & after.keys():
        found += [f"{name}.{field}" for field in _differing(before[name], after[name])]
    return found
