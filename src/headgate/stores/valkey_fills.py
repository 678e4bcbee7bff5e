"""How full the limits of a group are, read from its ledger in Valkey or Redis.

The ledger is first told nothing (an empty step), which lets go of what is over by now; then its
counters are read as `lua/ledger_books.lua` lays them out. Nothing is charged.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from headgate.core.quota import Counts, Fill, Kind, Limit, Mode

__all__ = ["Counters", "fills_of", "read_counters"]

_COUNTS = (Counts.REQUESTS, Counts.INPUT, Counts.OUTPUT, Counts.TOTAL, Counts.SLOTS)
_KINDS = (Kind.ROLLING, Kind.CALENDAR, Kind.CONCURRENT)
_MODES = (Mode.EARLY, Mode.ENVELOPE)

_META = struct.Struct("<10d")
_COUNT, _KNOWN = 3, 7  # within it: domains, shapes
_HEAD = struct.Struct("<B7d")  # of a domain: how many limits, its shape, and more that is not read
_EACH = struct.Struct("<5d")  # of a limit: amount, used, and its buckets
_AT_ONCE = 500  # fields

Run = Callable[..., Awaitable[Any]]


class _Shape(NamedTuple):
    """A limit as the ledger keeps it, but for its amount."""

    name: str
    counts: int
    kind: int
    window: float
    mode: int
    guard: float


class Counters(NamedTuple):
    """What was read of a group: its shapes, and its domains in the order of their handles."""

    shapes: list[bytes]
    domains: list[bytes]


async def read_counters(run: Run, key: str) -> Counters:
    """Nothing for a group that is not there.

    Args:
        run: a command of the server.
        key: of the group's hash.
    """
    (meta,) = await run("HMGET", key, "m")
    if meta is None:
        return Counters([], [])
    said = _META.unpack(meta)
    return Counters(
        await _fields(run, key, [f"s{number}" for number in range(1, int(said[_KNOWN]) + 1)]),
        await _fields(run, key, [f"d{handle}" for handle in range(int(said[_COUNT]))]),
    )


def fills_of(counters: Counters) -> tuple[tuple[Fill, ...], ...]:
    """By domain. Raises `ValueError` for counters that are laid out otherwise."""
    try:
        shapes = [msgspec.msgpack.decode(shape, type=list[_Shape]) for shape in counters.shapes]
        return tuple(_domain(blob, shapes) for blob in counters.domains)
    except (struct.error, msgspec.MsgspecError, IndexError, TypeError) as error:
        raise ValueError("the ledger's counters are laid out otherwise") from error


async def _fields(run: Run, key: str, names: Sequence[str]) -> list[bytes]:
    found: list[bytes] = []
    for start in range(0, len(names), _AT_ONCE):
        found += await run("HMGET", key, *names[start : start + _AT_ONCE])
    return found


def _domain(blob: bytes, shapes: Sequence[Sequence[_Shape]]) -> tuple[Fill, ...]:
    limits, shape, *_ = _HEAD.unpack_from(blob)
    rows = (_EACH.unpack_from(blob, _HEAD.size + number * _EACH.size) for number in range(limits))
    return tuple(
        Fill(_limit(known, int(amount)), int(used))
        for known, (amount, used, *_) in zip(shapes[int(shape) - 1], rows, strict=True)
    )


def _limit(shape: _Shape, amount: int) -> Limit:
    return Limit(
        shape.name,
        _COUNTS[shape.counts - 1],
        amount,
        _KINDS[shape.kind],
        int(shape.window),
        _MODES[shape.mode],
        int(shape.guard),
    )
