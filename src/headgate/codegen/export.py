"""A client's measures as JSON, Prometheus text and CSV. docs/reference/codegen.md has the shapes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from headgate.codegen.measures import Measures

__all__ = ["exported"]


def exported(
    measures: Measures,
    path: Mapping[str, Any],
    wall: float,
    kind: str,
) -> str:
    """The measures in one format.

    Args:
        path: `breaker` and `rate_limits`, as in the health check.
        wall: Unix time.
        kind: `json`, `prometheus` or `csv`; another raises `ValueError`.
    """
    writers: dict[str, Callable[[], str]] = {
        "json": lambda: json.dumps(_tree(measures, wall), indent=2),
        "prometheus": lambda: _prometheus(measures, path),
        "csv": lambda: _csv(measures),
    }
    if kind not in writers:
        raise ValueError(f"metrics are exported as {', '.join(writers)}; got {kind!r}")
    return writers[kind]()


def _tree(measures: Measures, wall: float) -> dict[str, Any]:
    return {
        "export_timestamp": datetime.fromtimestamp(wall, UTC).isoformat(timespec="microseconds"),
        "performance_stats": measures.stats().model_dump(),
        "error_summary": measures.errors(),
        "endpoint_stats": measures.endpoints(),
        "rate_limit_events": [
            {**event, "at": datetime.fromtimestamp(event["at"], UTC).isoformat(timespec="microseconds")}
            for event in measures.rate_limit_events()
        ],
    }


def _prometheus(measures: Measures, path: Mapping[str, Any]) -> str:
    """Text format 0.0.4. Labels are endpoint names, classes and results: a fixed set."""
    stats = measures.stats()
    lines = _family("headgate_codegen_requests_total", "counter", "Attempts by endpoint and result.")
    for (endpoint, result), number in sorted(measures.totals().items()):
        lines.append(_sample("requests_total", number, endpoint=endpoint, result=result))
    lines += _family("headgate_codegen_cache_hits_total", "counter", "Answers from the cache.")
    for endpoint, number in sorted(measures.kept().items()):
        lines.append(_sample("cache_hits_total", number, endpoint=endpoint))
    lines += _family(
        "headgate_codegen_response_seconds", "gauge", "Quantiles of response times, last hour."
    )
    for share, value in (
        ("0.5", stats.p50_response_time_ms),
        ("0.95", stats.p95_response_time_ms),
        ("0.99", stats.p99_response_time_ms),
    ):
        lines.append(_sample("response_seconds", value / 1000, quantile=share))
    lines += _family("headgate_codegen_error_ratio", "gauge", "Share of failed attempts, last hour.")
    lines.append(_sample("error_ratio", stats.error_rate / 100))
    lines += _family("headgate_codegen_breaker_open", "gauge", "1 while the breaker refuses calls.")
    lines.append(_sample("breaker_open", int(path["breaker"]["state"] == "open")))
    lines += _family("headgate_codegen_rate_limit", "gauge", "What a class may send in its period now.")
    for group, view in sorted(path["rate_limits"].items()):
        lines.append(_sample("rate_limit", view["limit"], group=group))
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]


def _sample(name: str, value: float, **labels: str) -> str:
    shown = ",".join(f'{label}="{text}"' for label, text in labels.items())
    return f"headgate_codegen_{name}{f'{{{shown}}}' if shown else ''} {value}"


def _csv(measures: Measures) -> str:
    """One row for all endpoints together and one for each."""
    out = io.StringIO()
    columns = ["endpoint", "total_requests", "success_rate", "average_response_time_ms", "error_rate"]
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    stats = measures.stats()
    writer.writerow(
        {
            "endpoint": "*",
            "total_requests": stats.total_requests,
            "success_rate": 100 - stats.error_rate if stats.total_requests else 0.0,
            "average_response_time_ms": stats.average_response_time_ms,
            "error_rate": stats.error_rate,
        }
    )
    for endpoint, row in measures.endpoints().items():
        writer.writerow({"endpoint": endpoint, **row})
    return out.getvalue()
