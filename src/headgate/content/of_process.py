"""What a process has one of, once a service was opened in it: what makes its explanations."""

from __future__ import annotations

from threading import Lock

from headgate.content.explanations import Explanations

__all__ = ["explain_with", "explanations_of_process"]

_lock = Lock()
_explanations: Explanations | None = None


def explain_with(explanations: Explanations) -> None:
    """Let the service that was opened last make them."""
    global _explanations  # noqa: PLW0603 - one of a process, as its tracker is
    with _lock:
        _explanations = explanations


def explanations_of_process() -> Explanations | None:
    """None where no service was opened yet."""
    with _lock:
        return _explanations
