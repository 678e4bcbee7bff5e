"""Pictures and vectors made of nothing but a fingerprint: the same input, the same output."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
import zlib

from headgate.emulator.chance import fingerprint

__all__ = ["picture", "vector"]

_EDGE = 16


def picture(*labels: str) -> str:
    """A PNG of 16 × 16 pixels, in base64: a pattern of two colours that depend on the labels."""
    seed = fingerprint("picture", *labels)
    first, second = seed[0:3], seed[3:6]
    rows = bytearray()
    for y in range(_EDGE):
        rows.append(0)  # no filter
        for x in range(_EDGE):
            bit = seed[6 + (y // 2)] >> (x // 2 if x < _EDGE // 2 else (_EDGE - 1 - x) // 2) & 1
            rows += first if bit else second
    header = struct.pack(">IIBBBBB", _EDGE, _EDGE, 8, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(rows), 9))
    )
    return base64.b64encode(png + _chunk(b"IEND", b"")).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def vector(text: str, model: str, dimensions: int) -> list[float]:
    """A unit vector of floats that depends on text, model and length only. No meaning in it."""
    raw = hashlib.shake_256(fingerprint("vector", model, text)).digest(2 * dimensions)
    values = [value + 0.5 for value in struct.unpack(f">{dimensions}h", raw)]
    norm = math.sqrt(sum(value * value for value in values))
    return [round(value / norm, 9) for value in values]
