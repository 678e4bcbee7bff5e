"""`headgate codegen bulk`: many runs from a file, with a journal that survives a crash."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headgate.cli import screen
from headgate.cli.codegen_client import Org, make_client, org_of
from headgate.cli.doors import AsJson, Verbose, between, guarded, stop
from headgate.cli.exits import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headgate.codegen import AgentRunResponse, BulkOperationResult

__all__ = ["bulk"]

Source = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A prompt a line, or a JSON object a line: prompt, metadata, repo_id … `-` is stdin.",
    ),
]
JournalFile = Annotated[
    Path | None,
    typer.Option(
        "--journal", "-j", metavar="PATH", dir_okay=False,
        help="Remembers what was created: the same command again creates only what is missing.",
    ),
]  # fmt: skip
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", callback=between(1), help="Runs created at once."),
]
FailFast = Annotated[bool, typer.Option("--fail-fast", metavar="", help="Stop at the first failure.")]


@guarded
def bulk(
    source: Source,
    org: Org = None,
    journal: JournalFile = None,
    workers: Workers = None,
    fail_fast: FailFast = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Create a run for each line of a file."""
    items = _items(source)
    result = asyncio.run(_created(items, org, journal, workers, fail_fast, verbose=verbose))
    if as_json:
        screen.data_json(result.model_dump(mode="json"))
    else:
        for run in result.results:
            screen.data(f"{run.id}  {run.status or 'unknown'}  {run.web_url or ''}".rstrip())
    for failure in result.errors:
        screen.note(f"line {failure['index'] + 1}: {failure['error_type']}: {failure['error']}")
    made = f"{result.successful_items} of {screen.count(result.total_items, 'run')}"
    screen.note(f"{made} created in {result.duration_seconds:.1f} s.", style=screen.QUIET)
    if result.failed_items:
        stop(ExitCode.RUN_FAILED)


async def _created(
    items: list[dict[str, Any]],
    org: str | None,
    journal: Path | None,
    workers: int | None,
    fail_fast: bool,
    *,
    verbose: bool,
) -> BulkOperationResult[AgentRunResponse]:
    async with make_client(verbose=verbose) as client:
        from headgate.codegen import (  # noqa: PLC0415 - see `make_client`
            BulkOperationConfig,
            BulkOperationError,
        )

        settings = client.config
        with _progress(len(items)) as tell:
            how = BulkOperationConfig(
                max_workers=workers or settings.bulk_max_workers,
                batch_size=settings.bulk_batch_size,
                fail_fast=fail_fast,
                progress_callback=tell,
            )
            try:
                return await client.bulk_create_agent_runs(
                    org_of(client, org), items, how, journal=journal
                )
            except BulkOperationError as error:
                stopped: BulkOperationResult[AgentRunResponse] = error.result
                return stopped


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr, where a person watches."""
    if not screen.is_terminal(sys.stderr) or not total:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn  # noqa: PLC0415

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen.talk_console(), transient=True) as bar:
        task = bar.add_task("runs", total=total)
        yield lambda done, _: bar.update(task, completed=done)


def _items(source: str) -> list[dict[str, Any]]:
    if source == "-":
        text = screen.stdin_text() or ""
    else:
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            said = getattr(problem, "strerror", None) or "not UTF-8"
            raise typer.BadParameter(f"cannot read {source}: {said}.", param_hint="FILE") from None
    items = [_item(line, number) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not items:
        raise typer.BadParameter(f"{source} holds no line with a prompt.", param_hint="FILE")
    return items


def _item(line: str, number: int) -> dict[str, Any]:
    if not line.lstrip().startswith("{"):
        return {"prompt": line.strip()}
    try:
        item = json.loads(line)
    except ValueError as problem:
        raise typer.BadParameter(
            f"line {number} is not valid JSON: {problem}.", param_hint="FILE"
        ) from None
    return dict(item)
