"""Declared quotas: which limits a domain has for a model.

The most specific declaration of each number wins: project and model, project, model, then the default
for every domain and model. What nobody declared is not limited here; refusals still teach.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from headgate.core.quota import Counts, Kind, Limit
from headgate.policy.quota.windows import DAY

__all__ = ["Quota", "QuotaTable"]


class Quota(Struct, frozen=True, forbid_unknown_fields=True):
    """Declared numbers; None is not declared.

    Attributes:
        rpm, rpd: requests per minute and per day.
        tpm, tpd: tokens per minute and per day; Gemini counts those of the prompt.
    """

    rpm: int | None = None
    tpm: int | None = None
    rpd: int | None = None
    tpd: int | None = None

    def over(self, other: Quota) -> Quota:
        """These numbers, and the other's where these are not declared."""
        return Quota(
            self.rpm if self.rpm is not None else other.rpm,
            self.tpm if self.tpm is not None else other.tpm,
            self.rpd if self.rpd is not None else other.rpd,
            self.tpd if self.tpd is not None else other.tpd,
        )

    @property
    def declared(self) -> bool:
        """Whether any number is."""
        return any(value is not None for value in (self.rpm, self.tpm, self.rpd, self.tpd))

    def limits(self) -> tuple[Limit, ...]:
        """The ledger's limits for the declared numbers."""
        found = []
        if self.rpm is not None:
            found.append(Limit("rpm", Counts.REQUESTS, self.rpm))
        if self.tpm is not None:
            found.append(Limit("tpm", Counts.INPUT, self.tpm))
        if self.rpd is not None:
            found.append(Limit("rpd", Counts.REQUESTS, self.rpd, Kind.CALENDAR, DAY))
        if self.tpd is not None:
            found.append(Limit("tpd", Counts.INPUT, self.tpd, Kind.CALENDAR, DAY))
        return tuple(found)


class QuotaTable(Struct, frozen=True):
    """All declarations of a provider.

    Attributes:
        default: for every domain and model.
        models: by model.
        projects: by domain.
        project_models: by (domain, model).
    """

    default: Quota = Quota()
    models: Mapping[str, Quota] = {}
    projects: Mapping[str, Quota] = {}
    project_models: Mapping[tuple[str, str], Quota] = {}

    def quota(self, domain: str, model: str) -> Quota:
        """What is declared for a domain and a model."""
        none = Quota()
        domain = domain.removeprefix("key:")  # a key without a project is declared by its own name
        return (
            self.project_models.get((domain, model), none)
            .over(self.projects.get(domain, none))
            .over(self.models.get(model, none))
            .over(self.default)
        )

    def covers(self, model: str) -> bool:
        """Whether anything is declared that may concern a model."""
        return (
            self.default.declared
            or model in self.models
            or bool(self.projects)
            or any(named == model for _, named in self.project_models)
        )
