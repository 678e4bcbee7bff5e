"""What the content service tells Prometheus, by acceptance id: S4-22 … S4-28, S4-37; and S4-05."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.content import Content, answered, form, good_model, ordered, picture, prompt_of, refused
from tests.gateway import Client

from headgate.content import QuotaExceededError, generate_single_explanation_google_ai
from headgate.content.problems import PoorContentError
from headgate.testing import Answer, Broken, VirtualClock

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

NAMED = (
    "http_requests_total", "http_request_duration_seconds_bucket", "http_requests_in_progress",
    "quota_requests_current_minute", "quota_requests_today", "quota_tokens_current_minute",
    "quota_tokens_today", "quota_rpm_remaining", "quota_tpm_remaining", "quota_exceeded_total",
    "cache_operations_total", "cache_hit_rate", "cache_items_count", "gemini_api_calls_total",
    "gemini_api_duration_seconds_bucket", "gemini_api_tokens_total", "subtopics_generated_total",
    "explanations_generated_total", "images_generated_total", "content_quality_score_bucket",
    "application_errors_total", "validation_failures_total",
)  # fmt: skip
FURTHER = (
    "quota_rpm_limit", "quota_tpm_limit", "cache_size_bytes", "circuit_breaker_state",
    "circuit_breaker_failures_total", "circuit_breaker_successes_total", "app_info",
)  # fmt: skip


async def told(content: Content) -> Samples:
    text = (await content.get("/metrics")).body.decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


async def busy(clock: VirtualClock) -> Content:
    """A service that did something of everything."""

    def model(body: Mapping[str, Any]) -> Answer | Broken:
        prompt = prompt_of(body)
        if "Subtopic: Broken" in prompt:
            return refused(503)
        if "Subtopic: Thin" in prompt:
            return answered(json.dumps({"explanation": "Short."}))
        return good_model(body, delay=0.2)

    environ = {"GEMINI_API_KEY_ROTATION_MAX_RETRIES": "0"}
    content = Content(clock, model, environ=environ)
    await content.post("/api/create_subtopics", {"topic": "Bees"})
    await content.post("/api/create_subtopics", {"topic": "Bees"})
    await content.post("/api/create_subtopics", {"topic": ""})
    await content.post("/api/create_presentation", ordered(focus=["Good", "Broken", "Thin"]))
    body, headers = form(picture("PNG"))
    await content.ask("POST", "/api/image2topic", body, headers)
    await content.post("/api/generate_image", {"prompt": "Bees"})
    await content.post("/api/create_presentation", ordered(focus=[f"P {n}" for n in range(20)]))
    await content.ask("BREW", "/nowhere")
    return content


async def test_s4_28_every_name_is_exported_and_there_are_more_than_thirty(clock: VirtualClock) -> None:
    samples = await told(await busy(clock))
    names = {name for name, _ in samples}
    assert set(NAMED) | set(FURTHER) <= names
    families = {
        name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in names
    }
    assert len(families) > 30


async def test_s4_22_requests_by_handler_method_and_status(clock: VirtualClock) -> None:
    samples = await told(await busy(clock))
    where = {"method": "POST", "endpoint": "create_subtopics"}
    assert value(samples, "http_requests_total", **where, status="200") == 2
    assert value(samples, "http_requests_total", **where, status="400") == 1
    assert (
        value(samples, "http_requests_total", method="_OTHER", endpoint="_unmatched", status="404") == 1
    )
    assert value(samples, "http_request_duration_seconds_bucket", **where, le="0.1") == 2
    assert value(samples, "http_request_duration_seconds_bucket", **where, le="160.0") == 3
    assert value(samples, "http_requests_in_progress", **where) == 0


async def test_s4_23_quota_gauges_are_the_ledger_s_and_refusals_are_counted(
    clock: VirtualClock,
) -> None:
    content = Content(clock)
    idle = await told(content)
    assert value(idle, "quota_rpm_remaining") == 12
    assert [value(idle, "quota_exceeded_total", limit_type=kind) for kind in ("rpm", "tpd")] == [0, 0]
    samples = await told(await busy(clock))
    assert value(samples, "quota_exceeded_total", limit_type="rpm") == 1
    assert (
        value(samples, "quota_requests_today") == value(samples, "quota_requests_current_minute") == 5
    )
    assert value(samples, "quota_rpm_remaining") == 7
    assert value(samples, "quota_rpm_limit") == 12
    twin = {"provider": "gemini", "quota_domain": "alpha", "model": "gemini-3.8-flash", "limit": "rpm"}
    assert value(samples, "headgate_quota_used", **twin) == 5
    assert value(samples, "headgate_quota_limit", **twin) == 12


async def test_s4_24_operations_of_the_cache_in_valid_pairs_and_percent(clock: VirtualClock) -> None:
    samples = await told(await busy(clock))
    pairs = {labels for name, labels in samples if name == "cache_operations_total"}
    assert {(dict(pair)["operation"], dict(pair)["result"]) for pair in pairs} == {
        ("get", "hit"), ("get", "miss"), ("get", "failure"), ("set", "success"), ("set", "failure"),
        ("delete", "success"), ("delete", "failure"),
    }  # fmt: skip
    assert value(samples, "cache_operations_total", operation="get", result="hit") == 1
    assert 0 < value(samples, "cache_hit_rate") < 100
    assert value(samples, "cache_items_count", layer="memory") >= 4


async def test_s4_25_and_37_calls_by_function_and_by_the_model_that_answered(
    clock: VirtualClock,
) -> None:
    samples = await told(await busy(clock))
    answered_by = "gemini-3.8-flash"
    explains = {"endpoint": "generate_single_explanation_google_ai", "model": answered_by}
    assert value(samples, "gemini_api_calls_total", **explains, status="success") == 2
    assert value(samples, "gemini_api_calls_total", **explains, status="failure") == 1
    assert value(samples, "gemini_api_tokens_total", **explains) == 3000
    where = {"endpoint": "create_subtopics", "model": answered_by}
    assert value(samples, "gemini_api_duration_seconds_bucket", **where, le="0.5") == 1


async def test_s4_26_what_was_made_and_how_good_it_looks(clock: VirtualClock) -> None:
    samples = await told(await busy(clock))
    assert value(samples, "subtopics_generated_total") == 15
    assert value(samples, "explanations_generated_total") == 1
    sources = [
        value(samples, "images_generated_total", source=one) for one in ("gemini", "upload", "dalle")
    ]
    assert sources == [1, 1, 0]
    scores = [
        value(samples, "content_quality_score_bucket", content_type="explanation", le=bound)
        for bound in ("0.2", "+Inf")
    ]
    assert scores == [1, 2]


async def test_s4_27_errors_by_kind_and_never_in_words(clock: VirtualClock) -> None:
    samples = await told(await busy(clock))
    assert value(samples, "validation_failures_total", validator="request", issue_type="empty") == 1
    assert (
        value(samples, "validation_failures_total", validator="explanation", issue_type="too_short")
        == 1
    )
    assert value(samples, "circuit_breaker_failures_total", service="gemini-3.8-flash") == 1
    errors = {
        dict(labels)["error_type"] for name, labels in samples if name == "application_errors_total"
    }
    assert errors
    assert all(word.replace("_", "").isalnum() for word in errors)


async def test_scrapes_that_accept_openmetrics_get_it(clock: VirtualClock) -> None:
    content = Content(clock)
    plain = await content.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    kind = "application/openmetrics-text; version=1.0.0"
    new = await content.get("/metrics", accept=kind)
    assert new.headers["content-type"].startswith(kind)
    assert new.body.endswith(b"# EOF\n")


# ── S4-05, and the application under another ────────────────────────────────────────────────────


async def test_s4_05_one_explanation_kept_under_all_that_shapes_it(clock: VirtualClock) -> None:
    content = Content(clock)
    one = await generate_single_explanation_google_ai("Bees", "Honey")
    assert one["subtopic"] == "Honey"
    assert one["error"] is None
    assert await generate_single_explanation_google_ai("Bees", "Honey") == one
    assert len(content.sent) == 1
    for other in (
        {"education_level": "juniorLevel"}, {"level_of_detail": "highDetail"},
        {"learning_style": "Visual"}, {"language": "de"},
    ):  # fmt: skip
        await generate_single_explanation_google_ai("Bees", "Honey", **other)
    assert len(content.sent) == 5


async def test_s4_05_under_a_reservation_nothing_is_booked_twice_and_what_is_not_needed_comes_back(
    clock: VirtualClock,
) -> None:
    from headgate.content import get_quota_tracker

    content = Content(clock, environ={"QUOTA_RPM": "2", "QUOTA_SAFETY_MARGIN": "1"})
    tracker = get_quota_tracker()
    first, second = await tracker.areserve(1500, count=2)
    await generate_single_explanation_google_ai("Bees", "Honey", reservation=first)
    assert (await content.stats())["current_minute"]["requests"] == 2
    await generate_single_explanation_google_ai("Bees", "Honey", reservation=second)  # it was kept
    assert (await content.stats())["current_minute"] == {"requests": 1, "tokens": 1500}


async def test_s4_05_its_failures_are_errors(clock: VirtualClock) -> None:
    content = Content(clock, lambda body: answered("no JSON"), environ={"QUOTA_RPM": "1"})
    with pytest.raises(PoorContentError):
        await generate_single_explanation_google_ai("Bees", "Honey")
    with pytest.raises(QuotaExceededError):
        await generate_single_explanation_google_ai("Bees", "Wax")
    assert len(content.sent) == 1


async def test_the_application_is_mounted_under_any_other(clock: VirtualClock) -> None:
    content = Content(clock)
    around = Starlette(routes=[Mount("/learn", app=content.app)])
    client = Client(around, "POST", "/learn/api/create_subtopics", {"topic": "Bees"})  # type: ignore[arg-type]
    got = await client.run()
    assert got.status == 200
    place = got.headers["content-location"]
    assert place.startswith("/learn/api/results/")
    again = await Client(around, "GET", place).run()  # type: ignore[arg-type]
    assert again.json == got.json
