"""The client: Claude's messages over the engine, asynchronous and synchronous."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headgate.claude.errors import claude_errors
from headgate.claude.inputs import Prompt, conversation, message_options
from headgate.core.call import Call, Chunk, Key, Operation, Usage
from headgate.core.errors import ConfigurationError
from headgate.core.ports import Clock, Observer, QuotaStore, Transport
from headgate.wiring.calls import framed, model_of, texts
from headgate.wiring.claude import ClaudeSettings, build_claude, load_claude
from headgate.wiring.clock import SystemClock
from headgate.wiring.door import Door
from headgate.wiring.key_status import KeyBooks
from headgate.wiring.keys import parse_keys
from headgate.wiring.observers import LogObserver, Observers
from headgate.wiring.quotas import CLAUDE_QUOTAS, split_quotas
from headgate.wiring.stores import given_store

__all__ = ["ClaudeReply", "ResilientClaudeClient"]

_log = logging.getLogger("headgate.claude")


@dataclass(frozen=True, slots=True)
class ClaudeReply:
    """An answer and what it took. Times in seconds.

    Attributes:
        text: the text blocks, joined; empty where the model only called tools.
        content: every block as the API sent it, to be sent back in the next turn.
        stop_reason: why the model stopped; `max_tokens` means that the answer is cut.
        usage: tokens used by the attempt that answered.
        model: the model version that answered.
        id: Anthropic's id of the message.
        key_name: the key that was used.
        attempts: sends, rotations: changes of key, retries: extra tries, waited: seconds waited.
        elapsed: seconds from call to answer.
        request_id: the call's id in logs and records.
    """

    text: str
    content: tuple[Mapping[str, Any], ...] = field(repr=False)
    stop_reason: str | None
    usage: Usage
    model: str
    id: str
    key_name: str
    attempts: int
    rotations: int
    retries: int
    waited: float
    elapsed: float
    request_id: str


class ResilientClaudeClient(Door):
    """Claude calls over many keys. Build it anywhere, share it between tasks, threads and loops.

    Args:
        keys: an `ANTHROPIC_API_KEYS` text, or a list of such entries. Default: environment.
        rotation_enabled: False uses the first key only. Default: environment, else True.
        backoff_seconds: cool-down after a refusal without a hint. Default: environment, else 60.
        max_retries: extra tries of a call; rotations are free. Default: environment, else 3.
        quotas: what each organisation may use of each class of models, so that calls wait instead of
            being refused: `rpm`, `itpm`, `otpm`, `concurrency` for all, and tables under `models` and
            `organisations`. Default: environment and file.
        max_wait_seconds: longest wait for a key where a call has no timeout; 0 never waits.
            Default: environment, else `backoff_seconds`.
        max_tokens: longest answer of a call that does not say. Default: environment, else 4096.
        version: sent as `anthropic-version`. Default: environment, else 2023-06-01.
        base_url: scheme and host of the API. Default: environment, else Anthropic's.
        transport: what sends; the default is HTTP.
        store: where quota ledgers live: a URL such as `redis://host`, which is opened and closed
            here, or a `QuotaStore`, which stays yours. Default: environment, else this process.
        clock: where time comes from; the default is the machine's clock.
        observers: hear every attempt, wait and call.
        environ: where settings are read from; the default is the process environment.

    Raises:
        headgate.core.errors.ConfigurationError: no key is configured (`NoKeysError`), a list of keys
            is malformed (`KeyFormatError`), or another setting is wrong.
    """

    _group = "organisation"
    _metric_prefix = "headgate_claude"
    _provider = "anthropic"
    _cut = "max_tokens"

    def __init__(
        self,
        *,
        keys: str | Sequence[str] | None = None,
        rotation_enabled: bool | None = None,
        backoff_seconds: int | None = None,
        max_retries: int | None = None,
        quotas: Mapping[str, object] | None = None,
        max_wait_seconds: float | None = None,
        max_tokens: int | None = None,
        version: str | None = None,
        base_url: str | None = None,
        transport: Transport | None = None,
        store: str | QuotaStore | None = None,
        clock: Clock | None = None,
        observers: Sequence[Observer] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        store_url, lent = given_store(store)
        numbers, tables = split_quotas(quotas, CLAUDE_QUOTAS)
        arguments: dict[str, object] = {
            "rotation_enabled": rotation_enabled,
            "backoff_seconds": backoff_seconds,
            "max_retries": max_retries,
            "max_wait_seconds": max_wait_seconds,
            "max_tokens": max_tokens,
            "version": version,
            "base_url": base_url,
            "store": store_url,
            **numbers,
        }
        settings = load_claude(arguments, keys=_given(keys), quotas=tables, environ=environ)
        clock = clock or SystemClock()
        engine = build_claude(
            settings,
            clock=clock,
            observer=Observers(LogObserver(_log), *observers),
            warn=_log.warning,
            transport=transport,
            store=lent,
        )
        super().__init__(engine, clock, _log, claude_errors)
        self._settings = settings
        self._books = KeyBooks(
            engine.pool,
            clock,
            group=self._group,
            rotation_enabled=settings.rotation_enabled,
            backoff_seconds=settings.backoff_seconds,
        )

    def __repr__(self) -> str:
        return f"ResilientClaudeClient({len(self._settings.keys)} keys, {self._settings.base_url})"

    @property
    def settings(self) -> ClaudeSettings:
        """What the client was built from; keys are masked in its `repr`."""
        return self._settings

    # ── asynchronous calls ──────────────────────────────────────────────────────────────────────

    async def messages(
        self, prompt: Prompt, model: str | None = None, **options: object
    ) -> ClaudeReply:
        """One message of the model.

        Args:
            prompt: text, a list of text and `Blob`s, or a list of messages with `role` and `content`.
            model: default `HEADGATE_ANTHROPIC_MODEL`.
            options: `max_tokens`, `system`, `tools` and whatever else the API takes under the same
                name; `betas`, `extra_body`; `timeout` and `max_wait_seconds` in seconds; `priority` and
                `caller` say who goes first where calls wait for quota.

        Raises:
            ClaudeQuotaError: every organisation is out of quota, and waiting does not fit the call.
            ClaudeCallError: the call failed; `kind` says why, `blocked` for a refusal.
            TypeError: an option is unknown.
        """
        call = self._call(Operation.GENERATE, prompt, model, options)
        reply, took = await self._answered(call)
        return ClaudeReply(
            text=reply.text,
            content=reply.content,
            stop_reason=reply.finish_reason,
            usage=reply.usage,
            id=reply.upstream_id,
            **took,
        )

    async def message_text(self, prompt: Prompt, model: str | None = None, **options: object) -> str:
        """As `messages`, the text alone."""
        return (await self.messages(prompt, model, **options)).text

    def messages_stream(
        self, prompt: Prompt, model: str | None = None, **options: object
    ) -> AsyncGenerator[str]:
        """As `message_text`, piece by piece: `async for text in client.messages_stream(…)`.

        Rotation and retries happen until the first piece; a failure after it raises
        `ClaudeCallError`. Leaving the loop early gives everything back.
        """
        return texts(self.messages_chunks(prompt, model, **options))

    def messages_chunks(
        self, prompt: Prompt, model: str | None = None, **options: object
    ) -> AsyncGenerator[Chunk]:
        """As `messages_stream`, with blocks, usage and stop reason: a `Chunk` a piece.

        A block stands in `content` of the piece that completes it, so tool calls come whole; `usage`
        is cumulative, so the last one counts.
        """
        return self._streamed(self._call(Operation.STREAM, prompt, model, options))

    async def count_tokens(self, prompt: Prompt, model: str | None = None, **options: object) -> int:
        """Tokens of a prompt, as the API counts them; costs nothing and uses no quota of messages.

        Args:
            prompt: as in `messages`.
            model: likewise; models of different generations count differently.
            options: as in `messages`; of those only what shapes the prompt is sent, such as `system`
                and `tools`.

        Raises: as `messages`.
        """
        reply, _ = await self._answered(self._call(Operation.COUNT, prompt, model, options))
        return reply.tokens

    @claude_errors()
    def _call(
        self, operation: Operation, prompt: Prompt, model: str | None, given: Mapping[str, object]
    ) -> Call:
        options = dict(given)
        frame = framed(options, self._clock, self._settings.max_wait_seconds)
        parts, messages = conversation(prompt)
        return Call(
            operation,
            model_of(model, self._settings.default_model),
            parts,
            message_options(options, self._settings.max_tokens),
            messages=messages,
            **frame,
        )

    # ── synchronous twins ───────────────────────────────────────────────────────────────────────

    def messages_sync(self, prompt: Prompt, model: str | None = None, **options: object) -> ClaudeReply:
        """`messages` for callers without an event loop; works inside one too."""
        return self._bridge.run(self.messages(prompt, model, **options))

    def message_text_sync(self, prompt: Prompt, model: str | None = None, **options: object) -> str:
        """`message_text` for callers without an event loop."""
        return self._bridge.run(self.message_text(prompt, model, **options))

    def messages_stream_sync(
        self, prompt: Prompt, model: str | None = None, **options: object
    ) -> Iterator[str]:
        """`messages_stream` for callers without an event loop."""
        return self._bridge.iterate(self.messages_stream(prompt, model, **options))

    def messages_chunks_sync(
        self, prompt: Prompt, model: str | None = None, **options: object
    ) -> Iterator[Chunk]:
        """`messages_chunks` for callers without an event loop."""
        return self._bridge.iterate(self.messages_chunks(prompt, model, **options))

    def count_tokens_sync(self, prompt: Prompt, model: str | None = None, **options: object) -> int:
        """`count_tokens` for callers without an event loop."""
        return self._bridge.run(self.count_tokens(prompt, model, **options))

    # ── status ──────────────────────────────────────────────────────────────────────────────────

    def get_key_metrics(self) -> dict[str, Any]:
        """Totals, and per key its state and metrics; the layout is in docs/reference/claude.md."""
        return self._books.metrics()

    def get_status_summary(self) -> str:
        """The status as text, a line a key."""
        return self._books.summary("Claude Key Status")


def _given(keys: str | Sequence[str] | None) -> tuple[Key, ...] | None:
    if keys is None:
        return None
    found = parse_keys(keys if isinstance(keys, str) else ",".join(keys), "keys", group="organisation")
    if not found:
        raise ConfigurationError("keys is empty: pass at least one key, or leave it out.")
    return found
