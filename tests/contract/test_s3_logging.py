"""S3-05e, S3-05f, S3-07j, LoggingConfig: what the backend logs of a request, and what it never logs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from msgspec import structs
from tests.support import MODEL, bad_key, broken_inside, failure, key, keys, quota, said, stream

from headgate.backend import (
    BackendConfig,
    GeminiBackend,
    GeminiError,
    GeminiRequest,
    LoggingConfig,
    PreprocessConfig,
    RetryConfig,
)
from headgate.testing import ScriptedTransport, VirtualClock

PROMPT = "Secret plans of ada@example.org, card 4111 1111 1111 1111"
ASK = GeminiRequest(PROMPT, MODEL, use_cache=False)
USUAL = LoggingConfig()
ALL = LoggingConfig(log_responses=True)
NONE = LoggingConfig(log_requests=False, log_errors=False, log_performance=False)


def backend(
    clock: VirtualClock,
    script: Any,
    logged: LoggingConfig = USUAL,
    count: int = 2,
    **fields: Any,
) -> GeminiBackend:
    config = BackendConfig(
        model_discovery=False,
        logging_config=logged,
        circuit_breaker_enabled=False,
        **{"retry_config": RetryConfig(max_attempts=2, initial_delay_ms=1), **fields},
    )
    transport = ScriptedTransport(script, clock)
    return GeminiBackend(config, keys=keys(count), transport=transport, clock=clock, environ={})


class _Gathering(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record)


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    """What every logger says while a test runs."""
    handler, root, logger = _Gathering(), logging.getLogger(), logging.getLogger("headgate.backend")
    root.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler.lines
    root.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def ours(lines: list[logging.LogRecord], level: int = logging.INFO) -> list[Any]:
    return [one for one in lines if one.name == "headgate.backend" and one.levelno >= level]


def words(lines: list[Any]) -> list[str]:
    return [line.getMessage().split()[1] for line in lines]


async def test_s3_05f_every_line_of_a_request_has_its_id(
    clock: VirtualClock, lines: list[logging.LogRecord]
) -> None:
    """Through a rotation, a retry and the wait before it."""
    made = backend(clock, [quota("Minute", "50s"), broken_inside(), said("fine")], ALL)
    answer = await made.execute_gemini_enhanced(ASK)
    said_of_it = ours(lines, logging.DEBUG)
    assert words(ours(lines)) == ["request", "attempt", "attempt", "wait", "answered", "response"]
    request_id = answer.request_id  # type: ignore[union-attr]
    assert request_id
    assert {line.headgate["request_id"] for line in said_of_it} == {request_id}
    assert all(f"request_id={request_id}" in line.getMessage() for line in said_of_it)


async def test_s3_05e_lines_hold_their_fields_for_handlers_that_write_json(
    clock: VirtualClock, lines: list[logging.LogRecord]
) -> None:
    made = backend(clock, [said("fine", delay=2.0)])
    await made.execute_gemini_enhanced(ASK)
    request, answered = ours(lines)
    assert request.headgate | {"request_id": ""} == {
        "request_id": "",
        "operation": "generate",
        "model": MODEL,
        "characters": len(PROMPT),
        "priority": "normal",
    }
    assert answered.headgate | {"request_id": ""} == {
        "request_id": "",
        "operation": "generate",
        "model": MODEL,
        "key": "k0",
        "ms": 2000.0,
        "attempts": 1,
        "input_tokens": 5,
        "output_tokens": 3,
        "tokens_per_second": 1.5,
    }
    assert answered.getMessage().startswith("gemini answered request_id=")
    assert " ms=2000.0 attempts=1 " in answered.getMessage()


async def test_s3_05e_a_kept_answer_says_so_and_names_no_key(
    clock: VirtualClock, lines: list[logging.LogRecord]
) -> None:
    made = backend(clock, [said("fine")])
    for _ in range(2):
        await made.execute_gemini_enhanced(structs.replace(ASK, use_cache=True))
    first, second = [line.headgate for line in ours(lines) if " answered " in line.getMessage()]
    assert ("cached" in first, first["key"]) == (False, "k0")
    assert (second["cached"], second.get("key"), second["attempts"]) == (True, None, 0)


async def test_s3_05e_each_switch_has_its_lines(
    clock: VirtualClock, lines: list[logging.LogRecord]
) -> None:
    expected = {
        "log_requests": ["request"],
        "log_responses": ["response"],
        "log_errors": ["attempt"],
        "log_performance": ["wait", "answered"],
    }
    for name, told in expected.items():
        lines.clear()
        made = backend(clock, [broken_inside(), said()], structs.replace(NONE, **{name: True}))
        await made.execute_gemini_enhanced(ASK)
        assert words(ours(lines)) == told, name
    lines.clear()
    await backend(clock, [broken_inside(), said()], NONE).execute_gemini_enhanced(ASK)
    assert ours(lines, logging.DEBUG) == []


async def test_s3_05e_a_change_counts_for_the_next_request(
    clock: VirtualClock, lines: list[logging.LogRecord]
) -> None:
    made = backend(clock, [said()], NONE)
    await made.execute_gemini_enhanced(ASK)
    assert ours(lines) == []
    config = await made.get_gemini_backend_config()
    await made.update_gemini_backend_config(structs.replace(config, logging_config=ALL))
    await made.execute_gemini_enhanced(ASK)
    assert words(ours(lines)) == ["request", "answered", "response"]


async def test_s3_07j_prompts_are_never_logged(
    clock: VirtualClock, lines: list[logging.LogRecord]
) -> None:
    asked = structs.replace(
        ASK,
        system_instruction="Hidden wish",
        preprocess_config=PreprocessConfig(strip_sensitive_data=False),
    )
    made = backend(clock, [broken_inside(), said()], ALL)
    await made.execute_gemini_enhanced(asked)
    whole = " ".join(line.getMessage() for line in lines)
    for said_by_caller in ("Secret", "ada@example.org", "4111", "Hidden"):
        assert said_by_caller not in whole
    assert not any("Secret" in str(line.__dict__) for line in ours(lines, logging.DEBUG))


@pytest.mark.parametrize("streamed", [False, True])
async def test_s3_05e_a_reply_is_cut_and_cleaned(
    streamed: bool, clock: VirtualClock, lines: list[logging.LogRecord]
) -> None:
    text = f"Write to ada@example.org\nor use {key(1)} now. " + "y" * 2_000
    made = backend(clock, [stream(text) if streamed else said(text)], ALL)
    answer = await made.execute_gemini_enhanced(structs.replace(ASK, stream=streamed))
    if streamed:
        assert [piece async for piece in answer]  # type: ignore[union-attr]
    (response,) = [line for line in ours(lines) if "response" in line.getMessage()[:16]]
    shown = response.headgate["text"]
    assert shown.startswith("Write to [EMAIL] or use [key] now. yyy")
    assert len(shown) <= 1_001
    assert shown.endswith("y…")
    assert response.headgate["characters"] == len(text)
    assert response.headgate["finish_reason"] == "STOP"


async def test_s3_05e_not_sanitised_shows_personal_data_and_still_no_key(
    clock: VirtualClock, lines: list[logging.LogRecord]
) -> None:
    """The conftest's canary looks at every line; the keys here have no shape to be known by."""
    own = "CANARY-of-no-known-shape-0123456789"
    logged = structs.replace(ALL, sanitize_sensitive_data=False, max_response_length=200)
    config = BackendConfig(model_discovery=False, logging_config=logged)
    texts = [f"ada@example.org uses {own}", f"and {own[4:30]}", "guest-CANARY-key-of-somebody-else!"]
    transport = ScriptedTransport([said(text) for text in texts], clock)
    made = GeminiBackend(config, keys=own, transport=transport, clock=clock, environ={})
    await made.execute_gemini_enhanced(ASK)
    await made.execute_gemini_enhanced(ASK)
    await made.execute_gemini_enhanced(ASK, api_key="guest-CANARY-key-of-somebody-else!")
    shown = [line.headgate["text"] for line in ours(lines) if "text" in line.headgate]
    assert shown == ["ada@example.org uses [key]", "and [key]", "[key]"]


async def test_s3_07j_what_an_upstream_echoes_is_cleaned(
    clock: VirtualClock, lines: list[logging.LogRecord]
) -> None:
    echo = failure(400, f"bad: ada@example.org {key(1)}\nforged line", "INVALID_ARGUMENT")
    made = backend(clock, [bad_key(echo=key(0)), echo])
    with suppress(GeminiError):
        await made.execute_gemini_enhanced(ASK)
    messages = [line.headgate["message"] for line in ours(lines) if "message" in line.headgate]
    assert messages[-1] == "bad: [EMAIL] [key] forged line"
    assert all("\n" not in line.getMessage() for line in lines)


async def test_s3_05e_what_repeats_itself_is_told_once_a_minute(
    clock: VirtualClock, lines: list[logging.LogRecord]
) -> None:
    made = backend(clock, [broken_inside()], count=1, retry_config=RetryConfig(max_attempts=1))
    for _ in range(100):
        with suppress(GeminiError):
            await made.execute_gemini_enhanced(ASK)
    warned = ours(lines, logging.WARNING)
    assert words(warned) == ["failed"], [line.headgate for line in warned]
    assert len([line for line in ours(lines, logging.DEBUG) if line.levelno == logging.DEBUG]) >= 99
    await clock.sleep(60.0)
    with suppress(GeminiError):
        await made.execute_gemini_enhanced(ASK)
    assert ours(lines, logging.WARNING)[1].headgate["like_it"] == 99


async def test_s3_05e_the_first_request_without_a_key_is_critical(
    clock: VirtualClock, lines: list[logging.LogRecord]
) -> None:
    made = backend(clock, [quota("Day"), quota("Day"), said()])
    for _ in range(3):
        with suppress(GeminiError):
            await made.execute_gemini_enhanced(structs.replace(ASK, timeout_seconds=1))
    assert [line.levelname for line in ours(lines, logging.WARNING)] == ["CRITICAL", "WARNING"]


async def test_s3_05e_a_request_that_fails_before_it_is_sent_is_told(
    clock: VirtualClock, lines: list[logging.LogRecord]
) -> None:
    made = backend(clock, [said(delay=5.0)], max_concurrent_requests=1, max_queued_requests=0)
    async with asyncio.TaskGroup() as group:
        group.create_task(made.execute_gemini_enhanced(ASK))
        await clock.sleep(1.0)
        with pytest.raises(GeminiError):
            await made.execute_gemini_enhanced(ASK)
    (failed,) = ours(lines, logging.WARNING)
    assert failed.headgate["error"] == "busy"
    assert failed.headgate["attempts"] == 0
    assert failed.headgate["request_id"]


async def test_s3_05e_a_request_that_never_enters_the_path_is_told(
    clock: VirtualClock, lines: list[logging.LogRecord]
) -> None:
    """One whose session's turn never comes has no record: the log would not know of it."""
    made = backend(clock, [said(delay=5.0)])
    async with asyncio.TaskGroup() as group:
        group.create_task(made.execute_gemini_enhanced(structs.replace(ASK, session_id="s")))
        await clock.sleep(1.0)
        with pytest.raises(GeminiError):
            await made.execute_gemini_enhanced(structs.replace(ASK, session_id="s", timeout_seconds=2))
    (failed,) = ours(lines, logging.WARNING)
    assert failed.headgate["error"] == "busy"
    assert failed.headgate["request_id"]
    assert failed.headgate["message"]
