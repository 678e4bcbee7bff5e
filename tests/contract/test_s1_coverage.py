"""Every accepted item of S1 has a test that carries its id."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

IDS = sorted([*(f"{number:02d}" for number in range(1, 46)), "29a"])


def proven() -> set[str]:
    found: set[str] = set()
    for file in Path(__file__).parent.glob("test_s1_*.py"):
        for name in re.findall(r"def (test_\w+)\(", file.read_text(encoding="utf-8")):
            found.update(re.findall(r"s1_(\d\da?)", name))
    return found


@pytest.mark.parametrize("item", IDS)
def test_the_item_has_a_test(item: str) -> None:
    assert item in proven(), f"S1-{item} has no test in tests/contract/test_s1_*.py"


def test_no_test_names_an_item_that_does_not_exist() -> None:
    assert proven() <= set(IDS)
