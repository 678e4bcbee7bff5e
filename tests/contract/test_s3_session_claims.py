"""S3-02b, S3-06d: what a killed process leaves behind, whose a session is, when its file is opened."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import pytest
from tests.contract.test_s3_sessions import echo, later
from tests.executing import TINY, Backend, said_in
from tests.support import key, said

from headgate.backend import BackendConfig, GeminiBackend
from headgate.backend.held_turns import CLAIM_SECONDS
from headgate.backend.sessions import Sessions
from headgate.backend.structures import GeminiError, GeminiRequest, StreamingChunk
from headgate.core.errors import ConfigurationError, StoreError
from headgate.stores.sessions import MemorySessions
from headgate.stores.sessions_sqlite import SqliteSessions
from headgate.testing import Answer, ScriptedTransport, Sent, VirtualClock
from headgate.wiring.clock import SystemClock

MODEL = "gemini-3.8-flash"
KEYS = f"one:{key(0)}"
OWN, OTHER = key(1), key(2)
LONG = 5 * CLAIM_SECONDS


def slow(sent: Sent) -> Answer:
    return later(echo(sent), LONG)


def open_files(path: Path) -> int:
    """How many descriptors of this process are open on a file or those beside it."""
    found = 0
    for number in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            found += os.readlink(f"/proc/self/fd/{number}").startswith(str(path))
        except OSError:
            continue  # that of the listing itself
    return found


def files(folder: Path) -> dict[str, bytes]:
    """What is in the files of a folder, by name."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def whole(clock: VirtualClock, **config: object) -> tuple[GeminiBackend, ScriptedTransport]:
    transport = ScriptedTransport(echo, clock)
    made = GeminiBackend(config, keys=KEYS, transport=transport, clock=clock, environ={})
    return made, transport


# ── claims ──────────────────────────────────────────────────────────────────────────────────────


async def test_s3_02b_a_killed_process_blocks_its_session_for_seconds(
    clock: VirtualClock, tmp_path: Path
) -> None:
    """A claim of 15 minutes kept a session from everybody when its process was killed."""
    killed = SqliteSessions(tmp_path / "s.db")
    assert killed.claim(":", "s", "killed", clock.wall(), CLAIM_SECONDS)
    backend = Backend(clock, echo, store=SqliteSessions(tmp_path / "s.db"))
    began = clock.monotonic()
    await backend.ask("q0", session_id="s", timeout_seconds=15.0)
    assert 9.0 < clock.monotonic() - began < 11.0
    killed.close()
    await backend.sessions.aclose()


async def test_s3_02b_a_long_call_keeps_its_turn(clock: VirtualClock, tmp_path: Path) -> None:
    one = Backend(clock, slow, store=SqliteSessions(tmp_path / "s.db"))
    two = Backend(clock, echo, store=SqliteSessions(tmp_path / "s.db"))
    first = asyncio.ensure_future(one.ask("q0", session_id="s"))
    await clock.sleep(1.0)
    began = clock.monotonic()
    await two.ask("q1", session_id="s", timeout_seconds=2 * LONG)
    assert clock.monotonic() - began > LONG - 2.0, "it waited for the long one"
    assert said_in(two.last) == [("user", "q0"), ("model", "answer 0"), ("user", "q1")]
    await first
    await one.sessions.aclose()
    await two.sessions.aclose()


async def test_s3_02b_a_stream_that_is_read_slowly_keeps_its_turn(
    clock: VirtualClock, tmp_path: Path
) -> None:
    backend = Backend(clock, echo, store=SqliteSessions(tmp_path / "s.db"))
    other = SqliteSessions(tmp_path / "s.db")
    request = GeminiRequest("q0", TINY, session_id="s", stream=True)
    pieces = cast("AsyncGenerator[StreamingChunk]", await backend.executor.execute(request))
    looked = 0
    async for piece in pieces:
        if piece.response is None:  # the last one comes when the turn has ended
            await clock.sleep(LONG)
            looked += 1
            assert not other.claim(":", "s", "other", clock.wall(), 1.0)
    assert looked
    assert other.claim(":", "s", "other", clock.wall(), 1.0), "and gives it back"
    other.close()
    await backend.sessions.aclose()


async def test_s3_02b_a_claim_is_renewed_again_after_the_store_failed_once(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(MemorySessions):
        renewals = 0

        def renew(self, caller: str, session_id: str, holder: str, now: float, seconds: float) -> bool:
            self.renewals += 1
            if self.renewals == 1:
                raise StoreError("The disk is busy.")
            return super().renew(caller, session_id, holder, now, seconds)

    store = Failing()
    backend = Backend(clock, slow, store=store)
    first = asyncio.ensure_future(backend.ask("q0", session_id="s"))
    await clock.sleep(LONG - 1.0)
    assert not store.claim(":", "s", "other", clock.wall(), 1.0)
    await first
    assert "was not renewed: The disk is busy." in caplog.text
    renewals = store.renewals
    await clock.sleep(LONG)
    assert store.renewals == renewals > 10, "an ended turn renews nothing"


async def test_s3_02b_a_turn_that_lost_its_claim_writes_over_nothing(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a process stood still for longer than a claim lasts."""

    class Lost(MemorySessions):
        def renew(self, *_: object) -> bool:
            return False

    store = Lost()
    stuck, quick = Backend(clock, slow, store=store), Backend(clock, echo, store=store)
    first = asyncio.ensure_future(stuck.ask("q0", session_id="s"))
    await clock.sleep(1.0)
    await quick.ask("q1", session_id="s", timeout_seconds=15.0)
    assert (await first).text == "answer 0"
    context = await quick.sessions.context("s")
    assert context is not None
    assert [message.content for message in context.messages] == ["q1", "answer 0"]
    assert "this turn is not remembered" in caplog.text


# ── whose it is ─────────────────────────────────────────────────────────────────────────────────


async def test_s3_02b_sessions_of_two_keys_never_meet(clock: VirtualClock) -> None:
    """Sessions went by caller alone, while the cache also went by the caller's own key."""
    backend, transport = whole(clock)

    async def ask(prompt: str, **how: str) -> list[tuple[str, str]]:
        request = GeminiRequest(prompt, MODEL, session_id="s", use_cache=False)
        await backend.execute_gemini_enhanced(request, **how)
        return said_in(_body(transport))

    assert await ask("Mine", api_key=OWN) == [("user", "Mine")]
    assert await ask("Other", api_key=OTHER) == [("user", "Other")]
    assert await ask("Nobody's") == [("user", "Nobody's")]
    assert (await ask("Mine too", api_key=OWN))[0] == ("user", "Mine")
    for how, first in (({"api_key": OWN}, "Mine"), ({"api_key": OTHER}, "Other"), ({}, "Nobody's")):
        context = await backend.get_gemini_session("s", **how)
        assert context is not None
        assert context.messages[0].content == first
    assert await backend.forget_gemini_session("s", api_key=OWN)
    assert await backend.get_gemini_session("s", api_key=OWN) is None
    assert await backend.get_gemini_session("s") is not None
    with pytest.raises(GeminiError, match="api_key takes a text"):
        await backend.get_gemini_session("s", api_key=cast("str", 7))
    await backend.aclose()


async def test_s3_02b_the_file_of_sessions_holds_no_key(clock: VirtualClock, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    backend, _ = whole(clock, session_file=str(path))
    request = GeminiRequest("q0", MODEL, session_id="s")
    await backend.execute_gemini_enhanced(request, api_key=OWN)
    await backend.aclose()
    written = b"".join(files(tmp_path).values())
    assert b"q0" in written, "the session is in there"
    assert OWN.encode() not in written


def _body(transport: ScriptedTransport) -> dict[str, object]:
    body: dict[str, object] = json.loads(transport.sent[-1].request.body)
    return body


# ── when its file is opened ─────────────────────────────────────────────────────────────────────


async def test_s3_06d_no_file_before_the_first_call(clock: VirtualClock, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    backend, _ = whole(clock, session_file=str(path))
    assert files(tmp_path) == {}
    await backend.execute_gemini_enhanced(GeminiRequest("q0", MODEL))
    await backend.aclose()
    assert files(tmp_path) == {}, "and none where no session is wanted"
    assert await backend.get_gemini_session("s") is None
    assert list(files(tmp_path)) == ["s.db"]
    assert open_files(path) == 0, "a closed backend leaves nothing open"


async def test_s3_06d_a_wrong_file_is_told_at_first_use(clock: VirtualClock, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"this is no database, whatever its name says" * 30)
    backend, _ = whole(clock, session_file=str(path))
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"s\.db"):
            await backend.execute_gemini_enhanced(GeminiRequest("q0", MODEL, session_id="s"))
    await backend.execute_gemini_enhanced(GeminiRequest("q0", MODEL))
    path.unlink()
    await backend.execute_gemini_enhanced(GeminiRequest("q1", MODEL, session_id="s"))
    await backend.aclose()
    with pytest.raises(ConfigurationError, match="folder"):
        GeminiBackend(BackendConfig(session_file=str(tmp_path / "nowhere" / "s.db")), environ={})


async def test_s3_06d_closing_waits_for_the_last_turn(clock: VirtualClock, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    backend = Backend(clock, lambda _: later(said("late"), 2.0), store=SqliteSessions(path))
    first = asyncio.ensure_future(backend.ask("q0", session_id="s"))
    await clock.sleep(1.0)
    await backend.sessions.aclose()
    assert not (await first).warnings
    assert open_files(path) == 0
    context = await backend.sessions.context("s")
    assert context is not None
    assert context.messages[1].content == "late", "it was remembered"
    assert open_files(path) == 0


def test_s3_06d_a_turn_of_a_dead_loop_keeps_no_file_open(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    sessions = Sessions(SqliteSessions(path), SystemClock(), ttl=60.0)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(sessions.begin("", "s", SystemClock().monotonic() + 60.0))
    assert open_files(path) > 0 or not os.path.isdir("/proc/self/fd")
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    asyncio.run(sessions.aclose())
    assert open_files(path) == 0
