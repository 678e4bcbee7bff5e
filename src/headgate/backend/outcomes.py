"""Many pieces of work at once: each has an outcome of its own, a result or a `GeminiError`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from headgate.backend.errors import ErrorType, GeminiError
from headgate.core.errors import ConfigurationError, NoKeysError

__all__ = ["each_in_order", "outcome_of"]

T = TypeVar("T")
R = TypeVar("R")


async def each_in_order(items: Sequence[T], work: Callable[[T], Awaitable[R]], at_once: int) -> list[R]:
    """What `work` gives for each item, in the order of the items.

    Cancelling it cancels what is under way and waits until it has ended.

    Args:
        work: raises nothing that is to be expected; see `outcome_of`.
        at_once: how many items are worked on at once, at the most.
    """
    found: dict[int, R] = {}
    waiting = iter(enumerate(items))

    async def worker() -> None:
        for number, item in waiting:  # one iterator for all: each takes whatever comes next
            found[number] = await work(item)

    async with asyncio.TaskGroup() as workers:
        for _ in range(min(at_once, len(items))):
            workers.create_task(worker())
    return [found[number] for number in range(len(items))]


async def outcome_of(work: Awaitable[T], now: Callable[[], float]) -> T | GeminiError:
    """What became of a piece of work: its result, or the error, which is given and not raised.

    Args:
        now: Unix time in seconds.
    """
    try:
        return await work
    except GeminiError as error:
        return error
    except ConfigurationError as error:
        no_key = isinstance(error, NoKeysError)
        return GeminiError(
            ErrorType.INVALID_API_KEY if no_key else ErrorType.UNKNOWN,
            error.message,
            timestamp=datetime.fromtimestamp(now(), UTC),
            details={"kind": error.kind},
            kind=error.kind,
        )
