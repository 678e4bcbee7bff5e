"""Writes a call in its upstream's form: in a thread where that takes long, so that the loop goes on."""

from __future__ import annotations

import asyncio

from headgate.core.call import Call
from headgate.core.ports import Provider, Request
from headgate.policy.call_size import size_of

__all__ = ["IN_A_THREAD", "written"]

IN_A_THREAD = 262_144
"""Bytes and characters of a call from which it is written in a thread: about a millisecond."""


async def written(provider: Provider, call: Call, model: str) -> Request:
    """See `Provider.write`. Raises `InvalidCallError`."""
    if call.raw is not None or size_of(call) < IN_A_THREAD:
        return provider.write(call, model)
    return await asyncio.to_thread(provider.write, call, model)
