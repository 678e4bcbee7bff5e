"""What every surface does: one answer to one request, and what became of it into the books."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from functools import partial
from typing import Generic, Protocol, TypeVar

from aiohttp import web

from headgate.emulator.books import Books, Entry
from headgate.emulator.chance import Chance
from headgate.emulator.config import EmulatorConfig, Fault
from headgate.emulator.delivery import Broken, Delivery
from headgate.emulator.errors import Refused
from headgate.emulator.faults import FaultPlan

__all__ = ["BEFORE_ANSWER", "Age", "Surface", "Visited"]

BEFORE_ANSWER = ("reset", "close", "stall", "html")
"""Faults that end a connection before anything of an answer was written."""


class Age(Protocol):
    """The upstream's own time."""

    def now(self) -> float:
        """Unix time in seconds."""

    def life(self) -> float:
        """Seconds since the emulator was made."""


class Visited(Protocol):
    """One request while it is served.

    Attributes:
        fault: what it is still to suffer.
    """

    entry: Entry
    fault: Fault | None

    @property
    def delivery(self) -> Delivery: ...  # noqa: D102 - the way its answer takes


V = TypeVar("V", bound=Visited)
R = TypeVar("R")


class Surface(ABC, Generic[V, R]):
    """One API of the emulator."""

    def __init__(
        self, config: EmulatorConfig, books: Books, faults: FaultPlan, chance: Chance, age: Age
    ) -> None:
        self._config = config
        self._books = books
        self._faults = faults
        self._chance = chance
        self._age = age

    async def _conduct(self, exchange: V, answer: Awaitable[web.StreamResponse]) -> web.StreamResponse:
        """Await the answer to a request and write what became of it into the books, once."""
        entry, delivery = exchange.entry, exchange.delivery
        delivery.on_end = partial(self._books.answered, entry)
        delivery.on_fault = partial(self._books.failed, entry)
        try:
            return await answer
        except Refused as refused:
            self._give_back(exchange)
            delivery.on_end = partial(self._books.refused, entry, refused.refusal.reason)
            return await self._refuse(exchange, refused.refusal)
        except Broken as broken:
            return broken.response
        except ConnectionError:  # the client went away in the middle of a write
            raise
        except Exception:  # a bug of the emulator's own: aiohttp logs it and answers a bare 500
            self._books.refused(entry, "emulator_error")
            raise
        finally:  # closed already, unless the client went away
            self._books.aborted(entry)

    @abstractmethod
    async def _refuse(self, exchange: V, refusal: R) -> web.StreamResponse:
        """The error as this API writes it."""

    def _give_back(self, exchange: V) -> None:
        """A request that was refused before it came to its scripted fault leaves it to the next."""
        if exchange.fault is not None and not self._faults.is_configured(exchange.fault):
            self._faults.give_back(exchange.fault)

    def _injected(self, exchange: V) -> Fault | None:
        """The fault an answer is to suffer, now in the books."""
        fault, exchange.fault = exchange.fault, None
        if fault is not None:
            self._books.injected(exchange.entry, fault.kind)
        return fault
