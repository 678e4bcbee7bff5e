"""Inbound limits: one check of one caller, against a store that may fail.

Where the store fails, a bucket of this process stands in for the shared one (fail open), or the check
is refused (fail closed). Either way it is counted as `error`, so that an alert can hang on it.
"""

from __future__ import annotations

import logging
from hashlib import blake2b

from headgate.core.buckets import Ask, RateLimitExceeded, Verdict
from headgate.core.errors import StoreError
from headgate.core.ports import Buckets, LimitObserver

__all__ = ["Inbound"]

_log = logging.getLogger("headgate.limits")


class Inbound:
    """Decides, counts and logs checks.

    Args:
        stand_in: buckets of this process, for when the store fails; None refuses instead.
        log_key: keys the hash that stands for an identifier in logs.
        level: of the log lines about checks that were refused.
    """

    def __init__(
        self,
        store: Buckets,
        stand_in: Buckets | None,
        observer: LimitObserver,
        *,
        log_key: bytes,
        level: int = logging.WARNING,
    ) -> None:
        self._store = store
        self._stand_in = stand_in
        self._observer = observer
        self._log_key = log_key
        self._level = level

    async def take(self, ask: Ask) -> Verdict:
        """What the buckets say. Raises `RateLimitExceeded` only where a failed store refuses."""
        failed = False
        try:
            verdict = await self._store.take(ask)
        except StoreError as error:
            failed = True
            if self._stand_in is None:
                self._observer.checked(ask.identifier, "error", None)
                raise RateLimitExceeded(1, kind="store") from error
            verdict = await self._stand_in.take(ask)
        remaining = min(level.tokens for level in verdict.levels)
        result = "exceeded" if not verdict.allowed else "error" if failed else "allowed"
        self._observer.checked(ask.identifier, result, None if failed else remaining)
        self._tell(ask, verdict, remaining)
        return verdict

    async def check(self, ask: Ask) -> Verdict:
        """As `take`, but a denial raises `RateLimitExceeded`."""
        verdict = await self.take(ask)
        if not verdict.allowed:
            raise RateLimitExceeded(verdict.retry_after)
        return verdict

    async def look(self, ask: Ask) -> Verdict:
        """The buckets as they are; counts nothing. Raises `StoreError`."""
        return await self._store.take(ask)

    async def reset(self, identifier: str) -> int:
        """Delete every bucket of an identifier. Raises `StoreError`."""
        if self._stand_in is not None and self._stand_in is not self._store:
            await self._stand_in.reset(identifier)
        deleted = await self._store.reset(identifier)
        _log.info("rate_limit=reset identifier=%s buckets=%d", self._hash(identifier), deleted)
        return deleted

    async def aclose(self) -> None:
        """Wait for what is under way in this event loop."""
        await self._store.aclose()

    def _tell(self, ask: Ask, verdict: Verdict, remaining: float) -> None:
        level = logging.DEBUG if verdict.allowed else self._level
        if not _log.isEnabledFor(level):
            return
        who = self._hash(ask.identifier)
        if verdict.allowed:
            _log.debug("rate_limit=allowed identifier=%s remaining_tokens=%.3f", who, remaining)
        else:
            _log.log(
                level, "rate_limit=exceeded identifier=%s retry_after=%d", who, verdict.retry_after
            )

    def _hash(self, identifier: str) -> str:
        return blake2b(identifier.encode(), key=self._log_key, digest_size=6).hexdigest()
