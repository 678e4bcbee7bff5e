"""Tickets of uploads: an upload that was begun goes on with one, at whichever worker its pieces arrive.

A ticket holds what it stands for, sealed with a secret that only workers of the same gateway have. So
none of them need remember any, and nothing is shared but that secret. Who gets one learns nothing from
it: with the address that Google gave for an upload, one could go on there without the gateway.

The seal is a synthetic initialisation vector, as RFC 5297 builds one, of what the standard library has:
an HMAC of the text is both its proof and what the stream that hides it begins with. So no nonce can be
used twice.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from dataclasses import dataclass

import msgspec

__all__ = ["TICKET_SECONDS", "Tickets", "Upload"]

TICKET_SECONDS = 48 * 3600.0
"""How long an upload may take: files themselves are kept for so long (Gemini API, Files, Nov 2026)."""

_MOST_SPENT = 10_000
_SEAL_BYTES = 16
"""Of an HMAC-SHA-256: 128 bits, as many as a random ticket would have."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that was begun. Whoever knows its ticket may go on with it: SDKs send no key then.

    Attributes:
        path: of the upstream, with its query.
        domain: whose key began it.
        caller: on whose behalf.
    """

    path: str
    domain: str
    caller: str


class _Ticket(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    until: int  # Unix seconds
    path: str
    domain: str
    caller: str


_DECODE = msgspec.json.Decoder(_Ticket)


class Tickets:
    """Makes tickets, and knows its own again.

    Args:
        secret: of the seal; without one, a secret of this process alone.
    """

    def __init__(self, secret: str = "") -> None:
        given = (secret or secrets.token_urlsafe(32)).encode()
        self._sealing = hmac.digest(given, b"headgate upload tickets: seal", "sha256")
        self._hiding = hmac.digest(given, b"headgate upload tickets: text", "sha256")
        self._spent: OrderedDict[str, None] = OrderedDict()

    def make(self, upload: Upload, now: float) -> str:
        """A ticket for an upload that begins: letters, digits, `-` and `_`.

        Args:
            now: Unix seconds.
        """
        until = int(now + TICKET_SECONDS)
        text = msgspec.json.encode(_Ticket(until, upload.path, upload.domain, upload.caller))
        seal = self._seal(text)
        return urlsafe_b64encode(seal + self._hidden(text, seal)).rstrip(b"=").decode()

    def read(self, ticket: str, now: float) -> Upload | None:
        """The upload it stands for; None: nobody here made it, it is too old, or its upload is done."""
        if ticket in self._spent:
            return None
        try:
            sealed = urlsafe_b64decode(ticket + "=" * (-len(ticket) % 4))
        except ValueError:
            return None
        seal, hidden = sealed[:_SEAL_BYTES], sealed[_SEAL_BYTES:]
        text = self._hidden(hidden, seal)
        if not hmac.compare_digest(self._seal(text), seal):
            return None
        found = _DECODE.decode(text)
        return Upload(found.path, found.domain, found.caller) if found.until >= now else None

    def spend(self, ticket: str) -> None:
        """Its upload is done. Other workers hear so from the upstream, which takes no more of it."""
        self._spent[ticket] = None
        if len(self._spent) > _MOST_SPENT:
            self._spent.popitem(last=False)

    def _seal(self, text: bytes) -> bytes:
        return hmac.digest(self._sealing, text, "sha256")[:_SEAL_BYTES]

    def _hidden(self, text: bytes, seal: bytes) -> bytes:
        """The text hidden, or the hidden text."""
        blocks = range(min(255, -(-len(text) // 32)))
        stream = b"".join(
            hmac.digest(self._hiding, seal + bytes([block]), "sha256") for block in blocks
        )
        return bytes(one ^ other for one, other in zip(text, stream, strict=False))
