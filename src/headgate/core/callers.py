"""Callers of the gateway: who they are, what they may do and spend, and where that is kept.

Money is in nano-dollars (dollars × 10⁹), so that sums stay exact; times are Unix seconds. Of a key only
the hash of the whole of it is kept, with its last four characters for people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from headgate.core.call import Priority
from headgate.core.errors import HeadgateError

__all__ = [
    "Budget",
    "BudgetWindow",
    "Caller",
    "CallerBudgetError",
    "CallerConflictError",
    "CallerKey",
    "CallerLimitError",
    "CallerLimits",
    "CallerState",
    "CallerStore",
    "Denied",
    "Held",
    "Hold",
    "Settled",
    "Spending",
    "UnknownCallerError",
]


class CallerState(StrEnum):
    """What a caller is. Whether its time is over shows by `expires`."""

    ACTIVE = "active"
    REVOKED = "revoked"  # for good


class BudgetWindow(StrEnum):
    """How long a budget is for: a day or a calendar month of UTC, or once and for all."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


class CallerLimits(Struct, frozen=True, omit_defaults=True):
    """How much a caller may ask for. None: as much as the gateway's default says; 0: no limit.

    Attributes:
        requests_per_minute, tokens_per_minute, requests_per_day: buckets that refill evenly.
        concurrent: calls under way at a time.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    concurrent: int | None = None

    def over(self, defaults: CallerLimits) -> CallerLimits:
        """These limits, and the defaults where they say nothing. None then means: no limit."""
        found = {
            name: getattr(self, name) if getattr(self, name) is not None else getattr(defaults, name)
            for name in self.__struct_fields__
        }
        return CallerLimits(**{name: value or None for name, value in found.items()})


class Budget(Struct, frozen=True):
    """What a caller may spend within a window, in nano-dollars."""

    amount: int
    window: BudgetWindow = BudgetWindow.MONTH


class CallerKey(Struct, frozen=True):
    """A key of a caller, without the key.

    Attributes:
        digest: SHA-256 of the whole key, in hexadecimal digits.
        ending: its last four characters, so that people can tell keys apart.
        created: when it was issued.
        until: when it ends, once another has taken its place; None: it does not.
    """

    digest: str
    ending: str
    created: float
    until: float | None = None

    def __repr__(self) -> str:
        return f"CallerKey(…{self.ending})"


class Caller(Struct, frozen=True):
    """Somebody who may call.

    Attributes:
        id: never changes and is never used again.
        name: what logs, usage and metrics call it; as unique as the id.
        keys: that are its own: the newest first, behind it those that still hold for a while.
        expires: when it ends; None: it does not.
        priority: the most urgent its calls may be, and what they are where they say nothing. None: they
            say so themselves.
        limits: how much it may ask for.
        budget: what it may spend; None: it is not counted here.
        models: names it may ask for, with `*` and `?`; none: all.
        surfaces: `gemini`, `anthropic`, `openai`; none: all.
        tags: words of whoever manages it.
        version: counts every change of any caller of the store; 0 for one that is in none.
    """

    id: str
    name: str
    keys: tuple[CallerKey, ...] = ()
    state: CallerState = CallerState.ACTIVE
    created: float = 0.0
    rotated: float | None = None
    expires: float | None = None
    priority: Priority | None = None
    limits: CallerLimits = CallerLimits()
    budget: Budget | None = None
    models: tuple[str, ...] = ()
    surfaces: tuple[str, ...] = ()
    tags: Mapping[str, str] = {}
    version: int = 0

    def is_open(self, now: float) -> bool:
        """Whether it may call."""
        return self.state is CallerState.ACTIVE and (self.expires is None or now < self.expires)


class UnknownCallerError(HeadgateError):
    """There is no caller of that id or name."""

    default_kind = "not_found"
    http_status = 404


class CallerConflictError(HeadgateError):
    """The name is taken, or somebody else changed the caller meanwhile. Nothing was changed."""

    default_kind = "conflict"
    http_status = 409


class CallerLimitError(HeadgateError):
    """A limit of the caller, or of the whole gateway, has no room now. Nothing was sent.

    Attributes:
        headers: of HTTP, which tell the caller what is left of its limits.
    """

    default_kind = "rate_limit"
    http_status = 429
    retryable = True
    headers: tuple[tuple[bytes, bytes], ...] = ()


class CallerBudgetError(HeadgateError):
    """The caller's budget has no room for the call. Nothing was sent.

    It is `retryable` where only calls under way hold the money.
    """

    default_kind = "budget"
    http_status = 429


# ── what calls under way hold ───────────────────────────────────────────────────────────────────


class Hold(Struct, frozen=True):
    """What a call asks for before it is sent.

    Attributes:
        id: of the hold.
        caller: the caller's id.
        budget: that pays for it; None: nobody counts.
        wishes: nano-dollars, the largest first: the first that there is room for is held.
        concurrent: calls of the caller that may be under way, this one too; None: any number.
    """

    id: str
    caller: str
    budget: Budget | None = None
    wishes: tuple[int, ...] = (0,)
    concurrent: int | None = None


class Held(Struct, frozen=True, tag=True):
    """The call may be sent.

    Attributes:
        amount: nano-dollars that are held for it.
    """

    amount: int = 0


class Denied(Struct, frozen=True, tag=True):
    """The call may not be sent now.

    Attributes:
        crowded: too many calls of the caller are under way; otherwise its budget has no room.
        spent, held: nano-dollars of the budget's window: used up, and held for calls under way.
    """

    crowded: bool
    spent: int = 0
    held: int = 0


class Settled(Struct, frozen=True):
    """What became of a hold. Told twice, it counts once.

    Attributes:
        id: of the hold.
        amount: nano-dollars that were spent.
        unpriced: the call used a model of which no price is known.
    """

    id: str
    amount: int = 0
    unpriced: bool = False


class Spending(Struct, frozen=True):
    """What a caller spent within a window, in nano-dollars.

    Attributes:
        spent: by calls that ended.
        held: for calls under way, and for those of processes that died.
        under_way: calls that hold something.
        unpriced: calls whose cost nobody knows, and which are in no sum.
    """

    spent: int = 0
    held: int = 0
    under_way: int = 0
    unpriced: int = 0


class CallerStore(Protocol):
    """Where callers are kept, and what their calls hold and spent. Threads may share it.

    Attributes:
        blocks: whether it waits for a disk: then never call it from an event loop's own thread.
    """

    @property
    def blocks(self) -> bool: ...  # noqa: D102 - see above

    def changed(self, since: int) -> list[Caller]:
        """Callers whose version is above that, in the order of their changes. Raises `StoreError`."""

    def put(self, caller: Caller) -> Caller:
        """Keep a caller and give it its next version: a new one where its version is 0, else in the
        place of the one of that version.

        Raises:
            CallerConflictError: the name is taken, or the caller was changed meanwhile.
            StoreError: the store does not answer.
        """

    def find(self, name: str) -> Caller | None:
        """The caller of that id or name. Raises `StoreError`."""

    def page(self, after: str, limit: int) -> list[Caller]:
        """Callers by name, those after a name. Raises `StoreError`."""

    def hold(
        self, settled: Sequence[Settled], renewed: Sequence[str], asked: Sequence[Hold], now: float
    ) -> list[Held | Denied]:
        """One atomic step: book what ended, say what goes on, decide what is asked, one by one.

        Raises `StoreError`; nothing of it has then happened.
        """

    def spending(self, caller: str, window: BudgetWindow, now: float) -> Spending:
        """What a caller, by its id, has spent within the window that `now` lies in. Raises
        `StoreError`."""

    def close(self) -> None:
        """Give the file back."""
