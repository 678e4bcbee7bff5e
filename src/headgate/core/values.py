"""Values of applications that are kept for a while: under readable keys, in namespaces."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

__all__ = ["Sought", "ValueFigures", "ValueShare", "ValueStore"]


class Sought(Struct, frozen=True):
    """What a look found.

    Attributes:
        data: the bytes that were kept; None: nothing that is still good.
        left: seconds until they are forgotten.
        local: they were in the memory of this process.
        mark: of this moment: `put` wants it, to know whether the value was invalidated meanwhile.
        token: the right to make the value, where it was wanted and free.
        claimed: somebody else has that right.
        alone: the shared store did not answer, and this process spoke for itself.
        unsent: what this process kept while the shared store was away, and the store knows nothing of;
            None where there is none.
    """

    data: bytes | None = None
    left: float = 0.0
    local: bool = False
    mark: str = ""
    token: str | None = None
    claimed: bool = False
    alone: bool = False
    unsent: bytes | None = None


class ValueFigures(Struct, frozen=True):
    """What the memory of this process holds.

    Attributes:
        entries, bytes: the bookkeeping of each entry included.
        most_entries, most_bytes: its bounds.
        expired, evicted: that left because their time was up, or because room was needed.
        corrupt: values of the shared store that could not be read; they were dropped.
        failed: commands that the shared store did not answer.
    """

    entries: int = 0
    bytes: int = 0
    most_entries: int = 0
    most_bytes: int = 0
    expired: int = 0
    evicted: int = 0
    corrupt: int = 0
    failed: int = 0


class ValueShare(Struct, frozen=True):
    """What the shared store holds, for all processes, and how it answered just now.

    Attributes:
        entries, bytes: in the room that was asked about.
        seconds: the answer took.
    """

    entries: int
    bytes: int
    seconds: float


class ValueStore(Protocol):
    """Where values are kept. Threads and event loops may share it; every implementation behaves alike.

    Where the store is shared, a look always asks it, and brings along what this process holds no copy
    of: so nothing that was invalidated or dropped is given by any process once that has returned.

    A store that is away is never an error of `get` and `put`: this process then answers out of its own
    memory, says so with `alone`, and asks the store again when it may be back.
    """

    @property
    def remote(self) -> bool:
        """Whether looking waits for another process."""

    async def get(self, namespace: str, key: str, *, claim: float = 0.0) -> Sought:
        """What is kept.

        Args:
            claim: where nothing is there, take the right to make the value for so many seconds, among
                all who share the store; 0 takes none.
        """

    async def put(
        self, namespace: str, key: str, data: bytes, seconds: float, *, mark: str = "", token: str = ""
    ) -> bool:
        """Keep a value. Whether it was: not where it is too large, or was invalidated since `mark`.

        Args:
            seconds: how long it is good.
            mark: of the look before it was made; empty: it is kept in any case.
            token: a right to make it that is given back with it, kept or not.
        """

    async def touch(self, namespace: str, key: str, seconds: float) -> bool:
        """Let what is kept be good for so many seconds from now. Whether there was anything."""

    async def drop(self, namespace: str, key: str) -> bool:
        """Forget one value. Whether there was one. Raises `StoreError` where the store is away."""

    async def renew(self, namespace: str, key: str, token: str, seconds: float) -> bool:
        """Hold a right to make a value for so many seconds more. Whether it was still held."""

    async def release(self, namespace: str, key: str, token: str) -> None:
        """Give a right to make a value back. Harmless where another has it by now."""

    async def invalidate(self, namespace: str, key: str = "*") -> int:
        """Forget what is kept in namespaces and under keys that match, `*` standing for anything. How
        many there were. Raises `StoreError` where the store is away: some may still be there."""

    async def share(self) -> ValueShare | None:
        """What the shared store holds, asked now; None: there is none. Raises `StoreError`."""

    def figures(self) -> ValueFigures:
        """What the memory of this process holds."""

    async def aclose(self) -> None:
        """Give connections back. It keeps nothing from then on."""
