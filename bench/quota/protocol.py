"""What an adapter speaks: JSON lines on stdin and stdout. Standard library only.

```
bench:   {"base_url", "model", "patience", "store",
          "keys": [{"value", "name", "project", "rpm", "tpm"}]}
adapter: {"ready": "name and version"}
bench:   {"id": 7, "prompt": "…"}, at the moment the call is born; many may be open
adapter: {"id": 7, "ok": true}, or {"id": 7, "ok": false, "error": "a word or two"}, in any order
bench:   closes stdin; the adapter answers what is open and leaves
```

An adapter in another language needs no more than that; one in Python calls `serve`.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Ask", "Key", "Setup", "serve"]

Ask: TypeAlias = Callable[[str], Awaitable[object]]
"""Sends one prompt and returns once it is answered; raises if it failed."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key and what its project may use a minute; `None` is not limited."""

    value: str
    name: str
    project: str
    rpm: int | None
    tpm: int | None


@dataclass(frozen=True, slots=True)
class Setup:
    """What a contender is told before the first call.

    Attributes:
        base_url: scheme, host and port of the upstream; the Gemini API is under `/v1beta`.
        model: the model of every call.
        patience: seconds a caller waits for an answer at most.
        keys: in the order of the pool.
        store: `redis://host:port` of an empty server that the contender's processes share, or None.
    """

    base_url: str
    model: str
    patience: float
    keys: tuple[Key, ...]
    store: str | None = None

    @classmethod
    def from_line(cls, line: str | bytes) -> Setup:
        raw: dict[str, Any] = json.loads(line)
        keys = tuple(Key(**key) for key in raw.pop("keys"))
        return cls(keys=keys, **raw)


def serve(contender: Callable[[Setup], AbstractAsyncContextManager[Ask]], version: str) -> None:
    """Run an adapter until stdin ends."""
    asyncio.run(_serve(contender, version))


async def _serve(contender: Callable[[Setup], AbstractAsyncContextManager[Ask]], version: str) -> None:
    own = os.dup(1)  # what a library prints must not get between the lines
    os.dup2(2, 1)
    lines = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)

    def say(line: dict[str, object]) -> None:
        left = json.dumps(line).encode() + b"\n"
        while left:
            try:
                left = left[os.write(own, left) :]
            except BlockingIOError:  # a socket serves both ways, and reading made it so
                select.select([], [own], [])

    async def one(ask: Ask, number: int, prompt: str) -> None:
        try:
            await ask(prompt)
        except Exception as error:  # noqa: BLE001 - whatever reaches a caller is an outcome
            kind = getattr(error, "kind", None)
            word = type(error).__name__ + (f" ({kind})" if isinstance(kind, str) else "")
            say({"id": number, "ok": False, "error": word})
        else:
            say({"id": number, "ok": True})

    async with contender(Setup.from_line(await lines.readline())) as ask:
        say({"ready": version})
        async with asyncio.TaskGroup() as calls:
            while line := await lines.readline():
                wanted = json.loads(line)
                calls.create_task(one(ask, wanted["id"], wanted["prompt"]))
