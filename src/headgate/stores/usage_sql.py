"""The usage ledger in SQL, as far as SQLite and Postgres speak it alike. Places for values are `?`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import structs

from headgate.core.usage import By, Place, UsageFilter, UsageRow, UsageSum

__all__ = [
    "COLUMNS",
    "following",
    "insert",
    "newest",
    "row_of",
    "sum_of",
    "sums",
    "values_of",
]

COLUMNS = tuple(field.name for field in structs.fields(UsageRow))
"""Of the table: the fields of a row, under their names."""

_FLAGS = tuple(COLUMNS.index(name) for name in ("estimated", "looked_up", "from_cache"))
"""The places of what is kept as 0 and 1: both databases can sum those."""

_LIST = ", ".join(COLUMNS)

_ENDED = "call NOT IN ('', 'cancelled')"
_SUMS = ", ".join((
    "COALESCE(SUM(CASE WHEN attempt > 0 THEN 1 ELSE 0 END), 0)",
    f"COALESCE(SUM(CASE WHEN {_ENDED} THEN 1 ELSE 0 END), 0)",
    "COALESCE(SUM(CASE WHEN call = 'success' THEN 1 ELSE 0 END), 0)",
    "COALESCE(SUM(CASE WHEN call = 'cancelled' THEN 1 ELSE 0 END), 0)",
    f"COALESCE(SUM(CASE WHEN {_ENDED} THEN from_cache ELSE 0 END), 0)",
    "COALESCE(SUM(input_tokens), 0)",
    "COALESCE(SUM(cached_tokens), 0)",
    "COALESCE(SUM(output_tokens), 0)",
    "COALESCE(SUM(reasoning_tokens), 0)",
    "COALESCE(SUM(cost), 0)",
    "COALESCE(SUM(cached_cost), 0)",
    "COALESCE(SUM(output_cost), 0)",
    "COALESCE(SUM(reasoning_cost), 0)",
    "COALESCE(SUM(saved), 0)",
    "COALESCE(SUM(CASE WHEN cost IS NULL THEN 1 ELSE 0 END), 0)",
    "COALESCE(SUM(estimated), 0)",
    f"COALESCE(SUM(CASE WHEN {_ENDED} THEN call_seconds ELSE 0 END), 0)",
))  # fmt: skip
"""In the order of `UsageSum`'s fields, after `name` and `start`."""

_COUNTS = UsageSum.__struct_fields__[2:-1]
_SECONDS = {By.HOUR: 3600, By.DAY: 86_400}
_NAMES = {By.MODEL: "model", By.CALLER: "caller", By.KEY: "key_name", By.PROVIDER: "provider"}

# Every statement below is put together of fixed texts: values only ever stand in their places.


def insert(table: str) -> str:
    """Keeps a row unless it is there."""
    places = ", ".join("?" * len(COLUMNS))
    return f"INSERT INTO {table} ({_LIST}) VALUES ({places}) ON CONFLICT DO NOTHING"  # noqa: S608


def values_of(row: UsageRow) -> tuple[object, ...]:
    """A row's values, in the order of the columns."""
    values: list[object] = list(structs.astuple(row))
    for place in _FLAGS:
        values[place] = int(values[place] is True)
    return tuple(values)


def row_of(record: Sequence[Any]) -> UsageRow:
    """A row out of its values."""
    return msgspec.convert(dict(zip(COLUMNS, record, strict=True)), UsageRow, strict=False)


def newest(table: str, limit: int, chosen: UsageFilter) -> tuple[str, tuple[object, ...]]:
    """The newest rows."""
    where, values = _where(chosen)
    order = "at DESC, request_id DESC, attempt DESC"
    return f"SELECT {_LIST} FROM {table} WHERE {where} ORDER BY {order} LIMIT ?", (*values, limit)  # noqa: S608


def following(
    table: str, after: Place | None, limit: int, chosen: UsageFilter
) -> tuple[str, tuple[object, ...]]:
    """The rows after a place, oldest first."""
    where, values = _where(chosen)
    if after is not None:
        # The first condition lets the index on the time find where to begin.
        where += " AND at >= ? AND (at > ? OR (request_id, attempt) > (?, ?))"
        values += (after[0], *after)
    order = "at, request_id, attempt"
    return f"SELECT {_LIST} FROM {table} WHERE {where} ORDER BY {order} LIMIT ?", (*values, limit)  # noqa: S608


def sums(table: str, by: By, chosen: UsageFilter, period: str) -> tuple[str, tuple[object, ...]]:
    """Sums of periods or of names.

    Args:
        period: the whole number of periods of `{seconds}` seconds since 1970, as the database says it.
    """
    where, values = _where(chosen)
    if by in _SECONDS:
        group, order = period.format(seconds=_SECONDS[by]), "1"
    else:
        group, order = _NAMES[by], "11 DESC, 1"  # the eleventh is the cost
    return (
        f"SELECT {group}, {_SUMS} FROM {table} WHERE {where} GROUP BY {group} ORDER BY {order}",  # noqa: S608
        values,
    )


def sum_of(by: By, record: Sequence[Any]) -> UsageSum:
    """A sum out of its values."""
    group, *numbers, seconds = record
    whole = {name: int(number) for name, number in zip(_COUNTS, numbers, strict=True)}
    if by in _SECONDS:
        return UsageSum("", float(group) * _SECONDS[by], **whole, seconds=float(seconds))
    return UsageSum(str(group), 0.0, **whole, seconds=float(seconds))


def _where(chosen: UsageFilter) -> tuple[str, tuple[object, ...]]:
    clauses, values = ["at >= ?"], [chosen.since]
    found: list[object] = list(values)
    for clause, value in (
        ("at < ?", chosen.until),
        ("model = ?", chosen.model),
        ("caller = ?", chosen.caller),
        ("request_id = ?", chosen.request_id),
    ):
        if value is not None:
            clauses.append(clause)
            found.append(value)
    return " AND ".join(clauses), tuple(found)
