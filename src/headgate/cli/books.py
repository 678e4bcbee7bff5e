"""What commands that call a model keep of it: the rows that `headgate usage` sums."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate.core.ports import Observer

__all__ = ["in_the_books"]

_LAST_WRITE_SECONDS = 5.0
"""Longest a command that is done waits for its rows: a ledger that hangs must not hold up a script."""


@contextmanager
def in_the_books() -> Iterator[tuple[Observer, ...]]:
    """Observers for a client whose calls are to be in the usage ledger; none where none is kept.

    What they noted is written at the end, however the block ends. A ledger that cannot be written is
    told of on stderr, and changes nothing of the answer or the exit code. Rows are not dropped by age:
    who keeps the ledger, a gateway or a backend, says for how long.

    Raises:
        ConfigurationError: the ledger's setting is wrong.
    """
    from headgate.wiring.clock import SystemClock  # noqa: PLC0415 - `--help` need not wait for it
    from headgate.wiring.gateway_usage import open_usage  # noqa: PLC0415 - likewise

    usage = open_usage(SystemClock(), kept_days=float("inf"))
    if usage is None:
        yield ()
        return
    try:
        yield (usage.observer,)
    finally:
        usage.close(_LAST_WRITE_SECONDS)
