"""What every door that calls a model needs: how long a call may take, how urgent it is and whose, what
its options are called, its pieces as text.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import TypedDict

from headgate.core.call import Chunk, Priority
from headgate.core.errors import InvalidCallError
from headgate.core.ports import Clock
from headgate.engine.fresh_ids import fresh_id

__all__ = ["Frame", "bounds", "framed", "model_of", "standing", "texts", "unknown_option"]

LONGEST_CALLER = 256

_PRIORITIES = {priority.value: priority for priority in Priority}


class Frame(TypedDict):
    """What of a call is no matter of the upstream's: see `headgate.core.call.Call`."""

    request_id: str
    deadline: float | None
    max_wait: float
    priority: Priority
    caller: str


def framed(options: dict[str, object], clock: Clock, default_wait: float) -> Frame:
    """The frame of a new call, taken out of its options. Raises `TypeError`, `InvalidCallError`.

    Args:
        options: loses what `bounds` and `standing` take.
        default_wait: the longest wait of a call that says nothing of it.
    """
    deadline, wait = bounds(options, clock, default_wait)
    priority, caller = standing(options)
    return Frame(
        request_id=fresh_id(), deadline=deadline, max_wait=wait, priority=priority, caller=caller
    )


def bounds(options: dict[str, object], clock: Clock, default_wait: float) -> tuple[float | None, float]:
    """Deadline and longest wait for a key, taken out of a call's options. Raises `TypeError`.

    Args:
        options: loses `timeout` and `max_wait_seconds`.
        default_wait: the longest wait of a call that has neither.
    """
    timeout = _seconds(options.pop("timeout", None), "timeout", least=0.001)
    wait = _seconds(options.pop("max_wait_seconds", None), "max_wait_seconds", least=0.0)
    if timeout is None:
        return None, default_wait if wait is None else wait
    return clock.monotonic() + timeout, math.inf if wait is None else wait


def standing(options: dict[str, object]) -> tuple[Priority, str]:
    """How urgent a call is and whose, taken out of its options. Raises `InvalidCallError`.

    Args:
        options: loses `priority` and `caller`.
    """
    urgency, caller = options.pop("priority", None), options.pop("caller", None)
    word = urgency.strip().lower() if isinstance(urgency, str) else urgency
    if word is None or word == "medium":
        word = Priority.NORMAL
    priority = _PRIORITIES.get(word) if isinstance(word, str) else None
    if priority is None:
        raise InvalidCallError(
            f"priority takes {', '.join(Priority)} or medium, in any case; got {urgency!r}."
        )
    if caller is None:
        caller = ""
    if not isinstance(caller, str) or len(caller) > LONGEST_CALLER:
        shown = f"{len(caller)} characters" if isinstance(caller, str) else type(caller).__name__
        raise InvalidCallError(
            f"caller takes a text of up to {LONGEST_CALLER} characters that names whose call it is; "
            f"got {shown}."
        )
    return priority, caller


def model_of(given: object, default: str) -> str:
    """The model of a call: the one it names, else the default. Raises `InvalidCallError`."""
    if not given:
        return default
    if not isinstance(given, str):
        raise InvalidCallError(
            f"model takes the name of a model, such as {default!r}; got {type(given).__name__}."
        )
    return given


def unknown_option(name: str, known: Iterable[str], where: str | None = None) -> TypeError:
    """The error for an option nobody knows, with the nearest that somebody does."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
    return TypeError(f"{where or name} is no option of this call; {hint}")


async def texts(chunks: AsyncGenerator[Chunk]) -> AsyncGenerator[str]:
    """The visible text of a stream, piece by piece; closing it closes the stream."""
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk.text:
                yield chunk.text


def _seconds(value: object, name: str, *, least: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
        raise TypeError(f"{name} takes a number of seconds, {least:g} or more; got {value!r}")
    return float(value)
