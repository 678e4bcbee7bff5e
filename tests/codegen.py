"""An emulated Codegen team, clients that talk to it, answers for scripts. Tokens hold the canary."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from headgate.codegen import AsyncCodegenClient, ClientConfig
from headgate.emulator import CodegenTeam, Emulator, EmulatorConfig
from headgate.testing import Answer, Broken, ScriptedTransport, Sent, VirtualClock

TOKEN = "CANARY-codegen-token-0123456789"
SECRET = "CANARY-webhook-secret-0123456789"
ORG = 123

USER = {"id": 7, "github_user_id": "9007", "github_username": "ada"}
RUN = {"id": 1001, "organization_id": ORG, "status": "ACTIVE"}


def team(**fields: Any) -> CodegenTeam:
    """One team with one token."""
    return CodegenTeam("acme", {"main": TOKEN}, **{"org_id": ORG, **fields})


@asynccontextmanager
async def emulated(
    clock: VirtualClock, *, settings: dict[str, Any] | None = None, **fields: Any
) -> AsyncIterator[tuple[AsyncCodegenClient, Emulator]]:
    """A client and the emulator it talks to, over loopback, in virtual time."""
    config = EmulatorConfig(codegen=[team(**fields)])
    async with Emulator(config, clock=clock) as emulator:
        wanted = {"api_token": TOKEN, "org_id": str(ORG), "base_url": f"{emulator.base_url}/v1"}
        client = AsyncCodegenClient(
            ClientConfig(environ={}, **{**wanted, **(settings or {})}),
            clock=clock,
            chance=random.Random(8).random,  # noqa: TID251 - the same jitter in every run
        )
        async with client:
            yield client, emulator


def counts(emulator: Emulator) -> dict[str, int]:
    """Requests of the team, by operation."""
    models = emulator.report().codegen["acme"].keys["main"].models
    return {name: seen.requests for name, seen in models.items()}


Script = list[Answer | Broken] | Callable[[Sent], Answer | Broken]


def scripted(
    script: Script, clock: VirtualClock, **settings: Any
) -> tuple[AsyncCodegenClient, ScriptedTransport]:
    """A client and the scripted transport it talks to; half of every jitter."""
    transport = ScriptedTransport(script, clock)
    config = ClientConfig(environ={}, **{"api_token": TOKEN, "org_id": str(ORG), **settings})
    client = AsyncCodegenClient(config, transport=transport, clock=clock, chance=lambda: 0.5)
    return client, transport


def said(value: object, status: int = 200, **headers: str) -> Answer:
    """A JSON answer."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, json.dumps(value).encode(), named)


def failed(status: int, message: str = "No.", **headers: str) -> Answer:
    """An error as the API writes most of them."""
    return said({"message": message, "status_code": status}, status, **headers)


def page(items: list[Any], total: int | None = None, skip: int = 0, size: int = 100) -> dict[str, Any]:
    """A page of a list."""
    count = len(items) if total is None else total
    return {"items": items, "total": count, "page": skip // size + 1, "size": size, "pages": 1}
