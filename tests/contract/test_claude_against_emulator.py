"""The Claude door against the emulator over real sockets in virtual time: two organisations rotated,
what the upstream asks obeyed, its books and ours the same."""

from __future__ import annotations

import asyncio

import pytest

from headgate.claude import ClaudeCallError, ClaudeQuotaError, ResilientClaudeClient
from headgate.emulator import Emulator, EmulatorConfig, Organisation, TokenLimits
from headgate.testing import VirtualClock

KEYS = {name: f"sk-ant-CANARY-{name}-0123456789" for name in ("a1", "a2", "b1")}
LISTED = f"{KEYS['a1']}|a1|alpha,{KEYS['a2']}|a2|alpha,{KEYS['b1']}|b1|beta"
MODEL = "claude-opus-5-5"
LIMITS = {"*": TokenLimits(rpm=6)}
CONFIG = EmulatorConfig(
    organisations=[
        Organisation("alpha", {"a1": KEYS["a1"], "a2": KEYS["a2"]}, LIMITS, retry_after_share=0.5),
        Organisation("beta", {"b1": KEYS["b1"]}, LIMITS, retry_after_share=0.5),
    ]
)


async def test_two_organisations_give_twice_the_answers(clock: VirtualClock) -> None:
    """Without declarations and without learning: refusals are obeyed."""
    environ = {"HEADGATE_QUOTA_LEARNING": "off"}
    async with (
        Emulator(CONFIG, clock=clock) as upstream,
        ResilientClaudeClient(
            keys=LISTED, base_url=upstream.base_url, clock=clock, environ=environ
        ) as client,
    ):
        replies = await asyncio.gather(
            *(
                client.messages(f"Question {number}", MODEL, max_wait_seconds=600)
                for number in range(12)
            )
        )
        assert clock.monotonic() == 0  # 6 + 6, and no hint on a good answer cools anything
        with pytest.raises(ClaudeQuotaError) as caught:
            await client.messages("One more", MODEL, max_wait_seconds=5)
        assert caught.value.retry_after == pytest.approx(10, abs=0.5)
        late = await client.messages("One more", MODEL)
        assert late.waited == pytest.approx(10, abs=0.5)
        organisations = upstream.report().organisations
    assert {reply.key_name for reply in replies} == {"a1", "a2", "b1"}
    assert sum(org.totals.answered for org in organisations.values()) == 13
    assert {name: org.totals.refused for name, org in organisations.items()} == {
        "alpha": {"rpm": 1},
        "beta": {"rpm": 1},
    }
    spent = sum(org.totals.tokens_out for org in organisations.values())
    assert spent == sum(reply.usage.output for reply in (*replies, late))


async def test_limits_that_stand_beside_answers_are_learned_and_kept(clock: VirtualClock) -> None:
    async with (
        Emulator(CONFIG, clock=clock) as upstream,
        ResilientClaudeClient(keys=LISTED, base_url=upstream.base_url, clock=clock) as client,
    ):
        for number in range(30):
            await client.messages(f"Question {number}", MODEL, max_wait_seconds=600)
        totals = upstream.report().totals
    assert (totals.answered, totals.refused) == (30, {})
    assert clock.monotonic() <= 3 * 62


async def test_money_and_keys_are_found_out_once(clock: VirtualClock) -> None:
    config = EmulatorConfig(
        organisations=[
            Organisation("alpha", {"a1": KEYS["a1"], "a2": KEYS["a2"]}, key_states={"a1": "invalid"}),
            Organisation("beta", {"b1": KEYS["b1"]}, spend="own_limit"),
        ]
    )
    async with (
        Emulator(config, clock=clock) as upstream,
        ResilientClaudeClient(keys=LISTED, base_url=upstream.base_url, clock=clock) as client,
    ):
        for _ in range(5):
            assert (await client.messages("hi", MODEL)).key_name == "a2"
        shown = {key["name"]: key for key in client.get_key_metrics()["keys"]}
        totals = upstream.report().totals
    assert (totals.answered, totals.refused) == (5, {"invalid_key": 1, "spend": 1})
    assert shown["a1"]["status"] == "DISABLED"
    assert shown["b1"]["exhausted_models"] == {"*": "2026-12-01T00:00:00.000000+00:00"}


@pytest.mark.parametrize(
    "kind", ["prefixed_error", "silent_eof", "half_event", "malformed_sse", "reset_mid"]
)
async def test_a_stream_that_breaks_says_so(kind: str, clock: VirtualClock) -> None:
    async with (
        Emulator(CONFIG, clock=clock) as upstream,
        ResilientClaudeClient(keys=LISTED, base_url=upstream.base_url, clock=clock) as client,
    ):
        upstream.script(kind, after=1)
        whole = [text async for text in client.messages_stream("hi", MODEL)]
        assert upstream.report().totals.failed == 1  # before the first word: tried again, unseen
        upstream.script(kind, after=5)
        texts = client.messages_stream("hi", MODEL)
        heard = [await anext(texts), await anext(texts)]
        assert heard == whole[:2]
        with pytest.raises(ClaudeCallError) as caught:
            await anext(texts)
    assert caught.value.kind in ("unavailable", "protocol", "network")
