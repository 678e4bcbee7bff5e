"""Recall: an answer that is known is given, a question that is under way is not asked twice.

Only calls that bring a `Keeping` are looked up, and only complete, normal answers are kept: none that
was cut, withheld, stood in for another or was not read to its end.

- A fresh answer is given at once and takes no quota. One that is a little older is given too, and asked
  for anew in the background. One that is older still goes on with the call, for where all else fails.
- Who asks what is under way waits for that answer, in this process and in all that share the cache. A
  whole call that follows a streamed one waits for its end, a streamed one that follows a whole call
  gets it in one piece: it would not have ended sooner.
- Each keeps its own deadline, and follows nobody who is less urgent, or streams and is less patient.
- When the one who asked fails, the others hear of it where that says something about the question.
  Otherwise one of them asks again, and after two failures they all hear of the last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

from msgspec import structs

from headgate.core.call import Call, Keeping, Operation, Priority, Reply
from headgate.core.errors import DeadlineExceededError, HeadgateError
from headgate.core.ports import Clock
from headgate.core.replies import Found, KeptReply, ReplyCache
from headgate.engine.flights import Flight, Flights, Membership
from headgate.engine.following import impatient, own_copy, speaks_for_all, suits
from headgate.engine.further_pieces import FurtherPieces
from headgate.engine.gathering import in_form, whole
from headgate.engine.held_claim import CLAIM_SECONDS, LOCAL_CLAIM_SECONDS, HeldClaim
from headgate.engine.passage import Answer, Onward, Passage
from headgate.engine.stream import ReplyStream
from headgate.policy.keepable import keepable
from headgate.policy.recall_key import recall_key

__all__ = ["MOST_REFRESHES", "Recall"]

MOST_REFRESHES = 16
"""Answers that are asked for anew in the background at once; others wait for the next who asks."""

IN_A_THREAD = 1_000_000
"""Bytes of a request from which its digest is made in a thread: about a millisecond of one core."""

_FIRST_LOOK, _SLOWER, _LAST_LOOK = 0.02, 1.5, 0.25
"""Seconds between two looks for the answer of another process, how they grow, and up to what."""

_LONGEST_WAIT = 120.0
"""Seconds one process waits for another to answer. Then it asks as well."""

_MOST_FAILURES = 2
_GRACE = 0.1
"""Seconds the path has to end a call at its deadline itself, before this stage does."""

_log = logging.getLogger("headgate.recall")


@dataclass(slots=True)
class _Asked:
    """A call, and what is known of its answer so far."""

    key: str
    keeping: Keeping
    passage: Passage
    onward: Onward
    found: Found | None = None
    alone: bool = False  # it waits for nobody

    @property
    def call(self) -> Call:
        return self.passage.call


class Recall:
    """Gives what is kept, shares what is under way, keeps what comes. Loops and threads may share it.

    Args:
        origin: which provider, and where: part of every question.
    """

    def __init__(self, cache: ReplyCache, clock: Clock, origin: str) -> None:
        self._cache = cache
        self._clock = clock
        self._origin = origin
        self._claim_seconds = CLAIM_SECONDS if cache.remote else LOCAL_CLAIM_SECONDS
        self._flights = Flights()
        self._refreshes: set[asyncio.Task[None]] = set()

    async def __call__(self, passage: Passage, onward: Onward) -> Answer:
        """Raises what the path does, and `DeadlineExceededError` of who waits for another's answer."""
        call, keeping = passage.call, passage.call.keeping
        changes = call.raw is not None and not call.raw.repeatable
        if keeping is None or call.operation.is_free or changes:
            return await onward(passage)
        request = passage.request
        assert request is not None  # noqa: S101 - set by prepare
        large = len(request.body) >= IN_A_THREAD
        key = await asyncio.to_thread(self._key, passage) if large else self._key(passage)
        if key is None:
            return await onward(passage)
        asked = _Asked(key, keeping, passage, onward, alone=not keeping.reads)
        if not self._cache.remote and keeping.reads and self._flights.under_way(key) is None:
            found = asked.found = await self._look(asked)
            if self._usable(found.kept):
                assert found.kept is not None  # noqa: S101 - as was just asked
                if found.token is not None:
                    await self._refresh(asked, found)
                return self._recalled(passage, found.kept)
        return await self._together(asked)

    async def aclose(self) -> None:
        """End what is under way in the background of the running loop."""
        loop = asyncio.get_running_loop()
        mine = [task for task in self._refreshes if task.get_loop() is loop]
        for task in mine:
            task.cancel()
        if mine:
            await asyncio.wait(mine)

    def _key(self, passage: Passage) -> str | None:
        headers = {} if passage.request is None else passage.request.headers
        return recall_key(passage.call, model=passage.model, origin=self._origin, headers=headers)

    def _look(self, asked: _Asked, *, counted: bool = True) -> Awaitable[Found]:
        return self._cache.look(
            asked.key,
            asked.keeping.namespace,
            claim=0.0 if asked.alone else self._claim_seconds,
            counted=counted and asked.keeping.reads,
        )

    def _usable(self, kept: KeptReply | None) -> bool:
        return kept is not None and self._clock.wall() < kept.revalidate_until

    # ── together ────────────────────────────────────────────────────────────────────────────────

    async def _together(self, asked: _Asked) -> Answer:
        """Ask, or wait for whoever asks."""
        failures = 0
        while True:
            flight = None if asked.alone else self._flights.under_way(asked.key)
            leads = flight is None or not suits(flight.call, asked.call)
            if flight is None or leads:
                asked.alone = asked.alone or flight is not None
                key = None if asked.alone else asked.key
                flight = self._flights.begin(key, asked.passage, partial(self._ask, asked))
            try:
                answer = await self._member(flight, asked, leads=leads)
            except DeadlineExceededError:
                if leads or not asked.call.fallbacks:
                    raise
                return await self._too_late(asked)
            if answer is not None:
                return answer
            error = flight.error
            if leads:
                raise error or asyncio.CancelledError
            if error is None:  # its task was cancelled, and not by us
                continue
            if not impatient(flight.call, asked.call, error):
                failures += 1
                if speaks_for_all(error) or failures >= _MOST_FAILURES:
                    raise own_copy(error, asked.call)
            asked.found = None

    async def _too_late(self, asked: _Asked) -> Answer:
        """Go on after the deadline: nothing is sent any more, but something may stand in."""
        deadline = asked.call.deadline
        while deadline is not None and (left := deadline - self._clock.monotonic()) > 0:
            await self._clock.sleep(left)  # a timer may ring a moment early
        asked.passage.stale = None if asked.found is None else asked.found.kept
        return await asked.onward(asked.passage)

    async def _member(self, flight: Flight, asked: _Asked, *, leads: bool) -> Answer | None:
        """The answer of a flight; None: it failed. A stream leaves the flight when it ends."""
        answer: Answer | None = None
        flight.join()
        try:
            if asked.call.deadline is None:
                await flight.ready(asked.call)
            else:
                await self._patiently(flight, asked.call, asked.call.deadline, leads=leads)
            if flight.error is None or (leads and flight.chunks):  # what came before it broke is told
                answer = self._delivered(flight, asked)
        finally:
            if not (isinstance(answer, ReplyStream) and flight.chunks):
                await flight.leave()
        return answer

    async def _patiently(self, flight: Flight, call: Call, deadline: float, *, leads: bool) -> None:
        """Wait for what there is to deliver, as long as the call may."""
        left = deadline - self._clock.monotonic() + (_GRACE if leads else 0.0)
        try:
            async with asyncio.timeout(max(0.0, left)):
                await flight.ready(call)
        except TimeoutError:
            raise DeadlineExceededError(
                "The call's deadline passed before its question was answered. Give it more time.",
                request_id=call.request_id,
            ) from None

    # ── delivering ──────────────────────────────────────────────────────────────────────────────

    def _delivered(self, flight: Flight, asked: _Asked) -> Answer | None:
        passage, taken = asked.passage, flight.taken
        if flight.kept is not None:
            flight.taken = True
            return self._recalled(passage, flight.kept, shared=taken)
        flight.taken = True
        if not taken and flight.leader is not passage:  # who asked has gone: it counts as this one's
            passage.lease, passage.attempts = flight.leader.lease, flight.leader.attempts
        if flight.chunks and passage.call.operation is Operation.STREAM:
            return self._pieces(flight, passage, follows=taken)
        if flight.reply is None:
            return None
        self._noted(passage, flight, follows=taken)
        return in_form(passage.call, _apart(flight.reply) if taken else flight.reply)

    def _recalled(self, passage: Passage, kept: KeptReply, *, shared: bool = False) -> Answer:
        passage.recalled = kept
        return in_form(passage.call, _apart(kept.reply) if shared else kept.reply)

    def _noted(self, passage: Passage, flight: Flight, *, follows: bool) -> None:
        """Note what another call brought. To who followed it that used nothing of its own."""
        leader = flight.leader
        if leader is passage:
            return
        passage.model, passage.fallback, passage.notes = leader.model, leader.fallback, leader.notes
        passage.recalled = leader.recalled
        if follows and passage.recalled is None:
            now = self._clock.wall()
            passage.recalled = KeptReply(flight.so_far(), passage.model, now, now, now, now)

    def _pieces(self, flight: Flight, passage: Passage, *, follows: bool) -> ReplyStream:
        call, lease = passage.call, passage.lease
        stream = ReplyStream(
            flight.chunks[0],
            FurtherPieces(flight, self._clock, call.deadline if follows else None),
            Membership(flight),
            lambda outcome: outcome,
            call.request_id,
            "" if lease is None else lease.key.name,
        )
        stream.on_end(lambda _: self._noted(passage, flight, follows=follows))
        return stream

    # ── asking ──────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, asked: _Asked, flight: Flight) -> None:
        """The work of a flight."""
        found = asked.found or await self._look(asked)
        if asked.keeping.reads:
            if found.token is None and not asked.alone:
                found = await self._turn(asked, found)
            if self._usable(found.kept):
                flight.kept = found.kept
                await self._refresh(asked, found)
                return
            asked.passage.stale = found.kept
        flight.reply = await self._asked(asked, found, flight.read)

    async def _turn(self, asked: _Asked, found: Found) -> Found:
        """Wait until this process has the right to ask, or the answer of who has it is there."""
        delay, waited = _FIRST_LOOK, 0.0
        while not self._usable(found.kept) and found.token is None and waited < _LONGEST_WAIT:
            if found.claimed:
                await self._clock.sleep(delay)
            waited += delay
            delay = min(delay * _SLOWER, _LAST_LOOK)
            found = await self._look(asked, counted=False)
        return found

    async def _asked(self, asked: _Asked, found: Found, read: _Read) -> Reply:
        """Go down the path, and keep what comes of it."""
        call, passage, keeping = asked.call, asked.passage, asked.keeping
        claim = HeldClaim(self._cache, asked.key, found.token) if found.token else None
        try:
            answer = await asked.onward(passage)
            reply = await read(answer) if isinstance(answer, ReplyStream) else answer
            if passage.fallback is None and keepable(call, reply):
                now = self._clock.wall()
                fresh = now + keeping.ttl
                again = fresh + keeping.revalidate
                kept = KeptReply(reply, passage.model, now, fresh, again, again + keeping.rescue)
                await self._cache.put(
                    asked.key, kept,
                    namespace=keeping.namespace, mark=found.mark, token=found.token or "",
                )  # fmt: skip
                if claim is not None:
                    claim.token = ""  # it was given back
            return reply
        finally:
            if claim is not None and claim.is_open:
                await claim.end()

    # ── in the background ───────────────────────────────────────────────────────────────────────

    async def _refresh(self, asked: _Asked, found: Found) -> None:
        """Ask anew for an answer that is given although it is no longer fresh; one process does."""
        if found.token is None:
            return
        if len(self._refreshes) >= MOST_REFRESHES:
            await self._cache.release(asked.key, found.token)
            return
        call = asked.call
        quiet = structs.replace(
            call, request_id=f"{call.request_id}.refresh", deadline=None, priority=Priority.LOW,
            fallbacks=(),
        )  # fmt: skip
        passage = Passage(
            quiet, self._clock.monotonic(), model=asked.passage.model, request=asked.passage.request
        )
        again = replace(asked, passage=passage)
        task = asyncio.get_running_loop().create_task(self._refreshed(again, found))
        self._refreshes.add(task)
        task.add_done_callback(self._refreshes.discard)

    async def _refreshed(self, asked: _Asked, found: Found) -> None:
        try:
            await self._asked(asked, found, whole)
        except HeadgateError as error:
            _log.info("call=%s refresh=failed kind=%s", asked.call.request_id, error.kind)
        except Exception:  # noqa: BLE001 - nobody waits for it who could be told
            _log.exception("call=%s refresh=failed", asked.call.request_id)


_Read = Callable[[ReplyStream], Awaitable[Reply]]


def _apart(reply: Reply) -> Reply:
    """A copy of what an answer has that can be changed: what one caller does to it is no other's."""
    return structs.replace(reply, content=deepcopy(reply.content)) if reply.content else reply
