"""What the management API shows. Instants are aware UTC, costs dollars, durations seconds unless a
name says otherwise; no structure has room for the value of a key."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from headgate.core.alerts import AlertRule, AlertSeverity

__all__ = [
    "AlertView",
    "AttemptView",
    "BreakerView",
    "CacheView",
    "CallView",
    "ConfigChangeView",
    "ConfigView",
    "DomainView",
    "Dropped",
    "KeyCheck",
    "KeyState",
    "KeyView",
    "QuotaView",
    "SectionView",
    "SettingView",
    "StatusView",
    "UpstreamView",
    "UsageView",
    "Validation",
]


class KeyState(StrEnum):
    """What a key can do now."""

    READY = "ready"
    COOLING = "cooling"  # its domain waits for quota of at least one model
    DRAINED = "drained"  # an operator took it out
    REFUSED = "refused"  # the upstream does not accept it


class KeyView(Struct, frozen=True, kw_only=True):
    """A key, by its name.

    Attributes:
        domain: what its quota is counted against; `key:NAME` where it stands for itself.
        reason: why it is drained or refused.
        cooling: until when, by model; `*` stands for all.
        error_rate: percent of the requests.
    """

    provider: str
    name: str
    domain: str
    state: KeyState
    reason: str | None = None
    cooling: Mapping[str, datetime] = {}
    requests: int = 0
    successes: int = 0
    failures: int = 0
    quota_errors: int = 0
    error_rate: float = 0.0
    last_used_at: datetime | None = None
    last_error_at: datetime | None = None
    last_error: str | None = None


class QuotaView(Struct, frozen=True, kw_only=True):
    """One limit of a domain for a model, or for a class of models that are counted together.

    Attributes:
        limit: `rpm`, `tpm`, `rpd`, …
        counts: requests, tokens of input, output or both, or calls at once.
        window_seconds: of a limit that rolls; None for one of a day, or of calls at once.
        amount: as it is enforced, after any margin.
        used, left: now, calls under way included; None where the store does not tell.
    """

    provider: str
    domain: str
    model: str
    limit: str
    counts: str
    window_seconds: float | None
    amount: int
    used: int | None
    left: int | None


class DomainView(Struct, frozen=True, kw_only=True):
    """What a provider counts quota against: a project, an organisation.

    Attributes:
        state: `ready` as long as one of its keys is.
        quotas: of the models that were asked since this process began.
    """

    provider: str
    domain: str
    state: KeyState
    keys: list[str]
    cooling: Mapping[str, datetime] = {}
    quotas: list[QuotaView] = []


class KeyCheck(Struct, frozen=True, kw_only=True):
    """Whether the upstream accepts a key.

    Attributes:
        state: `ok`, `limited` (accepted, out of quota or credit), `invalid` or `unreachable`.
        reason: in the upstream's words, without the key.
    """

    provider: str
    name: str
    state: str
    works: bool
    reason: str | None
    seconds: float


class AlertView(Struct, frozen=True, kw_only=True):
    """An alert that stands.

    Attributes:
        subject: what it is about: a model, a key by its name, or `near` and `cap` of money.
        value, threshold: what was seen, and where the alert begins, in the rule's unit.
    """

    provider: str
    rule: AlertRule
    subject: str
    severity: AlertSeverity
    value: float
    threshold: float
    raised_at: datetime
    summary: str


class BreakerView(Struct, frozen=True, kw_only=True):
    """What stands between calls and a model that fails.

    Attributes:
        state: `closed`, `open` or `half_open`.
        limit: calls at once that the model is held to; None: no limit.
        in_flight, waiting: attempts under way, and calls that wait for a place.
    """

    provider: str
    model: str
    state: str
    limit: int | None
    in_flight: int
    waiting: int


class CacheView(Struct, frozen=True, kw_only=True):
    """What the gateway keeps of answers. Without a cache everything is 0.

    Attributes:
        kept_seconds: how long an answer is given again.
        hit_rate: percent of the look-ups.
    """

    enabled: bool
    kept_seconds: float = 0.0
    entries: int = 0
    bytes: int = 0
    most_bytes: int = 0
    hits: int = 0
    misses: int = 0
    hit_rate: float = 0.0


class Dropped(Struct, frozen=True):
    """How many answers were forgotten, as far as that is known."""

    dropped: int


class AttemptView(Struct, frozen=True, kw_only=True):
    """An attempt of a call.

    Attributes:
        waited: seconds since the one before it ended, or since the call began; below 0 where it ran
            beside another; None: not known.
        cost: None where the model has no known price.
        estimated: the provider did not tell the tokens.
    """

    attempt: int
    began_at: datetime
    seconds: float
    waited: float | None
    key: str
    domain: str
    model: str
    result: str
    error: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost: float | None
    estimated: bool


class CallView(Struct, frozen=True, kw_only=True):
    """What happened to a call.

    Attributes:
        result: `success`, `cancelled`, or a word for the failure; None while it goes on.
        cache: `hit`, `miss` or `off`; None while it goes on.
        seconds: with all waits; None while it goes on.
        seconds_outside_attempts: waits for keys, turns and retries.
        saved: what a kept answer would have cost.
        unpriced_attempts: those whose cost is not known, and in no sum.
    """

    request_id: str
    result: str | None
    provider: str
    model: str
    operation: str
    caller: str
    seconds: float | None
    seconds_outside_attempts: float | None
    retries: int | None
    cache: str | None
    saved: float | None
    cost: float
    unpriced_attempts: int
    attempts: list[AttemptView]


class UsageView(Struct, frozen=True, kw_only=True):
    """A row of the usage ledger: an attempt, or a call without one (attempt 0).

    Attributes:
        call: what became of the call, in its last row; empty in the others.
    """

    request_id: str
    attempt: int
    at: datetime
    provider: str
    model: str
    operation: str
    caller: str
    key: str
    domain: str
    result: str
    error: str
    call: str
    seconds: float
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost: float | None
    estimated: bool
    from_cache: bool


class SettingView(Struct, frozen=True, kw_only=True):
    """A setting, and where its value comes from.

    Attributes:
        origin: `default`, a variable, or a file and its table.
        value: hidden where it may hold a credential.
    """

    name: str
    variable: str
    value: str | int | float | bool | None
    origin: str
    meaning: str


class SectionView(Struct, frozen=True, kw_only=True):
    """The settings of the gateway, or of a provider."""

    name: str
    settings: list[SettingView]
    keys_from: str | None = None
    keys: list[str] = []


class ConfigView(Struct, frozen=True, kw_only=True):
    """The configuration that new calls meet.

    Attributes:
        generation: counts the configurations of this process, from 1.
        file: the `headgate.toml` that was read; None: there is none.
        trouble: why the file as it is now was not taken over; None: it was.
        pending: settings that were changed and take effect with the next start.
    """

    generation: int
    file: str | None
    trouble: str | None
    pending: list[str]
    sections: list[SectionView]


class Validation(Struct, frozen=True, kw_only=True):
    """Whether a configuration would be taken. `problems` says what is wrong, a sentence each."""

    ok: bool
    problems: list[str]


class ConfigChangeView(Struct, frozen=True, kw_only=True):
    """A configuration that was taken over, or refused.

    Attributes:
        number: counts from 1; the start is 1.
        cause: `start`, `file`, `signal` or `request`.
        taken: whether it took over.
        changed: names of the settings that differ, such as `gemini.max_retries`.
        pending: those of them that take effect with the next start.
        trouble: why it was refused.
    """

    number: int
    at: datetime
    cause: str
    taken: bool
    changed: list[str]
    pending: list[str]
    trouble: str | None = None


class UpstreamView(Struct, frozen=True, kw_only=True):
    """A provider the gateway calls."""

    provider: str
    keys: int
    usable_keys: int
    open_breakers: list[str]
    in_flight: int


class StatusView(Struct, frozen=True, kw_only=True):
    """The gateway at a glance: this process of it.

    Attributes:
        access: `admin` where an admin key is asked for, `local` where this machine may manage.
        requests: under way, this one too.
        ledger: where usage is kept, without a password; None: nowhere.
        relayed: whether orders reach all workers of this gateway.
    """

    version: str
    pid: int
    started_at: datetime
    uptime_seconds: float
    access: str
    draining: bool
    requests: int
    listeners: int
    generation: int
    callers: int
    cache: bool
    ledger: str | None
    relayed: bool
    upstreams: list[UpstreamView]
