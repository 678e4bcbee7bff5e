"""`headgate emulator`: an upstream with quotas and faults on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headgate.cli import screen
from headgate.cli.doors import between, guarded

if TYPE_CHECKING:
    from headgate.emulator import Emulator, EmulatorConfig, Report

__all__ = ["emulator"]

DEFAULT_PORT = 8765

# Made up, and only known to the emulator: they are shown on purpose.
_DEFAULT_PROJECTS = {"alder": ("alder-1", "alder-2"), "birch": ("birch-1", "birch-2")}
_RPM, _TPM, _RPD = 10, 250_000, 250

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="PATH",
        exists=True,
        dir_okay=False,
        help="Projects, quotas, faults, as TOML.",
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
    """Serve an emulated Gemini until Ctrl-C, then print what it saw."""
    from headgate.emulator import Emulator, EmulatorConfig  # noqa: PLC0415 - brings the HTTP server

    settings = EmulatorConfig.from_toml(config) if config else default_config()
    upstream = Emulator(settings, host=host, port=port)
    shown = settings if show_keys or config is None else None
    asyncio.run(_serve(upstream, shown, as_json=as_json))
    _hand_over(upstream.report(), report, as_json=as_json)


def default_config() -> EmulatorConfig:
    """Two projects with two keys each, under quotas like those of the free tier."""
    from headgate.emulator import EmulatorConfig, Latency, Limits, Project  # noqa: PLC0415 - see above

    limits = {"*": Limits(rpm=_RPM, tpm=_TPM, rpd=_RPD)}
    projects = [
        Project(name, {key: f"emulated-no-secret-{key}" for key in keys}, limits)
        for name, keys in _DEFAULT_PROJECTS.items()
    ]
    return EmulatorConfig(projects=projects, latency=Latency(first_byte=0.3, per_chunk=0.05))


async def _serve(upstream: Emulator, shown: EmulatorConfig | None, *, as_json: bool) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with upstream:
        exports = _exports(upstream.base_url, shown)
        if as_json:
            screen.compact_json({"base_url": upstream.base_url, "environment": exports})
        _introduce(upstream, exports)
        await stopped.wait()
        screen.end_line()


def _exports(base_url: str, shown: EmulatorConfig | None) -> dict[str, str]:
    exports = {"HEADGATE_GEMINI_BASE_URL": base_url, "GOOGLE_GEMINI_BASE_URL": base_url}
    if shown is not None:
        keys = [
            (value, name, project.name)
            for project in shown.projects
            for name, value in project.keys.items()
        ]
        exports["GEMINI_API_KEYS"] = ",".join("|".join(entry) for entry in keys)
        if keys:
            exports["GOOGLE_API_KEY"] = keys[0][0]
    return exports


def _introduce(upstream: Emulator, exports: dict[str, str]) -> None:
    config = upstream.config
    keys = sum(len(project.keys) for project in config.projects)
    screen.note(
        f"Emulated Gemini on {upstream.base_url}: {screen.count(keys, 'key')} in "
        f"{screen.count(len(config.projects), 'project')}."
    )
    if config.minute_seconds != 60:
        screen.note(f"A minute lasts {config.minute_seconds:g} seconds here.")
    screen.note("\nFor Headgate:")
    for name in ("HEADGATE_GEMINI_BASE_URL", "GEMINI_API_KEYS"):
        _export(name, exports)
    screen.note("\nFor google-genai:")
    for name in ("GOOGLE_GEMINI_BASE_URL", "GOOGLE_API_KEY"):
        _export(name, exports)
    if "GEMINI_API_KEYS" not in exports:
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
