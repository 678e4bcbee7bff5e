"""What to do about a conversation that outgrows the model's window: drop, summarise or refuse.

Pure: turns come with their sizes, the answer says which of them stay. The system instruction is no turn
and always stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from headgate.core.call import Role, Turn
from headgate.policy.truncation import turns_to_drop

__all__ = ["SHARE", "SUMMARY_SHARE", "Action", "Plan", "as_summary", "plan", "transcript"]

SHARE = 0.9
"""Of the window, what an estimate may fill: it errs by 8 % in the median (see `policy/estimate.py`)."""

SUMMARY_SHARE = 0.5
"""Of the room for turns, what the newest turns keep when older ones become a summary: with less room
every further turn would need another summary."""

_SUMMARY_MARK = "Summary of the conversation so far"


class Action(StrEnum):
    """What is to happen to the oldest turns."""

    KEEP = "keep"
    DROP = "drop"
    SUMMARISE = "summarise"
    REFUSE = "refuse"


class Plan(NamedTuple):
    """What to do with the first `turns` turns."""

    action: Action
    turns: int = 0


def plan(sizes: Sequence[int], fixed: int, window: int | None, overflow: Action) -> Plan:
    """Which of the oldest turns must go, and how.

    Args:
        sizes: estimated tokens of each turn, oldest first.
        fixed: estimated tokens of what always stays: system instruction, prompt, tools.
        window: input tokens of the model; None: nobody has told, so everything stays.
        overflow: what the user wants done: DROP, SUMMARISE or REFUSE.
    """
    if window is None or not sizes:
        return Plan(Action.KEEP)
    room = max(0, int(window * SHARE) - fixed)
    if sum(sizes) <= room:
        return Plan(Action.KEEP)
    if overflow is Action.REFUSE:
        return Plan(Action.REFUSE)
    kept = int(room * SUMMARY_SHARE) if overflow is Action.SUMMARISE else room
    return Plan(overflow, turns_to_drop(sizes, kept))


def transcript(turns: Sequence[Turn]) -> str:
    """Turns as text, for a model that is to summarise them; media and calls are only named."""
    lines = []
    for turn in turns:
        said = [part if isinstance(part, str) else _named(part) for part in turn.parts]
        lines.append(f"{turn.role.value}: {' '.join(said)}")
    return "\n\n".join(lines)


def _named(part: object) -> str:
    kind = getattr(part, "mime_type", None)
    return f"[{kind}]" if kind else "[function call]"


def as_summary(text: str) -> tuple[Turn, Turn]:
    """The two turns that stand for summarised ones. A user's turn comes first, as Gemini wants it."""
    return (
        Turn(Role.USER, (f"{_SUMMARY_MARK}:\n{text}",)),
        Turn(Role.MODEL, ("Understood.",)),
    )
