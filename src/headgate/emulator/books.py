"""The upstream's books: whose key it is, what the project may still have, what happened to whom."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from headgate.emulator.config import EmulatorConfig, Limits, Model, Project
from headgate.emulator.errors import Shortage
from headgate.emulator.quotas import Quota, build
from headgate.emulator.report import Counts, KeyReport, ModelReport, ProjectReport, QuotaReport, Report

__all__ = ["Account", "Books", "Entry"]


@dataclass(frozen=True)
class Account:
    """A key the books know."""

    project: Project
    key: str  # its name


@dataclass
class Entry:
    """One request while it is served. Close it once; that decides what it counts as."""

    account: Account | None
    model: str = "-"
    tokens_in: int = 0
    tokens_out: int = 0
    thought_tokens: int = 0
    charged: int = 0


class _Counter:
    """A quota with its maximum and sums."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
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
        self.reset(0.0)

    def reset(self, now: float) -> None:
        """Forget everything: counts and used quota."""
        self._since = now
        self._report = Report(minute_seconds=self._config.minute_seconds)
        for project in self._config.projects:
            keys = {name: KeyReport() for name in project.keys}
            self._report.projects[project.name] = ProjectReport(keys=keys)
        self._counters: dict[tuple[str, str], dict[str, _Counter]] = {}
        self._open: set[int] = set()

    def account(self, value: str) -> Account | None:
        """Whose key this is."""
        return self._accounts.get(value)

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
            limits = _limits(project, model.id, bucket)
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
                yield name, _Counter(build(mechanism, limit, seconds, limits.phase, self._born))

    # ── counts ───────────────────────────────────────────────────────────────

    def opened(self, account: Account | None) -> Entry:
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
            key = self._report.projects[entry.account.project.name].keys[entry.account.key]
            yield key.models.setdefault(entry.model, Counts())

    def _sums(self, entry: Entry) -> Iterator[Counts]:
        yield self._report.totals
        if entry.account is None:
            yield self._report.unknown
            return
        project = self._report.projects[entry.account.project.name]
        yield project.totals
        yield project.keys[entry.account.key].totals


def _limits(project: Project, model: str, bucket: str) -> Limits | None:
    """The exact name first, then the longest pattern that fits, `*` last."""
    for name in (bucket, model):
        if name in project.limits:
            return project.limits[name]
    patterns = sorted(project.limits, key=len, reverse=True)
    for pattern in patterns:
        if fnmatchcase(bucket, pattern) or fnmatchcase(model, pattern):
            return project.limits[pattern]
    return None
