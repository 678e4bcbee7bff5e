"""A value that fits a schema: Google's (`OBJECT`, `nullable`) or JSON Schema (`$ref`, `anyOf` …).

Within reason: `pattern` is met from a stock of usual texts, `not`, `if` and `dependent…` are not
looked at, and a schema that allows nothing gets something anyway.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from headgate.emulator.chance import Chance, seeded

__all__ = ["is_usable", "value_for"]

_DEPTH = 6  # levels after which optional things are left out
_SHALLOW = 3  # levels before which lists may have several items: trees must not explode
_MOST = 1000  # items and characters, whatever a schema asks for
_PROSE = 60
"""Characters from which a text is made of sentences."""
_FORMATS = {
    "date-time": "2026-11-21T12:00:00Z",
    "date": "2026-11-21",
    "time": "12:00:00Z",
    "duration": "PT90S",
    "email": "ada@example.com",
    "uri": "https://example.com/water",
    "url": "https://example.com/water",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "2f1c0a52-7f3c-4c7e-9b1d-6f0e8a4d5b21",
}
_STOCK = (
    *_FORMATS.values(), "a", "A", "ab", "AB", "abc", "ABC", "Abc", "abcd", "ABCD", "ABC-123", "AB-1234",
    "ABC123", "a1", "A1", "0", "1", "10", "12", "123", "1234", "12345", "123456", "1234567890", "12:30",
    "1.0", "1.2.3", "+49 30 123456", "+4930123456", "555-0100", "#a1b2c3", "en", "en-GB", "abc_def",
    "abc-def", "Ada Lovelace", "", " ",
)  # fmt: skip


def value_for(schema: Mapping[str, Any], words: Sequence[str], chance: Chance) -> Any:
    """A value the schema allows; texts are made of the words."""
    return _Maker(schema, list(words) or ["water"], chance).value(schema, 0)


def is_usable(schema: Any) -> bool:
    """Whether a value can be made at all: its members have the types a schema's members have."""
    if not isinstance(schema, Mapping):
        return False
    try:
        for seed in range(3):  # choices lead to different corners
            value_for(schema, (), seeded(seed))
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError):
        return False
    return True


class _Maker:
    def __init__(self, root: Mapping[str, Any], words: list[str], chance: Chance) -> None:
        self._root = root
        self._words = words
        self._chance = chance

    def value(self, schema: Any, depth: int) -> Any:
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._enum(schema)
        if "anyOf" in schema or "oneOf" in schema:
            return self.value(self._option(schema, depth), depth + 1)
        kind = self._kind(schema)
        if kind != "null" and schema.get("nullable") and depth > _DEPTH:
            return None
        makers = {
            "object": self._object, "array": self._array, "string": self._string,
            "integer": self._number, "number": self._number,
        }  # fmt: skip
        if kind in makers:
            return makers[kind](schema, depth)
        return self._chance.random() < 0.5 if kind == "boolean" else None

    def _resolved(self, schema: Any) -> Mapping[str, Any]:
        for _ in range(50):  # a chain of references that never ends is the caller's joke
            if not isinstance(schema, Mapping):
                return {}
            merged = dict(schema)
            for part in merged.pop("allOf", []):
                merged = _merge(merged, self._resolved(part))
            reference = merged.pop("$ref", None)
            if reference is None:
                return merged
            schema = _merge(dict(self._pointer(str(reference))), merged)
        return {}

    def _pointer(self, reference: str) -> Mapping[str, Any]:
        place: Any = self._root
        for step in reference.removeprefix("#").split("/"):
            if step:
                name = step.replace("~1", "/").replace("~0", "~")
                place = place.get(name, {}) if isinstance(place, Mapping) else {}
        return place if isinstance(place, Mapping) else {}

    def _kind(self, schema: Mapping[str, Any]) -> str:
        kinds = schema.get("type")
        if isinstance(kinds, str):
            kinds = [kinds]
        if kinds:
            lower = [str(k).lower() for k in kinds]
            return next((k for k in lower if k != "null"), "null")
        if "properties" in schema:
            return "object"
        return "array" if "items" in schema or "prefixItems" in schema else "string"

    def _enum(self, schema: Mapping[str, Any]) -> Any:
        value = self._chance.choice(list(schema["enum"]))
        if self._kind(schema) == "integer" and isinstance(value, str) and value.lstrip("-").isdigit():
            return int(value)
        return value

    def _option(self, schema: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
        options = [
            _merge(_bare(schema), self._resolved(o)) for o in schema.get("anyOf") or schema["oneOf"]
        ]
        nulls = [o for o in options if self._kind(o) == "null" and "enum" not in o]
        others = [o for o in options if o not in nulls]
        if depth > _DEPTH:
            simple = [o for o in options if self._kind(o) not in ("object", "array")]
            return (nulls or simple or options)[0]
        return self._chance.choice(others) if others else options[0]

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties: Mapping[str, Any] = schema.get("properties") or {}
        required = list(schema.get("required") or [])
        order = [n for n in schema.get("propertyOrdering") or [] if n in properties]
        order += [n for n in properties if n not in order]
        made = {
            n: self.value(properties[n], depth + 1) for n in order if depth <= _DEPTH or n in required
        }
        extra = schema.get("additionalProperties")
        extra = extra if isinstance(extra, Mapping) else {"type": "string"}
        for name in required:
            if name not in made:
                made[name] = self.value(extra, depth + 1)
        for index in range(min(int(schema.get("minProperties") or 0), _MOST) - len(made)):
            made[f"{self._words[index % len(self._words)]}_{index}"] = self.value(extra, depth + 1)
        if not properties and schema.get("additionalProperties") and not made and depth <= _DEPTH:
            made[self._words[0]] = self.value(extra, depth + 1)
        return made

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        fixed = schema.get("prefixItems") or []
        low = min(int(schema.get("minItems") or 0), _MOST)
        high = int(schema.get("maxItems") or max(low, 3))
        usual = 1 + self._chance.randrange(3) if depth < _SHALLOW else int(depth <= _DEPTH)
        wanted = max(low, min(high, usual))
        made = [self.value(item, depth + 1) for item in fixed[:high]]
        items = schema.get("items", {"type": "string"})
        if items is False:
            return made
        tries = 0
        while len(made) < wanted and tries < 20 * wanted:
            tries += 1
            item = self.value(items, depth + 1)
            if item in made and isinstance(item, str) and _is_free(self._resolved(items)):
                item = f"{item} {len(made) + 1}"  # no model lists the same thing again and again
            if schema.get("uniqueItems") and item in made:
                continue
            made.append(item)
        return made

    def _string(self, schema: Mapping[str, Any], _depth: int) -> str:
        low = min(int(schema.get("minLength") or 0), _MOST)
        high = int(schema.get("maxLength") or 10_000)
        pattern = schema.get("pattern")
        if isinstance(pattern, str):
            return _matching(pattern, low, high)
        fixed = _FORMATS.get(str(schema.get("format")))
        if fixed is not None:
            return fixed
        if low >= _PROSE:
            return self._sentences(low)[:high]
        count = 1 + self._chance.randrange(3)
        text = " ".join(self._chance.choice(self._words) for _ in range(count))
        while len(text) < low:
            text += " " + self._chance.choice(self._words)
        return text[:high].ljust(low, "x") if len(text) > high else text

    def _sentences(self, least: int) -> str:
        """At least so many characters, in sentences: nobody writes that much without a full stop."""
        text = ""
        while len(text) < least:
            words = [self._chance.choice(self._words) for _ in range(6 + self._chance.randrange(5))]
            text += f"{' ' if text else ''}{' '.join(words).capitalize()}."
        return text

    def _number(self, schema: Mapping[str, Any], _depth: int) -> float:
        whole = self._kind(schema) == "integer"
        low, high = _bounds(schema, whole=whole)
        step = schema.get("multipleOf")
        if step:
            first = math.ceil(low / step)
            count = max(0, math.floor(high / step) - first)
            number = (first + self._chance.randrange(min(count, 100) + 1)) * step
            return int(number) if whole else number
        if whole:
            return self._chance.randint(math.ceil(low), max(math.ceil(low), math.floor(high)))
        between = round(self._chance.uniform(low, high), 2)
        return between if low <= between <= high else (low + high) / 2


def _is_free(schema: Mapping[str, Any]) -> bool:
    """Whether any text fits that is no shorter."""
    return not {"enum", "const", "pattern", "format", "maxLength", "anyOf", "oneOf"} & set(schema)


def _bounds(schema: Mapping[str, Any], *, whole: bool) -> tuple[float, float]:
    edge = 1.0 if whole else 1e-6
    lows = [
        float(schema[n]) + e
        for n, e in (("minimum", 0.0), ("exclusiveMinimum", edge))
        if _is_number(schema.get(n))
    ]
    highs = [
        float(schema[n]) - e
        for n, e in (("maximum", 0.0), ("exclusiveMaximum", edge))
        if _is_number(schema.get(n))
    ]
    if lows and highs:
        return max(lows), min(highs)
    if lows:
        return max(lows), max(lows) + 100
    return (min(highs) - 100, min(highs)) if highs else (0.0, 100.0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _matching(pattern: str, low: int, high: int) -> str:
    try:
        wanted = re.compile(pattern)
    except re.error:
        return "abc"
    fitting = (t for t in _STOCK if low <= len(t) <= high and wanted.search(t))
    return next(fitting, "abc"[:high].ljust(low, "x"))


def _bare(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        n: v
        for n, v in schema.items()
        if n not in ("anyOf", "oneOf", "title", "description", "default")
    }


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**below, **above}
    if "properties" in below and "properties" in above:
        merged["properties"] = {**below["properties"], **above["properties"]}
    if "required" in below and "required" in above:
        merged["required"] = [
            *below["required"],
            *(n for n in above["required"] if n not in below["required"]),
        ]
    return merged
