"""`QuotaTracker`: the accepted face of the ledger (S4-09, S4 §5.7), for code with and without a loop.

Every method works without `await`; its twin with the prefix `a` is the same for coroutines. The tracker
of a content service keeps the engine's own ledger. One that stands alone keeps a ledger of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from headgate.content.ports import Json, Layers
from headgate.content.quota_book import QuotaBook
from headgate.content.quota_config import (
    LIMITS,
    Held,
    NoRoom,
    QuotaConfig,
    QuotaExceededError,
    limit_sentence,
    priority_of,
)
from headgate.content.quota_queue import QueueEntry, QuotaQueue
from headgate.core.ports import Clock
from headgate.core.quota import Counts
from headgate.wiring.blocking import Bridge

__all__ = ["FALLBACKS", "QuotaTracker", "Work"]

T = TypeVar("T")

Work = Callable[[], Awaitable[object]]
"""Queued work: called when its quota is put aside. It may give the tokens it used; what it raises is
logged."""

FALLBACKS = "fallback"
"""Namespace of the responses that may stand in."""

_ESTIMATE = 1000
"""Tokens of a request that says nothing of them (S4 §5.7)."""

_log = logging.getLogger("headgate.content")


@dataclass(slots=True)
class _Counts:
    total_requests: int = 0
    quota_exceeded: int = 0
    fallback_used: int = 0


class QuotaTracker:
    """What may be sent now, what was sent, and what stands in where nothing may be.

    `can_make_request` answers without booking. Who is going to send uses `reserve` and `settle`, which
    leave no instant between check and booking; so do `with_quota_check` and the routes of the service.

    Args:
        config: the limits; None: those of `QuotaConfig()`.
        book: the ledger, instead of one of its own.
        shelf: where responses that may stand in are kept; it stays its giver's.
        book_of: the ledger of another model than that of `book`.
        on_exceeded: hears the limit of each refusal.
    """

    def __init__(
        self,
        config: QuotaConfig | None = None,
        *,
        book: QuotaBook | None = None,
        shelf: Layers | None = None,
        clock: Clock | None = None,
        book_of: Callable[[str], QuotaBook] | None = None,
        on_exceeded: Callable[[str | None], None] | None = None,
    ) -> None:
        from headgate.content.quota_alone import lone_book, lone_shelf, machine_clock  # noqa: PLC0415

        self.config = config or QuotaConfig()
        self._clock = clock or machine_clock()
        self.book = book or lone_book(self.config, self._clock)
        self.shelf = shelf or lone_shelf(self._clock)
        self._queue = QuotaQueue(
            self._clock, most=self.config.max_queue_size, seconds=self.config.queue_timeout
        )
        self._counts = _Counts()
        self._book_of = book_of
        self._on_exceeded = on_exceeded
        self._bridge = Bridge()
        self._working: set[asyncio.Task[None]] = set()

    # ── asking and booking ──────────────────────────────────────────────────────────────────────

    async def acan_make_request(self, estimated_tokens: int = _ESTIMATE) -> tuple[bool, str]:
        """Whether a request of this size has room now, and in words why not. Books nothing."""
        fills = await self.book.fills()
        if fills is None:  # the store cannot tell: what is put aside is given back at once
            got = await self.book.reserve((estimated_tokens,))
            if isinstance(got, NoRoom):
                return False, self._sentence(got.limit)
            await self.book.free(got)
            return True, "OK"
        binding = [_binding(row, estimated_tokens) for row in fills]
        if any(name is None for name in binding):
            return True, "OK"
        return False, self._sentence(binding[0] if binding else None)

    async def areserve(
        self, tokens: int, *, count: int = 1, wait: float = 0.0, book: QuotaBook | None = None
    ) -> tuple[Held, ...]:
        """Put aside `count` requests of `tokens` each, or none.

        Args:
            wait: seconds it may wait for room.
            book: the ledger of another model than the tracker's.

        Raises:
            QuotaExceededError: there is no room; it says which limit binds, until when, and how many
                would fit.
            NoUsableKeyError: no key may ever serve.
        """
        ledger = book or self.book
        got = await ledger.reserve_within((tokens,) * count, wait)
        if isinstance(got, NoRoom):
            raise self.exceeded(got)
        self._counts.total_requests += count
        return got

    def exceeded(self, refused: NoRoom) -> QuotaExceededError:
        """Count a refusal, and say it."""
        self._counts.quota_exceeded += 1
        if self._on_exceeded is not None:
            self._on_exceeded(refused.limit)
        return QuotaExceededError(
            self._sentence(refused.limit),
            limit=refused.limit,
            retry_after=refused.seconds,
            fits=refused.fits,
        )

    async def asettle(self, held: Held, actual_tokens: int | None) -> None:
        """Say what a reservation used; None: nothing was sent, and all of it is given back. For calls
        that did not go through the engine, which settles its own."""
        book = self.book
        if self._book_of is not None and held.model not in ("", book.model):
            book = self._book_of(held.model)
        await book.settle(held, actual_tokens)

    async def arecord_request(self, actual_tokens: int) -> None:
        """Book a request that was made without a reservation."""
        self._counts.total_requests += 1
        await self.book.record(actual_tokens)

    # ── what may stand in ───────────────────────────────────────────────────────────────────────

    async def acache_response(self, key: str, response: Json, *, good: float = 0.0) -> None:
        """Keep a response that may stand in later.

        Args:
            good: seconds for which it is good anyway: its time to stand in begins after them.
        """
        await self.shelf.put(FALLBACKS, key, response, good + self.config.fallback_cache_ttl)

    async def aforget_responses(self, pattern: str = "*") -> int:
        """Forget responses whose keys match a glob: they stand in no more. How many there were. Raises
        `StoreError` where the shared store is away: some may still be there."""
        return await self.shelf.invalidate(FALLBACKS, pattern)

    async def aget_fallback_response(self, key: str) -> Json | None:
        """What may stand in, None where nothing may. An object is told apart from a normal answer by
        `cached` and `from_fallback` (S4-07)."""
        if not self.config.enable_fallback:
            return None
        kept = await self.shelf.get(FALLBACKS, key)
        if kept is None:
            return None
        self._counts.fallback_used += 1
        if isinstance(kept.value, dict):
            return {**kept.value, "cached": True, "from_fallback": True}
        return kept.value

    # ── what waits ──────────────────────────────────────────────────────────────────────────────

    async def aqueue_request(
        self,
        priority: object,
        endpoint: str,
        estimated_tokens: int,
        user_id: str | None = None,
        *,
        work: Work | None = None,
    ) -> bool:
        """Take a place in line. False where none is left.

        Args:
            priority: a `RequestPriority` or its name; MEDIUM is NORMAL.
            work: is called once its quota is put aside, within the queue's time-out. Without it, the
                place waits for whoever calls `get_next_request`.
        """
        entry = self._queue.put(priority_of(priority), endpoint, estimated_tokens, user_id)
        if entry is None:
            return False
        if work is not None:
            entry.waits_here()  # from here on it has its place among those that wait
            task = asyncio.get_running_loop().create_task(self._do(entry, work))
            self._working.add(task)
            task.add_done_callback(self._working.discard)
        return True

    async def aturn(
        self,
        priority: object,
        endpoint: str,
        tokens: int,
        seconds: float,
        book: QuotaBook | None = None,
    ) -> Held:
        """Wait in line for quota, so many seconds at the most.

        Raises:
            QuotaExceededError: the line is full, or there was no room in time.
        """
        entry = self._queue.put(priority_of(priority), endpoint, tokens, None, seconds)
        if entry is None:
            raise QuotaExceededError("Too many requests wait for quota already", retry_after=seconds)
        held = await self._queue.turn(entry, book or self.book)
        self._counts.total_requests += 1
        return held

    async def aget_next_request(self) -> dict[str, object] | None:
        """The most urgent place that waits to be taken; None: there is none."""
        entry = self._queue.take()
        return None if entry is None else entry.shown()

    async def _do(self, entry: QueueEntry, work: Work) -> None:
        try:
            held = await self._queue.turn(entry, self.book)
        except QuotaExceededError as error:
            _log.warning("queued=dropped endpoint=%s reason=%s", entry.endpoint, error.message)
            return
        self._counts.total_requests += 1
        used = 0  # by work that fails: its request counts, its tokens do not
        try:
            told = await work()
            used = told if isinstance(told, int) else entry.tokens
        except Exception as error:  # noqa: BLE001 - nobody waits for it
            _log.error("queued=failed endpoint=%s error=%s", entry.endpoint, type(error).__name__)
        finally:
            await self.book.settle(held, used)

    # ── what is shown ───────────────────────────────────────────────────────────────────────────

    async def aget_stats(self) -> dict[str, object]:
        """Use and limits in the accepted shape (S4 §5.6). Sums over projects, where there are some."""
        from headgate.content.quota_stats import stats_of  # noqa: PLC0415 - for those who ask

        counts, queue = self._counts, self._queue
        statistics: dict[str, object] = {
            "total_requests": counts.total_requests,
            "quota_exceeded": counts.quota_exceeded,
            "fallback_used": counts.fallback_used,
            "queued_requests": queue.total,
            "current_queue_size": len(queue),
        }
        return stats_of(self.config, await self.book.fills(), statistics, queue.lengths())

    def _sentence(self, limit: str | None) -> str:
        return limit_sentence(limit, self.config.nominal(limit) if limit in LIMITS else None)

    # ── without await ───────────────────────────────────────────────────────────────────────────

    def can_make_request(self, estimated_tokens: int = _ESTIMATE) -> tuple[bool, str]:
        """See `acan_make_request`."""
        return self._run(self.acan_make_request(estimated_tokens))

    def reserve(self, tokens: int, *, count: int = 1, wait: float = 0.0) -> tuple[Held, ...]:
        """See `areserve`."""
        return self._run(self.areserve(tokens, count=count, wait=wait))

    def settle(self, held: Held, actual_tokens: int | None) -> None:
        """See `asettle`."""
        self._run(self.asettle(held, actual_tokens))

    def record_request(self, actual_tokens: int) -> None:
        """See `arecord_request`."""
        self._run(self.arecord_request(actual_tokens))

    def cache_response(self, key: str, response: Json) -> None:
        """See `acache_response`."""
        self._run(self.acache_response(key, response))

    def get_fallback_response(self, key: str) -> Json | None:
        """See `aget_fallback_response`."""
        return self._run(self.aget_fallback_response(key))

    def queue_request(
        self,
        priority: object,
        endpoint: str,
        estimated_tokens: int,
        user_id: str | None = None,
        *,
        work: Work | None = None,
    ) -> bool:
        """See `aqueue_request`. Work runs on a thread of the tracker's."""
        return self._run(self.aqueue_request(priority, endpoint, estimated_tokens, user_id, work=work))

    def get_next_request(self) -> dict[str, object] | None:
        """See `aget_next_request`."""
        return self._run(self.aget_next_request())

    def get_stats(self) -> dict[str, object]:
        """See `aget_stats`."""
        return self._run(self.aget_stats())

    def close(self) -> None:
        """End the thread of calls without await."""
        self._bridge.stop()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._bridge.run(work)


def _binding(row: tuple[Any, ...], tokens: int) -> str | None:
    """The first limit of a domain that has no room for a call of this size; None: all have."""
    for fill in row:
        limit = fill.limit
        need = tokens if limit.counts in (Counts.TOTAL, Counts.INPUT) else 1
        if limit.name in LIMITS and fill.used + need > limit.amount:
            name: str = limit.name
            return name
    return None
