"""Lists item by item: one page ahead at the most, nothing twice, nothing lost when the list moves.

Pages are cut by position. What is added in front while one reads moves the rest back: it comes again on
the next page, and is dropped by its id. What is removed moves the rest forward, past the next page: a
total that shrank tells, and the gap is read again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Hashable
from typing import Any, TypeVar

from headgate.codegen.models import Page

__all__ = ["REMEMBERED", "paged"]

T = TypeVar("T")

REMEMBERED = 10_000
"""Ids kept to drop what comes again: so many items may be added between two pages."""

_LARGEST_PAGE = 100


async def paged(
    fetch: Callable[[int, int], Coroutine[Any, Any, Page[T]]],
    identity: Callable[[T], Hashable],
    *,
    size: int = _LARGEST_PAGE,
) -> AsyncGenerator[T]:
    """Every item of a list, each once. Memory does not grow with the list.

    Args:
        fetch: the page at a position, of so many items.
        identity: what makes an item itself.
        size: items to a page.
    """
    seen = _Recent(REMEMBERED)
    skip, total = 0, 0
    ahead: asyncio.Task[Page[T]] | None = _begun(fetch(0, size))
    try:
        while ahead is not None:
            page = await ahead
            ahead = None
            items = page.items
            if skip and page.total < total:
                items = [*await _gap(fetch, skip, total - page.total), *items]
            skip, total = skip + len(page.items), page.total
            if page.items and skip < total:
                ahead = _begun(fetch(skip, size))
            for item in items:
                if seen.is_new(identity(item)):
                    yield item
    finally:
        if ahead is not None:
            ahead.cancel()
            await asyncio.wait([ahead])
            if not ahead.cancelled():
                ahead.exception()  # nobody reads on, so nobody wants to know


async def _gap(fetch: Callable[[int, int], Awaitable[Page[T]]], skip: int, removed: int) -> list[T]:
    """What slipped in front of `skip` when so many items were removed."""
    found: list[T] = []
    start = max(0, skip - removed)
    while start < skip:
        page = await fetch(start, min(_LARGEST_PAGE, skip - start))
        if not page.items:
            break
        found += page.items
        start += len(page.items)
    return found


def _begun(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    return asyncio.get_running_loop().create_task(work)


class _Recent:
    """The ids seen last."""

    def __init__(self, most: int) -> None:
        self._order: deque[Hashable] = deque()
        self._known: set[Hashable] = set()
        self._most = most

    def is_new(self, identity: Hashable) -> bool:
        """Whether it was not seen lately; from now on it was."""
        if identity in self._known:
            return False
        self._known.add(identity)
        self._order.append(identity)
        if len(self._order) > self._most:
            self._known.discard(self._order.popleft())
        return True
