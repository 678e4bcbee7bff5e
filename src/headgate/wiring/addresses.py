"""Which hosts keys may be sent to: what an operator writes as a base URL, judged by its text alone.

What a name resolves to is not asked: who names an upstream decides where keys go anyway. What is
refused is what hardly anybody means: an address written so that programs read it differently, one where
a cloud gives out its machines' credentials, and keys in the clear beyond private networks.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

__all__ = ["may_serve"]

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_NUMBERS = re.compile(r"(?:0x[0-9a-f]*|\d+)(?:\.(?:0x[0-9a-f]*|\d+))*")
"""What the C library reads as an IPv4 address, in any of its spellings."""

_PRIVATE_NAMES = (
    ".localhost", ".local", ".internal", ".lan", ".home.arpa", ".svc", ".test", ".example", ".invalid",
)  # fmt: skip
"""RFC 2606, 6761, 6762 and 8375; `.internal` is reserved by ICANN; `.svc` is a cluster's."""

_METADATA = frozenset(("metadata", "metadata.google.internal", "metadata.goog", "instance-data"))
_TRANSLATED = IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address behind a translator


def may_serve(host: str, *, encrypted: bool) -> bool:
    """Whether keys may go to a host.

    Args:
        host: a name in small letters, or an address without brackets.
        encrypted: whether it is spoken to over TLS.
    """
    try:
        address = _innermost(ip_address(host))
    except ValueError:
        return _name_may(host, encrypted=encrypted)
    if address.is_loopback:
        return True
    if address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved:
        return False
    return encrypted or address.is_private


def _innermost(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _TRANSLATED:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _name_may(host: str, *, encrypted: bool) -> bool:
    if not _NAME.fullmatch(host) or _NUMBERS.fullmatch(host) or host in _METADATA:
        return False
    inner = "." not in host or host.endswith(_PRIVATE_NAMES) or ".svc." in host
    return encrypted or inner
