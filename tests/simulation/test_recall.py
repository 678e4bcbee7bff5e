"""Recall: what is given, what is kept, who follows whom, and what of it survives a failure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import pytest
from msgspec import structs
from tests.recalling import KEPT, Recalling, Remote, redacting
from tests.support import MODEL, broken_inside, failure, quota, reply, said, stream, vector

from headgate.core.call import Call, Keeping, Operation, Preparation, Priority, Raw, Reply
from headgate.core.errors import (
    DeadlineExceededError,
    HeadgateError,
    QuotaExhaustedError,
    ReplySchemaError,
    UpstreamError,
)
from headgate.core.fallback import DefaultResponse, UseCachedResponse
from headgate.engine.stages.recall import MOST_REFRESHES
from headgate.engine.stream import ReplyStream
from headgate.testing import BROKEN, Answer, Sent, VirtualClock


def task(work: Awaitable[Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]


async def read_into(seen: list[str], stream: ReplyStream) -> None:
    """Read to the end, and remember what came before it broke."""
    async for chunk in stream:
        seen.append(chunk.text)  # noqa: PERF401 - what came is wanted, also where it breaks


async def breathe(times: int = 5) -> None:
    for _ in range(times):
        await asyncio.sleep(0)  # noqa: TID251 - yields to the loop, no time passes


# ── giving ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_known_answer_is_given_without_a_key(clock: VirtualClock) -> None:
    """S3-03b. The record says what it saved; nothing was used."""
    it = Recalling(clock, [said("one"), said("two")])
    assert await it.ask() == "one"
    await clock.sleep(59)
    again, passage = await it.run()
    assert (again.text, it.sends) == ("one", 1)
    assert passage.recalled is not None
    first, second = it.ear.calls
    assert (first.cached, first.usage.total, first.saved.total) == (False, 8, 0)
    assert (second.cached, second.usage.total, second.saved.total) == (True, 0, 8)
    assert (second.attempts, second.key_name) == (0, None)
    assert len(it.ear.attempts) == 1
    await clock.sleep(2)
    assert await it.ask() == "two"
    await it.at_rest()


async def test_only_calls_that_want_it_are_looked_up(clock: VirtualClock) -> None:
    it = Recalling(clock, [said("one"), said("two"), said("three")])
    assert await it.ask(keeping=None) == "one"
    assert await it.ask() == "two"
    assert await it.ask(keeping=None) == "three"
    assert await it.ask() == "two"
    count = Call(Operation.COUNT, "gemini-3.8-flash", ("hi",), keeping=KEPT)
    it.transport._answers = [Answer(body=b'{"totalTokens": 7}')]
    for _ in range(2):
        answer, _ = await it.engine.pipeline.run(count)
        assert isinstance(answer, Reply)
        assert answer.tokens == 7
    assert it.sends == 5


async def test_a_call_that_does_not_read_asks_and_keeps(clock: VirtualClock) -> None:
    it = Recalling(clock, [said("one"), said("two")])
    assert await it.ask() == "one"
    assert await it.ask(keeping=Keeping(ttl=60, reads=False)) == "two"
    assert await it.ask() == "two"
    figures = it.cache.figures()
    assert (figures.hits, figures.misses) == (1, 1)
    await it.at_rest()


async def test_partitions_never_meet(clock: VirtualClock) -> None:
    """X-20: a question of two tenants, equal to the byte, is asked twice."""
    it = Recalling(clock, [said("of one"), said("of two")])
    for _ in range(2):
        assert await it.ask(keeping=Keeping(partition="one")) == "of one"
        assert await it.ask(keeping=Keeping(partition="two")) == "of two"
    assert it.sends == 2


async def test_a_stream_and_a_whole_call_share_an_answer(clock: VirtualClock) -> None:
    it = Recalling(clock, [stream("a", "b", "c", piece_delay=1.0), said("never")])
    pieces = await it.read()
    assert [chunk.text for chunk in pieces] == ["a", "b", "c"]
    assert await it.ask() == "abc"
    replayed = await it.read()
    assert "".join(chunk.text for chunk in replayed) == "abc"
    assert replayed[-1].finish_reason == "STOP"
    assert replayed[-1].usage is not None
    assert replayed[-1].usage.total == 8
    assert [record.cached for record in it.ear.calls] == [False, True, True]
    assert [record.usage.total for record in it.ear.calls] == [8, 0, 0]
    assert it.sends == 1
    await it.at_rest()


async def test_embeddings_are_kept(clock: VirtualClock) -> None:
    it = Recalling(clock, [vector(1.0, 2.0), vector(3.0)])
    for _ in range(2):
        answer, _ = await it.run(operation=Operation.EMBED)
        assert answer.vector == (1.0, 2.0)
    assert await it.run(operation=Operation.EMBED, options={"task_type": "CLUSTERING"})
    assert it.sends == 2


async def test_what_redaction_took_out_is_in_no_kept_answer(clock: VirtualClock) -> None:
    """Two people, one question: each gets their own address back, the cache holds neither."""

    def answer(sent: Sent) -> Answer:
        asked = json.loads(sent.request.body)["contents"][0]["parts"][0]["text"]
        return said(f"I read: {asked}")

    it = Recalling(clock, answer)
    for address in ("ada@example.org", "bob@example.net"):
        text = await it.ask(f"Mail {address} soon", preparation=redacting())
        assert text == f"I read: Mail {address} soon"
        pieces = await it.read(f"Mail {address} soon", preparation=redacting())
        assert "".join(chunk.text for chunk in pieces) == f"I read: Mail {address} soon"
    assert it.sends == 1
    entries = it.cache._shelf._entries.values()  # type: ignore[attr-defined]
    assert entries
    assert not any(b"example" in entry.value for entry in entries)
    assert any(b"[EMAIL_1]" in entry.value for entry in entries)


# ── keeping ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "first",
    [
        said("cut", finish="MAX_TOKENS"),
        said("odd", finish="OTHER"),
        said("new", finish="SOME_FUTURE_WORD"),
        said("withheld", finish="SAFETY"),
        failure(400, "no"),
        Answer(body=b'{"promptFeedback": {"blockReason": "SAFETY"}}'),
    ],
    ids=["cut", "odd", "unknown", "withheld", "refused", "blocked"],
)
async def test_only_complete_normal_answers_are_kept(clock: VirtualClock, first: Answer) -> None:
    """X-22."""
    it = Recalling(clock, [first, said("whole")])
    with suppress(UpstreamError):
        await it.ask()
    assert await it.ask() == "whole"
    assert await it.ask() == "whole"
    assert it.sends == 2
    await it.at_rest()


async def test_what_stood_in_is_not_kept(clock: VirtualClock) -> None:
    it = Recalling(clock, [broken_inside(), said("whole")])
    with_default = {"fallbacks": (DefaultResponse("sorry"),)}
    assert await it.ask(**with_default) == "sorry"
    assert await it.ask(**with_default) == "whole"


async def test_a_stream_whose_reader_went_away_is_not_kept(clock: VirtualClock) -> None:
    it = Recalling(clock, [stream("a", "b", "c", piece_delay=1.0), said("whole")])
    opened = await it.open()
    assert (await anext(opened)).text == "a"
    await opened.aclose()
    assert it.transport.open_exchanges == 0
    assert await it.ask() == "whole"
    assert [record.error for record in it.ear.calls] == ["cancelled", None]
    await it.at_rest()


@pytest.mark.parametrize(
    "first",
    [
        stream("a", "b", finish=None),
        stream("a", "b", finish="MAX_TOKENS"),
        Answer(pieces=stream("a", "b", finish=None).pieces, broken=True),
    ],
    ids=["no end", "cut", "broken"],
)
async def test_nor_is_one_that_did_not_end_well(clock: VirtualClock, first: Answer) -> None:
    it = Recalling(clock, [first, stream("x", "y")])
    seen: list[str] = []
    with suppress(UpstreamError):
        await read_into(seen, await it.open())
    assert seen == ["a", "b"]
    assert [chunk.text for chunk in await it.read()] == ["x", "y"]
    await it.at_rest()


async def test_an_answer_that_does_not_fit_its_schema_is_asked_for_again(clock: VirtualClock) -> None:
    """The error says that another try may fit: a kept misfit would be given for an hour."""
    how = Preparation(sanitize=False, redact=False, enforce_tokens=False, schema={"type": "array"})
    it = Recalling(clock, [said('{"a": 1}'), said("[1]"), said("never")])
    with pytest.raises(ReplySchemaError):
        await it.ask(preparation=how)
    assert await it.ask(preparation=how) == "[1]"
    assert await it.ask(preparation=how) == "[1]"
    assert it.sends == 2


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_a_raw_call_is_answered_again_byte_by_byte(clock: VirtualClock, streaming: bool) -> None:
    """As it came, framing and all; and never in the other form."""
    method = "streamGenerateContent?alt=sse" if streaming else "generateContent"
    body = b'{"contents": [{"parts": [{"text": "hi"}]}]}'
    raw = Raw("POST", f"/v1beta/models/{MODEL}:{method}", MODEL, body=body)
    first = stream("a", "b", piece_delay=1.0) if streaming else said("ab")
    it = Recalling(clock, [first, said("never")])

    async def bytes_of() -> bytes:
        call = it.call(stream=streaming, raw=raw)
        answer, _ = await it.engine.pipeline.run(structs.replace(call, parts=()))
        if isinstance(answer, ReplyStream):
            return b"".join([chunk.raw async for chunk in answer])
        assert answer.raw is not None
        return answer.raw.body

    whole = b"".join(first.pieces) if streaming else first.body
    assert [await bytes_of() for _ in range(3)] == [whole] * 3
    assert it.sends == 1
    await it.at_rest()


async def test_a_raw_call_that_changes_something_is_never_spared(clock: VirtualClock) -> None:
    raw = Raw("POST", f"/v1beta/models/{MODEL}:generateContent", MODEL, body=b"{}", repeatable=False)
    it = Recalling(clock, [said("one", delay=1.0), said("two", delay=1.0)])
    await asyncio.gather(*(it.run(raw=raw) for _ in range(2)))
    assert it.sends == 2


# ── at once ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("remote", [False, True], ids=["memory", "remote"])
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_a_thousand_identical_calls_at_once_are_one(
    clock: VirtualClock, remote: bool, streaming: bool
) -> None:
    """S3-03f, F36: one upstream call; all get the answer, one is billed."""
    first = stream("a", "b", piece_delay=1.0) if streaming else said("ab", delay=2.0)
    cache = Remote(clock) if remote else None
    it = Recalling(clock, [first, said("never")], cache)
    asked = it.read if streaming else it.ask
    answers = await asyncio.gather(*(asked() for _ in range(1000)))
    assert it.sends == 1
    if streaming:
        assert {tuple(chunk.text for chunk in pieces) for pieces in answers} == {("a", "b")}
    else:
        assert set(answers) == {"ab"}
    assert sum(record.usage.total for record in it.ear.calls) == 8
    assert sum(record.cached for record in it.ear.calls) == 999
    assert len(it.ear.attempts) == 1
    if isinstance(cache, Remote):
        assert cache.looks == 1, "those who wait do not look"
    await it.at_rest()


async def test_streams_and_whole_calls_wait_for_each_other(clock: VirtualClock) -> None:
    it = Recalling(clock, [stream("a", "b", piece_delay=1.0), said("whole", delay=1.0)])
    reading = task(it.read())
    await clock.sleep(1.5)  # the first piece is there
    late, whole = task(it.read()), task(it.ask())
    assert [chunk.text for chunk in await late] == ["a", "b"]
    assert await whole == "ab"
    assert [chunk.text for chunk in await reading] == ["a", "b"]
    asking = task(it.ask("other"))
    await breathe()
    assert [chunk.text for chunk in await it.read("other")] == ["whole"]
    assert await asking == "whole"
    assert it.sends == 2
    await it.at_rest()


async def test_a_slow_reader_keeps_nobody_waiting(clock: VirtualClock) -> None:
    it = Recalling(clock, [stream("a", "b", "c", piece_delay=1.0)])
    slow = await it.open()
    assert (await anext(slow)).text == "a"
    assert await it.ask() == "abc"
    await clock.sleep(1000)
    assert [chunk.text async for chunk in slow] == ["b", "c"]
    await it.at_rest()


async def test_who_leaves_takes_nothing_from_the_others(clock: VirtualClock) -> None:
    """Not even the one who asked; the one who stays is who used the tokens."""
    it = Recalling(clock, [said("fine", delay=5.0)])
    leader, follower = task(it.ask()), task(it.run())
    await clock.sleep(1)
    leader.cancel()
    answer, passage = await follower
    assert (answer.text, passage.recalled, it.sends) == ("fine", None, 1)
    assert {record.error: record.usage.total for record in it.ear.calls} == {"cancelled": 0, None: 8}
    assert it.ear.calls[1].key_name == "k0"
    await it.at_rest()


async def test_when_all_have_left_nothing_goes_on(clock: VirtualClock) -> None:
    it = Recalling(clock, [said("late", delay=50.0), said("fine")])
    asking = [task(it.ask()) for _ in range(3)]
    await clock.sleep(1)
    for one in asking:
        one.cancel()
    await asyncio.wait(asking)
    assert it.transport.open_exchanges == 0
    assert [record.outcome.kind for record in it.ear.attempts] == ["cancelled"]
    assert await it.ask() == "fine", "and the right to ask came back"
    await it.at_rest()


async def test_a_question_that_is_ended_from_outside_is_asked_by_another(clock: VirtualClock) -> None:
    """As when a loop comes down around it: nobody waits for ever, and nothing turns in circles."""
    it = Recalling(clock, [said("late", delay=50.0), said("fine")])
    leader, follower = task(it.ask()), task(it.ask())
    await clock.sleep(1)
    assert it.engine.recall is not None
    (flight,) = it.engine.recall._flights._flights.values()
    flight._task.cancel()
    assert await follower == "fine"
    assert (await asyncio.gather(leader, return_exceptions=True))[0].__class__ is (
        asyncio.CancelledError
    )
    await it.at_rest()


async def test_a_reader_who_leaves_takes_nothing_from_other_readers(clock: VirtualClock) -> None:
    it = Recalling(clock, [stream("a", "b", "c", piece_delay=1.0)])
    first = await it.open()
    second = task(it.read())
    await clock.sleep(1.5)
    await first.aclose()
    assert [chunk.text for chunk in await second] == ["a", "b", "c"]
    assert it.sends == 1
    await it.at_rest()


async def test_each_keeps_its_own_deadline(clock: VirtualClock) -> None:
    it = Recalling(clock, [said("fine", delay=10.0)])
    leader = task(it.ask())
    await breathe()
    with pytest.raises(DeadlineExceededError):
        await it.ask(deadline=clock.monotonic() + 3)
    assert clock.monotonic() == pytest.approx(3)
    assert await leader == "fine"
    await it.at_rest()


async def test_who_is_more_patient_goes_on_where_the_leader_gives_up(clock: VirtualClock) -> None:
    it = Recalling(clock, [said("late", delay=10.0), said("fine", delay=10.0)])
    leader = task(it.ask(deadline=clock.monotonic() + 3))
    await breathe()
    assert await it.ask() == "fine"
    with pytest.raises(HeadgateError) as caught:
        await leader
    assert caught.value.kind == "timeout"
    assert (it.sends, clock.monotonic()) == (2, pytest.approx(13))
    await it.at_rest()


async def test_a_reader_with_a_deadline_is_told_in_the_middle(clock: VirtualClock) -> None:
    it = Recalling(clock, [stream("a", "b", "c", piece_delay=2.0)])
    leader = task(it.read())
    await breathe()
    seen: list[str] = []
    reading = await it.open(deadline=clock.monotonic() + 5)
    with pytest.raises(UpstreamError, match="deadline"):
        await read_into(seen, reading)
    assert seen == ["a", "b"]
    assert len(await leader) == 3
    await it.at_rest()


async def test_nobody_waits_for_who_is_less_urgent(clock: VirtualClock) -> None:
    it = Recalling(clock, [said("slow", delay=10.0), said("quick")])
    low = task(it.ask(priority=Priority.LOW))
    await breathe()
    assert await it.ask(priority=Priority.HIGH) == "quick"
    assert clock.monotonic() < 1
    assert await low == "slow"
    await it.at_rest()


async def test_nobody_gets_what_stands_in_for_another_and_not_for_it(clock: VirtualClock) -> None:
    it = Recalling(clock, [broken_inside(delay=1.0)])
    sorry, strict = task(it.ask(fallbacks=(DefaultResponse("sorry"),))), task(it.ask())
    said_too = task(it.ask(fallbacks=(DefaultResponse("sorry"),)))
    with pytest.raises(UpstreamError):
        await strict
    assert (await sorry, await said_too) == ("sorry", "sorry")
    assert it.sends == 2
    await it.at_rest()


async def test_what_one_does_to_a_shared_answer_is_no_others(clock: VirtualClock) -> None:
    body = reply()
    body["candidates"][0]["content"]["parts"] = [{"functionCall": {"name": "f", "args": {"a": [1]}}}]
    it = Recalling(clock, [Answer(body=json.dumps(body).encode(), delay=1.0)])
    answers = await asyncio.gather(*(it.run() for _ in range(3)))
    for answer, _ in answers:
        assert answer.content == ({"functionCall": {"name": "f", "args": {"a": [1]}}},)
        answer.content[0]["functionCall"]["args"]["a"].append(2)  # type: ignore[index]
    assert it.sends == 1


async def test_an_error_about_the_question_is_told_to_all(clock: VirtualClock) -> None:
    """Of the same type, each with its own request."""
    it = Recalling(clock, [Answer(400, b'{"error": {"code": 400, "message": "bad"}}', delay=1.0)])
    asked = [task(it.ask(request_id=f"r{number}")) for number in range(5)]
    errors = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(error) for error in errors} == {UpstreamError}
    assert {error.kind for error in errors} == {"invalid"}  # type: ignore[union-attr]
    assert [error.request_id for error in errors] == [f"r{n}" for n in range(5)]  # type: ignore[union-attr]
    assert len(set(map(id, errors))) == 5
    assert it.sends == 1
    await it.at_rest()


async def test_after_a_passing_fault_one_goes_on(clock: VirtualClock) -> None:
    it = Recalling(clock, [broken_inside(delay=1.0), said("fine", delay=1.0)])
    first, *others = [task(it.ask()) for _ in range(10)]
    assert await asyncio.gather(*others) == ["fine"] * 9
    with pytest.raises(UpstreamError):
        await first
    assert it.sends == 2
    await it.at_rest()


async def test_after_two_faults_they_all_hear_of_it(clock: VirtualClock) -> None:
    """A crowd does not hammer an upstream that is down, one after the other."""
    it = Recalling(clock, [broken_inside(delay=1.0)])
    errors = await asyncio.gather(*(it.ask() for _ in range(50)), return_exceptions=True)
    assert {error.kind for error in errors} == {"server"}  # type: ignore[union-attr]
    assert it.sends == 2
    await it.at_rest()


async def test_who_may_wait_longer_for_quota_is_not_refused_with_who_may_not(
    clock: VirtualClock,
) -> None:
    it = Recalling(clock, [quota(hint="5s", delay=1), quota(hint="5s"), said("fine")], max_retries=2)
    hasty = task(it.ask(max_wait=0.0))
    await breathe()
    assert await it.ask(max_wait=30.0) == "fine"
    with pytest.raises(QuotaExhaustedError):
        await hasty
    await it.at_rest()


async def test_a_fault_of_ours_reaches_who_asked(clock: VirtualClock) -> None:
    def broken(_: Sent) -> Answer:
        raise RuntimeError("a bug")

    it = Recalling(clock, broken)
    with pytest.raises(RuntimeError, match="a bug"):
        await it.ask()
    assert [record.error for record in it.ear.calls] == ["fault"]
    await it.at_rest()


# ── another process ─────────────────────────────────────────────────────────────────────────────


async def test_two_processes_ask_once(clock: VirtualClock) -> None:
    """S3-28a: the second waits for the answer of the first, whatever became of its own turn."""
    cache = Remote(clock)
    first = Recalling(clock, [said("fine", delay=30.0)], cache)
    second = Recalling(clock, [said("never")], cache)
    answers = await asyncio.gather(*(one.ask() for one in (first, second) for _ in range(10)))
    assert set(answers) == {"fine"}
    assert (first.sends, second.sends) == (1, 0)
    assert clock.monotonic() < 30.5, "it is looked for four times a second"
    assert all(record.cached for record in second.ear.calls)
    await first.at_rest()
    await second.at_rest()


async def test_another_process_waits_for_the_end_of_a_stream(clock: VirtualClock) -> None:
    cache = Remote(clock)
    first = Recalling(clock, [stream("a", "b", "c", piece_delay=10.0)], cache)
    second = Recalling(clock, [said("never")], cache)
    reading = task(first.read())
    await clock.sleep(1)
    assert [chunk.text for chunk in await second.read()] == ["abc"]
    assert len(await reading) == 3
    assert second.sends == 0


async def test_one_takes_over_from_a_process_that_died(clock: VirtualClock) -> None:
    cache = Remote(clock)
    await cache.look((await key_of(clock)), claim=10.0)  # and never another word
    others = [Recalling(clock, [said("fine", delay=1.0)], cache) for _ in range(5)]
    assert set(await asyncio.gather(*(one.ask() for one in others))) == {"fine"}
    assert sum(one.sends for one in others) == 1
    assert clock.monotonic() == pytest.approx(11, abs=1)


async def test_a_long_answer_keeps_its_claim(clock: VirtualClock) -> None:
    """Ten times as long as a claim lasts."""
    cache = Remote(clock)
    first = Recalling(clock, [said("fine", delay=100.0)], cache)
    second = Recalling(clock, [said("never")], cache)
    assert await asyncio.gather(first.ask(), second.ask()) == ["fine", "fine"]
    assert second.sends == 0


async def test_when_the_other_process_fails_this_one_asks(clock: VirtualClock) -> None:
    cache = Remote(clock)
    first = Recalling(clock, [broken_inside(delay=5.0)], cache)
    second = Recalling(clock, [said("fine")], cache)
    failed, answered = await asyncio.gather(first.ask(), second.ask(), return_exceptions=True)
    assert isinstance(failed, UpstreamError)
    assert answered == "fine"


async def key_of(clock: VirtualClock) -> str:
    """The key of the question that these tests ask."""
    keys: list[str] = []

    class Spy(Remote):
        async def look(self, key: str, *place: Any, **how: Any) -> Any:
            keys.append(key)
            return await super().look(key, *place, **how)

    await Recalling(clock, [said()], Spy(clock, 0.0)).ask()
    return keys[0]


# ── later ───────────────────────────────────────────────────────────────────────────────────────

STALE = Keeping(ttl=10.0, revalidate=50.0, rescue=100.0)


@pytest.mark.parametrize("remote", [False, True], ids=["memory", "remote"])
async def test_a_stale_answer_is_given_while_a_new_one_is_asked_for(
    clock: VirtualClock, remote: bool
) -> None:
    """At once, once, and in the background."""
    it = Recalling(clock, [said("old"), said("new", delay=5.0)], Remote(clock, 0.0) if remote else None)
    assert await it.ask(keeping=STALE) == "old"
    await clock.sleep(11)
    before = clock.monotonic()
    assert await asyncio.gather(*(it.ask(keeping=STALE) for _ in range(100))) == ["old"] * 100
    assert clock.monotonic() == pytest.approx(before)
    await clock.sleep(6)
    assert await it.ask(keeping=STALE) == "new"
    assert it.sends == 2
    assert it.ear.attempts[1].request_id == "r.refresh"
    await it.at_rest()


async def test_a_refresh_that_fails_harms_nobody(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    it = Recalling(clock, [said("old"), broken_inside(), BROKEN, said("new")])
    await it.ask(keeping=STALE)
    for _ in range(2):
        await clock.sleep(11)
        assert await it.ask(keeping=STALE) == "old"
    await clock.sleep(11)
    assert await it.ask(keeping=STALE) == "old"
    await clock.sleep(1)
    assert await it.ask(keeping=STALE) == "new"
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    await it.at_rest()


async def test_refreshes_are_bounded_and_end_with_the_engine(clock: VirtualClock) -> None:
    def answer(sent: Sent) -> Answer:
        return said("old") if clock.monotonic() < 5 else said("new", delay=1000.0)

    it = Recalling(clock, answer)
    prompts = [f"question {number}" for number in range(MOST_REFRESHES + 5)]
    for prompt in prompts:
        await it.ask(prompt, keeping=STALE)
    await clock.sleep(11)
    for prompt in prompts:
        assert await it.ask(prompt, keeping=STALE) == "old"
    await breathe()
    assert it.sends == len(prompts) + MOST_REFRESHES
    assert await it.ask(prompts[-1], keeping=STALE) == "old"
    await it.at_rest()


async def test_what_is_too_old_stands_in_when_all_else_fails(clock: VirtualClock) -> None:
    """S3-04g: only where the call wants it, marked, with its age; and it is not kept anew."""
    it = Recalling(clock, [said("old"), broken_inside()])
    await it.ask(keeping=STALE)
    await clock.sleep(70)
    with pytest.raises(UpstreamError):
        await it.ask(keeping=STALE)
    rescued = {"keeping": STALE, "fallbacks": (UseCachedResponse(),)}
    answer, passage = await it.run(**rescued)
    assert answer.text == "old"
    assert passage.fallback == "UseCachedResponse"
    assert passage.recalled is not None
    assert clock.wall() - passage.recalled.at == pytest.approx(70)
    assert it.ear.calls[-1].cached
    assert it.ear.calls[-1].usage.total == 0
    pieces = await it.read(**rescued)
    assert "".join(chunk.text for chunk in pieces) == "old"
    await clock.sleep(100)
    with pytest.raises(UpstreamError):
        await it.run(**rescued)
    await it.at_rest()


async def test_those_who_follow_are_rescued_too_and_know_it(clock: VirtualClock) -> None:
    it = Recalling(clock, [said("old"), broken_inside(delay=1.0)])
    await it.ask(keeping=STALE)
    await clock.sleep(70)
    rescued = {"keeping": STALE, "fallbacks": (UseCachedResponse(),)}
    answers = await asyncio.gather(*(it.run(**rescued) for _ in range(3)))
    assert {answer.text for answer, _ in answers} == {"old"}
    assert {passage.fallback for _, passage in answers} == {"UseCachedResponse"}
    assert all(clock.wall() - passage.recalled.at > 69 for _, passage in answers if passage.recalled)
    assert it.sends == 2


async def test_an_answer_that_was_invalidated_while_it_was_asked_for_is_not_kept(
    clock: VirtualClock,
) -> None:
    it = Recalling(clock, [said("old", delay=5.0), said("new")])
    asking = task(it.ask(keeping=Keeping(namespace="docs")))
    await clock.sleep(1)
    assert await it.cache.invalidate("docs") == 0
    assert await asking == "old"
    assert await it.ask(keeping=Keeping(namespace="docs")) == "new"


# ── cancelled anywhere ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("remote", [False, True], ids=["memory", "remote"])
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_a_call_cancelled_at_any_point_leaves_nothing_behind(
    clock: VirtualClock, remote: bool, streaming: bool
) -> None:
    """Every await point in turn, alone and with a follower, who gets the answer all the same."""

    def either(sent: Sent) -> Answer:
        return stream("a", "b", piece_delay=1.0) if sent.request.streaming else said("ab", delay=2.0)

    from tests.simulation.test_cancellation import cancelled_at

    for follower in (False, True):
        for point in range(1, 60):
            it = Recalling(clock, either, Remote(clock) if remote else None)
            work = it.read() if streaming else it.ask()
            leader = task(cancelled_at(work, point))  # type: ignore[arg-type]
            following = task(it.ask()) if follower else None
            done = False
            with suppress(asyncio.CancelledError):
                done = bool(await leader)
            if following is not None:
                assert await following == "ab"
            assert await it.ask() == "ab", "the right to ask came back"
            await it.at_rest()
            if done:
                break
        else:
            pytest.fail("it never came to its end")
