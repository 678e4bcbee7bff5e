"""How long an upstream asks to wait, read from what HTTP and JSON say.

Nonsense counts as no hint: what is no finite number, or lies in the past.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

__all__ = ["header_date", "header_hint", "seconds"]


def header_hint(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `retry-after`; a date is counted from the upstream's own clock."""
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


def _usable(wait: float) -> float | None:
    return wait if math.isfinite(wait) and wait >= 0 else None
