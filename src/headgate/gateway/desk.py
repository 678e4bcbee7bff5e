"""The desk where calls of callers are let in: what a caller may ask for, how often, and for how much.

It stands before the engine: what is refused here has used no key, no quota and no money. What a call
used the desk hears as an `Observer` of the engines, attempt by attempt, as the usage ledger does; so
both books have the same sums, but for embeddings whose tokens nobody tells.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from typing import Protocol

from msgspec import structs

from headgate.core.call import Call, Operation, Raw
from headgate.core.callers import (
    Caller,
    CallerBudgetError,
    CallerLimitError,
    CallerLimits,
    Denied,
    Hold,
    Settled,
)
from headgate.core.outcome import Kind
from headgate.core.ports import Clock
from headgate.core.records import AttemptRecord, CallRecord, WaitRecord
from headgate.core.tokens import Usage
from headgate.gateway.caller_book import CallerBook
from headgate.gateway.callers import Callers
from headgate.gateway.meters import Meters, Taken
from headgate.gateway.problems import Headers, RequestRefusedError
from headgate.gateway.purse import Purse
from headgate.gateway.terms import Estimate, Tab, Terms
from headgate.gateway.worst_case import is_billed, most_used
from headgate.policy.budget import dollars, period_end
from headgate.policy.estimate import TokenEstimator
from headgate.wiring.callers import caller_defaults
from headgate.wiring.gateway import Upstream
from headgate.wiring.gateway_settings import GatewaySettings

__all__ = ["CallerDesk", "Pricing"]

_MOST_TABS = 100_000
"""Calls under way that are watched; those of an engine that never ends one must not pile up."""

_MOST_TERMS = 100_000

_TELL_SECONDS = 60.0

_LATE_SECONDS = 900.0
"""How long an attempt is waited for whose call was given up: longer than one may take. An answer that
several waited for may have been taken on by another of them, and then is never heard of here."""

_log = logging.getLogger("headgate.gateway")


class Pricing(Protocol):
    """What tokens cost today, in nano-dollars."""

    def cost(self, provider: str, model: str, usage: Usage) -> int | None:
        """Of tokens that were used; None: nobody knows."""

    def most(self, provider: str, model: str, usage: Usage) -> int | None:
        """Of tokens that a call for this name may use, whichever model it goes to; None: nobody
        knows."""

    def bounds(self, provider: str, model: str) -> tuple[int | None, int | None]:
        """Tokens of the longest prompt and of the longest answer; None: nobody knows."""


class CallerDesk:
    """Lets calls in, and settles what they used. Of one event loop.

    Args:
        settings: see `retune`.

    Attributes:
        callers: who may call at all.
        book: where callers are made and changed; None: they are those of the environment.
    """

    def __init__(
        self,
        callers: Callers,
        clock: Clock,
        *,
        meters: Meters,
        purse: Purse,
        pricing: Pricing,
        settings: GatewaySettings,
        book: CallerBook | None = None,
    ) -> None:
        self.callers = callers
        self.book = book
        self._clock = clock
        self._meters = meters
        self._purse = purse
        self._pricing = pricing
        self._estimator = TokenEstimator()
        self._terms: OrderedDict[str, Terms] = OrderedDict()
        self._tabs: OrderedDict[str, Tab] = OrderedDict()
        self._late: OrderedDict[str, float] = OrderedDict()  # until when they are waited for
        self._told: dict[tuple[str, str], float] = {}
        self.retune(settings)

    def retune(self, settings: GatewaySettings) -> None:
        """Go by other settings from now on: keys of callers that are set there, limits of callers
        without limits of their own, the limit of all together, what becomes of calls without a price.
        The file of callers stays the one it was."""
        self.callers.fix(settings.callers)
        if self.book is not None:
            self.book.fixed = self.callers.fixed
        self._defaults = caller_defaults(settings)
        self._allow_unpriced = settings.caller_unpriced == "allow"
        self._meters.limit_all(settings.inbound_rpm)
        self._terms.clear()

    # ── the way in ──────────────────────────────────────────────────────────────────────────────

    def enter(self, caller: Caller, surface: str) -> None:
        """Raises `RequestRefusedError` (403) where a caller may not use a surface."""
        if caller.surfaces and surface not in caller.surfaces:
            raise _forbidden(
                f"The caller {caller.name} may not use the surface {surface}, only "
                f"{', '.join(caller.surfaces)}. Its operator can allow it."
            )

    def watches(self, caller: Caller) -> bool:
        """Whether calls of a caller must be admitted: whether there is anything it may not."""
        return not self._terms_of(caller).plain

    async def admit(self, caller: Caller, call: Call, upstream: Upstream) -> tuple[Call, Headers]:
        """Let a call in. Whoever did so calls `leave` when it is over.

        Returns the call as it may be sent, and headers that tell what is left of the caller's limits.

        Raises:
            RequestRefusedError: 403, the model is not the caller's to use, or its price is not known.
            CallerLimitError: a limit has no room; `headers` say of which.
            CallerBudgetError: the budget has no room.
            CallersUnavailableError: nobody can look at the budget.
        """
        try:
            return await self._let_in(caller, call, upstream)
        except (CallerLimitError, CallerBudgetError) as error:
            self._tell(caller, error)
            raise

    async def _let_in(self, caller: Caller, call: Call, upstream: Upstream) -> tuple[Call, Headers]:
        terms, raw = self._terms_of(caller), call.raw
        assert raw is not None  # noqa: S101 - as all calls of the gateway
        if call.operation is not Operation.LIST and not terms.allows(call.model):
            raise _forbidden(
                f"The caller {caller.name} may not use the model {call.model[:100]!r}, only "
                f"{', '.join(caller.models[:20])}. Its operator can allow it."
            )
        estimate = self._estimate(call, raw, upstream.name) if terms.counts_tokens else None
        hold = self._hold(caller, terms, call, raw, upstream) if terms.holds else None
        taken = Taken((), [])
        if terms.meters:
            tokens = 0 if estimate is None else estimate.tokens
            taken = await self._meters.take(caller.id, terms.limits, tokens)
        tab = Tab(taken, estimate, raw.weight.tokens)
        if hold is not None:
            call = await self._held(caller, hold, call, raw, tab)
        if tab.holds or estimate is not None:
            self._tabs[call.request_id] = tab
            if len(self._tabs) > _MOST_TABS:
                self._tabs.popitem(last=False)
        return call, taken.headers

    def _tell(self, caller: Caller, error: CallerLimitError | CallerBudgetError) -> None:
        """Say in the log that a caller is refused, once a minute at the most: a thousand lines say no
        more than one."""
        now, what = self._clock.monotonic(), (caller.id, error.kind)
        if now - self._told.get(what, -math.inf) >= _TELL_SECONDS:
            self._told[what] = now
            if len(self._told) > _MOST_TERMS:
                self._told.clear()
            _log.info("caller=%s refused=%s: %s", caller.name, error.kind, error.message)

    async def _held(self, caller: Caller, hold: Hold, call: Call, raw: Raw, tab: Tab) -> Call:
        try:
            verdict = await self._purse.take(hold)
        except BaseException:
            self._meters.undo(tab.taken)
            raise
        if isinstance(verdict, Denied):
            self._meters.undo(tab.taken)
            raise self._denied(caller, hold, verdict)
        tab.holds = True
        if hold.budget is None:
            return call
        tab.held = verdict.amount
        if verdict.amount < hold.wishes[0]:
            # There is money for one attempt. A second one after one that may be billed is not made.
            return structs.replace(call, raw=structs.replace(raw, once=True))
        return call

    def leave(self, request_id: str) -> None:
        """The call is over, however it ended; its last attempt may still be under way."""
        tab = self._tabs.get(request_id)
        if tab is None:
            return
        tab.left = True
        self._close(request_id, tab)
        now = self._clock.monotonic()
        if request_id in self._tabs:
            self._late[request_id] = now + _LATE_SECONDS
        while self._late and next(iter(self._late.values())) <= now:
            late, _ = self._late.popitem(last=False)
            self._give_up(late)

    # ── what is asked for ───────────────────────────────────────────────────────────────────────

    def _terms_of(self, caller: Caller) -> Terms:
        terms = self._terms.get(caller.id)
        if terms is None or terms.version != caller.version:
            defaults = self._defaults if caller.id else CallerLimits()  # everybody is no caller
            terms = Terms(caller, defaults, watches_all=self._meters.watches_all)
            self._terms[caller.id] = terms
            if len(self._terms) > _MOST_TERMS:
                self._terms.popitem(last=False)
        return terms

    def _estimate(self, call: Call, raw: Raw, provider: str) -> Estimate | None:
        if call.operation.is_free:
            return None
        weight, lesson = raw.weight, f"{provider} {call.model}"
        expected = self._estimator.estimate(lesson, weight.tokens)
        if call.operation is not Operation.EMBED:
            output = self._estimator.output(lesson, weight.tokens, None)
            expected += min(output, weight.most_output or output)
        return Estimate(lesson, weight.tokens, expected)

    def _hold(
        self, caller: Caller, terms: Terms, call: Call, raw: Raw, upstream: Upstream
    ) -> Hold | None:
        """What the call is to hold; None: nothing."""
        budget = terms.budget if is_billed(call, raw) else None
        concurrent = None if call.operation.is_free else terms.limits.concurrent
        if budget is None:
            if concurrent is None:
                return None
            return Hold(call.request_id, caller.id, concurrent=concurrent)
        cost = None
        if not call.operation.is_free:
            window, longest = self._pricing.bounds(upstream.name, call.model)
            most = most_used(call, raw, window, longest)
            cost = self._pricing.most(upstream.name, call.model, most)
        if cost is None and not self._allow_unpriced:
            raise _forbidden(
                f"The caller {caller.name} has a budget, and what {call.model[:100]!r} costs is not "
                "known here, so the call is not sent. Name a model with a known price; the operator "
                "can set HEADGATE_CALLER_UNPRICED=allow."
            )
        once = cost or 0
        whole = once * (upstream.max_retries + 1)
        wishes = (whole, once) if whole > once else (once,)
        return Hold(call.request_id, caller.id, budget, wishes, concurrent)

    def _denied(
        self, caller: Caller, hold: Hold, verdict: Denied
    ) -> CallerLimitError | CallerBudgetError:
        if verdict.crowded:
            return CallerLimitError(
                f"The caller {caller.name} has {hold.concurrent} calls under way, which is its limit. "
                "Try again when one of them has ended.",
                retry_after=1.0,
            )
        budget = hold.budget
        assert budget is not None  # noqa: S101 - or nobody would have counted
        left, may_cost = max(0, budget.amount - verdict.spent), hold.wishes[-1]
        error = CallerBudgetError(
            f"The budget of the caller {caller.name} has no room for this call: ${dollars(left):.6f} "
            f"of ${dollars(budget.amount):.6f} ({budget.window}) is left, ${dollars(verdict.held):.6f} "
            f"of that is held for calls under way, and this one may cost ${dollars(may_cost):.6f}. "
            "A lower bound of output tokens asks for less.",
        )
        if verdict.held and may_cost <= left:
            error.retryable, error.retry_after = True, 1.0  # calls under way may give some back
        else:
            end = period_end(budget.window, self._clock.wall())
            error.retry_after = None if end is None else end - self._clock.wall()
        return error

    # ── what became of it ───────────────────────────────────────────────────────────────────────

    def attempt(self, record: AttemptRecord) -> None:
        """See `Observer`: what an attempt used."""
        tab = self._tabs.get(record.request_id)
        if tab is None:
            return
        tab.heard += 1
        usage = _used(record, tab)
        if usage is not None and usage.total and not record.operation.is_free:
            tab.tokens += usage.total
            if tab.held is not None:
                cost = self._pricing.cost(record.provider, record.model, usage)
                tab.unpriced = tab.unpriced or cost is None
                tab.cost += cost or 0
            self._learn(record, tab, usage)
        if tab.left:
            self._close(record.request_id, tab)

    def waiting(self, record: WaitRecord) -> None:
        """See `Observer`: nothing."""

    def call(self, record: CallRecord) -> None:
        """See `Observer`: of a call that was given up an attempt may still be under way, for others who
        wait for the same answer."""
        tab = self._tabs.get(record.request_id)
        if tab is not None and record.error == Kind.CANCELLED.value:
            tab.expected = record.attempts

    def _learn(self, record: AttemptRecord, tab: Tab, usage: Usage) -> None:
        if tab.estimate is None or record.outcome.kind is not Kind.SUCCESS:
            return
        lesson, count, _ = tab.estimate
        self._estimator.learn(lesson, count, usage.prompt)
        output = usage.output + usage.thoughts
        reserved = self._estimator.output(lesson, count, None)
        self._estimator.learn_output(lesson, count, output, short=output > reserved)

    def _give_up(self, request_id: str) -> None:
        """Book what was heard of a call that is over: the rest is in the books of another."""
        tab = self._tabs.get(request_id)
        if tab is not None:
            tab.expected = 0
            self._close(request_id, tab)

    def _close(self, request_id: str, tab: Tab) -> None:
        if tab.heard < tab.expected:
            return
        self._tabs.pop(request_id, None)
        self._late.pop(request_id, None)
        if tab.estimate is not None:
            self._meters.settle(tab.taken, tab.tokens)
        if not tab.holds:
            return
        cost, held = tab.cost, tab.held or 0
        if tab.unpriced and held:
            cost = max(cost, held)  # it went where no price is known: at its worst
        if cost > held and not self._allow_unpriced:
            _log.warning("budget=exceeds_hold request=%s cost=%d held=%d", request_id, cost, held)
        self._purse.settle(Settled(request_id, cost, tab.unpriced))

    async def reset_limits(self, caller: Caller) -> int:
        """Let a caller ask for as much again as its limits allow. How many buckets were filled."""
        return await self._meters.reset(caller.id)

    async def aclose(self) -> None:
        """Book what ended. What a call under way holds stays held."""
        for late in list(self._late):
            self._give_up(late)
        await self._purse.aclose()
        await self._meters.aclose()


def _used(record: AttemptRecord, tab: Tab) -> Usage | None:
    """What an attempt used, as far as it is known. Gemini does not tell the tokens of all embeddings:
    those of the prompt are counted then, or a budget would hold everything but them."""
    usage = record.estimate or record.outcome.usage
    if usage is not None and usage.total:
        return usage
    if record.operation is Operation.EMBED and record.outcome.kind is Kind.SUCCESS:
        return Usage(tab.prompt)
    return usage


def _forbidden(what: str) -> RequestRefusedError:
    return RequestRefusedError(what, status=403, kind="not_allowed")
