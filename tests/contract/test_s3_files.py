"""S3-02d: images and files that are uploaded, once, and named by calls of the project that has them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import structs
from tests.support import MODEL, Ear, key, said

from headgate.backend import (
    BackendConfig,
    GeminiBackend,
    GeminiError,
    GeminiRequest,
    GeminiResponse,
    PreprocessConfig,
    RetryConfig,
)
from headgate.backend import files as backend_files
from headgate.emulator import Emulator, EmulatorConfig, Fault, Limits, Project
from headgate.engine.lodgings import LEAST_LEFT
from headgate.providers.gemini_files import GeminiFiles
from headgate.testing import Answer, ScriptedTransport, Sent, VirtualClock

FILM = ("tides.mp4", "video/mp4", b"\0\0\0\x18ftypisom" + b"t" * 400)
NOTES = ("notes.txt", "text/plain", b"write to anna@example.org " * 20)
AS_IT_IS = PreprocessConfig(enforce_token_limits=False)


class World:
    """An upstream with two projects, a backend, and what became of every attempt."""

    def __init__(self, emulator: Emulator, backend: GeminiBackend, ear: Ear) -> None:
        self.emulator = emulator
        self.backend = backend
        self.ear = ear

    async def ask(self, prompt: str = "What is it?", **fields: Any) -> GeminiResponse:
        given = {"files": [FILM], "upload": True, "use_cache": False, **fields}
        request = GeminiRequest(prompt, MODEL, **given)
        return cast("GeminiResponse", await self.backend.execute_gemini_enhanced(request))

    def asked(self) -> list[tuple[str, str]]:
        """Domain and what was asked there, of all attempts so far."""
        return [(record.domain, record.model) for record in self.ear.attempts]

    @property
    def generated(self) -> list[str]:
        """The domains of the attempts at the model, in order."""
        return [domain for domain, model in self.asked() if model == MODEL]

    @property
    def room(self) -> Any:
        return self.emulator._surface.files.room

    @property
    def kept(self) -> list[tuple[str, int]]:
        """Project and size of every file there is."""
        return [(file.project, file.size) for file in self.room._kept.values()]


@asynccontextmanager
async def world(
    clock: VirtualClock, limits: Limits | None = None, *, backend: Any = None, **emulator: Any
) -> AsyncIterator[World]:
    own = {} if limits is None else {"*": limits}
    projects = [
        Project("alpha", {"k0": key(0)}, own), Project("beta", {"k1": key(1)}, own)
    ]  # fmt: skip
    config = EmulatorConfig(**{"projects": projects, **emulator})
    ear = Ear()
    async with Emulator(config, clock=clock) as upstream:
        own_config = {"preprocess_config": AS_IT_IS, **(backend or {})}
        made = GeminiBackend(
            BackendConfig(model_discovery=False, **own_config),
            keys=f"{key(0)}|k0|alpha,{key(1)}|k1|beta",
            base_url=upstream.base_url,
            clock=clock,
            observers=[ear],
            environ={},
        )
        async with made:
            yield World(upstream, made, ear)


async def test_s3_02d_a_file_is_uploaded_once_and_named_by_every_call(clock: VirtualClock) -> None:
    async with world(clock, file_seconds=3.0) as w:
        began = clock.monotonic()
        first = await w.ask("What is it?")
        assert clock.monotonic() - began >= 3.0, "it was processed first"
        before = len(w.ear.attempts)
        await w.ask("And who made it?")
        assert len(w.ear.attempts) == before + 1, "one attempt, nothing of the file again"
        assert w.kept == [(w.generated[0], len(FILM[2]))]
        assert len(set(w.generated)) == 1, "no other project is asked while the first has room"
    assert first.usage.prompt_tokens > 258
    assert first.request_id == w.ear.calls[0].request_id
    assert {record.request_id for record in w.ear.attempts[: before - 1]} == {
        f"{first.request_id}.file"
    }
    assert [record.error for record in w.ear.calls] == [None, None], "one record for each call"


async def test_s3_02d_without_room_in_its_project_the_file_goes_to_another(clock: VirtualClock) -> None:
    """No request is refused that a project had room for."""
    async with world(clock, Limits(rpm=2)) as w:
        began = clock.monotonic()
        for number in range(4):
            await w.ask(f"Question {number}")
        assert clock.monotonic() - began < 30.0
        answered = [record for record in w.ear.attempts if record.model == MODEL]
        served = [record.domain for record in answered if record.outcome.status == 200]
        assert sorted(served) == ["alpha", "alpha", "beta", "beta"]
        assert sorted(project for project, _ in w.kept) == ["alpha", "beta"]
        uploads = len([1 for _, model in w.asked() if model == "files"])
        await clock.sleep(60.0)
        for number in range(4):
            await w.ask(f"Later {number}")
        assert len([1 for _, model in w.asked() if model == "files"]) == uploads, "both have it by now"


async def test_s3_02d_a_file_that_is_about_to_expire_is_uploaded_again(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.emulator.files.KEPT_SECONDS", 3600.0)
    async with world(clock) as w:
        await w.ask()
        ((owner, _),) = w.kept
        await clock.sleep(3600.0 - LEAST_LEFT + 1)
        await w.ask("While it is still there")
        assert len([1 for _, model in w.asked() if model == "files"]) == 6, "its name was still taken"
        await clock.sleep(3600.0)
        await w.ask()
        assert {record.outcome.status for record in w.ear.attempts if record.model == MODEL} == {200}
        assert owner in dict(w.kept)


async def test_s3_02d_a_file_that_somebody_deleted_is_brought_again_once(clock: VirtualClock) -> None:
    async with world(clock) as w:
        await w.ask()
        w.room.clear()
        await w.ask()
        statuses = [record.outcome.status for record in w.ear.attempts if record.model == MODEL]
        assert statuses == [200, 403, 200]
        assert {record.error for record in w.ear.calls} == {None}


async def test_s3_02d_when_its_key_dies_the_file_goes_to_another_project(clock: VirtualClock) -> None:
    faults = [Fault("invalid_key", project="alpha", method="generateContent")]
    async with world(clock, faults=faults) as w:
        for number in range(3):
            await w.ask(f"Question {number}")
        assert set(w.generated[-2:]) == {"beta"}
        assert ("beta", len(FILM[2])) in w.kept


async def test_s3_02d_a_backend_that_begins_anew_finds_its_files(clock: VirtualClock) -> None:
    """Names follow from content: nothing has to be saved, and no byte is sent twice."""
    async with world(clock) as w:
        await w.ask()
        one_key = GeminiBackend(
            BackendConfig(model_discovery=False, preprocess_config=AS_IT_IS),
            keys=f"{key(0)}|k0|alpha,{key(1)}|k1|beta", base_url=w.emulator.base_url,
            clock=clock, observers=[w.ear], environ={},
        )  # fmt: skip
        async with one_key:
            again = World(w.emulator, one_key, w.ear)
            await again.ask("And now?")
        assert len(w.kept) <= 2
        assert w.generated[-1] in dict(w.kept)


async def test_s3_02d_a_change_of_the_configuration_forgets_no_file(clock: VirtualClock) -> None:
    async with world(clock) as w:
        await w.ask()
        config = await w.backend.get_gemini_backend_config()
        await w.backend.update_gemini_backend_config(structs.replace(config, max_concurrent_requests=3))
        before = len(w.ear.attempts)
        await w.ask("And now?")
        assert len(w.ear.attempts) == before + 1


async def test_s3_02d_calls_at_once_share_one_upload(clock: VirtualClock) -> None:
    async with world(clock, file_seconds=2.0) as w:
        await asyncio.gather(*(w.ask(f"Question {number}") for number in range(5)))
        assert len(w.kept) == 1
        begun = [record for record in w.ear.attempts if record.model == "files"]
        assert len({record.request_id for record in begun}) == 1


@pytest.mark.parametrize("kind", ["reset", "close", "internal", "reset_mid"])
async def test_s3_02d_an_upload_goes_on_where_it_broke(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What arrived is not sent again, and the file is whole."""
    monkeypatch.setattr(GeminiFiles, "piece", 262_144)
    content = bytes(range(256)) * 3000
    async with world(clock) as w:
        w.emulator.script(kind, method="files.upload", skip=2)
        await w.ask(files=[("film.mp4", "video/mp4", content)])
        ((_, size),) = w.kept
        assert size == len(content)
        ((kept),) = w.room._kept.values()
        from hashlib import sha256

        assert kept.digest == sha256(content).hexdigest()
        assert {record.error for record in w.ear.calls} == {None}


async def test_s3_02d_what_is_too_large_for_a_call_is_uploaded_by_itself(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest first, until the rest fits; small ones travel inside as ever."""
    monkeypatch.setattr(backend_files, "INLINE_LIMIT", 300)
    small = ("a.txt", "text/plain", b"small")
    async with world(clock) as w:
        await w.ask(files=[FILM, small], upload=None)
        assert [size for _, size in w.kept] == [len(FILM[2])]
        await w.ask(files=[small], upload=None)
        assert len(w.kept) == 1


async def test_s3_02d_a_text_is_redacted_before_it_is_uploaded(clock: VirtualClock) -> None:
    async with world(clock) as w:
        reply = await w.ask(files=[NOTES])
        assert reply.redactions == {"EMAIL": 20}
        ((_, size),) = w.kept
        assert size == len(NOTES[2].replace(b"anna@example.org", b"[EMAIL]"))


async def test_s3_02d_a_file_stays_in_its_conversation(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are not kept where they are many: the upstream has them for longer than the session
    lives. Where it has not, the request says what to do."""
    monkeypatch.setattr("headgate.backend.sessions._MOST_MEDIA", 100)
    async with world(clock, Limits(rpm=1)) as w:
        await w.ask("What is it?", session_id="s")
        owner = w.generated[0]
        began = clock.monotonic()
        await w.ask("And who made it?", session_id="s", files=None, timeout_seconds=90.0)
        assert w.generated[-1] == owner, "the other project does not have it"
        assert clock.monotonic() - began > 20.0, "so its quota was waited for"
        w.room.clear()
        await clock.sleep(60.0)
        with pytest.raises(GeminiError, match="pass it again with the request") as caught:
            await w.ask("And when?", session_id="s", files=None)
        assert caught.value.error_type.value == "InvalidParameters"
        assert (await w.ask("And when?", session_id="s")).text, "with the file it goes on"


async def test_s3_02d_a_small_file_of_a_conversation_moves_with_it(clock: VirtualClock) -> None:
    async with world(clock, Limits(rpm=1)) as w:
        await w.ask("What is it?", session_id="s")
        began = clock.monotonic()
        await w.ask("And who made it?", session_id="s", files=None)
        assert clock.monotonic() - began < 20.0
        assert len(set(w.generated)) == 2


async def test_s3_02d_the_time_of_a_call_bounds_its_upload(clock: VirtualClock) -> None:
    async with world(clock, file_seconds=60.0) as w:
        began = clock.monotonic()
        with pytest.raises(GeminiError, match="before the upstream had a file ready") as caught:
            await w.ask(timeout_seconds=10.0)
        assert clock.monotonic() - began <= 10.0
        assert caught.value.error_type.value == "RequestTimeout"
        await clock.sleep(60.0)
        assert (await w.ask(timeout_seconds=10.0)).text
        assert len(w.kept) == 1, "what was uploaded once is not uploaded again"


async def test_s3_02d_where_no_project_has_room_nothing_is_uploaded(clock: VirtualClock) -> None:
    async with world(clock, faults=[Fault("429-day-requests-free", method="generateContent")]) as w:
        with pytest.raises(GeminiError):
            await w.ask(upload=None, files=None)
        before = len(w.ear.attempts)
        with pytest.raises(GeminiError, match="Nothing was uploaded"):
            await w.ask()
        assert len(w.ear.attempts) == before
        assert w.kept == []


async def test_s3_02d_a_kept_reply_needs_no_upload(clock: VirtualClock) -> None:
    async with world(clock) as w:
        await w.ask(use_cache=True)
        before = len(w.ear.attempts)
        again = await w.ask(use_cache=True)
        assert again.cached
        other = (FILM[0], FILM[1], FILM[2] + b"!")
        assert not (await w.ask(use_cache=True, files=[other])).cached
        assert len(w.ear.attempts) == before + 3, "begun, sent, asked"


async def test_s3_02d_an_uploaded_file_streams_like_any_other(clock: VirtualClock) -> None:
    async with world(clock) as w:
        request = GeminiRequest("What is it?", MODEL, files=[FILM], upload=True, stream=True)
        chunks = [chunk async for chunk in await w.backend.execute_gemini_enhanced(request)]  # type: ignore[union-attr]
        assert chunks[-1].response is not None
        assert chunks[-1].response.text


async def test_s3_02d_only_true_false_or_nothing_says_upload(clock: VirtualClock) -> None:
    async with world(clock) as w:
        with pytest.raises(GeminiError, match="upload takes True, False or nothing; got str"):
            await w.ask(upload="yes")
        with pytest.raises(GeminiError, match=r"files\[0\].*cannot be sent: 1 to 52428800 bytes can"):
            await w.ask(files=[("a.pdf", "application/pdf", b"%PDF-" + bytes(52_428_800))])
        assert w.ear.attempts == []


async def test_s3_02d_a_second_attempt_is_never_made_where_the_file_is_not(clock: VirtualClock) -> None:
    hedging = {"hedge_after_seconds": 0.5, "retry_config": RetryConfig(max_attempts=1)}
    async with world(
        clock, faults=[Fault("slow", seconds=5.0, method="generateContent")], backend=hedging
    ) as w:
        await w.ask()
        assert len(w.generated) == 1


def scripted(*states: dict[str, Any]) -> Any:
    """An upstream whose file goes through these states, one for each look; the call is answered."""
    looks = iter(states)

    def answer(sent: Sent) -> Answer:
        url, headers = sent.request.url, sent.request.headers
        if headers.get("x-goog-upload-command") == "start":
            return Answer(headers={"x-goog-upload-url": f"{url}?upload_id=1"}, body=b"{}")
        file = {"name": "files/a", "uri": "https://google.example/files/a", "state": "PROCESSING"}
        if "/upload/" in url:
            body = json.dumps({"file": file}).encode()
            return Answer(headers={"x-goog-upload-status": "final"}, body=body)
        if "/files/a" in url:
            return Answer(body=json.dumps({**file, **next(looks)}).encode())
        return said()

    return answer


async def through(clock: VirtualClock, script: Any) -> tuple[ScriptedTransport, GeminiResponse]:
    transport = ScriptedTransport(script, clock)
    config = BackendConfig(model_discovery=False, preprocess_config=AS_IT_IS)
    backend = GeminiBackend(
        config, keys=f"{key(0)}|k0|alpha", transport=transport, clock=clock, environ={}
    )
    async with backend:
        request = GeminiRequest("What is it?", MODEL, files=[FILM], upload=True)
        reply = cast("GeminiResponse", await backend.execute_gemini_enhanced(request))
    return transport, reply


async def test_s3_02d_a_file_is_looked_at_until_it_is_ready(clock: VirtualClock) -> None:
    """Half a second, then twice as long each time; the call names it by the upstream's own address."""
    processing = {"state": "PROCESSING"}
    transport, reply = await through(clock, scripted(*[processing] * 3, {"state": "ACTIVE"}))
    assert reply.text == "fine"
    assert [sent.at for sent in transport.sent] == pytest.approx([0, 0, 0.5, 1.5, 3.5, 7.5, 7.5])
    parts = json.loads(transport.sent[-1].request.body)["contents"][0]["parts"]
    named = {"mimeType": "video/mp4", "fileUri": "https://google.example/files/a"}
    assert parts[0] == {"fileData": named}


async def test_s3_02d_a_file_that_the_upstream_cannot_process_is_the_callers_mistake(
    clock: VirtualClock,
) -> None:
    failed = {"state": "FAILED", "error": {"message": "no frames in it"}}
    with pytest.raises(GeminiError, match="could not process it: no frames in it") as caught:
        await through(clock, scripted(failed))
    assert not caught.value.is_retryable


@pytest.mark.parametrize(
    "spoil",
    [
        {"x-goog-upload-url": ""},
        {"x-goog-upload-url": "https://evil.example/elsewhere"},
    ],
)
async def test_s3_02d_an_upload_without_a_place_fails_and_sends_no_byte(
    clock: VirtualClock, spoil: dict[str, str]
) -> None:
    def answer(sent: Sent) -> Answer:
        return Answer(headers=spoil, body=b"{}")

    transport = ScriptedTransport(answer, clock)
    config = BackendConfig(model_discovery=False, preprocess_config=AS_IT_IS)
    backend = GeminiBackend(
        config, keys=f"{key(0)}|k0|alpha", transport=transport, clock=clock, environ={}
    )
    async with backend:
        request = GeminiRequest("What is it?", MODEL, files=[FILM], upload=True)
        with pytest.raises(GeminiError, match="named no place"):
            await backend.execute_gemini_enhanced(request)
    assert all(FILM[2] not in sent.request.body for sent in transport.sent)


async def test_s3_02d_a_conversation_about_a_file_survives_a_restart(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a file of sessions as in memory: what is known of the upload, and no bytes of a large one."""
    monkeypatch.setattr("headgate.backend.sessions._MOST_MEDIA", 100)
    stored = {"session_file": str(tmp_path / "sessions.db")}
    async with world(clock, backend=stored) as w:
        await w.ask("What is it?", session_id="s")
        again = GeminiBackend(
            BackendConfig(model_discovery=False, preprocess_config=AS_IT_IS, **stored),
            keys=f"{key(0)}|k0|alpha,{key(1)}|k1|beta", base_url=w.emulator.base_url,
            clock=clock, observers=[w.ear], environ={},
        )  # fmt: skip
        async with again:
            later = World(w.emulator, again, w.ear)
            reply = await later.ask("And who made it?", session_id="s", files=None)
            assert reply.usage.prompt_tokens > 258, "the file is part of the question"
        assert len(w.kept) == 1
    assert FILM[2] not in (tmp_path / "sessions.db").read_bytes()


async def test_s3_02d_with_what_is_put_back_a_session_keeps_files_alike(clock: VirtualClock) -> None:
    """Media are known by their upload; a text, which is redacted anew in each turn, is kept whole."""
    putting_back = PreprocessConfig(restore_redacted=True, enforce_token_limits=False)
    async with world(clock, backend={"preprocess_config": putting_back}) as w:
        await w.ask("What is it?", session_id="s", files=[FILM, NOTES])
        before = len(w.kept)
        reply = await w.ask("And who made it?", session_id="s", files=None)
        assert reply.redactions["EMAIL"] == 20
        assert len(w.kept) == before
