"""The book of callers: who may call is decided here, by the management API and `headgate callers`.

A key is shown once, to whoever asked for it, and kept nowhere: the book has its hash. Every process of
the gateway that shares the store sees a change within a second.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple, TypeVar

from msgspec import UNSET, Struct, UnsetType, structs

from headgate.core.call import Priority, Secret
from headgate.core.callers import (
    Budget,
    BudgetWindow,
    Caller,
    CallerConflictError,
    CallerKey,
    CallerLimits,
    CallerState,
    CallerStore,
    Spending,
    UnknownCallerError,
)
from headgate.core.errors import InvalidCallError
from headgate.core.ports import Clock
from headgate.core.usage import By, UsageFilter, UsageStore, UsageSum
from headgate.policy.budget import period_end
from headgate.policy.redaction import redact

__all__ = [
    "CallerBook",
    "CallerChange",
    "CallerPage",
    "CallerSpec",
    "CallerUsage",
    "IssuedKey",
]

T = TypeVar("T")

MOST_PAGE = 500
MOST_PATTERNS = 100
MOST_TAGS = 50
LONGEST_GRACE = 90 * 86_400.0
"""Seconds: a key that is to hold longer than this beside its successor is not being replaced."""

_MOST_AMOUNT = 10**12
_MOST_MONEY = 2**62  # nano-dollars
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@:/+-]{0,63}")
_PATTERN = re.compile(r"[A-Za-z0-9._@:/*?-]{1,128}")
_SURFACES = ("gemini", "anthropic", "openai")


class CallerSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A caller as it is to be. What the fields mean, `core.callers.Caller` says."""

    name: str
    expires: float | None = None
    priority: Priority | None = None
    limits: CallerLimits = CallerLimits()
    budget: Budget | None = None
    models: tuple[str, ...] = ()
    surfaces: tuple[str, ...] = ()
    tags: Mapping[str, str] = {}


class CallerChange(Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be different of a caller; what is left out stays. Limits are taken as a whole. Its
    name stays: whatever it used is told under it."""

    expires: float | UnsetType | None = UNSET
    priority: Priority | UnsetType | None = UNSET
    limits: CallerLimits | UnsetType = UNSET
    budget: Budget | UnsetType | None = UNSET
    models: tuple[str, ...] | UnsetType = UNSET
    surfaces: tuple[str, ...] | UnsetType = UNSET
    tags: Mapping[str, str] | UnsetType = UNSET


class IssuedKey(NamedTuple):
    """A caller and its new key, which nobody can show again. The key hides in a `repr`."""

    caller: Caller
    key: Secret


class CallerPage(NamedTuple):
    """Some callers, by name.

    Attributes:
        following: what to ask the next page with; None: this is the last.
    """

    callers: tuple[Caller, ...]
    following: str | None


class CallerUsage(Struct, frozen=True):
    """What a caller used so far. Money is in nano-dollars.

    Attributes:
        window: the budget's, or the month where it has none.
        until: when that window ends; None: never.
        amount: of the budget; None: it has none.
        spending: what counts against the budget; of a caller without one, nothing.
        sums: of the usage ledger in that window; None where no ledger is kept, or nothing was used.
    """

    window: BudgetWindow
    until: float | None
    amount: int | None
    spending: Spending
    sums: UsageSum | None

    @property
    def left(self) -> int | None:
        """What new calls may still spend; None: as much as they like."""
        if self.amount is None:
            return None
        return max(0, self.amount - self.spending.spent - self.spending.held)


class CallerBook:
    """Issues keys and keeps what is known of callers. Tasks and event loops may share it.

    Args:
        new_key: makes a key of at least 128 random bits.
        new_id: makes an id that no other caller has.
        fixed: names of callers that are set in the environment: they are not in the book, and their
            names are taken.
        ledger: opens the usage ledger, for sums; None: none is kept. It is closed after each look.
        heard: told of each change that was made here.
    """

    def __init__(
        self,
        store: CallerStore,
        clock: Clock,
        *,
        new_key: Callable[[], str],
        new_id: Callable[[], str],
        fixed: Collection[str] = (),
        ledger: Callable[[], UsageStore | None] | None = None,
        heard: Callable[[Caller], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_key = new_key
        self._new_id = new_id
        self._ledger = ledger
        self._heard = heard
        self.fixed = tuple(fixed)

    # ── changes ─────────────────────────────────────────────────────────────────────────────────

    async def create(self, spec: CallerSpec) -> IssuedKey:
        """A new caller, and its key.

        Raises:
            InvalidCallError: a value cannot be; the message says which, and what may.
            CallerConflictError: the name is taken.
            StoreError: nothing was made.
        """
        now = self._clock.wall()
        fields = {name: getattr(spec, name) for name in CallerSpec.__struct_fields__}
        secret, key = self._issued(now)
        caller = Caller(id=self._new_id(), keys=(key,), created=now, **fields)
        self._check(caller, now)
        return IssuedKey(await self._put(caller), secret)

    async def rotate(self, name: str, *, grace_seconds: float = 86_400.0) -> IssuedKey:
        """Another key for a caller. Those it has go on for the grace period, and no longer.

        Raises as `create`; `UnknownCallerError` besides.
        """
        if not 0 <= grace_seconds <= LONGEST_GRACE:
            raise InvalidCallError(
                f"grace_seconds takes 0 to {LONGEST_GRACE:.0f}, which is 90 days; got {grace_seconds}."
            )
        caller, now = await self._active(name), self._clock.wall()
        secret, key = self._issued(now)
        kept = [
            structs.replace(old, until=min(now + grace_seconds, old.until or now + grace_seconds))
            for old in caller.keys
            if grace_seconds and (old.until is None or old.until > now)
        ]
        changed = structs.replace(caller, keys=(key, *kept), rotated=now)
        return IssuedKey(await self._put(changed), secret)

    async def revoke(self, name: str) -> Caller:
        """A caller ends, with all its keys, for good. Once more, and nothing changes.

        Raises `UnknownCallerError`, `CallerConflictError`, `StoreError`.
        """
        caller = await self.get(name)
        if caller.state is CallerState.REVOKED:
            return caller
        return await self._put(structs.replace(caller, state=CallerState.REVOKED))

    async def update(self, name: str, change: CallerChange, *, version: int | None = None) -> Caller:
        """A caller as it is from now on.

        Args:
            version: refuse where the caller has another by now.

        Raises as `create`; `UnknownCallerError` besides.
        """
        caller = await self._active(name)
        if version is not None and caller.version != version:
            raise CallerConflictError(
                f"The caller {caller.name!r} has version {caller.version} by now. Look at it again, "
                "then repeat the change."
            )
        wanted = {field: getattr(change, field) for field in CallerChange.__struct_fields__}
        said = {field: value for field, value in wanted.items() if value is not UNSET}
        if not said:
            return caller
        changed = structs.replace(caller, **said)
        self._check(changed, self._clock.wall(), named=False)
        return await self._put(changed)

    # ── looking ─────────────────────────────────────────────────────────────────────────────────

    async def get(self, name: str) -> Caller:
        """The caller of that id or name. Raises `UnknownCallerError`, `StoreError`."""
        found = await self._do(lambda: self._store.find(name))
        if found is None:
            hint = ""
            if name in self.fixed:
                hint = " It is one of HEADGATE_CALLER_KEYS, which are changed there."
            raise UnknownCallerError(f"The book has no caller {redact(name, limit=80)!r}.{hint}")
        return found

    async def page(
        self, *, after: str = "", limit: int = 50, state: CallerState | None = None
    ) -> CallerPage:
        """Callers by name.

        Args:
            after: `following` of the page before.
            limit: callers at the most, 1 to 500.
            state: only these; a page may then hold fewer, and more may follow all the same.

        Raises `InvalidCallError`, `StoreError`.
        """
        if not 1 <= limit <= MOST_PAGE:
            raise InvalidCallError(f"limit takes 1 to {MOST_PAGE}; got {limit}.")
        found = await self._do(lambda: self._store.page(after, limit + 1))
        more = found[limit - 1].name if len(found) > limit else None
        return CallerPage(
            tuple(one for one in found[:limit] if state is None or one.state is state), more
        )

    async def usage(self, name: str) -> CallerUsage:
        """What a caller used in the window of its budget, or in this month. Raises
        `UnknownCallerError`, `StoreError`."""
        caller, now = await self.get(name), self._clock.wall()
        window = BudgetWindow.MONTH if caller.budget is None else caller.budget.window
        spending = await self._do(lambda: self._store.spending(caller.id, window, now))
        sums = await self._off_loop(lambda: self._sums(caller.name, window, now))
        amount = None if caller.budget is None else caller.budget.amount
        return CallerUsage(window, period_end(window, now), amount, spending, sums)

    # ── within ──────────────────────────────────────────────────────────────────────────────────

    def _issued(self, now: float) -> tuple[Secret, CallerKey]:
        secret = Secret(self._new_key())
        digest = sha256(secret.encode()).hexdigest()
        return secret, CallerKey(digest, secret[-4:], now)

    async def _active(self, name: str) -> Caller:
        caller = await self.get(name)
        if caller.state is CallerState.REVOKED:
            raise CallerConflictError(
                f"The caller {caller.name!r} is revoked, which is for good. Make a new one."
            )
        return caller

    async def _put(self, caller: Caller) -> Caller:
        kept = await self._do(lambda: self._store.put(caller))
        self._heard(kept)
        return kept

    def _check(self, caller: Caller, now: float, *, named: bool = True) -> None:
        if named:
            if not _NAME.fullmatch(caller.name) or redact(caller.name) != caller.name:
                raise InvalidCallError(
                    "name takes 1 to 64 letters, digits, blanks and ._@:/+- and begins with a letter "
                    "or digit; it is shown and logged, so it is no key."
                )
            if caller.name in self.fixed:
                raise CallerConflictError(
                    f"HEADGATE_CALLER_KEYS has a caller {caller.name!r}. Choose another name."
                )
        if caller.expires is not None and not now < caller.expires < now + 100 * 366 * 86_400:
            raise InvalidCallError("expires takes an instant that is still to come.")
        _check_amounts(caller)
        _check_words(caller)

    def _sums(self, name: str, window: BudgetWindow, now: float) -> UsageSum | None:
        store = None if self._ledger is None else self._ledger()
        if store is None:
            return None
        try:
            found = store.sums(By.CALLER, UsageFilter(_begin(window, now), None, caller=name))
        finally:
            store.close()
        return found[0] if found else None

    async def _do(self, work: Callable[[], T]) -> T:
        return await self._off_loop(work) if self._store.blocks else work()

    @staticmethod
    async def _off_loop(work: Callable[[], T]) -> T:
        """Work in a thread. Whoever is cancelled meanwhile waits until it is done: nothing the store
        was told may take effect behind their back."""
        future = asyncio.get_running_loop().run_in_executor(None, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise


def _check_amounts(caller: Caller) -> None:
    for name in CallerLimits.__struct_fields__:
        value = getattr(caller.limits, name)
        if value is not None and not 0 <= value <= _MOST_AMOUNT:
            raise InvalidCallError(
                f"limits.{name} takes a whole number from 1 on, 0 for no limit, or nothing for the "
                f"gateway's default; got {value}."
            )
    if caller.budget is not None and not 0 < caller.budget.amount <= _MOST_MONEY:
        raise InvalidCallError("budget.amount takes nano-dollars above 0: a dollar is 1000000000.")


def _check_words(caller: Caller) -> None:
    for pattern in caller.models:
        if not _PATTERN.fullmatch(pattern):
            raise InvalidCallError(
                "models takes names of models, in which * and ? stand for anything, such as *-flash*."
            )
    for surface in caller.surfaces:
        if surface not in _SURFACES:
            raise InvalidCallError(f"surfaces takes {', '.join(_SURFACES)}.")
    if len(caller.models) > MOST_PATTERNS or len(caller.tags) > MOST_TAGS:
        raise InvalidCallError(f"{MOST_PATTERNS} models and {MOST_TAGS} tags are the most.")
    for name, value in caller.tags.items():
        if not 0 < len(name) <= 64 or len(value) > 256 or not (name + value).isprintable():
            raise InvalidCallError("tags take names of 64 and values of 256 printable characters.")


def _begin(window: BudgetWindow, now: float) -> float:
    """When the window began that an instant lies in."""
    if window is BudgetWindow.TOTAL:
        return 0.0
    start = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (start if window is BudgetWindow.DAY else start.replace(day=1)).timestamp()
