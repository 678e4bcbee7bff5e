"""One's own metrics, by name (S2-22). Instruments are made once and kept."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from headgate.telemetry.switch import SWITCH

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

__all__ = ["REQUEST_DURATION", "counts_requests", "record_gauge", "record_metric", "record_seconds"]

REQUEST_DURATION = "http.server.request.duration"
"""What a server's requests take, by OpenTelemetry's HTTP conventions."""

_PREFIX = "cak."
_MOST_INSTRUMENTS = 1_000
"""Names are made by code, not by callers; more than this is a mistake that must not fill the memory."""

_lock = Lock()
_instruments: dict[tuple[object, str, str, str], Any] = {}


def record_metric(
    name: str,
    value: float,
    unit: str = "1",
    attributes: Mapping[str, AttributeValue] | None = None,
) -> None:
    """Record a value: of a duration with `unit="ms"`, else a count that is added. Does nothing while
    telemetry is off.

    Args:
        name: `cak.` is put before it; in Prometheus it is `cak_{name}_milliseconds` or
            `cak_{name}_total`.
        attributes: labels: of few values each.

    Raises:
        ValueError: a count below 0: counters only grow. `record_gauge` takes what goes up and down.
    """
    kind = "histogram" if unit == "ms" else "counter"
    if kind == "counter" and value < 0:
        raise ValueError(f"{name} is a counter, which only grows; got {value}. Use record_gauge.")
    instrument = _instrument(kind, _PREFIX + name, unit)
    if instrument is None:
        return
    if kind == "histogram":
        instrument.record(value, attributes)
    else:
        instrument.add(value, attributes)


def record_gauge(
    name: str,
    value: float,
    unit: str = "1",
    attributes: Mapping[str, AttributeValue] | None = None,
) -> None:
    """Set what goes up and down. As `record_metric` otherwise; in Prometheus it is `cak_{name}`."""
    instrument = _instrument("gauge", _PREFIX + name, unit)
    if instrument is not None:
        instrument.set(value, attributes)


def record_seconds(name: str, value: float, attributes: Mapping[str, AttributeValue]) -> None:
    """Record a duration under a name of OpenTelemetry's conventions."""
    instrument = _instrument("histogram", name, "s")
    if instrument is not None:
        instrument.record(value, attributes)


def counts_requests() -> bool:
    """Whether HTTP requests were counted under the name of the conventions since telemetry is on."""
    setup = SWITCH.setup
    return setup is not None and (setup.meter, "histogram", REQUEST_DURATION, "s") in _instruments


def _instrument(kind: str, name: str, unit: str) -> Any:
    """The instrument, made the first time; None while telemetry is off."""
    setup = SWITCH.setup
    if setup is None:
        return None
    key = (setup.meter, kind, name, unit)
    found = _instruments.get(key)
    if found is None:
        with _lock:
            if len(_instruments) >= _MOST_INSTRUMENTS:
                _instruments.clear()  # instruments of one name and kind are one for the meter
            made = getattr(setup.meter, f"create_{kind}")(name, unit=unit)
            found = _instruments[key] = made
    return found
