"""`SyncCodegenClient`: the same client for code without an event loop.

Every coroutine method of `AsyncCodegenClient` is here as a plain one, with the same arguments and the
same types, and every stream as an iterator. Calls run on the blocking bridge, so they also work inside
a running loop.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from headgate.codegen.bulk import BulkOperationConfig, BulkOperationResult
from headgate.codegen.client import AsyncCodegenClient
from headgate.codegen.config import ClientConfig
from headgate.codegen.operations import Id
from headgate.codegen.webhooks import WebhookHandler
from headgate.wiring.blocking import Bridge

__all__ = ["SyncCodegenClient"]

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


def _waited(
    method: Callable[Concatenate[AsyncCodegenClient, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[SyncCodegenClient, P], R]:
    """A coroutine method as a plain one."""

    def call(self: SyncCodegenClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._bridge.run(method(self._client, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


def _iterated(
    method: Callable[Concatenate[AsyncCodegenClient, P], AsyncGenerator[T]],
) -> Callable[Concatenate[SyncCodegenClient, P], Iterator[T]]:
    """A stream as an iterator."""

    def call(self: SyncCodegenClient, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._bridge.iterate(method(self._client, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


class SyncCodegenClient:
    """Takes what `AsyncCodegenClient` takes. Threads may share it; leaving `with` closes it.

    Handlers of webhooks and callbacks of waits and bulk operations run on the bridge's thread.
    """

    def __init__(
        self,
        config: ClientConfig | None = None,
        api_token: str | None = None,
        org_id: Id | None = None,
        **parts: Any,
    ) -> None:
        self._client = AsyncCodegenClient(config, api_token, org_id, **parts)
        self._bridge = Bridge()

    def __repr__(self) -> str:
        return repr(self._client).replace("Async", "Sync", 1)

    # ── runs ────────────────────────────────────────────────────────────────────────────────────

    create_agent_run = _waited(AsyncCodegenClient.create_agent_run)
    get_agent_run = _waited(AsyncCodegenClient.get_agent_run)
    list_agent_runs = _waited(AsyncCodegenClient.list_agent_runs)
    resume_agent_run = _waited(AsyncCodegenClient.resume_agent_run)
    ban_agent_run_checks = _waited(AsyncCodegenClient.ban_agent_run_checks)
    unban_agent_run_checks = _waited(AsyncCodegenClient.unban_agent_run_checks)
    remove_codegen_from_pr = _waited(AsyncCodegenClient.remove_codegen_from_pr)
    get_agent_run_logs = _waited(AsyncCodegenClient.get_agent_run_logs)
    wait_for_agent_run_completion = _waited(AsyncCodegenClient.wait_for_agent_run_completion)
    wait_for_agent_runs = _waited(AsyncCodegenClient.wait_for_agent_runs)
    get_all_agent_runs = _iterated(AsyncCodegenClient.get_all_agent_runs)

    # ── repositories, sandboxes ─────────────────────────────────────────────────────────────────

    get_repositories = _waited(AsyncCodegenClient.get_repositories)
    get_repositories_stream = _iterated(AsyncCodegenClient.get_repositories_stream)
    get_check_suite_settings = _waited(AsyncCodegenClient.get_check_suite_settings)
    update_check_suite_settings = _waited(AsyncCodegenClient.update_check_suite_settings)
    edit_pull_request = _waited(AsyncCodegenClient.edit_pull_request)
    generate_setup_commands = _waited(AsyncCodegenClient.generate_setup_commands)
    analyze_sandbox_logs = _waited(AsyncCodegenClient.analyze_sandbox_logs)

    # ── users, organisations, connections ───────────────────────────────────────────────────────

    get_current_user = _waited(AsyncCodegenClient.get_current_user)
    get_user = _waited(AsyncCodegenClient.get_user)
    get_users = _waited(AsyncCodegenClient.get_users)
    get_users_stream = _iterated(AsyncCodegenClient.get_users_stream)
    get_organizations = _waited(AsyncCodegenClient.get_organizations)
    get_organization = _waited(AsyncCodegenClient.get_organization)
    get_integrations = _waited(AsyncCodegenClient.get_integrations)
    get_cli_rules = _waited(AsyncCodegenClient.get_cli_rules)
    get_mcp_providers = _waited(AsyncCodegenClient.get_mcp_providers)
    get_oauth_token_status = _waited(AsyncCodegenClient.get_oauth_token_status)
    revoke_oauth_token = _waited(AsyncCodegenClient.revoke_oauth_token)
    generate_slack_connect_token = _waited(AsyncCodegenClient.generate_slack_connect_token)

    # ── bulk ────────────────────────────────────────────────────────────────────────────────────

    bulk_get_users = _waited(AsyncCodegenClient.bulk_get_users)
    bulk_create_agent_runs = _waited(AsyncCodegenClient.bulk_create_agent_runs)

    def bulk_operation(
        self,
        items: Iterable[T],
        operation: Callable[[T], Coroutine[Any, Any, R]],
        config: BulkOperationConfig | None = None,
    ) -> BulkOperationResult[R]:
        """Any coroutine function over any items. It is called once per item: retries are its own."""
        return self._bridge.run(self._client.bulk_operation(items, operation, config))

    # ── webhooks, how it goes ───────────────────────────────────────────────────────────────────

    process_webhook = _waited(AsyncCodegenClient.process_webhook)
    health_check = _waited(AsyncCodegenClient.health_check)

    def get_webhook_handler(self, *, insecure: bool = False) -> WebhookHandler:
        """As `AsyncCodegenClient.get_webhook_handler`."""
        return self._client.get_webhook_handler(insecure=insecure)

    def get_metrics_summary(self) -> dict[str, Any]:
        """As `AsyncCodegenClient.get_metrics_summary`."""
        return self._client.get_metrics_summary()

    def export_metrics(self, format: str = "json") -> str | None:
        """As `AsyncCodegenClient.export_metrics`."""
        return self._client.export_metrics(format)

    def save_metrics(self, path: str | Path, format: str = "json") -> None:
        """As `AsyncCodegenClient.save_metrics`."""
        self._client.save_metrics(path, format)

    def clear_cache(self) -> None:
        """As `AsyncCodegenClient.clear_cache`."""
        self._client.clear_cache()

    @property
    def config(self) -> ClientConfig:
        """The settings; what is set in them holds from the next call on."""
        return self._client.config

    def update_config(self, **settings: Any) -> None:
        """Set several settings at once: all, or none if one is wrong. Calls under way keep the old."""
        self._client.update_config(**settings)

    def close(self) -> None:
        """Close the connections and end the bridge's thread; a later call starts anew."""
        if self._bridge.running:
            self._bridge.run(self._client.aclose())
            self._bridge.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
