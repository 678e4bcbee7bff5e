"""The content service's routes, by acceptance id: S4-01 … S4-08, S4-16 … S4-20, S4-38."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import pytest
from tests.content import (
    ADMIN_KEY,
    CALLER_KEY,
    SUBTOPICS,
    Content,
    answered,
    explanation_of,
    form,
    good_model,
    ordered,
    picture,
    prompt_of,
    refused,
    system_of,
)
from tests.gateway import Client

from headgate.content import Held, get_quota_tracker
from headgate.testing import Answer, Broken, VirtualClock


async def test_s4_16_subtopics_as_accepted_and_s4_01_books_what_was_used(clock: VirtualClock) -> None:
    content = Content(clock, lambda body: good_model(body, tokens=900))
    got = await content.post("/api/create_subtopics", {"topic": "Python Programming"})
    assert got.status == 200
    assert got.json == {
        "subtopics": SUBTOPICS,
        "count": 15,
        "quality_score": 1.0,
        "warnings": None,
        "metadata": {"cache_hit": False, "cached": False},
    }
    assert got.headers["cache-control"] == "no-store"
    assert got.headers["x-request-id"]
    stats = await content.stats()
    assert stats["current_minute"] == {"requests": 1, "tokens": 900}  # the truth, not the estimate
    assert stats["remaining"]["rpm"] == 11
    await content.app.aclose()


async def test_s4_16_the_model_may_answer_an_array_an_object_or_a_fenced_one(
    clock: VirtualClock,
) -> None:
    texts = iter([json.dumps({"subtopics": SUBTOPICS}), f"```json\n{json.dumps(SUBTOPICS)}\n```"])
    content = Content(clock, lambda body: answered(next(texts)))
    for topic in ("Bees", "Ants"):
        got = await content.post("/api/create_subtopics", {"topic": topic})
        assert got.json["subtopics"] == SUBTOPICS


async def test_s4_16_a_second_identical_call_is_a_hit_and_costs_nothing(clock: VirtualClock) -> None:
    content = Content(clock)
    first = await content.post("/api/create_subtopics", {"topic": "Python  Programming"})
    again = await content.post("/api/create_subtopics", {"topic": "python programming"})
    assert again.json == {**first.json, "metadata": {"cache_hit": True, "cached": True}}
    assert len(content.sent) == 1
    assert (await content.stats())["current_minute"]["requests"] == 1


@pytest.mark.parametrize(
    "topic",
    ["变量和函数", "كتابة البرامج", "برنامه‌نویسی", "C++ & C#", "Ελληνικά", "Ünïcödé?", "3D"],
)
async def test_s4_16_topics_of_every_script_are_taken(clock: VirtualClock, topic: str) -> None:
    content = Content(clock)
    assert (await content.post("/api/create_subtopics", {"topic": topic})).status == 200
    assert prompt_of(content.sent[0]) == f"Topic: {topic}"


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({}, 400, "missing"),
        ({"topic": 7}, 400, "text"),
        ({"topic": "  "}, 400, "1 to 200"),
        ({"topic": "x" * 201}, 400, "1 to 200"),
        ({"topic": "a\u0000b"}, 400, "nobody can read"),
        ({"topic": "a\u202eb"}, 400, "nobody can read"),  # it reads in another direction than it shows
        ({"topic": "?!…"}, 400, "no letter"),
        ([1], 400, "object"),
        (b"{", 400, "no JSON"),
        (b"[" * 5000, 400, "no JSON"),
        (b'{"topic": "' + b"x" * 70_000 + b'"}', 413, "larger"),
    ],
)
async def test_s4_16_what_is_wrong_with_a_request_is_named_and_costs_nothing(
    clock: VirtualClock, body: object, status: int, word: str
) -> None:
    content = Content(clock)
    got = await content.post("/api/create_subtopics", body)
    assert got.status == status
    assert word in got.json["error"]
    assert got.json["request_id"] == got.headers["x-request-id"]
    assert not content.sent
    assert (await content.stats())["current_minute"]["requests"] == 0


async def test_bodies_of_another_kind_paths_and_methods_that_are_not_there(clock: VirtualClock) -> None:
    content = Content(clock)
    headers = {"content-type": "text/plain"}
    got = await content.ask("POST", "/api/create_subtopics", {"topic": "Bees"}, headers)
    assert got.status == 415  # no form of another site can send JSON as such
    assert (await content.get("/api/create_subtopics")).status == 405
    missing = await content.get("/api/nothing")
    assert missing.status == 404
    assert "error" in missing.json


async def test_s4_16_poor_subtopics_are_not_given_and_middling_ones_not_kept(
    clock: VirtualClock,
) -> None:
    texts = iter([json.dumps(["a", "a", "a", "a", "b"]), "no list at all"])
    content = Content(clock, lambda body: answered(next(texts)))
    for _ in range(2):
        got = await content.post("/api/create_subtopics", {"topic": "Bees"})
        assert got.status == 500
        assert got.json["issues"]
    middling = Content(clock, lambda body: answered(json.dumps(SUBTOPICS[:8] + SUBTOPICS[:2])))
    for _ in range(2):
        got = await middling.post("/api/create_subtopics", {"topic": "Bees"})
        assert 0.3 <= got.json["quality_score"] < 0.6
        assert got.json["metadata"]["cache_hit"] is False
        assert got.json["warnings"]
    assert len(middling.sent) == 2


# ── quota: S4-02, S4-06 … S4-08 ─────────────────────────────────────────────────────────────────


async def test_s4_06_and_08_the_13th_call_of_a_minute_hears_the_accepted_body_and_the_true_wait(
    clock: VirtualClock,
) -> None:
    content = Content(clock)
    for number in range(12):
        assert (await content.post("/api/create_subtopics", {"topic": f"Topic {number}"})).status == 200
        await clock.sleep(1.0)
    got = await content.post("/api/create_subtopics", {"topic": "One more"})
    assert got.status == 429
    seconds = int(got.headers["retry-after"])
    assert 47 <= seconds <= 50  # the first was charged 12 s ago
    assert got.json == {
        "error": "quota_exceeded",
        "message": "RPM limit exceeded (15 per minute)",
        "retry_after": f"{seconds} seconds",
        "request_id": got.headers["x-request-id"],
    }
    assert len(content.sent) == 12
    await clock.sleep(seconds)
    assert (await content.post("/api/create_subtopics", {"topic": "One more"})).status == 200


@pytest.mark.parametrize(
    ("environ", "message", "least"),
    [
        ({"QUOTA_RPD": "2", "QUOTA_SAFETY_MARGIN": "1"}, "RPD limit exceeded (2 per day)", 3600),
        ({"QUOTA_TPM": "4000", "QUOTA_SAFETY_MARGIN": "1"}, "TPM limit exceeded (4000 per minute)", 50),
        ({"QUOTA_TPD": "4000", "QUOTA_SAFETY_MARGIN": "1"}, "TPD limit exceeded (4000 per day)", 3600),
    ],
)
async def test_s4_06_each_limit_says_its_own_words_and_wait(
    clock: VirtualClock, environ: dict[str, str], message: str, least: int
) -> None:
    content = Content(clock, environ=environ)
    for number in range(2):
        assert (await content.post("/api/create_subtopics", {"topic": f"Topic {number}"})).status == 200
    got = await content.post("/api/create_subtopics", {"topic": "Another"})
    assert got.status == 429
    assert got.json["message"] == message
    assert int(got.headers["retry-after"]) > least  # never a constant minute for a daily limit


async def test_s4_07_an_earlier_result_stands_in_and_says_so(clock: VirtualClock) -> None:
    content = Content(clock, environ={"QUOTA_RPD": "1"})
    await content.post("/api/create_subtopics", {"topic": "Bees"})
    await clock.sleep(3601)  # the result itself is not kept any longer
    got = await content.post("/api/create_subtopics", {"topic": "Bees"})
    assert got.status == 200
    assert got.json["subtopics"] == SUBTOPICS
    assert got.json["cached"] is True
    assert got.json["from_fallback"] is True
    statistics = (await content.stats())["statistics"]
    assert (statistics["quota_exceeded"], statistics["fallback_used"]) == (1, 1)
    off = Content(clock, environ={"QUOTA_RPM": "1", "QUOTA_ENABLE_FALLBACK": "no"})
    await off.post("/api/create_subtopics", {"topic": "Bees"})
    assert (await off.post("/api/create_subtopics", {"topic": "Ants"})).status == 429


async def test_s4_01_a_provider_s_refusal_is_a_429_in_the_accepted_words(clock: VirtualClock) -> None:
    refusal = refused(quota="GenerateRequestsPerDayPerProjectPerModel-FreeTier")
    content = Content(clock, lambda body: refusal)
    got = await content.post("/api/create_subtopics", {"topic": "Bees"})
    assert got.status == 429
    assert got.json["error"] == "quota_exceeded"
    assert got.json["message"].startswith("RPD limit exceeded")
    assert int(got.headers["retry-after"]) > 60


async def test_s4_01_a_failed_call_keeps_its_request_and_gives_its_tokens_back(
    clock: VirtualClock,
) -> None:
    content = Content(clock, lambda body: refused(400))
    got = await content.post("/api/create_subtopics", {"topic": "Bees"})
    assert got.status == 400
    assert "CANARY" not in got.body.decode()
    assert (await content.stats())["current_minute"] == {"requests": 1, "tokens": 0}


async def test_s4_02_and_17_a_presentation_as_accepted_each_item_settled_by_itself(
    clock: VirtualClock,
) -> None:
    content = Content(clock, lambda body: good_model(body, tokens=700))
    got = await content.post("/api/create_presentation", ordered())
    assert got.status == 200
    assert (got.json["success_count"], got.json["failed_count"]) == (3, 0)
    first = got.json["explanations"][0]
    assert first == {
        "subtopic": "Variables",
        **explanation_of("Subtopic: Variables"),
        "error": None,
        "quality_score": 1.0,
        "warnings": None,
    }
    assert [item["subtopic"] for item in got.json["explanations"]] == [
        "Variables",
        "Functions",
        "Classes",
    ]
    assert "about 300 words" in system_of(content.sent[0])  # S4-17: "Detailed" has a capital
    assert (await content.stats())["current_minute"] == {"requests": 3, "tokens": 2100}


async def test_s4_02_what_does_not_fit_as_a_whole_begins_nothing(clock: VirtualClock) -> None:
    content = Content(clock)
    focus = [f"Part {number}" for number in range(15)]
    got = await content.post("/api/create_presentation", ordered(focus=focus))
    assert got.status == 429
    assert got.json["fits_now"] == 12
    assert not content.sent
    assert (await content.stats())["current_minute"] == {"requests": 0, "tokens": 0}
    assert (await content.post("/api/create_presentation", ordered(focus=focus[:12]))).status == 200


async def test_s4_02_only_what_is_not_kept_counts(clock: VirtualClock) -> None:
    content = Content(clock)
    focus = [f"Part {number}" for number in range(15)]
    await content.post("/api/create_presentation", ordered(focus=focus[:10]))
    got = await content.post("/api/create_presentation", ordered(focus=focus[:12]))
    assert got.json["success_count"] == 12
    assert len(content.sent) == 12
    assert (await content.post("/api/create_presentation", ordered(focus=focus[:13]))).status == 429


async def test_s4_02_who_may_wait_gets_what_fits_and_the_rest_when_its_turn_comes(
    clock: VirtualClock,
) -> None:
    content = Content(clock)
    for number in range(4):
        await content.post("/api/create_subtopics", {"topic": f"Topic {number}"})
    await clock.sleep(35.0)
    focus = [f"Part {number}" for number in range(10)]
    impatient = await content.post("/api/create_presentation", ordered(focus=focus))
    assert (impatient.status, impatient.json["fits_now"]) == (429, 8)
    began = clock.monotonic()
    got = await content.post("/api/create_presentation", ordered(focus=focus), prefer="wait=30")
    assert got.json["success_count"] == 10
    assert 20 < clock.monotonic() - began <= 30
    assert (await content.stats())["current_minute"]["requests"] == 10


async def test_s4_02_two_presentations_at_once_never_share_what_one_has_put_aside(
    clock: VirtualClock,
) -> None:
    content = Content(clock, lambda body: good_model(body, delay=2.0))
    orders = [ordered(f"Topic {n}", [f"Part {n} {m}" for m in range(7)]) for n in range(3)]
    asked = [content.post("/api/create_presentation", order) for order in orders]
    got = await asyncio.gather(*asked)
    assert sorted(one.status for one in got) == [200, 429, 429]
    assert len(content.sent) == 7


async def test_s4_02_the_same_subtopic_twice_is_made_once(clock: VirtualClock) -> None:
    content = Content(clock)
    got = await content.post("/api/create_presentation", ordered(focus=["Honey", "Wax", "honey"]))
    items = got.json["explanations"]
    assert [item["subtopic"] for item in items] == ["Honey", "Wax", "honey"]
    assert items[0]["explanation"] == items[2]["explanation"]
    assert (got.json["success_count"], len(content.sent)) == (3, 2)


async def test_s4_02_parts_fail_by_themselves_and_say_why(clock: VirtualClock) -> None:
    def model(body: Mapping[str, Any]) -> Answer | Broken:
        prompt = prompt_of(body)
        if "Subtopic: Refused" in prompt:
            return refused(400)
        if "Subtopic: Thin" in prompt:
            return answered(json.dumps({**explanation_of(prompt), "explanation": "Short."}))
        return good_model(body)

    content = Content(clock, model)
    got = await content.post(
        "/api/create_presentation", ordered(focus=["Good", "Refused", "Thin", "Fine"])
    )
    assert got.status == 200
    assert (got.json["success_count"], got.json["failed_count"]) == (2, 2)
    by_name = {item["subtopic"]: item for item in got.json["explanations"]}
    assert by_name["Thin"]["error"] == "validation_failed"
    assert by_name["Thin"]["warnings"]
    assert by_name["Refused"]["error"] == "The model refused the request as it is."
    assert by_name["Refused"]["explanation"] is None
    assert by_name["Good"]["error"] is None


async def test_s4_02_an_open_breaker_says_so_for_each_and_keeps_no_quota(clock: VirtualClock) -> None:
    environ = {"GEMINI_API_KEY_ROTATION_MAX_RETRIES": "0", "QUOTA_RPM": "100"}
    content = Content(clock, lambda body: refused(503), environ=environ)
    for number in range(5):
        got = await content.post("/api/create_subtopics", {"topic": f"Topic {number}"})
        assert got.status == 503
    before = (await content.stats())["current_minute"]["requests"]
    got = await content.post("/api/create_presentation", ordered())
    assert {item["error"] for item in got.json["explanations"]} == {"circuit_breaker_open"}
    assert (await content.stats())["current_minute"]["requests"] == before
    state = await content.get("/api/circuit-breaker/gemini-3.8-flash/state")
    assert state.json == {"name": "gemini-3.8-flash", "state": "open"}
    health = (await content.get("/api/health")).json
    assert health["status"] == "healthy_with_warnings"
    reset = await content.post("/api/circuit-breaker/gemini-3.8-flash/reset", {})
    assert reset.json["state"] == "closed"
    assert (await content.get("/api/circuit-breaker/nobody/state")).status == 404


async def test_s4_02_as_many_at_once_as_is_accepted(clock: VirtualClock) -> None:
    from headgate.content.explanations import workers_for

    assert [workers_for(n) for n in (1, 2, 3, 10, 20, 60)] == [2, 2, 2, 6, 11, 20]
    content = Content(clock, lambda body: good_model(body, delay=1.0))
    await content.post("/api/create_presentation", ordered(focus=[f"Part {n}" for n in range(10)]))
    began = [sent.at - content.transport.sent[0].at for sent in content.transport.sent]
    assert [sum(at < 0.5 for at in began), sum(0.5 < at < 1.5 for at in began)] == [6, 4]


async def test_progress_comes_as_events_in_order_of_completion(clock: VirtualClock) -> None:
    content = Content(clock, lambda body: good_model(body, delay=20.0))
    got = await content.post("/api/create_presentation", ordered(), accept="text/event-stream")
    assert got.status == 200
    assert got.headers["content-type"].startswith("text/event-stream")
    events = [
        (block.split("\n")[0].removeprefix("event: "), json.loads(block.split("\n")[1][6:]))
        for block in got.body.decode().strip().split("\n\n")
        if block.startswith("event:")
    ]
    assert [name for name, _ in events] == ["progress", "progress", "progress", "done"]
    assert [data["done"] for _, data in events[:3]] == [1, 2, 3]
    assert events[-1][1]["success_count"] == 3
    assert b": working" in got.body  # proxies close a stream in which nothing happens
    assert (await content.stats())["current_minute"]["requests"] == 3
    refusal = await content.post(
        "/api/create_presentation",
        ordered(focus=[f"P {n}" for n in range(15)]),
        accept="text/event-stream",
    )
    assert refusal.status == 429


async def test_who_goes_away_gives_back_what_was_put_aside_for_what_never_began(
    clock: VirtualClock,
) -> None:
    content = Content(clock, lambda body: good_model(body, delay=5.0))
    focus = [f"Part {number}" for number in range(10)]
    body = json.dumps(ordered(focus=focus)).encode()
    events = {"accept": "text/event-stream"}
    client = Client(content.app, "POST", "/api/create_presentation", body, events)  # type: ignore[arg-type]
    running = asyncio.get_running_loop().create_task(client.run())
    await clock.sleep(1.0)
    assert len(content.sent) == 6
    client.go_away()
    await asyncio.wait([running])
    await clock.sleep(1.0)
    assert content.transport.open_exchanges == 0
    assert len(content.sent) == 6
    assert (await content.stats())["current_minute"]["requests"] == 6
    assert content.app.serving == 0


# ── images: S4-03, S4-04, S4-18, S4-19 ──────────────────────────────────────────────────────────


async def test_s4_03_and_18_the_topic_of_an_image_by_its_bytes_and_not_by_its_name(
    clock: VirtualClock,
) -> None:
    content = Content(clock)
    data = picture("PNG")
    for name in ("lighthouse.png", "another.jpg"):
        body, headers = form(data, name)
        got = await content.ask("POST", "/api/image2topic", body, headers)
        assert got.json == {"generated_topic": "Lighthouses", "quality_score": 1.0, "warnings": None}
    assert len(content.sent) == 1
    sent = content.sent[0]["contents"][0]["parts"][0]["inlineData"]
    assert sent["mimeType"] == "image/jpeg"
    other, headers = form(picture("PNG", (17, 16)), "lighthouse.png")
    await content.ask("POST", "/api/image2topic", other, headers)
    assert len(content.sent) == 2  # the same name is another picture's


@pytest.mark.parametrize(
    ("data", "field", "status"),
    [
        (b"", "image", 400),
        (b"GIF89a", "image", 400),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "image", 400),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image", 415),
        (b"%PDF-1.7", "image", 415),
        (b"\xff\xd8\xff" + b"\0" * 10_600_000, "image", 413),
        (b"x", "file", 400),
    ],
)
async def test_s4_18_what_is_no_picture_is_refused_before_anything_is_spent(
    clock: VirtualClock, data: bytes, field: str, status: int
) -> None:
    content = Content(clock)
    body, headers = form(data, "a.png", field)
    got = await content.ask("POST", "/api/image2topic", body, headers)
    assert got.status == status
    assert not content.sent
    assert (await content.ask("POST", "/api/image2topic", b"", {})).status == 415


async def test_s4_18_forms_of_any_bytes_are_answered(clock: VirtualClock) -> None:
    content = Content(clock, environ={"QUOTA_RPM": "1000"})
    whole, headers = form(picture("PNG"))
    seen = set()
    for number in range(80):
        noise = sha256(b"%d" % number).digest()
        body = bytearray(whole)
        for at, sign in zip(noise[:6:2], noise[1:6:2], strict=True):
            body[at * 7 % len(body)] = sign
        sent = bytes(body[: -noise[6] or None]) if number % 3 == 0 else bytes(body)
        seen.add((await content.ask("POST", "/api/image2topic", sent, headers)).status)
    assert {200, 400} <= seen <= {200, 400, 413, 415}


async def test_s4_04_and_19_an_image_of_a_dead_model_s_successor_books_500_and_is_kept(
    clock: VirtualClock,
) -> None:
    environ = {"HEADGATE_CONTENT_IMAGE_MODEL": "imagen-4.0-generate-001"}
    content = Content(clock, environ=environ)
    for _ in range(2):
        got = await content.post("/api/generate_image", {"prompt": "A lighthouse\nin fog"})
        assert got.json["format"] == "base64_png"
        assert got.headers["content-location"].startswith("/api/results/")
    assert len(content.sent) == 1
    assert "gemini-3.1-flash-image" in content.transport.sent[0].request.url
    metrics = (await content.get("/metrics")).body.decode()
    assert 'gemini_api_tokens_total{endpoint="generate_image"' in metrics
    assert "quota_tokens_current_minute 500.0" in metrics  # booked, although 1390 were used
    await content.post("/api/generate_image", {"prompt": "A lighthouse\nin fog, at night"})
    assert len(content.sent) == 2
    assert (await content.post("/api/generate_image", {"prompt": "x" * 501})).status == 400


async def test_s4_04_another_maker_of_images_is_a_class_with_one_method(clock: VirtualClock) -> None:
    class Painter:
        async def make(self, prompt: str, model: str, held: Held, *, caller: str) -> bytes:
            assert (prompt, held.tokens) == ("Bees", 500)
            await get_quota_tracker().asettle(held, 321)
            return picture("JPEG")

    content = Content(clock, maker=Painter())
    got = await content.post("/api/generate_image", {"prompt": "Bees"})
    assert base64.b64decode(got.json["image"]).startswith(b"\x89PNG")
    assert not content.sent
    metrics = (await content.get("/metrics")).body.decode()
    assert "quota_tokens_current_minute 321.0" in metrics  # in the ledger of the model for images
    assert (await content.stats())["current_minute"]["requests"] == 0


# ── what is told: S4-20, and who may ask ────────────────────────────────────────────────────────


async def test_s4_20_health_and_readiness_cost_no_generation(clock: VirtualClock) -> None:
    content = Content(clock)
    health, ready = await content.get("/api/health"), await content.get("/api/ready")
    assert health.status == ready.status == 200
    assert health.json["status"] == "healthy"
    assert health.json["timestamp"].endswith("+00:00")
    assert set(health.json["checks"]) == {
        "database", "redis", "gemini_api", "quota", "circuit_breakers", "system_resources",
    }  # fmt: skip
    assert ready.json == {
        "status": "ready",
        "ready": True,
        "checks": {
            "redis": {"status": "disabled", "response_time": None},
            "gemini_api": {"status": "configured"},
            "quota": {"status": "healthy", "rpm_usage": 0.0, "tpm_usage": 0.0},
        },
    }
    for alias in ("/health", "/ready", "/readyz", "/livez"):
        assert (await content.get(alias)).status == 200
    for number in range(11):
        await content.post("/api/create_subtopics", {"topic": f"Topic {number}"})
    full = await content.get("/api/ready")
    assert (full.status, full.json["checks"]["quota"]["status"]) == (200, "warning")
    assert (await content.get("/api/health")).json["status"] == "healthy_with_warnings"
    content.app.drain()
    drained = await content.get("/api/ready")
    assert (drained.status, drained.json["status"], drained.json["ready"]) == (503, "not_ready", False)
    assert not [body for body in content.sent if not prompt_of(body).startswith("Topic: ")]


async def test_s4_20_a_key_that_is_refused_for_good_makes_it_unhealthy(clock: VirtualClock) -> None:
    bad = Answer(
        400,
        body=json.dumps({
            "error": {
                "code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT",
                "details": [{
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
                }],
            }
        }).encode(),
    )  # fmt: skip
    content = Content(clock, lambda body: bad)
    for number in range(2):
        got = await content.post("/api/create_subtopics", {"topic": f"Topic {number}"})
        assert got.status == 503
    assert (await content.get("/api/health")).status == 503
    assert (await content.get("/api/ready")).json["checks"]["gemini_api"]["status"] == "no_usable_key"


async def test_5_1_callers_need_their_keys_and_operators_theirs(clock: VirtualClock) -> None:
    environ = {"HEADGATE_CALLER_KEYS": f"{CALLER_KEY}|ann", "HEADGATE_ADMIN_KEY": ADMIN_KEY}
    content = Content(clock, environ=environ)
    nobody = await content.post("/api/create_subtopics", {"topic": "Bees"})
    assert (nobody.status, nobody.headers["www-authenticate"]) == (401, "Bearer")
    assert (await content.get("/api/ready")).status == 200
    assert (await content.get("/metrics")).status == 401
    bearer = {"authorization": f"Bearer {CALLER_KEY}", "host": "content.example"}
    got = await content.ask("POST", "/api/create_subtopics", {"topic": "Bees"}, bearer)
    assert got.status == 200
    assert (await content.ask("GET", "/api/cache/stats", b"", bearer)).status == 401
    operator = {"x-api-key": ADMIN_KEY}
    assert (await content.ask("GET", "/api/cache/stats", b"", operator)).json["enabled"] is True
    assert (await content.ask("POST", "/api/cache/clear", {}, operator)).json["removed"] >= 1
    without = Content(clock, environ={"HEADGATE_CALLER_KEYS": f"{CALLER_KEY}|ann"})
    assert (await without.ask("GET", "/api/cache/stats", b"", bearer)).status == 403


async def test_5_1_without_keys_this_machine_alone_is_answered(clock: VirtualClock) -> None:
    content = Content(clock)
    rebound = {"host": "attacker.example"}
    assert (await content.ask("GET", "/api/quota/stats", b"", rebound)).status == 403
    page = {"origin": "https://attacker.example"}
    got = await content.ask("POST", "/api/create_subtopics", {"topic": "Bees"}, page)
    assert got.status == 403
    opened = Content(clock, environ={"HEADGATE_CONTENT_OPEN": "true"})
    assert (await opened.ask("GET", "/api/quota/stats", b"", rebound)).status == 200
    assert (await opened.ask("GET", "/api/cache/stats", b"", rebound)).status == 403


async def test_s4_38_each_feature_has_a_switch(clock: VirtualClock) -> None:
    environ = {
        "HEADGATE_CONTENT_QUOTA": "off",
        "HEADGATE_CONTENT_CACHE": "off",
        "HEADGATE_CONTENT_METRICS": "off",
    }
    content = Content(clock, environ=environ)
    for _ in range(20):
        assert (await content.post("/api/create_subtopics", {"topic": "Bees"})).status == 200
    assert len(content.sent) == 20
    stats = await content.get("/api/quota/stats")
    assert (stats.status, "error" in stats.json) == (501, True)
    assert (await content.get("/metrics")).status == 404
    assert (await content.get("/api/cache/stats")).json == {"enabled": False}
    assert (await content.get("/api/ready")).json["checks"]["quota"]["status"] == "not_tracked"
    got = await content.post("/api/create_presentation", ordered())
    assert got.json["success_count"] == 3


async def test_inbound_limits_are_off_until_they_are_switched_on(clock: VirtualClock) -> None:
    environ = {"RATE_LIMIT_ENABLED": "true", "RATE_LIMIT_IP_PER_MINUTE": "3", "QUOTA_RPM": "100"}
    content = Content(clock, environ=environ)
    statuses = [
        (await content.post("/api/create_subtopics", {"topic": f"Topic {number}"})).status
        for number in range(4)
    ]
    assert statuses == [200, 200, 200, 429]
    late = await content.post("/api/create_subtopics", {"topic": "Another"})
    assert int(late.headers["retry-after"]) >= 1
    assert (await content.stats())["current_minute"]["requests"] == 3


async def test_the_description_tells_of_every_route_and_no_other(clock: VirtualClock) -> None:
    content = Content(clock)
    document = (await content.get("/api/docs")).json
    assert document["openapi"].startswith("3.1")
    assert {
        "/api/create_subtopics", "/api/create_presentation", "/api/image2topic", "/api/generate_image",
        "/api/quota/stats", "/api/health", "/api/ready", "/health", "/ready", "/api/cache/invalidate",
        "/api/cache/clear", "/api/cache/stats", "/api/circuit-breaker/{name}/state",
        "/api/circuit-breaker/{name}/reset", "/api/metrics", "/api/stats", "/api/prompts", "/api/docs",
        "/metrics",
    } <= set(document["paths"])  # fmt: skip
    for path, methods in document["paths"].items():
        for method in methods:
            got = await content.ask(method.upper(), path.replace("{name}", "nobody"), b"", {})
            assert got.status != 405, path
    templates = (await content.get("/api/prompts")).json["prompts"]
    assert "{count}" in templates["subtopics"]
    both = (await content.get("/api/stats")).json
    assert both["quota"]["limits"]["rpm"] == 15
    families = (await content.get("/api/metrics")).json
    assert families["quota_rpm_remaining"]["samples"][0]["value"] == 12
