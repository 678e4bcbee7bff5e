"""One alarm, and counts over the last while. Pure: time is an argument, in seconds that never go back.

An alarm is raised when its value has been high for as long as its trigger asks, and cleared when it has
been low, which is lower than where it began, for as long: a value that trembles around a threshold
gives one alert and not a hundred.

    quiet ──value ≥ raise_at for `hold`──▶ raised ──value < clear_below for `calm`──▶ quiet, for `rearm`
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Alarm", "Rolling", "Trigger", "Turn"]


class Turn(StrEnum):
    """What an alarm has just done."""

    RAISED = "raised"
    CLEARED = "cleared"


@dataclass(frozen=True, slots=True)
class Trigger:
    """When an alarm changes. Times in seconds.

    Attributes:
        raise_at: the value that is high, and every one above it.
        clear_below: every value below this is low; not above `raise_at`.
        hold: how long the value must be high.
        calm: how long it must be low again.
        rearm: how long after it was cleared it is not raised again.
    """

    raise_at: float
    clear_below: float
    hold: float = 0.0
    calm: float = 0.0
    rearm: float = 0.0

    def __post_init__(self) -> None:
        if self.clear_below > self.raise_at or min(self.hold, self.calm, self.rearm) < 0:
            raise ValueError(f"a trigger clears where it is raised or below it; got {self}")


class Alarm:
    """One alarm. Not locked: whoever shares it between threads locks around it.

    Attributes:
        trigger: when it changes; it may be replaced at any time.
        raised_at: since when it stands; None while it is quiet.
    """

    __slots__ = ("_armed_from", "_since", "raised_at", "trigger")

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self.raised_at: float | None = None
        self._since: float | None = None  # when the value became what would change the state
        self._armed_from = float("-inf")

    def see(self, value: float, now: float) -> Turn | None:
        """The value as it is now; whether that changes the state."""
        standing = self.raised_at is not None
        changing = value < self.trigger.clear_below if standing else value >= self.trigger.raise_at
        if not changing:
            self._since = None
            return None
        if self._since is None:
            self._since = now
        if now < self._ripe(self._since):
            return None
        self._since = None
        if standing:
            self.raised_at = None
            self._armed_from = now + self.trigger.rearm
            return Turn.CLEARED
        self.raised_at = now
        return Turn.RAISED

    def due(self) -> float | None:
        """When the state changes if the value stays as it was last seen; None: it does not."""
        return None if self._since is None else self._ripe(self._since)

    def rests(self, now: float) -> bool:
        """Whether nothing is lost if it is forgotten."""
        return self.raised_at is None and self._since is None and now >= self._armed_from

    def _ripe(self, since: float) -> float:
        if self.raised_at is not None:
            return since + self.trigger.calm
        return max(since + self.trigger.hold, self._armed_from)


class Rolling:
    """Two whole numbers, added up over the last `seconds`. Its size does not grow with what is added.

    Time is cut into slots, and what is older than the window leaves it a slot at a time: what `read`
    gives is of the last `seconds`, or of up to one slot less.

    Args:
        seconds: the window.
        slots: into how many pieces it is cut.
    """

    __slots__ = ("_part", "_slot", "_slots", "_whole", "part", "whole", "width")

    def __init__(self, seconds: float, slots: int) -> None:
        self.width = seconds / slots
        self.part = self.whole = 0  # as of the last look
        self._slots = slots
        self._slot = -1
        self._part = [0] * slots
        self._whole = [0] * slots

    def add(self, part: int, whole: int, now: float) -> None:
        """Add to both. On the path of every attempt."""
        slot = int(now // self.width)
        if slot > self._slot:
            self._move(slot)
        place = self._slot % self._slots
        self._part[place] += part
        self._whole[place] += whole
        self.part += part
        self.whole += whole

    def read(self, now: float) -> tuple[int, int]:
        """Both sums as they stand now."""
        slot = int(now // self.width)
        if slot > self._slot:
            self._move(slot)
        return self.part, self.whole

    def _move(self, slot: int) -> None:
        gone = min(slot - self._slot, self._slots)
        for number in range(slot - gone + 1, slot + 1):
            self._part[number % self._slots] = self._whole[number % self._slots] = 0
        self._slot = slot
        self.part, self.whole = sum(self._part), sum(self._whole)
