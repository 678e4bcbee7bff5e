"""Quotas by usage tier: dated data that ships with the package, for those who declare no numbers.

A preset fills in what nobody declared. It is a beginning, not a truth: where the upstream tells another
number, larger or smaller, that one counts from then on.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.resources import files

import msgspec
from msgspec import Struct, structs

from headgate.policy.quota.table import Quota, QuotaTable, each_alone

__all__ = ["Preset", "preset", "tier_name", "with_preset"]


class _File(Struct, forbid_unknown_fields=True):
    date: date
    tiers: dict[str, dict[str, Quota]]


class Preset(Struct, frozen=True):
    """The quotas of a tier.

    Attributes:
        name: of the tier.
        date: state of the data.
        quotas: nominal numbers by model, or by class of models.
    """

    name: str
    date: date
    quotas: Mapping[str, Quota]


@cache
def _content(provider: str) -> _File:
    path = files("headgate.wiring").joinpath("data", f"{provider}-quotas.toml")
    return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)


def preset(provider: str, tier: str) -> Preset:
    """The quotas of a tier.

    Args:
        provider: `gemini` or `anthropic`.
        tier: one of its tiers, as `tier_name` reads it. Raises `KeyError` for another.
    """
    content = _content(provider)
    return Preset(tier, content.date, content.tiers[tier])


def tier_name(provider: str) -> Callable[[object], str]:
    """A parser of the names of a provider's tiers."""

    def parse(value: object) -> str:
        name, known = str(value).strip().lower(), _content(provider).tiers
        if name not in known:
            raise ValueError(f"the name of a usage tier: {', '.join(known)}")
        return name

    return parse


def with_preset(
    table: QuotaTable | None,
    chosen: Preset,
    margin: float,
    class_of: Callable[[str], str] = each_alone,
) -> QuotaTable:
    """The declarations, completed by a preset.

    Args:
        table: what is declared, or None.
        margin: share of each nominal number that is used, in (0, 1].
        class_of: the class a model is counted in.
    """
    share = Decimal(str(margin))
    enforced = {}
    for model, quota in chosen.quotas.items():
        numbers: dict[str, int | None] = structs.asdict(quota)
        enforced[class_of(model)] = Quota(
            **{name: None if n is None else max(1, int(n * share)) for name, n in numbers.items()}
        )
    origin = f"tier {chosen.name}, state {chosen.date}"
    declared = table or QuotaTable(class_of=class_of)
    return structs.replace(declared, presets=enforced, presets_from=origin)
