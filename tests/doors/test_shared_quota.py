"""A store by setting, end to end: several processes, one server, one quota; and who closes what."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests import valkey
from tests.valkey import Server
from typer.testing import CliRunner

from headgate.claude import ResilientClaudeClient
from headgate.cli.exits import ExitCode
from headgate.cli.main import app
from headgate.core.errors import ConfigurationError
from headgate.core.quota import Batch, BatchReply, Limit
from headgate.emulator import Emulator, EmulatorConfig, Limits, Project
from headgate.gemini import ResilientGeminiClient

valkey_server = valkey.valkey_server

MODEL = "gemini-3.8-flash"
RPM = 12
PROJECTS = {"p0": "AIzaCANARY-share-0", "p1": "AIzaCANARY-share-1"}
KEYS = ",".join(f"{value}|{name}|{name}" for name, value in PROJECTS.items())

PROCESS = """
import asyncio, logging, sys
from headgate.gemini import AllKeysExhaustedError, GeminiAPICallError, ResilientGeminiClient

logging.getLogger("headgate").addHandler(logging.NullHandler())  # refused calls are no news here

async def work(client):
    served = 0
    while True:
        try:
            await client.generate_content("hello", "gemini-3.8-flash")
        except AllKeysExhaustedError:
            return served
        except GeminiAPICallError as error:
            if error.kind != "store":  # a machine under load may keep the server waiting
                raise
            await asyncio.sleep(0.05)
        else:
            served += 1

async def main():
    async with ResilientGeminiClient() as client:
        print("ready", flush=True)
        sys.stdin.readline()
        print(sum(await asyncio.gather(*(work(client) for _ in range(4)))), flush=True)

asyncio.run(main())
"""


def processes(count: int, environ: dict[str, str], folder: Path) -> list[int]:
    """How many calls each of so many processes had served, all of them at the same time."""
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROCESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={**os.environ, **environ},  # noqa: TID251 - for another process
            text=True,
        )
        for _ in range(count)
    ]
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", process.communicate()[1]
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [process.communicate(timeout=60) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * count, told
    assert not [errors for _, errors in told if errors], "nothing is left open, nothing is warned of"
    return [int(said) for said, _ in told]


def test_processes_that_share_a_store_share_the_quota(valkey_server: Server, tmp_path: Path) -> None:
    """Together they use all of it, each a part, and the upstream refuses nothing."""
    projects = [
        Project(name, {name: value}, {"*": Limits(rpm=RPM, mechanism="sliding_log")})
        for name, value in PROJECTS.items()
    ]
    with Emulator(EmulatorConfig(projects=projects)).in_thread() as upstream:
        environ = {
            "GEMINI_API_KEYS": KEYS,
            "HEADGATE_GEMINI_BASE_URL": upstream.base_url,
            "HEADGATE_STORE": valkey_server.url,
            "HEADGATE_QUOTA_RPM": str(RPM),
            "HEADGATE_MAX_WAIT_SECONDS": "9",  # to settle in; less than until a window has passed
        }
        served = processes(2, environ, tmp_path)
        report = upstream.report()
    assert report.totals.refused == {}
    assert report.totals.answered == sum(served) == RPM * len(PROJECTS)
    assert all(served), "both had their part"


# ── which store, and whose it is ────────────────────────────────────────────────────────────────


class Lent:
    """A caller's own store."""

    def __init__(self) -> None:
        self.closed = False

    async def declare(self, group: str, domains: Sequence[Sequence[Limit]]) -> None: ...

    async def transact(self, group: str, batch: Batch) -> BatchReply:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closed = True


def connections(server: Server) -> int:
    """Of clients, without the one that asks."""
    with server.client() as client:
        return len(client.client_list(_type="normal")) - 1


@pytest.mark.parametrize("way", ["argument", "variable", "file"])
def test_a_store_is_named_in_three_ways_and_closed_by_the_client(
    way: str, valkey_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given: dict[str, object] = {"environ": {}}
    if way == "argument":
        given["store"] = valkey_server.url
    elif way == "variable":
        given["environ"] = {"HEADGATE_STORE": valkey_server.url}
    else:
        Path("headgate.toml").write_text(f'[gemini]\nstore = "{valkey_server.url}"\n')
    before = connections(valkey_server)

    async def main(upstream: str) -> None:
        client = ResilientGeminiClient(keys=KEYS, base_url=upstream, quotas={"rpm": 5}, **given)  # type: ignore[arg-type]
        assert str(client.settings.store) == valkey_server.url
        await client.generate_content("hello", MODEL)
        assert connections(valkey_server) > before
        await client.aclose()

    projects = [Project(name, {name: value}) for name, value in PROJECTS.items()]
    with Emulator(EmulatorConfig(projects=projects)).in_thread() as upstream:
        asyncio.run(main(upstream.base_url))
    assert connections(valkey_server) == before
    with valkey_server.client() as client:
        assert list(client.scan_iter(match="{gemini:*}st"))


def test_the_synchronous_twins_close_it_too(valkey_server: Server) -> None:
    before = connections(valkey_server)
    projects = [Project(name, {name: value}) for name, value in PROJECTS.items()]
    with (
        Emulator(EmulatorConfig(projects=projects)).in_thread() as upstream,
        ResilientGeminiClient(
            keys=KEYS,
            base_url=upstream.base_url,
            store=valkey_server.url,
            quotas={"rpm": 5},
            environ={},
        ) as client,
    ):
        client.generate_content_sync("hello", MODEL)
        assert connections(valkey_server) > before
    assert connections(valkey_server) == before


@pytest.mark.parametrize("make", [ResilientGeminiClient, ResilientClaudeClient])
async def test_a_store_that_was_lent_stays_open(make: type[ResilientGeminiClient]) -> None:
    store = Lent()
    async with make(keys="CANARY-key|a", store=store, environ={}):
        pass
    assert not store.closed


@pytest.mark.parametrize("make", [ResilientGeminiClient, ResilientClaudeClient])
@pytest.mark.parametrize(
    ("store", "allowed"),
    [
        ("redis:/CANARY", "memory, or redis://"),
        ("http://user:CANARY@host", "memory, or redis://"),
        ("redis://user:CANARY@host:port", "a host, or a host and its port"),
        ("redis://user:CANARY@host/db", "number of a database"),
        ("redis://user:CANARY@host?nonsense=CANARY", "option"),
        (7, "a URL or a QuotaStore"),
    ],
)
def test_a_wrong_store_is_refused_with_what_is_allowed_and_without_its_password(
    make: type[ResilientGeminiClient], store: object, allowed: str
) -> None:
    with pytest.raises(ConfigurationError, match=allowed) as caught:
        make(keys="CANARY-key|a", store=store, environ={})  # type: ignore[arg-type]
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("make", [ResilientGeminiClient, ResilientClaudeClient])
def test_neither_settings_nor_client_show_the_password(make: type[ResilientGeminiClient]) -> None:
    url = "redis://user:CANARY@host:6379/0?client_name=CANARY"
    client = make(keys="CANARY-key|a", environ={"HEADGATE_STORE": url})
    assert client.settings.store.written == url
    shown = f"{client!r} {client.settings!r} {client.settings.resolved!r} {client.settings.store}"
    assert "redis://***@host:6379/0?…" in shown
    assert "CANARY" not in shown


@pytest.mark.parametrize("way", [(), ("--json",)], ids=["text", "json"])
def test_config_check_shows_the_store_without_its_password(
    way: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEMINI_API_KEYS", KEYS)
    monkeypatch.setenv("HEADGATE_STORE", "rediss://user:CANARY@host:6379/0")
    result = CliRunner().invoke(app, ["config", "check", *way])
    assert result.exit_code == 0
    assert "rediss://***@host:6379/0" in result.output
    assert "CANARY" not in result.output
    monkeypatch.setenv("HEADGATE_STORE", "rediss://user:CANARY@host:6379/0?nonsense=CANARY")
    result = CliRunner().invoke(app, ["config", "check", *way])
    assert result.exit_code == ExitCode.CONFIGURATION
    assert "rediss://***@host:6379/0?…" in result.output
    assert "CANARY" not in result.output
