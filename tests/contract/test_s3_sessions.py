"""S3-02b: conversations, and the contract that every store of sessions keeps."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
import threading
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from msgspec import structs
from tests.executing import TINY, Backend, said_in
from tests.support import failure, reply, said, stream

from headgate.backend.structures import (
    ContextOverflow,
    FunctionResult,
    GeminiError,
    GeminiRequest,
    PreprocessConfig,
    StreamingChunk,
)
from headgate.core.errors import ConfigurationError, StoreError
from headgate.core.sessions import (
    Session,
    SessionBlob,
    SessionPiece,
    SessionStore,
    SessionText,
    SessionTurn,
)
from headgate.stores.sessions import MemorySessions
from headgate.stores.sessions_sqlite import SqliteSessions
from headgate.testing import Answer, Sent, VirtualClock

DAY = 86_400.0

# ── the contract of stores ──────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionStore]:
    made: SessionStore = (
        MemorySessions() if request.param == "memory" else SqliteSessions(tmp_path / "sessions.db")
    )
    yield made
    made.close()


def session(version: int = 1, **fields: object) -> Session:
    turns = (
        SessionTurn("user", (SessionText("hé\0"), SessionBlob("image/png", b"\x89\0")), 1.0, 3),
        SessionTurn("model", (SessionPiece({"functionCall": {"name": "f", "args": {"a": [1]}}}),), 2.0),
    )
    return structs.replace(Session("s", "c", version, 1.0, 100.0, "Be brief.", turns), **fields)


def test_a_store_gives_back_what_it_was_given(store: SessionStore) -> None:
    assert store.load("c", "s", 0.0) is None
    assert store.save(session())
    assert store.load("c", "s", 0.0) == session()
    assert store.load("c", "s", 100.0) == session()
    assert store.load("c", "s", 100.5) is None, "expired"
    assert store.load("other", "s", 0.0) is None, "callers never meet"


def test_a_store_keeps_only_the_next_version(store: SessionStore) -> None:
    assert not store.save(session(2)), "there is no first one"
    assert store.save(session(1))
    assert not store.save(session(1, system="lost")), "somebody else was first"
    assert store.save(session(2, updated=200.0))
    assert not store.save(session(2))
    found = store.load("c", "s", 0.0)
    assert found is not None
    assert (found.version, found.updated, found.system) == (2, 200.0, "Be brief.")


def test_a_claim_is_one_holders_until_it_is_released_or_too_old(store: SessionStore) -> None:
    assert store.claim("c", "s", "one", 0.0, 10.0)
    assert not store.claim("c", "s", "two", 9.9, 10.0)
    assert store.claim("c", "s", "one", 5.0, 10.0), "the holder may claim again"
    assert store.claim("c", "other", "two", 5.0, 10.0)
    store.release("c", "s", "two")
    assert not store.claim("c", "s", "two", 6.0, 10.0), "who holds nothing releases nothing"
    store.release("c", "s", "one")
    assert store.claim("c", "s", "two", 6.0, 10.0)
    assert store.claim("c", "s", "three", 16.0, 10.0), "a killed process blocks no session for ever"


def test_only_who_holds_a_claim_renews_it(store: SessionStore) -> None:
    assert not store.renew("c", "s", "one", 0.0, 10.0), "there is none"
    assert store.claim("c", "s", "one", 0.0, 10.0)
    assert store.renew("c", "s", "one", 8.0, 10.0)
    assert not store.claim("c", "s", "two", 17.9, 10.0)
    assert store.renew("c", "s", "one", 20.0, 10.0), "late, but nobody took it"
    assert store.claim("c", "s", "two", 30.0, 10.0)
    assert not store.renew("c", "s", "one", 31.0, 10.0)
    store.release("c", "s", "two")
    assert not store.renew("c", "s", "two", 32.0, 10.0), "what was given back stays free"
    assert store.claim("c", "s", "three", 33.0, 10.0)


def test_a_store_that_was_closed_opens_again(store: SessionStore) -> None:
    store.close()
    assert store.save(session())
    store.close()
    store.close()
    assert store.load("c", "s", 0.0) == session()


def test_sessions_are_forgotten_and_expire(store: SessionStore) -> None:
    store.save(session())
    store.save(session(session_id="t", updated=300.0))
    assert store.forget("c", "s")
    assert not store.forget("c", "s")
    store.save(session())
    assert store.expire(200.0) == 1
    assert store.load("c", "s", 0.0) is None
    assert store.load("c", "t", 0.0) is not None


def test_memory_is_bounded_by_number_and_by_bytes() -> None:
    store = MemorySessions(most=2)
    for name in "abc":
        store.save(session(session_id=name))
    assert [store.load("c", name, 0.0) is not None for name in "abc"] == [False, True, True]
    small = MemorySessions(most_bytes=30)  # one session here has 9 + 3 + 2
    for name in "abc":
        small.save(session(session_id=name))
    assert [small.load("c", name, 0.0) is not None for name in "abc"] == [False, True, True]


def test_a_file_survives_and_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    first = SqliteSessions(path)
    first.save(session())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = SqliteSessions(path)  # another process, or the next one
    assert second.load("c", "s", 0.0) == session()
    first.close()
    second.close()


def test_files_that_are_no_sessions_are_refused_and_faults_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"this is no database, whatever its name says" * 30)
    bad = SqliteSessions(broken)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"broken\.db"):
            bad.load("c", "s", 0.0)
    broken.unlink()
    assert bad.save(session()), "once the file is gone it works"
    bad.close()
    with pytest.raises(ConfigurationError, match="nowhere"):
        SqliteSessions(tmp_path / "nowhere" / "s.db")
    with pytest.raises(ConfigurationError, match="is a folder"):
        SqliteSessions(tmp_path)
    later = tmp_path / "later.db"
    connection = sqlite3.connect(later)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigurationError, match="version 99"):
        SqliteSessions(later).load("c", "s", 0.0)
    store = SqliteSessions(tmp_path / "s.db")
    store.save(session())
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    other.execute("UPDATE sessions SET body = x'00'")
    with pytest.raises(StoreError, match="cannot be read"):
        store.load("c", "s", 0.0)
    other.execute("DROP TABLE sessions")
    with pytest.raises(StoreError, match="failed"):
        store.load("c", "s", 0.0)
    other.close()
    store.close()


def test_a_file_that_is_busy_for_long_is_no_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.stores.sessions_sqlite._BUSY_SECONDS", 0.0)
    first = SqliteSessions(tmp_path / "s.db")
    first.save(session())
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    second = SqliteSessions(tmp_path / "s.db")
    with pytest.raises(StoreError, match="busy"):
        second.load("c", "s", 0.0)
    other.execute("ROLLBACK")
    assert second.load("c", "s", 0.0) == session()
    other.close()
    first.close()
    second.close()


# ── conversations ───────────────────────────────────────────────────────────────────────────────


def echo(sent: Sent) -> Answer:
    """Says how many turns it was sent, or that many tokens."""
    body = json.loads(sent.request.body)
    if "countTokens" in sent.request.url:
        words = json.dumps(body["generateContentRequest"]["contents"]).count("tide")
        return Answer(body=json.dumps({"totalTokens": words}).encode())
    text = f"answer {len(body['contents']) // 2}"
    return stream(text) if "stream" in sent.request.url else said(text)


async def test_s3_02b_a_session_remembers_in_geminis_own_roles(
    clock: VirtualClock, store: SessionStore
) -> None:
    backend = Backend(clock, echo, store=store)
    first = await backend.ask("My dog is Rex.", session_id="s", system_instruction="Be kind.")
    assert first.session_id == "s"
    await backend.read("What is he called?", session_id="s")
    await backend.ask("Sure?", session_id="s")
    assert said_in(backend.last) == [
        ("user", "My dog is Rex."),
        ("model", "answer 0"),
        ("user", "What is he called?"),
        ("model", "answer 1"),
        ("user", "Sure?"),
    ]
    assert backend.last["systemInstruction"]["parts"] == [{"text": "Be kind."}]
    context = await backend.sessions.context("s")
    assert context is not None
    assert [message.role for message in context.messages] == ["user", "model"] * 3
    assert context.messages[0].content == "My dog is Rex."
    assert context.system_instruction == "Be kind."
    assert context.total_tokens == sum(message.tokens for message in context.messages) > 0
    assert context.created_at.tzinfo is not None


async def test_s3_02b_sessions_of_two_callers_never_meet(clock: VirtualClock) -> None:
    backend = Backend(clock, echo)
    await backend.ask("Mine", session_id="s", caller="ada")
    await backend.ask("Other", session_id="s", caller="bob")
    assert said_in(backend.last) == [("user", "Other")]
    assert await backend.sessions.context("s") is None
    assert await backend.sessions.forget("s", caller="ada")


async def test_s3_02b_a_session_survives_a_restart(clock: VirtualClock, tmp_path: Path) -> None:
    first = Backend(clock, echo, store=SqliteSessions(tmp_path / "s.db"))
    await first.ask("Remember 7.", session_id="s")
    await first.sessions.aclose()
    second = Backend(clock, echo, store=SqliteSessions(tmp_path / "s.db"))
    await second.ask("What was it?", session_id="s")
    assert said_in(second.last)[0] == ("user", "Remember 7.")
    await second.sessions.aclose()


async def test_s3_02b_a_session_expires_a_day_after_its_last_turn(
    clock: VirtualClock, store: SessionStore
) -> None:
    backend = Backend(clock, echo, store=store)
    await backend.ask("one", session_id="s")
    await clock.sleep(DAY - 1)
    await backend.ask("two", session_id="s")
    await clock.sleep(DAY - 1)
    await backend.ask("three", session_id="s")
    assert len(backend.last["contents"]) == 5
    await clock.sleep(DAY + 1)
    assert await backend.sessions.context("s") is None
    await backend.ask("four", session_id="s")
    assert said_in(backend.last) == [("user", "four")]
    assert (await backend.sessions.context("s")) is not None, "and it is a session again"


async def test_s3_02b_one_turn_at_a_time_in_the_order_they_came(
    clock: VirtualClock, store: SessionStore
) -> None:
    def slow(sent: Sent) -> Answer:
        answer = echo(sent)
        return later(answer, 2.0)

    backend = Backend(clock, slow, store=store)
    began = clock.monotonic()
    await asyncio.gather(*(backend.ask(f"q{number}", session_id="s") for number in range(3)))
    assert clock.monotonic() - began >= 6.0
    turns = said_in(backend.last)
    assert [text for role, text in turns if role == "user"] == ["q0", "q1", "q2"]
    assert [text for role, text in turns if role == "model"] == ["answer 0", "answer 1"]


def later(answer: Answer, seconds: float) -> Answer:
    return replace(answer, delay=seconds)


async def test_s3_02b_two_processes_take_turns_too(clock: VirtualClock, tmp_path: Path) -> None:
    def slow(sent: Sent) -> Answer:
        return later(echo(sent), 2.0)

    one = Backend(clock, slow, store=SqliteSessions(tmp_path / "s.db"))
    two = Backend(clock, slow, store=SqliteSessions(tmp_path / "s.db"))
    await asyncio.gather(one.ask("q0", session_id="s"), two.ask("q1", session_id="s"))
    lengths = sorted(len(body["contents"]) for body in (*one.sent, *two.sent))
    assert lengths == [1, 3]
    await one.sessions.aclose()
    await two.sessions.aclose()


async def test_s3_02b_a_turn_that_never_comes_ends_in_time(clock: VirtualClock) -> None:
    backend = Backend(clock, lambda sent: later(echo(sent), 50.0))
    first = asyncio.ensure_future(backend.ask("q0", session_id="s"))
    await clock.sleep(1.0)
    with pytest.raises(GeminiError, match="busy") as caught:
        await backend.ask("q1", session_id="s", timeout_seconds=5.0)
    assert caught.value.error_type == "ServiceUnavailable"
    assert (caught.value.kind, caught.value.is_retryable) == ("busy", True)
    assert "Nothing was sent" in caught.value.message
    await first
    await backend.ask("q2", session_id="s")
    assert len(backend.last["contents"]) == 3
    assert not backend.sessions._locks, "no lock outlives its users"


async def test_s3_02b_who_is_cancelled_while_claiming_blocks_nobody(clock: VirtualClock) -> None:
    class Slow(MemorySessions):
        blocks = True
        gate = threading.Event()
        asked = threading.Event()

        def claim(self, caller: str, session_id: str, holder: str, now: float, seconds: float) -> bool:
            self.asked.set()
            self.gate.wait(30)
            return super().claim(caller, session_id, holder, now, seconds)

    store = Slow()
    backend = Backend(clock, echo, store=store)
    first = asyncio.ensure_future(backend.ask("q0", session_id="s"))
    await asyncio.to_thread(store.asked.wait, 30)
    first.cancel()
    await asyncio.sleep(0)  # noqa: TID251
    store.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    await backend.ask("q1", session_id="s", timeout_seconds=1.0)
    assert len(backend.sent) == 1


async def test_s3_02b_not_enforced_keeps_the_whole_conversation(clock: VirtualClock) -> None:
    backend = Backend(clock, echo)
    how = PreprocessConfig(enforce_token_limits=False)
    for number in range(8):
        await backend.ask(f"q{number} {LONG}", session_id="s", preprocess_config=how)
    assert len(backend.last["contents"]) == 15


async def test_s3_02b_what_failed_or_was_left_is_not_remembered(clock: VirtualClock) -> None:
    backend = Backend(
        clock,
        [failure(400, "no", "INVALID_ARGUMENT"), stream("a", "b", "c", piece_delay=1.0), said()],
    )
    with pytest.raises(GeminiError):
        await backend.ask("q0", session_id="s")
    request = GeminiRequest("q1", TINY, session_id="s", stream=True)
    pieces = cast("AsyncGenerator[StreamingChunk]", await backend.executor.execute(request))
    async for _ in pieces:
        break
    await pieces.aclose()
    await backend.ask("q2", session_id="s")
    assert said_in(backend.last) == [("user", "q2")]
    assert backend.transport is not None
    assert backend.transport.open_exchanges == 0


async def test_s3_02b_a_cancelled_call_gives_the_turn_back(
    clock: VirtualClock, store: SessionStore
) -> None:
    backend = Backend(clock, lambda sent: later(echo(sent), 5.0), store=store)
    first = asyncio.ensure_future(backend.ask("q0", session_id="s"))
    await clock.sleep(1.0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    began = clock.monotonic()
    await backend.ask("q1", session_id="s")
    assert clock.monotonic() - began < 6.0
    assert said_in(backend.last) == [("user", "q1")]


async def test_s3_02b_a_stream_that_is_never_read_holds_nothing(clock: VirtualClock) -> None:
    backend = Backend(clock, echo)
    await backend.executor.execute(GeminiRequest("q0", TINY, session_id="s", stream=True))
    await backend.ask("q1", session_id="s", timeout_seconds=1.0)
    assert len(backend.sent) == 1


async def test_s3_02b_a_store_that_fails_afterwards_costs_the_memory_not_the_answer(
    clock: VirtualClock,
) -> None:
    class Full(MemorySessions):
        def save(self, session: Session) -> bool:
            raise StoreError("disk full")

    backend = Backend(clock, echo, store=Full())
    answer = await backend.ask("q0", session_id="s")
    assert answer.text == "answer 0"
    assert any("not remembered" in warning for warning in answer.warnings)


# ── more than fits ──────────────────────────────────────────────────────────────────────────────

LONG = "tide " * 70


async def test_s3_02b_the_oldest_turns_are_dropped_first(clock: VirtualClock) -> None:
    backend = Backend(clock, echo)
    for number in range(6):
        answer = await backend.ask(
            f"q{number} {LONG}", session_id="s", system_instruction="Be kind." if not number else None
        )
    turns = said_in(backend.last)
    assert [text[:2] for role, text in turns if role == "user"] == ["q2", "q3", "q4", "q5"]
    assert turns[0][0] == "user"
    assert backend.last["systemInstruction"]["parts"] == [{"text": "Be kind."}]
    assert answer.truncated
    context = await backend.sessions.context("s")
    assert context is not None
    assert len(context.messages) == 8, "what was dropped is not kept either"


async def test_s3_02b_the_oldest_turns_become_a_summary(clock: VirtualClock) -> None:
    def script(sent: Sent) -> Answer:
        text = json.dumps(json.loads(sent.request.body))
        if "countTokens" in sent.request.url:
            return echo(sent)
        return said("They spoke of tides.") if "Summarise the conversation" in text else echo(sent)

    backend = Backend(clock, script)
    for number in range(5):
        answer = await backend.ask(
            f"q{number} {LONG}", session_id="s", context_overflow=ContextOverflow.SUMMARISE
        )
    turns = said_in(backend.last)
    assert turns[0] == ("user", "Summary of the conversation so far:\nThey spoke of tides.")
    assert turns[1][0] == "model"
    assert turns[-1][1].startswith("q4")
    assert any("became a summary" in warning for warning in answer.warnings)
    asked = next(body for body in backend.sent if "Summarise the conv" in json.dumps(body))
    assert "q0 tide" in json.dumps(asked)
    context = await backend.sessions.context("s")
    assert context is not None
    assert context.messages[0].content.startswith("Summary")


async def test_s3_02b_without_a_summary_turns_are_dropped_and_it_is_said(clock: VirtualClock) -> None:
    def script(sent: Sent) -> Answer:
        if "Summarise the conversation" in sent.request.body.decode():
            return failure(400, "no", "INVALID_ARGUMENT")
        return echo(sent)

    backend = Backend(clock, script)
    for number in range(5):
        answer = await backend.ask(
            f"q{number} {LONG}", session_id="s", context_overflow=ContextOverflow.SUMMARISE
        )
    assert any("left out" in warning for warning in answer.warnings)
    assert said_in(backend.last)[-1][1].startswith("q4")


# ── personal data and functions in conversations ────────────────────────────────────────────────


async def test_markers_are_kept_where_they_cannot_be_put_back(clock: VirtualClock) -> None:
    backend = Backend(clock, echo)
    await backend.ask("I am ada@example.org.", session_id="s")
    context = await backend.sessions.context("s")
    assert context is not None
    assert context.messages[0].content == "I am [EMAIL]."


async def test_markers_mean_the_same_through_a_conversation(clock: VirtualClock) -> None:
    backend = Backend(clock, [said("Hello [EMAIL_1]."), said("[EMAIL_1] and [EMAIL_2]")])
    restore = PreprocessConfig(restore_redacted=True)
    first = await backend.ask("I am ada@example.org.", session_id="s", preprocess_config=restore)
    assert first.text == "Hello ada@example.org."
    second = await backend.ask("And bob@example.org?", session_id="s", preprocess_config=restore)
    assert said_in(backend.last) == [
        ("user", "I am [EMAIL_1]."),
        ("model", "Hello [EMAIL_1]."),
        ("user", "And [EMAIL_2]?"),
    ]
    assert second.text == "ada@example.org and bob@example.org"


async def test_function_calls_go_back_with_their_signature_and_their_results(
    clock: VirtualClock,
) -> None:
    body = reply()
    call = {"functionCall": {"name": "find", "args": {"mail": "[EMAIL_1]"}}, "thoughtSignature": "c2ln"}
    body["candidates"][0]["content"]["parts"] = [call]
    backend = Backend(clock, [Answer(body=json.dumps(body).encode()), said("Found.")])
    restore = PreprocessConfig(restore_redacted=True)
    tools = [{"functionDeclarations": [{"name": "find"}]}]
    answer = await backend.ask(
        "Find ada@example.org.", session_id="s", tools=tools, preprocess_config=restore
    )
    assert answer.function_calls[0].args == {"mail": "ada@example.org"}
    with pytest.raises(GeminiError, match="find: pass their function_results"):
        await backend.ask("And?", session_id="s", tools=tools)
    result = FunctionResult("find", {"of": "ada@example.org", "name": "Ada"})
    answer = await backend.ask(
        "", session_id="s", tools=tools, function_results=[result], preprocess_config=restore
    )
    assert answer.text == "Found."
    contents = backend.last["contents"]
    assert contents[1] == {"role": "model", "parts": [call]}
    sent_result = {"name": "find", "response": {"of": "[EMAIL_1]", "name": "Ada"}}
    assert contents[2] == {"role": "user", "parts": [{"functionResponse": sent_result}]}
    context = await backend.sessions.context("s")
    assert context is not None
    assert [message.role for message in context.messages] == ["user", "model", "user", "model"]
