"""The accepted test classes (S5-24), each against the emulator; and the examples, run as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.codegen import ORG, TOKEN, counts, emulated

from headgate.codegen import (
    AsyncCodegenClient,
    BulkOperationConfig,
    NotFoundError,
    RateLimitError,
    ValidationError,
    create_production_client,
)
from headgate.testing import VirtualClock

ROOT = Path(__file__).parents[2]
TOPICS = (
    "basic_use", "advanced_configuration", "caching", "bulk", "streaming", "webhooks", "errors",
    "monitoring_and_health", "performance",
)  # fmt: skip


class TestAsyncCodegenClient:
    """The calls of §6.1, word for word but for the client, which is the emulator's."""

    def test_a_client_is_made(self) -> None:
        assert isinstance(create_production_client("token", "1"), AsyncCodegenClient)

    def test_users_and_runs(self, clock: VirtualClock) -> None:
        async def main() -> None:
            async with emulated(clock) as (c, _):
                user = await c.get_current_user()
                assert user.github_username
                run = await c.create_agent_run(org_id=123, prompt="…", metadata={"priority": "high"})
                done = await c.wait_for_agent_run_completion(org_id=123, run_id=run.id, timeout=1800)
                assert done.status == "COMPLETE"
                assert done.metadata == {"priority": "high"}
                health = await c.health_check()
                assert health["overall_status"] == "healthy"
                assert health["checks"]["api_connectivity"]["status"] == "healthy"
                perf = c.get_metrics_summary()["monitoring"]["performance_stats"]
                assert 100 - perf["error_rate"] == 100
                assert str(c.export_metrics("json")).startswith("{")

        clock.run(main())

    def test_errors(self, clock: VirtualClock) -> None:
        async def main() -> None:
            async with emulated(clock, settings={"max_retries": 0}) as (c, emulator):
                with pytest.raises(ValidationError) as caught:
                    await c.create_agent_run(org_id=123, prompt="")
                assert [", ".join(errors) for errors in caught.value.field_errors.values()]
                with pytest.raises(NotFoundError):
                    await c.get_agent_run(ORG, 5)
                emulator.script("rate_limit")
                with pytest.raises(RateLimitError) as limited:
                    await c.get_current_user()
                assert limited.value.retry_after > 0

        clock.run(main())

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("resume_agent_run", (ORG, 1001, "go on")), ("ban_agent_run_checks", (ORG, 1001)),
            ("unban_agent_run_checks", (ORG, 1001)), ("remove_codegen_from_pr", (ORG, 1001)),
            ("get_agent_run_logs", (ORG, 1001)), ("get_repositories", (ORG,)),
            ("get_check_suite_settings", (ORG, 1)), ("edit_pull_request", (ORG, 10010, "draft")),
            ("get_integrations", (ORG,)), ("generate_setup_commands", (ORG, 1)),
            ("analyze_sandbox_logs", (ORG, 4)), ("get_cli_rules", (ORG,)), ("get_mcp_providers", ()),
            ("get_oauth_token_status", (ORG,)), ("revoke_oauth_token", ("slack", ORG)),
            ("generate_slack_connect_token", (ORG,)), ("get_organizations", ()),
            ("get_organization", ()), ("get_users", (ORG,)), ("get_user", (ORG, 1)),
        ],
    )  # fmt: skip
    def test_every_other_operation_against_the_emulator(
        self, name: str, arguments: tuple[Any, ...], clock: VirtualClock
    ) -> None:
        async def main() -> None:
            async with emulated(clock, runs=1) as (c, _):
                assert await getattr(c, name)(*arguments) is not None

        clock.run(main())


class TestCachingSystem:
    """What is kept, and what is not."""

    def test_one_request_for_many_questions(self, clock: VirtualClock) -> None:
        async def main() -> None:
            async with emulated(clock) as (c, emulator):
                for _ in range(5):
                    await c.get_current_user()
                    await c.get_organizations()
                assert counts(emulator) == {"get_current_user_info": 1, "get_organizations": 1}
                await clock.sleep(601)
                await c.get_current_user()
                await c.get_organizations()
                assert counts(emulator) == {"get_current_user_info": 2, "get_organizations": 1}

        clock.run(main())

    def test_a_new_run_is_seen_at_once(self, clock: VirtualClock) -> None:
        async def main() -> None:
            async with emulated(clock) as (c, _):
                assert (await c.list_agent_runs(ORG)).total == 0
                await c.create_agent_run(ORG, "x")
                assert (await c.list_agent_runs(ORG)).total == 1

        clock.run(main())


class TestBulkOperations:
    """Many at once."""

    def test_users(self, clock: VirtualClock) -> None:
        async def main() -> None:
            async with emulated(clock) as (c, _):
                result = await c.bulk_get_users("123", ["1", "2"])
                assert (result.success_rate, len(result.results)) == (100.0, 2)
                assert result.duration_seconds >= 0

        clock.run(main())

    def test_runs(self, clock: VirtualClock) -> None:
        async def main() -> None:
            async with emulated(clock) as (c, emulator):
                told: list[tuple[int, int]] = []
                config = BulkOperationConfig(progress_callback=lambda *n: told.append(n))
                items = [{"prompt": "…", "metadata": {"pr": number}} for number in range(12)]
                result = await c.bulk_create_agent_runs(123, items, config)
                assert result.successful_items == 12
                assert told[-1] == (12, 12)
                assert counts(emulator)["create_agent_run"] <= 13

        clock.run(main())


@pytest.mark.parametrize("topic", TOPICS)
def test_s5_24_the_examples_run(topic: str, tmp_path: Path) -> None:
    """Each topic as its reader would run it: no settings, no network, no warning."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / "enhanced_client_usage.py"), topic],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        env={"PATH": "/usr/bin", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"── {topic}\n")
    assert len(done.stdout.splitlines()) > 1 or topic == "errors"
    assert TOKEN not in done.stdout


def test_s5_24_the_nine_topics_are_those_of_the_file() -> None:
    text = (ROOT / "examples" / "enhanced_client_usage.py").read_text()
    assert all(f"async def {topic}()" in text for topic in TOPICS)
