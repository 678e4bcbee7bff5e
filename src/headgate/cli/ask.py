"""`headgate ask`: one question, answered as it streams, or as one JSON object."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import aclosing
from mimetypes import guess_extension
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import structs

from headgate.cli import screen
from headgate.cli.books import in_the_books
from headgate.cli.doors import AsJson, Timeout, Verbose, between, guarded
from headgate.cli.waiting import Waiting

if TYPE_CHECKING:
    from headgate.gemini import Blob, GeminiReply, ResilientGeminiClient

__all__ = ["ask"]

PROJECT_SECONDS = 120.0
"""Longest a question about a project takes where nobody says: S3-10, as in a backend."""

_EXISTING = {"exists": True, "dir_okay": False, "readable": True}

Prompt = Annotated[
    list[str] | None,
    typer.Argument(metavar="PROMPT", help="The question. `-` takes it from stdin alone."),
]
Model = Annotated[
    str | None, typer.Option("--model", "-m", metavar="NAME", help="Default: GEMINI_DEFAULT_MODEL.")
]
Images = Annotated[
    list[Path] | None,
    typer.Option("--image", "-i", metavar="PATH", help="A picture; repeatable.", **_EXISTING),
]
Files = Annotated[
    list[Path] | None,
    typer.Option(
        "--file", "-f", metavar="PATH", help="A PDF, sound, film or text; repeatable.", **_EXISTING
    ),
]
System = Annotated[
    str | None, typer.Option("--system", "-s", metavar="TEXT", help="Tell the model how to behave.")
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature", "-t", metavar="NUMBER", callback=between(0.0, 2.0), help="0 is dry, 2 is wild."
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-output-tokens", metavar="N", callback=between(1), help="Cut the answer after so many."
    ),
]
Schema = Annotated[
    Path | None,
    typer.Option("--schema", metavar="PATH", help="A JSON schema the answer must fit.", **_EXISTING),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="PATH", dir_okay=False, help="Where to save pictures made."),
]
ProjectPath = Annotated[
    Path | None,
    typer.Option(
        "--project", metavar="PATH", exists=True, help="What it is about; no file of it is read."
    ),
]
NoStream = Annotated[
    bool, typer.Option("--no-stream", metavar="", help="Print the answer when it is whole.")
]


@guarded
def ask(  # noqa: PLR0917 - typer passes them by name
    prompt: Prompt = None,
    model: Model = None,
    images: Images = None,
    files: Files = None,
    system: System = None,
    temperature: Temperature = None,
    max_output_tokens: MaxTokens = None,
    schema: Schema = None,
    output: Output = None,
    project: ProjectPath = None,
    timeout: Timeout = None,
    no_stream: NoStream = False,
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """Ask a model. Text piped in follows the prompt."""
    from headgate.gemini import ResilientGeminiClient  # noqa: PLC0415 - `--help` need not wait for it

    question = _question(prompt or [], media=bool(images or files))
    if output is not None and not output.parent.is_dir():  # found out before anything is spent
        raise typer.BadParameter(f"there is no folder {output.parent}.", param_hint="--output")
    options: dict[str, object] = {
        "images": images,
        "files": files,
        "system_instruction": system,
        "temperature": temperature,
        "max_output_tokens": max_output_tokens,
        "response_json_schema": _read_schema(schema),
        "timeout": PROJECT_SECONDS if timeout is None and project is not None else timeout,
    }
    with in_the_books() as books:
        client = ResilientGeminiClient(observers=[Waiting(), *books])
        if not (as_json or no_stream or output is not None):
            asyncio.run(_stream(client, question, model, options))
            return
        reply = asyncio.run(_whole(client, question, model, options))
    _print_reply(reply, output, project, as_json=as_json)


def _question(words: list[str], *, media: bool) -> str:
    only_stdin = words == ["-"]
    try:
        piped = screen.stdin_text(wanted=only_stdin).strip("\n")
    except UnicodeDecodeError:
        raise typer.BadParameter(
            "stdin is not UTF-8 text; pass other files with --file.", param_hint="PROMPT"
        ) from None
    said = "" if only_stdin else " ".join(words)
    question = "\n\n".join(part for part in (said, piped) if part.strip())
    if not question and not media:
        raise typer.BadParameter(
            'nothing to ask: pass a prompt, such as `headgate ask "Why is the sky blue?"`, '
            "or pipe text in.",
            param_hint="PROMPT",
        )
    return question


def _read_schema(path: Path | None) -> object:
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise typer.BadParameter(
            f"{path} is not valid JSON: {problem}.", param_hint="--schema"
        ) from None


async def _whole(
    client: ResilientGeminiClient, question: str, model: str | None, options: dict[str, object]
) -> GeminiReply:
    async with client:
        return await client.generate_reply(question, model, **options)


async def _stream(
    client: ResilientGeminiClient, question: str, model: str | None, options: dict[str, object]
) -> None:
    last = ""
    media: list[Blob] = []
    async with client, aclosing(client.generate_reply_stream(question, model, **options)) as pieces:
        try:
            async for chunk in pieces:
                media += chunk.blobs
                if chunk.text:
                    screen.piece(chunk.text)
                    last = chunk.text
        finally:
            if last and not last.endswith("\n"):  # what follows starts on a line of its own
                screen.piece("\n")
    _tell_of(media)


def _print_reply(
    reply: GeminiReply, output: Path | None, project: Path | None, *, as_json: bool
) -> None:
    if as_json:
        about = {} if project is None else {"cwd": str(project)}
        screen.data_json({**_shape(reply), **about})
    elif reply.text:
        screen.data(reply.text.removesuffix("\n"))
    if output is None:
        _tell_of(reply.media)
        return
    if not reply.media:
        screen.note("The answer holds no picture or other file: nothing was saved.")
    for number, blob in enumerate(reply.media, start=1):
        _save(blob, output if number == 1 else output.with_stem(f"{output.stem}-{number}"))


def _tell_of(media: Iterable[Blob]) -> None:
    for blob in media:
        screen.note(
            f"The answer holds {blob.mime_type}, {len(blob.data)} bytes: --output FILE saves it."
        )


def _save(blob: Blob, path: Path) -> None:
    extension = guess_extension(blob.mime_type)
    path = path if path.suffix or extension is None else path.with_suffix(extension)
    try:
        path.write_bytes(blob.data)
    except OSError as problem:
        raise typer.BadParameter(
            f"cannot write {path}: {problem.strerror}.", param_hint="--output"
        ) from None
    screen.note(f"Saved {path} ({blob.mime_type}, {len(blob.data)} bytes).")


def _shape(reply: GeminiReply) -> dict[str, object]:
    return {
        "text": reply.text,
        "model": reply.model,
        "key_name": reply.key_name,
        "finish_reason": reply.finish_reason,
        "usage": {**structs.asdict(reply.usage), "total": reply.usage.total},
        "attempts": reply.attempts,
        "rotations": reply.rotations,
        "retries": reply.retries,
        "waited": round(reply.waited, 3),
        "elapsed": round(reply.elapsed, 3),
        "request_id": reply.request_id,
        "media": [{"mime_type": blob.mime_type, "bytes": len(blob.data)} for blob in reply.media],
    }
