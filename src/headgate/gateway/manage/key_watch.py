"""Sees keys change: one is refused, a domain cools down, a cool-down is over. The end of a cool-down is
nobody's doing, so keys are looked at once a second, as long as somebody listens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from headgate.core.ports import Clock
from headgate.gateway.manage.event_views import KeyEvent
from headgate.gateway.manage.feed import EventFeed, EventKind
from headgate.gateway.manage.orders import DRAINED
from headgate.gateway.manage.views import KeyState, KeyView
from headgate.wiring.gateway import Upstream
from headgate.wiring.key_status import KeyStatus, Reading

__all__ = ["KeyWatch", "key_views", "state_of"]

LOOK_SECONDS = 1.0


class _Seen(NamedTuple):
    state: KeyState
    cooling: tuple[str, ...]


class KeyWatch:
    """Tells listeners of keys that changed."""

    def __init__(
        self, upstreams: Callable[[], Sequence[Upstream]], feed: EventFeed, clock: Clock
    ) -> None:
        self._upstreams = upstreams
        self._feed = feed
        self._clock = clock
        self._seen: dict[tuple[str, str], _Seen] | None = None

    async def run(self) -> None:
        """Look, until nobody has listened for a while."""
        self._seen = None
        while self._feed.wanted:
            self.look()
            await self._clock.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Tell what changed since the last look."""
        views = [view for upstream in self._upstreams() for view in key_views(upstream)]
        before = self._seen
        self._seen = {
            (view.provider, view.name): _Seen(view.state, tuple(sorted(view.cooling))) for view in views
        }
        if before is None:
            return
        at = datetime.fromtimestamp(self._clock.wall(), UTC)
        for view in views:
            key = (view.provider, view.name)
            old = before.get(key)
            if old != self._seen[key]:
                was = None if old is None else old.state.value
                self._feed.tell(EventKind.KEY, KeyEvent(at=at, before=was, key=view))


def key_views(upstream: Upstream) -> list[KeyView]:
    """The keys of an upstream as they stand now. O(keys)."""
    domains = [state.key.domain for state in upstream.engine.pool.states()]
    readings = upstream.books.readings()
    return [_view(upstream, *pair) for pair in zip(readings, domains, strict=True)]


def state_of(reading: Reading) -> KeyState:
    """What a key can do."""
    if reading.status is KeyStatus.DISABLED:
        drained = (reading.disabled_reason or "").startswith(DRAINED)
        return KeyState.DRAINED if drained else KeyState.REFUSED
    return KeyState.COOLING if reading.status is KeyStatus.EXHAUSTED else KeyState.READY


def _view(upstream: Upstream, reading: Reading, domain: str) -> KeyView:
    metrics = reading.metrics
    return KeyView(
        provider=upstream.name,
        name=reading.name,
        domain=domain,
        state=state_of(reading),
        reason=reading.disabled_reason,
        cooling=reading.models or {},
        requests=metrics.total_requests,
        successes=metrics.successful_requests,
        failures=metrics.failed_requests,
        quota_errors=metrics.quota_errors,
        error_rate=metrics.error_rate,
        last_used_at=metrics.last_used_at,
        last_error_at=metrics.last_error_at,
        last_error=metrics.last_error_message,
    )
