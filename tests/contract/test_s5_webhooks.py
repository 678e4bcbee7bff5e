"""Receiving webhooks: what is accepted, what never is, and who hears of it (S5-04a-b, S5-12, S5-25)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks
from tests.codegen import ORG, SECRET, emulated, said, scripted

from headgate.codegen import WebhookError, WebhookEvent, WebhookHandler, webhook_app
from headgate.codegen.webhooks import LARGEST_BODY
from headgate.core.errors import ConfigurationError
from headgate.policy.signatures import fits_standard, standard_signature
from headgate.testing import VirtualClock

WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def iso(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat()


def body_of(
    clock: VirtualClock, event: str = "agent_run.completed", off: float = 0, **data: Any
) -> bytes:
    value = {"event_type": event, "timestamp": iso(clock.wall() + off), "data": {"id": 1, **data}}
    return json.dumps(value).encode()


def sign(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def handler_of(clock: VirtualClock, **arguments: Any) -> tuple[WebhookHandler, list[WebhookEvent]]:
    handler = WebhookHandler(**{"secret": SECRET, "clock": clock, **arguments})
    heard: list[WebhookEvent] = []
    handler.register_handler("*", heard.append)
    return handler, heard


async def refusal(handler: WebhookHandler, *arguments: Any, **named: Any) -> int:
    with pytest.raises(WebhookError) as caught:
        await handler.process(*arguments, **named)
    assert "CANARY" not in caught.value.message
    return caught.value.status_code or 0


# ── the accepted calls ──────────────────────────────────────────────────────────────────────────


async def test_s5_12_the_accepted_calls(clock: VirtualClock) -> None:
    """Outside of `async with`, before any event loop."""
    client, _ = scripted([said({})], clock, webhook_secret=SECRET)
    handler = client.get_webhook_handler()
    assert handler is client.get_webhook_handler()
    heard: list[Any] = []

    async def on_done(event: WebhookEvent) -> str:
        heard.append((event.data["id"], event.data.get("github_pull_requests")))
        return "noted"

    def plainly(event: WebhookEvent) -> None:
        heard.append(event.event_type)

    handler.register_handler("agent_run.completed", on_done)
    handler.register_handler("agent_run.completed", plainly)
    body = body_of(clock, github_pull_requests=[{"id": 5}])
    result = await client.process_webhook(body, sign(body))
    assert heard == [(1, [{"id": 5}]), "agent_run.completed"]
    assert (result["status"], result["event_type"]) == ("processed", "agent_run.completed")
    assert (result["handlers_executed"], result["successful_handlers"]) == (2, 2)
    assert result["handler_results"][0]["result"] == "noted"
    assert set(result["handler_results"][0]) == {"handler", "status", "result"}
    assert result["timestamp"] == json.loads(body)["timestamp"]


@pytest.mark.parametrize(
    "event", ["agent_run.failed", "github.pr.created", "error.occurred", "own.event"]
)
async def test_other_events_pass_and_may_have_no_handler(event: str, clock: VirtualClock) -> None:
    handler = WebhookHandler(SECRET, clock=clock)
    body = body_of(clock, event)
    result = await handler.process(body, sign(body))
    assert (result["status"], result["handlers_executed"]) == ("no_handlers", 0)


# ── signatures ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", ["{}", "sha256={}", " sha256={} "])
@pytest.mark.parametrize("where", ["argument", "X-Hub-Signature-256", "x-signature"])
async def test_s5_25_accepted_forms_of_a_signature(form: str, where: str, clock: VirtualClock) -> None:
    handler, heard = handler_of(clock)
    body = body_of(clock)
    signature = form.format(sign(body))
    if where == "argument":
        await handler.process(body, signature)
    else:
        await handler.process(body, headers={where: signature})
    assert heard[0].signature == signature


@pytest.mark.parametrize(
    "signature",
    [None, "", "sha256=", "0" * 64, "sha1=" + "0" * 40, "ü", "sha256=ü", sign(b"other"),
     sign(b"", "another secret")],
)  # fmt: skip
async def test_s5_25_missing_or_wrong_signatures_are_refused(
    signature: str | None, clock: VirtualClock
) -> None:
    handler, heard = handler_of(clock)
    assert await refusal(handler, body_of(clock), signature) == 401
    assert not heard
    assert handler.get_stats()["refused_events"] == 1


async def test_s5_25_one_byte_more_is_another_body(clock: VirtualClock) -> None:
    """Pitfall: parsing and writing again; blanks count."""
    handler, heard = handler_of(clock)
    body = body_of(clock)
    assert await refusal(handler, body + b" ", sign(body)) == 401
    assert await refusal(handler, json.dumps(json.loads(body), indent=1).encode(), sign(body)) == 401
    assert not heard


@pytest.mark.parametrize("kind", ["dict", "str"])
async def test_s5_25_raw_bytes_are_required(kind: str, clock: VirtualClock) -> None:
    handler, _ = handler_of(clock)
    body = body_of(clock)
    payload: Any = json.loads(body) if kind == "dict" else body.decode()
    assert await refusal(handler, payload, sign(body)) == 400


async def test_c19_without_a_secret_everything_is_refused(clock: VirtualClock) -> None:
    handler, heard = handler_of(clock, secret="")
    body = body_of(clock)
    for signature in (None, "", sign(body, "")):
        assert await refusal(handler, body, signature) == 401
    assert not heard


async def test_c19_unless_it_is_said_to_be_insecure(clock: VirtualClock) -> None:
    client, _ = scripted([said({})], clock)
    handler = client.get_webhook_handler(insecure=True)
    assert (await client.process_webhook(body_of(clock)))["status"] == "no_handlers"
    assert (await handler.process(b'{"event_type": "x"}'))["status"] == "no_handlers"
    other, _ = scripted([said({})], clock)
    other.get_webhook_handler()
    with pytest.raises(ConfigurationError):
        other.get_webhook_handler(insecure=True)
    assert await refusal(other.get_webhook_handler(), body_of(clock)) == 401


async def test_insecure_with_a_secret_still_verifies(clock: VirtualClock) -> None:
    handler, _ = handler_of(clock, insecure=True)
    assert await refusal(handler, body_of(clock)) == 401


@pytest.mark.parametrize(
    ("off", "status"), [(-299, 0), (299, 0), (-301, 401), (301, 401), (-86_400, 401), (1e9, 401)]
)
async def test_s5_25_the_timestamp_is_within_five_minutes(
    off: float, status: int, clock: VirtualClock
) -> None:
    handler, heard = handler_of(clock)
    body = body_of(clock, off=off)
    if status:
        assert await refusal(handler, body, sign(body)) == status
    else:
        await handler.process(body, sign(body))
    assert len(heard) == (not status)


@pytest.mark.parametrize(
    "timestamp",
    [None, "", "soon", True, [], "NaN", "Infinity", 1e400, "9" * 400, "2026-13-01T00:00:00"],
)
async def test_s5_25_no_timestamp_is_no_proof(timestamp: Any, clock: VirtualClock) -> None:
    handler, heard = handler_of(clock)
    body = json.dumps({"event_type": "x", "timestamp": timestamp, "data": {}}).encode()
    assert await refusal(handler, body, sign(body)) in (400, 401)
    assert not heard


@pytest.mark.parametrize("form", ["{iso}", "{unix}", "{naive}", "{zulu}"])
async def test_forms_of_a_timestamp(form: str, clock: VirtualClock) -> None:
    handler, heard = handler_of(clock)
    moment = iso(clock.wall())
    naive = moment.removesuffix("+00:00")
    text = form.format(iso=moment, unix=int(clock.wall()), naive=naive, zulu=f"{naive}Z")
    body = json.dumps({"event_type": "x", "timestamp": text, "data": {}}).encode()
    await handler.process(body, sign(body))
    assert len(heard) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"data": {}}',
     b'{"event_type": ""}', b'{"event_type": 5}', b'{"event_type": "x", "data": []}'],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
async def test_s5_25_what_is_no_event_is_malformed(body: bytes, clock: VirtualClock) -> None:
    handler, _ = handler_of(clock)
    assert await refusal(handler, body, sign(body)) == 400


async def test_s5_25_at_most_one_megabyte(clock: VirtualClock) -> None:
    handler, heard = handler_of(clock)
    body = body_of(clock, text="x" * (LARGEST_BODY - 200))
    await handler.process(body, sign(body))
    assert len(heard) == 1
    large = body + b" " * LARGEST_BODY
    assert await refusal(handler, large, sign(large)) == 413


# ── once ────────────────────────────────────────────────────────────────────────────────────────


async def test_s5_25_each_event_once_by_body(clock: VirtualClock) -> None:
    handler, heard = handler_of(clock)
    body = body_of(clock)
    first = await handler.process(body, sign(body))
    again = await handler.process(body, sign(body))
    assert (first["duplicate"], again["duplicate"], again["handlers_executed"]) == (False, True, 0)
    assert len(heard) == 1


@pytest.mark.parametrize("name", ["webhook-id", "X-Webhook-Id", "X-Event-Id", "X-GitHub-Delivery"])
async def test_s5_25_each_event_once_by_id(name: str, clock: VirtualClock) -> None:
    """A second attempt of the same delivery carries another time, and so another body."""
    handler, heard = handler_of(clock)
    for off in (0, 1):
        body = body_of(clock, off=off)
        await handler.process(body, sign(body), {name: "evt-1"})
    other = body_of(clock, off=2)
    await handler.process(other, sign(other), {name: "evt-2"})
    assert len(heard) == 2


async def test_s5_25_a_replay_under_another_id_is_a_replay(clock: VirtualClock) -> None:
    """The signature does not cover the id: whoever recorded a delivery can change it."""
    handler, heard = handler_of(clock)
    body = body_of(clock)
    for number in range(5):
        await handler.process(body, sign(body), {"webhook-id": f"evt-{number}"})
    assert len(heard) == 1


async def test_s5_25_known_for_three_days(clock: VirtualClock) -> None:
    handler, heard = handler_of(clock)
    for day in range(4):
        body = body_of(clock, day=day)
        await handler.process(body, sign(body), {"x-webhook-id": "evt-1"})
        if day < 3:
            await clock.sleep(24 * 3600 - (60 if day == 2 else 0))
    assert len(heard) == 1
    await clock.sleep(61)
    body = body_of(clock, day=9)
    await handler.process(body, sign(body), {"x-webhook-id": "evt-1"})
    assert len(heard) == 2


async def test_1000_duplicates_at_once_have_one_effect(clock: VirtualClock) -> None:
    handler = WebhookHandler(SECRET, clock=clock)
    effects = 0

    async def slowly(event: WebhookEvent) -> None:
        nonlocal effects
        await clock.sleep(1)
        effects += 1

    handler.register_handler("agent_run.completed", slowly)
    body = body_of(clock)
    results = await asyncio.gather(*(handler.process(body, sign(body)) for _ in range(1000)))
    assert effects == 1
    assert sum(result["duplicate"] for result in results) == 999


async def test_an_event_that_nobody_took_in_may_come_again(clock: VirtualClock) -> None:
    handler = WebhookHandler(SECRET, clock=clock)
    tries: list[int] = []

    def unlucky(event: WebhookEvent) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("not yet")

    handler.register_handler("*", unlucky)
    body = body_of(clock)
    assert (await handler.process(body, sign(body)))["status"] == "error"
    again = await handler.process(body, sign(body))
    assert (again["status"], again["duplicate"], len(tries)) == ("processed", False, 2)
    assert (await handler.process(body, sign(body)))["duplicate"]


# ── handlers ────────────────────────────────────────────────────────────────────────────────────


async def test_one_failing_handler_does_not_stop_the_others(clock: VirtualClock) -> None:
    handler = WebhookHandler(SECRET, clock=clock, handler_timeout=5)
    heard: list[str] = []

    async def broken(event: WebhookEvent) -> None:
        raise ValueError(f"no {SECRET}")

    async def endless(event: WebhookEvent) -> None:
        await clock.sleep(1e9)

    for function in (broken, endless, lambda event: heard.append("plain")):
        handler.register_handler("agent_run.completed", function)
    body = body_of(clock)
    result = await handler.process(body, sign(body))
    assert result["status"] == "processed"
    assert (result["handlers_executed"], result["successful_handlers"], heard) == (3, 1, ["plain"])
    assert [entry.get("error_type") for entry in result["handler_results"]] == [
        "ValueError", "TimeoutError", None,
    ]  # fmt: skip
    assert "CANARY" not in json.dumps(result)
    stats = handler.get_stats()
    assert (stats["total_events"], stats["successful_events"], stats["failed_events"]) == (1, 1, 0)
    assert stats["handler_errors"] == 2
    assert stats["registered_handlers"] == {"agent_run.completed": 3}


async def test_stats(clock: VirtualClock) -> None:
    handler = WebhookHandler(SECRET, clock=clock)
    assert handler.get_stats()["success_rate"] == 0
    handler.register_handler("bad", lambda event: 1 / 0)
    handler.register_middleware(lambda event: None)
    for event in ("bad", "good", "good"):
        body = body_of(
            clock, event, number=len(handler.get_stats()["events_by_type"]), at=clock.monotonic()
        )
        await handler.process(body, sign(body))
        await clock.sleep(1)
    stats = handler.get_stats()
    assert stats["events_by_type"] == {"bad": 1, "good": 2}
    assert stats["success_rate"] == pytest.approx(200 / 3)
    assert stats["middleware_count"] == 1


async def test_middleware_sees_events_first_and_may_change_them(clock: VirtualClock) -> None:
    handler, heard = handler_of(clock)

    async def enrich(event: WebhookEvent) -> WebhookEvent:
        return event.model_copy(update={"data": {**event.data, "team": "blue"}})

    handler.register_middleware(enrich)
    body = body_of(clock)
    await handler.process(body, sign(body))
    assert heard[0].data["team"] == "blue"
    handler.register_middleware(lambda event: 1 / 0)
    other = body_of(clock, number=2)
    result = await handler.process(other, sign(other))
    assert (result["status"], len(heard)) == ("error", 1)


async def test_a_handler_can_be_taken_back(clock: VirtualClock) -> None:
    handler = WebhookHandler(SECRET, clock=clock)
    heard: list[Any] = []
    handler.register_handler("x", heard.append)
    assert handler.unregister_handler("x", heard.append)
    assert not handler.unregister_handler("x", heard.append)
    with pytest.raises(TypeError):
        handler.register_handler("x", "no function")  # type: ignore[arg-type]


# ── Standard Webhooks ───────────────────────────────────────────────────────────────────────────


def test_the_published_vector() -> None:
    message, moment, body = "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}'
    signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert standard_signature(WHSEC, message, moment, body) == signature
    assert fits_standard(WHSEC, message, moment, body, f"v1,nonsense v1a,x {signature}")
    assert not fits_standard(WHSEC, message, moment, body + b" ", signature)


def standard(
    clock: VirtualClock, body: bytes, message: str = "msg_1", off: float = 0
) -> dict[str, str]:
    moment = datetime.fromtimestamp(int(clock.wall() + off), UTC)
    signature = standardwebhooks.Webhook(WHSEC).sign(message, moment, body.decode())
    return {
        "Webhook-Id": message,
        "Webhook-Timestamp": str(int(moment.timestamp())),
        "Webhook-Signature": signature,
    }


async def test_standard_webhooks_signed_by_their_own_library(clock: VirtualClock) -> None:
    handler, heard = handler_of(clock, secret=WHSEC)
    body = b'{"event_type": "agent_run.completed", "data": {}}'
    assert (await handler.process(body, headers=standard(clock, body)))["duplicate"] is False
    assert (await handler.process(body, headers=standard(clock, body)))["duplicate"] is True
    assert (await handler.process(body, headers=standard(clock, body, "msg_2")))["duplicate"] is False
    assert len(heard) == 2, "the id is signed, so the same body under another id is another event"


@pytest.mark.parametrize(
    "change",
    [{"Webhook-Id": "msg_2"}, {"Webhook-Timestamp": "1"}, {"Webhook-Timestamp": "x"},
     {"Webhook-Id": ""},
     {"Webhook-Signature": ""}, {"Webhook-Signature": "v1,"}, {"Webhook-Signature": "v1,ü"}],
    ids=str,
)  # fmt: skip
async def test_standard_webhooks_that_were_changed(change: dict[str, str], clock: VirtualClock) -> None:
    handler, heard = handler_of(clock, secret=WHSEC)
    body = b'{"event_type": "agent_run.completed", "data": {}}'
    assert await refusal(handler, body, headers={**standard(clock, body), **change}) == 401
    assert not heard


@pytest.mark.parametrize("off", [-301, 301])
async def test_standard_webhooks_out_of_time(off: float, clock: VirtualClock) -> None:
    handler, _ = handler_of(clock, secret=WHSEC)
    body = b'{"event_type": "x", "data": {}}'
    assert await refusal(handler, body, headers=standard(clock, body, off=off)) == 401


async def test_one_scheme_does_not_excuse_the_other(clock: VirtualClock) -> None:
    """A bare signature is held to its own rules, whatever else the headers say."""
    handler, heard = handler_of(clock)
    old = body_of(clock, off=-9999)
    signature = sign(old)
    headers = {"x-signature": signature, "webhook-signature": signature, "webhook-id": "a",
               "webhook-timestamp": str(int(clock.wall()))}  # fmt: skip
    assert await refusal(handler, old, headers=headers) == 401
    assert not heard


# ── the application ─────────────────────────────────────────────────────────────────────────────


async def call(
    app: Any,
    body: bytes,
    headers: dict[str, str] | None = None,
    *,
    method: str = "POST",
    path: str = "/webhooks/codegen",
    pieces: int = 1,
) -> tuple[int, dict[str, Any], int]:
    """Status, answer, and how many pieces of the body were read."""
    sent: list[Any] = []
    size = max(1, -(-len(body) // pieces))
    parts = [body[start : start + size] for start in range(0, len(body), size)] or [b""]
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": parts[read - 1], "more_body": read < len(parts)}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), text.encode()) for name, text in (headers or {}).items()]
    scope = {"type": "http", "method": method, "path": path, "headers": raw}
    await app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"]), read


async def test_the_application_answers_as_accepted(clock: VirtualClock) -> None:
    handler = WebhookHandler(SECRET, clock=clock)
    handler.register_handler("agent_run.failed", lambda event: 1 / 0)
    app = webhook_app(handler)
    good, bad = body_of(clock), body_of(clock, "agent_run.failed")
    assert await call(app, good, {"x-signature": sign(good)}, pieces=7) == (
        200, {"status": "no_handlers", "event_type": "agent_run.completed", "duplicate": False}, 7,
    )  # fmt: skip
    assert (await call(app, good, {"x-signature": sign(good)}))[0] == 200
    assert (await call(app, bad, {"x-signature": sign(bad)}))[0] == 500
    assert (await call(app, good))[0] == 401
    assert (await call(app, good, {"x-signature": sign(bad)}))[0] == 401
    assert (await call(app, b"{", {"x-signature": sign(b"{")}))[0] == 400
    assert (await call(app, good, method="GET"))[0] == 405
    assert (await call(app, good, path="/"))[0] == 404


async def test_the_application_stops_reading_what_is_too_large(clock: VirtualClock) -> None:
    app = webhook_app(WebhookHandler(SECRET, clock=clock))
    large = b"x" * (10 * LARGEST_BODY)
    assert (await call(app, large, {"content-length": str(len(large))}))[::2] == (413, 0)
    status, _, read = await call(app, large, pieces=100)
    assert (status, read) == (413, 10)


async def test_the_application_tells_nothing_of_its_handlers(clock: VirtualClock) -> None:
    handler = WebhookHandler(SECRET, clock=clock)
    handler.register_handler("*", lambda event: "a result that is ours")
    body = body_of(clock)
    _, answer, _ = await call(webhook_app(handler), body, {"x-signature": sign(body)})
    assert "ours" not in json.dumps(answer)


async def test_the_application_lives(clock: VirtualClock) -> None:
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await webhook_app(WebhookHandler(SECRET, clock=clock))({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("secret", [SECRET, f"whsec_{base64.b64encode(b'CANARY' * 5).decode()}"])
@pytest.mark.parametrize("ending", ["COMPLETE", "FAILED"])
async def test_s5_04a_the_emulator_tells_a_receiver_when_a_run_has_ended(
    secret: str, ending: str, clock: VirtualClock
) -> None:
    """Over a socket, signed both ways; refused first, delivered at the second try, told once."""
    from aiohttp import web

    client, _ = scripted([said({})], clock, webhook_secret=secret)
    handler = client.get_webhook_handler()
    heard: list[tuple[str, int, float]] = []
    handler.register_handler(
        "*", lambda event: heard.append((event.event_type, event.data["id"], clock.monotonic()))
    )
    tries = []

    async def receive(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        tries.append(clock.monotonic())
        if len(tries) == 1:
            return web.Response(status=503)
        result = await handler.process(body, headers=request.headers)
        return web.Response(status=200, text=result["status"])

    runner = web.ServerRunner(web.Server(receive, keepalive_timeout=1e9))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks/codegen"
    fields = {
        "webhook_url": url,
        "webhook_secret": secret,
        "endings": [ending],
        "run_seconds": 30,
        "runs": 3,
    }
    async with emulated(clock, **fields) as (caller, emulator):
        run = await caller.create_agent_run(ORG, "Do it")
        await clock.sleep(60)
        name = "agent_run.completed" if ending == "COMPLETE" else "agent_run.failed"
        assert [(kind, number) for kind, number, _ in heard] == [(name, run.id)]
        assert tries == [pytest.approx(30, abs=0.1), pytest.approx(35, abs=0.1)]
        assert emulator.codegen.sender.delivered == 1
    await runner.cleanup()
