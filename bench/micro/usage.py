"""What keeping the books costs: the observer on the path, rows made and counted, written, summed."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.micro.figures import Figure, Scale, in_turn, per_call, ratio
from headgate.core.call import Operation, Usage
from headgate.core.outcome import Kind, Outcome
from headgate.core.records import AttemptRecord, CallRecord
from headgate.core.usage import By, UsageFilter, UsageRow
from headgate.policy.analytics import Analytics, Series
from headgate.policy.sketch import Sketch
from headgate.stores.usage_sqlite import SqliteUsage
from headgate.telemetry.usage_book import UsageBook
from headgate.telemetry.usage_rows import RowMaker, Words
from headgate.wiring.clock import SystemClock
from headgate.wiring.model_data import gemini_prices
from headgate.wiring.usage import costs_of

__all__ = ["COUNTED", "GROUP", "OBSERVED", "measure"]

GROUP = "Usage of a call"
_ON_PATH = "noted on the path: one attempt and its call"
_BESIDE = "counted beside it: a row, its price, its sums"
OBSERVED, COUNTED = f"{_ON_PATH}, CPU", f"{_BESIDE}, CPU"
MODEL = "gemini-3.8-flash"
USED = Outcome(Kind.SUCCESS, status=200, usage=Usage(prompt=1_234, output=321, cached=400, thoughts=56))
_COSTS = costs_of(gemini_prices)


def measure(scale: Scale) -> list[Figure]:
    steps: dict[str, Callable[[int], None]] = {
        _ON_PATH: _observed,
        _BESIDE: _folded,
        "of that: a row with its price": _made,
        "of that: its sums": _counted,
        "of that: a value in a sketch": _sketched,
    }
    calls = scale.calls * 5
    for step in steps.values():
        step(min(calls, 1000))
    values = in_turn(scale.repeats, [partial(_timed, step, calls) for step in steps.values()])
    figures = [
        Figure(GROUP, f"{name}, CPU", "µs", value) for name, value in zip(steps, values, strict=True)
    ]
    return [*figures, *_written(scale), *_read(scale)]


def _timed(step: Callable[[int], None], calls: int) -> float:
    gc.collect()
    began = time.process_time()
    step(calls)
    return per_call(time.process_time() - began, calls)


def _records(number: int) -> tuple[AttemptRecord, CallRecord]:
    name, at = f"request-{number}", float(number)
    return (
        AttemptRecord(name, 1, "k0", "alpha", MODEL, at, at + 0.5, USED, provider="gemini"),
        CallRecord(
            name, Operation.GENERATE, MODEL, at, at + 0.5, 1, 0, 0, 0.0, "k0", Usage(), None,
            provider="gemini",
        ),
    )  # fmt: skip


def _rows(count: int, first: int = 0, apart: float = 0.1) -> list[UsageRow]:
    maker = RowMaker(_COSTS, Words())
    made = []
    for number in range(first, first + count):
        attempt, call = _records(number)
        wall = 1_795_000_000.0 + number * apart
        maker.attempt(attempt, wall)
        made.append(maker.call(call, wall).row)
    return made


_FACTS = [_records(number) for number in range(1000)]


def _observed(calls: int) -> None:
    book = UsageBook(SystemClock(), _COSTS, Words(), lambda: 86_400.0)
    attempted, called, count = book.attempt, book.call, len(_FACTS)
    for number in range(calls):
        attempt, call = _FACTS[number % count]
        attempted(attempt)
        called(call)


def _folded(calls: int) -> None:
    book = UsageBook(SystemClock(), _COSTS, Words(), lambda: 86_400.0)
    for first in range(0, calls, 1000):
        for attempt, call in _FACTS[: calls - first]:
            book.attempt(attempt)
            book.call(call)
        book.rows(last=False)


def _made(calls: int) -> None:
    maker, count = RowMaker(_COSTS, Words()), len(_FACTS)
    for number in range(calls):
        attempt, call = _FACTS[number % count]
        maker.attempt(attempt, 1_795_000_000.0)
        maker.call(call, 1_795_000_000.0)


_SOME = _rows(1000)


def _counted(calls: int) -> None:
    analytics, count = Analytics(), len(_SOME)
    for number in range(calls):
        analytics.add(_SOME[number % count], 0.0)


def _sketched(calls: int) -> None:
    sketch = Sketch()
    for number in range(calls):
        sketch.add(1.0 + number % 977)


def _written(scale: Scale) -> list[Figure]:
    """Rows a second into a file, a thousand at a time, as the writer's thread does it."""
    values = []
    for _ in range(min(3, scale.repeats)):
        with tempfile.TemporaryDirectory() as folder:
            store = SqliteUsage(Path(folder) / "usage.db")
            batches = [_rows(1000, 1000 * number) for number in range(max(1, scale.calls // 200))]
            began = time.perf_counter()
            for batch in batches:
                store.write(batch)
            took = time.perf_counter() - began
            values.append(1000 * len(batches) / took)
            store.close()
    return [Figure(GROUP, "rows written to SQLite", "/s", tuple(values))]


def _read(scale: Scale) -> list[Figure]:
    """A range out of memory: its cost must not grow with the number of calls."""
    figures = []
    for calls in (scale.calls, 10 * scale.calls):
        analytics = Analytics()
        for row in _rows(calls, apart=86_400 / calls):
            analytics.add(row, 0.0)
        series = analytics.models[MODEL]
        reads = max(1, min(50, scale.calls))
        step = partial(_timed, partial(_asked, series), reads)
        figures.append(
            Figure(
                GROUP,
                f"a day of analytics after {calls:,} calls, CPU",
                "µs",
                tuple(step() for _ in range(min(5, scale.repeats))),
            )
        )
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteUsage(Path(folder) / "usage.db")
        for first in range(0, 10 * scale.calls, 1000):
            store.write(_rows(1000, first))
        values = []
        for _ in range(min(5, scale.repeats)):
            began = time.perf_counter()
            store.sums(By.MODEL, UsageFilter())
            values.append(1e6 * (time.perf_counter() - began))
        store.close()
    figures.append(
        Figure(GROUP, f"sums over a ledger of {10 * scale.calls:,} rows", "µs", tuple(values))
    )
    few, many = figures[0], figures[1]
    return [*figures, ratio(GROUP, "a day of analytics, ten times the calls", many, few)]


def _asked(series: Series, count: int) -> None:
    for _ in range(count):
        series.between(0.0, 2e9)
