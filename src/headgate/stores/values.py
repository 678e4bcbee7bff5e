"""Values in the memory of one process: bounded by number and by bytes, the one used longest ago leaves.

How long a value is good is counted by the monotonic clock: a wall clock that is set makes nothing good
again.
"""

from __future__ import annotations

from itertools import count
from threading import Lock

from headgate.core.ports import Clock
from headgate.core.values import Sought, ValueFigures, ValueShare
from headgate.policy.reply_cache import Invalidations, ReplyShelf, matches

__all__ = ["SEPARATOR", "MemoryValues", "place"]

SEPARATOR = "\n"
"""Between a namespace and a key; neither holds one."""

_MANY_CLAIMS = 4096
"""Rights to make a value from which those that lapsed are looked for, and again at each doubling."""


def place(namespace: str, key: str) -> str:
    """A namespace and a key as one name."""
    return f"{namespace}{SEPARATOR}{key}"


class MemoryValues:
    """A `ValueStore` in memory. Threads and event loops may share it.

    Args:
        most_entries, most_bytes: its bounds; 0 of either keeps nothing.
        longest: seconds after which a value leaves this memory, however long it is good.
    """

    remote = False

    def __init__(
        self, clock: Clock, *, most_entries: int, most_bytes: int, longest: float = float("inf")
    ) -> None:
        self._clock = clock
        self._longest = longest
        self._lock = Lock()
        self._shelf = ReplyShelf(most_entries, most_bytes)
        self._invalidations = Invalidations()
        self._claims: dict[str, tuple[str, float]] = {}  # token and monotonic second by place
        self._many = _MANY_CLAIMS
        self._numbers = count(1)

    async def get(self, namespace: str, key: str, *, claim: float = 0.0) -> Sought:
        """See `ValueStore.get`."""
        return self.look(namespace, key, claim=claim)

    def look(self, namespace: str, key: str, *, claim: float = 0.0) -> Sought:
        """The same, without waiting."""
        now, name = self._clock.monotonic(), place(namespace, key)
        with self._lock:
            shelved = self._shelf.get(name, now)
            mark = str(self._invalidations.turn)
            if shelved is not None:
                return Sought(shelved.value, shelved.until - now, local=True, mark=mark)
            token = self._claim(name, now, claim) if claim > 0 else None
        return Sought(mark=mark, token=token, claimed=claim > 0 and token is None)

    async def put(
        self, namespace: str, key: str, data: bytes, seconds: float, *, mark: str = "", token: str = ""
    ) -> bool:
        """See `ValueStore.put`."""
        return self.keep(namespace, key, data, seconds, mark=mark, token=token)

    def keep(
        self,
        namespace: str,
        key: str,
        data: bytes,
        seconds: float,
        *,
        mark: str = "",
        token: str = "",
        stamp: int = 0,
    ) -> bool:
        """The same, without waiting.

        Args:
            stamp: what a shared store knows this value by.
        """
        now, name = self._clock.monotonic(), place(namespace, key)
        until = now + min(seconds, self._longest)
        with self._lock:
            self._give_back(name, token)
            if mark and self._invalidations.since(int(mark), namespace):
                return False
            return self._shelf.put(
                name, data, made=now, until=until, now=now, namespace=namespace, stamp=stamp
            )

    def stamp_of(self, namespace: str, key: str) -> int | None:
        """What a shared store knows the value by; None: there is no value here."""
        with self._lock:
            shelved = self._shelf.get(place(namespace, key), self._clock.monotonic())
            return None if shelved is None else shelved.stamp

    async def touch(self, namespace: str, key: str, seconds: float) -> bool:
        """See `ValueStore.touch`."""
        now, name = self._clock.monotonic(), place(namespace, key)
        with self._lock:
            shelved = self._shelf.get(name, now)
            if shelved is None:
                return False
            until = now + min(seconds, self._longest)
            return self._shelf.put(
                name,
                shelved.value,
                made=now,
                until=until,
                now=now,
                namespace=namespace,
                stamp=shelved.stamp,
            )

    async def drop(self, namespace: str, key: str) -> bool:
        """See `ValueStore.drop`."""
        return self.forget(namespace, key)

    def forget(self, namespace: str, key: str) -> bool:
        """The same, without waiting."""
        with self._lock:
            return self._shelf.drop(place(namespace, key))

    async def renew(self, namespace: str, key: str, token: str, seconds: float) -> bool:
        """See `ValueStore.renew`."""
        now, name = self._clock.monotonic(), place(namespace, key)
        with self._lock:
            held = self._claims.get(name)
            if held is None or held[0] != token:
                return False
            self._claims[name] = (token, now + seconds)
            return True

    async def release(self, namespace: str, key: str, token: str) -> None:
        """See `ValueStore.release`."""
        with self._lock:
            self._give_back(place(namespace, key), token)

    async def invalidate(self, namespace: str, key: str = "*") -> int:
        """See `ValueStore.invalidate`."""
        return self.sweep(namespace, key)

    def sweep(self, namespace: str, key: str = "*") -> int:
        """The same, without waiting."""
        with self._lock:
            # What is being made in these namespaces is refused when it comes, whatever its key: what is
            # made anew once too often does less harm than what is given although it was forgotten.
            self._invalidations.note(namespace)
            if key == "*":
                return self._shelf.invalidate(namespace)
            named = self._shelf.under(namespace)
            found = [name for name in named if matches(key, name.partition(SEPARATOR)[2])]
            return sum(self._shelf.drop(name) for name in found)

    async def share(self) -> ValueShare | None:
        """See `ValueStore.share`: there is none."""
        return None

    def figures(self) -> ValueFigures:
        """See `ValueStore.figures`."""
        with self._lock:
            shelf = self._shelf
            return ValueFigures(
                entries=len(shelf),
                bytes=shelf.bytes,
                most_entries=shelf.most_entries,
                most_bytes=shelf.most_bytes,
                expired=shelf.expired,
                evicted=shelf.evicted,
            )

    async def aclose(self) -> None:
        """See `ValueStore.aclose`."""
        with self._lock:
            self._shelf.resize(0, 0)

    def _claim(self, name: str, now: float, seconds: float) -> str | None:
        held = self._claims.get(name)
        if held is not None and now < held[1]:
            return None
        if len(self._claims) >= self._many:
            self._claims = {other: one for other, one in self._claims.items() if now < one[1]}
            self._many = max(_MANY_CLAIMS, 2 * len(self._claims))
        token = f"m{next(self._numbers)}"
        self._claims[name] = (token, now + seconds)
        return token

    def _give_back(self, name: str, token: str) -> None:
        held = self._claims.get(name)
        if held is not None and held[0] == token:
            del self._claims[name]
