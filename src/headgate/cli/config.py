"""`headgate config check`: every value, where it came from, and everything that is wrong."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.resources import files
from typing import TYPE_CHECKING

from headgate.cli import screen
from headgate.cli.doors import AsJson, guarded, stop
from headgate.cli.exits import ExitCode
from headgate.core.call import Key
from headgate.policy.models import ModelPolicy
from headgate.policy.redaction import mask
from headgate.wiring.clock import SystemClock
from headgate.wiring.presets import gemini_registry
from headgate.wiring.settings import Resolved, Survey, survey_gemini

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["check"]


@dataclass(frozen=True, slots=True)
class _ModelToday:
    asked: str
    resolved: str
    warning: str | None
    allowed: bool


@guarded
def check(as_json: AsJson = False) -> None:
    """Check every setting, show its value and where it came from; keys are masked."""
    found = survey_gemini()
    today = datetime.fromtimestamp(SystemClock().wall(), UTC).date()
    dated = _model_data_date()
    models = _models_today(found, today)
    for name, model in models.items():
        if not model.allowed:
            found.problems.append(
                f"{name}: {model.warning} Name another, or set HEADGATE_MODEL_POLICY=successor."
            )
    if as_json:
        screen.data_json(_shape(found, models, dated, today))
    else:
        _show(found, models, dated, today)
    if found.problems:
        for problem in found.problems:
            screen.error(problem)
        stop(ExitCode.CONFIGURATION)


def _model_data_date() -> date:
    text = files("headgate.wiring").joinpath("data/gemini-models.toml").read_text(encoding="utf-8")
    dated = tomllib.loads(text)["date"]
    if not isinstance(dated, date):
        raise TypeError("the shipped model data has no date")
    return dated


def _models_today(found: Survey, today: date) -> dict[str, _ModelToday]:
    values = {item.option.name: item.value for item in found.resolved}
    policy = values.get("model_policy")
    models: dict[str, _ModelToday] = {}
    for name in ("default_model", "embedding_model"):
        if name in values and isinstance(policy, ModelPolicy):
            asked = str(values[name])
            got = gemini_registry().resolve(asked, today, policy)
            models[name] = _ModelToday(asked, got.model.id, got.warning, got.allowed)
    return models


# ── showing ─────────────────────────────────────────────────────────────────────────────────────────


def _shape(
    found: Survey, models: dict[str, _ModelToday], dated: date, today: date
) -> dict[str, object]:
    return {
        "ok": not found.problems,
        "file": found.file,
        "options": [
            {
                "name": item.option.name,
                "variable": item.option.variable,
                "value": item.value,
                "origin": item.origin,
                "meaning": item.option.meaning,
            }
            for item in found.resolved
        ],
        "keys": {
            "origin": found.keys_origin,
            "keys": [
                {"name": key.name, "project": _project(key), "value": mask(key.value)}
                for key in found.keys
            ],
        },
        "models": {
            "data_date": dated.isoformat(),
            "data_age_days": (today - dated).days,
            **{
                name: {"asked": model.asked, "resolved": model.resolved, "warning": model.warning}
                for name, model in models.items()
            },
        },
        "problems": found.problems,
    }


def _project(key: Key) -> str | None:
    return None if key.domain.startswith("key:") else key.domain


def _show(found: Survey, models: dict[str, _ModelToday], dated: date, today: date) -> None:
    from rich.padding import Padding  # noqa: PLC0415 - `--json` does without it
    from rich.text import Text  # noqa: PLC0415 - likewise

    options = screen.table("setting", "value", "from")
    options.columns[2].no_wrap = True
    for item in found.resolved:
        options.add_row(item.option.name, Text(_plain(item.value)), _origin(item))
    keys = screen.table("key", "project", "value")
    for key in found.keys:
        keys.add_row(Text(key.name), Text(_project(key) or "–"), Text(mask(key.value)))
    lines: list[Text | Padding] = []
    for name, model in models.items():
        arrow = "" if model.asked == model.resolved else f" → {model.resolved}"
        lines.append(Text(f"{name} today: {model.asked}{arrow}"))
        if model.warning:
            lines.append(Padding(Text(model.warning, style=screen.WARN), (0, 0, 0, 2)))
    age = (today - dated).days
    lines.append(Text(f"Model data of {dated}, {screen.count(age, 'day')} old."))
    lines.append(Text(f"File: {found.file or 'none (headgate.toml is not here)'}."))
    if found.resolved:
        screen.show(options, Text())
    if found.keys:
        screen.show(
            Text(f"{screen.count(len(found.keys), 'key')} from {found.keys_origin}"), keys, Text()
        )
    screen.show(*lines)
    if not found.problems:
        screen.note("The configuration is complete and correct.", style=screen.GOOD)


def _plain(value: object) -> str:
    if value is None:
        return "unset"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _origin(item: Resolved) -> Text:
    from rich.text import Text  # noqa: PLC0415 - likewise

    where = item.origin.removesuffix(f" {item.option.name}")
    return Text(where, style=screen.QUIET if where == "default" else screen.ACCENT)
