"""A client of a stack: requests on connections of their own, and a load that remembers every answer."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from headgate.core.ports import Clock

__all__ = ["Answer", "Asker", "Load", "samples", "until"]

LONGEST = 60.0


class Answer:
    """What came back; status 0 where nothing did."""

    def __init__(self, status: int, body: bytes, headers: Any) -> None:
        self.status = status
        self.body = body
        self.headers = headers


class Asker:
    """Each request is on a connection of its own: nginx shares those out, and none is kept that a
    server may just be closing."""

    def __init__(self, address: str, key: str) -> None:
        self._address = address
        self._headers = {"authorization": f"Bearer {key}"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Asker:
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        timeout = aiohttp.ClientTimeout(total=LONGEST)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def get(self, path: str, *, port: int = 0) -> Answer:
        return await self.ask("GET", path, port=port)

    async def subtopics(self, topic: str, *, port: int = 0, repeatable: bool = False) -> Answer:
        """A POST; its sender may say that it can be repeated."""
        headers = {"idempotency-key": topic} if repeatable else {}
        return await self.ask("POST", "/api/create_subtopics", {"topic": topic}, headers, port=port)

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        *,
        port: int = 0,
    ) -> Answer:
        """Of nginx, or of the instance on a port."""
        assert self._session is not None
        base = f"http://127.0.0.1:{port}" if port else self._address
        try:
            async with self._session.request(
                method, base + path, json=body, headers={**self._headers, **(headers or {})}
            ) as reply:
                return Answer(reply.status, await reply.read(), reply.headers)
        except (aiohttp.ClientError, TimeoutError) as error:
            return Answer(0, repr(error).encode(), {})

    async def events(self, path: str, body: Any) -> AsyncIterator[str]:
        """Names of the events of a stream, as they come."""
        assert self._session is not None
        headers = {**self._headers, "accept": "text/event-stream"}
        async with self._session.post(self._address + path, json=body, headers=headers) as reply:
            assert reply.status == 200, await reply.read()
            async for line in reply.content:
                if line.startswith(b"event: "):
                    yield line.decode().removeprefix("event: ").strip()


class Load:
    """Clients that ask again and again, one after another request, while a context lasts.

    Attributes:
        answers: how many of each kind got which status.
    """

    def __init__(self, clock: Clock, *, pause: float = 0.12) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()
        self.last: dict[str, bytes] = {}
        self._clock = clock
        self._pause = pause
        self._over = False

    @property
    def failed(self) -> dict[tuple[str, int], tuple[int, bytes]]:
        """All that was not a 200, with the last body of its kind."""
        return {
            kind: (count, self.last[kind[0]]) for kind, count in self.answers.items() if kind[1] != 200
        }

    @asynccontextmanager
    async def of(self, *kinds: tuple[str, Callable[[], Awaitable[Answer]]]) -> AsyncIterator[None]:
        self._over = False
        async with asyncio.TaskGroup() as group:
            for name, ask in kinds:
                group.create_task(self._again(name, ask))
            try:
                yield
            finally:
                self._over = True

    async def _again(self, name: str, ask: Callable[[], Awaitable[Answer]]) -> None:
        while not self._over:
            answer = await ask()
            self.answers[name, answer.status] += 1
            if answer.status != 200:
                self.last[name] = answer.body[:300]
            await self._clock.sleep(self._pause)


async def until(clock: Clock, done: Callable[[], Awaitable[Any]], seconds: float = LONGEST) -> Any:
    """What is awaited of other processes; looked at again and again."""
    end = clock.monotonic() + seconds
    while not (found := await done()) and clock.monotonic() < end:
        await clock.sleep(0.1)
    return found


def samples(exposition: bytes, name: str) -> dict[str, float]:
    """The series of a metric, by their labels as they stand there."""
    pattern = rf"^{re.escape(name)}(\{{.*\}})? ([\d.eE+-]+)$"
    found = re.findall(pattern, exposition.decode(), re.MULTILINE)
    return {labels: float(value) for labels, value in found}
