"""The Codegen API as its OpenAPI file describes it: operations, their parameters, their schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

__all__ = ["LIMITS", "CodegenOperation", "codegen_operations", "matched", "schema"]

LIMITS: Mapping[str, tuple[int, float]] = {
    "standard": (60, 30),
    "create": (10, 60),
    "logs": (60, 60),
    "pull_requests": (30, 60),
    "rules": (30, 60),
    "setup": (5, 60),
    "analysis": (5, 60),
}
"""Class to requests and seconds, from the operations' descriptions in the vendor's file."""

_CLASSES = {
    "create_agent_run": "create",
    "get_agent_run_logs": "logs",
    "edit_pull_request_simple": "pull_requests",
    "edit_pull_request": "pull_requests",
    "get_cli_rules": "rules",
    "generate_setup_commands": "setup",
    "analyze_sandbox_logs": "analysis",
}


@dataclass(frozen=True)
class CodegenOperation:
    """One operation.

    Attributes:
        name: the `operationId` without the path that the vendor's generator appends.
        path: with `{placeholders}`.
        parameters: of path and query, as OpenAPI has them.
        body: schema of the request's body, or None.
        replies: status to schema, or to None where there is none.
        group: the class whose limit it counts against.
    """

    name: str
    method: str
    path: str
    pattern: re.Pattern[str]
    parameters: tuple[Mapping[str, Any], ...]
    body: Mapping[str, Any] | None
    replies: Mapping[str, Mapping[str, Any] | None]
    group: str


@cache
def _file() -> Mapping[str, Any]:
    text = resources.files("headgate.emulator").joinpath("data", "codegen-api.json").read_text("utf-8")
    loaded: Mapping[str, Any] = json.loads(text)
    return loaded


@cache
def codegen_operations() -> tuple[CodegenOperation, ...]:
    """Every operation of the file; those without placeholders first, so that they win."""
    found = [
        _operation(path, method, entry)
        for path, methods in _file()["paths"].items()
        for method, entry in methods.items()
    ]
    return tuple(sorted(found, key=lambda operation: operation.path.count("{")))


def matched(method: str, path: str) -> tuple[CodegenOperation, dict[str, str]] | int:
    """The operation a request is for with its path's values, or the status it fails with."""
    status = 404
    for operation in codegen_operations():
        if match := operation.pattern.fullmatch(path):
            if operation.method == method:
                return operation, match.groupdict()
            status = 405
    return status


def schema(reference: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a `$ref` points to; a schema itself stays itself."""
    if "$ref" not in reference:
        return reference
    found: Mapping[str, Any] = _file()["components"]["schemas"][reference["$ref"].rpartition("/")[2]]
    return found


def _operation(path: str, method: str, entry: Mapping[str, Any]) -> CodegenOperation:
    name = re.sub(r"_v1_.*", "", entry["operationId"])
    body = entry.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    replies = {
        status: reply.get("content", {}).get("application/json", {}).get("schema")
        for status, reply in entry["responses"].items()
    }
    pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))
    return CodegenOperation(
        name,
        method.upper(),
        path,
        pattern,
        tuple(entry.get("parameters", ())),
        body,
        replies,
        _CLASSES.get(name, "standard"),
    )
