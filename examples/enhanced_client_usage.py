"""Nine topics of `headgate.codegen`, each a function. Run it as it is: without settings it talks to the
emulator in this process, with CODEGEN_API_TOKEN and CODEGEN_ORG_ID to the API they are for.

    python examples/enhanced_client_usage.py [topic …]
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from headgate.codegen import (
    AsyncCodegenClient,
    AuthenticationError,
    BulkOperationConfig,
    ClientConfig,
    ConfigPresets,
    NotFoundError,
    RateLimitError,
    ServerError,
    TimeoutError,
    ValidationError,
    WebhookEvent,
    create_client_from_env,
)

ORG = os.environ.get("CODEGEN_ORG_ID", "1")


def client() -> AsyncCodegenClient:
    """A client of your settings, or one that needs none."""
    if os.environ.get("CODEGEN_API_TOKEN"):
        return create_client_from_env()
    return AsyncCodegenClient(ConfigPresets.testing(log_level="WARNING", debug_mode=False))


async def basic_use() -> None:
    """1. Who am I, start a run, wait for it."""
    async with client() as c:
        user = await c.get_current_user()
        print(f"hello {user.github_username}")
        run = await c.create_agent_run(
            org_id=ORG, prompt="Fix the flaky test", metadata={"priority": "high"}
        )
        done = await c.wait_for_agent_run_completion(
            org_id=ORG, run_id=run.id, timeout=1800, poll_interval=1
        )
        print(f"run {done.id}: {done.status}")


async def advanced_configuration() -> None:
    """2. Presets, changes, files. What is set later holds from the next call on."""
    config = ConfigPresets.development()
    config.api_token = "token"
    config.update(timeout=10, bulk_max_workers=3, custom_headers={"x-team": "blue"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codegen.yaml"
        config.save_to_file(path)  # without the token
        again = ClientConfig.from_file(path, api_token="token")
    print(
        f"timeout {again.timeout:g} s, {again.bulk_max_workers} workers, "
        f"token {again.to_dict()['api_token']}"
    )


async def caching() -> None:
    """3. Answers are kept: users 10 minutes, organisations 30, runs 1. Writes make them stale."""
    config = ConfigPresets.testing(enable_caching=True, log_level="WARNING", debug_mode=False)
    async with AsyncCodegenClient(config) as c:
        for _ in range(10):
            await c.get_current_user()
        await c.get_current_user(fresh=True)  # past the cache
        shown = c.get_metrics_summary()["monitoring"]["cache"]
        print(f"{shown['hits']} of 10 answered from the cache")
        assert shown["hits"] == 9


async def bulk() -> None:
    """4. Many at once; a journal makes a repeated call create only what is missing."""
    items = [
        {"prompt": f"Review pull request {number}", "metadata": {"pr": number}} for number in range(3)
    ]
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "reviews.journal"
        async with client() as c:
            how = BulkOperationConfig(progress_callback=lambda done, total: print(f"{done} of {total}"))
            result = await c.bulk_create_agent_runs(ORG, items, how, journal=journal)
            again = await c.bulk_create_agent_runs(ORG, items, journal=journal)
    print(f"{result.success_rate:.0f} % in {result.duration_seconds:.1f} s")
    for failure in result.errors:
        print(failure["index"], failure["error_type"], failure["error"])
    assert [run.id for run in again.results] == [run.id for run in result.results]


async def streaming() -> None:
    """5. Lists of any length, one page ahead, nothing twice."""
    async with client() as c:
        async for user in c.get_users_stream(ORG):
            print(user.github_username)
        newest = [run.id async for run in c.get_all_agent_runs(ORG)]
        print(f"{len(newest)} runs")


async def webhooks() -> None:
    """6. Handlers of events. A real receiver serves `webhook_app(handler)`."""
    secret = "a secret of your own"
    config = ConfigPresets.testing(webhook_secret=secret, log_level="WARNING", debug_mode=False)
    c = AsyncCodegenClient(config)
    handler = c.get_webhook_handler()

    async def on_done(event: WebhookEvent) -> None:
        print(f"run {event.data['id']} is done: {event.data.get('github_pull_requests')}")

    handler.register_handler("agent_run.completed", on_done)
    event = {
        "event_type": "agent_run.completed",
        "timestamp": datetime.now(UTC).isoformat(),
        "data": {"id": 1001, "github_pull_requests": []},
    }
    body = json.dumps(event).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    result = await c.process_webhook(body, f"sha256={signature}")
    assert result["status"] == "processed"


async def errors() -> None:
    """7. Which errors come, and what they carry."""
    async with client() as c:
        try:
            await c.create_agent_run(org_id=ORG, prompt="")
        except ValidationError as error:
            print(
                "; ".join(f"{field}: {', '.join(said)}" for field, said in error.field_errors.items())
            )
        try:
            await c.get_agent_run(ORG, 999_999_999)
        except NotFoundError as error:
            print(error.resource_type, error.resource_id)
        except (RateLimitError, AuthenticationError, ServerError, TimeoutError) as error:
            print(type(error).__name__, error.message)


async def monitoring_and_health() -> None:
    """8. Is it well, how fast is it, what fails."""
    async with client() as c:
        health = await c.health_check()
        print(health["overall_status"], health["checks"]["api_connectivity"]["status"])
        stats = c.get_metrics_summary()["monitoring"]["performance_stats"]
        print(f"{stats['total_requests']} requests, {100 - stats['error_rate']:.0f} % good")
        with tempfile.TemporaryDirectory() as folder:
            for kind in ("json", "prometheus", "csv"):
                c.save_metrics(Path(folder) / f"metrics.{kind}", kind)


async def performance() -> None:
    """9. Many questions at once share connections, limits, and answers under way."""
    config = ConfigPresets.high_performance(mock_responses=True)
    async with AsyncCodegenClient(config) as c:
        users = await asyncio.gather(*(c.get_current_user() for _ in range(100)))
        asked = c.get_metrics_summary()["monitoring"]["performance_stats"]["total_requests"]
        print(f"{len(users)} answers, {asked} request")
        assert asked == 1


TOPICS = {
    topic.__name__: topic
    for topic in (
        basic_use,
        advanced_configuration,
        caching,
        bulk,
        streaming,
        webhooks,
        errors,
        monitoring_and_health,
        performance,
    )
}


def main() -> None:
    """Run the topics named on the command line, or all."""
    for name in sys.argv[1:] or TOPICS:
        print(f"── {name}")
        asyncio.run(TOPICS[name]())


if __name__ == "__main__":
    main()
