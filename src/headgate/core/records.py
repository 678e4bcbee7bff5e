"""Facts the engine reports: one record per attempt, per wait and per call. No prompts, no keys."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from headgate.core.call import Operation, Usage
from headgate.core.outcome import Outcome

__all__ = ["AttemptRecord", "CallRecord", "WaitFor", "WaitRecord"]


class WaitFor(StrEnum):
    """Why a call waits."""

    KEY = "key"
    RETRY = "retry"


class AttemptRecord(Struct, frozen=True):
    """One attempt: which key, how long, with what result. Times are monotonic seconds."""

    request_id: str
    number: int
    key_name: str
    domain: str
    model: str
    started: float
    ended: float
    outcome: Outcome


class WaitRecord(Struct, frozen=True):
    """A wait that begins: why and for how many seconds."""

    request_id: str
    reason: WaitFor
    seconds: float


class CallRecord(Struct, frozen=True):
    """A finished call. Times are monotonic seconds; `key_name` is the key that answered.

    `error` is None for a success, else the kind of the error the caller got; `fault` for one of ours.
    """

    request_id: str
    operation: Operation
    model: str
    started: float
    ended: float
    attempts: int
    rotations: int
    retries: int
    waited: float
    key_name: str | None
    usage: Usage
    error: str | None
