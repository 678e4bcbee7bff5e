"""What every `QuotaStore` must do, as tests. Headgate's own stores pass them; so must yours.

    class TestMyStore(StoreContract):
        async def make(self): return MyStore(...)
        async def pass_time(self, milliseconds): ...

Any test runner that collects methods named `test_…` will do. Each test is an event loop of its own.
"""
# ruff: noqa: S101

from __future__ import annotations

import asyncio

from headgate.core.quota import (
    Ask,
    Batch,
    Counts,
    Grant,
    Kind,
    Limit,
    Mode,
    Penalty,
    Refusal,
    Settlement,
)
from headgate.testing.store_recovery import RecoveryContract
from headgate.testing.store_trial import MINUTE, ONE, RPM, TPM, Tried

__all__ = ["StoreContract"]

DAY, TTL = 86_400_000, 90_000
SLOTS = Limit("slots", Counts.SLOTS, 1, Kind.CONCURRENT)


class StoreContract(RecoveryContract):
    """The suite. Say how a store is made and how its time passes."""

    def test_a_full_limit_refuses_until_the_instant_it_names(self) -> None:
        """Granted at that instant, and not a millisecond before."""

        async def test(it: Tried) -> None:
            await it.declare([RPM])
            await it.granted("a1")
            await it.granted("a2")
            refusal = await it.refused("a3")
            now = (await it.do()).now
            assert refusal.at is not None
            assert now + MINUTE <= refusal.at <= now + MINUTE + 500
            assert (refusal.limit, refusal.never) == ("rpm", False)
            await it.until(refusal.at - 1)
            assert (await it.refused("a4")).at == refusal.at
            await it.pass_time(1)
            await it.granted("a5")

        self.run(test)

    def test_asking_again_gets_the_same_answer(self) -> None:
        """A lost reply costs nothing."""

        async def test(it: Tried) -> None:
            await it.declare([RPM], [RPM])
            first = await it.granted("b1", exclude=[0])
            assert await it.granted("b1") == first
            for rid in ("b2", "b3", "b4"):
                await it.granted(rid)
            assert await it.granted("b1") == first
            await it.refused("b5")

        self.run(test)

    def test_a_settlement_replaces_the_estimate(self) -> None:
        """What was reserved too much is free at once, what was too little is held."""

        async def test(it: Tried) -> None:
            await it.declare([TPM])
            await it.granted("c1", {Counts.INPUT: 900})
            await it.refused("c2", {Counts.INPUT: 200})
            for _ in range(2):  # told twice, done once
                await it.settle("c1", {Counts.INPUT: 100})
            await it.granted("c3", {Counts.INPUT: 900})
            await it.refused("c4", {Counts.INPUT: 1})
            await it.settle("c3", {Counts.INPUT: 1500})
            await it.pass_time(MINUTE - 1)
            await it.refused("c5", {Counts.INPUT: 1})
            await it.pass_time(1000)
            await it.granted("c6", {Counts.INPUT: 1000})

        self.run(test)

    def test_a_late_settlement_charges_what_came_on_top(self) -> None:
        """The estimate has expired by then; its remainder has not."""

        async def test(it: Tried) -> None:
            await it.declare([TPM])
            await it.granted("d1", {Counts.INPUT: 500})
            await it.pass_time(MINUTE + 1000)
            await it.settle("d1", {Counts.INPUT: 1100})
            await it.granted("d2", {Counts.INPUT: 400})
            await it.refused("d3", {Counts.INPUT: 1})

        self.run(test)

    def test_a_cancelled_call_leaves_no_trace(self) -> None:
        """Everything comes back; what is not known is ignored."""

        async def test(it: Tried) -> None:
            await it.declare([RPM, TPM, SLOTS])
            whole = {Counts.REQUESTS: 2, Counts.INPUT: 1000, Counts.SLOTS: 1}
            await it.granted("e1", whole)
            await it.do(cancels=("e1", "e1", "unknown"), renews=("e1", "unknown"))
            await it.settle("e1", whole)
            await it.granted("e2", whole)
            await it.refused("e3")

        self.run(test)

    def test_a_slot_is_held_while_the_call_runs(self) -> None:
        """Until it is settled, or its owner has been silent for a time to live."""

        async def test(it: Tried) -> None:
            costs = {Counts.SLOTS: 1}
            await it.declare([SLOTS])
            await it.granted("f1", costs)
            await it.refused("f2", costs)
            await it.settle("f1", {})
            await it.granted("f3", costs)
            await it.pass_time(TTL - 1)
            await it.do(renews=("f3",))
            await it.pass_time(TTL - 1)
            assert (await it.refused("f4", costs)).limit == "slots"
            await it.pass_time(1)
            await it.granted("f5", costs)
            await it.settle("f3", {})  # it lives after all; its slot is another's by now
            await it.refused("f6", costs)

        self.run(test)

    def test_an_envelope_holds_from_the_ask_to_a_window_after_the_end(self) -> None:
        """Nobody knows when within the call the provider counts."""

        async def test(it: Tried) -> None:
            await it.declare([Limit("otpm", Counts.OUTPUT, 1000, mode=Mode.ENVELOPE)])
            await it.granted("g1", {Counts.OUTPUT: 800})
            await it.pass_time(MINUTE + 1000)
            await it.refused("g2", {Counts.OUTPUT: 300})
            await it.settle("g1", {Counts.OUTPUT: 600})
            await it.granted("g3", {Counts.OUTPUT: 400})
            await it.do(cancels=("g3",))
            await it.pass_time(MINUTE - 1)
            await it.refused("g4", {Counts.OUTPUT: 500})
            await it.pass_time(1000)
            await it.granted("g5", {Counts.OUTPUT: 1000})

        self.run(test)

    def test_what_a_dead_caller_held_is_charged_in_full(self) -> None:
        """From its lapse on; should it live after all, the truth replaces that."""

        async def test(it: Tried) -> None:
            await it.declare([Limit("otpm", Counts.OUTPUT, 1000, mode=Mode.ENVELOPE)])
            await it.granted("h1", {Counts.OUTPUT: 800})
            await it.pass_time(TTL + 10)
            await it.refused("h2", {Counts.OUTPUT: 300})
            await it.settle("h1", {Counts.OUTPUT: 100})
            await it.granted("h3", {Counts.OUTPUT: 900})
            await it.pass_time(TTL + MINUTE + 1000)
            await it.pass_time(1)
            await it.refused("h4", {Counts.OUTPUT: 500})
            await it.pass_time(MINUTE + 1000)
            await it.granted("h5", {Counts.OUTPUT: 1000})

        self.run(test)

    def test_an_ask_above_every_limit_is_told_so(self) -> None:
        """It must not wait, in small groups and large ones."""

        async def test(it: Tried) -> None:
            await it.declare([TPM])
            assert await it.refused("i1", {Counts.INPUT: 1001}) == Refusal(None, None, True)
            await it.store.declare("large", [[TPM]] * 70)
            ask = Ask("i2", {Counts.INPUT: 1001})
            reply = await it.store.transact("large", Batch(asks=(ask,)))
            assert reply.answers == (Refusal(None, None, True),)

        self.run(test)

    def test_domains_can_be_excluded_and_preferred(self) -> None:
        """An excluded domain never serves; a preferred one does while it is not much dearer."""

        async def test(it: Tried) -> None:
            await it.declare(*[[Limit("rpm", Counts.REQUESTS, 100)]] * 6)
            for turn in range(5):
                assert (await it.granted(f"j{turn}", prefer=4)).domain == 4
            assert (await it.granted("j5", exclude=[0, 1, 2, 3, 4])).domain == 5
            assert (await it.refused("j6", exclude=range(6))).at is None

        self.run(test)

    def test_a_rest_ends_with_one_call_that_tests(self) -> None:
        """The domain opens when that is served, and rests on when it is not settled well."""

        async def test(it: Tried) -> None:
            await it.declare([Limit("rpm", Counts.REQUESTS, 10)])
            until = (await it.do()).now + 5000
            await it.do(penalties=(Penalty(0, until, canary=True),))
            refusal = await it.refused("k1")
            assert (refusal.at, refusal.limit) == (until, "rest")
            await it.until(until)
            assert (await it.granted("k2")).canary
            assert (await it.refused("k3")).limit == "rest"
            await it.settle("k2", ONE, served=False)
            assert (await it.granted("k4")).canary
            await it.settle("k4", ONE)
            assert not (await it.granted("k5")).canary
            await it.do(penalties=(Penalty(0, until + DAY),))
            await it.refused("k6")
            await it.do(penalties=(Penalty(0, 0),))
            await it.granted("k7")

        self.run(test)

    def test_a_shut_domain_serves_nothing(self) -> None:
        """Until it is let in again; waiting does not help."""

        async def test(it: Tried) -> None:
            await it.declare([RPM])
            await it.do(penalties=(Penalty(0, shut=True),))
            assert await it.refused("l1") == Refusal(None)
            await it.do(penalties=(Penalty(0, shut=False),))
            await it.granted("l2")

        self.run(test)

    def test_limits_are_learned(self) -> None:
        """A known one changes at once, whatever is held; an unknown one is added."""

        async def test(it: Tried) -> None:
            await it.declare([Limit("rpm", Counts.REQUESTS, 10)])
            await it.granted("m1")
            await it.do(penalties=(Penalty(0, limit=Limit("rpm", Counts.REQUESTS, 1)),))
            assert (await it.refused("m2")).limit == "rpm"
            await it.do(
                penalties=(
                    Penalty(0, limit=Limit("rpm", Counts.REQUESTS, 9)),
                    Penalty(0, limit=Limit("tpm of «ö»", Counts.INPUT, 10)),
                )
            )
            await it.granted("m3", {**ONE, Counts.INPUT: 10})
            assert (await it.refused("m4", {**ONE, Counts.INPUT: 1})).limit == "tpm of «ö»"
            await it.settle("m1", ONE)
            await it.do(cancels=("m3",))
            await it.granted("m5", {**ONE, Counts.INPUT: 10})

        self.run(test)

    def test_a_day_ends_after_midnight_in_california(self) -> None:
        """What is used today is free tomorrow, and not before."""

        async def test(it: Tried) -> None:
            await it.declare([Limit("rpd", Counts.REQUESTS, 1, Kind.CALENDAR)])
            await it.granted("n1")
            refusal = await it.refused("n2")
            now = (await it.do()).now
            assert refusal.at is not None
            assert now < refusal.at <= now + 2 * DAY
            assert refusal.at % 3_600_000 == MINUTE  # a full hour, and the provider's grace
            await it.until(refusal.at - 1)
            await it.refused("n3")
            await it.pass_time(1)
            await it.granted("n4")

        self.run(test)

    def test_many_callers_get_what_there_is_and_no_more(self) -> None:
        """At once, from many tasks; each gets the answer to its own ask."""

        async def test(it: Tried) -> None:
            await it.declare(*[[Limit("rpm", Counts.REQUESTS, 20)]] * 5)

            async def caller(number: int) -> int:
                answer = await it.ask(f"o{number:x}")
                assert isinstance(answer, Refusal) or answer.rid == f"o{number:x}"
                return isinstance(answer, Grant)

            assert sum(await asyncio.gather(*(caller(number) for number in range(300)))) == 100

        self.run(test)

    def test_a_long_batch_is_answered_in_order(self) -> None:
        """Also one that does not fit a single call of the store."""

        async def test(it: Tried) -> None:
            await it.declare([Limit("rpm", Counts.REQUESTS, 150)])
            asks = tuple(Ask(f"p{number:x}", ONE) for number in range(200))
            answers = (await it.do(asks=asks)).answers
            assert [isinstance(answer, Grant) for answer in answers] == [True] * 150 + [False] * 50
            assert [answer.rid for answer in answers[:150] if isinstance(answer, Grant)] == [
                ask.rid for ask in asks[:150]
            ]
            settles = tuple(Settlement(ask.rid, {}) for ask in asks)
            await it.do(settles=settles, cancels=tuple(ask.rid for ask in asks))

        self.run(test)

    def test_groups_are_declared_once_and_do_not_touch(self) -> None:
        """The first declaration stands; a group nobody declared is the caller's mistake."""

        async def test(it: Tried) -> None:
            await it.declare([RPM])
            await it.declare([Limit("rpm", Counts.REQUESTS, 99)], [RPM])
            await it.store.declare("other", [[RPM]])
            for rid in ("q1", "q2"):
                await it.granted(rid)
            await it.refused("q3")
            reply = await it.store.transact("other", Batch(asks=(Ask("q4", ONE),)))
            assert isinstance(reply.answers[0], Grant)
            try:
                await it.store.transact("nobody's", Batch())
            except KeyError:
                return
            raise AssertionError("a group that was not declared must be refused")

        self.run(test)
