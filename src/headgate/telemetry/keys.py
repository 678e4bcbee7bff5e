"""Key metrics for Prometheus, read at scrape time from the books the engine keeps anyway.

    headgate_key_requests_total{key,outcome}     outcome: success, quota_error, other_error
    headgate_key_active{key,project}             1 while the key may be used, else 0
    headgate_key_disabled{key,project}           1 once the upstream refused the key itself
    headgate_key_recovers_seconds{key,project}   seconds until the key is wholly active, 0 if it is
    headgate_keys{state}                         number of keys that are active, exhausted, disabled

Those are a Gemini client's. A Claude client's begin with `headgate_claude_`, and have the label
`organisation` in place of `project`, so that one registry takes both.

Labels are names from the configuration: as many series as there are keys, and never a key's value.
Needs the `metrics` extra.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import Metric

from headgate.telemetry.metrics.key_families import key_families
from headgate.telemetry.metrics.rendering import empty

__all__ = ["KeyCollector"]

_STATES = ("ACTIVE", "EXHAUSTED", "DISABLED")


class KeyCollector:
    """A Prometheus collector over one client's keys.

    Args:
        read: `get_key_metrics` of a client, or anything that answers like it.
        prefix: what the names of the families begin with.
        group: what the provider counts quota against: a label, and a field of what `read` gives.
    """

    def __init__(
        self,
        read: Callable[[], Mapping[str, Any]],
        *,
        prefix: str = "headgate",
        group: str = "project",
    ) -> None:
        self._read = read
        self._prefix = prefix
        self._group = group

    def describe(self) -> Iterator[Metric]:
        """The families without samples, so that a registry notices a second collector."""
        return iter(_families(self._prefix, self._group))

    def collect(self) -> Iterator[Metric]:
        """The families as they stand now."""
        snapshot = self._read()
        requests, active, disabled, recovers, keys = _families(self._prefix, self._group)
        now = datetime.fromisoformat(snapshot["timestamp"])
        for key in snapshot["keys"]:
            labels = [key["name"], key[self._group] or ""]
            metrics = key["metrics"]
            requests.add_metric([key["name"], "success"], metrics["successful_requests"])
            requests.add_metric([key["name"], "quota_error"], metrics["quota_errors"])
            requests.add_metric([key["name"], "other_error"], metrics["other_errors"])
            active.add_metric(labels, float(key["is_active"]))
            disabled.add_metric(labels, float(key["status"] == "DISABLED"))
            until = key["retry_after"]
            left = 0.0 if until is None else (datetime.fromisoformat(until) - now).total_seconds()
            recovers.add_metric(labels, max(0.0, left))
        counts = Counter(key["status"] for key in snapshot["keys"])
        for state in _STATES:
            keys.add_metric([state.lower()], counts[state])
        return iter((requests, active, disabled, recovers, keys))


def _families(prefix: str, group: str) -> list[Any]:
    return [empty(family) for family in key_families(prefix, group)]
