"""What every `ValueStore` does, in memory and on a real Valkey (S4-10, S4-13, S4-15)."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from tests import valkey
from tests.kept_values import InMemory, OnValkey, Place

from headgate.core.errors import StoreError
from headgate.stores.values import MemoryValues
from headgate.stores.values_valkey import ValkeyValues
from headgate.testing import VirtualClock

valkey_server = valkey.valkey_server

NAMESPACE, KEY = "subtopics", "f(topic='Python')"


@pytest.fixture(params=["memory", "valkey"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "memory":
        yield InMemory()
    else:
        yield OnValkey(request.getfixturevalue("valkey_server"))


def test_what_is_kept_is_found_until_its_time_is_up(place: Place) -> None:
    """By every user of the store, whatever its bytes; and what is kept anew takes the place."""

    async def test() -> None:
        missed = await place.store.get(NAMESPACE, KEY)
        assert (missed.data, missed.token, missed.claimed, missed.alone) == (None, None, False, False)
        for number, data in enumerate([b"", b"\x00\xff", b"x" * 20_000]):
            assert await place.store.put(NAMESPACE, KEY, data, 60.0, mark=missed.mark), number
            for user in (place.other, place.store, place.other):
                found = await user.get(NAMESPACE, KEY)
                assert found.data == data
                assert found.left == pytest.approx(60.0, abs=0.01)
        assert (await place.other.get(NAMESPACE, "another")).data is None
        assert (await place.other.get("another", KEY)).data is None
        place.pass_time(59)
        assert (await place.other.get(NAMESPACE, KEY)).left == pytest.approx(1.0, abs=0.01)
        place.pass_time(1.1)
        for user in (place.store, place.other):
            assert (await user.get(NAMESPACE, KEY)).data is None

    place.run(test())


def test_ten_years_are_for_ever(place: Place) -> None:
    async def test() -> None:
        assert await place.store.put(NAMESPACE, KEY, b"1", float("inf"))
        place.pass_time(9 * 365 * 86_400)
        assert (await place.other.get(NAMESPACE, KEY)).data == b"1"
        assert await place.other.touch(NAMESPACE, KEY, float("inf"))
        place.pass_time(9 * 365 * 86_400)
        assert (await place.store.get(NAMESPACE, KEY)).data == b"1"

    place.run(test())


def test_a_touch_lets_it_last(place: Place) -> None:
    async def test() -> None:
        assert not await place.store.touch(NAMESPACE, KEY, 60)
        await place.store.put(NAMESPACE, KEY, b"1", 60)
        place.pass_time(50)
        assert await place.other.touch(NAMESPACE, KEY, 60)
        place.pass_time(50)
        for user in (place.store, place.other):
            assert (await user.get(NAMESPACE, KEY)).data == b"1"
        place.pass_time(11)
        assert not await place.store.touch(NAMESPACE, KEY, 60)
        assert (await place.store.get(NAMESPACE, KEY)).data is None

    place.run(test())


def test_one_gets_the_right_to_make_it(place: Place) -> None:
    """Until it is given back, with a value or without, or lapses; where a value is nobody gets it."""

    async def test() -> None:
        store, other = place.store, place.other
        first = await store.get(NAMESPACE, KEY, claim=30)
        assert first.token
        assert (await other.get(NAMESPACE, KEY, claim=30)).claimed
        assert (await other.get(NAMESPACE, "another", claim=30)).token
        await other.release(NAMESPACE, KEY, "somebody else's")
        assert await store.renew(NAMESPACE, KEY, first.token, 30)
        assert not await other.renew(NAMESPACE, KEY, "somebody else's", 30)
        await store.release(NAMESPACE, KEY, first.token)
        second = await other.get(NAMESPACE, KEY, claim=30)
        assert second.token
        await store.release(NAMESPACE, KEY, first.token)
        assert (await store.get(NAMESPACE, KEY, claim=30)).claimed, "a late release takes nothing away"
        await other.release(NAMESPACE, KEY, second.token)
        brief = await other.get(NAMESPACE, KEY, claim=0.001)
        assert brief.token
        place.pass_time(0.002)
        third = await store.get(NAMESPACE, KEY, claim=30)
        while third.token is None:  # a server counts this in its own milliseconds
            third = await store.get(NAMESPACE, KEY, claim=30)
        assert not await other.renew(NAMESPACE, KEY, brief.token, 30), "it lapsed"
        assert await store.put(NAMESPACE, KEY, b"1", 60, mark=third.mark, token=third.token)
        found = await other.get(NAMESPACE, KEY, claim=30)
        assert (found.data, found.token, found.claimed) == (b"1", None, False)

    place.run(test())


def test_what_is_dropped_is_given_by_nobody(place: Place) -> None:
    """Also by a process that holds a copy of it."""

    async def test() -> None:
        await place.store.put(NAMESPACE, KEY, b"1", 60)
        assert (await place.other.get(NAMESPACE, KEY)).data == b"1"
        assert await place.store.drop(NAMESPACE, KEY)
        assert (await place.other.get(NAMESPACE, KEY)).data is None
        assert not await place.other.drop(NAMESPACE, KEY)

    place.run(test())


GLOBS = [
    ("subtopics", "*", ["a", "b.c", "b*d", "[x]?\\y", "ü「」"]),
    ("subtopics", "b*", ["b.c", "b*d"]),
    ("subtopics", "*c", ["b.c"]),
    ("subtopics", "b*d", ["b*d"]),
    ("subtopics", "[x]?\\y", ["[x]?\\y"]),
    ("subtopics", "[a-z]*", []),
    ("subtopics", "?", []),
    ("subtopics", "*ü*", ["ü「」"]),
    ("sub*", "a", ["a"]),
    ("*", "*", ["a", "b.c", "b*d", "[x]?\\y", "ü「」"]),
    ("topics", "*", []),
    ("*topics\nb", "*", []),
]


@pytest.mark.parametrize(("namespace", "glob", "gone"), GLOBS)
def test_s4_13_globs_are_over_readable_keys(
    place: Place, namespace: str, glob: str, gone: list[str]
) -> None:
    """A star stands for anything, every other character for itself; other namespaces keep theirs."""
    keys = ["a", "b.c", "b*d", "[x]?\\y", "ü「」"]

    async def test() -> None:
        for key in keys:
            await place.store.put("subtopics", key, key.encode(), 60)
            assert (await place.other.get("subtopics", key)).data == key.encode()
        await place.store.put("explanations", "zz", b"1", 60)
        everything = namespace == "*"
        assert await place.store.invalidate(namespace, glob) == len(gone) + everything
        for user in (place.other, place.store):
            for key in keys:
                assert ((await user.get("subtopics", key)).data is None) == (key in gone), key
            assert ((await user.get("explanations", "zz")).data is None) == everything

    place.run(test())


@pytest.mark.parametrize(
    ("namespace", "glob"), [(NAMESPACE, "*"), (NAMESPACE, "f(*"), ("*", "*"), ("sub*", "*")]
)
def test_s4_13_what_was_being_made_meanwhile_is_refused(
    place: Place, namespace: str, glob: str
) -> None:
    async def test() -> None:
        before = await place.other.get(NAMESPACE, KEY, claim=30)
        elsewhere = await place.other.get("explanations", KEY, claim=30)
        place.pass_time(0.001)
        await place.store.invalidate(namespace, glob)
        put = place.other.put
        assert not await put(NAMESPACE, KEY, b"old", 60, mark=before.mark, token=before.token or "")
        assert (await place.store.get(NAMESPACE, KEY)).data is None
        after = await place.other.get(NAMESPACE, KEY, claim=30)
        assert after.token, "the right was given back with it"
        assert await put(NAMESPACE, KEY, b"new", 60, mark=after.mark, token=after.token)
        kept = await place.other.put("explanations", KEY, b"1", 60, mark=elsewhere.mark)
        assert kept or "*" in namespace, "another namespace is none of its business"

    place.run(test())


def test_memory_is_bounded_by_number_and_bytes() -> None:
    async def test() -> None:
        clock = VirtualClock()
        few = MemoryValues(clock, most_entries=3, most_bytes=10**6)
        for number in range(10):
            await few.put("n", str(number), b"x", 60)
        assert [n for n in range(10) if (await few.get("n", str(n))).data] == [7, 8, 9]
        small = MemoryValues(clock, most_entries=100, most_bytes=20_000)
        for number in range(10):
            assert await small.put("n", str(number), b"x" * 4000, 60)
            assert small.figures().bytes <= 20_000
        assert small.figures().evicted == 6
        assert not await small.put("n", "large", b"x" * 6000, 60), "more than a quarter of all the room"
        long = "k" * 3000
        before = small.figures().bytes
        await small.put("n", long, b"", 60)
        assert small.figures().bytes - before > 0 or small.figures().evicted > 6, "keys take room too"
        await small.drop("n", long)
        await small.invalidate("*")
        assert (small.figures().bytes, small.figures().entries) == (0, 0)

    InMemory().run(test())


# ── what only a shared store can show ───────────────────────────────────────────────────────────────


def test_s4_10_a_copy_leaves_memory_before_the_store(valkey_server: valkey.Server) -> None:
    """The copy after its own time; the value is fetched again for the rest of its."""
    place = OnValkey(valkey_server)
    store = place.opened(longest=60)

    async def test() -> None:
        await place.other.put(NAMESPACE, KEY, b"1", 120)
        assert not (await store.get(NAMESPACE, KEY)).local
        assert (await store.get(NAMESPACE, KEY)).local
        place.pass_time(61)
        found = await store.get(NAMESPACE, KEY)
        assert (found.data, found.local) == (b"1", False)
        assert (await store.get(NAMESPACE, KEY)).local

    place.run(test())


def test_the_server_is_bounded_and_rooms_are_apart(valkey_server: valkey.Server) -> None:
    """A full room drops what would leave next, and no other's."""
    place = OnValkey(valkey_server)
    small, sessions = place.opened(shared=30_000), place.opened(room="sessions")

    async def test() -> None:
        assert await sessions.put("visitor", "a", b"x", 10)
        for number in range(20):
            await small.put("n", str(number), b"%d" % number + b"x" * 4000, 100 + number)
        share = await small.share()
        assert share.bytes <= 30_000
        assert share.entries == 20 - sum(
            [(await place.other.get("n", str(n))).data is None for n in range(20)]
        )
        assert (await place.other.get("n", "19")).data
        assert (await place.other.get("n", "0")).data is None
        assert (await sessions.get("visitor", "a")).data == b"x"

    place.run(test())


def test_what_cannot_be_read_is_a_miss(
    valkey_server: valkey.Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut, flipped or misplaced: it is dropped, counted, and told once."""
    place = OnValkey(valkey_server)

    async def test() -> None:
        for damage in (
            lambda value: value[:-1],
            lambda value: value[:16] + b"\xff" + value[17:],
            lambda value: value[:16],
            lambda value: b"junk",
        ):
            await place.store.put(NAMESPACE, KEY, b"value", 60)
            with valkey_server.client() as client:
                (name,) = client.keys("{headgate:values:test:*}e")
                (field, value), *_ = client.hgetall(name).items()
                client.hset(name, field, damage(value))
            assert (await place.other.get(NAMESPACE, KEY)).data is None
            found = await place.other.get(NAMESPACE, KEY, claim=30)
            assert found.token, "it was dropped"
            await place.other.release(NAMESPACE, KEY, found.token)
        assert place.other.figures().corrupt == 2

    place.run(test())
    assert sum("corrupt_entry" in line for line in caplog.messages) == 1


def test_s4_15_without_the_server_memory_serves_and_it_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning; a miss costs no waiting; what was kept meanwhile is given by this process; back
    again, the server alone says what there is, but what it never heard of is told as such."""
    server = valkey.Server()
    try:
        place = OnValkey(server.start())

        async def test() -> None:
            store = place.store
            await store.put(NAMESPACE, KEY, b"shared", 600)
            server.kill()
            found = await store.get(NAMESPACE, KEY)
            assert (found.data, found.alone) == (b"shared", True)
            for refused in (store.invalidate("*"), store.drop(NAMESPACE, KEY), store.share()):
                with pytest.raises(StoreError):
                    await refused
            missed = await store.get(NAMESPACE, "b", claim=30)
            assert (missed.data, missed.alone) == (None, True)
            assert missed.token
            assert (await store.get(NAMESPACE, "b", claim=30)).claimed, "one makes it, alone too"
            assert await store.renew(NAMESPACE, "b", missed.token, 30)
            assert await store.put(NAMESPACE, "b", b"2", 60, mark=missed.mark, token=missed.token)
            assert (await store.get(NAMESPACE, "b")).data == b"2"
            given_back = await store.get(NAMESPACE, "c", claim=30)
            await store.release(NAMESPACE, "c", given_back.token or "")
            assert (await store.get(NAMESPACE, "c", claim=30)).token
            assert store.figures().failed > 0
            server.start()
            place.pass_time(2)
            found = await store.get(NAMESPACE, "b")
            assert (found.data, found.unsent, found.alone) == (None, b"2", False)
            assert await store.put(NAMESPACE, "b", b"3", 60)
            assert (await place.other.get(NAMESPACE, "b")).data == b"3"

        place.run(test())
    finally:
        server.close()
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1, [record.message for record in told]


def test_rooms_beside_each_other_share_connections_and_what_they_know(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One says for all of them that the store is away; closing one leaves the others open."""
    server = valkey.Server()
    try:
        place = OnValkey(server.start())
        first = place.opened(room="first")
        rooms = [
            first,
            place.opened(room="second", beside=first),
            place.opened(room="third", beside=first),
        ]

        async def test() -> None:
            for room in rooms:
                await room.put(NAMESPACE, KEY, b"1", 60)
            assert [(await room.share()).entries for room in rooms] == [1, 1, 1]
            with server.client() as client:
                assert client.info("clients")["connected_clients"] == 2, "one of them is the test's"
            await rooms[0].aclose()
            assert (await rooms[1].get(NAMESPACE, KEY)).data == b"1"
            server.kill()
            for _ in range(5):
                for room in rooms[1:]:
                    assert (await room.get(NAMESPACE, KEY)).alone

        place.run(test())
    finally:
        server.close()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_a_text_of_it_shows_no_password() -> None:
    clock = VirtualClock()
    memory = MemoryValues(clock, most_entries=1, most_bytes=1)
    values = ValkeyValues(
        "redis://:CANARY@host:1/0", room="r", memory=memory, most_shared_bytes=1, clock=clock,
        chance=lambda: 0.5,
    )  # fmt: skip
    assert "CANARY" not in repr(values)
