"""An outage of two minutes at twenty calls a second: what is sent into it, and how soon it is over."""

from __future__ import annotations

import asyncio

import pytest
from tests.guarded import Guarded
from tests.support import failure, said

from headgate.core.errors import HeadgateError
from headgate.engine.protection import ProtectionRules
from headgate.policy.breaker import BreakerRules
from headgate.policy.concurrency import ConcurrencyRules
from headgate.policy.retry_budget import BudgetRules
from headgate.testing import Answer, Sent, VirtualClock

PER_SECOND = 20
RETRIES = 2  # max_attempts of the backend is 3


class Outage:
    """Calls in bursts, once a second; between two instants every answer is a 503.

    Attributes:
        calls, sends: those made while the upstream was out.
        recovered: seconds from its end to the first answer.
        lost: calls that failed although they began later than that.
    """

    def __init__(self, rules: ProtectionRules, begins: float, ends: float, until: int) -> None:
        self.clock = VirtualClock()
        self.begins, self.ends, self.until = begins, ends, until
        self.engine = Guarded(self.clock, self.answer, rules, domains=3, max_retries=RETRIES)
        self.calls = self.lost = 0
        self.answered: list[float] = []
        self.failed: list[float] = []  # when those that failed had begun
        self.clock.run(self.play())
        self.sends = sum(begins <= sent.at < ends for sent in self.engine.transport.sent)
        self.amplification = self.sends / self.calls
        first = min(at for at in self.answered if at >= ends)
        self.recovered = first - ends
        self.lost = sum(at > first for at in self.failed)

    def answer(self, sent: Sent) -> Answer:
        if self.begins <= sent.at < self.ends:
            return failure(503, "The model is overloaded.", "UNAVAILABLE", delay=0.2)
        return said(delay=1)

    async def play(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self.until):
                for _ in range(PER_SECOND):
                    group.create_task(self.one())
                await self.clock.sleep(1)
        await self.engine.at_rest()

    async def one(self) -> None:
        begun = self.clock.monotonic()
        self.calls += self.begins <= begun < self.ends
        try:
            await self.engine.ask()
            self.answered.append(self.clock.monotonic())
        except HeadgateError:
            self.failed.append(begun)


def test_without_protection_every_call_is_sent_three_times() -> None:
    """What the others are measured against; a short one suffices."""
    outage = Outage(ProtectionRules(), 5, 25, 40)
    assert outage.amplification == pytest.approx(1 + RETRIES, rel=0.1)


def test_the_budget_alone_bounds_the_amplification() -> None:
    outage = Outage(ProtectionRules(retries=BudgetRules()), 30, 150, 160)
    assert 1.1 <= outage.amplification <= 1.3
    assert outage.recovered <= 2
    assert outage.lost == 0


def test_s3_04d_with_all_of_it_next_to_nothing_is_sent_and_it_recovers_in_time() -> None:
    rules = ProtectionRules(
        breaker=BreakerRules(), concurrency=ConcurrencyRules(), retries=BudgetRules()
    )
    outage = Outage(rules, 30, 152.5, 260)  # the last probe meets its very end: the longest rest
    assert outage.amplification <= 0.02
    assert 55 <= outage.recovered <= 62, "sixty seconds, the next burst, and its answer"
    assert outage.lost == 0, "those that meet the limit wait, and are answered"
