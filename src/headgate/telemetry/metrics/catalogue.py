"""Every metric that Headgate exports, as data: what is not in here is not exported.

Rules and panels in `deploy/` are checked against it, and the reference is made of it
(`python -m headgate.telemetry.metrics.reference`). Names of the descriptions are kept beside the
canonical `headgate_*` ones that say the same properly.
"""

from __future__ import annotations

from headgate.telemetry.metrics.content_families import CONTENT, LEDGER
from headgate.telemetry.metrics.engine_families import ENGINE, LIMITS, PROCESS
from headgate.telemetry.metrics.family import Family, Shape
from headgate.telemetry.metrics.key_families import KEYS

__all__ = ["BY_NAME", "CATALOGUE", "family", "family_of", "series_names"]

CATALOGUE: tuple[Family, ...] = (*ENGINE, *KEYS, *LIMITS, *PROCESS, *CONTENT, *LEDGER)

BY_NAME = {family.name: family for family in CATALOGUE}


def family(name: str) -> Family:
    """The family of a name. Raises `KeyError`."""
    return BY_NAME[name]


def family_of(series: str) -> Family | None:
    """The family that a series belongs to, by its name in Prometheus; None: none of ours."""
    found = BY_NAME.get(series)
    if found is not None and found.shape is not Shape.HISTOGRAM:
        return found
    for ending in ("_bucket", "_sum", "_count"):
        known = BY_NAME.get(series.removesuffix(ending))
        if series.endswith(ending) and known is not None and known.shape is Shape.HISTOGRAM:
            return known
    return None


def series_names(family: Family) -> tuple[str, ...]:
    """The names that its samples have in Prometheus."""
    if family.shape is Shape.HISTOGRAM:
        return tuple(f"{family.name}{ending}" for ending in ("_bucket", "_sum", "_count"))
    return (family.name,)
