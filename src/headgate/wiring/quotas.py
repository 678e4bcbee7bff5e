"""Declared quotas out of settings: the numbers for every domain and model, and the finer tables.

    [gemini]                                            [claude]
    quota_rpm = 10       # each project, each model     quota_rpm = 1000

    [gemini.quota.models."gemini-3.8-flash"]            [claude.quota.models.claude-opus-5]
    rpm = 5                                             itpm = 500_000

    [gemini.quota.projects.alpha]                       [claude.quota.organisations.acme]
    rpm = 100                                           otpm = 100_000

    [gemini.quota.projects.alpha.models."gemini-3.8-flash"]
    tpm = 1_000_000

A number given is nominal; enforced is its share by the margin, rounded down, at least 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal

import msgspec
from msgspec import Struct, structs

from headgate.core.errors import ConfigurationError
from headgate.policy.quota.table import EVERY, Counting, Quota, QuotaTable, each_alone

__all__ = [
    "CLAUDE_QUOTAS",
    "GEMINI_QUOTAS",
    "OPENAI_QUOTAS",
    "Grammar",
    "declared_quota",
    "quota_table",
    "split_quotas",
]


class Grammar(Struct, frozen=True):
    """What a provider's quotas are called.

    Attributes:
        numbers: the limits it counts.
        domains: the table of what it counts them against.
        instead: what to declare in place of another provider's numbers.
        class_of: the class of models that one is counted in.
        counting: what the numbers mean.
    """

    numbers: tuple[str, ...]
    domains: str
    instead: Mapping[str, str]
    class_of: Callable[[str], str] = each_alone
    counting: Counting = Counting()


GEMINI_QUOTAS = Grammar(
    ("rpm", "tpm", "rpd", "tpd", "concurrency"),
    "projects",
    {
        "itpm": "Gemini limits the tokens of prompts: declare tpm.",
        "otpm": "Gemini limits no output: declare tpm, the tokens of prompts.",
        "organisations": "Gemini counts per project: declare projects.",
    },
)

CLAUDE_QUOTAS = Grammar(
    ("rpm", "itpm", "otpm", "concurrency"),
    "organisations",
    {
        "tpm": "Anthropic limits input and output tokens apart: declare itpm and otpm.",
        "rpd": "Anthropic has no limit a day: declare rpm.",
        "tpd": "Anthropic has no limit a day: declare itpm and otpm.",
        "projects": "Anthropic counts per organisation: declare organisations.",
    },
)

OPENAI_QUOTAS = Grammar(
    ("rpm", "tpm", "rpd", "tpd", "concurrency"),
    "organisations",
    {
        "itpm": "OpenAI counts the tokens of prompt and answer together: declare tpm.",
        "otpm": "OpenAI counts the tokens of prompt and answer together: declare tpm.",
        "projects": "Keys here name organisations: declare organisations.",
    },
)


def split_quotas(
    given: Mapping[str, object] | None, grammar: Grammar
) -> tuple[dict[str, object], dict[str, object] | None]:
    """An argument `quotas` as explicit settings (`quota_rpm`, …) and the tables that are left."""
    tables = None if given is None else dict(given)
    numbers = {
        f"quota_{name}": None if tables is None else tables.pop(name, None) for name in grammar.numbers
    }
    return numbers, tables


def declared_quota(settings: object, grammar: Grammar) -> Quota:
    """The numbers for every domain and model, as settings hold them (`quota_rpm`, …)."""
    return Quota(**{name: getattr(settings, f"quota_{name}") for name in grammar.numbers})


def quota_table(
    default: Quota,
    tables: Mapping[str, object],
    margin: float,
    where: str,
    grammar: Grammar = GEMINI_QUOTAS,
) -> QuotaTable | None:
    """The table of all declarations, or None where there is none.

    Args:
        default: the numbers for every domain and model.
        tables: what stands under `quota` in the file, or was given as an argument.
        margin: share of each nominal number that is used, in (0, 1].
        where: names the source in errors.

    Raises:
        ConfigurationError: a table or number is not as it must be.
    """
    reader = _Reader(grammar, margin)
    tables, exact = reader.exact(tables, where)
    reader.check_names(tables, ("models", grammar.domains), where)
    projects: dict[str, Quota] = {}
    project_models: dict[tuple[str, str], Quota] = {}
    for name, row in reader.tables(tables, grammar.domains, where):
        place = f"{where} {grammar.domains}.{name}"
        own = {key: value for key, value in row.items() if key != "models"}
        reader.check_names(row, (*grammar.numbers, "models"), place)
        projects[name] = reader.quota(own, place)
        for model, quota in reader.models(row, place).items():
            project_models[name, model] = quota
    table = QuotaTable(
        reader.enforced(default, "quota"),
        reader.models(tables, where),
        projects,
        project_models,
        class_of=grammar.class_of,
        exact=exact,
        counting=grammar.counting,
    )
    return table if table.declared or table.exact else None


class _Reader:
    """Reads tables by a provider's grammar. Every method raises `ConfigurationError`."""

    def __init__(self, grammar: Grammar, margin: float) -> None:
        self._grammar = grammar
        self._margin = Decimal(str(margin))

    def check_names(self, table: Mapping[str, object], known: Collection[str], where: str) -> None:
        grammar = self._grammar
        for name in table:
            if name in known:
                continue
            hint = grammar.instead.get(name)
            if hint is None:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean {near[0]}? " if near else ""
                hint += (
                    f"It takes models and {grammar.domains}, each with {', '.join(grammar.numbers)}."
                )
            raise ConfigurationError(f"{where}: there is no quota {name!r}. {hint}")

    def tables(
        self, table: Mapping[str, object], name: str, where: str
    ) -> list[tuple[str, Mapping[str, object]]]:
        """The tables under a name."""
        found = table.get(name, {})
        if not isinstance(found, Mapping):
            raise ConfigurationError(f"{where}: {name} takes a table; got {type(found).__name__}.")
        for key, row in found.items():
            if not isinstance(row, Mapping):
                raise ConfigurationError(
                    f"{where}: {name}.{key} takes a table; got {type(row).__name__}."
                )
        return list(found.items())

    def exact(
        self, table: Mapping[str, object], where: str
    ) -> tuple[Mapping[str, object], frozenset[str]]:
        """The tables without `exact = true`, and the classes of models that say it."""
        rest, found = dict(table), set()
        if self._flag(rest.pop("exact", False), f"{where}.exact"):
            found.add(EVERY)
        models = {}
        for name, row in self.tables(table, "models", where):
            if self._flag(row.get("exact", False), f"{where} models.{name}.exact"):
                found.add(self._grammar.class_of(name))
            models[name] = {key: value for key, value in row.items() if key != "exact"}
        return ({**rest, "models": models} if "models" in rest else rest), frozenset(found)

    @staticmethod
    def _flag(value: object, where: str) -> bool:
        if not isinstance(value, bool):
            raise ConfigurationError(f"{where} is {value!r}; it takes true or false.")
        return value

    def models(self, table: Mapping[str, object], where: str) -> dict[str, Quota]:
        """The quotas under `models`, by class."""
        found: dict[str, Quota] = {}
        names: dict[str, str] = {}
        for name, row in self.tables(table, "models", where):
            place = f"{where} models.{name}"
            self.check_names(row, self._grammar.numbers, place)
            counted = self._grammar.class_of(name)
            if counted in found:
                raise ConfigurationError(
                    f"{where}: models.{names[counted]} and models.{name} are counted together, as "
                    f"{counted}. Declare one of them."
                )
            names[counted] = name
            found[counted] = self.quota(row, place)
        return found

    def quota(self, row: Mapping[str, object], where: str) -> Quota:
        """The enforced numbers of a row."""
        try:
            quota = msgspec.convert(dict(row), Quota)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"{where}: {error}. It takes whole numbers.") from None
        return self.enforced(quota, where)

    def enforced(self, quota: Quota, where: str) -> Quota:
        """The share of each number that is used."""
        numbers: dict[str, int | None] = structs.asdict(quota)
        for name, nominal in numbers.items():
            if nominal is not None and nominal < 1:
                raise ConfigurationError(
                    f"{where}.{name} is {nominal}; it takes a whole number, 1 or more."
                )
        return Quota(
            **{
                name: None if nominal is None else max(1, int(nominal * self._margin))
                for name, nominal in numbers.items()
            }
        )
