"""The Codegen surface as a transport: the same answers, in the same process, without a socket.

For clients that are told to mock: any token is let in, and no limit is counted.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from urllib.parse import parse_qsl, urlsplit

from headgate.core.ports import Clock, Event, Request
from headgate.emulator.codegen_config import CodegenTeam
from headgate.emulator.codegen_desk import Asked, CodegenDesk
from headgate.emulator.codegen_world import Answer, refusal

__all__ = ["EmulatedCodegen"]

_LATENCY = 0.01  # seconds


class EmulatedCodegen:
    """A `Transport` to an emulated organisation.

    Args:
        team: who is emulated, under any organisation's id.
    """

    def __init__(self, clock: Clock, team: CodegenTeam | None = None) -> None:
        self._clock = clock
        given = team or CodegenTeam("mock", {"mock": "mock"}, users=5, repos=3, run_seconds=3.0)
        self.desk = CodegenDesk([given], clock.wall(), any_token=True)

    async def open(
        self,
        request: Request,
        credential: Mapping[str, str],
        deadline: float | None,
        *,
        not_after: float | None = None,  # noqa: ARG002 - nothing here waits to be connected
    ) -> EmulatedExchange:
        """See `Transport.open`."""
        left = _LATENCY if deadline is None else min(_LATENCY, deadline - self._clock.monotonic())
        await self._clock.sleep(max(0.0, left))
        parts = urlsplit(request.url)
        start = parts.path.find("/v1")
        path = parts.path[max(0, start) :]
        query = dict(parse_qsl(parts.query))
        token = credential.get("authorization", "")
        asked = Asked(request.method, path, query, token, request.body)
        return EmulatedExchange(self._answer(asked))

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _answer(self, asked: Asked) -> Answer:
        found = self.desk.operation(asked)
        if isinstance(found, Answer):
            return found
        seat = self.desk.seat(asked)
        if seat is None:
            return refusal(401, "Invalid or missing API token.", "invalid_key")
        return self.desk.serve(seat, found, asked, self._clock.wall())


class EmulatedExchange:
    """An `Exchange` that is there already."""

    def __init__(self, given: Answer) -> None:
        self._given = given

    @property
    def status(self) -> int:
        """HTTP status."""
        return self._given.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Response headers."""
        return self._given.headers

    async def read(self) -> bytes:
        """The whole body."""
        return self._given.body

    async def events(self) -> AsyncGenerator[Event]:
        """This API streams nothing."""
        for _ in ():
            yield Event(b"")

    async def aclose(self) -> None:
        """Nothing to give back."""
