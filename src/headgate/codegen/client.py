"""`AsyncCodegenClient`: the agent-run API over Headgate's engine."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headgate.codegen.bulk import BulkOperationResult
from headgate.codegen.bulk_calls import BulkCalls
from headgate.codegen.caller import Caller
from headgate.codegen.config import ClientConfig, RetryConfig
from headgate.codegen.export import exported
from headgate.codegen.health import health_of, path_view
from headgate.codegen.inputs import number_of, page_query
from headgate.codegen.models import AgentRunResponse, Page, RepoResponse, UserResponse
from headgate.codegen.operations import Id
from headgate.codegen.pagination import paged
from headgate.codegen.waiting import LogCallback, ManyWait, RunCallback, RunWait
from headgate.codegen.webhooks import WebhookHandler
from headgate.core.errors import ConfigurationError
from headgate.core.ports import Clock, Transport
from headgate.wiring.codegen import CHANCE

__all__ = ["AsyncCodegenClient"]

_FEATURES = ("webhooks", "bulk_operations", "streaming", "metrics", "caching")


class AsyncCodegenClient(BulkCalls):
    """Users, organisations, agent runs and all else the API offers.

    Build it anywhere, share it between tasks, threads and event loops. Entering it is optional; leaving
    it closes the connections of the running loop.

    Args:
        config: settings; by default those of the environment. What is changed in it later holds from
            the next call on.
        api_token, org_id: instead of the configuration's.
        retry: how calls are tried again, instead of the configuration's way.
        transport: what sends; the default is HTTP.
        clock: where time comes from; the default is the machine's clock.
        chance: uniform in [0, 1), for jitter.
    """

    def __init__(
        self,
        config: ClientConfig | None = None,
        api_token: str | None = None,
        org_id: Id | None = None,
        *,
        retry: RetryConfig | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        chance: Callable[[], float] = CHANCE,
    ) -> None:
        given: dict[str, Any] = {}
        if api_token is not None:
            given["api_token"] = api_token
        if org_id is not None:
            given["org_id"] = org_id
        if config is None:
            config = ClientConfig(**given)
        elif given:
            config = config.copy(**given)
        self._caller = Caller(config, retry=retry, transport=transport, clock=clock, chance=chance)
        self._webhooks: WebhookHandler | None = None
        self._bulk_totals = {"operations": 0, "items": 0, "failed_items": 0}

    def __repr__(self) -> str:
        config = self._caller.config
        return f"AsyncCodegenClient(base_url={config.base_url!r}, org_id={config.org_id!r})"

    @property
    def config(self) -> ClientConfig:
        """The settings; what is set in them holds from the next call on."""
        return self._caller.config

    def update_config(self, **settings: Any) -> None:
        """Set several settings at once: all, or none if one is wrong. Calls under way keep the old."""
        self._caller.config.update(**settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of the running event loop. A later call opens others."""
        await self._caller.aclose()

    # ── waiting ─────────────────────────────────────────────────────────────────────────────────

    async def wait_for_agent_run_completion(
        self,
        org_id: Id,
        run_id: Id,
        timeout: float | None = None,
        poll_interval: float = 5.0,
        *,
        on_log: LogCallback | None = None,
        on_update: RunCallback | None = None,
    ) -> AgentRunResponse:
        """The run once it has ended, well or not: `state` says which.

        Args:
            timeout: seconds; by default `agent_run_timeout`, 1800. The run outlives it.
            poll_interval: seconds between the first polls. They grow rarer, up to 30 s, until the
                status changes.
            on_log: hears each new entry of the run's log, once; plain or a coroutine function.
            on_update: hears the run whenever its status changed.

        Raises:
            TimeoutError: with `last_run`.
            CodegenAPIError: what no later poll can mend, such as a run that does not exist.
        """
        wait = RunWait(
            self._caller,
            number_of(org_id, "org_id"),
            number_of(run_id, "run_id"),
            timeout=self.config.agent_run_timeout if timeout is None else timeout,
            poll_interval=poll_interval,
            on_log=on_log,
            on_update=on_update,
        )
        return await wait.done()

    async def wait_for_agent_runs(
        self,
        org_id: Id,
        run_ids: Iterable[Id],
        timeout: float | None = None,
        poll_interval: float = 5.0,
        *,
        on_done: RunCallback | None = None,
    ) -> list[AgentRunResponse]:
        """Many runs once all have ended, in the order asked for. Lists are polled, not each run.

        Raises:
            TimeoutError: `last_run` maps the ids of those that had not ended to what was last known.
        """
        wait = ManyWait(
            self._caller,
            number_of(org_id, "org_id"),
            [number_of(run_id, "run_ids") for run_id in run_ids],
            timeout=self.config.agent_run_timeout if timeout is None else timeout,
            poll_interval=poll_interval,
            on_done=on_done,
        )
        return await wait.done()

    # ── streams ─────────────────────────────────────────────────────────────────────────────────

    def get_users_stream(self, org_id: Id, page_size: int = 100) -> AsyncGenerator[UserResponse]:
        """Every user of an organisation, one by one."""
        return self._stream(UserResponse, "get_users", org_id, page_size)

    def get_all_agent_runs(
        self,
        org_id: Id,
        user_id: Id | None = None,
        source_type: str | None = None,
        page_size: int = 100,
    ) -> AsyncGenerator[AgentRunResponse]:
        """Every run of an organisation, newest first; what starts meanwhile is not seen."""
        user = None if user_id is None else number_of(user_id, "user_id")
        filters = {"user_id": user, "source_type": source_type}
        return self._stream(AgentRunResponse, "list_agent_runs", org_id, page_size, **filters)

    def get_repositories_stream(self, org_id: Id, page_size: int = 100) -> AsyncGenerator[RepoResponse]:
        """Every repository of an organisation."""
        return self._stream(RepoResponse, "get_repositories", org_id, page_size)

    def _stream(
        self, item: type[Any], name: str, org_id: Id, size: int, **filters: object
    ) -> AsyncGenerator[Any]:
        """A list item by item. Its pages are not kept: they would push out everything else."""
        self._caller.require("streaming")
        shape = Page[item]  # type: ignore[valid-type] # made at run time, as pydantic has it

        async def page(skip: int, limit: int) -> Page[Any]:
            query = page_query(skip, limit, **filters)
            return await self._page(shape, name, org_id, query, fresh=True, keep=False)

        return paged(page, lambda item: item.id, size=size)

    # ── webhooks ────────────────────────────────────────────────────────────────────────────────

    def get_webhook_handler(self, *, insecure: bool = False) -> WebhookHandler:
        """The client's receiver of webhooks, always the same one. Needs no event loop.

        Args:
            insecure: accept webhooks without a signature where no secret is configured. Anybody can
                then send anything.
        """
        self._caller.require("webhooks")
        if self._webhooks is None:
            self._webhooks = WebhookHandler(
                self.config.webhook_secret,
                insecure=insecure,
                handler_timeout=self.config.webhook_timeout,
                clock=self._caller.clock,
            )
        elif insecure and not self._webhooks.insecure:
            raise ConfigurationError("This client's webhook handler was made secure; it stays so.")
        return self._webhooks

    async def process_webhook(
        self, payload: bytes, signature: str | None = None, headers: Any = None
    ) -> dict[str, Any]:
        """Verify a webhook and tell its handlers. Raises `WebhookError` if it is refused.

        Args:
            payload: the raw body; a dict is refused, because no signature can be checked on it.
            signature: what `X-Hub-Signature-256` or `X-Signature` said.
            headers: all headers, for Standard Webhooks and for ids of deliveries.
        """
        return await self.get_webhook_handler().process(payload, signature, headers)

    # ── how it goes ─────────────────────────────────────────────────────────────────────────────

    async def health_check(self) -> dict[str, Any]:
        """`overall_status` and `checks`, within ten seconds: `healthy`, `degraded` or `unhealthy`."""
        return await health_of(self._caller)

    def get_metrics_summary(self) -> dict[str, Any]:
        """`client_config`, `enabled_features`, `monitoring` and `bulk_operations`."""
        measures, config = self._caller.measures, self.config
        monitoring: dict[str, Any] | None = None
        if config.enable_metrics:
            moment = datetime.fromtimestamp(self._caller.clock.wall(), UTC)
            monitoring = {
                "timestamp": moment.isoformat(timespec="microseconds"),
                "performance_stats": measures.stats().model_dump(),
                "error_summary": measures.errors(),
                "endpoint_stats": measures.endpoints(),
                "cache": self._cache_view(),
                "webhooks": self._webhooks.get_stats() if self._webhooks else None,
            }
        return {
            "client_config": config.to_dict(),
            "enabled_features": [name for name in _FEATURES if getattr(config, f"enable_{name}")],
            "monitoring": monitoring,
            "bulk_operations": copy.copy(self._bulk_totals),
        }

    def export_metrics(self, format: str = "json") -> str | None:
        """The metrics as `json`, `prometheus` or `csv`; another raises `ValueError`.

        None only where `enable_metrics` is off.
        """
        if not self.config.enable_metrics:
            return None
        view: dict[str, Any] = {"breaker": {"state": "closed"}, "rate_limits": {}}
        if self._caller.path_if_any() is not None:
            view = path_view(self._caller)
        return exported(self._caller.measures, view, self._caller.clock.wall(), format)

    def save_metrics(self, path: str | Path, format: str = "json") -> None:
        """Write `export_metrics` to a file; nothing where metrics are off."""
        text = self.export_metrics(format)
        if text is not None:
            Path(path).write_text(text, encoding="utf-8")

    def clear_cache(self) -> None:
        """Forget every kept answer."""
        path = self._caller.path_if_any()
        if path is not None and path.cache is not None:
            with path.lock:
                path.cache.clear()

    def _cache_view(self) -> dict[str, Any] | None:
        path = self._caller.path_if_any()
        if path is None:
            return None
        with path.lock:
            cache = path.cache
            if cache is None:
                return None
            asked = cache.hits + cache.misses
            return {
                "entries": len(cache),
                "hits": cache.hits,
                "misses": cache.misses,
                "hit_rate": 100 * cache.hits / asked if asked else 0.0,
                "evicted": cache.evicted,
                "invalidated": cache.spoiled,
            }

    def _bulk_done(self, result: BulkOperationResult[Any]) -> None:
        self._bulk_totals["operations"] += 1
        self._bulk_totals["items"] += result.total_items
        self._bulk_totals["failed_items"] += result.failed_items
