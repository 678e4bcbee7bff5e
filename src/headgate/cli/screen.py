"""All output of the command line: data on stdout, talk on stderr, and nothing else writes to either.

Colours are of the middle of the 256-colour cube, readable on dark and on light ground. Without a
terminal there are none, and `NO_COLOR` switches them off.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from headgate.policy.redaction import redact

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

__all__ = [
    "ACCENT",
    "BAD",
    "GOOD",
    "QUIET",
    "WARN",
    "as_json",
    "compact_json",
    "count",
    "data",
    "data_json",
    "discard_output",
    "end_line",
    "error",
    "is_terminal",
    "logged",
    "note",
    "piece",
    "prepare",
    "render",
    "show",
    "stdin_text",
    "table",
    "talk_console",
]

GOOD, BAD, WARN, ACCENT, QUIET = "color(28)", "color(160)", "color(130)", "color(31)", "dim"

_WIDEST = 100
_WIDTH_OF_A_PIPE = 200  # whoever reads it by lines wants them whole

# A model's answer is a stranger's text: it may not move the cursor or retitle the window.
_CONTROLS = dict.fromkeys([*range(0x20), 0x7F, *range(0x80, 0xA0)])
for _kept in "\n\t":
    del _CONTROLS[ord(_kept)]


def prepare() -> None:
    """Let no character, and no stream that was closed before the start, fail the command."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the whole process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - likewise
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def is_terminal(stream: TextIO) -> bool:
    """Whether a person watches, on a terminal that can move its cursor."""
    return stream.isatty() and not console(stream).is_dumb_terminal


def console(stream: TextIO) -> Console:
    """A console on a stream. rich takes a moment to import; plain output does without it."""
    from rich.console import Console  # noqa: PLC0415 - see above

    made = Console(file=stream, highlight=False, emoji=False, soft_wrap=False)
    made.width = min(made.width, _WIDEST) if stream.isatty() else _WIDTH_OF_A_PIPE
    return made


def talk_console() -> Console:
    """The console on stderr, for what moves."""
    return console(sys.stderr)


# ── data: stdout ────────────────────────────────────────────────────────────────────────────────────


def piece(text: str) -> None:
    """A piece of text, at once, as it is; a terminal gets it without control characters."""
    sys.stdout.write(text.translate(_CONTROLS) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def data(text: str = "") -> None:
    """A line or more."""
    piece(text + "\n")


def as_json(value: object) -> str:
    """JSON, indented, with a last newline."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def data_json(value: object) -> None:
    """One JSON value, indented."""
    piece(as_json(value))


def compact_json(value: object) -> None:
    """One JSON value on one line."""
    data(json.dumps(value, ensure_ascii=False))


def show(*renderables: RenderableType) -> None:
    """Tables and styled text. Rendered first and written like all data, so a broken pipe is one."""
    sys.stdout.write(render(console(sys.stdout), *renderables))
    sys.stdout.flush()


def render(target: Console, *renderables: RenderableType) -> str:
    """What a console would print, without blanks at the ends of lines."""
    with target.capture() as captured:
        for renderable in renderables:
            target.print(renderable)
    lines = captured.get().splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without lines; the columns named in `right` hold numbers."""
    from rich.table import Table  # noqa: PLC0415 - see `console`

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


# ── talk: stderr ────────────────────────────────────────────────────────────────────────────────────


def note(text: str, *, style: str = "") -> None:
    """A sentence about what goes on."""
    _say(redact(text, limit=20_000), style)


def error(message: str, *further: str) -> None:
    """What happened, why, and what to do next; then what helps to follow it up."""
    said = " ".join(message.split())  # upstreams send whole paragraphs
    _say(redact(f"headgate: {said}", limit=4000), f"bold {BAD}", head=len("headgate:"))
    for line in further:
        _say(f"  {line}", QUIET)


def count(number: int, what: str) -> str:
    """`1 key`, `2 keys`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def end_line() -> None:
    """Leave the line the cursor stands on, such as one that shows ^C."""
    if sys.stderr.isatty():
        sys.stderr.write("\n")


def _say(text: str, style: str, head: int | None = None) -> None:
    if style and sys.stderr.isatty():
        from rich.text import Text  # noqa: PLC0415 - see `console`

        said = Text(text.translate(_CONTROLS))
        said.stylize(style, 0, head)
        console(sys.stderr).print(said)
        return
    sys.stderr.write(text.translate(_CONTROLS) + "\n")
    sys.stderr.flush()


class _Talk(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            note(f"{record.levelname.lower()}: {record.getMessage()}", style=QUIET)
        except Exception:  # noqa: BLE001 - a log line must never fail what it tells about
            self.handleError(record)


def _not_said_twice(record: logging.LogRecord) -> bool:
    """Failures of calls are told by the error itself."""
    return record.module != "observers"


@contextmanager
def logged(*, verbose: bool) -> Iterator[None]:
    """Show Headgate's log on stderr: warnings, or with `verbose` every attempt."""
    logger, handler = logging.getLogger("headgate"), _Talk()
    level = logger.level
    if verbose:
        logger.setLevel(logging.DEBUG)
    else:
        handler.setLevel(logging.WARNING)
        handler.addFilter(_not_said_twice)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


# ── stdin, and the end of the pipe ──────────────────────────────────────────────────────────────────


def stdin_text(*, wanted: bool = False) -> str:
    """What was piped in; from a terminal only if `wanted`. Raises `UnicodeDecodeError`."""
    if sys.stdin is None or (sys.stdin.isatty() and not wanted):
        return ""
    return sys.stdin.read()


def discard_output() -> None:
    """Nobody reads stdout any more: let what is still buffered go nowhere, without a complaint."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # not a real file: nothing is buffered below it
        return
