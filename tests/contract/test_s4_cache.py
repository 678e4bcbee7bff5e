"""The layered cache and its decorator (S4-10, S4-12, S4-13, S4-15)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import valkey
from tests.kept_values import InMemory, OnValkey, Place

from headgate.content.cache import LayeredCache, open_cache
from headgate.content.cache_forms import decoded, encoded, readable
from headgate.content.cache_settings import CacheSettings, load_cache_settings
from headgate.content.cached_function import get_multi_cache, multi_layer_cached
from headgate.content.ports import Layers, NoLayers
from headgate.core.errors import ConfigurationError, StoreError
from headgate.stores.values import MemoryValues
from headgate.testing import VirtualClock

valkey_server = valkey.valkey_server


def in_memory(clock: VirtualClock, **more: Any) -> LayeredCache:
    return LayeredCache(MemoryValues(clock, most_entries=1000, most_bytes=10**7), clock, **more)


@pytest.fixture(params=["memory", "valkey"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "memory":
        yield InMemory()
    else:
        yield OnValkey(request.getfixturevalue("valkey_server"))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
@settings(max_examples=60)
def test_any_json_value_comes_back_as_it_was(value: Any) -> None:
    data = encoded(value)
    assert data is not None
    again = decoded(data)
    assert again == value
    assert repr(again) == repr(value), "True is not 1, and 1 not 1.0"


@given(st.text(max_size=400))
@settings(max_examples=60)
def test_a_key_is_readable_bounded_and_its_own(text: str) -> None:
    key = readable(text)
    assert len(key) <= 300
    assert readable(key) == key
    key.encode()
    assert not any(ord(sign) < 32 for sign in key)
    assert readable(text + "x") != key


async def test_s4_12_falsy_values_are_kept(clock: VirtualClock) -> None:
    cache, made = in_memory(clock), 0

    @multi_layer_cached(cache, namespace="subtopics", ttl=7200)
    async def function(number: int) -> Any:
        nonlocal made
        made += 1
        return [None, False, 0, "", [], {}, 0.0][number]

    for number, value in enumerate([None, False, 0, "", [], {}, 0.0]):
        for _ in range(3):
            result = await function(number)
            assert result == value
            assert type(result) is type(value)
    assert made == 7
    await clock.sleep(7201)
    await function(0)
    assert made == 8


async def test_s4_12_failures_are_not_kept(clock: VirtualClock) -> None:
    cache, made = in_memory(clock), 0

    @multi_layer_cached(cache, "subtopics", 60)
    async def function() -> int:
        nonlocal made
        made += 1
        if made < 3:
            raise ValueError(f"failure {made}")
        return made

    for number in (1, 2):
        with pytest.raises(ValueError, match=f"failure {number}"):
            await function()
    assert [await function(), await function()] == [3, 3]


def test_s4_12_many_at_once_make_one(place: Place) -> None:
    """In one process, and among those who share the store; a failure reaches those of its process."""
    made: list[str] = []

    async def test() -> None:
        caches = [LayeredCache(store, place.clock) for store in (place.store, place.other)]

        async def make(name: str) -> dict[str, str]:
            made.append(name)
            for _ in range(20):
                await asyncio.sleep(0)  # noqa: TID251 - lets the others come
            return {"made": name}

        asked = [
            cache.get_or_make("n", "k", 60, lambda name=f"{number}": make(name))
            for number in range(10)
            for cache in caches
        ]
        kept = await asyncio.gather(*asked)
        assert len(made) == 1
        assert {one.value["made"] for one in kept} == set(made)
        assert sum(not one.hit for one in kept) == 1, "the others spent nothing"
        assert kept[0].value is not kept[2].value, "what one caller changes is no other's"
        stats = [cache.stats()["operations"]["set"]["success"] for cache in caches]
        assert sum(stats) == 1

    place.run(test())


class Elsewhere(MemoryValues):
    """A store that instances share, as far as rights to make a value go."""

    remote = True


async def test_a_right_is_held_for_as_long_as_the_making_takes(clock: VirtualClock) -> None:
    """A minute and more, while the other instance waits; who dies keeps the others waiting for ten
    seconds, no longer."""
    store = Elsewhere(clock, most_entries=100, most_bytes=10**6)
    one, two = LayeredCache(store, clock), LayeredCache(store, clock)
    made: list[str] = []

    async def make(name: str) -> str:
        made.append(name)
        await clock.sleep(75)
        return name

    asked = [cache.get_or_make("n", "k", 600, lambda name=name: make(name))
             for cache, name in ((one, "one"), (two, "two"))]  # fmt: skip
    kept = await asyncio.gather(*asked)
    assert [each.value for each in kept] == made * 2
    assert len(made) == 1
    assert (await store.get("n", "another", claim=10)).token, "of one who dies"
    before = clock.monotonic()
    assert (await two.get_or_make("n", "another", 600, lambda: make("two"))).value == "two"
    assert 85 <= clock.monotonic() - before < 86


async def test_who_leaves_takes_nothing_from_the_others(clock: VirtualClock) -> None:
    cache, made = in_memory(clock), 0

    async def make() -> int:
        nonlocal made
        made += 1
        await clock.sleep(10)
        return made

    async with asyncio.TaskGroup() as group:
        first = group.create_task(cache.get_or_make("n", "k", 60, make))
        second = group.create_task(cache.get_or_make("n", "k", 60, make))
        await clock.sleep(1)
        first.cancel()
        assert (await second).value == 1
    # And where all leave, the next begins at once.
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await cache.get_or_make("n", "other", 60, make)
    before = clock.monotonic()
    assert (await cache.get_or_make("n", "other", 60, make)).value == 3
    assert clock.monotonic() - before == pytest.approx(10, abs=0.1)


def test_s4_12_plain_functions_too() -> None:
    """Falsy values, one of many threads at once, the caller's own thread, and failures."""
    clock = VirtualClock()
    cache = in_memory(clock)
    made: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    @multi_layer_cached(cache, namespace="plain", ttl=60)
    def function(number: int, *, fails: bool = False) -> Any:
        """Described."""
        made.append(threading.get_ident())
        if fails:
            raise ValueError(number)
        if number:
            begun.set()
            assert go_on.wait(10)
        return (number, None)

    assert function.__doc__ == "Described."
    assert [function(0), function(number=0)] == [[0, None], [0, None]]
    assert made == [threading.get_ident()]
    for _ in range(2):
        with pytest.raises(ValueError, match="5"):
            function(5, fails=True)
    assert len(made) == 3
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(function(7))) for _ in range(5)]
    threads[0].start()
    assert begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert results == [[7, None]] * 5
    assert len(made) == 4
    with pytest.raises(TypeError, match="missing a required argument"):
        function()
    asyncio.run(cache.aclose())


async def test_equal_arguments_are_one_key_however_they_are_given(clock: VirtualClock) -> None:
    cache, made = in_memory(clock), []

    @multi_layer_cached(cache, namespace="n", ttl=60)
    async def function(topic: str, *more: int, language: str = "en", **rest: Any) -> int:
        made.append(topic)
        return len(made)

    same = [
        await function("a"),
        await function(topic="a"),
        await function("a", language="en"),
    ]
    assert same == [1, 1, 1]
    others = [
        await function("b"),
        await function("a", 1),
        await function("a", language="de"),
        await function("a", x={"q": [1], "p": None}),
        await function("a', language='en"),
        await function("a", data=b"\x00"),
        await function("a", data=b"\x01"),
    ]
    assert others == [2, 3, 4, 5, 6, 7, 8]
    assert await function("a", x={"p": None, "q": [1]}) == 5
    with pytest.raises(TypeError, match="key="):
        await function("a", x=object())

    @multi_layer_cached(cache, namespace="n", ttl=60)
    async def another(topic: str) -> str:
        return "another"

    assert await another("a") == "another", "two functions in one namespace"

    class Writer:
        @multi_layer_cached(cache, namespace="n", ttl=60, key=lambda self, topic: f"Writer:{topic}")
        async def write(self, topic: str) -> str:
            return topic

    assert await Writer().write("x") == await Writer().write("x") == "x"
    with pytest.raises(TypeError, match="yields"):

        @multi_layer_cached(cache, namespace="n")
        async def pieces() -> Any:
            yield 1


async def test_s4_13_invalidation_by_namespace_and_by_readable_key(clock: VirtualClock) -> None:
    cache, made = in_memory(clock), 0

    @multi_layer_cached(cache, namespace="subtopics", ttl=7200)
    async def subtopics(topic: str, language: str = "en") -> int:
        nonlocal made
        made += 1
        return made

    for topic in ("Python", "Pythagoras", "Rust", "Пайтон"):
        await subtopics(topic)
    await subtopics("Python", "de")
    assert await cache.invalidate("subtopics", '*topic="Pyth*') == 3
    assert [await subtopics("Rust"), await subtopics("Пайтон")] == [3, 4]
    assert await subtopics("Python") == 6
    assert await cache.invalidate("subtopics", '*language="de"*') == 0, "it went with the first"
    assert await cache.invalidate("subtopics", "*Пайтон*") == 1
    assert await cache.invalidate("explanations") == 0
    assert await cache.invalidate("subtopics") == 2
    await subtopics("Rust")
    joined = MemoryValues(clock, most_entries=10, most_bytes=10**6)
    await joined.put("results", "k", b"1", 60)
    cache.join(joined)
    assert await cache.clear() == 2
    assert (await joined.get("results", "k")).data is None
    assert (await cache.get("subtopics", "x")) is None


async def test_what_json_cannot_hold_is_given_and_not_kept(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    cache = in_memory(clock)
    for value in (object(), float("nan"), {1, 2}):

        async def make(value: Any = value) -> Any:
            return value

        for _ in range(2):
            assert (await cache.get_or_make("n", "k", 60, make)).value is value
    assert sum("not_kept" in line for line in caplog.messages) == 1

    async def pair() -> Any:
        return (1, {"a": (2,)})

    assert (await cache.get_or_make("n", "pair", 60, pair)).value == [1, {"a": [2]}]
    assert (await cache.get_or_make("n", "brief", 0, pair)).value == [1, {"a": [2]}]
    assert await cache.get("n", "brief") is None, "no time to live: not kept"
    for namespace in ("", "a*", "a\nb"):
        with pytest.raises(ValueError, match="namespace"):
            await cache.get(namespace, "k")


async def test_what_is_popular_is_made_anew_before_its_time_is_up(clock: VirtualClock) -> None:
    """By one, in the background, and only near its end; a failure takes nothing away."""
    cache, made = in_memory(clock, popular=10), 0

    async def make() -> int:
        nonlocal made
        made += 1
        await clock.sleep(5)
        if made == 3:
            raise ValueError
        return made

    async def asked(times: int) -> set[int]:
        return {(await cache.get_or_make("n", "k", 1000, make)).value for _ in range(times)}

    assert await asked(30) == {1}
    await clock.sleep(890)
    assert await asked(30) == {1}
    assert made == 1, "popular, but not near its end"
    await clock.sleep(50)
    before = clock.monotonic()
    assert await asked(5) == {1}
    assert clock.monotonic() == before, "nobody waits"
    await clock.sleep(6)
    assert (made, await asked(2)) == (2, {2})
    await clock.sleep(950)
    assert await asked(3) == {2}
    await clock.sleep(6)
    assert made == 2, "not popular in this life"
    assert await asked(1) == {2}
    await clock.sleep(6)
    assert (made, await asked(1)) == (3, {2}), "it failed, and what there was stays"
    await clock.sleep(100)
    assert await asked(1) == {4}
    quiet = in_memory(clock)
    for _ in range(20):
        await quiet.get_or_make("n", "k", 10, make)
    await clock.sleep(9.5)
    await quiet.get_or_make("n", "k", 10, make)
    await clock.sleep(6)
    assert made == 5, "nothing of it unless it is switched on"
    await cache.aclose()


async def test_stats_speak_the_accepted_words(clock: VirtualClock) -> None:
    seen: list[tuple[str, str]] = []
    cache = in_memory(clock, seen=lambda operation, result, _: seen.append((operation, result)))
    await cache.get("n", "k")
    await cache.put("n", "k", 1)
    for _ in range(7):
        await cache.get("n", "k")
    assert await cache.delete("n", "k")
    assert not await cache.delete("n", "k")
    stats = cache.stats()
    assert (stats["hits"], stats["misses"], stats["hit_rate"]) == (7, 1, 87.5)
    assert stats["operations"] == {
        "get": {"hit": 7, "miss": 1, "failure": 0},
        "set": {"success": 1, "failure": 0},
        "delete": {"success": 2, "failure": 0},
    }
    assert stats["layers"]["memory"]["items"] == 0
    assert stats["layers"]["redis"] is None
    assert seen[:3] == [("get", "miss"), ("set", "success"), ("get", "hit")]
    assert not (await cache.state()).enabled
    assert await NoLayers().get("n", "k") is None


def test_s4_10_layers_are_told_apart(valkey_server: valkey.Server) -> None:
    """Memory, else the shared store; invalidated by one instance it is gone for the other."""
    place = OnValkey(valkey_server)

    async def test() -> None:
        one, two = (LayeredCache(store, place.clock) for store in (place.store, place.other))

        async def make() -> str:
            return "made"

        layers = [
            (await cache.get_or_make("subtopics", "k", 7200, make)).layer
            for cache in (one, one, two, two)
        ]
        assert layers == [None, "memory", "redis", "memory"]
        assert await one.invalidate("subtopics", "k") == 1
        assert await two.get("subtopics", "k") is None
        await one.put("subtopics", "k", "made")
        state = await two.state()
        assert state.answers
        assert state.seconds is not None
        shared = two.stats()["layers"]["redis"]
        assert (shared["items"], shared["failed"]) == (1, 0)
        assert shared["bytes"] > 256

    place.run(test())


def test_s4_15_a_store_that_is_away_is_no_error() -> None:
    """Nobody listens there: memory serves, and only an invalidation says that it could not."""

    async def test() -> None:
        settings = load_cache_settings({"REDIS_PORT": str(valkey.free_port())})
        cache: Layers = open_cache(settings)
        try:

            async def make() -> str:
                return "made"

            assert [(await cache.get_or_make("n", "k", 60, make)).hit for _ in range(2)] == [
                False,
                True,
            ]
            await cache.put("n", "other", 0, 60)
            found = await cache.get("n", "other")
            assert found is not None
            assert found.value == 0
            assert not await cache.delete("n", "other")
            assert await cache.get("n", "other") is None
            with pytest.raises(StoreError):
                await cache.invalidate("n")
            stats = cache.stats()
            assert (stats["hits"], stats["operations"]["delete"]["failure"]) == (2, 2)
            assert stats["operations"]["get"]["failure"] >= 4
            state = await cache.state()
            assert (state.enabled, state.answers) == (True, False)
        finally:
            await cache.aclose()

    asyncio.run(test())


def test_s4_15_the_accepted_variables_are_the_store() -> None:
    def shown(**environ: str) -> str:
        return load_cache_settings(environ).store.written

    assert shown() == "redis://localhost:6379/0"
    assert shown(REDIS_ENABLED="false", REDIS_HOST="elsewhere") == "memory"
    named = load_cache_settings(
        {"REDIS_HOST": "::1", "REDIS_PORT": "7", "REDIS_DB": "3", "REDIS_PASSWORD": "CANARY/@:?#"}
    )
    assert named.store.written == "redis://:CANARY%2F%40%3A%3F%23@[::1]:7/3"
    assert "CANARY" not in repr(named)
    assert shown(HEADGATE_STORE="memory") == "memory"
    assert shown(HEADGATE_STORE="valkey://h:1", REDIS_HOST="no") == "valkey://h:1"
    for name, value in (
        ("REDIS_PORT", "0"), ("REDIS_PORT", "70000"), ("REDIS_HOST", "a:1"), ("REDIS_HOST", "a/b"),
        ("REDIS_DB", "x"), ("REDIS_ENABLED", "maybe"), ("SESSION_COOKIE_NAME", "a b"),
        ("CACHE_MEMORY_TTL", "0"),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=name):
            load_cache_settings({name: value})


def test_s4_10_lifetimes_are_as_accepted() -> None:
    defaults = load_cache_settings({})
    assert (defaults.browser_ttl, defaults.cdn_ttl) == (300, 900)
    assert (defaults.redis_ttl, defaults.memory_ttl, defaults.memory_entries) == (7200, 3600, 1000)
    assert (defaults.session_ttl, defaults.session_cookie, defaults.cdn) == (
        86_400,
        "session_id",
        False,
    )
    set_all = load_cache_settings({"CACHE_REDIS_TTL": "1", "CACHE_CDN_ENABLED": "true"})
    assert (set_all.redis_ttl, set_all.cdn) == (1, True)
    bounds = CacheSettings(memory_entries=10, memory_ttl=5).bounds
    assert (bounds.entries, bounds.memory_seconds) == (10, 5.0)


def test_one_cache_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_ENABLED", "false")
    assert get_multi_cache() is get_multi_cache()
