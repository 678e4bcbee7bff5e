"""Events of the management API, requests that are repeated, and orders that reach other workers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from tests.gateway import GEMINI_KEYS, Client, ask
from tests.managing import Managed
from tests.support import MODEL, bad_key, overloaded, quota, said, stream

from headgate.gateway.manage.feed import MOST_LISTENERS, MOST_WAITING, EventFeed, EventKind
from headgate.testing import VirtualClock

GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
BODY = {"contents": [{"parts": [{"text": "hi"}]}]}


def events(client: Client) -> list[tuple[str, str, Any]]:
    """Id, kind and data of what has come."""
    found = []
    for frame in client.got.body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in frame.splitlines() if not line.startswith(":"))
        if "event" in fields:
            found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
    return found


async def listening(managed: Managed, path: str = "/events", **headers: str) -> tuple[Client, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    client = managed.client("GET", path, b"", named)
    task = asyncio.ensure_future(client.run())
    while not client.got.pieces:
        await managed.clock.sleep(0.01)
    return client, task


async def gone(client: Client, task: Any) -> None:
    client.go_away()
    await task


async def test_listeners_hear_attempts_calls_keys_and_orders(clock: VirtualClock) -> None:
    managed = Managed([bad_key(), quota("Minute", "30s"), said()], clock)
    client, task = await listening(managed)
    await ask(managed.gateway, "POST", GENERATE, BODY)
    await managed.ask("POST", "/keys/anthropic/k0/drain", {"reason": "moving"})
    await clock.sleep(2)
    heard = events(client)
    attempts = [data for _, kind, data in heard if kind == "attempt"]
    assert [one["result"] for one in attempts[:2]] == ["bad_key", "quota_minute"]
    calls = [data for _, kind, data in heard if kind == "call"]
    assert calls[0]["request_id"] == attempts[0]["request_id"]
    keys = [data for _, kind, data in heard if kind == "key"]
    assert [(one["key"]["name"], one["before"], one["key"]["state"]) for one in keys] == [
        ("k0", "ready", "refused"),
        ("k1", "ready", "cooling"),
        ("k1", "cooling", "ready"),  # nobody's doing: its time was up
        ("k0", "ready", "drained"),
    ]
    assert keys[-1]["key"]["provider"] == "anthropic"
    (order,) = [data for _, kind, data in heard if kind == "order"]
    assert order["what"] == "drain"
    assert order["about"] == {"provider": "anthropic", "keys": "k0", "text": "moving"}
    assert "CANARY" not in client.got.body.decode()
    assert client.got.headers["content-type"] == "text/event-stream"
    await gone(client, task)
    assert managed.house.feed.listeners == 0
    await managed.aclose()


async def test_listeners_hear_alerts_of_every_provider(clock: VirtualClock) -> None:
    managed = Managed([overloaded()], clock)
    client, task = await listening(managed, "/events?kinds=alert")
    message = {"model": "claude-x", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    for _ in range(12):
        await ask(managed.gateway, "POST", GENERATE, BODY)
        await ask(managed.gateway, "POST", "/anthropic/v1/messages", message)
    await clock.sleep(1)
    raised = {(data["provider"], data["rule"], data["kind"]) for _, _, data in events(client)}
    assert {
        ("gemini", "breaker_open", "AlertRaised"),
        ("anthropic", "breaker_open", "AlertRaised"),
    } <= raised
    await gone(client, task)
    await managed.aclose()


async def test_kinds_can_be_chosen_and_silence_is_filled(clock: VirtualClock) -> None:
    managed = Managed([said()], clock)
    client, task = await listening(managed, "/events?kinds=call,%20order")
    await ask(managed.gateway, "POST", GENERATE, BODY)
    await clock.sleep(31)
    assert {kind for _, kind, _ in events(client)} == {"call"}
    assert client.got.body.count(b": still here\n\n") == 2
    await gone(client, task)
    assert (await managed.ask("GET", "/events?kinds=gossip")).status == 400
    await managed.aclose()


async def test_who_comes_back_gets_what_happened_meanwhile(clock: VirtualClock) -> None:
    managed = Managed([said()], clock)
    client, task = await listening(managed, "/events?kinds=call")
    await ask(managed.gateway, "POST", GENERATE, BODY)
    await clock.sleep(0.1)
    ((last, _, _),) = events(client)
    await gone(client, task)
    for _ in range(2):
        await ask(managed.gateway, "POST", GENERATE, BODY)
    client, task = await listening(managed, "/events?kinds=call", last_event_id=last)
    await clock.sleep(0.1)
    assert [kind for _, kind, _ in events(client)] == ["call", "call"]
    await gone(client, task)
    for stranger in ("0badcafe.3", "nonsense"):
        client, task = await listening(managed, last_event_id=stranger)
        await clock.sleep(0.1)
        assert events(client)[0][1:] == ("lost", {"events": None})
        await gone(client, task)
    await managed.aclose()


async def test_a_listener_that_does_not_read_loses_the_oldest_and_is_told(clock: VirtualClock) -> None:
    """Nothing waits for it, and it costs no more memory than its box."""
    feed = EventFeed(clock)
    slow = feed.listen(frozenset(EventKind))
    await anext(slow)
    for number in range(MOST_WAITING + 7):
        feed.tell(EventKind.ORDER, {"number": number})
    assert await anext(slow) == b'event: lost\ndata: {"events":7}\n\n'
    assert b'{"number":7}' in await anext(slow)
    await slow.aclose()
    again = feed.listen(frozenset(EventKind), f"{feed._epoch}.0")
    await anext(again)
    assert await anext(again) == b'event: lost\ndata: {"events":7}\n\n'
    await again.aclose()


async def test_a_listener_that_left_before_the_first_piece_takes_no_place(clock: VirtualClock) -> None:
    """Its client may go away while the head waits behind an answer that nobody reads."""
    feed = EventFeed(clock)
    for _ in range(MOST_LISTENERS + 1):
        await feed.listen(frozenset(EventKind)).aclose()
    assert feed.listeners == 0
    assert feed.wanted  # it may come back
    await clock.sleep(61)
    assert not feed.wanted


async def test_listeners_are_bounded_and_a_draining_gateway_lets_them_go(clock: VirtualClock) -> None:
    managed = Managed([], clock)
    crowd = [await listening(managed) for _ in range(MOST_LISTENERS)]
    got = await managed.ask("GET", "/events")
    assert (got.status, got.json["type"]) == (503, "/docs#problem-busy")
    managed.gateway.drain()
    await asyncio.gather(*(task for _, task in crowd))
    for client, _ in crowd:
        assert events(client)[-1][1] == "end"
        assert client.got.ended
    await managed.aclose()


# ── repeated requests ────────────────────────────────────────────────────────────────────────────


async def test_a_request_with_a_key_is_done_once(clock: VirtualClock) -> None:
    managed = Managed([said("first"), said("second")], clock)
    body = {"prompt": "hi", "model": MODEL, "use_cache": False}
    first = await managed.ask("POST", "/gemini/execute", body, idempotency_key="a-1")
    again = await managed.ask("POST", "/gemini/execute", body, idempotency_key="a-1")
    assert (first.body, again.headers["idempotency-replayed"]) == (again.body, "true")
    assert "idempotency-replayed" not in first.headers
    assert len(managed.transport.sent) == 1
    other = await managed.ask("POST", "/gemini/execute", body, idempotency_key="a-2")
    assert other.json["text"] == "second"
    strange = await managed.ask(
        "POST", "/gemini/execute", {**body, "prompt": "ho"}, idempotency_key="a-1"
    )
    assert (strange.status, strange.json["type"]) == (422, "/docs#problem-key-reused")
    await clock.sleep(24 * 3600 + 1)
    await managed.ask("POST", "/gemini/execute", body, idempotency_key="a-1")
    assert len(managed.transport.sent) == 3
    for wrong in ("", "x" * 256):
        got = await managed.ask("POST", "/cache/clear", idempotency_key=wrong)
        assert got.status == 400
    await managed.aclose()


async def test_the_first_goes_on_though_its_client_went_away(clock: VirtualClock) -> None:
    managed = Managed([said("late", delay=5.0)], clock)
    body = {"prompt": "hi", "model": MODEL}
    client = managed.client("POST", "/gemini/execute", body, {"idempotency-key": "b"})
    task = asyncio.ensure_future(client.run())
    await clock.sleep(1)
    busy = await managed.ask("POST", "/gemini/execute", body, idempotency_key="b")
    assert (busy.status, busy.json["type"]) == (409, "/docs#problem-in-progress")
    await gone(client, task)
    await clock.sleep(5)
    got = await managed.ask("POST", "/gemini/execute", body, idempotency_key="b")
    assert (got.json["text"], got.headers["idempotency-replayed"]) == ("late", "true")
    assert len(managed.transport.sent) == 1
    await managed.aclose()


async def test_what_failed_may_be_tried_again_with_the_same_key(clock: VirtualClock) -> None:
    managed = Managed([bad_key(), bad_key(), said()], clock)
    body = {"prompt": "hi", "model": MODEL}
    first = await managed.ask("POST", "/gemini/execute", body, idempotency_key="c")
    assert (first.status >= 400, first.json["error_type"]) == (True, "InvalidApiKey")
    await managed.ask("POST", "/keys/gemini/k0/resume")
    got = await managed.ask("POST", "/gemini/execute", body, idempotency_key="c")
    assert (got.status, got.json["text"]) == (200, "fine")
    await managed.aclose()


# ── several workers ──────────────────────────────────────────────────────────────────────────────


class Wire:
    """The way between workers, as a parent would offer it."""

    def __init__(self) -> None:
        self.ends: list[End] = []

    def end(self) -> End:
        self.ends.append(End(self))
        return self.ends[-1]


class End:
    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.hear: Callable[[bytes], None] = lambda _: None

    def tell(self, order: bytes) -> None:
        for other in self.wire.ends:
            if other is not self:
                other.hear(order)

    def attend(self, hear: Callable[[bytes], None]) -> None:
        self.hear = hear


async def test_orders_reach_the_other_workers(clock: VirtualClock) -> None:
    wire = Wire()
    workers = [Managed([said()], clock, relay=wire.end()) for _ in range(3)]
    for worker in workers:
        assert (await worker.get("/status"))["relayed"] is True
    await workers[0].ask("POST", "/keys/gemini/k0/drain", {"reason": "out"})
    await workers[1].ask("PUT", "/gemini/config", {"batch_size": 7})
    await clock.sleep(0.1)
    for worker in workers:
        assert (await worker.get("/keys/gemini/k0"))["state"] == "drained"
        assert (await worker.get("/gemini/config"))["batch_size"] == 7
        await ask(worker.gateway, "POST", GENERATE, BODY)
        assert worker.transport.sent[-1].credential["x-goog-api-key"] == GEMINI_KEYS[1]
    wire.ends[0].tell(b"nonsense")  # of another version: logged, and nothing else
    await clock.sleep(0.1)
    assert (await workers[1].get("/status"))["relayed"] is True
    for worker in workers:
        await worker.aclose()


async def test_streams_come_as_named_events_and_end_with_the_whole(clock: VirtualClock) -> None:
    """S3-08: SSE events are named `gemini-stream` and `gemini-response`."""
    managed = Managed([stream("one ", "two")], clock)
    body = {"prompt": "hi", "model": MODEL, "stream": True}
    client = managed.client("POST", "/gemini/execute", body)
    await client.run()
    heard = events(client)
    assert [kind for _, kind, _ in heard][-1] == "gemini-response"
    assert "".join(d["delta"] for _, kind, d in heard if kind == "gemini-stream") == "one two"
    assert heard[-1][2]["text"] == "one two"
    got = await managed.ask("POST", "/gemini/execute", body, idempotency_key="d")
    assert got.status == 400
    await managed.aclose()
