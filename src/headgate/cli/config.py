"""`headgate config check`: every value, where it came from, and everything that is wrong."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from msgspec import structs

from headgate.cli import screen
from headgate.cli.codegen_settings import CodegenSection, codegen_section
from headgate.cli.content_settings import ContentSection, content_section
from headgate.cli.doors import AsJson, guarded, stop
from headgate.cli.exits import ExitCode
from headgate.cli.gateway_settings import GatewaySection, gateway_section
from headgate.policy.models import ModelPolicy, Registry
from headgate.policy.quota.table import Quota, QuotaTable
from headgate.policy.redaction import mask
from headgate.wiring.claude import survey_claude
from headgate.wiring.clock import SystemClock
from headgate.wiring.key_status import group_of
from headgate.wiring.openai import openai_registry, survey_openai
from headgate.wiring.presets import anthropic_registry, gemini_registry
from headgate.wiring.settings import Resolved, Survey, survey_gemini

if TYPE_CHECKING:
    from rich.padding import Padding
    from rich.text import Text

__all__ = ["check"]

_JSON = (str, int, float, bool, type(None))
"""Values of options that are shown as they are; addresses and the like as text, without passwords."""


@dataclass(frozen=True, slots=True)
class _ModelToday:
    asked: str
    resolved: str
    warning: str | None
    allowed: bool


@dataclass(frozen=True, slots=True)
class _Section:
    """What there is to say about one provider."""

    title: str
    group: str  # what its quotas are counted against
    survey: Survey
    registry: Registry
    data: str = ""  # file of what is known of its models; empty: nothing is

    @property
    def configured(self) -> bool:
        """Whether anybody said anything about it."""
        survey = self.survey
        # A variable that speaks for every provider says nothing about this one.
        said = any(
            item.origin == item.option.variable and _owner(item.origin) == self.title
            for item in survey.resolved
        )
        return survey.named or said or bool(survey.keys) or not survey.keyless

    def models(self, today: date) -> dict[str, _ModelToday]:
        """What its default names mean today."""
        values = {item.option.name: item.value for item in self.survey.resolved}
        policy = values.get("model_policy")
        found: dict[str, _ModelToday] = {}
        for name in ("default_model", "embedding_model"):
            if name in values and isinstance(policy, ModelPolicy):
                asked = str(values[name])
                got = self.registry.resolve(asked, today, policy)
                found[name] = _ModelToday(asked, got.model.id, got.warning, got.allowed)
        return found

    def dated(self) -> date | None:
        """The date of what is known of its models."""
        if not self.data:
            return None
        place = files("headgate.wiring").joinpath(f"data/{self.data}")
        dated = tomllib.loads(place.read_text(encoding="utf-8"))["date"]
        if not isinstance(dated, date):
            raise TypeError(f"{self.data} has no date")
        return dated


def _owner(variable: str) -> str:
    if "OPENAI" in variable:
        return "OpenAI"
    return "Claude" if "ANTHROPIC" in variable or "CLAUDE" in variable else "Gemini"


@guarded
def check(as_json: AsJson = False) -> None:
    """Check every setting, show its value and where it came from; keys are masked."""
    gemini = _Section("Gemini", "project", survey_gemini(), gemini_registry(), "gemini-models.toml")
    claude = _Section(
        "Claude", "organisation", survey_claude(), anthropic_registry(), "anthropic-models.toml"
    )
    openai = _Section("OpenAI", "organisation", survey_openai(), openai_registry())
    sections = [gemini, *(section for section in (claude, openai) if section.configured)]
    codegen, gateway, content = codegen_section(), gateway_section(), content_section()
    today = datetime.fromtimestamp(SystemClock().wall(), UTC).date()
    problems = _problems(sections, today, codegen, gateway, content)
    if as_json:
        shape = _shape(sections, today, problems)
        shape["codegen"] = codegen.shape() if codegen.said else None
        shape["gateway"] = gateway.shape() if gateway.said else None
        shape["content"] = content.shape() if content.said else None
        screen.data_json(shape)
    else:
        others = codegen.said or gateway.said or content.said
        for section in sections:
            _show(section, today, alone=len(sections) == 1 and not others)
        for further in (codegen, gateway, content):
            if further.said:
                further.show()
        _end(gemini.survey, problems)
    if problems:
        for problem in problems:
            screen.error(problem)
        stop(ExitCode.CONFIGURATION)


def _problems(
    sections: list[_Section],
    today: date,
    codegen: CodegenSection,
    gateway: GatewaySection,
    content: ContentSection,
) -> list[str]:
    """A sentence for each thing that is wrong, once. One provider with keys is enough."""
    found = [section.problem for section in (codegen, gateway, content) if section.problem]
    keys_elsewhere = any(section.survey.keys for section in sections) or codegen.has_token
    for section in sections:
        survey = section.survey
        for problem in survey.problems:
            lacks_keys = survey.keyless and problem == survey.problems[-1]
            if not (lacks_keys and keys_elsewhere):
                found.append(problem)
        for name, model in section.models(today).items():
            if not model.allowed:
                found.append(
                    f"{name}: {model.warning} Name another, or set HEADGATE_MODEL_POLICY=successor."
                )
    return list(dict.fromkeys(found))


# ── as JSON ─────────────────────────────────────────────────────────────────────────────────────────


def _shape(sections: list[_Section], today: date, problems: list[str]) -> dict[str, object]:
    gemini, *others = sections
    shapes = {section.title.lower(): _section_shape(section, today) for section in others}
    return {
        "ok": not problems,
        "file": gemini.survey.file,
        **_section_shape(gemini, today),
        **{name: shapes.get(name) for name in ("claude", "openai")},
        "problems": problems,
    }


def _section_shape(section: _Section, today: date) -> dict[str, object]:
    found = section.survey
    dated = section.dated()
    return {
        "options": [
            {
                "name": item.option.name,
                "variable": item.option.variable,
                "value": item.value if isinstance(item.value, _JSON) else str(item.value),
                "origin": item.origin,
                "meaning": item.option.meaning,
            }
            for item in found.resolved
        ],
        "keys": {
            "origin": found.keys_origin,
            "keys": [
                {"name": key.name, section.group: group_of(key), "value": mask(key.value)}
                for key in found.keys
            ],
        },
        "quotas": [
            {section.group: row.domain, "model": row.model, "from": row.source, **_declared(row.quota)}
            for row in _quota_rows(found.quotas)
        ],
        "models": {
            "data_date": dated.isoformat() if dated else None,
            "data_age_days": (today - dated).days if dated else None,
            **{
                name: {"asked": model.asked, "resolved": model.resolved, "warning": model.warning}
                for name, model in section.models(today).items()
            },
        },
    }


class _QuotaRow(NamedTuple):
    """Numbers as they are enforced, and who says so. None: each domain, each model."""

    domain: str | None
    model: str | None
    quota: Quota
    source: str = "declared"


def _quota_rows(table: QuotaTable | None) -> list[_QuotaRow]:
    """The most general declaration first; then presets, which fill in what those leave open."""
    if table is None:
        return []
    rows = [_QuotaRow(None, None, table.default)]
    rows += [_QuotaRow(None, model, quota) for model, quota in table.models.items()]
    rows += [_QuotaRow(domain, None, quota) for domain, quota in table.projects.items()]
    rows += [_QuotaRow(*names, quota) for names, quota in table.project_models.items()]
    rows += [_QuotaRow(None, m, quota, table.presets_from) for m, quota in table.presets.items()]
    return [row for row in rows if row.quota.declared]


def _declared(quota: Quota) -> dict[str, int]:
    numbers: dict[str, int | None] = structs.asdict(quota)
    return {name: number for name, number in numbers.items() if number is not None}


# ── for people ──────────────────────────────────────────────────────────────────────────────────────


def _show(section: _Section, today: date, *, alone: bool) -> None:
    from rich.text import Text  # noqa: PLC0415 - `--json` does without it

    found = section.survey
    options = screen.table("setting", "value", "from")
    options.columns[2].no_wrap = True
    for item in found.resolved:
        options.add_row(item.option.name, Text(_plain(item.value)), _origin(item))
    keys = screen.table("key", section.group, "value")
    for key in found.keys:
        keys.add_row(Text(key.name), Text(group_of(key) or "–"), Text(mask(key.value)))
    if not alone:
        screen.show(Text(section.title, style="bold"), Text())
    if found.resolved:
        screen.show(options, Text())
    if found.keys:
        screen.show(
            Text(f"{screen.count(len(found.keys), 'key')} from {found.keys_origin}"), keys, Text()
        )
    elif found.keyless:
        screen.show(Text(f"No key of {section.title} was found."), Text())
    _show_quotas(section)
    screen.show(*_model_lines(section, today), *([] if alone else [Text()]))


def _show_quotas(section: _Section) -> None:
    from rich.text import Text  # noqa: PLC0415 - likewise

    rows = _quota_rows(section.survey.quotas)
    if not rows:
        return
    quotas = screen.table(f"quota of {section.group}", "model", "as it is enforced", "from")
    for row in rows:
        numbers = ", ".join(f"{name} {number}" for name, number in _declared(row.quota).items())
        names = (Text(row.domain or "each"), Text(row.model or "each"))
        quotas.add_row(*names, Text(numbers), Text(row.source))
    screen.show(quotas, Text())


def _model_lines(section: _Section, today: date) -> list[Text | Padding]:
    from rich.padding import Padding  # noqa: PLC0415 - likewise
    from rich.text import Text  # noqa: PLC0415 - likewise

    lines: list[Text | Padding] = []
    for name, model in section.models(today).items():
        arrow = "" if model.asked == model.resolved else f" → {model.resolved}"
        lines.append(Text(f"{name} today: {model.asked}{arrow}"))
        if model.warning:
            lines.append(Padding(Text(model.warning, style=screen.WARN), (0, 0, 0, 2)))
    dated = section.dated()
    if dated is not None:
        lines.append(Text(f"Model data of {dated}, {screen.count((today - dated).days, 'day')} old."))
    return lines


def _end(found: Survey, problems: list[str]) -> None:
    from rich.text import Text  # noqa: PLC0415 - likewise

    screen.show(Text(f"File: {found.file or 'none (headgate.toml is not here)'}."))
    if not problems:
        screen.note("The configuration is complete and correct.", style=screen.GOOD)


def _plain(value: object) -> str:
    if value is None:
        return "unset"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _origin(item: Resolved) -> Text:
    from rich.text import Text  # noqa: PLC0415 - likewise

    where = item.origin.removesuffix(f" {item.option.name}")
    return Text(where, style=screen.QUIET if where == "default" else screen.ACCENT)
