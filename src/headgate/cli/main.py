"""The program: `headgate …`.

A program that starts imports only what was asked for: most of what a command takes before it does
anything is imports, and `headgate serve` answers its first request the sooner.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Annotated, Any, NamedTuple, cast

import typer

from headgate.cli import screen
from headgate.cli.examples import EXAMPLES

__all__ = ["EXAMPLES", "application", "run"]


class Group(NamedTuple):
    """Commands under one name.

    Attributes:
        help: what they are for.
        commands: where each stands: a module of this package, and its function.
        hidden: further names, by the command they mean.
        alone: what the group does without a command; without one it shows its help.
    """

    help: str
    commands: Mapping[str, str]
    hidden: Mapping[str, str] = {}
    alone: str = ""


COMMANDS = {
    "ask": "ask:ask",
    "embed": "embed:embed",
    "keys": "keys:keys",
    "usage": "usage:usage",
    "explain": "explain:explain",
    "serve": "serve:serve",
    "env": "serve:env",
    "emulator": "emulator:emulator",
    "demo": "demo.command:demo",
}
"""Where each command stands: a module of this package, and its function."""

GROUPS = {
    "config": Group("Explain and check the configuration.", {"check": "config:check"}),
    "models": Group(
        "What models there are, what they cost, and which suits.",
        {
            "list": "models:list_models",
            "info": "models:info",
            "recommend": "models:recommend",
            "check": "models:check",
        },
        hidden={"validate": "check"},
    ),
    "cache": Group(
        "Replies that processes share: what there is, and forgetting.",
        {"stats": "cache:stats", "clear": "cache:clear"},
        alone="cache:cache",
    ),
    "callers": Group(
        "Who may call the gateway: keys, limits, budgets.",
        {
            "create": "callers:create",
            "list": "callers:list_callers",
            "show": "callers:show",
            "rotate": "callers:rotate",
            "revoke": "callers:revoke",
            "set-limits": "callers:set_limits",
        },
    ),
    "backend": Group("What a backend works with here.", {"status": "backend_status:backend_status"}),
    "content": Group(
        "Topics, explanations and images, held to your quotas.", {"serve": "content:content_serve"}
    ),
    "codegen": Group(
        "Agent runs of the Codegen API: start, wait, read, many at once.",
        {
            "run": "codegen_runs:run",
            "wait": "codegen_runs:wait",
            "logs": "codegen_runs:logs",
            "list": "codegen_runs:list_runs",
            "bulk": "codegen_bulk:bulk",
            "webhook-listen": "codegen_listen:webhook_listen",
        },
    ),
}

# Boxes and colours are for people at a terminal; a pipe gets plain text.
_PLAIN = any(stream is None or not stream.isatty() for stream in (sys.stdout, sys.stderr))


def application(asked: Sequence[str] = ()) -> typer.Typer:
    """The program with the command that was asked for; with all of them, if none of them was.

    Args:
        asked: the words after `headgate`.
    """
    name = asked[0] if asked else ""
    chosen = {name} if name in COMMANDS or name in GROUPS else {*COMMANDS, *GROUPS}
    app = typer.Typer(
        name="headgate",
        help="One engine that gets the most out of every LLM quota you own.",
        epilog=_epilog("headgate"),
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None if _PLAIN else "rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(headgate)
    for command, place in COMMANDS.items():
        if command in chosen:
            app.command(command, epilog=_epilog(command))(_function(place))
    for group, told in GROUPS.items():
        if group in chosen:
            app.add_typer(_grouped(group, told))
    return app


def __getattr__(name: str) -> typer.Typer:
    """`app`: the whole program, made when somebody asks for it."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _whole()


@cache
def _whole() -> typer.Typer:
    return application()


def _grouped(name: str, group: Group) -> typer.Typer:
    made = typer.Typer(
        name=name,
        help=group.help,
        no_args_is_help=not group.alone,
        invoke_without_command=bool(group.alone),
    )
    # Without a callback typer makes a lone command the whole.
    made.callback()(_function(group.alone) if group.alone else lambda: None)
    for command, place in group.commands.items():
        made.command(command, epilog=_epilog(f"{name} {command}"))(_function(place))
    for command, meant in group.hidden.items():
        place, epilog = group.commands[meant], _epilog(f"{name} {meant}")
        made.command(command, hidden=True, epilog=epilog)(_function(place))
    return made


def _function(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    return cast("Callable[..., Any]", getattr(import_module(f"headgate.cli.{module}"), name))


def _epilog(command: str) -> str:
    if _PLAIN:
        return "\n".join(["\b", "Examples:", *(f"  {line}" for line in EXAMPLES[command])])
    return "\n".join(["[bold]Examples[/]", *(f"[dim]$[/] {line}" for line in EXAMPLES[command])])


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - slow, and seldom asked for

        screen.data(f"headgate {version('headgate')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", metavar="", callback=_version, is_eager=True, help="Show the version and leave."
    ),
]


def headgate(version: Version = False) -> None:
    """One engine that gets the most out of every LLM quota you own."""


def run() -> None:
    """The entry point of the `headgate` command and of `python -m headgate`."""
    screen.prepare()
    asked = sys.argv[1:]
    application(asked)(prog_name="headgate")
