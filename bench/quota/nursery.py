"""Starts many programs of one adapter fast: imports it once, then forks. Standard library only.

    python -m bench.quota.nursery bench.quota.adapters.litellm_router
    stdin: {"socket": "/path", "arguments": ["simple-shuffle"]}, one line a program

The program connects to the socket and speaks the protocol there, as it would on stdin and stdout. An
adapter that can be started so has `preload()`, which imports what takes long and starts no thread, and
`main(arguments)`. What is forked has opened nothing yet: no loop, no socket, no client.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import sys
from contextlib import suppress
from types import ModuleType

__all__: list[str] = []


def main(name: str) -> None:
    """Serve until stdin ends and the last program has left."""
    module = importlib.import_module(name)
    module.preload()
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        if os.fork() == 0:
            _live(module, asked["socket"], asked["arguments"])
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _live(module: ModuleType, path: str, arguments: list[str]) -> None:
    """The rest of a program's life."""
    status = 1
    try:
        with socket.socket(socket.AF_UNIX) as home:
            home.connect(path)
            os.dup2(home.fileno(), 0)
            os.dup2(home.fileno(), 1)
        module.main(arguments)
        status = 0
    finally:
        os._exit(status)  # the parent's buffers and handlers are not ours to flush


if __name__ == "__main__":
    main(sys.argv[1])
