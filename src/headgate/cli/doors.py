"""What every command has in common: options, and one way to end for every way of failing."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Annotated, NoReturn, ParamSpec, TypeVar

import typer

from headgate.cli import screen
from headgate.cli.exits import ExitCode, exit_code
from headgate.core.errors import HeadgateError
from headgate.policy.redaction import redact

__all__ = ["AsJson", "Timeout", "Verbose", "between", "first_error", "guarded", "stop"]

P = ParamSpec("P")

Number = TypeVar("Number", int, float)


def between(least: Number, most: Number | None = None) -> Callable[[Number | None], Number | None]:
    """A check of a number, as a callback: typer's own `min` and `max` crowd the help."""

    def check(value: Number | None) -> Number | None:
        if value is not None and not (least <= value and (most is None or value <= most)):
            bounds = f"{least} or more" if most is None else f"{least} to {most}"
            raise typer.BadParameter(f"{value} is not {bounds}.")
        return value

    return check


AsJson = Annotated[
    bool, typer.Option("--json", metavar="", help="Print JSON, in a documented and stable shape.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", metavar="", help="Show attempts and waits on stderr.")
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        callback=between(0.001),
        help="Give up after that many seconds.",
    ),
]


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """A command that ends with an exit code and a sentence, never with a traceback of its own."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        verbose = bool(kwargs.get("verbose"))
        with screen.logged(verbose=verbose):
            try:
                command(*args, **kwargs)
            except (typer.Exit, typer.Abort, typer.BadParameter):
                raise
            except KeyboardInterrupt:
                screen.end_line()
                stop(ExitCode.INTERRUPTED)
            except BrokenPipeError:
                screen.discard_output()
                stop(ExitCode.BROKEN_PIPE)
            except HeadgateError as error:
                _explain(error)
                stop(exit_code(error))
            except Exception as error:  # noqa: BLE001 - the last resort of a program with a user
                _confess(error, verbose=verbose)
                stop(ExitCode.FAILURE)

    return run


def stop(code: ExitCode) -> NoReturn:
    """End the command."""
    raise typer.Exit(int(code)) from None


def _explain(error: HeadgateError) -> None:
    further = []
    if exit_code(error) is ExitCode.QUOTA and error.retry_after is not None:
        further.append(f"Come back {_moment(error.retry_after)}.")
    if error.request_id:
        further.append(f"request {error.request_id}")
    screen.error(error.message, *further)


def _moment(seconds: float) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415 - only an exhausted quota needs it

    from headgate.wiring.clock import SystemClock  # noqa: PLC0415 - likewise

    wall = SystemClock().wall()
    now, then = (datetime.fromtimestamp(at, UTC).astimezone() for at in (wall, wall + seconds))
    if seconds < 120:
        return f"at {then:%H:%M:%S}, in {seconds:.0f} s"
    left = f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
    day = "" if then.date() == now.date() else f"on {then:%Y-%m-%d} "
    return f"{day}at {then:%H:%M}, in {left}"


def _confess(error: Exception, *, verbose: bool) -> None:
    what = redact(str(error)) or "no message"
    advice = "See the traceback above." if verbose else "Run it again with --verbose for the traceback."
    if verbose:
        screen.note("".join(traceback.format_exception(error)))
    screen.error(f"unexpected failure, a fault of Headgate: {type(error).__name__}: {what}. {advice}")


def first_error(group: BaseExceptionGroup) -> BaseException:
    """The error a group of tasks failed with first."""
    error = group.exceptions[0]
    return first_error(error) if isinstance(error, BaseExceptionGroup) else error
