"""Log lines for operators: one form for everybody's, ids on each, redaction last, repeats left out."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import datetime
from typing import Any

import pytest
import structlog
from tests.support import MODEL, broken_inside, key, keys, quota, said, scripted
from tests.telemetry import telemetry

from headgate.backend import BackendConfig, GeminiBackend, GeminiRequest
from headgate.core.errors import ConfigurationError
from headgate.policy.repeats import Repeats
from headgate.telemetry import current_request_id, logs, setup_logging, trace_span
from headgate.telemetry.logs import bound_request
from headgate.testing import ScriptedTransport, VirtualClock

SHAPELESS = "CANARY-of-no-known-shape-0123456789"


class Lines:
    """A log, and what was written to it."""

    def __init__(self, **settings: Any) -> None:
        self.stream = io.StringIO()
        setup_logging(**{"json": True, "level": "DEBUG", "stream": self.stream, **settings})

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def last(self) -> dict[str, Any]:
        return self.lines[-1]


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    quiet = {name: logging.getLogger(name).level for name in ("httpx", "httpcore", "urllib3")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in quiet.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


@contextmanager
def unwatched() -> Iterator[None]:
    """Without the handlers that look at what tests log: here keys are given to loggers on purpose."""
    root = logging.getLogger()
    handlers, root.handlers[:] = list(root.handlers), []
    try:
        yield
    finally:
        root.handlers[:] = handlers


def test_structlog_and_the_standard_library_write_the_same_lines() -> None:
    log = Lines()
    structlog.get_logger("mine").info("hello %s", "you", colour="red")
    logging.getLogger("theirs").warning("hello %s", "you")
    ours, theirs = log.lines
    assert ours | {"timestamp": ""} == {
        "message": "hello you", "colour": "red", "level": "info", "logger": "mine", "timestamp": "",
    }  # fmt: skip
    assert theirs | {"timestamp": ""} == {
        "message": "hello you", "level": "warning", "logger": "theirs", "timestamp": "",
    }  # fmt: skip
    assert datetime.fromisoformat(ours["timestamp"]).utcoffset() is not None


def test_levels_and_loud_libraries() -> None:
    log = Lines(level="INFO")
    logging.getLogger("theirs").debug("no")
    structlog.get_logger("mine").debug("no")
    logging.getLogger("httpx").info("HTTP Request: GET https://x?key=…")
    logging.getLogger("httpx").warning("yes")
    assert [line["logger"] for line in log.lines] == ["httpx"]
    with pytest.raises(ConfigurationError, match="level"):
        setup_logging(level="LOUD")


def test_calling_it_again_replaces_what_it_made() -> None:
    first, second = Lines(), Lines()
    logging.getLogger("theirs").warning("once")
    assert first.text == ""
    assert len(second.lines) == 1


def test_a_console_is_for_people() -> None:
    log = Lines(json=False)
    logging.getLogger("theirs").warning("two\nlines")
    assert "two lines" in log.text
    assert "warning" in log.text
    assert log.text.count("\n") == 1
    assert Lines(json=None).text == ""
    setup_logging(json=None, stream=log.stream)
    logging.getLogger("theirs").warning("json, for it is no terminal")
    assert log.text.splitlines()[-1].startswith("{")


# ── ids ─────────────────────────────────────────────────────────────────────────────────────────


async def test_every_line_of_a_call_has_its_request_and_its_trace(clock: VirtualClock) -> None:
    """Through a rotation, a retry and a wait; with a span around the call, and without one."""
    log = Lines(level="INFO")
    config = BackendConfig(model_discovery=False)
    for around in (False, True):
        log.stream.truncate(0)
        log.stream.seek(0)
        transport = ScriptedTransport([quota("Minute", "50s"), broken_inside(), said()], clock)
        made = GeminiBackend(config, keys=keys(2), transport=transport, clock=clock, environ={})
        with telemetry() as seen:
            if around:
                with trace_span("request"):
                    answer = await made.execute_gemini_enhanced(GeminiRequest("Hi", MODEL))
            else:
                answer = await made.execute_gemini_enhanced(GeminiRequest("Hi", MODEL))
        lines = [line for line in log.lines if line["logger"] == "headgate.backend"]
        assert [line["message"].split()[1] for line in lines] == [
            "request", "attempt", "attempt", "wait", "answered",
        ]  # fmt: skip
        assert {line["request_id"] for line in lines} == {answer.request_id}  # type: ignore[union-attr]
        (call,) = [span for span in seen.spans if span.name.startswith("headgate.call")]
        assert call.context is not None
        trace_id = f"{call.context.trace_id:032x}"
        traced = lines if around else lines[1:]  # the request begins before its call does
        assert {line.get("trace_id") for line in traced} == {trace_id}
        assert all(len(line["span_id"]) == 16 for line in traced)
        assert lines[-1]["model"] == MODEL
        assert lines[-1]["attempts"] == 3


async def test_lines_of_anybody_within_a_call_have_its_request_id(clock: VirtualClock) -> None:
    log = Lines()

    def answer(sent: Any) -> Any:
        logging.getLogger("somebody").info("on the path")
        return said()

    transport = ScriptedTransport(answer, clock)
    config = BackendConfig(model_discovery=False)
    made = GeminiBackend(config, keys=keys(1), transport=transport, clock=clock, environ={})
    reply = await made.execute_gemini_enhanced(GeminiRequest("Hi", MODEL))
    logging.getLogger("somebody").info("after it")
    inside, after = [line for line in log.lines if line["logger"] == "somebody"]
    assert inside["request_id"] == reply.request_id  # type: ignore[union-attr]
    assert "request_id" not in after


async def test_a_call_that_is_dropped_ends_quietly_wherever_it_ends(clock: VirtualClock) -> None:
    """A coroutine that nobody awaits any more is closed in another context than it ran in."""
    client, _ = scripted([said(delay=5.0)], clock)
    call = client.generate_content("hi", MODEL)
    copy_context().run(call.send, None)
    call.close()
    assert current_request_id() is None


def test_ids_that_are_bound_are_on_every_line() -> None:
    log = Lines()
    with bound_request("r-1"), telemetry(), trace_span("x") as span:
        logging.getLogger("theirs").info("within")
        context = span.get_span_context()
    assert log.last["request_id"] == "r-1"
    assert log.last["trace_id"] == f"{context.trace_id:032x}"
    assert log.last["span_id"] == f"{context.span_id:016x}"
    structlog.contextvars.bind_contextvars(tenant="t1")
    logging.getLogger("theirs").info("bound by structlog")
    structlog.contextvars.clear_contextvars()
    assert log.last["tenant"] == "t1"


# ── redaction ───────────────────────────────────────────────────────────────────────────────────


def _say(holder: object) -> None:
    theirs, mine = logging.getLogger("theirs"), structlog.get_logger("mine")
    theirs.warning("key %s and %s", key(1), SHAPELESS)
    theirs.warning("%s", holder)
    theirs.warning("mapped %(a)s", {"a": key(1)})
    mine.warning(
        "event",
        value=key(1),
        nested={"deep": [{key(2): SHAPELESS}]},
        holder=holder,
        raw=SHAPELESS.encode(),
    )
    mine.warning(
        "event", authorization="Basic dXNlcjpwYXNz", api_key="x", headers={"Cookie": "chocolate"}
    )
    try:
        raise ValueError(f"no {key(1)} {SHAPELESS}")
    except ValueError:
        theirs.exception("failed with %s", key(2))
        mine.exception("failed")
    theirs.warning("stack", stack_info=True)


@pytest.mark.parametrize("as_json", [True, False])
def test_no_key_gets_into_a_line_whichever_way_it_comes(as_json: bool) -> None:
    class Holder:
        def __repr__(self) -> str:
            return f"Holder({key(1)}, {SHAPELESS})"

    with unwatched():
        log = Lines(json=as_json, secrets=[SHAPELESS])
        _say(Holder())
    assert "CANARY" not in log.text
    assert "dXNlcjpwYXNz" not in log.text
    assert "chocolate" not in log.text
    assert log.text.count("[key]") > 10
    assert "ValueError" in log.text


def test_personal_data_goes_unless_it_is_asked_to_stay_and_ids_are_no_telephone_numbers() -> None:
    for kept in (False, True):
        with unwatched(), bound_request("+1 212 555 0123"):
            log = Lines(personal_data=kept)
            logging.getLogger("theirs").warning("from ada@example.org with %s", key(1))
        assert log.last["request_id"] == "+1 212 555 0123"
        mail = "ada@example.org" if kept else "[EMAIL]"
        assert log.last["message"] == f"from {mail} with [key]"


def test_what_is_remembered_of_texts_is_bounded_and_holds_no_key() -> None:
    with unwatched():
        log = Lines(repeat_seconds=0)
        for number in range(5_000):
            logging.getLogger("theirs").info("text %s", number)
        logging.getLogger("theirs").info("%s", key(1))
        logging.getLogger("theirs").info("%s", key(1))
    assert log.lines[-2]["message"] == log.last["message"] == "[key]"
    redaction = logs._Redaction((), personal_data=False, lines=False)
    for number in range(10_000):
        redaction(None, "", {"message": f"text {number}", "other": key(number % 100)})
    kept = redaction._harmless[False] | redaction._harmless[True]
    assert 0 < len(kept) <= 4_096
    assert not any("CANARY" in text for text in kept)


def test_odd_values_lose_no_line() -> None:
    log = Lines()
    deep: Any = "end"
    for _ in range(20):
        deep = [deep]
    structlog.get_logger("mine").info(
        "odd", big=2**70, half="\ud800", deep=deep, odd={1: {2}}, nan=float("nan")
    )
    assert log.last["big"] == str(2**70)
    assert log.last["half"] == "?"
    assert log.last["odd"] == {"1": [2]}
    assert "…" in str(log.last["deep"])


def test_what_cannot_be_written_is_told_without_what_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    """The standard library would print the arguments to standard error, keys and all."""

    class Unprintable:
        def __repr__(self) -> str:
            raise RuntimeError(key(1))

    with unwatched():
        log = Lines()
        logging.getLogger("theirs").warning("%d", key(1))
        logging.getLogger("theirs").warning("%s", Unprintable())
        structlog.get_logger("mine").warning("fine", value=Unprintable())
    first, second, third = log.lines
    assert first["message"] == "a line of theirs could not be written: TypeError"
    assert second["message"] == "a line of theirs could not be written: RuntimeError"
    assert third["value"] == "<Unprintable>"
    assert capsys.readouterr().err == ""


# ── repeats ─────────────────────────────────────────────────────────────────────────────────────


def test_warnings_that_differ_in_numbers_only_are_left_out_after_a_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Lines(repeat_seconds=60.0, repeat_burst=3)
    logger, now = logging.getLogger("theirs"), [1_000.0]
    make = logger.makeRecord

    def dated(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.created = now[0]
        return record

    monkeypatch.setattr(logger, "makeRecord", dated)
    for number in range(100):
        logger.warning("call %x failed after %d ms", number << 40, number)
        logger.info("call %d is fine", number)
    assert [line["level"] for line in log.lines].count("warning") == 3
    assert [line["level"] for line in log.lines].count("info") == 100
    logger.warning("something else")
    assert log.last["message"] == "something else"
    now[0] += 61.0
    logger.warning("call %x failed after %d ms", 7 << 40, 7)
    assert log.last["like_it"] == 97
    logger.warning("call %x failed after %d ms", 7 << 40, 7)
    assert "like_it" not in log.last


def test_repeats_may_be_wanted() -> None:
    log = Lines(repeat_seconds=0)
    for _ in range(50):
        structlog.get_logger("mine").warning("again")
    assert len(log.lines) == 50


def test_a_burst_is_let_through_in_every_period() -> None:
    repeats = Repeats(seconds=10.0, burst=2)
    assert [repeats.hear("a", 0.0) for _ in range(4)] == [0, 0, None, None]
    assert [repeats.hear("a", 10.0) for _ in range(3)] == [2, 0, None]
