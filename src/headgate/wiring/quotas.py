"""Declared quotas out of settings: the numbers for every project and model, and the finer tables.

    [gemini]
    quota_rpm = 10                                  # each project, each model

    [gemini.quota.models."gemini-3.8-flash"]
    rpm = 5

    [gemini.quota.projects.alpha]
    rpm = 100

    [gemini.quota.projects.alpha.models."gemini-3.8-flash"]
    tpm = 1_000_000

A number given is nominal; enforced is its share by the margin, rounded down, at least 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec
from msgspec import Struct, structs

from headgate.core.errors import ConfigurationError
from headgate.policy.quota.table import Quota, QuotaTable

__all__ = ["quota_table"]


class _Project(Struct, forbid_unknown_fields=True):
    rpm: int | None = None
    tpm: int | None = None
    rpd: int | None = None
    tpd: int | None = None
    models: dict[str, Quota] = {}


class _Tables(Struct, forbid_unknown_fields=True):
    models: dict[str, Quota] = {}
    projects: dict[str, _Project] = {}


def quota_table(
    default: Quota, tables: Mapping[str, object], margin: float, where: str
) -> QuotaTable | None:
    """The table of all declarations, or None where there is none.

    Args:
        default: the numbers for every project and model.
        tables: what stands under `quota` in the file, or was given as an argument.
        margin: share of each nominal number that is used, in (0, 1].
        where: names the source in errors.

    Raises:
        ConfigurationError: a table or number is not as it must be.
    """
    try:
        read = msgspec.convert(dict(tables), _Tables)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            f"{where}: {error}. It takes models and projects, each with rpm, tpm, rpd and tpd."
        ) from None
    project_models = {
        (project, model): _enforced(quota, margin, f"{where} projects.{project}.models.{model}")
        for project, row in read.projects.items()
        for model, quota in row.models.items()
    }
    table = QuotaTable(
        _enforced(default, margin, "quota"),
        {
            model: _enforced(quota, margin, f"{where} models.{model}")
            for model, quota in read.models.items()
        },
        {
            name: _enforced(
                Quota(row.rpm, row.tpm, row.rpd, row.tpd), margin, f"{where} projects.{name}"
            )
            for name, row in read.projects.items()
        },
        project_models,
    )
    return table if table != QuotaTable() else None


def _enforced(quota: Quota, margin: float, where: str) -> Quota:
    numbers: dict[str, int | None] = structs.asdict(quota)
    for name, nominal in numbers.items():
        if nominal is not None and nominal < 1:
            raise ConfigurationError(
                f"{where}.{name} is {nominal}; it takes a whole number, 1 or more."
            )
    return Quota(
        **{
            name: None if nominal is None else max(1, int(nominal * Decimal(str(margin))))
            for name, nominal in numbers.items()
        }
    )
