"""What travels between a process and the ledger script: JSON arrays there, msgpack arrays back.

Servers decode JSON faster than msgpack and encode it far slower (32 asks with as many settlements:
59 against 82 µs there, 40 against 9 µs back), hence the mixture.

Domains travel as handles, what is counted as its number, costs as five integers. User text (names of
limits) is only ever a value, never part of a key or field. `lua/ledger.lua` reads and writes the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files

import msgspec

from headgate.core.quota import (
    Ask,
    Batch,
    BatchReply,
    Costs,
    Counts,
    Grant,
    Kind,
    Limit,
    Mode,
    Penalty,
    Refusal,
    Restore,
    Settlement,
)
from headgate.policy.quota.price import next_seed

__all__ = [
    "DOMAINS",
    "Answers",
    "Wired",
    "answers_of",
    "constants",
    "declarations",
    "keys_of",
    "next_seed",
    "script_source",
    "transaction",
    "wired",
]

DOMAINS = 500
"""Domains declared in one call: more go in pieces, so that no call blocks the server for long."""

_LARGEST = 2**50
"""Amounts above are as good as none, and sums of them stay exact in the script's doubles."""

_UNSAID = -1

_COUNTS = (Counts.REQUESTS, Counts.INPUT, Counts.OUTPUT, Counts.TOTAL, Counts.SLOTS)
_NUMBERS = {counts: number for number, counts in enumerate(_COUNTS, 1)}
_KINDS = {Kind.ROLLING: 0, Kind.CALENDAR: 1, Kind.CONCURRENT: 2}
_MODES = {Mode.EARLY: 0, Mode.ENVELOPE: 1}
_PARTS = ("_books", "_pace", "_domain", "_time", "_after", "_restore", "_asks", "")
_SOURCES = tuple(f"lua/ledger{part}.lua" for part in _PARTS)

_CONSTANTS = re.compile(r"^local ((?:\w+ <const>(?:, )?)+) = (.+)$", re.MULTILINE)

_pack = msgspec.json.Encoder().encode

Wired = tuple[object, ...]
"""A batch in the order and form in which it travels."""


@cache
def script_source() -> str:
    """The script, from its pieces. The server compiles and keeps it as one.

    Constants are put in place: a function of Lua 5.1 pays for every local of another function it
    names, each time it is made, and a script's functions are made anew in every call.
    """
    text = _text()
    for name, value in constants().items():
        text = re.sub(rf"\b{name}\b(?! *<const>)", str(value), text)
    return _CONSTANTS.sub("", text)


def constants() -> dict[str, int]:
    """The script's constants, as it declares them."""
    return {
        name.split("<")[0].strip(): int(value)
        for names, values in _CONSTANTS.findall(_text())
        for name, value in zip(names.split(","), values.split(","), strict=True)
    }


@cache
def _text() -> str:
    folder = files("headgate.stores")
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in _SOURCES)


def keys_of(group: str) -> tuple[str, str, str]:
    """The three keys of a group. The braces keep them in one slot of a cluster."""
    if not group:
        raise ValueError("a quota group needs a name")
    safe = group.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
    return f"{{{safe}}}st", f"{{{safe}}}th", f"{{{safe}}}ex"


def declarations(domains: Sequence[Sequence[Limit]]) -> Iterator[bytes]:
    """The payloads that declare a group, a piece at a time. Sending one twice does no harm."""
    for first in range(0, max(1, len(domains)), DOMAINS):
        shapes: dict[tuple[Wired, ...], int] = {}
        rows = []
        for limits in domains[first : first + DOMAINS]:
            shape = tuple(_limit(limit) for limit in limits)
            number = shapes.setdefault(shape, len(shapes) + 1)
            rows.append((number, *(min(limit.amount, _LARGEST) for limit in limits)))
        yield _pack((0, 0, first, len(domains), tuple(shapes), rows))


def transaction(nonce: int, resets: Sequence[int], batches: Sequence[Wired]) -> bytes:
    """The payload of one call: batches are done one after the other, at one instant."""
    return _pack((1, nonce, resets, *batches))


def wired(batch: Batch) -> Wired:
    """A batch as it travels."""
    said = (
        [_settle(settle) for settle in batch.settles],
        batch.cancels,
        batch.renews,
        [_penalty(penalty) for penalty in batch.penalties],
        [_ask(ask) for ask in batch.asks],
        batch.seed,
    )
    return (*said, [_restore(restore) for restore in batch.restores]) if batch.restores else said


class Said(msgspec.Struct, frozen=True, array_like=True):
    """One answer as it travels.

    Attributes:
        handle: of the domain that serves; −1 for a refusal.
        second: of a grant whether it is a test; of a refusal its instant, −1 for none.
        never: whether no waiting helps.
        name: of the limit that binds.
        left: what is left of the domain's calendar limits, if it has any.
    """

    handle: int
    second: int
    never: int
    name: str
    left: tuple[int, ...] = ()

    def answer(self, rid: str) -> Grant | Refusal:
        """The answer to the ask of this id."""
        if self.handle >= 0:
            return Grant(rid, self.handle, self.second == 1, self.left)
        return Refusal(None if self.second < 0 else self.second, self.name or None, self.never == 1)


class Answers(msgspec.Struct, frozen=True, array_like=True):
    """A reply taken apart; `said` answers the asks."""

    nonce: int
    now: int
    seq: int
    epoch: int
    said: list[Said] = []

    def reply(self, asks: Sequence[Ask], first: int) -> BatchReply:
        """The answers to these asks, of which the first was the call's number `first`."""
        said = self.said[first : first + len(asks)]
        answers = tuple([one.answer(ask.rid) for ask, one in zip(asks, said, strict=True)])
        return BatchReply(answers, self.now, self.epoch, self.seq)


answers_of = msgspec.msgpack.Decoder(Answers).decode
"""The reply's parts. Raises `msgspec.MsgspecError` for anything else."""


def _limit(limit: Limit) -> Wired:
    kind, mode = _KINDS[limit.kind], _MODES[limit.mode]
    return limit.name, _NUMBERS[limit.counts], kind, limit.window, mode, limit.guard


def _costs(costs: Costs) -> Iterator[int]:
    for counts in _COUNTS:
        cost = costs.get(counts, _UNSAID)
        yield min(cost, _LARGEST)


def _ask(ask: Ask) -> Wired:
    prefer = _UNSAID if ask.prefer is None else ask.prefer
    return ask.rid, prefer, *_costs(ask.costs), *ask.exclude


def _settle(settle: Settlement) -> Wired:
    return settle.rid, int(settle.served), *_costs(settle.costs)


def _restore(told: Restore) -> Wired:
    amount = min(max(0, told.amount), _LARGEST)
    return told.member, told.domain, told.limit, told.expires, amount


def _penalty(penalty: Penalty) -> Wired:
    until = _UNSAID if penalty.until is None else max(0, penalty.until)
    shut = _UNSAID if penalty.shut is None else int(penalty.shut)
    said: Wired = (penalty.domain, until, int(penalty.canary), shut)
    if penalty.limit is not None:
        said += (_limit(penalty.limit), min(penalty.limit.amount, _LARGEST))
    elif penalty.pace is not None:
        said += (False, 0)
    return said if penalty.pace is None else (*said, penalty.pace)
