"""`headgate cache`: what the shared store holds of replies, and forgetting it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests import valkey
from tests.replies import kept
from tests.valkey import Server
from typer.testing import CliRunner, Result

from headgate.cli.exits import ExitCode
from headgate.cli.main import app
from headgate.stores.replies_valkey import ValkeyReplies
from headgate.testing import VirtualClock
from headgate.wiring.clock import SystemClock

valkey_server = valkey.valkey_server


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["cache", *arguments])
    assert "Traceback" not in result.output
    return result


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def shared(valkey_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A store with three replies in two namespaces. No key is needed to look at it."""
    monkeypatch.setenv("HEADGATE_STORE", valkey_server.url)
    fill(valkey_server)
    return valkey_server


def fill(server: Server) -> None:
    async def put() -> None:
        cache = ValkeyReplies(
            server.url, clock=SystemClock(), chance=lambda: 0.5, timeout=5.0,
            most_entries=10, most_bytes=10**6, most_shared_bytes=10**6,
        )  # fmt: skip
        for number, name in enumerate(("docs-1", "docs-1", "chat")):
            found = await cache.look(f"{number:064x}", name)
            await cache.put(f"{number:064x}", kept(VirtualClock()), namespace=name, mark=found.mark)
        await cache.aclose()

    asyncio.run(put())


def test_stats_shows_what_the_store_holds(shared: Server) -> None:
    result = run("stats")
    assert result.exit_code == 0
    head, row = result.stdout.splitlines()
    assert head.split() == ["store", "replies", "bytes", "namespaces"]
    assert row.split()[1] == "3"
    assert row.split()[3] == "2"
    found = json.loads(run("stats", "--json").stdout)
    assert found["store"] == shared.url
    assert (found["entries"], found["namespaces"]) == (3, 2)
    assert found["size_bytes"] > 3 * 256


def test_clear_forgets_a_namespace_or_everything(shared: Server) -> None:
    result = run("clear", "--namespace", "docs-*")
    assert result.exit_code == 0
    assert "2 replies forgotten" in result.stderr
    said = json.loads(run("clear", "--json").stdout)
    assert said == {"store": shared.url, "namespace": None, "cleared": 1}
    assert json.loads(run("stats", "--json").stdout)["entries"] == 0


def test_without_a_shared_store_it_says_whose_the_replies_are() -> None:
    for command in ("stats", "clear"):
        result = run(command)
        assert (result.exit_code, result.stdout) == (0, "")
        assert "each process keeps its replies in its own memory" in result.stderr
    assert json.loads(run("stats", "--json").stdout) == {"store": "memory"}
    assert json.loads(run("clear", "--json").stdout)["cleared"] is None


def test_a_store_that_is_away_is_a_failure(
    valkey_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forgetting must not look as if it had happened. The password stays out of it."""
    monkeypatch.setenv("HEADGATE_STORE", f"redis://:CANARY@127.0.0.1:{valkey.free_port()}")
    for command in ("stats", "clear"):
        result = run(command)
        assert result.exit_code == ExitCode.UPSTREAM
        assert "cannot be reached" in result.stderr
        assert "CANARY" not in result.output


def test_a_wrong_url_is_a_setting_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_STORE", "ftp://nowhere")
    assert run("stats").exit_code == ExitCode.CONFIGURATION


def test_alone_it_shows_what_the_store_holds(shared: Server) -> None:
    assert run().stdout == run("stats").stdout
    assert json.loads(run("--json").stdout) == json.loads(run("stats", "--json").stdout)


def test_alone_without_a_shared_store_it_says_so_and_asks_nobody() -> None:
    result = run()
    assert result.exit_code == 0
    assert "HEADGATE_STORE" in result.stderr
    assert not result.stdout
