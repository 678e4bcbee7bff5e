"""What is known of files that the upstream keeps: which domain has which, and until when.

Nothing here has to be saved. A file's name follows from its content, so where another process uploaded
it, or this one before it began anew, the upstream says that there is one of that name.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from threading import Lock
from typing import NamedTuple

from headgate.core.ports import Clock

__all__ = ["Lodged", "Lodgings"]

MOST_KNOWN = 100_000
"""Files that are remembered; of a forgotten one the upstream is asked again."""

LEAST_LEFT = 900.0
"""Seconds a file must still be kept to be named by a call: it is read while the call is answered, and
calls may wait."""

_FIRST_RATE = 5_000_000.0
"""Bytes a second that an upload is expected to make before one was seen: a guess of ours."""

_TELLING = 1_000_000
"""Bytes from which on an upload says how fast uploads are: a smaller one says how far away the upstream
is."""

_LEARN = 0.3
_LEAST_SECONDS = 1.0


class Lodged(NamedTuple):
    """A file that a domain has, under this address, until this Unix time."""

    uri: str
    until: float
    size: int


class Lodgings:
    """Files by domain and digest. Threads and event loops may share it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._known: OrderedDict[tuple[str, str], Lodged] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._rate = _FIRST_RATE

    def find(self, domain: str, digest: str) -> Lodged | None:
        """Where a domain has a file; None: it is not known to have it for long enough."""
        with self._lock:
            known = self._known.get((domain, digest))
        return known if known is not None and self.lasts(known.until) else None

    def lasts(self, until: float) -> bool:
        """Whether a file that is kept until this Unix time may be named by a call."""
        return until - self._clock.wall() >= LEAST_LEFT

    def keep(self, domain: str, digest: str, lodged: Lodged) -> None:
        """A domain has a file."""
        with self._lock:
            self._drop((domain, digest))
            self._known[domain, digest] = lodged
            self._sizes[domain] = self._sizes.get(domain, 0) + lodged.size
            if len(self._known) > MOST_KNOWN:
                self._drop(next(iter(self._known)))

    def forget(self, domain: str, digest: str) -> None:
        """A domain turned out not to have a file."""
        with self._lock:
            self._drop((domain, digest))

    def _drop(self, place: tuple[str, str]) -> None:
        known = self._known.pop(place, None)
        if known is not None:
            self._sizes[place[0]] -= known.size

    def holders(self, domains: Iterable[str], digests: Collection[str]) -> list[str]:
        """The domains that have all of these files."""
        return [name for name in domains if all(self.find(name, digest) for digest in digests)]

    def emptiest(self, domains: Iterable[str]) -> list[str]:
        """Domains, those first whose files take the least room: a project's room is bounded."""
        names = list(domains)
        if len(names) < 2:  # nothing to choose from: most calls with files come by here
            return names
        now = self._clock.wall()
        with self._lock:
            while self._known and next(iter(self._known.values())).until <= now:
                self._drop(next(iter(self._known)))
            return sorted(names, key=lambda name: self._sizes.get(name, 0))

    # ── how long an upload takes ────────────────────────────────────────────────────────────────

    def took(self, size: int, seconds: float) -> None:
        """So many bytes were uploaded in so many seconds."""
        if size < _TELLING:
            return
        rate = size / max(seconds, 0.001)
        with self._lock:
            self._rate += _LEARN * (rate - self._rate)

    def seconds_for(self, size: int) -> float:
        """How long uploading so many bytes is expected to take: as long is worth waiting for a domain
        that has them."""
        return max(_LEAST_SECONDS, size / self._rate)
