"""Many at once: order, workers, partial failure, progress, fail-fast, and a journal that creates
nothing twice (S5-02e-f, S5-10, S5-21)."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.codegen import ORG, RUN, USER, counts, emulated, failed, said, scripted

from headgate.codegen import (
    AsyncCodegenClient,
    BulkOperationConfig,
    BulkOperationError,
    BulkOperationResult,
    ValidationError,
)
from headgate.codegen.journal import MARK, Journal
from headgate.core.errors import ConfigurationError
from headgate.core.outcome import Kind
from headgate.testing import Answer, Broken, Sent, VirtualClock


def user(sent: Sent, delay: float = 0.0) -> Answer:
    number = int(sent.request.url.rpartition("/")[2])
    return Answer(200, json.dumps({**USER, "id": number}).encode(), delay=delay)


# ── results ─────────────────────────────────────────────────────────────────────────────────────


async def test_s5_10_results_in_the_order_of_the_input(clock: VirtualClock) -> None:
    """Although the later ones answer first."""
    client, _ = scripted(lambda sent: user(sent, 30 - int(sent.request.url[-2:].strip("/"))), clock)
    result = await client.bulk_get_users("123", [str(number) for number in range(10, 20)])
    assert [found.id for found in result.results] == list(range(10, 20))
    assert (result.total_items, result.successful_items, result.failed_items) == (10, 10, 0)
    assert result.success_rate == 100
    assert result.duration_seconds == clock.monotonic() > 0


async def test_s5_21_partial_failure_with_details(clock: VirtualClock) -> None:
    client, _ = scripted(
        lambda sent: failed(404, "User not found.") if sent.request.url.endswith("/3") else user(sent),
        clock,
    )
    result = await client.bulk_get_users(ORG, [1, 3, "x", 2])
    assert [found.id for found in result.results] == [1, 2]
    assert [(e["index"], e["item"], e["error_type"], e["success"]) for e in result.errors] == [
        (1, 3, "NotFoundError", False), (2, "x", "ValidationError", False),
    ]  # fmt: skip
    assert "User not found." in result.errors[0]["error"]
    assert (result.success_rate, result.failed_items) == (50, 2)
    assert set(result.model_dump()) == {
        "total_items", "successful_items", "failed_items", "results", "errors", "duration_seconds",
        "success_rate",
    }  # fmt: skip


async def test_s5_10_nothing_to_do(clock: VirtualClock) -> None:
    client, transport = scripted([said(USER)], clock)
    result = await client.bulk_get_users(ORG, [])
    assert (result.total_items, result.success_rate, result.results) == (0, 0, [])
    assert BulkOperationResult().success_rate == 0
    assert not transport.sent


@pytest.mark.parametrize(("settings", "most"), [({}, 5), ({"bulk_max_workers": 3}, 3)])
async def test_s5_21_workers_are_bounded(
    settings: dict[str, int], most: int, clock: VirtualClock
) -> None:
    client, transport = scripted(lambda sent: user(sent, 1), clock, **settings)
    peak = 0

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, sum(sent.at > clock.monotonic() - 1 for sent in transport.sent))
            await clock.sleep(0.1)

    watcher = asyncio.ensure_future(watch())
    result = await client.bulk_get_users(ORG, range(20))
    watcher.cancel()
    assert (result.success_rate, peak) == (100, most)


def test_s5_21_defaults() -> None:
    shown = BulkOperationConfig().model_dump()
    assert {name: shown[name] for name in (
        "max_workers", "batch_size", "max_retries", "retry_delay", "timeout_per_operation", "fail_fast",
        "progress_callback",
    )} == {
        "max_workers": 5, "batch_size": 100, "max_retries": 3, "retry_delay": 1.0,
        "timeout_per_operation": 30.0, "fail_fast": False, "progress_callback": None,
    }  # fmt: skip


async def test_s5_21_items_are_taken_from_their_source_in_batches(clock: VirtualClock) -> None:
    taken: list[int] = []
    client, _ = scripted(lambda sent: user(sent, 1), clock)

    async def source() -> AsyncIterator[int]:
        for number in range(25):
            taken.append(number)
            yield number

    seen: list[int] = []
    config = BulkOperationConfig(
        max_workers=2, batch_size=10, progress_callback=lambda done, total: seen.append(len(taken))
    )
    result = await client.bulk_get_users(ORG, source(), config)
    assert (result.total_items, result.success_rate) == (25, 100)
    assert seen[0] == 10
    assert max(len(taken) - len(seen), 0) == 0


# ── progress ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_s5_02f_progress_counts_completions(kind: str, clock: VirtualClock) -> None:
    """Pitfall: the item's index, which jumps about and may never reach the total."""
    told: list[tuple[int, int]] = []

    async def later(done: int, total: int) -> None:
        told.append((done, total))

    callback = later if kind == "coroutine" else lambda done, total: told.append((done, total))
    client, _ = scripted(
        lambda sent: failed(404) if sent.request.url.endswith("/4") else user(sent), clock
    )
    config = BulkOperationConfig(progress_callback=callback)
    await client.bulk_get_users(ORG, range(10), config)
    assert told == [(done, 10) for done in range(1, 11)]


async def test_a_callback_that_raises_costs_no_result(clock: VirtualClock) -> None:
    client, _ = scripted(user, clock)
    config = BulkOperationConfig(progress_callback=lambda done, total: 1 / 0)
    assert (await client.bulk_get_users(ORG, range(3), config)).success_rate == 100


# ── limits of each item ─────────────────────────────────────────────────────────────────────────


async def test_retries_and_time_outs_are_the_bulk_operations_own(clock: VirtualClock) -> None:
    client, transport = scripted([Answer(delay=1000)], clock)
    config = BulkOperationConfig(max_retries=1, retry_delay=8, timeout_per_operation=5)
    result = await client.bulk_get_users(ORG, [1], config)
    assert result.errors[0]["error_type"] == "TimeoutError"
    assert [sent.at for sent in transport.sent] == [0, 9]
    assert clock.monotonic() == 14


async def test_s5_10_waiting_for_the_limit_is_no_time_out(clock: VirtualClock) -> None:
    """25 runs at 10 a minute take a minute and a half; none of them may time out after 30 s."""
    client, transport = scripted([said(RUN)], clock)
    result = await client.bulk_create_agent_runs(
        123, [{"prompt": str(number), "metadata": {"pr": number}} for number in range(25)]
    )
    assert result.success_rate == 100
    assert clock.monotonic() == pytest.approx(90)
    bodies = [json.loads(sent.request.body) for sent in transport.sent]
    assert bodies[3] == {"prompt": "3", "metadata": {"pr": 3}}


@pytest.mark.parametrize("item", [{}, {"prompt": " "}, {"prompt": "x", "repo": 1}, "x", None])
async def test_an_item_that_is_wrong_is_one_failure(item: Any, clock: VirtualClock) -> None:
    client, transport = scripted([said(RUN)], clock)
    result = await client.bulk_create_agent_runs(ORG, [{"prompt": "a"}, item, {"prompt": "b"}])
    assert [error["index"] for error in result.errors] == [1]
    assert result.errors[0]["error_type"] == "ValidationError"
    assert len(transport.sent) == 2


async def test_any_coroutine_over_any_items(clock: VirtualClock) -> None:
    client, _ = scripted([said(RUN)], clock)

    async def double(number: int) -> int:
        if number == 2:
            raise RuntimeError("two")
        return number * 2

    result = await client.bulk_operation([1, 2, 3], double)
    assert result.results == [2, 6]
    assert result.errors[0] == {
        "error": "two", "error_type": "RuntimeError", "item": 2, "index": 1, "success": False,
    }  # fmt: skip


# ── fail fast ───────────────────────────────────────────────────────────────────────────────────


async def test_fail_fast_cancels_the_rest(clock: VirtualClock) -> None:
    client, transport = scripted(
        lambda sent: failed(404) if sent.request.url.endswith("/2") else user(sent, 10), clock
    )
    config = BulkOperationConfig(max_workers=2, fail_fast=True)
    with pytest.raises(BulkOperationError) as caught:
        await client.bulk_get_users(ORG, [1, 2, 3, 4], config)
    assert [item["index"] for item in caught.value.failed_items] == [1]
    assert not caught.value.partial_success
    assert caught.value.result.total_items == 4
    assert len(transport.sent) == 2
    assert transport.open_exchanges == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_cancelling_a_bulk_operation_leaves_nothing_behind(clock: VirtualClock) -> None:
    client, transport = scripted(lambda sent: user(sent, 10), clock)
    task = asyncio.ensure_future(client.bulk_get_users(ORG, range(100)))
    await clock.sleep(3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert transport.open_exchanges == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


# ── memory ──────────────────────────────────────────────────────────────────────────────────────


async def test_10_000_items_in_constant_memory(clock: VirtualClock) -> None:
    """Without kept results, what is held at once does not grow with the number of items."""
    import tracemalloc

    client, _ = scripted([said(RUN)], clock)
    heard = 0

    def on_result(index: int, item: int, result: bytes) -> None:
        nonlocal heard
        heard += 1

    async def make(number: int) -> bytes:
        return bytes(10_000)

    async def peak(count: int) -> int:
        config = BulkOperationConfig(keep_results=False, on_result=on_result)
        tracemalloc.start()
        result = await client.bulk_operation(iter(range(count)), make, config)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (result.successful_items, result.total_items, result.results) == (count, count, [])
        return used

    few, many = await peak(200), await peak(10_000)
    assert heard == 10_200
    assert many < few + 200_000, "10 000 results of 10 kB would be 100 MB"


async def test_kept_errors_are_bounded_where_results_are_not_kept(clock: VirtualClock) -> None:
    client, _ = scripted([said(RUN)], clock)

    async def fail(number: int) -> None:
        raise RuntimeError(str(number))

    config = BulkOperationConfig(keep_results=False)
    result = await client.bulk_operation(range(3000), fail, config)
    assert (result.failed_items, len(result.errors)) == (3000, 1000)


# ── journal ─────────────────────────────────────────────────────────────────────────────────────

ITEMS = [{"prompt": f"Task {number}", "metadata": {"pr": number}} for number in range(6)]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def prompts(emulator: Any) -> list[str]:
    return sorted(run.spells[0].prompt for run in emulator.codegen.desk.worlds["acme"].runs.values())


async def create(client: AsyncCodegenClient, path: Path, items: Any = None) -> Any:
    return await client.bulk_create_agent_runs(ORG, items or ITEMS, journal=path)


async def test_a_journal_announces_before_it_happens(tmp_path: Path, clock: VirtualClock) -> None:
    path = tmp_path / "journal"
    seen: list[str] = []

    def script(sent: Sent) -> Answer:
        seen.append(lines(path)[-1]["state"])
        number = json.loads(sent.request.body)["metadata"]["pr"]
        return said({**RUN, "id": number})

    client, transport = scripted(script, clock, bulk_max_workers=1)
    result = await create(client, path)
    assert [run.id for run in result.results] == [0, 1, 2, 3, 4, 5]
    assert set(seen) == {"sending"}
    head, *rest = lines(path)
    assert (head["org_id"], head["journal"]) == (ORG, 1)
    assert [entry["state"] for entry in rest] == ["sending", "created"] * 6
    marks = [json.loads(sent.request.body)["metadata"][MARK] for sent in transport.sent]
    assert marks == [f"{head['id']}:{number}" for number in range(6)]


async def test_a_finished_journal_creates_nothing(tmp_path: Path, clock: VirtualClock) -> None:
    async with emulated(clock) as (client, emulator):
        first = await create(client, tmp_path / "j")
        again = await create(client, tmp_path / "j")
        assert [run.id for run in again.results] == [run.id for run in first.results]
        assert counts(emulator)["create_agent_run"] == 6


@pytest.mark.parametrize("cut", range(14))
async def test_a_crash_at_any_line_creates_nothing_twice(
    cut: int, tmp_path: Path, clock: VirtualClock
) -> None:
    """The journal as it stood after each line, in the middle of one too."""
    path = tmp_path / "j"
    async with emulated(clock, settings={"bulk_max_workers": 1}) as (client, emulator):
        # As many runs exist as requests had left when the crash came; each was announced by a line.
        await create(client, path, ITEMS)
        whole = path.read_bytes().splitlines(keepends=True)
        kept = whole[: 1 + cut] if cut < 13 else [*whole[:4], whole[4][:20]]
        path.write_bytes(b"".join(kept))
        states = [json.loads(line).get("state") for line in kept if line.endswith(b"\n")]
        existed = states.count("sending")
        world = emulator.codegen.desk.worlds["acme"]
        for number in sorted(world.runs)[existed:]:
            del world.runs[number]
        result = await create(client, path, ITEMS)
        assert result.success_rate == 100
        assert prompts(emulator) == sorted(item["prompt"] for item in ITEMS)


async def test_an_answer_that_was_lost_is_found_again(tmp_path: Path, clock: VirtualClock) -> None:
    """The run exists, the answer broke off: in doubt it fails, and the next call finds it."""
    async with emulated(clock) as (client, emulator):
        emulator.script("reset_mid", method="create_agent_run")
        first = await create(client, tmp_path / "j")
        assert (first.failed_items, first.errors[0]["error_type"]) == (1, "NetworkError")
        assert len(prompts(emulator)) == 6
        again = await create(client, tmp_path / "j")
        assert again.success_rate == 100
        assert len(prompts(emulator)) == 6
        assert counts(emulator)["create_agent_run"] == 6


async def test_what_never_arrived_is_created(tmp_path: Path, clock: VirtualClock) -> None:
    async with emulated(clock) as (client, emulator):
        emulator.script("reset", method="create_agent_run")
        assert (await create(client, tmp_path / "j")).failed_items == 1
        assert len(prompts(emulator)) == 5
        assert (await create(client, tmp_path / "j")).success_rate == 100
        assert len(prompts(emulator)) == 6


async def test_refusals_are_tried_again_at_the_next_call(tmp_path: Path, clock: VirtualClock) -> None:
    async with emulated(clock, plan_runs=4) as (client, emulator):
        first = await create(client, tmp_path / "j")
        assert {error["error_type"] for error in first.errors} == {"PaymentRequiredError"}
        assert lines(tmp_path / "j")[-1]["state"] == "refused"
        emulator.codegen.desk.worlds["acme"]._planned = 0
        assert (await create(client, tmp_path / "j")).success_rate == 100
        assert len(prompts(emulator)) == 6


async def test_where_the_list_does_not_tell_nothing_is_created(
    tmp_path: Path, clock: VirtualClock
) -> None:
    """An API that shows no metadata cannot say whether the run exists: the item fails instead."""
    listed = {"items": [{**RUN, "metadata": None}], "total": 1, "page": 1, "size": 100, "pages": 1}

    def script(sent: Sent) -> Answer | Broken:
        if sent.request.method == "GET":
            return said(listed)
        return Broken(Kind.TIMEOUT) if b"Task 2" in sent.request.body else said(RUN)

    client, transport = scripted(script, clock)
    await create(client, tmp_path / "j")
    posts = sum(sent.request.method == "POST" for sent in transport.sent)
    result = await create(client, tmp_path / "j")
    assert [(e["index"], e["error_type"]) for e in result.errors] == [(2, "ConflictError")]
    assert sum(sent.request.method == "POST" for sent in transport.sent) == posts == 6


async def test_a_journal_knows_its_list_and_its_organisation(
    tmp_path: Path, clock: VirtualClock
) -> None:
    client, transport = scripted([said(RUN)], clock)
    await create(client, tmp_path / "j")
    sent = len(transport.sent)
    result = await create(client, tmp_path / "j", [{"prompt": "other"}, *ITEMS[1:]])
    assert [(e["index"], e["error_type"]) for e in result.errors] == [(0, "ValidationError")]
    with pytest.raises(ConfigurationError, match="organisation 123"):
        await client.bulk_create_agent_runs(5, ITEMS, journal=tmp_path / "j")
    assert len(transport.sent) == sent


@pytest.mark.parametrize(
    "text",
    [
        "hello\n",
        "{}\n",
        '{"journal": 9}\n',
        '{"journal": 1\n[]\n',
        "[]\n",
        '{"journal": 1, "org_id": 123}\n',
        '{"journal": 1, "org_id": 123, "id": "a", "at": 1}\n{"item": "x"}\n',
    ],
)
async def test_a_file_that_is_no_journal_is_left_alone(
    text: str, tmp_path: Path, clock: VirtualClock
) -> None:
    path = tmp_path / "j"
    path.write_text(text)
    client, transport = scripted([said(RUN)], clock)
    with pytest.raises(ConfigurationError):
        await create(client, path)
    assert path.read_text() == text
    assert not transport.sent


def _hold(path: str, ready: Any, done: Any) -> None:
    with Journal(path, ORG, 0.0):
        ready.set()
        done.wait(10)


def test_two_processes_do_not_share_a_journal(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path / "j"), ready, done))
    other.start()
    try:
        assert ready.wait(20)
        with pytest.raises(ConfigurationError, match="in use"), Journal(tmp_path / "j", ORG, 0.0):
            pass
    finally:
        done.set()
        other.join()


async def test_items_that_are_wrong_are_not_journalled(tmp_path: Path, clock: VirtualClock) -> None:
    client, _ = scripted([said(RUN)], clock)
    with pytest.raises(ValidationError):
        await client.create_agent_run(ORG, "")
    await create(client, tmp_path / "j", [{"prompt": ""}])
    assert len(lines(tmp_path / "j")) == 1
