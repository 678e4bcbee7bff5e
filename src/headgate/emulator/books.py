"""The upstream's books: whose key it is, what the project may still have, what happened to whom."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias, TypeVar

from headgate.emulator.anthropic_config import Organisation, TokenLimits
from headgate.emulator.codegen_desk import Seat
from headgate.emulator.config import EmulatorConfig, Limits, Model, Project
from headgate.emulator.errors import Shortage
from headgate.emulator.openai_config import OpenAILimits, OpenAIOrganisation
from headgate.emulator.quotas import Quota, build
from headgate.emulator.report import Counts, KeyReport, ModelReport, ProjectReport, QuotaReport, Report

__all__ = ["Account", "Books", "Entry", "Level", "Member", "Tenant"]

T = TypeVar("T")

Holder: TypeAlias = Organisation | OpenAIOrganisation
"""Whoever has token buckets."""


@dataclass(frozen=True)
class Account:
    """A key the books know."""

    project: Project
    key: str  # its name


@dataclass(frozen=True)
class Member:
    """A key of an organisation."""

    organisation: Organisation
    key: str  # its name


@dataclass(frozen=True)
class Tenant:
    """A key of an organisation on the OpenAI surface."""

    organisation: OpenAIOrganisation
    key: str  # its name


@dataclass(frozen=True)
class Level:
    """How a token bucket stands: its limit, what is left, seconds until it is full."""

    limit: int
    left: float
    full_in: float


@dataclass
class Entry:
    """One request while it is served. Close it once; that decides what it counts as."""

    account: Account | Member | Tenant | Seat | None
    model: str = "-"
    tokens_in: int = 0
    tokens_out: int = 0
    thought_tokens: int = 0
    charged: int = 0


class _Counter:
    """A quota of so many seconds with its maximum and sums."""

    def __init__(self, quota: Quota, seconds: float) -> None:
        self.quota = quota
        self.seconds = seconds
        self.max_used = 0.0
        self.admitted = 0
        self.refused = 0

    def charge(self, now: float, amount: int) -> None:
        self.quota.charge(now, amount)
        self.max_used = max(self.max_used, self.quota.used(now))
        self.admitted += amount

    def report(self, now: float) -> QuotaReport:
        return QuotaReport(
            limit=self.quota.limit,
            mechanism=self.quota.mechanism,
            used=self.quota.used(now),
            max_used=self.max_used,
            admitted=self.admitted,
            refused=self.refused,
        )


class Books:
    """Counts everything. `now` is seconds of the emulator's life; `born` the Unix time it began at."""

    def __init__(self, config: EmulatorConfig, born: float) -> None:
        self._config = config
        self._born = born
        self._accounts = {
            value: Account(project, name)
            for project in config.projects
            for name, value in project.keys.items()
        }
        self._members = {
            value: Member(organisation, name)
            for organisation in config.organisations
            for name, value in organisation.keys.items()
        }
        self._tenants = {
            value: Tenant(organisation, name)
            for organisation in config.openai
            for name, value in organisation.keys.items()
        }
        self.reset(0.0)

    def reset(self, now: float) -> None:
        """Forget everything: counts and used quota."""
        self._since = now
        self._report = Report(minute_seconds=self._config.minute_seconds)
        for project in self._config.projects:
            keys = {name: KeyReport() for name in project.keys}
            self._report.projects[project.name] = ProjectReport(keys=keys)
        for team in self._config.codegen:
            keys = {name: KeyReport() for name in team.keys}
            self._report.codegen[team.name] = ProjectReport(keys=keys)
        for owner in self._config.openai:
            keys = {name: KeyReport() for name in owner.keys}
            self._report.openai[owner.name] = ProjectReport(keys=keys)
        for organisation in self._config.organisations:
            keys = {name: KeyReport() for name in organisation.keys}
            self._report.organisations[organisation.name] = ProjectReport(keys=keys)
        self._counters: dict[tuple[str, str], dict[str, _Counter]] = {}
        self._buckets: dict[tuple[str, str, str], dict[str, _Counter]] = {}
        self._open: set[int] = set()

    def account(self, value: str) -> Account | None:
        """Whose key this is."""
        return self._accounts.get(value)

    def any_account(self, project: str) -> Account | None:
        """A key of a project, for a request that needs none; None: no such project has keys."""
        return next((one for one in self._accounts.values() if one.project.name == project), None)

    def member(self, value: str) -> Member | None:
        """The organisation whose key this is."""
        return self._members.get(value)

    def tenant(self, value: str) -> Tenant | None:
        """The same on the OpenAI surface."""
        return self._tenants.get(value)

    # ── quota ────────────────────────────────────────────────────────────────

    def admit(
        self, account: Account, model: Model, now: float, requests: int, tokens: int
    ) -> list[Shortage]:
        """Take requests and tokens from all quotas of the model, or say which have no room.

        All or nothing, unless refused requests are charged too.
        """
        counters = self._of(account.project, model)
        amounts = {"rpm": requests, "tpm": tokens, "rpd": requests}
        short: list[Shortage] = []
        for name, counter in counters.items():
            if not counter.quota.room(now, amounts[name]) or counter.quota.limit == 0:
                wait = counter.quota.wait(now, amounts[name])
                short.append(Shortage(name, counter.quota.limit, wait))
                counter.refused += 1
        if not short or self._config.charge_refused:
            for name, counter in counters.items():
                counter.charge(now, amounts[name])
        return short

    def _of(self, project: Project, model: Model) -> dict[str, _Counter]:
        bucket = model.quota_family or model.id
        place = (project.name, bucket)
        if place not in self._counters:
            limits = _pick(project.limits, bucket, model.id)
            self._counters[place] = dict(self._built(limits)) if limits else {}
        return self._counters[place]

    def _built(self, limits: Limits) -> Iterator[tuple[str, _Counter]]:
        minute, day = self._config.minute_seconds, self._config.day_seconds
        wanted = (
            ("rpm", limits.rpm, limits.rpm_mechanism or limits.mechanism, minute),
            ("tpm", limits.tpm, limits.tpm_mechanism or limits.mechanism, minute),
            ("rpd", limits.rpd, limits.rpd_mechanism, day),
        )
        for name, limit, mechanism, seconds in wanted:
            if limit is not None:
                quota = build(mechanism, limit, seconds, limits.phase, self._born)
                yield name, _Counter(quota, seconds)

    # ── token buckets ────────────────────────────────────────────────────────

    def admit_tokens(
        self, organisation: Organisation, names: tuple[str, str], now: float, tokens: int
    ) -> list[Shortage]:
        """Take a request and its input tokens, or say which buckets lack them.

        `names` are class and id of the model. What comes out is charged by `charge_output`.
        """
        amounts = {"rpm": 1, "itpm": tokens, "otpm": 1}
        return self._take(self._of_class(organisation, names), now, amounts, unpaid="otpm")

    def admit_call(
        self, organisation: OpenAIOrganisation, names: tuple[str, str], now: float, tokens: int
    ) -> list[Shortage]:
        """The same on the OpenAI surface: a request and the tokens that are counted with it."""
        amounts = {"rpm": 1, "tpm": tokens, "rpd": 1}
        return self._take(self._of_class(organisation, names), now, amounts)

    def charge_output(self, holder: Holder, names: tuple[str, str], now: float, tokens: int) -> None:
        """Take what came out, whether there is room or not."""
        buckets = self._of_class(holder, names)
        counter = buckets.get("otpm" if isinstance(holder, Organisation) else "tpm")
        if counter is not None and tokens:
            counter.charge(now, tokens)

    def levels(self, holder: Holder, names: tuple[str, str], now: float) -> dict[str, Level]:
        """How the buckets of a model class stand."""
        found = {}
        for name, counter in self._of_class(holder, names).items():
            limit, used = counter.quota.limit, counter.quota.used(now)
            full_in = used / limit * counter.seconds if limit else 0.0
            found[name] = Level(limit, limit - used, full_in)
        return found

    def _take(
        self, buckets: Mapping[str, _Counter], now: float, amounts: Mapping[str, int], unpaid: str = ""
    ) -> list[Shortage]:
        short: list[Shortage] = []
        for name, counter in buckets.items():
            if not counter.quota.room(now, amounts[name]):
                wait = counter.quota.wait(now, amounts[name])
                short.append(Shortage(name, counter.quota.limit, wait))
                counter.refused += 1
        if not short or self._config.charge_refused:
            for name, counter in buckets.items():
                if name != unpaid:
                    counter.charge(now, amounts[name])
        return short

    def _of_class(self, holder: Holder, names: tuple[str, str]) -> dict[str, _Counter]:
        section = "organisations" if isinstance(holder, Organisation) else "openai"
        place = (section, holder.name, names[0])
        if place not in self._buckets:
            minute, day = self._config.minute_seconds, self._config.day_seconds
            wanted = (
                (name, limit, day if name == "rpd" else minute)
                for name, limit in _limits_of(holder, names).items()
            )
            self._buckets[place] = {
                name: _Counter(build("token_bucket", limit, seconds), seconds)
                for name, limit, seconds in wanted
                if limit is not None
            }
        return self._buckets[place]

    # ── counts ───────────────────────────────────────────────────────────────

    def opened(self, account: Account | Member | Tenant | Seat | None) -> Entry:
        """A request came in."""
        entry = Entry(account)
        self._open.add(id(entry))
        for counts in self._sums(entry):
            counts.requests += 1
            counts.open += 1
        return entry

    def answered(self, entry: Entry) -> None:
        """It got its whole answer."""
        for counts in self._closed(entry):
            counts.answered += 1

    def refused(self, entry: Entry, reason: str) -> None:
        """It got an error that is no injected fault."""
        for counts in self._closed(entry):
            counts.refused[reason] = counts.refused.get(reason, 0) + 1

    def failed(self, entry: Entry) -> None:
        """An injected fault ended it."""
        for counts in self._closed(entry):
            counts.failed += 1

    def aborted(self, entry: Entry) -> None:
        """The client went away, or the emulator stopped."""
        for counts in self._closed(entry):
            counts.aborted += 1

    def injected(self, entry: Entry, kind: str) -> None:
        """A fault was injected into it."""
        if id(entry) in self._open:
            for counts in (*self._sums(entry), *self._model(entry)):
                counts.faults[kind] = counts.faults.get(kind, 0) + 1

    def report(self, now: float) -> Report:
        """A copy of the books as they stand."""
        for (project, bucket), counters in self._counters.items():
            quotas = {name: counter.report(now) for name, counter in counters.items()}
            self._report.projects[project].models[bucket] = ModelReport(quotas=quotas)
        for (section, holder, bucket), counters in self._buckets.items():
            quotas = {name: counter.report(now) for name, counter in counters.items()}
            owners = self._report.openai if section == "openai" else self._report.organisations
            owners[holder].models[bucket] = ModelReport(quotas=quotas)
        self._report.seconds = now - self._since
        return copy.deepcopy(self._report)

    def _closed(self, entry: Entry) -> Iterator[Counts]:
        if id(entry) not in self._open:  # closed before, or opened before a reset
            return
        self._open.remove(id(entry))
        sums = list(self._sums(entry))
        for counts in sums:
            counts.open -= 1
        for model in self._model(entry):
            model.requests += 1
            sums.append(model)
        for counts in sums:
            counts.charged_requests += entry.charged
            counts.tokens_in += entry.tokens_in
            counts.tokens_out += entry.tokens_out
            counts.thought_tokens += entry.thought_tokens
            yield counts

    def _model(self, entry: Entry) -> Iterator[Counts]:
        if entry.account is not None:
            key = self._owner(entry.account).keys[entry.account.key]
            yield key.models.setdefault(entry.model, Counts())

    def _sums(self, entry: Entry) -> Iterator[Counts]:
        yield self._report.totals
        if entry.account is None:
            yield self._report.unknown
            return
        owner = self._owner(entry.account)
        yield owner.totals
        yield owner.keys[entry.account.key].totals

    def _owner(self, account: Account | Member | Tenant | Seat) -> ProjectReport:
        if isinstance(account, Seat):
            return self._report.codegen[account.team.name]
        if isinstance(account, Tenant):
            return self._report.openai[account.organisation.name]
        if isinstance(account, Member):
            return self._report.organisations[account.organisation.name]
        return self._report.projects[account.project.name]


def _pick(limits: Mapping[str, T], bucket: str, model: str) -> T | None:
    """The exact name first, then the longest pattern that fits, `*` last."""
    for name in (bucket, model):
        if name in limits:
            return limits[name]
    for pattern in sorted(limits, key=len, reverse=True):
        if fnmatchcase(bucket, pattern) or fnmatchcase(model, pattern):
            return limits[pattern]
    return None


def _limits_of(holder: Holder, names: tuple[str, str]) -> dict[str, int | None]:
    if isinstance(holder, Organisation):
        tokens = _pick(holder.limits, *names) or TokenLimits()
        return {"rpm": tokens.rpm, "itpm": tokens.itpm, "otpm": tokens.otpm}
    calls = _pick(holder.limits, *names) or OpenAILimits()
    return {"rpm": calls.rpm, "tpm": calls.tpm, "rpd": calls.rpd}
