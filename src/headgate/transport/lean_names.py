"""Addresses of hosts, asked for once for all who wait for them, and remembered for a minute."""

from __future__ import annotations

import asyncio
import socket
from typing import TypeAlias

__all__ = ["Address", "Names"]

Address: TypeAlias = tuple[
    int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
]
"""What `getaddrinfo` gives."""

_LIFE_SECONDS = 60.0
"""Providers' names live one to five minutes; the system hands no times on."""

_MOST_NAMES = 256


class Names:
    """Of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._known: dict[tuple[str, int], tuple[float, list[Address]]] = {}
        self._asked: dict[tuple[str, int], asyncio.Task[list[Address]]] = {}

    async def find(self, host: str, port: int) -> list[Address]:
        """Addresses to connect to, one at least. Raises `OSError`, of a name unknown `socket.gaierror`.

        The system is asked in a thread, and a thread can't be called back: so one question serves
        everybody, and goes on where those who asked it were cancelled.
        """
        literal = _literal(host, port)
        if literal is not None:
            return [literal]
        key = (host, port)
        known = self._known.get(key)
        if known is not None and known[0] > self._loop.time():
            return known[1]
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = self._loop.create_task(self._ask(host, port))
            task.add_done_callback(lambda done: self._told(key, done))
        return await asyncio.shield(task)

    def forget(self, host: str, port: int) -> None:
        """Nobody answers there: ask anew next time."""
        self._known.pop((host, port), None)

    async def aclose(self) -> None:
        """Leave questions unanswered."""
        asked = list(self._asked.values())
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    async def _ask(self, host: str, port: int) -> list[Address]:
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        return [tuple(entry) for entry in found]  # type: ignore[misc]

    def _told(self, key: tuple[str, int], task: asyncio.Task[list[Address]]) -> None:
        self._asked.pop(key, None)
        if not task.cancelled() and task.exception() is None:
            if len(self._known) >= _MOST_NAMES:
                self._known.clear()
            self._known[key] = (self._loop.time() + _LIFE_SECONDS, task.result())


def _literal(host: str, port: int) -> Address | None:
    """The address that is meant where the host is one."""
    kind = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    try:
        if ":" not in host:
            socket.inet_pton(socket.AF_INET, host)
            return (socket.AF_INET, *kind, (host, port))
        if "%" not in host:
            socket.inet_pton(socket.AF_INET6, host)
            return (socket.AF_INET6, *kind, (host, port, 0, 0))
    except OSError:
        pass
    return None
