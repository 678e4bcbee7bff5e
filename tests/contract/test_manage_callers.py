"""Callers over the management API: made, changed, rotated, revoked; what they used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.gateway import ENVIRON, ask
from tests.managing import ADMIN_KEY, Managed
from tests.support import MODEL, said

from headgate.gateway.caller_opening import open_desk
from headgate.testing import VirtualClock
from headgate.wiring.gateway_settings import load_gateway

GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
BODY = {"contents": [{"parts": [{"text": "hi"}]}]}


def with_book(clock: VirtualClock, folder: Path) -> Managed:
    environ = {
        **ENVIRON,
        "HEADGATE_CALLERS": str(folder / "callers.sqlite3"),
        "HEADGATE_ADMIN_KEY": ADMIN_KEY,
        "HEADGATE_CALLER_KEYS": "CANARY-fixed-key-000000|fixed",
    }
    settings = load_gateway(environ)
    desk = open_desk(settings, clock, environ)
    return Managed([said()], clock, settings=settings, environ=environ, folder=folder, desk=desk)


async def call(managed: Managed, key: str) -> int:
    await managed.clock.sleep(1)  # a change is seen within a second
    got = await ask(managed.gateway, "POST", GENERATE, BODY, {"x-goog-api-key": key})
    return got.status


async def test_a_caller_is_made_used_rotated_and_revoked(clock: VirtualClock, tmp_path: Path) -> None:
    managed = with_book(clock, tmp_path)
    budget = {"amount": 10**9, "window": "day"}
    made = await managed.ask(
        "POST", "/callers", {"name": "ann", "budget": budget}, idempotency_key="make-ann"
    )
    assert made.status == 201
    first = made.json["key"]
    assert made.json["caller"]["keys"][0]["ending"] == first[-4:]
    assert await call(managed, first) == 200
    usage = await managed.get("/callers/ann/usage")
    for _ in range(200):  # it is booked by a thread
        if usage["spent"]:
            break
        await clock.sleep(0.1)
        usage = await managed.get("/callers/ann/usage")
    assert usage["budget"] == 10**9
    assert usage["spent"] > 0
    assert usage["left"] == 10**9 - usage["spent"]
    second = (await managed.ask("POST", "/callers/ann/rotate", {"grace_seconds": 60})).json["key"]
    assert (await call(managed, first), await call(managed, second)) == (200, 200)
    await clock.sleep(60)
    assert (await call(managed, first), await call(managed, second)) == (401, 200)
    changed = await managed.client("PATCH", "/callers/ann", {"models": ["claude-*"]}).run()
    assert changed.json["models"] == ["claude-*"]
    assert await call(managed, second) == 403
    got = await managed.client("PATCH", "/callers/ann?version=1", {"models": []}).run()
    assert (got.status, got.json["type"]) == (409, "/docs#problem-conflict")
    assert (await managed.ask("POST", "/callers/ann/revoke")).json["state"] == "revoked"
    assert await call(managed, second) == 401
    everything = str([await managed.get(path) for path in ("/callers", "/callers/ann", "/status")])
    assert not any(key in everything for key in (first, second, "CANARY"))
    await managed.aclose()


async def test_a_key_that_was_shown_once_is_not_shown_again(
    clock: VirtualClock, tmp_path: Path
) -> None:
    """Not by a repeated request either: nothing keeps it."""
    managed = with_book(clock, tmp_path)
    made = await managed.ask("POST", "/callers", {"name": "ann"}, idempotency_key="k")
    again = await managed.ask("POST", "/callers", {"name": "ann"}, idempotency_key="k")
    assert (again.status, again.json["type"]) == (409, "/docs#problem-conflict")
    assert made.json["key"] not in again.body.decode()
    assert len((await managed.get("/callers"))["items"]) == 1
    await managed.aclose()


async def test_s2_limits_are_reset(clock: VirtualClock, tmp_path: Path) -> None:
    """Appendix A: limit reset stands behind the admin credential."""
    managed = with_book(clock, tmp_path)
    spec = {"name": "ann", "limits": {"requests_per_minute": 2}}
    key = (await managed.ask("POST", "/callers", spec)).json["key"]
    assert [await call(managed, key) for _ in range(3)] == [200, 200, 429]
    assert (await managed.ask("POST", "/callers/ann/limits/reset")).json == {"buckets": 1}
    assert await call(managed, key) == 200
    assert (await managed.ask("POST", "/callers/fixed/limits/reset")).json == {"buckets": 0}
    assert (await managed.ask("POST", "/callers/nobody/limits/reset")).status == 404
    await managed.aclose()


async def test_callers_come_in_pages_with_those_that_are_fixed(
    clock: VirtualClock, tmp_path: Path
) -> None:
    managed = with_book(clock, tmp_path)
    for name in ("cid", "ann", "bob"):
        await managed.ask("POST", "/callers", {"name": name})
    first = await managed.get("/callers?limit=2")
    second = await managed.get(f"/callers?limit=2&cursor={first['next']}")
    assert [one["name"] for one in first["items"] + second["items"]] == ["ann", "bob", "cid"]
    assert (second["next"], first["fixed"]) == (None, ["fixed"])
    assert (await managed.get("/status"))["callers"] >= 1
    await managed.aclose()


async def test_what_cannot_be_is_told_by_name(clock: VirtualClock, tmp_path: Path) -> None:
    managed = with_book(clock, tmp_path)
    await managed.ask("POST", "/callers", {"name": "ann"})
    cases: list[tuple[int, str, Any]] = [
        (400, "invalid", {"name": ""}),
        (400, "invalid", {"name": "x", "role": "admin"}),  # no field beyond those
        (400, "invalid", {"name": "x", "limits": {"requests_per_minute": -1}}),
        (409, "conflict", {"name": "ann"}),
        (409, "conflict", {"name": "fixed"}),
    ]
    for status, kind, body in cases:
        got = await managed.ask("POST", "/callers", body)
        assert (got.status, got.json["type"]) == (status, f"/docs#problem-{kind}"), got.body
    assert (await managed.ask("GET", "/callers/nobody")).status == 404
    await managed.aclose()


async def test_without_a_book_it_says_what_to_set(clock: VirtualClock) -> None:
    managed = Managed([], clock)
    assert await managed.get("/callers") == {"items": [], "fixed": [], "next": None}
    got = await managed.ask("POST", "/callers", {"name": "ann"})
    assert got.status == 409
    assert "HEADGATE_CALLERS" in got.json["hint"]
    await managed.aclose()
