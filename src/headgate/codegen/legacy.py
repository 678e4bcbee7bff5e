"""`CodegenClient`: the old client's two calls, each with a warning that names the new one."""

from __future__ import annotations

import warnings
from typing import Any

from headgate.codegen.client import AsyncCodegenClient
from headgate.codegen.errors import NotFoundError
from headgate.codegen.factories import create_production_client
from headgate.codegen.models import AgentRunResponse
from headgate.codegen.operations import Id

__all__ = ["CodegenClient"]


class CodegenClient:
    """Deprecated. The calls work as before, over the public API.

    Args:
        api_token, org_id: by default those of the environment.
        parts: `transport`, `clock` … of `AsyncCodegenClient`.
    """

    def __init__(self, api_token: str | None = None, org_id: Id | None = None, **parts: Any) -> None:
        self._client = create_production_client(api_token, org_id, **parts)

    async def create_agent_run(
        self,
        target: str,
        repo_name: str | None = None,
        planning_statement: str | None = None,
        auto_confirm_plans: bool = False,
        max_iterations: int = 10,
    ) -> AgentRunResponse:
        """Deprecated: `await client.create_agent_run(org_id, prompt, repo_id=…)` takes its place.

        Args:
            target: the prompt.
            repo_name: name or full name of the repository; its id is looked up.
            planning_statement, auto_confirm_plans, max_iterations: go into the run's metadata.
        """
        _warn(
            "CodegenClient.create_agent_run(target, repo_name) is deprecated; "
            "use AsyncCodegenClient.create_agent_run(org_id, prompt, repo_id=…)"
        )
        org_id = self._client.config.org_id
        metadata: dict[str, Any] = {
            "auto_confirm_plans": auto_confirm_plans,
            "max_iterations": max_iterations,
        }
        if planning_statement is not None:
            metadata["planning_statement"] = planning_statement
        repo_id = None
        if repo_name is not None:
            metadata["repo"] = repo_name
            repo_id = await self._repo_id(org_id, repo_name)
        return await self._client.create_agent_run(org_id, target, metadata, repo_id=repo_id)

    async def _repo_id(self, org_id: Id, name: str) -> int:
        async for repo in self._client.get_repositories_stream(org_id):
            if name in (repo.full_name, repo.name):
                return repo.id
        raise NotFoundError(
            f"This organisation has no repository called {name!r}.", "repo", name,
            endpoint="get_repositories",
        )  # fmt: skip

    @staticmethod
    def create_enhanced_client(
        api_token: str | None = None, org_id: Id | None = None, **parts: Any
    ) -> AsyncCodegenClient:
        """Deprecated: `create_production_client(api_token, org_id)` takes its place."""
        _warn("CodegenClient.create_enhanced_client() is deprecated; use create_production_client()")
        return create_production_client(api_token, org_id, **parts)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._client.aclose()

    async def __aenter__(self) -> CodegenClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


def _warn(said: str) -> None:
    warnings.warn(
        said + ". docs/how-to/migrate-codegen.md has the rest.", DeprecationWarning, stacklevel=3
    )
