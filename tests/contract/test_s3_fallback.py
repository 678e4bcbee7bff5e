"""S3-04f, g, h, S3-24 `fallback`: graceful degradation, as the backend's callers meet it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest
from tests.executing import PLAIN, TINY, Backend, said_in
from tests.support import (
    MODEL,
    bad_key,
    broken_inside,
    event,
    failure,
    keys,
    overloaded,
    quota,
    reply,
    said,
    stream,
)

from headgate.backend import GeminiBackend, GeminiRequest
from headgate.backend.structures import (
    BackendConfig,
    FallbackStrategy,
    GeminiError,
    GeminiResponse,
    PreprocessConfig,
    RetryConfig,
)
from headgate.core.fallback import DEFAULT, INCOMPLETE
from headgate.testing import Answer, Broken, ScriptedTransport, Sent, VirtualClock
from headgate.wiring.model_data import gemini_prices

OTHER = "gemini-3.5-flash"
"""A model that takes sampling options, which MODEL does not."""

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40
ONCE = RetryConfig(max_attempts=1)
SWITCH = FallbackStrategy.SwitchModel(OTHER)
TEXT = FallbackStrategy.DefaultResponse("Please try again later.")
PART = FallbackStrategy.PartialResponse()


def model_of(sent: Sent) -> str:
    return sent.request.url.split("/models/")[1].split(":")[0]


def backend(clock: VirtualClock, answers: Mapping[str, Answer | Broken], **config: Any) -> Backend:
    """A backend whose models answer each in its own way."""
    return Backend(clock, lambda sent: answers[model_of(sent)], config=BackendConfig(**config))


def cut(*texts: str) -> Answer:
    """A stream that breaks after its pieces."""
    pieces = tuple(event(reply(text, finish=None)) for text in texts)
    return Answer(pieces=pieces, broken=True)


# ── whose strategies ────────────────────────────────────────────────────────────────────────────


async def test_s3_24_the_backends_strategies_are_tried_and_a_requests_own_take_their_place(
    clock: VirtualClock,
) -> None:
    made = backend(clock, {MODEL: overloaded(), OTHER: said("from the other")}, fallback=[SWITCH])
    assert (await made.ask("Hello", MODEL)).text == "from the other"
    own = await made.ask("Hello", MODEL, fallback=[TEXT])
    assert own.text == "Please try again later."
    with pytest.raises(GeminiError) as caught:
        await made.ask("Hello", MODEL, fallback=[])
    assert caught.value.error_type == "ServiceUnavailable"
    assert "No fallback helped" not in caught.value.message


@pytest.mark.parametrize("given", ["SwitchModel", [SWITCH, "FailFast"], [{"strategy": "FailFast"}], 3])
async def test_s3_23_a_fallback_that_is_none_is_named(clock: VirtualClock, given: Any) -> None:
    made = backend(clock, {MODEL: said()})
    with pytest.raises(GeminiError, match="fallback takes a list of FallbackStrategy"):
        await made.ask("Hello", MODEL, fallback=given)
    assert made.sent == []


@pytest.mark.parametrize(
    "answer", [failure(400, "no such field", "INVALID_ARGUMENT"), bad_key(), said("", finish="SAFETY")]
)
async def test_s3_04f_what_the_caller_must_mend_is_not_papered_over(
    clock: VirtualClock, answer: Answer
) -> None:
    made = backend(clock, {MODEL: answer, OTHER: said()}, fallback=[SWITCH, TEXT])
    with pytest.raises(GeminiError) as caught:
        await made.ask("Hello", MODEL)
    assert not caught.value.is_retryable
    assert [model_of(sent) for sent in made.transport.sent] == [MODEL]  # type: ignore[union-attr]


async def test_s3_04f_what_was_tried_stands_in_the_error(clock: VirtualClock) -> None:
    made = backend(clock, {MODEL: quota("Day"), OTHER: overloaded()}, fallback=[SWITCH])
    with pytest.raises(GeminiError, match=f"SwitchModel: {OTHER} failed too .unavailable") as caught:
        await made.ask("Hello", MODEL)
    assert caught.value.error_type == "QuotaExceeded", "the first failure is told"


# ── SwitchModel ─────────────────────────────────────────────────────────────────────────────────


async def test_s3_04h_the_reply_names_the_model_that_answered(clock: VirtualClock) -> None:
    other = reply("from the other") | {"modelVersion": OTHER}
    made = backend(
        clock,
        {MODEL: overloaded(), OTHER: Answer(body=json.dumps(other).encode())},
        fallback=[SWITCH],
    )
    answer = await made.ask("Hello", MODEL)
    assert (answer.model, answer.from_fallback, answer.cached) == (OTHER, True, False)
    assert answer.warnings == (f"{MODEL} failed (unavailable): {OTHER} answers instead.",)
    (record,) = made.ear.calls
    assert (record.model, record.fallback, record.error) == (OTHER, "SwitchModel", None)
    assert record.attempts == len(made.ear.attempts) == len(made.sent)
    numbers = [attempt.number for attempt in made.ear.attempts]
    assert numbers == sorted(set(numbers)), "attempts of one call are numbered once"
    cost = gemini_prices().cost(OTHER, record.usage, date(2026, 11, 21))
    assert cost is not None
    assert answer.cost_estimate == float(cost.total)


async def test_s3_04h_a_stream_switches_before_its_first_piece(clock: VirtualClock) -> None:
    made = backend(clock, {MODEL: overloaded(), OTHER: stream("a", "b")}, fallback=[SWITCH])
    chunks = await made.read("Hello", MODEL)
    assert "".join(chunk.delta for chunk in chunks) == "ab"
    final = chunks[-1].response
    assert final is not None
    assert final.from_fallback
    assert made.ear.calls[0].model == OTHER


async def test_s3_04h_options_the_first_model_does_not_take_are_there_again(
    clock: VirtualClock,
) -> None:
    made = backend(clock, {MODEL: overloaded(), OTHER: said()}, fallback=[SWITCH])
    await made.ask("Hello", MODEL, temperature=0.3)
    assert "generationConfig" not in made.sent[0]
    assert made.last["generationConfig"] == {"temperature": 0.3}


async def test_s3_04h_options_the_other_model_does_not_take_are_left_out(clock: VirtualClock) -> None:
    chain = [FallbackStrategy.SwitchModel(PLAIN)]
    made = backend(clock, {TINY: overloaded(), PLAIN: said()}, fallback=chain)
    answer = await made.ask("Hello", TINY, top_k=3)
    assert made.sent[0]["generationConfig"] == {"topK": 3}
    assert "generationConfig" not in made.last
    assert any(PLAIN in warning and "top_k" in warning for warning in answer.warnings)


async def test_s3_04h_a_model_that_cannot_do_it_is_not_asked(clock: VirtualClock) -> None:
    chain = [FallbackStrategy.SwitchModel(PLAIN), TEXT]
    made = backend(clock, {MODEL: overloaded(), PLAIN: said()}, fallback=chain)
    answer = await made.ask("What is shown?", MODEL, images=[("image/png", PNG)])
    assert answer.text == "Please try again later."
    assert {model_of(sent) for sent in made.transport.sent} == {MODEL}  # type: ignore[union-attr]
    with pytest.raises(GeminiError, match=f"SwitchModel: Model {PLAIN} has no understanding of images"):
        await made.ask("?", MODEL, images=[("image/png", PNG)], fallback=chain[:1])


async def test_s3_04h_a_prompt_that_does_not_fit_the_other_window_stays_away_from_it(
    clock: VirtualClock,
) -> None:
    chain = [FallbackStrategy.SwitchModel(TINY)]
    made = backend(clock, {MODEL: overloaded(), TINY: said()}, fallback=chain)
    with pytest.raises(GeminiError, match=f"{TINY} takes 400"):
        await made.ask("tide " * 800, MODEL)
    assert {model_of(sent) for sent in made.transport.sent} == {MODEL}  # type: ignore[union-attr]


async def test_s3_04h_personal_data_stays_out_of_the_other_models_prompt_and_comes_back(
    clock: VirtualClock,
) -> None:
    answers = {MODEL: overloaded(), OTHER: said("I wrote to [EMAIL_1].")}
    made = backend(clock, answers, fallback=[SWITCH])
    how = PreprocessConfig(restore_redacted=True)
    answer = await made.ask("Write to ada@example.org", MODEL, preprocess_config=how)
    assert said_in(made.last) == [("user", "Write to [EMAIL_1]")]
    assert answer.text == "I wrote to ada@example.org."


async def test_s3_04h_a_session_remembers_the_other_models_answer(clock: VirtualClock) -> None:
    made = backend(clock, {MODEL: overloaded(), OTHER: said("from the other")}, fallback=[SWITCH])
    await made.ask("Hello", MODEL, session_id="s")
    await made.ask("And now?", MODEL, session_id="s")
    assert said_in(made.last) == [
        ("user", "Hello"), ("model", "from the other"), ("user", "And now?"),
    ]  # fmt: skip


async def test_s3_04h_the_deadline_is_one_for_all_models(clock: VirtualClock) -> None:
    slow = Answer(body=b"{}", delay=500.0)
    made = backend(clock, {MODEL: slow, OTHER: said()}, fallback=[SWITCH, TEXT], retry_config=ONCE)
    began = clock.monotonic()
    answer = await made.ask("Hello", MODEL, timeout_seconds=3.0)
    assert answer.text == "Please try again later."
    assert clock.monotonic() - began == pytest.approx(3.0, abs=0.1)
    assert len(made.sent) == 1


async def test_s3_04h_a_retired_model_stands_for_its_successor(clock: VirtualClock) -> None:
    chain = [FallbackStrategy.SwitchModel("gemini-2.5-flash"), TEXT]
    made = backend(clock, {MODEL: overloaded(), "gemini-3.5-flash-lite": said()}, fallback=chain)
    assert (await made.ask("Hello", MODEL)).text == "fine"
    assert made.ear.calls[0].model == "gemini-3.5-flash-lite"


# ── DefaultResponse ─────────────────────────────────────────────────────────────────────────────


async def test_s3_04f_a_fixed_text_is_no_answer_of_a_model(clock: VirtualClock) -> None:
    made = backend(clock, {MODEL: quota("Day")}, fallback=[TEXT])
    answer = await made.ask("Hello", MODEL)
    assert (answer.text, answer.model, answer.finish_reason) == (
        "Please try again later.", "", DEFAULT,
    )  # fmt: skip
    assert answer.from_fallback
    assert (answer.usage.total_tokens, answer.cost_estimate) == (0, 0.0)
    assert answer.warnings == (f"{MODEL} failed (quota): a fixed text stands in.",)


async def test_s3_04f_a_fixed_text_comes_as_a_stream_too(clock: VirtualClock) -> None:
    made = backend(clock, {MODEL: broken_inside()}, fallback=[TEXT])
    chunks = await made.read("Hello", MODEL)
    assert [chunk.delta for chunk in chunks] == ["Please try again later.", ""]
    assert chunks[0].finish_reason == DEFAULT
    final = chunks[-1].response
    assert final is not None
    assert (final.text, final.model, final.from_fallback) == ("Please try again later.", "", True)
    (record,) = made.ear.calls
    assert (record.error, record.fallback, record.usage.total) == (None, "DefaultResponse", 0)


@pytest.mark.parametrize("fallback", [TEXT, PART], ids=["default", "partial"])
async def test_s3_02b_a_session_remembers_real_answers_only(
    clock: VirtualClock, fallback: FallbackStrategy
) -> None:
    answers: dict[str, Answer | Broken] = {MODEL: cut("The moon")}
    made = backend(clock, answers, fallback=[fallback], retry_config=ONCE)
    answer = await made.ask("Hello", MODEL, session_id="s")
    assert answer.from_fallback
    assert any("no part of the session" in warning for warning in answer.warnings)
    assert await made.sessions.context("s") is None
    answers[MODEL] = said()
    await made.ask("Hello again", MODEL, session_id="s", fallback=[])
    assert said_in(made.last) == [("user", "Hello again")]


# ── PartialResponse ─────────────────────────────────────────────────────────────────────────────


async def test_s3_04f_a_stream_that_breaks_ends_with_what_came(clock: VirtualClock) -> None:
    made = backend(clock, {MODEL: cut("The moon ", "pulls")}, fallback=[PART])
    chunks = await made.read("Hello", MODEL)
    assert [chunk.delta for chunk in chunks] == ["The moon ", "pulls", "", ""]
    assert chunks[2].finish_reason == INCOMPLETE
    final = chunks[-1].response
    assert final is not None
    assert (final.text, final.finish_reason) == ("The moon pulls", INCOMPLETE)
    assert (final.from_fallback, final.usage.estimated) == (True, True)
    assert final.usage.prompt_tokens == 5, "what the upstream told last"
    (record,) = made.ear.calls
    assert (record.error, record.fallback) == (None, "PartialResponse")
    assert [attempt.outcome.kind for attempt in made.ear.attempts] == ["network"]


async def test_s3_04f_a_stream_of_which_nothing_came_is_no_answer(clock: VirtualClock) -> None:
    made = backend(clock, {MODEL: cut("")}, fallback=[PART])
    with pytest.raises(GeminiError, match="broke off"):
        await made.read("Hello", MODEL)
    assert made.ear.calls[0].error == "network"


async def test_s3_04f_a_whole_answer_that_breaks_is_tried_again_before_a_part_is_given(
    clock: VirtualClock,
) -> None:
    made = Backend(
        clock,
        [cut("The moon pulls"), stream("The moon ", "pulls the sea.")],
        config=BackendConfig(fallback=[PART]),
    )
    answer = await made.ask("Hello", MODEL)
    assert (answer.text, answer.from_fallback, answer.usage.estimated) == (
        "The moon pulls the sea.", False, False,
    )  # fmt: skip
    assert all("alt=sse" in sent.request.url for sent in made.transport.sent)  # type: ignore[union-attr]


async def test_s3_04f_the_part_of_a_whole_answer_is_marked(clock: VirtualClock) -> None:
    made = Backend(clock, [cut("The moon"), overloaded()], config=BackendConfig(fallback=[PART]))
    answer = await made.ask("Hello", MODEL)
    assert (answer.text, answer.finish_reason) == ("The moon", INCOMPLETE)
    assert (answer.from_fallback, answer.usage.estimated) == (True, True)
    assert answer.warnings[0].startswith(f"{MODEL} failed (unavailable): what had come")


async def test_s3_04f_what_was_withheld_is_no_part_of_an_answer(clock: VirtualClock) -> None:
    withheld = Answer(pieces=(event(reply("The moon", finish=None)), event(reply("", finish="SAFETY"))))
    other = FallbackStrategy.SwitchModel(OTHER)
    made = backend(clock, {MODEL: overloaded(), OTHER: withheld}, fallback=[other, PART])
    with pytest.raises(GeminiError) as caught:
        await made.ask("Hello", MODEL)
    assert caught.value.error_type == "ServiceUnavailable"
    assert "PartialResponse: nothing had come" in caught.value.message


async def test_s3_04f_personal_data_is_put_back_into_a_part_too(clock: VirtualClock) -> None:
    made = backend(clock, {MODEL: cut("I wrote to [EMA", "IL_1] and")}, fallback=[PART])
    how = PreprocessConfig(restore_redacted=True)
    chunks = await made.read("Write to ada@example.org", MODEL, preprocess_config=how)
    final = chunks[-1].response
    assert isinstance(final, GeminiResponse)
    assert final.text == "I wrote to ada@example.org and"


async def test_a_whole_answer_in_pieces_is_bounded_as_any_whole_answer(clock: VirtualClock) -> None:
    """A stream may take for ever as long as it flows; a whole answer may not."""
    drip = Answer(
        pieces=tuple(event(reply("drop ", finish=None)) for _ in range(100)), piece_delay=30.0
    )
    made = backend(clock, {MODEL: drip}, fallback=[PART], retry_config=ONCE)
    answer = await made.ask("Hello", MODEL)
    seconds = made.engine_settings.attempt_timeout_seconds
    took = [attempt.ended - attempt.started for attempt in made.ear.attempts]
    assert took == [pytest.approx(seconds)] * len(took)
    assert answer.text == "drop " * int(seconds // 30)


# ── beside the reply cache ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream_first", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("fallback", [SWITCH, TEXT, PART], ids=lambda one: one.name)
async def test_s3_03b_nothing_a_fallback_gave_is_kept(
    clock: VirtualClock, fallback: FallbackStrategy, stream_first: bool
) -> None:
    answers: dict[str, Answer | Broken] = {MODEL: cut("The moon"), OTHER: said("from the other")}
    if stream_first and fallback != PART:
        answers |= {MODEL: overloaded(), OTHER: stream("from the other")}
    transport = ScriptedTransport(lambda sent: answers[model_of(sent)], clock)
    config = BackendConfig(model_discovery=False, fallback=[fallback], retry_config=ONCE)
    made = GeminiBackend(config, keys=keys(1), transport=transport, clock=clock, environ={})
    asked = GeminiRequest("What makes the tide?", MODEL, stream=stream_first)
    got = await made.execute_gemini_enhanced(asked)
    if not isinstance(got, GeminiResponse):
        got = [piece.response async for piece in got][-1] or GeminiResponse(text="", model="")
    assert got.from_fallback
    answers[MODEL] = (stream if fallback == PART else said)("The moon does.")
    again = await made.execute_gemini_enhanced(GeminiRequest("What makes the tide?", MODEL))
    assert isinstance(again, GeminiResponse)
    assert (again.text, again.cached, again.from_fallback) == ("The moon does.", False, False)
    third = await made.execute_gemini_enhanced(GeminiRequest("What makes the tide?", MODEL))
    assert isinstance(third, GeminiResponse)
    assert (third.text, third.cached, third.from_fallback) == ("The moon does.", True, False)
    await made.aclose()


# ── who leaves ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("after", [0.4 * number for number in range(1, 20)])
async def test_s3_04f_who_leaves_amid_fallbacks_leaves_nothing_behind(
    clock: VirtualClock, after: float, streams: bool
) -> None:
    part = stream("a", "b", finish=None)
    answers: dict[str, Answer | Broken] = {
        MODEL: broken_inside(delay=1.0),
        OTHER: Answer(pieces=part.pieces, piece_delay=1.0, delay=1.0, broken=True),
    }
    made = backend(clock, answers, fallback=[SWITCH, PART])

    async def ask() -> None:
        await (made.read("Hello", MODEL) if streams else made.ask("Hello", MODEL))

    task = asyncio.ensure_future(ask())
    await clock.sleep(after)
    left = not task.done()
    task.cancel()
    await asyncio.wait([task])
    assert made.transport is not None
    assert made.transport.open_exchanges == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    (record,) = made.ear.calls
    assert record.error == ("cancelled" if left else None)
    assert record.attempts == len(made.ear.attempts)
    assert [attempt.number for attempt in made.ear.attempts] == list(range(1, record.attempts + 1))


async def test_s3_03f_who_follows_another_to_an_answer_falls_back_at_the_deadline(
    clock: VirtualClock,
) -> None:
    """Its own deadline and its own strategies: the other's patience is no reason to fail."""
    transport = ScriptedTransport([said("late", delay=5.0)], clock)
    config = BackendConfig(model_discovery=False, fallback=[TEXT])
    made = GeminiBackend(config, keys=keys(1), transport=transport, clock=clock, environ={})
    patient = asyncio.ensure_future(made.execute_gemini_enhanced(GeminiRequest("Hello", MODEL)))
    await clock.sleep(0.5)
    hasty = await made.execute_gemini_enhanced(GeminiRequest("Hello", MODEL, timeout_seconds=2.0))
    assert isinstance(hasty, GeminiResponse)
    assert (hasty.text, hasty.from_fallback) == ("Please try again later.", True)
    assert clock.monotonic() == pytest.approx(2.5, abs=0.2)
    assert getattr(await patient, "text", None) == "late"
    assert len(transport.sent) == 1
    await made.aclose()
