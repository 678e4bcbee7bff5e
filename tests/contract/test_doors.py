"""What both clients promise alike, over the wire of each: the emulator answers."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from headgate.claude import ClaudeCallError, ResilientClaudeClient
from headgate.core.errors import ConfigurationError, HeadgateError
from headgate.emulator import Emulator, EmulatorConfig, Limits, Organisation, Project, TokenLimits
from headgate.gemini import GeminiAPICallError, ResilientGeminiClient
from headgate.testing import VirtualClock

VALUE = "CANARY-key-0123456789"
UPSTREAM = EmulatorConfig(
    projects=[Project("alpha", {"one": VALUE}, {"*": Limits(rpm=3)})],
    organisations=[Organisation("alpha", {"one": VALUE}, {"*": TokenLimits(rpm=3)})],
)


@dataclass(frozen=True)
class Door:
    """A client under the names that both share here."""

    client: type[Any]
    text: str
    stream_sync: str
    failed: type[HeadgateError]
    model: str

    def build(self, base_url: str, **more: Any) -> Any:
        keys = f"{VALUE}|one|alpha"
        return self.client(keys=keys, base_url=base_url, environ={}, **more)

    @asynccontextmanager
    async def open(self, clock: VirtualClock, **more: Any) -> AsyncIterator[tuple[Any, Emulator]]:
        async with (
            Emulator(UPSTREAM, clock=clock) as upstream,
            self.build(upstream.base_url, clock=clock, **more) as client,
        ):
            yield client, upstream

    @contextmanager
    def threaded(self) -> Iterator[Any]:
        with Emulator(UPSTREAM).in_thread() as upstream, self.build(upstream.base_url) as client:
            yield client


GEMINI = Door(
    ResilientGeminiClient,
    "generate_content",
    "generate_content_stream_sync",
    GeminiAPICallError,
    "gemini-3.8-flash",
)
CLAUDE = Door(
    ResilientClaudeClient, "message_text", "messages_stream_sync", ClaudeCallError, "claude-opus-5-5"
)
EACH = pytest.mark.parametrize("door", [GEMINI, CLAUDE], ids=["gemini", "claude"])


@EACH
async def test_tokens_are_counted_as_the_upstream_bills_them(door: Door, clock: VirtualClock) -> None:
    async with door.open(clock, quotas={"rpm": 3}) as (client, upstream):
        tool: dict[str, Any] = {"name": "get_level", "description": "The level of a canal, in metres."}
        asked: dict[str, Any] = {"system": "Be brief.", "tools": [{**tool, "input_schema": {}}]}
        if door is GEMINI:
            asked = {
                "system_instruction": "Be brief.",
                "tools": [{"functionDeclarations": [tool]}],
            }
        else:
            asked["tools"][0]["input_schema"] = {"type": "object", "properties": {}}
        prompt = "How many locks has the canal between Basel and Rotterdam?"
        bare = await client.count_tokens(prompt, door.model)
        whole = await client.count_tokens(prompt, door.model, **asked)
        call = client.generate_reply if door is GEMINI else client.messages
        billed = (await call(prompt, door.model, **asked)).usage.prompt
        for _ in range(5):  # counting is no request of the quota
            await client.count_tokens(prompt, door.model)
        totals = upstream.report().totals
    assert 0 < bare < whole == billed
    assert clock.monotonic() == 0
    assert (totals.requests, totals.charged_requests, totals.refused) == (8, 1, {})


@EACH
def test_counting_has_a_synchronous_twin(door: Door) -> None:
    with door.threaded() as client:
        assert client.count_tokens_sync("hi", door.model) > 0


@EACH
async def test_a_wrong_count_fails_as_any_call(door: Door, clock: VirtualClock) -> None:
    async with door.open(clock) as (client, _):
        with pytest.raises(door.failed) as caught:
            await client.count_tokens("", door.model)
        assert caught.value.kind == "invalid"
        with pytest.raises(TypeError, match="no option of this call"):
            await client.count_tokens("hi", door.model, temprature=1)


@EACH
@pytest.mark.parametrize("model", [5, ["a"], object()])
async def test_a_model_that_is_no_name_is_the_callers_mistake(
    door: Door, clock: VirtualClock, model: object
) -> None:
    async with door.open(clock) as (client, upstream):
        for method in (door.text, "count_tokens"):
            with pytest.raises(door.failed, match="model takes the name of a model") as caught:
                await getattr(client, method)("hi", model)
            assert caught.value.kind == "invalid"
        if door is GEMINI:
            with pytest.raises(door.failed, match="model takes the name of a model"):
                await client.embed_content("hi", model)
        assert upstream.report().totals.requests == 0


@EACH
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
async def test_a_number_that_is_none_is_refused_by_name(
    door: Door, clock: VirtualClock, number: float
) -> None:
    """JSON has no form for it: written as null it would mean that nothing was asked for."""
    async with door.open(clock) as (client, upstream):
        with pytest.raises(door.failed, match="temperature is not a finite number") as caught:
            await getattr(client, door.text)("hi", door.model, temperature=number)
        assert caught.value.kind == "invalid"
        assert upstream.report().totals.requests == 0


@EACH
def test_a_stream_of_a_closed_client_does_not_end_as_if_it_were_whole(door: Door) -> None:
    with door.threaded() as client:
        pieces = getattr(client, door.stream_sync)("Tell me about canals", door.model)
        assert next(pieces)
        client.close()
        with pytest.raises(RuntimeError, match="closed while this stream was being read"):
            list(pieces)


@EACH
async def test_the_status_is_logged_for_ever_until_that_is_cancelled(
    door: Door, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with door.open(clock) as (client, _):
        with caplog.at_level("INFO", client._log.name), suppress(TimeoutError):
            async with asyncio.timeout(185):
                await client.log_status_every(60)
    assert sum("[0] one: ACTIVE" in record.getMessage() for record in caplog.records) == 3


@EACH
@pytest.mark.parametrize(
    ("quotas", "said"),
    [
        ({"rpx": 1}, "there is no quota 'rpx'"),
        ({"rpm": 0}, "argument quota_rpm is '0'; it takes a whole number, 1 or more"),
        ({"models": {"m": {"rpm": -1}}}, "models.m.rpm is -1"),
        ({"models": {"m": {"rpm": 2.5}}}, "models.m: Expected `int"),
        ({"models": []}, "models takes a table"),
    ],
)
def test_a_wrong_quota_is_named(door: Door, quotas: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        door.build("http://127.0.0.1:9", quotas=quotas)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("door", "quotas", "said"),
    [
        (GEMINI, {"itpm": 5}, "declare tpm"),
        (GEMINI, {"organisations": {}}, "declare projects"),
        (CLAUDE, {"tpm": 5}, "declare itpm and otpm"),
        (CLAUDE, {"rpd": 5}, "no limit a day"),
        (CLAUDE, {"projects": {}}, "declare organisations"),
    ],
)
def test_the_other_providers_words_are_translated(
    door: Door, quotas: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        door.build("http://127.0.0.1:9", quotas=quotas)


@EACH
def test_settings_remember_the_numbers_and_the_tables(door: Door) -> None:
    client = door.build("http://127.0.0.1:9", quotas={"rpm": 7, "concurrency": 2, "models": {}})
    assert client.settings.quotas.default.rpm == client.settings.quota_rpm == 7
    assert client.settings.quotas.default.concurrency == 2
    assert "CANARY" not in json.dumps(str(client.settings))
