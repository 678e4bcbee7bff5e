"""What every transport keeps to: seconds a phase of an exchange may take, bytes an answer may have."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LARGEST_BODY", "STANDARD_TIMEOUTS", "Timeouts"]

LARGEST_BODY = 256 * 1024 * 1024
"""Bytes of a reply at the most; a base64 image of 100 MB, the upstream's own limit, fits."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds an exchange may take where the call has no nearer deadline.

    Attributes:
        connect: until the connection stands, TLS included.
        attempt: a whole answer that does not stream, thinking included.
        stream_idle: silence within a stream, and before it begins.
    """

    connect: float = 10.0
    attempt: float = 300.0
    stream_idle: float = 120.0


STANDARD_TIMEOUTS = Timeouts()
