"""The OpenAPI 3.1 document of the management API: the table of endpoints, in another form.

Schemas are made of the structures that endpoints take and give, so the document cannot say anything
else than what is done.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from headgate.gateway.manage.table import Endpoint, NoQuery, Table
from headgate.gateway.manage.trouble import KINDS, Problem

__all__ = ["document"]

_REF = "#/components/schemas/{name}"
_ALWAYS = ("unauthorized", "not-local", "busy", "fault")
_TAGS = {
    "gateway": "The gateway at a glance, what happens in it, what is wrong.",
    "keys": "Keys, the domains they belong to, and quotas.",
    "callers": "Who may call, how much, and with which keys.",
    "usage": "What was used, what it cost, and what became of single calls.",
    "cache": "Answers that are kept.",
    "breakers": "What keeps calls off models that fail.",
    "config": "Settings, where they come from, and changing them while the gateway runs.",
    "gemini": "The backend: models, requests, monitoring, configuration.",
}
_ABOUT = """What there is to see and to do about a running gateway.

Every request but those for this page takes the admin key (`HEADGATE_ADMIN_KEY`) as
`Authorization: Bearer …`. A gateway without caller keys and without an admin key answers programs on
its own machine.

Errors are `application/problem+json` (RFC 9457), with a `hint` that says what to do next. Lists come in
pages: `next` is the `cursor` of the page after it. A POST with an `Idempotency-Key` is done once in 24
hours by the process that it reaches; its repetition there gets the same answer, with
`idempotency-replayed: true`.
"""


def document(table: Table) -> dict[str, Any]:
    """The whole document."""
    types = _types(table)
    _, components = _components(types, _REF)
    schemas = {name: _tidy(schema) for name, schema in sorted(components.items())}
    paths: dict[str, dict[str, Any]] = {}
    for one in table.endpoints:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    used = {one.tag for one in table.endpoints}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headgate management API",
            "version": version("headgate"),
            "description": _ABOUT,
        },
        "servers": [{"url": "/"}],
        "security": [{"adminKey": []}],
        "tags": [{"name": tag, "description": said} for tag, said in _TAGS.items() if tag in used],
        "paths": paths,
        "x-problems": {name: kind._asdict() for name, kind in KINDS.items()},
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "adminKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The value of HEADGATE_ADMIN_KEY.",
                }
            },
        },
    }  # fmt: skip


def _types(table: Table) -> list[Any]:
    found: list[Any] = [Problem]
    for one in table.endpoints:
        found += [kind for kind in (one.body, one.answer) if kind is not None and kind not in found]
    return found


def _schema(kind: Any) -> dict[str, Any]:
    """The schema of a type: where it has a name, a reference to it."""
    (schema,), _ = _components([kind], _REF)
    found: dict[str, Any] = _tidy(schema)
    return found


def _components(types: Sequence[Any], template: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return msgspec.json.schema_components(types, schema_hook=_anything, ref_template=template)


def _anything(kind: type) -> dict[str, Any]:
    if kind is object:
        return {"description": "Anything that JSON has."}
    raise NotImplementedError


def _tidy(schema: Any) -> Any:
    """Docstrings are for readers of Python: of one only the sentences before its sections are shown."""
    if isinstance(schema, dict):
        tidied = {name: _tidy(value) for name, value in schema.items()}
        if isinstance(tidied.get("description"), str):
            tidied["description"] = inspect.cleandoc(tidied["description"]).partition("\n\n")[0]
        return tidied
    return [_tidy(item) for item in schema] if isinstance(schema, list) else schema


# ── one endpoint ────────────────────────────────────────────────────────────────────────────────


def _operation(one: Endpoint) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": one.name,
        "tags": [one.tag],
        "summary": one.summary,
        **({"description": one.description} if one.description else {}),
        "parameters": [*_path_parameters(one), *_query_parameters(one), *_headers(one)],
        "responses": _responses(one),
    }
    if one.body is not None:
        media: dict[str, Any] = {"schema": _schema(one.body)}
        if one.body_example is not None:
            media["example"] = one.body_example
        found["requestBody"] = {
            "required": bool(_required(one.body)),
            "content": {"application/json": media},
        }
    return found


def _required(body: Any) -> list[str]:
    try:
        fields = msgspec.structs.fields(body)
    except TypeError:
        return []
    return [field.encode_name for field in fields if field.required]


def _path_parameters(one: Endpoint) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
            **({"example": one.path_examples[name]} if name in one.path_examples else {}),
        }
        for name in one.parameters
    ]


def _query_parameters(one: Endpoint) -> list[dict[str, Any]]:
    if one.query is NoQuery:
        return []
    _, components = _components([one.query], "{name}")
    properties: Mapping[str, Any] = components[one.query.__name__]["properties"]
    shown = []
    for field in msgspec.structs.fields(one.query):
        schema = dict(_resolved(properties[field.encode_name], components))
        parameter = {
            "name": field.encode_name,
            "in": "query",
            "required": field.required,
            "schema": schema,
        }
        said = schema.pop("description", None)
        if said:
            parameter["description"] = said
        if field.encode_name in one.query_example:
            parameter["example"] = one.query_example[field.encode_name]
        shown.append(parameter)
    return shown


def _resolved(schema: Mapping[str, Any], components: Mapping[str, Any]) -> Mapping[str, Any]:
    """A parameter cannot be null, only left out; an enumeration stands where it is used."""
    if "$ref" in schema:
        found = {**components[schema["$ref"]], **{k: v for k, v in schema.items() if k != "$ref"}}
        found.pop("title", None)
        return found
    if "anyOf" in schema:
        kinds = [kind for kind in schema["anyOf"] if kind.get("type") != "null"]
        rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
        if len(kinds) == 1:
            return {**rest, **_resolved(kinds[0], components)}
    return schema


def _headers(one: Endpoint) -> list[dict[str, Any]]:
    if one.streams:
        return [_header("Last-Event-ID", "Of the last event that was had.")]
    if one.method == "POST":
        return [_header("Idempotency-Key", "Makes repeating the request safe, for 24 hours.")]
    return []


def _header(name: str, said: str) -> dict[str, Any]:
    schema = {"type": "string", "maxLength": 255}
    return {"name": name, "in": "header", "required": False, "description": said, "schema": schema}


def _responses(one: Endpoint) -> dict[str, Any]:
    found: dict[str, Any] = {str(one.status): _success(one)}
    kinds = {"invalid", *one.problems}
    if one.parameters:
        kinds.add("not-found")
    if one.changes:
        kinds |= {"too-large", "unsupported-media-type"}
    if one.method == "POST":
        kinds |= {"in-progress", "key-reused", "conflict"}
    by_status: dict[int, list[str]] = {}
    for kind in [*sorted(kinds), *_ALWAYS]:
        by_status.setdefault(KINDS[kind].status, []).append(kind)
    for status, names in sorted(by_status.items()):
        found[str(status)] = _problems("; ".join(f"`{name}`: {KINDS[name].title}" for name in names))
    if "call-failed" in kinds:
        found["default"] = _problems("The upstream's own status, where a call to a model failed.")
    return found


def _success(one: Endpoint) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if one.answer is not None:
        media: dict[str, Any] = {"schema": _schema(one.answer)}
        if one.answer_example is not None:
            media["example"] = one.answer_example
        content["application/json"] = media
    if one.streams or one.may_stream:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    found: dict[str, Any] = {"description": "Done." if one.changes else "What was asked for."}
    if content:
        found["content"] = content
    return found


def _problems(said: str) -> dict[str, Any]:
    media = {"application/problem+json": {"schema": _schema(Problem)}}
    return {"description": said, "content": media}
