"""The one place that makes chance; everything else is handed a source of it."""

from __future__ import annotations

import hashlib
import random

__all__ = ["Chance", "fingerprint", "seeded"]

Chance = random.Random  # noqa: TID251 - the type of what `seeded` makes


def seeded(seed: int, *labels: str) -> Chance:
    """A source of chance that depends on the seed and the labels only, on every machine alike."""
    return Chance(int.from_bytes(fingerprint(str(seed), *labels)[:8], "big"))


def fingerprint(*parts: str) -> bytes:
    """32 bytes that depend on all parts and on where one ends and the next begins."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.digest()
