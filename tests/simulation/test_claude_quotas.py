"""Declared quotas of Claude against an upstream that enforces them: used up, and never refused.

The emulator's books are the judge: token buckets per organisation and class of models. Time is virtual,
sockets are real.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

import pytest
from tests.support import Ear

from headgate.claude import ClaudeCallError, ClaudeQuotaError, ResilientClaudeClient
from headgate.emulator import Emulator, EmulatorConfig, Latency, Organisation, TokenLimits
from headgate.testing import VirtualClock

OPUS, OLDER_OPUS, HAIKU = "claude-opus-4-8", "claude-opus-4-5-20251101", "claude-haiku-5-5"
NAMES = ("acme", "bolt")


def upstream(limits: TokenLimits, **more: object) -> EmulatorConfig:
    organisations = [
        Organisation(
            name,
            {f"{name}-{n}": f"sk-ant-CANARY-{name}-{n}" for n in range(2)},
            {"*": limits},
        )
        for name in NAMES
    ]
    return EmulatorConfig(organisations=organisations, **more)  # type: ignore[arg-type]


def client(
    emulator: Emulator, clock: VirtualClock, quotas: Mapping[str, object], **more: object
) -> ResilientClaudeClient:
    keys = ",".join(
        f"{value}|{name}|{organisation.name}"
        for organisation in emulator.config.organisations
        for name, value in organisation.keys.items()
    )
    options = {"max_wait_seconds": 3600, "environ": {}, **more}
    return ResilientClaudeClient(
        keys=keys,
        base_url=emulator.base_url,
        clock=clock,
        quotas=quotas,
        **options,  # type: ignore[arg-type]
    )


async def test_a_saturated_pool_is_used_up_and_never_refused(clock: VirtualClock) -> None:
    slow = Latency(first_byte=0.5, distribution="lognormal", spread=0.6)
    config = upstream(TokenLimits(rpm=20), latency=slow)
    async with Emulator(config, clock=clock) as emulator:
        async with client(emulator, clock, {"rpm": 20}) as using:

            async def work(name: int) -> None:
                while clock.monotonic() < 720:
                    await using.messages(f"{name} at {clock.monotonic()}", OPUS)

            await asyncio.gather(*(work(number) for number in range(30)))
        totals = emulator.report().totals
    assert totals.refused == {}
    assert totals.answered / (len(NAMES) * 20 * clock.monotonic() / 60) >= 0.99


async def test_models_of_one_class_share_their_limit_and_others_do_not(clock: VirtualClock) -> None:
    async with Emulator(upstream(TokenLimits(rpm=3)), clock=clock) as emulator:
        async with client(emulator, clock, {"rpm": 3}) as using:
            asks = [(f"{n}", model) for n in range(6) for model in (OPUS, OLDER_OPUS, HAIKU)]
            replies = await asyncio.gather(*(using.messages(*ask) for ask in asks))
        totals = emulator.report().totals
    waited = Counter(ask[1] for ask, reply in zip(asks, replies, strict=True) if reply.waited)
    assert totals.refused == {}
    assert waited[HAIKU] == 0
    assert waited[OPUS] + waited[OLDER_OPUS] == 6  # twelve calls for six places a minute


async def test_input_tokens_are_kept_and_those_read_from_a_cache_are_free(clock: VirtualClock) -> None:
    """A long prompt that the cache serves costs a fraction of the limit that it is longer than."""
    book = [{"type": "text", "text": "word " * 1_500, "cache_control": {"type": "ephemeral"}}]
    async with Emulator(upstream(TokenLimits(itpm=4_000)), clock=clock) as emulator:
        async with client(emulator, clock, {"itpm": 4_000}) as using:
            for number in range(60):
                await using.messages(f"What is said on page {number}?", OPUS, system=book)
            at_first = clock.monotonic()
            await using.messages("word " * 2_500, OPUS)
            with pytest.raises(ClaudeCallError) as caught:
                await using.messages("word " * 9_000, OPUS)
        totals = emulator.report().totals
    assert totals.refused == {}
    assert totals.tokens_in > 60 * 1_500
    assert at_first <= 360  # uncached, 60 such prompts are 90 000 tokens: more than eleven minutes
    assert caught.value.kind == "invalid"
    assert "more than the declared quota" in str(caught.value)


async def test_a_long_prompt_that_a_cache_may_serve_is_not_refused_for_its_size(
    clock: VirtualClock,
) -> None:
    book = [{"type": "text", "text": "word " * 9_000, "cache_control": {"type": "ephemeral"}}]
    async with (
        Emulator(upstream(TokenLimits()), clock=clock) as emulator,
        client(emulator, clock, {"itpm": 4_000}) as using,
    ):
        reply = await using.messages("Shorter?", OPUS, system=book)
    assert reply.usage.prompt > 9_000


async def test_output_tokens_are_never_overspent(clock: VirtualClock) -> None:
    slow = Latency(first_byte=2.0, distribution="lognormal", spread=0.4)
    config = upstream(TokenLimits(otpm=500), latency=slow)
    async with Emulator(config, clock=clock) as emulator:
        async with client(emulator, clock, {"otpm": 500}) as using:
            ask = using.messages
            await asyncio.gather(*(ask(f"Tell me {n}", OPUS, max_tokens=100) for n in range(120)))
        report = emulator.report()
    assert report.totals.refused == {}
    assert report.totals.answered == 120
    # A bucket does not show what was taken beyond its bottom: the time that the pool took does.
    for organisation in report.organisations.values():
        assert organisation.totals.tokens_out <= 500 * (clock.monotonic() / 60 + 1)


async def test_a_conversation_is_estimated_whole(clock: VirtualClock) -> None:
    """Its system text, its tools and every turn of it are input, not the last question alone."""
    turns = [
        {"role": ("user", "assistant")[turn % 2], "content": [{"type": "text", "text": "word " * 30}]}
        for turn in range(5)
    ]
    asked = {"system": "Be brief. " * 20, "tools": [{"name": "t", "input_schema": {"type": "object"}}]}
    async with Emulator(upstream(TokenLimits(itpm=2_000)), clock=clock) as emulator:
        async with client(emulator, clock, {"itpm": 2_000}) as using:
            asks = (using.messages(turns, OPUS, **asked) for _ in range(100))
            replies = await asyncio.gather(*asks)
        totals = emulator.report().totals
    assert totals.refused == {}
    assert replies[0].usage.prompt > 200


async def test_an_answer_that_might_be_longer_than_the_limit_is_asked_for(clock: VirtualClock) -> None:
    async with Emulator(upstream(TokenLimits(otpm=1_000)), clock=clock) as emulator:
        async with client(emulator, clock, {"otpm": 1_000}) as using:
            reply = await using.messages("hi", OPUS, max_tokens=30_000)
        assert emulator.report().totals.refused == {}
    assert 0 < reply.usage.output < 1_000


async def test_no_more_calls_run_at_a_time_than_declared(clock: VirtualClock) -> None:
    config = upstream(TokenLimits(), latency=Latency(first_byte=10.0))
    async with (
        Emulator(config, clock=clock) as emulator,
        client(emulator, clock, {"concurrency": 2}) as using,
    ):
        await asyncio.gather(*(using.messages(f"{n}", OPUS) for n in range(12)))
    assert 30 <= clock.monotonic() < 31  # four at a time in two organisations, three rounds


async def test_organisations_and_models_that_differ(clock: VirtualClock) -> None:
    """Of each number the most specific declaration counts; a model's name declares for its class."""
    quotas = {
        "rpm": 2,
        "models": {"claude-haiku-5-5": {"rpm": 4}},
        "organisations": {"bolt": {"rpm": 3, "models": {"claude-opus-4": {"rpm": 1}}}},
    }
    served: Counter[str] = Counter()
    async with (
        Emulator(upstream(TokenLimits()), clock=clock) as emulator,
        client(emulator, clock, quotas, max_wait_seconds=0) as using,
    ):
        for model in (OPUS, HAIKU, "claude-sonnet-5-5"):
            for number in range(20):
                with suppress(ClaudeQuotaError):
                    await using.messages(f"{number}", model)
                    served[model] += 1
    assert served == {OPUS: 2 + 1, HAIKU: 4 + 3, "claude-sonnet-5-5": 2 + 3}


async def test_counting_tokens_takes_no_place_of_a_message(clock: VirtualClock) -> None:
    ear = Ear()
    config = upstream(TokenLimits(rpm=1))
    async with Emulator(config, clock=clock) as emulator:
        async with client(emulator, clock, {"rpm": 1}, observers=[ear]) as using:
            counts = [await using.count_tokens("word " * 100, OPUS) for _ in range(10)]
            for number in range(len(NAMES)):
                await using.messages(f"{number}", OPUS)
        totals = emulator.report().totals
    assert clock.monotonic() == 0
    assert (totals.refused, totals.charged_requests) == ({}, 2)
    assert len(set(counts)) == 1
    assert counts[0] > 100
    assert {record.model for record in ear.attempts} == {OPUS}
    assert sum(call.usage.total for call in ear.calls[:10]) == 0
