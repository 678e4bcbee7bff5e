"""How long an upstream asks to wait, read from what HTTP and JSON say.

Nonsense counts as no hint: what is no finite number, or lies in the past.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

__all__ = ["duration", "header_date", "header_hint", "seconds"]

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h|d))+")
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")
_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_LONGEST_TEXT = 40
"""Characters of a duration: longer ones are no duration anybody waits for."""


def header_hint(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `retry-after-ms`, which is the finer one, else by `retry-after`; a date is
    counted from the upstream's own clock."""
    fine = seconds(headers.get("retry-after-ms", "").strip())
    if fine is not None:
        return fine / 1000
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    wait = seconds(value)
    now = header_date(headers)
    if wait is not None or now is None:
        return wait
    try:
        return _usable((parsedate_to_datetime(value) - now).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def header_date(headers: Mapping[str, str]) -> datetime | None:
    """The moment of the answer by the upstream's clock."""
    try:
        return parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError, TypeError, OverflowError, IndexError):
        return None


def seconds(text: str) -> float | None:
    """A number of seconds, or None where the text is none."""
    try:
        return _usable(float(text))
    except ValueError:
        return None


def duration(text: str) -> float | None:
    """Seconds of a duration as Go writes it (`1s`, `6m0s`, `8.64s`, `20ms`) or of a bare number."""
    text = text.strip()
    for unit in ("ms", "s"):  # most are of one unit, and stand beside every answer
        number = text.removesuffix(unit)
        if number is not text and number.isascii() and number.replace(".", "", 1).isdigit():
            return _usable(float(number) * _UNITS[unit]) if len(text) <= _LONGEST_TEXT else None
    if len(text) <= _LONGEST_TEXT and _DURATION.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PIECE.findall(text))
    return seconds(text)


def _usable(wait: float) -> float | None:
    return wait if math.isfinite(wait) and wait >= 0 else None
