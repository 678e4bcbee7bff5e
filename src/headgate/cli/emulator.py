"""`headgate emulator`: upstreams with quotas and faults on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from headgate.cli import screen
from headgate.cli.doors import between, guarded

if TYPE_CHECKING:
    from headgate.emulator import (
        Emulator,
        EmulatorConfig,
        OpenAIOrganisation,
        Organisation,
        Project,
        Report,
    )

    _Owner: TypeAlias = Project | Organisation | OpenAIOrganisation

__all__ = ["emulator"]

DEFAULT_PORT = 8765

# Made up, and only known to the emulator: they are shown on purpose.
_DEFAULT_PROJECTS = {"alder": ("alder-1", "alder-2"), "birch": ("birch-1", "birch-2")}
_DEFAULT_ORGANISATIONS = {"cedar": ("cedar-1", "cedar-2"), "dogwood": ("dogwood-1",)}
_DEFAULT_OPENAI = {"elm": ("elm-1", "elm-2"), "fir": ("fir-1",)}
_RPM, _TPM, _RPD = 10, 250_000, 250
_CLAUDE_RPM, _ITPM, _OTPM = 50, 30_000, 8_000  # like a first tier's of late 2025
_OPENAI_RPM, _OPENAI_TPM = 500, 30_000  # as answers named them (open-webui #3743, 2024-07-09)


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the APIs: what quotas are counted against there, and which variables lead to it.

    Attributes:
        path: that its base URLs end with.
    """

    name: str
    group: str
    sdk: str
    addresses: tuple[str, str]  # of Headgate, of the SDK
    keys: str
    one_key: str
    path: str = ""


_SIDES = (
    _Side(
        "Gemini",
        "project",
        "google-genai",
        ("HEADGATE_GEMINI_BASE_URL", "GOOGLE_GEMINI_BASE_URL"),
        "GEMINI_API_KEYS",
        "GOOGLE_API_KEY",
    ),
    _Side(
        "Claude",
        "organisation",
        "anthropic",
        ("HEADGATE_ANTHROPIC_BASE_URL", "ANTHROPIC_BASE_URL"),
        "ANTHROPIC_API_KEYS",
        "ANTHROPIC_API_KEY",
    ),
    _Side(
        "OpenAI",
        "organisation",
        "openai",
        ("HEADGATE_OPENAI_BASE_URL", "OPENAI_BASE_URL"),
        "OPENAI_API_KEYS",
        "OPENAI_API_KEY",
        "/v1",
    ),
)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="PATH",
        exists=True,
        dir_okay=False,
        help="Projects, organisations, quotas, faults, as TOML.",
    ),
]
Host = Annotated[str, typer.Option("--host", metavar="HOST", help="Address to listen on.")]
Port = Annotated[
    int,
    typer.Option("--port", "-p", metavar="N", callback=between(0, 65535), help="0 takes a free one."),
]
ReportFile = Annotated[
    Path | None,
    typer.Option("--report", metavar="PATH", dir_okay=False, help="Write the report here."),
]
ShowKeys = Annotated[
    bool, typer.Option("--show-keys", metavar="", help="Print the keys of --config too.")
]
JsonLines = Annotated[
    bool, typer.Option("--json", metavar="", help="Print two JSON lines: address, report.")
]


@guarded
def emulator(
    config: Config = None,
    host: Host = "127.0.0.1",
    port: Port = DEFAULT_PORT,
    report: ReportFile = None,
    show_keys: ShowKeys = False,
    as_json: JsonLines = False,
) -> None:
    """Serve an emulated Gemini, Claude, OpenAI and Codegen until Ctrl-C, then print what they saw."""
    from headgate.emulator import Emulator, EmulatorConfig  # noqa: PLC0415 - brings the HTTP server

    settings = EmulatorConfig.from_toml(config) if config else default_config()
    upstream = Emulator(settings, host=host, port=port)
    show = show_keys or config is None  # those of no file are made up
    asyncio.run(_serve(upstream, show_keys=show, as_json=as_json))
    _hand_over(upstream.report(), report, as_json=as_json)


def default_config() -> EmulatorConfig:
    """Two projects, two organisations of each kind, and a team, under limits like those of the smallest
    tiers."""
    from headgate.emulator import (  # noqa: PLC0415 - see above
        CodegenTeam,
        EmulatorConfig,
        Latency,
        Limits,
        OpenAILimits,
        OpenAIOrganisation,
        Organisation,
        Project,
        TokenLimits,
    )

    limits = {"*": Limits(rpm=_RPM, tpm=_TPM, rpd=_RPD)}
    projects = [Project(name, _made_up(keys), limits) for name, keys in _DEFAULT_PROJECTS.items()]
    buckets = {"*": TokenLimits(rpm=_CLAUDE_RPM, itpm=_ITPM, otpm=_OTPM)}
    organisations = [
        Organisation(name, _made_up(keys), buckets) for name, keys in _DEFAULT_ORGANISATIONS.items()
    ]
    shares = {"*": OpenAILimits(rpm=_OPENAI_RPM, tpm=_OPENAI_TPM)}
    return EmulatorConfig(
        projects=projects,
        organisations=organisations,
        codegen=[CodegenTeam("maple", _made_up(("maple-1",)))],
        openai=[
            OpenAIOrganisation(name, _made_up(keys), shares) for name, keys in _DEFAULT_OPENAI.items()
        ],
        latency=Latency(first_byte=0.3, per_chunk=0.05),
    )


def _made_up(keys: Sequence[str]) -> dict[str, str]:
    return {key: f"emulated-no-secret-{key}" for key in keys}


async def _serve(upstream: Emulator, *, show_keys: bool, as_json: bool) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with upstream:
        exports = _exports(upstream, show_keys=show_keys)
        if as_json:
            screen.compact_json({"base_url": upstream.base_url, "environment": exports})
        _introduce(upstream, exports)
        await stopped.wait()
        screen.end_line()


def _sides(config: EmulatorConfig) -> list[tuple[_Side, Sequence[_Owner]]]:
    """The APIs that somebody has keys for, and who."""
    all_owners: tuple[Sequence[_Owner], ...] = (config.projects, config.organisations, config.openai)
    return [(side, owners) for side, owners in zip(_SIDES, all_owners, strict=True) if owners]


def _exports(upstream: Emulator, *, show_keys: bool) -> dict[str, str]:
    exports: dict[str, str] = {}
    for side, owners in _sides(upstream.config):
        exports |= dict.fromkeys(side.addresses, upstream.base_url + side.path)
        keys = [(value, name, owner.name) for owner in owners for name, value in owner.keys.items()]
        if keys and show_keys:
            exports[side.keys] = ",".join("|".join(entry) for entry in keys)
            exports[side.one_key] = keys[0][0]
    for team in upstream.config.codegen[:1]:
        exports["CODEGEN_BASE_URL"] = f"{upstream.base_url}/v1"
        exports["CODEGEN_ORG_ID"] = str(team.org_id)
        if show_keys and team.keys:
            exports["CODEGEN_API_TOKEN"] = next(iter(team.keys.values()))
    return exports


def _introduce(upstream: Emulator, exports: dict[str, str]) -> None:
    config = upstream.config
    for side, owners in _sides(config):
        keys = sum(len(owner.keys) for owner in owners)
        screen.note(
            f"Emulated {side.name} on {upstream.base_url}: {screen.count(keys, 'key')} in "
            f"{screen.count(len(owners), side.group)}."
        )
    if config.minute_seconds != 60:
        screen.note(f"A minute lasts {config.minute_seconds:g} seconds here.")
    for side, _ in _sides(config):
        ours, theirs = side.addresses
        whose = "gateway to OpenAI" if side.path else f"{side.name} client"
        screen.note(f"\nFor Headgate's {whose}:")
        _export(ours, exports)
        _export(side.keys, exports)
        screen.note(f"\nFor {side.sdk}:")
        _export(theirs, exports)
        _export(side.one_key, exports)
    if config.codegen:
        screen.note("\nFor Headgate's Codegen client:")
        for name in ("CODEGEN_BASE_URL", "CODEGEN_ORG_ID", "CODEGEN_API_TOKEN"):
            _export(name, exports)
    if not {*(side.keys for side in _SIDES), "CODEGEN_API_TOKEN"} & set(exports):
        screen.note("\nThe keys are those of the configuration file; --show-keys prints them.")
    screen.note(f"\nWatch it at {upstream.base_url}/emulator/report; Ctrl-C ends it.")


def _export(name: str, exports: dict[str, str]) -> None:
    if name in exports:
        screen.note(f"  export {name}='{exports[name]}'")


def _hand_over(report: Report, path: Path | None, *, as_json: bool) -> None:
    totals = report.totals
    if path is not None:
        try:
            path.write_text(screen.as_json(report.to_dict()), encoding="utf-8")
        except OSError as problem:  # what was measured must not be lost with it
            screen.note(f"Cannot write {path}: {problem.strerror}. The report goes to stdout instead.")
        else:
            requests = screen.count(totals.requests, "request")
            screen.note(f"{requests}, {totals.answered} answered. The report is in {path}.")
            return
    screen.compact_json(report.to_dict()) if as_json else screen.data_json(report.to_dict())
