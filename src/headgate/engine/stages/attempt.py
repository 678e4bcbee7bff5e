"""Attempt: the only owner of retries. Decides after each failure: rotate, wait, retry or give up.

- A refusal for quota, or a dead key, rotates: at once, and without costing a retry.
- A passing fault (overload, network, malformed answer) is retried with the same key, after the
  upstream's hint or a full-jitter back-off.
- With no key ready the call waits for the first to recover, if that lies within its deadline, or
  within `max_wait` where it has none, all its waits together. Each costs one retry, as S1-13 has it.
- What waiting cannot mend is raised at once. So is a refusal of the breaker (`stages/protect.py`).
- Where retries have a budget (`engine/protection.py`) and it is used up, a passing fault is final.

A call sends at most (retries + 1) × domains times, because a domain that refused it is not asked
again until the call has waited, and waiting costs a retry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from msgspec import structs

from headgate.core.call import Operation
from headgate.core.errors import (
    DeadlineExceededError,
    HeadgateError,
    NoUsableKeyError,
    QuotaExhaustedError,
    UpstreamError,
)
from headgate.core.outcome import Kind, Next, Outcome
from headgate.core.ports import Clock, Observer
from headgate.core.records import WaitFor, WaitRecord
from headgate.engine.passage import Answer, AttemptFailed, NoKeyReady, Onward, Passage
from headgate.engine.protection import Protection
from headgate.policy.backoff import Backoff
from headgate.policy.leases import Unready

__all__ = ["MORE_TIME", "Attempt"]

MORE_TIME = "max_wait_seconds or timeout"
"""What gives a call more time, in the words of most doors; one with other words says its own."""

_TIME_TO_SEND = 0.001
"""Seconds, the least that a wait must leave of a deadline."""


class Attempt:
    """Repeats what is behind it until there is an answer or no point in going on.

    Args:
        max_retries: extra tries of a call beyond the first; rotations do not count.
        backoff: delays between retries.
        chance: uniform in [0, 1), for the jitter.
        retry_timeouts: also retry a generation that timed out after it was sent, although the
            upstream may bill both.
        protection: has the budget of retries; None: each call may use up its own.
    """

    def __init__(
        self,
        clock: Clock,
        observer: Observer,
        chance: Callable[[], float],
        *,
        max_retries: int,
        backoff: Backoff,
        retry_timeouts: bool,
        total_keys: int,
        protection: Protection | None = None,
    ) -> None:
        self._clock = clock
        self._observer = observer
        self._chance = chance
        self._max_retries = max_retries
        self._backoff = backoff
        self._retry_timeouts = retry_timeouts
        self._total_keys = total_keys
        budgets = protection is not None and protection.rules.budgets
        self._protection = protection if budgets else None

    async def __call__(self, passage: Passage, onward: Onward) -> Answer:
        """Raises what `core/errors.py` lists: upstream, quota, no usable key, deadline."""
        if self._protection is not None:
            self._protection.ward(passage.model, passage.call.operation).called()
        while True:
            self._check_deadline(passage)
            passage.wait_bound = self._wait_bound(passage)
            try:
                return await onward(passage)
            except (NoKeyReady, AttemptFailed) as caught:
                signal = caught
            # Dealt with outside of the handler: what a user sees must not drag our signals along.
            if isinstance(signal, NoKeyReady):
                await self._wait_for_key(passage, signal)
            else:
                await self._after(passage, signal)

    async def _after(self, passage: Passage, failed: AttemptFailed) -> None:
        outcome = failed.outcome
        match outcome.rule.next:
            case Next.ROTATE:
                self._rotate(passage, outcome)
            case Next.RETRY if self._may_repeat(passage, failed):
                await self._retry(passage, outcome)
            case Next.STOP:
                self._stop(passage, outcome)
            case _:
                self._give_up(passage, outcome)

    def _rotate(self, passage: Passage, outcome: Outcome) -> None:
        assert passage.lease is not None  # noqa: S101 - an attempt was made
        if outcome.rule.is_quota or passage.refusal is None or not passage.refusal[1].rule.is_quota:
            passage.refusal = (passage.lease.key.name, outcome)  # a dead key explains no exhaustion
        passage.prefer = None
        passage.rotations += 1
        if outcome.rule.leaves_domain:
            passage.refused_by.add(passage.lease.domain)

    def _may_repeat(self, passage: Passage, failed: AttemptFailed) -> bool:
        if passage.retries >= self._max_retries:
            return False
        raw = passage.call.raw
        if raw is not None and failed.sent and not raw.may_repeat:
            return False
        if failed.outcome.kind is Kind.TIMEOUT and failed.sent:
            return self._retry_timeouts or passage.call.operation is Operation.EMBED
        return True

    async def _retry(self, passage: Passage, outcome: Outcome) -> None:
        delay = outcome.retry_after
        if delay is None:
            delay = self._backoff.delay(passage.retries, self._chance())
        if passage.call.deadline is not None:
            fits = self._clock.monotonic() + delay < passage.call.deadline
        else:
            fits = delay <= max(self._backoff.cap, passage.call.max_wait - passage.waited)
        if not fits:
            self._give_up(passage, outcome)
        if not self._in_budget(passage):
            self._give_up(passage, outcome, because=_NO_BUDGET)
        passage.failure = outcome
        passage.prefer = passage.lease
        await self._sleep(passage, WaitFor.RETRY, delay)

    def _in_budget(self, passage: Passage) -> bool:
        if self._protection is None:
            return True
        return self._protection.ward(passage.model, passage.call.operation).may_retry()

    async def _wait_for_key(self, passage: Passage, signal: NoKeyReady) -> None:
        if passage.refusal is not None and not signal.wait:
            self._check_size(passage, passage.refusal[1])
        if signal.wait is None:
            self._no_usable_key(passage, signal.unready)
        if signal.final or passage.wait_bound <= 0 or signal.wait > passage.wait_bound:
            self._exhausted(passage, signal.unready, signal.wait)
        passage.prefer = None
        passage.refused_by.clear()
        await self._sleep(passage, WaitFor.KEY, signal.wait)

    def _wait_bound(self, passage: Passage) -> float:
        """Seconds the call may still wait for a key: what its waits so far left of its bound.

        A wait costs a retry, so without one left: none.
        """
        if passage.retries >= self._max_retries:
            return 0.0
        bound = max(0.0, passage.call.max_wait - passage.waited)
        if passage.call.deadline is not None:
            left = passage.call.deadline - self._clock.monotonic()
            bound = min(bound, left - _TIME_TO_SEND)  # a wait to the very deadline would be for nothing
        return bound

    async def _sleep(self, passage: Passage, reason: WaitFor, seconds: float) -> None:
        passage.retries += 1
        passage.waited += seconds
        self._observer.waiting(WaitRecord(passage.call.request_id, reason, seconds))
        await self._clock.sleep(seconds)

    def _check_deadline(self, passage: Passage) -> None:
        deadline = passage.call.deadline
        if deadline is not None and self._clock.monotonic() >= deadline:
            raise DeadlineExceededError(
                f"The call's deadline passed after {passage.attempts} attempt(s) on {passage.model}. "
                "Give it more time, or see the log for what it waited for.",
                request_id=passage.call.request_id,
            )

    def _check_size(self, passage: Passage, refusal: Outcome) -> None:
        """Nothing is left to wait for: was the call larger than what any domain has?"""
        if refusal.kind is Kind.TOO_LARGE:
            self._give_up(passage, structs.replace(refusal, kind=Kind.REQUEST))

    # ── giving up ───────────────────────────────────────────────────────────────────────────────

    def _stop(self, passage: Passage, outcome: Outcome) -> NoReturn:
        """Nothing may be sent now. A call that failed before fails with that, and says why it goes no
        further."""
        failure = passage.failure
        if failure is not None:
            later = max(outcome.retry_after or 0.0, failure.retry_after or 0.0)
            failure = structs.replace(failure, retry_after=later)
            self._give_up(passage, failure, because=_sentence(outcome.message))
        raise UpstreamError(
            outcome,
            f"{_sentence(outcome.message)} Nothing was sent; try again later, or use another model.",
            request_id=passage.call.request_id,
        )

    def _give_up(self, passage: Passage, outcome: Outcome, *, because: str = "") -> NoReturn:
        assert passage.lease is not None  # noqa: S101 - an attempt was made
        tries = f"attempt {passage.attempts} with key {passage.lease.key.name}"
        message = f"{_WHAT_HAPPENED[outcome.rule.public_kind]} ({passage.model}, {tries}): "
        advice = _WHAT_TO_DO[outcome.rule.public_kind]
        raise UpstreamError(
            outcome,
            " ".join(filter(None, (f"{message}{_sentence(outcome.message)}", because, advice))),
            key_name=passage.lease.key.name,
            request_id=passage.call.request_id,
        )

    def _exhausted(self, passage: Passage, unready: Unready, wait: float) -> NoReturn:
        error = QuotaExhaustedError(
            f"{_count(unready.cooling, self._total_keys)} out of quota for {passage.model}; the first "
            f"recovers in {wait:.0f} s.{self._last_words(passage)} Wait that long, allow a longer wait "
            f"({MORE_TIME}), or add a key of another project or organisation.",
            total_keys=self._total_keys,
            retry_after=wait,
            request_id=passage.call.request_id,
        )
        self._raise(passage, error)

    def _no_usable_key(self, passage: Passage, unready: Unready) -> NoReturn:
        error = NoUsableKeyError(
            f"No key can be used for {passage.model}: of {self._total_keys}, {unready.disabled} "
            f"refused by the upstream as invalid, {unready.denied} without access to this model."
            f"{self._last_words(passage)} Check the keys in the provider's console; "
            "`headgate keys --check` tests each.",
            kind="auth" if unready.disabled else "no_access",
            request_id=passage.call.request_id,
        )
        self._raise(passage, error)

    @staticmethod
    def _last_words(passage: Passage) -> str:
        if passage.refusal is None:
            return ""
        name, outcome = passage.refusal
        return f" Last refusal, from key {name}: {_sentence(outcome.message)}"

    @staticmethod
    def _raise(passage: Passage, error: HeadgateError) -> NoReturn:
        if passage.refusal is None:
            raise error
        name, outcome = passage.refusal
        raise error from UpstreamError(outcome, key_name=name, request_id=passage.call.request_id)


def _count(usable: int, total: int) -> str:
    if usable == 1:
        return "The only key is" if total == 1 else f"The only usable key of {total} is"
    return f"All {total} keys are" if usable == total else f"All {usable} usable keys of {total} are"


def _sentence(text: str) -> str:
    """An upstream's words, ended so that ours may follow."""
    text = text.strip()
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


_NO_BUDGET = (
    "It is not tried again: so many calls fail that retries are held to a share of them, and that is "
    "used up."
)

_WHAT_HAPPENED = {
    "unavailable": "The model is overloaded",
    "server": "The upstream failed",
    "network": "The connection failed",
    "timeout": "The upstream did not answer in time",
    "protocol": "The upstream's answer could not be read",
    "busy": "This process is too busy to send in time",
    "tls": "The upstream's certificate was not accepted",
    "egress": "The upstream does not serve this location",
    "resource": "A file or cache the call names is not available to this key",
    "storage_quota": "The cache storage quota is used up",
    "blocked": "The upstream gave no answer to this prompt",
    "invalid": "The upstream refused the call",
}

_WHAT_TO_DO = {
    "unavailable": "Try again later or use another model.",
    "server": "Try again; if it lasts, a shorter prompt or another model may help.",
    "network": "Check the network and the base URL, then try again.",
    "timeout": "Try again, or allow more time.",
    "protocol": "Check that the base URL leads to the provider's API, and no proxy is between.",
    "busy": "Let nothing block the event loop, or give the process more of a processor.",
    "tls": "Check the machine's certificates and clock; verification is never switched off.",
    "egress": "Call from a supported region: every key is refused alike.",
    "resource": "Use a key of the project that owns it, or upload it again.",
    "storage_quota": "Delete cached contents that are no longer needed.",
    "blocked": "Change the prompt; sending it again will not help.",
    "invalid": "Correct the call; sending it again will not help.",
}
