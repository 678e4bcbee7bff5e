"""Signatures of webhooks over the raw body: a bare HMAC, and Standard Webhooks. Pure.

- bare: HMAC-SHA256 of the body in hex, with or without `sha256=` in front, as GitHub writes it.
- Standard Webhooks 1.0 (standardwebhooks.com): HMAC-SHA256 of `id.timestamp.body` in base64, as
  `v1,<base64>`, several of them separated by blanks while secrets rotate. A secret written `whsec_…` is
  base64, another is taken as it is.

Comparisons take the same time wherever two values differ.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

__all__ = ["bare_signature", "fits_bare", "fits_standard", "standard_signature"]

_PREFIX = "whsec_"


def bare_signature(secret: str, body: bytes) -> str:
    """`sha256=<hex>`."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def fits_bare(secret: str, body: bytes, header: str) -> bool:
    """Whether the header is the body's signature."""
    wanted = bare_signature(secret, body).removeprefix("sha256=")
    given = header.strip().removeprefix("sha256=").lower()
    return hmac.compare_digest(wanted.encode(), given.encode("utf-8", "replace"))


def standard_signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """`v1,<base64>`. Raises `ValueError` for a `whsec_` secret that is no base64."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def fits_standard(secret: str, message_id: str, timestamp: str, body: bytes, header: str) -> bool:
    """Whether one of the header's signatures is that of the message."""
    wanted = standard_signature(secret, message_id, timestamp, body).encode()
    given = [part.encode("utf-8", "replace") for part in header.split()[:16]]
    fits = [hmac.compare_digest(wanted, part) for part in given]  # each one, so that none tells
    return any(fits)


def _key(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("a secret that begins with whsec_ goes on in base64") from None
