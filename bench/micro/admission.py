"""What an admission with its settlement costs as domains grow, and what callers at once save.

Every domain is asked for half a request a second whatever their number, for more than a window, so an
admission finds the same fill everywhere; and time goes by one number for ledger and script. The
server's own time and its round trips are what `INFO commandstats` counts.
"""

from __future__ import annotations

import asyncio
import gc
import random
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count

import redis

from bench.micro.figures import Figure, Scale, in_turn, ratio
from bench.server import calls, running, servers
from headgate.core.quota import Ask, Batch, Counts, Grant, Kind, Limit, Mode, Settlement
from headgate.policy.quota.ledger import QuotaLedger
from headgate.stores.valkey import ValkeyStore
from headgate.stores.valkey_wire import script_source
from headgate.wiring.clock import SystemClock

__all__ = [
    "AT_ONCE",
    "FLAT",
    "LIMITS",
    "MEMORY",
    "SERVER",
    "TRIPS",
    "Books",
    "Server",
    "measure",
    "notes",
]

MEMORY = "An admission in memory (acquire and settle)"
SERVER = {kind: f"An admission on {kind}, time at the server" for kind in ("Valkey", "Redis")}
TRIPS = "Round trips on Valkey"
FLAT = 1.5
"""What the dearest may cost, as a multiple of the cheapest: the aim."""

AT_ONCE = (1, 8, 64)
BATCH = 32
LIMITS = [
    Limit("rpm", Counts.REQUESTS, 60),
    Limit("tpm", Counts.INPUT, 60_000),
    Limit("otpm", Counts.OUTPUT, 30_000, mode=Mode.ENVELOPE),
    Limit("rpd", Counts.REQUESTS, 100_000, Kind.CALENDAR),
]
COSTS = {Counts.REQUESTS: 1, Counts.INPUT: 900, Counts.OUTPUT: 300}
ACTUAL = {Counts.INPUT: 850, Counts.OUTPUT: 200}
_START = 1_795_262_400_000
_SPACING = 2_000  # milliseconds between two asks of one domain
_OPEN = 0.5  # calls under way, a domain
_WARM = 65_000  # milliseconds: longer than the window of every limit but the day's
_FEWEST = 64  # asks while warming up
_CLOCK_KEY = "bench:now"
_TIMED, _timed = re.subn(
    r"local server = .*-- the time source",
    f"local server = tonumber(redis.call('GET', '{_CLOCK_KEY}'))",
    script_source(),
)
assert _timed == 1, "the ledger script marks its time source in another way"


class Books:
    """A ledger in memory, at its fill."""

    def __init__(self, domains: int, warm: int = _WARM) -> None:
        self.ledger = QuotaLedger([LIMITS] * domains, [_START + 86_400_000 * day for day in (1, 2)])
        self._domains = domains
        self._open: deque[str] = deque()
        self._numbers = count()
        self._chance = random.Random(1)
        self.take(max(_FEWEST, domains * warm // _SPACING))

    def take(self, admissions: int) -> float:
        """So many, one after the other. Microseconds of CPU each."""
        ledger, domains, opened, chance = self.ledger, self._domains, self._open, self._chance
        most = max(1, int(domains * _OPEN))
        gc.collect()
        begun = time.process_time()
        for _ in range(admissions):
            number = next(self._numbers)
            now = _START + number * _SPACING // domains
            granted = ledger.acquire(Ask(f"{number:x}", COSTS), now, chance.randrange(1, 2**31 - 2))
            assert isinstance(granted, Grant), "an admission at half the load was refused"
            opened.append(granted.rid)
            if len(opened) > most:
                ledger.settle(opened.popleft(), ACTUAL, now)
        return (time.process_time() - begun) / admissions * 1e6


class Server:
    """A group of domains at its fill, on a server of its own, under a clock of ours."""

    def __init__(self, url: str, domains: int, warm: int = _WARM) -> None:
        self._url = url
        self._domains = domains
        self._open: deque[str] = deque()
        self._number = 0
        self._chance = random.Random(1)
        self.client = redis.Redis.from_url(url)
        self.client.set(_CLOCK_KEY, _START)
        asyncio.run(self._take(max(_FEWEST, domains * warm // _SPACING), 64))

    def take(self, admissions: int, batch: int) -> float:
        """So many, in batches. Microseconds of the server's time each."""
        return asyncio.run(self._take(admissions, batch))

    def close(self) -> None:
        """Close the connection that was for looking."""
        self.client.close()

    async def _take(self, admissions: int, batch: int) -> float:
        clock, chance = SystemClock(), self._chance
        store = ValkeyStore(self._url, clock=clock, chance=chance.random, timeout=30.0, script=_TIMED)
        await store.declare("g", [LIMITS] * self._domains)
        before = calls(self.client).usec  # without the declaration: a process makes it once
        granted, most = 0, max(batch, int(self._domains * _OPEN))
        for _ in range(max(1, admissions // batch)):
            self.client.set(_CLOCK_KEY, _START + self._number * _SPACING // self._domains)
            asks = tuple(Ask(f"{self._number + n:x}", COSTS) for n in range(batch))
            self._number += batch
            over = max(0, len(self._open) + batch - most)
            told = tuple(
                Settlement(self._open.popleft(), ACTUAL) for _ in range(min(over, len(self._open)))
            )
            seed = chance.randrange(1, 2**31 - 2)
            reply = await store.transact("g", Batch(told, asks=asks, seed=seed))
            answers = [answer.rid for answer in reply.answers if isinstance(answer, Grant)]
            self._open.extend(answers)
            granted += len(answers)
        await store.aclose()
        return (calls(self.client).usec - before) / granted


def measure(scale: Scale) -> list[Figure]:
    repeats = min(5, scale.repeats)
    figures = _in_memory(scale, repeats)
    for program in servers():
        with _groups(scale, program.binary) as groups:
            for batch in (1, BATCH):
                values = in_turn(
                    repeats, [partial(one.take, scale.admissions, batch) for one in groups]
                )
                figures += _flat(SERVER[program.kind], f"batches of {batch}", scale.domains, values)
    return figures + _trips(scale, repeats)


def notes() -> list[str]:
    """Which servers they are, for the results."""
    return [f"{program.kind} {program.version}" for program in servers()]


def _in_memory(scale: Scale, repeats: int) -> list[Figure]:
    books = [Books(size) for size in scale.domains]
    values = in_turn(repeats, [partial(one.take, scale.admissions) for one in books])
    return _flat(MEMORY, "one at a time", scale.domains, values)


@contextmanager
def _groups(scale: Scale, binary: str) -> Iterator[list[Server]]:
    with ExitStack() as stack:
        groups = []
        for size in scale.domains:
            groups.append(Server(stack.enter_context(running(binary)), size))
            stack.callback(groups[-1].close)
        yield groups


def _flat(
    group: str, how: str, sizes: Sequence[int], values: Sequence[tuple[float, ...]]
) -> list[Figure]:
    rows = [
        Figure(group, f"{size:,} domains, {how}", "µs", value)
        for size, value in zip(sizes, values, strict=True)
    ]
    ratios = [
        ratio(group, f"{sizes[-1]:,} to {sizes[than]:,} domains, {how}", rows[-1], rows[than])
        for than in range(len(sizes) - 1)
    ]
    return [*rows, *ratios]


# ── callers at once ───────────────────────────────────────────────────────────────────────────────


def _trips(scale: Scale, repeats: int) -> list[Figure]:
    figures = []
    with running() as url, redis.Redis.from_url(url) as client:
        taken = in_turn(repeats, [partial(_by_callers, url, client, many, scale) for many in AT_ONCE])
    names = ("round trips an admission", "server time an admission", "client CPU an admission")
    for number, (name, unit) in enumerate(zip(names, ("", "µs", "µs"), strict=True)):
        figures += [
            Figure(TRIPS, f"{name}, {many} coroutines", unit, tuple(value[number] for value in values))
            for many, values in zip(AT_ONCE, taken, strict=True)
        ]
    return figures


def _by_callers(url: str, client: redis.Redis, many: int, scale: Scale) -> tuple[float, float, float]:
    """Round trips, server µs and client µs an admission."""
    group = f"callers-{many}-{time.monotonic_ns()}"

    async def run() -> tuple[int, float]:
        chance = random.Random(1).random
        store = ValkeyStore(url, clock=SystemClock(), chance=chance, timeout=30.0)
        await store.declare(group, [[Limit("slots", Counts.SLOTS, 10**9, Kind.CONCURRENT)]] * 100)
        client.config_resetstat()

        async def caller(name: int) -> int:
            told: tuple[Settlement, ...] = ()
            turns = max(2, scale.admissions // many)
            for turn in range(turns):
                ask = Ask(f"{name:x}-{turn:x}", {Counts.SLOTS: 1})
                await store.transact(group, Batch(told, asks=(ask,), seed=turn + 1))
                told = (Settlement(ask.rid, {}),)
            return turns

        begun = time.process_time()
        made = sum(await asyncio.gather(*(caller(name) for name in range(many))))
        worked = time.process_time() - begun
        await store.aclose()
        return made, worked

    made, worked = asyncio.run(run())
    used = calls(client)
    return used.calls / made, used.usec / made, worked / made * 1e6
