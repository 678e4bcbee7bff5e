"""Token estimates: plain counts, and what settled calls teach."""

from __future__ import annotations

from random import Random  # noqa: TID251 - the type of what hypothesis draws

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.core.call import Blob
from headgate.policy.estimate import (
    FIRST_OUTPUT,
    MARGIN,
    SHORT,
    STEP,
    TokenEstimator,
    ceiling,
    count_pieces,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("hello", 1),
        ("hello world", 2),
        ("12345", 5),
        ("a" * 13, 1),
        ("a" * 14, 2),
        ("!!!", 1),
        ("?!", 2),
        ("東京都", 2),
        ("one\n\ntwo", 3),
        ("one  two", 3),
        ("snake_case", 3),
    ],
)
def test_pieces(text: str, count: int) -> None:
    assert count_pieces(text) == count


@given(st.text(alphabet="abcxyzABC 0129\t\n\r\x0b_.,-'\"()/:!#$%&*;<=>?@[\\]^`{|}~", max_size=80))
def test_plain_text_is_counted_as_the_same_text_beside_other_letters(text: str) -> None:
    """Text of ASCII alone takes a shorter way; "\\r" parts it from the letter that closes that way."""
    assert count_pieces(text) + 1 == count_pieces(f"{text}\ré")


@given(st.sampled_from([chr(number) for number in range(128)]), st.integers(1, 40))
def test_runs_of_any_plain_character_count_the_same_either_way(sign: str, length: int) -> None:
    text = sign * length
    assert count_pieces(text) + 1 == count_pieces(f"{text}\ré")


def test_media_count_too() -> None:
    estimator = TokenEstimator()
    text = estimator.count(("look",))
    assert estimator.count(("look", Blob("image/png", b"x"))) > text + 1000
    assert estimator.count(("look", Blob("application/pdf", b"x" * 10_000))) > text + 300


def test_an_estimate_is_dear_until_something_was_learned() -> None:
    assert TokenEstimator().estimate("m", 100) == round(100 * MARGIN)


def test_it_learns_per_model_what_the_upstream_counts() -> None:
    estimator = TokenEstimator()
    for _ in range(400):
        estimator.learn("m", 100, 250)
        estimator.learn("n", 100, 60)
    assert 245 <= estimator.estimate("m", 100) <= 255
    assert 58 <= estimator.estimate("n", 100) <= 65
    assert estimator.estimate("other", 100) == round(100 * MARGIN)


def test_it_climbs_faster_than_it_sinks() -> None:
    estimator = TokenEstimator()
    for index in range(3000):
        estimator.learn("m", 100, 200 if index % 2 else 100)
    assert estimator.estimate("m", 100) > 170


def test_an_exact_estimate_is_never_below_the_bytes_of_a_text() -> None:
    for text in ("", "a b c", "1234567", "漢字かな", "\U0001f600" * 9, "x" * 5000):
        assert ceiling((text,)) >= len(text.encode())
    picture = Blob("image/png", b"x")
    assert ceiling(("look", picture)) > TokenEstimator().count(("look", picture))


def test_a_first_answer_reserves_its_bound_or_a_guess() -> None:
    estimator = TokenEstimator()
    assert estimator.output("m", 100, 333) == 333
    assert estimator.output("m", 100, None) == FIRST_OUTPUT


def test_answers_teach_by_model_and_size_of_prompt() -> None:
    estimator = TokenEstimator()
    for _ in range(300):
        for model, count, actual in (("m", 100, 50), ("m", 9000, 900), ("n", 100, 7)):
            short = actual > estimator.output(model, count, 4096)
            estimator.learn_output(model, count, actual, short=short)
    assert 50 <= estimator.output("m", 100, 4096) <= 80
    assert 50 <= estimator.output("m", 120, 4096) <= 80  # of the same octave
    assert 900 <= estimator.output("m", 9000, 4096) <= 1400
    assert 7 <= estimator.output("n", 100, 4096) <= 12
    assert estimator.output("n", 100, 5) == 5  # never beyond the call's own bound
    assert estimator.output("n", 10_000, 4096) == 4096  # nothing is known of such prompts


@given(
    st.lists(st.integers(2, 60_000), min_size=1, max_size=30),
    st.randoms(use_true_random=False),
    st.sampled_from(["cycle", "blocks", "drift", "chance"]),
)
@settings(max_examples=60)
def test_the_share_of_answers_that_were_longer_tends_to_its_target(
    actuals: list[int], chance: Random, order: str
) -> None:
    """Whatever the answers are, also if somebody chose them to mislead."""
    rounds = 2000
    estimator = TokenEstimator()
    estimator.learn_output("m", 1, actuals[0], short=False)
    shorts = 0
    for number in range(rounds):
        if order == "cycle":
            actual = actuals[number % len(actuals)]
        elif order == "blocks":
            actual = actuals[number * len(actuals) // rounds]
        elif order == "drift":
            actual = max(2, actuals[0] * (number + 1) // rounds)
        else:
            actual = chance.choice(actuals)
        short = actual > estimator.output("m", 1, None)
        shorts += short
        estimator.learn_output("m", 1, actual, short=short)
    # The quantile moves by STEP × (short − SHORT) a time and stays within 0 … log2(60 000) + STEP.
    assert abs(shorts / rounds - SHORT) <= (16 + 2 * STEP) / (STEP * rounds) + 1e-9


def test_nonsense_teaches_nothing() -> None:
    estimator = TokenEstimator()
    estimator.learn("m", 0, 5)
    estimator.learn("m", 5, 0)
    assert estimator.estimate("m", 100) == round(100 * MARGIN)
