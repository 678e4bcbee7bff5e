"""Taking credentials out of text.

Upstreams echo keys in error messages, so whatever an upstream said is redacted before it goes
anywhere: into an error, a log line or a metric.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import quote

__all__ = ["mask", "redact"]

MASK = "[key]"

# Keys Google issues: `AIza…` and `AQ.…`. Found by shape too, because an upstream may echo a key that
# is not the one this call used.
_GOOGLE_KEY = re.compile(r"\b(?:AIza|AQ\.)[0-9A-Za-z_.\-]{8,}")

# A part of a key this long is enough to search for it elsewhere, so it must go too.
_FRAGMENT = 12


def mask(secret: str) -> str:
    """A name for a secret that cannot be used: its last four characters, if it is long enough."""
    return f"…{secret[-4:]}" if len(secret) >= 20 else "…"


def redact(text: str, *secrets: str, limit: int = 500) -> str:
    """`text` without any of the secrets, cut to `limit` characters.

    A secret is found as it is, percent-encoded, in base64, and by its first or last 12 characters.
    """
    for secret in filter(None, secrets):
        for form in _forms(secret):
            text = text.replace(form, MASK)
    text = _GOOGLE_KEY.sub(MASK, text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _forms(secret: str) -> list[str]:
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    forms = {secret, quote(secret, safe=""), encoded}
    if len(secret) > _FRAGMENT:
        forms |= {secret[:_FRAGMENT], secret[-_FRAGMENT:]}
    return sorted(forms, key=len, reverse=True)  # whole forms first, then what is left of them
