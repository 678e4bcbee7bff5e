"""Bringing a file to a domain: upload it where it is not there yet, wait until it may be named.

Each step is a call of its own, pinned to the domain, and goes down the same path as the call that needs
the file: retries, cool-downs, breakers and records are theirs too. What a piece that failed left at the
upstream is asked for, and only the rest is sent again. Several calls that need the same file share one
upload.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from msgspec import structs

from headgate.core.call import Blob, Call, Operation, Raw, RawReply, Reply
from headgate.core.errors import (
    DeadlineExceededError,
    HeadgateError,
    InvalidCallError,
    QuotaExhaustedError,
    UpstreamError,
)
from headgate.core.files import FileDesk, FileState, StoredFile
from headgate.core.outcome import Kind, Next, Outcome
from headgate.core.ports import Clock, Provider
from headgate.engine.following import own_copy
from headgate.engine.lodgings import Lodged, Lodgings
from headgate.engine.passage import Onward, Passage
from headgate.engine.single_flight import SingleFlight
from headgate.policy.leases import Lease

__all__ = ["Uploading"]

MOST_RESUMED = 5
"""Times an upload goes on after a piece that failed, beyond the retries of each step."""

FIRST_LOOK, LONGEST_LOOK = 0.5, 5.0
"""Seconds between looks at a file that is being processed: each pause is twice the one before it."""

LONGEST_PROCESSING = 600.0
"""Seconds a file may be processed, where the call's deadline does not come first. An hour of video took
minutes (Gemini API, video guide, read 2026-11)."""

_TAKEN = (400, 409)
"""Statuses of a refusal to make a file under a name that exists, or once did."""


@dataclass(slots=True)
class _Errand:
    """One file on its way to one domain.

    Attributes:
        lease: of the step before: a place for bytes is used with the key that was given it.
        leads: it is this call that brings the file; without, another does, and this one waits for it.
    """

    passage: Passage
    onward: Onward
    domain: str
    blob: Blob
    digest: str
    size: int
    lease: Lease | None = None
    leads: bool = False


class Uploading:
    """Brings files to domains. Threads and event loops may share it.

    Args:
        desk: the provider's words for files.
        lodgings: what is known of files that were brought.
    """

    def __init__(
        self, desk: FileDesk, provider: Provider, clock: Clock, lodgings: Lodgings | None = None
    ) -> None:
        self.lodgings = lodgings or Lodgings(clock)
        self._desk = desk
        self._provider = provider
        self._clock = clock
        self._flights: SingleFlight[Lodged] = SingleFlight()

    async def bring(self, passage: Passage, onward: Onward, domain: str, blob: Blob) -> str:
        """The address of a file in a domain, brought there now where it is not.

        Raises:
            InvalidCallError: the bytes are no longer here, and the domain does not have them either.
            UpstreamError: the upstream could not process it; or what a step failed with.
            DeadlineExceededError: the call's time was over before that.
        """
        assert blob.upload is not None  # noqa: S101 - that is why it is here
        digest, size = blob.upload.digest, blob.upload.size
        known = self.lodgings.find(domain, digest)
        errand = _Errand(passage, onward, domain, blob, digest, size)
        followed = False
        while known is None:
            try:
                async with asyncio.timeout(self._left(passage.call)):
                    known = await self._flights.ask(f"{domain} {digest}", lambda: self._lodged(errand))
            except TimeoutError:
                raise _too_late(errand) from None
            except HeadgateError as error:
                if errand.leads:
                    raise
                if isinstance(error, DeadlineExceededError):
                    continue  # it was another call's time that ended
                if not isinstance(error, QuotaExhaustedError) or followed:
                    raise own_copy(error, passage.call) from None
                followed = True  # perhaps that call would wait for nothing: this one asks once itself
        return known.uri

    async def has(self, passage: Passage, onward: Onward, domain: str, blob: Blob) -> bool:
        """Whether a domain has a file whose bytes are no longer here."""
        assert blob.upload is not None  # noqa: S101 - that is why it is here
        if self.lodgings.find(domain, blob.upload.digest) is not None:
            return True
        errand = _Errand(passage, onward, domain, blob, blob.upload.digest, blob.upload.size)
        return await self._found(errand) is not None

    def _left(self, call: Call) -> float | None:
        return None if call.deadline is None else max(0.0, call.deadline - self._clock.monotonic())

    # ── steps ───────────────────────────────────────────────────────────────────────────────────

    async def _lodged(self, errand: _Errand) -> Lodged:
        errand.leads = True
        if errand.blob.data:
            file = await self._uploaded(errand)
        else:
            there = await self._found(errand)
            if there is None:
                raise _gone(errand)
            file = there
        file = await self._active(errand, file)
        until = file.expires
        if until is None:
            until = self._clock.wall() + self._desk.seconds_kept
        lodged = Lodged(file.uri, until, errand.size)
        self.lodgings.keep(errand.domain, errand.digest, lodged)
        return lodged

    async def _found(self, errand: _Errand) -> StoredFile | None:
        """The file, if the domain has it under its name and keeps it for long enough."""
        try:
            reply = await self._asked(errand, self._desk.look(self._desk.name_for(errand.digest)))
        except UpstreamError as error:
            if error.outcome.kind is Kind.RESOURCE or error.outcome.status == 404:
                return None
            raise
        file = self._desk.told(reply)
        good = file.uri and file.state is not FileState.FAILED
        lasts = file.expires is None or self.lodgings.lasts(file.expires)
        return file if good and lasts else None

    async def _uploaded(self, errand: _Errand) -> StoredFile:
        try:
            return await self._made(errand, self._desk.name_for(errand.digest))
        except UpstreamError as error:
            if error.outcome.status not in _TAKEN:
                raise
        # Another process, or this one before it began anew, uploaded it. Or the file of this name is
        # about to expire, has failed, or is not quite gone: then this one has a name of the upstream's.
        return await self._found(errand) or await self._made(errand, "")

    async def _made(self, errand: _Errand, name: str) -> StoredFile:
        begin = self._desk.begin(name, errand.blob.mime_type, errand.size)
        place = self._desk.place(await self._asked(errand, begin))
        if not place:
            raise _failed(errand, "The upstream named no place for the bytes of a file.", Kind.PROTOCOL)
        began = self._clock.monotonic()
        whole = await self._sent(errand, place)
        self.lodgings.took(errand.size, self._clock.monotonic() - began)
        if whole is None:  # all is there, and the answer that said so was lost
            whole = await self._asked(errand, self._desk.look(name)) if name else None
        file = StoredFile() if whole is None else self._desk.told(whole)
        if not file.name or not file.uri:
            raise _failed(errand, "The upstream did not tell what became of a file.", Kind.PROTOCOL)
        return file

    async def _sent(self, errand: _Errand, place: str) -> RawReply | None:
        """Send the bytes; the answer to the last piece, or None where it was lost."""
        data, offset, failures = errand.blob.data, 0, 0
        while True:
            piece = data[offset : offset + self._desk.piece]
            last = offset + len(piece) >= len(data)
            try:
                raw = self._desk.send(place, piece, offset, last=last)
                reply = await self._asked(errand, raw)
            except UpstreamError as error:
                failures += 1
                if failures > MOST_RESUMED or error.outcome.rule.next is not Next.RETRY:
                    raise
                arrived = self._desk.arrived(await self._asked(errand, self._desk.ask(place)))
                if arrived is None:
                    return None
                offset = min(arrived, len(data))
                continue
            offset += len(piece)
            if last:
                return reply

    async def _active(self, errand: _Errand, file: StoredFile) -> StoredFile:
        """The file once calls may name it."""
        call, pause = errand.passage.call, FIRST_LOOK
        until = self._clock.monotonic() + LONGEST_PROCESSING
        if call.deadline is not None:
            until = min(until, call.deadline)
        while file.state is FileState.PROCESSING:
            if self._clock.monotonic() + pause > until:
                raise _too_late(errand)
            await self._clock.sleep(pause)
            pause = min(pause * 2, LONGEST_LOOK)
            seen = self._desk.told(await self._asked(errand, self._desk.look(file.name)))
            if seen.name:  # else the answer could not be read
                file = structs.replace(seen, uri=seen.uri or file.uri)
        if file.state is FileState.FAILED:
            why = f": {file.message}" if file.message else "."
            raise _failed(errand, f"The upstream could not process it{why}", Kind.REQUEST)
        return file

    # ── one step ────────────────────────────────────────────────────────────────────────────────

    async def _asked(self, errand: _Errand, raw: Raw) -> RawReply:
        """The answer to one step, of a key of the domain."""
        call = errand.passage.call
        aside = Call(
            Operation.LIST,
            raw.model,
            (),
            request_id=f"{call.request_id}.file",  # attempts of their own in every record
            deadline=call.deadline,
            max_wait=call.max_wait,
            priority=call.priority,
            caller=call.caller,
            raw=raw,
            domain=errand.domain,
        )
        passage = Passage(aside, errand.passage.started, model=raw.model, trace=errand.passage.trace)
        passage.request = self._provider.write(aside, raw.model)
        passage.prefer = errand.lease
        try:
            answer = await errand.onward(passage)
        except HeadgateError as error:
            error.request_id = call.request_id  # the one that its caller knows
            raise
        errand.lease = passage.lease
        assert isinstance(answer, Reply) and answer.raw is not None  # noqa: S101, PT018 - it was raw
        return answer.raw


def _what(errand: _Errand) -> str:
    return f"{errand.blob.mime_type}, {errand.size} bytes"


def _gone(errand: _Errand) -> InvalidCallError:
    return InvalidCallError(
        f"A file of this conversation ({_what(errand)}) is no longer kept by the upstream, nor here: "
        "pass it again with the request, or begin a new session.",
        kind="resource",
        request_id=errand.passage.call.request_id,
    )


def _too_late(errand: _Errand) -> DeadlineExceededError:
    return DeadlineExceededError(
        f"The call's time was over before the upstream had a file ready ({_what(errand)}). Give the "
        "call more time: what was uploaded once is not uploaded again.",
        request_id=errand.passage.call.request_id,
    )


def _failed(errand: _Errand, what: str, kind: Kind) -> UpstreamError:
    message = f"A file ({_what(errand)}) cannot be used: {what}"
    outcome = Outcome(kind, message, 200)
    return UpstreamError(outcome, message, request_id=errand.passage.call.request_id)
