"""Tables that say which tests prove an item of a list: what is in them exists."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent


@cache
def names_in(place: str) -> frozenset[str]:
    """The names of the tests of a file, given as `folder/file` without its ending."""
    text = (TESTS / f"{place}.py").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^(?:async )?def (test_\w+)\(", text, re.MULTILINE))


def missing(proofs: dict[str, list[str]]) -> list[str]:
    """Which of the tests named as `folder/file::test` there are not."""
    return [
        f"{item}: {proof}"
        for item, listed in proofs.items()
        for proof in listed
        if proof.partition("::")[2] not in names_in(proof.partition("::")[0])
    ]
