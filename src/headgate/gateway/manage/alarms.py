"""Alerts of every provider the gateway calls: the backend watches Gemini, and here the others are
watched by the same rules, money aside, of which the backend's price list knows Gemini's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from headgate.backend.alerts import broken_models
from headgate.backend.commands import GeminiBackend
from headgate.core.alerts import AlertRaised
from headgate.core.ports import Clock, Observer
from headgate.gateway.manage.feed import EventFeed, EventKind
from headgate.gateway.manage.written import to_plain
from headgate.policy.alert_rules import AlertRules
from headgate.telemetry.alert_feed import AlertFeed
from headgate.telemetry.alerting import Alerting
from headgate.wiring.gateway import Upstream

__all__ = ["Alarms"]

_GEMINI = "gemini"
_OTHERS = ("anthropic", "openai")


class Alarms:
    """Who watches which provider.

    Args:
        upstreams: those of the moment.
    """

    def __init__(
        self, upstreams: Callable[[], Sequence[Upstream]], backend: GeminiBackend, clock: Clock
    ) -> None:
        self._backend = backend
        self._others = {
            name: Alerting(AlertRules(), clock, broken=partial(_broken, upstreams, name))
            for name in _OTHERS
        }

    @property
    def books(self) -> Mapping[str, Observer]:
        """What is to be told of the calls of each provider but Gemini."""
        return self._others

    def standing(self) -> list[tuple[str, AlertRaised]]:
        """The alerts that stand with their providers, the oldest first."""
        found = [(_GEMINI, alert) for alert in self._backend.get_gemini_alerts()]
        found += [(name, one) for name, watch in self._others.items() for one in watch.standing()]
        return sorted(found, key=lambda pair: pair[1].at)

    async def tell(self, feed: EventFeed) -> None:
        """Pass alerts on, until this is cancelled or closed."""
        feeds = {_GEMINI: self._backend.gemini_alerts()}
        feeds |= {name: watch.feed() for name, watch in self._others.items()}
        async with asyncio.TaskGroup() as group:
            for name, alerts in feeds.items():
                group.create_task(_pass_on(name, alerts, feed))

    def close(self) -> None:
        """Let everybody go."""
        for watch in self._others.values():
            watch.close()


def _broken(upstreams: Callable[[], Sequence[Upstream]], name: str) -> tuple[str, ...]:
    return tuple(
        model for one in upstreams() if one.name == name for model in broken_models(one.engine)
    )


async def _pass_on(provider: str, alerts: AlertFeed, feed: EventFeed) -> None:
    async with alerts:
        async for alert in alerts:
            told = {"kind": type(alert).__name__, "provider": provider, **to_plain(alert)}
            feed.tell(EventKind.ALERT, told)
