"""Observers hear every fact once, and the log says the same."""

from __future__ import annotations

import logging
from contextlib import aclosing, suppress

import pytest
from tests.support import MODEL, Ear, bad_key, broken_inside, failure, quota, said, scripted, stream

from headgate.core.call import Operation
from headgate.core.records import WaitFor
from headgate.gemini import AllKeysExhaustedError, GeminiAPICallError
from headgate.testing import Answer, Sent, VirtualClock
from headgate.wiring.observers import LogObserver, Observers


async def test_each_attempt_wait_and_call_is_heard_once(clock: VirtualClock) -> None:
    ear = Ear()
    client, _ = scripted(
        [quota("Minute", "9s"), quota("Minute", "9s"), broken_inside(delay=2), said(delay=1)],
        clock,
        2,
        observers=[ear],
    )
    await client.generate_content("hi", MODEL)
    assert [record.number for record in ear.attempts] == [1, 2, 3, 4]
    names = [record.key_name for record in ear.attempts]
    assert names[:2] == ["k0", "k1"]
    assert names[2] == names[3], "a retry goes to the same key"
    assert [wait.reason for wait in ear.waits] == [WaitFor.KEY, WaitFor.RETRY]
    (call,) = ear.calls
    assert (call.attempts, call.rotations, call.retries) == (4, 2, 2)
    assert call.waited == pytest.approx(sum(wait.seconds for wait in ear.waits))
    assert call.ended - call.started == pytest.approx(3 + call.waited)
    assert (call.operation, call.model, call.key_name, call.error) == (
        Operation.GENERATE,
        MODEL,
        names[3],
        None,
    )
    assert call.usage.total == 8
    facts = [*ear.attempts, *ear.waits]
    assert {record.request_id for record in facts} == {call.request_id}
    assert "CANARY" not in repr([ear.attempts, ear.waits, ear.calls])


async def test_a_streams_record_comes_at_its_end(clock: VirtualClock) -> None:
    ear = Ear()
    client, _ = scripted([stream("a", "b", piece_delay=3)], clock, observers=[ear])
    async for _ in client.generate_content_stream("hi", MODEL):
        assert ear.calls == []
        assert ear.attempts == []
    assert ear.calls[0].ended == pytest.approx(6)
    assert ear.calls[0].usage.total == 8
    assert ear.attempts[0].ended == pytest.approx(6)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (quota("Day"), "quota"),
        (bad_key(), "auth"),
        (failure(400, "wrong"), "invalid"),
        (broken_inside(), "server"),
    ],
)
async def test_a_failed_call_is_recorded_with_the_kind_of_its_error(
    answer,
    error: str,
    clock: VirtualClock,  # type: ignore[no-untyped-def]
) -> None:
    ear = Ear()
    client, _ = scripted([answer], clock, observers=[ear])
    with pytest.raises((GeminiAPICallError, AllKeysExhaustedError)) as caught:
        await client.generate_content("hi", MODEL)
    assert [call.error for call in ear.calls] == [error] == [caught.value.kind]
    assert caught.value.request_id == ear.calls[0].request_id


async def test_several_observers_hear_the_same_in_order(clock: VirtualClock) -> None:
    first, second = Ear(), Ear()
    client, _ = scripted([said()], clock, observers=[first, second])
    await client.generate_content("hi", MODEL)
    assert first.calls == second.calls
    assert first.attempts == second.attempts
    Observers().call(first.calls[0])  # with none it is silent


async def test_a_fault_of_ours_leaves_a_record_of_the_call_too(clock: VirtualClock) -> None:
    def fail(_: Sent) -> Answer:
        raise LookupError("a transport of somebody's own")

    ear = Ear()
    client, _ = scripted(fail, clock, observers=[ear])
    with pytest.raises(LookupError):
        await client.generate_content("hi", MODEL)
    assert [call.error for call in ear.calls] == ["fault"]
    assert len(ear.attempts) == 1


async def test_a_reader_who_leaves_is_no_warning(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    client, _ = scripted([stream("a", "b", "c")], clock)
    caplog.set_level(logging.DEBUG, logger="headgate.gemini")
    async with aclosing(client.generate_content_stream("hi", MODEL)) as pieces:
        assert await anext(pieces) == "a"
    attempt, call = [record for record in caplog.records if record.name == "headgate.gemini"]
    assert "cancelled" in call.getMessage()
    assert attempt.levelno == call.levelno == logging.INFO


async def test_a_callers_word_forges_no_line_of_the_log(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    client, _ = scripted([said()], clock)
    with pytest.raises(GeminiAPICallError) as caught:
        await client.generate_content("hi", "m\ncall 1: answered")
    assert caught.value.kind == "invalid"
    (line,) = [record.getMessage() for record in caplog.records if record.name == "headgate.gemini"]
    assert "\n" not in line + caught.value.message


async def test_the_log_tells_levels_apart(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("observed")
    client, _ = scripted([said(), failure(400, "wrong")], clock, observers=[LogObserver(logger)])
    caplog.set_level(logging.DEBUG, logger="observed")
    await client.generate_content("hi", MODEL)
    with pytest.raises(GeminiAPICallError):
        await client.generate_content("hi", MODEL)
    levels = [record.levelno for record in caplog.records if record.name == "observed"]
    assert levels == [logging.DEBUG, logging.DEBUG, logging.INFO, logging.WARNING]


async def test_a_refusal_that_lasts_is_told_once_and_again_when_it_changes(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A flood of 403s says what one of them says."""
    denied = failure(403, "The caller does not have permission", "PERMISSION_DENIED")
    script = [*[denied] * 50, said(), denied, denied]
    client, _ = scripted(script, clock)
    caplog.set_level(logging.INFO, logger="headgate.gemini")
    for _ in script:
        with suppress(GeminiAPICallError):
            await client.generate_content("hi", f"m{clock.monotonic():.0f}")
        clock.advance(7200)
    calls = [record for record in caplog.records if " failed: " in record.getMessage()]
    levels = [record.levelno for record in calls]
    assert len(levels) == 52
    assert levels[0] >= logging.WARNING
    assert set(levels[1:50]) == {logging.INFO}
    assert levels[50] >= logging.WARNING
    assert levels[51] == logging.INFO


async def test_failures_of_single_calls_are_told_every_time(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    client, _ = scripted([failure(400, "wrong")], clock)
    caplog.set_level(logging.WARNING, logger="headgate.gemini")
    for _ in range(3):
        with pytest.raises(GeminiAPICallError):
            await client.generate_content("hi", MODEL)
    assert sum("failed: invalid" in record.getMessage() for record in caplog.records) == 3
