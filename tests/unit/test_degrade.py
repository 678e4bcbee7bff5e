"""S3-04f, g, h: which failures degrade, and what each strategy makes of them."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs
from tests.degrading import (
    MODEL,
    UNFIT,
    USAGE,
    Answers,
    Fails,
    Rest,
    asked,
    kept,
    read,
    run,
)

from headgate.core import errors
from headgate.core.call import Operation, Raw, Reply
from headgate.core.errors import HeadgateError, UpstreamError
from headgate.core.fallback import (
    DEFAULT,
    INCOMPLETE,
    DefaultResponse,
    FailFast,
    FallbackStrategy,
    PartialResponse,
    SwitchModel,
    UseCachedResponse,
)
from headgate.core.outcome import RULES, Kind
from headgate.engine.stream import ReplyStream
from headgate.policy.degrading import DEGRADES, degrades
from headgate.testing import VirtualClock

DEGRADING = {
    Kind.QUOTA_MINUTE, Kind.QUOTA_DAY, Kind.QUOTA_UNKNOWN, Kind.QUOTA_ZERO, Kind.BILLING,
    Kind.KEY_MODEL, Kind.PROJECT_MODEL, Kind.CAPACITY, Kind.OVERLOAD, Kind.SERVER, Kind.NETWORK,
    Kind.TIMEOUT, Kind.PROTOCOL, Kind.LATE, Kind.BREAKER_OPEN,
}  # fmt: skip
FAILURES = [kind for kind in Kind if kind not in (Kind.SUCCESS, Kind.CANCELLED)]
EVERY: list[FallbackStrategy] = [
    UseCachedResponse(),
    SwitchModel("model-b"),
    DefaultResponse("Later."),
    PartialResponse(),
]


# ── which failures ──────────────────────────────────────────────────────────────────────────────


def test_s3_04f_every_kind_of_failure_was_decided() -> None:
    """Nobody adds a kind without saying whether something may stand in."""
    kinds = {rule.public_kind for rule in RULES.values()} - {"success"}
    classes = [cls for cls in vars(errors).values() if isinstance(cls, type)]
    kinds |= {cls.default_kind for cls in classes if issubclass(cls, HeadgateError)}
    kinds |= {"unsupported", "too_large"}
    assert kinds <= set(DEGRADES)
    assert not degrades("a kind nobody knows")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("strategy", EVERY, ids=lambda strategy: strategy.name)
@pytest.mark.parametrize("kind", FAILURES)
async def test_s3_04f_each_strategy_meets_each_failure(
    clock: VirtualClock, kind: Kind, strategy: FallbackStrategy, stream: bool
) -> None:
    after = "The moon" if strategy == PartialResponse() else ""
    rest = Rest(clock, [Fails(kind, after), Answers("as b")])
    got, passage = await run(asked(strategy, stream=stream), rest, clock, stale=kept())
    if isinstance(got, ReplyStream):
        text, reason, _, error = await read(got)
    elif isinstance(got, Reply):
        text, reason, error = got.text, got.finish_reason, None
    else:
        text, reason, error = "", None, got
    if kind not in DEGRADING:
        assert isinstance(error, UpstreamError)
        assert error.outcome.kind is kind
        assert passage.fallback is None
        assert rest.models == [MODEL]
        return
    expected = {
        "UseCachedResponse": ("of yesterday", "STOP"),
        "SwitchModel": ("as b", "STOP"),
        "DefaultResponse": ("Later.", DEFAULT),
        "PartialResponse": ("The moon", INCOMPLETE),
    }[strategy.name]
    assert error is None
    assert (text, reason) == expected
    assert passage.fallback == strategy.name
    assert len(passage.notes) == 1
    assert RULES[kind].public_kind in passage.notes[0]
    assert all(exchange.closed for exchange in rest.exchanges)


async def test_a_call_without_strategies_passes_through(clock: VirtualClock) -> None:
    rest = Rest(clock, [Fails()])
    got, passage = await run(asked(), rest, clock, stale=kept())
    assert isinstance(got, UpstreamError)
    assert got.message == f"{MODEL} is out."
    assert passage.fallback is None


async def test_an_answer_needs_no_strategy(clock: VirtualClock) -> None:
    rest = Rest(clock, [Answers()])
    got, passage = await run(asked(*EVERY), rest, clock, stale=kept())
    assert isinstance(got, Reply)
    assert (got.text, passage.fallback, passage.notes, rest.models) == ("fine", None, (), [MODEL])


# ── the chain ───────────────────────────────────────────────────────────────────────────────────


async def test_s3_04f_the_first_that_has_an_answer_gives_it(clock: VirtualClock) -> None:
    chain = (UseCachedResponse(), SwitchModel("model-b"), DefaultResponse("Later."))
    got, passage = await run(asked(*chain), Rest(clock, [Fails()]), clock)
    assert isinstance(got, Reply)
    assert (got.text, passage.fallback) == ("Later.", "DefaultResponse")


async def test_s3_04f_when_nothing_helps_the_first_failure_says_what_was_tried(
    clock: VirtualClock,
) -> None:
    chain = (
        SwitchModel("model-b"),
        SwitchModel(UNFIT),
        SwitchModel(MODEL),
        UseCachedResponse(),
        PartialResponse(),
    )
    rest = Rest(clock, [Fails(Kind.QUOTA_DAY), Fails(Kind.OVERLOAD)])
    got, passage = await run(asked(*chain), rest, clock)
    assert isinstance(got, UpstreamError)
    assert got.outcome.kind is Kind.QUOTA_DAY
    assert (
        str(got)
        == got.message
        == (
            "model-a is out. No fallback helped: SwitchModel: model-b failed too (unavailable); "
            "SwitchModel: Model model-unfit has no understanding of images.; "
            "SwitchModel: model-a was asked already; UseCachedResponse: no earlier answer is kept; "
            "PartialResponse: nothing had come."
        )
    )
    assert rest.models == [MODEL, "model-b"]
    assert (passage.attempts, passage.model, passage.fallback) == (2, MODEL, None)


async def test_s3_04f_fail_fast_stops_there(clock: VirtualClock) -> None:
    rest = Rest(clock, [Fails()])
    got, _ = await run(asked(FailFast(), *EVERY), rest, clock, stale=kept())
    assert isinstance(got, UpstreamError)
    assert got.message == "model-a is out."
    assert rest.models == [MODEL]


async def test_fail_fast_stops_a_stream_that_breaks_too(clock: VirtualClock) -> None:
    rest = Rest(clock, [Fails(Kind.NETWORK, "The moon")])
    got, passage = await run(asked(FailFast(), PartialResponse(), stream=True), rest, clock)
    assert isinstance(got, ReplyStream)
    text, _, _, error = await read(got)
    assert (text, passage.fallback) == ("The moon", None)
    assert isinstance(error, UpstreamError)


# ── SwitchModel ─────────────────────────────────────────────────────────────────────────────────


async def test_s3_04h_the_record_names_the_model_that_answered(clock: VirtualClock) -> None:
    rest = Rest(clock, [Fails(), Answers()])
    got, passage = await run(asked(SwitchModel("model-b")), rest, clock)
    assert isinstance(got, Reply)
    record = passage.record(1.0, got.usage, None, "fake")
    assert (record.model, record.fallback, record.attempts) == ("model-b", "SwitchModel", 2)
    assert passage.notes == ("model-a failed (server): model-b answers instead.",)


async def test_s3_04h_no_model_is_asked_twice(clock: VirtualClock) -> None:
    chain = (SwitchModel("model-b"), SwitchModel("model-b"), SwitchModel(MODEL))
    rest = Rest(clock, [Fails()])
    await run(asked(*chain), rest, clock)
    assert rest.models == [MODEL, "model-b"]


async def test_s3_04h_a_deadline_that_passed_leaves_what_sends_nothing(clock: VirtualClock) -> None:
    chain = (SwitchModel("model-b"), DefaultResponse("Later."))
    rest = Rest(clock, [Fails(Kind.TIMEOUT, seconds=5.0)])
    got, _ = await run(asked(*chain, deadline=5.0), rest, clock)
    assert isinstance(got, Reply)
    assert got.text == "Later."
    assert rest.models == [MODEL]


async def test_s3_04h_a_cancelled_hop_counts_what_was_sent(clock: VirtualClock) -> None:
    rest = Rest(clock, [Fails(), Fails(seconds=10.0)])
    task = asyncio.ensure_future(run(asked(SwitchModel("model-b")), rest, clock))
    await clock.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rest.models == [MODEL, "model-b"]


@pytest.mark.parametrize("operation", [Operation.EMBED, Operation.COUNT])
async def test_vectors_and_counts_of_another_model_are_no_answer(
    clock: VirtualClock, operation: Operation
) -> None:
    chain = (SwitchModel("model-b"), DefaultResponse("Later."), PartialResponse())
    rest = Rest(clock, [Fails()])
    got, _ = await run(asked(*chain, operation=operation), rest, clock)
    assert isinstance(got, UpstreamError)
    assert rest.models == [MODEL]
    assert rest.streaming == [False]


# ── UseCachedResponse ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_s3_04g_an_earlier_answer_uses_nothing_and_says_its_age(
    clock: VirtualClock, stream: bool
) -> None:
    stale = kept(at=clock.wall() - 312)
    rest = Rest(clock, [Fails(Kind.QUOTA_MINUTE)])
    got, passage = await run(asked(UseCachedResponse(), stream=stream), rest, clock, stale=stale)
    usage = (await read(got))[2] if isinstance(got, ReplyStream) else got.usage  # type: ignore[union-attr]
    record = passage.record(1.0, usage, None, "fake")
    assert (record.cached, record.usage.total, record.saved) == (True, 0, USAGE)
    assert record.fallback == "UseCachedResponse"
    assert passage.notes == ("model-a failed (quota): an answer from 312 s ago stands in.",)


# ── DefaultResponse ─────────────────────────────────────────────────────────────────────────────

SCHEMA = {"type": "object", "required": ["when"]}


@pytest.mark.parametrize(
    ("text", "fits"), [('{"when": "later"}', True), ("{}", False), ("Later.", False)]
)
async def test_a_default_text_keeps_to_the_schema(clock: VirtualClock, text: str, fits: bool) -> None:
    got, _ = await run(asked(DefaultResponse(text), schema=SCHEMA), Rest(clock, [Fails()]), clock)
    assert isinstance(got, Reply) is fits
    if isinstance(got, HeadgateError):
        assert "its text does not fit the schema" in got.message


async def test_a_text_is_no_answer_to_a_raw_call(clock: VirtualClock) -> None:
    raw = structs.replace(
        asked(DefaultResponse("Later."), SwitchModel("model-b")), raw=Raw("POST", "/x", MODEL)
    )
    got, _ = await run(raw, Rest(clock, [Fails(), Answers()]), clock)
    assert isinstance(got, Reply)
    assert got.text == "fine"


async def test_a_default_text_used_nothing(clock: VirtualClock) -> None:
    got, passage = await run(asked(DefaultResponse("")), Rest(clock, [Fails()]), clock)
    assert isinstance(got, Reply)
    assert (got.text, got.usage.total, got.model) == ("", 0, "")
    assert passage.record(1.0, got.usage, None, "fake").model == MODEL


# ── PartialResponse ─────────────────────────────────────────────────────────────────────────────


async def test_s3_04f_a_whole_answer_is_asked_in_pieces_where_a_part_may_stand_in(
    clock: VirtualClock,
) -> None:
    rest = Rest(clock, [Fails(Kind.NETWORK, "The moon pulls"), Fails(Kind.NETWORK, "The")])
    got, passage = await run(asked(SwitchModel("model-b"), PartialResponse()), rest, clock)
    assert rest.streaming == [True, True]
    assert isinstance(got, Reply)
    assert (got.text, got.model) == ("The moon pulls", MODEL), "the longer part of the two"
    assert got.usage.prompt > 0
    assert got.usage.output == len(got.text) // 4 + 1
    assert passage.record(1.0, got.usage, None, "fake").model == MODEL


async def test_the_part_of_another_model_names_that_model(clock: VirtualClock) -> None:
    rest = Rest(clock, [Fails(), Fails(Kind.NETWORK, "The moon")])
    got, passage = await run(asked(SwitchModel("model-b"), PartialResponse()), rest, clock)
    assert isinstance(got, Reply)
    assert (got.text, got.model, passage.model) == ("The moon", "model-b", "model-b")
    assert passage.fallback == "PartialResponse"


async def test_a_part_never_stands_in_where_a_schema_must_be_kept(clock: VirtualClock) -> None:
    rest = Rest(clock, [Fails(Kind.NETWORK, "{")])
    got, _ = await run(asked(PartialResponse(), schema=SCHEMA), rest, clock)
    assert isinstance(got, UpstreamError)
    assert rest.streaming == [False]
    assert "a part of an answer does not fit a schema" in got.message


async def test_a_mended_stream_ends_well_for_its_reader_and_badly_for_its_key(
    clock: VirtualClock,
) -> None:
    rest = Rest(clock, [Fails(Kind.NETWORK, "The moon")])
    got, passage = await run(asked(PartialResponse(), stream=True), rest, clock)
    assert isinstance(got, ReplyStream)
    above: list[Kind] = []
    got.on_end(lambda outcome: above.append(outcome.kind))
    text, reason, usage, error = await read(got)
    assert (text, reason, error) == ("The moon", INCOMPLETE, None)
    assert usage.prompt > 0
    assert usage.output > 0
    assert [outcome.kind for outcome in rest.heard] == [Kind.NETWORK]
    assert above == [Kind.SUCCESS]
    assert passage.notes == ("The answer of model-a broke off (network); it is incomplete.",)
    assert rest.exchanges[0].closed


async def test_a_mended_stream_that_its_reader_leaves_counts_as_cancelled(clock: VirtualClock) -> None:
    rest = Rest(clock, [Fails(Kind.NETWORK, "The moon")])
    got, passage = await run(asked(PartialResponse(), stream=True), rest, clock)
    assert isinstance(got, ReplyStream)
    await anext(got)
    await got.aclose()
    assert [outcome.kind for outcome in rest.heard] == [Kind.CANCELLED]
    assert passage.fallback is None


async def test_what_was_withheld_stays_withheld(clock: VirtualClock) -> None:
    rest = Rest(clock, [Fails(Kind.BLOCKED, "The moon")])
    got, passage = await run(asked(PartialResponse(), stream=True), rest, clock)
    assert isinstance(got, ReplyStream)
    error = (await read(got))[3]
    assert isinstance(error, UpstreamError)
    assert error.outcome.kind is Kind.BLOCKED
    assert passage.fallback is None


async def test_once_a_piece_was_passed_on_no_other_model_is_asked(clock: VirtualClock) -> None:
    chain = (SwitchModel("model-b"), DefaultResponse("Later."))
    rest = Rest(clock, [Fails(Kind.NETWORK, "The moon")])
    got, _ = await run(asked(*chain, stream=True), rest, clock)
    assert isinstance(got, ReplyStream)
    text, _, _, error = await read(got)
    assert text == "The moon"
    assert isinstance(error, UpstreamError)
    assert rest.models == [MODEL]
