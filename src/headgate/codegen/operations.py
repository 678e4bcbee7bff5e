"""Every operation of the API as a method. docs/reference/codegen.md lists them with their limits.

`org_id` and other ids are whole numbers or numeric texts. Reads may be answered from the cache; `fresh`
goes past it. All raise the errors of `codegen/errors.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import pydantic

from headgate.codegen.account_operations import AccountOperations, Id
from headgate.codegen.caller import Caller
from headgate.codegen.inputs import (
    AgentType,
    CheckSuiteSettingsRequest,
    CreateAgentRunRequest,
    EditPRInput,
    GenerateSetupCommandsInput,
    PRState,
    ResumeAgentRunInput,
    StopAgentRunInput,
    checked,
    number_of,
    page_query,
    shielded,
)
from headgate.codegen.models import (
    AgentRunResponse,
    AgentRunWithLogsResponse,
    AnalyzeLogsResponse,
    ApiAgentRunSourceType,
    CheckSuiteSettingsResponse,
    EditPRResponse,
    Page,
    RepoResponse,
    SetupCommandsResponse,
)

__all__ = ["Id", "Operations"]

M = TypeVar("M", bound=pydantic.BaseModel)


class Operations(AccountOperations):
    """The 25 operations."""

    _caller: Caller

    # ── agent runs ──────────────────────────────────────────────────────────────────────────────

    async def create_agent_run(
        self,
        /,
        org_id: Id,
        prompt: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        images: Sequence[str] | None = None,
        repo_id: int | None = None,
        model: str | None = None,
        agent_type: AgentType | str | None = None,
        redact: bool = False,
        **limits: Any,
    ) -> AgentRunResponse:
        """Start an agent. Sent again only where the API cannot have acted: 429, no connection.

        Args:
            images: base64 data URIs.
            redact: send markers such as `[EMAIL]` in place of personal data in the prompt.
            limits: `retries`, `timeout`, `first_delay` and `on_send` of this call alone, as in
                `core/resource.py`.
        """
        number = number_of(org_id, "org_id")
        request = checked(
            CreateAgentRunRequest,
            {
                "prompt": shielded(prompt, redact), "metadata": metadata, "images": images,
                "repo_id": repo_id, "model": model, "agent_type": agent_type,
            },
        )  # fmt: skip
        return await self._caller.ask(
            AgentRunResponse, "create_agent_run", owner=number, values={"org_id": number},
            body=request.body(), **limits,
        )  # fmt: skip

    async def get_agent_run(
        self, org_id: Id, agent_run_id: Id, *, fresh: bool = False
    ) -> AgentRunResponse:
        """A run as it stands, at most a minute old; `fresh` asks anew."""
        values = _run(org_id, agent_run_id)
        return await self._caller.ask(
            AgentRunResponse, "get_agent_run", owner=values["org_id"], values=values, fresh=fresh
        )

    async def list_agent_runs(
        self,
        org_id: Id,
        user_id: Id | None = None,
        source_type: ApiAgentRunSourceType | str | None = None,
        skip: int = 0,
        limit: int = 100,
        *,
        fresh: bool = False,
    ) -> Page[AgentRunResponse]:
        """A page of an organisation's runs, newest first."""
        user = None if user_id is None else number_of(user_id, "user_id")
        query = page_query(skip, limit, user_id=user, source_type=source_type)
        return await self._page(Page[AgentRunResponse], "list_agent_runs", org_id, query, fresh=fresh)

    async def resume_agent_run(
        self,
        org_id: Id,
        agent_run_id: Id,
        prompt: str,
        images: Sequence[str] | None = None,
        *,
        redact: bool = False,
    ) -> AgentRunResponse:
        """Go on with a run. Sent again only where the API cannot have acted."""
        values = _run(org_id, agent_run_id)
        request = checked(
            ResumeAgentRunInput,
            {
                "agent_run_id": values["agent_run_id"],
                "prompt": shielded(prompt, redact),
                "images": images,
            },
        )
        return await self._write(AgentRunResponse, "resume_agent_run", values["org_id"], request.body())

    async def ban_agent_run_checks(
        self,
        org_id: Id,
        agent_run_id: Id,
        before_card_order_id: str | None = None,
        after_card_order_id: str | None = None,
    ) -> Any:
        """Stop all agents of the run's pull request, and ignore its checks from now on."""
        cards = (before_card_order_id, after_card_order_id)
        return await self._stop("ban_agent_run_checks", org_id, agent_run_id, cards)

    async def unban_agent_run_checks(
        self,
        org_id: Id,
        agent_run_id: Id,
        before_card_order_id: str | None = None,
        after_card_order_id: str | None = None,
    ) -> Any:
        """Let checks of the run's pull request be processed again."""
        cards = (before_card_order_id, after_card_order_id)
        return await self._stop("unban_agent_run_checks", org_id, agent_run_id, cards)

    async def remove_codegen_from_pr(
        self,
        org_id: Id,
        agent_run_id: Id,
        before_card_order_id: str | None = None,
        after_card_order_id: str | None = None,
    ) -> Any:
        """The same as `ban_agent_run_checks`, under the API's friendlier name."""
        cards = (before_card_order_id, after_card_order_id)
        return await self._stop("remove_codegen_from_pr", org_id, agent_run_id, cards)

    async def get_agent_run_logs(
        self,
        org_id: Id,
        agent_run_id: Id,
        skip: int = 0,
        limit: int = 100,
        reverse: bool = False,
        *,
        fresh: bool = False,
    ) -> AgentRunWithLogsResponse:
        """A run with a page of its log, in the order things happened. Alpha at the vendor."""
        values = _run(org_id, agent_run_id)
        query = page_query(skip, limit, reverse=bool(reverse))
        return await self._caller.ask(
            AgentRunWithLogsResponse, "get_agent_run_logs", owner=values["org_id"], values=values,
            query=query, fresh=fresh,
        )  # fmt: skip

    # ── repositories and pull requests ──────────────────────────────────────────────────────────

    async def get_repositories(
        self, org_id: Id, skip: int = 0, limit: int = 100, *, fresh: bool = False
    ) -> Page[RepoResponse]:
        """A page of an organisation's repositories."""
        query = page_query(skip, limit)
        return await self._page(Page[RepoResponse], "get_repositories", org_id, query, fresh=fresh)

    async def get_check_suite_settings(
        self, org_id: Id, repo_id: Id, *, fresh: bool = False
    ) -> CheckSuiteSettingsResponse:
        """How failed checks of a repository are treated."""
        number, query = number_of(org_id, "org_id"), {"repo_id": str(number_of(repo_id, "repo_id"))}
        return await self._caller.ask(
            CheckSuiteSettingsResponse, "get_check_suite_settings", owner=number,
            values={"org_id": number}, query=query, fresh=fresh,
        )  # fmt: skip

    async def update_check_suite_settings(
        self, /, org_id: Id, repo_id: Id, **settings: Any
    ) -> dict[str, Any]:
        """Change it: `check_retry_count` (0 to 10), `ignored_checks`, `check_retry_counts`,
        `custom_prompts`, `high_priority_apps`. What is not named stays."""
        number, query = number_of(org_id, "org_id"), {"repo_id": str(number_of(repo_id, "repo_id"))}
        request = checked(CheckSuiteSettingsRequest, settings)
        answer = await self._caller.ask_json(
            "update_check_suite_settings", owner=number, values={"org_id": number}, query=query,
            body=request.body(),
        )  # fmt: skip
        return answer if isinstance(answer, dict) else {"result": answer}

    async def edit_pull_request(
        self, org_id: Id, pr_id: Id, state: PRState | str, *, repo_id: Id | None = None
    ) -> EditPRResponse:
        """Set a pull request to open, closed, draft or ready_for_review.

        Args:
            repo_id: the repository, for the operation that names it too.
        """
        values = {"org_id": number_of(org_id, "org_id"), "pr_id": number_of(pr_id, "pr_id")}
        request, name = checked(EditPRInput, {"state": state}), "edit_pull_request"
        if repo_id is not None:
            values["repo_id"] = number_of(repo_id, "repo_id")
            name = "edit_repository_pull_request"
        return await self._caller.ask(
            EditPRResponse, name, owner=values["org_id"], values=values, body=request.body()
        )

    async def generate_setup_commands(
        self,
        org_id: Id,
        repo_id: Id,
        prompt: str | None = None,
        trigger_source: str = "setup-commands",
    ) -> SetupCommandsResponse:
        """Start an agent that works out set-up commands. Sent again only where it cannot have begun."""
        request = checked(
            GenerateSetupCommandsInput,
            {
                "repo_id": number_of(repo_id, "repo_id"),
                "prompt": prompt,
                "trigger_source": trigger_source,
            },
        )
        number = number_of(org_id, "org_id")
        return await self._write(
            SetupCommandsResponse, "generate_setup_commands", number, request.body()
        )

    async def analyze_sandbox_logs(self, org_id: Id, sandbox_id: Id) -> AnalyzeLogsResponse:
        """Start an agent that analyses set-up logs. Sent again only where it cannot have begun."""
        values = {
            "org_id": number_of(org_id, "org_id"),
            "sandbox_id": number_of(sandbox_id, "sandbox_id"),
        }
        return await self._caller.ask(
            AnalyzeLogsResponse, "analyze_sandbox_logs", owner=values["org_id"], values=values
        )

    # ── shapes they share ───────────────────────────────────────────────────────────────────────

    async def _write(self, model: type[M], name: str, org_id: int, body: Mapping[str, object]) -> M:
        return await self._caller.ask(model, name, owner=org_id, values={"org_id": org_id}, body=body)

    async def _stop(
        self, name: str, org_id: Id, agent_run_id: Id, cards: tuple[str | None, str | None]
    ) -> Any:
        values = _run(org_id, agent_run_id)
        request = checked(
            StopAgentRunInput,
            {
                "agent_run_id": values["agent_run_id"],
                "before_card_order_id": cards[0],
                "after_card_order_id": cards[1],
            },
        )
        number = values["org_id"]
        return await self._caller.ask_json(
            name, owner=number, values={"org_id": number}, body=request.body()
        )


def _run(org_id: Id, agent_run_id: Id) -> dict[str, int]:
    return {
        "org_id": number_of(org_id, "org_id"),
        "agent_run_id": number_of(agent_run_id, "agent_run_id"),
    }
