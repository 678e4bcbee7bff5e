"""The content service's part of `headgate config check`: shown where anybody said anything about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from headgate.cli import screen
from headgate.content.settings import load_content
from headgate.core.errors import ConfigurationError

if TYPE_CHECKING:
    from headgate.wiring.options import Resolved

__all__ = ["ContentSection", "content_section"]

_OTHERS = frozenset({"store"})
"""What other doors are told too: it says nothing about this one."""


class ContentSection(NamedTuple):
    """Its settings, or what is wrong with them."""

    resolved: tuple[Resolved, ...]
    problem: str | None

    @property
    def said(self) -> bool:
        """Whether anybody said anything about it."""
        own = (item for item in self.resolved if item.option.name not in _OTHERS)
        return self.problem is not None or any(item.origin != "default" for item in own)

    def shape(self) -> list[dict[str, object]]:
        """As JSON; secrets are left out."""
        return [
            {
                "name": item.option.name,
                "variable": item.option.variable,
                "value": _shown(item),
                "origin": item.origin,
                "meaning": item.option.meaning,
            }
            for item in self.resolved
        ]

    def show(self) -> None:
        """For people."""
        from rich.text import Text  # noqa: PLC0415 - `--json` does without it

        rows = screen.table("setting", "value", "from")
        rows.columns[2].no_wrap = True
        for item in self.resolved:
            where = item.origin.removesuffix(f" {item.option.name}")
            style = screen.QUIET if where == "default" else screen.ACCENT
            rows.add_row(item.option.name, Text(str(_shown(item))), Text(where, style=style))
        screen.show(Text("Content", style="bold"), Text())
        if self.resolved:
            screen.show(rows, Text())


def content_section() -> ContentSection:
    """The settings as they stand; the first problem ends the reading."""
    try:
        settings = load_content()
    except ConfigurationError as error:
        return ContentSection((), error.message)
    return ContentSection((*settings.resolved, *settings.cache.resolved), None)


def _shown(item: Resolved) -> object:
    """A value, or that there is one."""
    if item.option.secret and item.value is not None:
        return "set"
    return item.value
