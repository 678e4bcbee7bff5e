"""What careless, unlucky and hostile clients meet at the content service (S4-03 … S4-19, S4-38)."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import pytest
from tests.content import (
    ADMIN_KEY,
    SUBTOPICS,
    Content,
    answered,
    explanation_of,
    form,
    good_model,
    ordered,
    picture,
    prompt_of,
    system_of,
)
from tests.gateway import Client

from headgate.content.fields import presentation_of
from headgate.content.of_process import explanations_of_process
from headgate.content.pictures import prepared
from headgate.policy.content_quality import assess_explanation
from headgate.testing import Answer, VirtualClock

OPERATOR = {"authorization": f"Bearer {ADMIN_KEY}"}


# ── what stands in ──────────────────────────────────────────────────────────────────────────────


async def test_s4_07_a_result_may_stand_in_once_its_own_time_is_up(clock: VirtualClock) -> None:
    content = Content(clock, environ={"QUOTA_RPD": "1"})
    first = await content.post("/api/create_subtopics", {"topic": "Bees"})
    assert first.status == 200
    await clock.sleep(7200 + 3500)  # no longer kept, and young enough to stand in
    got = await content.post("/api/create_subtopics", {"topic": "Bees"})
    assert (got.status, got.json["subtopics"]) == (200, SUBTOPICS)
    assert (got.json["cached"], got.json["from_fallback"]) == (True, True)
    await clock.sleep(200)
    late = await content.post("/api/create_subtopics", {"topic": "Bees"})
    assert late.status == 429


async def test_s4_13_what_was_invalidated_does_not_stand_in_either(clock: VirtualClock) -> None:
    content = Content(clock, environ={"QUOTA_RPM": "2", "HEADGATE_ADMIN_KEY": ADMIN_KEY,
                                      "QUOTA_SAFETY_MARGIN": "1"})  # fmt: skip
    for topic in ("Bees", "Ants"):
        assert (await content.post("/api/create_subtopics", {"topic": topic})).status == 200
    said = {"namespace": "subtopics", "pattern": "*bees*"}
    gone = await content.ask("POST", "/api/cache/invalidate", said, OPERATOR)
    assert gone.json == {"removed": 1}
    assert (await content.post("/api/create_subtopics", {"topic": "Bees"})).status == 429
    assert (await content.post("/api/create_subtopics", {"topic": "Ants"})).json["metadata"][
        "cache_hit"
    ]


# ── what models give ────────────────────────────────────────────────────────────────────────────

HALF = "\\ud83d"
"""Half of an emoji, as JSON of a model that was cut may hold it."""


async def test_half_a_character_in_an_answer_spoils_nothing_and_is_not_kept(
    clock: VirtualClock,
) -> None:
    def model(body: Mapping[str, Any]) -> Answer:
        if "Subtopic: Broken" in prompt_of(body):
            texts = json.dumps(explanation_of("Subtopic: Broken"))
            return answered(texts.replace("patience", f"patience {HALF}"))
        if "Subtopic: " in prompt_of(body):
            return good_model(body)
        return answered(json.dumps(SUBTOPICS).replace("Origins", f"Origins{HALF}"))

    content = Content(clock, model)
    for _ in range(2):
        got = await content.post("/api/create_subtopics", {"topic": "Bees"})
        assert got.status == 200
        assert got.json["subtopics"][0] == "Origins\ufffd of the subject"
    order = ordered("Bees", ["Broken", "Whole"])
    both = await content.post("/api/create_presentation", order)
    assert (both.status, both.json["success_count"]) == (200, 2)
    events = await content.post("/api/create_presentation", order, accept="text/event-stream")
    assert b"event: done" in events.body


async def test_an_answer_that_was_cut_off_is_neither_given_nor_kept(clock: VirtualClock) -> None:
    reasons = iter(("MAX_TOKENS", "STOP"))

    def model(body: Mapping[str, Any]) -> Answer:
        told = json.loads(good_model(body).body)
        told["candidates"][0]["finishReason"] = next(reasons)
        return Answer(body=json.dumps(told).encode())

    content = Content(clock, model)
    cut = await content.post("/api/create_subtopics", {"topic": "Bees"})
    assert (cut.status, cut.json["issues"]) == (500, ["cut off"])
    whole = await content.post("/api/create_subtopics", {"topic": "Bees"})
    assert (whole.status, whole.json["metadata"]["cache_hit"]) == (200, False)
    assert (await content.stats())["current_minute"] == {"requests": 2, "tokens": 3000}


# ── what clients send ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "topic",
    [
        "שלום\u200f (C++)",  # a mark of direction, as Hebrew and Arabic keyboards have it
        "مقدمة\u061c 3",
        "\u0600 ١٢",  # the Arabic number sign
        "soft\u00adhyphen",
        "volcano \U0001fae8",  # younger than the tables of Python 3.11
        "\U00031350 字",
    ],
)
async def test_s4_16_what_people_write_is_taken_whatever_its_age(
    clock: VirtualClock, topic: str
) -> None:
    assert (await Content(clock).post("/api/create_subtopics", {"topic": topic})).status == 200


@pytest.mark.parametrize(
    "sign", ["\u202e", "\u2066", "\ufdd0", "\U0001ffff", "\U000e0041", "\ue000", "\ufeff"]
)
async def test_s4_16_what_nobody_sees_is_refused(clock: VirtualClock, sign: str) -> None:
    got = await Content(clock).post("/api/create_subtopics", {"topic": f"Be{sign}es"})
    assert (got.status, "nobody can read" in got.json["error"]) == (400, True)


async def test_what_a_user_wrote_is_no_part_of_the_system_instruction(clock: VirtualClock) -> None:
    content = Content(clock)
    order = ordered("Bees", ["Wax"], educationLevel="CANARY level", learningStyle="CANARY style")
    assert (await content.post("/api/create_presentation", order)).status == 200
    (sent,) = content.sent
    assert "CANARY" not in system_of(sent)
    assert all(words in prompt_of(sent) for words in ("CANARY level", "CANARY style", "Bees", "Wax"))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api/create_subtopics", 405),
        ("POST", "/api/create_subtopics/", 404),
        ("GET", "/api/results/" + "0" * 64, 404),
        ("GET", "/assets/0/none.js", 404),
        ("PUT", "/api/session", 415),
    ],
)
async def test_every_refusal_names_its_request_and_is_kept_by_nobody(
    clock: VirtualClock, method: str, path: str, status: int
) -> None:
    got = await Content(clock).ask(method, path)
    assert got.status == status
    assert got.json["request_id"] == got.headers["x-request-id"]
    assert got.headers["cache-control"] == "no-store"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["content-security-policy"].startswith("default-src 'none'")


async def test_one_address_that_is_refused_takes_nothing_from_the_others(clock: VirtualClock) -> None:
    limits = {"RATE_LIMIT_ENABLED": "yes", "RATE_LIMIT_USER_PER_MINUTE": "2", "QUOTA_RPM": "1000",
              "RATE_LIMIT_GLOBAL_PER_MINUTE": "6", "RATE_LIMIT_IP_PER_MINUTE": "4",
              "HEADGATE_CALLER_KEYS": f"CANARY-{'a' * 30}|ann,CANARY-{'b' * 30}|bob"}  # fmt: skip
    content = Content(clock, environ=limits)

    async def of(caller: str) -> int:
        key = {"authorization": f"Bearer CANARY-{caller * 30}"}
        return (await content.ask("POST", "/api/create_subtopics", {"topic": "Bees"}, key)).status

    assert [await of("a") for _ in range(20)] == [200] * 2 + [429] * 18
    assert [await of("b") for _ in range(3)] == [200, 200, 429]


async def test_s4_04_images_are_kept_under_the_whole_prompt(clock: VirtualClock) -> None:
    content = Content(clock)
    sign = "A sign: HELLO"
    for prompt in (sign, "A sign: hello", "A  sign: hello", "A sign:\nhello", sign):
        assert (await content.post("/api/generate_image", {"prompt": prompt})).status == 200
    assert len(content.sent) == 4


# ── uploads ─────────────────────────────────────────────────────────────────────────────────────


async def test_s4_03_a_picture_is_read_once_and_only_where_there_is_quota(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def reading(data: bytes) -> bytes:
        read.append(len(data))
        return prepared(data)

    monkeypatch.setattr("headgate.content.images.prepared", reading)
    content = Content(clock, environ={"QUOTA_RPM": "2"})
    for colour in (1, 1, 2):
        body, headers = form(picture("PNG", (8, 8 + colour)))
        got = await content.ask("POST", "/api/image2topic", body, headers)
        assert got.status == (429 if colour == 2 else 200)
    assert len(read) == 1
    body, headers = form(b"\x89PNG\r\n\x1a\nno picture")
    assert (await content.ask("POST", "/api/image2topic", body, headers)).status in (400, 429)


async def test_a_broken_picture_gives_back_what_was_put_aside(clock: VirtualClock) -> None:
    content = Content(clock)
    body, headers = form(b"\x89PNG\r\n\x1a\nno picture")
    assert (await content.ask("POST", "/api/image2topic", body, headers)).status == 400
    assert (await content.stats())["current_minute"] == {"requests": 0, "tokens": 0}


def test_a_picture_of_sixteen_bits_keeps_its_greys() -> None:
    from PIL import Image

    out = BytesIO()
    Image.new("I;16", (32, 32), 0x4000).save(out, "PNG")
    with Image.open(BytesIO(prepared(out.getvalue()))) as seen:
        assert abs(seen.convert("L").getpixel((16, 16)) - 0x40) <= 2  # type: ignore[operator] # one band


# ── counts ──────────────────────────────────────────────────────────────────────────────────────


async def test_s4_24_a_presentation_counts_each_look_once(clock: VirtualClock) -> None:
    content = Content(clock)
    for _ in range(2):
        assert (await content.post("/api/create_presentation", ordered())).json["success_count"] == 3
    stats = (await content.get("/api/cache/stats")).json
    assert (stats["hits"], stats["misses"], stats["hit_rate"]) == (3, 3, 50.0)


# ── who leaves, and what fails ──────────────────────────────────────────────────────────────────


async def test_s4_02_one_failure_of_ours_is_that_item_s_alone(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(text: str, topic: str) -> Any:
        if "Functions" in topic:
            raise LookupError("a detail")
        return assess_explanation(text, topic)

    monkeypatch.setattr("headgate.content.explanations.assess_explanation", failing)
    got = await Content(clock).post("/api/create_presentation", ordered())
    assert (got.status, got.json["success_count"], got.json["failed_count"]) == (200, 2, 1)
    item = got.json["explanations"][1]
    assert (item["subtopic"], "log" in item["error"], "detail" in item["error"]) == (
        "Functions", True, False
    )  # fmt: skip
    assert "an explanation failed" in caplog.text


async def test_s4_05_who_leaves_gives_back_only_what_nobody_uses_for_another(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ask for the same; the first, on whose reservation it would be made, leaves before that."""
    content = Content(clock, lambda body: good_model(body, delay=5.0))
    explanations = explanations_of_process()  # those of the service that was opened last
    assert explanations is not None
    studio = explanations._studio
    layers: Any = studio.layers
    order = presentation_of(ordered(focus=["Wax"]), "en")
    going, claimed = asyncio.Event(), asyncio.Event()
    turn = layers.turn

    async def slow_turn(*place: Any) -> Any:
        claimed.set()
        await going.wait()
        return await turn(*place)

    layers.turn = slow_turn  # between the look and the making
    (held,) = await studio.put_aside(studio.settings.model, 1500)
    first = asyncio.ensure_future(explanations.one(order, "Wax", held=held))
    await claimed.wait()
    second = asyncio.ensure_future(explanations.one(order, "Wax"))
    await clock.sleep(1)
    book, sooner = studio.generator.book(studio.settings.model), []
    free = book.free

    async def slow_free(helds: Any) -> None:
        sooner.append(len(helds))
        await clock.sleep(2)
        await free(helds)

    monkeypatch.setattr(book, "free", slow_free)
    first.cancel()
    await clock.sleep(0.1)
    going.set()
    await clock.sleep(3)
    assert sooner == [1]
    assert (await content.stats())["current_minute"]["requests"] == 1  # under way, and booked
    await asyncio.wait([first])
    assert (await second)["error"] is None
    assert (await content.stats())["current_minute"] == {"requests": 1, "tokens": 1500}


async def test_s4_03_no_more_than_two_pictures_are_decoded_at_a_time(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, most, lock = 0, 0, threading.Lock()

    def decoding(data: bytes) -> bytes:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        whole = prepared(data)
        with lock:
            now -= 1
        return whole

    monkeypatch.setattr("headgate.content.images.prepared", decoding)
    content = Content(clock, environ={"QUOTA_RPM": "100"})

    async def one(number: int) -> int:
        body, headers = form(picture("PNG", (400, 400 + number)))
        return (await content.ask("POST", "/api/image2topic", body, headers)).status

    assert await asyncio.gather(*[one(number) for number in range(8)]) == [200] * 8
    assert 1 <= most <= 2


class _Slow(Client):
    """Sends the beginning of a body, and then nothing more."""

    async def _receive(self) -> dict[str, Any]:
        if self._pieces:
            return {"type": "http.request", "body": self._pieces.pop(), "more_body": True}
        await self._gone.wait()
        return {"type": "http.disconnect"}


async def test_uploads_together_hold_no_more_than_their_bound(clock: VirtualClock) -> None:
    content = Content(clock)
    body, headers = form(picture("PNG"))
    large = {**headers, "content-length": str(10 * 1024 * 1024)}
    slow = [
        _Slow(content.app, "POST", "/api/image2topic", b"x", large)  # type: ignore[arg-type] # an ASGI app
        for _ in range(25)
    ]
    async with asyncio.TaskGroup() as group:
        for client in slow:
            group.create_task(client.run())
        await clock.sleep(1)
        refused = await content.ask("POST", "/api/image2topic", b"", large)
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert (await content.ask("POST", "/api/image2topic", body, headers)).status == 200
        for client in slow:
            client.go_away()
    assert (await content.ask("POST", "/api/image2topic", body, headers)).status == 200


async def test_s4_22_a_stream_lasts_until_its_end_and_its_errors_count(clock: VirtualClock) -> None:
    content = Content(clock, lambda body: good_model(body, delay=3.0))
    labels = 'endpoint="create_presentation",method="POST"'

    async def seen(name: str) -> float:
        text = (await content.get("/metrics")).body.decode()
        lines = [line for line in text.splitlines() if line.startswith(f"{name}{{{labels}}}")]
        return float(lines[0].rpartition(" ")[2])

    stream = {"accept": "text/event-stream"}
    client = Client(content.app, "POST", "/api/create_presentation", ordered(), stream)  # type: ignore[arg-type] # an ASGI app
    task = asyncio.ensure_future(client.run())
    await clock.sleep(1)
    assert await seen("http_requests_in_progress") == 1
    await task
    assert await seen("http_requests_in_progress") == 0
    assert await seen("http_request_duration_seconds_sum") >= 3
