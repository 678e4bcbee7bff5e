"""Kept answers that processes share, in Valkey or Redis, with a copy in the memory of each.

A look asks the server always, and brings the answer along only where the process holds no copy of the
same generation. So an answer that was invalidated is given by no process once `invalidate` has
returned, and what is looked up often travels once. How old an answer is, is counted by the server's
clock.

A server that is away, slow or lost its state is a miss. The copy in memory then serves for a rescue
only: nobody can tell whether it was invalidated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import cache, lru_cache
from hashlib import sha1, sha256
from importlib.resources import files
from secrets import token_hex
from threading import Lock
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError

from headgate.core.errors import StoreError
from headgate.core.ports import Clock
from headgate.core.replies import CacheFigures, Found, KeptReply
from headgate.policy.reply_cache import ReplyShelf, Shelved, matches
from headgate.stores.guard import Guard
from headgate.stores.loop_links import LoopLinks
from headgate.stores.replies import Counts
from headgate.stores.replies_wire import LARGEST_FRAME, Lasting, frame, pack, unframe, unpack
from headgate.stores.valkey_link import Address, sentence_of

__all__ = ["SHARDS", "TIMEOUT", "SharedFigures", "ValkeyReplies", "script_source"]

TIMEOUT = 0.1
"""Seconds a command may take: an answer of the upstream takes longer, but not by much more."""

SHARDS = 16
"""Parts of the cache on a cluster, each in a slot of its own. A single server has one."""

_IN_A_THREAD = 262_144
"""Bytes from which answers are compressed and read in a thread: about 3 ms of one core."""

_SWEEP_SECONDS = 2.0
"""How long an invalidation spends on giving memory back; what is left by then expires."""

_log = logging.getLogger("headgate.stores")


class SharedFigures(NamedTuple):
    """What the shared store holds."""

    entries: int
    bytes: int
    namespaces: int


class ValkeyReplies:
    """A `ReplyCache` on a server or cluster. Threads and event loops may share it.

    Args:
        url: see `headgate.stores.urls`.
        chance: uniform in [0, 1): spreads the probes of many processes over a dead server.
        most_entries, most_bytes: bounds of the copies in memory.
        most_shared_bytes: bound of what the server holds, bookkeeping included.
        timeout: seconds a command may take.
        script: another text of the script, for tests that replace its source of time.
    """

    remote = True

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        chance: Callable[[], float],
        most_entries: int,
        most_bytes: int,
        most_shared_bytes: int,
        timeout: float = TIMEOUT,
        script: str | None = None,
    ) -> None:
        self._address = Address(url)
        self._script = script or script_source()
        self._sha = sha1(self._script.encode(), usedforsecurity=False).hexdigest()
        self._clock = clock
        self._chance = chance
        self._timeout = timeout
        self._links = LoopLinks(self._address, timeout)
        self._guards: dict[str, Guard] = {}
        self._lock = Lock()
        self._shelf = ReplyShelf(most_entries, most_bytes)
        self._counts = Counts()
        self._most_shared = most_shared_bytes
        self._closed = self._told = False

    def __repr__(self) -> str:
        return f"ValkeyReplies({str(self._address)!r})"

    # ── one answer ──────────────────────────────────────────────────────────────────────────────

    async def look(
        self, key: str, namespace: str = "", *, claim: float = 0.0, counted: bool = True
    ) -> Found:
        """See `ReplyCache.look`."""
        copy = self._copy(key)
        token = token_hex(8) if claim > 0 else ""
        held = copy.stamp if copy is not None and copy.age < copy.lasting.fresh else ""
        try:
            generation, age, framed, right = await self._run(
                "look", _field(key, namespace), f"n{namespace}", held, token, int(claim * 1000)
            )
            stamp, seconds = int(generation), int(age) / 1e6
        except (StoreError, ValueError, TypeError):  # away, or it answers something else
            return self._alone(copy, counted=counted)
        if framed:
            copy = await self._received(key, namespace, framed, seconds, stamp)
        elif copy is not None and copy.stamp != str(stamp):
            self._forget(key)
            copy = None
        if copy is not None and copy.age >= copy.lasting.whole:
            copy = None
        if counted:
            self._looked(copy)
        kept = None if copy is None else copy.lasting.aged(copy.age, self._clock.wall())
        return Found(kept, stamp, token if right == 1 else None, right == 2)

    async def put(
        self, key: str, kept: KeptReply, *, namespace: str = "", mark: int = 0, token: str = ""
    ) -> bool:
        """See `ReplyCache.put`."""
        value = pack(kept)
        framed = b"" if value is None else await _in_a_thread(frame, key, value)
        if value is None or len(framed) > LARGEST_FRAME or not mark:
            await self.release(key, token)
            if value is not None and not mark:  # the server was away: for a rescue
                self._shelve(key, namespace, value, 0.0, kept.rescue_until - kept.at, 0)
            return False
        life = kept.rescue_until - kept.at
        try:
            taken = await self._run(
                "put", _field(key, namespace), f"n{namespace}", mark, token,
                int(max(0.0, kept.fresh_until - kept.at) * 1e6), max(1, int(life * 1000)),
                self._most_shared // self._parts, framed,
            )  # fmt: skip
        except StoreError:
            return False
        if taken == 1:
            self._shelve(key, namespace, value, 0.0, life, mark)
        return bool(taken == 1)

    async def renew(self, key: str, token: str, seconds: float) -> bool:
        """See `ReplyCache.renew`."""
        if not token:
            return True
        try:
            return bool(await self._run("renew", _field(key, ""), token, int(seconds * 1000)))
        except StoreError:
            return True  # as far as anybody knows

    async def release(self, key: str, token: str) -> None:
        """See `ReplyCache.release`."""
        if token:
            try:
                await self._run("release", _field(key, ""), token)
            except StoreError:
                return  # it lapses

    # ── many ────────────────────────────────────────────────────────────────────────────────────

    async def invalidate(self, pattern: str) -> int:
        """See `ReplyCache.invalidate`."""
        with self._lock:
            self._shelf.invalidate(pattern)
        gone = 0
        for shard in range(self._parts):
            names = [name for name in await self._names(shard) if matches(pattern, name[1:])]
            for first in range(0, len(names), 500):
                some = names[first : first + 500]
                await self._do(shard, "bump", *some)
                gone += await self._sweep(shard, [_digits(name[1:]) for name in some])
        return gone

    async def clear(self) -> int:
        """See `ReplyCache.clear`."""
        with self._lock:
            self._shelf.clear()
        return sum([int(await self._do(shard, "clear")) for shard in range(self._parts)])

    async def shared_figures(self) -> SharedFigures:
        """What the server holds, for all processes. Raises `StoreError`."""
        entries = held = 0
        names: set[str] = set()
        for shard in range(self._parts):
            said = await self._do(shard, "figures")
            entries, held = entries + int(said[0]), held + int(said[1])
            names.update(await self._names(shard))
        return SharedFigures(entries, held, len(names))

    def resize(self, most_entries: int, most_bytes: int, most_shared_bytes: int) -> None:
        """Change the bounds; what fits stays. The server's share shrinks with the next answers kept."""
        self._most_shared = most_shared_bytes
        with self._lock:
            self._shelf.resize(most_entries, most_bytes)

    def figures(self) -> CacheFigures:
        """See `ReplyCache.figures`: of the copies in memory, and of what this process looked up."""
        with self._lock:
            return self._counts.figures(self._shelf)

    async def aclose(self) -> None:
        """See `ReplyCache.aclose`; the server keeps what it has."""
        self._closed = True
        await self._links.aclose()
        with self._lock:
            self._shelf.resize(0, 0)

    # ── copies in memory ────────────────────────────────────────────────────────────────────────

    def _copy(self, key: str) -> _Copy | None:
        now = self._clock.monotonic()
        with self._lock:
            shelved = self._shelf.get(key, now)
        return None if shelved is None else _copied(shelved, now)

    def _shelve(
        self, key: str, namespace: str, value: bytes, age: float, life: float, stamp: int
    ) -> None:
        now = self._clock.monotonic()
        with self._lock:
            self._shelf.put(
                key, value,
                made=now - age, until=now - age + life, now=now, namespace=namespace, stamp=stamp,
            )  # fmt: skip

    def _forget(self, key: str) -> None:
        with self._lock:
            self._shelf.drop(key)

    def _looked(self, copy: _Copy | None) -> None:
        lasting, age = (None, 0.0) if copy is None else (copy.lasting, copy.age)
        with self._lock:
            self._counts.looked(lasting, age)

    def _alone(self, copy: _Copy | None, *, counted: bool) -> Found:
        """What can be said without the server."""
        with self._lock:
            self._counts.failed += 1
            if counted:
                self._counts.looked(None, 0.0)
        kept = None if copy is None else copy.lasting.unverified(copy.age, self._clock.wall())
        return Found(kept, 0, "")

    async def _received(
        self, key: str, namespace: str, framed: bytes, age: float, generation: int
    ) -> _Copy | None:
        """An answer as it came from the server; None for one that cannot be read, which is dropped."""
        age = max(0.0, age)  # a server's clock may step back
        try:
            value = await _in_a_thread(unframe, key, framed)
            lasting = unpack(value)
        except ValueError as error:
            await self._discard(key, namespace, error)
            return None
        if age < lasting.whole:
            self._shelve(key, namespace, value, age, lasting.whole, generation)
        return _Copy(lasting, age, str(generation))

    async def _discard(self, key: str, namespace: str, error: ValueError) -> None:
        with self._lock:
            self._counts.corrupt += 1
            told, self._told = self._told, True
        if not told:
            _log.warning("cache=corrupt_entry reason=%s dropped, told_once", error)
        try:
            await self._run("drop", _field(key, namespace))
        except StoreError:
            return

    # ── the server ──────────────────────────────────────────────────────────────────────────────

    @property
    def _parts(self) -> int:
        return SHARDS if self._address.cluster else 1

    async def _names(self, shard: int) -> list[str]:
        found: list[str] = []
        cursor = b"0"
        while True:
            cursor, said = await self._do(shard, "names", cursor)
            found += [_text(name) for name in said[::2] if _text(name).startswith("n")]
            if int(cursor) == 0:
                return list(dict.fromkeys(found))

    async def _sweep(self, shard: int, digits: list[str]) -> int:
        """Give memory back. That nothing of it is given any more is so already."""
        gone = begin = 0
        end = self._clock.monotonic() + _SWEEP_SECONDS
        while self._clock.monotonic() < end:
            seen, dropped = await self._do(shard, "sweep", begin, *digits)
            gone += dropped
            begin += seen - dropped
            if not seen:
                break
        return gone

    async def _run(self, op: str, field: str, *words: str | int | bytes) -> Any:
        """One thing about one question. Raises `StoreError`."""
        digest = field[-64:]
        shard = int(digest[:2], 16) % self._parts
        if op in ("renew", "release"):
            return await self._do(shard, op, *words, claim=digest)
        return await self._do(shard, op, field, *words, claim=digest)

    async def _do(self, shard: int, op: str, *words: str | int | bytes, claim: str = "") -> Any:
        if self._closed:
            raise StoreError("The reply cache is closed.")
        guard = self._guard(shard)
        guard.refuse_while_open()
        here = await self._links.here()
        group = f"{{headgate:replies:{shard:x}}}"
        keys = (f"{group}e", f"{group}x", f"{group}n", f"{group}c:{claim}")

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
                clock=self._clock, chance=self._chance, seconds=self._timeout, explain=self._failure
            )
            guard = self._guards.setdefault(part, made)  # another thread may have been faster
        return guard

    def _failure(self, error: Exception) -> StoreError:
        # A library's text may hold anything, our sentence holds no credential.
        return StoreError(f"The shared store at {self._address} {sentence_of(error)}.")


class _Copy(NamedTuple):
    """An answer in the hands of this process, and its age in seconds."""

    lasting: Lasting
    age: float
    stamp: str


def _copied(shelved: Shelved, now: float) -> _Copy:
    return _Copy(unpack(shelved.value), now - shelved.made, str(shelved.stamp))


async def _in_a_thread(work: Callable[[str, bytes], bytes], key: str, value: bytes) -> bytes:
    """The work on a small value here, on a large one in a thread."""
    if len(value) < _IN_A_THREAD:
        return work(key, value)
    return await asyncio.to_thread(work, key, value)


@lru_cache(maxsize=1024)
def _digits(namespace: str) -> str:
    """A namespace as a field begins with it: nothing of its name is in the way of the script."""
    return sha256(namespace.encode()).hexdigest()[:16]


def _field(key: str, namespace: str) -> str:
    return f"{_digits(namespace)}:{key}"


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@cache
def script_source() -> str:
    """The script that does it all."""
    return files("headgate.stores").joinpath("lua/replies.lua").read_text(encoding="utf-8")
