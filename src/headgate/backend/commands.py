"""`GeminiBackend`: one object that answers all commands. Each is at home in a room of its own.

models          registry.py       what models there are, and which suits
configuration   configuration.py  what it is told, changed while it runs
calls           execute.py        asking a model, sessions, streams
many at once    batches.py        lists of requests, texts to embed
alerts          alerts.py         what somebody should know of
replies         cache_commands.py what is remembered
monitoring      monitored.py      what was asked, how it went, what it cost, how models are doing
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Self

from headgate.backend.alerts import AlertCommands, broken_models
from headgate.backend.batches import BatchCommands, Batches
from headgate.backend.cache_commands import CacheCommands
from headgate.backend.configuration import ConfigChange, Configuration, read_config
from headgate.backend.embeddings import Embedder
from headgate.backend.errors import gemini_errors
from headgate.backend.execute import Executor
from headgate.backend.generations import EngineRoom, Outside
from headgate.backend.health import RECENT_SECONDS, Health
from headgate.backend.monitored import MonitoringCommands, RoomActivity
from headgate.backend.monitoring import Monitoring
from headgate.backend.reading import read_limits
from headgate.backend.recent_calls import RecentCalls
from headgate.backend.registry import Models, ModelSources
from headgate.backend.sessions import Sessions
from headgate.backend.settings import BackendConfig, LoggingConfig
from headgate.backend.sightings import Sightings
from headgate.backend.structures import (
    ConversationContext,
    GeminiRequest,
    GeminiResponse,
    ModelEntry,
    ModelMetadata,
    StreamingChunk,
)
from headgate.core.call import Usage
from headgate.core.ports import Clock, Observer, QuotaStore, Transport
from headgate.policy.price_list import PriceList
from headgate.policy.recommendation import ModelRecommendation
from headgate.telemetry.alerting import Alerting
from headgate.telemetry.request_log import RequestLog
from headgate.wiring.backend import open_sessions
from headgate.wiring.clock import SystemClock
from headgate.wiring.keys import parse_keys
from headgate.wiring.observers import Observers
from headgate.wiring.price_source import PRICE_URL

__all__ = ["GeminiBackend"]

_log = logging.getLogger("headgate.backend")


class GeminiBackend(MonitoringCommands, AlertCommands, BatchCommands, CacheCommands):
    """Gemini behind one object. Build it anywhere: nothing is opened before the first call, and
    questions about models are answered even where no key is configured.

    Args:
        config: a `BackendConfig`, or one as it came from JSON; None: the defaults.
        keys: a `GEMINI_API_KEYS` text; None: those of environment and file.
        base_url: scheme and host of the API. Default: environment, else Google's.
        transport: what sends, instead of HTTP; it stays yours.
        store: where quota ledgers live, instead of what `config.store` names; it stays yours.
        clock: where time comes from; the default is the machine's clock.
        observers: hear every attempt, wait and call.
        environ: where settings are read from; None: the process environment.

    Raises:
        headgate.core.errors.ConfigurationError: the configuration or the list of keys is wrong.
    """

    def __init__(
        self,
        config: BackendConfig | Mapping[str, object] | None = None,
        *,
        keys: str | None = None,
        base_url: str | None = None,
        transport: Transport | None = None,
        store: QuotaStore | None = None,
        clock: Clock | None = None,
        observers: Sequence[Observer] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        config = BackendConfig() if config is None else read_config(config)
        self._clock = clock = clock or SystemClock()
        self._watched: list[object] = []  # by metrics, as long as it is held here
        sightings = Sightings()
        self._log = RequestLog(_log, "gemini", clock, self._logging, self._secrets)
        self._alerting = Alerting(config.alerts, clock, cost=self._cost, broken=self._broken)
        self._monitoring = Monitoring(
            clock,
            config=lambda: self._room.config,
            prices=self._prices,
            activity=RoomActivity(lambda: self._room),
            environ=environ,
        )
        self._monitoring.book.enabled = config.monitoring_enabled
        recent = RecentCalls(clock, RECENT_SECONDS, lambda: self._room.config.monitoring_enabled)
        heard: tuple[Observer, ...] = (self._log, sightings, self._monitoring.book, *observers)
        self._books = Observers(self._alerting, recent, sightings, self._monitoring.book)
        self._heard = Observers(self._alerting, recent, *heard), Observers(*heard)
        outside = Outside(
            clock=clock,
            observer=self._heard[0],
            guests=self._heard[1],
            keys=None if keys is None else parse_keys(keys, "argument keys"),
            base_url=base_url,
            transport=transport,
            store=store,
            environ=environ,
        )
        self._models = Models(clock, lambda: self._room.config, sightings)
        self._room = EngineRoom(config, outside, self._models.registry_of)
        self._models.enter(self._room)
        kept = open_sessions(config.session_file)
        self._sessions = Sessions(kept, clock, ttl=config.session_ttl_seconds)
        self._configuration = Configuration(self._room, clock, self._took_over)
        self._health = Health(self._room, self._models, recent, self._monitoring.circuits, clock)
        self._executor = Executor(
            self._room.hold,
            models=self._models.registry,
            prices=self._models.prices,
            config=lambda: self._room.config,
            sessions=self._sessions,
            clock=clock,
            log=self._log,
            refused=self._monitoring.refused,
        )
        self._batches = Batches(self._executor, lambda: self._room.config, clock)
        room = self._room
        self._embedder = Embedder(room.hold, lambda: room.config, clock, room.memory)

    def __repr__(self) -> str:
        running = self._room.started
        return f"GeminiBackend({'idle' if running is None else f'generation {running.number}'})"

    # ── asking a model: S3-08 to S3-10 ──────────────────────────────────────────────────────────

    async def execute_gemini_enhanced(
        self, request: GeminiRequest | Mapping[str, object], *, api_key: str | None = None
    ) -> GeminiResponse | AsyncGenerator[StreamingChunk]:
        """S3-08: the answer to a request; with `stream=True` an iterator of its pieces.

        Args:
            request: a `GeminiRequest`, or one as it came from JSON.
            api_key: asks with this key alone.

        Raises:
            GeminiError: `error_type` says what happened. Of a stream, what is wrong with the request
                is raised here and anything later where it is read.
            headgate.core.errors.ConfigurationError: no key is configured, or a setting is wrong.
        """
        return await self._executor.execute(request, api_key=api_key)

    async def process_gemini_request(
        self,
        prompt: str,
        model: str,
        session_id: str | None = None,
        stream: bool = False,
        api_key: str | None = None,
    ) -> GeminiResponse | AsyncGenerator[StreamingChunk]:
        """S3-09: as `execute_gemini_enhanced`, at temperature 0.7, 8192 output tokens, top_k 10 and
        top_p 0.95, each as far as the model takes it."""
        return await self._executor.process(prompt, model, session_id, stream, api_key)

    async def execute_gemini_code_enhanced(  # noqa: PLR0917 - the accepted order
        self,
        prompt: str,
        model: str,
        project_path: str,
        temperature: float | None = None,
        max_output_tokens: int | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        stop_sequences: Sequence[str] | None = None,
        system_instruction: str | None = None,
    ) -> GeminiResponse:
        """S3-10: a request about a project. The path is reported as `cwd`; no file in it is read."""
        return await self._executor.code(
            prompt, model, project_path, temperature, max_output_tokens, top_k, top_p,
            stop_sequences, system_instruction,
        )  # fmt: skip

    async def get_gemini_session(
        self, session_id: str, *, caller: str = "", api_key: str | None = None
    ) -> ConversationContext | None:
        """A conversation as it is remembered; None: there is none, or it expired. Ours.

        Args:
            caller, api_key: as the conversation was held with: each has its own sessions.
        """
        with gemini_errors(self._clock.wall):
            return await self._sessions.context(session_id, caller=caller, api_key=api_key)

    async def forget_gemini_session(
        self, session_id: str, *, caller: str = "", api_key: str | None = None
    ) -> bool:
        """Drop a conversation. Whether there was one. Ours.

        Args:
            caller, api_key: as the conversation was held with: each has its own sessions.
        """
        with gemini_errors(self._clock.wall):
            return await self._sessions.forget(session_id, caller=caller, api_key=api_key)

    # ── models: S3-11 to S3-14 ──────────────────────────────────────────────────────────────────

    async def get_gemini_model_info(self, model_id: str) -> ModelMetadata:
        """S3-11: the card of a model or alias.

        Raises:
            ModelNotFoundError: nobody has told of such a model; `near` holds similar names.
        """
        return await self._models.info(model_id)

    async def list_gemini_models(self) -> list[ModelMetadata]:
        """S3-12: every model once, the newest first; dead ones too, for their successors."""
        return await self._models.listed()

    async def recommend_gemini_model(
        self,
        use_case: str,
        *,
        budget: float | None = None,
        input_tokens: int = 1000,
        output_tokens: int = 500,
        needs: Sequence[str] = (),
        max_latency_ms: float | None = None,
    ) -> list[ModelRecommendation]:
        """S3-13: living models with a use case like this one, the best first, with reasons.

        Args:
            use_case: what the model is for, in words.
            budget: dollars a call may cost.
            input_tokens, output_tokens: size of a typical call.
            needs: capabilities: text, image, code, function_calling, json_mode, system_instructions,
                context_caching.
            max_latency_ms: leaves out what was measured here to be slower.

        Raises:
            GeminiError: the use case says nothing, a capability is not known, or a limit is none.
        """
        with gemini_errors(self._clock.wall):
            limits = read_limits(budget, input_tokens, output_tokens, needs, max_latency_ms)
        return await self._models.recommended(use_case, limits)

    async def validate_gemini_model(
        self, model_id: str, api_key: str | None = None, *, probe: bool = False
    ) -> bool:
        """S3-14: whether the upstream has the model for these keys. Costs no generation.

        Args:
            api_key: asks with this key alone.
            probe: also generates one token, which counts against quota and is billed.

        Raises:
            GeminiError: the upstream could not be asked, or accepts none of the keys.
        """
        return await self._models.validate(model_id, api_key, probe=probe)

    def get_gemini_model_entry(self, model_id: str) -> ModelEntry:
        """A model with what this process has seen of it; asks nobody. Ours.

        Raises:
            ModelNotFoundError: nobody has told of such a model.
        """
        return self._models.entry(model_id)

    def get_gemini_model_sources(self) -> ModelSources:
        """Where what is known of models comes from, and of which day. Ours."""
        return self._models.sources

    async def refresh_gemini_models(self) -> ModelSources:
        """Read the upstream's list of models now. Ours.

        Raises:
            GeminiError: it could not be read; what was known still is.
        """
        return await self._models.refresh()

    async def refresh_gemini_prices(self, url: str = PRICE_URL) -> ModelSources:
        """Read newer prices from the public data of genai-prices. Ours.

        Raises:
            GeminiError: they could not be read; the known ones stand.
        """
        return await self._models.refresh_prices(url)

    async def keep_gemini_models_fresh(self) -> None:
        """Read the upstream's list every `model_refresh_seconds`, for ever: run it as a task beside
        your work, and cancel it at the end. Ours."""
        await self._models.keep_fresh()

    # ── configuration: S3-20, S3-21 ─────────────────────────────────────────────────────────────

    async def get_gemini_backend_config(self) -> BackendConfig:
        """S3-20: what new calls meet, with secrets masked."""
        return self._configuration.current()

    async def update_gemini_backend_config(self, config: BackendConfig | Mapping[str, object]) -> None:
        """S3-21: let a whole configuration take over; calls under way keep the one they began with.

        Raises:
            headgate.core.errors.ConfigurationError: it names what is wrong; then everything is as it
                was.
        """
        await self._configuration.update(config)

    def get_gemini_config_history(self) -> tuple[ConfigChange, ...]:
        """The last hundred changes, the newest first. Ours."""
        return self._configuration.history()

    def export_metrics(self, registry: object = None) -> None:
        """Have a registry count this backend's calls from now on, and read its state at each scrape.
        What there is: docs/reference/metrics.md.

        Args:
            registry: a `prometheus_client` registry, or None for its default one.

        Raises:
            headgate.core.errors.ConfigurationError: the `metrics` extra is not installed.
        """
        from headgate.backend.exporting import export  # noqa: PLC0415 - seldom asked for

        writer = self._monitoring.writer
        self._watched.append(export(registry, self._room, self._heard, writer, self._clock))

    def _took_over(self, config: BackendConfig) -> None:
        self._sessions.ttl = config.session_ttl_seconds
        self._alerting.change(config.alerts)
        self._monitoring.book.enabled = config.monitoring_enabled

    # ── what alerts and the log ask for ─────────────────────────────────────────────────────────

    def _logging(self) -> LoggingConfig:
        return self._room.config.logging_config

    def _secrets(self) -> tuple[str, ...]:
        running = self._room.started
        return () if running is None else tuple(key.value for key in running.settings.keys)

    def _prices(self) -> PriceList:
        return self._models.prices()

    def _cost(self, model: str, usage: Usage) -> Decimal | None:
        day = datetime.fromtimestamp(self._clock.wall(), UTC).date()
        cost = self._models.prices().cost(model, usage, day)
        return None if cost is None else cost.total

    def _broken(self) -> tuple[str, ...]:
        return () if self._room.started is None else broken_models(self._room.started.engine)

    # ── the end ─────────────────────────────────────────────────────────────────────────────────

    async def aclose(self) -> None:
        """Close what is idle now, and the rest with its last call."""
        await self._embedder.aclose()
        await self._room.aclose()
        await self._sessions.aclose()
        await self._monitoring.aclose()
        self._alerting.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
