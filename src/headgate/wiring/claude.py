"""The engine of a Claude client: its settings and keys out of the environment, and who meets whom.

    ANTHROPIC_API_KEYS = entry ("," entry)*        entry = key ["|" name ["|" organisation]]

Settings follow wiring/settings.py: an explicit argument, a variable that is set, the table `[claude]`
of `headgate.toml`, the default. What is not about a provider (timeouts, what to do about retired
models) is set by the same variables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from msgspec import structs

from headgate.core.call import Key
from headgate.core.ports import Clock, Observer, QuotaStore, Transport
from headgate.policy.models import ModelPolicy
from headgate.policy.quota.table import QuotaTable
from headgate.providers.anthropic import AnthropicProvider
from headgate.providers.anthropic_quota import AnthropicTariff, class_of
from headgate.stores.urls import StoreUrl
from headgate.wiring.build import CHANCE, Engine, assemble
from headgate.wiring.keys import find_listed_keys
from headgate.wiring.loading import load
from headgate.wiring.options import (
    Option,
    Resolved,
    base_url,
    boolean,
    model_name,
    optional,
    seconds,
    whole_number,
)
from headgate.wiring.presets import anthropic_default_model, anthropic_registry
from headgate.wiring.presets_quota import preset, tier_name, with_preset
from headgate.wiring.quotas import CLAUDE_QUOTAS
from headgate.wiring.resilience import PLAIN, Resilience
from headgate.wiring.settings import OPTIONS, Survey, survey
from headgate.wiring.stores import IN_MEMORY

__all__ = [
    "CLAUDE_OPTIONS",
    "ClaudeSettings",
    "build_claude",
    "find_claude_keys",
    "load_claude",
    "survey_claude",
]

_QUOTAS = structs.replace(CLAUDE_QUOTAS, class_of=class_of)


@dataclass(frozen=True, slots=True)
class ClaudeSettings:
    """What a Claude client is built from. Times in seconds.

    Attributes:
        keys: at least one; shown without values.
        keys_origin: the variable or file they came from.
        version: sent as `anthropic-version`.
        max_tokens: longest answer of a call that does not say.
        backoff_seconds: cool-down of an organisation after a refusal without a hint.
        max_wait_seconds: longest wait of a call for a key, where it has no deadline.
        quotas: everything that is declared, or None; the numbers beside it are its defaults.
    """

    keys: tuple[Key, ...]
    keys_origin: str
    base_url: str
    version: str
    default_model: str
    max_tokens: int
    model_policy: ModelPolicy
    rotation_enabled: bool
    backoff_seconds: int
    max_retries: int
    max_wait_seconds: float
    connect_timeout_seconds: float
    attempt_timeout_seconds: float
    stream_idle_seconds: float
    quota_rpm: int | None = None
    quota_itpm: int | None = None
    quota_otpm: int | None = None
    quota_concurrency: int | None = None
    quota_margin: float = 1.0
    quota_tier: str | None = None
    quota_learning: bool = True
    store: StoreUrl = IN_MEMORY
    quotas: QuotaTable | None = None
    resolved: tuple[Resolved, ...] = field(repr=False, default=())


def _version(value: object) -> str:
    text = str(value).strip()
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        raise ValueError("a date, such as 2023-06-01")
    return text


_SHARED = {option.name: option for option in OPTIONS}

CLAUDE_OPTIONS: tuple[Option, ...] = (
    Option("base_url", "HEADGATE_ANTHROPIC_BASE_URL", "https://api.anthropic.com", base_url,
           "where Claude calls go"),
    Option("version", "HEADGATE_ANTHROPIC_VERSION", "2023-06-01", _version,
           "anthropic-version"),
    Option("default_model", "HEADGATE_ANTHROPIC_MODEL", anthropic_default_model(), model_name,
           "model of a call that names none"),
    Option("max_tokens", "HEADGATE_ANTHROPIC_MAX_TOKENS", 4096, whole_number(1),
           "longest answer of a call that does not say"),
    Option("rotation_enabled", "HEADGATE_ANTHROPIC_ROTATION_ENABLED", True, boolean,
           "whether keys beyond the first are used"),
    Option("backoff_seconds", "HEADGATE_ANTHROPIC_BACKOFF_SECONDS", 60, whole_number(1),
           "cool-down after a refusal without a hint"),
    Option("max_retries", "HEADGATE_ANTHROPIC_MAX_RETRIES", 3, whole_number(0),
           "extra tries of a call; rotations are free"),
    Option("attempt_timeout_seconds", "HEADGATE_ANTHROPIC_ATTEMPT_TIMEOUT_SECONDS", 600.0,
           seconds(least=0.001), "until a whole answer is in"),
    Option("quota_rpm", "HEADGATE_CLAUDE_QUOTA_RPM", None, optional(whole_number(1)),
           "requests a minute of each organisation and model class", "HEADGATE_QUOTA_RPM"),
    Option("quota_itpm", "HEADGATE_CLAUDE_QUOTA_ITPM", None, optional(whole_number(1)),
           "input tokens a minute of each, cache reads apart", "HEADGATE_QUOTA_TPM"),
    Option("quota_otpm", "HEADGATE_CLAUDE_QUOTA_OTPM", None, optional(whole_number(1)),
           "output tokens a minute of each"),
    Option("quota_concurrency", "HEADGATE_CLAUDE_QUOTA_CONCURRENCY", None, optional(whole_number(1)),
           "calls at a time of each", "HEADGATE_QUOTA_CONCURRENCY"),
    Option("quota_tier", "HEADGATE_CLAUDE_QUOTA_TIER", None, optional(tier_name("anthropic")),
           "usage tier of the organisations, for quotas that nobody declared"),
    _SHARED["quota_margin"],
    _SHARED["quota_learning"],
    _SHARED["store"],
    _SHARED["model_policy"],
    _SHARED["max_wait_seconds"],
    _SHARED["connect_timeout_seconds"],
    _SHARED["stream_idle_seconds"],
)  # fmt: skip
"""Every setting of a Claude client but its keys."""


def load_claude(
    arguments: Mapping[str, object] | None = None,
    *,
    keys: tuple[Key, ...] | None = None,
    quotas: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> ClaudeSettings:
    """The settings of a Claude client.

    Args:
        arguments: explicit values by option name; None means not given.
        keys: explicit keys, instead of those of the environment.
        quotas: explicit tables of quotas, instead of those of the file.
        environ: instead of the process environment.

    Raises:
        ConfigurationError: a setting is wrong; `NoKeysError`, `KeyFormatError` for the keys.
    """
    environ = os.environ if environ is None else environ  # noqa: TID251 - read here, once
    loaded = load(
        "claude", CLAUDE_OPTIONS, find_claude_keys, environ,
        arguments=arguments, keys=keys, quotas=quotas,
    )  # fmt: skip
    settings = ClaudeSettings(loaded.keys, loaded.origin, **loaded.values, resolved=loaded.resolved)  # type: ignore[arg-type] # parsed above
    declared = loaded.quotas(settings, _QUOTAS, settings.quota_margin)
    if settings.quota_tier is not None:
        chosen = preset("anthropic", settings.quota_tier)
        declared = with_preset(declared, chosen, settings.quota_margin, class_of)
    return replace(settings, quotas=declared)


def survey_claude(environ: Mapping[str, str] | None = None) -> Survey:
    """Look at every setting on its own, so that one mistake does not hide the next. Never raises."""
    environ = os.environ if environ is None else environ  # noqa: TID251 - read here, once
    return survey(
        "claude",
        CLAUDE_OPTIONS,
        environ,
        find_claude_keys,
        lambda keys: load_claude(keys=keys, environ=environ).quotas,
    )


def find_claude_keys(
    environ: Mapping[str, str], keys_file: str | None = None
) -> tuple[tuple[Key, ...], str]:
    """The keys, and where they were found: `ANTHROPIC_API_KEYS`, `ANTHROPIC_API_KEYS_FILE`,
    `ANTHROPIC_API_KEY`, `ANTHROPIC_API_KEY_FILE`, or the `keys_file` of `headgate.toml`."""
    return find_listed_keys(environ, keys_file, prefix="ANTHROPIC", table="claude", called="Claude")


def build_claude(
    settings: ClaudeSettings,
    *,
    clock: Clock,
    observer: Observer,
    warn: Callable[[str], None],
    transport: Transport | None = None,
    store: QuotaStore | None = None,
    chance: Callable[[], float] = CHANCE,
    resilience: Resilience = PLAIN,
    before: Engine | None = None,
) -> Engine:
    """The engine of one Claude client. No I/O, no event loop needed."""
    return assemble(
        settings,
        AnthropicProvider(settings.base_url, settings.version),
        anthropic_registry(),
        clock=clock,
        observer=observer,
        warn=warn,
        transport=transport,
        quotas=settings.quotas or QuotaTable(class_of=class_of),
        margin=settings.quota_margin,
        learning=settings.quota_learning,
        tariff=AnthropicTariff(),
        store=store,
        chance=chance,
        resilience=resilience,
        before=before,
    )
