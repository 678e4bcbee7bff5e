"""Who waits at the gate, in what order they go, and when they are refused. Time is virtual."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from headgate.core.call import Key, Priority
from headgate.core.errors import InvalidCallError, StoreError
from headgate.core.ports import Clock
from headgate.core.quota import Batch, BatchReply, Costs, Counts, Kind, Limit, Mode, Penalty
from headgate.engine.gate import QuotaGate, Want
from headgate.engine.passage import NoKeyReady
from headgate.engine.pool import KeyPool
from headgate.policy.keyring import KeyRing
from headgate.policy.leases import Lease
from headgate.policy.quota.table import Quota, QuotaTable
from headgate.stores.memory import MemoryStore
from headgate.testing import VirtualClock
from headgate.wiring.clock import SystemClock

MODEL = "m"
LOW, NORMAL, CRITICAL = Priority.LOW, Priority.NORMAL, Priority.CRITICAL


class Counted(MemoryStore):
    """A store that remembers every batch, and may be told to fail or to take its time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.batches: list[tuple[float, Batch]] = []
        self.broken = self.mute = False
        self.slow = 0.0
        self._time = clock

    async def transact(self, group: str, batch: Batch) -> BatchReply:
        self.batches.append((self._time.monotonic(), batch))
        if self.broken:
            raise StoreError("The store is away.")
        reply = await super().transact(group, batch)
        if self.mute:
            raise StoreError("It may have happened.")
        if self.slow:
            await self._time.sleep(self.slow)
        return reply

    @property
    def asks(self) -> list[int]:
        """How many asks each batch had that had any."""
        return [len(batch.asks) for _, batch in self.batches if batch.asks]


class Case:
    """A gate over some projects, and calls that go through it."""

    def __init__(self, clock: Clock, projects: int = 1, **quota: int) -> None:
        self.clock = clock
        self.store = Counted(clock)
        keys = [Key(f"k{n}", f"CANARY-{n}", f"p{n}") for n in range(projects)]
        self.pool = KeyPool(KeyRing(keys), clock)
        table = QuotaTable(Quota(**quota))
        self.gate = QuotaGate(self.store, self.pool, table, clock, lambda: 0.5)
        self.order: list[object] = []
        self.leases: dict[object, Lease] = {}
        self.told: list[float] = []

    async def call(
        self, name: object = None, *, tokens: int = 1, bound: float = 1e6, caller: str = "",
        priority: Priority = NORMAL, exclude: Sequence[int] = (), costs: Costs | None = None,
        prefer: Lease | None = None,
    ) -> Lease:  # fmt: skip
        want = Want(
            MODEL,
            costs or {Counts.REQUESTS: 1, Counts.INPUT: tokens, Counts.SLOTS: 1},
            exclude=exclude,
            prefer=prefer,
            bound=bound,
            on_wait=self.told.append,
            priority=priority,
            caller=caller,
        )
        lease = (await self.gate.acquire(want)).lease
        self.order.append(name)
        self.leases[name] = lease
        return lease

    def start(self, name: object, **more: Any) -> asyncio.Task[Lease]:
        return asyncio.ensure_future(self.call(name, **more))

    def settle(self, name: object, costs: Mapping[Counts, int] | None = None) -> None:
        self.gate.settle(self.leases.pop(name), {} if costs is None else costs, served=True)

    def give_back(self, name: object) -> None:
        self.gate.settle(self.leases.pop(name), None, served=True)

    @property
    def line(self) -> Any:
        return self.gate._turnstile(MODEL).line


async def rest() -> None:
    for _ in range(6):
        await asyncio.sleep(0)  # noqa: TID251 - yields to the loop, no time passes


# ── order ───────────────────────────────────────────────────────────────────────────────────────


async def test_the_more_urgent_goes_first(clock: VirtualClock) -> None:
    case = Case(clock, rpm=1)
    await case.call("first")
    tasks = []
    for priority in (LOW, NORMAL, Priority.HIGH, CRITICAL):
        tasks.append(case.start(priority.value, priority=priority))
        await rest()
    await asyncio.gather(*tasks)
    assert case.order == ["first", "critical", "high", "normal", "low"]


async def test_a_critical_call_overtakes_without_being_told_to_wait_behind(clock: VirtualClock) -> None:
    case = Case(clock, rpm=2)
    await case.call("a")
    await case.call("b")
    normal = [case.start(n) for n in range(4)]
    await rest()
    # Two go a minute: behind four normal ones it would wait two minutes.
    urgent = case.start("urgent", priority=CRITICAL, bound=70)
    await asyncio.gather(urgent, *normal)
    assert case.order.index("urgent") == 2


async def test_callers_of_one_class_share_fairly(clock: VirtualClock) -> None:
    case = Case(clock, rpm=10)
    for _ in range(10):
        await case.call()
    greedy = [case.start("greedy", caller="greedy") for _ in range(60)]
    await rest()
    modest = [case.start("modest", caller="modest") for _ in range(20)]
    await asyncio.gather(*modest)
    assert Counter(case.order[10:50]) == {"greedy": 20, "modest": 20}
    for task in greedy:
        task.cancel()
    await asyncio.gather(*greedy, return_exceptions=True)


async def test_callers_are_compared_by_what_they_take_not_by_calls(clock: VirtualClock) -> None:
    case = Case(clock, tpm=1000)
    await case.call(tokens=1000)
    wide = [case.start("wide", caller="wide", tokens=200) for _ in range(30)]
    narrow = [case.start("narrow", caller="narrow", tokens=20) for _ in range(400)]
    await clock.sleep(10 * 61)
    assert case.order[1:14].count("wide") == 2  # one, then as much of narrow ones, then the next
    given = Counter(case.order)
    assert given["wide"] * 200 == pytest.approx(given["narrow"] * 20, abs=440)
    for task in (*wide, *narrow):
        task.cancel()
    await asyncio.gather(*wide, *narrow, return_exceptions=True)


async def test_who_uses_more_than_was_estimated_is_charged_for_it(clock: VirtualClock) -> None:
    case = Case(clock, tpm=1000)
    await case.call(tokens=1000)
    tasks = [
        case.start((caller, n), caller=caller, tokens=50) for caller in "ab" for n in range(400)
    ]  # fmt: skip
    used: Counter[str] = Counter()
    for _ in range(8):
        await clock.sleep(61)
        for caller, number in [name for name in case.leases if name is not None]:
            truth = 250 if caller == "a" else 50
            used[caller] += truth
            case.settle((caller, number), {Counts.INPUT: truth})
    # One batch of grants may go out before its truth is known.
    assert abs(used["a"] - used["b"]) <= 0.2 * (used["a"] + used["b"])
    assert used["b"] > 1000
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_flood_of_urgent_calls_leaves_the_others_some_turns(clock: VirtualClock) -> None:
    case = Case(clock, rpm=4)
    for _ in range(4):
        await case.call()
    urgent = [case.start("urgent", priority=CRITICAL) for _ in range(200)]
    low = [case.start("low", priority=LOW) for _ in range(3)]
    await asyncio.gather(*low)
    turns = case.order[4:]
    assert turns.count("low") == 3
    assert turns.count("urgent") / len(turns) >= 0.8
    for task in urgent:
        task.cancel()
    await asyncio.gather(*urgent, return_exceptions=True)


# ── large and small ─────────────────────────────────────────────────────────────────────────────


async def test_a_small_call_passes_a_large_one_that_does_not_fit_yet(clock: VirtualClock) -> None:
    case = Case(clock, tpm=1000)
    await case.call("first", tokens=600)
    large = case.start("large", tokens=900)
    await rest()
    await asyncio.wait_for(case.call("small", tokens=300), 0.1)
    assert not large.done()
    await large
    assert case.order == ["first", "small", "large"]


async def test_a_large_call_does_not_starve_under_a_stream_of_small_ones(clock: VirtualClock) -> None:
    case = Case(clock, tpm=1000)
    done = asyncio.Event()

    async def trickle() -> None:
        while not done.is_set():
            task = case.start("small", tokens=90, caller="small")
            task.add_done_callback(lambda finished: finished.cancelled() or finished.exception())
            await clock.sleep(5)

    small = asyncio.ensure_future(trickle())
    await clock.sleep(120)
    began = clock.monotonic()
    await case.call("large", tokens=950, caller="large")
    # A second in which it may be passed, then one window until the held domain is empty.
    assert clock.monotonic() - began <= 1 + 60 + 6
    done.set()
    await small


async def test_while_one_domain_is_held_the_others_serve_small_calls(clock: VirtualClock) -> None:
    case = Case(clock, projects=3, tpm=1000)
    for _ in range(3):
        await case.call(tokens=500)
    large = case.start("large", tokens=900)
    await clock.sleep(2)  # now a domain is held for it
    served = [case.start(n, tokens=100) for n in range(12)]
    await clock.sleep(1)
    # Ten fit into the two other domains; the rest of the held one stays free.
    assert [task.done() for task in served].count(True) == 10
    held = {lease.domain for name, lease in case.leases.items() if isinstance(name, int)}
    assert len(held) == 2
    await large
    assert case.leases["large"].domain not in held
    await asyncio.gather(*served)


async def test_a_call_that_only_the_held_domain_could_serve_waits_for_it(clock: VirtualClock) -> None:
    case = Case(clock, projects=2, tpm=1000)
    case.gate.tell(MODEL, [Penalty(1, limit=Limit("tpm", Counts.INPUT, 50))])
    await case.call("first", tokens=500)
    large = case.start("large", tokens=900)
    await clock.sleep(2)
    small = case.start("small", tokens=100)  # too large for the other domain, so it is told: never
    tiny = case.start("tiny", tokens=10)
    await clock.sleep(1)
    assert (small.done(), tiny.done()) == (False, True)
    await asyncio.gather(large, small)


async def test_calls_that_wait_for_requests_hold_nothing(clock: VirtualClock) -> None:
    case = Case(clock, projects=4, rpm=5, tpm=100_000)
    calls = [case.start(n, tokens=100 + n % 7) for n in range(200)]
    await asyncio.gather(*calls)
    assert clock.monotonic() <= 9 * 61
    assert case.order == list(range(200))


# ── waking ──────────────────────────────────────────────────────────────────────────────────────


async def test_nothing_is_asked_between_two_releases(clock: VirtualClock) -> None:
    case = Case(clock, rpm=2)
    await asyncio.gather(*(case.call(n) for n in range(10)))
    waves = {round(at, 3) for at, batch in case.store.batches if batch.asks}
    assert len(waves) == 5  # at once, and after each of four windows
    # A wave has an ask for each that goes and one that learns when the next may.
    assert len(case.store.asks) <= 2 + 4 * 2


async def test_one_round_trip_serves_many(clock: VirtualClock) -> None:
    case = Case(clock, rpm=64)
    for _ in range(64):
        await case.call()
    before = len(case.store.asks)
    tasks = [case.start(n) for n in range(64)]
    await asyncio.gather(*tasks)
    assert case.order[64:] == list(range(64))
    assert len(case.store.asks) - before <= 64 / 8 + 3


async def test_what_is_given_back_wakes_the_first_at_once(clock: VirtualClock) -> None:
    case = Case(clock, rpm=1)
    await case.call("first")
    second, third = case.start("second"), case.start("third")
    await clock.sleep(5)
    case.give_back("first")
    await rest()
    assert second.done()
    assert not third.done()
    third.cancel()


async def test_what_is_given_back_while_a_call_is_being_refused_is_not_missed(
    clock: VirtualClock,
) -> None:
    case = Case(clock, rpm=1)
    await case.call("first")
    case.store.slow = 0.05
    second = case.start("second")
    await clock.sleep(0.02)  # the answer is on its way
    case.give_back("first")
    await asyncio.wait_for(second, 0.5)


async def test_a_settlement_that_frees_tokens_wakes_who_fits(clock: VirtualClock) -> None:
    case = Case(clock, tpm=100)
    await case.call("first", tokens=90)
    waits = case.start("second", tokens=50)
    await clock.sleep(5)
    case.settle("first", {Counts.INPUT: 30})
    await rest()
    assert waits.done()


async def test_a_settlement_that_frees_nothing_asks_for_nothing(clock: VirtualClock) -> None:
    case = Case(clock, rpm=1)
    await case.call("first")
    waits = case.start("second")
    await rest()
    before = len(case.store.asks)
    case.settle("first", {Counts.INPUT: 1})
    await clock.sleep(1)
    assert len(case.store.asks) == before
    waits.cancel()


async def test_slots_pass_from_call_to_call(clock: VirtualClock) -> None:
    case = Case(clock, projects=2, concurrency=2)
    running: set[int] = set()
    most = 0

    async def work(number: int) -> None:
        nonlocal most
        await case.call(number, bound=60)
        running.add(number)
        most = max(most, len(running))
        await clock.sleep(3)
        running.discard(number)
        case.settle(number)

    await asyncio.gather(*(work(n) for n in range(20)))
    assert most == 4
    assert clock.monotonic() == pytest.approx(15, abs=0.5)


async def test_a_waiter_for_slots_hears_of_other_processes_within_a_second(clock: VirtualClock) -> None:
    case = Case(clock, concurrency=1)
    await case.call("elsewhere")
    lease = case.leases["elsewhere"]
    waits = case.start("here", bound=30)
    await clock.sleep(4.5)
    await MemoryStore.transact(case.store, case.line.group, Batch(cancels=(lease.rid,)))
    await asyncio.wait_for(waits, 1.01)


async def test_whoever_waits_for_the_test_of_a_domain_hears_of_its_end(clock: VirtualClock) -> None:
    case = Case(clock, rpm=100)
    await case.call("before")
    now = int((clock.wall()) * 1000)
    case.gate.tell(MODEL, [Penalty(0, until=now + 1000, canary=True)])
    await case.call("test", bound=5)
    waits = case.start("next", bound=30)  # the test may take 90 s, but need not
    await clock.sleep(10.2)
    assert not waits.done()
    case.settle("test")
    await rest()
    assert waits.done()
    await waits


async def test_a_fault_of_ours_fails_who_was_offered_and_spares_the_others(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(clock, rpm=1)
    await case.call("first")
    tasks = [case.start(n) for n in range(12)]
    await rest()
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    with monkeypatch.context() as patch:
        patch.setattr(case.pool, "lease_in", lambda *_: 1 / 0)
        await clock.sleep(60.5)
    failed = [task for task in tasks if task.done()]
    assert 1 <= len(failed) <= 8
    assert all(isinstance(task.exception(), ZeroDivisionError) for task in failed)
    before = len(case.store.batches)
    await asyncio.sleep(2)  # noqa: TID251 - in virtual time
    assert len(case.store.batches) - before <= 5
    del failed
    gc.collect()
    assert faults, "it is not hidden"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_limits_that_were_told_wake_the_first(clock: VirtualClock) -> None:
    case = Case(clock, rpm=1)
    await case.call("first")
    waits = case.start("second")
    await clock.sleep(1)
    case.gate.tell(MODEL, [Penalty(0, limit=Limit("rpm", Counts.REQUESTS, 2))])
    await rest()
    assert waits.done()


# ── who may not wait ────────────────────────────────────────────────────────────────────────────


async def refused(calling: Any) -> NoKeyReady:
    with pytest.raises(NoKeyReady) as caught:
        await calling
    assert caught.value.final
    return caught.value


async def test_whoever_cannot_wait_is_told_when_to_come_back(clock: VirtualClock) -> None:
    case = Case(clock, rpm=1)
    await case.call("first")
    error = await refused(case.call(bound=0))
    assert error.wait == pytest.approx(60.4, abs=0.2)
    assert case.told == []
    assert clock.monotonic() == 0
    await clock.sleep(error.wait)
    await case.call("back in time", bound=0)


async def test_a_call_knows_its_place_in_its_class(clock: VirtualClock) -> None:
    case = Case(clock, rpm=2)
    await asyncio.gather(case.call(), case.call())
    tasks = [case.start(n, priority=priority) for priority in (NORMAL, LOW) for n in range(4)]
    await rest()
    # Before a low call: its class, and as many of the higher as pass it over.
    error = await refused(case.call(priority=LOW, bound=200))
    assert error.wait == pytest.approx(240, abs=1)
    error = await refused(case.call(priority=NORMAL, bound=100))
    assert error.wait == pytest.approx(120, abs=1)
    assert clock.monotonic() == 0
    fast = case.start("fast", priority=CRITICAL, bound=61)
    await fast
    await asyncio.gather(*tasks)


async def test_a_new_caller_need_not_wait_behind_the_backlog_of_another(clock: VirtualClock) -> None:
    case = Case(clock, rpm=2)
    await asyncio.gather(case.call(), case.call())
    backlog = [case.start(n, caller="greedy") for n in range(40)]
    await rest()
    await refused(case.call(caller="greedy", bound=65))
    await case.call("other", caller="other", bound=65)
    assert clock.monotonic() == pytest.approx(60.4, abs=0.5)
    for task in backlog:
        task.cancel()
    await asyncio.gather(*backlog, return_exceptions=True)


async def test_a_wait_that_others_made_hopeless_ends_as_soon_as_that_is_known(
    clock: VirtualClock,
) -> None:
    case = Case(clock, tpm=100)
    await case.call("first", tokens=100)
    urgent = [case.start(n, tokens=100, priority=CRITICAL) for n in range(2)]
    # It could have gone after two windows; by then others have come before it.
    patient = case.start("patient", tokens=100, bound=200)
    await clock.sleep(30)
    late = [case.start(10 + n, tokens=100, priority=CRITICAL) for n in range(3)]
    error = await refused(patient)
    assert clock.monotonic() == pytest.approx(181, abs=1)  # the next release is after its bound
    assert error.wait == pytest.approx(60, abs=1)
    await asyncio.gather(*urgent, *late)


async def test_a_bound_ends_a_wait_exactly(clock: VirtualClock) -> None:
    case = Case(clock, concurrency=1)
    await case.call("first")
    await refused(case.call("second", bound=20))  # a slot may be free any moment, so it waits
    assert clock.monotonic() == pytest.approx(20, abs=0.02)
    case.settle("first")
    await case.call("third", bound=0)


async def test_the_last_places_are_for_critical_calls(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.engine.line.MOST_WAITING", 10)
    monkeypatch.setattr("headgate.engine.line.KEPT_FOR_CRITICAL", 2)
    case = Case(clock, rpm=1)
    await case.call("first")
    tasks = [case.start(n) for n in range(8)]
    await rest()
    assert (await refused(case.call())).wait == pytest.approx(480, abs=1)
    await refused(case.call(priority=Priority.HIGH))
    tasks += [case.start(n, priority=CRITICAL) for n in range(2)]
    await rest()
    await refused(case.call(priority=CRITICAL))
    assert len(case.line.queue) == 10
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not case.line.queue


async def test_a_call_that_fits_nowhere_is_refused_for_good(clock: VirtualClock) -> None:
    case = Case(clock, tpm=100)
    with pytest.raises(InvalidCallError, match="more than the declared quota"):
        await case.call(tokens=101)
    await case.call("first", tokens=100)
    waits = case.start("second", tokens=50)
    await rest()
    with pytest.raises(InvalidCallError, match="more than the declared quota"):  # in line, too
        await case.call(tokens=101)
    await waits


async def test_those_behind_a_change_for_the_worse_are_all_told(clock: VirtualClock) -> None:
    case = Case(clock, rpm=1)
    await case.call("first")
    tasks = [case.start(n, bound=3600) for n in range(30)]
    await clock.sleep(1)
    day = Limit("rpd", Counts.REQUESTS, 1, Kind.CALENDAR, 86_400_000)
    case.gate.tell(MODEL, [Penalty(0, limit=day)])
    await clock.sleep(70)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, NoKeyReady) for result in results) == 29
    assert clock.monotonic() < 75


# ── the store ───────────────────────────────────────────────────────────────────────────────────


async def test_a_store_that_fails_fails_those_who_wait_and_nothing_is_lost(clock: VirtualClock) -> None:
    case = Case(clock, rpm=1)
    await case.call("first")
    tasks = [case.start(n) for n in range(20)]
    await rest()
    case.store.broken = True
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, StoreError) for result in results)
    assert not case.line.queue
    case.store.broken = False
    case.settle("first")
    await case.call("after", bound=61)
    assert not case.line.news.cancels


@pytest.mark.parametrize("waiting", [False, True])
async def test_what_was_granted_in_a_reply_that_got_lost_is_given_back(
    clock: VirtualClock, waiting: bool
) -> None:
    case = Case(clock, rpm=1)
    if waiting:
        await case.call("first")
        lost = case.start("lost")
        await clock.sleep(60)
        case.store.mute = True
    else:
        case.store.mute = True
        lost = case.start("lost")
    with pytest.raises(StoreError):
        await lost
    case.store.mute = False
    await case.call("next", bound=0)


async def test_what_cannot_be_told_is_told_later(clock: VirtualClock) -> None:
    case = Case(clock, concurrency=1)
    await case.call("first")
    case.store.broken = True
    case.settle("first")
    await clock.sleep(3)
    assert case.line.news.settles
    case.store.broken = False
    await clock.sleep(1.1)
    assert not case.line.news
    await case.call("second", bound=0)


async def test_a_caller_that_leaves_while_it_is_asked_for_gives_its_turn_back(
    clock: VirtualClock,
) -> None:
    case = Case(clock, rpm=1)
    await case.call("first")
    waits, other = case.start("leaves"), case.start("stays")
    await rest()
    case.store.slow = 0.2
    await clock.sleep(60.5)
    assert all(waiter.asked for waiter in case.line.queue)
    waits.cancel()
    await other
    assert clock.monotonic() < 62
    await asyncio.gather(waits, return_exceptions=True)


@pytest.mark.parametrize("when", [0.0, 30.0, 60.39, 60.45])
async def test_a_line_that_everybody_left_is_empty(clock: VirtualClock, when: float) -> None:
    case = Case(clock, rpm=1)
    await case.call("first")
    tasks = [case.start(n, tokens=n + 1) for n in range(5)]
    await clock.sleep(when)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await clock.sleep(0.2)
    assert not case.line.queue
    assert not case.line.loops
    await asyncio.wait_for(case.call("next", bound=61), 61)


def test_when_a_loop_goes_another_serves_those_who_wait() -> None:
    """Two threads share a gate; the loop whose timer would wake both ends while both wait."""
    case = Case(SystemClock())
    quick = Limit("quick", Counts.REQUESTS, 1, window=400, guard=0)
    case.gate.cover(MODEL, {0: (quick,)})
    waits = threading.Event()

    async def leaves() -> None:
        await case.call("first")
        task = case.start("lost")
        while len(case.line.queue) < 2 and not task.done():
            await case.clock.sleep(0.001)
            if len(case.line.queue) == 1:
                waits.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(leaves()))
    thread.start()
    waits.wait()
    asyncio.run(case.call("second", bound=20))  # without help it would find out at its end
    thread.join()
    assert case.order[-1] == "second"


async def test_when_the_one_for_whom_a_domain_is_held_leaves_the_others_may_have_it(
    clock: VirtualClock,
) -> None:
    case = Case(clock, tpm=1000)
    await case.call("first", tokens=500)
    large = case.start("large", tokens=900)
    await clock.sleep(2)
    small = case.start("small", tokens=400)
    await clock.sleep(1)
    assert not small.done()
    large.cancel()
    await rest()
    assert small.done()
    await asyncio.gather(large, return_exceptions=True)


async def test_envelope_limits_do_not_refuse_what_may_be_free_in_a_moment(clock: VirtualClock) -> None:
    case = Case(clock, otpm=100)
    limit = case.gate._table.quota("p0", MODEL).limits()[0]
    assert limit.mode is Mode.ENVELOPE
    await case.call("first", costs={Counts.REQUESTS: 1, Counts.OUTPUT: 100})
    waits = case.start("second", costs={Counts.REQUESTS: 1, Counts.OUTPUT: 50}, bound=20)
    await clock.sleep(5)
    case.settle("first", {Counts.OUTPUT: 10})
    await asyncio.wait_for(waits, 1)
