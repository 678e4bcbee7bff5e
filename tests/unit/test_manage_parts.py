"""Parts of the management API by themselves: pages, repeats, what engines hand on to each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.core.call import Key
from headgate.core.outcome import Kind, Outcome
from headgate.gateway.generation import Estate
from headgate.gateway.manage.pages import Paged, cut, place_in, written
from headgate.gateway.manage.repeats import MOST_KEPT, MOST_KEPT_BYTES, Repeats, Told
from headgate.gateway.manage.trouble import TroubleError
from headgate.policy.inheritance import alike, inherit
from headgate.policy.keyring import EVERY_MODEL, KeyRing
from headgate.policy.leases import Lease
from headgate.testing import VirtualClock
from headgate.wiring.watching import stamps, watched_files


@settings(max_examples=60)
@given(
    things=st.sets(st.integers(0, 60), max_size=40),
    gone=st.sets(st.integers(0, 60)),
    come=st.sets(st.integers(0, 60)),
    limit=st.integers(1, 7),
)
def test_pages_show_what_stays_exactly_once(
    things: set[int], gone: set[int], come: set[int], limit: int
) -> None:
    """Whatever comes and goes between two pages."""
    now, seen, cursor = set(things), [], ""
    for _ in range(200):
        shown, more = cut(now, lambda one: [one, "x"], Paged(limit=limit, cursor=cursor))
        assert len(shown) <= limit
        seen += shown
        if more is None:
            break
        cursor, now = more, (now - gone) | come
    assert seen == sorted(set(seen))
    assert (things - gone) <= set(seen)


@settings(max_examples=80)
@given(st.text(max_size=60))
def test_a_strange_cursor_is_refused_and_nothing_else(text: str) -> None:
    try:
        place = place_in(text)
    except TroubleError as error:
        if error.about != "invalid":
            raise
        return
    assert place is None or isinstance(place, list)


def test_a_place_comes_back_from_its_cursor() -> None:
    for place in ([1.5, "a/b", 3], ["x"], [-7, 0, "é"]):
        assert place_in(written(place)) == place  # type: ignore[arg-type] # mixed on purpose


def test_repeats_are_bounded_and_never_forget_what_goes_on() -> None:
    """However many come: those that are under way are known until they end."""
    clock = VirtualClock()
    repeats = Repeats(clock)
    assert repeats.begin("goes-on", "POST", "/x", b"") is None
    for number in range(MOST_KEPT * 2):
        key = f"k{number}"
        assert repeats.begin(key, "POST", "/x", b"") is None
        repeats.end(key, Told(200, b"{}"))
    assert len(repeats) <= MOST_KEPT + 1
    with pytest.raises(TroubleError) as caught:
        repeats.begin("goes-on", "POST", "/x", b"")
    assert caught.value.about == "in-progress"
    for number in range(20):
        repeats.begin(f"large{number}", "POST", "/x", b"")
        repeats.end(f"large{number}", Told(200, b"x" * (MOST_KEPT_BYTES // 4)))
    assert repeats._bytes <= MOST_KEPT_BYTES
    assert repeats.begin("large19", "POST", "/x", b"") is not None


# ── from one list of keys to the next ────────────────────────────────────────────────────────────


def ring(*names: str, fallback: float = 60.0) -> KeyRing:
    """Keys named `a1` of project `a`."""
    return KeyRing([Key(name, f"AIzaCANARY-{name}", name[0]) for name in names], fallback=fallback)


def lease(found: object) -> Lease:
    assert isinstance(found, Lease)
    return found


def test_what_is_known_of_keys_goes_on() -> None:
    old = ring("a1", "a2", "b1")
    first = lease(old.choose("m", 0.0))
    old.book(first, Outcome(Kind.QUOTA_DAY, "no more today"), 1.0, 1.0)
    old.disable(2, "refused")
    old.park(1, 500.0, 1.0, EVERY_MODEL)
    new = ring("c1", "b1", "a2")
    assert not alike(old, new)
    inherit(old, new)
    assert lease(new.choose("m", 2.0)).key.name == "c1"
    shown = {state.key.name: state for state in new.states(2.0)}
    assert shown["b1"].disabled == "refused"
    assert set(shown["a2"].parks) == {"m", EVERY_MODEL}
    closed, unready = new.closed("m", 2.0)
    assert (closed, unready.disabled) == ({1, 2}, 1)
    new.enable(1)
    assert new.state(1, 2.0).disabled is None


def test_attempts_under_way_with_the_old_list_still_count() -> None:
    old = ring("a1", "b1")
    taken = lease(old.choose("m", 0.0))
    new = ring("b1", "a1")
    inherit(old, new)
    old.book(taken, Outcome(Kind.SUCCESS), 1.0, 1.0)
    assert sum(state.stats.successes for state in new.states(2.0)) == 1


def test_the_same_keys_under_the_same_rules_need_no_new_list() -> None:
    assert alike(ring("a1", "b1"), ring("a1", "b1"))
    assert not alike(ring("a1", "b1"), ring("b1", "a1"))
    assert not alike(ring("a1"), ring("a1", fallback=5.0))


@settings(max_examples=60)
@given(
    before=st.permutations(["a1", "a2", "b1", "c1"]),
    after=st.lists(st.sampled_from(["a1", "a2", "b1", "c1", "d1"]), unique=True, min_size=1),
    refused=st.sets(st.sampled_from(["a1", "a2", "b1", "c1"])),
    parked=st.sets(st.sampled_from(["a1", "b1", "c1"])),
)
def test_no_refusal_and_no_cool_down_is_forgotten(
    before: list[str], after: list[str], refused: set[str], parked: set[str]
) -> None:
    old, new = ring(*before), ring(*after)
    for name in refused:
        old.disable(before.index(name), "refused")
    for name in parked:
        old.park(before.index(name), 100.0, 0.0, "m")
    inherit(old, new)
    cooling = {name[0] for name in parked}
    usable = {
        name for name in after if name not in refused and (name[0] not in cooling or name == "d1")
    }
    found = new.choose("m", 1.0)
    assert isinstance(found, Lease) == bool(usable)
    if isinstance(found, Lease):
        assert found.key.name in usable
    for state in new.states(1.0):
        assert (state.disabled is not None) == (state.key.name in refused)


async def test_what_generations_share_is_closed_by_the_last() -> None:
    estate, closed = Estate(), []

    async def close() -> None:
        closed.append("thing")

    thing = object()
    for _ in range(3):
        estate.take(thing, close)
    await estate.leave(thing)
    await estate.leave(thing)
    assert not closed
    await estate.leave(thing)
    assert closed == ["thing"]


def test_the_files_of_a_configuration_are_found_and_looked_at(tmp_path: Path) -> None:
    keys, config = tmp_path / "keys", tmp_path / "headgate.toml"
    config.write_text(f"[gemini]\nkeys_file = '{keys}'\n")
    environ = {
        "HEADGATE_CONFIG": str(config),
        "ANTHROPIC_API_KEYS_FILE": str(tmp_path / "claude"),
        "GEMINI_API_KEY_3_FILE": str(tmp_path / "third"),
        "HEADGATE_ADMIN_KEY_FILE": str(tmp_path / "admin"),
    }
    assert [path.name for path in watched_files(environ)] == [
        "headgate.toml",
        "claude",
        "keys",
        "third",
    ]
    first = stamps(environ)
    assert first[str(keys)] is None
    keys.write_text("x")
    assert stamps(environ) != first
    for strange in ("[gemini]\nkeys_file = 'a\\u0000b'".replace("'", '"'), "a = " + "[" * 5000):
        config.write_text(strange)  # the watch goes on, or nothing after it would be taken over
        assert stamps(environ)[str(config)] is not None
    config.write_text("[gemini")  # half written: what it names is not known, and nothing is raised
    assert [path.name for path in watched_files(environ)] == ["headgate.toml", "claude", "third"]
