"""`python -m bench.load [--tiny] [--results DIR]`: requests a second of the content service, and how
they grow with its instances; what the shared cache saves where some topics are asked for often.

Everything is on this machine, the clients and the emulated API too: where its processors are used up,
more instances bring nothing. Beside the rates stands what a request costs an instance, which does not
depend on that.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from tools.stack.programs import LOOPBACK, Program, answers, open_port
from tools.stack.topology import Ports, Stack

from bench.load.client import Outcome, pressed
from bench.machine import Verdict, Watch, await_quiet, place
from bench.micro.figures import environment
from headgate.wiring.clock import SystemClock

RESULTS = Path(__file__).parents[1] / "results"
KEPT = [f"Kept {number}" for number in range(20)]
ZIPF = 1.0
"""Exponent: the n-th topic is asked for 1/n times as often as the first."""

KEY = "an-emulator-takes-any-key"
LATENCY = 0.05
_TICK = 1 / os.sysconf("SC_CLK_TCK")

CONFIG = f"""
[[projects]]
name = "load"
keys = {{ load = "{KEY}" }}
[latency]
first_byte = {LATENCY}
"""

SETTINGS = {
    "GEMINI_API_KEYS": f"{KEY}|load|load",
    "QUOTA_RPM": "10000000", "QUOTA_RPD": "100000000",
    "QUOTA_TPM": "100000000000", "QUOTA_TPD": "1000000000000",
    "HEADGATE_CONTENT_LINGER_SECONDS": "0",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Size:
    """How long and how much.

    Attributes:
        seconds: of each run.
        rounds: each figure is taken so many times; the median is shown.
        clients: that ask at once.
        topics, draws: of the run with frequent and rare topics.
        counts: of instances; the last is that of the run with frequent and rare topics, too.
    """

    seconds: float = 5.0
    rounds: int = 3
    clients: int = 48
    topics: int = 1000
    draws: int = 4000
    counts: tuple[int, ...] = (1, 2, 3)


FULL = Size()
TINY = Size(seconds=0.3, rounds=1, clients=4, topics=10, draws=40, counts=(1,))


@dataclass(frozen=True, slots=True)
class Row:
    """A figure, of so many instances."""

    name: str
    instances: int
    values: tuple[float, ...]
    unit: str

    @property
    def shown(self) -> str:
        value = statistics.median(self.values)
        if self.unit == "%":
            return f"{value:.1%}"
        return f"{value:,.{0 if value >= 100 else 2}f} {self.unit}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="only show that it runs")
    parser.add_argument("--results", type=Path, help="where to write load.json and load.md")
    chosen = parser.parse_args(arguments)
    size = TINY if chosen.tiny else FULL
    if not chosen.tiny:
        _say("waiting for a quiet machine, a minute at most …")
        await_quiet()
    watch = Watch()
    rows = asyncio.run(_measured(size))
    verdict = watch.verdict()
    text = _table(size, rows, verdict)
    print(text)
    _say(verdict.sentence)
    if chosen.results or not chosen.tiny:
        target = place(chosen.results or RESULTS, "load", verdict, own_folder=bool(chosen.results))
        _write(target, size, rows, verdict, text)
    return 0 if verdict.quiet or chosen.tiny else 3


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ── what is measured ────────────────────────────────────────────────────────────────────────────


async def _measured(size: Size) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="load-", ignore_cleanup_errors=True) as folder:
        async with _upstream(Path(folder)) as upstream:
            environ = {**SETTINGS, "HEADGATE_GEMINI_BASE_URL": f"http://{LOOPBACK}:{upstream}"}
            for count in size.counts:
                _say(f"{count} of {size.counts[-1]} instances …")
                async with _stack(Path(folder), environ, count) as stack:
                    rows += await _with(stack, size)
                    if count == size.counts[-1]:
                        _say("frequent and rare topics …")
                        rows += await _drawn(stack, size, upstream)
    return rows


@asynccontextmanager
async def _upstream(folder: Path) -> AsyncIterator[int]:
    """An emulated API in a process of its own: its port."""
    port = await open_port()
    config = folder / "emulator.toml"
    config.write_text(CONFIG, encoding="utf-8")
    command = [sys.executable, "-m", "headgate", "emulator", "--port", str(port)]

    async def serves() -> bool:
        return await answers(port, "/emulator/report")

    command += ["--config", str(config)]
    program = Program("emulator", command, folder, SystemClock(), serves)
    await program.start()
    try:
        yield port
    finally:
        await program.stop(10.0)


@asynccontextmanager
async def _stack(folder: Path, environ: dict[str, str], count: int) -> AsyncIterator[Stack]:
    own = folder / f"of-{count}"
    own.mkdir()
    ports = Ports(nginx=0, prometheus=None)
    async with Stack(own, environ, SystemClock(), count=count, ports=ports, say=_say) as stack:
        yield stack


async def _with(stack: Stack, size: Size) -> list[Row]:
    for topic in KEPT:
        _check(await pressed(stack.port, iter([topic]), 1, seconds=60))
    fresh = (f"New {number}" for number in itertools.count())
    rows: list[Row] = []
    for name, topics in (("kept", itertools.cycle(KEPT)), ("made", fresh)):
        rows += await _of_kind(stack, name, topics, size)
    return rows


async def _of_kind(stack: Stack, name: str, topics: Iterator[str], size: Size) -> list[Row]:
    rates, delays, costs = [], [], []
    for _ in range(size.rounds):
        before = _used(stack)
        outcome = await pressed(stack.port, topics, size.clients, seconds=size.seconds)
        _check(outcome)
        rates.append(outcome.rate)
        delays.append(outcome.delay(0.95) * 1000)
        costs.append((_used(stack) - before) / outcome.statuses[200] * 1000)
    count = len(stack.instances)
    return [
        Row(f"{name}: requests a second", count, tuple(rates), "/s"),
        Row(f"{name}: 95 of 100 answered within", count, tuple(delays), "ms"),
        Row(f"{name}: processor time of instances, a request", count, tuple(costs), "ms"),
    ]


def _check(outcome: Outcome) -> None:
    if set(outcome.statuses) != {200}:
        raise RuntimeError(f"not every request was answered: {dict(outcome.statuses)}")


def _used(stack: Stack) -> float:
    """Processor seconds of the instances so far."""
    total = 0
    for program in stack.instances:
        fields = Path(f"/proc/{program.pid}/stat").read_text(encoding="ascii").rpartition(") ")[2]
        total += sum(map(int, fields.split()[11:13]))
    return total * _TICK


async def _drawn(stack: Stack, size: Size, upstream: int) -> list[Row]:
    """Topics as often as Zipf has it, over all instances: what of it the upstream was asked for."""
    chance = random.Random(20261121)
    names = [f"Topic {number}" for number in range(size.topics)]
    weights = [1 / (number + 1) ** ZIPF for number in range(size.topics)]
    drawn = chance.choices(names, weights, k=size.draws)
    before = _asked(upstream)
    _check(await pressed(stack.port, iter(drawn), size.clients, seconds=600.0))
    made = _asked(upstream) - before
    count, best = len(stack.instances), 1 - len(set(drawn)) / len(drawn)
    return [
        Row("frequent and rare: answered from the cache", count, (1 - made / len(drawn),), "%"),
        Row("frequent and rare: the most that can be", count, (best,), "%"),
    ]


def _asked(port: int) -> int:
    """Requests that the emulated API had."""
    connection = HTTPConnection(LOOPBACK, port, timeout=10)
    try:
        connection.request("GET", "/emulator/report")
        report = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return int(report["totals"]["requests"])


# ── what is told ────────────────────────────────────────────────────────────────────────────────


def _table(size: Size, rows: list[Row], verdict: Verdict) -> str:
    counts = sorted({row.instances for row in rows})
    told = (
        f"{size.clients} clients, each on a connection that it keeps; runs of {size.seconds:g} s, the "
        f"median of {size.rounds}. nginx, Valkey, the instances, the clients and an emulated API that "
        f"takes {LATENCY * 1000:.0f} ms share this machine."
    )
    lines = [
        "# The content service under load", "",
        told, "",
        "| | " + " | ".join(f"{count} instance{'s' * (count > 1)}" for count in counts) + " |",
        "|---|" + "---:|" * len(counts),
    ]  # fmt: skip
    for name in dict.fromkeys(row.name for row in rows):
        of = {row.instances: row.shown for row in rows if row.name == name}
        lines.append(f"| {name} | " + " | ".join(of.get(count, "") for count in counts) + " |")
    where = environment()
    machine = f"{where['cpu']}, {where['cores']} processors, {where['python']}, {where['date']}"
    return "\n".join([*lines, "", f"{machine}. {verdict.sentence}", ""])


def _write(target: Path, size: Size, rows: list[Row], verdict: Verdict, text: str) -> None:
    target.with_name(f"{target.name}.md").write_text(text, encoding="utf-8")
    content = {
        "environment": environment(),
        "machine": verdict.as_dict(),
        "size": {name: getattr(size, name) for name in Size.__slots__},
        "figures": [
            {"name": r.name, "instances": r.instances, "values": list(r.values), "unit": r.unit}
            for r in rows
        ],
    }
    target.with_name(f"{target.name}.json").write_text(
        json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
