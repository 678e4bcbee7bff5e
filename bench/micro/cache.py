"""What remembering costs: the key of a question, a hit in memory, a hit on Valkey; and what 10⁶ replies
take of memory, against what they are counted as.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

from bench.micro.figures import Figure, Scale, in_turn, per_call
from bench.server import running
from headgate.core.call import Call, Keeping, Operation, Reply, Usage
from headgate.core.replies import KeptReply, ReplyCache
from headgate.policy.recall_key import recall_key
from headgate.stores.replies import MemoryReplies
from headgate.stores.replies_valkey import ValkeyReplies
from headgate.wiring.clock import SystemClock

__all__ = ["COUNTED", "HIT", "KEYS", "measure"]

KEYS = "The key of a question"
HIT = "A kept reply of 1 KB"
COUNTED = "Small replies in memory"
_SMALL = 100  # characters of a small reply
_LARGE_CACHE = 500  # times the calls of a scale: a million of them
_WORDS = "tide moon pull water shore rise fall twice day spring neap sun earth coast low high "


def measure(scale: Scale) -> list[Figure]:
    return _keys(scale) + _hits(scale) + _room(scale)


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────


def _keys(scale: Scale) -> list[Figure]:
    sizes = (1_000, 30_000, 300_000)
    values = in_turn(scale.repeats, [partial(_key, size, scale.calls) for size in sizes])
    return [
        Figure(KEYS, f"a prompt of {size:,} characters", "µs", value)
        for size, value in zip(sizes, values, strict=True)
    ]


def _key(size: int, calls: int) -> float:
    call = Call(
        Operation.GENERATE,
        "m",
        (_text(size),),
        {"temperature": 0.7, "max_output_tokens": 2000, "system_instruction": "Be brief."},
        keeping=Keeping(partition=":caller"),
    )
    headers = {"content-type": "application/json"}
    begun = time.process_time()
    for _ in range(calls):
        recall_key(call, model="gemini-3.8-flash", origin="gemini https://host", headers=headers)
    return per_call(time.process_time() - begun, calls)


# ── hits ──────────────────────────────────────────────────────────────────────────────────────────


def _hits(scale: Scale) -> list[Figure]:
    figures = []
    memory = MemoryReplies(SystemClock(), most_entries=10_000, most_bytes=10**9)
    cpu = partial(asyncio.run)
    hits, puts = in_turn(
        scale.repeats,
        [
            lambda: cpu(_looked(memory, scale.calls)),
            lambda: cpu(_put(memory, scale.calls)),
        ],
    )
    figures.append(Figure(HIT, "found in memory, CPU", "µs", hits))
    figures.append(Figure(HIT, "put into memory, CPU", "µs", puts))
    with running() as url:
        copies, whole = in_turn(
            scale.repeats,
            [
                lambda: cpu(_on_valkey(url, scale.calls, copies=True)),
                lambda: cpu(_on_valkey(url, scale.calls, copies=False)),
            ],
        )
    figures.append(Figure(HIT, "found on Valkey, with a copy in memory, wall time", "µs", copies))
    figures.append(Figure(HIT, "found on Valkey, without one, wall time", "µs", whole))
    return figures


async def _looked(cache: ReplyCache, calls: int) -> float:
    keys = await _filled(cache)
    begun = time.process_time()
    for number in range(calls):
        found = await cache.look(keys[number % len(keys)], claim=10.0)
        assert found.kept is not None
    return per_call(time.process_time() - begun, calls)


async def _put(cache: ReplyCache, calls: int) -> float:
    keys = await _filled(cache)
    kept = _kept(_text(1_000))
    mark = (await cache.look(keys[0])).mark
    begun = time.process_time()
    for number in range(calls):
        await cache.put(keys[number % len(keys)], kept, mark=mark)
    return per_call(time.process_time() - begun, calls)


async def _on_valkey(url: str, calls: int, *, copies: bool) -> float:
    cache = ValkeyReplies(
        url,
        clock=SystemClock(),
        chance=random.random,
        most_entries=10_000 if copies else 0,
        most_bytes=10**9,
        most_shared_bytes=10**9,
        timeout=10.0,
    )
    try:
        keys = await _filled(cache)
        return await _timed(lambda number: cache.look(keys[number % len(keys)], claim=10.0), calls)
    finally:
        await cache.aclose()


async def _timed(once: Callable[[int], Awaitable[object]], calls: int) -> float:
    begun = time.perf_counter()
    for number in range(calls):
        await once(number)
    return per_call(time.perf_counter() - begun, calls)


async def _filled(cache: ReplyCache) -> list[str]:
    keys = [sha256(b"%d" % number).hexdigest() for number in range(100)]
    for number, key in enumerate(keys):
        mark = (await cache.look(key)).mark
        await cache.put(key, _kept(_text(1_000 + number)), mark=mark)
    return keys


# ── room ──────────────────────────────────────────────────────────────────────────────────────────


def _room(scale: Scale) -> list[Figure]:
    """What so many small replies took of memory, beside what they were counted as, and the bound."""
    entries = max(1_000, scale.calls * _LARGE_CACHE)
    bound = entries * 800
    taken, counted, held = asyncio.run(_filled_up(2 * entries, bound))
    megabyte = 1_000_000
    return [
        Figure(COUNTED, "replies of 100 characters that were put", "", (float(2 * entries),)),
        Figure(COUNTED, "of them held", "", (float(held),)),
        Figure(COUNTED, "the bound", "MB", (bound / megabyte,)),
        Figure(COUNTED, "counted", "MB", (counted / megabyte,)),
        Figure(COUNTED, "memory that was taken", "MB", (max(taken, 1) / megabyte,)),
    ]


async def _filled_up(puts: int, bound: int) -> tuple[int, int, int]:
    cache = MemoryReplies(SystemClock(), most_entries=10 * puts, most_bytes=bound)
    text, mark = _text(_SMALL), (await cache.look("x" * 64)).mark
    gc.collect()
    before = _resident()
    for number in range(puts):
        key = sha256(b"%d" % number).hexdigest()
        await cache.put(key, _kept(f"{number}{text}"), mark=mark)
    gc.collect()
    figures = cache.figures()
    return _resident() - before, figures.bytes, figures.entries


def _resident() -> int:
    """Bytes of memory this process holds."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * 4096


def _kept(text: str) -> KeptReply:
    reply = Reply(text=text, finish_reason="STOP", usage=Usage(prompt=250, output=200), model="m")
    return KeptReply(reply, "m", 0.0, 3600.0, 3600.0, 90_000.0)


def _text(characters: int) -> str:
    return (_WORDS * (characters // len(_WORDS) + 1))[:characters]
