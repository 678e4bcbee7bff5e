"""A team's organisation as the Codegen API shows it: users, repositories, runs, and what calls change.

Pure: requests come as values, and the time is an argument, in Unix seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headgate.emulator.codegen_config import CodegenTeam
from headgate.emulator.codegen_runs import AgentRun, Spell, iso, spelled

__all__ = ["Answer", "CodegenWorld", "answer", "refusal"]

_OLD = 86_400.0  # seconds ago that the first of the runs a team starts with was created
_FIRST_RUN = 1001


@dataclass(frozen=True)
class Answer:
    """What the API says."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str = "answered"


def answer(value: Any, status: int = 200) -> Answer:
    """A JSON answer."""
    return Answer(status, json.dumps(value, separators=(",", ":")).encode())


def refusal(status: int, message: str, reason: str, **headers: str) -> Answer:
    """An error as the API writes most of them."""
    body = json.dumps({"message": message, "status_code": status}).encode()
    return Answer(status, body, headers, reason)


class CodegenWorld:
    """One organisation.

    Args:
        started: called with a run whenever it begins to work.
    """

    def __init__(
        self,
        team: CodegenTeam,
        now: float,
        started: Callable[[AgentRun], None] | None = None,
    ) -> None:
        self.team = team
        self._started: Callable[[AgentRun], None] = _nobody
        self._next_run = _FIRST_RUN
        self._planned = 0
        self.runs: dict[int, AgentRun] = {}
        self._pull_states: dict[int, str] = {}
        self._banned: set[int] = set()
        self._settings: dict[int, dict[str, Any]] = {}
        self._connected = ["github", "slack"]
        self._slack = 0
        self.users = [_user(number, team) for number in range(1, team.users + 1)]
        self.repos = [_repo(number, team) for number in range(1, team.repos + 1)]
        for number in range(team.runs):
            self.add_run(f"Task {number + 1}", now - _OLD + number, seconds=0.0)
        self._started = started or _nobody  # what ended long ago is no news

    def serve(
        self, name: str, values: Mapping[str, Any], body: Mapping[str, Any], now: float
    ) -> Answer:
        """The answer to an operation whose parameters are good."""
        handler: Callable[..., Answer] = getattr(self, f"_{name}")
        return handler({**values, **body}, now)

    def add_run(
        self,
        prompt: str,
        now: float,
        *,
        seconds: float | None = None,
        ending: str | None = None,
        entries: int | None = None,
        source: str = "API",
        metadata: dict[str, Any] | None = None,
        repo_id: int | None = None,
        org_id: int | None = None,
    ) -> AgentRun:
        """Start a run, as somebody else at the organisation might."""
        number = self._next_run
        self._next_run += 1
        length = self.team.run_seconds if seconds is None else seconds
        last = ending or self.team.endings[(number - _FIRST_RUN) % len(self.team.endings)]
        spell = Spell(prompt, now, length, last, entries)
        user_id = self.users[0]["id"] if self.users else 0
        owner = self.team.org_id if org_id is None else org_id
        run = AgentRun(number, owner, source, user_id, [spell], metadata, repo_id)
        if repo_id is not None:
            run.pull_requests = [_pull_request(number, now)]
        self.runs[number] = run
        self._started(run)
        return run

    # ── users and organisations ─────────────────────────────────────────────────────────────────

    def _get_current_user_info(self, _: Mapping[str, Any], __: float) -> Answer:
        return answer(self.users[0] if self.users else _user(0, self.team))

    def _get_users(self, values: Mapping[str, Any], _: float) -> Answer:
        return _page(self.users, values)

    def _get_user(self, values: Mapping[str, Any], _: float) -> Answer:
        for user in self.users:
            if user["id"] == values["user_id"]:
                return answer(user)
        return refusal(404, "User not found.", "no_user")

    def _get_organizations(self, values: Mapping[str, Any], _: float) -> Answer:
        settings = {"enable_pr_creation": True, "enable_rules_detection": True}
        mine = {"id": self.team.org_id, "name": self.team.name, "settings": settings}
        return _page([mine], values)

    # ── runs ────────────────────────────────────────────────────────────────────────────────────

    def _create_agent_run(self, values: Mapping[str, Any], now: float) -> Answer:
        if not self.repos:
            said = "No repos found in the organization. Please add some repos and try again."
            return refusal(404, said, "no_repos")
        if self.team.plan_runs is not None and self._planned >= self.team.plan_runs:
            said = "Alloted agent runs for the current billing plan have been reached. "
            return refusal(402, said + "Please upgrade your plan to continue.", "plan")
        self._planned += 1
        metadata = values.get("metadata")
        wish = (metadata or {}).get("emulate")
        run = self.add_run(
            values["prompt"],
            now,
            metadata=metadata,
            repo_id=values.get("repo_id"),
            org_id=values["org_id"],
            **_wishes(wish),
        )
        return self._shown(run, now)

    def _get_agent_run(self, values: Mapping[str, Any], now: float) -> Answer:
        run = self.runs.get(values["agent_run_id"])
        return self._shown(run, now) if run else _no_run()

    def _list_agent_runs(self, values: Mapping[str, Any], now: float) -> Answer:
        user, source = values.get("user_id"), values.get("source_type")
        newest_first = list(reversed(self.runs.values()))
        found = [
            run
            for run in newest_first
            if user in (None, run.user_id) and source in (None, run.source_type)
        ]
        return _page(found, values, lambda run: run.shown(now, self.team.spelling))

    def _resume_agent_run(self, values: Mapping[str, Any], now: float) -> Answer:
        run = self.runs.get(values["agent_run_id"])
        if run is None:
            return _no_run()
        ending = self.team.endings[0]
        run.spells.append(Spell(values["prompt"], now, self.team.run_seconds, ending))
        run.stopped_at = None
        self._started(run)
        return self._shown(run, now)

    def _get_agent_run_logs(self, values: Mapping[str, Any], now: float) -> Answer:
        run = self.runs.get(values["agent_run_id"])
        if run is None:
            return _no_run()
        entries = run.log(now)
        if values.get("reverse"):
            entries.reverse()
        page = json.loads(_page(entries, values).body)
        shown = run.shown(now, self.team.spelling)
        for name in ("summary", "source_type", "github_pull_requests"):
            del shown[name]
        pages = {name: page[name] for name in ("page", "size", "pages")}
        return answer({**shown, "logs": page["items"], "total_logs": len(entries), **pages})

    def _ban_all_checks_for_agent_run(self, values: Mapping[str, Any], now: float) -> Answer:
        return self._stopped(values, now, "All checks are banned and agents stopped.")

    def _remove_codegen_from_pr(self, values: Mapping[str, Any], now: float) -> Answer:
        return self._stopped(values, now, "Codegen is removed from the pull request.")

    def _unban_all_checks_for_agent_run(self, values: Mapping[str, Any], _: float) -> Answer:
        if values["agent_run_id"] not in self.runs:
            return _no_run()
        self._banned.discard(values["agent_run_id"])
        return answer({"message": "All checks are allowed again."})

    def _stopped(self, values: Mapping[str, Any], now: float, said: str) -> Answer:
        run = self.runs.get(values["agent_run_id"])
        if run is None:
            return _no_run()
        self._banned.add(run.id)
        if not run.has_ended(now):
            run.stopped_at = now
        return answer({"message": said})

    def _shown(self, run: AgentRun, now: float) -> Answer:
        return answer(run.shown(now, self.team.spelling))

    # ── repositories and pull requests ──────────────────────────────────────────────────────────

    def _get_repositories(self, values: Mapping[str, Any], _: float) -> Answer:
        return _page(self.repos, values)

    def _get_check_suite_settings(self, values: Mapping[str, Any], _: float) -> Answer:
        return answer({**_settings(), **self._settings.get(values["repo_id"], {})})

    def _update_check_suite_settings(self, values: Mapping[str, Any], _: float) -> Answer:
        names = set(_settings()) & set(values)
        changed = {name: values[name] for name in names if values[name] is not None}
        self._settings.setdefault(values["repo_id"], {}).update(changed)
        return answer({"success": True, "updated": sorted(changed)})

    def _edit_pull_request_simple(self, values: Mapping[str, Any], _: float) -> Answer:
        number = values["pr_id"]
        for run in self.runs.values():
            for pull in run.pull_requests:
                if pull["id"] == number:
                    self._pull_states[number] = values["state"]
                    shown = {"url": pull["url"], "number": number, "title": pull["title"]}
                    return answer({"success": True, "state": values["state"], **shown, "error": None})
        return answer({"success": False, "error": f"There is no pull request {number}."})

    _edit_pull_request = _edit_pull_request_simple

    def _generate_setup_commands(self, values: Mapping[str, Any], now: float) -> Answer:
        if values["repo_id"] not in {repo["id"] for repo in self.repos}:
            return refusal(404, "Repository not found", "no_repo")
        prompt = values.get("prompt") or "Work out set-up commands"
        run = self.add_run(prompt, now, source="SETUP_COMMANDS", repo_id=values["repo_id"])
        status = spelled(run.status(now), self.team.spelling)
        url = run.shown(now, self.team.spelling)["web_url"]
        return answer({"agent_run_id": run.id, "status": status, "url": url})

    def _analyze_sandbox_logs(self, values: Mapping[str, Any], now: float) -> Answer:
        if values["sandbox_id"] <= 0:
            return refusal(404, "Sandbox not found", "no_sandbox")
        run = self.add_run(f"Analyse the logs of sandbox {values['sandbox_id']}", now)
        status = spelled(run.status(now), self.team.spelling)
        return answer({"agent_run_id": run.id, "status": status, "message": "Log analysis has begun."})

    # ── the rest ────────────────────────────────────────────────────────────────────────────────

    def _get_organization_integrations_endpoint(self, _: Mapping[str, Any], __: float) -> Answer:
        shown: list[dict[str, Any]] = [
            {
                "integration_type": name,
                "active": name in self._connected,
                "token_id": None,
                "installation_id": 77 if name == "github" else None,
                "metadata": {},
            }
            for name in ("github", "slack", "linear")
        ]
        return answer(
            {
                "organization_id": self.team.org_id,
                "organization_name": self.team.name,
                "integrations": shown,
                "total_active_integrations": sum(bool(entry["active"]) for entry in shown),
            }
        )

    def _get_cli_rules(self, _: Mapping[str, Any], __: float) -> Answer:
        return answer({"organization_rules": "Write tests.", "user_custom_prompt": None})

    def _get_mcp_providers(self, _: Mapping[str, Any], __: float) -> Answer:
        provider = {
            "id": 1,
            "name": "linear",
            "issuer": "https://linear.example",
            "authorization_endpoint": "https://linear.example/authorize",
            "token_endpoint": "https://linear.example/token",
            "default_scopes": ["read"],
            "is_mcp": True,
            "meta": None,
        }
        return answer([provider])

    def _get_oauth_token_status(self, _: Mapping[str, Any], __: float) -> Answer:
        return answer({"connected_providers": list(self._connected)})

    def _revoke_oauth_token(self, values: Mapping[str, Any], _: float) -> Answer:
        if values["provider"] in self._connected:
            self._connected.remove(values["provider"])
        return answer({"success": True})

    def _generate_slack_connect_token_endpoint(self, _: Mapping[str, Any], __: float) -> Answer:
        self._slack += 1
        token = f"slack-connect-{self._slack}"
        said = f"Connect my account: {token}"
        return answer({"token": token, "message": said, "expires_in_minutes": 10})


def _page(
    items: Iterable[Any], values: Mapping[str, Any], shown: Callable[[Any], Any] = lambda item: item
) -> Answer:
    everything = list(items)
    skip, limit = values["skip"], values["limit"]
    total = len(everything)
    return answer(
        {
            "items": [shown(item) for item in everything[skip : skip + limit]],
            "total": total,
            "page": skip // limit + 1,
            "size": limit,
            "pages": -(-total // limit),
        }
    )


def _wishes(wish: Any) -> dict[str, Any]:
    """How a run should go, where its metadata say so under `emulate`."""
    if not isinstance(wish, Mapping):
        return {}
    kinds: dict[str, tuple[type, ...]] = {
        "seconds": (int, float),
        "ending": (str,),
        "entries": (int,),
    }
    return {name: wish[name] for name, kind in kinds.items() if isinstance(wish.get(name), kind)}


def _no_run() -> Answer:
    return refusal(404, "Agent run not found.", "no_run")


def _nobody(_: AgentRun) -> None:
    """Nobody wants to know."""


def _user(number: int, team: CodegenTeam) -> dict[str, Any]:
    return {
        "id": number,
        "email": f"user{number}@{team.name}.example",
        "github_user_id": str(90_000 + number),
        "github_username": f"{team.name}-user-{number}",
        "avatar_url": None,
        "full_name": f"User {number}",
        "role": "ADMIN" if number == 1 else "MEMBER",
        "is_admin": number == 1,
    }


def _repo(number: int, team: CodegenTeam) -> dict[str, Any]:
    return {
        "id": number,
        "name": f"repo-{number}",
        "full_name": f"{team.name}/repo-{number}",
        "description": None,
        "github_id": str(70_000 + number),
        "organization_id": team.org_id,
        "visibility": "private",
        "archived": False,
        "setup_status": "COMPLETED",
        "language": "Python",
    }


def _pull_request(number: int, now: float) -> dict[str, Any]:
    return {
        "id": number * 10,
        "title": f"Run {number}",
        "url": f"https://github.example/pull/{number}",
        "created_at": iso(now),
        "head_branch_name": f"codegen/{number}",
    }


def _settings() -> dict[str, Any]:
    return {
        "check_retry_count": 3,
        "ignored_checks": [],
        "check_retry_counts": {},
        "custom_prompts": {},
        "high_priority_apps": [],
        "available_check_suite_names": ["lint", "test"],
    }
