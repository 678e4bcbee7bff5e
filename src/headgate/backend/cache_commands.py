"""What a backend offers about remembered replies: what there is (S3-16), and forgetting."""

from __future__ import annotations

from headgate.backend.errors import gemini_errors
from headgate.backend.generations import EngineRoom
from headgate.backend.measures import CacheStats
from headgate.backend.remembering import bounds_of, cache_stats
from headgate.core.errors import InvalidCallError
from headgate.core.ports import Clock
from headgate.core.replies import ReplyCache

__all__ = ["CacheCommands"]


class CacheCommands:
    """The commands about remembered replies."""

    _room: EngineRoom
    _clock: Clock

    async def get_gemini_cache_stats(self) -> CacheStats:
        """S3-16: what is remembered in the memory of this process, and how often that helped."""
        cache = self._room.replies.cache
        if cache is not None:
            return cache_stats(cache.figures())
        bounds = bounds_of(self._room.config)
        return CacheStats(max_size_bytes=bounds.bytes if bounds.keeps else 0)

    async def invalidate_gemini_cache(self, pattern: str) -> int:
        """Forget the replies of namespaces that match, `*` standing for anything. How many there were,
        as far as is known. Once it returns, no process that shares the store gives one of them. Ours.

        Raises:
            GeminiError: the pattern is no text, or the shared store does not answer: then some may
                still be given.
        """
        with gemini_errors(self._clock.wall):
            if not isinstance(pattern, str):
                raise InvalidCallError(f"pattern takes a text; got {type(pattern).__name__}.")
            cache = self._cache()
            return 0 if cache is None else await cache.invalidate(pattern)

    async def clear_gemini_cache(self) -> int:
        """Forget every reply; as `invalidate_gemini_cache` otherwise. Ours."""
        with gemini_errors(self._clock.wall):
            cache = self._cache()
            return 0 if cache is None else await cache.clear()

    def _cache(self) -> ReplyCache | None:
        """The cache of the running generation, built now if it is the first: others may share it."""
        self._room.generation()
        return self._room.replies.cache
