"""The part of the store contract that concerns lost replies, lost books and what nobody can explain."""
# ruff: noqa: S101

from __future__ import annotations

from headgate.core.quota import Ask, Counts, Grant, Kind, Limit, Mode, Penalty, Refusal, Restore
from headgate.testing.store_trial import MINUTE, RPM, TPM, StoreTrial, Tried

__all__ = ["RecoveryContract"]


class RecoveryContract(StoreTrial):
    """Part of `StoreContract`."""

    def test_a_repeated_ask_is_charged_from_the_repetition(self) -> None:
        """The call goes out after the reply that came, so the window begins with that."""

        async def test(it: Tried) -> None:
            await it.declare([Limit("rpm", Counts.REQUESTS, 1)])
            first = await it.granted("r1")
            await it.pass_time(MINUTE // 2)
            assert await it.granted("r1") == first
            await it.pass_time(MINUTE // 2 + 500)
            assert (await it.refused("r2")).limit == "rpm"
            await it.pass_time(MINUTE // 2)
            await it.granted("r2")
            # Its charge has ended, and another has the place: the old id is an ask like any other.
            await it.refused("r1")

        self.run(test)

    def test_what_is_left_of_a_day_comes_with_the_grant(self) -> None:
        """In the order of the limits; of a domain without such limits nothing."""

        async def test(it: Tried) -> None:
            days = [
                Limit("rpd", Counts.REQUESTS, 10, Kind.CALENDAR),
                Limit("tpd", Counts.INPUT, 100, Kind.CALENDAR, mode=Mode.ENVELOPE),
            ]
            await it.declare([days[0], RPM, days[1]], [RPM])
            costs = {Counts.REQUESTS: 1, Counts.INPUT: 30}
            assert (await it.granted("s1", costs, exclude=[1])).left == (9, 70)
            assert (await it.granted("s2", costs, exclude=[0])).left == ()
            await it.settle("s1", {Counts.INPUT: 20})
            assert (await it.granted("s3", costs, exclude=[1])).left == (8, 50)

        self.run(test)

    def test_a_reply_tells_when_the_books_were_begun(self) -> None:
        """And which step it answers: who sees another epoch or a smaller step has lost charges."""

        async def test(it: Tried) -> None:
            await it.declare([RPM])
            first = await it.do()
            await it.pass_time(500)
            second = await it.do()
            assert first.epoch == second.epoch <= first.now
            assert 0 < first.seq < second.seq

        self.run(test)

    def test_what_a_member_restores_is_held_until_it_expires(self) -> None:
        """Absolute amounts: told twice is told once, told anew replaces."""

        async def test(it: Tried) -> None:
            await it.declare([TPM])
            now = (await it.do()).now
            early, late = now + 10_000, now + 20_000

            async def tell(member: str, expires: int, amount: int, limit: str = "tpm") -> None:
                await it.do(restores=(Restore(member, 0, limit, expires, amount),))

            for _ in range(2):
                await tell("a", late, 500)
                await tell("b", early, 300)
            await tell("b", late, 100)
            await it.granted("t1", {Counts.INPUT: 100})
            refusal = await it.refused("t2", {Counts.INPUT: 1})
            assert (refusal.at, refusal.limit) == (early, "tpm")
            await tell("a", late, 450)
            await it.granted("t2", {Counts.INPUT: 50})
            await it.until(early)
            await tell("b", early, 900)  # has ended
            await tell("b", late, 900, "nobody's")
            await it.granted("t3", {Counts.INPUT: 300})
            assert (await it.refused("t4", {Counts.INPUT: 1})).at == late
            await it.until(late)
            await it.granted("t4", {Counts.INPUT: 550})
            await it.refused("t5", {Counts.INPUT: 1})

        self.run(test)

    def test_restores_of_many_buckets_come_in_any_order(self) -> None:
        """Before, between and after what has been charged since."""

        async def test(it: Tried) -> None:
            await it.declare([Limit("rpm", Counts.REQUESTS, 100)])
            await it.granted("u1")
            now = (await it.do()).now
            order = [now + 1000 * (number * 37 % 90 + 1) for number in range(90)]
            restores = tuple(Restore("a", 0, "rpm", expires, 1) for expires in order)
            await it.do(restores=restores)
            for number in range(9):
                await it.granted(f"u2 {number}")
            for number in range(60):
                refusal = await it.refused("u3")
                assert refusal.at is not None
                assert refusal.at <= now + 1000 * (number + 1)
                await it.until(refusal.at)
                await it.granted(f"u4 {number}")

        self.run(test)

    def test_a_refusal_nobody_explains_spreads_the_calls(self) -> None:
        """Half of the limit at once at the most, the rest evenly; the instant is exact."""

        async def test(it: Tried) -> None:
            await it.declare([Limit("rpm", Counts.REQUESTS, 10), Limit("tpm", Counts.INPUT, 10**6)])
            costs = {Counts.REQUESTS: 1, Counts.INPUT: 10}
            await it.granted("v1", costs)
            begun = (await it.do(penalties=(Penalty(0, pace="rpm"),))).now
            apart = (MINUTE + 350) // 5  # milliseconds, and a little for rounding
            refusal = await it.refused("v2", costs)
            assert refusal.limit == "rpm"
            assert refusal.at is not None
            assert begun + apart <= refusal.at <= begun + apart + 1
            await it.until(refusal.at - 1)
            await it.refused("v2", costs)
            await it.pass_time(1)
            await it.granted("v2", costs)
            assert (await it.refused("v3", costs)).limit == "rpm"
            await it.do(cancels=("v2",))
            await it.granted("v3", costs)
            await it.do(penalties=(Penalty(0, pace="nobody's"),))
            await it.pass_time(10 * MINUTE)
            burst = [isinstance(await it.ask(f"v4 {number}", costs), Grant) for number in range(8)]
            assert burst == [True] * 5 + [False] * 3

        self.run(test)

    def test_a_search_that_was_cut_goes_on_with_the_next_ask(self) -> None:
        """In a large group 64 domains that perhaps have room are looked at in one search."""

        async def test(it: Tried) -> None:
            size = 100
            limits = [Limit("in", Counts.INPUT, 1000), Limit("out", Counts.OUTPUT, 10)]
            await it.declare(*[limits] * size)
            for handle in range(size):
                others = [other for other in range(size) if other != handle]
                await it.granted(f"w{handle}", {Counts.INPUT: 200, Counts.OUTPUT: 1}, exclude=others)
            large = {Counts.INPUT: 900, Counts.OUTPUT: 9}
            reply = await it.do(asks=(Ask("w large", large),))
            assert reply.answers == (Refusal(reply.now + 1),)
            await it.settle("w17", {Counts.INPUT: 0})
            answers = [await it.ask("w large", large) for _ in range(2)]
            assert any(isinstance(answer, Grant) and answer.domain == 17 for answer in answers)

        self.run(test)

    def test_in_a_large_group_nobody_waits_longer_than_the_pace(self) -> None:
        """A large ask goes later than a small one, and nothing else happens at that instant."""

        async def test(it: Tried) -> None:
            await it.declare(*[[Limit("tpm", Counts.INPUT, 900)]] * 66)
            penalties = [Penalty(handle, pace="tpm") for handle in range(64)]
            penalties += [Penalty(handle, shut=True) for handle in (64, 65)]
            begun = (await it.do(penalties=tuple(penalties))).now
            await it.pass_time(50_000)
            refusal = await it.refused("x1", {Counts.INPUT: 440})
            assert refusal.at is not None
            assert begun + 58_000 < refusal.at < begun + MINUTE
            await it.until(refusal.at - 1)
            assert (await it.refused("x1", {Counts.INPUT: 440})).at == refusal.at
            await it.pass_time(1)
            await it.granted("x1", {Counts.INPUT: 440})

        self.run(test)
