"""The learner: quotas that nobody declared, out of what upstreams answer.

It hears of every attempt. While nothing is known of a model, an attempt costs a count and no more: the
ring chooses, and no ledger is asked. The first refusal, or the first answer that names limits, covers
the model: from then on its calls go through the gate, and wait their turn instead of being refused.

What is believed, in this order:

    told        the upstream named limit and amount: exact, and what was sent before counts against it
    declared    by the user: a smaller number told by the upstream wins, a larger one is only mentioned
    found       a refusal without numbers: an interval of what was served and refused (policy/learning)

A refusal although every known limit had room is *unexplained*: the ledger then spreads the calls
evenly. Where that does not help, the limit itself is searched for. Only refusals of attempts that left
after the last adjustment count: thirty replies to one burst are one event.

Only the domain that was told is limited: that another domain has the same limits is a guess, and one
that is too low would leave its quota unused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from threading import Lock

from msgspec import structs

from headgate.core.call import Usage
from headgate.core.outcome import Kind as Happened
from headgate.core.outcome import Outcome
from headgate.core.ports import Clock, Tariff
from headgate.core.quota import Counts, Kind, Limit, Penalty
from headgate.engine.gate import QuotaGate
from headgate.policy.days import next_reset
from headgate.policy.learning import Interval, Pacing
from headgate.policy.leases import Lease
from headgate.policy.quota.table import Quota, QuotaTable
from headgate.policy.quota.windows import DAY, RESET_LATE
from headgate.policy.tally import MOST_PAIRS, Charge, Tally, Use
from headgate.policy.tariff import WholePrompt

__all__ = ["QuotaLearner"]

_log = logging.getLogger("headgate.quota")

_TEACHING = (Happened.QUOTA_MINUTE, Happened.QUOTA_UNKNOWN)
_SUCCESS = Happened.SUCCESS  # a member of an enum costs as much as a call to look up
"""Refusals that speak of a minute, or do not say of what: the others name what they mean, or money."""

BARE_IN_A_ROW = 3
"""Refusals with status 429 that speak of no quota: the first mean that the model lacks capacity for a
moment. So many of one domain with no answer between them are taken for a quota that does not say so."""

_SEARCHED = "rpm"
"""The limit that is searched for, whichever was meant: of tokens a guess that is too low would refuse a
large call for good, of requests it only lets calls wait."""

_COUNTED = ("rpm", "tpm", "itpm")
"""Limits whose use is counted here; output is not."""


class _Known:
    """What is known of the limits of one domain and model."""

    __slots__ = ("_pacings", "adjusted", "firm", "interval", "limits", "mentioned", "told")

    def __init__(self, enforced: Iterable[Limit], declared: Iterable[Limit]) -> None:
        self.limits = {limit.name: limit for limit in enforced}
        self.firm = {limit.name: limit.amount for limit in declared}  # what the user declared
        self.interval: Interval | None = None  # while requests a minute are searched for
        self.adjusted = -float("inf")
        self.mentioned: set[str] = set()
        self.told: tuple[Limit, ...] = ()  # as the upstream said it last
        self._pacings: dict[str, Pacing] = {}

    def is_news(self, outcome: Outcome) -> bool:
        """Whether an answer may change anything. Most say what the one before them said."""
        if outcome.kind is Happened.SUCCESS and self.interval is not None:
            return True
        return bool(outcome.limits) and outcome.limits is not self.told

    def rolling(self) -> tuple[str, ...]:
        """Names of the limits per minute."""
        return tuple(name for name, limit in self.limits.items() if limit.kind is Kind.ROLLING)

    def found(self, name: str) -> bool:
        """Whether a limit was found by search: nobody told it."""
        return name == _SEARCHED and self.interval is not None

    def pacing(self, name: str) -> Pacing:
        """How tightly the ledger paces a limit."""
        if name not in self._pacings:
            self._pacings[name] = Pacing(self.limits[name].amount)
        return self._pacings[name]

    def enforce(self, limit: Limit) -> None:
        """A limit is new, or has another amount."""
        self.limits[limit.name] = limit
        self._pacings.pop(limit.name, None)


class _News:
    """What an answer changed: limits to enforce, those that are new, and a limit to pace."""

    __slots__ = ("limits", "pace", "unknown")

    def __init__(self) -> None:
        self.limits: list[Limit] = []
        self.unknown: list[Limit] = []
        self.pace: str | None = None


class QuotaLearner:
    """Hears of every attempt and tells the gate what follows. Threads and event loops may share it.

    Args:
        gate: is told of limits and of unexplained refusals.
        table: the declared quotas; what `preset` fills in there may be raised by the upstream.
        domains: names of the domains, by number.
        margin: share of each amount told that is used, in (0, 1].
        tariff: what the provider's quotas count of a call.
    """

    def __init__(
        self,
        gate: QuotaGate,
        table: QuotaTable,
        domains: list[str],
        clock: Clock,
        *,
        margin: float = 1.0,
        tariff: Tariff | None = None,
    ) -> None:
        self._gate = gate
        self._table = table
        self._domains = domains
        self._clock = clock
        self._margin = margin
        self._tariff: Tariff = tariff or WholePrompt()
        self._whole = isinstance(self._tariff, WholePrompt)
        self._tokens = table.counting.tokens
        self._tally = Tally()
        self._known: dict[tuple[int, str], _Known] = {}
        self._families: dict[str, str] = {}
        self._bare: dict[tuple[int, str], int] = {}  # bare refusals since the last answer
        self._lock = Lock()

    def leased(self, lease: Lease, requests: int = 1) -> None:
        """An attempt is about to leave; the upstream charges it as so many requests."""
        model = self._table.class_of(lease.model)
        wall = self._clock.wall()
        with self._lock:
            self._tally.sent(lease.domain, model, lease.taken, wall, requests)

    def heard(
        self, lease: Lease, outcome: Outcome, *, reserved: bool, sent: bool = True, requests: int = 1
    ) -> None:
        """An attempt was settled.

        Args:
            reserved: its quota had been reserved before it was sent.
            sent: whether the upstream may have seen it.
            requests: as which the upstream charges it.
        """
        model, served = self._table.class_of(lease.model), outcome.kind is _SUCCESS
        tokens = self._counted(outcome.usage) if served and outcome.usage is not None else 0
        with self._lock:
            if served:
                self._tally.served(lease.domain, model, lease.taken, tokens, requests)
            elif not sent or outcome.rule.is_quota or _is_bare(outcome):
                self._tally.taken_back(lease.domain, model, lease.taken, requests)
            key = (lease.domain, model)
            known = self._known.get(key)
            refused = self._refuses(key, known, outcome)
            told = bool(outcome.limits) if known is None else known.is_news(outcome)
            if not sent or not (refused or told):
                return
            news = self._learn(known, lease, model, outcome, refused=refused, reserved=reserved)
            charges = self._sent_before(lease.domain, model, news.unknown)
        if news.limits:
            self._gate.cover(lease.model, {lease.domain: tuple(news.limits)})
        if charges:
            self._gate.recall(lease.model, charges)
        if news.pace is not None:
            self._gate.tell(lease.model, [Penalty(lease.domain, pace=news.pace)])

    def sent(self, domain: str, model: str) -> Use:
        """What this process sent to a domain for a model lately, calls under way included."""
        if domain not in self._domains:
            return Use()
        handle, name = self._domains.index(domain), self._table.class_of(model)
        with self._lock:
            return self._tally.used(handle, name, self._clock.monotonic(), self._clock.wall())

    def _counted(self, usage: Usage) -> int:
        """Tokens of an attempt, as limits of tokens count them here. On the path of every call."""
        return usage.prompt if self._whole else self._tariff.counted(usage).get(self._tokens, 0)

    # ── learning, under the lock ────────────────────────────────────────────────────────────────

    def _learn(
        self, known: _Known | None, lease: Lease, model: str, outcome: Outcome, *, refused: bool,
        reserved: bool,
    ) -> _News:  # fmt: skip
        news, now = _News(), self._clock.monotonic()
        if known is None:
            known = self._begin(lease.domain, lease.model, model)
        self._take_told(known, lease, outcome, news)
        if outcome.kind is Happened.SUCCESS:
            self._take_served(known, lease.domain, model, now, news)
        elif refused and not news.limits:
            self._take_refused(known, lease, model, outcome, now, news, reserved=reserved)
        if news.limits and refused:
            known.adjusted = now
        return news

    def _refuses(self, key: tuple[int, str], known: _Known | None, outcome: Outcome) -> bool:
        """Whether an outcome refuses for a quota of which nothing but the minute is known, or less."""
        if outcome.kind is _SUCCESS:
            if self._bare:
                self._bare.pop(key, None)
            return False
        if not _is_bare(outcome):
            return outcome.kind in _TEACHING
        if known is not None and known.interval is not None:
            return True
        if key in self._bare or len(self._bare) < MOST_PAIRS:
            self._bare[key] = self._bare.get(key, 0) + 1
        return self._bare.get(key, 0) >= BARE_IN_A_ROW

    def _begin(self, domain: int, name: str, model: str) -> _Known:
        """The record of a domain and model, begun with what is declared for them."""
        domain_name = self._domains[domain] if domain < len(self._domains) else ""
        enforced = self._table.limits(domain_name, name)
        declared = self._table.explicit(domain_name, name).limits(self._table.counting)
        if len(self._known) >= MOST_PAIRS:  # the ledgers keep what they were told
            del self._known[next(iter(self._known))]
        known = self._known[domain, model] = _Known(enforced, declared)
        return known

    def _take_told(self, known: _Known, lease: Lease, outcome: Outcome, news: _News) -> None:
        """Limits the upstream named. They end a search for the same limit."""
        known.told = outcome.limits or known.told
        for nominal in outcome.limits:
            limit = structs.replace(nominal, amount=max(1, int(nominal.amount * self._margin)))
            held = known.limits.get(limit.name)
            if limit.name == _SEARCHED:
                known.interval = None
            if limit.amount > known.firm.get(limit.name, limit.amount):
                self._mention(known, lease, limit)
                limit = structs.replace(limit, amount=known.firm[limit.name])
            if held is None or held.amount != limit.amount:
                self._enforce(known, limit, news)

    def _take_served(self, known: _Known, domain: int, model: str, now: float, news: _News) -> None:
        """An answer proves what was used so far, and may let a limit that is searched for rise."""
        if known.interval is None:
            return
        use = self._tally.used(domain, model, now, self._clock.wall())
        if (level := known.interval.served(use.served, now)) is not None:
            self._found(known, level, news)

    def _take_refused(
        self, known: _Known, lease: Lease, model: str, outcome: Outcome, now: float, news: _News, *,
        reserved: bool,
    ) -> None:  # fmt: skip
        """A refusal that told nothing new."""
        use = self._used(lease, model, outcome.quota_model, now)
        causes = outcome.quota_names or known.rolling()
        firm = [name for name in causes if name in known.limits and not known.found(name)]
        searching = known.interval is not None and not outcome.quota_names
        if searching or not firm:
            self._search(known, use, lease.taken, now, news)
        elif _is_bare(outcome):
            return  # known limits had room: it does lack capacity
        elif reserved and lease.taken > known.adjusted and not _explained(known, firm, use):
            known.adjusted = now
            self._unexplained(known, firm, use, lease.taken, now, news)

    def _unexplained(
        self, known: _Known, firm: list[str], use: Use, taken: float, now: float, news: _News
    ) -> None:
        """Every limit had room: calls are spread evenly, or the amount itself is in doubt."""
        news.pace = firm[0] if len(firm) == 1 else ""
        paced = [known.pacing(name).tighten(now) for name in firm]
        if all(paced):
            self._search(known, use, taken, now, news)

    def _search(self, known: _Known, use: Use, taken: float, now: float, news: _News) -> None:
        """Look for a limit by what is used. Without any use of ours it must mean something else."""
        if use.requests == 0:
            return
        if known.interval is None:
            known.interval = Interval()
            known.interval.served(use.served, now)
        self._found(known, known.interval.refused(use.requests, taken, now), news)

    def _found(self, known: _Known, level: int, news: _News) -> None:
        """What the search believes now; never above what the user declared."""
        held = known.limits.get(_SEARCHED)
        level = min(level, known.firm.get(_SEARCHED, level))
        if held is None or held.amount != level:
            self._enforce(known, Quota(rpm=level).limits()[0], news)

    @staticmethod
    def _enforce(known: _Known, limit: Limit, news: _News) -> None:
        if limit.name not in known.limits:
            news.unknown.append(limit)
        known.enforce(limit)
        news.limits.append(limit)

    def _mention(self, known: _Known, lease: Lease, told: Limit) -> None:
        """Once for each limit: the declaration is kept, somebody may have reasons for it."""
        if told.name not in known.mentioned:
            known.mentioned.add(told.name)
            _log.info(
                "%s allows %s %d for %s; %d is declared and kept.",
                lease.key.domain, told.name, told.amount, lease.model, known.firm[told.name],
            )  # fmt: skip

    # ── what was sent ───────────────────────────────────────────────────────────────────────────

    def _used(self, lease: Lease, model: str, family: str | None, now: float) -> Use:
        """What was sent to the domain for the model, and for others the upstream counts with it."""
        wall = self._clock.wall()
        if family is None:
            return self._tally.used(lease.domain, model, now, wall)
        if family != model and len(self._families) < MOST_PAIRS:
            self._families[model] = family
        siblings = {name for name, its_family in self._families.items() if its_family == family}
        rows = [self._tally.used(lease.domain, name, now, wall) for name in siblings | {family, model}]
        return Use(*(sum(numbers) for numbers in zip(*rows, strict=True)))

    def _sent_before(self, domain: int, model: str, limits: list[Limit]) -> list[Charge]:
        """What was sent before these limits were known, and counts against them."""
        if not limits:
            return []
        now, wall = self._clock.monotonic(), self._clock.wall()
        charges = []
        for limit in limits:
            if limit.kind is Kind.CALENDAR or limit.window >= DAY:
                use = self._tally.used(domain, model, now, wall)
                left = next_reset(wall) - wall + RESET_LATE / 1000
                ends = now + (left if limit.kind is Kind.CALENDAR else limit.window / 1000)
                today = use.day_requests if limit.counts is Counts.REQUESTS else use.day_tokens
                charges.append(Charge(domain, limit.name, ends, today))
            elif limit.name in _COUNTED:
                charges += [
                    Charge(domain, limit.name, now + left + limit.guard / 1000, amount)
                    for left, requests, tokens in self._tally.charges(domain, model, now)
                    if (amount := requests if limit.counts is Counts.REQUESTS else tokens)
                ]
        return [charge for charge in charges if charge.amount > 0]


def _is_bare(outcome: Outcome) -> bool:
    return outcome.kind is Happened.CAPACITY and outcome.status == 429


def _sent_of(use: Use, name: str) -> int:
    return use.requests if name == "rpm" else use.tokens


def _explained(known: _Known, names: list[str], use: Use) -> bool:
    """Whether more was sent than one of these limits allows: before it was known, or as a debt."""
    return any(name in _COUNTED and _sent_of(use, name) > known.limits[name].amount for name in names)
