"""The page: files of our own that a browser runs as they are, under the strictest policy it knows.

Nothing is built and nothing is fetched from elsewhere. Files are under a path that names their content,
so that a browser may keep them for good; the page itself is asked about each time.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from headgate.content.conditional import Verdict, accepts_gzip, judged
from headgate.content.ports import ReplyFacts
from headgate.content.problems import RefusedError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.routing import BaseRoute

__all__ = ["PUBLIC_PATHS", "Page", "assets", "version"]

PUBLIC_PATHS = ("/", "/assets/")
"""What is open without a key: the page asks for one where the service wants it."""

_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""What a model wrote can be no script here: there is no place from which one would be run."""

_GUARDS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

_FOR_GOOD = "public, max-age=31536000, immutable"
_ASK_ME = "no-cache"
_INDEX = "index.html"
_VARIES = "Accept-Encoding"


@cache
def assets() -> dict[str, bytes]:
    """The files by their paths, such as `words/en.js`."""
    found: dict[str, bytes] = {}

    def gather(folder: Traversable, prefix: str) -> None:
        for entry in sorted(folder.iterdir(), key=lambda each: each.name):
            name = f"{prefix}{entry.name}"
            if entry.is_dir():
                gather(entry, f"{name}/")
            elif "." + name.rpartition(".")[2] in _KINDS:
                found[name] = entry.read_bytes()

    gather(files("headgate.content").joinpath("assets"), "")
    return found


@cache
def version() -> str:
    """Sixteen digits that change with every change of any file."""
    digest = sha256()
    for name, content in assets().items():
        digest.update(b"%s\n%d\n%s" % (name.encode(), len(content), content))
    return digest.hexdigest()[:16]


@cache
def _squeezed(name: str) -> bytes:
    """A file as gzip; always the same bytes, as they are named by what they are."""
    return gzip.compress(_index() if name == _INDEX else assets()[name], 9, mtime=0)


@cache
def _index() -> bytes:
    return assets()[_INDEX].replace(b"{version}", version().encode())


class Page:
    """An `Addition`: the page at `/`, its files under `/assets/`."""

    def routes(self) -> Sequence[BaseRoute]:
        """Both; they need no key."""
        return [
            Route("/", self._page, methods=["GET"], name="page"),
            Route("/assets/{version}/{name:path}", self._asset, methods=["GET"], name="assets"),
        ]

    async def enter(self, request: Request) -> None:
        """Nothing is to be loaded."""

    def dress(self, request: Request, response: Response, facts: ReplyFacts) -> None:
        """Every reply: what is no page is not to be taken for one."""
        del request, facts
        for name, value in _GUARDS.items():
            response.headers.setdefault(name, value)

    async def _page(self, request: Request) -> Response:
        form = "-gzip" if _takes_gzip(request) else ""
        tag = f'"{sha256(_index()).hexdigest()[:32]}{form}"'
        headers = {"cache-control": _ASK_ME, "etag": tag, "vary": _VARIES}
        verdict = judged(tag, None, request.headers.get("if-none-match"))
        if verdict is Verdict.UNCHANGED:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return _file(request, _INDEX, headers)

    async def _asset(self, request: Request) -> Response:
        name = str(request.path_params["name"])
        if name not in assets() or name == _INDEX:
            raise RefusedError("The page has no such file.", status=HTTPStatus.NOT_FOUND)
        # Of an instance of another version, during an upgrade: it serves this time and is not kept.
        same = request.path_params["version"] == version()
        lasting = _FOR_GOOD if same else "no-store"
        return _file(request, name, {"cache-control": lasting, "vary": _VARIES})


def _takes_gzip(request: Request) -> bool:
    return accepts_gzip(request.headers.get("accept-encoding"))


def _file(request: Request, name: str, headers: dict[str, str]) -> Response:
    if _takes_gzip(request):
        body = _squeezed(name)
        headers["content-encoding"] = "gzip"
    else:
        body = _index() if name == _INDEX else assets()[name]
    headers["content-type"] = _KINDS["." + name.rpartition(".")[2]]
    headers["content-length"] = str(len(body))
    return Response(b"" if request.method == "HEAD" else body, headers=headers)
