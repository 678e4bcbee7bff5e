"""Which files the configuration comes from, and whether they are other than they were."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from headgate.wiring.file import TABLES
from headgate.wiring.settings import process_environment

__all__ = ["Stamps", "stamps", "watched_files"]

Stamps = Mapping[str, tuple[int, int, int] | None]
"""Of each file when it was changed last, its size and its number; None: it is not there."""

_KEY_FILES = re.compile(r"(GEMINI|ANTHROPIC|OPENAI)_API_KEYS?(_\d+)?_FILE")


def watched_files(environ: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """`headgate.toml` and the files of keys that variables and tables name. Never raises."""
    environ = process_environment(environ)
    config = Path(environ.get("HEADGATE_CONFIG", "").strip() or "headgate.toml")
    names = [value for name, value in environ.items() if _KEY_FILES.fullmatch(name) and value.strip()]
    try:
        content = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = {}
    for name in TABLES:
        table = content.get(name)
        if isinstance(table, dict) and isinstance(table.get("keys_file"), str):
            names.append(table["keys_file"])
    return (config, *(Path(name) for name in sorted(set(names))))


def stamps(environ: Mapping[str, str] | None = None) -> Stamps:
    """What tells whether any of them was changed. Never raises."""
    found: dict[str, tuple[int, int, int] | None] = {}
    for path in watched_files(environ):
        try:
            state = path.stat()
        except (OSError, ValueError):  # TOML can write paths that no file can have
            found[str(path)] = None
        else:
            found[str(path)] = (state.st_mtime_ns, state.st_size, state.st_ino)
    return found
