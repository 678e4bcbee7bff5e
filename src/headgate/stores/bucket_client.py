"""A client for token buckets in the store that processes share, out of its URL."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url

from headgate.stores.urls import OWN_OPTIONS, StoreUrl

__all__ = ["bucket_client"]

_OURS = {
    "max_connections", "decode_responses", "protocol", "socket_timeout", "retry_on_timeout",
    *OWN_OPTIONS,
}  # fmt: skip
"""Options that are not the URL's to say: deadlines are those of the line to the store (`line.py`)."""

_OF_A_NODE = ("host", "port", "db", "connection_class")


def bucket_client(url: StoreUrl) -> Any:
    """A client that connects when it is first used; whoever has it made closes it.

    Args:
        url: not `memory`.
    """
    nodes = [_without_ours(node) for node in url.nodes]
    if not url.cluster:
        return Redis.from_url(nodes[0], protocol=2)
    parsed: list[dict[str, Any]] = [dict(parse_url(node)) for node in nodes]
    options = {name: value for name, value in parsed[0].items() if name not in _OF_A_NODE}
    return RedisCluster(
        startup_nodes=[
            ClusterNode(one.get("host", "localhost"), one.get("port", 6379)) for one in parsed
        ],
        ssl="connection_class" in parsed[0],
        protocol=2,
        **options,
    )


def _without_ours(node: str) -> str:
    parts = urlsplit(node)
    theirs = [(name, value) for name, value in parse_qsl(parts.query) if name not in _OURS]
    return parts._replace(query=urlencode(theirs)).geturl()
