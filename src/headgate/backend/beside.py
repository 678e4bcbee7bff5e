"""A backend beside a gateway: with the same keys, in the same ledgers, hearing what the gateway's
callers do, so that what it tells of keys, quotas and models is true of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from headgate.backend.alerts import broken_models
from headgate.backend.commands import GeminiBackend
from headgate.core.ports import Clock, Observer, Transport
from headgate.wiring.build import Engine

__all__ = ["Beside", "backend_beside"]


@dataclass(frozen=True, slots=True)
class Beside:
    """A backend, and what its gateway does with it.

    Attributes:
        backend: the backend.
        books: to be told what the gateway's calls to Gemini do: rates, health, alerts, usage.
    """

    backend: GeminiBackend
    books: Observer

    async def renew(self) -> None:
        """The gateway's engine is another one now: the backend's next generation goes by it. Raises
        `ConfigurationError`; then everything is as it was."""
        room = self.backend._room
        if room.started is not None:
            await room.swap(room.config)


def backend_beside(
    engine: Callable[[], Engine | None],
    clock: Clock,
    *,
    observers: Sequence[Observer] = (),
    transport: Transport | None = None,
    environ: Mapping[str, str] | None = None,
) -> Beside:
    """A backend that shares keys and ledgers with an engine. Opens nothing yet.

    Args:
        engine: the gateway's of the moment; None where it calls no Gemini.
        observers: hear what the backend's own calls do; one of them writes the usage ledger, where one
            is kept: the backend writes no rows of its own.
        transport: sends the backend's calls, instead of HTTP; it stays yours.
        environ: where settings are read from; None: the process environment.
    """
    backend = GeminiBackend(clock=clock, observers=observers, transport=transport, environ=environ)
    backend._room.share(engine)
    backend._monitoring.book.writes = False

    def broken() -> tuple[str, ...]:
        beside = engine()
        return (*backend._broken(), *(() if beside is None else broken_models(beside)))

    backend._alerting.broken = broken
    return Beside(backend, backend._books)
