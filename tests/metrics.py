"""Records and scrapes for tests of metrics."""

from __future__ import annotations

from itertools import count
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from headgate.core.call import Operation, Usage
from headgate.core.outcome import Kind, Outcome
from headgate.core.records import AttemptRecord, CallRecord
from headgate.telemetry.metrics.metrics import Metrics
from headgate.telemetry.of_registry import one_of
from headgate.testing import VirtualClock

MODEL = "gemini-3.8-flash"

_ids = count(1)


def attempt(kind: Kind = Kind.SUCCESS, **facts: Any) -> AttemptRecord:
    """An attempt of one second; `status` and `usage` are those of its outcome."""
    told = {name: facts.pop(name) for name in ("status", "usage") if name in facts}
    known: dict[str, Any] = {
        "request_id": f"r{next(_ids)}", "number": 1, "key_name": "one", "domain": "alpha",
        "model": MODEL, "started": 10.0, "ended": 11.0, "provider": "gemini",
        "outcome": Outcome(kind, "", told.get("status", 200 if kind is Kind.SUCCESS else None),
                           usage=told.get("usage")),
    }  # fmt: skip
    return AttemptRecord(**{**known, **facts})


def call(error: str | None = None, **facts: Any) -> CallRecord:
    """A call of one second with one attempt."""
    known: dict[str, Any] = {
        "request_id": f"r{next(_ids)}", "operation": Operation.GENERATE, "model": MODEL,
        "started": 10.0, "ended": 11.0, "attempts": 1, "rotations": 0, "retries": 0, "waited": 0.0,
        "key_name": "one", "usage": Usage(), "error": error, "provider": "gemini",
    }  # fmt: skip
    return CallRecord(**{**known, **facts})


def fresh(clock: VirtualClock) -> tuple[Metrics, CollectorRegistry]:
    """Metrics of a registry of their own."""
    registry = CollectorRegistry()
    return one_of(registry, Metrics, clock), registry


def values(text: str | CollectorRegistry) -> dict[str, float]:
    """Samples by name and labels, written as `name{a="x",b="y"}` with labels sorted."""
    shown = text if isinstance(text, str) else generate_latest(text).decode()
    found = {}
    for family in text_string_to_metric_families(shown):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found
