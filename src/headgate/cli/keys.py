"""`headgate keys`: which keys there are, and with `--check` whether the upstream accepts them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from headgate.cli import screen
from headgate.cli.doors import AsJson, Verbose, between, guarded, stop
from headgate.cli.exits import ExitCode
from headgate.core.errors import HeadgateError, NoKeysError

if TYPE_CHECKING:
    from headgate.cli.probe import Finding
    from headgate.wiring.claude import ClaudeSettings
    from headgate.wiring.openai import OpenAISettings
    from headgate.wiring.settings import GeminiSettings

    _Settings: TypeAlias = GeminiSettings | ClaudeSettings | OpenAISettings

__all__ = ["keys"]

NO_HISTORY = (
    "Counts begin with each process, so a command on its own starts at nought: a program that runs "
    "tells its own with client.get_key_metrics(). `headgate keys --check` asks the upstream."
)


class Upstream(StrEnum):
    """Whose keys."""

    GEMINI = "gemini"
    CLAUDE = "claude"
    OPENAI = "openai"


_WHERE_FROM = {
    Upstream.GEMINI: (
        "a new key comes from https://aistudio.google.com/apikey, the address from "
        "HEADGATE_GEMINI_BASE_URL."
    ),
    Upstream.CLAUDE: (
        "a new key comes from the API keys page of the Claude console, the address from "
        "HEADGATE_ANTHROPIC_BASE_URL."
    ),
    Upstream.OPENAI: (
        "a new key comes from the provider's console, the address from HEADGATE_OPENAI_BASE_URL."
    ),
}


class Verb(StrEnum):
    """What to do about keys."""

    STATUS = "status"


Action = Annotated[Verb, typer.Argument(metavar="status", help="May be left out.", show_default=False)]
Check = Annotated[
    bool,
    typer.Option("--check", metavar="", help="Ask the upstream about each; uses no quota."),
]
Provider = Annotated[
    Upstream | None,
    typer.Option(
        "--provider",
        metavar="NAME",
        help="gemini, claude or openai; else the first of them that has keys.",
        show_default=False,
    ),
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
    provider: Provider = None,
    check: Check = False,
    timeout: CheckTimeout = 15.0,
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """Show the keys and their state, or test them with --check."""
    upstream, metrics, settings = _found(provider)
    group = "project" if upstream is Upstream.GEMINI else "organisation"
    if not check:
        screen.data_json(metrics) if as_json else _show(metrics, group)
        return
    from headgate.cli.probe import probe  # noqa: PLC0415 - it needs the whole engine

    findings = asyncio.run(probe(settings, timeout))
    if as_json:
        for key, finding in zip(metrics["keys"], findings, strict=True):
            key["check"] = finding.to_dict()
        screen.data_json(metrics)
    else:
        _show_findings(metrics, findings, group)
    if not any(finding.works for finding in findings):
        screen.error(f"none of the keys works. Correct what the reasons name: {_WHERE_FROM[upstream]}")
        stop(ExitCode.NO_USABLE_KEY)


def _found(provider: Upstream | None) -> tuple[Upstream, dict[str, Any], _Settings]:
    """The keys of a provider, how they stand, and what they are used with.

    Raises `ConfigurationError`: of Gemini's where no provider has a key.
    """
    from headgate.gemini import NoValidKeysError  # noqa: PLC0415 - `--help` need not wait for it

    if provider is not None:
        return provider, *_LOOK[provider]()
    missing: HeadgateError | None = None
    for upstream, look in _LOOK.items():
        try:
            return upstream, *look()
        except (NoKeysError, NoValidKeysError) as error:
            missing = missing or error
    raise missing or NoKeysError("No key was found.")


def _of_gemini() -> tuple[dict[str, Any], GeminiSettings]:
    from headgate.gemini import ResilientGeminiClient  # noqa: PLC0415 - likewise

    client = ResilientGeminiClient()
    return client.get_key_metrics(), client.settings


def _of_claude() -> tuple[dict[str, Any], ClaudeSettings]:
    from headgate.claude import ResilientClaudeClient  # noqa: PLC0415 - likewise

    client = ResilientClaudeClient()
    return client.get_key_metrics(), client.settings


def _of_openai() -> tuple[dict[str, Any], OpenAISettings]:
    from headgate.wiring.clock import SystemClock  # noqa: PLC0415 - likewise
    from headgate.wiring.openai import load_openai, openai_books  # noqa: PLC0415 - likewise

    settings = load_openai()
    return openai_books(settings, SystemClock()).metrics(), settings


_LOOK: Mapping[Upstream, Callable[[], tuple[dict[str, Any], _Settings]]] = {
    Upstream.GEMINI: _of_gemini,
    Upstream.CLAUDE: _of_claude,
    Upstream.OPENAI: _of_openai,
}
"""In the order in which they are looked for."""


def _show(metrics: dict[str, Any], group: str) -> None:
    right = ("#", "requests", "errors %")
    table = screen.table("#", "key", group, "state", *right[1:], "exhausted until", right=right)
    for index, key in enumerate(metrics["keys"]):
        numbers = key["metrics"]
        table.add_row(
            str(index),
            key["name"],
            key[group] or "–",
            key["status"],
            str(numbers["total_requests"]),
            str(numbers["error_rate"]),
            key["retry_after"] or "–",
        )
    screen.show(table)
    rotation = "on" if metrics["rotation_enabled"] else "off: only the first key is used"
    screen.note(f"\nRotation is {rotation}. {NO_HISTORY}", style=screen.QUIET)


def _show_findings(metrics: dict[str, Any], findings: list[Finding], group: str) -> None:
    from rich.text import Text  # noqa: PLC0415 - tables alone need it

    colours = {"ok": screen.GOOD, "limited": screen.WARN, "invalid": screen.BAD}
    table = screen.table("#", "key", group, "check", "ms", "reason", right=("#", "ms"))
    for index, (key, finding) in enumerate(zip(metrics["keys"], findings, strict=True)):
        state = Text(finding.state, style=colours.get(finding.state, screen.WARN))
        milliseconds = f"{finding.seconds * 1000:.0f}"
        table.add_row(
            str(index), key["name"], key[group] or "–", state, milliseconds, Text(finding.reason)
        )
    screen.show(table)
