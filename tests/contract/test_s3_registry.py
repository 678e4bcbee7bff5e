"""S3-01, S3-11 to S3-14: what models there are, which suits, which answer – against the emulator."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.support import MODEL, Ear, bad_key, failure, key, keys, quota, reply, said

from headgate.backend import (
    BackendConfig,
    ErrorType,
    GeminiBackend,
    GeminiError,
    GeminiRequest,
    ModelCapabilities,
    ModelMetadata,
    ModelNotFoundError,
    ModelPricing,
    Provenance,
    ValidationStatus,
)
from headgate.core.call import Usage
from headgate.core.outcome import Kind
from headgate.emulator import Emulator, EmulatorConfig, Fault, Project
from headgate.emulator import Model as Emulated
from headgate.policy.models import ModelPolicy
from headgate.policy.price_list import PriceList, PriceRow, Rates
from headgate.policy.recommendation import stems
from headgate.policy.registry import ModelRegistry, merge_cards, newest_first
from headgate.testing import Answer, Broken, ScriptedTransport, Sent, VirtualClock
from headgate.wiring.model_data import gemini_cards, gemini_prices
from headgate.wiring.price_source import read_prices

TODAY = date(2026, 11, 21)
OFFLINE = BackendConfig(model_discovery=False)
FRESH = GeminiRequest("hi", MODEL, use_cache=False)

Ask = Callable[[Sent], Answer | Broken]


def backend(clock: VirtualClock, script: Ask | list[Any] | None = None, **given: Any) -> GeminiBackend:
    """A backend over a script; without one nothing may be asked."""
    given.setdefault("config", OFFLINE if script is None else BackendConfig())
    given.setdefault("keys", keys(2))
    transport = ScriptedTransport(script or [], clock)
    return GeminiBackend(transport=transport, clock=clock, environ={}, **given)


@asynccontextmanager
async def emulated(
    clock: VirtualClock, config: EmulatorConfig | None = None, **given: Any
) -> AsyncIterator[tuple[Emulator, GeminiBackend]]:
    config = config or EmulatorConfig(projects=[Project("p0", {"k0": key(0)})])
    async with Emulator(config, clock=clock) as emulator:
        made = GeminiBackend(keys=keys(1), base_url=emulator.base_url, clock=clock, environ={}, **given)
        async with made:
            yield emulator, made


def listed(*models: dict[str, Any], token: str = "") -> Answer:
    page: dict[str, Any] = {"models": list(models)}
    if token:
        page["nextPageToken"] = token
    return Answer(body=json.dumps(page).encode())


def model(name: str, **fields: Any) -> dict[str, Any]:
    made = {"name": f"models/{name}", "version": "002", "displayName": name.title()}
    methods = ["generateContent", "countTokens", "createCachedContent"]
    return made | {"supportedGenerationMethods": methods, "topK": 64} | fields


# ── S3-01a: shipped data, merged with what the upstream lists ───────────────────────────────────


async def test_s3_01a_the_upstreams_list_is_merged_and_every_field_says_who_told_it(
    clock: VirtualClock,
) -> None:
    config = EmulatorConfig(
        projects=[Project("p0", {"k0": key(0)})],
        models=[Emulated(id="gemini-9-fresh", input_tokens=77_000, display_name="Gemini 9 Fresh")],
    )
    async with emulated(clock, config) as (emulator, made):
        fresh = await made.get_gemini_model_info("gemini-9-fresh")
        assert (fresh.name, fresh.capabilities.max_input_tokens) == ("Gemini 9 Fresh", 77_000)
        assert fresh.pricing == ModelPricing()  # nobody told a price: none is made up
        assert fresh.release_date is None
        assert set(fresh.provenance.values()) == {Provenance.DISCOVERED}
        known = await made.get_gemini_model_info(MODEL)
        assert known.provenance["release_date"] is Provenance.SHIPPED
        assert known.provenance["version"] is Provenance.DISCOVERED
        assert known.provenance["pricing.input_per_million"] is Provenance.SHIPPED
        sources = made.get_gemini_model_sources()
        assert sources.discovered_at is not None
        assert sources.failure is None
        assert emulator.report().projects["p0"].totals.charged_requests == 0


async def test_s3_01a_an_alias_the_upstream_lists_is_no_model_of_its_own(clock: VirtualClock) -> None:
    async with emulated(clock) as (_, made):
        names = [card.id for card in await made.list_gemini_models()]
        assert "gemini-flash-latest" not in names
        assert (await made.get_gemini_model_info("gemini-flash-latest")).id == MODEL


async def test_s3_01a_the_list_is_read_again_after_3600_seconds_and_on_demand(
    clock: VirtualClock,
) -> None:
    made = backend(clock, lambda _: listed(model("a")))
    transport = made._room.generation().engine.transport
    assert isinstance(transport, ScriptedTransport)
    for _ in range(3):
        await made.list_gemini_models()
    assert len(transport.sent) == 1
    await clock.sleep(3599)
    await made.list_gemini_models()
    assert len(transport.sent) == 1
    await clock.sleep(1)
    await made.get_gemini_model_info("a")
    assert len(transport.sent) == 2
    await made.refresh_gemini_models()
    assert len(transport.sent) == 3


async def test_s3_01a_a_task_keeps_it_fresh(clock: VirtualClock) -> None:
    made = backend(clock, lambda _: listed(model("a")))
    async with asyncio.timeout(3 * 3600 + 1):
        task = asyncio.ensure_future(made.keep_gemini_models_fresh())
        await clock.sleep(3 * 3600 + 0.5)
        task.cancel()
    transport = made._room.generation().engine.transport
    assert isinstance(transport, ScriptedTransport)
    assert [sent.at for sent in transport.sent] == [0, 3600, 7200, 10_800]


async def test_s3_01a_many_questions_at_once_ask_the_upstream_once(clock: VirtualClock) -> None:
    made = backend(clock, [Answer(body=listed(model("a")).body, delay=1.0)])
    await asyncio.gather(*(made.list_gemini_models() for _ in range(20)))
    transport = made._room.generation().engine.transport
    assert isinstance(transport, ScriptedTransport)
    assert len(transport.sent) == 1


async def test_s3_01a_an_upstream_that_is_away_leaves_what_is_known(clock: VirtualClock) -> None:
    away = Broken(Kind.NETWORK, "No connection.")
    answers = [listed(model(MODEL, inputTokenLimit=5)), away, away, away, away]
    made = backend(clock, answers)
    assert (await made.get_gemini_model_info(MODEL)).capabilities.max_input_tokens == 5
    await clock.sleep(3600)
    assert (await made.get_gemini_model_info(MODEL)).capabilities.max_input_tokens == 5
    assert made.get_gemini_model_sources().failure == "No connection."
    with pytest.raises(GeminiError) as caught:
        await made.refresh_gemini_models()
    assert caught.value.error_type is ErrorType.NETWORK_ERROR
    assert (await made.get_gemini_model_info(MODEL)).capabilities.max_input_tokens == 5


async def test_s3_01a_after_a_failure_it_is_left_alone_for_a_minute(clock: VirtualClock) -> None:
    made = backend(clock, [Broken(Kind.NETWORK, "No connection."), listed(model("late"))])
    transport = made._room.generation().engine.transport
    assert isinstance(transport, ScriptedTransport)
    for _ in range(5):
        await made.list_gemini_models()
        await clock.sleep(10)
    assert len(transport.sent) == 1
    await clock.sleep(10)
    assert (await made.get_gemini_model_info("late")).id == "late"


async def test_s3_01a_pages_are_followed_and_a_list_without_end_ends(clock: VirtualClock) -> None:
    made = backend(clock, [listed(model("a"), token="t1"), listed(model("b"))])
    names = {card.id for card in await made.list_gemini_models()}
    assert {"a", "b"} <= names
    endless = backend(clock, lambda _: listed(model("a"), token="again"))
    await endless.list_gemini_models()
    transport = endless._room.generation().engine.transport
    assert isinstance(transport, ScriptedTransport)
    assert len(transport.sent) == 20


async def test_s3_01a_a_token_that_would_change_the_url_is_not_followed(clock: VirtualClock) -> None:
    made = backend(clock, [listed(model("a"), token="x&key=1#")])
    with pytest.raises(GeminiError, match="page token"):
        await made.refresh_gemini_models()


async def test_s3_01a_a_dead_key_is_passed_over_and_a_page_that_is_none_is_said(
    clock: VirtualClock,
) -> None:
    made = backend(clock, [bad_key(echo=key(0)), listed(model("a"))])
    assert (await made.refresh_gemini_models()).discovered == 1
    proxy = backend(clock, [Answer(body=b"<html>welcome</html>")])
    with pytest.raises(GeminiError, match="no model list"):
        await proxy.refresh_gemini_models()
    none = backend(clock, [bad_key(echo=key(0)), bad_key(echo=key(1))])
    with pytest.raises(GeminiError) as caught:
        await none.refresh_gemini_models()
    assert caught.value.error_type is ErrorType.INVALID_API_KEY


async def test_s3_01a_models_can_be_added_and_corrected_by_configuration(clock: VirtualClock) -> None:
    own = ModelMetadata(
        id="house-model",
        aliases=("house",),
        recommended_use_cases=("poetry",),
        pricing=ModelPricing(input_per_million=1.0, output_per_million=2.0),
    )
    mended = ModelMetadata(id=MODEL, capabilities=ModelCapabilities(max_input_tokens=1000))
    made = backend(clock, config=BackendConfig(models=[own, mended], model_discovery=False))
    assert (await made.get_gemini_model_info("house")).id == "house-model"
    card = await made.get_gemini_model_info(MODEL)
    assert card.capabilities.max_input_tokens == 1000
    assert card.provenance["capabilities.max_input_tokens"] is Provenance.CONFIGURED
    assert card.capabilities.max_output_tokens == 65_536  # what it does not say stays
    assert [one.id for one in await made.recommend_gemini_model("a poem of poetry")] == ["house-model"]


async def test_s3_01a_without_a_key_the_shipped_data_answers(clock: VirtualClock) -> None:
    made = GeminiBackend(environ={}, clock=clock)
    assert len(await made.list_gemini_models()) >= 20
    assert "key" in (made.get_gemini_model_sources().failure or "")


# ── S3-01b: capability ──────────────────────────────────────────────────────────────────────────


def shipped() -> ModelRegistry:
    return ModelRegistry(merge_cards([(Provenance.SHIPPED, gemini_cards())]))


def test_s3_01b_what_a_model_lacks_is_refused_with_one_that_has_it() -> None:
    sentence = shipped().refusal("gemini-3.1-flash-image", ["function_calling"], TODAY)
    assert sentence is not None
    assert "function calling" in sentence
    named = sentence.rsplit(" ", 3)[1]
    card = shipped().find(named)
    assert card is not None
    assert card.capabilities.function_calling
    assert not card.retired(TODAY)


def test_s3_01b_what_nobody_told_is_not_held_against_a_model() -> None:
    registry = ModelRegistry([ModelMetadata(id="new")])
    assert registry.refusal("new", ["image", "json_mode"], TODAY) is None
    assert registry.refusal("never-heard-of", ["image"], TODAY) is None


def test_s3_01b_where_no_model_has_it_none_is_named() -> None:
    card = ModelMetadata(id="mute", capabilities=ModelCapabilities(json_mode=False))
    assert ModelRegistry([card]).refusal("mute", ["json_mode"], TODAY) == "Model mute has no JSON mode."


# ── S3-01c, f: versions, dates, successors ──────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["gemini-2.0-flash", "gemini-2.0-flash-exp", "gemini-exp-1206"])
async def test_s3_01f_the_models_of_the_description_are_entries_with_successors(
    name: str, clock: VirtualClock
) -> None:
    card = await backend(clock).get_gemini_model_info(name)
    assert card.dead(TODAY)
    assert card.successor is not None
    resolved = shipped().resolve(name, TODAY, ModelPolicy.SUCCESSOR)
    assert resolved.model.id == card.successor
    assert resolved.warning is not None


def test_s3_01c_every_successor_lives_and_every_alias_leads_to_one_model() -> None:
    registry = shipped()
    for card in registry.cards:
        if card.retired(TODAY) and card.successor is not None:
            resolved = registry.resolve(card.id, TODAY, ModelPolicy.SUCCESSOR).model
            assert not resolved.retired(TODAY), card.id
        for alias in card.aliases:
            assert registry.find(alias) is card


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("gemini-2.5-flash", date(2026, 12, 1)),
        ("gemini-2.0-flash", date(2026, 6, 1)),
        ("imagen-4.0-generate-001", date(2026, 8, 17)),
        ("gemini-3.1-flash-lite", date(2027, 5, 7)),
    ],
)
def test_s3_01c_dates_are_those_of_the_dated_data(name: str, day: date) -> None:
    card = shipped().find(name)
    assert card is not None
    assert card.deprecation_date == day


async def test_s3_01c_a_call_goes_to_the_successor_without_what_that_takes_not(
    clock: VirtualClock,
) -> None:
    made = backend(clock, lambda _: said("hi"))
    request = GeminiRequest("Explain tides", "gemini-2.0-flash-exp", temperature=0.7, top_k=10)
    answer = await made.execute_gemini_enhanced(request)
    transport = made._room.generation().engine.transport
    assert isinstance(transport, ScriptedTransport)
    (sent,) = transport.sent
    assert "/models/gemini-3.5-flash-lite:generateContent" in sent.request.url
    assert b"temperature" not in sent.request.body  # deprecated with gemini-3.6, appendix C
    assert not hasattr(answer, "__aiter__")


# ── S3-11, S3-12 ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("asked", "near"),
    [("gemini-3.8-flahs", MODEL), ("Gemini-3.8-Flash", MODEL), ("flash-lite", "gemini-3.5-flash-lite")],
)
async def test_s3_11_an_unknown_name_is_a_typed_error_with_near_matches(
    asked: str, near: str, clock: VirtualClock
) -> None:
    with pytest.raises(ModelNotFoundError, match="Did you mean") as caught:
        await backend(clock).get_gemini_model_info(asked)
    assert caught.value.near[0] == near
    assert caught.value.error_type is ErrorType.MODEL_NOT_FOUND
    assert caught.value.http_status == 404


async def test_s3_11_a_name_like_nothing_has_no_near_match(clock: VirtualClock) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        await backend(clock).get_gemini_model_info("zzz")
    assert caught.value.near == ()


async def test_s3_12_newest_first_and_each_once(clock: VirtualClock) -> None:
    cards = await backend(clock).list_gemini_models()
    names = [card.id for card in cards]
    assert len(names) == len(set(names))
    dated = [card.release_date for card in cards if card.release_date is not None]
    assert dated == sorted(dated, reverse=True)
    assert names.index("gemini-4-argon") < names.index(MODEL)  # undated, but of a newer generation


def test_s3_12_an_undated_model_is_no_newer_than_its_successor() -> None:
    cards = [
        ModelMetadata(id="gemini-3-b", release_date=date(2026, 1, 1)),
        ModelMetadata(id="gemini-3-b-preview", successor="gemini-3-b"),
        ModelMetadata(id="gemini-3-c", release_date=date(2026, 5, 1)),
        ModelMetadata(id="other"),
    ]
    assert [card.id for card in newest_first(cards)] == [
        "gemini-3-c",
        "gemini-3-b",
        "gemini-3-b-preview",
        "other",
    ]


# ── S3-13: recommendation ───────────────────────────────────────────────────────────────────────


async def test_s3_13_words_meet_as_words_not_as_pieces_of_words(clock: VirtualClock) -> None:
    made = backend(clock)
    assert await made.recommend_gemini_model("art") == []  # is in "chart" and "smart", and no word
    assert await made.recommend_gemini_model("zebra crossing") == []
    assert stems("decode") & stems("code") == frozenset()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("summarise", "summarization"),
        ("summary", "summaries"),
        ("translate", "translations"),
        ("classify", "classification"),
        ("code", "coding"),
        ("embed", "embeddings"),
        ("images", "image"),
        ("analyse", "analysis"),
        ("agentic", "agents"),
        ("generate", "generation"),
    ],
)
def test_s3_13_forms_of_a_word_meet(one: str, other: str) -> None:
    assert stems(one) == stems(other)


@pytest.mark.parametrize(
    "use_case",
    ["chat", "coding", "summarise contracts", "embeddings", "image generation", "complex reasoning"],
)
async def test_s3_13_dead_models_never_and_reasons_always(use_case: str, clock: VirtualClock) -> None:
    found = await backend(clock).recommend_gemini_model(use_case)
    assert found
    assert all(not one.metadata.retired(TODAY) for one in found)
    assert all(one.reasons and one.reasons[0].startswith("for ") for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert all(0 < one.score <= 1 for one in found)


async def test_s3_13_more_matching_words_rank_higher(clock: VirtualClock) -> None:
    found = await backend(clock).recommend_gemini_model("legal analysis of long documents")
    assert found[0].id == "gemini-4-argon"


async def test_s3_13_a_budget_is_kept_and_a_model_without_a_price_cannot_keep_it(
    clock: VirtualClock,
) -> None:
    unpriced = ModelMetadata(id="unpriced", recommended_use_cases=("chat",))
    made = backend(clock, config=BackendConfig(models=[unpriced], model_discovery=False))
    everything = await made.recommend_gemini_model("chat")
    cheap = await made.recommend_gemini_model("chat", budget=0.002)
    assert "unpriced" in [one.id for one in everything]
    assert any("price is not known" in said for one in everything for said in one.reasons)
    assert 0 < len(cheap) < len(everything)
    assert all(one.cost_per_call is not None and one.cost_per_call <= 0.002 for one in cheap)
    # 1000 in and 500 out at 0.3 and 2.5 dollars a million
    lite = next(one for one in cheap if one.id == "gemini-3.5-flash-lite")
    assert lite.cost_per_call == pytest.approx(0.00155)


async def test_s3_13_what_is_needed_must_be_there(clock: VirtualClock) -> None:
    made = backend(clock)
    needing = await made.recommend_gemini_model("high volume", needs=["function_calling"])
    assert "gemini-3.1-flash-lite-image" not in [one.id for one in needing]
    assert needing
    with pytest.raises(GeminiError, match="telepathy is no capability") as caught:
        await made.recommend_gemini_model("chat", needs=["telepathy"])
    assert caught.value.error_type is ErrorType.INVALID_PARAMETERS


@pytest.mark.parametrize("use_case", ["", "   ", "the for with", "!?"])
async def test_s3_13_a_use_case_that_says_nothing_is_refused(
    use_case: str, clock: VirtualClock
) -> None:
    with pytest.raises(GeminiError, match="says nothing"):
        await backend(clock).recommend_gemini_model(use_case)


async def test_s3_13_measured_latency_counts_and_can_exclude(clock: VirtualClock) -> None:
    def script(sent: Sent) -> Answer:
        slow = "gemini-3.8-flash" in sent.request.url
        return said("hi", delay=4.0 if slow else 0.5)

    made = backend(clock, script, config=OFFLINE)
    for name in ("gemini-3.8-flash", "gemini-3.5-flash"):
        await made.execute_gemini_enhanced(GeminiRequest("hi", name))
    card = await made.get_gemini_model_info("gemini-3.8-flash")
    assert card.performance.avg_latency_ms == pytest.approx(4000)
    assert card.performance.tokens_per_second == pytest.approx(3 / 4)
    assert card.provenance["performance.avg_latency_ms"] is Provenance.OBSERVED
    quick = await made.recommend_gemini_model("chat", max_latency_ms=1000)
    names = [one.id for one in quick]
    assert "gemini-3.8-flash" not in names
    assert "gemini-3.5-flash" in names
    said_of = {one.id: " ".join(one.reasons) for one in quick}
    assert "500 ms" in said_of["gemini-3.5-flash"]
    assert "not been measured" in said_of["gemini-3.6-flash"]


# ── S3-14: availability ─────────────────────────────────────────────────────────────────────────


async def test_s3_14_costs_no_generation_unless_asked(clock: VirtualClock) -> None:
    async with emulated(clock) as (emulator, made):
        assert await made.validate_gemini_model(MODEL)
        assert await made.validate_gemini_model("gemini-flash-latest")
        assert emulator.report().projects["p0"].totals.charged_requests == 0
        assert await made.validate_gemini_model(MODEL, probe=True)
        assert emulator.report().projects["p0"].totals.charged_requests == 1
        entry = made.get_gemini_model_entry(MODEL)
        assert entry.validation_status is ValidationStatus.VALID
        assert entry.last_validated is not None


async def test_s3_14_a_model_that_is_not_there_is_false_not_an_error(clock: VirtualClock) -> None:
    async with emulated(clock) as (_, made):
        assert not await made.validate_gemini_model("gemini-3.8-flahs")
        assert not await made.validate_gemini_model("gemini-exp-1206")
        assert made.get_gemini_model_entry("gemini-exp-1206").validation_status is (
            ValidationStatus.UNAVAILABLE
        )


async def test_s3_14_what_says_nothing_of_the_model_is_an_error(clock: VirtualClock) -> None:
    fault = EmulatorConfig(projects=[Project("p0", {"k0": key(0)})], faults=[Fault("internal", 1.0)])
    async with emulated(clock, fault) as (_, made):
        with pytest.raises(GeminiError) as caught:
            await made.validate_gemini_model(MODEL)
        assert caught.value.error_type is ErrorType.INTERNAL_SERVER_ERROR


async def test_s3_14_a_caller_may_bring_a_key_which_serves_nobody_else(clock: VirtualClock) -> None:
    own = "AIzaCANARY-own-" + "y" * 20
    seen: list[str] = []

    def script(sent: Sent) -> Answer:
        seen.append(sent.credential["x-goog-api-key"])
        return Answer(body=json.dumps(model(MODEL)).encode())

    made = backend(clock, script, config=OFFLINE)
    assert await made.validate_gemini_model(MODEL, own)
    assert await made.validate_gemini_model(MODEL)
    assert seen == [own, key(0)]
    assert made.get_gemini_model_entry(MODEL).last_validated is not None


async def test_s3_14_a_thinking_model_that_had_one_token_and_no_words_is_alive(
    clock: VirtualClock,
) -> None:
    def script(sent: Sent) -> Answer:
        if sent.request.method == "GET":
            return Answer(body=json.dumps(model(MODEL)).encode())
        assert json.loads(sent.request.body)["generationConfig"] == {"maxOutputTokens": 1}
        silent = reply("", finish="MAX_TOKENS")
        return Answer(body=json.dumps(silent).encode())

    assert await backend(clock, script, config=OFFLINE).validate_gemini_model(MODEL, probe=True)


async def test_s3_14_a_probe_the_upstream_has_no_model_for_is_false(clock: VirtualClock) -> None:
    def script(sent: Sent) -> Answer:
        if sent.request.method == "GET":
            return Answer(body=json.dumps(model(MODEL)).encode())
        return failure(404, "models/x is not found for API version v1beta", "NOT_FOUND")

    assert not await backend(clock, script, config=OFFLINE).validate_gemini_model(MODEL, probe=True)


@pytest.mark.parametrize("name", ["../x", "a b", "", "x?y=1"])
async def test_s3_14_a_name_that_is_none_is_not_sent(name: str, clock: VirtualClock) -> None:
    made = backend(clock)
    with pytest.raises(GeminiError) as caught:
        await made.validate_gemini_model(name)
    assert caught.value.error_type is ErrorType.INVALID_PARAMETERS


async def test_s3_4_4_an_entry_counts_what_this_process_saw(clock: VirtualClock) -> None:
    answers = iter([said("a", delay=1.0), said("b", delay=3.0), failure(400, "no", "INVALID_ARGUMENT")])
    made = backend(clock, lambda _: next(answers), config=OFFLINE, observers=[Ear()])
    for _ in range(2):
        await made.execute_gemini_enhanced(FRESH)
    with pytest.raises(GeminiError):
        await made.execute_gemini_enhanced(FRESH)
    entry = made.get_gemini_model_entry(MODEL)
    assert (entry.usage_count, entry.error_count, entry.avg_response_time) == (3, 1, 2000.0)
    assert entry.validation_status is ValidationStatus.UNKNOWN


async def test_s3_01g_waits_and_callers_who_left_say_nothing_of_a_model(clock: VirtualClock) -> None:
    answers = iter([quota(hint="20s"), said("a", delay=2.0), said("b", delay=90.0)])
    made = backend(clock, lambda _: next(answers), config=OFFLINE, keys=keys(1))
    await made.execute_gemini_enhanced(FRESH)
    assert clock.monotonic() >= 22
    left = asyncio.ensure_future(made.execute_gemini_enhanced(FRESH))
    await clock.sleep(5)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    entry = made.get_gemini_model_entry(MODEL)
    assert (entry.usage_count, entry.error_count) == (1, 0)
    assert entry.avg_response_time == pytest.approx(2000)


async def test_s3_4_4_limits_of_a_card_are_what_all_projects_have_together(clock: VirtualClock) -> None:
    config = BackendConfig(quotas={"rpm": 10, "tpd": 1000}, model_discovery=False)
    made = backend(clock, lambda _: said(), config=config, keys=keys(3))
    await made.execute_gemini_enhanced(GeminiRequest("hi", MODEL))
    performance = (await made.get_gemini_model_info(MODEL)).performance
    assert (performance.rate_limit_rpm, performance.rate_limit_tpd) == (30, 3000)
    assert performance.concurrency_limit is None


# ── prices ──────────────────────────────────────────────────────────────────────────────────────

PUBLIC = [
    {"id": "openai", "models": [{"id": "gemini-3.8-flash", "prices": {"input_mtok": 99}}]},
    {
        "id": "google",
        "models": [
            {"id": "gemini-3.8-flash", "prices": {"input_mtok": 0.5, "output_mtok": 2, "extra": 1}},
            {
                "id": "gemini-dear",
                "prices": {
                    "input_mtok": {"base": 1, "tiers": [{"start": 200000, "price": 2}]},
                    "output_mtok": 8,
                },
            },
            {
                "id": "gemini-4-argon",
                "prices": [
                    {"prices": {"input_mtok": 2, "output_mtok": 10}},
                    {
                        "constraint": {"start_date": "2026-12-01"},
                        "prices": {"input_mtok": 4, "output_mtok": 20},
                    },
                ],
            },
            {"id": "by-the-hour", "prices": [{"constraint": {"start_time": "08:00"}, "prices": {}}]},
            {"id": "unreadable", "prices": {"input_mtok": {"free": True}}},
            {"id": "no-input", "prices": {"output_mtok": 1}},
        ],
    },
]


async def test_s3_01g_prices_are_read_anew_on_request_only(clock: VirtualClock) -> None:
    made = backend(clock, [Answer(body=json.dumps(PUBLIC).encode())], config=OFFLINE)
    transport = made._room.generation().engine.transport
    assert isinstance(transport, ScriptedTransport)
    old = await made.get_gemini_model_info(MODEL)
    assert transport.sent == []
    sources = await made.refresh_gemini_prices("https://prices.example/data.json")
    assert sources.prices_from == "https://prices.example/data.json"
    assert transport.sent[0].credential == {}  # the key is none of its business
    new = await made.get_gemini_model_info(MODEL)
    assert (old.pricing.input_per_million, new.pricing.input_per_million) == (0.75, 0.5)
    assert new.provenance["pricing.input_per_million"] is Provenance.PRICES
    other = await made.get_gemini_model_info("gemini-3.5-flash")  # not in the file
    assert other.pricing.input_per_million == 1.5
    assert other.provenance["pricing.input_per_million"] is Provenance.SHIPPED


@pytest.mark.parametrize(
    "answer",
    [
        Broken(Kind.NETWORK, "No connection."),
        Answer(404, b"not found"),
        Answer(200, b"<html>"),
        Answer(200, b"[]"),
        Answer(200, b"[" * 100_000),
    ],
    ids=["away", "404", "page", "empty", "nested"],
)
async def test_s3_01g_prices_that_cannot_be_read_leave_the_known_ones(
    answer: Any, clock: VirtualClock
) -> None:
    made = backend(clock, [answer], config=OFFLINE)
    with pytest.raises(GeminiError):
        await made.refresh_gemini_prices()
    assert (await made.get_gemini_model_info(MODEL)).pricing.input_per_million == 0.75


def test_s3_01g_a_public_price_is_read_by_its_day_and_step_or_not_at_all() -> None:
    prices = read_prices(json.dumps(PUBLIC).encode(), TODAY, "test")
    assert [name for name in ("by-the-hour", "unreadable", "no-input") if name in prices] == []
    assert prices.rates("gemini-4-argon", date(2026, 11, 30)) == Rates(Decimal(2), Decimal(10))
    assert prices.rates("gemini-4-argon", date(2026, 12, 1)) == Rates(Decimal(4), Decimal(20))
    assert prices.rates("gemini-dear", TODAY, 200_000) == Rates(Decimal(1), Decimal(8))
    assert prices.rates("gemini-dear", TODAY, 200_001) == Rates(Decimal(2), Decimal(8))
    assert prices.rates(MODEL, TODAY) == Rates(Decimal("0.5"), Decimal(2))


async def test_s3_05c_a_price_that_begins_on_a_day_counts_from_that_day(clock: VirtualClock) -> None:
    made = backend(clock)
    card = await made.get_gemini_model_info(MODEL)
    assert (card.pricing.input_per_million, card.pricing.changes_on) == (0.75, date(2027, 1, 1))
    clock.step_wall(60 * 86_400)
    card = await made.get_gemini_model_info(MODEL)
    assert (card.pricing.input_per_million, card.pricing.changes_on) == (1.5, None)


def test_s3_05c_cost_is_exact_by_kind_of_token_and_unknown_without_a_price() -> None:
    usage = Usage(prompt=1_000_000, cached=400_000, output=10_000, thoughts=30_000)
    cost = gemini_prices().cost("gemini-3.5-flash", usage, TODAY)
    assert cost is not None
    assert (cost.input, cost.cached) == (Decimal("0.9"), Decimal("0.06"))
    assert (cost.output, cost.reasoning) == (Decimal("0.09"), Decimal("0.27"))
    assert cost.total == Decimal("1.32")
    assert gemini_prices().cost("never-heard-of", usage, TODAY) is None
    long = gemini_prices().cost("gemini-2.5-pro", Usage(prompt=200_001), TODAY)
    assert long is not None
    assert long.total == Decimal("2.5") * 200_001 / 1_000_000
    embedded = gemini_prices().cost("gemini-embedding-001", Usage(prompt=1000), TODAY)
    assert embedded is not None
    assert embedded.total == Decimal("0.00015")
    assert gemini_prices().cost("gemini-embedding-001", Usage(output=1), TODAY) is None


def test_a_row_before_its_day_is_no_price() -> None:
    later = PriceList({"m": [PriceRow(Rates(Decimal(1)), date(2027, 1, 1))]}, TODAY, "t")
    assert later.rates("m", TODAY) is None
    assert later.next_change("m", TODAY) == date(2027, 1, 1)


# ── the data ────────────────────────────────────────────────────────────────────────────────────


def test_the_shipped_data_is_dated_and_every_living_model_has_a_price_and_uses() -> None:
    folder = Path(__file__).parents[2] / "src" / "headgate" / "wiring" / "data"
    for name in ("gemini-cards.toml", "gemini-prices.toml", "gemini-models.toml"):
        assert isinstance(tomllib.loads((folder / name).read_text(encoding="utf-8"))["date"], date)
    for card in gemini_cards():
        if not card.retired(TODAY):
            assert card.id in gemini_prices(), card.id
            assert card.recommended_use_cases, card.id
            assert card.description, card.id


def test_s3_01g_prices_and_limits_agree_with_a_second_public_table() -> None:
    table = Path(__file__).parents[1] / "data" / "gemini" / "second-prices.json"
    theirs = json.loads(table.read_text(encoding="utf-8"))["models"]
    registry, compared = shipped(), 0
    for name, row in theirs.items():
        short, long = (gemini_prices().rates(name, TODAY, tokens) for tokens in (1, 200_001))
        assert short is not None
        assert long is not None
        assert short.input == Decimal(str(row["input"])), name
        assert (short.output or 0) == Decimal(str(row["output"])), name
        assert long.input == Decimal(str(row.get("long_input", row["input"]))), name
        assert (long.output or 0) == Decimal(str(row.get("long_output", row["output"]))), name
        if short.cached_input is not None:
            assert short.cached_input == Decimal(str(row["cached_input"])), name
        card = registry.find(name)
        assert card is not None
        limits = card.capabilities.max_input_tokens, card.capabilities.max_output_tokens
        assert limits == (row.get("max_input_tokens"), row.get("max_output_tokens")), name
        compared += 1
    assert compared == 20


def test_the_emulator_and_the_registry_agree_on_limits_that_both_know() -> None:
    raw = Path(__file__).parents[2] / "src" / "headgate" / "emulator" / "data" / "models.json"
    registry = shipped()
    compared = 0
    for row in json.loads(raw.read_text(encoding="utf-8"))["models"]:
        card = registry.find(row["id"])
        assert card is not None, row["id"]
        if "input_tokens" in row and card.capabilities.max_input_tokens is not None:
            assert card.capabilities.max_input_tokens == row["input_tokens"], row["id"]
            compared += 1
    assert compared >= 5
