"""`headgate codegen run`, `wait`, `logs` and `list`: one agent run, or a look at all of them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headgate.cli import screen
from headgate.cli.codegen_client import (
    Org,
    RunId,
    WaitTimeout,
    entry_line,
    make_client,
    org_of,
    run_line,
    tell_end,
)
from headgate.cli.doors import AsJson, Verbose, between, guarded, stop
from headgate.cli.exits import ExitCode

if TYPE_CHECKING:
    from headgate.codegen import AgentRunLogResponse, AgentRunResponse, AsyncCodegenClient

__all__ = ["list_runs", "logs", "run", "wait"]

Prompt = Annotated[
    list[str] | None,
    typer.Argument(metavar="PROMPT", help="What the agent is to do. `-` takes it from stdin."),
]
Repo = Annotated[int | None, typer.Option("--repo", metavar="ID", help="Repository to work on.")]
Model = Annotated[str | None, typer.Option("--model", "-m", metavar="NAME", help="Model to use.")]
Agent = Annotated[
    str | None, typer.Option("--agent", metavar="TYPE", help="`codegen` or `claude_code`.")
]
Images = Annotated[
    list[Path] | None,
    typer.Option(
        "--image", "-i", metavar="PATH", help="A picture; repeatable.", exists=True, dir_okay=False
    ),
]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="NAME=VALUE", help="Stored with the run; repeatable."),
]
Wait = Annotated[bool, typer.Option("--wait", "-w", metavar="", help="Wait until it has ended.")]
Logs = Annotated[
    bool, typer.Option("--logs", "-l", metavar="", help="Show its log on stderr while waiting.")
]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", metavar="", help="Go on until the run has ended.")
]
Number = Annotated[
    int, typer.Option("--limit", "-n", metavar="N", callback=between(1), help="How many at most.")
]
Source = Annotated[
    str | None, typer.Option("--source", metavar="TYPE", help="Only those started from there: API, …")
]


@guarded
def run(  # noqa: PLR0917 - typer passes them by name
    prompt: Prompt = None,
    org: Org = None,
    repo: Repo = None,
    model: Model = None,
    agent: Agent = None,
    images: Images = None,
    metadata: Metadata = None,
    wait: Wait = False,
    logs: Logs = False,
    timeout: WaitTimeout = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Start an agent run, and with --wait tell how it ended."""
    text = _text(prompt or [])
    arguments: dict[str, Any] = {
        "metadata": _pairs(metadata or []),
        "images": [_data_uri(path) for path in images or []] or None,
        "repo_id": repo,
        "model": model,
        "agent_type": agent,
    }

    async def start(client: AsyncCodegenClient) -> AgentRunResponse:
        made = await client.create_agent_run(org_of(client, org), text, **arguments)
        if not (wait or logs):
            return made
        screen.note(run_line(made), style=screen.QUIET)
        return await _waited(client, org, made.id, timeout, logs=logs)

    found = _with_client(start, verbose=verbose)
    if wait or logs:
        _end(found, as_json=as_json)
    elif as_json:
        screen.data_json(found.model_dump(mode="json"))
    else:
        screen.data(run_line(found))


@guarded
def wait(
    run_id: RunId,
    org: Org = None,
    timeout: WaitTimeout = None,
    logs: Logs = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Wait until a run has ended. Exit code 8 if it ended without success."""

    async def waited(client: AsyncCodegenClient) -> AgentRunResponse:
        return await _waited(client, org, run_id, timeout, logs=logs)

    _end(_with_client(waited, verbose=verbose), as_json=as_json)


@guarded
def logs(
    run_id: RunId,
    org: Org = None,
    follow: Follow = False,
    timeout: WaitTimeout = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show a run's log; --json prints one entry a line."""

    def show(entry: AgentRunLogResponse) -> None:
        line = json.dumps(entry.model_dump(mode="json"), ensure_ascii=False)
        screen.data(line if as_json else entry_line(entry))

    async def read(client: AsyncCodegenClient) -> None:
        number = org_of(client, org)
        if follow:
            await client.wait_for_agent_run_completion(number, run_id, timeout, on_log=show)
            return
        skip, total = 0, 1
        while skip < total:
            page = await client.get_agent_run_logs(number, run_id, skip, fresh=True)
            for entry in page.logs:
                show(entry)
            skip += len(page.logs)
            total = (page.total_logs or 0) if page.logs else 0

    _with_client(read, verbose=verbose)


@guarded
def list_runs(
    org: Org = None,
    limit: Number = 20,
    source: Source = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """List runs, newest first."""

    async def read(client: AsyncCodegenClient) -> list[AgentRunResponse]:
        found: list[AgentRunResponse] = []
        size = min(limit, 100)
        number = org_of(client, org)
        async with aclosing(
            client.get_all_agent_runs(number, source_type=source, page_size=size)
        ) as runs:
            async for item in runs:
                found.append(item)
                if len(found) >= limit:
                    break
        return found

    found = _with_client(read, verbose=verbose)
    if as_json:
        screen.data_json([item.model_dump(mode="json") for item in found])
        return
    table = screen.table("run", "status", "created", "source", "address", right=("run",))
    for item in found:
        moment = (item.created_at or "")[:19].replace("T", " ")
        cells = (
            str(item.id),
            item.status or "unknown",
            moment,
            item.source_type or "",
            item.web_url or "",
        )
        table.add_row(*(str(cell) for cell in cells))
    screen.show(table)


# ── shapes they share ───────────────────────────────────────────────────────────────────────────


def _with_client(work: Callable[[AsyncCodegenClient], Awaitable[Any]], *, verbose: bool) -> Any:
    async def main() -> Any:
        async with make_client(verbose=verbose) as client:
            return await work(client)

    return asyncio.run(main())


async def _waited(
    client: AsyncCodegenClient, org: str | None, run_id: int, timeout: float | None, *, logs: bool
) -> AgentRunResponse:
    def show(entry: AgentRunLogResponse) -> None:
        screen.note(entry_line(entry), style=screen.QUIET)

    return await client.wait_for_agent_run_completion(
        org_of(client, org), run_id, timeout, on_log=show if logs else None
    )


def _end(found: AgentRunResponse, *, as_json: bool) -> None:
    tell_end(found, as_json=as_json)
    if not found.succeeded:
        screen.error(f"run {found.id} ended without success: {found.status}.")
        stop(ExitCode.RUN_FAILED)


def _text(words: list[str]) -> str:
    text = screen.stdin_text() or "" if words in (["-"], []) else " ".join(words)
    if not text.strip():
        raise typer.BadParameter(
            'nothing to do: pass a prompt, such as `headgate codegen run "Fix the flaky test"`, '
            "or pipe text in.",
            param_hint="PROMPT",
        )
    return text


def _pairs(given: list[str]) -> dict[str, str] | None:
    pairs = {}
    for pair in given:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE.", param_hint="--metadata")
        pairs[name] = value
    return pairs or None


def _data_uri(path: Path) -> str:
    kind = guess_type(path.name)[0] or ""
    if not kind.startswith("image/"):
        raise typer.BadParameter(f"{path} is no picture by its name.", param_hint="--image")
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
