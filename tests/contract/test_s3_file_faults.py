"""S3-02d where things go wrong: what a call with uploaded files is told, and what stands in for it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_s3_files import AS_IT_IS, FILM, World, through, world
from tests.support import MODEL, key, said

from headgate.backend import BackendConfig, FallbackStrategy, GeminiBackend, GeminiError, RetryConfig
from headgate.core.fallback import INCOMPLETE
from headgate.emulator import Fault
from headgate.emulator.errors import Refused
from headgate.emulator.files import FileRoom
from headgate.engine import lodgings
from headgate.engine.lodgings import Lodged, Lodgings
from headgate.engine.single_flight import SingleFlight
from headgate.testing import Answer, Sent, VirtualClock

ONCE = RetryConfig(max_attempts=1)
KEYS = f"{key(0)}|k0|alpha,{key(1)}|k1|beta"


async def test_s3_04f_a_part_of_an_answer_about_an_uploaded_file_may_stand_in(
    clock: VirtualClock,
) -> None:
    """Where the file goes is decided after the call was written so that its answer comes in pieces."""
    breaks = Fault("reset_mid", 1.0, method="streamGenerateContent", after=2)
    async with world(clock, faults=[breaks], backend={"retry_config": ONCE}) as w:
        reply = await w.ask(fallback=[FallbackStrategy.PartialResponse()])
    assert (reply.finish_reason, reply.from_fallback) == (INCOMPLETE, True)
    assert reply.text


async def test_s3_02d_each_of_those_who_wait_for_one_upload_hears_of_its_failure_as_its_own(
    clock: VirtualClock,
) -> None:
    refuses = Fault("500-internal", 1.0, method="files.upload")
    async with world(clock, faults=[refuses], backend={"retry_config": ONCE}) as w:
        got = await asyncio.gather(*(w.ask(f"Q{n}") for n in range(3)), return_exceptions=True)
        calls = {record.request_id for record in w.ear.calls}
    assert all(isinstance(one, GeminiError) for one in got)
    assert {one.request_id for one in got if isinstance(one, GeminiError)} == calls
    assert len(calls) == 3


async def after_a_restart(w: World, stored: dict[str, Any], **fields: Any) -> GeminiError:
    """What a new process says to who goes on with a conversation about a large film."""
    again = GeminiBackend(
        BackendConfig(
            model_discovery=False, preprocess_config=AS_IT_IS, retry_config=ONCE, **stored
        ),
        keys=KEYS, base_url=w.emulator.base_url, clock=w.backend._clock, environ={},
    )  # fmt: skip
    async with again:
        with pytest.raises(GeminiError) as caught:
            await World(w.emulator, again, w.ear).ask("And?", session_id="s", files=None, **fields)
    return caught.value


async def test_s3_02d_what_nobody_could_be_asked_for_is_not_called_lost(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The upstream is away, or the time is over: the file is as likely there as before, so nobody is
    told to begin a new session. Where the upstream says no, he is."""
    monkeypatch.setattr("headgate.backend.sessions._MOST_MEDIA", 100)
    stored = {"session_file": str(tmp_path / "sessions.db")}
    async with world(clock, backend=stored) as w:
        await w.ask("What is it?", session_id="s")
        w.emulator.script("reset", method="files.get", times=2)
        away = await after_a_restart(w, stored)
        w.emulator.script("stall", method="files.get", seconds=60.0)
        late = await after_a_restart(w, stored, timeout_seconds=5.0)
        w.room.clear()
        gone = await after_a_restart(w, stored)
    assert (away.error_type.value, away.is_retryable) == ("NetworkError", True)
    assert late.error_type.value == "RequestTimeout"
    assert "pass it again with the request" in gone.message
    assert not gone.is_retryable


async def test_s3_02d_a_file_that_was_only_found_says_nothing_of_how_fast_uploads_are(
    clock: VirtualClock,
) -> None:
    """Else a project that has the file would not be waited for: bringing it elsewhere seemed cheap."""
    large = (FILM[0], FILM[1], FILM[2] + bytes(2_000_000))
    async with world(clock) as w:
        await w.ask(files=[large])
        again = GeminiBackend(
            BackendConfig(model_discovery=False, preprocess_config=AS_IT_IS),
            keys=KEYS, base_url=w.emulator.base_url, clock=clock, environ={},
        )  # fmt: skip
        async with again:
            await World(w.emulator, again, w.ear).ask("And now?", files=[large])
            running = again._room.started
            assert running is not None
            assert running.engine.upload is not None
            known = running.engine.upload.lodgings
            assert known.seconds_for(10**9) == Lodgings(clock).seconds_for(10**9)


async def test_s3_02d_a_look_that_cannot_be_read_is_followed_by_another(clock: VirtualClock) -> None:
    looks = iter([b"<html>", b'{"name": "files/a", "state": "ACTIVE"}'])
    file = {"name": "files/a", "uri": "https://google.example/files/a", "state": "PROCESSING"}

    def answer(sent: Sent) -> Answer:
        url = sent.request.url
        if sent.request.headers.get("x-goog-upload-command") == "start":
            return Answer(headers={"x-goog-upload-url": f"{url}?upload_id=1"}, body=b"{}")
        if "/upload/" in url:
            body = json.dumps({"file": file}).encode()
            return Answer(headers={"x-goog-upload-status": "final"}, body=body)
        if ":generateContent" in url:
            return said()
        assert url.endswith("/v1beta/files/a")
        return Answer(body=next(looks))

    transport, reply = await through(clock, answer)
    assert reply.text == "fine"
    parts = json.loads(transport.sent[-1].request.body)["contents"][0]["parts"]
    assert parts[0]["fileData"]["fileUri"] == file["uri"], "who says less does not unsay it"


async def test_s3_02d_a_file_that_goes_while_it_is_made_ready_is_brought_again(
    clock: VirtualClock,
) -> None:
    async with world(clock, file_seconds=2.0) as w:
        asking = asyncio.get_running_loop().create_task(w.ask())
        await clock.sleep(1.0)
        w.room.clear()
        assert (await asking).text
        assert len(w.kept) == 1


async def test_who_asks_in_the_moment_of_a_failure_asks_anew() -> None:
    """Between a failure and the news of it nobody may join: he would have the old failure without
    ever giving way, and whoever asks again after one would ask for ever."""
    flights, late = SingleFlight[str](), list[asyncio.Task[str]]()

    async def answers() -> str:
        return "anew"

    async def fails() -> str:
        late.append(asyncio.get_running_loop().create_task(flights.ask("k", answers)))
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - it says nothing
        await flights.ask("k", fails)
    assert await late[0] == "anew"


def test_what_files_take_is_known_without_looking_at_each(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The emptiest project first: after replacements, files that are over, and those that made room."""
    monkeypatch.setattr(lodgings, "MOST_KNOWN", 3)
    known, now = Lodgings(clock), clock.wall()
    assert known.emptiest(["a", "b"]) == ["a", "b"]
    known.keep("a", "1", Lodged("u", now + 5000, 10))
    known.keep("a", "1", Lodged("u", now + 9000, 10))  # once, not twice
    known.keep("b", "1", Lodged("u", now + 9000, 15))
    assert known.emptiest(["b", "a"]) == ["a", "b"]
    known.keep("a", "2", Lodged("u", now + 9000, 10))
    assert known.emptiest(["a", "b"]) == ["b", "a"]
    known.forget("a", "2")
    known.forget("a", "2")
    assert known.emptiest(["b", "a"]) == ["a", "b"]
    for number in range(3):  # the first ones make room
        known.keep("b", f"n{number}", Lodged("u", now + 9000, 1))
    assert known.emptiest(["b", "a"]) == ["a", "b"]
    known.keep("a", "3", Lodged("u", now - 1, 100))
    assert known.find("b", "n2") is not None
    known.keep("b", "4", Lodged("u", now - 1, 1))
    known.keep("b", "5", Lodged("u", now - 1, 1))
    assert known.emptiest(["a", "b"]) == ["a", "b"], "what is over takes no room"


def test_small_files_say_nothing_of_how_long_a_large_one_takes(clock: VirtualClock) -> None:
    """Their time is the way there and back: else a call would wait for minutes where a film is,
    although another project had room and the film takes seconds."""
    known, fresh = Lodgings(clock), Lodgings(clock)
    for _ in range(50):
        known.took(2_000, 0.3)
    assert known.seconds_for(20_000_000) == fresh.seconds_for(20_000_000)
    for _ in range(50):
        known.took(20_000_000, 40.0)
    assert known.seconds_for(20_000_000) == pytest.approx(40.0, rel=0.01)


async def test_the_emulator_lets_no_upload_take_a_name_that_came_to_be_taken(
    clock: VirtualClock,
) -> None:
    """Two projects bring equal bytes at once: the first to end has the name, and keeps its file."""

    async def bytes_of(data: bytes) -> Any:
        yield data

    room = FileRoom(0.0)
    headers = {
        "x-goog-upload-protocol": "resumable",
        "x-goog-upload-header-content-length": "3",
        "x-goog-upload-header-content-type": "text/plain",
    }
    asked = {"file": {"name": "files/same"}}
    first = room.begin("alpha", asked, headers, 0.0)
    second = room.begin("beta", asked, headers, 0.0)
    await room.receive(first, "0", bytes_of(b"abc"), last=True, now=0.0)
    with pytest.raises(Refused) as caught:
        await room.receive(second, "0", bytes_of(b"abc"), last=True, now=0.0)
    assert caught.value.refusal.status == 409
    room.check("files/same", "alpha", 0.0)


async def test_s3_02d_two_projects_that_get_a_file_at_once_both_have_it(clock: VirtualClock) -> None:
    """The name is taken when the second upload ends: that one has a name of the upstream's."""
    async with world(clock) as w:
        with_own_key = w.backend.execute_gemini_enhanced
        request = {"prompt": "Q", "model": MODEL, "files": [FILM], "upload": True, "use_cache": False}
        ours, theirs = await asyncio.gather(
            with_own_key({**request}), with_own_key({**request}, api_key=key(1))
        )
        assert {project for project, _ in w.kept} == {"alpha", "beta"}
    assert {type(ours).__name__, type(theirs).__name__} == {"GeminiResponse"}
    assert [r.outcome.status for r in w.ear.attempts if r.model == MODEL].count(200) >= 1
