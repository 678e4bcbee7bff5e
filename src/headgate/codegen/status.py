"""What the status of a run means. The API's is a plain text that nobody specified.

The vendor's docs show `completed`, its own command line expects upper case and the words below. So
words are compared in any case, `COMPLETE` and `COMPLETED` are one, what is unknown is no end, and the
raw text stays what it was.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["AgentRunStatus", "status_of"]


class AgentRunStatus(StrEnum):
    """The statuses that are known."""

    PENDING = "pending"
    ACTIVE = "active"  # may also mean idle after an answer; nothing says which, so it is no end
    RUNNING = "running"
    PAUSED = "paused"
    EVALUATION = "evaluation"
    COMPLETE = "complete"
    ERROR = "error"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    TIMEOUT = "timeout"
    MAX_ITERATIONS_REACHED = "max_iterations_reached"
    OUT_OF_TOKENS = "out_of_tokens"
    UNKNOWN = "unknown"

    @property
    def is_terminal(self) -> bool:
        """Whether a run stays so."""
        return self in _TERMINAL

    @property
    def is_success(self) -> bool:
        """Whether the run did what it was asked."""
        return self is AgentRunStatus.COMPLETE


_TERMINAL = frozenset(
    {
        AgentRunStatus.COMPLETE,
        AgentRunStatus.ERROR,
        AgentRunStatus.FAILED,
        AgentRunStatus.CANCELLED,
        AgentRunStatus.STOPPED,
        AgentRunStatus.TIMEOUT,
        AgentRunStatus.MAX_ITERATIONS_REACHED,
        AgentRunStatus.OUT_OF_TOKENS,
    }
)
_SPELLINGS = {"completed": "complete", "canceled": "cancelled"}


def status_of(raw: object) -> AgentRunStatus:
    """The meaning of a raw status, in any case; UNKNOWN for what nobody has seen yet."""
    if not isinstance(raw, str):
        return AgentRunStatus.UNKNOWN
    word = raw.strip().casefold().replace("-", "_").replace(" ", "_")
    try:
        return AgentRunStatus(_SPELLINGS.get(word, word))
    except ValueError:
        return AgentRunStatus.UNKNOWN
