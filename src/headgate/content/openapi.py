"""The description of the service in OpenAPI 3.1, made of the table that is served."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headgate.content.doorkeeper import Access
from headgate.content.health import installed_version
from headgate.content.routes import Row
from headgate.content.schemas import ERROR, QUOTA_REFUSAL

__all__ = ["described"]


def described(rows: Iterable[Row]) -> dict[str, Any]:
    """The document."""
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headgate content service",
            "version": installed_version(),
            "description": "Topics, explanations and images, held to the quotas of your keys.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR, "QuotaExceeded": QUOTA_REFUSAL},
            "securitySchemes": {"caller": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(row: Row) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{row.name}_{row.path.strip('/').replace('/', '_').replace('{name}', 'name')}",
        "summary": row.summary,
        "responses": _responses(row),
    }
    if row.takes is not None:
        kind = "multipart/form-data" if row.multipart else "application/json"
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": row.takes}}}
    if "{name}" in row.path:
        name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        operation["parameters"] = [name]
    if row.name == "create_presentation":
        prefer = {"name": "Prefer", "in": "header", "schema": {"type": "string"}}
        operation["parameters"] = [{**prefer, "description": "`wait=30`: may wait for quota"}]
    if row.access is not Access.EVERYBODY:
        operation["security"] = [{"caller": []}, {}]
    return operation


def _responses(row: Row) -> dict[str, Any]:
    good = row.gives or {"type": "object"}
    content: dict[str, Any] = {"application/json": {"schema": good}}
    if row.name == "metrics":
        content = {"text/plain": {"schema": {"type": "string"}}}
    if row.name == "create_presentation":
        content["text/event-stream"] = {"schema": {"type": "string"}}
    responses: dict[str, Any] = {"200": {"description": "as asked", "content": content}}
    if row.name in ("health", "ready"):
        responses["503"] = {"description": "not now", "content": content}
        return responses
    statuses = {401: "no key that is known", 403: "not from here"}
    if row.takes is not None:
        statuses |= {400: "a field is wrong", 413: "too large", 415: "another kind of body"}
        statuses |= {500: "nothing good came of it", 503: "the model is away", 504: "no answer in time"}
    if row.name == "quota_stats":
        statuses[501] = "no quota is tracked"
    if row.name.startswith("breaker"):
        statuses[404] = "nobody knows it"
    for status, what in statuses.items():
        responses[str(status)] = _refused(what, "Error")
    if row.takes is not None and row.access is Access.CALLERS:
        refused = _refused("the quota is used up", "QuotaExceeded")
        refused["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
        responses["429"] = refused
    return responses


def _refused(what: str, name: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"description": what, "content": {"application/json": {"schema": schema}}}
