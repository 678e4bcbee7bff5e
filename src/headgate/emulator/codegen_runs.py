"""Agent runs as they live: what a run is doing at a moment follows from when it began.

    PENDING ── 1 s ──▶ ACTIVE ── the work ──▶ EVALUATION ── the last tenth ──▶ an ending

Resuming appends a spell of work; stopping cuts it short. The time is an argument, in Unix seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

__all__ = ["AgentRun", "Spell", "iso", "spelled"]

_PENDING_SECONDS = 1.0
_ENTRY_SECONDS = 2.0
_TOOLS = ("view_file", "search", "edit_file", "run_command")


@dataclass(frozen=True)
class Spell:
    """One stretch of work: from `start`, for `seconds`, to `ending`."""

    prompt: str
    start: float
    seconds: float
    ending: str
    entries: int | None = None  # log entries, or as many as the time has room for

    @property
    def end(self) -> float:
        """When it is over."""
        return self.start + self.seconds

    def status(self, now: float) -> str:
        """What it is doing."""
        if now >= self.end:
            return self.ending
        if now < self.start + min(_PENDING_SECONDS, self.seconds / 4):
            return "PENDING"
        return "EVALUATION" if now >= self.end - self.seconds / 10 else "ACTIVE"

    def log(self, run_id: int, now: float) -> list[dict[str, Any]]:
        """What it has written until now."""
        entries = [_entry(run_id, self.start, "USER_MESSAGE", observation=self.prompt)]
        whole = max(0, int(self.seconds / _ENTRY_SECONDS) - 1) if self.entries is None else self.entries
        step = self.seconds / (whole + 1)
        for number in range(1, whole + 1):
            moment = self.start + number * step
            if moment > now:
                return entries
            entries.append(_action(run_id, moment, number))
        if now >= self.end:
            kind = "FINAL_ANSWER" if self.ending == "COMPLETE" else "ERROR"
            entries.append(_entry(run_id, self.end, kind, observation=_closing(self.ending)))
        return entries


@dataclass
class AgentRun:
    """A run with everything the API tells of it."""

    id: int
    org_id: int
    source_type: str
    user_id: int
    spells: list[Spell]
    metadata: dict[str, Any] | None = None
    repo_id: int | None = None
    stopped_at: float | None = None
    pull_requests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def created(self) -> float:
        """When it first began."""
        return self.spells[0].start

    @property
    def ends(self) -> float:
        """When it will have ended, if nobody interferes."""
        return self.spells[-1].end if self.stopped_at is None else self.stopped_at

    def status(self, now: float) -> str:
        """The status in upper case."""
        if self.stopped_at is not None and now >= self.stopped_at:
            return "CANCELLED"
        return self.spells[-1].status(now)

    def has_ended(self, now: float) -> bool:
        """Whether it works no more."""
        return now >= self.ends

    def log(self, now: float) -> list[dict[str, Any]]:
        """The whole log until now, in the order things happened."""
        moment = now if self.stopped_at is None else min(now, self.stopped_at)
        return [entry for spell in self.spells for entry in spell.log(self.id, moment)]

    def shown(self, now: float, spelling: str) -> dict[str, Any]:
        """`AgentRunResponse`."""
        status = self.status(now)
        done = status == "COMPLETE"
        return {
            "id": self.id,
            "organization_id": self.org_id,
            "status": spelled(status, spelling),
            "created_at": iso(self.created),
            "web_url": f"https://codegen.com/agent/trace/{self.id}",
            "result": _closing(status) if self.has_ended(now) else None,
            "summary": f"Worked on: {self.spells[-1].prompt[:80]}" if done else None,
            "source_type": self.source_type,
            "github_pull_requests": self.pull_requests if done else [],
            "metadata": self.metadata,
        }


def spelled(status: str, spelling: str) -> str:
    """A status as the team's API writes it."""
    if spelling == "upper":
        return status
    word = status.lower()
    return "completed" if spelling == "completed" and word == "complete" else word


def iso(moment: float) -> str:
    """A moment as the API writes it: without a zone, meaning UTC."""
    return datetime.fromtimestamp(moment, UTC).replace(tzinfo=None).isoformat()


def _closing(status: str) -> str:
    if status == "COMPLETE":
        return "Done. The change is ready for review."
    return f"The run ended without a result ({status})."


def _action(run_id: int, moment: float, number: int) -> dict[str, Any]:
    tool = _TOOLS[number % len(_TOOLS)]
    entry = _entry(run_id, moment, "ACTION", observation={"ok": True, "step": number})
    entry |= {
        "tool_name": tool,
        "thought": f"Step {number}: {tool.replace('_', ' ')}.",
        "tool_input": {"step": number},
        "tool_output": {"status": "success"},
    }
    return entry


def _entry(run_id: int, moment: float, kind: str, *, observation: Any) -> dict[str, Any]:
    return {
        "agent_run_id": run_id,
        "created_at": iso(moment),
        "tool_name": None,
        "message_type": kind,
        "thought": None,
        "observation": observation,
        "tool_input": None,
        "tool_output": None,
    }
