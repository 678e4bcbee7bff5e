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
    "Grant",
    "Kind",
    "Limit",
    "Mode",
    "Penalty",
    "Refusal",
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
        return self in (Counts.INPUT, Counts.OUTPUT, Counts.TOTAL)


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
"""What a call costs, by what is counted; anything not named costs nothing."""


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


class Ask(Struct, frozen=True):
    """A wish to send.

    Attributes:
        rid: id of the reservation; the same id asked again gets the same answer.
        costs: what the call is expected to use; what is counted in tokens costs at least 1.
        exclude: handles of domains that must not serve it.
        prefer: a domain to take if it has room and is not much dearer, or None.
    """

    rid: str
    costs: Costs
    exclude: Collection[int] = ()
    prefer: int | None = None


class Grant(Struct, frozen=True, tag=True):
    """A reservation: the domain that serves, and whether it is the one call that tests it."""

    rid: str
    domain: int
    canary: bool = False


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
    """

    domain: int
    until: int | None = None
    canary: bool = False
    shut: bool | None = None
    limit: Limit | None = None


class Batch(Struct, frozen=True):
    """What one round trip does, in this order; each part is idempotent by reservation id.

    Attributes:
        settles, cancels, renews: about reservations made before.
        penalties: about domains.
        asks: wishes to send, answered one by one.
        seed: chance for the choice, in [1, 2³¹ − 2].
    """

    settles: tuple[Settlement, ...] = ()
    cancels: tuple[str, ...] = ()
    renews: tuple[str, ...] = ()
    penalties: tuple[Penalty, ...] = ()
    asks: tuple[Ask, ...] = ()
    seed: int = 1


class BatchReply(Struct, frozen=True):
    """The answers to a batch's asks, in order, and the store's time."""

    answers: tuple[Grant | Refusal, ...]
    now: int
