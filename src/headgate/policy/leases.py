"""Words of key choice: leases, cool-downs, what a key went through. Times are monotonic seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Struct

from headgate.core.call import Key
from headgate.core.outcome import Kind

__all__ = ["KeyState", "KeyStats", "Lease", "Park", "Unready"]


@dataclass(slots=True)
class KeyStats:
    """What a key went through. A cancelled attempt sets `last_used` and counts nowhere else."""

    successes: int = 0
    failures: int = 0
    quota_errors: int = 0
    last_used: float | None = None
    last_error: float | None = None
    last_error_message: str | None = None


class Park(Struct, frozen=True):
    """A cool-down of a domain.

    Attributes:
        since: when it began.
        until: when it ends by itself.
        kind: the refusal it came from.
        probe_at: when one call may try all the same, if nothing else is ready; None: never.
        streak: unknown refusals in a row before this one.
    """

    since: float
    until: float
    kind: Kind
    probe_at: float | None = None
    streak: int = 0

    def opens(self, now: float) -> float:
        """When a call may go again that may not now: at its end, or before that as a probe."""
        probe = self.probe_at
        return self.until if probe is None or probe <= now else min(self.until, probe)


class Lease(Struct, frozen=True):
    """The right to send one attempt with one key.

    Attributes:
        key: the credential.
        index: its number in the configuration, from 0.
        domain: number of its domain.
        model: the model it was taken for.
        taken: when.
        probe: whether this is the one try of a parked domain.
        rid: id of its reservation in the quota ledger; empty where nothing was reserved.
    """

    key: Key
    index: int
    domain: int
    model: str
    taken: float
    probe: bool = False
    rid: str = ""


class Unready(Struct, frozen=True):
    """No key is ready for a model.

    Attributes:
        recovers: when the first one will be; None: never by waiting.
        cooling: keys that wait for quota.
        disabled: keys the upstream refuses altogether.
        denied: keys without access to this model.
    """

    recovers: float | None
    cooling: int
    disabled: int
    denied: int


class KeyState(Struct, frozen=True):
    """A key at the moment of asking. `parks` holds, by model, only cool-downs that still run."""

    key: Key
    index: int
    stats: KeyStats
    disabled: str | None
    parks: Mapping[str, Park]
