"""The management API: what each endpoint tells and does, who may ask, and how it says no."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from tests.gateway import CALLERS, ENVIRON, GEMINI_KEYS, ask
from tests.managing import ADMIN, ADMIN_KEY, Managed
from tests.support import MODEL, bad_key, overloaded, quota, said

from headgate.core.errors import ConfigurationError
from headgate.gateway.manage.opening import TABLE
from headgate.gateway.manage.trouble import KINDS
from headgate.testing import Answer, Sent, VirtualClock
from headgate.wiring.gateway_settings import GatewaySettings, load_gateway

GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
BODY = {"contents": [{"parts": [{"text": "hi"}]}]}


async def call(managed: Managed, **headers: str) -> Any:
    return await ask(managed.gateway, "POST", GENERATE, BODY, headers)


# ── who may ──────────────────────────────────────────────────────────────────────────────────────


async def test_x11_every_endpoint_asks_for_the_admin_key(clock: VirtualClock) -> None:
    """X-11, X-13, X-14: nobody gets in without it, whatever else they send; nothing is done."""
    managed = Managed([], clock, settings=GatewaySettings(admin=ADMIN, callers=CALLERS))
    wrong = ("", "Bearer", "Bearer x", f"Basic {ADMIN_KEY}", f"Bearer {CALLERS[0].value}",
             f"Bearer {ADMIN_KEY[:-1]}")  # fmt: skip
    for endpoint, value in itertools.product(TABLE.endpoints, wrong):
        path = endpoint.path.removeprefix("/manage/v1")
        for name in endpoint.parameters:
            path = path.replace(f"{{{name}}}", endpoint.path_examples.get(name, "x"))
        headers = {"authorization": value, "content-length": "0"}
        got = await managed.client(endpoint.method, path, b"", headers).run()
        assert got.status == 401, (value, path, got.body)
        assert got.headers["content-type"] == "application/problem+json"
        assert got.headers["www-authenticate"].startswith("Bearer")
        assert got.headers["cache-control"] == "no-store"
        assert "CANARY" not in got.body.decode()
    assert not managed.transport.sent
    await managed.aclose()


async def test_the_key_in_the_address_is_none(clock: VirtualClock) -> None:
    """X-6: what stands in addresses stands in logs."""
    managed = Managed([], clock)
    for path in (f"/status?key={ADMIN_KEY}", "/status"):
        got = await managed.client(
            "GET", path, b"", {"authorization": "", "x-api-key": ADMIN_KEY}
        ).run()
        assert got.status == 401
    await managed.aclose()


async def test_unknown_paths_tell_nothing_to_strangers(clock: VirtualClock) -> None:
    managed = Managed([], clock)
    for path in ("/nothing", "/keys/gemini/k0/explode", ""):
        assert (await managed.client("GET", path, b"", {"authorization": ""}).run()).status == 401
        assert (await managed.ask("GET", path)).status == 404
    await managed.aclose()


async def test_a_large_body_is_refused_unread(clock: VirtualClock) -> None:
    """X-14: authentication comes before the body."""
    managed = Managed([], clock)
    headers = {"authorization": "", "content-length": str(10**8), "content-type": "application/json"}
    got = await managed.client("POST", "/gemini/execute", b"{", headers).run()
    assert got.status == 401
    assert got.headers["connection"] == "close"
    await managed.aclose()


async def test_without_a_key_this_machine_alone_may_manage(clock: VirtualClock) -> None:
    """ADR 0073: who may use all keys may manage them; no page of a browser, no name that was made to
    point here (X-4, X-27, X-28)."""
    managed = Managed([], clock, settings=GatewaySettings())
    assert (await managed.ask("GET", "/status", authorization="")).json["access"] == "local"
    for headers in (
        {"host": "evil.test"}, {"host": "x/?"}, {"host": "x/#"}, {"origin": "https://evil.test"},
        {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "null"},
    ):  # fmt: skip
        got = await managed.client("GET", "/status", b"", {"authorization": "", **headers}).run()
        assert got.status == 403, headers
        assert got.json["type"] == "/docs#problem-not-local"
        assert "access-control-allow-origin" not in got.headers
    await managed.aclose()


async def test_with_callers_and_without_a_key_it_is_off(clock: VirtualClock) -> None:
    """A proxy before it makes every request look local."""
    managed = Managed([], clock, settings=GatewaySettings(callers=CALLERS))
    got = await managed.ask("GET", "/status")
    assert got.status == 404
    assert got.json["type"] == "/docs#problem-management-off"
    assert "HEADGATE_ADMIN_KEY" in got.json["hint"]
    assert managed.ears._hearing is None  # nor does a call pay for it
    await managed.aclose()


def test_the_admin_key_is_read_and_checked(tmp_path: Path) -> None:
    assert load_gateway({}).admin is None
    found = load_gateway({"HEADGATE_ADMIN_KEY": ADMIN_KEY})
    assert found.admin == ADMIN
    assert ADMIN_KEY not in repr(found)
    file = tmp_path / "admin"
    file.write_text(f"{ADMIN_KEY}\n")
    file.chmod(0o600)
    assert load_gateway({"HEADGATE_ADMIN_KEY_FILE": str(file)}).admin == ADMIN
    for environ in (
        {"HEADGATE_ADMIN_KEY": "CANARY-too-short"},
        {"HEADGATE_ADMIN_KEY": f"{ADMIN_KEY}\u00e9"},
        {"HEADGATE_ADMIN_KEY": ADMIN_KEY, "HEADGATE_CALLER_KEYS": f"{ADMIN_KEY}|ann"},
    ):
        with pytest.raises(ConfigurationError) as caught:
            load_gateway(environ)
        assert "CANARY" not in caught.value.message


# ── how it says no ───────────────────────────────────────────────────────────────────────────────


async def test_problems_have_type_title_detail_and_hint(clock: VirtualClock) -> None:
    managed = Managed([overloaded()], clock)
    cases: list[tuple[int, str, str, str, Any, dict[str, str]]] = [
        (404, "not-found", "GET", "/keys/gemini/nobody", b"", {}),
        (404, "not-found", "GET", "/keys/nobody/k0", b"", {}),
        (405, "method-not-allowed", "DELETE", "/status", b"", {}),
        (400, "invalid", "GET", "/keys?limit=0", b"", {}),
        (400, "invalid", "GET", "/keys?limit=many", b"", {}),
        (400, "invalid", "GET", "/keys?cursor=!", b"", {}),
        (400, "invalid", "GET", "/keys?surprise=1", b"", {}),
        (400, "invalid", "POST", "/cache/invalidate", b"{", {}),
        (400, "invalid", "POST", "/cache/invalidate", b"[" * 5000, {}),
        (400, "invalid", "POST", "/cache/invalidate", b"\xff\xfe", {}),
        (400, "invalid", "POST", "/cache/invalidate", {"pattern": ""}, {}),
        (400, "invalid", "POST", "/cache/clear", {"pattern": "x"}, {}),
        (400, "configuration", "PUT", "/gemini/config", {"batch_size": 0}, {}),
        (415, "unsupported-media-type", "POST", "/cache/clear", b"a=b",
         {"content-type": "application/x-www-form-urlencoded"}),
        (409, "no-ledger", "GET", "/usage", b"", {}),
        (409, "conflict", "POST", "/gemini/code",
         {"prompt": "x", "model": MODEL, "project_path": "/srv"}, {}),
        (400, "invalid", "POST", "/gemini/execute", {"prompt": "x"}, {}),
        (400, "invalid", "GET", "/gemini/recommendations?use_case=x&needs=flying", b"", {}),
    ]  # fmt: skip
    for status, kind, method, path, body, headers in cases:
        got = await managed.client(method, path, body, headers).run()
        assert (got.status, got.json["type"]) == (status, f"/docs#problem-{kind}"), (path, got.body)
        assert got.headers["content-type"] == "application/problem+json"
        assert got.json["status"] == status
        assert got.json["title"] == KINDS[kind].title
        assert got.json["hint"]
        assert got.json["detail"]
        assert got.json["request_id"] == got.headers["x-headgate-request-id"]
        if status == 405:
            assert got.headers["allow"] == "GET, HEAD"
    await managed.aclose()


async def test_x42_a_fault_tells_nothing_of_itself(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    managed = Managed([], clock)
    monkeypatch.setattr(managed.house.feed, "_listeners", None)  # a mistake of ours
    got = await managed.ask("GET", "/status")
    assert got.status == 500
    assert "NoneType" not in got.body.decode()
    assert got.json["request_id"] in caplog.text
    monkeypatch.undo()
    await managed.aclose()


# ── keys, domains, quotas ────────────────────────────────────────────────────────────────────────


def by_key(sent: Sent) -> Answer:
    """The first key is refused, the second has no quota left for a minute."""
    return bad_key() if sent.credential["x-goog-api-key"] == GEMINI_KEYS[0] else said()


async def test_keys_show_what_became_of_them_and_never_themselves(clock: VirtualClock) -> None:
    managed = Managed(by_key, clock)
    assert (await call(managed)).status == 200
    shown = await managed.get("/keys?provider=gemini")
    states = {key["name"]: key["state"] for key in shown["items"]}
    assert states == {"k0": "refused", "k1": "ready"}
    refused = await managed.get("/keys/gemini/k0")
    assert "not valid" in refused["reason"]
    assert refused["failures"] == 1
    everything = json.dumps(await managed.get("/keys")) + json.dumps(await managed.get("/config"))
    assert "CANARY" not in everything
    await managed.aclose()


async def test_a_key_is_drained_and_resumed(clock: VirtualClock) -> None:
    managed = Managed([said()], clock)
    got = await managed.ask("POST", "/keys/gemini/k0/drain", {"reason": "rotated\r\nout"})
    assert (got.json["state"], got.json["reason"]) == (
        "drained", "drained by an operator: rotated\r\nout",
    )  # fmt: skip
    for _ in range(4):
        await call(managed)
    assert {sent.credential["x-goog-api-key"] for sent in managed.transport.sent} == {GEMINI_KEYS[1]}
    assert (await managed.ask("POST", "/keys/gemini/k0/resume")).json["state"] == "ready"
    for _ in range(2):
        await call(managed)
    assert {sent.credential["x-goog-api-key"] for sent in managed.transport.sent} == {*GEMINI_KEYS}
    await managed.aclose()


async def test_a_cooling_key_says_until_when_and_resuming_forgets_it(clock: VirtualClock) -> None:
    managed = Managed([quota("Minute", "22s"), said()], clock)
    await call(managed)
    (cooling,) = [
        key for key in (await managed.get("/keys?provider=gemini"))["items"] if key["cooling"]
    ]
    assert cooling["state"] == "cooling"
    assert list(cooling["cooling"]) == [MODEL]
    got = await managed.ask("POST", f"/keys/gemini/{cooling['name']}/resume")
    assert (got.json["state"], got.json["cooling"]) == ("ready", {})
    await managed.aclose()


async def test_a_domain_is_as_good_as_its_best_key(clock: VirtualClock) -> None:
    environ = {"GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|a|p/1,{GEMINI_KEYS[1]}|b|p/1"}
    managed = Managed([said()], clock, environ=environ)
    await managed.ask("POST", "/keys/gemini/a/drain")
    (domain,) = (await managed.get("/domains"))["items"]
    assert (domain["domain"], domain["keys"], domain["state"]) == ("p/1", ["a", "b"], "ready")
    got = await managed.ask("POST", "/domains/gemini/p/1/drain", {"reason": "billing"})
    assert got.json["state"] == "drained"
    assert (await call(managed)).status == 503
    assert (await managed.ask("POST", "/domains/gemini/p/1/resume")).json["state"] == "ready"
    assert (await call(managed)).status == 200
    await managed.aclose()


async def test_quotas_say_what_is_used_and_left(clock: VirtualClock) -> None:
    environ = {**ENVIRON, "HEADGATE_QUOTA_RPM": "15", "HEADGATE_QUOTA_TPM": "1000"}
    managed = Managed([said()], clock, environ=environ)
    await call(managed)
    await clock.sleep(1)
    rows = (await managed.get(f"/quotas?provider=gemini&model={MODEL}"))["items"]
    rpm = [row for row in rows if row["limit"] == "rpm"]
    assert sorted(row["used"] for row in rpm) == [0, 1]
    assert all(row["left"] == 15 - row["used"] for row in rpm)
    assert {row["window_seconds"] for row in rpm} == {60.0}
    used = [row for row in rows if row["limit"] == "tpm" and row["used"]]
    assert [row["used"] for row in used] == [5]
    domain = await managed.get(f"/domains/gemini/{used[0]['domain']}")
    assert {row["limit"] for row in domain["quotas"]} == {"rpm", "tpm"}
    await managed.aclose()


async def test_a_key_is_tested_without_consequences(clock: VirtualClock) -> None:
    managed = Managed([Answer(body=b'{"models":[]}'), bad_key(echo=GEMINI_KEYS[0])], clock)
    got = await managed.ask("POST", "/keys/gemini/k0/test")
    assert (got.json["state"], got.json["works"]) == ("ok", True)
    (sent,) = managed.transport.sent
    assert sent.credential["x-goog-api-key"] == GEMINI_KEYS[0]
    assert sent.request.url.endswith("/models?pageSize=1")
    got = await managed.ask("POST", "/keys/gemini/k0/test")
    assert (got.json["state"], got.json["works"]) == ("invalid", False)
    assert "CANARY" not in got.body.decode()
    assert (await managed.get("/keys/gemini/k0"))["state"] == "ready"
    await managed.aclose()


async def test_lists_come_in_pages_that_fit_together(clock: VirtualClock) -> None:
    managed = Managed([], clock)
    whole = [f"{key['provider']}/{key['name']}" for key in (await managed.get("/keys"))["items"]]
    assert whole == sorted(whole)
    assert len(whole) == 6
    seen, cursor = [], ""
    while cursor is not None:
        page = await managed.get(f"/keys?limit=4&cursor={cursor}")
        seen += [f"{key['provider']}/{key['name']}" for key in page["items"]]
        cursor = page["next"]
    assert seen == whole
    got = await managed.ask("GET", f"/breakers?cursor={'W251bGxd'}")
    assert got.status == 400
    await managed.aclose()


# ── cache and breakers ───────────────────────────────────────────────────────────────────────────


async def test_the_cache_is_shown_and_forgotten_by_caller(clock: VirtualClock) -> None:
    settings = GatewaySettings(admin=ADMIN, callers=CALLERS, cache_seconds=600.0)
    managed = Managed([said()], clock, settings=settings)
    ann, bob = ({"x-goog-api-key": caller.value} for caller in CALLERS)
    for who in (ann, ann, bob):
        await ask(managed.gateway, "POST", GENERATE, BODY, who)
    assert len(managed.transport.sent) == 2
    shown = await managed.get("/cache")
    assert (shown["enabled"], shown["entries"], shown["hits"], shown["misses"]) == (True, 2, 1, 2)
    assert shown["hit_rate"] == pytest.approx(33.33)
    assert (await managed.ask("POST", "/cache/invalidate", {"pattern": "an*"})).json == {"dropped": 1}
    for who in (ann, bob):
        await ask(managed.gateway, "POST", GENERATE, BODY, who)
    assert len(managed.transport.sent) == 3
    assert (await managed.ask("POST", "/cache/clear")).json == {"dropped": 2}
    await managed.aclose()


async def test_without_a_cache_it_says_so(clock: VirtualClock) -> None:
    managed = Managed([], clock)
    assert (await managed.get("/cache"))["enabled"] is False
    assert (await managed.ask("POST", "/cache/clear")).json == {"dropped": 0}
    await managed.aclose()


async def test_a_breaker_is_shown_and_reset(clock: VirtualClock) -> None:
    managed = Managed([overloaded()], clock)
    for _ in range(12):
        await call(managed)
        await clock.sleep(0.1)
    (breaker,) = (await managed.get("/breakers"))["items"]
    assert (breaker["model"], breaker["state"]) == (MODEL, "open")
    assert (await managed.get("/status"))["upstreams"][0]["open_breakers"] == [MODEL]
    sent = len(managed.transport.sent)
    assert (await call(managed)).status == 503
    assert len(managed.transport.sent) == sent
    one = {"provider": "gemini", "model": MODEL}
    assert (await managed.ask("POST", "/breakers/reset", one)).json["state"] == "closed"
    await call(managed)
    assert len(managed.transport.sent) > sent
    assert (await managed.ask("POST", "/breakers/reset", {**one, "model": "nobody"})).status == 404
    await managed.aclose()


# ── usage and single calls ───────────────────────────────────────────────────────────────────────


async def test_usage_calls_and_one_call_come_from_the_ledger(
    clock: VirtualClock, tmp_path: Path
) -> None:
    settings = GatewaySettings(admin=ADMIN, callers=CALLERS)
    managed = Managed([bad_key(), said()], clock, settings=settings, folder=tmp_path)
    answers = []
    for caller in (CALLERS[0], CALLERS[0], CALLERS[1]):
        answers.append(await call(managed, **{"x-goog-api-key": caller.value}))
        await clock.sleep(1)
    lines = (await managed.get("/usage?by=caller"))["lines"]
    assert {line["name"]: line["total_requests"] for line in lines} == {"ann": 2, "bob": 1}
    assert (await managed.get("/usage?by=day&caller=ann"))["lines"][0]["attempts"] == 3
    first = await managed.get("/calls?limit=3")
    second = await managed.get(f"/calls?limit=3&cursor={first['next']}")
    rows = first["items"] + second["items"]
    assert [row["result"] for row in rows] == ["auth", "success", "success", "success"]
    assert second["next"] is None
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)
    assert rows[0]["at"].endswith("+00:00")
    wanted = answers[0].headers["x-headgate-request-id"]
    story = await managed.get(f"/calls/{wanted}")
    assert [one["result"] for one in story["attempts"]] == ["auth", "success"]
    assert (story["caller"], story["result"], story["cache"]) == ("ann", "success", "off")
    assert story["cost"] > 0
    assert (await managed.ask("GET", "/calls/unknown")).status == 404
    assert (await managed.ask("GET", "/usage?since=yesterday")).status == 400
    assert (await managed.ask("GET", "/usage?since=2026-11-01T00:00:00")).status == 400  # no offset
    await managed.aclose()
