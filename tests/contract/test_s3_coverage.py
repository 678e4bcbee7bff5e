"""Every accepted item of S3 has a test that carries its id."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FEATURES = {
    "01": "abcdefgh", "02": "abcdefghijk", "03": "abcdefgh", "04": "abcdefghij", "05": "abcdefghijk",
    "06": "abcd", "07": "abcdefghij", "27": "abcde", "28": "a",
}  # fmt: skip
IDS = [
    *(f"{number}{letter}" for number, letters in FEATURES.items() for letter in letters),
    *(f"{number:02d}" for number in range(8, 27)),
]
LATER = ["28b", "28c", "28d", "28e"]
"""Accepted as later: anomalies, comparison of models, webhooks, GraphQL. They have no test to have."""

# Shown by many tests at once rather than by one: where to look. Files are below `tests`.
ELSEWHERE = {
    "27a": "unit/test_breaker.py",  # each module alone, with its property model beside it
    "27c": "simulation/test_declared_quotas.py",
    "27d": "simulation/test_outage.py",
    "27e": "simulation/test_degradation.py",  # the emulator; `headgate.testing` in all of contract
    "28a": "doors/test_replies_on_valkey.py",
}


def sources() -> dict[str, str]:
    return {
        str(file.relative_to(TESTS)): file.read_text(encoding="utf-8")
        for file in TESTS.rglob("test_*.py")
    }


def proven() -> set[str]:
    found: set[str] = set()
    for text in sources().values():
        for name in re.findall(r"def (test_\w+)\(", text):
            found.update(re.findall(r"s3_(\d\d[a-k]?)_", name))
    return found


@pytest.fixture(scope="module")
def named() -> set[str]:
    return proven()


@pytest.mark.parametrize("item", IDS)
def test_the_item_has_a_test(item: str, named: set[str]) -> None:
    assert item in named | set(ELSEWHERE), f"S3-{item} has no test that names it"


def test_what_comes_later_is_named_with_the_place_it_would_stand_in() -> None:
    """And every module the page names is there."""
    root = TESTS.parent
    page = (root / "docs/explanation/what-comes-later.md").read_text(encoding="utf-8")
    assert [item for item in LATER if f"S3-{item}" not in page] == []
    named = re.findall(r"`((?:policy|telemetry|gateway)/[\w/]+\.py)`", page)
    assert len(named) >= 4
    assert [name for name in named if not (root / "src/headgate" / name).exists()] == []


def test_the_files_named_elsewhere_exist_and_have_tests() -> None:
    texts = sources()
    for place in ELSEWHERE.values():
        assert "def test_" in texts[place]


def test_no_test_names_an_item_that_does_not_exist(named: set[str]) -> None:
    assert named <= {*IDS, *LATER}
    assert not set(ELSEWHERE) & named, "it has a test of its own now"
