"""Every accepted metric stands in the catalogue under its name, type, labels and buckets (S4-22 …
S4-29, S2-05, S2-25, Appendix B); what is there is exported, and what is exported is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.metrics import attempt, call, fresh

from headgate.core.call import Usage
from headgate.policy.nano_prices import NOTHING
from headgate.telemetry.keys import KeyCollector
from headgate.telemetry.limits import ClaudeBooks, LimitBooks
from headgate.telemetry.metrics.books import Sheet
from headgate.telemetry.metrics.catalogue import BY_NAME, CATALOGUE, family_of, series_names
from headgate.telemetry.metrics.family import Category, Family, Feeder, Merge, Shape
from headgate.telemetry.metrics.reference import page
from headgate.testing import VirtualClock

ROOT = Path(__file__).parents[2]

SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)
GEMINI = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120)

ACCEPTED: dict[str, tuple[str, str, tuple[float, ...]]] = {
    # S4-22
    "http_requests_total": ("counter", "method endpoint status", ()),
    "http_request_duration_seconds": ("histogram", "method endpoint", SECONDS),
    "http_server_request_duration_seconds": (
        "histogram", "http_request_method http_route http_response_status_code",
        (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    ),
    "http_requests_in_progress": ("gauge", "method endpoint", ()),
    # S4-23
    "quota_requests_current_minute": ("gauge", "", ()),
    "quota_requests_today": ("gauge", "", ()),
    "quota_tokens_current_minute": ("gauge", "", ()),
    "quota_tokens_today": ("gauge", "", ()),
    "quota_rpm_remaining": ("gauge", "", ()),
    "quota_tpm_remaining": ("gauge", "", ()),
    "quota_exceeded_total": ("counter", "limit_type", ()),
    # S4-24
    "cache_operations_total": ("counter", "operation result", ()),
    "cache_hit_rate": ("gauge", "", ()),
    "cache_items_count": ("gauge", "layer", ()),
    # S4-25
    "gemini_api_calls_total": ("counter", "endpoint model status", ()),
    "gemini_api_duration_seconds": ("histogram", "endpoint model", GEMINI),
    "gemini_api_tokens_total": ("counter", "endpoint model", ()),
    # S4-26
    "subtopics_generated_total": ("counter", "", ()),
    "explanations_generated_total": ("counter", "", ()),
    "images_generated_total": ("counter", "source", ()),
    "content_quality_score": (
        "histogram", "content_type", tuple(step / 10 for step in range(11))
    ),
    # S4-27
    "application_errors_total": ("counter", "endpoint error_type", ()),
    "validation_failures_total": ("counter", "validator issue_type", ()),
    # S4-28
    "quota_rpm_limit": ("gauge", "", ()),
    "quota_tpm_limit": ("gauge", "", ()),
    "cache_size_bytes": ("gauge", "layer", ()),
    "circuit_breaker_state": ("gauge", "service", ()),
    "circuit_breaker_failures_total": ("counter", "service", ()),
    "circuit_breaker_successes_total": ("counter", "service", ()),
    "app_info": ("info", "version", ()),
    "db_pool_size": ("gauge", "", ()),
    "db_connections_in_use": ("gauge", "", ()),
    "db_pool_overflow": ("gauge", "", ()),
    "db_query_duration_seconds": (
        "histogram", "query_type", (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
    ),
    "db_errors_total": ("counter", "error_type", ()),
    # S2-05, S2-25 (Appendix B.3)
    "cak_rate_limit_checks_total": ("counter", "identifier result", ()),
    "cak_rate_limit_tokens_remaining": ("gauge", "identifier", ()),
    "cak_claude_api_calls_total": ("counter", "model status", ()),
    "cak_claude_tokens_total": ("counter", "model type", ()),
    "cak_claude_cost_dollars_total": ("counter", "", ()),
    # the canonical twins of Appendix B.2 and B.3
    "headgate_quota_used": ("gauge", "provider quota_domain model limit", ()),
    "headgate_quota_limit": ("gauge", "provider quota_domain model limit", ()),
    "headgate_admitted_requests_total": ("counter", "provider quota_domain model", ()),
    "headgate_tokens_total": ("counter", "provider model type", ()),
    "headgate_cache_requests_total": ("counter", "layer result", ()),
    "headgate_cache_items": ("gauge", "layer", ()),
    "headgate_upstream_requests_total": ("counter", "provider model code", ()),
    "headgate_upstream_duration_seconds": ("histogram", "provider model", None),
    "headgate_cost_usd_total": ("counter", "provider model", ()),
    "headgate_inbound_checks_total": ("counter", "scope result", ()),
    "headgate_inbound_tokens_remaining": ("gauge", "scope", ()),
}  # fmt: skip

VALUES = {
    ("quota_exceeded_total", "limit_type"): "rpm rpd tpm tpd",
    ("cache_operations_total", "operation"): "get set delete",
    ("cache_operations_total", "result"): "hit miss success failure",
    ("cache_items_count", "layer"): "memory redis",  # a process cannot count what a CDN keeps
    ("gemini_api_calls_total", "status"): "success failure quota_exceeded",
    ("images_generated_total", "source"): "gemini dalle imagen upload",
    ("content_quality_score", "content_type"): "subtopic explanation topic",
    ("headgate_tokens_total", "type"): "input output cache_read cache_write reasoning",
    ("cak_claude_tokens_total", "type"): "prompt completion",
    ("cak_claude_api_calls_total", "status"): "success error",
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_accepted_metric_has_its_type_labels_and_buckets(name: str) -> None:
    shape, labels, buckets = ACCEPTED[name]
    family = BY_NAME[name]
    assert (family.shape.value, " ".join(family.label_names)) == (shape, labels)
    assert buckets is None or family.buckets == buckets


@pytest.mark.parametrize(("name", "label"), VALUES)
def test_an_accepted_label_has_its_values(name: str, label: str) -> None:
    (found,) = [one for one in BY_NAME[name].labels if one.name == label]
    assert " ".join(found.values) == VALUES[name, label]


def test_s4_has_more_than_thirty_metrics_in_six_categories() -> None:
    """S4-28."""
    content = [family for family in CATALOGUE if family.feeder in (Feeder.CONTENT, Feeder.LEDGER)]
    assert len(content) > 30
    wanted = {Category.HTTP, Category.QUOTA, Category.CACHE, Category.GEMINI, Category.CONTENT}
    assert {family.category for family in content} >= {*wanted, Category.ERRORS}


def test_children_that_are_known_exist_at_zero() -> None:
    """B.1, B.2: the four limits, the valid pairs of cache operations and no others."""
    metrics, registry = fresh(VirtualClock())
    metrics.feed(*Feeder)
    text = generate_latest(registry).decode()
    for limit in ("rpm", "rpd", "tpm", "tpd"):
        assert f'quota_exceeded_total{{limit_type="{limit}"}} 0.0' in text
    pairs = set(re.findall(r'cache_operations_total\{operation="(\w+)",result="(\w+)"\}', text))
    assert pairs == {
        ("get", "hit"), ("get", "miss"), ("get", "failure"), ("set", "success"), ("set", "failure"),
        ("delete", "success"), ("delete", "failure"),
    }  # fmt: skip
    with pytest.raises(ValueError, match="set is success, failure"):
        metrics.content.cache_operation("set", "hit")


# ── lint ────────────────────────────────────────────────────────────────────────────────────────

KEPT = {"cache_items_count", "cache_hit_rate"}
"""Accepted names that break a rule of naming."""

FORBIDDEN = {"le", "quantile", "tenant", "user", "ip", "caller", "path", "url", "message", "key_value"}
UNITS = {"seconds", "bytes", "usd", "ratio", "percent", ""}


@pytest.mark.parametrize("family", CATALOGUE, ids=lambda family: family.name)
def test_names_labels_units_and_help_follow_the_rules(family: Family) -> None:
    """B.1, and the naming page of Prometheus' documentation."""
    assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", family.name)
    assert (family.shape is Shape.COUNTER) == family.name.endswith("_total")
    if family.shape is not Shape.HISTOGRAM and family.name not in KEPT:
        assert not family.name.endswith(("_sum", "_count", "_bucket", "_created"))
    assert family.unit in UNITS
    if family.unit in ("seconds", "bytes", "usd"):
        assert family.root.endswith(f"_{family.unit}")
    if "milliseconds" in family.name or "percent" in family.name:
        pytest.fail("base units only")
    assert re.fullmatch(r"[A-Z0-9].*[.;].*|[A-Z0-9].*\.", family.help), family.help
    assert family.help.rstrip().endswith((".", "deprecated."))
    assert "\n" not in family.help
    assert len(set(family.label_names)) == len(family.labels)
    assert not FORBIDDEN & set(family.label_names)
    for label in family.labels:
        assert re.fullmatch(r"[a-z_]+", label.name)
    assert bool(family.buckets) == (family.shape is Shape.HISTOGRAM)
    assert list(family.buckets) == sorted(set(family.buckets))
    for labels in family.known:
        assert len(labels) == len(family.labels)
        for label, value in zip(family.labels, labels, strict=True):
            assert value in label.values


def test_names_that_break_a_rule_say_so() -> None:
    """B.2: flagged where they are met."""
    assert "`_count` belongs to histograms" in BY_NAME["cache_items_count"].note
    assert BY_NAME["cache_hit_rate"].help.startswith("Percent")
    assert BY_NAME["cache_hit_rate"].help.endswith("deprecated.")
    for name in ("quota_requests_today", "quota_tokens_today"):
        assert "Los Angeles" in BY_NAME[name].help


def test_gauges_of_the_shared_ledger_are_never_summed() -> None:
    shared = [name for name in BY_NAME if name.startswith(("quota_", "headgate_quota_"))]
    gauges = [BY_NAME[name] for name in shared if BY_NAME[name].shape is Shape.GAUGE]
    assert len(gauges) == 11
    assert all(family.merge in (Merge.MAX, Merge.MIN) for family in gauges)


def test_every_kept_name_has_a_canonical_twin() -> None:
    """B.2, B.3; those of the content service alone have none."""
    alone = ("subtopics", "explanations", "images", "content", "application", "validation", "db_")
    for family in CATALOGUE:
        if (
            family.name.startswith(("headgate_", "http_server_", *alone))
            or family.name == "quota_exceeded_total"
        ):
            continue
        if family.name == "http_requests_in_progress":
            continue
        twin = re.split(r"[{\s]", family.twin)[0]
        known = twin in BY_NAME or ":" in twin or family_of(twin) is not None
        assert known, (family.name, family.twin)


# ── what is exported ────────────────────────────────────────────────────────────────────────────


def everything() -> CollectorRegistry:
    """A registry over which every part has told something."""
    clock = VirtualClock()
    metrics, registry = fresh(clock)
    metrics.feed(*Feeder)
    metrics.version = "0"
    for prefix, group in (
        ("headgate", "project"),
        ("headgate_claude", "organisation"),
        ("headgate_openai", "organisation"),
    ):  # fmt: skip
        registry.register(KeyCollector(lambda group=group: keys(group), prefix=prefix, group=group))
    limits, claude = LimitBooks(clock), ClaudeBooks(clock)
    registry.register(limits)
    registry.register(claude)
    limits.checked("user", "allowed", 3)
    claude.used("claude-x", 1, 1, 0.1, success=True)
    metrics.engine.price = lambda *_: NOTHING
    metrics.engine.attempt(attempt(usage=Usage(1), first_piece=10.5))
    metrics.engine.call(call("quota", cached=True, fallback="FailFast"))
    with metrics.http.visit("GET", "health"):
        pass
    metrics.content.gemini_call("create_subtopics", "m", "success", seconds=1, tokens=1)
    metrics.content.error("create_subtopics", "quota")
    metrics.content.validation_failure("topic", "empty")
    metrics.add("circuit_breaker_failures_total", 1, "m")
    metrics.add("circuit_breaker_successes_total", 1, "m")
    metrics.engine.serves("gemini")
    told = [family for family in CATALOGUE if family.shape is Shape.GAUGE or "cache_" in family.name]

    def state(source: object, sheet: Sheet) -> None:
        for family in told:
            if family.name in metrics._own and family.shape is not Shape.HISTOGRAM:
                sheet.put(family.name, 1, *(label.values[0] if label.values else "x"
                                            for label in family.labels))  # fmt: skip
        for family in CATALOGUE:
            if family.name.startswith(("headgate_store_",)) and family.shape is Shape.COUNTER:
                sheet.put(family.name, 1, "quota", "gemini")

    HELD.append(type("Source", (), {})())
    metrics.watch(HELD[-1], state)
    return registry


HELD: list[Any] = []


def keys(group: str) -> dict[str, Any]:
    metrics = {"successful_requests": 1, "quota_errors": 0, "other_errors": 0}
    key = {"name": "one", group: "alpha", "metrics": metrics, "is_active": True, "status": "ACTIVE",
           "retry_after": None}  # fmt: skip
    return {"timestamp": "2026-11-21T00:00:00+00:00", "keys": [key]}


def test_what_is_in_the_catalogue_is_exported_and_nothing_else() -> None:
    registry = everything()
    found: dict[str, set[tuple[str, ...]]] = {}
    for metric in registry.collect():
        for sample in metric.samples:
            known = family_of(sample.name)
            assert known is not None, sample.name
            labels = tuple(sorted(set(sample.labels) - {"le"}))
            assert labels == tuple(sorted(known.label_names)), sample.name
            assert metric.documentation == known.help
            found.setdefault(known.name, set()).add(labels)
    assert set(BY_NAME) - set(found) == set()


def test_promtool_has_nothing_to_say_but_of_kept_names() -> None:
    promtool = which("promtool")
    assert promtool is not None, "make test installs Debian's prometheus"
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=generate_latest(everything()), capture_output=True,
        timeout=30, check=False,
    )  # fmt: skip
    said = [line for line in (checked.stdout + checked.stderr).decode().splitlines() if line.strip()]
    assert [line for line in said if line.split()[0] not in KEPT] == []


# ── the reference ───────────────────────────────────────────────────────────────────────────────


def test_the_reference_is_what_the_catalogue_makes() -> None:
    """`python -m headgate.telemetry.metrics.reference > docs/reference/metrics.md` makes it anew."""
    assert (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8") == page()


def test_a_series_leads_to_its_family() -> None:
    for family in CATALOGUE:
        for name in series_names(family):
            assert family_of(name) is family
    assert family_of("http_request_duration_seconds") is None  # has no samples of that name
    assert family_of("never_heard_of_total") is None
