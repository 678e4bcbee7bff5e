"""The old client's calls, and the synchronous twin (S5-22)."""

from __future__ import annotations

import asyncio
import inspect
import json
from typing import Any

import pytest
from tests.codegen import ORG, SECRET, TOKEN, emulated, page, said, scripted, team

from headgate.codegen import (
    AsyncCodegenClient,
    ClientConfig,
    CodegenClient,
    NotFoundError,
    SyncCodegenClient,
)
from headgate.emulator import Emulator, EmulatorConfig
from headgate.testing import ScriptedTransport, Sent, VirtualClock

REPO = {
    "id": 44, "name": "my-repo", "full_name": "acme/my-repo", "description": None, "github_id": "1",
    "organization_id": ORG, "visibility": None, "archived": None, "setup_status": "x", "language": None,
}  # fmt: skip


def script(sent: Sent) -> Any:
    if sent.request.method == "GET":
        return said(page([{**REPO, "id": 1, "name": "a", "full_name": "acme/a"}, REPO]))
    return said({"id": 5, "organization_id": ORG})


def legacy(clock: VirtualClock) -> tuple[CodegenClient, ScriptedTransport]:
    transport = ScriptedTransport(script, clock)
    return CodegenClient(TOKEN, str(ORG), transport=transport, clock=clock), transport


@pytest.mark.parametrize("name", ["my-repo", "acme/my-repo"])
async def test_s5_22_the_old_call(name: str, clock: VirtualClock) -> None:
    client, transport = legacy(clock)
    with pytest.warns(DeprecationWarning, match="AsyncCodegenClient.create_agent_run") as warned:
        run = await client.create_agent_run(target="Fix it", repo_name=name)
    assert warned[0].filename == __file__
    assert run.id == 5
    assert transport.sent[-1].request.url.endswith(f"/organizations/{ORG}/agent/run")
    assert json.loads(transport.sent[-1].request.body) == {
        "prompt": "Fix it", "repo_id": 44,
        "metadata": {"repo": name, "auto_confirm_plans": False, "max_iterations": 10},
    }  # fmt: skip


async def test_s5_22_its_other_arguments_go_into_the_metadata(clock: VirtualClock) -> None:
    client, transport = legacy(clock)
    with pytest.warns(DeprecationWarning, match="repo_id"):
        await client.create_agent_run("Fix it", None, "First think", True, 3)
    assert json.loads(transport.sent[0].request.body)["metadata"] == {
        "planning_statement": "First think", "auto_confirm_plans": True, "max_iterations": 3,
    }  # fmt: skip


async def test_s5_22_a_repository_that_is_not_there(clock: VirtualClock) -> None:
    client, transport = legacy(clock)
    with (
        pytest.warns(DeprecationWarning, match="repo_id"),
        pytest.raises(NotFoundError, match="nowhere"),
    ):
        await client.create_agent_run("Fix it", "nowhere")
    assert all(sent.request.method == "GET" for sent in transport.sent)


async def test_s5_22_create_enhanced_client(clock: VirtualClock) -> None:
    with pytest.warns(DeprecationWarning, match="create_production_client"):
        made = CodegenClient.create_enhanced_client(TOKEN, "1")
    async with made as client:
        assert isinstance(client, AsyncCodegenClient)
        assert client.config.origin("max_retries") == "preset production"


def test_s5_22_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEGEN_API_TOKEN", TOKEN)
    monkeypatch.setenv("CODEGEN_ORG_ID", "9")
    assert CodegenClient()._client.config.org_id == "9"


# ── the synchronous twin ────────────────────────────────────────────────────────────────────────


def test_the_synchronous_twin_does_the_same() -> None:
    """Against a real server; also from within a running loop, where it blocks but never dead-locks."""
    config = EmulatorConfig(codegen=[team(users=120, run_seconds=0.05, limited=False)])
    with Emulator(config).in_thread() as emulator:
        settings = ClientConfig(environ={}, api_token=TOKEN, base_url=f"{emulator.base_url}/v1")
        with SyncCodegenClient(settings) as client:
            assert client.get_current_user().github_username == "acme-user-1"
            run = client.create_agent_run(ORG, "Do it")
            done = client.wait_for_agent_run_completion(ORG, run.id, poll_interval=0.02)
            assert done.succeeded
            assert client.bulk_get_users(ORG, [1, 2]).success_rate == 100
            assert len(list(client.get_users_stream(ORG))) == 120
            assert next(client.get_all_agent_runs(ORG)).id == run.id
            assert next(client.get_repositories_stream(ORG)).id == 1
            assert client.health_check()["overall_status"] == "healthy"
            assert client.export_metrics("csv")

            async def inside() -> str:
                return client.get_user(ORG, 3).github_username

            assert asyncio.run(inside()) == "acme-user-3"
        assert client.get_user(ORG, 4).id == 4, "it starts anew after closing"
        client.close()


def test_every_coroutine_method_has_its_twin() -> None:
    client = SyncCodegenClient(api_token="CANARY-x")
    for name, method in inspect.getmembers(AsyncCodegenClient, inspect.iscoroutinefunction):
        if not name.startswith("_") and name != "aclose":
            twin = getattr(client, name)
            assert not inspect.iscoroutinefunction(twin)
            assert twin.__doc__ == method.__doc__
            assert name in dir(client)
    public = {name for name in dir(AsyncCodegenClient) if not name.startswith("_")} - {"aclose"}
    assert public <= set(dir(SyncCodegenClient))
    with pytest.raises(AttributeError):
        client.no_such_call  # noqa: B018 - that is the test


async def test_webhooks_outside_of_async_with(clock: VirtualClock) -> None:
    client, _ = scripted([said({})], clock, webhook_secret=SECRET)
    assert client.get_webhook_handler().get_stats()["total_events"] == 0
    async with emulated(clock) as (other, _emulator):
        assert (await other.get_current_user()).id == 1
