"""Sessions in this process's memory: the default. They end with it."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from headgate.core.sessions import Session, SessionBlob, SessionText

__all__ = ["MemorySessions"]

_MOST = 10_000
"""Sessions at once: the one unused for longest gives way to one more."""

_MOST_BYTES = 256_000_000
"""Text and media of all of them together, likewise."""


class MemorySessions:
    """A `SessionStore` without a disk. Threads may share it.

    Args:
        most: sessions at once.
        most_bytes: characters of text and bytes of media in all of them together.
    """

    blocks = False

    def __init__(self, most: int = _MOST, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._lock = Lock()
        self._sessions: OrderedDict[tuple[str, str], Session] = OrderedDict()
        self._claims: dict[tuple[str, str], tuple[str, float]] = {}

    def claim(self, caller: str, session_id: str, holder: str, now: float, seconds: float) -> bool:
        """See `SessionStore.claim`."""
        place = (caller, session_id)
        with self._lock:
            held = self._claims.get(place)
            if held is not None and held[0] != holder and held[1] > now:
                return False
            self._claims[place] = (holder, now + seconds)
            return True

    def renew(self, caller: str, session_id: str, holder: str, now: float, seconds: float) -> bool:
        """See `SessionStore.renew`."""
        place = (caller, session_id)
        with self._lock:
            if self._claims.get(place, ("",))[0] != holder:
                return False
            self._claims[place] = (holder, now + seconds)
            return True

    def release(self, caller: str, session_id: str, holder: str) -> None:
        """See `SessionStore.release`."""
        place = (caller, session_id)
        with self._lock:
            if self._claims.get(place, ("",))[0] == holder:
                del self._claims[place]

    def load(self, caller: str, session_id: str, since: float) -> Session | None:
        """See `SessionStore.load`."""
        with self._lock:
            session = self._sessions.get((caller, session_id))
        return session if session is not None and session.updated >= since else None

    def save(self, session: Session) -> bool:
        """See `SessionStore.save`."""
        place = (session.caller, session.session_id)
        with self._lock:
            kept = self._sessions.get(place)
            if session.version != (0 if kept is None else kept.version) + 1:
                return False
            self._drop(place)
            self._sessions[place] = session
            self._bytes += _size(session)
            while len(self._sessions) > 1 and self._full:
                self._drop(next(iter(self._sessions)))
            return True

    def forget(self, caller: str, session_id: str) -> bool:
        """See `SessionStore.forget`."""
        with self._lock:
            return self._drop((caller, session_id))

    def expire(self, before: float) -> int:
        """See `SessionStore.expire`."""
        with self._lock:
            old = [place for place, session in self._sessions.items() if session.updated < before]
            for place in old:
                self._drop(place)
            for place in [place for place, (_, until) in self._claims.items() if until < before]:
                del self._claims[place]
        return len(old)

    def close(self) -> None:
        """See `SessionStore.close`."""

    @property
    def _full(self) -> bool:
        return len(self._sessions) > self._most or self._bytes > self._most_bytes

    def _drop(self, place: tuple[str, str]) -> bool:
        session = self._sessions.pop(place, None)
        if session is not None:
            self._bytes -= _size(session)
        return session is not None


def _size(session: Session) -> int:
    total = len(session.system or "")
    for turn in session.turns:
        for part in turn.parts:
            if isinstance(part, SessionBlob):
                total += len(part.data)
            elif isinstance(part, SessionText):
                total += len(part.text)
    return total
