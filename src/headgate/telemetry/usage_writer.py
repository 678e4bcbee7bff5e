"""Writes usage rows off the path of calls, in batches, and says exactly what may be lost.

A row is written at most `FLUSH_SECONDS` after it was told; one that is made from what the engine
reports may be held back once more as long, until it is known whether its call goes on. So a process
that is killed loses no more than what ended within the last half second; one that is closed loses
nothing, and one that ends without that only what a store does not take within two seconds. While the
store fails, up to `MOST_WAITING` rows wait for it; further ones are dropped, oldest first, and counted.
Nothing is opened before the first row. What was told before a fork is the parent's to write.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Lock, Thread, current_thread
from typing import Protocol, TypeVar

from headgate.core.errors import ConfigurationError, HeadgateError, StoreError
from headgate.core.usage import UsageFilter, UsageRow, UsageStore
from headgate.telemetry.process_ends import follow, leave_alone

__all__ = ["FLUSH_SECONDS", "MOST_WAITING", "RowSource", "UsageWriter"]

T = TypeVar("T")

FLUSH_SECONDS = 0.25
MOST_WAITING = 100_000

_BATCH = 1000
_RETRY_SECONDS = 1.0
_IDLE_ROUNDS = 40
"""Rounds with nothing to do after which the thread ends; the next row starts another."""

_LATE_ROUNDS = 4
"""The same for one that was closed before: it gives the store back too. Rows may be held for two."""

_FORK_SECONDS = 1.0
"""How long a fork waits for what is being written. To a child that was forked within a transaction
SQLite calls its file locked for ever."""

_FORGET_SECONDS = 3600.0
"""How often rows that are too old are dropped."""

_STEADY_SECONDS = 60.0
"""A wall clock that moved by more than this against the monotonic one jumped: what is too old by it may
not be."""

_log = logging.getLogger("headgate.usage")


class RowSource(Protocol):
    """Where rows come from that nobody told: asked each time the writer comes by."""

    def rows(self, *, last: bool) -> Sequence[UsageRow]:
        """What there is by now; with `last` all that was held back too."""

    def forked(self) -> None:
        """This is a child process: drop what is not a row yet, and any lock. It must not raise."""


class _NoRows:
    def rows(self, *, last: bool) -> Sequence[UsageRow]:  # noqa: ARG002 - the protocol
        return ()

    def forked(self) -> None:
        pass


class UsageWriter:
    """A thread of its own between those who tell rows and the store. Any thread may tell.

    Args:
        store: where the rows go, or what opens it and may find that there is none; it is closed with
            the writer. None: nowhere, and only `source` is asked.
        source: makes rows.
        flush_seconds: longest a row waits while the store works.
        most_waiting: rows kept while it does not.
        times: Unix and monotonic seconds of the moment; None: nothing is ever forgotten.
        kept_days: how long rows are kept.

    Attributes:
        written: rows the store has taken.
        dropped: rows lost because the store failed for too long.
    """

    def __init__(
        self,
        store: UsageStore | Callable[[], UsageStore | None] | None,
        source: RowSource | None = None,
        *,
        flush_seconds: float = FLUSH_SECONDS,
        most_waiting: int = MOST_WAITING,
        times: Callable[[], tuple[float, float]] | None = None,
        kept_days: Callable[[], float] = lambda: float("inf"),
    ) -> None:
        self._opener: Callable[[], UsageStore | None] | None = store if callable(store) else None
        self._store: UsageStore | None = None if callable(store) else store
        self._keeps = store is not None
        self._asking = 0  # questions under way
        self._closed = False
        self._source = source or _NoRows()
        self._flush_seconds = flush_seconds
        self._most = most_waiting
        self._times = times
        self._kept_days = kept_days
        self._forgot: tuple[float, float] | None = None
        self._rows: deque[UsageRow] = deque()
        self.written = 0
        self.dropped = 0
        self._still: list[Lock] = []
        self._begin()
        follow(self)

    def _begin(self) -> None:
        """Nothing runs, and nobody holds a lock."""
        self._opening = Lock()
        self._changed = Condition()
        self._draining = Lock()
        self._thread: Thread | None = None
        self._closing = False
        self._refused = False
        self._asked = 0  # flushes asked for, and those done
        self._done = 0
        self._failing = False
        self._busy = False

    @property
    def keeps(self) -> bool:
        """Whether there is a store."""
        return self._keeps

    @property
    def quiet(self) -> bool:
        """Whether nothing is open: nothing was told yet, or it was closed."""
        return self._thread is None and self._store is None

    @property
    def waiting(self) -> int:
        """Rows that the store has not taken yet."""
        return len(self._rows)

    @property
    def failing(self) -> bool:
        """Whether the store failed when it was last told something."""
        return self._failing

    def store(self) -> UsageStore | None:
        """The store, opened now if it is not yet; None where there is none. It blocks.

        Raises:
            ConfigurationError: it cannot be opened.
        """
        with self._opening:
            if self._store is None and self._keeps and self._opener is not None:
                self._store = self._opener()
                self._keeps = self._store is not None
            return self._store

    def ask(self, question: Callable[[UsageStore], T]) -> T | None:
        """Ask the store, which stays open meanwhile; None where there is none. It blocks.

        Raises:
            ConfigurationError: it cannot be opened.
            StoreError: it does not answer.
        """
        with self._opening:
            self._asking += 1
        try:
            store = self.store()
            return None if store is None else question(store)
        finally:
            with self._opening:
                self._asking -= 1
            if self._closed:
                self.wake()  # somebody must give it back

    def tell(self, row: UsageRow) -> None:
        """Take a row. Never blocks, never raises."""
        self._rows.append(row)
        self._bound()
        self.wake()

    def wake(self) -> None:
        """There is, or will be, something to write: see that somebody does."""
        thread = self._thread
        if thread is None or not thread.is_alive():  # a fork leaves it behind
            self._start()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every row told before is written; whether it is, in so many seconds."""
        if self._thread is None:
            return True
        self.wake()
        with self._changed:
            self._asked += 1
            mine = self._asked
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._done >= mine, timeout) and not self._failing

    def close_when_idle(self) -> None:
        """From here on nothing stays open longer than something waits to be written. Blocks nobody."""
        self._closed = True

    def close(self, timeout: float | None = None) -> None:
        """Write what waits, then close the store. Rows it does not take are counted as dropped.

        A row that is told later opens it again, where it was opened here, until it is written.

        Args:
            timeout: seconds after which what is being written is left to itself.
        """
        with self._changed:
            self._closing = self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)
            if thread.is_alive():
                _log.error("usage=not_written reason=no_time waiting=%d", len(self._rows))
                return
        if not self._failing:
            self._drain(last=True)  # what was told while the thread ended
        self.dropped += len(self._rows)
        self._rows.clear()
        self._give_back()
        with self._changed:
            self._thread, self._closing = None, self._opener is None
            again = self._refused and not self._closing
        if again:
            self.wake()

    def forks(self) -> None:
        """A fork is near: hold still until it is over, with nothing open that a child would share."""
        locks = (self._draining, self._opening)
        self._still = [lock for lock in locks if lock.acquire(timeout=_FORK_SECONDS)]
        store = self._store
        alone = len(self._still) == len(locks) and not self._asking
        if alone and store is not None and self._opener is not None:
            self._store = None
            store.close()

    def goes_on(self) -> None:
        """The fork is over, and this is the parent."""
        for lock in self._still:
            lock.release()
        self._still = []

    def forked(self) -> None:
        """The fork is over, and this is the child: begin anew, with what is told from here on."""
        self._still = []
        self._begin()
        self._rows.clear()
        self._source.forked()
        self._asking = 0
        if self._opener is not None:
            if self._store is not None:
                leave_alone(self._store)
            self._store = None

    def _give_back(self) -> None:
        with self._opening:
            if self._store is None or (self._asking and self._opener is not None):
                return
            self._store.close()
            self._store = None

    def _bound(self) -> None:
        while len(self._rows) > self._most:
            self._rows.popleft()
            self.dropped += 1

    def _start(self) -> None:
        with self._changed:
            running = self._thread is not None and self._thread.is_alive()
            self._refused = self._closing
            if not running and not self._closing:
                self._thread = Thread(target=self._serve, name="headgate-usage", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        idle = 0
        while True:
            with self._changed:
                asked, closing = self._asked, self._closing
            good = self._drain(last=closing)
            idle = 0 if self._busy else idle + 1
            if good and not closing:
                with self._draining:
                    self._forget()
            with self._changed:
                self._failing, self._done = not good, asked
                self._changed.notify_all()
                if closing:
                    return
                pause = self._flush_seconds if good else _RETRY_SECONDS
                self._changed.wait_for(lambda: self._closing or self._asked > self._done, pause)
            if idle >= (_LATE_ROUNDS if self._closed else _IDLE_ROUNDS) and self._retires():
                return

    def _retires(self) -> bool:
        """End the thread, unless somebody told something at this very moment."""
        with self._changed:
            if self._closing or self._asked > self._done:
                return False
            self._thread = None  # whoever tells something from here on starts another
        self._drain(last=False)
        with self._changed:
            if self._busy and self._thread is None:
                self._thread = current_thread()
                return False
        if self._closed:
            with self._draining:  # another thread may have begun by now
                self._give_back()
        return True

    def _drain(self, *, last: bool) -> bool:
        with self._draining:
            made = self._source.rows(last=last)
            self._busy = bool(made or self._rows)
            return self._write(made)

    def _write(self, made: Sequence[UsageRow]) -> bool:
        if not self.keeps:
            self._rows.clear()
            return True
        self._rows.extend(made)
        self._bound()
        while self._rows:
            batch = [self._rows.popleft() for _ in range(min(_BATCH, len(self._rows)))]
            try:
                store = self.store()
                if store is not None:
                    store.write(batch)
            except (StoreError, ConfigurationError) as error:
                return self._fails(batch, error)
            self.written += len(batch)
        if self._failing:
            _log.info("usage=written_again dropped=%d", self.dropped)
        return True

    def _fails(self, batch: Sequence[UsageRow], error: HeadgateError) -> bool:
        self._rows.extendleft(reversed(batch))  # rows are kept once, so again does no harm
        if not self._failing:
            _log.error("usage=not_written waiting=%d error=%s", len(self._rows), error)
        return False

    def _forget(self) -> None:
        """Drop what is too old, at the start and once an hour, by a clock that can be believed."""
        days = self._kept_days()
        if self._times is None or self._store is None or days == float("inf"):
            return
        wall, monotonic = self._times()
        if self._forgot is not None:
            before_wall, before = self._forgot
            if monotonic - before < _FORGET_SECONDS:
                return
            if abs((wall - before_wall) - (monotonic - before)) > _STEADY_SECONDS:
                self._forgot = wall, monotonic
                _log.warning("usage=nothing_forgotten reason=clock_jumped")
                return
        first, self._forgot = self._forgot is None, (wall, monotonic)
        before = wall - days * 86_400
        try:
            if first and self._would_empty(before, wall):
                self._times = None  # this clock may be wrong from the start
                return
            gone = self._store.forget(before)
        except StoreError as error:
            _log.warning("usage=nothing_forgotten error=%s", error)
            return
        if gone:
            _log.info("usage=forgotten rows=%d before=%.0f", gone, before)

    def _would_empty(self, before: float, wall: float) -> bool:
        """Whether all that was there when this process began is too old by its clock."""
        earlier = UsageFilter(until=wall - 2 * self._flush_seconds - 1)
        newest = [] if self._store is None else self._store.newest(1, earlier)
        return bool(newest) and newest[0].at < before
