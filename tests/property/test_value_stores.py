"""Random histories: memory, and two processes on a Valkey, keep what a plain table would."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests import valkey
from tests.kept_values import InMemory, OnValkey, Place

from headgate.core.values import Sought, ValueStore
from headgate.policy.reply_cache import matches

NAMESPACES, KEYS = ("a", "ab", "b"), ("k", "kk", "x*", "ü")
PATTERNS = ("*", "k", "k*", "*k", "x*", "*ü", "q")

namespace, key = st.sampled_from(NAMESPACES), st.sampled_from(KEYS)
process, spaces = st.integers(0, 1), st.sampled_from([*NAMESPACES, "a*", "*"])
step = st.one_of(
    st.tuples(st.just("put"), process, namespace, key, st.integers(1, 50)),
    st.tuples(st.just("get"), process, namespace, key),
    st.tuples(st.just("begin"), process, namespace, key),
    st.tuples(st.just("finish"), process, namespace, key),
    st.tuples(st.just("drop"), process, namespace, key),
    st.tuples(st.just("touch"), process, namespace, key, st.integers(1, 50)),
    st.tuples(
        st.just("invalidate"),
        process,
        st.sampled_from([*NAMESPACES, "a*", "*"]),
        st.sampled_from(PATTERNS),
    ),
    st.tuples(st.just("pass"), st.integers(1, 30)),
)


class Table:
    """What every store ought to do. Times are seconds of the test."""

    def __init__(self) -> None:
        self.now = 0
        self.kept: dict[tuple[str, str], tuple[bytes, int]] = {}
        self.begun: dict[tuple[int, str, str], tuple[Sought, bool]] = {}  # and whether it still counts

    def get(self, place: tuple[str, str]) -> bytes | None:
        data, until = self.kept.get(place, (None, 0))
        return data if until > self.now else None

    def invalidate(self, spaces: str, keys: str) -> None:
        gone = [place for place in self.kept if matches(spaces, place[0]) and matches(keys, place[1])]
        for place in gone:
            del self.kept[place]
        for name, (found, _) in self.begun.items():
            if matches(spaces, name[1]):
                self.begun[name] = (found, False)


async def follow(place: Place, history: list[Any]) -> None:
    table, stores = Table(), (place.store, place.other)
    for number, (what, *rest) in enumerate(history):
        if what == "pass":
            table.now += rest[0]
            place.pass_time(rest[0])
            continue
        place.pass_time(0.000_01)  # two invalidations never fall into the same microsecond
        await act(table, stores[rest[0]], what, rest, b"%d" % number)


async def act(table: Table, store: ValueStore, what: str, rest: list[Any], data: bytes) -> None:
    who, space, name, *more = rest
    place = (space, name)
    if what == "put":
        assert await store.put(space, name, data, more[0])
        table.kept[place] = (data, table.now + more[0])
    elif what == "get":
        found = await store.get(space, name)
        assert found.data == table.get(place)
        if found.data is not None:
            assert abs(found.left - (table.kept[place][1] - table.now)) < 0.1
    elif what == "begin":
        table.begun[who, space, name] = (await store.get(space, name), True)
    elif what == "finish":
        found, counts = table.begun.pop((who, space, name), (None, False))
        if found is not None:
            # A pattern over namespaces may refuse more than it names, never less.
            kept = await store.put(space, name, data, 20, mark=found.mark)
            assert counts or not kept
            if kept:
                table.kept[place] = (data, table.now + 20)
            elif counts:
                assert table.get(place) == (await store.get(space, name)).data
    elif what == "drop":
        assert await store.drop(space, name) == (table.get(place) is not None)
        table.kept.pop(place, None)
    elif what == "touch":
        there = table.get(place) is not None
        assert await store.touch(space, name, more[0]) == there
        if there:
            table.kept[place] = (table.kept[place][0], table.now + more[0])
    else:
        await store.invalidate(space, name)
        table.invalidate(space, name)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


@given(st.lists(step, max_size=25))
@settings(max_examples=100)
def test_memory_keeps_what_a_table_would(history: list[Any]) -> None:
    run(follow(InMemory(), history))


@given(st.lists(step, max_size=25))
@settings(max_examples=40)
def test_two_processes_on_a_valkey_do_too(history: list[Any]) -> None:
    server = valkey.shared_server()
    with server.client() as client:
        client.flushall()
    place = OnValkey(server)
    place.run(follow(place, history))
