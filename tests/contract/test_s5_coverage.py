"""Every accepted item of S5 has a test that carries its id."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FEATURES = {
    "01": "abcdef", "02": "abcdefg", "03": "abcd", "04": "abcde",
}  # fmt: skip
IDS = [
    *(f"{number}{letter}" for number, letters in FEATURES.items() for letter in letters),
    *(f"{number:02d}" for number in range(5, 26)),
]

# Shown by many tests at once rather than by one: where to look.
ELSEWHERE = {
    "01a": "test_codegen_client_enhanced.py: every call is awaited",
    "01b": "test_s5_06_factories_take_any_texts_and_are_entered_or_not",
    "01e": "test_s5_14_every_variable_is_read",
    "01f": "test_s5_16_presets",
    "02e": "test_s5_21_workers_are_bounded",
    "03b": "test_s5_13_healthy",
    "04b": "test_s5_25_missing_or_wrong_signatures_are_refused",
}


def proven() -> set[str]:
    found: set[str] = set()
    files = [
        *Path(__file__).parent.glob("test_s5_*.py"),
        Path(__file__).parent / "test_codegen_client_enhanced.py",
    ]
    for file in files:
        for name in re.findall(r"def (test_\w+)\(", file.read_text(encoding="utf-8")):
            found.update(re.findall(r"s5_(\d\d[a-g]?)_", name))
    return found


@pytest.mark.parametrize("item", IDS)
def test_the_item_has_a_test(item: str) -> None:
    assert item in proven() | set(ELSEWHERE), f"S5-{item} has no test in tests/contract/test_s5_*.py"


def test_the_tests_named_elsewhere_exist() -> None:
    texts = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    for place in ELSEWHERE.values():
        name = place.partition(":")[0]
        assert name.endswith(".py") or f"def {name}(" in texts


def test_no_test_names_an_item_that_does_not_exist() -> None:
    assert proven() <= set(IDS)
