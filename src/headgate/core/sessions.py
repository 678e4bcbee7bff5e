"""What is remembered of a conversation between its calls, and where it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct, field

__all__ = ["Session", "SessionBlob", "SessionPiece", "SessionStore", "SessionText", "SessionTurn"]


class SessionBlob(Struct, frozen=True, tag="blob"):
    """Media in a turn.

    Attributes:
        data: the bytes; empty where only the upstream still has them.
        digest: what media that were uploaded are known by; empty for those that travel in the call.
        size: bytes of media that were uploaded.
    """

    mime_type: str
    data: bytes
    digest: str = ""
    size: int = 0


class SessionText(Struct, frozen=True, tag="text"):
    """Text in a turn."""

    text: str


class SessionPiece(Struct, frozen=True, tag="piece"):
    """A piece in the upstream's own form, such as a function call with its signature."""

    piece: Mapping[str, object]


class SessionTurn(Struct, frozen=True):
    """What one side said.

    Attributes:
        role: `user` or `model`.
        at: Unix time in seconds.
        tokens: as estimated, or as the upstream counted an answer.
        summary: it stands for older turns.
    """

    role: str
    parts: tuple[SessionText | SessionBlob | SessionPiece, ...]
    at: float
    tokens: int = 0
    summary: bool = False


class Session(Struct, frozen=True):
    """A conversation. Immutable; a change is a new one with the next version.

    Attributes:
        caller: whose it is, and of which API key; ids of two never meet.
        version: counts the changes; 0 was never saved.
        created, updated: Unix time in seconds.
        system: the system instruction; it outlives every turn.
    """

    session_id: str
    caller: str = ""
    version: int = 0
    created: float = 0.0
    updated: float = 0.0
    system: str | None = None
    turns: tuple[SessionTurn, ...] = field(default=())


class SessionStore(Protocol):
    """Where sessions live. Every implementation behaves alike; times are Unix seconds, told by callers.

    Threads may share it. A store whose `blocks` is true must not be called from an event loop's own
    thread. Nothing is opened before the first call. A store that cannot be opened raises
    `ConfigurationError`, one that cannot answer `StoreError`.
    """

    @property
    def blocks(self) -> bool:
        """Whether calls wait for a disk."""

    def claim(self, caller: str, session_id: str, holder: str, now: float, seconds: float) -> bool:
        """Take the right to the session's next turn, for so many seconds; False: another has it."""

    def renew(self, caller: str, session_id: str, holder: str, now: float, seconds: float) -> bool:
        """Hold that right for so many seconds from now; False: it was given back, or another has it."""

    def release(self, caller: str, session_id: str, holder: str) -> None:
        """Give that right back. Harmless where it was lost."""

    def load(self, caller: str, session_id: str, since: float) -> Session | None:
        """The session, unless it was last changed before `since`."""

    def save(self, session: Session) -> bool:
        """Keep a session, if the one that is kept has the version before it. Whether it was kept."""

    def forget(self, caller: str, session_id: str) -> bool:
        """Drop a session. Whether there was one."""

    def expire(self, before: float) -> int:
        """Drop sessions last changed before an instant. How many there were."""

    def close(self) -> None:
        """Give files back. Whoever asks afterwards opens them again."""
