"""Kept answers as bytes: msgpack, and a frame around it where a shared store holds them.

What memory holds is the msgpack alone. In a shared store a frame stands before it, so that what is cut,
flipped, misplaced or of another version is a miss: version, compressed or not, and a checksum over the
key and all of it. The checksum is against accidents; against somebody who writes to the store, its
access list is.
"""

from __future__ import annotations

import zlib
from struct import Struct as Layout

import msgspec
from msgspec import Struct

from headgate.core.call import Reply
from headgate.core.replies import KeptReply

__all__ = ["COMPRESSED_FROM", "LARGEST_FRAME", "Lasting", "frame", "pack", "unframe", "unpack"]

VERSION = 1

LARGEST_FRAME = 4_000_000
"""Bytes an answer may have in a shared store: sending more takes too much of its deadline."""

COMPRESSED_FROM = 8192
"""Bytes from which an answer is compressed: below, a round trip takes longer than its bytes do."""

_PAYS = 0.8
"""Of its size, what compressing must bring an answer to: vectors and pictures do not shrink."""

_HEAD = Layout(">BBI")  # version, form, checksum
_PLAIN, _DEFLATED = 0, 1

_UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError)


class Lasting(Struct, frozen=True, array_like=True):
    """A kept answer as it is written: how long it lasts, not until when. Times in seconds."""

    model: str
    fresh: float
    revalidate: float
    rescue: float
    reply: Reply

    @property
    def whole(self) -> float:
        """How long it may be given for anything."""
        return self.fresh + self.revalidate + self.rescue

    def aged(self, age: float, wall: float) -> KeptReply:
        """As a caller sees it who looks at it now, `age` seconds after it came."""
        at = wall - age
        fresh = at + self.fresh
        again = fresh + self.revalidate
        return KeptReply(self.reply, self.model, at, fresh, again, again + self.rescue)

    def unverified(self, age: float, wall: float) -> KeptReply:
        """The same where nobody knows whether it was invalidated: for a rescue, and nothing else."""
        at = wall - age
        return KeptReply(self.reply, self.model, at, at, at, at + self.whole)


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Lasting)


def pack(kept: KeptReply) -> bytes | None:
    """An answer as memory holds it; None for one that cannot be written.

    What has its default is left out, as `Reply` says: most answers have a text, a reason, two numbers.
    """
    lasting = (
        kept.model,
        max(0.0, kept.fresh_until - kept.at),
        max(0.0, kept.revalidate_until - kept.fresh_until),
        max(0.0, kept.rescue_until - kept.revalidate_until),
        kept.reply,
    )
    try:
        return _ENCODER.encode(lasting)
    except _UNWRITABLE:
        return None


def unpack(value: bytes) -> Lasting:
    """What `pack` wrote. Raises `ValueError` for anything else."""
    try:
        return _DECODER.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"no kept answer: {type(error).__name__}") from None


def frame(key: str, value: bytes) -> bytes:
    """An answer as a shared store holds it."""
    form = _PLAIN
    if len(value) >= COMPRESSED_FROM:
        smaller = zlib.compress(value, 1)
        if len(smaller) <= len(value) * _PAYS:
            form, value = _DEFLATED, smaller
    return _HEAD.pack(VERSION, form, _checksum(key, form, value)) + value


def unframe(key: str, framed: bytes) -> bytes:
    """What `frame` was given. Raises `ValueError` for anything else."""
    if len(framed) < _HEAD.size:
        raise ValueError("too short")
    version, form, checksum = _HEAD.unpack_from(framed)
    value = framed[_HEAD.size :]
    if version != VERSION or form not in (_PLAIN, _DEFLATED):
        raise ValueError("of another version")
    if checksum != _checksum(key, form, value):
        raise ValueError("damaged")
    if form == _PLAIN:
        return value
    inflater = zlib.decompressobj()
    try:
        whole = inflater.decompress(value, LARGEST_FRAME)
    except zlib.error:
        raise ValueError("damaged") from None
    if not inflater.eof:  # it would go on: nobody here has written that
        raise ValueError("too large")
    return whole


def _checksum(key: str, form: int, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(b"%d %d %s " % (VERSION, form, key.encode())))
