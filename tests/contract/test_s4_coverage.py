"""Every accepted item of S4 has a test that carries its id, or is named here as not built."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
IDS = [f"{number:02d}" for number in range(1, 39)]

NOT_BUILT: dict[str, str] = {}
"""Items that are accepted and not there yet, with what is missing."""

ELSEWHERE = {
    "29": "test_metric_catalogue.py",  # the sample exposition: parsed, by the catalogue
    "35": "test_s4_metrics.py",  # the current line of prometheus-client renders it
}


def proven() -> set[str]:
    found: set[str] = set()
    for file in TESTS.rglob("test_*.py"):
        for name in re.findall(r"def (test_\w*s4_\w+)\(", file.read_text(encoding="utf-8")):
            for numbers in re.findall(r"s4_(\d\d(?:_and_\d\d)*)", name):
                found.update(numbers.split("_and_"))
    return found


@pytest.mark.parametrize("item", IDS)
def test_the_item_has_a_test(item: str) -> None:
    assert (item in proven() | set(ELSEWHERE)) != (item in NOT_BUILT), f"S4-{item}"


def test_the_files_named_elsewhere_exist() -> None:
    assert all((Path(__file__).parent / name).is_file() for name in ELSEWHERE.values())


def test_no_test_names_an_item_that_does_not_exist() -> None:
    assert proven() <= set(IDS)
