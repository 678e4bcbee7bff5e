"""The Codegen API's front desk: whose token it is, whether it may, and whether the request is good.

The order is the API's: path, token, limit, parameters and body, organisation, the operation itself.
Pure: the time is an argument.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from headgate.emulator.codegen_api import LIMITS, CodegenOperation, matched
from headgate.emulator.codegen_checks import checked_body, checked_parameters
from headgate.emulator.codegen_config import CodegenTeam
from headgate.emulator.codegen_runs import AgentRun
from headgate.emulator.codegen_world import Answer, CodegenWorld, refusal
from headgate.emulator.quotas import Quota, build

__all__ = ["Asked", "CodegenDesk", "Seat"]


@dataclass(frozen=True)
class Seat:
    """A token of a team."""

    team: CodegenTeam
    key: str  # its name


@dataclass(frozen=True)
class Asked:
    """A request as it came. `path` without a query."""

    method: str
    path: str
    query: Mapping[str, str]
    authorization: str
    body: bytes


class CodegenDesk:
    """All teams.

    Args:
        now: Unix time at the start.
        any_token: let every token in as the first of the first team, for any organisation, and count
            no limits.
        started: called with team and run whenever a run begins to work.
    """

    def __init__(
        self,
        teams: list[CodegenTeam],
        now: float,
        *,
        any_token: bool = False,
        started: Callable[[CodegenTeam, AgentRun], None] | None = None,
    ) -> None:
        self._any_token = any_token
        self._seats = {value: Seat(team, name) for team in teams for name, value in team.keys.items()}
        self._teams = teams
        self._started = started
        self.reset(now)

    def reset(self, now: float) -> None:
        """Forget what happened: worlds begin anew, limits are full."""
        self.worlds = {team.name: self._world(team, now) for team in self._teams}
        self._quotas: dict[tuple[str, str, str], Quota] = {}

    def seat(self, asked: Asked) -> Seat | None:
        """Whose token a request brings."""
        if self._any_token:
            return next(iter(self._seats.values()), None)
        scheme, _, value = asked.authorization.partition(" ")
        return self._seats.get(value.strip()) if scheme.lower() == "bearer" else None

    def operation(self, asked: Asked) -> tuple[CodegenOperation, dict[str, str]] | Answer:
        """The operation asked for, with its path's values."""
        found = matched(asked.method, asked.path)
        if not isinstance(found, int):
            return found
        said = {404: "Not Found", 405: "Method Not Allowed"}[found]
        return Answer(found, json.dumps({"detail": said}).encode(), reason="unknown_path")

    def refused(self, seat: Seat | None, operation: CodegenOperation, now: float) -> Answer | None:
        """What keeps a token from the operation, if anything does."""
        if seat is None or seat.team.key_states.get(seat.key) == "invalid":
            return refusal(401, "Invalid or missing API token.", "invalid_key")
        return self._too_many(seat, operation, now)

    def serve(
        self,
        seat: Seat,
        found: tuple[CodegenOperation, dict[str, str]],
        asked: Asked,
        now: float,
    ) -> Answer:
        """The answer to a request that was let in."""
        operation, path = found
        values, problems = checked_parameters(operation, path, asked.query)
        body, more = checked_body(operation, asked.body)
        if problems := [*problems, *more]:
            return Answer(422, json.dumps({"detail": problems}).encode(), reason="invalid")
        org_id = values.get("org_id", body.get("org_id", seat.team.org_id))
        foreign = org_id != seat.team.org_id and not self._any_token
        if foreign or seat.team.key_states.get(seat.key) == "forbidden":
            return refusal(403, "You do not have access to this organization.", "forbidden")
        return self.worlds[seat.team.name].serve(operation.name, values, body, now)

    def _too_many(self, seat: Seat, operation: CodegenOperation, now: float) -> Answer | None:
        if not seat.team.limited or self._any_token:
            return None
        group = operation.group
        place = (seat.team.name, seat.key, group)
        if place not in self._quotas:
            requests, seconds = seat.team.limits.get(group, LIMITS[group])
            self._quotas[place] = build(seat.team.mechanism, requests, seconds)
        quota = self._quotas[place]
        if quota.room(now, 1):
            quota.charge(now, 1)
            return None
        headers: dict[str, Any] = {}
        if seat.team.retry_after:
            headers["retry-after"] = str(max(1, math.ceil(quota.wait(now, 1))))
        said = "Rate limit exceeded. Please try again later."
        return refusal(429, said, "rate_limit", **headers)

    def _world(self, team: CodegenTeam, now: float) -> CodegenWorld:
        told = self._started
        return CodegenWorld(team, now, None if told is None else lambda run: told(team, run))
