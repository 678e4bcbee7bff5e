"""`headgate embed`: vectors, one JSON array a line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from headgate.cli import screen
from headgate.cli.books import in_the_books
from headgate.cli.doors import AsJson, Timeout, Verbose, between, first_error, guarded
from headgate.cli.waiting import Waiting

if TYPE_CHECKING:
    from headgate.gemini import ResilientGeminiClient

__all__ = ["embed"]

_AT_A_TIME = 8

Texts = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="The texts. None, or `-`: the lines of stdin."),
]
Model = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="NAME", help="Default: GEMINI_EMBEDDING_MODEL."),
]
TaskType = Annotated[
    str | None, typer.Option("--task-type", metavar="TYPE", help="Such as RETRIEVAL_QUERY.")
]
Dimensions = Annotated[
    int | None,
    typer.Option("--dimensions", metavar="N", callback=between(1), help="Length of the vectors."),
]


@guarded
def embed(
    texts: Texts = None,
    model: Model = None,
    task_type: TaskType = None,
    dimensions: Dimensions = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """Turn texts, or the lines of stdin, into vectors."""
    from headgate.gemini import ResilientGeminiClient  # noqa: PLC0415 - `--help` need not wait for it

    wanted = _texts(texts or [])
    options: dict[str, object] = {
        "task_type": task_type,
        "output_dimensionality": dimensions,
        "timeout": timeout,
    }
    try:
        with in_the_books() as books:
            client = ResilientGeminiClient(observers=[Waiting(), *books])
            vectors = asyncio.run(_vectors(client, wanted, model, options, aloud=not as_json))
    except ExceptionGroup as group:
        raise first_error(group) from None
    if as_json:
        screen.data_json(
            {
                "model": model or client.settings.embedding_model,
                "embeddings": [
                    {"index": index, "dimensions": len(vector), "values": vector}
                    for index, vector in enumerate(vectors)
                ],
            }
        )


def _texts(given: list[str]) -> list[str]:
    if given and given != ["-"]:
        return given
    try:
        lines = screen.stdin_text(wanted=bool(given)).splitlines()
    except UnicodeDecodeError:
        raise typer.BadParameter("stdin is not UTF-8 text.", param_hint="TEXT") from None
    if not any(line.strip() for line in lines):
        raise typer.BadParameter(
            'nothing to embed: pass texts, such as `headgate embed "A text"`, or pipe lines in.',
            param_hint="TEXT",
        )
    return [line for line in lines if line.strip()]


async def _vectors(
    client: ResilientGeminiClient,
    texts: Sequence[str],
    model: str | None,
    options: dict[str, object],
    *,
    aloud: bool,
) -> list[list[float]]:
    """All vectors in the order of their texts, each printed as soon as those before it are."""
    places = asyncio.Semaphore(_AT_A_TIME)

    async def one(text: str) -> list[float]:
        async with places:
            return await client.embed_content(text, model, **options)

    vectors: list[list[float]] = []
    async with client, asyncio.TaskGroup() as group:
        for task in [group.create_task(one(text)) for text in texts]:
            vectors.append(await task)
            if aloud:
                screen.compact_json(vectors[-1])
    return vectors
