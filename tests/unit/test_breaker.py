"""The breaker's table: what resilience4j's `CircuitBreakerStateMachineTest` and Polly's
`CircuitStateControllerTests` check, in our words, and the ways in which others got stuck."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.policy.breaker import Breaker, BreakerRules, BreakerState, Pass

RULES = BreakerRules(failures=3, open_seconds=60, successes=2, probes=2, probe_seconds=30)

SCENES: dict[str, str] = {
    "it begins closed and lets calls through": """
        0 closed
        0 ask a; good a; closed
    """,
    "failures below the threshold leave it closed": """
        0 ask a; bad a; ask b; bad b; closed
    """,
    "it opens with the failure that reaches the threshold": """
        0 ask a; bad a; ask b; bad b; ask c; closed; bad c; open
    """,
    "a success ends the row": """
        0 ask a; bad a; ask b; bad b; ask c; good c; ask d; bad d; ask e; bad e; closed
    """,
    "what speaks for neither does not end the row": """
        0 ask a; bad a; ask b; none b; ask c; bad c; ask d; none d; ask e; bad e; open
    """,
    "calls at once that all fail open it once": """
        0 ask a; ask b; ask c; ask d; ask e; bad a; bad b; bad c; open; bad d; bad e; open
        59.5 refused 0.5
        60 half_open
    """,
    "open, it refuses and says for how long, to the very end": """
        0 trip
        0 refused 60
        25 refused 35
        59.999 refused 0.001
        60 half_open; ask p
    """,
    "failures that come in while it is open do not keep it open (pybreaker 24)": """
        0 ask old; trip; refused 60
        40 bad old; refused 20
        60 half_open
    """,
    "an old success does not close it": """
        0 ask old; trip
        10 good old; open
        60 ask p; half_open
    """,
    "half-open it lets a few through and refuses the rest": """
        0 trip
        60 ask p; ask q; refused 1
    """,
    "one success is not enough (pybreaker 96)": """
        0 trip
        60 ask p; good p; half_open; ask q; good q; closed
    """,
    "successes of probes that were out together are enough": """
        0 trip
        60 ask p; ask q; good q; half_open; good p; closed
    """,
    "one failure opens it again, for as long as before": """
        0 trip
        60 ask p; ask q; good p; half_open; bad q; open
        61 refused 59
        120 half_open
    """,
    "successes before a relapse do not count afterwards": """
        0 trip
        60 ask p; ask q; good p; bad q; open
        120 ask r; good r; half_open; ask s; good s; closed
    """,
    "closed again, the row of failures begins anew": """
        0 trip
        60 ask p; good p; ask q; good q; closed; ask a; bad a; ask b; bad b; closed; ask c; bad c; open
    """,
    "a probe that came to nothing gives its room back (resilience4j 544, 935)": """
        0 trip
        60 ask p; ask q; refused 1; none p; ask r; refused 1; none q; none r; half_open
        61 ask s; ask t; refused 1
    """,
    "probes that all come to nothing never shut it": """
        0 trip
        60 ask a; none a; ask b; none b; ask c; none c; ask d; none d; half_open
        60 ask e; good e; ask f; good f; closed
    """,
    "a probe that hangs makes room after its time (resilience4j 903, 1389)": """
        0 trip
        60 ask p; ask q; refused 1
        89.5 refused 0.5
        90 ask r; ask s; refused 1
    """,
    "a probe that hung and then answers still counts": """
        0 trip
        60 ask p; ask q
        95 ask r; ask s; good p; half_open; good q; closed
    """,
    "a probe that hung and then fails still counts": """
        0 trip
        60 ask p; ask q
        95 ask r; bad p; open; refused 60
    """,
    "a probe of an earlier spell changes nothing in a later one": """
        0 trip
        60 ask p; ask q; bad q; open
        120 ask r; good p; bad p; half_open; good r; ask s; good s; closed
    """,
    "nobody asks for days: it lets through as if the time had just passed": """
        0 trip
        500000 half_open; ask p; good p; ask q; good q; closed
    """,
}


@pytest.mark.parametrize("name", SCENES)
def test_s3_04e_the_table_of_the_breaker(name: str) -> None:
    breaker, passes = Breaker(RULES), {}
    for line in SCENES[name].strip().splitlines():
        now, steps = line.strip().split(" ", 1)
        for step in steps.split("; "):
            play(breaker, float(now), step.split(), passes)


def play(breaker: Breaker, now: float, step: list[str], passes: dict[str, Pass]) -> None:
    match step:
        case ["ask", who]:
            assert breaker.wait(now) == 0, step
            admitted = breaker.ask(now)
            assert admitted is not None, step
            passes[who] = admitted
        case ["good", who]:
            breaker.succeeded(passes[who])
        case ["bad", who]:
            breaker.failed(passes[who], now)
        case ["none", who]:
            breaker.untouched(passes[who])
        case ["trip"]:
            for number in range(RULES.failures):
                play(breaker, now, ["ask", f"trip {number}"], passes)
                play(breaker, now, ["bad", f"trip {number}"], passes)
        case ["refused", seconds]:
            assert breaker.ask(now) is None, step
            assert breaker.wait(now) == pytest.approx(float(seconds)), step
        case [state]:
            assert breaker.state(now) is BreakerState(state), step


def test_it_counts_how_often_it_opened() -> None:
    breaker = Breaker(RULES)
    for number, now in enumerate((0.0, 100.0)):
        assert breaker.opened == number
        for _ in range(RULES.failures):
            admitted = breaker.ask(now)
            if admitted is not None:
                breaker.failed(admitted, now)
    assert breaker.opened == 2


def test_spotless_means_that_a_new_one_would_be_the_same() -> None:
    breaker = Breaker(RULES)
    assert breaker.spotless
    first, second = breaker.ask(0), breaker.ask(0)
    assert first is not None
    assert second is not None
    breaker.failed(first, 0)
    assert not breaker.spotless
    breaker.succeeded(second)
    assert breaker.spotless


@pytest.mark.parametrize(
    "wrong",
    [
        {"failures": 0},
        {"successes": 0},
        {"probes": 0},
        {"open_seconds": 0},
        {"open_seconds": -1},
        {"probe_seconds": 0},
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        BreakerRules(**wrong)
