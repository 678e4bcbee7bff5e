"""Requests that are repeated with the same idempotency key have one effect, and the same answer.

A client that lost the answer to a POST repeats it with its key: what was done is not done again, and
the answer comes from memory, marked as replayed. The codes are those of the IETF draft (422 for a key
that belongs to another request, 409 while the first is under way); the time kept is Stripe's, 24 hours.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256

from msgspec import Struct

from headgate.core.ports import Clock
from headgate.gateway.manage.trouble import TroubleError

__all__ = ["KEPT_SECONDS", "MOST_KEPT", "MOST_KEPT_BYTES", "Repeats", "Told"]

KEPT_SECONDS = 24 * 3600.0
MOST_KEPT = 1000
"""Answers; the oldest makes room."""

MOST_KEPT_BYTES = 8 * 1024 * 1024
"""Of all of them."""

_LONGEST_KEY = 255


class Told(Struct, frozen=True):
    """An answer that was given. `body` is None where it held a secret, and is not told again."""

    status: int
    body: bytes | None


class _Record(Struct):
    request: bytes
    begun: float
    told: Told | None = None

    @property
    def size(self) -> int:
        return 0 if self.told is None or self.told.body is None else len(self.told.body)


class Repeats:
    """The keys of one process, and what was answered."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    def begin(self, key: str, method: str, path: str, body: bytes) -> Told | None:
        """A request with a key: the answer it had; None where it is new, and `end` or `drop` follows.

        Raises `TroubleError`: the key is none, belongs to another request, or its request goes on.
        """
        if not (0 < len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
            raise TroubleError(
                "invalid", f"idempotency-key takes 1 to {_LONGEST_KEY} printable ASCII characters."
            )
        self._forget()
        request = sha256(b"%s %s\n%s" % (method.encode(), path.encode(), body)).digest()
        held = self._records.get(key)
        if held is None:
            self._records[key] = _Record(request, self._clock.monotonic())
            return None
        if held.request != request:
            raise TroubleError("key-reused", "This idempotency key was used for another request.")
        if held.told is None:
            raise TroubleError("in-progress", "The first request with this key has not ended yet.")
        if held.told.body is None:
            raise TroubleError(
                "conflict",
                "That was done. Its answer held a secret, which is told once and not kept.",
                hint="Where the answer was lost, rotate the key: that gives a new one.",
            )
        return held.told

    def end(self, key: str, told: Told) -> None:
        """The request was answered, and what it did is done."""
        held = self._records.get(key)
        if held is not None and held.told is None:
            held.told = told
            self._bytes += held.size
            self._forget()

    def drop(self, key: str) -> None:
        """The request failed and changed nothing: it may be tried again with the same key."""
        held = self._records.get(key)
        if held is not None and held.told is None:
            del self._records[key]

    def _forget(self) -> None:
        """Those that are too old; then the oldest, as far as there are too many. Never one whose
        request goes on: its repetition must not begin a second one."""
        old = self._clock.monotonic() - KEPT_SECONDS
        for key, record in list(self._records.items()):
            crowded = len(self._records) > MOST_KEPT or self._bytes > MOST_KEPT_BYTES
            if record.begun > old and not crowded:
                return
            if record.told is not None:
                self._bytes -= record.size
                del self._records[key]
