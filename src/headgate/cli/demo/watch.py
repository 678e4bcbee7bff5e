"""What the demo sees of its client: sums, and the last things that happened, in plain words."""

from __future__ import annotations

from dataclasses import dataclass, field

from headgate.core.call import Usage
from headgate.core.outcome import Booking, Kind
from headgate.core.ports import Clock
from headgate.core.records import AttemptRecord, CallRecord, WaitFor, WaitRecord

__all__ = ["Happening", "Watch"]

_SAME_THING = 2.0  # seconds within which the same thing is told once, with a count

_FAULTS = {
    Kind.OVERLOAD: "the model is overloaded",
    Kind.SERVER: "the upstream failed",
    Kind.NETWORK: "the connection broke",
}


@dataclass(slots=True)
class Happening:
    """Something worth a line. `at` is in seconds since the start; `grave` for what lasts."""

    at: float
    who: str
    what: str
    grave: bool = False
    count: int = 1


@dataclass(slots=True)
class Watch:
    """An observer."""

    clock: Clock
    started: float
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    attempts: int = 0
    rotations: int = 0
    retries: int = 0
    waits: int = 0
    waited: float = 0.0
    usage: Usage = field(default_factory=Usage)
    happenings: list[Happening] = field(default_factory=list)
    latest: str = ""

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock.monotonic() - self.started

    def attempt(self, record: AttemptRecord) -> None:
        """Refusals and faults are worth a line."""
        outcome = record.outcome
        self.attempts += 1
        if outcome.rule.is_quota or outcome.rule.booking is Booking.DISABLE_KEY:
            self.rotations += 1
        if outcome.kind is Kind.QUOTA_DAY:
            self._tell(record.domain, "quota of the day used up: out until tomorrow", grave=True)
        elif outcome.rule.is_quota:
            self._tell(record.domain, "quota of the minute used up: calls move on")
        elif outcome.rule.booking is Booking.DISABLE_KEY:
            self._tell(record.key_name, f"switched off: {outcome.message}", grave=True)
        elif outcome.kind is not Kind.SUCCESS:
            what = _FAULTS.get(outcome.kind, outcome.kind.value)
            self._tell(record.key_name, f"{what}: a retry follows")

    def waiting(self, record: WaitRecord) -> None:
        """A wait for a key is worth a line; one before a retry was announced."""
        if record.reason is WaitFor.RETRY:
            self.retries += 1
            return
        self.waits += 1
        self.waited += record.seconds
        self._tell("all keys", f"no project has room: waiting {record.seconds:.0f} s")

    def call(self, record: CallRecord) -> None:
        """Success or failure, and what it cost."""
        if record.error is None:
            self.answered += 1
            self.usage += record.usage
        else:
            self.failed.append(record.error)
            self._tell("call", f"failed: {record.error}", grave=True)

    def _tell(self, who: str, what: str, *, grave: bool = False) -> None:
        now = self.elapsed()
        for happening in self.happenings[-4:]:
            if (happening.who, happening.what) == (who, what) and now - happening.at < _SAME_THING:
                happening.count += 1
                return
        self.happenings.append(Happening(now, who, what, grave))
