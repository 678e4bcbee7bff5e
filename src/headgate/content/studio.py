"""What every kind of content has in common: quota first, results that are kept, and what stands in.

A result that is kept costs nothing. One that is not is made by one caller, however many ask for it at
once; where there is no quota for it, an earlier one stands in and says so (S4-07).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from headgate.content.generator import Generator
from headgate.content.ports import Json, Kept, Layers
from headgate.content.problems import quota_refusal
from headgate.content.quota_config import Held, QuotaExceededError
from headgate.content.settings import ContentSettings
from headgate.content.tracker import FALLBACKS, QuotaTracker
from headgate.core.errors import QuotaExhaustedError
from headgate.core.ports import Clock
from headgate.policy.content_quality import Assessment
from headgate.telemetry.metrics.content_measures import ContentMeasures

__all__ = ["MadeOnce", "Studio"]

_LIMIT_WORDS = ("rpm", "rpd", "tpm", "tpd")


class MadeOnce(Exception):  # noqa: N818 - a value on its way past the cache, no failure
    """A result that is given and not kept: it is not good enough for others.

    Attributes:
        value: the result.
    """

    def __init__(self, value: Json) -> None:
        super().__init__("made once")
        self.value = value


@dataclass(frozen=True, slots=True)
class Studio:
    """What content is made with.

    Attributes:
        tracker: None where no quota is tracked.
        layers: where results are kept.
        measures: None where nobody counts.
    """

    settings: ContentSettings
    clock: Clock
    generator: Generator
    tracker: QuotaTracker | None
    layers: Layers
    measures: ContentMeasures | None = None

    async def put_aside(
        self, model: str, tokens: int, *, count: int = 1, wait: float = 0.0
    ) -> tuple[Held, ...]:
        """Quota for so many calls of a model, or for none. Raises as `QuotaTracker.areserve`."""
        if self.tracker is None:
            return (Held(),) * count
        book = self.generator.book(model)
        return await self.tracker.areserve(tokens, count=count, wait=wait, book=book)

    async def give_back(self, model: str, helds: list[Held]) -> None:
        """What was put aside for calls that never began."""
        held = [one for one in helds if one.rid]
        if held:
            await self.generator.book(model).free(held)

    async def kept_or_made(
        self, namespace: str, key: str, make: Callable[[], Awaitable[Json]], ttl: float | None = None
    ) -> Kept:
        """A result that is kept, or made now. One that is made may stand in later.

        Raises what `make` raises; where that is a want of quota and an earlier result may stand in,
        that is given instead, flagged.
        """
        lifetime = float(self.settings.cache.redis_ttl) if ttl is None else ttl
        try:
            kept = await self.layers.get_or_make(namespace, key, lifetime, make)
        except MadeOnce as once:
            kept = Kept(once.value)
        except QuotaExhaustedError as error:
            return await self._standing_in(namespace, key, self._refused(error))
        except QuotaExceededError as error:
            return await self._standing_in(namespace, key, error)
        fallbacks = self.settings.quota_enable_fallback and isinstance(kept.value, dict)
        if not kept.hit and self.tracker is not None and fallbacks:
            good = lifetime if self.settings.caching else 0.0
            await self.tracker.acache_response(f"{namespace}:{key}", kept.value, good=good)
        return kept

    async def forget(self, namespace: str, pattern: str) -> int:
        """Forget results under readable keys that match a glob; they do not stand in any more either.
        How many there were. Raises `StoreError`, as `Layers.invalidate` does."""
        removed = await self.layers.invalidate(namespace, pattern)
        if self.tracker is not None and namespace == FALLBACKS:
            return removed + await self.tracker.aforget_responses(pattern)
        if self.tracker is not None:
            await self.tracker.aforget_responses(f"{namespace}:{pattern}")
        return removed

    def assessed(self, kind: str, validator: str, found: Assessment) -> None:
        """Count what the heuristics say of something that was made."""
        if self.measures is None:
            return
        self.measures.quality(kind, found.score)  # type: ignore[arg-type] # one of three
        for code in found.codes:
            self.measures.validation_failure(validator, code)

    def _refused(self, error: QuotaExhaustedError) -> QuotaExceededError:
        refusal = quota_refusal(error, None if self.tracker is None else self.tracker.config)
        if self.measures is not None and refusal.limit in _LIMIT_WORDS:
            self.measures.quota_exceeded(cast("Any", refusal.limit))
        return refusal

    async def _standing_in(self, namespace: str, key: str, error: QuotaExceededError) -> Kept:
        found = None
        if self.tracker is not None:
            found = await self.tracker.aget_fallback_response(f"{namespace}:{key}")
        if found is None:
            raise error
        return Kept(found, "memory")
