"""What a caller may, worked out for its calls, and what each of them has used so far."""

from __future__ import annotations

import fnmatch
import re
from typing import NamedTuple

from headgate.core.call import Priority
from headgate.core.callers import Budget, Caller, CallerLimits
from headgate.gateway.meters import Taken

__all__ = ["Estimate", "Tab", "Terms", "urgency"]


class Terms:
    """What a caller may, worked out once for each version of it.

    Attributes:
        plain: nothing of its calls needs a look.
        meters, counts_tokens: whether buckets are asked, that of tokens too.
        holds: whether a call holds money or a place.
    """

    def __init__(self, caller: Caller, defaults: CallerLimits, *, watches_all: bool) -> None:
        self.version = caller.version
        self.limits = caller.limits.over(defaults)
        self.budget: Budget | None = caller.budget
        self._models = _pattern(caller.models)
        limits = self.limits
        self.counts_tokens = bool(limits.tokens_per_minute)
        self.meters = bool(
            limits.requests_per_minute or limits.requests_per_day or self.counts_tokens or watches_all
        )
        self.holds = self.budget is not None or limits.concurrent is not None
        self.plain = not (self.meters or self.holds or self._models)

    def allows(self, model: str) -> bool:
        """Whether the caller may ask for a model."""
        return self._models is None or self._models.fullmatch(model.removeprefix("models/")) is not None


class Estimate(NamedTuple):
    """What a call is expected to use.

    Attributes:
        lesson: under which it is learned.
        plain: count of the prompt's tokens, before any margin.
        tokens: of prompt and answer.
    """

    lesson: str
    plain: int
    tokens: int


class Tab:
    """What a call that was let in has used so far."""

    __slots__ = (
        "cost", "estimate", "expected", "heard", "held", "holds", "left", "prompt", "taken", "tokens",
        "unpriced",
    )  # fmt: skip

    def __init__(self, taken: Taken, estimate: Estimate | None, prompt: int) -> None:
        self.taken = taken
        self.prompt = prompt  # tokens, by a plain count
        self.estimate = estimate
        self.holds = False  # whether the purse has a hold of it
        self.held: int | None = None  # nano-dollars; None: nobody counts money
        self.cost = 0
        self.tokens = 0
        self.unpriced = False
        self.heard = 0  # attempts
        self.expected = 0
        self.left = False


def urgency(asked: Priority | None, caller: Caller) -> Priority:
    """How urgent a call is: as it says, but no more than its caller's calls may be."""
    most = caller.priority
    if asked is None:
        return most or Priority.NORMAL
    return asked if most is None or asked.rank >= most.rank else most


def _pattern(globs: tuple[str, ...]) -> re.Pattern[str] | None:
    if not globs:
        return None
    return re.compile("|".join(fnmatch.translate(glob.removeprefix("models/")) for glob in globs))
