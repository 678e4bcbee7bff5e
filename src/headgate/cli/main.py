"""The program: `headgate …`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from headgate.cli import screen
from headgate.cli.ask import ask
from headgate.cli.backend_status import backend_status
from headgate.cli.cache import cache
from headgate.cli.cache import clear as clear_cache
from headgate.cli.cache import stats as cache_stats
from headgate.cli.codegen_bulk import bulk
from headgate.cli.codegen_listen import webhook_listen
from headgate.cli.codegen_runs import list_runs, logs, wait
from headgate.cli.codegen_runs import run as run_agent
from headgate.cli.config import check
from headgate.cli.demo.command import demo
from headgate.cli.embed import embed
from headgate.cli.emulator import emulator
from headgate.cli.explain import explain
from headgate.cli.keys import keys
from headgate.cli.models import check as check_models
from headgate.cli.models import info, list_models, recommend
from headgate.cli.serve import env, serve
from headgate.cli.usage import usage

__all__ = ["app", "run"]

EXAMPLES = {
    "headgate": (
        "headgate demo",
        'headgate ask "Why is the sky blue?"',
        "git diff | headgate ask 'Write the commit message' --json",
        "headgate keys --check",
    ),
    "ask": (
        'headgate ask "What is on this picture?" --image cat.png',
        "headgate ask 'Summarise in five lines' < minutes.txt",
        'headgate ask "Three towns in Peru" --schema towns.json --json',
        'headgate ask "A lighthouse in fog" --model IMAGE-MODEL --output fog.png',
        "git diff | headgate ask 'Review this change' --project . --json",
    ),
    "embed": (
        'headgate embed "A text" "Another"',
        "headgate embed --dimensions 256 < lines.txt > vectors.jsonl",
    ),
    "keys": (
        "headgate keys",
        "headgate keys --check",
        "headgate keys --provider claude",
        "headgate keys --json",
    ),
    "emulator": (
        "headgate emulator",
        "headgate emulator --config quotas.toml --report seen.json",
        "headgate emulator --port 0 --json",
    ),
    "codegen run": (
        'headgate codegen run "Fix the flaky test" --repo 42 --wait',
        "headgate codegen run - --json < task.md",
    ),
    "codegen wait": ("headgate codegen wait 1001 --logs", "headgate codegen wait 1001 --json"),
    "codegen logs": ("headgate codegen logs 1001 --follow", "headgate codegen logs 1001 --json"),
    "codegen list": ("headgate codegen list", "headgate codegen list --limit 200 --json"),
    "codegen bulk": (
        "headgate codegen bulk tasks.txt --journal tasks.journal",
        "headgate codegen bulk tasks.jsonl --workers 3 --json",
    ),
    "codegen webhook-listen": (
        "headgate codegen webhook-listen",
        "headgate codegen webhook-listen --port 9000 --json",
    ),
    "models list": ("headgate models list", "headgate models list --all --json"),
    "models info": ("headgate models info gemini-flash-latest", "headgate models info MODEL --json"),
    "models recommend": (
        'headgate models recommend "summarise long documents"',
        "headgate models recommend coding --needs function_calling --budget 0.003",
    ),
    "models check": (
        "headgate models check gemini-3.8-flash",
        "headgate models check MODEL ANOTHER --probe --json",
    ),
    "usage": (
        "headgate usage",
        "headgate usage --by model --since 7d",
        "headgate usage --caller billing --by month --json",
    ),
    "explain": ("headgate explain 5f1c0a9be2d84410", "headgate explain 5f1c0a9be2d84410 --json"),
    "cache stats": ("headgate cache stats", "headgate cache stats --json"),
    "cache clear": ("headgate cache clear", "headgate cache clear --namespace 'docs-*' --json"),
    "backend status": ("headgate backend status", "headgate backend status --offline --json"),
    "demo": ("headgate demo", "headgate demo --json 2>/dev/null"),
    "serve": ("headgate serve", "headgate serve --host 0.0.0.0 --port 8080"),
    "env": ('eval "$(headgate env)"', "headgate env --url http://gateway.example:8080 --json"),
    "check": ("headgate config check", "headgate config check --json"),
}
"""Examples of the help and of docs/reference/cli.md, by command."""


# Boxes and colours are for people at a terminal; a pipe gets plain text.
_PLAIN = any(stream is None or not stream.isatty() for stream in (sys.stdout, sys.stderr))


def _epilog(command: str) -> str:
    if _PLAIN:
        return "\n".join(["\b", "Examples:", *(f"  {line}" for line in EXAMPLES[command])])
    return "\n".join(["[bold]Examples[/]", *(f"[dim]$[/] {line}" for line in EXAMPLES[command])])


app = typer.Typer(
    name="headgate",
    help="One engine that gets the most out of every LLM quota you own.",
    epilog=_epilog("headgate"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None if _PLAIN else "rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _command in (ask, embed, keys, usage, explain, serve, env, emulator, demo):
    _name = _command.__name__
    app.command(_name, epilog=_epilog(_name))(_command)

_config = typer.Typer(name="config", help="Explain and check the configuration.", no_args_is_help=True)
_config.command("check", epilog=_epilog("check"))(check)
_config.callback()(lambda: None)  # without one, typer makes a lone command the whole
app.add_typer(_config)

_models = typer.Typer(
    name="models", help="What models there are, what they cost, and which suits.", no_args_is_help=True
)
for _name, _ask in (
    ("list", list_models),
    ("info", info),
    ("recommend", recommend),
    ("check", check_models),
):
    _models.command(_name, epilog=_epilog(f"models {_name}"))(_ask)
_models.command("validate", hidden=True, epilog=_epilog("models check"))(check_models)
app.add_typer(_models)

_cache = typer.Typer(
    name="cache", help="Replies that processes share: what there is, and forgetting.",
    invoke_without_command=True,
)  # fmt: skip
_cache.callback()(cache)
for _name, _kept in (("stats", cache_stats), ("clear", clear_cache)):
    _cache.command(_name, epilog=_epilog(f"cache {_name}"))(_kept)
app.add_typer(_cache)

_backend = typer.Typer(name="backend", help="What a backend works with here.", no_args_is_help=True)
_backend.command("status", epilog=_epilog("backend status"))(backend_status)
_backend.callback()(lambda: None)  # without one, typer makes a lone command the whole
app.add_typer(_backend)

_codegen = typer.Typer(
    name="codegen", help="Agent runs of the Codegen API: start, wait, read, many at once.",
    no_args_is_help=True,
)  # fmt: skip
for _name, _agents in (
    ("run", run_agent),
    ("wait", wait),
    ("logs", logs),
    ("list", list_runs),
    ("bulk", bulk),
    ("webhook-listen", webhook_listen),
):
    _codegen.command(_name, epilog=_epilog(f"codegen {_name}"))(_agents)
app.add_typer(_codegen)


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


@app.callback()
def headgate(version: Version = False) -> None:
    """One engine that gets the most out of every LLM quota you own."""


def run() -> None:
    """The entry point of the `headgate` command and of `python -m headgate`."""
    screen.prepare()
    app(prog_name="headgate")
