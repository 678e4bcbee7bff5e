"""Who calls: caller keys, which are the gateway's own and never go upstream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256

from headgate.core.call import Key
from headgate.core.callers import Caller, CallerState, CallerStore
from headgate.core.errors import HeadgateError, QueueFullError
from headgate.core.ports import Clock
from headgate.gateway.problems import RequestRefusedError

__all__ = [
    "EVERYBODY",
    "FRESH_SECONDS",
    "Callers",
    "CallersUnavailableError",
    "fixed_caller",
]

FRESH_SECONDS = 0.5
"""How old what is known of a shared store may be when a request comes: a key that was revoked elsewhere
is refused within a second, the look included."""

_SOONEST_SECONDS = 0.05
"""How old it may be when a key is not known: whoever just got one from another worker uses it at once.
More looks than that nobody gets who guesses keys."""

EVERYBODY = Caller(id="", name="")
"""Whoever calls where there are no callers."""

_log = logging.getLogger("headgate.gateway")

_WHO_ARE_YOU = (
    "This gateway does not know the key of the request. Send a caller key of this gateway where your "
    "SDK sends its API key; keys of the provider stay in the gateway."
)
_NOBODY_KNOWN = "The gateway cannot reach the store of its callers. Try again in a moment."


class CallersUnavailableError(QueueFullError):
    """The store of callers does not answer, and without it nobody can say who may call or spend."""

    default_kind = "store"


class Callers:
    """Knows callers by their keys, of which it keeps only hashes.

    A key is looked up by the hash of the whole of it, so that the time a look-up takes tells nothing of
    any key.

    Args:
        keys: their names are the callers', who are the same until `fix` says otherwise.
        store: further callers, who come and go. Without keys and a store everybody may call.
        clock: needed with a store.

    Attributes:
        required: whether a request needs a key; once it does, it does for good.
        fixed: the names of callers out of `keys`.
    """

    def __init__(
        self, keys: Iterable[Key] = (), store: CallerStore | None = None, clock: Clock | None = None
    ) -> None:
        self._known: dict[bytes, tuple[Caller, float | None]] = {}
        self._digests: dict[str, list[bytes]] = {}
        self._by_name: dict[str, Caller] = {}
        self._managed: dict[str, Caller] = {}  # by id, those in the store
        self.fixed: tuple[str, ...] = ()
        self.required = store is not None
        self._store = store
        self._clock = clock
        self._version = 0
        self._looked: float | None = None
        self._looking: asyncio.Task[None] | None = None
        self._failing = False
        self.fix(keys)

    def __len__(self) -> int:
        return len(self._by_name)

    # ── who it is ───────────────────────────────────────────────────────────────────────────────

    def name_of(self, credential: bytes) -> str | None:
        """The caller with this key; None where there is none, empty where everybody may call."""
        try:
            return self.known(credential).name
        except RequestRefusedError:
            return None

    def known(self, credential: bytes) -> Caller:
        """The caller with this key. Raises `RequestRefusedError` (401), which says what is wrong with
        it."""
        if not self.required:
            return EVERYBODY
        found = self._known.get(sha256(credential).digest())
        if found is None:
            raise _stranger(_WHO_ARE_YOU)
        caller, until = found
        if self._clock is not None and (
            until is not None or caller.expires is not None or _ended(caller)
        ):
            _check_open(caller, until, self._clock.wall())
        return caller

    def named(self, name: str) -> Caller:
        """The caller of that name: for what goes on without its key, such as an upload. Raises
        `RequestRefusedError` (401) where it may not call any more."""
        if not self.required:
            return EVERYBODY
        caller = self._by_name.get(name)
        if caller is None:
            raise _stranger(_WHO_ARE_YOU)
        if self._clock is not None:
            _check_open(caller, None, self._clock.wall())
        return caller

    # ── what changes ────────────────────────────────────────────────────────────────────────────

    @property
    def stale(self) -> bool:
        """Whether `refresh` should come before the next question."""
        return self._older_than(FRESH_SECONDS)

    def _older_than(self, seconds: float) -> bool:
        """Whether the last look at the store is; never where there is none."""
        if self._store is None or self._clock is None:
            return False
        return self._looked is None or self._clock.monotonic() - self._looked >= seconds

    @property
    def may_have_news(self) -> bool:
        """Whether `refresh` should come before a stranger is sent away: his key may be a new one."""
        return self._looked is not None and self._older_than(_SOONEST_SECONDS)

    async def refresh(self) -> None:
        """Hear of changes in the store. One look serves all who wait for it.

        A store that fails changes nothing: callers known before still may call. Raises
        `CallersUnavailableError` only where nothing was ever heard of it.
        """
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look())
        await asyncio.shield(self._looking)
        if self._looked is None:
            raise CallersUnavailableError(_NOBODY_KNOWN, retry_after=1.0)

    async def _look(self) -> None:
        store, clock = self._store, self._clock
        if store is None or clock is None:
            return
        asked = clock.monotonic()
        try:
            if store.blocks:
                loop = asyncio.get_running_loop()
                found = await loop.run_in_executor(None, store.changed, self._version)
            else:
                found = store.changed(self._version)
        except HeadgateError as error:
            if not self._failing:
                self._failing = True
                _log.error("callers=failed error=%s", error.message)
            if self._looked is not None:
                self._looked = asked  # asked again after a while, not by each request
            return
        if self._failing:
            self._failing = False
            _log.info("callers=back")
        self.begin(found, asked)

    def begin(self, found: Iterable[Caller], looked: float) -> None:
        """Know what the store has said.

        Args:
            found: in the order of their changes, and all since the time before.
            looked: when it was asked, in monotonic seconds.
        """
        for caller in found:
            self._version = max(self._version, caller.version)
            self.learn(caller)
        self._looked = looked

    def fix(self, keys: Iterable[Key]) -> None:
        """Let these keys, with their names, be the only ones beside those of the store."""
        self._known.clear()
        self._by_name.clear()
        self._digests.clear()
        for key in keys:
            caller = fixed_caller(key.name)
            self._known[sha256(key.value.encode()).digest()] = (caller, None)
            self._by_name[caller.name] = caller
        self.fixed = tuple(self._by_name)
        self.required = self.required or bool(self._known)
        for caller in self._managed.values():
            self._place(caller)

    def learn(self, caller: Caller) -> None:
        """A caller of the store is new, or other than it was."""
        before = self._managed.get(caller.id)
        if before is not None:
            for digest in self._digests.pop(caller.id, ()):
                del self._known[digest]
            if self._by_name.get(before.name) is before:
                del self._by_name[before.name]
        self._managed[caller.id] = caller
        self._place(caller)

    def _place(self, caller: Caller) -> None:
        if caller.name in self.fixed:
            _log.error("callers=ignored name=%s why=HEADGATE_CALLER_KEYS has it", caller.name)
            return
        digests = []
        for key in caller.keys:
            digest = bytes.fromhex(key.digest)
            if digest not in self._known:
                self._known[digest] = (caller, key.until)
                digests.append(digest)
        self._digests[caller.id] = digests
        self._by_name[caller.name] = caller


def fixed_caller(name: str) -> Caller:
    """A caller out of HEADGATE_CALLER_KEYS. No id of a store has a colon."""
    return Caller(id=f"env:{name}", name=name)


def _stranger(what: str) -> RequestRefusedError:
    return RequestRefusedError(what, status=401, kind="auth")


def _ended(caller: Caller) -> bool:
    return caller.state is CallerState.REVOKED


def _check_open(caller: Caller, until: float | None, now: float) -> None:
    if _ended(caller):
        raise _stranger(f"The key of the caller {caller.name} was revoked.")
    for what, end in (("caller", caller.expires), ("key", until)):
        if end is not None and now >= end:
            when = datetime.fromtimestamp(end, UTC).isoformat(timespec="seconds")
            raise _stranger(
                f"The {what} of this request, {caller.name}, expired on {when}. Ask the operator of "
                "this gateway for a new key."
            )
