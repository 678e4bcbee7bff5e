"""The settings of a provider's engine out of arguments, environment and file: what is the same for
each.

A provider has a table of options, a grammar of quotas and a way to find its keys; the rest is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from headgate.core.call import Key
from headgate.policy.quota.table import QuotaTable
from headgate.wiring.file import read_table
from headgate.wiring.options import Option, Resolved, resolve_one
from headgate.wiring.quotas import Grammar, declared_quota, quota_table

__all__ = ["FindKeys", "Loaded", "load"]

FindKeys = Callable[[Mapping[str, str], str | None], tuple[tuple[Key, ...], str]]
"""Finds keys in an environment, else in the file of that name; and says where."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was found for a provider.

    Attributes:
        keys, origin: the keys, and the variable or file they came from.
        values: of the options, by name; `max_wait_seconds` is never None.
        resolved: the same with their origins.
        tables: of quotas, as they were given or stand in the file.
        source: names these in errors.
    """

    keys: tuple[Key, ...]
    origin: str
    values: Mapping[str, object]
    resolved: tuple[Resolved, ...]
    tables: Mapping[str, object]
    source: str

    def quotas(self, settings: object, grammar: Grammar, margin: float) -> QuotaTable | None:
        """All that is declared, or None. Raises `ConfigurationError`.

        Args:
            settings: hold the numbers for every domain and model (`quota_rpm`, …).
        """
        default = declared_quota(settings, grammar)
        return quota_table(default, self.tables, margin, self.source, grammar)


def load(
    name: str,
    options: Sequence[Option],
    find: FindKeys,
    environ: Mapping[str, str],
    *,
    arguments: Mapping[str, object] | None = None,
    keys: tuple[Key, ...] | None = None,
    quotas: Mapping[str, object] | None = None,
) -> Loaded:
    """Read the settings of a provider.

    Args:
        name: of its table in the file.
        arguments: explicit values by option name; None means not given.
        keys: explicit keys, instead of those of the environment.
        quotas: explicit tables of quotas, instead of those of the file.

    Raises:
        ConfigurationError: a setting is wrong; `NoKeysError`, `KeyFormatError` for the keys.
    """
    given = arguments or {}
    table, file = read_table(environ, name, [option.name for option in options])
    where = f"{file} [{name}]"
    resolved = tuple(resolve_one(option, given, environ, table, where) for option in options)
    origin = "argument keys"
    if keys is None:
        keys, origin = find(environ, cast("str | None", table.get("keys_file")))
    values = {item.option.name: item.value for item in resolved}
    if values["max_wait_seconds"] is None:
        values["max_wait_seconds"] = float(str(values["backoff_seconds"]))
    tables, source = quotas, "argument quotas"
    if tables is None:
        tables = cast("Mapping[str, object]", table.get("quota", {}))
        source = f"{file} [{name}.quota]"
    return Loaded(keys, origin, values, resolved, tables, source)
