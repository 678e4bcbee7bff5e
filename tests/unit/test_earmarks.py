"""Calls that say what they are booked as, and go on with a reservation that was made before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.content import answered, refused
from tests.support import key

from headgate.core.call import Call, Earmark, Key, Operation
from headgate.core.errors import DeadlineExceededError, HeadgateError, QuotaExhaustedError
from headgate.core.outcome import Kind
from headgate.core.quota import Ask, Batch, Costs, Counts, Grant
from headgate.core.records import AttemptRecord
from headgate.engine.pipeline import Pipeline
from headgate.policy.quota.table import Quota
from headgate.testing import Answer, Broken, ScriptedTransport, VirtualClock
from headgate.wiring.content import ContentEngine, ContentNeeds, build_content
from headgate.wiring.observers import Observers

MODEL = "gemini-3.8-flash"


class World:
    """An engine of some projects with a quota of requests and tokens a minute, and its ledger."""

    def __init__(
        self, clock: VirtualClock, script: Any, *, projects: int = 1, rpm: int = 2, tpm: int = 10_000
    ) -> None:
        self.clock = clock
        self.attempts: list[AttemptRecord] = []
        self.transport = ScriptedTransport(script, clock)
        self.room: ContentEngine = build_content(
            ContentNeeds(Quota(rpm=rpm, tpm=tpm), margin=1.0),
            clock=clock,
            observer=Observers(self),  # type: ignore[arg-type] # what it hears of is here
            warn=lambda _: None,
            environ={"GEMINI_API_KEY_ROTATION_MAX_RETRIES": "0"},
            keys=tuple(Key(f"k{n}", key(n), f"p{n}") for n in range(projects)),
            transport=self.transport,
            chance=lambda: 0.0,
        )

    def attempt(self, record: AttemptRecord) -> None:
        self.attempts.append(record)

    def waiting(self, record: object) -> None: ...
    def call(self, record: object) -> None: ...

    async def hold(self, rid: str, tokens: int = 1500) -> Grant:
        """Reserve as others do who are no call."""
        costs: Costs = dict.fromkeys(Counts, 1) | {Counts.INPUT: tokens, Counts.TOTAL: tokens}
        batch = Batch(asks=(Ask(rid, costs),))
        reply = await self.room.store.transact(await self.group(), batch)
        assert isinstance(reply.answers[0], Grant)
        return reply.answers[0]

    async def group(self) -> str:
        gate = self.room.engine.gate
        assert gate is not None
        return await gate.group(MODEL)

    async def used(self) -> list[dict[str, int]]:
        """By project: what is held of each limit."""
        gate, store = self.room.engine.gate, self.room.store
        assert gate is not None
        await gate.flush()
        rows = await store.fills(await self.group())  # type: ignore[attr-defined]
        return [{fill.limit.name: fill.used for fill in row} for row in rows]

    async def call_with(self, earmark: Earmark | None, domain: str = "") -> Any:
        call = Call(Operation.GENERATE, MODEL, ("Hello",), earmark=earmark, domain=domain)
        answer, _ = await self.room.engine.pipeline.run(call)
        return answer


async def test_what_a_call_is_booked_as_stands_in_for_an_estimate_until_the_truth_is_known(
    clock: VirtualClock,
) -> None:
    seen: list[int] = []

    class Looking:
        """Looks into the ledger while a call is under way."""

        async def open(self, *args: Any, **options: Any) -> Any:
            seen.append((await world.used())[0]["tpm"])
            return await inner.open(*args, **options)

        async def aclose(self) -> None: ...

    inner = ScriptedTransport([answered("Hi.", tokens=400)], clock)
    world = World(clock, [])
    world.room = build_content(
        ContentNeeds(Quota(rpm=2, tpm=10_000), margin=1.0), clock=clock, observer=Observers(),
        warn=lambda _: None, environ={}, keys=(Key("k", key(0), "p"),), transport=Looking(),
    )  # fmt: skip
    await world.call_with(Earmark(1500))
    assert seen == [1500]
    assert await world.used() == [{"rpm": 1, "tpm": 400}]


async def test_a_call_goes_on_with_what_was_put_aside_and_books_nothing_twice(
    clock: VirtualClock,
) -> None:
    world = World(clock, [answered("Hi.", tokens=400)], rpm=1)
    await world.hold("mine")
    await world.call_with(Earmark(1500, "mine"))
    assert await world.used() == [{"rpm": 1, "tpm": 400}]
    with pytest.raises(QuotaExhaustedError):
        await world.call_with(Earmark(1500, "mine"))  # it was used up


async def test_the_charge_moves_to_the_moment_of_the_send(clock: VirtualClock) -> None:
    world = World(clock, [answered("Hi.")], rpm=1)
    await world.hold("mine")
    await clock.sleep(50.0)
    await world.call_with(Earmark(1500, "mine"))
    await clock.sleep(20.0)  # the reservation is 70 s old, the send 20 s
    assert (await world.used())[0]["rpm"] == 1
    with pytest.raises(QuotaExhaustedError):
        await world.call_with(None)


async def test_a_reservation_whose_charge_has_ended_is_asked_for_anew(clock: VirtualClock) -> None:
    world = World(clock, [answered("Hi.")], rpm=1)
    await world.hold("mine")
    await clock.sleep(61.0)
    await world.call_with(None)  # another took the place meanwhile
    with pytest.raises(QuotaExhaustedError):
        await world.call_with(Earmark(1500, "mine"))
    assert len(world.transport.sent) == 1


async def test_where_its_project_was_refused_meanwhile_another_takes_it(clock: VirtualClock) -> None:
    refusing: list[int] = []

    def model(sent: Any) -> Answer | Broken:
        if sent.credential["x-goog-api-key"] in map(key, refusing):
            return refused(quota="GenerateRequestsPerMinutePerProjectPerModel")
        return answered("Hi.")

    world = World(clock, model, projects=2, rpm=5)
    held = await world.hold("mine")
    refusing.append(held.domain)
    with pytest.raises(QuotaExhaustedError):
        await world.call_with(None, domain=f"p{held.domain}")  # the provider says no: it rests
    await world.call_with(Earmark(1500, "mine"))
    assert len(world.transport.sent) == 2  # that project was not asked again
    assert world.attempts[-1].outcome.kind is Kind.SUCCESS
    assert world.attempts[-1].domain == f"p{1 - held.domain}"
    assert sorted(row["rpm"] for row in await world.used()) == [1, 1]  # what was held there is free


async def test_a_second_attempt_reserves_anew(clock: VirtualClock) -> None:
    answers = [refused(quota="GenerateRequestsPerMinutePerProjectPerModel"), answered("Hi.")]
    world = World(clock, answers,
                  projects=2, rpm=5)  # fmt: skip
    await world.hold("mine")
    await world.call_with(Earmark(1500, "mine"))
    assert [attempt.outcome.kind for attempt in world.attempts] == [Kind.QUOTA_MINUTE, Kind.SUCCESS]
    assert [row["rpm"] for row in await world.used()] == [1, 1]


async def test_what_was_put_aside_for_a_call_that_never_came_so_far_is_free_again(
    clock: VirtualClock,
) -> None:
    """Its time was over before its turn: the reservation is given back at once. Where the caller leaves
    after the call was sent it stays."""
    world = World(clock, [Answer(delay=30.0, body=b"{}")], rpm=5)
    await world.hold("too late")
    late = Call(
        Operation.GENERATE, MODEL, ("Hello",), deadline=clock.monotonic(),
        earmark=Earmark(1500, "too late"),
    )  # fmt: skip
    with pytest.raises(DeadlineExceededError):
        await world.room.engine.pipeline.run(late)
    assert await world.used() == [{"rpm": 0, "tpm": 0}]

    await world.hold("left")
    path = world.room.engine.pipeline.run(
        Call(Operation.GENERATE, MODEL, ("Hello",), earmark=Earmark(1500, "left"))
    )
    leaving = asyncio.get_running_loop().create_task(path)
    await clock.sleep(1.0)
    leaving.cancel()
    await asyncio.wait([leaving])
    assert await world.used() == [{"rpm": 1, "tpm": 1500}], "it was sent: the provider may count it"


async def test_a_call_that_is_cancelled_before_its_turn_gives_back_what_was_put_aside(
    clock: VirtualClock,
) -> None:
    """Its place in the engine has not come to the ledger yet when the caller leaves."""
    world = World(clock, [], rpm=5)
    await world.hold("mine")
    at_the_door = asyncio.Event()

    async def waits(passage: Any, onward: Any) -> Any:
        at_the_door.set()
        await asyncio.Event().wait()

    attempt = world.room.engine.pipeline
    held_up = Pipeline(
        prepare=attempt.order[0], attempt=waits, reserve=waits, send=waits, clock=clock,
        observer=Observers(), give_back=world.room.engine.gate.give_back,  # type: ignore[union-attr]
    )  # fmt: skip
    call = Call(Operation.GENERATE, MODEL, ("Hello",), earmark=Earmark(1500, "mine"))
    leaving = asyncio.get_running_loop().create_task(held_up.run(call))
    await at_the_door.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    assert await world.used() == [{"rpm": 0, "tpm": 0}]
    await clock.sleep(1.0)
    assert await world.used() == [{"rpm": 0, "tpm": 0}]


async def test_a_fixed_booking_stays_unless_the_call_fails(clock: VirtualClock) -> None:
    world = World(clock, [answered("Hi.", tokens=1390), refused(400)], rpm=5)
    await world.call_with(Earmark(500, fixed=True))
    assert await world.used() == [{"rpm": 1, "tpm": 500}]
    with pytest.raises(HeadgateError):
        await world.call_with(Earmark(500, fixed=True))
    assert await world.used() == [{"rpm": 2, "tpm": 500}]
