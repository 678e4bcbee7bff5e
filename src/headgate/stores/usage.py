"""Daily usage totals in memory, and in Redis or Valkey as `claude:usage:YYYY-MM-DD`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache, partial
from importlib.resources import files
from typing import Any

from headgate.stores.line import StoreLine, text

__all__ = ["MemoryUsage", "RedisUsage"]

_KEPT_DAYS = 30


class MemoryUsage:
    """Totals of one process; days beyond the thirtieth newest are forgotten."""

    def __init__(self) -> None:
        self._days: dict[str, dict[str, Decimal]] = {}
        self._seen: dict[tuple[str, str], int] = {}

    async def add(self, day: str, member: str, number: int, amounts: Mapping[str, str]) -> None:
        """Add a batch once."""
        if self._seen.get((day, member), 0) >= number:
            return
        self._seen[day, member] = number
        totals = self._days.setdefault(day, {})
        for name, amount in amounts.items():
            totals[name] = totals.get(name, Decimal(0)) + Decimal(amount)
        for old in sorted(self._days)[:-_KEPT_DAYS]:
            del self._days[old]
            self._seen = {seen: last for seen, last in self._seen.items() if seen[0] != old}

    async def read(self, days: Sequence[str]) -> list[dict[str, str]]:
        """What each day holds."""
        found = (self._days.get(day, {}) for day in days)
        return [{name: str(amount) for name, amount in totals.items()} for totals in found]

    async def aclose(self) -> None:
        """Nothing to close."""


class RedisUsage:
    """Totals that any number of processes share; a day is kept 30 days after its last entry."""

    def __init__(self, line: StoreLine) -> None:
        self._line = line
        self._script: Any = None

    async def add(self, day: str, member: str, number: int, amounts: Mapping[str, str]) -> None:
        """Add a batch once. Raises `StoreError`; the batch may then have been added."""
        await self._line.run(partial(self._add, day, member, number, amounts))

    async def read(self, days: Sequence[str]) -> list[dict[str, str]]:
        """What each day holds. Raises `StoreError`."""
        return await self._line.run(partial(self._read, days))

    async def aclose(self) -> None:
        """Wait for calls under way."""
        await self._line.aclose()

    async def _add(self, day: str, member: str, number: int, amounts: Mapping[str, str]) -> None:
        if self._script is None:
            self._script = self._line.client.register_script(_source())
        # A process that was forked counts on from its parent's number under a name of its own.
        arguments: list[object] = [f"{member}.{os.getpid()}", number, _KEPT_DAYS * 86_400_000]
        for name, amount in amounts.items():
            arguments += [name, amount]
        # The braces make the slot of the second key that of the first, which has none.
        await self._script(keys=[_key(day), f"{{{_key(day)}}}:seen"], args=arguments)

    async def _read(self, days: Sequence[str]) -> list[dict[str, str]]:
        pipe = self._line.client.pipeline(transaction=False)
        for day in days:
            pipe.hgetall(_key(day))
        return [
            {text(name): text(amount) for name, amount in found.items()}
            for found in await pipe.execute()
        ]


@cache
def _source() -> str:
    return files("headgate.stores").joinpath("lua/usage.lua").read_text(encoding="utf-8")


def _key(day: str) -> str:
    return f"claude:usage:{day}"
