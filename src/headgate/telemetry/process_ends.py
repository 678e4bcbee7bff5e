"""What a fork, and the end of a process, mean to those who write from a thread of their own.

Their threads are daemons, so that none keeps a program from ending, and a fork leaves them behind.
"""

from __future__ import annotations

import atexit
import os
import time
from typing import Protocol
from weakref import WeakSet

__all__ = ["EXIT_SECONDS", "Follower", "follow", "leave_alone"]

EXIT_SECONDS = 2.0
"""How long the end of a process waits for writers that nobody closed, all of them together."""


class Follower(Protocol):
    """Who has a thread that writes."""

    @property
    def quiet(self) -> bool:
        """Whether nothing is open."""

    def close(self, timeout: float | None = None) -> None:
        """Write what waits, within so many seconds."""

    def forks(self) -> None:
        """A fork is near: hold still until it is over."""

    def goes_on(self) -> None:
        """The fork is over, and this is the parent."""

    def forked(self) -> None:
        """The fork is over, and this is the child."""


_followers: WeakSet[Follower] = WeakSet()
_of_parents: list[object] = []


def follow(follower: Follower) -> None:
    """Tell somebody of forks and of the end, for as long as it lives."""
    _followers.add(follower)


def leave_alone(store: object) -> None:
    """Keep what came over a fork, unused: a thread that is no more may hold its locks, and closing it,
    which letting go of it would do too, harms the parent."""
    _of_parents.append(store)


def _before() -> None:
    for follower in tuple(_followers):
        follower.forks()


def _in_parent() -> None:
    for follower in tuple(_followers):
        follower.goes_on()


def _in_child() -> None:
    for follower in tuple(_followers):
        follower.forked()


@atexit.register
def _at_exit() -> None:
    """Daemons still run here."""
    until = time.monotonic() + EXIT_SECONDS  # noqa: TID251 - of the process, not of a call
    for follower in tuple(_followers):
        if not follower.quiet:
            follower.close(max(0.0, until - time.monotonic()))  # noqa: TID251 - as above


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
