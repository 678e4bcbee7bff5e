"""What the upstream saw, as typed structs. Key names only; a value never gets in here."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Counts", "KeyReport", "ModelReport", "ProjectReport", "QuotaReport", "Report"]


class Counts(msgspec.Struct, kw_only=True):
    """What happened to requests. requests = answered + all of refused + failed + aborted + open.

    Attributes:
        requests: HTTP requests that came in.
        charged_requests: requests as quotas count them: every text of a batch is one.
        answered: got a whole 200, blocked prompts among them.
        refused: reason to number: `rpm`, `tpm`, `rpd` (with `_zero` for a limit of 0), `itpm`,
            `otpm`, `spend`, `no_key`,
            `invalid_key`, `unknown_model`, `invalid_json`, …
        failed: ended by an injected fault.
        aborted: the client went away, or the emulator stopped, before the end.
        open: still being served.
        faults: kind to number of injections, harmless ones such as `slow` among them.
        tokens_in: prompt tokens of answered requests, and of those that failed in mid-answer.
        tokens_out: tokens sent in answers, thoughts among them.
        thought_tokens: the thoughts' share of them.
    """

    requests: int = 0
    charged_requests: int = 0
    answered: int = 0
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    failed: int = 0
    aborted: int = 0
    open: int = 0
    faults: dict[str, int] = msgspec.field(default_factory=dict)
    tokens_in: int = 0
    tokens_out: int = 0
    thought_tokens: int = 0


class QuotaReport(msgspec.Struct, kw_only=True):
    """One quota of one model in one project.

    Attributes:
        limit: what is allowed.
        mechanism: how it is counted.
        used: taken at the moment of the report.
        max_used: the most that was ever taken at one moment.
        admitted: sum of all that was charged.
        refused: requests this quota had no room for (others may have had none either).
    """

    limit: int
    mechanism: str
    used: float = 0
    max_used: float = 0
    admitted: int = 0
    refused: int = 0


class KeyReport(msgspec.Struct, kw_only=True):
    """One key: its sums, and the same per model as it was asked for (resolved, `-` for none)."""

    totals: Counts = msgspec.field(default_factory=Counts)
    models: dict[str, Counts] = msgspec.field(default_factory=dict)


class ModelReport(msgspec.Struct, kw_only=True):
    """One model of a project, under the name its quota is counted under."""

    quotas: dict[str, QuotaReport] = msgspec.field(default_factory=dict)


class ProjectReport(msgspec.Struct, kw_only=True):
    """One project: its sums, its keys, its models' quotas."""

    totals: Counts = msgspec.field(default_factory=Counts)
    keys: dict[str, KeyReport] = msgspec.field(default_factory=dict)
    models: dict[str, ModelReport] = msgspec.field(default_factory=dict)


class Report(msgspec.Struct, kw_only=True):
    """The upstream's books.

    Attributes:
        seconds: since the start or the last reset.
        minute_seconds: the length of a minute here.
        totals: of everything, unknown keys included.
        projects: by name.
        organisations: those of the Anthropic surface, by name; their models are model classes.
        codegen: teams of the Codegen surface, by name; their models are operations.
        openai: organisations of the OpenAI surface, by name; dated versions stand with their model.
        unknown: requests whose key belongs to nobody.
    """

    seconds: float = 0.0
    minute_seconds: float = 60.0
    totals: Counts = msgspec.field(default_factory=Counts)
    projects: dict[str, ProjectReport] = msgspec.field(default_factory=dict)
    organisations: dict[str, ProjectReport] = msgspec.field(default_factory=dict)
    codegen: dict[str, ProjectReport] = msgspec.field(default_factory=dict)
    openai: dict[str, ProjectReport] = msgspec.field(default_factory=dict)
    unknown: Counts = msgspec.field(default_factory=Counts)

    def to_dict(self) -> dict[str, Any]:
        """The same as dicts, lists and numbers, ready for JSON."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built
