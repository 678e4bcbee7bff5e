"""The reference of the content service keeps up with its code."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate import content
from headgate.content.settings import CONTENT_OPTIONS
from headgate.wiring.options import Option

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "content.md"


@pytest.mark.parametrize("option", CONTENT_OPTIONS, ids=lambda option: option.name)
def test_the_reference_has_every_setting(option: Option) -> None:
    row = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{option.name}` |")]
    assert len(row) == 1
    value = option.default
    shown = "unset" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"
    shown = f"{value:g}" if isinstance(value, float) else shown
    assert f"| `{option.variable}` | `{shown}` |" in row[0]


@pytest.mark.parametrize("name", content.__all__)
def test_the_reference_has_every_public_name(name: str) -> None:
    assert f"`{name}" in PAGE.read_text() or f".{name}`" in PAGE.read_text()
    assert name in dir(content)
