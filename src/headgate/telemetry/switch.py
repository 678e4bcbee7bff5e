"""Whether telemetry is on in this process: one place for everybody to look at, and a cheap look.

Holds no vendor's type at run time, so that looking needs no import.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Tracer

__all__ = ["KEPT", "NAME", "SWITCH", "Setup", "Switch"]

NAME = "headgate"
"""Of our instrumentation scope."""

KEPT = "headgate.kept"
"""What tells our sampler that the decision was made; it gets into no span."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What `setup_telemetry` has made.

    Attributes:
        tracer, meter: of our scope.
        api: `opentelemetry.trace`: to import it anew with every call would cost as much as the call.
        capture_content: prompts stand in spans, redacted.
        propagate_upstream: upstream requests carry the trace.
        stop: flushes and ends what was made here.
        keeps: whether a trace that begins now is sampled; None: ask the tracer.
    """

    tracer: Tracer
    meter: Meter
    api: ModuleType
    capture_content: bool = False
    propagate_upstream: bool = False
    stop: Callable[[], None] = lambda: None
    keeps: Callable[[], bool] | None = None


class Switch:
    """Holds the setup; None while telemetry is off."""

    __slots__ = ("setup",)

    def __init__(self) -> None:
        self.setup: Setup | None = None


SWITCH = Switch()
"""Of this process: OpenTelemetry's own providers are of the process, too."""
