"""Embeddings that are remembered, text by text: of a batch only the others are asked for.

They live where replies do, under the same bounds and lifetimes, and are dropped with them. A vector
follows from its text, model and options alone, so an old one is as good as a new one while it is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from headgate.backend.remembering import bounds_of, partition_of
from headgate.backend.settings import BackendConfig
from headgate.core.call import Call, Keeping, Operation, Reply
from headgate.core.ports import Clock
from headgate.core.replies import KeptReply, ReplyCache
from headgate.policy.recall_key import recall_key

__all__ = ["KeptVectors", "Memory", "Sought", "Vector"]

Memory = Callable[[str | None, str], tuple[ReplyCache, str, str] | None]
"""The cache of the moment, the address that is asked, and the model that a name means there today, for
an API key of the caller's own or None; None: nothing is remembered."""


class Vector(NamedTuple):
    """An embedding, and the model that made it."""

    vector: tuple[float, ...]
    model: str


class Sought(NamedTuple):
    """A text that was looked for.

    Attributes:
        found: what is remembered of it; None: nothing.
        model: that the name meant then.
        mark: of the moment of the look: what was invalidated since then is not kept.
    """

    found: Vector | None
    cache: ReplyCache
    key: str
    model: str
    mark: int


class KeptVectors:
    """Finds and keeps embeddings."""

    def __init__(self, memory: Memory, config: Callable[[], BackendConfig], clock: Clock) -> None:
        self._memory = memory
        self._config = config
        self._clock = clock

    async def look(
        self,
        text: str,
        model: str,
        options: tuple[tuple[str, object], ...],
        caller: str,
        api_key: str | None,
    ) -> Sought | None:
        """What is remembered of a text, for its caller alone; None: nothing ever is, or it cannot be
        written down."""
        if not bounds_of(self._config()).keeps:
            return None
        memory = self._memory(api_key, model)
        if memory is None:
            return None
        cache, address, means = memory
        keeping = Keeping(partition=partition_of(caller, api_key))
        call = Call(Operation.EMBED, model, (text,), dict(options), keeping=keeping)
        key = recall_key(call, model=means, origin=f"embedding {address}", headers={})
        if key is None:
            return None
        seen = await cache.look(key)
        kept = seen.kept
        if kept is None or self._clock.wall() >= kept.fresh_until:
            return Sought(None, cache, key, means, seen.mark)
        return Sought(Vector(kept.reply.vector, kept.model), cache, key, means, seen.mark)

    async def keep(self, sought: Sought, vector: Vector) -> None:
        """Remember what a text turned out to be, unless its name came to mean another model by then."""
        if vector.model != sought.model:
            return
        now = self._clock.wall()
        until = now + self._config().cache_ttl_seconds
        kept = KeptReply(Reply(vector=vector.vector), vector.model, now, until, until, until)
        await sought.cache.put(sought.key, kept, mark=sought.mark)
