"""Kept answers, and where they live."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from headgate.core.call import Reply

__all__ = ["CacheFigures", "Found", "KeptReply", "ReplyCache"]


class KeptReply(Struct, frozen=True):
    """A complete, normal answer that is remembered. Times are Unix seconds.

    A cache counts how old an answer is by a clock that does not jump, and tells its times by the
    machine's clock of the moment: they are for that moment, not for keeping.

    Attributes:
        reply: as it came, before anything was put back into it.
        model: that was asked.
        at: when it came.
        fresh_until: until when it is given without asking again.
        revalidate_until: until when it is given while a new one is asked for.
        rescue_until: until when it may be given where the upstream fails; then it is forgotten.
    """

    reply: Reply
    model: str
    at: float
    fresh_until: float
    revalidate_until: float
    rescue_until: float


class Found(Struct, frozen=True):
    """What a look into a cache found.

    Attributes:
        kept: an answer that may be given for something; its times say for what.
        mark: of this moment: `put` wants it, to know whether the answer was invalidated meanwhile.
        token: the right to ask the upstream, where it was wanted and free; `""` where nobody could be
            asked for it.
        claimed: somebody else has that right.
    """

    kept: KeptReply | None = None
    mark: int = 0
    token: str | None = None
    claimed: bool = False


class CacheFigures(Struct, frozen=True):
    """What a cache holds in this process, and did for it. Counts are since it was made.

    Attributes:
        entries, bytes, most_bytes: in memory, the bookkeeping of each entry included.
        hits, misses: look-ups with and without an answer that could be given at once.
        expired: answers that left because their time was up.
        evicted: answers that left because room was needed.
        corrupt: answers of the shared store that could not be read; they were dropped.
        failed: look-ups and writes that the shared store did not answer.
    """

    entries: int = 0
    bytes: int = 0
    most_bytes: int = 0
    hits: int = 0
    misses: int = 0
    expired: int = 0
    evicted: int = 0
    corrupt: int = 0
    failed: int = 0


class ReplyCache(Protocol):
    """Where answers are kept. Threads and event loops may share it; every implementation behaves alike.

    Keys are digests of questions, of their partition and namespace too (`policy/recall_key.py`). An
    answer that cannot be read or written is as good as none: what fails is counted and logged once,
    never raised into a call.
    """

    @property
    def remote(self) -> bool:
        """Whether looking waits for another process."""

    async def look(
        self, key: str, namespace: str = "", *, claim: float = 0.0, counted: bool = True
    ) -> Found:
        """The answer, as long as it may be given for anything.

        Args:
            claim: where no fresh answer is there, take the right to ask the upstream this question for
                so many seconds, among all who share the cache; 0 takes none.
            counted: as a hit or a miss.
        """

    async def put(
        self, key: str, kept: KeptReply, *, namespace: str = "", mark: int = 0, token: str = ""
    ) -> bool:
        """Keep an answer. Whether it was: not where it is too large, or was invalidated since `mark`.

        Args:
            mark: of the look before the answer was asked for.
            token: a right to ask that is given back with it, kept or not.
        """

    async def renew(self, key: str, token: str, seconds: float) -> bool:
        """Hold a right to ask for so many seconds more. Whether it was still held."""

    async def release(self, key: str, token: str) -> None:
        """Give a right to ask back. Harmless where another has it by now."""

    async def invalidate(self, pattern: str) -> int:
        """Drop what is kept under namespaces that match, `*` standing for anything. How many there
        were, as far as that is known. Once it returns none of them is given any more, by any process.

        Raises:
            StoreError: the shared store did not answer; some may still be there.
        """

    async def clear(self) -> int:
        """Drop everything; as `invalidate` otherwise."""

    def figures(self) -> CacheFigures:
        """What it holds and did."""

    async def aclose(self) -> None:
        """Give connections back. It keeps nothing from then on."""
