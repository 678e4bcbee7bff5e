"""Whether a value fits a schema: JSON Schema as models take it, and Google's own dialect of it.

Covered are the keywords that structured output knows: types (also `OBJECT` and the like, and
`nullable`), `enum`, `const`, members and items, lengths and ranges, `pattern`, `multipleOf`,
`uniqueItems`, `anyOf`, `oneOf`, `allOf`, `not`, and `$ref` inside of the schema. `format` is a hint and
is not checked; unknown keywords are ignored, as the standard asks.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["MOST_PROBLEMS", "malformed", "problems"]

MOST_PROBLEMS = 5
"""As many are told: a person mends one after the other anyway."""

_DEPTH = 64
"""Levels of schema within schema; what lies deeper is a reference to itself."""

_SMALL = re.compile(r"[0-9]{1,18}")

_TYPES: Mapping[str, Callable[[object], bool]] = {
    "object": lambda value: isinstance(value, Mapping),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: _is_number(value) and _is_whole(value),
}


def problems(value: object, schema: Mapping[str, Any]) -> list[str]:
    """What about a value does not fit, as sentences with its place (`$.items[2].name`); none: it fits.

    The values themselves are not repeated: they may be personal.
    """
    found: list[str] = []
    for sentence in _Check(schema).look(value, schema, "$", 0):
        found.append(sentence)
        if len(found) == MOST_PROBLEMS:
            break
    return found


def malformed(schema: object, place: str = "$", depth: int = 0) -> str | None:
    """Why something is no schema, or None."""
    if isinstance(schema, bool):
        return None
    if not isinstance(schema, Mapping):
        return f"{place} is no object"
    if depth > _DEPTH:
        return f"{place} is nested without end"
    return _wrong_words(schema, place) or _wrong_parts(schema, place, depth)


def _wrong_words(schema: Mapping[str, Any], place: str) -> str | None:
    kinds = schema.get("type")
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind is not None and str(kind).lower() not in (*_TYPES, "type_unspecified"):
            return f"{place}.type is none of {', '.join(_TYPES)}"
    for word in ("required", "enum"):
        if word in schema and not isinstance(schema[word], list | tuple):
            return f"{place}.{word} is no list"
    if not all(isinstance(name, str) for name in schema.get("required") or ()):
        return f"{place}.required names something that is no text"
    pattern = schema.get("pattern")
    try:
        re.compile(pattern if isinstance(pattern, str) else "")
    except re.error as error:
        return f"{place}.pattern is no regular expression: {error}"
    return None


def _wrong_parts(schema: Mapping[str, Any], place: str, depth: int) -> str | None:
    for word in ("properties", "$defs", "definitions"):
        members = schema.get(word, {})
        if not isinstance(members, Mapping):
            return f"{place}.{word} is no object"
        for name, part in members.items():
            if wrong := malformed(part, f"{place}.{word}.{name}", depth + 1):
                return wrong
    for word in ("anyOf", "oneOf", "allOf", "prefixItems"):
        parts = schema.get(word, ())
        if not isinstance(parts, list | tuple):
            return f"{place}.{word} is no list"
        for number, part in enumerate(parts):
            if wrong := malformed(part, f"{place}.{word}[{number}]", depth + 1):
                return wrong
    for word in ("items", "additionalProperties", "not"):
        if word in schema and (wrong := malformed(schema[word], f"{place}.{word}", depth + 1)):
            return wrong
    return None


class _Check:
    """One look at one value. Every method yields sentences."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def look(self, value: object, schema: object, place: str, depth: int) -> Iterator[str]:
        if schema is False:
            yield f"{place} must not be there"
        if not isinstance(schema, Mapping) or depth > _DEPTH:
            return
        if isinstance(reference := schema.get("$ref"), str):
            yield from self.look(value, self._at(reference), place, depth + 1)
        if value is None and schema.get("nullable") is True:
            return
        if (wanted := _wrong_type(value, schema.get("type"))) is not None:
            yield f"{place} is {_kind(value)}, not {wanted}"
            return
        yield from self._plain(value, schema, place)
        if isinstance(value, Mapping):
            yield from self._object(value, schema, place, depth)
        elif isinstance(value, list):
            yield from self._array(value, schema, place, depth)
        yield from self._combined(value, schema, place, depth)

    def _plain(self, value: object, schema: Mapping[str, Any], place: str) -> Iterator[str]:
        if "const" in schema and not _same(value, schema["const"]):
            yield f"{place} is not the one value that is allowed"
        if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
            yield f"{place} is none of the values that are allowed"
        if isinstance(value, str):
            yield from _sized(len(value), schema, place, ("minLength", "maxLength"), "characters")
            pattern = schema.get("pattern")
            if isinstance(pattern, str) and not re.search(pattern, value):
                yield f"{place} does not match {pattern!r}"
        elif _is_number(value):
            yield from _ranged(value, schema, place)  # type: ignore[arg-type]

    def _object(
        self, value: Mapping[str, Any], schema: Mapping[str, Any], place: str, depth: int
    ) -> Iterator[str]:
        yield from _sized(len(value), schema, place, ("minProperties", "maxProperties"), "members")
        yield from (
            f"{place} has no {name!r}" for name in schema.get("required") or () if name not in value
        )
        members = schema.get("properties") or {}
        rest = schema.get("additionalProperties", True)
        for name, item in value.items():
            part = members.get(name, rest)
            yield from self.look(item, part, f"{place}.{name}", depth + 1)

    def _array(
        self, value: list[Any], schema: Mapping[str, Any], place: str, depth: int
    ) -> Iterator[str]:
        yield from _sized(len(value), schema, place, ("minItems", "maxItems"), "items")
        first = schema.get("prefixItems") or ()
        for number, item in enumerate(value):
            part = first[number] if number < len(first) else schema.get("items", True)
            yield from self.look(item, part, f"{place}[{number}]", depth + 1)
        if schema.get("uniqueItems") is True:
            seen = {json.dumps(item, sort_keys=True) for item in value}
            if len(seen) < len(value):
                yield f"{place} has items twice"

    def _combined(
        self, value: object, schema: Mapping[str, Any], place: str, depth: int
    ) -> Iterator[str]:
        for part in schema.get("allOf") or ():
            yield from self.look(value, part, place, depth + 1)
        options = schema.get("anyOf")
        if options and not any(self._fits(value, part, depth) for part in options):
            yield f"{place} fits none of anyOf"
        if options := schema.get("oneOf"):
            fitting = sum(self._fits(value, part, depth) for part in options)
            if fitting != 1:
                yield f"{place} fits {fitting} of oneOf, not one"
        if "not" in schema and self._fits(value, schema["not"], depth):
            yield f"{place} fits what it must not"

    def _fits(self, value: object, schema: object, depth: int) -> bool:
        return next(self.look(value, schema, "$", depth + 1), None) is None

    def _at(self, reference: str) -> object:
        place: object = self._root
        for step in filter(None, reference.removeprefix("#").split("/")):
            name = step.replace("~1", "/").replace("~0", "~")
            place = place.get(name, True) if isinstance(place, Mapping) else True
        return place


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _wrong_type(value: object, kinds: object) -> str | None:
    names = [
        str(kind).lower() for kind in (kinds if isinstance(kinds, list | tuple) else [kinds]) if kind
    ]
    known = [name for name in names if name in _TYPES]
    if not known or any(_TYPES[name](value) for name in known):
        return None
    return " or ".join(known)


def _kind(value: object) -> str:
    if isinstance(value, int):
        return "boolean" if isinstance(value, bool) else "integer"
    return next(name for name, fits in _TYPES.items() if fits(value))


def _same(one: object, two: object) -> bool:
    """Equality of JSON: true is not 1, and 1.0 is 1. Google writes numbers of an enum as text."""
    if isinstance(one, bool) is not isinstance(two, bool):
        return False
    return one == two or (_is_number(one) and isinstance(two, str) and str(one) == two)


def _sized(
    size: int, schema: Mapping[str, Any], place: str, words: tuple[str, str], what: str
) -> Iterator[str]:
    least, most = (_limit(schema.get(word)) for word in words)  # Google writes int64 as text
    if least is not None and size < least:
        yield f"{place} has {size} {what}, fewer than {least!r:.40}"
    if most is not None and size > most:
        yield f"{place} has {size} {what}, more than {most!r:.40}"


def _limit(value: object) -> float | None:
    if _is_number(value):
        return value  # type: ignore[return-value]
    return int(value) if isinstance(value, str) and _SMALL.fullmatch(value) else None


def _ranged(value: float, schema: Mapping[str, Any], place: str) -> Iterator[str]:
    rules: Sequence[tuple[str, Callable[[float, float], bool], str]] = (
        ("minimum", lambda a, b: a < b, "below"),
        ("maximum", lambda a, b: a > b, "above"),
        ("exclusiveMinimum", lambda a, b: a <= b, "not above"),
        ("exclusiveMaximum", lambda a, b: a >= b, "not below"),
    )
    for word, wrong, how in rules:
        limit = _limit(schema.get(word))
        if limit is None:
            limit = schema.get(word) if _is_number(schema.get(word)) else None
        if limit is not None and wrong(value, limit):
            yield f"{place} is {how} {limit!r:.40}"
    step = _limit(schema.get("multipleOf"))
    if step and math.isfinite(step) and not _is_multiple(value, step):
        yield f"{place} is no multiple of {step!r:.40}"


def _is_multiple(value: float, step: float) -> bool:
    try:
        ratio = value / step
        return math.isclose(ratio, round(ratio), abs_tol=1e-9)
    except OverflowError:  # beyond what a float holds nothing can be told
        return True
