"""The table of mutants is in order, and a few of its faults are noticed; `make mutants` tries all."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.mutants.run import places, survives
from tests.mutants.table import MUTANTS

HANDFUL = {  # and the one test that is to notice each
    "floor for ceil": "tests/property/test_quota_days.py",
    "acquire not idempotent": "tests/property/test_quota_ledger.py",
    "impossible ask waits": "tests/unit/test_quota_ledger.py",
    "middle band skipped": "tests/unit/test_quota_ledger.py",
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_text_stands_exactly_once_in_its_file(mutant) -> None:
    assert places(mutant) == 1
    assert mutant.text != mutant.replacement


def test_no_mutant_is_listed_twice() -> None:
    names = Counter(mutant.name for mutant in MUTANTS)
    faults = Counter((mutant.file, mutant.text, mutant.replacement) for mutant in MUTANTS)
    assert max(names.values()) == max(faults.values()) == 1
    assert names.keys() >= HANDFUL.keys()


@pytest.mark.parametrize("name", HANDFUL)
def test_a_fault_is_noticed(name: str) -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    alive, _ = survives(mutant, [HANDFUL[name]])
    assert not alive
