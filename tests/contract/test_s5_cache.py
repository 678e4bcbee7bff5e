"""What is answered from memory, for how long, and what makes it stale (S5-02a-b, S5-19, C6)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.codegen import ORG, RUN, TOKEN, USER, counts, emulated, failed, page, said, scripted

from headgate.codegen import AsyncCodegenClient, ClientConfig, ConfigPresets
from headgate.testing import Answer, ScriptedTransport, Sent, VirtualClock

SETTINGS = {
    "check_retry_count": 1, "ignored_checks": [], "check_retry_counts": {}, "custom_prompts": {},
    "high_priority_apps": [], "available_check_suite_names": [],
}  # fmt: skip
RULES = {"organization_rules": "a", "user_custom_prompt": None}


def answers(sent: Sent) -> Answer:
    url = sent.request.url
    for part, value in (
        ("check-suite-settings", SETTINGS), ("repos", page([])), ("cli/rules", RULES),
        ("agent/runs", page([RUN])),
        ("agent/run/", RUN), ("agent/run", RUN), ("users/", USER), ("users", page([USER])),
        ("organizations", page([{"id": ORG, "name": "a", "settings": {}}])),
        ("mcp-providers", []), ("oauth", {}),
    ):  # fmt: skip
        if part in url:
            return said(value)
    raise AssertionError(url)


READS: dict[str, tuple[Any, float]] = {
    "current user": (lambda c: c.get_current_user(), 600),
    "user": (lambda c: c.get_user(ORG, 7), 600),
    "users": (lambda c: c.get_users(ORG), 600),
    "organisations": (lambda c: c.get_organizations(), 1800),
    "run": (lambda c: c.get_agent_run(ORG, 1), 60),
    "runs": (lambda c: c.list_agent_runs(ORG), 60),
    "repositories": (lambda c: c.get_repositories(ORG), 300),
    "settings": (lambda c: c.get_check_suite_settings(ORG, 3), 300),
    "rules": (lambda c: c.get_cli_rules(ORG), 300),
    "providers": (lambda c: c.get_mcp_providers(), 300),
}


@pytest.mark.parametrize("name", READS)
async def test_s5_19_lifetimes(name: str, clock: VirtualClock) -> None:
    read, ttl = READS[name]
    client, transport = scripted(answers, clock)
    first = await read(client)
    await clock.sleep(ttl - 0.001)
    assert await read(client) == first
    assert len(transport.sent) == 1
    await clock.sleep(0.001)
    await read(client)
    assert len(transport.sent) == 2


@pytest.mark.parametrize("how", ["argument", "variable", "assignment"])
async def test_s5_19_a_lifetime_that_is_set_explicitly_holds_for_all(
    how: str, clock: VirtualClock
) -> None:
    environ = {"CODEGEN_CACHE_TTL": "5"} if how == "variable" else {}
    given = {"cache_ttl_seconds": 5} if how == "argument" else {}
    config = ClientConfig(environ=environ, api_token=TOKEN, **given)
    if how == "assignment":
        config.cache_ttl_seconds = 5
    transport = ScriptedTransport(answers, clock)
    client = AsyncCodegenClient(config, transport=transport, clock=clock)
    for read, _ in READS.values():
        await read(client)
        sent = len(transport.sent)
        await clock.sleep(4.9)
        await read(client)
        assert len(transport.sent) == sent
        await clock.sleep(0.2)
        await read(client)
        assert len(transport.sent) == sent + 1


async def test_s5_19_a_presets_lifetime_is_not_explicit(clock: VirtualClock) -> None:
    transport = ScriptedTransport(answers, clock)
    config = ConfigPresets.high_performance(api_token=TOKEN)
    client = AsyncCodegenClient(config, transport=transport, clock=clock)
    await client.get_agent_run(ORG, 1)
    await client.get_cli_rules(ORG)
    await clock.sleep(599)
    await client.get_cli_rules(ORG)
    await client.get_agent_run(ORG, 1)
    assert len(transport.sent) == 3, "runs are kept 60 s, rules 600 by the preset"


async def test_s5_02a_two_clients_share_nothing(clock: VirtualClock) -> None:
    """Pitfall: a cache per method that all clients share."""
    one, first = scripted([said(USER)], clock)
    two, second = scripted([said({**USER, "github_username": "bob"})], clock, api_token="CANARY-2")
    assert (await one.get_current_user()).github_username == "ada"
    assert (await two.get_current_user()).github_username == "bob"
    assert len(first.sent) == len(second.sent) == 1


@pytest.mark.parametrize(
    "change", [{"api_token": "CANARY-other-token-0123"}, {"base_url": "http://other/v1"}]
)
async def test_s5_02a_the_key_holds_token_and_base_url(
    change: dict[str, str], clock: VirtualClock
) -> None:
    client, transport = scripted(answers, clock)
    await client.get_current_user()
    client.update_config(**change)
    await client.get_current_user()
    await client.get_current_user()
    assert len(transport.sent) == 2


async def test_s5_02a_path_and_query_are_part_of_the_key(clock: VirtualClock) -> None:
    client, transport = scripted(answers, clock)
    for _ in range(2):
        await client.get_users(ORG, 0)
        await client.get_users(ORG, 100)
        await client.get_users(5, 0)
        await client.get_user(ORG, 7)
        await client.get_user(ORG, 8)
    assert len(transport.sent) == 5


async def test_a_kept_answer_cannot_be_spoiled_by_whoever_got_it(clock: VirtualClock) -> None:
    client, _ = scripted([said({**RUN, "metadata": {"a": 1}})], clock)
    first = await client.get_agent_run(ORG, 1)
    assert first.metadata is not None
    first.metadata["a"] = 2
    first.raw["metadata"]["b"] = 3
    assert (await client.get_agent_run(ORG, 1)).metadata == {"a": 1}


WRITES: dict[str, Any] = {
    "create": lambda c: c.create_agent_run(ORG, "x"),
    "resume": lambda c: c.resume_agent_run(ORG, 1, "x"),
    "ban": lambda c: c.ban_agent_run_checks(ORG, 1),
    "unban": lambda c: c.unban_agent_run_checks(ORG, 1),
    "remove": lambda c: c.remove_codegen_from_pr(ORG, 1),
}


@pytest.mark.parametrize("name", WRITES)
async def test_s5_02b_a_write_makes_its_organisations_runs_stale(
    name: str, clock: VirtualClock
) -> None:
    """And nothing else: users stay, and so do another organisation's runs."""
    client, transport = scripted(answers, clock)
    reads = [
        lambda: client.get_agent_run(ORG, 1), lambda: client.list_agent_runs(ORG),
        lambda: client.get_agent_run(5, 1), lambda: client.get_users(ORG),
    ]  # fmt: skip
    for read in reads:
        await read()
    await WRITES[name](client)
    before = len(transport.sent)
    for read in reads:
        await read()
    again = [sent.request.url for sent in transport.sent[before:]]
    assert len(again) == 2
    assert all(f"/{ORG}/agent/run" in url for url in again)


async def test_s5_02b_settings_follow_what_was_written(clock: VirtualClock) -> None:
    async with emulated(clock) as (client, _):
        assert (await client.get_check_suite_settings(ORG, 1)).check_retry_count == 3
        await client.update_check_suite_settings(ORG, 1, check_retry_count=7)
        assert (await client.get_check_suite_settings(ORG, 1)).check_retry_count == 7


async def test_s5_02b_a_write_that_failed_may_have_happened(clock: VirtualClock) -> None:
    answers_ = [said(page([RUN])), failed(500), said(page([RUN]))]
    client, transport = scripted(answers_, clock)
    await client.list_agent_runs(ORG)
    with pytest.raises(Exception, match="create_agent_run"):
        await client.create_agent_run(ORG, "x")
    await client.list_agent_runs(ORG)
    assert len(transport.sent) == 3


async def test_s5_02b_a_read_that_began_before_a_write_is_not_kept(clock: VirtualClock) -> None:
    """It may show what was before."""

    def slow_reads(sent: Sent) -> Answer:
        return (
            said(RUN)
            if sent.request.method == "POST"
            else Answer(200, b'{"id": 1, "organization_id": 1}', delay=5)
        )

    client, transport = scripted(slow_reads, clock)
    read = asyncio.ensure_future(client.get_agent_run(ORG, 1))
    await clock.sleep(1)
    await client.create_agent_run(ORG, "x")
    await read
    await client.get_agent_run(ORG, 1)
    assert len(transport.sent) == 3


async def test_s5_02b_errors_are_never_kept(clock: VirtualClock) -> None:
    client, transport = scripted([failed(404), said(USER)], clock)
    with pytest.raises(Exception, match="get_user"):
        await client.get_user(ORG, 7)
    assert (await client.get_user(ORG, 7)).id == 7
    assert len(transport.sent) == 2


async def test_the_same_question_under_way_is_asked_once(clock: VirtualClock) -> None:
    client, transport = scripted(
        [Answer(200, b'{"id": 7, "github_user_id": "1", "github_username": "a"}', delay=1)], clock
    )
    users = await asyncio.gather(*(client.get_current_user() for _ in range(50)))
    assert len(transport.sent) == 1
    assert len({id(user) for user in users}) == 50


async def test_whoever_leaves_takes_nothing_from_the_others(clock: VirtualClock) -> None:
    client, transport = scripted(
        [Answer(200, b'{"id": 7, "github_user_id": "1", "github_username": "a"}', delay=1)], clock
    )
    tasks = [asyncio.ensure_future(client.get_current_user()) for _ in range(3)]
    await clock.sleep(0.5)
    tasks[0].cancel()
    assert (await tasks[1]).id == 7
    alone = asyncio.ensure_future(client.get_user(ORG, 1))
    await clock.sleep(0.5)
    alone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alone
    assert transport.open_exchanges == 0
    assert asyncio.all_tasks() <= {asyncio.current_task(), *tasks}


async def test_the_cache_is_bounded_and_drops_what_was_used_longest_ago(clock: VirtualClock) -> None:
    client, transport = scripted(answers, clock, cache_max_size=3)
    for number in (1, 2, 3, 1, 4, 1, 2):
        await client.get_user(ORG, number)
    assert [sent.request.url.rpartition("/")[2] for sent in transport.sent] == ["1", "2", "3", "4", "2"]
    shown = client.get_metrics_summary()["monitoring"]["cache"]
    assert (shown["entries"], shown["hits"], shown["evicted"]) == (3, 2, 2)


async def test_caching_can_be_switched_off(clock: VirtualClock) -> None:
    client, transport = scripted(answers, clock, enable_caching=False)
    await client.get_current_user()
    await client.get_current_user()
    assert len(transport.sent) == 2


async def test_a_hit_costs_nothing(clock: VirtualClock) -> None:
    async with emulated(clock) as (client, emulator):
        for _ in range(500):
            await client.get_current_user()
        assert counts(emulator) == {"get_current_user_info": 1}
        assert clock.monotonic() < 1
        assert client.get_metrics_summary()["monitoring"]["cache"]["hit_rate"] == pytest.approx(99.8)
