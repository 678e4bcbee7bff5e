"""What an operator sees: traces, metrics, logs.

    setup_telemetry("my-service", otlp_endpoint="http://collector:4318")

Everything here does nothing, cheaply, until `setup_telemetry` was called, and for ever where the
OpenTelemetry SDK (the extra `otel`) is not installed. How to: docs/how-to/trace-with-otlp.md;
reference: docs/reference/telemetry.md. Names are imported when they are first used, and vendors where
they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate.telemetry.logs import current_request_id, setup_logging
    from headgate.telemetry.metering import record_gauge, record_metric
    from headgate.telemetry.middleware import TelemetryMiddleware
    from headgate.telemetry.setup import setup_telemetry, shutdown_telemetry
    from headgate.telemetry.spans import trace_operation, trace_span

_ROOMS = {
    "logs": ("current_request_id", "setup_logging"),
    "metering": ("record_gauge", "record_metric"),
    "middleware": ("TelemetryMiddleware",),
    "setup": ("setup_telemetry", "shutdown_telemetry"),
    "spans": ("trace_operation", "trace_span"),
}
"""The public names, by the room they live in."""

_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "TelemetryMiddleware",
    "current_request_id",
    "record_gauge",
    "record_metric",
    "setup_logging",
    "setup_telemetry",
    "shutdown_telemetry",
    "trace_operation",
    "trace_span",
]


def __getattr__(name: str) -> object:
    room = _ROOM_OF.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
