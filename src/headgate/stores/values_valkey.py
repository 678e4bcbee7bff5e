"""Values that processes share, in Valkey or Redis, with a copy in the memory of each.

A look asks the server always, and brings the value along only where the process holds no copy with the
same stamp. So what was dropped or invalidated is given by no process once that has returned, and what
is looked up often travels once. How long a value is good is counted by the server's clock.

While the server is away, slow or refuses, each process goes on with its own memory: with its copies,
and with what it makes meanwhile. Back again, the server alone says what there is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import cache
from hashlib import sha1, sha256
from importlib.resources import files
from secrets import token_hex
from threading import Lock
from typing import Any

from msgspec import structs
from redis.exceptions import NoScriptError

from headgate.core.errors import StoreError
from headgate.core.ports import Clock
from headgate.core.values import Sought, ValueFigures, ValueShare
from headgate.policy.reply_cache import LONGEST, matches
from headgate.stores.guard import Guard
from headgate.stores.loop_links import LoopLinks
from headgate.stores.replies_wire import LARGEST_FRAME, frame, unframe
from headgate.stores.valkey_link import Address, sentence_of
from headgate.stores.values import SEPARATOR, MemoryValues, place

__all__ = ["SHARDS", "TIMEOUT", "ValkeyValues", "script_source"]

TIMEOUT = 0.1
"""Seconds a command may take, on the way of a request."""

SHARDS = 16
"""Parts of a room on a cluster, each in a slot of its own. A single server has one."""

_IN_A_THREAD = 262_144
"""Bytes from which values are compressed and read in a thread: about 3 ms of one core."""

_UNSENT = 0
"""The stamp of what the server knows nothing of."""

_ALONE = "alone"
"""The mark of a look that the server did not answer: what is made after it stays in this process."""

_LOCAL_CLAIM = "m"
"""What rights begin with that were given by this process's own memory."""

_log = logging.getLogger("headgate.stores")


class ValkeyValues:
    """A `ValueStore` on a server or cluster. Threads and event loops may share it.

    Args:
        url: see `headgate.stores.urls`.
        room: a name; rooms share nothing but the server.
        memory: where copies are held; used by nobody else.
        most_shared_bytes: bound of what the server holds in this room, bookkeeping included.
        chance: uniform in [0, 1): spreads the probes of many processes over a dead server.
        timeout: seconds a command may take.
        script: another text of the script, for tests that replace its source of time.
        beside: another room of the same server: they share connections, and what is known of it.
    """

    remote = True

    def __init__(
        self,
        url: str,
        *,
        room: str,
        memory: MemoryValues,
        most_shared_bytes: int,
        clock: Clock,
        chance: Callable[[], float],
        timeout: float = TIMEOUT,
        script: str | None = None,
        beside: ValkeyValues | None = None,
    ) -> None:
        self._address = Address(url)
        self._room = room
        self._memory = memory
        self._script = script or script_source()
        self._sha = sha1(self._script.encode(), usedforsecurity=False).hexdigest()
        self._clock = clock
        self._chance = chance
        self._timeout = timeout
        links = LoopLinks(self._address, timeout) if beside is None else beside._links
        self._links: LoopLinks = links
        self._guards: dict[str, Guard] = {}
        if beside is not None and not self._address.cluster:  # there rooms are on nodes of their own
            self._guards = beside._guards
        self._lock = Lock()
        self._most_shared = most_shared_bytes
        self._corrupt = self._failed = 0
        self._closed = self._told = False

    def __repr__(self) -> str:
        return f"ValkeyValues({str(self._address)!r}, room={self._room!r})"

    # ── one value ───────────────────────────────────────────────────────────────────────────────

    async def get(self, namespace: str, key: str, *, claim: float = 0.0) -> Sought:
        """See `ValueStore.get`."""
        held = self._memory.stamp_of(namespace, key)
        wanted = f"{held:016d}" if held else ""
        token = token_hex(8) if claim > 0 else ""
        try:
            mark, left, stamp, framed, right = await self._run(
                "get", place(namespace, key), namespace, wanted, token, int(claim * 1000)
            )
            mark, seconds, stamp = _text(mark), int(left) / 1000, _text(stamp)
        except (StoreError, ValueError, TypeError):  # away, or it answers something else
            return self._alone(namespace, key, claim)
        if stamp and stamp == wanted:
            found = self._memory.look(namespace, key)
            if found.data is not None:
                return structs.replace(found, mark=mark, left=seconds)
            return await self.get(namespace, key, claim=claim)  # it left the memory just now
        if stamp:
            data = await self._received(namespace, key, framed, seconds, stamp)
            return Sought(data, seconds if data is not None else 0.0, mark=mark)
        unsent = self._memory.look(namespace, key).data if held == _UNSENT else None
        self._memory.forget(namespace, key)
        return Sought(
            mark=mark, token=token if right == 1 else None, claimed=right == 2, unsent=unsent
        )  # fmt: skip

    async def put(
        self, namespace: str, key: str, data: bytes, seconds: float, *, mark: str = "", token: str = ""
    ) -> bool:
        """See `ValueStore.put`."""
        name, stamp = place(namespace, key), _stamp()
        if mark == _ALONE:  # it was asked for while the server was away
            return self._kept_alone(namespace, key, data, seconds, token)
        framed = await _in_a_thread(frame, name, data)
        if len(framed) > LARGEST_FRAME:
            await self.release(namespace, key, token)
            return False
        try:
            taken = await self._run(
                "put", name, namespace, mark, token, _milliseconds(seconds),
                self._most_shared // self._parts, b"%016d" % stamp + framed,
            )  # fmt: skip
        except StoreError:
            return self._kept_alone(namespace, key, data, seconds, "")
        if taken != 1:
            self._memory.forget(namespace, key)
            return False
        self._memory.keep(namespace, key, data, seconds, stamp=stamp)
        return True

    async def touch(self, namespace: str, key: str, seconds: float) -> bool:
        """See `ValueStore.touch`."""
        here = await self._memory.touch(namespace, key, seconds)
        try:
            return bool(await self._run("touch", place(namespace, key), _milliseconds(seconds)))
        except StoreError:
            return here

    async def drop(self, namespace: str, key: str) -> bool:
        """See `ValueStore.drop`."""
        here = self._memory.forget(namespace, key)
        return bool(await self._run("drop", place(namespace, key))) or here

    async def renew(self, namespace: str, key: str, token: str, seconds: float) -> bool:
        """See `ValueStore.renew`."""
        if token.startswith(_LOCAL_CLAIM):
            return await self._memory.renew(namespace, key, token, seconds)
        try:
            return bool(await self._run("renew", place(namespace, key), token, int(seconds * 1000)))
        except StoreError:
            return True  # as far as anybody knows

    async def release(self, namespace: str, key: str, token: str) -> None:
        """See `ValueStore.release`."""
        if token.startswith(_LOCAL_CLAIM):
            await self._memory.release(namespace, key, token)
        elif token:
            try:
                await self._run("release", place(namespace, key), token)
            except StoreError:
                return  # it lapses

    # ── many ────────────────────────────────────────────────────────────────────────────────────

    async def invalidate(self, namespace: str, key: str = "*") -> int:
        """See `ValueStore.invalidate`."""
        self._memory.sweep(namespace, key)
        turn = "*" if "*" in namespace else f"n{namespace}"
        for shard in range(self._parts):  # first of all: what is being made is refused everywhere
            await self._do(shard, "bump", turn)
        return sum([await self._sweep(shard, namespace, key) for shard in range(self._parts)])

    async def share(self) -> ValueShare:
        """See `ValueStore.share`."""
        began, entries, held = self._clock.monotonic(), 0, 0
        for shard in range(self._parts):
            said = await self._do(shard, "figures")
            entries, held = entries + int(said[0]), held + int(said[1])
        return ValueShare(entries, held, self._clock.monotonic() - began)

    def figures(self) -> ValueFigures:
        """See `ValueStore.figures`."""
        with self._lock:
            corrupt, failed = self._corrupt, self._failed
        return structs.replace(self._memory.figures(), corrupt=corrupt, failed=failed)

    async def aclose(self) -> None:
        """See `ValueStore.aclose`; the server keeps what it has."""
        self._closed = True
        await self._links.aclose()
        await self._memory.aclose()

    async def _sweep(self, shard: int, namespace: str, key: str) -> int:
        """Drop what matches. The server looks at the part before the first star only: patterns of many
        stars have kept servers busy for long."""
        start = namespace.partition("*")[0]
        if start == namespace:
            start = place(namespace, key.partition("*")[0])
        cursor, gone = b"0", 0
        while True:
            cursor, said = await self._do(shard, "scan", cursor, f"{_literal(start)}*")
            found = [name for name in map(_text, said) if _fits(name, namespace, key)]
            if found:
                gone += int(await self._do(shard, "drop", *found))
            if int(cursor) == 0:
                return gone

    # ── without the server ──────────────────────────────────────────────────────────────────────

    def _alone(self, namespace: str, key: str, claim: float) -> Sought:
        with self._lock:
            self._failed += 1
        return structs.replace(self._memory.look(namespace, key, claim=claim), mark=_ALONE, alone=True)

    def _kept_alone(self, namespace: str, key: str, data: bytes, seconds: float, token: str) -> bool:
        with self._lock:
            self._failed += 1
        return self._memory.keep(namespace, key, data, seconds, token=token, stamp=_UNSENT)

    # ── the server ──────────────────────────────────────────────────────────────────────────────

    async def _received(
        self, namespace: str, key: str, framed: bytes, seconds: float, stamp: str
    ) -> bytes | None:
        """A value as it came; None for one that cannot be read, which is dropped."""
        try:
            data = await _in_a_thread(unframe, place(namespace, key), framed)
            number = int(stamp)
        except ValueError as error:
            await self._discard(namespace, key, error)
            return None
        self._memory.keep(namespace, key, data, seconds, stamp=number)
        return data

    async def _discard(self, namespace: str, key: str, error: ValueError) -> None:
        with self._lock:
            self._corrupt += 1
            told, self._told = self._told, True
        if not told:
            _log.warning("values=corrupt_entry room=%s reason=%s dropped, told_once", self._room, error)
        try:
            await self._run("drop", place(namespace, key))
        except StoreError:
            return

    @property
    def _parts(self) -> int:
        return SHARDS if self._address.cluster else 1

    async def _run(self, op: str, name: str, *words: str | int | bytes) -> Any:
        """One thing about one value. Raises `StoreError`."""
        digest = sha256(name.encode()).hexdigest()[:32]
        shard = int(digest[:2], 16) % self._parts
        if op in ("renew", "release"):
            return await self._do(shard, op, *words, claim=digest)
        return await self._do(shard, op, name, *words, claim=digest)

    async def _do(self, shard: int, op: str, *words: str | int | bytes, claim: str = "") -> Any:
        if self._closed:
            raise StoreError("The store of values is closed.")
        guard = self._guard(shard)
        guard.refuse_while_open()
        here = await self._links.here()
        group = f"{{headgate:values:{self._room}:{shard:x}}}"
        keys = (f"{group}e", f"{group}x", f"{group}t", f"{group}c:{claim}")

        async def calling() -> Any:
            try:
                return await here.run("EVALSHA", self._sha, 4, *keys, op, *words)
            except NoScriptError:  # flushed, or a new server
                return await here.run("EVAL", self._script, 4, *keys, op, *words)

        async with here.turn:
            return await guard.run(calling)

    def _guard(self, shard: int) -> Guard:
        # Of a cluster one part may fail alone.
        part = f"{shard:x}"
        guard = self._guards.get(part)
        if guard is None:
            made = Guard(
                clock=self._clock,
                chance=self._chance,
                seconds=self._timeout,
                explain=self._failure,
                first_failure=logging.DEBUG,  # a value is made once more, and that is all
            )
            guard = self._guards.setdefault(part, made)  # another thread may have been faster
        return guard

    def _failure(self, error: Exception) -> StoreError:
        # A library's text may hold anything, our sentence holds no credential.
        return StoreError(f"The shared store at {self._address} {sentence_of(error)}.")


def _milliseconds(seconds: float) -> int:
    return max(1, int(min(seconds, LONGEST) * 1000))


def _stamp() -> int:
    """Sixteen digits, never `_UNSENT`, that no other value has: one of 2⁵³."""
    return int(token_hex(7), 16) % 2**53 or 1


def _fits(name: str, namespace: str, key: str) -> bool:
    of, _, rest = name.partition(SEPARATOR)
    return matches(namespace, of) and matches(key, rest)


def _literal(text: str) -> str:
    """A text as the server's globs stand for it."""
    return "".join(f"\\{sign}" if sign in "*?[]\\^-" else sign for sign in text)


async def _in_a_thread(work: Callable[[str, bytes], bytes], name: str, value: bytes) -> bytes:
    """The work on a small value here, on a large one in a thread."""
    if len(value) < _IN_A_THREAD:
        return work(name, value)
    return await asyncio.to_thread(work, name, value)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@cache
def script_source() -> str:
    """The script that does it all."""
    return files("headgate.stores").joinpath("lua/values.lua").read_text(encoding="utf-8")
