"""How long replies are remembered, for whom, and what the memory holds (S3-03b, S3-03c, S3-16)."""

from __future__ import annotations

from hashlib import sha256

from headgate.backend.measures import CacheStats
from headgate.backend.requests import GeminiRequest
from headgate.backend.settings import BackendConfig
from headgate.core.call import Keeping
from headgate.core.errors import InvalidCallError
from headgate.core.replies import CacheFigures, KeptReply
from headgate.wiring.replies import CacheBounds

__all__ = ["age_of", "bounds_of", "cache_stats", "keeping_of", "partition_of"]

MEGABYTE = 1_000_000

_LONGEST_NAME = 256


def bounds_of(config: BackendConfig) -> CacheBounds:
    """How much is kept. A lifetime of 0 keeps nothing."""
    bytes_ = config.cache_max_size_mb * MEGABYTE if config.cache_ttl_seconds > 0 else 0
    shared = config.cache_shared_max_size_mb * MEGABYTE
    return CacheBounds(config.cache_max_entries, bytes_, shared)


def keeping_of(
    request: GeminiRequest, config: BackendConfig, api_key: str | None = None
) -> Keeping | None:
    """How the reply to a request is remembered; None: not at all.

    It is remembered for its caller alone, and for the caller's own key if there is one.

    Raises:
        InvalidCallError: `cache_namespace` is no text of up to 256 characters.
    """
    name: object = request.cache_namespace
    if not isinstance(name, str) or len(name) > _LONGEST_NAME:
        shown = f"{len(name)} characters" if isinstance(name, str) else type(name).__name__
        raise InvalidCallError(
            f"cache_namespace takes a text of up to {_LONGEST_NAME} characters; got {shown}."
        )
    if not request.use_cache or not bounds_of(config).keeps:
        return None
    return Keeping(
        partition=partition_of(request.caller, api_key),
        namespace=name,
        ttl=config.cache_ttl_seconds,
        revalidate=config.cache_stale_seconds,
        rescue=config.cache_rescue_seconds,
    )


def partition_of(caller: str, api_key: str | None) -> str:
    """Whose memory it is: a caller's, and of its own API key if it has one. No two share a name.

    Raises:
        InvalidCallError: the key is no text.
    """
    given: object = api_key
    if given is not None and not isinstance(given, str):
        raise InvalidCallError("api_key takes a text.")
    key = "" if api_key is None else sha256(api_key.encode()).hexdigest()
    return f"{key}:{caller}"


def age_of(recalled: KeptReply | None, wall: float) -> float | None:
    """How old a remembered reply is, in seconds."""
    return None if recalled is None else max(0.0, wall - recalled.at)


def cache_stats(figures: CacheFigures) -> CacheStats:
    """Figures in the accepted words."""
    lookups = figures.hits + figures.misses
    return CacheStats(
        entries=figures.entries,
        size_bytes=figures.bytes,
        max_size_bytes=figures.most_bytes,
        total_hits=figures.hits,
        expired_entries=figures.expired,
        hit_rate=100 * figures.hits / lookups if lookups else 0.0,
    )
