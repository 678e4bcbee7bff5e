"""Callers at the gateway's door: who may call, what, how often, and for how much. Issue 5, item 2."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.callers import PRICED, dollars, guarded_gateway, issued, limits
from tests.gateway import CALLER_KEY, CALLERS, Client, Got, ask, scripted_gateway
from tests.support import Ear, overloaded, quota, reply, said, stream, vector
from tests.unit.test_gateway import BODY, CHAT, CLAUDE, MESSAGE, answer, by_api, settled

from headgate.core.call import Key, Priority
from headgate.core.callers import BudgetWindow, Caller
from headgate.core.errors import StoreError
from headgate.gateway import Gateway
from headgate.gateway.caller_book import CallerChange
from headgate.gateway.callers import Callers, CallersUnavailableError
from headgate.gateway.desk import CallerDesk
from headgate.gateway.problems import problem_of
from headgate.stores.callers import MemoryCallers
from headgate.testing import Answer, Broken, Sent, VirtualClock
from headgate.wiring.gateway_settings import GatewaySettings

GENERATE = f"/gemini/v1beta/models/{PRICED}:generateContent"
STREAM = f"/gemini/v1beta/models/{PRICED}:streamGenerateContent?alt=sse"
NANO = 10**9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "callers.db"


async def generate(gateway: Gateway, key: str, body: object = BODY, path: str = GENERATE) -> Got:
    return await ask(gateway, "POST", path, body, {"x-goog-api-key": key})


def bounded(tokens: int, **more: object) -> dict[str, object]:
    return {**BODY, "generationConfig": {"maxOutputTokens": tokens, **more}}


def used(prompt: int, output: int, **more: Any) -> Answer:
    whole = reply()
    whole["usageMetadata"] = {
        "promptTokenCount": prompt, "candidatesTokenCount": output, "totalTokenCount": prompt + output,
        **more,
    }  # fmt: skip
    return Answer(body=json.dumps(whole).encode())


def kind_of(got: Got) -> str:
    reason: str = got.json["error"]["details"][0]["reason"]
    return reason


# ── who ─────────────────────────────────────────────────────────────────────────────────────────


async def test_only_those_of_the_book_and_of_the_environment_may_call(
    clock: VirtualClock, path: Path
) -> None:
    """A store without anybody in it is no invitation."""
    ear = Ear()
    gateway, _, desk = guarded_gateway([said()], clock, path, [ear], callers=CALLERS)
    assert (await generate(gateway, "")).status == 401
    assert (await generate(gateway, "CANARY-nobody-knows-this-key")).status == 401
    key = (await issued(desk.book, "cat")).key
    await clock.sleep(1.0)
    assert (await generate(gateway, key)).status == 200
    assert (await generate(gateway, CALLER_KEY)).status == 200
    assert [one.caller for one in ear.calls] == ["cat", "ann"]
    assert desk.callers.required
    await gateway.aclose()


async def test_a_name_of_the_environment_cannot_be_taken(clock: VirtualClock, path: Path) -> None:
    _, _, desk = guarded_gateway([said()], clock, path, callers=CALLERS)
    with pytest.raises(Exception, match="HEADGATE_CALLER_KEYS"):
        await issued(desk.book, "ann")
    with pytest.raises(Exception, match="changed there"):
        await desk.book.get("bob")  # type: ignore[union-attr]
    await desk.aclose()


async def test_keys_that_begin_alike_are_different_keys(clock: VirtualClock, path: Path) -> None:
    """X-5: the whole key counts, not its beginning."""
    gateway, _, desk = guarded_gateway([said()], clock, path)
    key = (await issued(desk.book)).key
    assert (await generate(gateway, key)).status == 200
    assert (await generate(gateway, key[:-1] + "x")).status == 401
    assert (await generate(gateway, key[:40])).status == 401
    assert (await generate(gateway, key + "0")).status == 401
    await gateway.aclose()


async def test_a_revoked_key_is_refused_within_a_second_in_every_process(
    clock: VirtualClock, path: Path
) -> None:
    gateway, _, desk = guarded_gateway([said()], clock, path)
    other, _, second = guarded_gateway([said()], clock, path)
    key = (await issued(desk.book)).key
    assert (await generate(gateway, key)).status == 200  # at once where it was made
    await clock.sleep(1.0)
    assert (await generate(other, key)).status == 200
    await second.book.revoke("ann")  # type: ignore[union-attr]
    await clock.sleep(0.99)
    for one in (gateway, other):
        got = await generate(one, key)
        assert got.status == 401
        assert "ann was revoked" in got.json["error"]["message"]
    await gateway.aclose()
    await other.aclose()


async def test_an_expired_caller_is_told_so(clock: VirtualClock, path: Path) -> None:
    gateway, _, desk = guarded_gateway([said()], clock, path)
    key = (await issued(desk.book, expires=clock.wall() + 100)).key
    assert (await generate(gateway, key)).status == 200
    await clock.sleep(100.0)
    got = await generate(gateway, key)
    assert got.status == 401
    assert "expired on" in got.json["error"]["message"]
    await gateway.aclose()


async def test_a_rotated_key_holds_for_its_grace_and_the_new_one_at_once(
    clock: VirtualClock, path: Path
) -> None:
    gateway, _, desk = guarded_gateway([said()], clock, path)
    book = desk.book
    assert book is not None
    old = (await issued(book)).key
    new = (await book.rotate("ann", grace_seconds=60.0)).key
    assert [(await generate(gateway, key)).status for key in (old, new)] == [200, 200]
    await clock.sleep(60.0)
    assert [(await generate(gateway, key)).status for key in (old, new)] == [401, 200]
    newest = (await book.rotate("ann", grace_seconds=0.0)).key
    await clock.sleep(1.0)
    assert [(await generate(gateway, key)).status for key in (new, newest)] == [401, 200]
    await gateway.aclose()


async def test_a_store_that_fails_lets_those_in_that_were_known(
    clock: VirtualClock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, _, desk = guarded_gateway([said()], clock, path)
    key = (await issued(desk.book)).key
    assert (await generate(gateway, key)).status == 200

    def away(since: int) -> list[object]:
        raise StoreError("The callers failed: disk I/O error.")

    monkeypatch.setattr(desk.callers._store, "changed", away)
    await clock.sleep(5.0)
    assert (await generate(gateway, key)).status == 200
    monkeypatch.undo()
    await desk.book.revoke("ann")  # type: ignore[union-attr]
    await clock.sleep(1.0)
    assert (await generate(gateway, key)).status == 401
    await gateway.aclose()


async def test_a_store_that_was_never_heard_of_lets_nobody_in(clock: VirtualClock) -> None:
    class Away(MemoryCallers):
        def changed(self, since: int) -> list[Caller]:
            raise StoreError("The callers failed: disk I/O error.")

    callers = Callers((), Away(), clock)
    assert callers.stale
    with pytest.raises(CallersUnavailableError) as caught:
        await callers.refresh()
    problem = problem_of(caught.value, "id")
    assert (problem.status, problem.again, problem.retry_after) == (503, True, 1.0)


async def test_a_key_that_another_process_made_serves_at_once(clock: VirtualClock, path: Path) -> None:
    """Its owner may be sent to any worker; a stranger costs the store a look in 50 ms at the most."""
    here, _, desk = guarded_gateway([said()], clock, path)
    there, _, other = guarded_gateway([said()], clock, path)
    assert (await generate(here, "CANARY-unknown")).status == 401  # it has looked just now
    looks = 0
    look = desk.callers._store.changed  # type: ignore[union-attr]

    def counted(since: int) -> list[Caller]:
        nonlocal looks
        looks += 1
        return look(since)

    desk.callers._store.changed = counted  # type: ignore[union-attr,method-assign]
    key = (await issued(other.book)).key
    await clock.sleep(0.1)
    assert (await generate(here, key)).status == 200
    for _ in range(10):
        assert (await generate(here, "CANARY-unknown")).status == 401
    assert looks == 1
    await here.aclose()
    await there.aclose()


async def test_a_stranger_is_refused_before_the_body_is_read(clock: VirtualClock, path: Path) -> None:
    """X-14: also where the store of callers must be asked first."""
    gateway, _, _ = guarded_gateway([said()], clock, path)
    client = Client(gateway, "POST", GENERATE, BODY, {"x-goog-api-key": "CANARY-unknown"})
    pieces = list(client._pieces)
    assert (await client.run()).status == 401
    assert client._pieces == pieces
    await gateway.aclose()


# ── what ────────────────────────────────────────────────────────────────────────────────────────


async def test_surfaces_and_models_that_are_not_the_callers(clock: VirtualClock, path: Path) -> None:
    gateway, transport, desk = guarded_gateway(by_api, clock, path)
    key = (await issued(desk.book, surfaces=("gemini", "openai"), models=("gemini-3*", "gpt-?"))).key
    assert (await generate(gateway, key)).status == 200
    for path_, body, status in (
        (GENERATE.replace("3.5", "2.5"), BODY, 403),
        ("/openai/v1/chat/completions", {**CHAT, "model": "gpt-4.1"}, 403),
        ("/openai/v1/chat/completions", {**CHAT, "model": "gpt-4"}, 200),
        ("/openai/v1/chat/completions", {**CHAT, "model": "models/gemini-3.5-flash"}, 200),
        ("/anthropic/v1/messages", CLAUDE, 403),
    ):
        got = await ask(gateway, "POST", path_, body, {"authorization": f"Bearer {key}"})
        assert got.status == status, got.body
        if status == 403:
            assert got.headers["x-should-retry"] == "false"
            assert "ann may not use" in str(got.json)
    assert (
        await ask(gateway, "GET", "/gemini/v1beta/models", b"", {"x-goog-api-key": key})
    ).status == 200
    assert len(transport.sent) == 4
    await gateway.aclose()


@pytest.mark.parametrize("most", ["critical", "high", "low"])
async def test_a_callers_priority_is_the_most_its_calls_may_have(
    clock: VirtualClock, path: Path, most: str
) -> None:
    seen: list[str] = []
    gateway, _, desk = guarded_gateway([said()], clock, path)
    pipeline = gateway.upstreams[0].engine.pipeline
    whole = pipeline.run

    async def run(call: Any) -> Any:
        seen.append(call.priority.value)
        return await whole(call)

    pipeline.run = run  # type: ignore[method-assign]
    key = (await issued(desk.book, priority=Priority(most))).key
    for word in (None, "critical", "low"):
        headers = {"x-goog-api-key": key, **({"x-headgate-priority": word} if word else {})}
        await ask(gateway, "POST", GENERATE, BODY, headers)
    assert seen == [most, most, "low"]
    await gateway.aclose()


# ── how often ───────────────────────────────────────────────────────────────────────────────────


async def test_requests_a_minute_with_headers_and_a_true_retry_after(
    clock: VirtualClock, path: Path
) -> None:
    gateway, transport, desk = guarded_gateway([said()], clock, path)
    key = (await issued(desk.book, limits=limits(rpm=2, rpd=100))).key
    first = await generate(gateway, key)
    assert first.headers["ratelimit-policy"] == (
        '"requests-per-minute";q=2;w=60, "requests-per-day";q=100;w=86400'
    )
    assert first.headers["ratelimit"] == '"requests-per-minute";r=1;t=30, "requests-per-day";r=99;t=864'
    await generate(gateway, key)
    got = await generate(gateway, key)
    assert got.status == 429
    assert got.json["error"]["status"] == "RESOURCE_EXHAUSTED"
    assert kind_of(got) == "HEADGATE_RATE_LIMIT"
    assert (got.headers["retry-after"], got.headers["x-should-retry"]) == ("30", "true")
    assert "requests-per-minute (2)" in got.json["error"]["message"]
    assert got.headers["ratelimit"].startswith('"requests-per-minute";r=0;t=60')
    assert len(transport.sent) == 2
    await clock.sleep(30.0)
    assert (await generate(gateway, key)).status == 200
    await gateway.aclose()


async def test_a_refusal_by_one_limit_costs_nothing_of_the_others(
    clock: VirtualClock, path: Path
) -> None:
    gateway, _, desk = guarded_gateway([used(10, 10)], clock, path, inbound_rpm=3)
    key = (await issued(desk.book, limits=limits(rpm=1, rpd=3, tpm=100_000))).key
    free = (await issued(desk.book, "bob")).key
    assert (await generate(gateway, key)).status == 200
    for _ in range(5):
        assert (await generate(gateway, key)).status == 429
    assert [(await generate(gateway, free)).status for _ in range(3)] == [200, 200, 429]
    await clock.sleep(60.0)
    got = await generate(gateway, key)
    assert got.status == 200
    assert '"requests-per-day";r=1' in got.headers["ratelimit"]
    await gateway.aclose()


async def test_the_limit_of_all_counts_everybody_and_is_nobodys_header(
    clock: VirtualClock, path: Path
) -> None:
    gateway, _, desk = guarded_gateway([said()], clock, path, callers=CALLERS, inbound_rpm=2)
    key = (await issued(desk.book, "cat")).key
    first = await generate(gateway, key)
    assert "ratelimit" not in first.headers
    assert (await generate(gateway, CALLER_KEY)).status == 200
    got = await generate(gateway, key)
    assert got.status == 429
    assert "all callers together" in got.json["error"]["message"]
    await gateway.aclose()


async def test_defaults_hold_for_callers_without_limits_and_zero_lifts_them(
    clock: VirtualClock, path: Path
) -> None:
    gateway, _, desk = guarded_gateway([said()], clock, path, callers=CALLERS, caller_rpm=1)
    own = (await issued(desk.book, "own", limits=limits(rpm=2))).key
    none = (await issued(desk.book, "none", limits=limits(rpm=0))).key
    for key, allowed in ((CALLER_KEY, 1), (own, 2), (none, 5)):
        statuses = [(await generate(gateway, key)).status for _ in range(5)]
        assert statuses == [200] * allowed + [429] * (5 - allowed)
    await gateway.aclose()


async def test_new_limits_hold_at_once_and_after_a_reload(clock: VirtualClock, path: Path) -> None:
    gateway, _, desk = guarded_gateway([said()], clock, path, callers=CALLERS)
    book = desk.book
    assert book is not None
    key = (await issued(book, "cat")).key
    assert [(await generate(gateway, key)).status for _ in range(3)] == [200] * 3
    await book.update("cat", CallerChange(limits=limits(rpm=1), models=("gemini-3*",)))
    await clock.sleep(1.0)
    assert [(await generate(gateway, key)).status for _ in range(2)] == [200, 429]
    changed = replace(gateway.settings, caller_rpm=2)
    await gateway.take_over(changed, gateway.upstreams, gateway.cache)
    statuses = [(await generate(gateway, CALLER_KEY)).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    await gateway.aclose()


async def test_tokens_are_charged_as_estimated_and_settled_as_used(
    clock: VirtualClock, path: Path
) -> None:
    """What a call uses beyond its estimate is a debt of the next; what it leaves, a credit."""
    answers = iter([used(2_000, 4_000), *(used(5, 5) for _ in range(50))])
    gateway, _, desk = guarded_gateway(lambda _: next(answers), clock, path)
    key = (await issued(desk.book, limits=limits(tpm=6_000))).key
    assert (await generate(gateway, key)).status == 200  # 6,000 tokens, of which some were foreseen
    got = await generate(gateway, key)
    assert got.status == 429
    assert "tokens-per-minute (6000)" in got.json["error"]["message"]
    await clock.sleep(float(got.headers["retry-after"]))
    assert (await generate(gateway, key)).status == 200
    await gateway.aclose()


async def test_small_answers_leave_room_for_more_calls(clock: VirtualClock, path: Path) -> None:
    gateway, _, desk = guarded_gateway([used(5, 5)], clock, path)
    key = (await issued(desk.book, limits=limits(tpm=2_000))).key
    statuses = [(await generate(gateway, key)).status for _ in range(60)]
    assert statuses == [200] * 60  # 600 tokens, though each was first taken for a thousand
    await gateway.aclose()


async def test_a_call_larger_than_its_limit_needs_a_full_bucket_and_is_sent(
    clock: VirtualClock, path: Path
) -> None:
    gateway, _, desk = guarded_gateway([used(40_000, 10)], clock, path)
    key = (await issued(desk.book, limits=limits(tpm=1_000))).key
    large = {"contents": [{"parts": [{"text": "word " * 20_000}]}]}
    assert (await generate(gateway, key, large)).status == 200
    got = await generate(gateway, key)
    assert got.status == 429
    assert 39 * 60 < int(got.headers["retry-after"]) <= 41 * 60  # 39,010 tokens more than a minute has
    assert got.headers["x-should-retry"] == "false"
    tokens, began = 40_010, clock.monotonic()
    for _ in range(200):
        await clock.sleep(30.0)
        tokens += 40_010 * ((await generate(gateway, key, large)).status == 200)
    assert 2 * 40_010 < tokens <= 1_000 * (1 + (clock.monotonic() - began) / 60) + 40_010
    await gateway.aclose()


async def test_calls_at_a_time(clock: VirtualClock, path: Path) -> None:
    gateway, transport, desk = guarded_gateway([said(delay=5.0)], clock, path)
    key = (await issued(desk.book, limits=limits(concurrent=2))).key
    first, second = (asyncio.ensure_future(generate(gateway, key)) for _ in range(2))
    await clock.sleep(1.0)
    got = await generate(gateway, key)
    assert got.status == 429
    assert "has 2 calls under way" in got.json["error"]["message"]
    assert (got.headers["retry-after"], got.headers["x-should-retry"]) == ("1", "true")
    count = f"/gemini/v1beta/models/{PRICED}:countTokens"
    counting = asyncio.ensure_future(
        generate(gateway, key, path=count)
    )  # uses no model, takes no place
    assert [(await one).status for one in (first, second, counting)] == [200, 200, 200]
    assert (await generate(gateway, key)).status == 200
    assert len(transport.sent) == 4
    await gateway.aclose()


async def test_a_place_is_given_back_however_a_call_ends(clock: VirtualClock, path: Path) -> None:
    script = [
        Answer(404, b'{"error":{"code":404,"message":"no","status":"NOT_FOUND"}}'),
        stream("a ", "b ", "c", piece_delay=1.0),
        said(delay=9.0),
    ]
    answers = iter(script)
    gateway, transport, desk = guarded_gateway(lambda _: next(answers, said()), clock, path)
    key = (await issued(desk.book, limits=limits(concurrent=1))).key
    headers = {"x-goog-api-key": key}
    assert (await generate(gateway, key)).status == 404
    for where, after in ((STREAM, 1.5), (GENERATE, 1.0)):
        client = Client(gateway, "POST", where, BODY, headers)
        running = asyncio.ensure_future(client.run())
        await clock.sleep(after)
        client.go_away()
        await running
        await clock.sleep(0.1)
    assert (await generate(gateway, key, {"contents": "misshapen"})).status == 200
    assert (await generate(gateway, key)).status == 200
    await gateway.aclose()
    await settled(gateway, transport)


# ── for how much ────────────────────────────────────────────────────────────────────────────────

# gemini-3.5-flash in the shipped list, a token: input 1,500, output 9,000 nano-dollars.
INPUT, OUTPUT = 1_500, 9_000


async def spending(desk: CallerDesk, name: str = "ann") -> tuple[int, int]:
    """What was spent and what is held, once everything that ended is booked."""
    await desk._clock.sleep(0.1)
    assert desk.book is not None
    found = (await desk.book.usage(name)).spending
    return found.spent, found.held


async def test_a_budget_is_charged_with_what_the_ledger_says(clock: VirtualClock, path: Path) -> None:
    gateway, _, desk = guarded_gateway([used(1_000, 200)], clock, path)
    key = (await issued(desk.book, budget=dollars(1))).key
    assert (await generate(gateway, key, bounded(500))).status == 200
    assert await spending(desk) == (1_000 * INPUT + 200 * OUTPUT, 0)
    await gateway.aclose()


async def test_a_call_that_might_not_fit_is_not_sent(clock: VirtualClock, path: Path) -> None:
    """The upper bound counts, not what calls used so far."""
    gateway, transport, desk = guarded_gateway([used(10, 10)], clock, path)
    key = (await issued(desk.book, budget=dollars(0.01, "day"))).key
    assert (await generate(gateway, key, bounded(1_000))).status == 200
    got = await generate(gateway, key, bounded(1_200))
    assert got.status == 429
    assert kind_of(got) == "HEADGATE_BUDGET"
    assert got.headers["x-should-retry"] == "false"
    midnight = -clock.wall() % 86_400
    assert abs(int(got.headers["retry-after"]) - midnight) <= 1
    assert "$0.009895 of $0.010000 (day) is left" in got.json["error"]["message"]
    assert (await generate(gateway, key)).status == 429  # without a bound an answer may be long
    assert len(transport.sent) == 1
    await clock.sleep(midnight + 1)
    assert (await generate(gateway, key, bounded(1_000))).status == 200
    await gateway.aclose()


async def test_a_budget_that_is_used_up_for_good_says_no_time(clock: VirtualClock, path: Path) -> None:
    gateway, _, desk = guarded_gateway([used(100, 100)], clock, path)
    key = (await issued(desk.book, budget=dollars(0.0012, "total"))).key
    body = bounded(100)
    assert (await generate(gateway, key, body)).status == 200
    got = await generate(gateway, key, body)
    assert got.status == 429
    assert "retry-after" not in got.headers
    await gateway.aclose()


async def test_money_that_calls_under_way_hold_may_come_back(clock: VirtualClock, path: Path) -> None:
    gateway, _, desk = guarded_gateway([Answer(body=used(10, 10).body, delay=5.0)], clock, path)
    key = (await issued(desk.book, budget=dollars(0.012))).key
    running = asyncio.ensure_future(generate(gateway, key, bounded(1_000)))
    await clock.sleep(1.0)
    got = await generate(gateway, key, bounded(1_000))
    assert (got.status, got.headers["retry-after"], got.headers["x-should-retry"]) == (429, "1", "true")
    assert (await running).status == 200
    assert (await generate(gateway, key, bounded(1_000))).status == 200
    await gateway.aclose()


async def test_many_at_once_spend_no_more_than_there_is(clock: VirtualClock, path: Path) -> None:
    """Two processes over one file, forty calls at a time: C-17, which others fail."""
    first, sent, desk = guarded_gateway([Answer(body=used(20, 100).body, delay=2.0)], clock, path)
    other, more, _ = guarded_gateway([Answer(body=used(20, 100).body, delay=2.0)], clock, path)
    amount = 10_000_000
    key = (await issued(desk.book, budget=dollars(amount / NANO))).key
    await clock.sleep(1.0)
    for _ in range(4):
        calls = [generate(gateway, key, bounded(100)) for gateway in (first, other) for _ in range(20)]
        assert {got.status for got in await asyncio.gather(*calls)} <= {200, 429}
    spent, held = await spending(desk)
    cost = 20 * INPUT + 100 * OUTPUT
    assert held == 0
    assert spent == (len(sent.sent) + len(more.sent)) * cost
    assert amount - 2 * cost < spent <= amount
    await first.aclose()
    await other.aclose()


async def test_retries_are_paid_for_before_they_are_made(clock: VirtualClock, path: Path) -> None:
    """With money for every attempt a call may be repeated; with money for one it is sent once."""
    gateway, transport, desk = guarded_gateway([overloaded(), used(5, 3)], clock, path)
    rich = (await issued(desk.book, "rich", budget=dollars(1))).key
    assert (await generate(gateway, rich, bounded(1_000))).status == 200
    assert len(transport.sent) == 2
    assert await spending(desk, "rich") == (5 * INPUT + 3 * OUTPUT, 0)
    await gateway.aclose()


@pytest.mark.parametrize("failure", [Broken(), overloaded()], ids=["broken", "overloaded"])
@pytest.mark.parametrize(("amount", "tries"), [(0.012, 1), (1.0, 4)])
async def test_with_money_for_one_attempt_there_is_one(
    clock: VirtualClock, path: Path, failure: Answer | Broken, amount: float, tries: int
) -> None:
    gateway, transport, desk = guarded_gateway([failure], clock, path)
    key = (await issued(desk.book, budget=dollars(amount))).key
    got = await generate(gateway, key, bounded(1_000))
    assert got.status >= 500
    assert len(transport.sent) == tries
    await gateway.aclose()


async def test_a_refusal_for_quota_still_moves_on_to_another_project(
    clock: VirtualClock, path: Path
) -> None:
    gateway, transport, desk = guarded_gateway([quota(), used(5, 3)], clock, path)
    key = (await issued(desk.book, budget=dollars(0.012))).key
    assert (await generate(gateway, key, bounded(1_000))).status == 200
    assert len(transport.sent) == 2
    await gateway.aclose()


async def test_a_reader_who_walks_away_is_charged_as_estimated(clock: VirtualClock, path: Path) -> None:
    ear = Ear()
    slow = stream("one " * 50, "two " * 50, "three", piece_delay=1.0)
    gateway, transport, desk = guarded_gateway([slow], clock, path, [ear])
    key = (await issued(desk.book, budget=dollars(1))).key
    client = Client(gateway, "POST", STREAM, bounded(1_000), {"x-goog-api-key": key})
    running = asyncio.ensure_future(client.run())
    await clock.sleep(2.5)
    client.go_away()
    await running
    spent, held = await spending(desk)
    assert held == 0
    (attempt,) = ear.attempts
    assert attempt.estimate is not None
    assert spent == attempt.estimate.prompt * INPUT + attempt.estimate.output * OUTPUT > 0
    await gateway.aclose()
    await settled(gateway, transport)


async def test_what_is_free_needs_no_money(clock: VirtualClock, path: Path) -> None:
    gateway, _, desk = guarded_gateway(by_api, clock, path)
    key = (await issued(desk.book, budget=dollars(0.000001))).key
    headers = {"x-goog-api-key": key}
    count = await ask(gateway, "POST", f"/gemini/v1beta/models/{PRICED}:countTokens", BODY, headers)
    models = await ask(gateway, "GET", "/gemini/v1beta/models", b"", headers)
    assert (count.status, models.status) == (200, 200)
    assert (await generate(gateway, key)).status == 429
    await gateway.aclose()


async def test_an_unknown_price_is_refused_unless_the_operator_allows_it(
    clock: VirtualClock, path: Path, tmp_path: Path
) -> None:
    gateway, transport, desk = guarded_gateway(by_api, clock, path)
    key = (await issued(desk.book, budget=dollars(1))).key
    headers = {"authorization": f"Bearer {key}"}
    got = await ask(gateway, "POST", "/openai/v1/chat/completions", CHAT, headers)
    assert (got.status, got.json["error"]["code"]) == (403, "permission_denied")
    assert "HEADGATE_CALLER_UNPRICED" in got.json["error"]["message"]
    cache = {"model": f"models/{PRICED}", "contents": []}
    kept = await ask(gateway, "POST", "/gemini/v1beta/cachedContents", cache, headers)
    assert kept.status == 403  # to keep a cache costs by the hour
    assert not transport.sent
    await gateway.aclose()
    gateway, _, desk = guarded_gateway(by_api, clock, tmp_path / "b.db", caller_unpriced="allow")
    key = (await issued(desk.book, budget=dollars(1))).key
    headers = {"authorization": f"Bearer {key}"}
    got = await ask(gateway, "POST", "/openai/v1/chat/completions", CHAT, headers)
    assert got.status == 200
    assert await spending(desk) == (0, 0)
    usage = await desk.book.usage("ann")  # type: ignore[union-attr]
    assert usage.spending.unpriced == 1
    await gateway.aclose()


async def test_a_store_that_fails_spends_nothing(
    clock: VirtualClock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Budgets fail closed; who has none goes on."""
    gateway, transport, desk = guarded_gateway([used(5, 3)], clock, path)
    key = (await issued(desk.book, budget=dollars(1))).key
    free = (await issued(desk.book, "bob")).key
    assert (await generate(gateway, key)).status == 200

    def away(*_: object) -> list[object]:
        raise StoreError("The callers failed: disk I/O error.")

    with monkeypatch.context() as patch:
        patch.setattr(desk._purse._store, "hold", away)
        got = await generate(gateway, key)
        assert (got.status, got.headers["x-should-retry"]) == (503, "true")
        assert (await generate(gateway, free)).status == 200
    assert len(transport.sent) == 2
    assert (await generate(gateway, key)).status == 200
    await gateway.aclose()


async def test_what_could_not_be_booked_is_booked_when_the_store_is_back(
    clock: VirtualClock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, _, desk = guarded_gateway([Answer(body=used(5, 3).body, delay=1.0)], clock, path)
    key = (await issued(desk.book, budget=dollars(1))).key
    running = asyncio.ensure_future(generate(gateway, key))
    await clock.sleep(0.5)

    def away(*_: object) -> list[object]:
        raise StoreError("The callers failed: disk I/O error.")

    with monkeypatch.context() as patch:
        patch.setattr(desk._purse._store, "hold", away)
        assert (await running).status == 200
        await clock.sleep(3.0)
    await clock.sleep(1.5)
    assert await spending(desk) == (5 * INPUT + 3 * OUTPUT, 0)
    await gateway.aclose()


async def test_a_long_call_keeps_its_place_and_its_money(clock: VirtualClock, path: Path) -> None:
    gateway, _, desk = guarded_gateway([stream(*"abcdefghij", piece_delay=30.0)], clock, path)
    key = (await issued(desk.book, limits=limits(concurrent=1), budget=dollars(1))).key
    headers = {"x-goog-api-key": key}
    running = asyncio.ensure_future(Client(gateway, "POST", STREAM, BODY, headers).run())
    for _ in range(4):
        await clock.sleep(60.0)
        assert (await generate(gateway, key)).status == 429
        assert (await spending(desk))[1] > 0
    assert (await running).status == 200
    assert (await spending(desk))[1] == 0
    await gateway.aclose()


async def test_who_goes_away_while_waiting_for_the_store_holds_nothing(
    clock: VirtualClock, path: Path
) -> None:
    gateway, transport, desk = guarded_gateway([used(5, 3)], clock, path)
    key = (await issued(desk.book, budget=dollars(1), limits=limits(concurrent=1))).key
    assert (await generate(gateway, key)).status == 200
    for yields in range(12):
        client = Client(gateway, "POST", GENERATE, BODY, {"x-goog-api-key": key})
        running = asyncio.ensure_future(client.run())
        for _ in range(yields):
            await asyncio.sleep(0)  # noqa: TID251 - yields to the loop, no time passes
        client.go_away()
        await running
    assert (await generate(gateway, key)).status == 200
    assert (await spending(desk))[1] == 0
    await gateway.aclose()
    await settled(gateway, transport)


async def test_embeddings_and_claude_are_held_by_their_own_prices(
    clock: VirtualClock, path: Path
) -> None:
    message = {
        **MESSAGE,
        "model": "claude-sonnet-4-5",
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }

    def upstream(sent: Sent) -> Answer:
        return answer(message) if "/messages" in sent.request.url else vector(0.5)

    gateway, _, desk = guarded_gateway(upstream, clock, path)
    key = (await issued(desk.book, budget=dollars(0.02))).key
    headers = {"x-api-key": key}
    ask_claude = {**CLAUDE, "model": "claude-sonnet-4-5", "max_tokens": 1_000}
    assert (await ask(gateway, "POST", "/anthropic/v1/messages", ask_claude, headers)).status == 200
    assert (await spending(desk))[0] == 3 * 3_000 + 2 * 15_000
    dear = {**ask_claude, "max_tokens": 2_000}
    got = await ask(gateway, "POST", "/anthropic/v1/messages", dear, headers)
    assert (got.status, got.json["error"]["type"]) == (429, "rate_limit_error")
    embed = "/gemini/v1beta/models/gemini-embedding-001:embedContent"
    text = {"content": {"parts": [{"text": "word " * 800}]}}
    before = (await spending(desk))[0]
    assert (await ask(gateway, "POST", embed, text, headers)).status == 200
    cost = (await spending(desk))[0] - before
    assert 500 * 150 < cost < 2_000 * 150  # where nobody tells the tokens they are estimated
    await gateway.aclose()


async def test_the_book_tells_what_is_left(clock: VirtualClock, path: Path) -> None:
    gateway, _, desk = guarded_gateway([used(1_000, 0)], clock, path)
    key = (await issued(desk.book, budget=dollars(0.01, "day"))).key
    await generate(gateway, key, bounded(100))
    await spending(desk)
    usage = await desk.book.usage("ann")  # type: ignore[union-attr]
    assert usage.window is BudgetWindow.DAY
    assert usage.until == clock.wall() + (-clock.wall() % 86_400)
    assert (usage.amount, usage.left) == (10_000_000, 10_000_000 - 1_000 * INPUT)
    await gateway.aclose()


async def test_without_callers_the_limit_of_all_still_holds(clock: VirtualClock) -> None:
    settings = GatewaySettings(inbound_rpm=2, caller_rpm=1, caller_concurrent=1)
    gateway, _ = scripted_gateway([said()], clock, settings=settings)
    assert [(await generate(gateway, "")).status for _ in range(3)] == [200, 200, 429]
    await gateway.aclose()


async def test_an_answer_from_the_cache_costs_nothing_and_one_that_is_shared_costs_once(
    clock: VirtualClock, path: Path
) -> None:
    slow = Answer(body=used(1_000, 10).body, delay=5.0)
    gateway, transport, desk = guarded_gateway([slow], clock, path, cache_seconds=60.0)
    key = (await issued(desk.book, budget=dollars(1), limits=limits(concurrent=9))).key
    headers = {"x-goog-api-key": key}
    first = Client(gateway, "POST", GENERATE, bounded(100), headers)
    others = [Client(gateway, "POST", GENERATE, bounded(100), headers) for _ in range(3)]
    running = asyncio.ensure_future(first.run())
    await clock.sleep(1.0)
    waiting = [asyncio.ensure_future(one.run()) for one in others]
    await clock.sleep(1.0)
    first.go_away()  # who asked first does not wait for the answer
    await running
    assert [(await one).status for one in waiting] == [200] * 3
    assert (await generate(gateway, key, bounded(100))).headers["x-headgate-cache"] == "hit"
    await clock.sleep(1.0)
    spent, held = await spending(desk)
    assert held == 0
    assert len(transport.sent) == spent // (1_000 * INPUT + 10 * OUTPUT) >= 1
    assert not desk._tabs
    await gateway.aclose()


async def test_calls_that_a_shutdown_cuts_are_booked(clock: VirtualClock, path: Path) -> None:
    gateway, _, desk = guarded_gateway([stream("one", "two", piece_delay=5.0)], clock, path)
    key = (await issued(desk.book, budget=dollars(1))).key
    running = asyncio.ensure_future(generate(gateway, key, bounded(100), STREAM))
    await clock.sleep(7.0)
    gateway.visits.stop()
    await running
    await gateway.aclose()
    other = guarded_gateway([said()], clock, path)[2]
    spent, held = await spending(other)
    assert spent > 0
    assert held == 0
    await other.aclose()


async def test_an_attempt_that_is_never_heard_of_is_not_waited_for_for_ever(
    clock: VirtualClock, path: Path
) -> None:
    """Who took on an answer that others wait for, and then went away, holds its money for a while."""
    slow = Answer(body=used(1_000, 10).body, delay=5.0)
    gateway, transport, desk = guarded_gateway([slow], clock, path, cache_seconds=60.0)
    key = (await issued(desk.book, budget=dollars(1))).key
    clients = [
        Client(gateway, "POST", GENERATE, bounded(100), {"x-goog-api-key": key}) for _ in range(4)
    ]
    running = []
    for client in clients:
        running.append(asyncio.ensure_future(client.run()))
        await clock.sleep(0.5)
    for client in clients[:3]:
        client.go_away()
        await clock.sleep(0.1)
    await asyncio.gather(*running)
    await clock.sleep(901.0)
    assert (await generate(gateway, key, bounded(100))).status == 200
    spent, held = await spending(desk)
    assert held == 0
    assert spent == len(transport.sent) * (1_000 * INPUT + 10 * OUTPUT)
    assert not desk._tabs
    assert not desk._late
    await gateway.aclose()


async def test_whose_limit_it_is_no_header_decides(clock: VirtualClock, path: Path) -> None:
    """X-18: addresses that a client makes up bring it no bucket of its own."""
    gateway, transport, desk = guarded_gateway([said()], clock, path)
    key = (await issued(desk.book, limits=limits(rpm=5))).key
    for number in range(60):
        address = f"10.0.{number}.1"
        headers = {
            "x-goog-api-key": key, "x-forwarded-for": address, "x-real-ip": address,
            "forwarded": f"for={address}", "cf-connecting-ip": address,
        }  # fmt: skip
        await ask(gateway, "POST", GENERATE, BODY, headers)
    assert len(transport.sent) == 5
    await gateway.aclose()


async def test_a_fault_of_the_store_leaves_nobody_waiting(
    clock: VirtualClock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, _, desk = guarded_gateway([used(5, 3)], clock, path)
    key = (await issued(desk.book, budget=dollars(1))).key

    def broken(*_: object) -> list[object]:
        raise RuntimeError("not foreseen")

    with monkeypatch.context() as patch:
        patch.setattr(desk._purse._store, "hold", broken)
        assert (await generate(gateway, key)).status == 503
        with pytest.raises(RuntimeError):
            await desk._purse._task  # type: ignore[misc]
    assert (await generate(gateway, key)).status == 200
    await gateway.aclose()


async def test_a_refused_caller_is_told_of_once_a_minute(
    clock: VirtualClock, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway, _, desk = guarded_gateway([said()], clock, path)
    key = (await issued(desk.book, limits=limits(rpm=1))).key
    with caplog.at_level("INFO"):
        for _ in range(20):
            await generate(gateway, key)
    lines = [one.message for one in caplog.records if "refused=" in one.message]
    assert lines == [lines[0]]
    assert lines[0].startswith("caller=ann refused=rate_limit: The limit of this caller is reached")
    assert not [one for one in caplog.records if "exceeded" in one.message]
    await gateway.aclose()


async def test_keys_of_the_environment_change_with_a_reload(clock: VirtualClock, path: Path) -> None:
    gateway, _, desk = guarded_gateway([said()], clock, path, callers=CALLERS)
    managed = (await issued(desk.book, "cat")).key
    other = "CANARY-another-key-of-ann-0123456789"

    async def reload(*keys: Key) -> None:
        changed = replace(gateway.settings, callers=keys)
        await gateway.take_over(changed, gateway.upstreams, gateway.cache)

    async def statuses() -> list[int]:
        return [(await generate(gateway, key)).status for key in (CALLER_KEY, other, managed)]

    assert await statuses() == [200, 401, 200]
    await reload(Key("ann", other, "key:ann"))
    assert await statuses() == [401, 200, 200]
    await reload(Key("cat", other, "key:cat"))  # a name that a managed caller has
    assert await statuses() == [401, 200, 401]
    await reload()
    assert await statuses() == [401, 401, 200]
    assert desk.callers.required
    await gateway.aclose()
