"""Who may follow whom to the same answer, and who hears of whose failure."""

from __future__ import annotations

from copy import copy

from headgate.core.call import Call, Operation
from headgate.core.errors import (
    DeadlineExceededError,
    HeadgateError,
    QuotaExhaustedError,
    UpstreamError,
)
from headgate.core.outcome import Kind, Next

__all__ = ["impatient", "own_copy", "speaks_for_all", "suits"]


def suits(leader: Call, call: Call) -> bool:
    """Whether a call may wait for the answer to one that asks the same.

    Not for one that is less urgent, or that would be answered by something else where every try fails;
    nor where one of them streams for one that may end sooner: half of an answer cannot be followed up.
    """
    if leader.priority.rank > call.priority.rank or leader.fallbacks != call.fallbacks:
        return False
    if Operation.STREAM not in (leader.operation, call.operation):
        return True
    return _as_late(leader.deadline, call.deadline)


def impatient(leader: Call, call: Call, error: Exception) -> bool:
    """Whether the leader failed because it would not wait as long as this call would."""
    if isinstance(error, DeadlineExceededError):
        return not _as_late(leader.deadline, call.deadline)
    if isinstance(error, UpstreamError) and error.outcome.kind is Kind.TIMEOUT:
        return leader.deadline is not None and not _as_late(leader.deadline, call.deadline)
    if isinstance(error, QuotaExhaustedError):
        waits = _as_late(leader.deadline, call.deadline) and leader.max_wait >= call.max_wait
        return not waits
    return False


def speaks_for_all(error: Exception) -> bool:
    """Whether an error says something about the question, or about what all who ask it share."""
    if isinstance(error, UpstreamError):
        return error.outcome.rule.next in (Next.FAIL, Next.STOP) and error.kind != "cancelled"
    return isinstance(error, HeadgateError)


def own_copy(error: Exception, call: Call) -> Exception:
    """The error for a call that followed: of the same type, with its own request."""
    if not isinstance(error, HeadgateError):
        return error
    own = copy(error)
    own.request_id, own.__cause__ = call.request_id, error.__cause__
    return own


def _as_late(leader: float | None, mine: float | None) -> bool:
    """Whether a deadline is as late as another; None is the latest."""
    return leader is None or (mine is not None and leader >= mine)
