"""The configuration while the gateway runs: shown, validated, read again, taken over whole (F44)."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from tests.gateway import GEMINI_KEYS, ask
from tests.managing import Managed
from tests.support import MODEL, bad_key, quota, said, stream

from headgate.testing import Answer, Sent, VirtualClock

GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
STREAM = f"/gemini/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
BODY = {"contents": [{"parts": [{"text": "hi"}]}]}
NEW_KEY = "AIzaCANARY-gateway-9-xxxxxxxxxx"


def write(managed: Managed, toml: str) -> None:
    assert managed.file is not None
    managed.file.write_text(toml, encoding="utf-8")


async def test_settings_are_shown_with_their_origin_and_without_secrets(
    clock: VirtualClock, tmp_path: Path
) -> None:
    managed = Managed([], clock, folder=tmp_path, toml="[gemini]\nmax_retries = 5\n")
    shown = await managed.get("/config")
    assert (shown["generation"], shown["trouble"]) == (1, None)
    assert shown["file"] == str(managed.file)
    sections = {section["name"]: section for section in shown["sections"]}
    assert list(sections) == ["gateway", "gemini", "anthropic", "openai"]
    settings = {one["name"]: one for one in sections["gemini"]["settings"]}
    assert settings["max_retries"]["value"] == 5
    assert settings["max_retries"]["origin"] == f"{managed.file} [gemini] max_retries"
    assert settings["usage"]["origin"] == "HEADGATE_USAGE"
    assert sections["gemini"]["keys"] == ["k0", "k1"]
    assert "CANARY" not in json.dumps(shown)
    await managed.aclose()


async def test_a_password_in_a_place_is_hidden(clock: VirtualClock, tmp_path: Path) -> None:
    managed = Managed([], clock, folder=tmp_path)
    managed.environ["HEADGATE_USAGE"] = "postgresql://user:CANARY-password@db.test/usage"
    await managed.ask("POST", "/config/reload")
    shown = json.dumps(await managed.get("/config"))
    assert "db.test" in shown
    assert "CANARY" not in shown
    await managed.aclose()


async def test_a_configuration_is_validated_without_being_taken(
    clock: VirtualClock, tmp_path: Path
) -> None:
    managed = Managed([], clock, folder=tmp_path)
    good = await managed.ask("POST", "/config/validate", {"toml": "[gemini]\nmax_retries = 1\n"})
    assert good.json == {"ok": True, "problems": []}
    bad = '[gemini]\nmax_retries = -1\nmax_retires = 2\n[gateway]\ntransport = "pigeon"\n[nobody]\n'
    got = (await managed.ask("POST", "/config/validate", {"toml": bad})).json
    assert got["ok"] is False
    assert any("nobody" in problem for problem in got["problems"])
    got = (await managed.ask("POST", "/config/validate", {"toml": "[gemini]\nmax_retries = -1\n"})).json
    assert got["problems"] == [
        "headgate.toml [gemini] max_retries is '-1'; it takes a whole number, 0 or more."
    ]
    got = (await managed.ask("POST", "/config/validate", {"toml": "["})).json
    assert "not valid TOML" in got["problems"][0]
    assert (await managed.get("/config"))["generation"] == 1
    await managed.aclose()


async def test_a_proposal_cannot_make_the_gateway_read_for_ever(
    clock: VirtualClock, tmp_path: Path
) -> None:
    """A pipe that nobody writes to, a device without an end, a folder, a file that is too large."""
    environ = {"GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|k0"}  # what it says of others is read
    managed = Managed([], clock, folder=tmp_path, environ=environ)
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    large.write_text("CANARY-large" * 100_000)
    large.chmod(0o600)
    for path, why in (
        (pipe, "no regular file"), ("/dev/zero", "no regular file"), (tmp_path, "no regular file"),
        (large, "has more than"),
    ):  # fmt: skip
        toml = f'[openai]\nkeys_file = "{path}"\n'
        got = (await managed.ask("POST", "/config/validate", {"toml": toml})).json
        assert got["ok"] is False, path
        assert any(why in problem and str(path) in problem for problem in got["problems"]), got
        assert "CANARY" not in json.dumps(got)
    for toml, why in (
        ('[openai]\nkeys_file = "a\\u0000b"\n', "cannot read"), ("a = " + "[" * 5000, "too deeply"),
    ):  # fmt: skip
        got = (await managed.ask("POST", "/config/validate", {"toml": toml})).json
        assert [problem for problem in got["problems"] if why in problem], got
    await managed.aclose()


async def test_a_changed_file_takes_over_once_it_is_whole(clock: VirtualClock, tmp_path: Path) -> None:
    managed = Managed([said()], clock, folder=tmp_path)
    managed.reloading.start()
    await clock.sleep(1.5)
    write(managed, "[gemini]\nmax_ret")  # an editor is at it
    await clock.sleep(0.2)
    write(managed, "[gemini]\nmax_retries = 1\n")
    await settled(managed, 4)
    shown = await managed.get("/config")
    assert (shown["generation"], shown["trouble"]) == (2, None)
    history = await managed.get("/config/history")
    assert [(one["number"], one["cause"], one["taken"]) for one in history] == [
        (2, "file", True), (1, "start", True),
    ]  # fmt: skip
    assert history[0]["changed"] == ["gemini.max_retries"]
    await settled(managed, 10)
    assert (await managed.get("/config"))["generation"] == 2  # nothing changed: nothing is done
    await managed.aclose()


async def settled(managed: Managed, seconds: int) -> None:
    """Files are looked at in a thread, which takes real time: give it some with each look."""
    for _ in range(seconds * 2):
        await managed.clock.sleep(0.5)
        await asyncio.to_thread(lambda: None)


@pytest.mark.parametrize(
    ("toml", "why"),
    [
        ("[gemini]\nmax_retries = -1\n", "max_retries"),
        ("[gemini", "TOML"),
        ("[gemini]\nkeys_file = 'gone'\n[claude]\nkeys_file = 'gone'\n", ""),
        ("[gateway]\ntransport = 'pigeon'\n", "transport"),
    ],
)
async def test_f44_what_is_wrong_changes_nothing_and_says_why(
    clock: VirtualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture, toml: str, why: str
) -> None:
    managed = Managed([said()], clock, folder=tmp_path)
    before = managed.gateway.upstreams
    write(managed, toml)
    if not why:
        managed.environ["GEMINI_API_KEYS"] = ""  # its secret was removed
        managed.environ["ANTHROPIC_API_KEYS"] = managed.environ["OPENAI_API_KEYS"] = ""
    caplog.set_level(logging.INFO, "headgate.gateway")
    got = await managed.ask("POST", "/config/reload")
    assert (got.status, got.json["type"]) == (400, "/docs#problem-configuration")
    assert why in got.json["detail"]
    shown = await managed.get("/config")
    assert shown["trouble"] == got.json["detail"]
    assert managed.gateway.upstreams is before
    assert "configuration: not taken over cause=request" in caplog.text
    assert (await managed.get("/config/history"))[0]["taken"] is False
    assert (await ask(managed.gateway, "POST", GENERATE, BODY)).status == 200
    await managed.aclose()


async def test_a_file_that_is_gone_means_the_defaults(clock: VirtualClock, tmp_path: Path) -> None:
    managed = Managed([said()], clock, folder=tmp_path, toml="[gemini]\nmax_retries = 1\n")
    assert managed.file is not None
    managed.file.unlink()
    got = await managed.ask("POST", "/config/reload")
    assert got.status == 400  # HEADGATE_CONFIG names it, so its absence is a mistake
    assert managed.gateway.upstreams[0].settings.max_retries == 1
    await managed.aclose()


async def test_calls_under_way_keep_what_they_began_with(clock: VirtualClock, tmp_path: Path) -> None:
    """None fails, and the engine of the old configuration is closed with its last call."""
    closed: list[int] = []
    managed = Managed([stream(*"abcdef", piece_delay=1.0), said("new")], clock, folder=tmp_path)
    old = managed.gateway.upstreams[0].engine
    old_close = managed.transport.aclose

    async def noted() -> None:
        closed.append(1)
        await old_close()

    managed.transport.aclose = noted  # type: ignore[method-assign]
    task = asyncio.ensure_future(ask(managed.gateway, "POST", STREAM, BODY))
    await clock.sleep(2.5)
    write(managed, "[gemini]\nmax_retries = 0\nconnect_timeout_seconds = 3\n")
    got = await managed.ask("POST", "/config/reload")
    assert got.json["change"]["changed"] == ["gemini.connect_timeout_seconds", "gemini.max_retries"]
    assert managed.gateway.upstreams[0].engine is not old
    assert managed.gateway.upstreams[1].engine is not None
    assert (await ask(managed.gateway, "POST", GENERATE, BODY)).status == 200
    assert not closed
    got = await task
    assert got.status == 200
    assert got.body.count(b"data: ") == 6
    assert closed == [1]
    await managed.aclose()


async def test_only_what_is_other_is_built_anew(clock: VirtualClock, tmp_path: Path) -> None:
    managed = Managed([said()], clock, folder=tmp_path)
    gemini, anthropic, openai = managed.gateway.upstreams
    write(managed, "[gemini]\nmax_retries = 1\n[gateway]\nmax_calls = 7\n")
    change = (await managed.ask("POST", "/config/reload")).json["change"]
    assert change["changed"] == ["gateway.max_calls", "gemini.max_retries"]
    assert managed.gateway.upstreams[0] is not gemini
    assert managed.gateway.upstreams[1:] == (anthropic, openai)
    assert (await managed.ask("POST", "/config/reload")).json["change"] is None
    await managed.aclose()


async def test_what_belongs_to_the_process_waits_for_the_next_start(
    clock: VirtualClock, tmp_path: Path
) -> None:
    managed = Managed([said()], clock, folder=tmp_path)
    write(managed, "[gateway]\ndrain_seconds = 9\n")
    change = (await managed.ask("POST", "/config/reload")).json["change"]
    assert (change["taken"], change["pending"]) == (True, ["gateway.drain_seconds"])
    shown = await managed.get("/config")
    assert shown["pending"] == ["gateway.drain_seconds"]
    assert managed.gateway.settings.drain_seconds == 60.0
    write(managed, "")
    await managed.ask("POST", "/config/reload")
    assert (await managed.get("/config"))["pending"] == []
    await managed.aclose()


async def test_cool_downs_refusals_and_quotas_go_on(clock: VirtualClock, tmp_path: Path) -> None:
    """A change neither forgives a cool-down nor grants a quota twice (ADR 0031)."""
    managed = Managed([bad_key(), said()], clock, folder=tmp_path, toml="[gemini]\nquota_rpm = 3\n")
    for _ in range(3):
        assert (await ask(managed.gateway, "POST", GENERATE, BODY)).status == 200
    write(managed, "[gemini]\nquota_rpm = 4\nmax_retries = 1\n")
    assert (await managed.ask("POST", "/config/reload")).status == 200
    states = {
        key["name"]: key["state"] for key in (await managed.get("/keys?provider=gemini"))["items"]
    }
    assert states == {"k0": "refused", "k1": "ready"}
    assert (await ask(managed.gateway, "POST", GENERATE, BODY)).status == 200  # the fourth
    assert (await ask(managed.gateway, "POST", GENERATE, BODY)).status == 429
    await managed.aclose()


async def test_new_keys_join_and_old_ones_are_known_again(clock: VirtualClock, tmp_path: Path) -> None:
    managed = Managed([quota("Day"), bad_key(), said()], clock, folder=tmp_path)
    assert (await ask(managed.gateway, "POST", GENERATE, BODY)).status == 429
    managed.environ["GEMINI_API_KEYS"] += f",{NEW_KEY}|k9"
    await managed.ask("POST", "/gemini/execute", {"prompt": "hi", "model": MODEL})
    change = (await managed.ask("POST", "/config/reload")).json["change"]
    assert change["changed"] == ["gemini.keys"]
    keys = {key["name"]: key for key in (await managed.get("/keys?provider=gemini"))["items"]}
    assert {name: key["state"] for name, key in keys.items()} == {
        "k0": "cooling", "k1": "refused", "k9": "ready",
    }  # fmt: skip
    assert keys["k0"]["failures"] == 1
    assert (await ask(managed.gateway, "POST", GENERATE, BODY)).status == 200
    assert managed.transport.sent[-1].credential["x-goog-api-key"] == NEW_KEY
    got = await managed.ask("POST", "/gemini/execute", {"prompt": "ho", "model": MODEL})
    assert got.status == 200  # the backend has it too
    assert managed.transport.sent[-1].credential["x-goog-api-key"] == NEW_KEY
    await managed.aclose()


async def test_other_keys_do_not_grant_a_day_twice(clock: VirtualClock, tmp_path: Path) -> None:
    """What was used of a project's day and minute counts under the new list of keys, and no more than
    once where the old list comes back."""
    managed = Managed([said()], clock, folder=tmp_path, toml="[gemini]\nquota_rpd = 3\nquota_rpm = 2\n")
    old = managed.environ["GEMINI_API_KEYS"]

    async def served() -> int:
        count = 0
        while (await ask(managed.gateway, "POST", GENERATE, BODY)).status == 200:
            count += 1
        return count

    assert await served() == 4  # two keys, two a minute
    managed.environ["GEMINI_API_KEYS"] = f"{NEW_KEY}|k9,{old}"
    await managed.ask("POST", "/config/reload")
    assert await served() == 2  # of the new one alone
    await clock.sleep(75)
    assert await served() == 1 + 1 + 1  # what is left of each day
    managed.environ["GEMINI_API_KEYS"] = old
    await managed.ask("POST", "/config/reload")
    assert await served() == 0
    rows = (await managed.get("/quotas?provider=gemini"))["items"]
    assert {row["used"] for row in rows if row["limit"] == "rpd"} == {3}
    await clock.sleep(24 * 3600)
    assert await served() == 4
    await managed.aclose()


async def test_quotas_that_were_learned_are_known_to_other_keys(
    clock: VirtualClock, tmp_path: Path
) -> None:
    sent = 0

    def answer(asked: Sent) -> Answer:
        nonlocal sent
        sent += 1
        return quota("Minute", "20s", value="2") if sent == 3 else said()

    managed = Managed(answer, clock, folder=tmp_path)
    managed.environ["GEMINI_API_KEYS"] = f"{GEMINI_KEYS[0]}|k0"
    await managed.ask("POST", "/config/reload")
    for _ in range(3):
        await ask(managed.gateway, "POST", GENERATE, BODY)
    learned = (await managed.get("/quotas?provider=gemini"))["items"]
    assert learned
    managed.environ["GEMINI_API_KEYS"] += f",{NEW_KEY}|k9"
    await managed.ask("POST", "/config/reload")
    rows = (await managed.get("/quotas?provider=gemini"))["items"]
    mine = [{**row} for row in rows if row["domain"] == "key:k0"]
    assert [(row["limit"], row["amount"], row["used"]) for row in mine] == [
        (row["limit"], row["amount"], row["used"]) for row in learned
    ]
    await managed.aclose()


async def test_l6_a_hundred_reloads_under_load_without_one_failed_request(
    clock: VirtualClock, tmp_path: Path
) -> None:
    def answer(sent: Sent) -> Answer:
        return stream("a", "b", "c", piece_delay=0.3) if sent.request.streaming else said(delay=0.2)

    managed = Managed(answer, clock, folder=tmp_path)
    ends = asyncio.Event()
    statuses: list[int] = []

    async def load(path: str) -> None:
        while not ends.is_set():
            got = await ask(managed.gateway, "POST", path, BODY)
            whole = path == GENERATE or got.body.count(b"data: ") == 3
            statuses.append(got.status if whole else 599)

    tasks = [asyncio.ensure_future(load(path)) for path in (GENERATE, STREAM) * 5]
    for number in range(100):
        broken = "max_retries = -1" if number % 10 == 9 else f"max_retries = {number % 7 + 1}"
        write(managed, f"[gemini]\n{broken}\n")
        await managed.ask("POST", "/config/reload")
        await clock.sleep(0.11)
    ends.set()
    await asyncio.gather(*tasks)
    assert set(statuses) == {200}
    assert len(statuses) > 100
    assert (await managed.get("/config"))["generation"] > 80
    assert len(managed.gateway._estate._things) <= 8  # engines that nobody needs are gone
    assert managed.transport.open_exchanges == 0
    await managed.aclose()


def test_gemini_keys_are_canaries() -> None:
    assert all("CANARY" in key for key in (*GEMINI_KEYS, NEW_KEY))


async def test_listeners_hear_of_configurations(clock: VirtualClock, tmp_path: Path) -> None:
    managed = Managed([], clock, folder=tmp_path)
    client = managed.client("GET", "/events?kinds=config")
    task = asyncio.ensure_future(client.run())
    await settled(managed, 1)
    write(managed, "[gemini]\nmax_retries = 1\n")
    await managed.ask("POST", "/config/reload")
    await clock.sleep(0.1)
    data: Any = json.loads(client.got.body.decode().split("data: ")[1])
    assert data["change"]["changed"] == ["gemini.max_retries"]
    client.go_away()
    await task
    await managed.aclose()
