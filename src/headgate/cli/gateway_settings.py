"""The gateway's part of `headgate config check`: shown where anybody said anything about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from headgate.cli import screen
from headgate.core.errors import ConfigurationError
from headgate.policy.redaction import mask
from headgate.wiring.gateway_settings import GatewaySettings, load_gateway

if TYPE_CHECKING:
    from rich.text import Text

    from headgate.wiring.options import Resolved

__all__ = ["GatewaySection", "gateway_section"]


class GatewaySection(NamedTuple):
    """Its settings and callers, or what is wrong with them."""

    settings: GatewaySettings
    problem: str | None

    @property
    def said(self) -> bool:
        """Whether anybody said anything about it."""
        own = any(item.origin != "default" for item in self.settings.resolved)
        return self.problem is not None or own or bool(self.settings.callers)

    def shape(self) -> dict[str, object]:
        """As JSON; keys are masked."""
        return {
            "options": [
                {
                    "name": item.option.name,
                    "variable": item.option.variable,
                    "value": item.value,
                    "origin": item.origin,
                    "meaning": item.option.meaning,
                }
                for item in self.settings.resolved
            ],
            "callers": [{"name": key.name, "value": mask(key.value)} for key in self.settings.callers],
        }

    def show(self) -> None:
        """For people."""
        from rich.text import Text  # noqa: PLC0415 - `--json` does without it

        rows = screen.table("setting", "value", "from")
        rows.columns[2].no_wrap = True
        for item in self.settings.resolved:
            rows.add_row(item.option.name, Text(str(item.value)), _origin(item))
        callers = screen.table("caller", "key")
        for key in self.settings.callers:
            callers.add_row(Text(key.name), Text(mask(key.value)))
        screen.show(Text("Gateway", style="bold"), Text())
        if self.settings.resolved:
            screen.show(rows, Text())
        if self.settings.callers:
            screen.show(callers, Text())


def gateway_section() -> GatewaySection:
    """The settings as they stand; the first problem ends the reading."""
    try:
        return GatewaySection(load_gateway(), None)
    except ConfigurationError as error:
        return GatewaySection(GatewaySettings(), error.message)


def _origin(item: Resolved) -> Text:
    from rich.text import Text  # noqa: PLC0415 - likewise

    where = item.origin.removesuffix(f" {item.option.name}")
    return Text(where, style=screen.QUIET if where == "default" else screen.ACCENT)
