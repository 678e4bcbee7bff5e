"""The client: the accepted calls over the engine, asynchronous and synchronous."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, Self, cast

from headgate.core.call import Blob, Call, Chunk, Operation, Reply, Usage
from headgate.core.errors import ConfigurationError
from headgate.core.ports import Clock, Observer, QuotaStore, Transport
from headgate.engine.stream import ReplyStream
from headgate.gemini.errors import accepted_errors
from headgate.gemini.inputs import Prompt, embed_options, generate_options, prompt_parts
from headgate.gemini.keys import ApiKeyConfig, GeminiKeyManager, as_keys
from headgate.wiring.blocking import Bridge
from headgate.wiring.build import build_gemini
from headgate.wiring.calls import bounds, texts
from headgate.wiring.clock import SystemClock
from headgate.wiring.observers import LogObserver, Observers
from headgate.wiring.settings import GeminiSettings, load_gemini

__all__ = ["GeminiReply", "ResilientGeminiClient"]

_log = logging.getLogger("headgate.gemini")


@dataclass(frozen=True, slots=True)
class GeminiReply:
    """An answer and what it took. Times in seconds.

    Attributes:
        text: the visible text; empty where the model answered with media only.
        media: images or other media the model produced.
        finish_reason: why the model stopped; `MAX_TOKENS` means that the text is cut.
        usage: tokens used by the attempt that answered.
        model: the model version that answered.
        key_name: the key that was used.
        attempts: sends, rotations: changes of key, retries: extra tries, waited: seconds waited.
        elapsed: seconds from call to answer.
        request_id: the call's id in logs and records.
    """

    text: str
    media: tuple[Blob, ...] = field(repr=False)
    finish_reason: str | None
    usage: Usage
    model: str
    key_name: str
    attempts: int
    rotations: int
    retries: int
    waited: float
    elapsed: float
    request_id: str


class ResilientGeminiClient:
    """Gemini calls over many keys. Build it anywhere, share it between tasks, threads and loops.

    Args:
        rotation_enabled: False uses the first key only. Default: environment, else True.
        backoff_seconds: cool-down after a refusal without a hint. Default: environment, else 60.
        max_retries: extra tries of a call; rotations are free. Default: environment, else 3.
        keys: a `GEMINI_API_KEYS` text or a list of entries or `ApiKeyConfig`s. Default: environment.
        quotas: what each project may use of each model, so that calls wait instead of being refused:
            `rpm`, `tpm`, `rpd`, `tpd` for all, and tables under `models` and `projects`.
            Default: environment and file.
        max_wait_seconds: longest wait for a key where a call has no timeout; 0 never waits.
            Default: environment, else `backoff_seconds`.
        base_url: scheme and host of the API. Default: environment, else Google's.
        transport: what sends; the default is HTTP.
        store: where the ledgers of declared quotas live; the default is this process.
        clock: where time comes from; the default is the machine's clock.
        observers: hear every attempt, wait and call.
        environ: where settings are read from; the default is the process environment.

    Raises:
        NoValidKeysError: no key is configured.
        InvalidKeyConfigError: a list of keys is malformed.
        headgate.core.errors.ConfigurationError: another setting is wrong.
    """

    def __init__(
        self,
        rotation_enabled: bool | None = None,
        backoff_seconds: int | None = None,
        max_retries: int | None = None,
        *,
        keys: str | Sequence[str | ApiKeyConfig] | None = None,
        quotas: Mapping[str, object] | None = None,
        max_wait_seconds: float | None = None,
        base_url: str | None = None,
        transport: Transport | None = None,
        store: QuotaStore | None = None,
        clock: Clock | None = None,
        observers: Sequence[Observer] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        arguments: dict[str, object] = {
            "rotation_enabled": rotation_enabled,
            "backoff_seconds": backoff_seconds,
            "max_retries": max_retries,
            "max_wait_seconds": max_wait_seconds,
            "base_url": base_url,
        }
        tables = None if quotas is None else dict(quotas)
        for name in ("rpm", "tpm", "rpd", "tpd"):
            arguments[f"quota_{name}"] = None if tables is None else tables.pop(name, None)
        with accepted_errors():
            given = None if keys is None else as_keys(keys)
            settings = load_gemini(arguments, keys=given, quotas=tables, environ=environ)
        self._settings = settings
        self._clock = clock or SystemClock()
        self._engine = build_gemini(
            settings,
            clock=self._clock,
            observer=Observers(LogObserver(_log), *observers),
            warn=_log.warning,
            transport=transport,
            store=store,
        )
        self._bridge = Bridge()
        self.key_manager = GeminiKeyManager.over(
            self._engine.pool,
            self._clock,
            settings.keys,
            rotation_enabled=settings.rotation_enabled,
            backoff_seconds=settings.backoff_seconds,
        )

    def __repr__(self) -> str:
        return f"ResilientGeminiClient({len(self._settings.keys)} keys, {self._settings.base_url})"

    @property
    def settings(self) -> GeminiSettings:
        """What the client was built from; keys are masked in its `repr`."""
        return self._settings

    # ── asynchronous calls ──────────────────────────────────────────────────────────────────────

    async def generate_content(self, prompt: Prompt, model: str | None = None, **kwargs: object) -> str:
        """The text a model answers.

        Args:
            prompt: text, or a list of text and media.
            model: default `GEMINI_DEFAULT_MODEL`.
            kwargs: `images` and `files` (paths, bytes, `Blob`s); `timeout` and `max_wait_seconds` in
                seconds; generation options such as `temperature`, `max_output_tokens`,
                `system_instruction`, `response_schema`, also inside `generation_config` or `config`.

        Raises:
            AllKeysExhaustedError: every key is out of quota, and waiting does not fit the call.
            GeminiAPICallError: the call failed; `kind` says why, `blocked` for a withheld or empty
                answer.
            TypeError: an option is unknown.
        """
        return (await self.generate_reply(prompt, model, **kwargs)).text

    async def generate_reply(
        self, prompt: Prompt, model: str | None = None, **kwargs: object
    ) -> GeminiReply:
        """As `generate_content`, with media, token usage and what the call took."""
        with accepted_errors():
            call = self._generate_call(Operation.GENERATE, prompt, model, kwargs)
            answer, passage = await self._engine.pipeline.run(call)
        reply = cast("Reply", answer)
        if reply.finish_reason == "MAX_TOKENS":
            _log.warning("call %s: the answer was cut at the token limit", call.request_id)
        assert passage.lease is not None  # noqa: S101 - an answer came with a key
        return GeminiReply(
            text=reply.text,
            media=reply.blobs,
            finish_reason=reply.finish_reason,
            usage=reply.usage,
            model=reply.model or passage.model,
            key_name=passage.lease.key.name,
            attempts=passage.attempts,
            rotations=passage.rotations,
            retries=passage.retries,
            waited=passage.waited,
            elapsed=self._clock.monotonic() - passage.started,
            request_id=call.request_id,
        )

    def generate_content_stream(
        self, prompt: Prompt, model: str | None = None, **kwargs: object
    ) -> AsyncGenerator[str]:
        """As `generate_content`, piece by piece: `async for text in client.generate_content_stream(…)`.

        Rotation and retries happen until the first piece; a failure after it raises
        `GeminiAPICallError`. Leaving the loop early gives everything back.
        """
        return texts(self.generate_reply_stream(prompt, model, **kwargs))

    def generate_reply_stream(
        self, prompt: Prompt, model: str | None = None, **kwargs: object
    ) -> AsyncGenerator[Chunk]:
        """As `generate_content_stream`, with media, usage and finish reason: a `Chunk` a piece.

        `usage` is cumulative, so the last one that is not None counts for the whole answer.
        """
        with accepted_errors():
            call = self._generate_call(Operation.STREAM, prompt, model, kwargs)
        return self._stream(call)

    async def _stream(self, call: Call) -> AsyncGenerator[Chunk]:
        with accepted_errors():
            answer, _ = await self._engine.pipeline.run(call)
            stream = cast("ReplyStream", answer)
            try:
                async for chunk in stream:
                    yield chunk
            finally:
                await stream.aclose()
        if stream.finish_reason == "MAX_TOKENS":
            _log.warning("call %s: the answer was cut at the token limit", call.request_id)

    async def embed_content(
        self, content: Prompt, model: str | None = None, **kwargs: object
    ) -> list[float]:
        """The embedding of a text.

        Args:
            content: the text.
            model: default `GEMINI_EMBEDDING_MODEL`. Vectors of two models cannot be compared.
            kwargs: `task_type`, `title`, `output_dimensionality`; `timeout`, `max_wait_seconds`.

        Raises: as `generate_content`.
        """
        with accepted_errors():
            options = dict(kwargs)
            limits = self._limits(options)
            call = Call(
                Operation.EMBED,
                model or self._settings.embedding_model,
                prompt_parts(content),
                embed_options(options),
                token_hex(8),
                *limits,
            )
            answer, _ = await self._engine.pipeline.run(call)
        return list(cast("Reply", answer).vector)

    def _generate_call(
        self, operation: Operation, prompt: Prompt, model: str | None, kwargs: Mapping[str, object]
    ) -> Call:
        options = dict(kwargs)
        parts = prompt_parts(prompt, options.pop("images", None), options.pop("files", None))
        limits = self._limits(options)
        return Call(
            operation,
            model or self._settings.default_model,
            parts,
            generate_options(options),
            token_hex(8),
            *limits,
        )

    def _limits(self, options: dict[str, object]) -> tuple[float | None, float]:
        return bounds(options, self._clock, self._settings.max_wait_seconds)

    # ── synchronous twins ───────────────────────────────────────────────────────────────────────

    def generate_content_sync(self, prompt: Prompt, model: str | None = None, **kwargs: object) -> str:
        """`generate_content` for callers without an event loop; works inside one too."""
        return self._bridge.run(self.generate_content(prompt, model, **kwargs))

    def generate_reply_sync(
        self, prompt: Prompt, model: str | None = None, **kwargs: object
    ) -> GeminiReply:
        """`generate_reply` for callers without an event loop."""
        return self._bridge.run(self.generate_reply(prompt, model, **kwargs))

    def generate_content_stream_sync(
        self, prompt: Prompt, model: str | None = None, **kwargs: object
    ) -> Iterator[str]:
        """`generate_content_stream` for callers without an event loop."""
        return self._bridge.iterate(self.generate_content_stream(prompt, model, **kwargs))

    def embed_content_sync(
        self, content: Prompt, model: str | None = None, **kwargs: object
    ) -> list[float]:
        """`embed_content` for callers without an event loop."""
        return self._bridge.run(self.embed_content(content, model, **kwargs))

    # ── status ──────────────────────────────────────────────────────────────────────────────────

    def get_key_metrics(self) -> dict[str, Any]:
        """Totals, and per key its state and metrics; the layout is in docs/reference/gemini.md."""
        return self.key_manager.get_metrics()

    def get_status_summary(self) -> str:
        """The status as text, a line a key."""
        return self.key_manager.get_status_summary()

    def log_status(self) -> None:
        """Log the status summary as one INFO record. Never raises, so it may stand in `finally`."""
        _log.info("%s", self.get_status_summary())

    async def log_status_every(self, seconds: float = 3600.0) -> None:
        """Log the status for ever: run it as a task beside your work, and cancel it at the end."""
        while True:
            await self._clock.sleep(seconds)
            self.log_status()

    def export_metrics(self, registry: object = None) -> None:
        """Register this client's `headgate_key_*` metrics; they are read at each scrape.

        Args:
            registry: a `prometheus_client` registry, or None for its default one. A registry takes one
                client; `headgate.telemetry.keys` lists the metrics.

        Raises:
            ConfigurationError: the `metrics` extra is not installed.
            ValueError: the registry has them already.
        """
        try:
            from prometheus_client import REGISTRY, CollectorRegistry  # noqa: PLC0415 - an extra

            from headgate.telemetry.keys import KeyCollector  # noqa: PLC0415
        except ImportError:
            raise ConfigurationError(
                "Metrics need prometheus-client: install headgate[metrics]."
            ) from None
        target = REGISTRY if registry is None else registry
        if not isinstance(target, CollectorRegistry):
            raise TypeError(f"registry takes a CollectorRegistry; got {type(target).__name__}")
        target.register(KeyCollector(self.get_key_metrics))

    # ── closing ─────────────────────────────────────────────────────────────────────────────────

    async def aclose(self) -> None:
        """Close the connections of the running loop and of the synchronous twins."""
        await self._engine.transport.aclose()
        if self._bridge.running:
            await asyncio.to_thread(self._bridge.stop)

    def close(self) -> None:
        """Close the connections of the synchronous twins."""
        self._bridge.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
