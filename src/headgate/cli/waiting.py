"""Says on stderr what a call waits for: a silent minute looks like a hang."""

from __future__ import annotations

from headgate.cli import screen
from headgate.core.records import AttemptRecord, CallRecord, WaitFor, WaitRecord

__all__ = ["Waiting"]

_WORTH_SAYING = 1.0


class Waiting:
    """An observer with one sentence for each wait of a second or more."""

    def attempt(self, record: AttemptRecord) -> None:
        """Nothing to say."""

    def waiting(self, record: WaitRecord) -> None:
        """Why, and how long."""
        if record.seconds >= _WORTH_SAYING:
            why = "No key has quota left" if record.reason is WaitFor.KEY else "That failed"
            screen.note(f"{why}: trying again in {record.seconds:.0f} s.", style=screen.QUIET)

    def call(self, record: CallRecord) -> None:
        """Nothing to say."""
