"""The page at `/docs`: static files that read `/openapi.json`. Nothing of it comes from elsewhere."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from headgate.gateway.manage.trouble import TroubleError
from headgate.gateway.problems import Headers

__all__ = ["PAGE_FILES", "page_file"]

PAGE_FILES = {
    "/docs": ("docs.html", b"text/html; charset=utf-8"),
    "/docs/docs.css": ("docs.css", b"text/css; charset=utf-8"),
    "/docs/docs.js": ("docs.js", b"text/javascript; charset=utf-8"),
}

POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""What a browser lets the page do: no inline script or style, nothing from other hosts, no frames."""


def page_file(path: str) -> tuple[Headers, bytes]:
    """Headers and content of one of its files. Raises `TroubleError`."""
    found = PAGE_FILES.get("/docs" if path == "/docs/" else path)
    if found is None:
        raise TroubleError("not-found", "The page has no such file.")
    name, kind = found
    headers: Headers = [
        (b"content-type", kind),
        (b"content-security-policy", POLICY),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"x-frame-options", b"DENY"),
    ]
    return headers, _content(name)


@cache
def _content(name: str) -> bytes:
    return files("headgate.gateway.manage").joinpath("static", name).read_bytes()
