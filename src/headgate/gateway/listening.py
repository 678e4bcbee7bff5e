"""Where the gateway listens: one socket, or one for each worker on the same port."""

from __future__ import annotations

import socket
import sys

from headgate.core.errors import ConfigurationError

__all__ = ["address_of", "listen", "listen_for"]

BACKLOG = 2048
"""Connections that may wait to be taken; the system may bound it lower (`net.core.somaxconn`)."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises `ConfigurationError`."""
    return _open(host, port, shared=False)


def listen_for(host: str, port: int, workers: int) -> list[socket.socket]:
    """A socket for each worker, all on one port. Raises `ConfigurationError`.

    On Linux each worker has a queue of its own, and the system deals connections out among them by a
    hash of their addresses: no worker can take more than its part because it happened to wake first.
    Elsewhere that option means something else, and all share one queue (docs/adr/0074).

    Whoever opens them keeps them: what waits in the queue of a worker that died is taken by the next.
    """
    # Sockets that share a port do so with any other of the same user, also one of another gateway,
    # which would get half of the calls. So the port is first asked for alone.
    first = listen(host, port)
    if not sys.platform.startswith("linux"):
        return [first, *(first.dup() for _ in range(workers - 1))]
    if port:
        first.close()
        return [_open(host, port, shared=True) for _ in range(workers)]
    first.close()
    leader = _open(host, 0, shared=True)
    taken = leader.getsockname()[1]
    return [leader, *(_open(host, taken, shared=True) for _ in range(workers - 1))]


def address_of(listening: socket.socket, host: str) -> str:
    """`http://host:port`, as people write it."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


def _open(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=shared)
    except OSError as error:
        why = error.strerror or "the name is not known"
        raise ConfigurationError(f"cannot listen on {host}:{port}: {why}.") from None
