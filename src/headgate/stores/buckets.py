"""Token buckets in memory, and in Redis or Valkey. The maths is `policy/bucket.py`'s."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence
from functools import cache, lru_cache, partial
from importlib.resources import files
from itertools import islice
from typing import Any, TypeAlias

from headgate.core.buckets import Ask, Level, Rule, Verdict
from headgate.core.errors import StoreError
from headgate.core.ports import Clock
from headgate.policy.bucket import State, shape_of, take
from headgate.stores.guard import PARTS
from headgate.stores.line import StoreLine, is_cluster, text

__all__ = ["MemoryBuckets", "RedisBuckets", "bucket_key", "index_key"]

_LONGEST = 256  # characters of an identifier that stand in a key
_BATCH = 64  # asks in one script call: their replies stay far below what a server blocks for
_LANES = 16  # script calls at once, where asks cannot share one


class MemoryBuckets:
    """Buckets of one process. Threads may share them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._states: OrderedDict[tuple[str, Rule], State] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    async def take(self, ask: Ask) -> Verdict:
        """Take from every bucket of the ask or from none."""
        now = int(self._clock.monotonic() * 1_000_000)
        keys = [(ask.identifier, rule) for rule in ask.rules]
        shapes = [shape_of(rule) for rule in ask.rules]
        with self._lock:
            before = [self._states.get(key) for key in keys]
            allowed, after, levels = take(shapes, before, now, ask.cost)
            if ask.cost:
                for key, old, new in zip(keys, before, after, strict=True):
                    if allowed or (old is not None and new.last_us < old.last_us):
                        if old is None:
                            self._evict(now)
                        self._states[key] = new
        return Verdict(allowed, tuple(levels), int(self._clock.wall() * 1_000_000))

    async def reset(self, identifier: str) -> int:
        """Forget every bucket of an identifier. How many there were."""
        with self._lock:
            found = [key for key in self._states if key[0] == identifier]
            for key in found:
                del self._states[key]
        return len(found)

    async def aclose(self) -> None:
        """Nothing to close."""

    def _evict(self, now: int) -> None:
        # Each new bucket looks at the two that were looked at longest ago. So full ones go as fast as
        # others come, and there is never a pause to sweep them all.
        for stale in list(islice(self._states, 2)):
            if now - self._states[stale].last_us > stale[1].window_ms * 1000:
                del self._states[stale]
            else:
                self._states.move_to_end(stale)


class RedisBuckets:
    """Buckets that any number of processes share. Asks that wait together travel together.

    On a single node one script call serves up to 64 asks: while one is under way, the next collect.
    On a cluster, where identifiers live in different slots, each ask is a call of its own.
    """

    def __init__(self, line: StoreLine) -> None:
        self._line = line
        self._script: Any = None
        self._alone = is_cluster(line.client)
        self._queues: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = (
            weakref.WeakKeyDictionary()
        )

    async def take(self, ask: Ask) -> Verdict:
        """Take from every bucket of the ask or from none. Raises `StoreError` within the deadline."""
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            queue = self._queues[loop] = _Queue(self._line.timeout)
        self._line.refuse_while_open()
        future = queue.add(ask, loop)
        if queue.lanes < (_LANES if self._alone else 1):
            queue.lanes += 1
            self._line.own(self._serve(queue))
        return await future

    async def reset(self, identifier: str) -> int:
        """Delete every bucket of an identifier. Raises `StoreError`."""
        return await self._line.run(partial(self._reset, identifier))

    async def aclose(self) -> None:
        """Wait for calls under way. The client stays the caller's."""
        await self._line.aclose()

    async def _serve(self, queue: _Queue) -> None:
        batch: list[_Entry] = []
        try:
            while batch := queue.next(1 if self._alone else _BATCH):
                asks = [ask for ask, _ in batch]
                try:
                    verdicts = await self._line.bounded(partial(self._send, asks))
                except StoreError as error:
                    queue.fail(batch, error)
                    continue
                for (_, future), verdict in zip(batch, verdicts, strict=True):
                    if not future.done():  # a caller who left has cancelled it
                        future.set_result(verdict)
        finally:
            queue.lanes -= 1
            for _, future in batch:
                future.cancel()  # only where this task was cancelled, with its loop

    async def _send(self, asks: Sequence[Ask]) -> list[Verdict]:
        if self._script is None:
            self._script = self._line.client.register_script(_source())
        try:
            return await self._call(asks)
        except Exception as error:
            if len(asks) == 1 or "crossslot" not in f"{type(error).__name__} {error}".lower():
                raise
        # A cluster behind a single address: it says so the first time two slots meet.
        self._alone = True
        return [(await self._call([ask]))[0] for ask in asks]

    async def _call(self, asks: Sequence[Ask]) -> list[Verdict]:
        keys: list[str] = []
        arguments = []
        for ask in asks:
            prefix = _prefix(ask.identifier)
            keys.append(f"{prefix}:limits")
            keys += [f"{prefix}:{rule.requests}:{rule.window_ms}" for rule in ask.rules]
            arguments.append(_numbers(ask.rules, ask.cost))
        return _read(asks, await self._script(keys=keys, args=arguments))

    async def _reset(self, identifier: str) -> int:
        client, index = self._line.client, index_key(identifier)
        names = [text(name) for name in await client.smembers(index)]
        if not names:
            return 0
        # Buckets first: broken off between the two, the index names buckets that are gone. That does
        # no harm, and one made meanwhile keeps its entry.
        deleted: int = await client.delete(*(f"{_prefix(identifier)}:{name}" for name in names))
        await client.srem(index, *names)
        return deleted


_Entry: TypeAlias = tuple[Ask, asyncio.Future[Verdict]]


class _Queue:
    """Asks of one event loop that wait to be sent, or to be answered, each until its deadline.

    One timer serves them all. Where it comes late, the loop was busy and the answer may lie in the
    socket: it waits one part of the deadline more (`PARTS`) before it gives up.
    """

    def __init__(self, timeout: float) -> None:
        self.lanes = 0
        self._timeout = timeout
        self._waiting: deque[_Entry] = deque()
        self._due: deque[tuple[float, asyncio.Future[Verdict]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, ask: Ask, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Verdict]:
        """The future of the ask's answer."""
        future: asyncio.Future[Verdict] = loop.create_future()
        self._waiting.append((ask, future))
        self._due.append((loop.time() + self._timeout, future))
        if self._timer is None:
            self._timer = loop.call_later(self._timeout, self._expire, loop)
        return future

    def next(self, most: int) -> list[_Entry]:
        """The next asks whose callers are still there."""
        batch: list[_Entry] = []
        while self._waiting and len(batch) < most:
            entry = self._waiting.popleft()
            if not entry[1].done():
                batch.append(entry)
        return batch

    def fail(self, batch: list[_Entry], error: StoreError) -> None:
        """Tell this batch and everybody behind it: none shall wait out a second deadline."""
        for _, future in (*batch, *self._waiting):
            _refuse(future, error)
        self._waiting.clear()

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        timer, now = self._timer, loop.time()
        grace = self._timeout / PARTS
        if timer is not None and now - timer.when() > grace:
            self._timer = loop.call_later(grace, self._expire, loop)
            return
        self._timer = None
        while self._due:
            deadline, future = self._due[0]
            if not future.done() and deadline > now:
                self._timer = loop.call_at(deadline, self._expire, loop)
                return
            self._due.popleft()
            _refuse(future, StoreError("The store did not answer in time."))


def _refuse(future: asyncio.Future[Verdict], error: StoreError) -> None:
    if not future.done():
        told = StoreError(error.message)  # each caller gets one of its own: tracebacks grow
        told.__cause__ = error.__cause__
        future.set_exception(told)


@cache
def _source() -> str:
    return files("headgate.stores").joinpath("lua/bucket.lua").read_text(encoding="utf-8")


@lru_cache(maxsize=4096)
def _numbers(rules: tuple[Rule, ...], cost: int) -> str:
    """An ask as the script reads it."""
    shapes = ((rule, shape_of(rule)) for rule in rules)
    return f"{cost} {len(rules)}" + "".join(
        f" {rule.requests} {rule.window_ms} {shape.unit} {shape.per_tick} {shape.tick_us} {shape.full}"
        for rule, shape in shapes
    )


def _read(asks: Sequence[Ask], reply: Sequence[object]) -> list[Verdict]:
    now = int(text(reply[0]))
    verdicts = []
    for ask, said in zip(asks, reply[1:], strict=True):
        allowed, *numbers = map(int, text(said).split())
        levels = tuple(
            Level(numbers[at], shape_of(rule).unit, numbers[at + 1], numbers[at + 2])
            for at, rule in zip(range(0, len(numbers), 3), ask.rules, strict=True)
        )
        verdicts.append(Verdict(allowed == 1, levels, now))
    return verdicts


def _name(rule: Rule) -> str:
    return f"{rule.requests}:{rule.window_ms}"


def _prefix(identifier: str) -> str:
    """`rate_limit:{identifier}`, the braces literal: all keys of an identifier share a slot.

    Different identifiers never share a key: braces inside one are written as %7B and %7D, and of one
    too long for a key its digest stands there.
    """
    safe = identifier
    if len(identifier) > _LONGEST:
        safe = f"%{hashlib.sha256(identifier.encode()).hexdigest()}"
    elif not identifier.isalnum():
        safe = identifier.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
    return f"rate_limit:{{{safe}}}"


def bucket_key(identifier: str, rule: Rule) -> str:
    """Where a bucket lives: `rate_limit:{identifier}:{max_requests}:{window_ms}`."""
    return f"{_prefix(identifier)}:{_name(rule)}"


def index_key(identifier: str) -> str:
    """Where the names of an identifier's buckets live."""
    return f"{_prefix(identifier)}:limits"
