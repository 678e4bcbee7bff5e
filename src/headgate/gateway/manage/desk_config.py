"""The configuration: where each value comes from, whether another would be taken, taking it over."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from headgate.core.call import Key
from headgate.core.errors import HeadgateError
from headgate.gateway.manage.house import House
from headgate.gateway.manage.table import Ask, Endpoint, NoQuery, endpoint
from headgate.gateway.manage.trouble import TroubleError
from headgate.gateway.manage.views import (
    ConfigChangeView,
    ConfigView,
    SectionView,
    SettingView,
    Validation,
)
from headgate.gateway.reloading import Cause, Change, Reloading
from headgate.policy.redaction import redact
from headgate.wiring.claude import survey_claude
from headgate.wiring.file import TABLES
from headgate.wiring.gateway_settings import load_gateway
from headgate.wiring.openai import survey_openai
from headgate.wiring.options import Resolved
from headgate.wiring.settings import Survey, process_environment, survey_gemini
from headgate.wiring.watching import watched_files

__all__ = ["ENDPOINTS", "view_of_change"]

_SURVEYS = {"gemini": survey_gemini, "claude": survey_claude, "openai": survey_openai}
_PLAIN = (str, int, float, bool, type(None))


class Proposed(Struct, frozen=True, forbid_unknown_fields=True):
    """A configuration that may be taken.

    Attributes:
        toml: the content of a `headgate.toml`.
    """

    toml: Annotated[str, Meta(max_length=1_000_000)]


class Outcome(Struct, frozen=True):
    """What became of reading the configuration again.

    Attributes:
        change: None where nothing about it was new.
    """

    change: ConfigChangeView | None


async def show_settings(house: House, _: Ask[NoQuery, None]) -> ConfigView:
    """Every setting with its value and where it comes from."""
    reloading = house.reloading
    file = watched_files(house.environ)[0]
    sections = [_section("gateway", house.gateway.settings.resolved)]
    for upstream in house.gateway.upstreams:
        settings = upstream.settings
        section = _section(upstream.name, settings.resolved, settings.keys, settings.keys_origin)
        sections.append(section)
    return ConfigView(
        generation=house.gateway.generation,
        file=str(file) if await asyncio.to_thread(file.is_file) else None,
        trouble=None if reloading is None else reloading.trouble,
        pending=[] if reloading is None else list(reloading.pending),
        sections=sections,
    )


async def validate_settings(house: House, ask: Ask[NoQuery, Proposed]) -> Validation:
    """Whether a file would be taken over."""
    problems = await asyncio.to_thread(_problems, house, ask.body.toml)
    return Validation(ok=not problems, problems=problems)


async def reload_settings(house: House, _: Ask[NoQuery, None]) -> Outcome:
    """Read the configuration now."""
    change = await _reloading(house).reload(Cause.REQUEST)
    if change is not None and not change.taken:
        raise TroubleError("configuration", change.trouble or "It was not taken over.")
    return Outcome(None if change is None else view_of_change(house, change))


async def show_history(house: House, _: Ask[NoQuery, None]) -> list[ConfigChangeView]:
    """The configurations that were taken over or refused, the newest first."""
    return [view_of_change(house, change) for change in _reloading(house).changes]


def view_of_change(house: House, change: Change) -> ConfigChangeView:
    """A change as it is shown."""
    return ConfigChangeView(
        number=change.number,
        at=house.instant(change.at),
        cause=change.cause.value,
        taken=change.taken,
        changed=list(change.changed),
        pending=list(change.pending),
        trouble=change.trouble,
    )


# ── inside ──────────────────────────────────────────────────────────────────────────────────────


def _reloading(house: House) -> Reloading:
    if house.reloading is None:
        raise TroubleError("conflict", "This gateway was given its configuration, and reads none.")
    return house.reloading


def _section(
    name: str, resolved: tuple[Resolved, ...], keys: tuple[Key, ...] = (), origin: str | None = None
) -> SectionView:
    return SectionView(
        name=name,
        settings=[
            SettingView(
                name=item.option.name,
                variable=item.option.variable,
                value=_shown(item),
                origin=item.origin,
                meaning=item.option.meaning,
            )
            for item in resolved
        ],
        keys_from=origin,
        keys=[key.name for key in keys],
    )


def _shown(item: Resolved) -> str | int | float | bool | None:
    """A place shows itself without its password; whatever else may hold a credential is hidden."""
    value = item.value
    if item.option.secret:
        shown = getattr(value, "shown", None)
        return shown if isinstance(shown, str) else "…"
    if isinstance(value, _PLAIN):
        return value if not isinstance(value, str) else redact(value)
    return redact(str(value))


def _problems(house: House, toml: str) -> list[str]:
    """A sentence for each thing that is wrong with a file, as `headgate config check` says them."""
    with tempfile.TemporaryDirectory(prefix="headgate-") as folder:
        file = Path(folder) / "headgate.toml"
        file.write_text(toml, encoding="utf-8")
        environ = {**process_environment(house.environ), "HEADGATE_CONFIG": str(file)}
        if strange := _no_files(environ, house.environ):
            return strange
        found: dict[str, None] = {}
        try:
            load_gateway(environ)
        except HeadgateError as error:
            found[error.message] = None
        keyed = 0
        for survey in _SURVEYS.values():
            looked: Survey = survey(environ)
            keyed += not looked.keyless
            # A provider without keys is not served, which is no mistake.
            found |= dict.fromkeys(looked.problems[: len(looked.problems) - looked.keyless])
        if not keyed:
            found[
                f"No key of any provider was found, in the environment or in {', '.join(TABLES)}."
            ] = None
        return [redact(said.replace(str(file), "headgate.toml")) for said in found]


def _no_files(proposed: Mapping[str, str], served: Mapping[str, str] | None) -> list[str]:
    """A sentence for each path of keys that a proposal names where no file is. To read from a pipe or a
    device may take for ever, and it is a request that would wait."""
    news = set(watched_files(proposed)[1:]) - set(watched_files(served))
    return [
        f"keys_file: {path} is no regular file. Name a readable text file."
        for path in sorted(news)
        if os.path.exists(path) and not os.path.isfile(path)  # as Path has it they may raise
    ]


# ── the table ───────────────────────────────────────────────────────────────────────────────────

_CHANGE = {
    "number": 2, "at": "2026-11-21T08:00:00.000000+00:00", "cause": "file", "taken": True,
    "changed": ["gemini.max_retries"], "pending": [], "trouble": None,
}  # fmt: skip
_CONFIG = {
    "generation": 2, "file": "headgate.toml", "trouble": None, "pending": [],
    "sections": [{
        "name": "gemini", "keys_from": "GEMINI_API_KEYS", "keys": ["primary"],
        "settings": [{"name": "max_retries", "variable": "GEMINI_API_KEY_ROTATION_MAX_RETRIES",
                      "value": 3, "origin": "headgate.toml [gemini]",
                      "meaning": "extra tries of a call; rotations are free"}],
    }],
}  # fmt: skip
_NONE = type(None)
_TAG = "config"

ENDPOINTS: tuple[Endpoint, ...] = (
    endpoint("GET", "/config", show_settings, query=NoQuery, body=_NONE, answer=ConfigView, tag=_TAG,
             summary="Every setting, its value and where it comes from",
             description="What may hold a credential is hidden. `trouble` says why the file as it is "
             "now was not taken over.", answer_example=_CONFIG),
    endpoint("POST", "/config/validate", validate_settings, query=NoQuery, body=Proposed,
             answer=Validation, tag=_TAG, summary="Whether a configuration would be taken",
             description="Nothing is changed, and nothing of it is kept.",
             body_example={"toml": "[gemini]\nmax_retries = 5\n"},
             answer_example={"ok": True, "problems": []}),
    endpoint("POST", "/config/reload", reload_settings, query=NoQuery, body=_NONE, answer=Outcome,
             tag=_TAG, summary="Read the configuration now",
             description="As a change of the file or a SIGHUP does. Calls under way keep the one they "
             "began with; one that is wrong changes nothing. Of several workers each reads its own.",
             problems=("configuration",), answer_example={"change": {**_CHANGE, "cause": "request"}}),
    endpoint("GET", "/config/history", show_history, query=NoQuery, body=_NONE,
             answer=list[ConfigChangeView], tag=_TAG,
             summary="The last hundred configurations that were taken over or refused",
             answer_example=[_CHANGE]),
)  # fmt: skip
