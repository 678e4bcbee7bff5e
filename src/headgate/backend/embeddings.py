"""Embeddings: texts that are asked for at about the same time share a request to the upstream.

A batch saves round trips and no quota: each of its texts counts as one request. What is equal in it is
asked once. When the upstream refuses a batch for what one of its texts is, it is asked in halves: only
that text fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from secrets import token_hex
from typing import NamedTuple, cast

from msgspec import Struct

from headgate.backend.calls import QUEUE_SECONDS
from headgate.backend.errors import GeminiError, gemini_errors
from headgate.backend.execute import Hold
from headgate.backend.kept_vectors import KeptVectors, Memory, Vector
from headgate.backend.outcomes import each_in_order, outcome_of
from headgate.backend.settings import BackendConfig
from headgate.core.call import Call, Operation, Preparation, Priority, Reply, Secret
from headgate.core.errors import HeadgateError, InvalidCallError
from headgate.core.ports import Clock
from headgate.engine.batching import Aggregator, own_copy
from headgate.engine.screening import IN_A_THREAD
from headgate.policy.preparing import Prepared, prepared
from headgate.providers.gemini_embeddings import MOST_BATCH_BYTES, MOST_IN_A_BATCH
from headgate.wiring.calls import framed

__all__ = ["Embedder", "Embedding", "Wish"]


_FRAME_BYTES = 300
"""Of a batch, what a text takes besides itself: its model and options, with room to spare."""

_ESCAPES = 2
"""Bytes in JSON for a byte of text at the most, but for control characters."""

_ONE_IS_WRONG = frozenset(("invalid", "blocked", "too_large"))
"""Kinds of failures that one text of a batch can bring on all of them."""


class Embedding(Struct, frozen=True, kw_only=True):
    """The vector of a text.

    Attributes:
        model: the one that made it; vectors of two models cannot be compared.
        redactions: how many of each kind of personal data were replaced first, by marker.
    """

    vector: tuple[float, ...]
    model: str
    redactions: Mapping[str, int] = {}


class Wish(NamedTuple):
    """What embeddings must share to share a request.

    Attributes:
        options: name and value, sorted.
        api_key: the caller's own, or None.
        remembers: whether vectors are looked for where they are kept, and kept there.
    """

    model: str
    options: tuple[tuple[str, object], ...]
    caller: str
    priority: Priority
    api_key: Secret | None
    remembers: bool = True


class Embedder:
    """Makes embeddings. Share it between tasks, threads and loops.

    Args:
        hold: where requests run.
        config: the configuration of the moment.
        memory: where vectors are remembered; None: nowhere.
    """

    def __init__(
        self,
        hold: Hold,
        config: Callable[[], BackendConfig],
        clock: Clock,
        memory: Memory | None = None,
    ) -> None:
        self._kept = None if memory is None else KeptVectors(memory, config, clock)
        self._hold = hold
        self._config = config
        self._clock = clock
        self._aggregator: Aggregator[Wish, str, Vector] = Aggregator(
            self._carried,
            clock,
            size=self._size,
            window=lambda: config().batch_timeout_ms / 1000,
            most=self._most,
            most_weight=MOST_BATCH_BYTES,
        )

    async def embed(
        self,
        texts: Sequence[str],
        model: str,
        options: Mapping[str, object],
        frame: Mapping[str, object],
        api_key: str | None,
        *,
        use_cache: bool = True,
    ) -> list[Embedding | GeminiError]:
        """An outcome for each text, in their order. Raises `GeminiError` for what is wrong with all.

        Args:
            options: of the embedding, under the engine's names; None stands for not given.
            frame: `priority`, `caller` and `timeout` in seconds; None stands for not given.
        """
        with gemini_errors(self._clock.wall):
            given = _checked(texts, model)
            try:
                framing = framed(_given(frame), self._clock, QUEUE_SECONDS)
            except TypeError as error:
                raise InvalidCallError(f"timeout_seconds: {error}.") from None
        wish = Wish(
            model,
            tuple(sorted(_given(options).items())),
            framing["caller"],
            framing["priority"],
            None if api_key is None else Secret(api_key),
            use_cache,
        )

        async def one(text: object) -> Embedding | GeminiError:
            return await outcome_of(self._one(wish, text, framing["deadline"]), self._clock.wall)

        places = self._config().max_concurrent_requests
        return await each_in_order(given, one, places * self._size())

    async def aclose(self) -> None:
        """Wait until what was asked for on this loop is answered."""
        await self._aggregator.aclose()

    # ── one text ────────────────────────────────────────────────────────────────────────────────

    async def _one(self, wish: Wish, text: object, deadline: float | None) -> Embedding:
        with gemini_errors(self._clock.wall):
            if not isinstance(text, str) or not text.strip():
                raise InvalidCallError("A text to embed is a str that is not empty.")
            done = await self._prepared(wish, text)
            made = await self._made(wish, cast("str", done.call.parts[0]), deadline)
        found = {} if done.redaction is None else done.redaction.counts
        redactions = {kind.value: number for kind, number in found.items()}
        return Embedding(vector=made.vector, model=made.model, redactions=redactions)

    async def _made(self, wish: Wish, text: str, deadline: float | None) -> Vector:
        """The vector of a text as it leaves: remembered, or asked for and remembered then."""
        sought = None
        if self._kept is not None and wish.remembers:
            sought = await self._kept.look(text, wish.model, wish.options, wish.caller, wish.api_key)
            if sought is not None and sought.found is not None:
                return sought.found
        made = await self._aggregator.ask(
            wish,
            text,
            deadline=deadline,
            weight=_ESCAPES * len(text.encode()) + _FRAME_BYTES,
            urgent=wish.priority is Priority.CRITICAL,
        )
        if self._kept is not None and sought is not None:
            await self._kept.keep(sought, made)
        return made

    async def _prepared(self, wish: Wish, text: str) -> Prepared:
        """The text as it may leave: cleaned and redacted, as the configuration has it."""
        rules = self._config().preprocess_config
        how = Preparation(sanitize=rules.sanitize_input, redact=rules.strip_sensitive_data)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidCallError("A text to embed holds half a surrogate pair.") from None
        call = Call(Operation.EMBED, wish.model, (text,))
        if not how.sanitize and not how.redact:
            return Prepared(call)
        if len(text) < IN_A_THREAD:
            return prepared(call, how)
        return await asyncio.to_thread(prepared, call, how)

    # ── a batch ─────────────────────────────────────────────────────────────────────────────────

    def _size(self) -> int:
        return min(self._config().batch_size, MOST_IN_A_BATCH)

    def _most(self) -> int:
        config = self._config()
        return (config.max_concurrent_requests + config.max_queued_requests) * self._size()

    async def _carried(
        self, wish: Wish, texts: Sequence[str], deadline: float | None
    ) -> list[Vector | Exception]:
        different = list(dict.fromkeys(texts))
        found = dict(zip(different, await self._asked(wish, different, deadline), strict=True))
        outcomes = [found[text] for text in texts]
        return [own_copy(one) if isinstance(one, Exception) else one for one in outcomes]

    async def _asked(
        self, wish: Wish, texts: Sequence[str], deadline: float | None
    ) -> list[Vector | Exception]:
        try:
            return [*await self._vectors(wish, texts, deadline)]
        except HeadgateError as error:
            if len(texts) == 1 or error.kind not in _ONE_IS_WRONG:
                return [error] * len(texts)
        half = len(texts) // 2
        first = await self._asked(wish, texts[:half], deadline)
        return first + await self._asked(wish, texts[half:], deadline)

    async def _vectors(
        self, wish: Wish, texts: Sequence[str], deadline: float | None
    ) -> Sequence[Vector]:
        """One request for all of the texts. Raises `HeadgateError`."""
        several = len(texts) > 1
        call = Call(
            Operation.EMBED,
            wish.model,
            () if several else (texts[0],),
            dict(wish.options),
            request_id=token_hex(8),
            deadline=deadline,
            max_wait=QUEUE_SECONDS if deadline is None else float("inf"),
            priority=wish.priority,
            caller=wish.caller,
            inputs=tuple((text,) for text in texts) if several else (),
        )
        async with self._hold(wish.api_key) as held:
            answer, passage = await held.engine.pipeline.run(call)
        reply = cast("Reply", answer)
        return [Vector(vector, passage.model) for vector in reply.vectors or (reply.vector,)]


def _given(options: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def _checked(texts: object, model: object) -> Sequence[object]:
    if isinstance(texts, str | bytes) or not isinstance(texts, Sequence):
        raise InvalidCallError(f"texts takes a list of texts; got {type(texts).__name__}.")
    if not isinstance(model, str) or not model.strip():
        raise InvalidCallError("model takes a text that is not empty.")
    return texts
