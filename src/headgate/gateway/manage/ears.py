"""What the engines report, passed on to those who manage.

It stands on the path of every call, so it is deaf until somebody manages: with an admin key from the
start, without one from the first request to the management API on.
"""

from __future__ import annotations

from typing import Protocol

from headgate.core.records import AttemptRecord, CallRecord, WaitRecord

__all__ = ["Ears", "Hearing"]


class Hearing(Protocol):
    """Whoever is told what happens, once there is anybody."""

    def attempt(self, record: AttemptRecord) -> None: ...  # noqa: D102 - as `Observer`
    def call(self, record: CallRecord) -> None: ...  # noqa: D102


class Ears:
    """An `Observer` that is deaf until it is opened."""

    __slots__ = ("_hearing",)

    def __init__(self) -> None:
        self._hearing: Hearing | None = None

    def open(self, hearing: Hearing) -> None:
        """From now on this hears everything."""
        self._hearing = hearing

    def attempt(self, record: AttemptRecord) -> None:
        """One attempt ended."""
        if self._hearing is not None:
            self._hearing.attempt(record)

    def waiting(self, record: WaitRecord) -> None:
        """Nothing: the call says how long it waited."""

    def call(self, record: CallRecord) -> None:
        """One call ended."""
        if self._hearing is not None:
            self._hearing.call(record)
