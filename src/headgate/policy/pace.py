"""How fast to send to an upstream class of endpoints whose limit is known, or learned. Pure.

Two token buckets, taken from together: what the upstream documents, and what the user allows it, which
adapts: after `_STEP` successes in a row a tenth more, after a refusal half, within bounds. A change
keeps what the bucket holds: it never forgets what was sent.

A token bucket lets a full burst and a refill pass within one window. An upstream that counts windows
refuses that, and says so by a 429. From then on a third rule holds: no more than the documented number
in any window. It costs nothing in the long run. Where more than that had just been sent, this explains
the refusal, and the limit itself is left as it was. An upstream that refuses even so only estimates its
windows and takes bursts amiss: from then on requests leave evenly spaced.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from headgate.core.buckets import Rule
from headgate.policy.bucket import Shape, State, rule_of, shape_of, take

__all__ = ["Allowance", "Pace", "PaceView"]

_LONGEST_PAUSE = 3_600.0
"""Seconds a hint may pause a class; whoever asks for more is asked again after them."""

_STEP = 10  # successes in a row, after which a tenth more is tried


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many requests in so many seconds."""

    requests: int
    seconds: float

    def over(self, seconds: float) -> int:
        """What may be sent in another window, rounded down: in a shorter one the whole burst."""
        return max(self.requests, int(self.requests * seconds / self.seconds))


@dataclass(frozen=True, slots=True)
class PaceView:
    """How a class stands.

    Attributes:
        limit, period: what is sent at the most now.
        ceiling, floor: what the limit adapts between.
        left: requests that could leave at once.
        paused: seconds until the upstream's own hint has passed.
        windowed: whether the upstream was found to count windows.
        spread: whether it was found to mind bursts too.
        refused: refusals so far.
    """

    limit: int
    period: float
    ceiling: int
    floor: int
    left: int
    paused: float
    windowed: bool
    spread: bool
    refused: int


class Pace:
    """One class of endpoints of one token. Not locked.

    Args:
        documented: what the upstream says.
        allowed: what the user allows; None is what is documented. Slower than documented, it caps.
        floor: what the limit never falls below, in requests per period; a lower ceiling stands.
        ceiling: what it never rises above, likewise, or None.
    """

    def __init__(
        self,
        documented: Allowance,
        allowed: Allowance | None = None,
        *,
        floor: int = 1,
        ceiling: int | None = None,
    ) -> None:
        start = allowed or documented
        self._documented = documented
        self._period = start.seconds
        most = min(start.requests, documented.over(start.seconds))
        self._ceiling = most if ceiling is None else min(most, ceiling)
        self._floor = min(floor, self._ceiling)
        self._limit = self._ceiling
        self._shapes = [shape_of(_rule(documented)), self._shape()]
        self._states: list[State | None] = [None, None]
        self._sent: deque[float] = deque(maxlen=2 * documented.requests)
        self._windowed = self._spread = False
        self._successes = 0
        self._changed_at = float("-inf")
        self._paused_until = float("-inf")
        self._refused = 0

    def take(self, now: float) -> float:
        """Take the right to send, which 0 means, or say how many seconds to wait for it."""
        if (pause := self._paused_until - now) > 0:
            return pause
        if self._windowed and (wait := max(self._window(now), self._gap(now))) > 0:
            return wait
        allowed, after, levels = take(self._shapes, self._states, int(now * 1_000_000), 1)
        if not allowed:
            return max(1, *(level.wait_us for level in levels)) / 1_000_000
        self._states = list(after)
        self._sent.append(now)
        return 0.0

    def succeeded(self) -> None:
        """A request was answered, whatever with."""
        self._successes += 1
        if self._successes >= _STEP:
            self._successes = 0
            if self._limit < self._ceiling:
                self._resize(min(self._ceiling, max(self._limit + 1, self._limit * 11 // 10)))

    def refused(self, now: float, sent_at: float, hint: float | None) -> float:
        """A request sent at `sent_at` was refused for the limit. Seconds until one may leave again.

        Refusals of requests that were sent before the last change, or less than a window after it, say
        nothing new: the upstream still counts what was sent before.
        """
        self._refused += 1
        self._successes = 0
        wait = self._window_from(sent_at, now) if hint is None else min(hint, _LONGEST_PAUSE)
        self._paused_until = max(self._paused_until, now + wait)
        if sent_at >= self._changed_at:
            if not self._explained(sent_at):
                self._resize(max(self._floor, self._limit // 2))
            self._changed_at = now + self._documented.seconds
        return self._paused_until - now

    def paused(self, now: float) -> float:
        """Seconds until the upstream's own hint has passed; 0 if there is none."""
        return max(0.0, self._paused_until - now)

    def view(self, now: float) -> PaceView:
        """How it stands."""
        _, _, levels = take(self._shapes, self._states, int(now * 1_000_000), 0)
        left = min(level.whole for level in levels)
        paused = self.paused(now)
        if paused or (self._windowed and self._window(now) > 0):
            left = 0
        return PaceView(
            self._limit, self._period, self._ceiling, self._floor, left, paused, self._windowed,
            self._spread, self._refused,
        )  # fmt: skip

    def adopt(self, before: Pace) -> None:
        """Take over what another pace of the same class and token remembers of what was sent."""
        self._sent.extend(before._sent)
        self._windowed, self._spread = before._windowed, before._spread
        self._paused_until, self._changed_at = before._paused_until, before._changed_at
        self._refused = before._refused
        for place, state in enumerate(before._states):
            if state is not None:
                old, new = before._shapes[place], self._shapes[place]
                used = (old.full - state.units) * new.unit // old.unit
                self._states[place] = State(max(0, new.full - used), state.last_us)

    def _window(self, now: float) -> float:
        """Seconds until the documented window has room; 0 if it has."""
        if len(self._sent) < self._documented.requests:
            return 0.0
        return self._sent[-self._documented.requests] + self._documented.seconds - now

    def _gap(self, now: float) -> float:
        """Seconds until the next request leaves, where they leave evenly; else 0."""
        if not self._spread or not self._sent:
            return 0.0
        even = max(self._documented.seconds / self._documented.requests, self._period / self._limit)
        return self._sent[-1] + even - now

    def _explained(self, sent_at: float) -> bool:
        """Whether how we sent explains a refusal. From now on we send otherwise.

        First by more than the documented number in the window up to this request; then, though there
        were no more, by most of them in a burst.
        """
        start = sent_at - self._documented.seconds
        recent = sum(start < moment <= sent_at for moment in self._sent)
        if not self._windowed:
            self._windowed = True
            return recent > self._documented.requests
        if not self._spread and 2 * recent >= self._documented.requests:
            self._spread = True
            return True
        return False

    def _window_from(self, sent_at: float, now: float) -> float:
        # The oldest request that the upstream may still count leaves its window first. Where only this
        # one is known, others use the token too: then it is a whole window.
        start = now - self._documented.seconds
        oldest = next((moment for moment in self._sent if moment > start), sent_at)
        return max(0.0, oldest + self._documented.seconds - now)

    def _shape(self) -> Shape:
        return shape_of(_rule(Allowance(self._limit, self._period)))

    def _resize(self, limit: int) -> None:
        if limit == self._limit:
            return
        self._limit = limit
        old, new = self._shapes[1], self._shape()
        state = self._states[1]
        self._shapes[1] = new
        if state is not None:
            units = min(new.full, state.units * new.unit // old.unit)
            self._states[1] = State(units, state.last_us)


def _rule(allowance: Allowance) -> Rule:
    return rule_of(allowance.requests, float(allowance.seconds))
