"""Words of quotas: limits, costs, what is asked of a ledger and what it answers.

Amounts are integer requests, tokens or slots; times integer milliseconds of the store's clock. The
ledger itself is `policy/quota`, its homes are the stores.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum

from msgspec import Struct

__all__ = [
    "Ask",
    "Batch",
    "BatchReply",
    "Costs",
    "Counts",
    "Fill",
    "Grant",
    "Kind",
    "Limit",
    "Mode",
    "Penalty",
    "Refusal",
    "Restore",
    "Settlement",
]


class Counts(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    INPUT = "input"
    OUTPUT = "output"
    TOTAL = "total"
    SLOTS = "slots"

    @property
    def is_tokens(self) -> bool:
        """Whether it counts tokens, of which a call takes many."""
        return self in _TOKENS


_TOKENS = frozenset((Counts.INPUT, Counts.OUTPUT, Counts.TOTAL))


class Kind(StrEnum):
    """How long a charge is held."""

    ROLLING = "rolling"
    CALENDAR = "calendar"
    CONCURRENT = "concurrent"


class Mode(StrEnum):
    """When the provider counts: at arrival (early), or at an unknown moment of the call (envelope)."""

    EARLY = "early"
    ENVELOPE = "envelope"


Costs = Mapping[Counts, int]
"""What a call costs, by what is counted."""


class Limit(Struct, frozen=True):
    """One quota of a domain.

    Attributes:
        name: `rpm`, `tpm`, `rpd`, `tpd`, … unique within the domain.
        counts: what it counts.
        amount: the effective limit L: at most this much is held at any time.
        kind: how long a charge is held.
        window: milliseconds, for rolling limits.
        mode: when the provider counts.
        guard: milliseconds between admission and the provider's count at the most.
    """

    name: str
    counts: Counts
    amount: int
    kind: Kind = Kind.ROLLING
    window: int = 60_000
    mode: Mode = Mode.EARLY
    guard: int = 350

    def __post_init__(self) -> None:
        if self.amount < 1 or self.window < 1 or self.guard < 0:
            raise ValueError(
                f"limit {self.name} needs amount and window above 0, guard not below: {self}"
            )


class Fill(Struct, frozen=True):
    """How full a limit is.

    Attributes:
        limit: as it is enforced.
        used: what is held of it now, reservations under way included.
    """

    limit: Limit
    used: int


class Ask(Struct, frozen=True):
    """A wish to send.

    Attributes:
        rid: id of the reservation. The same id asked again gets the same grant, charged once, as if it
            were made now; so it is asked again only while the call has not been sent.
        costs: what the call is expected to use. Of everything that a limit of the group counts a call
            takes at least 1, also where this names less or does not name it.
        exclude: handles of domains that must not serve it.
        prefer: a domain to take if it has room and is not much dearer, or None.
    """

    rid: str
    costs: Costs
    exclude: Collection[int] = ()
    prefer: int | None = None


class Grant(Struct, frozen=True, tag=True):
    """A reservation.

    Attributes:
        domain: handle of the domain that serves.
        canary: whether it is the one call that tests the domain.
        left: what is left now of each calendar limit of the domain, in the order of its limits; not
            below 0. Where the store dies, the day goes on with shares of this.
    """

    rid: str
    domain: int
    canary: bool = False
    left: tuple[int, ...] = ()


class Refusal(Struct, frozen=True, tag=True):
    """No domain has room.

    Attributes:
        at: the first instant at which one may have; None: never, or not by waiting.
        limit: name of the limit that binds, `rest` for a domain that rests, or None.
        never: whether the ask exceeds a limit of every domain.
    """

    at: int | None
    limit: str | None = None
    never: bool = False


class Settlement(Struct, frozen=True):
    """The truth about a reservation.

    Attributes:
        costs: what was used; what is not named stays as it was estimated.
        served: for a test of a domain that rested: whether it serves again.
    """

    rid: str
    costs: Costs
    served: bool = True


class Penalty(Struct, frozen=True):
    """What a provider said of a domain.

    Attributes:
        domain: its handle.
        until: it rests until then; None leaves rests as they are, 0 ends one.
        canary: after the rest it opens to one call that tests it.
        shut: True takes it out, False in again, None leaves it.
        limit: a limit the provider told.
        pace: name of the rolling limit that a refusal nobody can explain concerns, "" for each of the
            domain's: calls are spread evenly from now on. None: no such refusal.
    """

    domain: int
    until: int | None = None
    canary: bool = False
    shut: bool | None = None
    limit: Limit | None = None
    pace: str | None = None


class Restore(Struct, frozen=True):
    """What one process knows to be charged in books that were lost and begun anew.

    Told again, it replaces what the same member told of the same bucket; it never adds to it.

    Attributes:
        member: who tells.
        domain: handle of the domain.
        limit: name of its limit; one that the domain does not have is ignored.
        expires: when the charge ends, in milliseconds of the store's clock; what has ended is ignored.
        amount: all that this member holds in that bucket.
    """

    member: str
    domain: int
    limit: str
    expires: int
    amount: int


class Batch(Struct, frozen=True):
    """What one round trip does; each part is idempotent, what concerns a reservation by its id.

    Done in this order: settles, cancels, renews, penalties, restores, asks.

    Attributes:
        settles, cancels, renews: about reservations made before.
        penalties: about domains.
        asks: wishes to send, answered one by one.
        seed: chance for the choice, in [1, 2³¹ − 2].
        restores: what this process knows to be charged, after books were lost.
    """

    settles: tuple[Settlement, ...] = ()
    cancels: tuple[str, ...] = ()
    renews: tuple[str, ...] = ()
    penalties: tuple[Penalty, ...] = ()
    asks: tuple[Ask, ...] = ()
    seed: int = 1
    restores: tuple[Restore, ...] = ()


class BatchReply(Struct, frozen=True):
    """The answers to a batch's asks, and of when they are.

    Attributes:
        answers: one per ask, in order.
        now: milliseconds of the store's clock.
        epoch: when the group's books were begun, in the same; another one means that books were lost.
        seq: grows with every step of the group; a smaller one means that steps were lost.
    """

    answers: tuple[Grant | Refusal, ...]
    now: int
    epoch: int = 0
    seq: int = 0
