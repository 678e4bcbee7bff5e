"""Declared quotas: which limits a domain has for a model.

The most specific declaration of each number wins: project and model, project, model, then the default
for every domain and model. What nobody declared is not limited here; refusals still teach.

Where a provider counts several models together, the table knows their *class*: a declaration for a
class or for any model of it concerns all of them, and they share one ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct, structs

from headgate.core.quota import Counts, Kind, Limit, Mode
from headgate.policy.quota.windows import DAY

__all__ = ["EVERY", "Counting", "Quota", "QuotaTable", "each_alone"]

EVERY = "*"
"""Stands for every class of models."""


class Counting(Struct, frozen=True):
    """What a provider means by its numbers, where providers differ. The defaults are Gemini's.

    Attributes:
        tokens: what `tpm` and `tpd` count.
        days: how `rpd` and `tpd` are held: until the days' common end, or for a day from each call on.
    """

    tokens: Counts = Counts.INPUT
    days: Kind = Kind.CALENDAR


_GEMINI = Counting()


class Quota(Struct, frozen=True, forbid_unknown_fields=True):
    """Declared numbers; None is not declared.

    Attributes:
        rpm, rpd: requests per minute and per day.
        tpm, tpd: tokens per minute and per day; which ones, a `Counting` says.
        itpm: input tokens per minute, as Anthropic counts them: without those read from a cache.
        otpm: output tokens per minute, counted when they have come out.
        concurrency: calls at a time.
    """

    rpm: int | None = None
    tpm: int | None = None
    rpd: int | None = None
    tpd: int | None = None
    itpm: int | None = None
    otpm: int | None = None
    concurrency: int | None = None

    def over(self, other: Quota) -> Quota:
        """These numbers, and the other's where these are not declared."""
        return Quota(
            *(
                theirs if ours is None else ours
                for ours, theirs in zip(structs.astuple(self), structs.astuple(other), strict=True)
            )
        )

    @property
    def declared(self) -> bool:
        """Whether any number is."""
        return any(value is not None for value in structs.astuple(self))

    def limits(self, counting: Counting = _GEMINI) -> tuple[Limit, ...]:
        """The ledger's limits for the declared numbers."""
        tokens, days = counting.tokens, counting.days
        made = {
            "rpm": lambda n: Limit("rpm", Counts.REQUESTS, n),
            "tpm": lambda n: Limit("tpm", tokens, n),
            "rpd": lambda n: Limit("rpd", Counts.REQUESTS, n, days, DAY),
            "tpd": lambda n: Limit("tpd", tokens, n, days, DAY),
            "itpm": lambda n: Limit("itpm", Counts.INPUT, n),
            # What comes out is counted at an unknown moment of the call: held from admission until a
            # window after its end, it is covered whenever that was.
            "otpm": lambda n: Limit("otpm", Counts.OUTPUT, n, mode=Mode.ENVELOPE),
            "concurrency": lambda n: Limit("concurrency", Counts.SLOTS, n, Kind.CONCURRENT),
        }
        numbers: dict[str, int | None] = structs.asdict(self)
        return tuple(made[name](number) for name, number in numbers.items() if number is not None)


def each_alone(model: str) -> str:
    """The class of a model where a provider counts every model by itself."""
    return model


class QuotaTable(Struct, frozen=True):
    """All declarations of a provider.

    Attributes:
        default: for every domain and model.
        models: by class of models.
        projects: by domain.
        project_models: by (domain, class of models).
        presets: by class of models; they count where nothing above is declared.
        presets_from: where these came from, for people.
        class_of: the class a model is counted in.
        exact: classes whose reservations cover the most a call can use; with `EVERY`, all of them.
        counting: what the numbers mean.
    """

    default: Quota = Quota()
    models: Mapping[str, Quota] = {}
    projects: Mapping[str, Quota] = {}
    project_models: Mapping[tuple[str, str], Quota] = {}
    presets: Mapping[str, Quota] = {}
    presets_from: str = ""
    class_of: Callable[[str], str] = each_alone
    exact: frozenset[str] = frozenset()
    counting: Counting = _GEMINI

    def limits(self, domain: str, model: str) -> tuple[Limit, ...]:
        """The limits that are enforced for a domain and a model."""
        return self.quota(domain, model).limits(self.counting)

    def is_exact(self, model: str) -> bool:
        """Whether reservations for a model must cover the most that a call can use."""
        return bool(self.exact) and (EVERY in self.exact or self.class_of(model) in self.exact)

    def quota(self, domain: str, model: str) -> Quota:
        """What is declared for a domain and a model, completed by a preset."""
        return self.explicit(domain, model).over(self.presets.get(self.class_of(model), Quota()))

    def explicit(self, domain: str, model: str) -> Quota:
        """What is declared for a domain and a model; no preset."""
        none, counted = Quota(), self.class_of(model)
        domain = domain.removeprefix("key:")  # a key without a project is declared by its own name
        return (
            self.project_models.get((domain, counted), none)
            .over(self.projects.get(domain, none))
            .over(self.models.get(counted, none))
            .over(self.default)
        )

    @property
    def declared(self) -> bool:
        """Whether it holds any declaration."""
        tables = (self.models, self.projects, self.project_models, self.presets)
        return self.default.declared or any(q.declared for table in tables for q in table.values())

    def covers(self, model: str) -> bool:
        """Whether anything is declared that may concern a model."""
        counted = self.class_of(model)
        return (
            self.default.declared
            or counted in self.models
            or counted in self.presets
            or any(quota.declared for quota in self.projects.values())
            or any(named == counted for _, named in self.project_models)
        )
