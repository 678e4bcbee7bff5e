"""The reference of the management API is what its table of endpoints says."""

from __future__ import annotations

from pathlib import Path

from headgate.gateway.manage.opening import TABLE
from headgate.gateway.manage.reference import page

PAGE = Path(__file__).parents[2] / "docs/reference/management-api.md"


def test_the_page_is_made_of_the_table() -> None:
    """`python -m headgate.gateway.manage.reference > docs/reference/management-api.md` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_it_has_every_endpoint() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for one in TABLE.endpoints:
        assert f"`{one.method} {one.path.removeprefix('/manage/v1')}`" in text
