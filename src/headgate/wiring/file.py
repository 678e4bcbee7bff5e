"""`headgate.toml`: where it is, what it may hold. Each door reads a table of its own."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path

from headgate.core.errors import ConfigurationError

__all__ = ["TABLES", "read_table"]

TABLES = ("claude", "codegen", "content", "gateway", "gemini", "openai")
"""The tables of the file: one for each door."""


def read_table(
    environ: Mapping[str, str], name: str, known: Collection[str]
) -> tuple[Mapping[str, object], str]:
    """A door's table, empty where there is none, and the path of the file.

    Args:
        name: of the table.
        known: the settings it may hold, beside `keys_file` and `quota`.

    Raises:
        ConfigurationError: the file cannot be read, or holds what nobody knows.
    """
    named = environ.get("HEADGATE_CONFIG", "").strip()
    path = Path(named or "headgate.toml")
    if not named and not path.is_file():
        return {}, str(path)
    content = _content(path)
    _refuse_unknown(content, TABLES, str(path))
    table = content.get(name, {})
    where = f"{path} [{name}]"
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}: {name} must be a table, written as [{name}].")
    _refuse_unknown(table, (*known, "keys_file", "quota"), where)
    if not isinstance(table.get("keys_file", ""), str):
        raise ConfigurationError(f"{where} keys_file takes the path of a file.")
    if not isinstance(table.get("quota", {}), dict):
        raise ConfigurationError(f"{path} [{name}.quota] must be a table of tables.")
    return table, str(path)


def _content(path: Path) -> Mapping[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}.") from None
    except RecursionError:
        raise ConfigurationError(f"{path} is nested too deeply to be read.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"HEADGATE_CONFIG: cannot read {path} ({type(error).__name__}). Name a readable TOML file."
        ) from None


def _refuse_unknown(table: Mapping[str, object], known: Collection[str], where: str) -> None:
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}."
            raise ConfigurationError(f"{where}: there is no setting {name!r}; {hint}")
