"""What the commands of `headgate codegen` share: their client, and how runs and log entries look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headgate.cli import screen
from headgate.core.errors import ConfigurationError

if TYPE_CHECKING:
    from headgate.codegen import AgentRunLogResponse, AgentRunResponse, AsyncCodegenClient

__all__ = ["Org", "RunId", "WaitTimeout", "entry_line", "make_client", "org_of", "run_line", "tell_end"]

_LONGEST = 100  # characters of a log entry that are shown

Org = Annotated[
    str | None, typer.Option("--org", metavar="ID", help="Organisation. Default: CODEGEN_ORG_ID.")
]
RunId = Annotated[int, typer.Argument(metavar="RUN_ID", help="As `headgate codegen run` prints it.")]
WaitTimeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", help="Longest wait. Default: CODEGEN_AGENT_RUN_TIMEOUT, 1800."
    ),
]


def make_client(*, verbose: bool) -> AsyncCodegenClient:
    """A client of the environment's settings. Failures are told by the command, so it logs few."""
    from headgate.codegen import create_client_from_env  # noqa: PLC0415 - `--help` need not wait

    client = create_client_from_env()
    client.config.log_level = "DEBUG" if verbose else "ERROR"
    client.config.debug_mode = verbose
    return client


def org_of(client: AsyncCodegenClient, given: str | None) -> str:
    """The organisation. Raises `ConfigurationError` if nobody names one."""
    org = given or client.config.org_id
    if not org:
        raise ConfigurationError("No organisation is named: set CODEGEN_ORG_ID, or pass --org.")
    return org


def run_line(run: AgentRunResponse) -> str:
    """One line: number, status, address."""
    return f"{run.id}  {run.status or 'unknown'}  {run.web_url or ''}".rstrip()


def entry_line(entry: AgentRunLogResponse) -> str:
    """One line of a log: time, kind, and what there is to say."""
    moment = (entry.created_at or "")[11:19]
    said = entry.thought or (entry.observation if isinstance(entry.observation, str) else "")
    tool = f" {entry.tool_name}" if entry.tool_name else ""
    text = " ".join((said or "").split())
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return f"{moment}  {entry.message_type or 'ENTRY'}{tool}  {text}".rstrip()


def tell_end(run: AgentRunResponse, *, as_json: bool) -> None:
    """How a run ended, on stdout."""
    if as_json:
        screen.data_json(run.model_dump(mode="json"))
        return
    screen.data(run_line(run))
    if run.result:
        screen.data(run.result)
    for pull in run.github_pull_requests or ():
        screen.data(f"pull request: {pull.url or pull.id}")
