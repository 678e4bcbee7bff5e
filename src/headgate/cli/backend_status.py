"""`headgate backend status`: what a backend would work with here, and how its models are doing.

A command is a process of its own: it knows what is configured, what the usage ledger of all processes
says, and what the upstream answers now. Breakers, queues, the cache in memory and the last minute
belong to the process that runs; that one tells with `get_gemini_backend_status()`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headgate.cli import screen
from headgate.cli.doors import AsJson, Verbose, guarded, stop
from headgate.cli.exits import ExitCode
from headgate.cli.usage import money, open_ledger
from headgate.policy.redaction import one_line

if TYPE_CHECKING:
    from headgate.core.usage import UsageSum
    from headgate.wiring.settings import GeminiSettings
    from headgate.wiring.usage import UsagePlace

__all__ = ["backend_status"]

_DAY = 86_400
_MOST_MODELS = 20
"""Models that are checked: the dearest of the last day."""

_STYLES = {"healthy": screen.GOOD, "degraded": screen.WARN, "unhealthy": screen.BAD}

Offline = Annotated[
    bool, typer.Option("--offline", metavar="", help="Do not ask the upstream about the models.")
]


@dataclass(frozen=True, slots=True)
class _Model:
    """A model: what the ledger says of its last day, and what the upstream says of it now."""

    name: str
    used: UsageSum
    health: str | None


@guarded
def backend_status(
    offline: Offline = False,
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """Show what a backend works with, what it used in a day, and how its models are doing."""
    from headgate.wiring.settings import load_gemini  # noqa: PLC0415 - `--help` need not wait for it
    from headgate.wiring.usage import usage_place  # noqa: PLC0415

    settings, place = load_gemini(), usage_place()
    used = _used(place)
    default = _today(settings)
    names = [one.name for one in used]
    if default not in names:
        names.append(default)
    health = {} if offline else asyncio.run(_checked(names))
    by_name = {one.name: one for one in used}
    models = [_Model(name, by_name.get(name) or _nothing(name), health.get(name)) for name in names]
    if as_json:
        screen.data_json(_shape(settings, place, models))
    else:
        _show(settings, place, models, offline=offline)
    if any(model.health == "unhealthy" for model in models):
        stop(ExitCode.UPSTREAM)


def _today(settings: GeminiSettings) -> str:
    """What the default model means today."""
    from datetime import UTC, datetime  # noqa: PLC0415 - as above

    from headgate.wiring.clock import SystemClock  # noqa: PLC0415
    from headgate.wiring.presets import gemini_registry  # noqa: PLC0415

    today = datetime.fromtimestamp(SystemClock().wall(), UTC).date()
    return gemini_registry().resolve(settings.default_model, today, settings.model_policy).model.id


def _used(place: UsagePlace) -> list[UsageSum]:
    """What Gemini models used in the last 24 hours, the dearest first."""
    from headgate.core.usage import By, UsageFilter  # noqa: PLC0415 - as above
    from headgate.wiring.clock import SystemClock  # noqa: PLC0415

    store = open_ledger(place)
    if store is None:
        return []
    try:
        chosen = UsageFilter(max(0.0, SystemClock().wall() - _DAY))
        found = store.sums(By.MODEL, chosen)
    finally:
        store.close()
    return [one for one in found if one.name.startswith("gemini")][:_MOST_MODELS]


async def _checked(names: list[str]) -> dict[str, str]:
    """How the upstream answers for each model."""
    from headgate.backend import BackendConfig, GeminiBackend  # noqa: PLC0415 - slow to import

    config = BackendConfig(model_discovery=False, monitoring_enabled=False, usage="off")
    async with GeminiBackend(config) as backend:
        found = [await backend.get_gemini_health_status(name) for name in names]
    return {one.model: one.status.value for one in found}


def _nothing(name: str) -> UsageSum:
    from headgate.core.usage import UsageSum  # noqa: PLC0415 - as above

    return UsageSum(name)


def _shape(settings: GeminiSettings, place: UsagePlace, models: list[_Model]) -> dict[str, Any]:
    return {
        "keys": len(settings.keys),
        "projects": len({key.domain for key in settings.keys}),
        "base_url": settings.base_url,
        "store": str(settings.store),
        "ledger": place.shown,
        "models": [
            {
                "model": model.name,
                "health": model.health,
                "requests_24h": model.used.requests,
                "failed_24h": model.used.failures,
                "input_tokens_24h": model.used.input_tokens,
                "output_tokens_24h": model.used.output_tokens,
                "cost_24h": model.used.cost / 1e9,
            }
            for model in models
        ],
    }


def _show(settings: GeminiSettings, place: UsagePlace, models: list[_Model], *, offline: bool) -> None:
    from rich.text import Text  # noqa: PLC0415 - tables alone need it

    projects = len({key.domain for key in settings.keys})
    facts = screen.table("", "")
    for name, value in (
        ("keys", f"{len(settings.keys)}, of {screen.count(projects, 'project')}"),
        ("upstream", settings.base_url),
        ("quota ledger", str(settings.store)),
        ("usage ledger", f"{place.shown}  ({place.origin})"),
    ):
        facts.add_row(Text(name, style=screen.QUIET), Text(one_line(value)))
    facts.show_header = False
    right = ("requests", "failed", "in", "out", "$")
    table = screen.table("model, last 24 h", "health", *right, right=right)
    table.columns[0].no_wrap = True
    costs = money([model.used.cost / 1e9 for model in models])
    for model, cost in zip(models, costs, strict=True):
        used = model.used
        table.add_row(
            Text(one_line(model.name)),
            Text(model.health or "not asked", style=_STYLES.get(model.health or "", screen.QUIET)),
            Text(f"{used.requests:,}"),
            Text(f"{used.failures:,}" if used.failures else ""),
            Text(f"{used.input_tokens:,}"),
            Text(f"{used.output_tokens:,}"),
            Text(cost),
        )
    screen.show(facts, Text(""), table)
    asked = "" if offline else "Health is what the upstream answered just now. "
    screen.note(
        f"\n{asked}Breakers, queues and the last minute belong to the process that runs: there, "
        "get_gemini_backend_status() tells them.",
        style=screen.QUIET,
    )
