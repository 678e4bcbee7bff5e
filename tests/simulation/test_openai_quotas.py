"""An OpenAI-compatible upstream through an engine, over real sockets in virtual time: keys rotated,
quotas used up and never refused where they are declared, learned where they are not.

The emulator's books are the judge: buckets per organisation and model, charged when a call arrives.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from tests.support import Ear

from headgate.core.call import Call, Chunk, Key, Operation, Reply
from headgate.core.errors import InvalidCallError, QuotaExhaustedError, UpstreamError
from headgate.emulator import Emulator, EmulatorConfig, Latency, OpenAILimits, OpenAIOrganisation
from headgate.engine.stream import ReplyStream
from headgate.testing import VirtualClock
from headgate.wiring.build import Engine
from headgate.wiring.openai import build_openai, load_openai

MODEL, VERSION, OTHER = "gpt-4.1", "gpt-4.1-2025-04-14", "gpt-4o"
EMBEDDER = "text-embedding-3-small"


def organisation(name: str, limits: OpenAILimits | None = None, **more: Any) -> OpenAIOrganisation:
    keys = {f"{name}-{n}": f"sk-CANARY-{name}-{n}-0123456789" for n in range(2)}
    return OpenAIOrganisation(name, keys, {"*": limits} if limits else {}, **more)


class Using:
    """An engine and its keys, asked as the gateway will ask it."""

    def __init__(self, engine: Engine, emulator: Emulator, ear: Ear) -> None:
        self.engine, self.emulator, self.ear = engine, emulator, ear

    async def ask(self, text: str, model: str = MODEL, wait: float = 3600, **options: Any) -> Reply:
        call = Call(Operation.GENERATE, model, (text,), options, max_wait=wait)
        answer, _ = await self.engine.pipeline.run(call)
        return cast("Reply", answer)

    async def stream(self, text: str, **options: Any) -> list[Chunk]:
        call = Call(Operation.STREAM, MODEL, (text,), options, max_wait=3600)
        answer, _ = await self.engine.pipeline.run(call)
        stream = cast("ReplyStream", answer)
        try:
            return [chunk async for chunk in stream]
        finally:
            await stream.aclose()

    @property
    def refused(self) -> dict[str, int]:
        return self.emulator.report().totals.refused


@asynccontextmanager
async def using(
    clock: VirtualClock,
    organisations: Sequence[OpenAIOrganisation],
    *,
    latency: Latency | None = None,
    **environ: str,
) -> AsyncIterator[Using]:
    config = EmulatorConfig(openai=list(organisations), latency=latency or Latency())
    keys = tuple(
        Key(name, value, owner.name) for owner in organisations for name, value in owner.keys.items()
    )
    async with Emulator(config, clock=clock) as emulator:
        settings = load_openai(
            {"base_url": emulator.base_url},
            keys=keys,
            environ={f"HEADGATE_{name}": value for name, value in environ.items()},
        )
        ear = Ear()
        engine = build_openai(settings, clock=clock, observer=ear, warn=lambda _: None)
        try:
            yield Using(engine, emulator, ear)
        finally:
            await engine.aclose()


# ── rotation ─────────────────────────────────────────────────────────────────


async def test_answers_streams_and_vectors_come_through(clock: VirtualClock) -> None:
    async with using(clock, [organisation("acme")]) as used:
        whole = await used.ask("How is water shared?")
        chunks = await used.stream("How is water shared?")
        embed = Call(Operation.EMBED, EMBEDDER, (), inputs=(("one",), ("two",)))
        vectors, _ = await used.engine.pipeline.run(embed)
    assert whole.text == "".join(chunk.text for chunk in chunks)
    assert chunks[-1].usage == whole.usage
    assert chunks[-1].usage.total > 0  # type: ignore[union-attr]
    assert [len(vector) for vector in cast("Reply", vectors).vectors] == [1536, 1536]
    assert {record.provider for record in used.ear.attempts} == {"openai"}


async def test_money_keys_and_models_are_found_out_once(clock: VirtualClock) -> None:
    owners = [
        organisation("broke", credit="used_up"),
        organisation("dead", key_states={"dead-0": "invalid", "dead-1": "deactivated"}),
        organisation("shut", denied={"shut-0": [MODEL], "shut-1": [MODEL]}),
        organisation("good"),
    ]
    async with using(clock, owners) as used:
        for number in range(8):
            await used.ask(f"{number}")
        refused = used.refused
    assert refused == {"spend": 1, "invalid_key": 1, "deactivated_key": 1, "permission": 2}
    served = Counter(record.domain for record in used.ear.attempts if record.outcome.status == 200)
    assert served == {"good": 8}


async def test_an_unknown_model_is_asked_of_each_organisation_once(clock: VirtualClock) -> None:
    async with using(clock, [organisation("acme"), organisation("bolt")]) as used:
        for _ in range(3):
            with pytest.raises(Exception, match="No key can be used for gpt-0"):
                await used.ask("hi", "gpt-0")
        assert used.refused == {"unknown_model": 2}


async def test_an_error_before_the_first_word_is_tried_again_and_one_after_it_is_told(
    clock: VirtualClock,
) -> None:
    async with using(clock, [organisation("acme")]) as used:
        used.emulator.script("prefixed_error", after=1)
        assert (await used.stream("hi"))[-1].usage is not None
        for kind in (
            "prefixed_error",
            "silent_eof",
            "half_event",
            "malformed_sse",
            "raw_error",
            "reset_mid",
        ):
            used.emulator.script(kind, after=3)
            with pytest.raises(UpstreamError) as caught:
                await used.stream("hi")
            assert caught.value.kind in ("unavailable", "protocol", "network")
        assert used.emulator.report().totals.open == 0


@pytest.mark.parametrize("kind", ["overload", "internal", "reset", "html"])
async def test_what_may_pass_is_tried_again(kind: str, clock: VirtualClock) -> None:
    async with using(clock, [organisation("acme")]) as used:
        used.emulator.script(kind, times=2)
        assert (await used.ask("hi")).text
        assert used.emulator.report().totals.failed == 2


@pytest.mark.parametrize(
    "deviations",
    [
        ["list_errors"],
        ["string_errors"],
        ["no_usage", "no_done"],
        ["no_limit_headers", "float_vectors"],
    ],
)
async def test_an_upstream_that_deviates_is_served_alike(
    deviations: list[str], clock: VirtualClock
) -> None:
    owner = organisation("odd", OpenAILimits(rpm=2), deviations=deviations)
    async with using(clock, [owner]) as used:
        for number in range(5):
            assert (await used.ask(f"{number}")).text
        assert "stop" in [chunk.finish_reason for chunk in await used.stream("hi")]
        embed = Call(Operation.EMBED, EMBEDDER, ("one",))
        vector, _ = await used.engine.pipeline.run(embed)
        assert len(cast("Reply", vector).vector) == 1536


# ── declared quotas ──────────────────────────────────────────────────────────


async def test_a_saturated_pool_is_used_up_and_never_refused(clock: VirtualClock) -> None:
    slow = Latency(first_byte=0.5, distribution="lognormal", spread=0.6)
    owners = [organisation(name, OpenAILimits(rpm=20)) for name in ("acme", "bolt")]
    async with using(clock, owners, latency=slow, OPENAI_QUOTA_RPM="20") as used:

        async def work(name: int) -> None:
            while clock.monotonic() < 720:
                await used.ask(f"{name} at {clock.monotonic()}")

        await asyncio.gather(*(work(number) for number in range(30)))
        totals = used.emulator.report().totals
    assert totals.refused == {}
    assert totals.answered / (2 * 20 * clock.monotonic() / 60) >= 0.99


@pytest.mark.parametrize("counting", ["requested", "used"])
async def test_declared_tokens_are_never_overspent(counting: Any, clock: VirtualClock) -> None:
    """Whether the upstream counts what a call may use or what it used: with bounds and without."""
    owners = [
        organisation(name, OpenAILimits(tpm=3_000), counting=counting) for name in ("acme", "bolt")
    ]
    slow = Latency(first_byte=2.0, distribution="lognormal", spread=0.4)
    async with using(clock, owners, latency=slow, OPENAI_QUOTA_TPM="3000") as used:
        asks = [used.ask(f"Tell me of {n}", max_completion_tokens=300) for n in range(60)]
        asks += [used.stream(f"Tell me of {n}", max_tokens=200) for n in range(20)]  # type: ignore[misc]
        await asyncio.gather(*asks)
        report = used.emulator.report()
    assert report.totals.refused == {}
    assert report.totals.answered == 80


async def test_what_an_upstream_without_usage_counts_is_taken_to_be_what_was_reserved(
    clock: VirtualClock,
) -> None:
    """Nothing is learned from a silence: it would teach that answers are empty."""
    owner = organisation("odd", OpenAILimits(tpm=12_000), counting="used", deviations=["no_usage"])
    async with using(clock, [owner], OPENAI_QUOTA_TPM="12000") as used:
        for turn in range(50):  # one after the other: each would teach the next
            await used.ask(f"[[words:300]] Tell me of {turn}")
        assert used.refused == {}


async def test_a_batch_of_texts_is_one_request(clock: VirtualClock) -> None:
    async with using(clock, [organisation("acme", OpenAILimits(rpm=3))], OPENAI_QUOTA_RPM="3") as used:
        inputs = tuple((f"text {number}",) for number in range(50))
        for _ in range(3):
            await used.engine.pipeline.run(Call(Operation.EMBED, EMBEDDER, (), inputs=inputs))
        assert clock.monotonic() == 0
        assert used.refused == {}


async def test_versions_share_the_limit_of_their_model_and_others_do_not(clock: VirtualClock) -> None:
    async with using(clock, [organisation("acme", OpenAILimits(rpm=4))], OPENAI_QUOTA_RPM="4") as used:
        asks = [(f"{n}", model) for n in range(4) for model in (MODEL, VERSION, OTHER)]
        await asyncio.gather(*(used.ask(*ask) for ask in asks))
        assert used.refused == {}
        quotas = used.emulator.report().openai["acme"].models
    assert {name: model.quotas["rpm"].admitted for name, model in quotas.items()} == {
        MODEL: 8,
        OTHER: 4,
    }
    assert 60 <= clock.monotonic() < 62  # eight calls for four places a minute


async def test_a_day_that_is_declared_is_kept(clock: VirtualClock) -> None:
    async with using(
        clock, [organisation("acme", OpenAILimits(rpd=10))], OPENAI_QUOTA_RPD="10"
    ) as used:
        for number in range(10):
            await used.ask(f"{number}")
        with pytest.raises(QuotaExhaustedError) as caught:
            await used.ask("one more", wait=60)
        assert used.refused == {}
    assert caught.value.retry_after == pytest.approx(86_400, rel=0.01)


# ── learned quotas ───────────────────────────────────────────────────────────


async def test_limits_that_stand_beside_answers_are_learned_and_kept(clock: VirtualClock) -> None:
    async with using(clock, [organisation("acme", OpenAILimits(rpm=6, tpm=20_000))]) as used:
        for number in range(30):
            await used.ask(f"Question {number}")
        totals = used.emulator.report().totals
    assert (totals.answered, totals.refused) == (30, {})
    assert clock.monotonic() <= 5 * 62


async def test_a_bucket_of_the_day_is_learned_from_its_reset(clock: VirtualClock) -> None:
    """Fifty a day: the first answer gives it away, and is counted itself."""
    async with using(clock, [organisation("acme", OpenAILimits(rpd=50))]) as used:
        for number in range(50):
            await used.ask(f"{number}")
        assert clock.monotonic() < 60
        with pytest.raises(QuotaExhaustedError):
            await used.ask("one more", wait=60)
        assert used.refused == {}


async def test_a_call_too_large_for_one_goes_to_another_and_is_not_sent_there_again(
    clock: VirtualClock,
) -> None:
    owners = [
        organisation("small", OpenAILimits(tpm=500)),
        organisation("large", OpenAILimits(tpm=50_000)),
    ]
    book = "word " * 1_000
    async with using(clock, owners) as used:
        for number in range(4):
            await used.ask(f"{book} {number}")
        assert used.refused.get("tpm", 0) <= 1
        domains = [record.domain for record in used.ear.attempts if record.outcome.status == 200]
    assert domains == ["large"] * 4


@pytest.mark.parametrize("learning", ["on", "off"])
async def test_a_call_too_large_for_all_fails_and_holds_nobody_up(
    learning: str, clock: VirtualClock
) -> None:
    """Each organisation says so once a call; nothing rests, and nothing is learned but the limit."""
    owners = [organisation(name, OpenAILimits(rpm=100, tpm=500)) for name in ("acme", "bolt")]
    book = "word " * 1_000
    async with using(clock, owners, QUOTA_LEARNING=learning) as used:
        for _ in range(6):
            with pytest.raises((UpstreamError, InvalidCallError)) as caught:
                await used.ask(book)
            assert caught.value.kind == "invalid"
            assert not caught.value.retryable
            assert (await used.ask("hi")).text
        assert clock.monotonic() == 0
        assert used.refused.get("tpm", 0) <= (2 if learning == "on" else 12)
        assert set(used.refused) == {"tpm"}


async def test_without_learning_a_refusal_is_waited_out_as_it_says(clock: VirtualClock) -> None:
    async with using(clock, [organisation("acme", OpenAILimits(rpm=2))], QUOTA_LEARNING="off") as used:
        for number in range(3):
            await used.ask(f"{number}")
        assert used.refused == {"rpm": 1}
    assert 29.9 <= clock.monotonic() <= 31
