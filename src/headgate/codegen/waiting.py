"""Waiting for a run: polls past the cache, less and less often, until it ends or time is up.

A poll that fails in passing is forgotten: the next one may do better. What cannot pass (no access, no
such run) ends the wait. Logs are alpha at the vendor, so their failures never do.
"""

from __future__ import annotations

import asyncio
import builtins
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias, TypeVar

import pydantic

from headgate.codegen.caller import Caller
from headgate.codegen.errors import (
    CodegenAPIError,
    NetworkError,
    RateLimitError,
    ServerError,
    TimeoutError,
    ValidationError,
)
from headgate.codegen.models import (
    AgentRunLogResponse,
    AgentRunResponse,
    AgentRunWithLogsResponse,
    Page,
)

__all__ = ["LogCallback", "ManyWait", "RunCallback", "RunWait"]

LogCallback: TypeAlias = Callable[[AgentRunLogResponse], Awaitable[None] | None]
RunCallback: TypeAlias = Callable[[AgentRunResponse], Awaitable[None] | None]

M = TypeVar("M", bound=pydantic.BaseModel)

_PASSING = (RateLimitError, ServerError, NetworkError, TimeoutError)
_SLOWER = 1.5  # each interval is longer than the last by this, until something happens
_SLOWEST = 30.0  # seconds, unless poll_interval is longer
_PAGE = 100


class RunWait:
    """One wait.

    Args:
        timeout: seconds; the run itself goes on when they are over.
        poll_interval: seconds between the first polls, give or take a quarter.
        on_log: hears each new log entry, once.
        on_update: hears the run after the first poll and whenever its status changed.
    """

    def __init__(
        self,
        caller: Caller,
        org_id: int,
        run_id: int,
        *,
        timeout: float,
        poll_interval: float,
        on_log: LogCallback | None,
        on_update: RunCallback | None,
    ) -> None:
        _check_limits(timeout, poll_interval)
        self._caller = caller
        self._values = {"org_id": org_id, "agent_run_id": run_id}
        self._timeout = timeout
        self._interval = poll_interval
        self._on_log = on_log
        self._on_update = on_update
        self._logs_seen = 0
        self._last: AgentRunResponse | None = None

    async def done(self) -> AgentRunResponse:
        """The run once it has ended. Raises `TimeoutError` with `last_run`, or what ends the wait."""
        bound = asyncio.timeout(self._timeout)
        try:
            async with bound:
                return await self._polled()
        except builtins.TimeoutError:
            if not bound.expired():
                raise
        last = self._last
        known = f"its status was {last.status!r}" if last else "it never told its status"
        raise TimeoutError(
            f"Run {self._values['agent_run_id']} had not ended after {self._timeout:g} s: {known}. "
            "It goes on; wait again for the same run.",
            last_run=last,
            endpoint="wait_for_agent_run_completion",
            at=self._caller.clock.wall(),
        )

    async def _polled(self) -> AgentRunResponse:
        interval = self._interval
        while True:
            pause = interval
            try:
                run = await self._poll()
            except _PASSING as error:
                pause = max(pause, min(error.retry_after or 0.0, 60.0))
            else:
                if self._last is None or run.status != self._last.status:
                    interval = pause = self._interval
                    self._last = run
                    await _told(self._on_update, run)
                self._last = run
                await self._tell_logs(last=run.is_terminal)
                if run.is_terminal:
                    return run
            await self._caller.clock.sleep(pause * (0.75 + 0.5 * self._caller.chance()))
            interval = min(interval * _SLOWER, max(self._interval, _SLOWEST))

    async def _poll(self) -> AgentRunResponse:
        return await self._caller.ask(
            AgentRunResponse, "get_agent_run", owner=self._values["org_id"], values=self._values,
            fresh=True, retries=0,
        )  # fmt: skip

    async def _tell_logs(self, *, last: bool) -> None:
        if self._on_log is None:
            return
        while True:
            query = {"skip": str(self._logs_seen), "limit": str(_PAGE), "reverse": "false"}
            try:
                found = await self._caller.ask(
                    AgentRunWithLogsResponse, "get_agent_run_logs", owner=self._values["org_id"],
                    values=self._values, query=query, fresh=True, retries=3 if last else 0,
                )  # fmt: skip
            except CodegenAPIError:
                return
            for entry in found.logs:
                self._logs_seen += 1
                await _told(self._on_log, entry)
            if len(found.logs) < _PAGE:
                return


class ManyWait:
    """A wait for many runs: lists of a hundred instead of a poll for each.

    Args:
        on_done: hears each run once, when it has ended.
    """

    def __init__(
        self,
        caller: Caller,
        org_id: int,
        run_ids: Iterable[int],
        *,
        timeout: float,
        poll_interval: float,
        on_done: RunCallback | None,
    ) -> None:
        _check_limits(timeout, poll_interval)
        self._caller = caller
        self._org_id = org_id
        self._wanted = list(dict.fromkeys(run_ids))
        self._timeout = timeout
        self._interval = poll_interval
        self._on_done = on_done
        self._ended: dict[int, AgentRunResponse] = {}
        self._seen: dict[int, AgentRunResponse] = {}

    async def done(self) -> list[AgentRunResponse]:
        """The runs in the order asked for. Raises `TimeoutError`, or what ends the wait."""
        bound = asyncio.timeout(self._timeout)
        try:
            async with bound:
                await self._polled()
                return [self._ended[number] for number in self._wanted]
        except builtins.TimeoutError:
            if not bound.expired():
                raise
        left = [number for number in self._wanted if number not in self._ended]
        raise TimeoutError(
            f"{len(left)} of {len(self._wanted)} runs had not ended after {self._timeout:g} s. They go "
            "on; wait again for them.",
            last_run={number: self._seen.get(number) for number in left},
            endpoint="wait_for_agent_runs",
            at=self._caller.clock.wall(),
        )

    async def _polled(self) -> None:
        interval = self._interval
        while pending := {number for number in self._wanted if number not in self._ended}:
            pause, before = interval, len(self._ended)
            try:
                await self._look(pending)
            except _PASSING as error:
                pause = max(pause, min(error.retry_after or 0.0, 60.0))
            if len(self._ended) == len(self._wanted):
                return
            if len(self._ended) > before:
                interval = pause = self._interval
            await self._caller.clock.sleep(pause * (0.75 + 0.5 * self._caller.chance()))
            interval = min(interval * _SLOWER, max(self._interval, _SLOWEST))

    async def _look(self, pending: set[int]) -> None:
        """One round: the newest runs by list, until as many pages are read as asking singly costs."""
        skip, pages = 0, max(1, len(pending) // 2)
        while pending and pages:
            query = {"skip": str(skip), "limit": str(_PAGE)}
            page = await self._ask(Page[AgentRunResponse], "list_agent_runs", {}, query)
            for run in page.items:
                if run.id in pending:
                    pending.discard(run.id)
                    await self._note(run)
            skip, pages = skip + len(page.items), pages - 1
            if not page.items or skip >= page.total:
                break
        for number in sorted(pending):
            await self._note(
                await self._ask(AgentRunResponse, "get_agent_run", {"agent_run_id": number})
            )

    async def _ask(
        self, model: type[M], name: str, values: dict[str, int], query: dict[str, str] | None = None
    ) -> M:
        return await self._caller.ask(
            model, name, owner=self._org_id, values={"org_id": self._org_id, **values}, query=query,
            fresh=True, keep=False, retries=0,
        )  # fmt: skip

    async def _note(self, run: AgentRunResponse) -> None:
        self._seen[run.id] = run
        if run.is_terminal:
            self._ended[run.id] = run
            await _told(self._on_done, run)


def _check_limits(timeout: float, poll_interval: float) -> None:
    if timeout <= 0 or poll_interval <= 0:
        said = "timeout and poll_interval take a number of seconds above 0"
        raise ValidationError(f"Nothing was sent. {said}.", {"timeout": [said]})


async def _told(callback: Callable[[Any], Awaitable[None] | None] | None, what: object) -> None:
    if callback is not None:
        answer = callback(what)
        if inspect.isawaitable(answer):
            await answer
