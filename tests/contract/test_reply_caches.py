"""What every `ReplyCache` does, in memory and on a real Valkey (S3-03b, S3-28a)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests import valkey
from tests.replies import KEY, OTHER, InMemory, OnValkey, Place, answer, kept

from headgate.core.call import Blob, RawReply, Reply, SafetyRating, Usage
from headgate.core.replies import Found

valkey_server = valkey.valkey_server


@pytest.fixture(params=["memory", "valkey"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "memory":
        yield InMemory()
    else:
        yield OnValkey(request.getfixturevalue("valkey_server"))


def test_what_is_kept_is_found_with_its_age(place: Place) -> None:
    """By every user of the store, and for as long as it was said."""

    async def test() -> None:
        cache, other, clock = place.cache, place.other, place.clock
        missed = await cache.look(KEY)
        assert (missed.kept, missed.token, missed.claimed) == (None, None, False)
        assert await cache.put(KEY, kept(clock, fresh=60, revalidate=30, rescue=10), mark=missed.mark)
        place.pass_time(20)
        for user in (other, cache, other):
            found = (await user.look(KEY)).kept
            assert found is not None
            assert (found.reply, found.model) == (answer(), "m")
            now = clock.wall()
            assert found.at == pytest.approx(now - 20, abs=0.01)
            assert found.fresh_until == pytest.approx(now + 40, abs=0.01)
            assert found.revalidate_until == pytest.approx(now + 70, abs=0.01)
            assert found.rescue_until == pytest.approx(now + 80, abs=0.01)
        assert (await cache.look(OTHER)).kept is None
        place.pass_time(79)
        assert (await other.look(KEY)).kept is not None
        place.pass_time(1.1)
        assert (await cache.look(KEY)).kept is None
        assert (await other.look(KEY)).kept is None

    place.run(test())


def test_every_part_of_a_reply_survives(place: Place) -> None:
    call = {
        "functionCall": {"name": "find", "args": {"a": [1, 2.5, None, "ü"]}},
        "thoughtSignature": "x",
    }
    whole = Reply(
        text="«ü» \x00 🎈",
        blobs=(Blob("image/png", b"\x89PNG\x00"),),
        vector=(0.1, -2.0),
        finish_reason="STOP",
        usage=Usage(1, 2, 3, 4, 5, 6, 7),
        model="m-1",
        content=(call,),
        upstream_id="id",
        safety=(SafetyRating("X", "LOW", blocked=False),),
        raw=RawReply(200, {"content-type": "x"}, b"\xff"),
    )

    async def test() -> None:
        for number, reply in enumerate([whole, Reply(), answer("x" * 200_000), answer("ab" * 700_000)]):
            key = f"{number:064x}"
            mark = (await place.cache.look(key)).mark
            stored = await place.cache.put(key, kept(place.clock, reply), mark=mark)
            found = (await place.other.look(key)).kept
            if number < 3:
                assert stored
                assert found is not None
                assert found.reply == reply
                assert found.model == "m"

    place.run(test())


def test_a_newer_answer_takes_the_place(place: Place) -> None:
    async def test() -> None:
        for text in ("first", "second"):
            mark = (await place.cache.look(KEY)).mark
            assert await place.cache.put(KEY, kept(place.clock, answer(text), fresh=5), mark=mark)
            place.pass_time(6)  # a copy that is no longer fresh is not preferred to what is newer
        mark = (await place.cache.look(KEY)).mark
        assert await place.cache.put(KEY, kept(place.clock, answer("third")), mark=mark)
        for user in (place.cache, place.other):
            found = (await user.look(KEY)).kept
            assert found is not None
            assert found.reply.text == "third"

    place.run(test())


def test_one_gets_the_right_to_ask(place: Place) -> None:
    """Until it is given back, with an answer or without, or lapses."""

    async def test() -> None:
        cache, other = place.cache, place.other
        first = await cache.look(KEY, claim=30)
        assert first.token
        second = await other.look(KEY, claim=30)
        assert (second.token, second.claimed) == (None, True)
        assert (await other.look(OTHER, claim=30)).token
        await other.release(KEY, "somebody else's")
        assert (await other.look(KEY, claim=30)).claimed
        assert await cache.renew(KEY, first.token, 30)
        assert not await other.renew(KEY, "somebody else's", 30)
        await cache.release(KEY, first.token)
        third = await other.look(KEY, claim=30)
        assert third.token
        assert not await cache.renew(KEY, first.token, 30), "the right of another"
        await cache.release(KEY, first.token)
        assert (await cache.look(KEY, claim=30)).claimed, "a late release takes nothing away"
        assert await other.put(KEY, kept(place.clock), mark=third.mark, token=third.token)
        fresh = await cache.look(KEY, claim=30)
        assert (fresh.token, fresh.claimed) == (None, False), "where the answer is fresh nobody asks"
        assert fresh.kept is not None

    place.run(test())


def test_for_an_answer_that_is_no_longer_fresh_one_may_ask_again(place: Place) -> None:
    async def test() -> None:
        mark = (await place.cache.look(KEY)).mark
        await place.cache.put(KEY, kept(place.clock, fresh=10, revalidate=50), mark=mark)
        place.pass_time(11)
        first, second = await place.cache.look(KEY, claim=30), await place.other.look(KEY, claim=30)
        assert first.kept is not None
        assert second.kept is not None
        assert first.token
        assert second.claimed

    place.run(test())


def test_an_invalidated_answer_is_found_by_nobody(place: Place) -> None:
    """Nor in the memory of another process, from the moment it was said."""

    async def test() -> None:
        cache, other = place.cache, place.other
        keys = {name: f"{number:064x}" for number, name in enumerate(["docs-1", "docs-2", "chat", ""])}
        for name, key in keys.items():
            mark = (await cache.look(key, name)).mark
            assert await cache.put(key, kept(place.clock), namespace=name, mark=mark)
            assert (await other.look(key, name)).kept is not None
        assert await cache.invalidate("docs-*") == 2
        for user in (other, cache):
            for name, key in keys.items():
                assert ((await user.look(key, name)).kept is None) == name.startswith("docs-")
        assert await other.invalidate("nothing*") == 0
        assert await other.invalidate("") == 1
        assert (await cache.look(keys[""], "")).kept is None
        assert (await cache.look(keys["chat"], "chat")).kept is not None

    place.run(test())


def test_what_was_asked_before_an_invalidation_is_not_kept_after(place: Place) -> None:
    async def test() -> None:
        cache, other = place.cache, place.other
        asked = await cache.look(KEY, "docs", claim=30)
        beside = await cache.look(OTHER, "chat")
        await other.invalidate("do*")
        assert asked.token
        assert not await cache.put(
            KEY, kept(place.clock), namespace="docs", mark=asked.mark, token=asked.token
        )
        assert await cache.put(OTHER, kept(place.clock), namespace="chat", mark=beside.mark)
        again = await other.look(KEY, "docs", claim=30)
        assert again.kept is None
        assert again.token, "the right to ask came back all the same"
        assert await other.put(KEY, kept(place.clock), namespace="docs", mark=again.mark)
        assert (await cache.look(KEY, "docs")).kept is not None

    place.run(test())


def test_clear_forgets_everything_and_what_is_under_way(place: Place) -> None:
    async def test() -> None:
        cache, other = place.cache, place.other
        marks = [(await cache.look(f"{number:064x}", f"n{number}")).mark for number in range(3)]
        for number in (0, 1):
            key, name = f"{number:064x}", f"n{number}"
            await cache.put(key, kept(place.clock), namespace=name, mark=marks[number])
            assert (await other.look(key, name)).kept is not None
        place.pass_time(0.001)
        assert await other.clear() == 2
        assert not await cache.put(f"{2:064x}", kept(place.clock), namespace="n2", mark=marks[2])
        for user in (cache, other):
            for number in range(3):
                assert (await user.look(f"{number:064x}", f"n{number}")).kept is None
        assert cache.figures().entries == 0

    place.run(test())


def test_a_wall_clock_that_jumps_changes_no_age(place: Place) -> None:
    """F38: an hour back, a day ahead. What is told of times is told by the clock of the moment."""

    async def test() -> None:
        mark = (await place.cache.look(KEY)).mark
        await place.cache.put(KEY, kept(place.clock, fresh=60), mark=mark)
        for jump in (-3600.0, 86_400.0):
            place.clock.step_wall(jump)
            found = (await place.cache.look(KEY)).kept
            assert found is not None
            now = place.clock.wall()
            assert found.at == pytest.approx(now, abs=0.01)
            assert found.fresh_until == pytest.approx(now + 60, abs=0.01)
            place.clock.step_wall(-jump)

    place.run(test())


def test_what_one_does_to_an_answer_is_no_others(place: Place) -> None:
    async def test() -> None:
        mark = (await place.cache.look(KEY)).mark
        mutable = {"functionCall": {"args": {"a": [1]}}}
        await place.cache.put(KEY, kept(place.clock, answer(content=(mutable,))), mark=mark)
        mutable["functionCall"]["args"]["a"].append(2)
        for _ in range(3):
            found = (await place.cache.look(KEY)).kept
            assert found is not None
            said = found.reply.content[0]
            assert said == {"functionCall": {"args": {"a": [1]}}}
            said["functionCall"]["args"]["a"].append(3)  # type: ignore[index]

    place.run(test())


@pytest.mark.parametrize(
    "value", [2**80, "\ud800", object()], ids=["beyond 64 bits", "half a character", "an object"]
)
def test_what_cannot_be_written_is_not_kept_and_raises_nothing(place: Place, value: object) -> None:
    async def test() -> None:
        found = await place.cache.look(KEY, claim=30)
        assert found.token
        reply = answer(content=({"x": value},))
        assert not await place.cache.put(
            KEY, kept(place.clock, reply), mark=found.mark, token=found.token
        )
        again = await place.cache.look(KEY, claim=30)
        assert again.kept is None
        assert again.token

    place.run(test())


def test_looks_are_counted_where_they_are_to_be(place: Place) -> None:
    async def test() -> None:
        cache = place.cache
        mark = (await cache.look(KEY)).mark
        await cache.look(KEY, counted=False)
        await cache.put(KEY, kept(place.clock, fresh=10, revalidate=10, rescue=10), mark=mark)
        await cache.look(KEY)
        await cache.look(KEY, counted=False)
        place.pass_time(15)
        await cache.look(KEY)
        place.pass_time(10)  # only for a rescue: no hit
        assert (await cache.look(KEY)).kept is not None
        figures = cache.figures()
        assert (figures.hits, figures.misses) == (2, 2)
        assert figures.entries == 1
        assert 0 < figures.bytes <= figures.most_bytes == 10**6

    place.run(test())


def test_a_closed_cache_keeps_nothing_and_raises_nothing(place: Place) -> None:
    async def test() -> None:
        mark = (await place.cache.look(KEY)).mark
        await place.cache.put(KEY, kept(place.clock), mark=mark)
        await place.cache.aclose()
        found = await place.cache.look(KEY)
        assert found.kept is None
        assert not await place.cache.put(KEY, kept(place.clock), mark=found.mark)
        await place.cache.release(KEY, "x")
        assert place.cache.figures().entries == 0

    place.run(test())


def test_a_right_to_ask_lapses(place: Place) -> None:
    """Whoever has it may have died."""
    if isinstance(place, OnValkey):
        pytest.skip("a server's keys expire in real time: test_replies_on_valkey.py has it")

    async def test() -> None:
        first = await place.cache.look(KEY, claim=5)
        place.pass_time(4.9)
        assert (await place.other.look(KEY, claim=5)).claimed
        place.pass_time(0.1)
        second = await place.other.look(KEY, claim=5)
        assert second.token
        assert second.token != first.token

    place.run(test())


def test_rights_that_lapsed_are_forgotten_and_looked_for_seldom() -> None:
    """A crowd of questions under way costs each of them no walk over all."""
    place = InMemory()
    cache = place.cache

    async def test() -> None:
        for number in range(20_000):
            assert (await cache.look(f"{number:064x}", claim=60)).token
        assert len(cache._claims) == 20_000
        walked = cache._many
        assert walked == 2 * 16_384
        place.pass_time(61)
        for number in range(20_000, 40_000):
            assert (await cache.look(f"{number:064x}", claim=60)).token
        assert len(cache._claims) == 20_000

    place.run(test())


def test_found_nothing_is_the_default() -> None:
    assert Found() == Found(None, 0, None, False)
