"""Connections to Valkey or Redis: one server, or a cluster. Nothing here knows what travels.

A connection carries one command at a time. One whose command did not end well (time-out, cancellation,
refusal) is closed, never used again, so no reply can reach a caller it was not meant for. Connections
belong to the event loop that opened them.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from headgate.core.errors import ConfigurationError
from headgate.stores.urls import OWN_OPTIONS, StoreUrl

__all__ = ["Address", "Link", "forbids", "sentence_of"]

CONNECT_SECONDS = 5.0
"""A connection may take this long to stand, so longer than a call: it is opened in the background."""

_CODES: dict[type[ResponseError], str] = {
    NoPermissionError: "NOPERM",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
}

_WORDS = re.compile(r"\b(?:OOM|READONLY|NOPERM|NOAUTH|BUSY|MISCONF|MASTERDOWN|CLUSTERDOWN|CROSSSLOT)\b")

_OURS = {
    "max_connections", "decode_responses", "protocol", "socket_timeout", "retry_on_timeout",
    *OWN_OPTIONS,
}  # fmt: skip


class Link(Protocol):
    """Where commands go. One per event loop."""

    async def run(self, *words: str | int | bytes) -> Any:
        """One command's reply. Raises `RedisError` or `OSError`; may be cancelled at any time."""

    async def facts(self) -> Mapping[str, str]:
        """What the server says of itself."""

    async def aclose(self) -> None:
        """Close every connection."""


class Address:
    """A store's URL as the client library takes it. Its text never shows the credentials.

    Args:
        url: as `StoreUrl` reads it; not `memory`.

    Raises:
        ConfigurationError: it is no such URL, or an option of it is wrong.
    """

    def __init__(self, url: str) -> None:
        try:
            read = StoreUrl.read(url)
        except ValueError as error:
            raise ConfigurationError(f"The store's URL takes {error}.") from None
        if read.memory:
            raise ConfigurationError("A shared store needs a URL, such as redis://host:6379/0.")
        self.cluster = read.cluster
        self.connections = 0  # made so far to a single server
        self._shown = str(read)
        try:
            self._options = [dict(parse_url(node)) for node in read.nodes]
            for options in self._options:
                for name in _OURS:
                    options.pop(name, None)
                _connection(options)  # opens nothing; refuses what it does not know
        except (ValueError, TypeError, RedisError):
            raise ConfigurationError(
                f"The URL of the store at {self._shown} has an option that the redis package does not "
                "know, or a value that it cannot read."
            ) from None

    def __str__(self) -> str:
        return self._shown

    def _made(self) -> None:
        self.connections += 1

    def link(self, timeout: float) -> Link:
        """Connections for the running event loop.

        Args:
            timeout: seconds a call may take.
        """
        if not self.cluster:
            return _ServerLink(self._options[0], self._made)
        return _ClusterLink(self._options, timeout)


class _Cut(AbstractConnection):
    """A connection that is cut where others are closed, also when the library itself gives it up.

    Closing would first wait until what is still to be written has been, which a server that hangs puts
    off for ever: the socket would then outlive its event loop. What is dropped has nothing to say.
    """

    async def disconnect(self, *how: Any, **more: Any) -> None:
        writer = self._writer
        if writer is not None:
            writer.transport.abort()
        await super().disconnect(*how, **more)


class _Tcp(_Cut, Connection): ...


class _Tls(_Cut, SSLConnection): ...


class _Unix(_Cut, UnixDomainSocketConnection): ...


_CLASSES: dict[type[AbstractConnection], type[AbstractConnection]] = {
    SSLConnection: _Tls,
    UnixDomainSocketConnection: _Unix,
}


def _connection(options: Mapping[str, Any]) -> AbstractConnection:
    """A connection that is yet to be opened. Raises `TypeError` for an option nobody knows."""
    given = {"socket_connect_timeout": CONNECT_SECONDS, **options}
    kind = _CLASSES.get(given.pop("connection_class", Connection), _Tcp)
    # RESP2 and no client information: a new connection is of use at once, without a round trip.
    return kind(protocol=2, driver_info=None, socket_timeout=None, **given)


class _ServerLink:
    def __init__(self, options: dict[str, Any], made: Callable[[], None]) -> None:
        self._options = options
        self._made = made
        self._free: deque[AbstractConnection] = deque()
        self._open: set[AbstractConnection] = set()
        self._opening: asyncio.Task[None] | None = None

    async def run(self, *words: str | int | bytes) -> Any:
        if self._free:
            try:
                return await self._exchange(self._free.popleft(), words)
            except RedisConnectionError:
                # It lay idle and the server closed it, as servers do. Those behind it are no younger.
                # Saying a thing twice does no harm here.
                await self._drop(*self._free)
        return await self._exchange(await self._opened(), words)

    async def facts(self) -> Mapping[str, str]:
        lines = (await self.run("INFO")).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    async def aclose(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        await self._drop(*self._open)

    async def _exchange(self, connection: AbstractConnection, words: tuple[Any, ...]) -> Any:
        try:
            await connection.send_packed_command(connection.pack_command(*words), check_health=False)
            reply = await connection.read_response()
        except NoScriptError:
            self._free.append(connection)
            raise
        except BaseException:
            await self._drop(connection)
            raise
        self._free.append(connection)
        return reply

    async def _opened(self) -> AbstractConnection:
        """A connection, opened in a task of its own: a call that gives up leaves it to the next."""
        while not self._free:
            if self._opening is None or self._opening.done():
                self._opening = asyncio.get_running_loop().create_task(self._connect())
                self._opening.add_done_callback(_heard)
            await asyncio.shield(self._opening)
        return self._free.popleft()

    async def _connect(self) -> None:
        connection = _connection(self._options)
        self._open.add(connection)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await self._drop(connection)
            raise
        self._made()
        self._free.append(connection)

    async def _drop(self, *connections: AbstractConnection) -> None:
        for connection in connections:
            self._open.discard(connection)
            if connection in self._free:
                self._free.remove(connection)
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)


class _ClusterLink:
    """redis-py finds the node of a group and follows MOVED and ASK."""

    def __init__(self, options: list[dict[str, Any]], timeout: float) -> None:
        shared = {key: value for key, value in options[0].items() if key not in ("host", "port", "db")}
        tls = shared.pop("connection_class", None) is not None
        nodes = [ClusterNode(each.get("host", "localhost"), each.get("port", 6379)) for each in options]
        self._client = RedisCluster(
            startup_nodes=nodes,
            ssl=tls,
            protocol=2,
            driver_info=None,
            socket_timeout=None,  # the guard's deadline cuts a call off, and its connection with it
            # A dead node must leave time to ask another one for the new slots.
            socket_connect_timeout=timeout / 3,
            retry=Retry(NoBackoff(), 2),
            **shared,
        )
        self._ready: asyncio.Task[Any] | None = None

    async def run(self, *words: str | int | bytes) -> Any:
        await self._initialized()
        return await self._client.execute_command(*words)

    async def facts(self) -> Mapping[str, str]:
        await self._initialized()
        node = self._client.get_random_node()
        said = await self._client.execute_command("INFO", target_nodes=node)
        return {str(name): str(value) for name, value in said.items()}

    async def aclose(self) -> None:
        if self._ready is not None:
            self._ready.cancel()
            await asyncio.wait([self._ready])
        await self._client.aclose()

    async def _initialized(self) -> None:
        """The map of slots; read in a task of its own, as it may take longer than one call has."""
        done = self._ready is not None and self._ready.done() and not self._ready.exception()
        if done:
            return
        if self._ready is None or self._ready.done():
            self._ready = asyncio.get_running_loop().create_task(self._initialize())
            self._ready.add_done_callback(_heard)
        await asyncio.shield(self._ready)

    async def _initialize(self) -> None:
        await self._client.initialize()


def _heard(task: asyncio.Task[Any]) -> None:
    """Whoever waited for it has gone; its error is no loose end."""
    if not task.cancelled():
        task.exception()


def forbids(error: ResponseError) -> bool:
    """Whether the server says that the user may not do this, which trying again does not change."""
    # Of a command within a script servers say so in words only: new ones in these, old ones in those.
    said = str(error)
    in_script = "ACL failure in script" in said or "user executing the script can't" in said
    return isinstance(error, NoPermissionError) or in_script


def sentence_of(error: BaseException) -> str:
    """What happened, in a sentence that holds no text of the server or the library but a code word."""
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return "did not answer in time"
    if isinstance(error, ResponseError):
        found = _WORDS.search(str(error))  # older servers wrap a script's error in words of their own
        return f"refused with {_CODES.get(type(error)) or (found and found[0]) or type(error).__name__}"
    if isinstance(error, RedisError | OSError):
        return f"cannot be reached or broke off ({type(error).__name__})"
    return f"answered with something else ({type(error).__name__})"
