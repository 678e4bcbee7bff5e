"""How evenly connections spread over workers that share one socket, or have one each on the same port.

    python -m bench.workers.fairness

Each worker is a process that takes connections as the gateway does (uvloop, one event loop) and answers
a byte with its own number. A client opens connections all at once, as a pool that warms up
does, and asks each who took it. What is told: how many the busiest worker has, against an even share.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import statistics
import sys
from collections import Counter
from collections.abc import Callable
from typing import cast

from headgate.gateway.listening import listen, listen_for

WORKERS = 3
ROUNDS = 20
CONNECTIONS = (8, 32, 200)


class _Worker(asyncio.Protocol):
    """Tells who it is, and takes a while for it, as for an answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - asyncio's
        for _ in range(2000):  # some 100 µs: what a request takes
            os.getpid()
        self._transport.write(b"%d\n" % os.getpid())


def _work(listening: socket.socket) -> None:
    import uvloop  # noqa: PLC0415 - in the worker alone

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Worker, sock=listening, backlog=2048)
        await server.serve_forever()

    uvloop.run(main())


async def _ask(port: int, count: int) -> list[str]:
    pairs = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(count)))
    for _, writer in pairs:
        writer.write(b"?")
    answers = [(await reader.readline()).decode() for reader, _ in pairs]
    for _, writer in pairs:
        writer.close()
    return answers


def measure(open_sockets: Callable[[], list[socket.socket]]) -> dict[int, list[float]]:
    """The busiest worker's share, as a multiple of an even one, by number of connections."""
    sockets = open_sockets()
    port = sockets[0].getsockname()[1]
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_work, args=(one,), daemon=True) for one in sockets]
    for worker in workers:
        worker.start()
    found: dict[int, list[float]] = {}
    try:
        while len(set(asyncio.run(_ask(port, 64)))) < 2:
            pass  # until they have started
        for count in CONNECTIONS:
            busiest = [max(Counter(asyncio.run(_ask(port, count))).values()) for _ in range(ROUNDS)]
            found[count] = [most * WORKERS / count for most in busiest]
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
        for one in sockets:
            one.close()
    return found


def _shared() -> list[socket.socket]:
    first = listen("127.0.0.1", 0)
    return [first, *(first.dup() for _ in range(WORKERS - 1))]


def main() -> None:
    """Measure both and print them."""
    if not sys.platform.startswith("linux"):
        print("only Linux deals connections out among sockets of one port")
    ways = {
        "one socket for all": _shared,
        "a socket for each": lambda: listen_for("127.0.0.1", 0, WORKERS),
    }
    for name, way in ways.items():
        for count, shares in measure(way).items():
            print(
                f"{name:20} {count:4} connections: the busiest of {WORKERS} has "
                f"{statistics.median(shares):.2f} times an even share, {max(shares):.2f} at worst"
            )


if __name__ == "__main__":
    main()
