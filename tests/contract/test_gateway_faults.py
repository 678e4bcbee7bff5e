"""Faults of trust.md 1.6 as a client of the gateway meets them; those that the transport, the quota or
the cache meets are proven there (`test_faults.py` says where)."""

from __future__ import annotations

import asyncio
import gzip
import json
from email.utils import formatdate
from pathlib import Path

import pytest
from tests.gateway import Client, ask, scripted_gateway
from tests.managing import Managed
from tests.support import MODEL, Ear, overloaded, said, stream

from headgate.core.outcome import Kind
from headgate.gateway.reloading import Cause
from headgate.testing import Answer, Broken, VirtualClock
from headgate.wiring.gateway_settings import GatewaySettings

GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
STREAM = f"/gemini/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
MESSAGES = "/anthropic/v1/messages"
BODY = {"contents": [{"parts": [{"text": "hi"}]}]}
CLAUDE = {"model": "claude-x", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


async def test_f11_a_reset_before_the_head_is_tried_again_and_told_at_last(clock: VirtualClock) -> None:
    ear = Ear()
    broken = Broken(Kind.NETWORK, "reset")
    gateway, transport = scripted_gateway([broken, said()], clock, observers=[ear])
    assert (await ask(gateway, "POST", GENERATE, BODY)).status == 200
    assert len(transport.sent) == len(ear.attempts) == 2
    gateway, transport = scripted_gateway([broken], clock, observers=[ear])
    got = await ask(gateway, "POST", GENERATE, BODY)
    assert (got.status, got.json["error"]["code"]) == (502, 502)
    assert got.headers["x-should-retry"] == "false", "its retries are spent"
    assert transport.open_exchanges == 0


async def test_f12_a_stream_that_breaks_off_is_not_sent_again(clock: VirtualClock) -> None:
    """What came is the client's, with a typed error at its end; the books have one row that is over."""
    ear = Ear()
    whole = stream("one ", "two ", "three")
    cut = Answer(pieces=whole.pieces[:2], broken=True)
    gateway, transport = scripted_gateway([cut, whole], clock, observers=[ear])
    got = await ask(gateway, "POST", STREAM, BODY)
    assert got.body.startswith(b"".join(whole.pieces[:2]))
    last = got.body[len(b"".join(whole.pieces[:2])) :]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == 502
    assert len(transport.sent) == len(ear.attempts) == 1
    (record,) = ear.calls
    assert record.error == "network"
    assert not gateway.visits


FORMS = [
    "7", "0", "1.5", "-5", "1e9", "NaN", "inf", "9" * 40, "soon", "",
    formatdate(1e9, usegmt=True), "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT",
]  # fmt: skip


@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms"])
@pytest.mark.parametrize("value", FORMS)
async def test_f18_a_storm_of_refusals_never_outlasts_the_deadline(
    clock: VirtualClock, name: str, value: str
) -> None:
    """Every key refuses, and says when to come back in whatever way: no call sleeps beyond its own
    time, and none tells its client to come back at a time that is none."""
    refusal = Answer(
        429,
        json.dumps(
            {"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}}
        ).encode(),
        headers={"content-type": "application/json", name: value},
    )
    gateway, transport = scripted_gateway([refusal], clock)
    before = clock.monotonic()
    got = await ask(gateway, "POST", MESSAGES, CLAUDE, {"x-headgate-timeout": "5"})
    assert clock.monotonic() - before <= 5.001
    assert got.status in (429, 503, 504)
    if again := got.headers.get("retry-after"):
        assert 1 <= int(again) <= 366 * 86_400
    assert len(transport.sent) < 12
    assert not transport.open_exchanges


async def test_f17_an_error_inside_a_200_counts_against_the_model(clock: VirtualClock) -> None:
    """Anthropic's `overloaded_error` as an event of a stream that began well: after enough of them in a
    row the model is left alone, as for any other failure."""
    event = b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"no"}}\n\n'
    answer = Answer(headers={"content-type": "text/event-stream"}, pieces=(event,))
    gateway, transport = scripted_gateway([answer], clock)
    statuses = []
    for _ in range(30):
        got = await ask(gateway, "POST", MESSAGES, {**CLAUDE, "stream": True})
        statuses.append(got.status)
    assert 503 in statuses
    sent = len(transport.sent)
    got = await ask(gateway, "POST", MESSAGES, {**CLAUDE, "stream": True})
    assert (got.status, "retry-after" in got.headers) == (503, True)
    assert len(transport.sent) == sent, "nothing more is sent to it"


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"promptTokenCount": -5}, {"promptTokenCount": 10**30}, {"promptTokenCount": "7"},
     {"promptTokenCount": 5, "candidatesTokenCount": -1}, {"promptTokenCount": 1e300}, []],
)  # fmt: skip
async def test_f25_usage_that_is_missing_or_cannot_be_harms_no_answer(
    clock: VirtualClock, usage: object
) -> None:
    """The client gets the bytes as they came; no count of ours goes down or beyond what is possible."""
    ear = Ear()
    reply = {"candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}]}
    body = json.dumps(reply if usage is None else {**reply, "usageMetadata": usage}).encode()
    gateway, _ = scripted_gateway(
        [Answer(body=body, headers={"content-type": "application/json"})], clock, observers=[ear]
    )
    got = await ask(gateway, "POST", GENERATE, BODY)
    assert got.status in (200, 502)
    if got.status == 200:
        assert got.body == body
    for record in ear.calls:
        counted = record.usage
        assert 0 <= counted.prompt < 2**63
        assert 0 <= counted.output < 2**63


BOMB = gzip.compress(b" " * 4_000_000)
"""Four megabytes in four kilobytes."""


@pytest.mark.parametrize("how", ["gzip", "deflate", "br", "zstd", "identity, gzip", "GZIP", "x-gzip"])
async def test_f32_a_packed_body_is_refused_packed(clock: VirtualClock, how: str) -> None:
    """Nothing unpacks it, here or at the upstream."""
    gateway, transport = scripted_gateway([said()], clock)
    client = Client(gateway, "POST", GENERATE, BOMB, {"content-encoding": how})
    got = await client.run()
    assert got.status == 415
    assert client._pieces, "not a byte of the body was read"
    assert not transport.sent


async def test_f36_a_thousand_identical_calls_are_one(clock: VirtualClock) -> None:
    """Through the gateway, for one caller; bytes and all."""
    slow = Answer(body=said().body, delay=1.0, headers={"content-type": "application/json"})
    gateway, transport = scripted_gateway([slow], clock, settings=GatewaySettings(cache_seconds=60.0))
    answers = await asyncio.gather(*(ask(gateway, "POST", GENERATE, BODY) for _ in range(1000)))
    assert {(got.status, got.body) for got in answers} == {(200, slow.body)}
    assert len(transport.sent) == 1


async def test_f29_a_client_that_leaves_during_a_retry_pause_or_in_line_is_forgotten(
    clock: VirtualClock,
) -> None:
    """Also where ten of a hundred that wait in line for the same thing go."""
    gateway, transport = scripted_gateway([overloaded(), said()], clock)
    clients = [Client(gateway, "POST", GENERATE, BODY) for _ in range(100)]
    tasks = [asyncio.ensure_future(client.run()) for client in clients]
    while not transport.sent:
        await clock.sleep(0.001)
    for client in clients[::10]:
        client.go_away()
    for task in tasks:
        await task
    assert not gateway.visits
    assert transport.open_exchanges == 0


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1e300", "1" * 400, "-7", "null", '"5"', "[]"])
async def test_f25_of_the_other_surfaces_too(clock: VirtualClock, number: str) -> None:
    ear = Ear()
    claude = (
        '{"id":"m","type":"message","role":"assistant","content":[{"type":"text","text":"a"}],'
        '"stop_reason":"end_turn","usage":{"input_tokens":%s,"output_tokens":%s}}'
    )
    chat = (
        '{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"a"},'
        '"finish_reason":"stop"}],"usage":{"prompt_tokens":%s,"completion_tokens":%s}}'
    )
    asked = {"model": "gpt-x", "messages": []}
    for path, text, body in ((MESSAGES, claude, CLAUDE), ("/openai/v1/chat/completions", chat, asked)):
        answer = Answer(
            body=(text % (number, number)).encode(), headers={"content-type": "application/json"}
        )
        gateway, _ = scripted_gateway([answer], clock, observers=[ear])
        got = await ask(gateway, "POST", path, body)
        assert got.status in (200, 502)
        assert got.status == 502 or got.body == answer.body
    for record in ear.calls:
        assert 0 <= record.usage.total < 2**63


async def test_f41_after_a_loop_that_stood_still_nothing_is_lost(clock: VirtualClock) -> None:
    """Five seconds in which nothing runs: calls under way go on from where they were, those whose time
    is over are told so, and it says truthfully that it lives."""
    slow = Answer(body=said().body, delay=2.0, headers={"content-type": "application/json"})
    gateway, transport = scripted_gateway([slow], clock)
    patient = asyncio.ensure_future(ask(gateway, "POST", GENERATE, BODY))
    hurried = asyncio.ensure_future(ask(gateway, "POST", GENERATE, BODY, {"x-headgate-timeout": "3"}))
    await clock.sleep(1.0)
    clock.advance(5.0)  # the loop is busy: time goes by, and no timer runs
    assert (await ask(gateway, "GET", "/livez")).status == 200
    assert (await patient).status == 200
    assert (await hurried).status in (200, 504)
    assert not gateway.visits
    assert not transport.open_exchanges


GOOD_FILE = "[gemini]\nmax_retries = 1\n"


@pytest.mark.parametrize(
    "content",
    ["[gemini]\nmax_retr", "[gemini]\nmax_retries = -1\n", "[gemini]\nno_such = 1\n", "\x00\x01",
     "[gemini\n", "[gemini]\nkeys_file = 'gone.txt'\nkeys_file = 'twice'\n", None],
)  # fmt: skip
async def test_f44_a_file_that_is_bad_half_written_or_gone_changes_nothing(
    clock: VirtualClock, tmp_path: Path, content: str | None
) -> None:
    """SIGHUP among calls: each is served, by the configuration that was good, and why the other is not
    taken over is there to be read."""
    managed = Managed([said()], clock, folder=tmp_path, toml=GOOD_FILE)
    file = tmp_path / "headgate.toml"
    calls = [asyncio.ensure_future(ask(managed.gateway, "POST", GENERATE, BODY)) for _ in range(20)]
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content.encode())
    before = managed.gateway.generation
    change = await managed.reloading.reload(Cause.SIGNAL)
    calls += [asyncio.ensure_future(ask(managed.gateway, "POST", GENERATE, BODY)) for _ in range(20)]
    assert {(await call).status for call in calls} == {200}
    assert not change.taken
    assert change.trouble == managed.reloading.trouble
    assert change.trouble
    assert managed.gateway.generation == before
    file.write_text("[gemini]\nmax_retries = 0\n")
    assert (await managed.reloading.reload(Cause.SIGNAL)).taken
    assert managed.reloading.trouble is None
    await managed.gateway.aclose()


async def test_f44_a_secret_that_was_taken_away_changes_nothing_either(
    clock: VirtualClock, tmp_path: Path
) -> None:
    secret = tmp_path / "keys"
    secret.write_text("AIzaCANARY-of-a-file-0123456789|k1|alpha\n")
    secret.chmod(0o600)
    environ = {"GEMINI_API_KEYS_FILE": str(secret)}
    managed = Managed([said()], clock, folder=tmp_path, toml=GOOD_FILE, environ=environ)
    secret.unlink()
    change = await managed.reloading.reload(Cause.SIGNAL)
    assert not change.taken
    assert "CANARY" not in str(change.trouble)
    assert (await ask(managed.gateway, "POST", GENERATE, BODY)).status == 200
    await managed.gateway.aclose()
