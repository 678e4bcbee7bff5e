"""Templates of the paths that the gateway serves: what stands for a path in spans and series.

The set is closed. Callers make up paths and models; neither may become a series, or a name of spans,
without end.
"""

from __future__ import annotations

import re
from functools import lru_cache

from headgate.gateway.manage.entrance import is_managed
from headgate.telemetry.request_facts import UNMATCHED

__all__ = ["OWN_PATHS", "TEMPLATES", "template"]

OWN_PATHS = ("/livez", "/readyz", "/metrics")
"""What is the gateway's own."""

_MANAGED = "/manage/{command}"
"""All of the management API: few call it, and what they ask is in its own log."""

_VERSION = "/(?:v1|v1beta|v1alpha)"
_GEMINI_VERBS = (
    "generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents",
)  # fmt: skip

_SHAPES: dict[str, dict[str, str]] = {
    "gemini": {
        **{
            rf"{_VERSION}/models/[^/:]+:{verb}": f"/{{version}}/models/{{model}}:{verb}"
            for verb in _GEMINI_VERBS
        },
        rf"{_VERSION}/models": "/{version}/models",
        rf"{_VERSION}/models/[^/:]+": "/{version}/models/{model}",
        rf"/upload{_VERSION}/files": "/upload/{version}/files",
        rf"{_VERSION}/files": "/{version}/files",
        rf"{_VERSION}/files/[^/]+": "/{version}/files/{file}",
        rf"{_VERSION}/cachedContents": "/{version}/cachedContents",
        rf"{_VERSION}/cachedContents/[^/]+": "/{version}/cachedContents/{cache}",
    },
    "anthropic": {
        "/v1/messages": "/v1/messages",
        "/v1/messages/count_tokens": "/v1/messages/count_tokens",
        "/v1/models": "/v1/models",
        "/v1/models/[^/]+": "/v1/models/{model}",
    },
    "openai": {
        "(?:/v1)?/chat/completions": "/v1/chat/completions",
        "(?:/v1)?/embeddings": "/v1/embeddings",
        "(?:/v1)?/models": "/v1/models",
        "(?:/v1)?/models/.+": "/v1/models/{model}",
    },
}  # fmt: skip
"""By surface: what paths look like, without the surface's prefix, and what stands for them."""

_PATTERNS = {
    surface: [(re.compile(f"{shape}/?"), f"/{surface}{shown}") for shape, shown in shapes.items()]
    for surface, shapes in _SHAPES.items()
}

TEMPLATES = frozenset(
    {shown for patterns in _PATTERNS.values() for _, shown in patterns}
    | {*OWN_PATHS, _MANAGED, UNMATCHED}
)
"""All there are."""

_REMEMBERED, _LONGEST = 1024, 128
"""Paths are as many as models, and models few: those up to so many characters are looked at once."""


def template(surface: str, path: str) -> str:
    """What stands for a path, whether or not it is served.

    Args:
        surface: that the request is for; empty where it is for none.
        path: without the surface's prefix.
    """
    return _known(surface, path) if len(path) <= _LONGEST else _found(surface, path)


def _found(surface: str, path: str) -> str:
    if not surface:
        if path in OWN_PATHS:
            return path
        return _MANAGED if is_managed(path) else UNMATCHED
    for pattern, shown in _PATTERNS.get(surface, ()):
        if pattern.fullmatch(path):
            return shown
    return UNMATCHED


_known = lru_cache(maxsize=_REMEMBERED)(_found)
