"""Conversations by `session_id`: one turn at a time, remembered until a day after the last one.

A turn is claimed, in this process by a lock and beyond it in the store, so that two questions of one
session are answered one after the other, each knowing the answer before it. What a failed or abandoned
call said is not remembered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from secrets import token_hex
from typing import TypeVar

from msgspec import structs

from headgate.backend.held_turns import CLAIM_SECONDS, HeldTurn
from headgate.backend.remembering import partition_of
from headgate.backend.structures import ConversationContext, ConversationMessage
from headgate.core.call import Blob, Part, Role, Turn, Upload
from headgate.core.errors import DeadlineExceededError, InvalidCallError
from headgate.core.ports import Clock
from headgate.core.sessions import (
    Session,
    SessionBlob,
    SessionPiece,
    SessionStore,
    SessionText,
    SessionTurn,
)

__all__ = ["OpenTurn", "Sessions", "spoken", "turn_of"]

_log = logging.getLogger("headgate.backend")

T = TypeVar("T")

_LONGEST_ID = 256
_POLL_SECONDS = 0.05
_COME_BACK = 1.0
"""Seconds until a session may be free again: nobody knows how long its turn takes."""

_EXPIRE_SECONDS = 600.0
_MOST_MEDIA = 20_000_000
"""Bytes of media a session remembers: each further call sends them again. Older ones are forgotten."""

_Piece = SessionText | SessionBlob | SessionPiece


class Sessions:
    """The sessions of a backend. Share it between tasks, threads and loops.

    Args:
        ttl: seconds a session lives after its last turn.
    """

    def __init__(self, store: SessionStore, clock: Clock, *, ttl: float) -> None:
        self._store = store
        self._clock = clock
        self.ttl = ttl
        self._locks: dict[tuple[asyncio.AbstractEventLoop, str, str], _Lock] = {}
        self._expired_at = clock.monotonic()
        self._closed = False

    async def begin(
        self, caller: str, session_id: str, deadline: float, *, api_key: str | None = None
    ) -> OpenTurn:
        """Wait for the session's turn and take it. End it, whatever happens.

        Args:
            deadline: monotonic seconds until which to wait.
            api_key: the caller's own: its sessions are its own as well.

        Raises:
            DeadlineExceededError: another turn of the session was under way until then.
            InvalidCallError: the id is no text of 1 to 256 characters, or the key no text.
            ConfigurationError: the store cannot be opened.
            StoreError: the store does not answer.
        """
        _check(session_id)
        caller = partition_of(caller, api_key)
        place = (asyncio.get_running_loop(), caller, session_id)
        lock = self._locks.setdefault(place, _Lock())
        lock.users += 1
        turn = OpenTurn(self, caller, session_id, lambda: self._leave(place))
        try:
            await self._locked(lock, turn, deadline)
            await self._claimed(turn, deadline)
            turn.session = await self.look(caller, session_id) or await self._fresh(caller, session_id)
        except BaseException:
            await turn.end()
            raise
        return turn

    async def look(self, caller: str, session_id: str) -> Session | None:
        """A session as it is kept for a caller and its key, or None. Raises what the store does."""
        since = self._clock.wall() - self.ttl
        return await self.do(lambda: self._store.load(caller, session_id, since))

    async def context(
        self, session_id: str, *, caller: str = "", api_key: str | None = None
    ) -> ConversationContext | None:
        """A session as a person may read it; None: there is none, or it expired."""
        _check(session_id)
        try:
            session = await self.look(partition_of(caller, api_key), session_id)
        finally:
            await self.close_unused()
        return None if session is None else _context(session)

    async def forget(self, session_id: str, *, caller: str = "", api_key: str | None = None) -> bool:
        """Drop a session. Whether there was one."""
        _check(session_id)
        whose = partition_of(caller, api_key)
        try:
            return await self.do(lambda: self._store.forget(whose, session_id))
        finally:
            await self.close_unused()

    async def aclose(self) -> None:
        """Close the store, now or with the last turn. Used once more, it is closed after each use."""
        self._closed = True
        await self.close_unused()

    # ── for turns ───────────────────────────────────────────────────────────────────────────────

    async def keep(self, session: Session) -> bool:
        """Save a session's next version; drop expired ones now and then."""
        kept = await self.do(lambda: self._store.save(session))
        now = self._clock.monotonic()
        if now - self._expired_at >= _EXPIRE_SECONDS:
            self._expired_at = now
            before = self._clock.wall() - self.ttl
            await self.do(lambda: self._store.expire(before))
        return kept

    def now(self) -> float:
        """Unix time in seconds."""
        return self._clock.wall()

    async def release(self, turn: OpenTurn) -> None:
        """Give a claim back."""
        await self.do(lambda: self._store.release(turn.caller, turn.session_id, turn.holder))

    async def close_unused(self) -> None:
        """Close the store if nobody is to use it any more and no turn is under way."""
        # A loop that was closed in the midst of a turn never ends it.
        under_way = any(not loop.is_closed() for loop, _, _ in list(self._locks))
        if self._closed and not under_way:
            await self.do(self._store.close)

    async def do(self, work: Callable[[], T]) -> T:
        """Ask the store, in a thread where it waits for a disk. Whoever is cancelled meanwhile waits
        until the store has answered: nothing it was told may take effect behind their back."""
        if not self._store.blocks:
            return work()
        future = asyncio.get_running_loop().run_in_executor(None, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    async def _fresh(self, caller: str, session_id: str) -> Session:
        await self.do(lambda: self._store.forget(caller, session_id))  # one that expired
        now = self._clock.wall()
        return Session(session_id, caller, created=now, updated=now)

    async def _locked(self, lock: _Lock, turn: OpenTurn, deadline: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic())):
                await lock.lock.acquire()
        except TimeoutError:
            raise _busy(turn.session_id) from None
        turn.on_end(lock.lock.release)

    async def _claimed(self, turn: OpenTurn, deadline: float) -> None:
        place = turn.caller, turn.session_id, turn.holder
        turn.claimed = True  # or about to be: releasing what one does not hold is harmless
        while not await self.do(lambda: self._store.claim(*place, self._clock.wall(), CLAIM_SECONDS)):
            if self._clock.monotonic() + _POLL_SECONDS > deadline:
                raise _busy(turn.session_id)
            await self._clock.sleep(_POLL_SECONDS)
        turn.held = HeldTurn(
            lambda: self.do(lambda: self._store.renew(*place, self._clock.wall(), CLAIM_SECONDS)),
            turn.session_id[:40],
        )

    def _leave(self, place: tuple[asyncio.AbstractEventLoop, str, str]) -> None:
        lock = self._locks[place]
        lock.users -= 1
        if not lock.users:
            del self._locks[place]


class _Lock:
    """A lock, and how many hold it or wait for it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class OpenTurn:
    """The right to a session's next turn, and the session as it was when the turn began."""

    def __init__(
        self, sessions: Sessions, caller: str, session_id: str, leave: Callable[[], None]
    ) -> None:
        self._sessions = sessions
        self._leave = leave
        self._unlock: Callable[[], None] | None = None
        self._ended = False
        self.caller = caller
        self.session_id = session_id
        self.holder = token_hex(8)
        self.claimed = False
        self.held: HeldTurn | None = None
        self.session = Session(session_id, caller)

    def on_end(self, unlock: Callable[[], None]) -> None:
        """Call this when the turn ends."""
        self._unlock = unlock

    async def keep(
        self, *, system: str | None, before: Sequence[SessionTurn], said: Sequence[SessionTurn]
    ) -> None:
        """Remember what was said.

        Args:
            before: the turns that are still part of the conversation.
            said: the new ones.
        """
        session = structs.replace(
            self.session,
            version=self.session.version + 1,
            updated=self._sessions.now(),
            system=system,
            turns=_without_old_media((*before, *said)),
        )
        if await self._sessions.keep(session):
            self.session = session
            return
        _log.warning(
            "session %s: another turn was remembered after this one's claim was lost, or it was "
            "forgotten; this turn is not remembered",
            self.session_id[:40],
        )

    async def end(self) -> None:
        """Let the next turn begin. Twice is harmless."""
        if self._ended:
            return
        self._ended = True
        try:
            await self._given_back()
        finally:
            if self._unlock is not None:
                self._unlock()
            self._leave()
            await self._sessions.close_unused()

    async def _given_back(self) -> None:
        try:
            if self.held is not None:
                await self.held.end()
        finally:
            if self.claimed:
                await self._sessions.release(self)


def _check(session_id: object) -> None:
    if not isinstance(session_id, str) or not 1 <= len(session_id) <= _LONGEST_ID:
        raise InvalidCallError(f"session_id takes a text of 1 to {_LONGEST_ID} characters.")


def _busy(session_id: str) -> DeadlineExceededError:
    return DeadlineExceededError(
        f"Session {session_id[:40]} was still busy with another turn when this call's time was up. Ask "
        "one question at a time, or allow more time. Nothing was sent.",
        kind="busy",
        retry_after=_COME_BACK,
    )


# ── turns as they are kept ──────────────────────────────────────────────────────────────────────


def spoken(turn: SessionTurn) -> Turn:
    """A kept turn as part of a call."""
    return Turn(Role(turn.role), tuple(_part(part) for part in turn.parts))


def turn_of(
    role: Role,
    parts: Sequence[Part | Mapping[str, object]],
    at: float,
    tokens: int,
    *,
    summary: bool = False,
) -> SessionTurn:
    """A turn as it is kept."""
    return SessionTurn(role.value, tuple(_kept(part) for part in parts), at, tokens, summary)


def _part(part: _Piece) -> Part | Mapping[str, object]:
    if isinstance(part, SessionText):
        return part.text
    if isinstance(part, SessionPiece):
        return part.piece
    upload = Upload(part.digest, part.size) if part.digest else None
    return Blob(part.mime_type, part.data, upload)


def _kept(part: Part | Mapping[str, object]) -> _Piece:
    if isinstance(part, str):
        return SessionText(part)
    if not isinstance(part, Blob):
        return SessionPiece(part)
    if part.upload is None:
        return SessionBlob(part.mime_type, part.data)
    data = part.data if part.size <= _MOST_MEDIA else b""  # the upstream keeps it for longer
    return SessionBlob(part.mime_type, data, part.upload.digest, part.size)


def _without_old_media(turns: Sequence[SessionTurn]) -> tuple[SessionTurn, ...]:
    """The newest media up to the bound; in the place of older ones a word that they were there."""
    room, kept = _MOST_MEDIA, []
    for turn in reversed(turns):
        parts: list[_Piece] = []
        for part in turn.parts:
            if isinstance(part, SessionBlob):
                room -= len(part.data)
                if room < 0 and part.digest:
                    part = structs.replace(part, data=b"")  # noqa: PLW2901 - the upstream has it
                elif room < 0:
                    part = SessionText(f"[{part.mime_type} that is no longer kept]")  # noqa: PLW2901
            parts.append(part)
        kept.append(structs.replace(turn, parts=tuple(parts)))
    return tuple(reversed(kept))


def _context(session: Session) -> ConversationContext:
    messages = tuple(
        ConversationMessage(turn.role, _readable(turn), _instant(turn.at), turn.tokens)
        for turn in session.turns
    )
    return ConversationContext(
        session_id=session.session_id,
        messages=messages,
        system_instruction=session.system,
        total_tokens=sum(turn.tokens for turn in session.turns),
        created_at=_instant(session.created),
        last_updated=_instant(session.updated),
    )


def _readable(turn: SessionTurn) -> str:
    words = {SessionBlob: "[media]", SessionPiece: "[function call]"}
    return " ".join(
        part.text if isinstance(part, SessionText) else words[type(part)] for part in turn.parts
    )


def _instant(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
