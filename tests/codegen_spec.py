"""The vendor's OpenAPI file, and a judge of what fits it: `jsonschema`, which knows nothing of us."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonschema

from headgate.testing import Sent

SPEC: dict[str, Any] = json.loads(
    resources.files("headgate.emulator").joinpath("data", "codegen-api.json").read_text("utf-8")
)
SCHEMAS: dict[str, Any] = SPEC["components"]["schemas"]
OPERATIONS = [
    (path, method, entry)
    for path, methods in SPEC["paths"].items()
    for method, entry in methods.items()
]


@cache
def _validator(text: str) -> Any:
    schema = {**json.loads(text), "components": SPEC["components"]}
    return jsonschema.Draft202012Validator(schema)


def fits(schema: dict[str, Any], value: Any) -> None:
    """Fails unless the value fits the schema."""
    _validator(json.dumps(schema)).validate(value)


def reply_fits(path: str, method: str, status: int, body: bytes) -> None:
    """Fails unless an answer's status is one of the operation's, and its body fits."""
    entry = SPEC["paths"][path][method.lower()]
    assert str(status) in entry["responses"], f"{method} {path} never answers {status}"
    content = entry["responses"][str(status)].get("content")
    if content:
        fits(content["application/json"]["schema"], json.loads(body))


def operation_of(method: str, path: str) -> tuple[str, dict[str, Any]]:
    """The operation that a method and a concrete path are for."""
    concrete = sorted(OPERATIONS, key=lambda entry: entry[0].count("{"))
    for template, verb, entry in concrete:
        if verb.upper() == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            return template, entry
    raise AssertionError(f"the API has no {method} {path}")


def request_fits(sent: Sent) -> tuple[str, str]:
    """Fails unless a request is one that the file describes. Returns its path's template and method."""
    request = sent.request
    parts = urlsplit(request.url)
    template, entry = operation_of(request.method, parts.path[parts.path.index("/v1") :])
    query = dict(parse_qsl(parts.query))
    for parameter in entry.get("parameters", ()):
        if parameter["in"] != "query":
            continue
        name = parameter["name"]
        assert name in query or not parameter["required"], f"{template} needs {name}"
        if name in query:
            fits(parameter["schema"], _typed(parameter["schema"], query.pop(name)))
    assert not query, f"{template} has no parameters {query}"
    body = entry.get("requestBody")
    if body is None:
        assert not request.body
    else:
        fits(body["content"]["application/json"]["schema"], json.loads(request.body))
        assert request.headers["content-type"] == "application/json"
    return template, request.method


def _typed(schema: dict[str, Any], text: str) -> Any:
    kinds = {choice.get("type") for choice in schema.get("anyOf", [schema])}
    if "integer" in kinds:
        return int(text)
    return text == "true" if "boolean" in kinds else text
