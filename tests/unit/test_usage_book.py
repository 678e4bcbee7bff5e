"""S3-05a, k: what is noted on the path is read later, once, and counts what it is."""

from __future__ import annotations

import threading

from tests.unit.test_usage_rows import WORDS, attempt, call

from headgate.core.call import Operation
from headgate.core.outcome import Kind
from headgate.policy.analytics import DAY
from headgate.telemetry.usage_book import UsageBook
from headgate.testing import VirtualClock
from headgate.wiring.model_data import gemini_prices
from headgate.wiring.usage import costs_of


def book(clock: VirtualClock, kept: float = 3600.0) -> UsageBook:
    return UsageBook(clock, costs_of(gemini_prices), WORDS, lambda: kept)


def test_a_fact_is_a_row_once_whoever_reads_first() -> None:
    made = book(VirtualClock())
    made.attempt(attempt())
    made.call(call())
    assert made.whole()["m"].requests == 1  # whoever asks reads what is in line
    assert [row.call for row in made.rows(last=False)] == ["success"]
    assert made.rows(last=True) == []
    assert made.whole()["m"].requests == 1


def test_an_attempt_whose_call_goes_on_is_a_row_after_two_rounds() -> None:
    made = book(VirtualClock())
    made.attempt(attempt(1, Kind.QUOTA_MINUTE))
    assert made.rows(last=False) == []
    assert [row.attempt for row in made.rows(last=False)] == [1]
    made.attempt(attempt(2))
    assert [row.attempt for row in made.rows(last=True)] == [2]


def test_counting_tokens_is_a_row_and_no_request() -> None:
    made = book(VirtualClock())
    made.attempt(attempt(operation=Operation.COUNT))
    made.call(call(operation=Operation.COUNT))
    made.attempt(attempt(operation=Operation.LIST, request_id="r2"))
    assert [row.operation for row in made.rows(last=True)] == ["count", "list"]
    assert made.models() == []
    assert made.calls(None, None) == []
    assert made.last_minute() == (0, 0, 0, 0.0)


def test_switched_off_it_notes_nothing_and_wakes_nobody() -> None:
    made, woken = book(VirtualClock()), []
    made.wake = lambda: woken.append(1)
    made.enabled = False
    made.attempt(attempt())
    made.call(call())
    assert (made.rows(last=True), woken) == ([], [])
    made.enabled = True
    made.call(call())
    assert len(woken) == 1


def test_a_clock_that_was_set_back_moves_the_beginning_with_it() -> None:
    """What is ours must not be read from the ledger as what was before us."""
    clock = VirtualClock()
    made = book(clock)
    began = made.since
    clock.step_wall(-DAY)
    made.attempt(attempt())
    made.call(call())
    made.rows(last=True)
    assert made.since == began - DAY


def test_a_forked_process_writes_nothing_of_its_parent_and_keeps_what_was_counted() -> None:
    made = book(VirtualClock())
    made.attempt(attempt(request_id="counted"))
    made.call(call(request_id="counted"))
    assert made.whole()["m"].requests == 1
    made.attempt(attempt(request_id="held back"))
    made.whole()
    made.attempt(attempt(request_id="in line"))
    made._lock.acquire()  # a thread that the child does not have
    made.forked()
    assert made.rows(last=True) == []
    made.attempt(attempt(request_id="own"))
    made.call(call(request_id="own"))
    assert [row.request_id for row in made.rows(last=True)] == ["own"]
    assert made.whole()["m"].requests == 2


def test_threads_note_and_read_at_once() -> None:
    made, rows = book(VirtualClock()), []

    def note(who: int) -> None:
        for number in range(300):
            name = f"{who}:{number}"
            made.attempt(attempt(request_id=name))
            made.call(call(request_id=name))

    def read() -> None:
        for _ in range(50):
            rows.extend(made.rows(last=False))
            made.whole()

    threads = [threading.Thread(target=note, args=(who,)) for who in range(3)]
    threads.append(threading.Thread(target=read))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows.extend(made.rows(last=True))
    assert sorted(row.request_id for row in rows) == sorted(
        f"{who}:{number}" for who in range(3) for number in range(300)
    )
    assert made.whole()["m"].requests == 900
