"""Token estimates: plain counts, and what settled calls teach."""

from __future__ import annotations

import pytest

from headgate.core.call import Blob
from headgate.policy.estimate import MARGIN, TokenEstimator, count_pieces


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


def test_nonsense_teaches_nothing() -> None:
    estimator = TokenEstimator()
    estimator.learn("m", 0, 5)
    estimator.learn("m", 5, 0)
    assert estimator.estimate("m", 100) == round(100 * MARGIN)
