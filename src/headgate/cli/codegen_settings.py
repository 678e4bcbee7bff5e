"""The Codegen client's part of `headgate config check`: shown where anybody said anything about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from headgate.cli import screen
from headgate.core.errors import ConfigurationError
from headgate.policy.redaction import mask
from headgate.wiring.codegen_options import SECRETS, preset_for, resolve_codegen

if TYPE_CHECKING:
    from headgate.wiring.options import Resolved

__all__ = ["CodegenSection", "codegen_section"]


class CodegenSection(NamedTuple):
    """Its settings, or what is wrong with them."""

    resolved: tuple[Resolved, ...]
    problem: str | None

    @property
    def said(self) -> bool:
        """Whether anybody said anything about it; `ENVIRONMENT` alone names no client."""
        own = (item.origin for item in self.resolved if not item.origin.startswith("preset "))
        return self.problem is not None or any(origin != "default" for origin in own)

    @property
    def has_token(self) -> bool:
        """Whether it could call."""
        return any(item.option.name == "api_token" and item.value for item in self.resolved)

    def shape(self) -> list[dict[str, object]]:
        """As JSON; token and secret are masked."""
        return [
            {
                "name": item.option.name,
                "variable": item.option.variable,
                "value": _safe(item),
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
            style = screen.QUIET if item.origin == "default" else screen.ACCENT
            where = item.origin.removesuffix(f" {item.option.name}")
            rows.add_row(item.option.name, Text(_plain(_safe(item))), Text(where, style=style))
        screen.show(Text("Codegen", style="bold"), Text())
        if self.resolved:
            screen.show(rows, Text())


def codegen_section() -> CodegenSection:
    """The settings as they stand; the first problem ends the reading."""
    try:
        return CodegenSection(tuple(resolve_codegen({}, preset_for()).values()), None)
    except ConfigurationError as error:
        return CodegenSection((), error.message)


def _safe(item: Resolved) -> object:
    if item.option.name in SECRETS:
        return mask(str(item.value)) if item.value else None
    if isinstance(item.value, dict):  # headers may carry credentials
        return sorted(item.value)
    return item.value


def _plain(value: object) -> str:
    if value in (None, "", []):
        return "unset"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
