"""S3-03b, S3-03c, S3-03f, S3-04g, S3-16, S3-21: replies are remembered, as the configuration says."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from msgspec import structs
from tests.support import MODEL, Ear, broken_inside, key, keys, said, stream

from headgate.backend import (
    BackendConfig,
    CacheStats,
    GeminiBackend,
    GeminiError,
    GeminiRequest,
    GeminiResponse,
    PreprocessConfig,
    RetryConfig,
    UseCachedResponse,
    default,
)
from headgate.core.errors import ConfigurationError
from headgate.testing import ScriptedTransport, VirtualClock

OFFLINE = BackendConfig(
    model_discovery=False,
    preprocess_config=PreprocessConfig(enforce_token_limits=False),
    retry_config=RetryConfig(max_attempts=1),
)
PNG = ("image/png", b"\x89PNG\r\n\x1a\n" + b"\0" * 40)


class Remembering:
    """A backend over a scripted transport."""

    def __init__(self, clock: VirtualClock, script: Any, **config: Any) -> None:
        self.ear = Ear()
        self.transport = ScriptedTransport(script, clock)
        self.backend = GeminiBackend(
            structs.replace(OFFLINE, **config),
            keys=keys(1),
            transport=self.transport,
            clock=clock,
            observers=[self.ear],
            environ={},
        )

    async def ask(
        self, prompt: str = "hi", api_key: str | None = None, **fields: Any
    ) -> GeminiResponse:
        """The whole answer."""
        request = GeminiRequest(prompt, MODEL, **fields)
        answer = await self.backend.execute_gemini_enhanced(request, api_key=api_key)
        return cast("GeminiResponse", answer)

    async def read(self, prompt: str = "hi", **fields: Any) -> GeminiResponse:
        """The last piece of a streamed answer has the whole."""
        request = GeminiRequest(prompt, MODEL, stream=True, **fields)
        pieces = await self.backend.execute_gemini_enhanced(request)
        last = [piece async for piece in pieces][-1].response  # type: ignore[union-attr]
        assert last is not None
        return last

    async def change(self, **fields: Any) -> None:
        """Another configuration takes over."""
        config = await self.backend.get_gemini_backend_config()
        await self.backend.update_gemini_backend_config(structs.replace(config, **fields))

    async def stats(self) -> CacheStats:
        return await self.backend.get_gemini_cache_stats()

    @property
    def sends(self) -> int:
        return len(self.transport.sent)


def numbered() -> Any:
    """Each answer is another."""
    numbers = iter(range(1000))
    return lambda _: said(f"answer {next(numbers)}")


async def test_s3_03b_a_remembered_reply_says_so_and_costs_nothing(clock: VirtualClock) -> None:
    it = Remembering(clock, numbered())
    first = await it.ask()
    assert (first.cached, first.age_seconds) == (False, None)
    assert first.cost_estimate is not None
    assert first.cost_estimate > 0
    await clock.sleep(100)
    again = await it.ask()
    assert (again.text, again.cached, again.from_fallback) == ("answer 0", True, False)
    assert again.age_seconds == pytest.approx(100)
    assert again.cost_estimate == 0
    assert again.usage == first.usage
    assert again.request_id != first.request_id
    assert it.ear.calls[1].cached
    assert it.ear.calls[1].saved.total == 8
    streamed = await it.read()
    assert (streamed.text, streamed.cached, streamed.cost_estimate) == ("answer 0", True, 0)
    assert it.sends == 1


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "ho"},
        {"system_instruction": "Be brief."},
        {"images": [PNG]},
        {"files": [("a.pdf", "application/pdf", b"%PDF-1.7 x")]},
        {"max_output_tokens": 7},
        {"stop_sequences": ["x"]},
        {"response_mime_type": "application/json"},
        {"response_schema": {"type": "object"}},
        {"tools": [{"functionDeclarations": [{"name": "find"}]}]},
        {"caller": "somebody"},
        {"cache_namespace": "docs"},
        {"api_key": key(7)},
        {"use_cache": False},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_s3_03b_whatever_changes_the_answer_asks_anew(
    clock: VirtualClock, change: dict[str, Any]
) -> None:
    it = Remembering(clock, lambda _: said('{"a": 1}'))
    await it.ask()
    again = await it.ask(**change)
    assert not again.cached
    assert it.sends == 2
    assert (await it.ask(**change)).cached is (change != {"use_cache": False})


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
async def test_s3_03b_so_does_every_sampling_parameter(clock: VirtualClock, name: str) -> None:
    it = Remembering(clock, numbered())
    for value in (1, 2, 1):
        request = GeminiRequest(
            "hi", "gemini-2.5-flash-preview", **{name: value / 2 if name != "top_k" else value}
        )
        await it.backend.execute_gemini_enhanced(request)
    assert it.sends == 2


async def test_s3_03b_a_session_is_part_of_the_question(clock: VirtualClock) -> None:
    it = Remembering(clock, numbered())
    first = await it.ask("And then?", session_id="one")
    second = await it.ask("And then?", session_id="one")
    assert (first.text, second.text) == ("answer 0", "answer 1")
    other = await it.ask("And then?", session_id="two")
    assert (other.text, other.cached) == ("answer 0", True)
    context = await it.backend.get_gemini_session("two")
    assert context is not None
    assert [message.content for message in context.messages] == ["And then?", "answer 0"]


async def test_s3_03b_use_cache_false_neither_reads_nor_writes(clock: VirtualClock) -> None:
    it = Remembering(clock, numbered())
    assert (await it.ask(use_cache=False)).text == "answer 0"
    assert (await it.ask()).text == "answer 1"
    assert (await it.ask(use_cache=False)).text == "answer 2"
    assert (await it.ask()).text == "answer 1"
    assert (await it.stats()).total_hits == 1


async def test_s3_03b_of_restored_data_the_cache_has_only_markers(clock: VirtualClock) -> None:
    how = PreprocessConfig(enforce_token_limits=False, restore_redacted=True)
    it = Remembering(clock, [said("I will write to [EMAIL_1].")], preprocess_config=how)
    for address in ("ada@example.org", "bob@example.net"):
        answer = await it.ask(f"Write to {address}")
        assert answer.text == f"I will write to {address}."
    assert it.sends == 1


async def test_s3_03c_replies_live_as_long_as_is_said(clock: VirtualClock) -> None:
    it = Remembering(clock, numbered(), cache_ttl_seconds=60)
    await it.ask()
    await clock.sleep(59)
    assert (await it.ask()).cached
    await clock.sleep(1)
    assert not (await it.ask()).cached


@pytest.mark.parametrize(
    "off", [{"cache_max_entries": 0}, {"cache_max_size_mb": 0}, {"cache_ttl_seconds": 0}], ids=str
)
async def test_s3_03c_each_bound_of_nought_remembers_nothing(
    clock: VirtualClock, off: dict[str, Any]
) -> None:
    it = Remembering(clock, numbered(), **off)
    for _ in range(2):
        assert not (await it.ask()).cached
    assert await it.stats() == CacheStats()
    assert await it.backend.clear_gemini_cache() == 0


async def test_s3_03c_a_stale_reply_is_given_while_a_new_one_is_asked_for(clock: VirtualClock) -> None:
    it = Remembering(clock, numbered(), cache_ttl_seconds=60, cache_stale_seconds=60)
    await it.ask()
    await clock.sleep(61)
    assert (await it.ask()).text == "answer 0"
    await clock.sleep(1)
    assert (await it.ask()).text == "answer 1"
    assert it.sends == 2
    await it.backend.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_s3_03f_identical_requests_in_flight_share_one(clock: VirtualClock) -> None:
    it = Remembering(
        clock, [said("one", delay=5.0)], max_concurrent_requests=1000, connection_pool_size=1000
    )
    answers = await asyncio.gather(*(it.ask() for _ in range(1000)))
    assert it.sends == 1
    assert {answer.text for answer in answers} == {"one"}
    assert sum(not answer.cached for answer in answers) == 1
    assert sum(answer.cost_estimate or 0 for answer in answers) == pytest.approx(
        next(answer.cost_estimate for answer in answers if not answer.cached)
    )


async def test_s3_04g_an_old_reply_stands_in_marked_with_its_age(clock: VirtualClock) -> None:
    it = Remembering(
        clock, [said("old"), broken_inside()],
        cache_ttl_seconds=60, cache_rescue_seconds=1000, fallback=[UseCachedResponse()],
        circuit_breaker_enabled=False,
    )  # fmt: skip
    await it.ask()
    await clock.sleep(500)
    answer = await it.ask()
    assert (answer.text, answer.cached, answer.from_fallback) == ("old", True, True)
    assert answer.age_seconds == pytest.approx(500)
    assert answer.cost_estimate == 0
    streamed = await it.read()
    assert (streamed.text, streamed.cached, streamed.from_fallback) == ("old", True, True)
    await clock.sleep(600)
    with pytest.raises(GeminiError):
        await it.ask()


async def test_s3_16_the_statistics_are_those_of_the_cache_that_works(clock: VirtualClock) -> None:
    it = Remembering(clock, numbered(), cache_max_size_mb=2)
    assert await it.stats() == CacheStats(max_size_bytes=2_000_000)
    for prompt in ("a", "b", "a", "a"):
        await it.ask(prompt)
    stats = await it.stats()
    assert (stats.entries, stats.total_hits, stats.hit_rate) == (2, 2, 50.0)
    assert 0 < stats.size_bytes < stats.max_size_bytes == 2_000_000
    assert stats.expired_entries == 0
    await clock.sleep(3600 + 86_400)
    await it.ask("a")
    assert (await it.stats()).expired_entries == 1
    assert (await it.backend.get_gemini_backend_status()).cache_stats == await it.stats()


async def test_s3_16_is_also_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    made = GeminiBackend(OFFLINE, environ={})
    monkeypatch.setattr(default, "_backend", [made])
    assert (await default.get_gemini_cache_stats()).max_size_bytes == 100_000_000


async def test_replies_are_forgotten_by_namespace_and_all_together(clock: VirtualClock) -> None:
    it = Remembering(clock, numbered())
    assert await it.backend.invalidate_gemini_cache("docs-*") == 0
    for name in ("docs-1", "docs-2", "chat", ""):
        await it.ask(cache_namespace=name)
    assert await it.backend.invalidate_gemini_cache("docs-*") == 2
    assert not (await it.ask(cache_namespace="docs-1")).cached
    assert (await it.ask(cache_namespace="chat")).cached
    assert await it.backend.clear_gemini_cache() == 3
    assert not (await it.ask(cache_namespace="chat")).cached


@pytest.mark.parametrize("name", [7, None, "x" * 257], ids=["number", "none", "long"])
async def test_what_is_no_name_is_refused(clock: VirtualClock, name: Any) -> None:
    it = Remembering(clock, numbered())
    with pytest.raises(GeminiError, match="cache_namespace") as caught:
        await it.ask(cache_namespace=name)
    assert caught.value.error_type == "InvalidParameters"
    if name is None:
        with pytest.raises(GeminiError, match="pattern takes a text"):
            await it.backend.invalidate_gemini_cache(name)
    assert it.sends == 0


async def test_s3_21_the_cache_outlives_a_change_and_is_resized(clock: VirtualClock) -> None:
    """C20: what fits stays, the last used first; a lifetime counts for what comes."""
    it = Remembering(clock, numbered())
    for prompt in "abcd":
        await it.ask(prompt)
    await it.change(cache_max_entries=2, max_concurrent_requests=7)
    assert [(await it.ask(prompt)).cached for prompt in "cd"] == [True, True]
    assert (await it.stats()).entries == 2
    assert (await it.stats()).total_hits == 2, "and the counts go on"
    await it.change(cache_max_size_mb=1)
    assert (await it.stats()).max_size_bytes == 1_000_000
    await it.change(cache_max_entries=0)
    assert not (await it.ask("c")).cached
    assert await it.stats() == CacheStats()
    await it.change(cache_max_entries=10)
    assert not (await it.ask("c")).cached
    assert (await it.ask("c")).cached


async def test_s3_21_a_change_that_fails_leaves_the_cache_as_it_was(clock: VirtualClock) -> None:
    it = Remembering(clock, numbered())
    await it.ask()
    with pytest.raises(ConfigurationError):
        await it.change(cache_max_entries=0, quotas={"rpm": "many"})
    assert (await it.ask()).cached


@pytest.mark.parametrize(
    "wrong",
    [
        {"cache_stale_seconds": -1},
        {"cache_rescue_seconds": "long"},
        {"cache_shared_max_size_mb": 0},
        {"cache_ttl_seconds": float("inf")},
    ],
    ids=str,
)
def test_s3_24_wrong_numbers_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        structs.replace(OFFLINE, **wrong)


async def test_a_stream_that_is_read_to_its_end_is_remembered(clock: VirtualClock) -> None:
    it = Remembering(clock, [stream("a", "b", piece_delay=1.0), said("never")])
    first = await it.read()
    assert (first.text, first.cached) == ("ab", False)
    again = await it.ask()
    assert (again.text, again.cached, again.finish_reason) == ("ab", True, "STOP")
    assert again.usage == first.usage
