"""Who calls: caller keys, which are the gateway's own and never go upstream."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from headgate.core.call import Key

__all__ = ["Callers"]


class Callers:
    """Knows callers by their keys, of which it keeps only hashes.

    A key is looked up by the hash of the whole of it, so that the time a look-up takes tells nothing of
    any key.

    Args:
        keys: their names are the callers'. Without any, everybody may call.
    """

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._names = {sha256(key.value.encode()).digest(): key.name for key in keys}

    def __len__(self) -> int:
        return len(self._names)

    def name_of(self, credential: bytes) -> str | None:
        """The caller with this key; None where there is none, empty where everybody may call."""
        if not self._names:
            return ""
        return self._names.get(sha256(credential).digest())
