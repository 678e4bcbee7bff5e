"""A folder for files of processes that belong together: gone with the last of them, however they end.

They hold the writing end of a pipe. A shell reads from the other, and takes the folder away once nobody
is left, also where all were killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from asyncio.subprocess import DEVNULL, Process
from pathlib import Path

__all__ = ["HeldFolder", "run_beside"]

_KEEPER = 'cat >/dev/null; rm -rf -- "$1"'
_END_SECONDS = 10.0
_LONGEST_PATH = 90
"""Of the folder: a unix socket in it may have 104 bytes on macOS, and 108 on Linux."""


class HeldFolder:
    """A new folder that only its user may enter.

    Attributes:
        path: of the folder.
        holder: the file that holds it: a process that inherits this one holds it too.
        watched: the file that ends when nobody holds the other any more; nothing comes out of it.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="headgate-"))
        if len(os.fsencode(self.path)) > _LONGEST_PATH:
            self.path.rmdir()
            self.path = Path(tempfile.mkdtemp(prefix="headgate-", dir="/tmp"))
        self.watched, self.holder = os.pipe()
        self._keeper: Process | None = None

    async def open(self) -> None:
        """Have it taken away once nobody holds it."""
        self._keeper = await run_beside(_KEEPER, str(self.path), watched=self.watched)

    async def aclose(self) -> None:
        """Let it go, and take it away."""
        for end in (self.holder, self.watched):
            os.close(end)
        if self._keeper is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._keeper.wait(), _END_SECONDS)
        shutil.rmtree(self.path, ignore_errors=True)


async def run_beside(script: str, *words: str, watched: int) -> Process:
    """Run a shell that reads from `watched`, beyond the reach of Ctrl-C, and that knows no secret of
    this process: nothing of its environment goes there."""
    return await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", script, "headgate", *words,
        stdin=watched, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )  # fmt: skip
