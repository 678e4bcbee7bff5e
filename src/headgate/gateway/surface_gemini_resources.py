"""The part of the Gemini surface that is about what a project keeps: files and cached contents.

Whatever names one of them goes to a key of its project or nowhere: another project's keys are refused
with 403, as if it did not exist.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from headgate.core.call import Operation, Raw
from headgate.core.errors import InvalidCallError
from headgate.gateway.incoming import Incoming
from headgate.gateway.surface import Asked, Route
from headgate.providers.gemini_raw import named, weigh

__all__ = ["ask_resource", "resource_route"]

_KEPT = re.compile(r"/(v1|v1beta|v1alpha)/(files|cachedContents)(?:/([A-Za-z0-9_-]+))?/?")
_UPLOAD = re.compile(r"/upload/(v1|v1beta|v1alpha)/files/?")

_METHODS = {
    ("files", False): ("GET",),
    ("files", True): ("GET", "DELETE"),
    ("cachedContents", False): ("GET", "POST"),
    ("cachedContents", True): ("GET", "PATCH", "DELETE"),
}

_PAGE_FIELDS = {"pageSize": "pageSize", "page_size": "pageSize"}
_PATCH_FIELDS = {"updateMask": "updateMask", "update_mask": "updateMask"}

_SENT_ON = {
    b"content-type": "content-type",
    b"user-agent": "user-agent",
    b"x-goog-api-client": "x-goog-api-client",
    b"x-goog-upload-protocol": "x-goog-upload-protocol",
    b"x-goog-upload-command": "x-goog-upload-command",
    b"x-goog-upload-offset": "x-goog-upload-offset",
    b"x-goog-upload-file-name": "x-goog-upload-file-name",
    b"x-goog-upload-header-content-length": "x-goog-upload-header-content-length",
    b"x-goog-upload-header-content-type": "x-goog-upload-header-content-type",
}
"""Headers that go upstream, by their names here and there."""


def resource_route(incoming: Incoming, version: str | None) -> Route | None:
    """What a path of files or caches stands for; None: nothing.

    Args:
        version: of the upstream's API, in place of the one of the path.
    """
    if found := _UPLOAD.fullmatch(incoming.path):
        path = f"/upload/{version or found[1]}/files"
        ticket = incoming.query.get("upload_id", "")
        makes = "" if ticket else "files"
        return Route("POST", path, Operation.LIST, makes=makes, ticket=ticket, is_json=not ticket)
    found = _KEPT.fullmatch(incoming.path)
    if found is None:
        return None
    kind, name = found[2], found[3]
    methods = _METHODS[kind, name is not None]
    method = incoming.method if incoming.method in methods else methods[0]
    path = f"/{version or found[1]}/{kind}"
    if name is not None:
        fields = _PATCH_FIELDS if method == "PATCH" else {}
        path = f"{path}/{name}{_query(incoming, fields)}"
        return Route(method, path, Operation.LIST, resource=f"{kind}/{name}")
    if method == "POST":
        return Route(method, path, Operation.LIST, makes=kind)
    return Route(method, path + _query(incoming, _PAGE_FIELDS), Operation.LIST, pages=kind)


def ask_resource(route: Route, incoming: Incoming, body: bytes) -> Asked:
    """What a request about files or caches asks. Raises `InvalidCallError`."""
    names: tuple[str, ...] = (route.resource,) if route.resource else ()
    if body and route.is_json:
        weigh(Operation.COUNT, body)  # for what it raises
        names += named(body)
    elif route.makes == "cachedContents":
        raise InvalidCallError("The body is not valid JSON.")
    what = route.resource or route.pages or route.makes or "files"
    headers = incoming.only(_SENT_ON)
    repeatable = route.method == "GET"
    raw = Raw(route.method, route.path, what, headers, body, repeatable=repeatable)
    return Asked(Operation.LIST, what, raw, names)


def _query(incoming: Incoming, fields: dict[str, str]) -> str:
    if not fields or not incoming.query_string:
        return ""
    query = incoming.query
    given = {there: query[here] for here, there in fields.items() if here in query}
    return (
        "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in given.items())
        if given
        else ""
    )
