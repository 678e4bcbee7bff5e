"""S3-05b: the usage ledger and the upstream's own books agree, attempt by attempt, token by token."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

from tests.support import MODEL, key, keys

from headgate.backend import BackendConfig, GeminiBackend, GeminiError, GeminiRequest, StreamingChunk
from headgate.core.usage import By, UsageFilter
from headgate.emulator import Emulator, EmulatorConfig, Fault, Limits, Project
from headgate.stores.usage_sqlite import SqliteUsage
from headgate.testing import VirtualClock

CALLS = 120


async def test_s3_05b_the_ledger_is_what_the_upstream_counted(
    clock: VirtualClock, tmp_path: Path
) -> None:
    path = tmp_path / "usage.db"
    world = EmulatorConfig(
        projects=[
            Project(f"p{number}", {f"k{number}": key(number)}, limits={"*": Limits(rpm=30)})
            for number in range(2)
        ],
        faults=[
            Fault("overload", probability=0.1),
            Fault("internal", probability=0.05),
            Fault("reset", probability=0.05),
        ],
        seed=3,
    )
    config = BackendConfig(
        model_discovery=False, usage=str(path), cache_max_entries=0, max_concurrent_requests=8,
        circuit_breaker_enabled=False, retry_budget=10,
    )  # fmt: skip
    failed = 0
    async with (
        Emulator(world, clock=clock) as emulator,
        GeminiBackend(
            config, keys=keys(2), base_url=emulator.base_url, clock=clock, environ={}
        ) as backend,
    ):

        async def one(number: int) -> None:
            nonlocal failed
            stream = number % 3 == 0
            request = GeminiRequest(
                f"Tell me about number {number}.", MODEL, stream=stream, caller=f"c{number % 4}",
                timeout_seconds=300,
            )  # fmt: skip
            try:
                answer = await backend.execute_gemini_enhanced(request)
                if stream:
                    async for _ in cast("AsyncGenerator[StreamingChunk]", answer):
                        pass
            except GeminiError:
                failed += 1

        async with asyncio.TaskGroup() as group:
            for number in range(CALLS):
                group.create_task(one(number))
        callers = await backend.get_gemini_usage("caller")
        report = emulator.report().totals
        by_key = {
            name: told.totals.requests
            for project in emulator.report().projects.values()
            for name, told in project.keys.items()
        }

    store = SqliteUsage(path)
    rows, (whole,) = store.newest(10_000, UsageFilter()), store.sums(By.PROVIDER, UsageFilter())
    store.close()
    assert report.requests > CALLS  # there were refusals and faults, and they were met
    assert whole.attempts == sum(row.attempt > 0 for row in rows) == report.requests
    assert Counter(row.key_name for row in rows if row.attempt) == by_key
    told = [row for row in rows if not row.estimated]
    assert sum(row.input_tokens for row in told) == report.tokens_in
    assert sum(row.output_tokens for row in told) == report.tokens_out
    assert sum(row.reasoning_tokens for row in told) == report.thought_tokens
    # Of a connection that was reset nobody told anything: it may have been billed.
    assert whole.estimated == len(rows) - len(told) == report.faults["reset"] > 0
    assert all(row.input_tokens > 0 for row in rows if row.estimated)
    assert (whole.requests, whole.failures) == (CALLS, failed)
    assert sum(line.total_requests for line in callers) == CALLS
    assert {line.name for line in callers} == {"c0", "c1", "c2", "c3"}
    refused = sum(number for why, number in report.refused.items())
    assert sum(row.result == "quota" for row in rows if row.attempt) == refused
