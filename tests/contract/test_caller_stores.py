"""What every store of callers keeps to: in memory, and in a file that processes share. X-5, X-7."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from headgate.core.call import Priority
from headgate.core.callers import (
    Budget,
    BudgetWindow,
    Caller,
    CallerConflictError,
    CallerKey,
    CallerLimits,
    CallerState,
    CallerStore,
    Denied,
    Held,
    Hold,
    Settled,
    Spending,
)
from headgate.core.errors import ConfigurationError, StoreError
from headgate.policy.budget import HOLD_SECONDS
from headgate.stores.callers import MemoryCallers
from headgate.stores.callers_sqlite import SqliteCallers
from headgate.stores.sessions_sqlite import SqliteSessions
from headgate.stores.usage_sqlite import SqliteUsage

Open = Callable[[], CallerStore]

NOON = 1_795_262_400.0  # 2026-11-21T12:00:00Z
DAY = 86_400.0
A_DAY = Budget(100, BudgetWindow.DAY)


@pytest.fixture(params=["memory", "sqlite"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens one and the same store, as often as it is called."""
    opened: list[CallerStore] = [MemoryCallers()]

    def make() -> CallerStore:
        if request.param == "sqlite":
            opened.append(SqliteCallers(tmp_path / "callers.db"))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(opening: Open) -> CallerStore:
    return opening()


def caller(number: int, **changes: object) -> Caller:
    key = CallerKey(f"{number:064x}", "abcd", NOON)
    return structs.replace(Caller(f"c{number}", f"name{number}", (key,), created=NOON), **changes)


def held(store: CallerStore, *asks: Hold, now: float = NOON) -> list[Held | Denied]:
    return store.hold((), (), asks, now)


def hold(name: str, *wishes: int, budget: Budget | None = A_DAY, **more: int) -> Hold:
    return Hold(name, "c1", budget, wishes or (10,), **more)


# ── callers ─────────────────────────────────────────────────────────────────────────────────────


def test_a_caller_comes_back_as_it_was_put(opening: Open) -> None:
    whole = caller(
        1,
        expires=NOON + 5,
        priority=Priority.HIGH,
        limits=CallerLimits(60, None, 0, 3),
        budget=Budget(10**18, BudgetWindow.TOTAL),
        models=("gemini-3*",),
        surfaces=("gemini",),
        tags={"team": "søk"},
        rotated=NOON,
    )
    kept = opening().put(whole)
    again = opening()
    assert again.find("c1") == again.find("name1") == kept
    assert structs.replace(kept, version=0) == whole
    assert again.find("nobody") is None


def test_changes_are_told_in_order_and_once(opening: Open) -> None:
    one, other = opening(), opening()
    first, second = one.put(caller(1)), one.put(caller(2))
    assert other.changed(0) == [first, second]
    changed = one.put(structs.replace(first, state=CallerState.REVOKED))
    assert other.changed(second.version) == [changed]
    assert other.changed(changed.version) == []


def test_a_name_is_taken_for_good_and_an_old_version_changes_nothing(store: CallerStore) -> None:
    first = store.put(caller(1))
    with pytest.raises(CallerConflictError):
        store.put(caller(2, name="name1"))
    with pytest.raises(CallerConflictError):
        store.put(caller(1))  # its id is there already
    renamed = store.put(structs.replace(first, name="other"))
    with pytest.raises(CallerConflictError):
        store.put(structs.replace(first, name="third"))  # of the version before
    assert store.page("", 10) == [renamed]


def test_pages_go_by_name(store: CallerStore) -> None:
    for number in (3, 1, 2):
        store.put(caller(number))
    assert [one.name for one in store.page("", 2)] == ["name1", "name2"]
    assert [one.name for one in store.page("name2", 2)] == ["name3"]


# ── money ───────────────────────────────────────────────────────────────────────────────────────


def test_the_first_wish_that_fits_is_held(store: CallerStore) -> None:
    assert held(store, hold("a", 80, 20), hold("b", 80, 20), hold("c", 80, 20)) == [
        Held(80),
        Held(20),
        Denied(False, 0, 100),
    ]
    assert store.spending("c1", BudgetWindow.DAY, NOON) == Spending(0, 100, 2, 0)


def test_what_ended_is_booked_once_and_gives_back_the_rest(opening: Open) -> None:
    one, other = opening(), opening()
    held(one, hold("a", 60))
    settled = [Settled("a", 25)]
    assert other.hold(settled, (), (), NOON) == []
    other.hold(settled, (), (), NOON)
    assert one.spending("c1", BudgetWindow.DAY, NOON) == Spending(25, 0, 0, 0)
    assert held(one, hold("b", 75)) == [Held(75)]
    one.hold([Settled("b", 0, unpriced=True)], (), (), NOON)
    assert other.spending("c1", BudgetWindow.DAY, NOON) == Spending(25, 0, 0, 1)


def test_a_call_that_costs_nothing_needs_a_budget_that_is_not_used_up(store: CallerStore) -> None:
    held(store, hold("a", 100))
    assert held(store, hold("b", 0)) == [Denied(False, 0, 100)]


def test_windows_begin_anew_and_a_call_belongs_to_the_one_it_began_in(store: CallerStore) -> None:
    held(store, hold("a", 90))
    tomorrow = NOON + DAY
    assert held(store, hold("b", 90), now=tomorrow) == [Held(90)]
    store.hold([Settled("a", 40), Settled("b", 50)], (), (), tomorrow)
    assert store.spending("c1", BudgetWindow.DAY, NOON).spent == 40
    assert store.spending("c1", BudgetWindow.DAY, tomorrow).spent == 50
    monthly = Hold("c", "c1", Budget(100, BudgetWindow.MONTH), (100,))
    assert held(store, monthly) == [Held(100)]  # another window is another sum


def test_callers_have_books_of_their_own(store: CallerStore) -> None:
    held(store, hold("a", 100))
    assert held(store, structs.replace(hold("b", 100), caller="c2")) == [Held(100)]


def test_what_a_dead_process_held_stays_spent(opening: Open) -> None:
    """Nobody knows what its call used, so it counts at its worst, for good."""
    held(opening(), hold("a", 70))
    later = NOON + 2 * HOLD_SECONDS
    assert held(opening(), hold("b", 40), now=later) == [Denied(False, 0, 70)]
    assert opening().spending("c1", BudgetWindow.DAY, later) == Spending(0, 70, 0, 0)


# ── places ──────────────────────────────────────────────────────────────────────────────────────


def test_calls_at_a_time_are_counted_over_processes(opening: Open) -> None:
    one, other = opening(), opening()
    ask = [hold(name, budget=None, concurrent=2) for name in "abc"]
    assert held(one, ask[0]) == held(other, ask[1]) == [Held()]
    assert held(one, ask[2]) == [Denied(True)]
    other.hold([Settled("b")], (), (), NOON)
    assert held(one, ask[2]) == [Held()]


def test_a_place_lapses_unless_it_is_renewed(store: CallerStore) -> None:
    held(store, hold("a", budget=None, concurrent=1))
    soon, later = NOON + HOLD_SECONDS - 1, NOON + HOLD_SECONDS + 1
    store.hold((), ("a", "gone"), (), soon)
    assert held(store, hold("b", budget=None, concurrent=1), now=later) == [Denied(True)]
    assert held(store, hold("b", budget=None, concurrent=1), now=soon + HOLD_SECONDS + 1) == [Held()]


# ── the file ────────────────────────────────────────────────────────────────────────────────────


def test_the_file_is_its_owners_and_refused_where_it_is_everybodys(tmp_path: Path) -> None:
    """X-10: the mode is enforced."""
    path = tmp_path / "callers.db"
    store = SqliteCallers(path)
    store.put(caller(1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    store.close()
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod"):
        SqliteCallers(path).changed(0)


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    SqliteUsage(tmp_path / "usage.db").close()
    sessions = SqliteSessions(tmp_path / "sessions.db")
    sessions.expire(0.0)
    sessions.close()
    (tmp_path / "text.db").write_text("no database at all, and long enough to be looked at" * 20)
    for name in ("usage.db", "sessions.db", "text.db"):
        (tmp_path / name).chmod(0o600)
        with pytest.raises(ConfigurationError, match="cannot be opened"):
            SqliteCallers(tmp_path / name).changed(0)


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "callers.db"
    store = SqliteCallers(path)
    store.put(caller(1))
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigurationError, match="version 99"):
        SqliteCallers(path).changed(0)


@pytest.mark.parametrize("path", ["nowhere/callers.db", "."])
def test_a_path_that_cannot_be_one_is_said_at_once(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigurationError, match="HEADGATE_CALLERS"):
        SqliteCallers(tmp_path / path)


def test_a_file_that_is_locked_fails_and_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.stores.callers_sqlite._BUSY_SECONDS", 0.01)
    store = SqliteCallers(tmp_path / "callers.db")
    store.changed(0)
    other = sqlite3.connect(tmp_path / "callers.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        held(store, hold("a"))
    other.execute("ROLLBACK")
    other.close()
    assert held(store, hold("a", 100)) == [Held(100)]
    store.close()


def test_what_died_long_ago_is_booked_where_a_process_begins(tmp_path: Path) -> None:
    store = SqliteCallers(tmp_path / "callers.db")
    held(store, hold("a", 70), hold("b", 5))
    store.close()
    again = SqliteCallers(tmp_path / "callers.db")
    again.hold([Settled("b", 1)], (), (), NOON + 2 * DAY)
    assert again.spending("c1", BudgetWindow.DAY, NOON) == Spending(75, 0, 0, 0)
    again.close()


def test_a_process_that_was_forked_has_a_connection_of_its_own(tmp_path: Path) -> None:
    store = SqliteCallers(tmp_path / "callers.db")
    store.put(caller(1))
    child = os.fork()
    if not child:
        ended = 1
        try:
            store.put(caller(2))
            ended = 0
        finally:
            os._exit(ended)
    assert os.waitpid(child, 0)[1] == 0
    assert [one.name for one in store.page("", 10)] == ["name1", "name2"]
    store.close()


def test_processes_that_ask_at_once_hold_no_more_than_there_is(tmp_path: Path) -> None:
    """Four connections, each as a process of its own would have one, draw on one budget."""
    stores = [SqliteCallers(tmp_path / "callers.db") for _ in range(4)]
    granted: list[int] = []

    def draw(number: int) -> None:
        for turn in range(20):
            name = f"{number}-{turn}"
            (verdict,) = held(stores[number], hold(name, 3))
            if isinstance(verdict, Held):
                granted.append(1)
                stores[number].hold([Settled(name, 2)], (), (), NOON)

    threads = [threading.Thread(target=draw, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = stores[0].spending("c1", BudgetWindow.DAY, NOON)
    assert (found.spent, found.held) == (2 * len(granted), 0)
    assert 98 <= found.spent <= 100
    for store in stores:
        store.close()
