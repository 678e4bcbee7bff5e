"""`headgate serve`, which also tells on standard output, four times a second, what it holds."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

from headgate.cli.main import app
from headgate.gateway import server

__all__ = ["main"]

_EVERY_SECONDS = 0.25
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


class _Watched(server.GatewayServer):
    async def serve(self, announce: Callable[[str], None] = lambda _: None) -> None:
        loop = asyncio.get_running_loop()
        proc = Path("/proc/self")

        def look() -> None:
            held = {
                "tasks": len(asyncio.all_tasks(loop)),
                "files": len(os.listdir(proc / "fd")),
                "threads": threading.active_count(),
                "memory": int((proc / "statm").read_text().split()[1]) * _PAGE_KIB,
                "visits": len(self.gateway.visits),
            }
            print(json.dumps(held), flush=True)
            loop.call_later(_EVERY_SECONDS, look)

        look()
        await super().serve(announce)


def main() -> None:
    """Serve on a free port."""
    server.GatewayServer = _Watched  # type: ignore[misc]
    app(["serve", "--port", "0"])


if __name__ == "__main__":
    main()
