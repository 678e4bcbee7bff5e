"""Whether telemetry is on in this process: one place for everybody to look at, and a cheap look.

Holds no vendor's type at run time, so that looking needs no import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from types import ModuleType

    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Tracer

__all__ = ["KEPT", "NAME", "SWITCH", "UNSAMPLED", "Setup", "Switch", "Unsampled"]

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


class Unsampled(NamedTuple):
    """A request that is served and not traced: what its client said of the trace it belongs to.

    Attributes:
        traceparent, tracestate: as W3C Trace Context writes them; empty where no trace had begun.
    """

    traceparent: str = ""
    tracestate: str = ""

    @property
    def ids(self) -> tuple[int, int] | None:
        """Of the client's trace and span; None where there are none."""
        if not self.traceparent:
            return None
        _, trace, span, _ = self.traceparent.split("-")
        return int(trace, 16), int(span, 16)

    def carried(self) -> Mapping[str, str] | None:
        """Headers that hand the client's decision on; None where there is nothing to hand on."""
        if not self.traceparent:
            return None
        headers = {"traceparent": self.traceparent}
        return {**headers, "tracestate": self.tracestate} if self.tracestate else headers


UNSAMPLED: ContextVar[Unsampled | None] = ContextVar("headgate_unsampled", default=None)
"""Set while a request is served that is not traced, so that nothing within begins one of its own."""
