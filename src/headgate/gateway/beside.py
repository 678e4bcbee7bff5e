"""An application that a gateway serves beside its surfaces, on paths of its own."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from headgate.gateway.incoming import Receive, Scope, Send
from headgate.gateway.visits import CONNECTION, Visit, Visits

__all__ = ["Beside", "serve_beside"]


class Beside(Protocol):
    """An ASGI application that answers for itself: callers, errors, counts."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

    def owns(self, path: str) -> bool:
        """Whether it answers on a path. None of them may be a surface's, or the gateway's own."""

    def drain(self) -> None:
        """The gateway is about to end."""

    async def aclose(self) -> None:
        """Give back what it holds."""


async def serve_beside(
    other: Beside, visits: Visits, scope: Scope, receive: Receive, send: Send
) -> None:
    """Serve a request of the other application, which counts as one of the gateway's: its end waits for
    it, and a client that goes away ends it."""

    async def work(other: Beside, _visit: Visit) -> None:
        await other(scope, receive, send)

    if (
        scope.get(CONNECTION) is None
    ):  # a server that tells nothing of clients: the body is not ours to read
        await other(scope, receive, send)
    else:
        await visits.serve(scope, receive, partial(work, other))
