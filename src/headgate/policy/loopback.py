"""Which hosts are this machine itself. Pure."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address

__all__ = ["is_loopback"]


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether a host, without its port, is this machine itself."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
