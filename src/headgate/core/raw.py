"""An upstream's answer in its own words, for callers who speak its language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["RawReply"]


@dataclass(frozen=True, slots=True)
class RawReply:
    """An upstream's answer as it came.

    Attributes:
        headers: all of them, names in lower case: whoever passes them on chooses.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
