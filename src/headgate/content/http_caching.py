"""What browsers and caches on the way may keep: results that can be fetched again by their content.

A reply to a POST is kept by nobody but us. One that can be fetched again names where in
`Content-Location: /api/results/{sha256}`; that address never means anything else, so caches may keep it
as long as they like. They are told five and fifteen minutes, as is accepted.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from headgate.content.cache_settings import CacheSettings
from headgate.content.conditional import Verdict, accepts_gzip, judged
from headgate.content.ports import ReplyFacts
from headgate.content.problems import RefusedError
from headgate.core.errors import StoreError
from headgate.core.values import ValueStore

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.routing import BaseRoute

__all__ = ["CachingHeaders", "KeptResults"]

PATH = "/api/results/"

_NAMESPACE = "results"
_DIGITS = frozenset("0123456789abcdef")
_PAYS_FROM = 1024
"""Bytes from which a result is compressed: below, the reply's head is most of it."""

_IN_A_THREAD = 262_144
_LEVEL = 5

_VARIES = "Accept-Encoding"
_VARIES_WITH_KEYS = "Accept-Encoding, Authorization, X-Api-Key, X-Goog-Api-Key"
_UNKEPT = "no-store"


class KeptResults:
    """Bodies of replies under their SHA-256, where instances share them.

    Args:
        values: where; not closed here.
        seconds: how long.
    """

    def __init__(self, values: ValueStore, seconds: float) -> None:
        self._values = values
        self._seconds = seconds

    async def keep(self, body: bytes) -> str | None:
        """See `headgate.content.ports.Results.keep`."""
        digest = sha256(body).hexdigest()
        if await self._values.touch(_NAMESPACE, digest, self._seconds):
            return digest  # most replies were given before: they need not travel again
        kept = await self._values.put(_NAMESPACE, digest, body, self._seconds)
        return digest if kept else None

    async def find(self, digest: str) -> bytes | None:
        """A body; None: it is not kept, or not what its name says."""
        if len(digest) != 64 or not _DIGITS.issuperset(digest):
            return None
        found = await self._values.get(_NAMESPACE, digest)
        body = found.data
        if body is None or sha256(body).hexdigest() != digest:
            if body is not None:
                with suppress(StoreError):  # then it is kept anew, and not lasting for good
                    await self._values.drop(_NAMESPACE, digest)
            return None
        return body


class CachingHeaders:
    """An `Addition`: the address of results, and `Cache-Control` of every reply.

    Args:
        results: None: there are none, and no address of them.
    """

    def __init__(self, results: KeptResults | None, settings: CacheSettings) -> None:
        self._results = results
        self._open = f"public, max-age={settings.browser_ttl}, s-maxage={settings.cdn_ttl}"
        self._private = f"private, max-age={settings.browser_ttl}"
        self._cdn = f"max-age={settings.cdn_ttl}" if settings.cdn else ""

    def routes(self) -> Sequence[BaseRoute]:
        """GET and HEAD of a result."""
        if self._results is None:
            return []
        return [Route(f"{PATH}{{sha256}}", self._result, methods=["GET"], name="results")]

    async def enter(self, request: Request) -> None:
        """Nothing is to be loaded."""

    def dress(self, request: Request, response: Response, facts: ReplyFacts) -> None:
        """Say who may keep the reply, where it does not say so itself."""
        headers = response.headers
        if facts.admin:
            headers["cache-control"] = _UNKEPT
        elif hasattr(request.state, "result") and response.status_code in (200, 304):
            headers["cache-control"] = self._private if facts.private else self._open
            headers["vary"] = _VARIES_WITH_KEYS if facts.private else _VARIES
            if self._cdn:
                headers["cdn-cache-control"] = _UNKEPT if facts.private else self._cdn
        elif "cache-control" not in headers:
            headers["cache-control"] = _UNKEPT

    async def _result(self, request: Request) -> Response:
        request.state.result = digest = str(request.path_params["sha256"])
        body = None if self._results is None else await self._results.find(digest)
        if body is None:
            sentence = "There is no such result, or its time is up. Ask for it anew."
            raise RefusedError(sentence, status=HTTPStatus.NOT_FOUND)
        squeezed = len(body) >= _PAYS_FROM and accepts_gzip(_field(request, "accept-encoding"))
        tag = f'"{digest}-gzip"' if squeezed else f'"{digest}"'
        headers = {"etag": tag, "vary": _VARIES}
        verdict = judged(tag, _field(request, "if-match"), _field(request, "if-none-match"))
        if verdict is Verdict.REFUSED:
            return Response(status_code=HTTPStatus.PRECONDITION_FAILED, headers=headers)
        if verdict is Verdict.UNCHANGED:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        if squeezed:
            headers["content-encoding"] = "gzip"
            body = await _squeezed(body)
        headers |= {"content-type": "application/json", "content-length": str(len(body))}
        return Response(b"" if request.method == "HEAD" else body, headers=headers)


def _field(request: Request, name: str) -> str | None:
    lines = request.headers.getlist(name)
    return ", ".join(lines) if lines else None


async def _squeezed(body: bytes) -> bytes:
    """The same bytes for the same body, wherever they are made: their tag is a strong one."""
    if len(body) < _IN_A_THREAD:
        return gzip.compress(body, _LEVEL, mtime=0)
    return await asyncio.to_thread(gzip.compress, body, _LEVEL, mtime=0)
