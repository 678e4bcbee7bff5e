"""`python -m tools.reference`: writes the generated blocks of docs/reference from the code.

A block stands between two comments of a page, which name what it shows; all else on the page is
written by hand and stays as it is:

    <!-- generated: structure headgate.backend.RetryConfig -->
    <!-- /generated -->

| kind | shows |
|---|---|
| `structure` | fields of one or more structures: type, default, unit, meaning |
| `names` | fields of structures by name alone, a line for each structure |
| `commands` | public methods of a class: signature, what they do, what they raise |
| `arguments` | arguments of a class or function: type, default, meaning |
| `values` | values of enumerations |
| `spans` | a catalogue of spans: name, kind, parent, attributes with when they are set |

Meanings are those of the docstrings, types and defaults those of the code. `--check` writes nothing and
fails where a page is not what would be written.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["PAGES", "fresh", "main"]

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))

_BLOCK = re.compile(
    r"(<!-- generated: (?P<kind>\w+) (?P<what>[\w. ]+?) -->\n).*?(<!-- /generated -->)", re.DOTALL
)
_SECTION = re.compile(r"^(Attributes|Args|Raises|Returns|Yields):(.*)$")
_ENTRY = re.compile(r"^    (\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*): (.*)$")
_ITEM = re.compile(r"^S\d-\d\d[a-z]?(?:(?:,| and| to) S\d-\d\d[a-z]?)*: ")

_MENTION = re.compile(r" \(S\d-\d\d[a-z]?\)")

UNITS = (
    ("_seconds", "s"),
    ("_secs", "s"),
    ("_ms", "ms"),
    ("_hours", "h"),
    ("_days", "days"),
    ("_mb", "MB (10⁶ bytes)"),
    ("_bytes", "bytes"),
    ("_per_thousand_tokens", "$ per thousand tokens"),
    ("_tokens", "tokens"),
    ("_per_million", "$ per million tokens"),
    ("_per_thousand", "$ per thousand"),
    ("_per_minute", "per minute"),
    ("_per_second", "per second"),
    ("_rpm", "per minute"),
    ("_tpm", "per minute"),
    ("_tpd", "per day"),
    ("_cost", "$"),
    ("_savings", "$"),
    ("_rate", "%"),
)
"""What the end of a field's name says of its unit: the house's own rule for names."""


# ── docstrings ──────────────────────────────────────────────────────────────────────────────────


def sections(thing: object) -> dict[str, dict[str, str]]:
    """Entries of a docstring by section and name; the text before the first section under ""."""
    found: dict[str, dict[str, str]] = {"": {"": ""}}
    section, names = "", [""]
    for line in (inspect.getdoc(thing) or "").splitlines():
        if header := _SECTION.match(line):
            section, names = header[1], [""]
            found.setdefault(section, {})
            if header[2].strip():
                found[section][""] = header[2].strip()
        elif section and (entry := _ENTRY.match(line)):
            names = entry[1].replace("*", "").split(", ")
            found[section].update(dict.fromkeys(names, entry[2]))
        elif section and line.startswith("    "):
            for name in names:
                found[section][name] = f"{found[section].get(name, '')} {line.strip()}".strip()
        elif section and line.strip():  # text again after a section
            section, names = "", [""]
            found[""][""] += "\n" + line
        else:
            found.setdefault(section, {}).setdefault("", "")
            found[section][""] += "\n" + line if not section else ""
    return found


def summary(thing: object) -> str:
    """The first paragraph of a docstring, without the id it may begin with."""
    text = sections(thing)[""][""].strip().split("\n\n")[0]
    return _sentence(_MENTION.sub("", _ITEM.sub("", " ".join(text.split()))))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


# ── what there is to show ───────────────────────────────────────────────────────────────────────


def fields(cls: type) -> Iterator[tuple[str, str, str]]:
    """Name, type and default of every field of a structure."""
    hints = _annotations(cls)
    if issubclass(cls, msgspec.Struct):
        for field in msgspec.structs.fields(cls):
            given = field.default
            if field.default_factory is not msgspec.NODEFAULT:
                given = field.default_factory()
            yield field.name, hints[field.name], _default(given, msgspec.NODEFAULT)
        return
    members: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(cls)  # type: ignore[arg-type]
    for member in members:
        value: Any = member.default
        if member.default_factory is not dataclasses.MISSING:
            value = member.default_factory()
        yield member.name, hints[member.name], _default(value, dataclasses.MISSING)


def _annotations(cls: type) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        found |= {name: str(hint) for name, hint in inspect.get_annotations(base).items()}
    return found


def _default(value: Any, absent: object) -> str:
    if value is absent:
        return "required"
    if value is msgspec.UNSET or (isinstance(value, Mapping | tuple | list) and not value):
        return "none"
    if isinstance(value, Enum | msgspec.Struct):
        return f"`{value.name}`" if isinstance(value, Enum) else f"`{type(value).__name__}()`"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:,g}" if isinstance(value, float) else f"`{value!r}`"


def unit(name: str) -> str:
    """The unit that a field's name tells."""
    return next((unit for end, unit in UNITS if name.endswith(end)), "")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# ── blocks ──────────────────────────────────────────────────────────────────────────────────────


def _structure(names: list[str]) -> Iterator[str]:
    for number, name in enumerate(names):
        cls = named(name)
        meanings = sections(cls).get("Attributes", {})
        if len(names) > 1:
            yield from (*([""] if number else []), f"`{cls.__name__}`: {summary(cls)}", "")
        yield "| field | type | default | unit | meaning |"
        yield "|---|---|---|---|---|"
        for field, kind, default in fields(cls):
            meaning = _cell(meanings.get(field, ""))
            yield f"| `{field}` | {_code(kind)} | {_cell(default)} | {unit(field)} | {meaning} |"


def _names(names: list[str]) -> Iterator[str]:
    yield "| structure | fields |"
    yield "|---|---|"
    for name in names:
        cls = named(name)
        shown = ", ".join(_with_unit(field) for field, _, _ in fields(cls))
        more = [
            f"`{attribute}`" for attribute, value in vars(cls).items() if isinstance(value, property)
        ]
        derived = f"; derived: {', '.join(more)}" if more else ""
        yield f"| `{cls.__name__}` | {_cell(summary(cls))} {shown}{derived} |"


def _with_unit(field: str) -> str:
    return f"`{field}` ({unit(field)})" if unit(field) else f"`{field}`"


def _commands(names: list[str]) -> Iterator[str]:
    """Of a class; functions of the module given after it show which commands are functions, too."""
    cls, *modules = names
    functions = vars(importlib.import_module(modules[0])) if modules else {}
    yield "| command | does | raises |"
    yield "|---|---|---|"
    for name, method in _methods(named(cls)):
        marks = [] if name in functions or not modules else ["*ours*"]
        iterates = "Async" in str(inspect.signature(method).return_annotation)
        asynchronous = inspect.iscoroutinefunction(method) or iterates
        marks += [] if asynchronous else ["*sync*"]
        told = sections(method)
        does = re.sub(r" ?\bOurs\.", "", summary(method))
        arguments = _entries(told.get("Args", {}))
        does = f"{does} {arguments}." if arguments else does
        yield (
            f"| {_code(name + _signature(method))} | {_cell(' '.join([does, *marks]))} "
            f"| {_cell(_raised(told))} |"
        )


def _methods(cls: type) -> list[tuple[str, Callable[..., object]]]:
    """Public methods in the order of their source: those of the class, then of what it is made of."""
    found: dict[str, Callable[..., object]] = {}
    for base in cls.__mro__:
        for name, value in vars(base).items():
            if inspect.isfunction(value) and not name.startswith("_"):
                found.setdefault(name, value)
    return list(found.items())


class _AsWritten(str):
    """An annotation, shown as it stands in the source."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _signature(method: Callable[..., object]) -> str:
    signature = inspect.signature(method)
    own = [
        one.replace(annotation=_AsWritten(one.annotation), default=_shown(one.default))
        for name, one in signature.parameters.items()
        if name != "self"
    ]
    shown = signature.replace(parameters=own, return_annotation=_AsWritten(signature.return_annotation))
    return str(shown).replace(" -> ", " → ")


def _shown(default: object) -> object:
    return (
        _AsWritten(f"{type(default).__name__}.{default.name}") if isinstance(default, Enum) else default
    )


def _raised(told: dict[str, dict[str, str]]) -> str:
    return _entries({name.rpartition(".")[2]: text for name, text in told.get("Raises", {}).items()})


def _entries(told: Mapping[str, str]) -> str:
    """Entries of a section in a row; those that share a text share its place."""
    by_text: dict[str, list[str]] = {}
    for name, text in told.items():
        if name:
            by_text.setdefault(text.rstrip("."), []).append(f"`{name}`")
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in by_text.items())


def _arguments(names: list[str]) -> Iterator[str]:
    (name,) = names
    thing = named(name)
    meanings = sections(thing).get("Args", {})
    yield "| argument | type | default | meaning |"
    yield "|---|---|---|---|"
    for argument, one in inspect.signature(thing).parameters.items():
        kind = str(one.annotation).replace("'", "")
        default = _default(one.default, inspect.Parameter.empty)
        meaning = _cell(meanings.get(argument, ""))
        yield f"| `{argument}` | {_code(kind)} | {_cell(default)} | {meaning} |"


def _values(names: list[str]) -> Iterator[str]:
    yield "| enumeration | values |"
    yield "|---|---|"
    for name in names:
        enumeration = named(name)
        values = ", ".join(f"`{member.value}`" for member in enumeration)
        yield f"| `{enumeration.__name__}` | {_cell(summary(enumeration))} {values} |"


def _spans(names: list[str]) -> Iterator[str]:
    (name,) = names
    yield "| span | name | kind | parent |"
    yield "|---|---|---|---|"
    for entry in named(name):
        yield f"| {entry.title} | {_code(entry.name)} | {entry.kind} | {_cell(entry.parent)} |"
    for entry in named(name):
        if entry.attributes:
            more = ", besides those you give" if entry.is_open else ""
            yield from ("", f"**{entry.title}**: {_code(entry.name)}{more}.", "")
            yield from _attributes(entry.attributes)
        for event in entry.events:
            yield from ("", f"Its event `{event.name}`, {event.when}:", "")
            yield from _attributes(event.attributes)


def _attributes(attributes: Any) -> Iterator[str]:
    yield "| attribute | says | where |"
    yield "|---|---|---|"
    for one in attributes:
        yield f"| `{one.name}` | {_cell(one.meaning)} | {_cell(one.when or 'always')} |"


_KINDS: dict[str, Callable[[list[str]], Iterator[str]]] = {
    "structure": _structure,
    "names": _names,
    "commands": _commands,
    "arguments": _arguments,
    "values": _values,
    "spans": _spans,
}


def named(path: str) -> Any:
    """What a dotted path names."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


# ── pages ───────────────────────────────────────────────────────────────────────────────────────


def fresh(text: str) -> str:
    """A page with its blocks written anew. Raises `LookupError` for a block of an unknown kind."""

    def block(match: re.Match[str]) -> str:
        kind, what = match["kind"], match["what"].split()
        if kind not in _KINDS:
            raise LookupError(f"a generated block is of kind {kind!r}; known are {', '.join(_KINDS)}")
        written = "\n".join(_KINDS[kind](what))
        return f"{match[1]}{written}\n{match[4]}"

    return _BLOCK.sub(block, text)


def main() -> int:
    """Write the pages, or see whether they are as they would be written."""
    parser = argparse.ArgumentParser(prog="tools.reference", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check: bool = parser.parse_args().check
    stale = []
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = fresh(before)
        if after != before:
            stale.append(page.name)
            if not check:
                page.write_text(after, encoding="utf-8")
    what = "is out of date" if check else "written"
    sys.stdout.writelines(f"{name} {what}\n" for name in stale)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
