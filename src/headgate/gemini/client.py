"""The client: the accepted calls over the engine, asynchronous and synchronous."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from msgspec import Struct

from headgate.core.call import Blob, Call, Chunk, Operation, Usage
from headgate.core.errors import UpstreamError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Clock, Observer, QuotaStore, Transport
from headgate.gemini.errors import GeminiAPICallError, accepted_errors
from headgate.gemini.inputs import Prompt, embed_options, generate_options, prompt_parts
from headgate.gemini.keys import ApiKeyConfig, GeminiKeyManager, as_keys
from headgate.wiring.build import build_gemini
from headgate.wiring.calls import framed, model_of, texts
from headgate.wiring.clock import SystemClock
from headgate.wiring.door import Door
from headgate.wiring.observers import LogObserver, Observers
from headgate.wiring.quotas import GEMINI_QUOTAS, split_quotas
from headgate.wiring.settings import GeminiSettings, load_gemini
from headgate.wiring.stores import given_store

__all__ = ["GeminiReply", "ResilientGeminiClient"]

_log = logging.getLogger("headgate.gemini")


class GeminiReply(Struct, frozen=True):
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
        content: the function calls, as the API sent them: with signatures that it wants back.
    """

    text: str
    media: tuple[Blob, ...]
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
    content: tuple[Mapping[str, object], ...] = ()

    def __repr__(self) -> str:
        """Without media and function calls, which may be long."""
        shown = [name for name in self.__struct_fields__ if name not in ("media", "content")]
        return f"GeminiReply({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


def _only_calls(request_id: str | None = None) -> GeminiAPICallError:
    """Text was asked for, and an empty one must not pass for an answer."""
    sentence = (
        "The answer holds no text, it only calls functions: ask with generate_reply or "
        "generate_reply_stream, which have them in `content`."
    )
    outcome = Outcome(Kind.BLOCKED, sentence, 200)
    return GeminiAPICallError(
        sentence, original_error=UpstreamError(outcome, sentence, request_id=request_id)
    )


async def _with_words(chunks: AsyncGenerator[Chunk]) -> AsyncGenerator[Chunk]:
    """A stream that must hold more than function calls."""
    said = called = False
    async with aclosing(chunks):
        async for chunk in chunks:
            said = said or bool(chunk.text or chunk.blobs)
            called = called or bool(chunk.content)
            yield chunk
    if called and not said:
        raise _only_calls()


class ResilientGeminiClient(Door):
    """Gemini calls over many keys. Build it anywhere, share it between tasks, threads and loops.

    Args:
        rotation_enabled: False uses the first key only. Default: environment, else True.
        backoff_seconds: cool-down after a refusal without a hint. Default: environment, else 60.
        max_retries: extra tries of a call; rotations are free. Default: environment, else 3.
        keys: a `GEMINI_API_KEYS` text or a list of entries or `ApiKeyConfig`s. Default: environment.
        quotas: what each project may use of each model, so that calls wait instead of being refused:
            `rpm`, `tpm`, `rpd`, `tpd`, `concurrency` for all, and tables under `models` and `projects`.
            Default: environment and file.
        max_wait_seconds: longest wait for a key where a call has no timeout; 0 never waits.
            Default: environment, else `backoff_seconds`.
        base_url: scheme and host of the API. Default: environment, else Google's.
        transport: what sends; the default is HTTP.
        store: where quota ledgers live: a URL such as `redis://host`, which is opened and closed
            here, or a `QuotaStore`, which stays yours. Default: environment, else this process.
        clock: where time comes from; the default is the machine's clock.
        observers: hear every attempt, wait and call.
        environ: where settings are read from; the default is the process environment.

    Raises:
        NoValidKeysError: no key is configured.
        InvalidKeyConfigError: a list of keys is malformed.
        headgate.core.errors.ConfigurationError: another setting is wrong.
    """

    _group = "project"
    _metric_prefix = "headgate"
    _provider = "gemini"
    _cut = "MAX_TOKENS"

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
        store: str | QuotaStore | None = None,
        clock: Clock | None = None,
        observers: Sequence[Observer] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        store_url, lent = given_store(store)
        numbers, tables = split_quotas(quotas, GEMINI_QUOTAS)
        arguments: dict[str, object] = {
            "rotation_enabled": rotation_enabled,
            "backoff_seconds": backoff_seconds,
            "max_retries": max_retries,
            "max_wait_seconds": max_wait_seconds,
            "base_url": base_url,
            "store": store_url,
            **numbers,
        }
        with accepted_errors():
            given = None if keys is None else as_keys(keys)
            settings = load_gemini(arguments, keys=given, quotas=tables, environ=environ)
        clock = clock or SystemClock()
        engine = build_gemini(
            settings,
            clock=clock,
            observer=Observers(LogObserver(_log), *observers),
            warn=_log.warning,
            transport=transport,
            store=lent,
        )
        super().__init__(engine, clock, _log, accepted_errors)
        self._settings = settings
        self.key_manager = GeminiKeyManager.over(
            engine.pool,
            clock,
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
                seconds; `priority` and `caller`, where calls wait for quota; generation options such as
                `temperature`, `max_output_tokens`, `system_instruction`, `response_schema`, also
                inside `generation_config` or `config`.

        Raises:
            AllKeysExhaustedError: every key is out of quota, and waiting does not fit the call.
            GeminiAPICallError: the call failed; `kind` says why, `blocked` for a withheld or empty
                answer.
            TypeError: an option is unknown.
        """
        reply = await self.generate_reply(prompt, model, **kwargs)
        if reply.content and not reply.text and not reply.media:
            raise _only_calls(reply.request_id)
        return reply.text

    async def generate_reply(
        self, prompt: Prompt, model: str | None = None, **kwargs: object
    ) -> GeminiReply:
        """As `generate_content`, with media, token usage and what the call took."""
        call = self._generate_call(Operation.GENERATE, prompt, model, kwargs)
        reply, took = await self._answered(call)
        return GeminiReply(
            text=reply.text,
            media=reply.blobs,
            finish_reason=reply.finish_reason,
            usage=reply.usage,
            content=reply.content,
            **took,
        )

    def generate_content_stream(
        self, prompt: Prompt, model: str | None = None, **kwargs: object
    ) -> AsyncGenerator[str]:
        """As `generate_content`, piece by piece: `async for text in client.generate_content_stream(…)`.

        Rotation and retries happen until the first piece; a failure after it raises
        `GeminiAPICallError`. Leaving the loop early gives everything back.
        """
        return texts(_with_words(self.generate_reply_stream(prompt, model, **kwargs)))

    def generate_reply_stream(
        self, prompt: Prompt, model: str | None = None, **kwargs: object
    ) -> AsyncGenerator[Chunk]:
        """As `generate_content_stream`, with media, usage and finish reason: a `Chunk` a piece.

        `usage` is cumulative, so the last one that is not None counts for the whole answer.
        """
        return self._streamed(self._generate_call(Operation.STREAM, prompt, model, kwargs))

    async def count_tokens(self, prompt: Prompt, model: str | None = None, **kwargs: object) -> int:
        """Tokens of a prompt, as the API counts them; costs nothing and uses no quota of generations.

        Args:
            prompt: text, or a list of text and media.
            model: default `GEMINI_DEFAULT_MODEL`.
            kwargs: as in `generate_content`; `system_instruction` and `tools` are counted too.

        Raises: as `generate_content`.
        """
        call = self._generate_call(Operation.COUNT, prompt, model, kwargs)
        reply, _ = await self._answered(call)
        return reply.tokens

    async def embed_content(
        self, content: Prompt, model: str | None = None, **kwargs: object
    ) -> list[float]:
        """The embedding of a text.

        Args:
            content: the text.
            model: default `GEMINI_EMBEDDING_MODEL`. Vectors of two models cannot be compared.
            kwargs: `task_type`, `title`, `output_dimensionality`; `timeout`, `max_wait_seconds`,
                `priority`, `caller`.

        Raises: as `generate_content`.
        """
        reply, _ = await self._answered(self._embed_call(content, model, kwargs))
        return list(reply.vector)

    @accepted_errors()
    def _embed_call(self, content: Prompt, model: str | None, kwargs: Mapping[str, object]) -> Call:
        options = dict(kwargs)
        frame = framed(options, self._clock, self._settings.max_wait_seconds)
        return Call(
            Operation.EMBED,
            model_of(model, self._settings.embedding_model),
            prompt_parts(content),
            embed_options(options),
            **frame,
        )

    @accepted_errors()
    def _generate_call(
        self, operation: Operation, prompt: Prompt, model: str | None, kwargs: Mapping[str, object]
    ) -> Call:
        options = dict(kwargs)
        parts = prompt_parts(prompt, options.pop("images", None), options.pop("files", None))
        frame = framed(options, self._clock, self._settings.max_wait_seconds)
        return Call(
            operation,
            model_of(model, self._settings.default_model),
            parts,
            generate_options(options),
            **frame,
        )

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

    def count_tokens_sync(self, prompt: Prompt, model: str | None = None, **kwargs: object) -> int:
        """`count_tokens` for callers without an event loop."""
        return self._bridge.run(self.count_tokens(prompt, model, **kwargs))

    # ── status ──────────────────────────────────────────────────────────────────────────────────

    def get_key_metrics(self) -> dict[str, Any]:
        """Totals, and per key its state and metrics; the layout is in docs/reference/gemini.md."""
        return self.key_manager.get_metrics()

    def get_status_summary(self) -> str:
        """The status as text, a line a key."""
        return self.key_manager.get_status_summary()
