"""Who a caller is by address, when nothing better is known.

A header that anybody can write is no identity: `X-Forwarded-For` counts only from a peer in the given
networks, and then only its right-most address that is not itself in them. What stands further left
was written by the caller.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, MutableMapping
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

__all__ = ["PeerAddress"]

_SITE = 64  # bits of an IPv6 address that name a site: below them a caller chooses as it likes


class PeerAddress:
    """Makes `ip:<address>` of an ASGI scope; of IPv6 the /64 network.

    Args:
        trusted_proxies: networks whose peers' `X-Forwarded-For` is believed, such as `10.0.0.0/8`;
            `unix` stands for a peer without an address, on a Unix socket.
    """

    def __init__(self, trusted_proxies: Collection[str] = ()) -> None:
        self._unix = "unix" in trusted_proxies
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in trusted_proxies:
            if text != "unix":
                try:
                    self._networks.append(ip_network(text))
                except ValueError:
                    raise ValueError(
                        f"trusted_proxies takes networks such as 10.0.0.0/8, or unix; got {text!r}"
                    ) from None

    def __call__(self, scope: MutableMapping[str, Any]) -> str:
        """The identifier of the caller."""
        client = scope.get("client")
        peer = client[0] if client else None
        if not self._trusts(peer):
            return _named(peer)
        caller = peer
        for hop in reversed(list(_hops(scope.get("headers", ())))):
            address = _address(hop)
            if address is None:
                break  # a proxy of ours wrote what is no address: the one before it is the last known
            caller = address
            if not self._trusts(address):
                break
        return _named(caller)

    def _trusts(self, host: str | None) -> bool:
        if host is None:
            return self._unix
        address = _address(host)
        if address is None:
            return False
        parsed = ip_address(address)
        return any(parsed in network for network in self._networks)


def _hops(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[str]:
    for name, value in headers:
        if name.lower() == b"x-forwarded-for":
            yield from value.decode("latin-1").split(",")


def _address(hop: str) -> str | None:
    """An address without port, brackets and zone; IPv4 in IPv6 as IPv4."""
    text = hop.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(parsed)


def _named(host: str | None) -> str:
    address = None if host is None else _address(host)
    if address is None:
        return f"ip:{(host or 'unknown')[:64]}"
    if ":" in address:
        return f"ip:{ip_network(f'{address}/{_SITE}', strict=False)}"
    return f"ip:{address}"
