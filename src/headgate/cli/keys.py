"""`headgate keys`: which keys there are, and with `--check` whether the upstream accepts them."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headgate.cli import screen
from headgate.cli.doors import AsJson, Verbose, between, guarded, stop
from headgate.cli.exits import ExitCode

if TYPE_CHECKING:
    from headgate.cli.probe import Finding

__all__ = ["keys"]

NO_HISTORY = (
    "Counts begin with each process, so a command on its own starts at nought: a program that runs "
    "tells its own with client.get_key_metrics(). `headgate keys --check` asks the upstream."
)


class Verb(StrEnum):
    """What to do about keys."""

    STATUS = "status"


Action = Annotated[Verb, typer.Argument(metavar="status", help="May be left out.", show_default=False)]
Check = Annotated[
    bool,
    typer.Option("--check", metavar="", help="Ask the upstream about each; uses no quota."),
]
CheckTimeout = Annotated[
    float,
    typer.Option(
        "--timeout", metavar="SECONDS", callback=between(0.1), help="Longest wait for a check."
    ),
]


@guarded
def keys(
    action: Action = Verb.STATUS,  # noqa: ARG001 - the only one there is
    check: Check = False,
    timeout: CheckTimeout = 15.0,
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """Show the keys and their state, or test them with --check."""
    from headgate.gemini import ResilientGeminiClient  # noqa: PLC0415 - `--help` need not wait for it

    client = ResilientGeminiClient()
    metrics = client.get_key_metrics()
    if not check:
        screen.data_json(metrics) if as_json else _show(metrics)
        return
    from headgate.cli.probe import probe  # noqa: PLC0415 - it needs the whole engine

    findings = asyncio.run(probe(client.settings, timeout))
    if as_json:
        for key, finding in zip(metrics["keys"], findings, strict=True):
            key["check"] = finding.to_dict()
        screen.data_json(metrics)
    else:
        _show_findings(metrics, findings)
    if not any(finding.works for finding in findings):
        screen.error(
            "none of the keys works. Correct what the reasons name: a new key comes from "
            "https://aistudio.google.com/apikey, the address from HEADGATE_GEMINI_BASE_URL."
        )
        stop(ExitCode.NO_USABLE_KEY)


def _show(metrics: dict[str, Any]) -> None:
    right = ("#", "requests", "errors %")
    table = screen.table("#", "key", "project", "state", *right[1:], "exhausted until", right=right)
    for index, key in enumerate(metrics["keys"]):
        numbers = key["metrics"]
        table.add_row(
            str(index),
            key["name"],
            key["project"] or "–",
            key["status"],
            str(numbers["total_requests"]),
            str(numbers["error_rate"]),
            key["retry_after"] or "–",
        )
    screen.show(table)
    rotation = "on" if metrics["rotation_enabled"] else "off: only the first key is used"
    screen.note(f"\nRotation is {rotation}. {NO_HISTORY}", style=screen.QUIET)


def _show_findings(metrics: dict[str, Any], findings: list[Finding]) -> None:
    from rich.text import Text  # noqa: PLC0415 - tables alone need it

    colours = {"ok": screen.GOOD, "limited": screen.WARN, "invalid": screen.BAD}
    table = screen.table("#", "key", "project", "check", "ms", "reason", right=("#", "ms"))
    for index, (key, finding) in enumerate(zip(metrics["keys"], findings, strict=True)):
        state = Text(finding.state, style=colours.get(finding.state, screen.WARN))
        milliseconds = f"{finding.seconds * 1000:.0f}"
        table.add_row(
            str(index), key["name"], key["project"] or "–", state, milliseconds, Text(finding.reason)
        )
    screen.show(table)
