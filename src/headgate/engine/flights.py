"""Questions under way, and everyone who waits for their answers.

A question is asked in a task of its own and belongs to all who wait for it. One who leaves takes
nothing away from the others; when the last has left it is cancelled. An answer that comes in pieces is
read as fast as it comes, and told to each at its own pace, from the beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

from headgate.core.call import Call, Chunk, Operation, Reply
from headgate.core.ports import Event
from headgate.core.replies import KeptReply
from headgate.engine.gathering import Gathered
from headgate.engine.passage import Passage
from headgate.engine.stream import ReplyStream

__all__ = ["Flight", "Flights", "Membership"]

Work = Callable[["Flight"], Awaitable[None]]
"""Asks the question, and tells the flight of the answer."""

_Place = tuple[asyncio.AbstractEventLoop, str]
_Done = Callable[["_Place | None", "Flight"], None]


class Flight:
    """One question under way.

    Args:
        leader: the passage of whoever began it, which goes down the path.
        done: called when it is over, with what it is known by.

    Attributes:
        kept: the answer, where it was a kept one.
        reply: the whole answer, once it is there.
        chunks: its pieces so far, where it comes in pieces.
        error: why there is none.
        over: whether anything is still to come.
        taken: whether somebody counts as the one who asked; the others were given what it got.
    """

    __slots__ = (
        "_done", "_members", "_place", "_task", "_waiting", "call", "chunks", "error", "kept", "leader",
        "over", "reply", "taken",
    )  # fmt: skip

    def __init__(self, leader: Passage, work: Work, done: _Done, place: _Place | None) -> None:
        self.leader = leader
        self.call = leader.call  # the passage may go on with another, to another model
        self.kept: KeptReply | None = None
        self.reply: Reply | None = None
        self.chunks: list[Chunk] = []
        self.error: Exception | None = None
        self.over = self.taken = False
        self._members = 0
        self._done = done
        self._place = place
        self._waiting: list[asyncio.Future[None]] = []
        self._task = asyncio.get_running_loop().create_task(self._fly(work))

    def join(self) -> None:
        """One more waits for it; whoever joins leaves."""
        self._members += 1

    async def leave(self) -> None:
        """One fewer does. The last one ends it, and waits until nothing of it is left."""
        self._members -= 1
        if self._members or self.over:
            return
        self._done(self._place, self)  # whoever asks from now on asks anew
        self._task.cancel()
        await asyncio.wait([self._task])

    def ready(self, call: Call) -> Awaitable[None]:
        """Wait until there is something to deliver to a call: for a stream the first piece."""
        return self.begun() if call.operation is Operation.STREAM else self.ended()

    def so_far(self) -> Reply:
        """What has come of the answer."""
        if self.reply is not None:
            return self.reply
        gathered = Gathered()
        for chunk in self.chunks:
            gathered.add(chunk)
        return gathered.reply()

    async def begun(self) -> None:
        """Wait for the first piece, or for the end."""
        while not self.over and not self.chunks:
            await self._news()

    async def ended(self) -> None:
        """Wait until it is over."""
        while not self.over:
            await self._news()

    async def piece(self, number: int) -> Chunk | None:
        """Wait for the piece of a number, counted from 0; None: there are no more, `error` says why."""
        while number >= len(self.chunks):
            if self.over:
                return None
            await self._news()
        return self.chunks[number]

    async def read(self, stream: ReplyStream) -> Reply:
        """Read a streamed answer to its end and tell its pieces. Raises what the stream does."""
        gathered = Gathered()
        try:
            async for chunk in stream:
                gathered.add(chunk)
                self.chunks.append(chunk)
                self._wake()
        finally:
            await stream.aclose()
        return gathered.reply()

    async def _fly(self, work: Work) -> None:
        try:
            await work(self)
        except Exception as error:  # noqa: BLE001 - whoever waits for it raises it
            self.error = error
        finally:
            self.over = True
            self._done(self._place, self)
            self._wake()

    def _news(self) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        return waiter

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():  # whoever left has cancelled it
                waiter.set_result(None)


class Membership:
    """Stands in for a connection: who reads a stream of pieces leaves the flight at its end."""

    status = 200
    headers: Mapping[str, str] = {}

    def __init__(self, flight: Flight) -> None:
        self._flight: Flight | None = flight

    async def read(self) -> bytes:
        """Nothing: the pieces are with the flight."""
        return b""

    async def events(self) -> AsyncGenerator[Event]:
        """None, as above."""
        nothing: tuple[Event, ...] = ()
        for event in nothing:
            yield event

    async def aclose(self) -> None:
        """Leave, once."""
        flight, self._flight = self._flight, None
        if flight is not None:
            await flight.leave()


class Flights:
    """What is under way in each event loop; loops do not share."""

    def __init__(self) -> None:
        self._flights: dict[_Place, Flight] = {}

    def under_way(self, key: str) -> Flight | None:
        """The flight of a question in the running loop."""
        if not self._flights:
            return None
        return self._flights.get((asyncio.get_running_loop(), key))

    def begin(self, key: str | None, leader: Passage, work: Work) -> Flight:
        """A new flight.

        Args:
            key: of the question, for others to join; None: for its leader alone.
        """
        place = None if key is None else (asyncio.get_running_loop(), key)
        flight = Flight(leader, work, self._over, place)
        if place is not None:
            self._flights[place] = flight
        return flight

    def _over(self, place: _Place | None, flight: Flight) -> None:
        if place is not None and self._flights.get(place) is flight:
            del self._flights[place]
