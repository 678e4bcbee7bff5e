"""Requests measured against the OpenAPI file; what is wrong is told as FastAPI tells it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from headgate.emulator.codegen_api import CodegenOperation, schema

__all__ = ["Problem", "checked_body", "checked_parameters", "problems_of"]

Problem = dict[str, Any]
Loc = tuple[str | int, ...]

_SAID = {
    "integer": ("int_type", "Input should be a valid integer"),
    "string": ("string_type", "Input should be a valid string"),
    "boolean": ("bool_type", "Input should be a valid boolean"),
    "object": ("dict_type", "Input should be a valid dictionary"),
    "array": ("list_type", "Input should be a valid list"),
    "null": ("none_required", "Input should be None"),
}
_IS: dict[str, Callable[[Any], bool]] = {
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "null": lambda value: value is None,
}


def checked_parameters(
    operation: CodegenOperation, path: Mapping[str, str], query: Mapping[str, str]
) -> tuple[dict[str, Any], list[Problem]]:
    """The values of path and query in their types, and what is wrong with them."""
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for parameter in operation.parameters:
        name, where = parameter["name"], parameter["in"]
        wanted, given = parameter["schema"], (path if where == "path" else query).get(name)
        if given is None:
            if parameter.get("required"):
                problems.append(_problem((where, name), "missing", "Field required"))
            values[name] = wanted.get("default")
            continue
        value = _typed(wanted, given)
        found = problems_of(wanted, value, (where, name))
        problems += found
        values[name] = value
    return values, problems


def checked_body(operation: CodegenOperation, body: bytes) -> tuple[dict[str, Any], list[Problem]]:
    """The body, and what is wrong with it. Empty for an operation without one."""
    if operation.body is None:
        return {}, []
    if not body:
        return {}, [_problem(("body",), "missing", "Field required")]
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}, [_problem(("body", 0), "json_invalid", "JSON decode error")]
    problems = problems_of(operation.body, value, ("body",))
    return (value if isinstance(value, dict) else {}), problems


def problems_of(reference: Mapping[str, Any], value: Any, loc: Loc) -> list[Problem]:
    """What keeps a value from fitting a schema; the part of JSON Schema that the file uses."""
    wanted = schema(reference)
    if "anyOf" in wanted:
        tries = [problems_of(choice, value, loc) for choice in wanted["anyOf"]]
        return [] if not all(tries) else tries[0]
    kind = wanted.get("type")
    if kind is not None and not _IS[kind](value):
        return [_problem(loc, *_SAID[kind])]
    if "enum" in wanted and value not in wanted["enum"]:
        choices = " or ".join(f"'{choice}'" for choice in wanted["enum"])
        return [_problem(loc, "enum", f"Input should be {choices}")]
    return [*_bounds(wanted, value, loc), *_parts(wanted, value, loc)]


def _bounds(wanted: Mapping[str, Any], value: Any, loc: Loc) -> list[Problem]:
    found = []
    if "minimum" in wanted and value < wanted["minimum"]:
        said = f"Input should be greater than or equal to {wanted['minimum']:g}"
        found.append(_problem(loc, "greater_than_equal", said))
    if "maximum" in wanted and value > wanted["maximum"]:
        said = f"Input should be less than or equal to {wanted['maximum']:g}"
        found.append(_problem(loc, "less_than_equal", said))
    return found


def _parts(wanted: Mapping[str, Any], value: Any, loc: Loc) -> list[Problem]:
    found = []
    if isinstance(value, list):
        for index, item in enumerate(value):
            found += problems_of(wanted.get("items", {}), item, (*loc, index))
    if isinstance(value, dict):
        properties = wanted.get("properties", {})
        for name in wanted.get("required", ()):
            if name not in value:
                found.append(_problem((*loc, name), "missing", "Field required"))
        others = wanted.get("additionalProperties")
        for name, part in value.items():
            inner = properties.get(name, others if isinstance(others, dict) else {})
            found += problems_of(inner, part, (*loc, name))
    return found


def _typed(wanted: Mapping[str, Any], text: str) -> Any:
    """A parameter's text as the type its schema asks for; the text itself where it is none."""
    kinds = {schema(choice).get("type") for choice in wanted.get("anyOf", (wanted,))}
    if "integer" in kinds:
        try:
            return int(text)
        except ValueError:
            return text
    if "boolean" in kinds:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    return text


def _problem(loc: Loc, kind: str, said: str) -> Problem:
    return {"loc": list(loc), "msg": said, "type": kind}
