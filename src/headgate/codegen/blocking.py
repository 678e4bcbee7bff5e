"""`SyncCodegenClient`: the same client for code without an event loop.

Every coroutine method of `AsyncCodegenClient` is here as a plain one, with the same arguments, and
every stream as an iterator. Calls run on the blocking bridge, so they also work inside a running loop.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Self

from headgate.codegen.client import AsyncCodegenClient
from headgate.codegen.config import ClientConfig
from headgate.codegen.models import AgentRunResponse, RepoResponse, UserResponse
from headgate.codegen.operations import Id
from headgate.wiring.blocking import Bridge

__all__ = ["SyncCodegenClient"]


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

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self._client, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return self._blocking(found)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(name for name in dir(self._client) if name[0] != "_")})

    def _blocking(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._bridge.run(method(*args, **kwargs))

        return call

    # Streams are plain methods that return asynchronous generators: here they are iterators.

    def get_users_stream(self, org_id: Id, page_size: int = 100) -> Iterator[UserResponse]:
        """Every user of an organisation, one by one."""
        return self._iterated(self._client.get_users_stream(org_id, page_size))

    def get_all_agent_runs(
        self,
        org_id: Id,
        user_id: Id | None = None,
        source_type: str | None = None,
        page_size: int = 100,
    ) -> Iterator[AgentRunResponse]:
        """Every run of an organisation, newest first."""
        return self._iterated(self._client.get_all_agent_runs(org_id, user_id, source_type, page_size))

    def get_repositories_stream(self, org_id: Id, page_size: int = 100) -> Iterator[RepoResponse]:
        """Every repository of an organisation."""
        return self._iterated(self._client.get_repositories_stream(org_id, page_size))

    def _iterated(self, items: AsyncGenerator[Any]) -> Iterator[Any]:
        return self._bridge.iterate(items)

    def close(self) -> None:
        """Close the connections and end the bridge's thread; a later call starts anew."""
        if self._bridge.running:
            self._bridge.run(self._client.aclose())
            self._bridge.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
