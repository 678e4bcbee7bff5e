"""Paced limits: calls spread evenly, for a provider that no log can please.

Some mechanisms refuse calls that keep a limit in every window: a sliding counter takes the last
window's calls as if they had been spread evenly, a small token bucket wants them to be. If what arrives
within any time t is at most B + r × t with B + r × W ≤ L, every known mechanism accepts it. So from the
first refusal that nothing else explains, a limit is *paced*: at most a burst of B at once, and in the
long run r = (L − B) / (W + J), where J, the limit's guard, is how late the provider may count. The log
stays in force beside it.

B is half the limit at first and halves with every further such refusal. Once a window it is looked
at: if more than half of it is taken it halves, too, because a small burst lets more through in the long
run; if nothing is taken it grows, because a large one lets more through at once. Whenever it changes,
the room that is left of it stays as it is where it grows, and what is taken of it where it shrinks: so
the bound holds across the change.

A call above the burst raises it, up to two thirds of the limit; a larger one goes alone: nothing
else in the two windows before it and after it.

State is the burst and one instant, the theoretical arrival time: what was let go by then is forgotten.
Instants are integer microseconds here, amounts integers, and the products doubles, as in the script.
"""

from __future__ import annotations

from headgate.core.quota import Kind, Limit

__all__ = ["LOOK", "QUIET", "STEPS", "Pace", "may_pace"]

QUIET = 3_600_000
"""Milliseconds without an unexplained refusal after which pacing ends, if the burst is back at half the
limit. A provider changes its mechanism rarely, and to find out costs a refusal."""

LOOK = 10_000
"""Milliseconds between two looks at a burst at the least, for limits per second."""

STEPS = 64
"""The burst of a token limit grows by one of so many parts of the limit; others grow by 1."""


def may_pace(limit: Limit) -> bool:
    """Whether pacing means anything: of a limit of 1 nothing can be spread."""
    return limit.kind is Kind.ROLLING and limit.amount > 1


class Pace:
    """How one limit of one domain is paced.

    Attributes:
        burst: B, from 1 to two thirds of the limit.
        arrival: the theoretical arrival time in microseconds.
        due: milliseconds; when the burst is looked at, unless a refusal comes before.
        told: milliseconds of the last refusal.
    """

    __slots__ = ("arrival", "burst", "due", "told")

    def __init__(self, limit: Limit, now: int) -> None:
        # What was sent before nobody knows, so nothing of the burst is free.
        self.burst = limit.amount // 2
        self.arrival = now * 1000 + self._cost(limit, self.burst)
        self.told = now
        self.due = now + max(limit.window, LOOK)

    # ── calls; amounts as in the ledger, `now` in milliseconds ──────────────────────────────────

    def opens(self, limit: Limit, need: int) -> int:
        """The millisecond from which on a call may go, if none goes before it."""
        if need <= self.burst:
            at = self.arrival - int((self.burst - need) * self._interval(limit, self.burst))
        elif need <= _most(limit):
            at = self.arrival + int((need - self.burst) * self._interval(limit, need)) + 1
        else:
            at = self.arrival + _alone(limit)
        return at // 1000

    def take(self, limit: Limit, need: int, now: int) -> int:
        """A call goes. Returns when its part of the burst will have been given back (microseconds)."""
        if self.burst < need <= _most(limit) and self.opens(limit, need) <= now:
            self.burst = need
        self.arrival = max(self.arrival, now * 1000) + self._cost(limit, need)
        return self.arrival

    def settle(self, limit: Limit, need: int, used: int, end: int, now: int) -> None:
        """It used more or less. What has been given back by now cannot be given back again."""
        change = self._cost(limit, used) - self._cost(limit, need)
        if change > 0:
            self.arrival = max(self.arrival, now * 1000) + change
        else:
            self.arrival -= min(-change, max(0, end - now * 1000))

    def again(self, limit: Limit, need: int, end: int, now: int) -> int:
        """It goes now, not when it was let go: what has been given back meanwhile is taken again."""
        cost = self._cost(limit, need)
        missing = cost - min(cost, max(0, end - now * 1000))
        if missing == 0:
            return end
        self.arrival = max(self.arrival, now * 1000) + missing
        return self.arrival

    # ── refusals, and quiet ─────────────────────────────────────────────────────────────────────

    def refused(self, limit: Limit, now: int) -> bool:
        """The provider refused, and nothing else explains it. Whether that is news.

        Calls let go before the last refusal may be refused until the guard has passed: the same event.
        """
        if now <= self.told + limit.guard:
            return False
        self.told = now
        self._change(limit, limit.amount - self.burst, max(1, self.burst // 2), now)
        self.due = now + max(limit.window, LOOK)
        return True

    def ease(self, limit: Limit, now: int) -> bool:
        """It has been quiet until `due`. Whether the limit is to be paced any longer."""
        half, burst = limit.amount // 2, self.burst
        if burst >= half and now >= self.told + QUIET:
            return False
        backlog = self.arrival - now * 1000
        if 2 * backlog >= self._cost(limit, burst):
            burst = max(1, burst // 2)
        elif backlog <= 0 and burst < half:
            step = max(1, limit.amount // STEPS) if limit.counts.is_tokens else 1
            burst = min(half, burst + step * (1 + (now - self.due) // limit.window))
        if burst != self.burst:
            self._change(limit, limit.amount - self.burst, burst, now)
        self.due = now + max(limit.window, LOOK)
        return True

    def resize(self, old: Limit, limit: Limit, now: int) -> None:
        """The limit has another amount."""
        self._change(limit, old.amount - self.burst, min(self.burst, _most(limit)), now)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────

    def _change(self, limit: Limit, spare: int, burst: int, now: int) -> None:
        """Another burst. `spare` is what the limit was above the old one.

        What is taken stays as it is in amounts. What is taken beyond the burst, by a call that goes
        alone or was sent anyway, stays as it is in time.
        """
        beyond = self.arrival - int(self.burst * (_horizon(limit) / spare))
        begin = max(now * 1000, beyond)
        grown = burst - self.burst
        self.burst = burst
        if self.arrival > begin:
            backlog = self.arrival - begin
            self.arrival = begin + int(backlog * (spare / (limit.amount - burst))) + 1
        if grown > 0:
            self.arrival += self._cost(limit, grown)

    def _cost(self, limit: Limit, amount: int) -> int:
        """Microseconds until an amount has been given back; rounded up."""
        interval = self._interval(limit, self.burst)
        if amount > _most(limit):
            return _alone(limit) + int(self.burst * interval) + 1
        return int(amount * interval) + 1 if amount else 0

    @staticmethod
    def _interval(limit: Limit, burst: int) -> float:
        """Microseconds from one call to the next in the long run."""
        return _horizon(limit) / (limit.amount - burst)


def _most(limit: Limit) -> int:
    return limit.amount * 2 // 3


def _alone(limit: Limit) -> int:
    """Microseconds after which every mechanism has forgotten a call."""
    return 2 * _horizon(limit)


def _horizon(limit: Limit) -> int:
    """W + J in microseconds, and a millisecond: `opens` rounds down to a whole one."""
    return (limit.window + limit.guard + 1) * 1000
