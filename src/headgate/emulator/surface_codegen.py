"""The Codegen surface: requests to the desk, faults in between, answers and books."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

from aiohttp import hdrs, web

from headgate.core.ports import Clock
from headgate.emulator.books import Books, Entry
from headgate.emulator.codegen_desk import Asked, CodegenDesk, Seat
from headgate.emulator.codegen_webhooks import WebhookSender
from headgate.emulator.codegen_world import Answer, refusal
from headgate.emulator.config import EmulatorConfig, Fault
from headgate.emulator.delivery import Broken, Delivery
from headgate.emulator.faults import FaultPlan, Visit, touches_answer
from headgate.emulator.vocabulary import CODEGEN_FAULTS

__all__ = ["CodegenDelivery", "CodegenSurface", "is_codegen"]

_PREFIXES = (
    "/v1/organizations",
    "/v1/users/",
    "/v1/alpha/",
    "/v1/mcp-providers",
    "/v1/oauth/",
    "/v1/slack-connect/",
)
_BEFORE_ANSWER = ("reset", "close", "stall", "html")
_SAID = {
    503: "Service temporarily unavailable",
    500: "Internal server error",
    502: "Bad gateway",
    504: "Gateway timeout",
    429: "Rate limit exceeded. Please try again later.",
    402: "Alloted agent runs for the current billing plan have been reached. "
    "Please upgrade your plan to continue.",
    403: "You do not have access to this organization.",
    401: "Invalid or missing API token.",
    409: "The resource is in another state.",
}


class Age(Protocol):
    """The upstream's own time."""

    def now(self) -> float:
        """Unix time in seconds."""

    def life(self) -> float:
        """Seconds since the emulator was made."""


class CodegenDelivery(Delivery):
    """Writes one answer of the Codegen surface."""

    json_kind = "application/json"
    extra: Mapping[str, str] = {}

    async def given(self, answer: Answer) -> web.StreamResponse:
        """An answer without a fault."""
        self.extra = answer.headers
        await self._clock.sleep(self._pace.refusal() if answer.status >= 400 else 0.0)
        return await self._whole(answer.body, answer.status)

    def headers(self, kind: str, duration: int) -> Mapping[str, str]:
        """See `Delivery.headers`."""
        return {
            hdrs.CONTENT_TYPE: kind,
            hdrs.DATE: self.date(duration),
            hdrs.SERVER: "uvicorn",
            **self.extra,
        }


def is_codegen(request: web.BaseRequest) -> bool:
    """Whether a request is for this surface: its paths are nobody else's."""
    return request.path.startswith(_PREFIXES)


class CodegenSurface:
    """Answers requests to the Codegen API.

    Attributes:
        desk: what it knows; tests may look, and add runs as somebody else would.
    """

    def __init__(
        self, config: EmulatorConfig, books: Books, faults: FaultPlan, clock: Clock, age: Age
    ) -> None:
        self._books = books
        self._faults = faults
        self._age = age
        self.sender = WebhookSender(clock, age)
        self.desk = CodegenDesk(config.codegen, age.now(), started=self.sender.watch)

    def reset(self) -> None:
        """Forget what happened."""
        self.desk.reset(self._age.now())

    async def serve(self, request: web.BaseRequest, delivery: CodegenDelivery) -> web.StreamResponse:
        """Answer one request and write it into the books."""
        asked = Asked(
            request.method,
            request.path,
            dict(request.query),
            request.headers.get(hdrs.AUTHORIZATION, ""),
            await request.read(),
        )
        seat = self.desk.seat(asked)
        entry = self._books.opened(seat)
        delivery.on_end = partial(self._books.answered, entry)
        delivery.on_fault = partial(self._books.failed, entry)
        try:
            return await self._answered(asked, seat, entry, delivery)
        except Broken as broken:
            return broken.response
        except ConnectionError:  # the client went away in the middle of a write
            raise
        except Exception:  # a bug of the emulator's own: aiohttp logs it and answers a bare 500
            self._books.refused(entry, "emulator_error")
            raise
        finally:
            self._books.aborted(entry)

    async def _answered(
        self, asked: Asked, seat: Seat | None, entry: Entry, delivery: CodegenDelivery
    ) -> web.StreamResponse:
        found = self.desk.operation(asked)
        if isinstance(found, Answer):
            return await self._refused(found, entry, delivery)
        operation = found[0]
        entry.model = operation.name
        fault = self._fault(seat, operation.name)
        if fault is not None and fault.kind in _BEFORE_ANSWER:
            self._books.injected(entry, fault.kind)
            await delivery.before(fault)
        refused = self.desk.refused(seat, operation, self._age.now())
        if refused is not None:
            self._give_back(fault)
            return await self._refused(refused, entry, delivery)
        if fault is not None and fault.kind in CODEGEN_FAULTS:
            self._books.injected(entry, fault.kind)
            delivery.on_end = delivery.on_fault
            status = CODEGEN_FAULTS[fault.kind]
            return await delivery.given(refusal(status, _SAID[status], fault.kind))
        assert seat is not None  # noqa: S101 - refused above
        answer = self.desk.serve(seat, found, asked, self._age.now())
        if answer.status != 200:
            self._give_back(fault)
            return await self._refused(answer, entry, delivery)
        if fault is not None:
            self._books.injected(entry, fault.kind)
        return await delivery.whole(answer.body, fault if fault and touches_answer(fault) else None)

    async def _refused(
        self, answer: Answer, entry: Entry, delivery: CodegenDelivery
    ) -> web.StreamResponse:
        delivery.on_end = partial(self._books.refused, entry, answer.reason)
        return await delivery.given(answer)

    def _fault(self, seat: Seat | None, name: str) -> Fault | None:
        team, key = (None, None) if seat is None else (seat.team.name, seat.key)
        return self._faults.pick(Visit(team, key, None, name, self._age.life()))

    def _give_back(self, fault: Fault | None) -> None:
        """It met a request that got no answer: keep it for the next one."""
        if fault is not None and not self._faults.is_configured(fault):
            self._faults.give_back(fault)
