"""The engine of an OpenAI-compatible upstream: its settings and keys out of the environment, and who
meets whom.

    OPENAI_API_KEYS = entry ("," entry)*        entry = key ["|" name ["|" organisation]]

Settings follow wiring/settings.py, in the table `[openai]` of `headgate.toml`. There is no client of
Headgate's for it: programs talk to it through the gateway, with the SDK they have. So no model and no
length of answers has a default here, and of models nothing is known but their names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from msgspec import structs

from headgate.core.call import Key
from headgate.core.ports import Clock, Observer, QuotaStore, Transport
from headgate.engine.pool import KeyPool
from headgate.policy.keyring import KeyRing
from headgate.policy.models import ModelPolicy, Registry
from headgate.policy.quota.table import QuotaTable
from headgate.providers.openai import OpenAIProvider
from headgate.providers.openai_quota import OPENAI_COUNTING, OpenAITariff, class_of
from headgate.stores.urls import StoreUrl
from headgate.wiring.build import CHANCE, Engine, assemble
from headgate.wiring.key_status import KeyBooks
from headgate.wiring.keys import find_listed_keys
from headgate.wiring.loading import load
from headgate.wiring.options import (
    Option,
    Resolved,
    api_url,
    boolean,
    optional,
    seconds,
    whole_number,
)
from headgate.wiring.quotas import OPENAI_QUOTAS
from headgate.wiring.resilience import PLAIN, Resilience
from headgate.wiring.settings import OPTIONS, Survey, survey
from headgate.wiring.stores import IN_MEMORY

__all__ = [
    "OPENAI_OPTIONS",
    "OpenAISettings",
    "build_openai",
    "find_openai_keys",
    "load_openai",
    "openai_books",
    "openai_registry",
    "survey_openai",
]

_QUOTAS = structs.replace(OPENAI_QUOTAS, class_of=class_of, counting=OPENAI_COUNTING)


@dataclass(frozen=True, slots=True)
class OpenAISettings:
    """What the engine of an OpenAI-compatible upstream is built from. Times in seconds.

    Attributes:
        keys: at least one; shown without values.
        keys_origin: the variable or file they came from.
        base_url: everything before `/chat/completions`.
        backoff_seconds: cool-down of an organisation after a refusal without a hint.
        max_wait_seconds: longest wait of a call for a key, where it has no deadline.
        quotas: everything that is declared, or None; the numbers beside it are its defaults.
    """

    keys: tuple[Key, ...]
    keys_origin: str
    base_url: str
    model_policy: ModelPolicy
    rotation_enabled: bool
    backoff_seconds: int
    max_retries: int
    max_wait_seconds: float
    connect_timeout_seconds: float
    attempt_timeout_seconds: float
    stream_idle_seconds: float
    quota_rpm: int | None = None
    quota_tpm: int | None = None
    quota_rpd: int | None = None
    quota_tpd: int | None = None
    quota_concurrency: int | None = None
    quota_margin: float = 1.0
    quota_learning: bool = True
    store: StoreUrl = IN_MEMORY
    quotas: QuotaTable | None = None
    resolved: tuple[Resolved, ...] = field(repr=False, default=())


_SHARED = {option.name: option for option in OPTIONS}

OPENAI_OPTIONS: tuple[Option, ...] = (
    Option("base_url", "HEADGATE_OPENAI_BASE_URL", "https://api.openai.com/v1", api_url,
           "where OpenAI calls go, with the path before /chat/completions"),
    Option("rotation_enabled", "HEADGATE_OPENAI_ROTATION_ENABLED", True, boolean,
           "whether keys beyond the first are used"),
    Option("backoff_seconds", "HEADGATE_OPENAI_BACKOFF_SECONDS", 60, whole_number(1),
           "cool-down after a refusal without a hint"),
    Option("max_retries", "HEADGATE_OPENAI_MAX_RETRIES", 3, whole_number(0),
           "extra tries of a call; rotations are free"),
    Option("attempt_timeout_seconds", "HEADGATE_OPENAI_ATTEMPT_TIMEOUT_SECONDS", 600.0,
           seconds(least=0.001), "until a whole answer is in"),
    Option("quota_rpm", "HEADGATE_OPENAI_QUOTA_RPM", None, optional(whole_number(1)),
           "requests a minute of each organisation and model", "HEADGATE_QUOTA_RPM"),
    Option("quota_tpm", "HEADGATE_OPENAI_QUOTA_TPM", None, optional(whole_number(1)),
           "tokens a minute of each, prompt and answer together", "HEADGATE_QUOTA_TPM"),
    Option("quota_rpd", "HEADGATE_OPENAI_QUOTA_RPD", None, optional(whole_number(1)),
           "requests a day of each", "HEADGATE_QUOTA_RPD"),
    Option("quota_tpd", "HEADGATE_OPENAI_QUOTA_TPD", None, optional(whole_number(1)),
           "tokens a day of each, prompt and answer together", "HEADGATE_QUOTA_TPD"),
    Option("quota_concurrency", "HEADGATE_OPENAI_QUOTA_CONCURRENCY", None, optional(whole_number(1)),
           "calls at a time of each", "HEADGATE_QUOTA_CONCURRENCY"),
    _SHARED["quota_margin"],
    _SHARED["quota_learning"],
    _SHARED["store"],
    _SHARED["model_policy"],
    _SHARED["max_wait_seconds"],
    _SHARED["connect_timeout_seconds"],
    _SHARED["stream_idle_seconds"],
)  # fmt: skip
"""Every setting of an OpenAI-compatible upstream but its keys."""


def load_openai(
    arguments: Mapping[str, object] | None = None,
    *,
    keys: tuple[Key, ...] | None = None,
    quotas: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> OpenAISettings:
    """The settings of an OpenAI-compatible upstream.

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
        "openai", OPENAI_OPTIONS, find_openai_keys, environ,
        arguments=arguments, keys=keys, quotas=quotas,
    )  # fmt: skip
    settings = OpenAISettings(loaded.keys, loaded.origin, **loaded.values, resolved=loaded.resolved)  # type: ignore[arg-type] # parsed above
    return replace(settings, quotas=loaded.quotas(settings, _QUOTAS, settings.quota_margin))


def survey_openai(environ: Mapping[str, str] | None = None) -> Survey:
    """Look at every setting on its own, so that one mistake does not hide the next. Never raises."""
    environ = os.environ if environ is None else environ  # noqa: TID251 - read here, once
    return survey(
        "openai",
        OPENAI_OPTIONS,
        environ,
        find_openai_keys,
        lambda keys: load_openai(keys=keys, environ=environ).quotas,
    )


def find_openai_keys(
    environ: Mapping[str, str], keys_file: str | None = None
) -> tuple[tuple[Key, ...], str]:
    """The keys, and where they were found: `OPENAI_API_KEYS`, `OPENAI_API_KEYS_FILE`,
    `OPENAI_API_KEY`, `OPENAI_API_KEY_FILE`, or the `keys_file` of `headgate.toml`."""
    return find_listed_keys(environ, keys_file, prefix="OPENAI", table="openai", called="OpenAI")


def openai_books(settings: OpenAISettings, clock: Clock) -> KeyBooks:
    """The keys as they stand before anything was sent with them."""
    ring = KeyRing(
        settings.keys, rotation=settings.rotation_enabled, fallback=float(settings.backoff_seconds)
    )
    return KeyBooks(
        KeyPool(ring, clock),
        clock,
        group="organisation",
        rotation_enabled=settings.rotation_enabled,
        backoff_seconds=settings.backoff_seconds,
    )


def openai_registry() -> Registry:
    """What is known of its models: nothing. A name is used as it is."""
    return Registry((), {})


def build_openai(
    settings: OpenAISettings,
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
    """The engine of one OpenAI-compatible upstream. No I/O, no event loop needed."""
    return assemble(
        settings,
        OpenAIProvider(settings.base_url),
        openai_registry(),
        clock=clock,
        observer=observer,
        warn=warn,
        transport=transport,
        quotas=settings.quotas or QuotaTable(class_of=class_of, counting=OPENAI_COUNTING),
        margin=settings.quota_margin,
        learning=settings.quota_learning,
        tariff=OpenAITariff(),
        store=store,
        chance=chance,
        resilience=resilience,
        before=before,
    )
