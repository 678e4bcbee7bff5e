"""Keys out of the environment: the accepted grammar, the accepted fallbacks, and files.

    GEMINI_API_KEYS = entry ("," entry)*        entry = key ["|" name ["|" project]]

Blank entries are skipped. A key without a name is called `key_1`, `key_2`, … by its position; keys of
one project share a quota domain, a key without a project is a domain of its own. No message ever holds
a key, not even a part of one.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from headgate.core.call import Key
from headgate.core.errors import ConfigurationError, KeyFormatError, NoKeysError
from headgate.policy.redaction import redact

__all__ = ["find_keys", "find_listed_keys", "parse_keys", "secret_from_file", "single_key"]

_NAMES_OF_SINGLE_KEYS = ("primary", *(f"backup-{number}" for number in range(1, 10)))
_FILE_CHECK = "HEADGATE_KEY_FILE_CHECK"
_FIRST_FILE = "GEMINI_API_KEY_FILE"
_LARGEST_FILE = 1024 * 1024
"""Characters of a file of keys: some ten thousand keys. A device has no end."""


def parse_keys(
    text: str,
    source: str = "GEMINI_API_KEYS",
    *,
    group: str = "project",
    variables: Sequence[str] = (),
) -> tuple[Key, ...]:
    """The keys of a list. Raises `KeyFormatError` naming the first position that is wrong.

    Args:
        group: what this provider calls the third field: whatever it counts quota against.
        variables: where the entries stand one by one, instead of in a list: errors then name those.
    """
    keys: list[Key] = []
    values: dict[str, int] = {}
    names: dict[str, int] = {}
    entries = [entry.strip() for entry in text.split(",")]

    def wrong(position: int, what: str, other: int = 0) -> KeyFormatError:
        start = variables[position - 1] if variables else f"{source}: entry {position}"
        known = variables[other - 1] if variables else f"entry {other}"
        return KeyFormatError(f"{start} {what.replace('{other}', known)}", position=position)

    for position, entry in enumerate(filter(None, entries), start=1):
        try:
            key = _entry(entry, position, group)
        except ValueError as error:
            raise wrong(position, str(error)) from None
        if (first := values.setdefault(key.value, position)) != position:
            raise wrong(position, "repeats the key of {other}. Remove one of them.", first)
        if (first := names.setdefault(key.name, position)) != position:
            raise wrong(position, "has the name of {other}. Give each key a name of its own.", first)
        keys.append(key)
    for key in keys:
        if key.name in values or key.domain in values:
            raise wrong(names[key.name], _KEY_AS_NAME)
    return tuple(keys)


_KEY_AS_NAME = "uses a key as a name; names are shown and logged."


def _entry(entry: str, position: int, group: str) -> Key:
    """One key. Raises `ValueError` with what is wrong, never with the key."""
    value, *rest = (field.strip() for field in entry.split("|"))
    if len(rest) > 2:
        raise ValueError(f"has {len(rest)} '|' signs; the form is key|name|{group}.")
    if not value:
        raise ValueError("has no key before '|'.")
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise ValueError(
            "has a key with a blank or a character that cannot travel in a header. Copy it again."
        )
    name, project = [*rest, "", ""][:2]
    name = name or f"key_{position}"
    if value in (name, project) or redact(name) != name or redact(project) != project:
        raise ValueError(_KEY_AS_NAME)
    return Key(name, value, project or f"key:{name}")


def find_keys(environ: Mapping[str, str], keys_file: str | None = None) -> tuple[tuple[Key, ...], str]:
    """The keys, and where they were found.

    The first of these that holds a key: `GEMINI_API_KEYS`; its file `GEMINI_API_KEYS_FILE`;
    `GEMINI_API_KEY` (or its file) with `GEMINI_API_KEY_2` … `_10`, as far as they follow each other;
    `GOOGLE_API_KEY`; the `keys_file` of `headgate.toml`, after the whole environment.

    Raises `NoKeysError`, `KeyFormatError`, or `ConfigurationError` for a file that cannot be read or
    that others may read.
    """
    for text, source in _lists(environ):
        if keys := parse_keys(text, source):
            return keys, source
    if keys := _single_keys(environ):
        return keys, "GEMINI_API_KEY"
    if value := environ.get("GOOGLE_API_KEY", "").strip():
        return parse_keys(
            f"{single_key(value, 'GOOGLE_API_KEY')}|primary", "GOOGLE_API_KEY"
        ), "GOOGLE_API_KEY"
    if keys_file:
        text = secret_from_file(keys_file, "gemini.keys_file", environ)
        if keys := parse_keys(text, "gemini.keys_file"):
            return keys, "gemini.keys_file"
    raise NoKeysError(
        "No Gemini key found. Set GEMINI_API_KEYS to key|name entries separated by commas, or "
        "GEMINI_API_KEY to one key, or GEMINI_API_KEYS_FILE to a file that holds them. "
        "To try without a key, run `headgate demo`."
    )


def _lists(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Texts and where they stand, one by one: a file that is not needed need not be readable."""
    yield environ.get("GEMINI_API_KEYS", ""), "GEMINI_API_KEYS"
    path = environ.get("GEMINI_API_KEYS_FILE", "").strip()
    if path:
        yield secret_from_file(path, "GEMINI_API_KEYS_FILE", environ), "GEMINI_API_KEYS_FILE"


def _single_keys(environ: Mapping[str, str]) -> tuple[Key, ...]:
    first = environ.get("GEMINI_API_KEY", "").strip()
    path = environ.get(_FIRST_FILE, "").strip()
    if not first and path:
        first = secret_from_file(path, _FIRST_FILE, environ).strip()
    variables = ["GEMINI_API_KEY" if environ.get("GEMINI_API_KEY", "").strip() else _FIRST_FILE]
    values = [single_key(first, variables[0])] if first else []
    while values and len(values) < len(_NAMES_OF_SINGLE_KEYS):
        variable = f"GEMINI_API_KEY_{len(values) + 1}"
        if not (value := environ.get(variable, "").strip()):
            break
        variables.append(variable)
        values.append(single_key(value, variable, position=len(variables)))
    entries = zip(values, _NAMES_OF_SINGLE_KEYS, strict=False)
    text = ",".join(f"{value}|{name}" for value, name in entries)
    return parse_keys(text, "GEMINI_API_KEY", variables=variables)


def find_listed_keys(
    environ: Mapping[str, str], keys_file: str | None, *, prefix: str, table: str, called: str
) -> tuple[tuple[Key, ...], str]:
    """The keys of a provider whose quotas organisations own, and where they were found.

    The first of these that holds a key: `<prefix>_API_KEYS`, `<prefix>_API_KEYS_FILE`,
    `<prefix>_API_KEY`, `<prefix>_API_KEY_FILE`; the `keys_file` of `headgate.toml`.

    Args:
        table: of the provider in the file.
        called: what people call the provider.

    Raises as `find_keys`.
    """
    several, one = f"{prefix}_API_KEYS", f"{prefix}_API_KEY"
    for variable in (several, one):
        for source in (variable, f"{variable}_FILE"):
            text = environ.get(source, "").strip()
            if text and source != variable:
                text = secret_from_file(text, source, environ).strip()
            if text and variable == one:
                text = f"{single_key(text, source, several)}|primary"
            if keys := parse_keys(text, source, group="organisation"):
                return keys, source
    if keys_file:
        source = f"{table}.keys_file"
        text = secret_from_file(keys_file, source, environ)
        if keys := parse_keys(text, source, group="organisation"):
            return keys, source
    raise NoKeysError(
        f"No {called} key found. Set {several} to key|name|organisation entries separated by "
        f"commas, or {one} to one key; each may stand in a file that the variable with "
        "_FILE at its end names."
    )


def single_key(value: str, variable: str, lists: str = "GEMINI_API_KEYS", *, position: int = 1) -> str:
    """The value of a variable that takes one key.

    Args:
        lists: the variable that takes several.
        position: of the key among those of variables that follow each other.
    """
    if "," in value or "|" in value:
        raise KeyFormatError(
            f"{variable} takes one key without a name; put a list into {lists}.", position=position
        )
    return value


def secret_from_file(path: str, source: str, environ: Mapping[str, str]) -> str:
    """A secret from a file: lines count as entries, so one key a line works too."""
    file = Path(path)
    try:
        mode = file.stat().st_mode
        with file.open(encoding="utf-8") as opened:
            text = opened.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # it is no text, or the path cannot be one
        raise ConfigurationError(
            f"{source}: cannot read {path} ({type(error).__name__}). Name a readable text file."
        ) from None
    if (
        mode & (stat.S_IROTH | stat.S_IWOTH)
        and environ.get(_FILE_CHECK, "refuse").strip().lower() != "off"
    ):
        raise ConfigurationError(
            f"{source}: {path} is open to every user of this machine. Run `chmod o-rwx {path}`, or "
            f"set {_FILE_CHECK}=off where the file is mounted that way, as container secrets may be."
        )
    if len(text) > _LARGEST_FILE:
        raise ConfigurationError(
            f"{source}: {path} has more than {_LARGEST_FILE} characters. Name a file of keys."
        )
    return ",".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
