"""The baseline: the next key each time; after a 429 the next one at once, four sends at most."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from itertools import cycle

import aiohttp

from bench.quota.protocol import Ask, Setup, serve

SENDS = 4


class RefusedError(Exception):
    """Every send drew an error."""


@asynccontextmanager
async def contender(setup: Setup) -> AsyncIterator[Ask]:
    keys = cycle(setup.keys)
    url = f"{setup.base_url}/v1beta/models/{setup.model}:generateContent"
    unlimited = aiohttp.TCPConnector(limit=0)
    patience = aiohttp.ClientTimeout(total=setup.patience)
    async with aiohttp.ClientSession(connector=unlimited, timeout=patience) as session:

        async def ask(prompt: str) -> None:
            body = {"contents": [{"parts": [{"text": prompt}]}]}
            for _ in range(SENDS):
                headers = {"x-goog-api-key": next(keys).value}
                async with session.post(url, json=body, headers=headers) as answer:
                    await answer.read()
                    if answer.status == 200:
                        return
            raise RefusedError

        yield ask


def preload() -> None:
    """Nothing that is not imported above."""


def main(_arguments: list[str]) -> None:
    serve(contender, f"aiohttp {version('aiohttp')}")


if __name__ == "__main__":
    main([])
