"""The limits that stand beside answers: `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`.

The headers name an amount, and not of which window. What is left and when it is full again tell: a
bucket of L a window W of which u are used is full in u·W/L. Recorded triples (limit, left, reset): 500,
499, 120ms and 30000, 29996, 8ms (open-webui #3743, 2024-07-09), 3500, 3499, 17ms (litellm #400) are of
a minute; 200 a day is refused with "try again in 7m12s", 10000 a day with 8.64s (openai/codex #797).

Nothing of a minute takes longer than a minute to be full, whatever it is counted with. So a reset above
that is of a day where it fits a bucket of a day, or lies hours ahead; between the two it is of a window
not known here, and not named. A day of which so little is used that it would be full within the minute
is named as a minute's: an amount that the day is below anyway, so it holds nothing back.

Upstreams that name the window (`…-requests-day`, `…-tokens-minute`: Cerebras) are taken at their word.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from headgate.core.quota import Limit
from headgate.policy import hints
from headgate.policy.quota.table import Quota
from headgate.providers.openai_quota import OPENAI_COUNTING

__all__ = ["amount_of", "exhausted", "limits_of", "named_limits", "until_reset"]

_MINUTE = 60.5
"""Seconds after which no limit of a minute is still waited for; resets are rounded."""

_DAY = 86_400.0
_LIKE_A_DAY = 0.02
"""How far a bucket's reset may be off a day's: it is rounded to milliseconds."""

_HOURS = 3_600.0

_LONGEST_AMOUNT = 15
"""Digits of an amount that is believed: quotas of 10¹⁵ tokens are none."""


class _Names:
    """The headers of one kind of limit, and what the ledger calls them."""

    def __init__(self, what: str, initial: str) -> None:
        self.limit = f"x-ratelimit-limit-{what}"
        self.left = f"x-ratelimit-remaining-{what}"
        self.reset = f"x-ratelimit-reset-{what}"
        self.minute, self.day = f"{self.limit}-minute", f"{self.limit}-day"
        self.per_minute, self.per_day = f"{initial}pm", f"{initial}pd"


_KINDS = (_Names("requests", "r"), _Names("tokens", "t"))


def named_limits(headers: Mapping[str, str]) -> tuple[Limit, ...]:
    """The limits that the headers name, as the ledger counts them."""
    texts: list[str] = []
    for names in _KINDS:
        minute, day = headers.get(names.minute, ""), headers.get(names.day, "")
        if plain := headers.get(names.limit):
            window = _window(plain, headers.get(names.left, ""), headers.get(names.reset, ""))
            if window == _MINUTE:
                minute = minute or plain
            elif window == _DAY:
                day = day or plain
        texts += (minute, day)
    return _read(*texts) if any(texts) else ()


def limits_of(amounts: Mapping[str, int]) -> tuple[Limit, ...]:
    """The limits of these amounts by name (`rpm`, `tpd`, …)."""
    return Quota(**{name: amount for name, amount in amounts.items() if amount}).limits(OPENAI_COUNTING)


def exhausted(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the limits of which nothing is left."""
    found = []
    for names in _KINDS:
        left, reset = headers.get(names.left, ""), headers.get(names.reset, "")
        if left.strip() == "0":
            window = _window(headers.get(names.limit, ""), left, reset)
            if window is not None:
                found.append(names.per_minute if window == _MINUTE else names.per_day)
    return tuple(found)


def until_reset(headers: Mapping[str, str]) -> float | None:
    """Seconds until the limits of which nothing is left are full again."""
    waits = [
        hints.duration(headers.get(names.reset, ""))
        for names in _KINDS
        if headers.get(names.left, "").strip() == "0"
    ]
    return max((wait for wait in waits if wait is not None), default=None)


def amount_of(text: str) -> int:
    """A limit's amount; 0 where the text is none."""
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_AMOUNT):
        return 0
    return int(text)


@lru_cache(maxsize=256)
def _read(*texts: str) -> tuple[Limit, ...]:
    """The same few texts come with every answer of an organisation: they are read once."""
    named = [name for names in _KINDS for name in (names.per_minute, names.per_day)]
    return limits_of(dict(zip(named, map(amount_of, texts), strict=True)))


def _window(limit: str, left: str, reset: str) -> float | None:
    """`_MINUTE` or `_DAY`, or None where the headers do not tell."""
    seconds = hints.duration(reset) if reset else None
    if seconds is None:
        return None
    if seconds <= _MINUTE:
        return _MINUTE
    used = amount_of(limit) - amount_of(left)
    whole = seconds * amount_of(limit) / used if used > 0 else 0.0
    like_a_bucket = abs(whole / _DAY - 1) <= _LIKE_A_DAY
    return _DAY if like_a_bucket or _HOURS <= seconds <= _DAY else None
