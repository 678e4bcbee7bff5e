"""Upload: brings the files of a call to the domain that is to answer it, and pins the call there.

A file belongs to the project whose key uploaded it; another project's keys are refused as if it did not
exist. So a call with uploaded files is sent to one domain at a time:

- to the domains that have all of its files, first; each may make it wait about as long as bringing
  the files elsewhere would take;
- then to domains that have room, the one with the fewest files first, which get the files now;
- where none had room, to the one that has room first, for as long as the call may wait.

A file that turns out to be gone – it expired, or somebody deleted it – is brought again, once. A call
without uploaded files passes by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from msgspec import structs

from headgate.core.call import Blob, Call, Operation, Turn
from headgate.core.errors import (
    DeadlineExceededError,
    HeadgateError,
    InvalidCallError,
    NoUsableKeyError,
    QuotaExhaustedError,
    UpstreamError,
)
from headgate.core.outcome import Kind
from headgate.core.ports import Clock, Provider
from headgate.engine.lodgings import Lodgings
from headgate.engine.passage import Answer, Onward, Passage
from headgate.engine.pool import KeyPool
from headgate.engine.uploading import Uploading
from headgate.engine.writing import written

__all__ = ["Upload"]

MOST_NEW = 3
"""Domains that get the files of one call before it waits instead."""

MOST_ASKED = 64
"""Domains that are asked for a file whose bytes are no longer here."""


class Upload:
    """Chooses the domain of a call by where its files are."""

    def __init__(self, pool: KeyPool, provider: Provider, uploading: Uploading, clock: Clock) -> None:
        self._pool = pool
        self._provider = provider
        self._uploading = uploading
        self._clock = clock

    @property
    def lodgings(self) -> Lodgings:
        """What is known of files that were brought: it holds for whoever comes after."""
        return self._uploading.lodgings

    async def __call__(self, passage: Passage, onward: Onward) -> Answer:
        """Raises what the path behind it does, and `InvalidCallError` for a file nobody has now."""
        files = _files_of(passage.call)
        if not files:
            return await onward(passage)
        call = passage.call
        try:
            return await self._somewhere(passage, onward, files)
        finally:  # whoever uses it further up may send it elsewhere
            passage.call = structs.replace(passage.call, domain=call.domain, max_wait=call.max_wait)

    async def _somewhere(self, passage: Passage, onward: Onward, files: Mapping[str, Blob]) -> Answer:
        """Round after round, as long as the call may wait. What a wait for quota costs in retries is
        given back: here a call waits at several domains, and time bounds it."""
        call, retries = passage.call, passage.retries
        domains = await self._possible(passage, onward, files)
        while True:
            waited = passage.waited
            try:
                return await self._round(passage, onward, files, domains, call.max_wait)
            except QuotaExhaustedError as error:
                if passage.waited <= waited or not self._fits(passage, call, error.retry_after):
                    raise
            passage.retries = retries

    def _fits(self, passage: Passage, call: Call, wait: float | None) -> bool:
        if wait is None or passage.waited + wait > call.max_wait:
            return False
        return call.deadline is None or self._clock.monotonic() + wait < call.deadline

    async def _round(
        self, passage: Passage, onward: Onward, files: Mapping[str, Blob], domains: list[str],
        max_wait: float,
    ) -> Answer:  # fmt: skip
        """Ask the domains that have room; where none had, wait at the one that has room first."""
        failures, retries = dict[str, HeadgateError](), passage.retries
        worth = self.lodgings.seconds_for(sum(blob.size for blob in files.values()))
        for domain in self._with_room(passage.model, domains, files):
            patience = min(max_wait, passage.waited + worth)
            try:
                return await self._at(domain, passage, onward, files, patience)
            except (QuotaExhaustedError, NoUsableKeyError, InvalidCallError) as error:
                failures[domain] = error
            passage.retries = retries
        if not failures:
            self._check_patience(passage, max_wait)
        waits = max_wait > 0 or not failures
        for domain in self._worth_waiting_for(domains, files, failures) if waits else ():
            try:
                return await self._at(domain, passage, onward, files, max_wait)
            except NoUsableKeyError as error:
                failures[domain] = error
        raise min(failures.values(), key=_recovers)

    def _check_patience(self, passage: Passage, max_wait: float) -> None:
        """No domain has room: is there any use in bringing files to one? Raises
        `QuotaExhaustedError`, `NoUsableKeyError`."""
        _, unready = self._pool.closed(passage.model)
        if unready.recovers is None:
            raise NoUsableKeyError(
                f"No key can be used for {passage.model}: of {len(self._pool)}, {unready.disabled} "
                f"refused as invalid, {unready.denied} without access to this model. Nothing was "
                "uploaded. Check the keys in the provider's console.",
                kind="auth" if unready.disabled else "no_access",
                request_id=passage.call.request_id,
            )
        wait = max(0.0, unready.recovers - self._clock.monotonic())
        if wait > max_wait:
            raise QuotaExhaustedError(
                f"No project has room for {passage.model}; the first recovers in {wait:.0f} s. Nothing "
                "was uploaded. Wait that long, allow a longer wait, or add a key of another project.",
                total_keys=len(self._pool),
                retry_after=wait,
                request_id=passage.call.request_id,
            )

    def _worth_waiting_for(
        self, domains: list[str], files: Mapping[str, Blob], failures: Mapping[str, HeadgateError]
    ) -> list[str]:
        """Domains that may have room later: those with the files first, then by when that is."""
        holders = self.lodgings.holders(domains, files)
        later = [name for name in domains if isinstance(failures.get(name), QuotaExhaustedError | None)]
        return sorted(later, key=lambda name: (name not in holders, _recovers(failures.get(name))))

    async def _possible(self, passage: Passage, onward: Onward, files: Mapping[str, Blob]) -> list[str]:
        """Where the call could be answered at all. Raises `InvalidCallError` where nowhere."""
        pinned = passage.call.domain
        domains = [pinned] if pinned else self._pool.domain_names
        for digest, blob in files.items():
            if blob.data:
                continue
            asked, domains = domains, self.lodgings.holders(domains, [digest])
            if not domains:
                domains = await self._asked_for(passage, onward, asked[:MOST_ASKED], blob)
        if not domains:
            raise InvalidCallError(
                "A file of this conversation is kept neither here nor by any of the upstream's "
                "projects that answer: pass it again with the request, or begin a new session.",
                kind="resource",
                request_id=passage.call.request_id,
            )
        return domains

    async def _asked_for(
        self, passage: Passage, onward: Onward, domains: list[str], blob: Blob
    ) -> list[str]:
        """Those of some domains that have a file. Raises what kept them from saying so, where none
        said yes and one could not be asked: that is no reason to give the file up."""
        have, unsure = list[str](), None
        for name in domains:
            try:
                have += [name] if await self._uploading.has(passage, onward, name, blob) else []
            except NoUsableKeyError:
                continue  # nobody will ever hear from it
            except DeadlineExceededError:
                raise
            except HeadgateError as error:
                unsure = unsure or error
        if not have and unsure is not None:
            raise unsure
        return have

    def _with_room(self, model: str, domains: list[str], files: Mapping[str, Blob]) -> Iterator[str]:
        """Domains that may serve the model now, in the order they are to be asked."""
        closed, _ = self._pool.closed(model)
        numbers = {name: number for number, name in enumerate(self._pool.domain_names)}
        ready = [name for name in domains if numbers.get(name) not in closed]
        holders = self.lodgings.holders(ready, files)
        yield from self.lodgings.emptiest(holders)
        others = [name for name in ready if name not in holders]
        yield from self.lodgings.emptiest(others)[:MOST_NEW]

    async def _at(
        self, domain: str, passage: Passage, onward: Onward, files: Mapping[str, Blob], patience: float
    ) -> Answer:
        """The answer of one domain, which has the files then."""
        pieces = passage.request is not None and passage.request.streaming
        in_pieces = pieces and passage.call.operation is Operation.GENERATE
        try:
            return await self._with_files(domain, passage, onward, files, patience, in_pieces=in_pieces)
        except UpstreamError as error:
            if error.outcome.kind is not Kind.RESOURCE:
                raise
        for digest in files:  # one of them went: before it was named, or while it was made ready
            self.lodgings.forget(domain, digest)
        return await self._with_files(domain, passage, onward, files, patience, in_pieces=in_pieces)

    async def _with_files(
        self, domain: str, passage: Passage, onward: Onward, files: Mapping[str, Blob],
        patience: float, *, in_pieces: bool,
    ) -> Answer:  # fmt: skip
        places = {
            digest: await self._uploading.bring(passage, onward, domain, blob)
            for digest, blob in files.items()
        }
        passage.call = _named(structs.replace(passage.call, domain=domain, max_wait=patience), places)
        form = passage.call
        if in_pieces:  # as degrade has it written, so that a part of the answer is there
            form = structs.replace(form, operation=Operation.STREAM)
        passage.request = await written(self._provider, form, passage.model)
        passage.prefer = None
        passage.refused_by.clear()
        return await onward(passage)


def _files_of(call: Call) -> dict[str, Blob]:
    """The media of a call that are to be uploaded, by digest: those of earlier turns too. Of a
    file that is there twice the one with its bytes."""
    files: dict[str, Blob] = {}
    for part in call.parts:  # plain loops: every call comes by here
        if isinstance(part, Blob):
            _note(files, part)
    for turn in call.turns:
        for said in turn.parts:
            if isinstance(said, Blob):
                _note(files, said)
    return files


def _note(files: dict[str, Blob], blob: Blob) -> None:
    if blob.upload is not None and (blob.data or blob.upload.digest not in files):
        files[blob.upload.digest] = blob


def _named(call: Call, places: Mapping[str, str]) -> Call:
    """The call with the address of each of its files."""
    parts = tuple(_placed(part, places) if isinstance(part, Blob) else part for part in call.parts)
    turns = tuple(
        Turn(
            turn.role,
            tuple(_placed(said, places) if isinstance(said, Blob) else said for said in turn.parts),
        )
        for turn in call.turns
    )
    return structs.replace(call, parts=parts, turns=turns)


def _placed(blob: Blob, places: Mapping[str, str]) -> Blob:
    if blob.upload is None:
        return blob
    return replace(blob, upload=replace(blob.upload, uri=places[blob.upload.digest]))


def _recovers(failure: HeadgateError | None) -> float:
    """Seconds until it may be over; that of a domain that was not asked is not known."""
    if failure is None:
        return math.inf
    return failure.retry_after if failure.retry_after is not None else math.inf
