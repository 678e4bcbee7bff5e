"""The half of a client that is the same whichever upstream it calls.

A door adds its own words: what a call is named, what it takes, what its errors are. Running the call,
telling what it took, reading a stream to its end, the status, metrics and closing are here, once.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager
from logging import Logger
from typing import Any, ClassVar, Self, TypedDict, cast

from headgate.core.call import Call, Chunk, Reply
from headgate.core.errors import ConfigurationError
from headgate.core.ports import Clock
from headgate.engine.passage import Passage
from headgate.engine.stream import ReplyStream
from headgate.wiring.blocking import Bridge
from headgate.wiring.build import Engine

__all__ = ["Door", "Took"]


class Took(TypedDict):
    """What an answer took, as every door's reply tells it. Times in seconds."""

    model: str
    key_name: str
    attempts: int
    rotations: int
    retries: int
    waited: float
    elapsed: float
    request_id: str


class Door(ABC):
    """A client's engine, its synchronous side, its status and its end.

    Attributes:
        _group: what the provider counts quota against, as keys name it: `project`, `organisation`.
        _metric_prefix: what the names of the metrics of its keys begin with.
        _provider: what the upstream is called in metrics.
        _cut: the finish reason of an answer that ended at the token limit.

    Args:
        log: of the door.
        errors: lets the engine's errors leave as the door's own.
    """

    _group: ClassVar[str]
    _metric_prefix: ClassVar[str]
    _provider: ClassVar[str]
    _cut: ClassVar[str]

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        log: Logger,
        errors: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._log = log
        self._errors = errors
        self._bridge = Bridge()
        self._watched: list[object] = []  # by the metrics of a registry, as long as it is held here

    # ── calls ───────────────────────────────────────────────────────────────────────────────────

    async def _answered(self, call: Call) -> tuple[Reply, Took]:
        """The whole answer to a call, and what it took."""
        with self._errors():
            answer, passage = await self._engine.pipeline.run(call)
        reply = cast("Reply", answer)
        self._warn_if_cut(reply.finish_reason, call)
        return reply, self._took(reply, passage)

    async def _streamed(self, call: Call) -> AsyncGenerator[Chunk]:
        """The answer to a call piece by piece; leaving early gives everything back."""
        with self._errors():
            answer, _ = await self._engine.pipeline.run(call)
            stream = cast("ReplyStream", answer)
            try:
                async for chunk in stream:
                    yield chunk
            finally:
                await stream.aclose()
        self._warn_if_cut(stream.finish_reason, call)

    def _took(self, reply: Reply, passage: Passage) -> Took:
        assert passage.lease is not None  # noqa: S101 - an answer came with a key
        return Took(
            model=reply.model or passage.model,
            key_name=passage.lease.key.name,
            attempts=passage.attempts,
            rotations=passage.rotations,
            retries=passage.retries,
            waited=passage.waited,
            elapsed=self._clock.monotonic() - passage.started,
            request_id=passage.call.request_id,
        )

    def _warn_if_cut(self, reason: str | None, call: Call) -> None:
        if reason == self._cut:
            self._log.warning("call %s: the answer was cut at the token limit", call.request_id)

    # ── status ──────────────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def get_key_metrics(self) -> dict[str, Any]:
        """Totals, and per key its state and metrics."""

    @abstractmethod
    def get_status_summary(self) -> str:
        """The status as text, a line a key."""

    def log_status(self) -> None:
        """Log the status summary as one INFO record. Never raises, so it may stand in `finally`."""
        self._log.info("%s", self.get_status_summary())

    async def log_status_every(self, seconds: float = 3600.0) -> None:
        """Log the status for ever: run it as a task beside your work, and cancel it at the end."""
        while True:
            await self._clock.sleep(seconds)
            self.log_status()

    def export_metrics(self, registry: object = None) -> None:
        """Register the metrics of this client's keys, and count its calls from now on; read at each
        scrape. What there is: docs/reference/metrics.md.

        Args:
            registry: a `prometheus_client` registry, or None for its default one. A registry takes one
                client of each provider.

        Raises:
            ConfigurationError: the `metrics` extra is not installed.
            ValueError: the registry has them already.
        """
        try:
            from prometheus_client import REGISTRY, CollectorRegistry  # noqa: PLC0415 - an extra

            from headgate.telemetry.keys import KeyCollector  # noqa: PLC0415
            from headgate.wiring.metrics import count_calls  # noqa: PLC0415
        except ImportError:
            raise ConfigurationError(
                "Metrics need prometheus-client: install headgate[metrics]."
            ) from None
        target = REGISTRY if registry is None else registry
        if not isinstance(target, CollectorRegistry):
            raise TypeError(f"registry takes a CollectorRegistry; got {type(target).__name__}")
        target.register(
            KeyCollector(self.get_key_metrics, prefix=self._metric_prefix, group=self._group)
        )
        self._watched.append(count_calls(target, self._provider, self._engine, self._clock))

    # ── closing ─────────────────────────────────────────────────────────────────────────────────

    async def aclose(self) -> None:
        """Close the connections of the running loop and of the synchronous twins."""
        await self._engine.aclose()
        if self._bridge.running:
            await asyncio.to_thread(self._bridge.stop)

    def close(self) -> None:
        """Close the connections of the synchronous twins."""
        self._bridge.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
