"""Random histories go to the memory store and to the script on a real server; both must agree.

Every reply, and the whole state at every tenth step: what is used, every bucket, the index, rests,
reservations and the wheel. A seed that fails is named by the test that fails: replay it alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from random import Random  # noqa: TID251 - seeded
from typing import Any

import msgspec
import pytest
import redis
from tests import valkey
from tests.valkey import TIME_KEY, TIMED_SCRIPT

from headgate.core.quota import (
    Ask,
    Batch,
    BatchReply,
    Counts,
    Grant,
    Kind,
    Limit,
    Mode,
    Penalty,
    Restore,
    Settlement,
)
from headgate.policy.days import next_reset
from headgate.policy.quota import ledger as twin
from headgate.policy.quota.pacing import Pace
from headgate.stores import valkey_wire as wire
from headgate.stores.memory import MemoryStore
from headgate.stores.valkey_days import resets_around

valkey_server = valkey.valkey_server

STEPS, PARTS, EACH = 50, 8, 40
RELEASE, LAPSE, REST, EASE = 0, 1, 2, 3
NO_PACE = Pace(Limit("none", Counts.REQUESTS, 2), -(10**9))
LAPSES_FROM = wire.constants()["LAPSES_FROM"]
COUNTS = [*Counts]


class Hands:
    """A clock whose time is set, also back."""

    def __init__(self, now: float) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a store does not wait")


class Pair:
    """The same group in memory and on the server."""

    def __init__(self, client: redis.Redis, domains: list[list[Limit]], now: float) -> None:
        self.client = client
        self.clock = Hands(now)
        self.memory = MemoryStore(self.clock)
        self.keys = wire.keys_of("group")
        client.delete(*self.keys)
        self.sha = client.script_load(TIMED_SCRIPT)
        self.nonce = self.seq = 0
        done(self.memory.declare("group", domains))
        # Also where nothing was asked yet both stand at the same instant.
        done(self.memory.transact("group", Batch()))
        client.set(TIME_KEY, self.raw)
        for payload in wire.declarations(domains):
            client.evalsha(self.sha, 3, *self.keys, payload)

    @property
    def raw(self) -> int:
        return int(self.clock.now * 1000)

    @property
    def ledger(self) -> twin.QuotaLedger:
        return self.memory._groups["group"].ledger

    def transact(self, batch: Batch) -> BatchReply:
        expected = done(self.memory.transact("group", batch))
        while any(
            self.client.zcount(self.keys[2], begin, begin + expected.now) > 256
            for begin in (0, LAPSES_FROM)
        ):
            self.call(Batch())  # the script lets 256 things happen in a call, the ledger all
        found = self.call(batch)
        # Calls that only let time pass are steps, too.
        assert msgspec.structs.replace(found, seq=0) == msgspec.structs.replace(expected, seq=0)
        assert found.seq > self.seq
        self.seq = found.seq
        return found

    def call(self, batch: Batch) -> BatchReply:
        self.nonce += 1
        payload = wire.transaction(self.nonce, resets_around(self.raw), [wire.wired(batch)])
        pipe = self.client.pipeline(transaction=False)
        pipe.set(TIME_KEY, self.raw)
        pipe.evalsha(self.sha, 3, *self.keys, payload)
        answers = wire.answers_of(pipe.execute()[1])
        assert answers.nonce == self.nonce
        return answers.reply(batch.asks, 0)

    def compare(self) -> None:
        found, expected = dump_script(self.client, self.keys), dump_ledger(self.ledger)
        for part, value in expected.items():
            assert found[part] == value, part


def done(coroutine: Any) -> Any:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waited")


# ── the two dumps ───────────────────────────────────────────────────────────────────────────────


def dump_lease(lease: Any) -> tuple[Any, ...]:
    said = (lease.domain, lease.lapses, lease.canary, lease.orphan, lease.needs, lease.expires)
    ends = [lease.ends.get(number, 0) for number in range(len(lease.needs))]
    return (*said, ends if lease.ends else [])


def dump_ledger(ledger: twin.QuotaLedger) -> dict[str, Any]:
    domains = [
        {
            "limits": [(limit.name, limit.amount) for limit in account.limits],
            "used": account.used,
            "buckets": account.buckets,
            "rest": (account.resting, account.shut, account.canary, account.testing or ""),
            "last": account.last,
            "place": account.place,
            "paced": account.paced,
            "paces": {
                number: (pace.burst, pace.arrival, pace.due, pace.told)
                for number, pace in account.paces.items()
            },
        }
        for account in ledger.accounts
    ]
    held = {rid: dump_lease(lease) for rid, lease in ledger._held.items()}
    wheel = {
        (due, event, (handle, number))
        for due, event, handle, number in ledger._wheel
        if event != EASE or ledger.accounts[handle].paces.get(number, NO_PACE).due == due
        # of the buckets of a limit the script's wheel holds the first: each knows the next
        if event != RELEASE or due == min(ledger.accounts[handle].buckets[number])
    }
    lapses = {(due, LAPSE, rid) for due, rid in ledger._lapses if rid in held and held[rid][1] == due}
    return {
        "now": ledger.now,
        "counters": (ledger._order, ledger._choice.turn),
        "counted": sum(2 ** (1 + COUNTS.index(counts)) for counts in ledger._counted),
        "domains": domains,
        "held": held,
        "restored": ledger._restored,
        "index": ledger._choice.index,
        "wheel": wheel | lapses,
    }


def dump_script(client: redis.Redis, keys: Iterable[str]) -> dict[str, Any]:
    st, th, ex = keys
    fields = client.hgetall(st)
    meta = map(int, struct.unpack("<10d", fields.pop(b"m")))
    now, _, _, count, total, order, turn, shapes, _, counted = meta
    assert count == total
    kinds = {
        number: msgspec.msgpack.decode(fields.pop(b"s%d" % number)) for number in range(1, shapes + 1)
    }
    domains = [domain_of(handle, fields, kinds) for handle in range(count)]
    held = dict(lease_of(name[1:].decode(), fields.pop(name)) for name in [*fields] if name[:1] == b"r")
    restored = {
        place_of(name): msgspec.msgpack.decode(fields.pop(name), type=dict[str, int])
        for name in [*fields]
        if name[:1] == b"x"
    }
    assert not fields, "nothing else may stand in the hash"
    index = [(int(score), int(handle)) for handle, score in client.zrange(th, 0, -1, withscores=True)]
    wheel = {
        event_of(name.decode(), int(due)) for name, due in client.zrange(ex, 0, -1, withscores=True)
    }
    return {
        "now": now,
        "counters": (order, turn),
        "counted": counted,
        "domains": domains,
        "held": held,
        "restored": restored,
        "index": index,
        "wheel": wheel,
    }


def place_of(name: bytes) -> tuple[int, int, int]:
    handle, number, expires = map(int, name[1:].split(b"."))
    return handle, number - 1, expires


def domain_of(handle: int, fields: dict[bytes, bytes], kinds: dict[int, Any]) -> dict[str, Any]:
    blob = fields.pop(b"d%d" % handle)
    size = blob[0]
    numbers = [*map(int, struct.unpack_from(f"<{7 + 5 * size}d", blob, 1))]
    shape, resting, shut, canary, last, place, paced = numbers[:7]
    testing = blob[1 + 8 * (7 + 5 * size) :].decode()
    rows = [numbers[7 + 5 * step : 12 + 5 * step] for step in range(size)]
    paces = fields.pop(b"p%d" % handle, b"")
    buckets: list[dict[int, int]] = []
    for number, (_, _, first, tail, holds) in enumerate(rows, 1):
        chain: dict[int, int] = {}
        expires = first
        while expires and expires != tail:
            amount, following = struct.unpack(
                "<2d", fields.pop(b"b%d.%d.%d" % (handle, number, expires))
            )
            chain[expires] = int(amount)
            assert following > expires
            expires = int(following)
        if tail:
            chain[tail] = holds
        buckets.append(chain)
    return {
        "limits": [(limit[0], row[0]) for limit, row in zip(kinds[shape], rows, strict=True)],
        "used": [row[1] for row in rows],
        "buckets": buckets,
        "rest": (resting, shut == 1, canary == 1, testing),
        "last": last,
        "place": place,
        "paced": paced,
        "paces": {
            int(number) - 1: tuple(map(int, pace)) for number, *pace in struct.iter_unpack("<5d", paces)
        },
    }


def lease_of(rid: str, blob: bytes) -> tuple[str, tuple[Any, ...]]:
    size, canary, orphan = blob[:3]
    domain, lapses, *rest = map(int, struct.unpack(f"<{(len(blob) - 3) // 8}d", blob[3:]))
    needs, expires, ends = rest[:size], rest[size : 2 * size], rest[2 * size :]
    return rid, (domain, lapses, canary == 1, orphan == 1, needs, expires, ends)


def event_of(name: str, due: int) -> tuple[int, int, Any]:
    event = int(name[0])
    if event == LAPSE:
        return due - LAPSES_FROM, event, name[2:]
    parts = name.split(":")
    assert event in (RELEASE, EASE) or int(parts[-1]) == due
    return due, event, (int(parts[1]), 0 if event == REST else int(parts[2]) - 1)


# ── random histories ────────────────────────────────────────────────────────────────────────────


def random_limit(chance: Random, number: int) -> Limit:
    counts = chance.choice([Counts.REQUESTS, *Counts])
    kind = chance.choice([Kind.ROLLING] * 3 + [Kind.CALENDAR])
    if counts is Counts.SLOTS:
        kind = Kind.CONCURRENT
    amount = chance.randint(10, 5000) if counts.is_tokens else chance.randint(1, 12)
    return Limit(
        f"limit {number}: {counts.value}",
        counts,
        amount,
        kind,
        window=chance.choice([1, 700, 10_000, 60_000, 60_000, 86_400_000]),
        mode=chance.choice([Mode.EARLY, Mode.EARLY, Mode.ENVELOPE]),
        guard=chance.choice([0, 1, 350, 2000]),
    )


def random_pool(chance: Random) -> list[list[Limit]]:
    size = chance.choice([1, 2, 3, 5, 8, 20, 66, 140])
    alike = [random_limit(chance, number) for number in range(chance.randint(1, 4))]
    return [
        alike
        if chance.random() < 0.6
        else [random_limit(chance, number) for number in range(chance.randint(0, 4))]
        for _ in range(size)
    ]


class History:
    """One random history of a pair."""

    def __init__(self, client: redis.Redis, seed: int) -> None:
        self.chance = Random(seed)
        pool = random_pool(self.chance)
        start = next_reset(self.chance.choice([1_795_262_400, 1_772_960_000, 1_793_500_000]))
        self.pair = Pair(client, pool, start - self.chance.choice([200.0, 6.0, 5.349, 5000.0]))
        self.domains = len(pool)
        self.rids: list[str] = []
        self.flying: list[str] = []

    def costs(self) -> dict[Counts, int]:
        chance = self.chance
        most = chance.choice([5, 300, 300, 6000])
        return {
            counts: chance.randint(0, most if counts.is_tokens else 2)
            for counts in Counts
            if chance.random() < 0.8
        }

    def pass_time(self) -> None:
        clock, chance = self.pair.clock, self.chance
        due = self.pair.ledger.next_event()
        near = max(0.0, due / 1000 - clock.now) if due else 1.0
        steps = [0.0, 0.001, 0.1, 1.0, 7.0, 61.0, 91.0, near, near + 0.001, -3.0, 3601.0]
        clock.now += chance.choices(steps, [6, 4, 6, 4, 3, 1, 0.5, 4, 4, 0.3, 0.2])[0]

    def any_rid(self) -> str:
        if self.flying and self.chance.random() < 0.9:
            return self.chance.choice(self.flying)
        return self.chance.choice(self.rids or ["never"])

    def some(self, most: int, often: float) -> range:
        return range(self.chance.randint(1, most) if self.chance.random() < often else 0)

    def ask(self) -> Ask:
        chance = self.chance
        if chance.random() < 0.05:
            rid = self.any_rid()  # asked again, after a lost reply
        else:
            rid = f"{len(self.rids):x}{chance.getrandbits(32):08x}"
        self.rids.append(rid)
        exclude = {chance.randrange(self.domains) for _ in self.some(3, 0.15)}
        prefer = chance.randrange(self.domains) if chance.random() < 0.2 else None
        return Ask(rid, self.costs(), sorted(exclude), prefer)

    def penalty(self) -> Penalty:
        chance, pair = self.chance, self.pair
        rest = chance.choice([None, 0, pair.raw + 500, pair.raw + 20_000])
        shut = chance.choice([None, None, None, True, False, False])
        limit = None
        domain = chance.randrange(self.domains)
        if chance.random() < 0.3:
            known = pair.ledger.accounts[domain].limits
            limit = random_limit(chance, 9)
            if known and chance.random() < 0.7:
                limit = msgspec.structs.replace(chance.choice(known), amount=chance.randint(1, 3000))
        pace = None
        if chance.random() < 0.4:
            known = pair.ledger.accounts[domain].limits
            pace = chance.choice(["", "nobody's", *(each.name for each in known)])
        canary = chance.random() < 0.5
        return Penalty(domain, rest, canary=canary, shut=shut, limit=limit, pace=pace)

    def restore(self) -> Restore:
        chance, pair = self.chance, self.pair
        domain = chance.randrange(-1, self.domains + 1) if chance.random() < 0.1 else 0
        known = pair.ledger.accounts[0].limits
        limit = chance.choice([*(each.name for each in known), "nobody's"])
        ends = [pair.raw + chance.choice([-5, 1, 400, 60_000, 61_000, 86_400_000])]
        ends += [end for buckets in pair.ledger.accounts[0].buckets for end in buckets] * 2
        ends += [expires for _, _, expires in pair.ledger._restored] * 2
        return Restore(
            chance.choice(["a", "b", "1"]), domain, limit, chance.choice(ends), chance.randint(0, 9)
        )

    def step(self) -> None:
        self.pass_time()
        chance = self.chance
        settles = [
            Settlement(self.any_rid(), self.costs(), served=chance.random() < 0.7)
            for _ in self.some(4, 0.5)
        ]
        cancels = [self.any_rid() for _ in self.some(2, 0.2)]
        renews = [self.any_rid() for _ in self.some(2, 0.2)]
        penalties = [self.penalty() for _ in self.some(2, 0.15)]
        asks = [self.ask() for _ in self.some(5, 0.8)]
        batch = Batch(
            tuple(settles), tuple(cancels), tuple(renews), tuple(penalties), tuple(asks),
            seed=chance.randint(1, 2**31 - 2),
            restores=tuple(self.restore() for _ in self.some(6, 0.2)),
        )  # fmt: skip
        reply = self.pair.transact(batch)
        gone = {*cancels, *(settle.rid for settle in settles)}
        self.flying = [rid for rid in self.flying if rid not in gone]
        self.flying += [answer.rid for answer in reply.answers if isinstance(answer, Grant)]


@pytest.mark.parametrize("part", range(PARTS))
def test_memory_and_script_agree_on_random_histories(part: int, valkey_server: valkey.Server) -> None:
    with valkey_server.client() as client:
        for seed in range(part * EACH, (part + 1) * EACH):
            try:
                history = History(client, seed)
                for step in range(STEPS):
                    history.step()
                    if step % 10 == 9:
                        history.pair.compare()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error
