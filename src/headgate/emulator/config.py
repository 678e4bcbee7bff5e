"""What an emulator is told to be: projects, keys, limits, latency, faults.

Every class here is a plain struct: write it in Python, or in TOML with the same names. Keys are
secrets even when they are made up, so no `repr` shows one.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from headgate.core.errors import ConfigurationError
from headgate.emulator.anthropic_config import Organisation
from headgate.emulator.codegen_config import CodegenTeam
from headgate.emulator.openai_config import OpenAIOrganisation
from headgate.emulator.problems import check_key_names, describe
from headgate.emulator.vocabulary import (
    ALIASES,
    BEHAVIOURS,
    CLAUDE_ALIASES,
    CLAUDE_ERROR_IDS,
    CLAUDE_METHODS,
    CODEGEN_FAULTS,
    CODEGEN_METHODS,
    ERROR_IDS,
    METHODS,
    OPENAI_ALIASES,
    OPENAI_ERROR_IDS,
    OPENAI_METHODS,
)

__all__ = ["EmulatorConfig", "Fault", "Latency", "Limits", "Mechanism", "Model", "Project", "Tier"]

Mechanism: TypeAlias = Literal["fixed", "sliding_log", "token_bucket", "sliding_counter"]
DayMechanism: TypeAlias = Literal["midnight", "fixed", "sliding_log", "token_bucket", "sliding_counter"]
Tier: TypeAlias = Literal["free", "paid", "paid_2", "paid_3"]
KeyState: TypeAlias = Literal[
    "ok",
    "invalid",
    "expired",
    "not_found",
    "rejected",
    "leaked",
    "suspended",
    "service_blocked",
    "referer",
]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The quotas of one model in one project. `None` means no such quota; 0 means never.

    Attributes:
        rpm: requests a minute. Every text of an embedding batch is one request.
        tpm: input tokens a minute.
        rpd: requests a day.
        mechanism: how `rpm` and `tpm` are counted.
        phase: seconds after the full minute (of Unix time) at which fixed windows and sliding
            counters begin.
        rpm_mechanism: counts `rpm` in another way than `mechanism`.
        tpm_mechanism: counts `tpm` in another way than `mechanism`.
        rpd_mechanism: how `rpd` is counted; `midnight` is midnight in California, 23 to 25 hours.
    """

    rpm: int | None = None
    tpm: int | None = None
    rpd: int | None = None
    mechanism: Mechanism = "fixed"
    phase: float = 0.0
    rpm_mechanism: Mechanism | None = None
    tpm_mechanism: Mechanism | None = None
    rpd_mechanism: DayMechanism = "midnight"

    def __post_init__(self) -> None:
        for name in ("rpm", "tpm", "rpd"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(
                    f"`{name}` is {value}; allowed: 0 or more, or leave it out for no limit"
                )


class Project(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A project: what quotas are counted against. Its keys share them.

    Attributes:
        name: as it appears in the report.
        keys: key name to key value. Names appear in reports, values nowhere.
        limits: model id, pattern (`gemini-3*`) or `*` to limits. Each model has its own counters.
        tier: chooses the names of quotas in 429 bodies.
        closed_models: models that answer 404 "no longer available to new users" here.
        denied: key name to the models that answer 403 "The caller does not have permission".
        key_states: key name to what is wrong with that key.
        prepaid_empty: every call is refused as unpaid.
    """

    name: str
    keys: dict[str, str]
    limits: dict[str, Limits] = {}
    tier: Tier = "free"
    closed_models: list[str] = []
    denied: dict[str, list[str]] = {}
    key_states: dict[str, KeyState] = {}
    prepaid_empty: bool = False

    def __post_init__(self) -> None:
        check_key_names(self.keys, denied=self.denied, key_states=self.key_states)

    def __repr__(self) -> str:
        names = ", ".join(self.keys)
        return f"Project({self.name!r}, keys=[{names}], tier={self.tier!r}, limits={self.limits!r})"


class Latency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long answers take, in seconds, drawn from the emulator's seeded chance.

    A streamed answer waits `first_byte`, then `per_chunk` before each further chunk; a whole answer
    waits for all of it. Refusals wait `refusal`.

    Attributes:
        first_byte: middle of the distribution of the time to the first byte.
        per_chunk: middle of the distribution of the time between chunks.
        refusal: time to a refusal, always exactly this.
        distribution: `fixed`: exactly the middle; `uniform`: middle × (1 ± spread);
            `exponential`: the middle is the mean; `lognormal`: the middle is the median and
            `spread` the standard deviation of the logarithm.
        spread: see `distribution`.
        maximum: no single wait is longer than this.
    """

    first_byte: float = 0.0
    per_chunk: float = 0.0
    refusal: float = 0.0
    distribution: Literal["fixed", "uniform", "exponential", "lognormal"] = "fixed"
    spread: float = 0.0
    maximum: float = 600.0

    def __post_init__(self) -> None:
        for name in ("first_byte", "per_chunk", "refusal", "spread", "maximum"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}; allowed: 0 or more")


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that goes wrong. docs/reference/emulator.md lists the kinds.

    Attributes:
        kind: a behaviour (`reset`, `stall`, …), a short name (`overload`, `invalid_key`, …) or the
            id of a recorded error body (`429-help-only`, …).
        probability: share of matching requests it happens to, 0 to 1.
        project, key, model, method: only requests of this project or organisation, key name, model
            (id or pattern) and method (`generateContent`, `messages_stream`, …).
        start, end: only between these seconds of the emulator's life: an outage.
        skip: let that many matching requests pass first.
        after: chunks sent before a fault in mid-stream.
        seconds: how long `slow` and `slow_chunks` take.
        reason: the finishReason of `finish`, or the blockReason of `blocked`.
        status: the HTTP status of `html`.
        charge: whether the request costs quota; by default it does if it got an answer's first byte.
    """

    kind: str
    probability: float = 1.0
    project: str | None = None
    key: str | None = None
    model: str | None = None
    method: str | None = None
    start: float = 0.0
    end: float | None = None
    skip: int = 0
    after: int = 1
    seconds: float = 5.0
    reason: str | None = None
    status: int = 502
    charge: bool | None = None

    def __post_init__(self) -> None:
        named = dict.fromkeys(
            (
                *(*ALIASES, *CLAUDE_ALIASES, *OPENAI_ALIASES, *CODEGEN_FAULTS),
                *(*ERROR_IDS, *CLAUDE_ERROR_IDS, *OPENAI_ERROR_IDS),
            )
        )
        allowed = (*BEHAVIOURS, *named)
        if self.kind not in allowed:
            raise ValueError(f"`kind` is {self.kind!r}; allowed: {', '.join(allowed)}")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"`probability` is {self.probability}; allowed: 0 to 1")
        methods = (*METHODS, *CLAUDE_METHODS, *OPENAI_METHODS, *CODEGEN_METHODS)
        if self.method is not None and self.method not in methods:
            raise ValueError(f"`method` is {self.method!r}; allowed: {', '.join(methods)}")
        if min(self.start, self.skip, self.after, self.seconds) < 0:
            raise ValueError("`start`, `skip`, `after` and `seconds`; allowed: 0 or more")
        if self.status not in range(200, 600):
            raise ValueError(f"`status` is {self.status}; allowed: 200 to 599")


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model beyond those shipped with the package.

    Attributes:
        id: without `models/`.
        kind: what it makes.
        generation: 3 and later sign their thoughts and end a stream with an empty text.
        quota_family: the name its quota is counted and reported under, if not its id.
        input_tokens, output_tokens: limits of one call.
        thinking: whether it thinks (and so reports thoughtsTokenCount).
        image_tokens: tokens of one picture, in or out.
        dimensions: length of an embedding.
        aliases: other names of it, known to v1beta and v1alpha only.
        shutdown: date (YYYY-MM-DD, midnight Pacific) from which it is gone.
        successor: model that answers in its name from then on; without one it is 404.
        display_name: as listed.
    """

    id: str
    kind: Literal["text", "image", "embedding"] = "text"
    generation: int = 3
    quota_family: str | None = None
    input_tokens: int = 1_048_576
    output_tokens: int = 65_536
    thinking: bool = True
    image_tokens: int = 1120
    dimensions: int = 3072
    aliases: list[str] = []
    shutdown: str | None = None
    successor: str | None = None
    display_name: str | None = None


class EmulatorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything an emulator is told.

    Attributes:
        projects: who may call the Gemini surface, and how much.
        minute_seconds: the length of "a minute" in every quota; a demo shortens it, and says so.
        day_seconds: the length of "a day" for `rpd_mechanism` other than `midnight`.
        latency: how long answers take.
        faults: what goes wrong by chance. `Emulator.script` adds what goes wrong next.
        seed: of all chance: answers, latencies, faults.
        charge_refused: whether a refused request uses quota too.
        retry_delay: RetryInfo in whole seconds: `up` is never too early; `down` cuts the fraction
            off, as in the recorded 429 bodies, so that whoever obeys it comes a little early.
        quota_errors: the form of 429 bodies. `2026` and `classic` are complete; `no_value` lacks
            quotaValue, `help_only` has no quota named, `bare` has no details, `shuffled` is `2026`
            with the details in a random order, `mixed` is any of the complete ones by chance.
        thought_signatures: whether a function call in the current turn's history must bring its
            signature back: `off`, `required` (any), or `verified` (one this emulator gave out).
        strict_fields: refuse unknown fields and wrong types with 400.
        location_blocked: refuse every call with "User location is not supported".
        retire_models: apply the shutdown dates of models.
        file_seconds: how long an uploaded file is processed before calls may name it.
        models: more Gemini models, or other facts about known ones.
        organisations: who may call the Anthropic surface, and how much.
        codegen: teams that may call the Codegen surface, and how much.
        openai: who may call the OpenAI surface, and how much.
    """

    projects: list[Project] = []
    minute_seconds: float = 60.0
    day_seconds: float = 86_400.0
    latency: Latency = Latency()
    faults: list[Fault] = []
    seed: int = 0
    charge_refused: bool = False
    retry_delay: Literal["up", "down"] = "down"
    quota_errors: Literal["2026", "classic", "no_value", "help_only", "bare", "shuffled", "mixed"] = (
        "2026"
    )
    thought_signatures: Literal["off", "required", "verified"] = "required"
    strict_fields: bool = True
    location_blocked: bool = False
    retire_models: bool = True
    file_seconds: float = 0.0
    models: list[Model] = []
    organisations: list[Organisation] = []
    codegen: list[CodegenTeam] = []
    openai: list[OpenAIOrganisation] = []

    def __post_init__(self) -> None:
        if self.minute_seconds <= 0 or self.day_seconds <= 0:
            raise ValueError("`minute_seconds` and `day_seconds`; allowed: more than 0")
        if self.file_seconds < 0:
            raise ValueError(f"`file_seconds` is {self.file_seconds}; allowed: 0 or more")
        _no_repeats("project names", [p.name for p in self.projects])
        _no_repeats("organisation names", [o.name for o in self.organisations])
        _no_repeats("team names", [team.name for team in self.codegen])
        _no_repeats("organisation names", [owner.name for owner in self.openai])
        for owners in (self.projects, self.organisations, self.codegen, self.openai):
            _no_repeats("key names", [k for owner in owners for k in owner.keys])
            values = [v for owner in owners for v in owner.keys.values()]
            if len(set(values)) != len(values):
                raise ValueError("two keys have the same value; allowed: each key once, in one project")

    @classmethod
    def from_toml(cls, path: str | Path) -> EmulatorConfig:
        """Read a configuration file. Raises `ConfigurationError` with the place and what is allowed."""
        file = Path(path)
        try:
            raw = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(
                f"the emulator's configuration {file} cannot be read: {error.strerror}."
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{file} is not valid TOML: {error}.") from error
        return cls.from_dict(raw, source=str(file))

    @classmethod
    def from_dict(cls, raw: dict[str, Any], *, source: str = "configuration") -> EmulatorConfig:
        """The configuration in plain dicts and lists. Raises `ConfigurationError`."""
        try:
            return msgspec.convert(raw, cls)
        except msgspec.ValidationError as error:
            raise ConfigurationError(describe(error, cls, source)) from error

    def checked(self) -> EmulatorConfig:
        """This configuration with every type checked, for those written in Python."""
        return self.from_dict(msgspec.to_builtins(self))


def _no_repeats(what: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what} repeat: {', '.join(twice)}; allowed: each once")
