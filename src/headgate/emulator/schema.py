"""Requests against the published schema: either spelling in, one spelling out, violations named.

The upstream reads proto3 JSON: a field in lowerCamel or snake_case, numbers as strings, `null` as
not there, enums in any case. Free JSON (`args`, JSON schemas) is left alone.
"""

from __future__ import annotations

import base64
import binascii
import json
from importlib import resources
from typing import Any, TypeAlias

from headgate.emulator.wording import camel, snake

__all__ = ["Violation", "read"]

Violation: TypeAlias = tuple[str, str]
"""(path of the field, what is wrong with it), as in `fieldViolations`."""

_FILE: dict[str, Any] = json.loads(
    resources.files("headgate.emulator").joinpath("data/requests.json").read_text("utf-8")
)
_MESSAGES: dict[str, dict[str, Any]] = _FILE["messages"]
_ENUMS: dict[str, list[str]] = _FILE["enums"]
_WHOLE = {"int32": "TYPE_INT32", "int64": "TYPE_INT64"}
_BROKEN = {"float": "TYPE_FLOAT", "double": "TYPE_DOUBLE"}
_INT32 = 2**31


def read(body: dict[str, Any], message: str) -> tuple[dict[str, Any], list[Violation]]:
    """The request with every known field in lowerCamel, and what the schema has against it."""
    reader = _Reader()
    return reader.message(body, message, ""), reader.violations


class _Reader:
    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def message(self, body: Any, name: str, path: str) -> dict[str, Any]:
        if not isinstance(body, dict):
            self._invalid(path, name, body)
            return {}
        fields = _MESSAGES[name]
        read: dict[str, Any] = {}
        for given, value in body.items():
            known = given if given in fields else camel(given)
            if known in fields:
                if value is not None:
                    read[known] = self._value(value, fields[known], _join(path, snake(known)))
            elif fields:
                self._unknown(given, path)
            else:  # the description does not say what is inside
                read[given] = value
        return read

    def _value(self, value: Any, kind: Any, path: str) -> Any:
        if isinstance(kind, list):
            items = value if isinstance(value, list) else [value]  # a single one is taken as a list
            return [self._value(v, kind[0], f"{path}[{i}]") for i, v in enumerate(items)]
        if isinstance(kind, dict):
            if not isinstance(value, dict):
                self._invalid(path, "Map", value)
                return {}
            pairs = enumerate(value.items())
            return {k: self._value(v, kind["*"], f"{path}[{i}].value") for i, (k, v) in pairs}
        if kind in _MESSAGES:
            return self.message(value, kind, path)
        return self._scalar(value, kind, path)

    def _scalar(self, value: Any, kind: str, path: str) -> Any:
        if kind in _ENUMS:
            return self._enum(value, kind, path)
        if kind in _WHOLE:
            return self._whole(value, kind, path)
        if kind in _BROKEN:
            return self._number(value, kind, path)
        if kind == "bool" and not isinstance(value, bool):
            self._invalid(path, "TYPE_BOOL", value)
        elif kind == "bytes":
            self._bytes(value, path)
        elif kind in ("string", "timestamp") and not isinstance(value, str):
            self._invalid(path, "TYPE_STRING", value)
            return str(value)
        return value

    def _enum(self, value: Any, kind: str, path: str) -> Any:
        values = _ENUMS[kind]
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(values):
            return values[value]
        if isinstance(value, str):
            for known in values:
                if known.lower() == value.lower():
                    return known
        self._invalid(path, f"type.googleapis.com/google.ai.generativelanguage.v1beta.{kind}", value)
        return values[0]

    def _whole(self, value: Any, kind: str, path: str) -> int:
        try:
            number = float(value) if not isinstance(value, bool) else None
        except (TypeError, ValueError):
            number = None
        if number is None or number != number // 1 or (kind == "int32" and abs(number) > _INT32):
            self._invalid(path, _WHOLE[kind], value)
            return 0
        return int(value) if isinstance(value, str) and value.lstrip("-").isdigit() else int(number)

    def _number(self, value: Any, kind: str, path: str) -> float:
        try:
            if not isinstance(value, bool):
                return float(value)
        except (TypeError, ValueError):
            pass
        self._invalid(path, _BROKEN[kind], value)
        return 0.0

    def _bytes(self, value: Any, path: str) -> None:
        if isinstance(value, str):
            plain = value.replace("-", "+").replace("_", "/").rstrip("=")
            try:
                base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
                return
            except (binascii.Error, ValueError):
                pass
        self.violations.append(
            (
                path,
                f"Invalid value at '{path}' (TYPE_BYTES), Base64 decoding failed for {_shown(value)}",
            )
        )

    def _unknown(self, name: str, path: str) -> None:
        where = f" at '{path}'" if path else ""
        self.violations.append(
            (path, f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.')
        )

    def _invalid(self, path: str, kind: str, value: Any) -> None:
        self.violations.append((path, f"Invalid value at '{path}' ({kind}), {_shown(value)}"))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
