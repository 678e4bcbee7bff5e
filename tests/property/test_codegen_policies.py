"""The pure pieces under the Codegen client: breaker, freshness, claimed ids."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headgate.policy.breaker import Breaker, BreakerRules, BreakerState, Pass
from headgate.policy.freshness import Freshness
from headgate.policy.seen import Seen


class BreakerMachine(RuleBasedStateMachine):
    """Calls of any order and age; the breaker never loses a pass and never lets too many probe."""

    def __init__(self) -> None:
        super().__init__()
        self.rules = BreakerRules(
            failures=3, open_seconds=10, successes=2, probes=2, probe_seconds=100_000
        )
        self.breaker = Breaker(self.rules)
        self.now = 0.0
        self.out: list[tuple[Pass, BreakerState]] = []

    @rule(seconds=st.sampled_from([0.0, 0.5, 9.5, 10.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        wait = self.breaker.wait(self.now)
        admitted = self.breaker.ask(self.now)
        assert (admitted is None) == (wait > 0)
        if admitted is not None:
            self.out.append((admitted, self.breaker.state(self.now)))

    @precondition(lambda self: self.out)
    @rule(place=st.integers(0, 100), fate=st.sampled_from(["succeeded", "failed", "untouched"]))
    def end(self, place: int, fate: str) -> None:
        admitted, _ = self.out.pop(place % len(self.out))
        if fate == "failed":
            self.breaker.failed(admitted, self.now)
        elif fate == "succeeded":
            self.breaker.succeeded(admitted)
        else:
            self.breaker.untouched(admitted)

    @invariant()
    def few_probe(self) -> None:
        spell = self.breaker._spell
        probes = sum(
            admitted.spell == spell and state is BreakerState.HALF_OPEN for admitted, state in self.out
        )
        assert probes <= self.rules.probes
        half_open = self.breaker._state is BreakerState.HALF_OPEN
        assert len(self.breaker._out) == (probes if half_open else 0)

    @invariant()
    def it_never_stays_shut_for_ever(self) -> None:
        later = self.now + self.rules.open_seconds
        if self.breaker._state is BreakerState.OPEN:
            assert self.breaker.wait(later) == 0

    @invariant()
    def waits_are_sane(self) -> None:
        assert 0 <= self.breaker.wait(self.now) <= self.rules.open_seconds


TestBreaker = BreakerMachine.TestCase


def test_an_answer_of_another_spell_changes_nothing() -> None:
    """Calls sent before it opened come back while it probes."""
    breaker = Breaker(BreakerRules(failures=1, open_seconds=10, successes=1, probes=1))
    old, bad = breaker.ask(0), breaker.ask(0)
    assert old is not None
    assert bad is not None
    breaker.failed(bad, 0)
    probe = breaker.ask(10)
    assert probe is not None
    breaker.succeeded(old)
    assert breaker.state(10) is BreakerState.HALF_OPEN
    breaker.failed(old, 10)
    assert breaker.state(10) is BreakerState.HALF_OPEN
    breaker.succeeded(probe)
    assert breaker.state(10) is BreakerState.CLOSED


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["get", "begin", "put", "spoil", "clear", "wait"]),
        st.integers(0, 5),
        st.integers(0, 2),
    ),
    max_size=120,
)


@given(STEPS, st.integers(1, 4))
def test_freshness_agrees_with_a_simple_model(steps: list[tuple[str, int, int]], most: int) -> None:
    """Never an entry that is too old or was spoiled; never more than fit; the model is a plain list."""
    kept: Freshness[int] = Freshness(most)
    model: dict[str, tuple[int, float, str]] = {}  # value, until, tag; in order of use
    spoiled: list[tuple[int, str | None]] = []  # when, which tag (None: all)
    begun, now, turn, serial = 0, 0.0, 0, 0
    for what, number, tag_number in steps:
        key, tag = f"k{number}", f"t{tag_number}"
        match what:
            case "wait":
                now += number
            case "begin":
                begun = kept.begin()
                assert begun == turn
            case "spoil":
                turn += 1
                spoiled.append((turn, tag))
                gone = [name for name, entry in model.items() if entry[2] == tag]
                assert kept.spoil([tag]) == len(gone)
                for name in gone:
                    del model[name]
            case "clear":
                turn += 1
                spoiled.append((turn, None))
                kept.clear()
                model.clear()
            case "put":
                serial += 1
                stale = any(at > begun and which in (tag, None) for at, which in spoiled)
                assert kept.put(key, serial, [tag], ttl=3, now=now, begun=begun) == (not stale)
                if not stale:
                    model.pop(key, None)
                    while len(model) >= most:
                        del model[next(iter(model))]
                    model[key] = (serial, now + 3, tag)
            case "get":
                entry = model.get(key)
                if entry is not None and now >= entry[1]:
                    del model[key]
                    entry = None
                assert kept.get(key, now) == (entry[0] if entry else None)
                if entry is not None:
                    model[key] = model.pop(key)
        assert len(kept) == len(model) <= most
        assert set(kept._by_tag) == {entry[2] for entry in model.values()}


def test_many_spoiled_tags_are_forgotten_safely() -> None:
    """Beyond some thousand, everything that began before is distrusted instead."""
    kept: Freshness[int] = Freshness(10)
    begun = kept.begin()
    for number in range(10_000):
        kept.spoil([f"t{number}"])
    assert len(kept._spoiled_at) <= 4096
    assert not kept.put("k", 1, ["never spoiled"], ttl=9, now=0, begun=begun)
    assert kept.put("k", 1, ["never spoiled"], ttl=9, now=0, begun=kept.begin())


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 40), st.booleans()), max_size=80))
def test_an_id_is_claimed_once_while_it_is_remembered(steps: list[tuple[int, int, bool]]) -> None:
    seen, model, now = Seen(100, most=1000, replayable=10), {}, 0.0
    for number, pause, give_back in steps:
        now += pause
        name = str(number)
        free = name not in model or model[name] <= now - 100
        assert seen.claim([name, f"x{name}"], now) == free
        if free:
            model[name] = now
            if give_back:
                seen.give_back([name, f"x{name}"])
                del model[name]


def test_when_it_is_full_only_what_cannot_come_again_makes_room() -> None:
    seen = Seen(1000, most=2, replayable=10)
    assert seen.claim(["a"], 0)
    assert seen.claim(["b"], 5)
    try:
        seen.claim(["c"], 9)
    except OverflowError:
        assert seen.claim(["c"], 10)
        assert not seen.claim(["b"], 10)
        return
    raise AssertionError("it forgot what may come again")
