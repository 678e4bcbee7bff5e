"""Usage on its way to the store: gathered, sent as atomic batches, and kept while the store fails.

A batch that was sent and not acknowledged may have arrived. It is sent again as it was, under its
number, before anything newer: the store adds a number once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal

from headgate.core.errors import StoreError
from headgate.core.ports import UsageDays

__all__ = ["UsageJournal"]

_Amounts = dict[str, dict[str, Decimal]]  # by day, by field


class UsageJournal:
    """Adds usage to days. Never raises for a store that fails.

    Args:
        member: the name of this process at the store.
    """

    def __init__(self, store: UsageDays, member: str) -> None:
        self._store = store
        self._member = member
        self._number = 0
        self._sending: _Amounts = {}
        self._gathered: _Amounts = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    def note(self, day: str, amounts: Mapping[str, Decimal]) -> None:
        """Keep some usage; `flush` stores it."""
        _add(self._gathered, day, amounts)

    async def flush(self) -> None:
        """Return when all that was noted so far is stored, or the store has failed."""
        if not self._gathered and not self._sending:
            return
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[None] = loop.create_future()
        self._waiting.append(waiting)
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._waiting = [waiting]  # those of a loop that is gone wait no more
            self._task = loop.create_task(self._drain())
        await waiting

    def held(self, day: str) -> Mapping[str, Decimal]:
        """What is not known to be stored."""
        found: _Amounts = {}
        for amounts in (self._sending, self._gathered):
            _add(found, day, amounts.get(day, {}))
        return found.get(day, {})

    async def _drain(self) -> None:
        told: list[asyncio.Future[None]] = []
        try:
            while self._waiting:
                # All that was noted before its caller began to wait is in what is sent now.
                told, self._waiting = self._waiting, []
                await self._send()
                if not self._sending:
                    self._number += 1
                    self._sending, self._gathered = self._gathered, {}
                    await self._send()
                _release(told)
        except StoreError:
            pass  # the line has logged it; the next flush tries again
        finally:
            _release([*told, *self._waiting])

    async def _send(self) -> None:
        for day in list(self._sending):
            amounts = {name: f"{amount:f}" for name, amount in self._sending[day].items()}
            await self._store.add(day, self._member, self._number, amounts)
            del self._sending[day]


def _add(days: _Amounts, day: str, amounts: Mapping[str, Decimal]) -> None:
    totals = days.setdefault(day, {})
    for name, amount in amounts.items():
        totals[name] = totals.get(name, Decimal(0)) + amount


def _release(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)
    waiting.clear()
