"""Webhooks that the Codegen surface sends when a run has ended: signed, and again until one is taken.

Both signatures are sent: `X-Hub-Signature-256` over the body, and those of Standard Webhooks.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from typing import Any, Protocol

import aiohttp

from headgate.core.ports import Clock
from headgate.emulator.codegen_config import CodegenTeam
from headgate.emulator.codegen_runs import AgentRun, iso

__all__ = ["WebhookSender", "signed_headers"]

_SCHEDULE = (0.0, 5.0, 300.0, 1800.0)
"""Seconds before each try; the first four of the Standard Webhooks schedule."""

_TIMEOUT = 15.0


class Now(Protocol):
    """The upstream's own Unix time."""

    def now(self) -> float:
        """Unix time in seconds."""


class WebhookSender:
    """Watches runs and reports their ends. Its tasks end with `stop`.

    Attributes:
        delivered, given_up: webhooks so far.
    """

    def __init__(self, clock: Clock, age: Now) -> None:
        self._clock = clock
        self._age = age
        self._tasks: set[asyncio.Task[None]] = set()
        self._watched: set[tuple[str, int]] = set()
        self.delivered = self.given_up = 0

    def watch(self, team: CodegenTeam, run: AgentRun) -> None:
        """A run began to work. Without an address, or outside of an event loop, nobody is told."""
        place = (team.name, run.id)
        if team.webhook_url is None or place in self._watched:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._watched.add(place)
        task = loop.create_task(self._report(team, run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Send nothing more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _report(self, team: CodegenTeam, run: AgentRun) -> None:
        try:
            while not run.has_ended(self._age.now()):
                await self._clock.sleep(max(0.001, run.ends - self._age.now()))
        finally:
            self._watched.discard((team.name, run.id))
        body = self._body(team, run)
        message_id = f"msg_{team.org_id}_{run.id}_{len(run.spells)}"
        for pause in _SCHEDULE:
            await self._clock.sleep(pause)
            if await self._sent(team, message_id, body):
                self.delivered += 1
                return
        self.given_up += 1

    def _body(self, team: CodegenTeam, run: AgentRun) -> bytes:
        now = self._age.now()
        good = run.status(now) == "COMPLETE"
        event: dict[str, Any] = {
            "event_type": "agent_run.completed" if good else "agent_run.failed",
            "timestamp": f"{iso(now)}+00:00",
            "data": run.shown(now, team.spelling),
        }
        return json.dumps(event).encode()

    async def _sent(self, team: CodegenTeam, message_id: str, body: bytes) -> bool:
        headers = signed_headers(team.webhook_secret, message_id, str(int(self._age.now())), body)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(
                    str(team.webhook_url), data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                return 200 <= response.status < 300
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


def signed_headers(secret: str | None, message_id: str, timestamp: str, body: bytes) -> dict[str, str]:
    """The headers of a webhook; without a secret unsigned."""
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
    }
    if secret is not None:
        bare = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        key = secret.encode()
        if secret.startswith("whsec_"):
            key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = f"{message_id}.{timestamp}.".encode() + body
        digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        headers["x-hub-signature-256"] = f"sha256={bare}"
        headers["webhook-signature"] = f"v1,{digest}"
    return headers
