"""The backend over HTTP: its fifteen commands (S3-08 to S3-22), and what goes with them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from headgate.backend.accounts import ErrorReport, ForecastOf, UsageForecast
from headgate.backend.configuration import ConfigChange
from headgate.backend.measures import (
    BackendStatus,
    CacheStats,
    HealthStatus,
    ModelMetrics,
    MonitoringMetrics,
    PerformanceAnalytics,
)
from headgate.backend.registry import ModelSources
from headgate.backend.settings import BackendConfig
from headgate.backend.structures import (
    ConversationContext,
    GeminiRequest,
    GeminiResponse,
    StreamingChunk,
)
from headgate.core.model_card import ModelMetadata
from headgate.gateway.manage.house import House
from headgate.gateway.manage.orders import Order, What
from headgate.gateway.manage.pages import Page, Paged, cut
from headgate.gateway.manage.table import Ask, NoQuery, Stream
from headgate.gateway.manage.trouble import TroubleError
from headgate.gateway.manage.written import to_json
from headgate.policy.recommendation import ModelRecommendation

__all__ = [
    "Code",
    "Forgotten",
    "Hours",
    "Last",
    "Metrics",
    "OfCaller",
    "Process",
    "Range",
    "Recommendations",
    "UseCase",
    "Valid",
    "Validate",
    "ask_code",
    "ask_model",
    "forecast",
    "forget_session",
    "list_errors",
    "list_models",
    "process",
    "put_config",
    "recommend",
    "refresh_models",
    "show_analytics",
    "show_backend_status",
    "show_config",
    "show_config_history",
    "show_health",
    "show_metrics",
    "show_model",
    "show_performance",
    "show_reply_cache",
    "show_session",
    "validate_model",
]

Model = Annotated[str, Meta(min_length=1, max_length=200, description="A name or an alias.")]


class Process(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `process_gemini_request` takes."""

    prompt: str
    model: Model
    session_id: str | None = None
    stream: bool = False


class Code(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `execute_gemini_code_enhanced` takes."""

    prompt: str
    model: Model
    project_path: str
    temperature: float | None = None
    max_output_tokens: int | None = None
    top_k: int | None = None
    top_p: float | None = None
    stop_sequences: list[str] | None = None
    system_instruction: str | None = None


class Validate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is validated.

    Attributes:
        probe: also generate one token, which counts against quota and is billed.
    """

    probe: bool = False


class Valid(Struct, frozen=True):
    """Whether the upstream has the model for these keys."""

    model: str
    valid: bool


class OfCaller(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose session: callers have sessions of their own."""

    caller: Annotated[str, Meta(max_length=200, description="As the conversation was held with.")] = ""


class Forgotten(Struct, frozen=True):
    """Whether there was anything to forget."""

    forgotten: bool


class UseCase(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model is for."""

    use_case: Annotated[str, Meta(min_length=1, max_length=500)]
    budget: Annotated[float, Meta(ge=0, description="Dollars a call may cost.")] | None = None
    input_tokens: Annotated[int, Meta(ge=0, le=10**9)] = 1000
    output_tokens: Annotated[int, Meta(ge=0, le=10**9)] = 500
    needs: Annotated[str, Meta(description="Capabilities, separated by commas.")] = ""
    max_latency_ms: Annotated[float, Meta(ge=0)] | None = None


class Recommendations(Struct, frozen=True):
    """Models that suit, the best first, with reasons."""

    models: list[ModelRecommendation]


class Metrics(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests."""

    model: Model | None = None
    limit: Annotated[int, Meta(ge=0, le=1000)] = 100


class Range(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model over a range of time."""

    model: Model
    start: Annotated[datetime, Meta(tz=True)]
    end: Annotated[datetime, Meta(tz=True)]


class Hours(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is forecast."""

    of: ForecastOf = ForecastOf.COST
    model: Model | None = None
    hours: Annotated[int, Meta(ge=1, le=744)] = 24


class Last(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many."""

    limit: Annotated[int, Meta(ge=0, le=100)] = 100


# ── asking ──────────────────────────────────────────────────────────────────────────────────────


async def ask_model(house: House, ask: Ask[NoQuery, GeminiRequest]) -> GeminiResponse | Stream:
    """S3-08: the answer to a request, whole or in pieces."""
    return _told(await house.backend.execute_gemini_enhanced(ask.body))


async def process(house: House, ask: Ask[NoQuery, Process]) -> GeminiResponse | Stream:
    """S3-09: the answer to a prompt, with the accepted settings."""
    body = ask.body
    return _told(
        await house.backend.process_gemini_request(
            body.prompt, body.model, body.session_id, body.stream
        )
    )


async def ask_code(house: House, ask: Ask[NoQuery, Code]) -> GeminiResponse:
    """S3-10: a request about a project below one of the configured roots. No file in it is read."""
    body = ask.body
    house.check_project(body.project_path)
    return await house.backend.execute_gemini_code_enhanced(
        body.prompt,
        body.model,
        body.project_path,
        body.temperature,
        body.max_output_tokens,
        body.top_k,
        body.top_p,
        body.stop_sequences,
        body.system_instruction,
    )


def _told(
    answer: GeminiResponse | AsyncGenerator[StreamingChunk],
) -> GeminiResponse | Stream:
    return answer if isinstance(answer, GeminiResponse) else Stream(_events(answer))


async def _events(chunks: AsyncGenerator[StreamingChunk]) -> AsyncGenerator[bytes]:
    """Pieces are `gemini-stream` events, the whole is the `gemini-response` at the end."""
    try:
        async for chunk in chunks:
            whole = chunk.response
            shown = msgspec.structs.replace(chunk, response=None)
            yield b"event: gemini-stream\ndata: %s\n\n" % to_json(shown)
            if whole is not None:
                yield b"event: gemini-response\ndata: %s\n\n" % to_json(whole)
    finally:
        await chunks.aclose()


# ── models ──────────────────────────────────────────────────────────────────────────────────────


async def list_models(house: House, ask: Ask[Paged, None]) -> Page[ModelMetadata]:
    """S3-12: every model once, the newest first."""
    cards = await house.backend.list_gemini_models()
    order = {card.id: number for number, card in enumerate(cards)}

    def place(card: ModelMetadata) -> list[str | int | float]:
        day = card.release_date
        return [-day.toordinal() if day else 0, order[card.id], card.id]

    return Page(*cut(cards, place, ask.query))


async def show_model(house: House, ask: Ask[NoQuery, None]) -> ModelMetadata:
    """S3-11: the card of a model or alias."""
    return await house.backend.get_gemini_model_info(ask.path["model_id"])


async def validate_model(house: House, ask: Ask[NoQuery, Validate]) -> Valid:
    """S3-14: whether the upstream has a model for these keys."""
    name = ask.path["model_id"]
    found = await house.backend.validate_gemini_model(name, probe=ask.body.probe)
    return Valid(name, found)


async def recommend(house: House, ask: Ask[UseCase, None]) -> Recommendations:
    """S3-13: living models for a use case, with reasons."""
    query = ask.query
    found = await house.backend.recommend_gemini_model(
        query.use_case,
        budget=query.budget,
        input_tokens=query.input_tokens,
        output_tokens=query.output_tokens,
        needs=[word.strip() for word in query.needs.split(",") if word.strip()],
        max_latency_ms=query.max_latency_ms,
    )
    return Recommendations(found)


async def refresh_models(house: House, _: Ask[NoQuery, None]) -> ModelSources:
    """Read the upstream's list of models now."""
    return await house.backend.refresh_gemini_models()


# ── sessions ────────────────────────────────────────────────────────────────────────────────────


async def show_session(house: House, ask: Ask[OfCaller, None]) -> ConversationContext:
    """A conversation as it is remembered."""
    name = ask.path["session_id"]
    found = await house.backend.get_gemini_session(name, caller=ask.query.caller)
    if found is None:
        raise TroubleError("not-found", f"There is no session {name[:80]!r}, or it expired.")
    return found


async def forget_session(house: House, ask: Ask[OfCaller, None]) -> Forgotten:
    """Drop a conversation."""
    name = ask.path["session_id"]
    return Forgotten(await house.backend.forget_gemini_session(name, caller=ask.query.caller))


# ── monitoring ──────────────────────────────────────────────────────────────────────────────────


async def show_performance(house: House, _: Ask[NoQuery, None]) -> dict[str, ModelMetrics]:
    """S3-15: each model that was asked."""
    return await house.backend.get_gemini_performance_metrics()


async def show_reply_cache(house: House, _: Ask[NoQuery, None]) -> CacheStats:
    """S3-16: what the backend remembers."""
    return await house.backend.get_gemini_cache_stats()


async def show_metrics(house: House, ask: Ask[Metrics, None]) -> MonitoringMetrics:
    """S3-17: the last requests, the last minute, a model's usage."""
    return await house.backend.get_gemini_monitoring_metrics(ask.query.model, ask.query.limit)


async def show_analytics(house: House, ask: Ask[Range, None]) -> PerformanceAnalytics:
    """S3-18: a model over a range of time."""
    query = ask.query
    return await house.backend.get_gemini_analytics(query.model, query.start, query.end)


async def show_health(house: House, ask: Ask[NoQuery, None]) -> HealthStatus:
    """S3-19: how a model is doing."""
    return await house.backend.get_gemini_health_status(ask.path["model"])


async def show_backend_status(house: House, _: Ask[NoQuery, None]) -> BackendStatus:
    """S3-22: everything at a glance."""
    return await house.backend.get_gemini_backend_status()


async def list_errors(house: House, ask: Ask[Last, None]) -> list[ErrorReport]:
    """S3-04j: the last failures."""
    return list(house.backend.get_gemini_errors(ask.query.limit))


async def forecast(house: House, ask: Ask[Hours, None]) -> UsageForecast:
    """S3-05k: what the coming hours will probably bring."""
    query = ask.query
    found = await house.backend.get_gemini_forecast(query.of, model=query.model, hours=query.hours)
    if found is None:
        raise TroubleError("conflict", "Too little is known yet: a forecast needs two whole hours.")
    return found


# ── configuration ───────────────────────────────────────────────────────────────────────────────


async def show_config(house: House, _: Ask[NoQuery, None]) -> BackendConfig:
    """S3-20: what new requests to the backend meet, secrets masked."""
    return await house.backend.get_gemini_backend_config()


async def put_config(house: House, ask: Ask[NoQuery, BackendConfig]) -> BackendConfig:
    """S3-21: let a whole configuration take over."""
    config = msgspec.Raw(msgspec.json.encode(ask.body))
    await house.orders.give(Order(What.CONFIGURE, "gemini", config=config))
    return await house.backend.get_gemini_backend_config()


async def show_config_history(house: House, _: Ask[NoQuery, None]) -> list[ConfigChange]:
    """The last hundred changes, the newest first."""
    return list(house.backend.get_gemini_config_history())
