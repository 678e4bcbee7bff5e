"""What every door that calls a model needs: how long a call may take, what its options are called,
its pieces as text.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from headgate.core.call import Chunk
from headgate.core.ports import Clock

__all__ = ["bounds", "texts", "unknown_option"]


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
