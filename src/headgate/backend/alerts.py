"""The backend's alerts: hear them, and see which stand. Where they begin is `BackendConfig.alerts`."""

from __future__ import annotations

from collections.abc import Callable

from headgate.core.alerts import Alert, AlertRaised
from headgate.policy.breaker import BreakerState
from headgate.telemetry.alert_feed import AlertFeed
from headgate.telemetry.alerting import Alerting
from headgate.wiring.build import Engine

__all__ = ["AlertCommands", "broken_models"]


class AlertCommands:
    """What a backend offers about alerts."""

    _alerting: Alerting

    def on_alert(self, callback: Callable[[Alert], object]) -> Callable[[], None]:
        """Call back with every alert from now on. Ours.

        The callback runs in a thread of its own, one alert after the other, and may take its time: no
        request waits for it, and what it raises is logged. Of more than 1,000 alerts that wait for it
        the oldest are dropped.

        Returns:
            What ends it.

        Raises:
            TypeError: it is a coroutine function; iterate over `gemini_alerts()` instead.
        """
        return self._alerting.subscribe(callback)

    def gemini_alerts(self) -> AlertFeed:
        """Every alert from now on, for `async for`; it ends with the backend, or with `aclose()`. Ours.

        Of more than 1,000 alerts that nobody has read the oldest are dropped; `dropped` counts them.
        """
        return self._alerting.feed()

    def get_gemini_alerts(self) -> tuple[AlertRaised, ...]:
        """The alerts that stand now, the oldest first. Ours."""
        return self._alerting.standing()


def broken_models(engine: Engine) -> tuple[str, ...]:
    """The models whose breakers are not closed; none where the engine has no breakers."""
    states = engine.protection.states().items()
    return tuple(model for model, state in states if state is not BreakerState.CLOSED)
