"""Writes usage rows off the path of calls, in batches, and says exactly what may be lost.

A row is written at most `FLUSH_SECONDS` after it was told. So a process that is killed loses no more
than what ended within that time; one that is closed loses nothing. While the store fails, up to
`MOST_WAITING` rows wait for it; further ones are dropped, oldest first, and counted.
"""

from __future__ import annotations

import logging
from collections import deque
from threading import Condition, Thread

from headgate.core.errors import StoreError
from headgate.core.usage import UsageRow, UsageStore

__all__ = ["FLUSH_SECONDS", "MOST_WAITING", "UsageWriter"]

FLUSH_SECONDS = 0.25
MOST_WAITING = 100_000

_BATCH = 1000
_RETRY_SECONDS = 1.0

_log = logging.getLogger("headgate.usage")


class UsageWriter:
    """A thread of its own between those who tell rows and the store. Any thread may tell.

    Args:
        store: where the rows go; it is closed with the writer.
        flush_seconds: longest a row waits while the store works.
        most_waiting: rows kept while it does not.

    Attributes:
        written: rows the store has taken.
        dropped: rows lost because the store failed for too long.
    """

    def __init__(
        self,
        store: UsageStore,
        *,
        flush_seconds: float = FLUSH_SECONDS,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._store = store
        self._flush_seconds = flush_seconds
        self._most = most_waiting
        self._rows: deque[UsageRow] = deque()
        self._changed = Condition()
        self._closing = False
        self._asked = 0  # flushes asked for, and those done
        self._done = 0
        self._failing = False
        self.written = 0
        self.dropped = 0
        self._thread: Thread | None = None

    def tell(self, row: UsageRow) -> None:
        """Take a row. Never blocks, never raises."""
        self._rows.append(row)
        while len(self._rows) > self._most:
            self._rows.popleft()
            self.dropped += 1
        if self._thread is None:
            self._start()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every row told before is written; whether it is, in so many seconds."""
        if self._thread is None:
            return True
        with self._changed:
            self._asked += 1
            mine = self._asked
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._done >= mine, timeout) and not self._failing

    def close(self) -> None:
        """Write what waits, then close the store. Rows it does not take are counted as dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self.dropped += len(self._rows)
        self._rows.clear()
        self._store.close()

    def _start(self) -> None:
        with self._changed:
            if self._thread is None and not self._closing:
                self._thread = Thread(target=self._serve, name="headgate-usage", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        while True:
            with self._changed:
                asked, closing = self._asked, self._closing
            good = self._drain()
            with self._changed:
                self._failing, self._done = not good, asked
                self._changed.notify_all()
                if closing:
                    return
                pause = self._flush_seconds if good else _RETRY_SECONDS
                self._changed.wait_for(lambda: self._closing or self._asked > self._done, pause)

    def _drain(self) -> bool:
        while self._rows:
            batch = [self._rows.popleft() for _ in range(min(_BATCH, len(self._rows)))]
            try:
                self._store.write(batch)
            except StoreError as error:
                self._rows.extendleft(reversed(batch))  # rows are kept once, so again does no harm
                if not self._failing:
                    _log.error("usage=not_written waiting=%d error=%s", len(self._rows), error)
                return False
            self.written += len(batch)
        if self._failing:
            _log.info("usage=written_again dropped=%d", self.dropped)
        return True
