"""The seams between the routes of the content service and the rooms that serve them.

The routes (`application.py`) know these words alone; `cache*.py` implements what keeps results,
`visitors.py` what keeps sessions, `page*.py` the page. Where a room is switched off its place is taken
by the class here that does nothing and says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

__all__ = [
    "Addition",
    "Json",
    "Kept",
    "Layer",
    "Layers",
    "NoLayers",
    "NoResults",
    "ReplyFacts",
    "Results",
    "StoreState",
]

Json: TypeAlias = Any
"""A value that JSON can hold: None, booleans, numbers, texts, lists and objects of them."""

Layer = Literal["memory", "redis"]


class Kept(Struct, frozen=True):
    """A value, and where it came from.

    Attributes:
        value: as it was kept, falsy ones and None too.
        layer: that had it; None: it was made just now.
    """

    value: Json
    layer: Layer | None = None

    @property
    def hit(self) -> bool:
        """Whether a cache had it."""
        return self.layer is not None


class StoreState(Struct, frozen=True):
    """The shared store as `/api/ready` tells of it.

    Attributes:
        enabled: whether one is configured.
        answers: whether it answered just now.
        seconds: how long that took; None where there was no answer.
    """

    enabled: bool = False
    answers: bool = False
    seconds: float | None = None


class Layers(Protocol):
    """Results in memory over a shared store. Keys are readable texts; what is kept is JSON.

    Nothing here but `invalidate` and `clear` raises for a store that is away: memory serves, and the
    store is tried again.
    """

    async def get(self, namespace: str, key: str) -> Kept | None:
        """What is kept under a key; None: nothing that is still good."""

    async def peek(self, namespace: str, key: str) -> Kept | None:
        """The same for who asks with `get_or_make` next where nothing is there, and is counted then."""

    async def put(self, namespace: str, key: str, value: Json, ttl: float) -> None:
        """Keep a value for so many seconds."""

    async def delete(self, namespace: str, key: str) -> bool:
        """Forget one. Whether there was one."""

    async def get_or_make(
        self, namespace: str, key: str, ttl: float, make: Callable[[], Awaitable[Json]]
    ) -> Kept:
        """What is kept under a key, or what `make` gives, which is kept then. Of several who ask at
        once, in whatever process, one makes it; what `make` raises is raised to all of them, and
        nothing is kept."""

    async def invalidate(self, namespace: str, pattern: str = "*") -> int:
        """Forget what is kept in a namespace under readable keys that match a glob. How many. Raises
        `StoreError` where the shared store is away: some may still be there."""

    async def clear(self) -> int:
        """Forget everything. How many values. Raises `StoreError`, as `invalidate` does."""

    def stats(self) -> Mapping[str, Json]:
        """Counts in the accepted words, as `/api/cache/stats` tells them."""

    async def state(self) -> StoreState:
        """The shared store, asked now."""

    async def aclose(self) -> None:
        """Give connections back."""


class Results(Protocol):
    """Replies that can be fetched again by their content (S4-11)."""

    async def keep(self, body: bytes) -> str | None:
        """Keep the body of a reply under its SHA-256, in hexadecimal digits, which is returned. None:
        it is not kept, and the reply carries no `Content-Location`."""


class ReplyFacts(Struct, frozen=True):
    """What decides how a reply may be cached on its way.

    Attributes:
        endpoint: name of the handler, such as `create_subtopics`.
        private: callers have keys, so that no reply is everybody's.
        admin: of a route that only an operator may use.
    """

    endpoint: str
    private: bool = False
    admin: bool = False


class Addition(Protocol):
    """Something that joins the application: routes of its own, and a look at each reply."""

    def routes(self) -> Sequence[BaseRoute]:
        """Routes, asked for once. They are as open as the others are: the caller is known by then."""

    def dress(self, request: Request, response: Response, facts: ReplyFacts) -> None:
        """Add headers or a cookie to a reply before it is sent. Also for routes of `routes`."""

    async def enter(self, request: Request) -> None:
        """A request begins, its caller is known: load what belongs to it into `request.state`. What
        this raises is answered with 500."""


class NoLayers:
    """Keeps nothing: every value is made anew."""

    async def get(self, namespace: str, key: str) -> Kept | None:
        """Nothing."""
        del namespace, key
        return None

    async def peek(self, namespace: str, key: str) -> Kept | None:
        """Nothing."""
        del namespace, key
        return None

    async def put(self, namespace: str, key: str, value: Json, ttl: float) -> None:
        """Forgets it."""

    async def delete(self, namespace: str, key: str) -> bool:
        """There was none."""
        del namespace, key
        return False

    async def get_or_make(
        self, namespace: str, key: str, ttl: float, make: Callable[[], Awaitable[Json]]
    ) -> Kept:
        """What `make` gives."""
        del namespace, key, ttl
        return Kept(await make())

    async def invalidate(self, namespace: str, pattern: str = "*") -> int:
        """There was none."""
        del namespace, pattern
        return 0

    async def clear(self) -> int:
        """There was none."""
        return 0

    def stats(self) -> Mapping[str, Json]:
        """That it is off."""
        return {"enabled": False}

    async def state(self) -> StoreState:
        """There is none."""
        return StoreState()

    async def aclose(self) -> None:
        """Nothing is held open."""


class NoResults:
    """Keeps no replies."""

    async def keep(self, body: bytes) -> str | None:
        """It does not."""
        del body
        return None
