"""The upstream the demo runs against: six keys in three projects, each with a trouble of its own.

alder   little a minute and very little a day: after 14 answers it is out until tomorrow
birch   16 requests a minute
cedar   16 requests a minute, counted half a minute later than birch; one of its keys has expired

Faults come at fixed places in the sequence of requests, so every run meets all of them. Quotas are
chosen for a run of two to three of the short minutes below, however fast the machine is.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files

from headgate.emulator import Emulator, EmulatorConfig, Latency, Limits, Project
from headgate.policy.models import ModelPolicy
from headgate.wiring.presets import gemini_registry
from headgate.wiring.settings import OPTIONS

__all__ = ["MINUTE", "arrange", "config", "key_list", "model", "prompts"]

MINUTE = 8.0
"""Seconds of one emulated minute."""

_RPM, _ALDER_RPM, _ALDER_RPD = 16, 10, 14

# The kind of fault, and how many requests come before it.
_FAULTS = (("overload", 14), ("reset", 33), ("high_demand", 58), ("internal", 90))


def config(wall: float) -> EmulatorConfig:
    """The emulator's configuration; its minutes begin at `wall` (Unix seconds)."""
    phase = wall % MINUTE
    later = (phase + MINUTE / 2) % MINUTE
    # A day counted backwards from now: midnight cannot give alder a second one in the middle of a run.
    alder = Limits(rpm=_ALDER_RPM, rpd=_ALDER_RPD, phase=phase, rpd_mechanism="sliding_log")
    return EmulatorConfig(
        projects=[
            _project("alder", alder),
            _project("birch", Limits(rpm=_RPM, phase=phase)),
            _project("cedar", Limits(rpm=_RPM, phase=later), expired="cedar-2"),
        ],
        minute_seconds=MINUTE,
        latency=Latency(
            first_byte=0.25, per_chunk=0.02, distribution="lognormal", spread=0.4, maximum=1.5
        ),
        retire_models=False,
        seed=7,
    )


def _project(name: str, limits: Limits, expired: str | None = None) -> Project:
    keys = {f"{name}-{number}": f"demo-no-secret-{name}-{number}" for number in (1, 2)}
    states = {} if expired is None else {expired: "expired"}
    return Project(name, keys, {"*": limits}, key_states=states)  # type: ignore[arg-type] # a word of theirs


def arrange(upstream: Emulator) -> None:
    """Set the faults in their places."""
    for kind, skip in _FAULTS:
        upstream.script(kind, skip=skip)


def key_list(configured: EmulatorConfig) -> list[str]:
    """The keys as a client takes them, projects in turn."""
    projects = [(project.name, list(project.keys.items())) for project in configured.projects]
    return [
        f"{value}|{key}|{name}"
        for number in (0, 1)
        for name, keys in projects
        for key, value in [keys[number]]
    ]


def model(wall: float) -> str:
    """The model the documented default means today; a person's own default does not matter here."""
    default = next(option.default for option in OPTIONS if option.name == "default_model")
    today = datetime.fromtimestamp(wall, UTC).date()
    return gemini_registry().resolve(str(default), today, ModelPolicy.SUCCESSOR).model.id


def prompts() -> list[str]:
    """The shipped prompts, in order."""
    text = files("headgate.cli").joinpath("data/demo-prompts.txt").read_text(encoding="utf-8")
    return text.splitlines()
