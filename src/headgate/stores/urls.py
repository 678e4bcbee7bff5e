"""Where a store is, as people write it: `memory`, or the URL of a server or a cluster.

    redis://[user:password@]host[:port][/db][?option=…]      rediss:// over TLS
    redis+cluster://[user:password@]host[:port],…            rediss+cluster:// over TLS
    unix://[user:password@]/path[?db=…]                      a unix socket

`valkey` and `valkeys` mean the same as `redis` and `rediss`. Nothing here imports a client library.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["BORN", "MEMORY", "OWN_OPTIONS", "PROCESSES", "StoreUrl"]

MEMORY = "memory"
"""The store of this process alone."""

PROCESSES = "processes"
"""The option that says how many processes share a store, at most."""

BORN = "born"
"""The option with which whoever started a server says which one it is: its processes know then that it
has forgotten nothing since."""

OWN_OPTIONS = (PROCESSES, BORN)
"""Options of a URL that are not the client library's."""

_FAMILIES = {"valkey": "redis", "valkeys": "rediss"}
_KNOWN = ("redis", "rediss", "unix")
_ALLOWED = (
    "memory, or redis://, rediss://, redis+cluster://, rediss+cluster://, valkey://, valkeys:// or "
    "unix:// and where the store is, such as redis://host:6379/0 or redis+cluster://a:6379,b:6379"
)


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A store's URL, taken apart. Its text and its `repr` show no credential, only that there is one.

    Attributes:
        written: as it was given, for the client library alone.
        shown: with user, password and options, which may hold them, masked.
        cluster: whether it names nodes of a cluster.
        nodes: a plain URL (`redis`, `rediss` or `unix`) for each host; empty for `memory`.
    """

    written: str = field(repr=False)
    shown: str
    cluster: bool
    nodes: tuple[str, ...] = field(repr=False)

    def __str__(self) -> str:
        return self.shown

    @property
    def memory(self) -> bool:
        """Whether it is the store of this process alone."""
        return not self.nodes

    @classmethod
    def read(cls, value: object) -> StoreUrl:
        """The URL in a text. Raises `ValueError` with what is allowed, never with the text itself."""
        text = str(value).strip()
        if text.lower() == MEMORY:
            return cls(MEMORY, MEMORY, False, ())
        scheme, found, rest = text.partition("://")
        first, plus, how = scheme.lower().partition("+")
        family, how = ("unix", "") if how == "unix" else (_FAMILIES.get(first, first), how)
        cluster = how == "cluster"
        if not found or family not in _KNOWN or (plus and how not in ("", "cluster")):
            raise ValueError(_ALLOWED)
        if family == "unix" and cluster:
            raise ValueError(_ALLOWED)
        parts = urlsplit(f"{family}://{rest}")
        user, at, hosts = parts.netloc.rpartition("@")
        names = hosts.split(",")
        if "@" in parts.path + parts.query:  # a password that ended early would be shown as a host
            raise ValueError(
                "a URL such as redis://user:password@host:6379 with the characters / ? # @ of user and "
                "password written as %2F %3F %23 %40"
            )
        if parts.fragment or (len(names) > 1 and not cluster):
            raise ValueError(_ALLOWED)
        if family == "unix":
            _check_socket(hosts, parts.path)
        else:
            _check_hosts(names, parts.path, cluster=cluster)
        tail = parts.path + (f"?{parts.query}" if parts.query else "")
        nodes = tuple(f"{family}://{user}{at}{name}{tail}" for name in names)
        masked = ("***@" if at else "") + hosts + parts.path + ("?…" if parts.query else "")
        return cls(text, f"{scheme.lower()}://{masked}", cluster, nodes)


def _check_socket(host: str, path: str) -> None:
    if host or len(path) < 2:
        raise ValueError("unix:// and the absolute path of a socket, such as unix:///run/valkey.sock")


def _check_hosts(names: list[str], path: str, *, cluster: bool) -> None:
    for name in names:
        try:
            parts = urlsplit(f"//{name}")
            good = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            good = False
        if not good:
            raise ValueError("a host, or a host and its port, such as redis://host:6379")
    database = path.strip("/")
    if cluster and database.strip("0"):
        raise ValueError("a cluster's URL without a database: clusters have only number 0")
    if database and not database.isdecimal():
        raise ValueError("the number of a database after the host, such as redis://host:6379/0")
