"""Teams: who may call the Codegen surface, and how much."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

__all__ = ["CodegenTeam"]

KeyState: TypeAlias = Literal["ok", "invalid", "forbidden"]
Mechanism: TypeAlias = Literal["fixed", "sliding_log", "token_bucket", "sliding_counter"]
Spelling: TypeAlias = Literal["upper", "lower", "completed"]

ENDINGS = (
    "COMPLETE",
    "ERROR",
    "FAILED",
    "CANCELLED",
    "STOPPED",
    "TIMEOUT",
    "MAX_ITERATIONS_REACHED",
    "OUT_OF_TOKENS",
)


class CodegenTeam(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An organisation on the Codegen API, with its tokens.

    Attributes:
        name: as it appears in the report, and what the organisation is called.
        keys: token name to token. Names appear in reports, values nowhere.
        org_id: the organisation's id.
        users, repos, runs: how many of each there are at the start; these runs have ended.
        plan_runs: runs the plan allows from the start on; then 402. None for no limit.
        key_states: token name to what is wrong with that token.
        limited: whether the documented limits hold.
        limits: class of operations (`standard`, `create`, `logs`, `pull_requests`, `rules`, `setup`,
            `analysis`) to other limits: requests and seconds.
        mechanism: how requests are counted, per token and class.
        retry_after: whether a 429 says when to come back. The API documents no such header.
        run_seconds: how long a run takes.
        endings: what runs end with, in turn.
        spelling: of statuses: `COMPLETE`, `complete`, or `completed`, as the vendor's docs have it.
        webhook_url: where ends of runs are reported, if anywhere.
        webhook_secret: what those webhooks are signed with.
    """

    name: str
    keys: dict[str, str]
    org_id: int = 1
    users: int = 3
    repos: int = 2
    runs: int = 0
    plan_runs: int | None = None
    key_states: dict[str, KeyState] = {}
    limited: bool = True
    limits: dict[str, tuple[int, float]] = {}
    mechanism: Mechanism = "sliding_log"
    retry_after: bool = False
    run_seconds: float = 20.0
    endings: list[str] = msgspec.field(default_factory=lambda: ["COMPLETE"])
    spelling: Spelling = "upper"
    webhook_url: str | None = None
    webhook_secret: str | None = None

    def __post_init__(self) -> None:
        for name in self.key_states:
            if name not in self.keys:
                known = ", ".join(sorted(self.keys)) or "none"
                raise ValueError(f"`key_states` names the token `{name}`; allowed: {known}")
        if min(self.users, self.repos, self.runs, self.run_seconds) < 0:
            raise ValueError("`users`, `repos`, `runs` and `run_seconds`; allowed: 0 or more")
        if not self.endings or set(self.endings) - set(ENDINGS):
            raise ValueError(f"`endings` is {self.endings}; allowed: {', '.join(ENDINGS)}")

    def __repr__(self) -> str:
        return f"CodegenTeam({self.name!r}, keys=[{', '.join(self.keys)}], org_id={self.org_id})"
