"""S3-05b: what every usage ledger keeps to: SQLite, and Postgres on a real server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from tests import postgres
from tests.support import MODEL, keys, said
from tests.unit.test_usage_ledger import row

from headgate.backend import BackendConfig, GeminiBackend, GeminiRequest
from headgate.core.errors import ConfigurationError, StoreError
from headgate.core.usage import By, UsageFilter, UsageRow, UsageStore, UsageSum
from headgate.stores.usage_postgres import PostgresUsage
from headgate.stores.usage_sqlite import SqliteUsage
from headgate.testing import ScriptedTransport
from headgate.wiring.clock import SystemClock

postgres_server = postgres.postgres_server

Open = Callable[[], UsageStore]

ALL = UsageFilter()


@pytest.fixture(params=["sqlite", "postgres"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens one and the same ledger, as often as it is called."""
    opened: list[UsageStore] = []
    url = ""
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_server").database()

    def make() -> UsageStore:
        store = PostgresUsage(url) if url else SqliteUsage(tmp_path / "usage.db")
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(opening: Open) -> UsageStore:
    return opening()


def ended(number: int, call: str = "success", **changes: object) -> UsageRow:
    return row(number, call=call, call_seconds=2.0, **changes)


def test_the_rows_of_one_request_are_found(store: UsageStore) -> None:
    store.write([row(1, attempt=1), ended(1, attempt=2, at=2000.0), ended(2), row(3)])
    found = store.following(None, 10, UsageFilter(request_id="r1"))
    assert [(one.request_id, one.attempt, one.call) for one in found] == [
        ("r1", 1, ""),
        ("r1", 2, "success"),
    ]
    assert store.newest(10, UsageFilter(request_id="r1' OR '1'='1")) == []


def test_flags_come_back_as_they_were(store: UsageStore) -> None:
    """They are kept as numbers."""
    rows = [ended(1, estimated=True), ended(2, looked_up=True), ended(3, from_cache=True), ended(4)]
    store.write(rows)
    assert store.following(None, 10, ALL) == rows


def test_s3_05b_a_row_is_kept_once(store: UsageStore) -> None:
    assert store.write([]) == 0
    assert store.write([row(1), row(2), row(1)]) == 2
    assert store.write([row(2, cost=99), row(2, attempt=2)]) == 1
    assert [(one.request_id, one.attempt, one.cost) for one in store.newest(9, ALL)] == [
        ("r2", 2, 7),
        ("r2", 1, 7),
        ("r1", 1, 7),
    ]


def test_rows_read_back_as_they_were(store: UsageStore) -> None:
    odd = row(
        1,
        estimated=True,
        cost=None,
        caller="a; DROP TABLE usage",
        key_name="k'1 ? %s",
        model="ü",
        at=1_795_000_000.123456,
        input_tokens=2**40,
        error="RateLimitExceeded",
        call="QuotaExceeded",
        call_seconds=0.25,
        retries=3,
        looked_up=True,
        from_cache=True,
        saved=2**40,
        cached_cost=1,
        output_cost=2,
        reasoning_cost=3,
    )
    store.write([odd])
    assert store.newest(1, ALL) == [odd]
    assert store.following(None, 1, ALL) == [odd]


def test_newest_by_model_caller_and_time(store: UsageStore) -> None:
    store.write([row(n, model="ab"[n % 2], caller="xyz"[n % 3]) for n in range(10)])
    assert [one.at for one in store.newest(3, UsageFilter(model="b"))] == [1009.0, 1007.0, 1005.0]
    assert [one.at for one in store.newest(9, UsageFilter(1002, 1004))] == [1003.0, 1002.0]
    chosen = UsageFilter(model="b", caller="x")
    assert [one.at for one in store.newest(9, chosen)] == [1009.0, 1003.0]


def test_pages_hold_every_row_once_also_of_one_instant(store: UsageStore) -> None:
    rows = [row(n, at=float(n // 7), attempt=n % 3 + 1) for n in range(50)]
    store.write(rows)
    after, found = None, []
    for _ in range(13):  # fifty rows, four a page
        page = store.following(after, 4, ALL)
        found += page
        after = page[-1].place
    assert store.following(after, 4, ALL) == []
    assert found == sorted(rows, key=lambda one: one.place)


def test_sums_over_periods(store: UsageStore) -> None:
    store.write([
        ended(1, at=3_600.0),
        ended(2, call="RateLimitExceeded", at=7_199.9, result="quota", cost=0, input_tokens=0,
              output_tokens=0),
        row(3, at=7_200.0, result="timeout"),
        ended(3, attempt=2, at=7_201.0, reasoning_tokens=2, cached_tokens=4, cached_cost=1,
              output_cost=3, reasoning_cost=2),
        ended(4, call="cancelled", at=86_400.0, cost=None, estimated=True),
        ended(5, attempt=0, at=86_401.0, cost=0, input_tokens=0, output_tokens=0, from_cache=True,
              saved=11, looked_up=True),
    ])  # fmt: skip
    first, second, day = store.sums(By.HOUR, ALL)
    assert first == UsageSum(
        "", 3_600.0, attempts=2, requests=2, successes=1, input_tokens=10, output_tokens=5, cost=7,
        seconds=4.0,
    )  # fmt: skip
    assert second == UsageSum(
        "", 7_200.0, attempts=2, requests=1, successes=1, input_tokens=20, cached_tokens=4,
        output_tokens=10, reasoning_tokens=2, cost=14, cached_cost=1, output_cost=3,
        reasoning_cost=2, seconds=2.0,
    )  # fmt: skip
    assert day == UsageSum(
        "", 86_400.0, attempts=1, requests=1, successes=1, cancelled=1, cached=1, input_tokens=10,
        output_tokens=5, saved=11, unpriced=1, estimated=1, seconds=2.0,
    )  # fmt: skip
    days = store.sums(By.DAY, ALL)
    assert [one.start for one in days] == [0.0, 86_400.0]
    assert (days[0].cost, days[0].failures) == (21, 1)
    assert store.sums(By.HOUR, UsageFilter(7_200, 86_400)) == [second]
    assert store.sums(By.HOUR, UsageFilter(model="other")) == []


def test_sums_over_names_the_dearest_first(store: UsageStore) -> None:
    store.write([
        ended(n, model=f"m{n % 3}", caller=f"c{n % 2}", key_name=f"k{n % 4}", cost=10**n)
        for n in range(6)
    ])  # fmt: skip
    assert [one.name for one in store.sums(By.MODEL, ALL)] == ["m2", "m1", "m0"]
    assert [(one.name, one.cost) for one in store.sums(By.CALLER, ALL)] == [
        ("c1", 101_010),
        ("c0", 10_101),
    ]
    assert [one.name for one in store.sums(By.KEY, ALL)] == ["k1", "k0", "k3", "k2"]
    assert [(one.name, one.requests) for one in store.sums(By.PROVIDER, ALL)] == [("gemini", 6)]
    assert [one.name for one in store.sums(By.MODEL, UsageFilter(caller="c0"))] == ["m1", "m2", "m0"]


def test_sums_stay_exact_beyond_the_precision_of_floats(store: UsageStore) -> None:
    store.write([ended(n, cost=2**53 + 1) for n in range(3)])
    (whole,) = store.sums(By.MODEL, ALL)
    assert whole.cost == 3 * (2**53 + 1)


def test_old_rows_are_forgotten(store: UsageStore) -> None:
    store.write([row(number) for number in range(10)])
    assert store.forget(1004) == 4
    assert store.forget(1004) == 0
    assert len(store.newest(99, ALL)) == 6


def test_what_was_written_is_there_when_it_is_opened_again(opening: Open) -> None:
    first, second = opening(), opening()
    first.write([row(1)])
    assert second.write([row(1), row(2)]) == 1
    assert len(opening().newest(9, ALL)) == 2


def test_threads_share_a_store(store: UsageStore) -> None:
    def work(who: int) -> None:
        for number in range(20):
            store.write([row(number, request_id=f"{who}:{number}")])
            store.newest(3, ALL)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.newest(999, ALL)) == 80


def test_many_may_open_a_new_ledger_at_once(opening: Open) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            opening().write([row(1)])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(opening().newest(9, ALL)) == 1


# ── Postgres alone ──────────────────────────────────────────────────────────────────────────────


def test_postgres_a_connection_that_broke_is_made_anew(postgres_server: postgres.Server) -> None:
    url = postgres_server.database()
    store = PostgresUsage(url)
    store.write([row(1)])
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with pytest.raises(StoreError, match="usage ledger in Postgres failed"):
        store.write([row(2)])
    assert store.write([row(1), row(2)]) == 1
    store.close()


def test_postgres_a_later_version_is_left_alone(postgres_server: postgres.Server) -> None:
    url = postgres_server.database()
    PostgresUsage(url).close()
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("INSERT INTO headgate_usage_version VALUES (99)")
    with pytest.raises(ConfigurationError, match="version 99"):
        PostgresUsage(url)


def test_postgres_that_cannot_be_reached_says_so_without_the_password() -> None:
    for url in (
        "postgresql://user:CANARY-pass@127.0.0.1:1/none",
        "postgresql://user:CANARY-pass@%2Fnowhere/none",
    ):
        with pytest.raises(ConfigurationError, match="cannot be opened") as caught:
            PostgresUsage(url)
        assert "CANARY" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_postgres_a_backend_writes_there_and_two_of_them_share_it(
    postgres_server: postgres.Server,
) -> None:
    url = postgres_server.database()
    config = BackendConfig(model_discovery=False, usage=url, cache_max_entries=0)

    async def work() -> None:
        for caller in ("billing", "search"):
            clock = SystemClock()
            async with GeminiBackend(
                config, keys=keys(1), transport=ScriptedTransport(lambda _: said(), clock),
                clock=clock, environ={},
            ) as backend:  # fmt: skip
                await backend.execute_gemini_enhanced(GeminiRequest("Hello", MODEL, caller=caller))
                lines = await backend.get_gemini_usage("caller")
        assert {line.name: line.total_requests for line in lines} == {"billing": 1, "search": 1}
        assert all(line.total_cost > 0 for line in lines)

    asyncio.run(work())
    store = PostgresUsage(url)
    assert {row.call for row in store.newest(9, ALL)} == {"success"}
    store.close()
