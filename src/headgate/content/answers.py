"""How answers leave: JSON whole, or as events while the work goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse

from headgate.content.problems import FAULT, Problem, problem_of
from headgate.content.quota_config import QuotaConfig
from headgate.core.errors import HeadgateError
from headgate.core.ports import Clock
from headgate.core.request_ids import REQUEST_ID

__all__ = ["Events", "JsonAnswer", "refusal"]

_log = logging.getLogger("headgate.content")

HEARTBEAT_SECONDS = 15.0
"""Between comments that keep proxies from closing a stream in which nothing happens."""


class JsonAnswer(Response):
    """A JSON body; the same value has the same bytes."""

    media_type = "application/json"

    def __init__(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        super().__init__(msgspec.json.encode(value), status, headers)


def refusal(problem: Problem) -> JsonAnswer:
    """An error as it is sent."""
    return JsonAnswer(problem.body, problem.status, problem.headers)


class Events(StreamingResponse):
    """Server-sent events of work under way: `progress` each time some of it is done, then `done` or
    `error`. The work ends with its reader.

    Args:
        work: does it; is given what to tell progress with.
        abandoned: called where nobody was left to read before the work began.

    Attributes:
        ended: called once it is all over.
        failed: hears what kind of error the work ended with.
    """

    def __init__(
        self,
        work: Callable[[Callable[[Any], Awaitable[None]]], Awaitable[Any]],
        request_id: str,
        clock: Clock,
        quota: QuotaConfig | None = None,
        abandoned: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        self._pieces = self._told()
        super().__init__(self._pieces, media_type="text/event-stream", headers=headers)
        self._work = work
        self._request_id = request_id
        self._clock = clock
        self._quota = quota
        self._abandoned = abandoned
        self._begun = False
        self.ended: Callable[[], None] = lambda: None
        self.failed: Callable[[str], None] = lambda _kind: None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send it, and end the work when nobody reads any more."""
        token = REQUEST_ID.set(self._request_id)
        try:
            await super().__call__(scope, receive, send)
        finally:
            try:
                await self._pieces.aclose()
                if not self._begun and self._abandoned is not None:
                    await self._abandoned()
            finally:
                self.ended()
                REQUEST_ID.reset(token)

    async def _told(self) -> AsyncGenerator[bytes]:
        queue: asyncio.Queue[tuple[str, Any] | None] = asyncio.Queue()

        async def hear(progress: Any) -> None:
            queue.put_nowait(("progress", progress))

        async def run() -> None:
            try:
                queue.put_nowait(("done", await self._work(hear)))
            except HeadgateError as error:
                problem = problem_of(error, self._request_id, self._quota)
                self.failed(problem.kind)
                queue.put_nowait(("error", {**problem.body, "status": problem.status}))
            except Exception as error:  # noqa: BLE001 - its reader is told, and the log
                _log.exception("request=%s failed in its stream", self._request_id, exc_info=error)
                self.failed("fault")
                body = {"error": FAULT, "request_id": self._request_id, "status": 500}
                queue.put_nowait(("error", body))
            finally:
                queue.put_nowait(None)

        self._begun = True
        task = asyncio.get_running_loop().create_task(run())
        try:
            yield b": begun\n\n"
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        told = await queue.get()
                except TimeoutError:
                    yield b": working\n\n"
                    continue
                if told is None:
                    break
                name, value = told
                yield b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(value))
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
