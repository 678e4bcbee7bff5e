"""How keys and values of the layered cache are written. Pure."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import Any

from headgate.content.ports import Json

__all__ = ["decoded", "encoded", "named", "readable"]

_LONGEST_KEY, _KEPT_OF_KEY = 300, 200
_NAMESPACE = re.compile(r"[^\x00-\x1f\x7f*]{1,100}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def readable(key: str) -> str:
    """A key as it is kept: control characters give way to blanks, and of a long one the beginning and
    a digest of all of it stay."""
    clean = _CONTROL.sub(" ", key)
    if clean == key and len(key) <= _LONGEST_KEY:
        return key
    digest = sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{clean[:_KEPT_OF_KEY]}…{digest}"


def named(namespace: str) -> str:
    """A namespace as it is. Raises `ValueError` for what cannot be one."""
    if not _NAMESPACE.fullmatch(namespace):
        raise ValueError("a namespace is 1 to 100 characters, without * and control characters")
    return namespace


def encoded(value: Any) -> bytes | None:
    """A value as JSON; None: JSON cannot hold it, not a number for instance."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        return None
    return text.encode("utf-8", "surrogatepass")


def decoded(data: bytes) -> Json:
    """What `encoded` wrote."""
    return json.loads(data.decode("utf-8", "surrogatepass"))
