"""Rows out of facts, in stretches: every fact once, in order, whoever tells more meanwhile."""

from __future__ import annotations

import threading
from datetime import date
from pathlib import Path

from headgate.core.call import Operation, Usage
from headgate.core.outcome import Kind, Outcome
from headgate.core.records import AttemptRecord, CallRecord, WaitFor, WaitRecord
from headgate.core.usage import UsageFilter
from headgate.policy.nano_prices import NanoCost
from headgate.stores.usage_sqlite import SqliteUsage
from headgate.telemetry.usage_notes import UsageNotes
from headgate.telemetry.usage_rows import Words
from headgate.telemetry.usage_writer import UsageWriter
from headgate.testing import VirtualClock

USED = Usage(prompt=10, output=5)


def unpriced(provider: str, model: str, usage: Usage, day: date) -> NanoCost | None:
    return None


def attempt(name: str, number: int = 1, kind: Kind = Kind.SUCCESS) -> AttemptRecord:
    outcome = Outcome(kind, "", usage=USED if kind is Kind.SUCCESS else None)
    return AttemptRecord(name, number, "k1", "alpha", "m", 1.0, 2.0, outcome, caller="ann")


def call(name: str) -> CallRecord:
    return CallRecord(name, Operation.GENERATE, "m", 1.0, 3.0, 1, 0, 0, 0.0, "k1", USED, None)


async def test_more_than_a_stretch_becomes_rows_in_order(clock: VirtualClock) -> None:
    notes = UsageNotes(clock, unpriced, Words())
    woken: list[int] = []
    notes.wake = lambda: woken.append(1)
    for number in range(333):
        notes.attempt(attempt(f"r{number}"))
        notes.waiting(WaitRecord(f"r{number}", WaitFor.KEY, 1.0))
        notes.call(call(f"r{number}"))
    rows = notes.rows(last=False)
    assert [row.request_id for row in rows] == [f"r{number}" for number in range(333)]
    assert {(row.call, row.caller, row.input_tokens, row.cost) for row in rows} == {
        ("success", "ann", 10, None)
    }
    assert len(woken) == 666
    assert notes.rows(last=False) == []


async def test_an_attempt_is_held_until_its_call_goes_on_or_twice_looked_for(
    clock: VirtualClock,
) -> None:
    notes = UsageNotes(clock, unpriced, Words())
    notes.attempt(attempt("a", 1, Kind.SERVER))
    notes.attempt(attempt("b", 1, Kind.SERVER))
    assert notes.rows(last=False) == []
    notes.attempt(attempt("a", 2))
    assert [(row.request_id, row.attempt, row.call) for row in notes.rows(last=False)] == [
        ("a", 1, ""),
        ("b", 1, ""),
    ]
    assert [(row.request_id, row.attempt) for row in notes.rows(last=True)] == [("a", 2)]
    assert notes.rows(last=True) == []


def test_every_call_of_many_threads_is_in_the_ledger_once(tmp_path: Path) -> None:
    from headgate.wiring.clock import SystemClock

    notes = UsageNotes(SystemClock(), unpriced, Words())
    writer = UsageWriter(SqliteUsage(tmp_path / "usage.db"), notes, flush_seconds=0.001)
    notes.wake = writer.wake

    def tell(thread: int) -> None:
        for number in range(500):
            notes.attempt(attempt(f"{thread}.{number}"))
            notes.call(call(f"{thread}.{number}"))

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    writer.close()
    assert (writer.written, writer.dropped) == (2000, 0)
    store = SqliteUsage(tmp_path / "usage.db")
    rows = store.newest(3000, UsageFilter())
    store.close()
    assert len({row.request_id for row in rows}) == len(rows) == 2000
    assert all(row.call == "success" for row in rows)


async def test_a_forked_process_writes_nothing_of_its_parent(clock: VirtualClock) -> None:
    notes = UsageNotes(clock, unpriced, Words())
    notes.attempt(attempt("held back"))
    assert notes.rows(last=False) == []
    notes.attempt(attempt("in line"))
    notes.forked()
    notes.attempt(attempt("own"))
    notes.call(call("own"))
    assert [row.request_id for row in notes.rows(last=True)] == ["own"]
