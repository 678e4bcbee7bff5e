"""`python -m bench.scale [--tiny] [--results DIR]`: the ledger at the size of a large house."""

from __future__ import annotations

import argparse
import json
import sys
import time
import tracemalloc
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import redis

from bench.machine import Verdict, Watch, await_quiet, place
from bench.micro.admission import Server
from bench.micro.figures import environment
from bench.scale.world import (
    ACTUAL,
    COSTS,
    LIMITS,
    MOST_ASKS,
    START,
    Books,
    Cost,
    OpenBooks,
    RealBooks,
    World,
)
from bench.server import memory, running, servers
from headgate.core.quota import Ask
from headgate.policy.quota.ledger import QuotaLedger

RESULTS = Path(__file__).parents[1] / "results"
_WINDOW = 60.0
_BEYOND = 1.02  # calls offered, as a share of what the limits allow
_MOST_LOAD = 0.95  # of a shard's time
_AT_LEAST = 10.0  # virtual seconds that are measured, however slow the machine is

_NOTES = (
    "Every grant of every domain was checked against the 60 s before it, apart from the ledger.",
    (
        "A shard takes what the server was measured to take for a call and for each ask; half a "
        "millisecond of network is added. After a refusal a process waits 20 ms at least."
    ),
    "Rows about shards: two groups, grants only; how long calls queue and how many share a trip.",
)


@dataclass(frozen=True, slots=True)
class Size:
    """How large the house is.

    Attributes:
        domains: in a group.
        processes: that share it.
        measured: virtual seconds counted, after a whole window of warming up.
        budget: real seconds for both; the counted part is cut short rather than go beyond.
        servers: virtual seconds of a look at servers alone.
        weighed: domains whose memory is looked at one allocation at a time.
    """

    domains: int = 10_000
    processes: int = 64
    measured: float = 60.0
    budget: float = 240.0
    servers: float = 5.0
    weighed: int = 100


FULL = Size()
TINY = Size(domains=8, processes=4, measured=10.0, budget=30.0, servers=0.1, weighed=4)


@dataclass(frozen=True, slots=True)
class Row:
    """A figure, what it is called, and its unit."""

    name: str
    value: float
    unit: str = ""

    @property
    def shown(self) -> str:
        digits = 0 if self.value >= 1000 else 1 if self.value >= 10 else 3
        if self.unit == "%":
            return f"{self.value:.2%}"
        return f"{self.value:,.{digits}f} {self.unit}".rstrip()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="only show that it runs")
    parser.add_argument("--results", type=Path, help="where to write scale.json and scale.md")
    chosen = parser.parse_args(arguments)
    size = TINY if chosen.tiny else FULL
    if not chosen.tiny:
        _say("waiting for a quiet machine, a minute at most …")
        await_quiet()
    watch = Watch()
    cost, on_server, which = _server(size)
    rows, notes = _ledger(size, cost)
    notes.append(which)
    rows = [*rows, *on_server, *_weighed(size.weighed), *_shards(size, cost)]
    verdict = watch.verdict()
    text = _table(size, rows, notes, verdict)
    print(text)
    _say(verdict.sentence)
    if chosen.results or not chosen.tiny:
        target = place(chosen.results or RESULTS, "scale", verdict, own_folder=bool(chosen.results))
        target.with_name(f"{target.name}.md").write_text(text, encoding="utf-8")
        content = {
            "environment": environment(),
            "machine": verdict.as_dict(),
            "size": {name: getattr(size, name) for name in Size.__slots__},
            "figures": [{"name": r.name, "value": round(r.value, 6), "unit": r.unit} for r in rows],
            "notes": list(notes),
        }
        target.with_name(f"{target.name}.json").write_text(
            json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return 0 if verdict.quiet or chosen.tiny else 3


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ── what a server takes ───────────────────────────────────────────────────────────────────────────


def _server(size: Size) -> tuple[Cost, list[Row], str]:
    """The shared store at this number of domains: its time for an admission, and its memory."""
    program = servers()[-1]  # of two the one whose memory is what servers in use have
    _say(f"{program.kind} {program.version} with {size.domains:,} domains …")
    with running(program.binary) as url, redis.Redis.from_url(url) as client:
        empty = memory(client)
        with closing(Server(url, size.domains, warm=0)):
            declared = memory(client) - empty
        client.flushall()
        with closing(Server(url, size.domains)) as server:
            ones, batches = (2_000, 6_400) if size is FULL else (64, 256)
            singly = sorted(server.take(ones, 1) for _ in range(3))[1]
            batched = sorted(server.take(batches, MOST_ASKS) for _ in range(3))[1]
            loaded = memory(client) - empty
    rows = [
        Row("server: time an admission, singly", singly, "µs"),
        Row(f"server: time an admission, batches of {MOST_ASKS}", batched, "µs"),
        Row("server: admissions a second of its time, singly", 1e6 / singly),
        Row(f"server: admissions a second of its time, batches of {MOST_ASKS}", 1e6 / batched),
        Row("server: memory a domain, declared", declared / size.domains / 1024, "KB"),
        Row("server: memory a domain, half loaded", loaded / size.domains / 1024, "KB"),
    ]
    note = f"The server: {program.kind} {program.version}."
    return Cost.through(singly, batched, MOST_ASKS), rows, note


# ── the ledger ────────────────────────────────────────────────────────────────────────────────────


def _ledger(size: Size, cost: Cost) -> tuple[list[Row], list[str]]:
    """One group on one shard, a little more offered than the limits allow."""
    capacity = size.domains * LIMITS[0].amount / _WINDOW
    notes = []
    load = cost.admission(MOST_ASKS) * capacity * _BEYOND
    if load > _MOST_LOAD:
        cost = Cost(0.0, 0.0)
        notes.append(
            f"**One shard does not carry this load**: it needs {load:.1f} of them, and a group "
            "cannot be split. The ledger's figures are those of a server that takes no time."
        )
    books = RealBooks(size.domains)
    world = World([books], {0: 0}, processes=size.processes, cost=cost, rate=capacity * _BEYOND)
    begun = time.monotonic()
    for second in range(int(_WINDOW)):
        world.run(second + 1.0)
        if second % 10 == 9:
            _say(f"  warming up: {second + 1} of {_WINDOW:.0f} virtual seconds, {_since(begun):.0f} s")
    world.forget()
    books.cpu = 0.0
    end = _WINDOW
    while end < _WINDOW + size.measured:
        if _since(begun) > size.budget and end >= _WINDOW + _AT_LEAST:
            break
        end += 1.0
        world.run(end)
    seen = world.seen
    _say(f"  measured: {seen.seconds:.0f} virtual seconds, {_since(begun):.0f} s in all")
    granted = max(1, seen.granted)
    rows = [
        Row("admissions a minute", seen.granted / seen.seconds * 60),
        Row("share of the summed limits that was used", seen.granted / (capacity * seen.seconds), "%"),
        Row("admissions above a limit, in any window of any domain", books.over),
        Row("round trips an admission", seen.trips / granted),
        Row("asks an admission: more than 1 where calls had to wait", seen.asked / granted),
        Row("ledger in Python: CPU an admission, refusals included", books.cpu / granted * 1e6, "µs"),
        Row("ledger in Python: admissions a CPU second, one shard", granted / max(1e-9, books.cpu)),
        Row("shards the load needs, in full batches", load),
        Row("the shard: share of its time in use", seen.busiest, "%"),
        Row("from birth to grant, p50", seen.wait(0.5) * 1e3, "ms"),
        Row("from birth to grant, p99", seen.wait(0.99) * 1e3, "ms"),
    ]
    notes.append(
        f"{_WINDOW:.0f} virtual seconds of warming up, then {seen.seconds:.0f} counted; asked for were "
        f"{size.measured:.0f}. {_BEYOND:.0%} of what the limits allow was offered, so calls wait."
    )
    return rows, [*notes, *_NOTES]


def _since(begun: float) -> float:
    return time.monotonic() - begun


def _weighed(domains: int) -> list[Row]:
    """Bytes a domain takes in Python, idle and at its limit."""
    _say("memory of the ledger in Python …")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    ledger = QuotaLedger([LIMITS] * domains, [START + 86_400_000])
    idle = tracemalloc.get_traced_memory()[0] - before
    wanted = domains * LIMITS[0].amount
    for step in range(wanted):
        now = START + step * 60_000 // wanted
        ledger.acquire(Ask(f"{step:x}", COSTS), now, step + 1)
        if step >= 2 * domains:
            ledger.settle(f"{step - 2 * domains:x}", ACTUAL, now)
    loaded = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return [
        Row("Python: memory a domain, idle", idle / domains / 1024, "KB"),
        Row("Python: memory a domain, at its limit", loaded / domains / 1024, "KB"),
    ]


# ── shards ────────────────────────────────────────────────────────────────────────────────────────


def _shards(size: Size, cost: Cost) -> list[Row]:
    """Two groups: on one shard together, then each on its own."""
    _say("one shard and two …")
    offered = size.domains * LIMITS[0].amount / _WINDOW
    rows = []
    for shards, shard_of in ((1, {0: 0, 1: 0}), (2, {0: 0, 1: 1})):
        name = "two groups on one shard" if shards == 1 else "two groups on two shards"
        for rate, load in ((offered, f"{offered * 60:,.0f} a minute"), (None, "as much as goes")):
            world = _open(size, shard_of, cost, rate)
            seen = world.seen
            if rate is None:
                rows.append(
                    Row(f"{name}, {load}: admissions a minute", seen.granted / seen.seconds * 60)
                )
            else:
                rows.append(
                    Row(f"{name}, {load}: share of the busiest shard in use", seen.busiest, "%")
                )
                rows.append(Row(f"{name}, {load}: to the grant, p99", seen.wait(0.99) * 1e3, "ms"))
            trips = seen.trips / max(1, seen.granted)
            rows.append(Row(f"{name}, {load}: round trips an admission", trips))
    return rows


def _open(size: Size, shard_of: dict[int, int], cost: Cost, rate: float | None) -> World:
    groups: Sequence[Books] = [OpenBooks(), OpenBooks()]
    world = World(groups, shard_of, processes=size.processes, cost=cost, rate=rate)
    world.run(size.servers / 5)
    world.forget()
    world.run(size.servers * 6 / 5)
    return world


def _table(size: Size, rows: Sequence[Row], notes: Sequence[str], verdict: Verdict) -> str:
    what = (
        f"{size.domains:,} domains with {len(LIMITS)} limits each, {size.processes} processes, "
        f"{size.domains * LIMITS[0].amount:,} admissions a minute allowed"
    )
    lines = [
        "# The ledger at scale",
        "",
        "Written by `python -m bench.scale`; [how to read it](../README.md).",
        "",
        *(f"- {name}: {value}" for name, value in environment().items()),
        f"- machine: {verdict.sentence}",
        f"- size: {what}",
        "",
        "| figure | |",
        "|---|--:|",
        *(f"| {row.name} | {row.shown} |" for row in rows),
        "",
        "## Notes",
        "",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
