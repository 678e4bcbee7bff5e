"""Sentences for a wrong configuration: the file, the place in it, what is allowed there."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import msgspec
from msgspec import inspect

__all__ = ["check_key_names", "describe"]

_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `(?P<place>[^`]*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.(?P<name>\w+)|\[[^\]]*\]")
_UNKNOWN = "Object contains unknown field"


def check_key_names(keys: Collection[str], **fields: Collection[str]) -> None:
    """Raise `ValueError` if a field names a key that there is not.

    Args:
        keys: the names there are.
        fields: by name, the names that each of them holds.
    """
    for field, names in fields.items():
        for name in names:
            if name not in keys:
                known = ", ".join(sorted(keys)) or "none"
                raise ValueError(f"`{field}` names the key `{name}`; allowed: {known}")


def describe(error: msgspec.ValidationError, root: type[Any], source: str) -> str:
    """One sentence for a validation error; holds names and types, never a configured value."""
    match = _PLACE.match(str(error))
    place = (match and match["place"]) or "$"
    what = match["what"] if match else str(error)
    if "allowed:" not in what:
        allowed = _allowed(inspect.type_info(root), place, fields="unknown field" in what)
        what = f"{what}; allowed: {allowed}" if allowed else what
    return f"{source}, at `{place}`: {what}."


def _allowed(info: inspect.Type, place: str, *, fields: bool) -> str:
    for step in _STEP.finditer(place):
        following = _step(info, step["name"])
        if following is None:
            return ""
        info = following
    struct = _struct(info)
    if fields and struct is not None:
        return ", ".join(field.encode_name for field in struct.fields)
    return _words(info)


def _step(info: inspect.Type, name: str | None) -> inspect.Type | None:
    for option in _options(info):
        if name is None and isinstance(option, inspect.ListType):
            return option.item_type
        if name is None and isinstance(option, inspect.DictType):
            return option.value_type
        if name is not None and isinstance(option, inspect.StructType):
            return next((f.type for f in option.fields if f.encode_name == name), None)
    return None


def _options(info: inspect.Type) -> tuple[inspect.Type, ...]:
    return info.types if isinstance(info, inspect.UnionType) else (info,)


def _struct(info: inspect.Type) -> inspect.StructType | None:
    return next((o for o in _options(info) if isinstance(o, inspect.StructType)), None)


def _words(info: inspect.Type) -> str:
    words: list[str] = []
    for option in _options(info):
        if isinstance(option, inspect.LiteralType):
            words += [str(value) for value in option.values]
        elif not isinstance(option, inspect.NoneType):
            kind = type(option).__name__.removesuffix("Type").lower()
            words.append(
                {"int": "a whole number", "float": "a number", "str": "a text"}.get(kind, kind)
            )
    return ", ".join(words)
