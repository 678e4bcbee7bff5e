"""A shared store dies in every way: calls go on from shares, nothing is exceeded, books come back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest
from tests.store_death import GROUP, Fault, Process, Provider, Server, play

from headgate.core.quota import (
    Ask,
    Batch,
    BatchReply,
    Counts,
    Grant,
    Kind,
    Limit,
    Penalty,
    Refusal,
    Restore,
    Settlement,
)
from headgate.stores.crowd import Times
from headgate.stores.presence import Does
from headgate.stores.sharing import SharedStore
from headgate.testing import VirtualClock

W = 20_000
ONE = {Counts.REQUESTS: 1}
DOMAINS = [[Limit("rpm", Counts.REQUESTS, 40, window=W)], [Limit("rpm", Counts.REQUESTS, 40, window=W)]]
DEATHS = [
    ("refuse", "all"), ("timeout", "all"), ("lost", "all"), ("slow", "all"),
    ("refuse", "nothing"), ("timeout", "some"), ("slow", "nothing"), ("lost", "some"),
]  # fmt: skip


class Crew:
    """Greedy processes over one server."""

    def __init__(
        self,
        clock: VirtualClock,
        members: int,
        faults: Sequence[Fault],
        *,
        domains: Sequence[Sequence[Limit]] = DOMAINS,
        counts_members: bool = True,
        end: float = 160.0,
        starts: Sequence[float] = (),
    ) -> None:
        self.server, self.provider = Server(clock, domains), Provider(domains, clock)
        self.processes = [
            Process(
                self.server, self.provider, number, 7,
                processes=None if counts_members else members, pause=0.0, counts_members=counts_members,
            )
            for number in range(members)
        ]  # fmt: skip
        lives = [(starts[n] if n < len(starts) else 0.0, end) for n in range(members)]
        play(clock, self.server, faults, self.processes, lives)
        self.provider.check()

    def granted(self, start: float, end: float) -> int:
        """How much in all from one instant to before another."""
        return sum(start <= at < end for process in self.processes for at in process.granted)


# ── all goes on, and nothing is exceeded ────────────────────────────────────────────────────────


@pytest.mark.parametrize(("kind", "after"), DEATHS)
def test_one_process_does_not_even_notice(clock: VirtualClock, kind: str, after: str) -> None:
    calm = Crew(VirtualClock(), 1, [])
    crew = Crew(clock, 1, [Fault(60, 110, kind, after, lag=0.5)])
    (process,) = crew.processes
    assert process.store.local_grants > 80
    assert process.store.outages == 1
    for start in range(0, 160, 20):
        assert crew.granted(start, start + 20) >= 0.95 * calm.granted(start, start + 20)


@pytest.mark.parametrize(
    ("members", "kind", "after"),
    [*((4, *death) for death in DEATHS), (16, "refuse", "all"), (16, "slow", "nothing")],
)
def test_several_processes_go_on_with_their_shares(
    clock: VirtualClock, members: int, kind: str, after: str
) -> None:
    spread = [0.0, 0.7, 1.5, 0.2]
    crew = Crew(clock, members, [Fault(66, 121, kind, after, spread, spread[::-1], lag=0.5)])
    # A window after the store went, shares are all of the limits; before, what each had held is.
    assert crew.granted(92, 112) >= 74
    assert crew.granted(67, 92) >= 50
    assert crew.granted(126, 160) >= 76
    for process in crew.processes:
        assert process.store.outages == 1
        assert 50 < process.store.seconds_away < 65


def test_others_are_waited_for_also_after_a_long_absence(clock: VirtualClock) -> None:
    """Nobody reports while the store is away: that is no reason to forget anybody."""
    crew = Crew(clock, 4, [Fault(62, 142, "refuse", late=[0.0, 1.9, 1.9, 1.9])], end=180.0)
    assert crew.granted(110, 130) >= 74
    assert min(at for at in crew.processes[0].granted if at > 142) > 142


async def test_a_member_counts_a_minute_longer_after_a_silence_of_all(clock: VirtualClock) -> None:
    server = Server(clock, DOMAINS)
    for member in ("a", "b"):
        server.presence(member, Does.REPORT)
    await clock.sleep(100.0)
    seen = server.presence("a", Does.REPORT)
    assert (seen.count, seen.silent) == (2, 1)
    for _ in range(62):
        await clock.sleep(1.0)
        seen = server.presence("a", Does.REPORT)
    assert (seen.count, seen.silent) == (1, 0)


def test_shares_without_ranks_leave_the_remainder_unused(clock: VirtualClock) -> None:
    seven = [[Limit("rpm", Counts.REQUESTS, 7, window=W)]]
    crew = Crew(clock, 4, [Fault(60, 115, "refuse")], domains=seven, counts_members=False)
    assert crew.granted(88, 108) == 4
    ranked = Crew(VirtualClock(), 4, [Fault(60, 115, "refuse")], domains=seven)
    assert ranked.granted(88, 108) == 7


@pytest.mark.parametrize("seconds", [0.05, 0.5, 1.5, 4.0])
def test_a_short_absence_costs_waiting_only(clock: VirtualClock, seconds: float) -> None:
    crew = Crew(clock, 4, [Fault(62, 62 + seconds, "timeout")])
    assert sum(process.store.local_grants for process in crew.processes) == 0
    assert crew.granted(80, 100) == 80


def test_a_process_that_starts_while_the_store_is_away_waits_for_it(clock: VirtualClock) -> None:
    crew = Crew(clock, 3, [Fault(60, 115, "refuse")], starts=[0, 0, 70])
    assert min(crew.processes[2].granted) > 115


def test_a_process_that_joins_others_is_known_to_them_before_it_is_served(clock: VirtualClock) -> None:
    crew = Crew(clock, 3, [], starts=[0, 0, 50.5])
    assert 52.5 < min(crew.processes[2].granted) < 70  # the window is full when it comes


def test_days_go_on_with_parts_of_what_was_left(clock: VirtualClock) -> None:
    row = [
        Limit("rpm", Counts.REQUESTS, 20, window=W),
        Limit("rpd", Counts.REQUESTS, 200, Kind.CALENDAR, 86_400_000),
    ]
    crew = Crew(clock, 4, [Fault(70, 270, "timeout")], domains=[row], end=400.0)
    before, away = crew.granted(0, 72), crew.granted(72, 270)
    assert before in (80, 100)
    # What the others can have used since a grant is taken off: 20 in a window, so 20 or 40.
    assert 200 - before - 40 <= away < 200 - before
    assert crew.granted(0, 400) == 200


# ── the books come back ─────────────────────────────────────────────────────────────────────────


def held_at(server: Server) -> list[int]:
    """What the store holds of each domain's first limit."""
    ledger = server.memory._groups[GROUP].ledger
    ledger.advance(server.memory._now())
    return [account.used[0] for account in ledger.accounts]


def held_by(processes: Sequence[Process]) -> list[int]:
    """What the processes hold, by their own books."""
    sums = [0] * len(DOMAINS)
    for process in processes:
        journal = process.store._groups[GROUP].journal._journal
        now = process.store._now()
        journal.advance(now)
        for handle in range(len(sums)):
            sums[handle] += journal.held(handle, 0)
    return sums


@pytest.mark.parametrize(("kind", "after"), [("timeout", "nothing"), ("lost", "all"), ("slow", "all")])
@pytest.mark.parametrize("members", [1, 4])
def test_a_store_is_told_what_it_lost_and_given_back_what_nobody_used(
    clock: VirtualClock, members: int, kind: str, after: str
) -> None:
    """Within five seconds of its return the store holds what the processes hold, not less or more."""
    seen: list[tuple[list[int], list[int]]] = []
    server, provider = Server(clock, DOMAINS), Provider(DOMAINS, clock)
    processes = [Process(server, provider, n, 3, processes=members, pause=2.0) for n in range(members)]

    async def look() -> None:
        for process in processes:  # whatever is under way has been told
            process.store._watch or pytest.fail("nobody watches")
        seen.append((held_at(server), held_by(processes)))

    async def main() -> None:
        fate = asyncio.ensure_future(server.live([Fault(30, 36, kind, after)]))
        lives = [asyncio.ensure_future(process.live(0.0, 35.0, 2)) for process in processes]
        await clock.sleep(41.0)
        await look()
        await asyncio.gather(fate, *lives)

    clock.run(main())
    ((store, own),) = seen
    assert all(theirs >= ours for theirs, ours in zip(store, own, strict=True))
    # Buckets are told in a coarser grain and a little longer, so the store may hold a few more.
    assert all(theirs <= ours + 2 for theirs, ours in zip(store, own, strict=True))
    assert sum(own) > 5


async def test_books_that_were_lost_twice_are_restored_twice(clock: VirtualClock) -> None:
    server = Server(clock, DOMAINS)
    store = SharedStore(
        server.line(0, counts_members=False), clock=clock, chance=lambda: 0.5, member="m"
    )
    await store.declare(GROUP, DOMAINS)
    for number in range(9):
        await one(store, f"r{number}")
    for _ in range(2):
        await server.live([Fault(0, 0, "refuse", "nothing")])
        await clock.sleep(2.0)
        assert sum(held_at(server)) == 9
    await one(store, "again")
    assert sum(held_at(server)) == 10
    await store.aclose()


async def test_a_call_that_outlives_the_outage_is_settled_in_the_end(clock: VirtualClock) -> None:
    tokens = [[Limit("tpm", Counts.INPUT, 1_000, window=W)]]
    server = Server(clock, tokens)
    store = SharedStore(
        server.line(0, counts_members=False), clock=clock, chance=lambda: 0.5, member="m"
    )
    await store.declare(GROUP, tokens)
    await store.transact(GROUP, Batch(asks=(Ask("before", {Counts.INPUT: 100}),)))
    fate = asyncio.ensure_future(server.live([Fault(1, 3, "refuse", "nothing")]))
    await clock.sleep(2.0)
    await store.transact(GROUP, Batch(asks=(Ask("meanwhile", {Counts.INPUT: 100}),)))
    await clock.sleep(3.0)
    assert held_at(server) == [200]
    told = (Settlement("before", {Counts.INPUT: 30}), Settlement("meanwhile", {Counts.INPUT: 150}))
    await store.transact(GROUP, Batch(settles=told))
    assert held_at(server) == [180]
    await fate
    await store.aclose()


# ── what the one process does ───────────────────────────────────────────────────────────────────


async def one(store: SharedStore, rid: str) -> Grant | Refusal:
    """One ask for one request."""
    (answer,) = (await store.transact(GROUP, Batch(asks=(Ask(rid, ONE),)))).answers
    return answer


async def test_a_lost_ask_is_given_back_at_the_store(clock: VirtualClock) -> None:
    server = Server(clock, DOMAINS)
    store = SharedStore(
        server.line(0, counts_members=False), clock=clock, chance=lambda: 0.5, member="m"
    )
    await store.declare(GROUP, DOMAINS)
    await one(store, "a")
    server.faults = [Fault(clock.monotonic(), clock.monotonic() + 0.05, "lost")]
    assert isinstance(await one(store, "b"), Grant)  # by its own share
    assert sum(held_at(server)) == 2  # the store's grant of b, which nobody uses
    await store.transact(GROUP, Batch(cancels=("b",)))
    await clock.sleep(1.5)
    assert sum(held_at(server)) == 1
    await store.aclose()


async def test_an_id_that_was_lost_and_refused_may_be_asked_again(clock: VirtualClock) -> None:
    server = Server(clock, DOMAINS)
    store = SharedStore(
        server.line(0, counts_members=False), clock=clock, chance=lambda: 0.5, member="m", processes=2
    )
    await store.declare(GROUP, DOMAINS)
    await clock.sleep(7.0)  # until it is settled in
    server.faults = [Fault(clock.monotonic(), clock.monotonic() + 0.05, "lost")]
    assert isinstance(await one(store, "r"), Refusal)
    await clock.sleep(1.5)
    assert sum(held_at(server)) == 0  # given back
    assert isinstance(await one(store, "r"), Grant)
    await clock.sleep(5.0)
    assert sum(held_at(server)) == 1  # and not given back once more
    await store.aclose()


async def test_one_line_when_it_goes_and_one_when_it_is_back(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "headgate.stores")
    server = Server(clock, DOMAINS)
    store = SharedStore(
        server.line(0, counts_members=False), clock=clock, chance=lambda: 0.5, member="m"
    )
    groups = [GROUP, "another"]
    for group in groups:
        await store.declare(group, DOMAINS)
    fate = asyncio.ensure_future(
        server.live([Fault(1, 1.05, "timeout"), Fault(5, 65, "timeout"), Fault(75, 80, "refuse")])
    )
    for number in range(60):
        await clock.sleep(1.5)
        for group in groups:
            await store.transact(group, Batch(asks=(Ask(f"{group} {number}", ONE),)))
    lines = [record.getMessage() for record in caplog.records if record.name == "headgate.stores"]
    assert [line.split(" seconds")[0] for line in lines] == [
        "quota=own_share store=away processes=1", "quota=shared store=back",
    ] * 2  # fmt: skip
    assert 2 <= store.outages <= 3
    assert 60 < store.seconds_away < 75
    assert store.local_grants > 60
    await fate
    await store.aclose()


async def test_who_has_not_looked_for_a_while_does_not_grant_alone(clock: VirtualClock) -> None:
    """The store may be back, and serve others: one that stood still finds out first."""
    server = Server(clock, DOMAINS)
    store = SharedStore(
        server.line(0, counts_members=False), clock=clock, chance=lambda: 0.5, member="m", processes=2
    )
    await store.declare(GROUP, DOMAINS)
    await clock.sleep(7.0)
    server.faults = [Fault(0, 1e9, "refuse")]
    await clock.sleep(30.0)
    assert isinstance(await one(store, "a"), Grant)
    clock.advance(3.0)  # with all its tasks
    assert isinstance(await one(store, "b"), Refusal)
    await clock.sleep(1.0)
    assert isinstance(await one(store, "c"), Grant)
    await store.aclose()


async def test_who_was_away_itself_cannot_know_what_happened(clock: VirtualClock) -> None:
    """Others may have gone on without the store meanwhile, and not have told it yet."""
    server = Server(clock, DOMAINS)
    store = SharedStore(
        server.line(0, counts_members=False), clock=clock, chance=lambda: 0.5, member="m", processes=2
    )
    await store.declare(GROUP, DOMAINS)
    await clock.sleep(7.0)
    assert isinstance(await one(store, "a"), Grant)
    clock.advance(3.0)
    assert isinstance(await one(store, "b"), Refusal)
    assert (store.outages, sum(held_at(server))) == (0, 1)
    await clock.sleep(6.0)
    assert isinstance(await one(store, "c"), Grant)
    await store.aclose()


@pytest.mark.parametrize("counts_members", [True, False])
async def test_another_server_is_seen_also_where_the_steps_have_caught_up(
    clock: VirtualClock, counts_members: bool
) -> None:
    """A promoted replica lacks our last steps, and others have made as many since."""
    server = Server(clock, DOMAINS)
    stores = [
        SharedStore(
            server.line(number, counts_members=counts_members),
            clock=clock, chance=lambda: 0.5, member=f"m{number}",
            processes=None if counts_members else 2,
        )
        for number in range(2)
    ]  # fmt: skip
    for store in stores:
        await store.declare(GROUP, DOMAINS)
    await clock.sleep(9.0)
    for store in stores:  # their reports are all in
        await one(store, f"first of {store._member}")
    now = clock.monotonic()
    fate = asyncio.ensure_future(server.live([Fault(now + 0.2, now + 0.2, "", "some", lag=0.1)]))
    await clock.sleep(0.15)
    for number in range(5):
        assert isinstance(await one(stores[0], f"a{number}"), Grant)
    await clock.sleep(0.05)
    await fate
    stranger = server.line(9, counts_members=False)
    for _ in range(20):
        await stranger.transact(GROUP, Batch())
    assert isinstance(await one(stores[0], "b"), Refusal)
    await clock.sleep(2.0)
    assert sum(held_at(server)) >= 7
    for store in stores:
        await store.aclose()


async def test_what_was_said_of_domains_reaches_the_store_when_it_is_back(clock: VirtualClock) -> None:
    server = Server(clock, DOMAINS)
    store = SharedStore(
        server.line(0, counts_members=False), clock=clock, chance=lambda: 0.5, member="m"
    )
    await store.declare(GROUP, DOMAINS)
    await one(store, "a")
    server.faults = [Fault(0, 10, "refuse")]
    rest = int(clock.wall() * 1000) + 60_000
    lower = Limit("rpm", Counts.REQUESTS, 5, window=W)
    said = (Penalty(0, until=rest), Penalty(1, limit=lower))
    await store.transact(GROUP, Batch(penalties=said))
    for number in range(20):
        answer = await one(store, f"b{number}")
        assert isinstance(answer, Refusal) or answer.domain == 1
    await clock.sleep(11.0)
    accounts = server.memory._groups[GROUP].ledger.accounts
    assert accounts[0].resting == rest
    assert accounts[1].limits == (lower,)
    journal = store._groups[GROUP].journal._journal
    assert journal.accounts[1].limits == (lower,)
    await store.aclose()


async def test_charges_from_before_the_journal_are_told_once_and_after_a_loss_again(
    clock: VirtualClock,
) -> None:
    server = Server(clock, DOMAINS)
    store = SharedStore(
        server.line(0, counts_members=False), clock=clock, chance=lambda: 0.5, member="m"
    )
    await store.declare(GROUP, DOMAINS)
    ends = int(clock.wall() * 1000) + 15_000
    restores = (Restore("recall", 1, "rpm", ends, 7), Restore("recall", 1, "unheard of", ends, 7))
    await store.transact(GROUP, Batch(restores=restores))
    assert held_at(server) == [0, 7]
    await server.live([Fault(0, 0, "refuse", "nothing")])
    await clock.sleep(2.0)
    assert held_at(server) == [0, 7]
    await store.aclose()


async def test_a_caller_that_leaves_loses_nothing(clock: VirtualClock) -> None:
    server = Server(clock, DOMAINS)
    store = SharedStore(
        server.line(0, counts_members=False), clock=clock, chance=lambda: 0.5, member="m"
    )
    await store.declare(GROUP, DOMAINS)
    await one(store, "a")
    leaver = asyncio.ensure_future(
        store.transact(GROUP, Batch(settles=(Settlement("a", {}),), asks=(Ask("b", ONE),)))
    )
    await clock.sleep(0.0015)  # the store has done it; the reply is on its way
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert sum(held_at(server)) == 2
    await store.transact(GROUP, Batch())
    assert sum(held_at(server)) == 1
    assert store.outages == 0
    await store.aclose()


async def test_the_watch_ends_when_nothing_is_held_and_nobody_asks(clock: VirtualClock) -> None:
    server = Server(clock, DOMAINS)
    line = server.line(0, counts_members=True)
    store = SharedStore(line, clock=clock, chance=lambda: 0.5, member="m", times=Times(idle=60.0))
    await store.declare(GROUP, DOMAINS)
    await clock.sleep(6.0)
    await one(store, "a")
    assert "m" in server.members
    await clock.sleep(90.0)
    assert store._watch is not None
    assert store._watch.done()
    assert not server.members
    calls = server.calls
    await clock.sleep(60.0)
    assert server.calls == calls
    assert isinstance(await one(store, "b"), Grant)  # alone it need not wait
    await store.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_one_that_looks_does_not_report(clock: VirtualClock) -> None:
    """Others take a report for a sign that the store was told everything."""
    server = Server(clock, DOMAINS)
    assert (server.presence("a", Does.REPORT).count, server.presence("b", Does.LOOK).count) == (1, 2)
    await clock.sleep(3.0)
    server.presence("a", Does.LOOK)
    assert server.presence("b", Does.REPORT).silent == 1


def test_nobody_shares_with_less_than_one(clock: VirtualClock) -> None:
    with pytest.raises(ValueError, match="at least one"):
        SharedStore(
            Server(clock, DOMAINS).line(0, counts_members=False),
            clock=clock, chance=lambda: 0.5, member="m", processes=0,
        )  # fmt: skip


async def test_an_unknown_group_is_no_outage(clock: VirtualClock) -> None:
    store = SharedStore(
        Server(clock, DOMAINS).line(0, counts_members=False),
        clock=clock, chance=lambda: 0.5, member="m",
    )  # fmt: skip
    with pytest.raises(KeyError):
        await store.transact("unheard of", Batch())


async def test_two_threads_worth_of_calls_at_once_get_answers_of_their_own(clock: VirtualClock) -> None:
    server = Server(clock, DOMAINS)
    store = SharedStore(
        server.line(0, counts_members=False), clock=clock, chance=lambda: 0.5, member="m"
    )
    await store.declare(GROUP, DOMAINS)
    server.faults = [Fault(0.2, 5, "timeout")]

    async def call(number: int) -> BatchReply:
        await clock.sleep(number * 0.01)
        return await store.transact(GROUP, Batch(asks=(Ask(f"r{number}", ONE),)))

    replies = await asyncio.gather(*(call(number) for number in range(100)))
    answers = [reply.answers[0] for reply in replies]
    assert [answer.rid for answer in answers if isinstance(answer, Grant)] == [
        f"r{number}" for number, answer in enumerate(answers) if isinstance(answer, Grant)
    ]
    assert sum(isinstance(answer, Grant) for answer in answers) == 80
    await store.aclose()
