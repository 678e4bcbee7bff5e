"""Settings: the only room that reads the environment and `headgate.toml`.

Order of precedence: an explicit argument, an environment variable that is set, `headgate.toml`, the
documented default. Each value remembers where it came from, for `headgate config check`.

A table of our own rather than pydantic-settings: docs/adr/0002-settings-by-table.md has the reasons
and the measurement.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from headgate.core.call import Key
from headgate.core.errors import ConfigurationError, NoKeysError
from headgate.policy.models import ModelPolicy
from headgate.policy.quota.table import QuotaTable
from headgate.stores.urls import MEMORY, StoreUrl
from headgate.stores.usage_url import AUTO, UsageUrl
from headgate.wiring.file import read_table
from headgate.wiring.keys import find_keys
from headgate.wiring.options import (
    Option,
    Resolved,
    base_url,
    boolean,
    model_name,
    optional,
    resolve_one,
    seconds,
    share,
    whole_number,
)
from headgate.wiring.presets_quota import preset, tier_name, with_preset
from headgate.wiring.quotas import GEMINI_QUOTAS, declared_quota, quota_table
from headgate.wiring.stores import IN_MEMORY, check_store

__all__ = [
    "OPTIONS",
    "GeminiSettings",
    "Option",
    "Resolved",
    "Survey",
    "load_gemini",
    "process_environment",
    "resolve",
    "resolve_alone",
    "survey_gemini",
]


@dataclass(frozen=True, slots=True)
class GeminiSettings:
    """What a Gemini client is built from. Times in seconds.

    Attributes:
        keys: at least one; shown without values.
        keys_origin: the variable or file they came from.
        backoff_seconds: cool-down of a domain after a refusal without a hint.
        max_wait_seconds: longest wait of a call for a key, where it has no deadline.
        quotas: everything that is declared, or None; the numbers beside it are its defaults.
    """

    keys: tuple[Key, ...]
    keys_origin: str
    base_url: str
    default_model: str
    embedding_model: str
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
    quota_tier: str | None = None
    quota_learning: bool = True
    store: StoreUrl = IN_MEMORY
    usage: UsageUrl = AUTO
    quotas: QuotaTable | None = None
    resolved: tuple[Resolved, ...] = field(repr=False, default=())


def _policy(value: object) -> ModelPolicy:
    try:
        return ModelPolicy(str(value).strip().lower())
    except ValueError:
        raise ValueError(", ".join(ModelPolicy)) from None


GOOGLE = "https://generativelanguage.googleapis.com"

OPTIONS: tuple[Option, ...] = (
    Option("base_url", "HEADGATE_GEMINI_BASE_URL", GOOGLE, base_url,
           "where Gemini calls go"),
    Option("default_model", "GEMINI_DEFAULT_MODEL", "gemini-2.5-flash", model_name,
           "model of a generation that names none"),
    Option("embedding_model", "GEMINI_EMBEDDING_MODEL", "gemini-embedding-001", model_name,
           "model of an embedding that names none"),
    Option("model_policy", "HEADGATE_MODEL_POLICY", ModelPolicy.SUCCESSOR, _policy,
           "what to do about a retired model"),
    Option("rotation_enabled", "GEMINI_API_KEY_ROTATION_ENABLED", True, boolean,
           "whether keys beyond the first are used"),
    Option("backoff_seconds", "GEMINI_API_KEY_ROTATION_BACKOFF_SECONDS", 60, whole_number(1),
           "cool-down after a refusal without a hint"),
    Option("max_retries", "GEMINI_API_KEY_ROTATION_MAX_RETRIES", 3, whole_number(0),
           "extra tries of a call; rotations are free"),
    Option("max_wait_seconds", "HEADGATE_MAX_WAIT_SECONDS", None, optional(seconds(least=0)),
           "longest wait for a key; unset: backoff_seconds"),
    Option("quota_rpm", "HEADGATE_QUOTA_RPM", None, optional(whole_number(1)),
           "requests a minute of each project and model"),
    Option("quota_tpm", "HEADGATE_QUOTA_TPM", None, optional(whole_number(1)),
           "prompt tokens a minute of each project and model"),
    Option("quota_rpd", "HEADGATE_QUOTA_RPD", None, optional(whole_number(1)),
           "requests a day of each project and model"),
    Option("quota_tpd", "HEADGATE_QUOTA_TPD", None, optional(whole_number(1)),
           "prompt tokens a day of each project and model"),
    Option("quota_concurrency", "HEADGATE_QUOTA_CONCURRENCY", None, optional(whole_number(1)),
           "calls at a time of each project and model"),
    Option("quota_margin", "HEADGATE_QUOTA_MARGIN", 1.0, share,
           "share of each declared quota that is used"),
    Option("quota_tier", "HEADGATE_QUOTA_TIER", None, optional(tier_name("gemini")),
           "usage tier of the projects, for quotas that nobody declared"),
    Option("quota_learning", "HEADGATE_QUOTA_LEARNING", True, boolean,
           "whether quotas that nobody declared are learned"),
    Option("store", "HEADGATE_STORE", MEMORY, StoreUrl.read,
           "where quota ledgers live: this process, or a server that many share", secret=True),
    Option("usage", "HEADGATE_USAGE", "auto", UsageUrl.read,
           "where the usage ledger is kept", secret=True),
    Option("connect_timeout_seconds", "HEADGATE_CONNECT_TIMEOUT_SECONDS", 10.0, seconds(least=0.001),
           "until a connection stands"),
    Option("attempt_timeout_seconds", "HEADGATE_ATTEMPT_TIMEOUT_SECONDS", 300.0, seconds(least=0.001),
           "until a whole answer is in"),
    Option("stream_idle_seconds", "HEADGATE_STREAM_IDLE_SECONDS", 120.0, seconds(least=0.001),
           "longest silence in a stream"),
)  # fmt: skip
"""Every setting of `[gemini]` in `headgate.toml` but `keys_file`, which names the file of keys, and the
tables under `quota`, which `wiring/quotas.py` reads."""


def resolve(
    arguments: Mapping[str, object], environ: Mapping[str, str], table: Mapping[str, object], file: str
) -> tuple[Resolved, ...]:
    """Each option's value and origin. Raises `ConfigurationError`: option, value, what is allowed."""
    where = f"{file} [gemini]"
    return tuple(resolve_one(option, arguments, environ, table, where) for option in OPTIONS)


def resolve_alone(
    name: str, argument: object = None, environ: Mapping[str, str] | None = None
) -> Resolved:
    """One setting without the others, and without keys. Raises `ConfigurationError`.

    Args:
        argument: an explicit value; None means not given.
        environ: instead of the process environment.
    """
    environ = process_environment(environ)
    table, file = read_table(environ, "gemini", [option.name for option in OPTIONS])
    option = next(option for option in OPTIONS if option.name == name)
    return resolve_one(option, {name: argument}, environ, table, f"{file} [gemini]")


def process_environment(given: Mapping[str, str] | None) -> Mapping[str, str]:
    """What was given, or the environment of this process."""
    return os.environ if given is None else given  # noqa: TID251 - this room owns it


def load_gemini(
    arguments: Mapping[str, object] | None = None,
    *,
    keys: tuple[Key, ...] | None = None,
    quotas: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> GeminiSettings:
    """The settings of a Gemini client.

    Args:
        arguments: explicit values by option name; None means not given.
        keys: explicit keys, instead of those of the environment.
        quotas: explicit tables of quotas, instead of those of the file.
        environ: instead of the process environment.
    """
    environ = os.environ if environ is None else environ  # noqa: TID251 - this room owns it
    table, file = read_table(environ, "gemini", [option.name for option in OPTIONS])
    resolved = resolve(arguments or {}, environ, table, file)
    origin = "argument keys"
    if keys is None:
        keys, origin = find_keys(environ, cast("str | None", table.get("keys_file")))
    values = {item.option.name: item.value for item in resolved}
    if values["max_wait_seconds"] is None:
        values["max_wait_seconds"] = float(cast("int", values["backoff_seconds"]))
    settings = GeminiSettings(keys, origin, **values, resolved=resolved)  # type: ignore[arg-type] # parsed above
    return replace(settings, quotas=_quotas(settings, table, file, quotas))


@dataclass(slots=True)
class Survey:
    """All there is to say about the settings, right and wrong.

    Attributes:
        file: the `headgate.toml` that was read, or None.
        resolved: the options that are right.
        keys, keys_origin: the keys, if they are right.
        quotas: what is declared, if all is right.
        problems: a sentence for each thing that is wrong.
        named: whether the file has a table for this door.
        keyless: whether no key was found anywhere.
    """

    file: str | None = None
    resolved: list[Resolved] = field(default_factory=list)
    keys: tuple[Key, ...] = ()
    keys_origin: str | None = None
    quotas: QuotaTable | None = None
    problems: list[str] = field(default_factory=list)
    named: bool = False
    keyless: bool = False


def survey_gemini(environ: Mapping[str, str] | None = None) -> Survey:
    """Look at every setting on its own, so that one mistake does not hide the next. Never raises."""
    environ = os.environ if environ is None else environ  # noqa: TID251 - this room owns it
    return survey(
        "gemini",
        OPTIONS,
        environ,
        find_keys,
        lambda keys: load_gemini(keys=keys, environ=environ).quotas,
    )


def survey(
    name: str,
    options: Sequence[Option],
    environ: Mapping[str, str],
    find: Callable[[Mapping[str, str], str | None], tuple[tuple[Key, ...], str]],
    quotas: Callable[[tuple[Key, ...]], QuotaTable | None],
) -> Survey:
    """Look at the settings of a door, one by one.

    Args:
        name: of its table in the file.
        find: its keys, out of the environment and `keys_file`.
        quotas: what it declares; asked only where everything else is right.
    """
    found, table, file = Survey(), cast("Mapping[str, object]", {}), "headgate.toml"
    try:
        table, file = read_table(environ, name, [option.name for option in options])
        found.file = file if Path(file).is_file() else None
        found.named = bool(table)
    except ConfigurationError as error:
        found.problems.append(error.message)
    for option in options:
        try:
            item = resolve_one(option, {}, environ, table, f"{file} [{name}]")
            found.resolved.append(item)
            if isinstance(item.value, StoreUrl):
                check_store(item.value)
        except ConfigurationError as error:
            found.problems.append(error.message)
    try:
        found.keys, found.keys_origin = find(environ, cast("str | None", table.get("keys_file")))
    except NoKeysError as error:
        found.problems.append(error.message)
        found.keyless = True
    except ConfigurationError as error:
        found.problems.append(error.message)
    if not found.problems:
        try:
            found.quotas = quotas(found.keys)
        except ConfigurationError as error:
            found.problems.append(error.message)
    return found


def _quotas(
    settings: GeminiSettings,
    table: Mapping[str, object],
    file: str,
    given: Mapping[str, object] | None,
) -> QuotaTable | None:
    default, margin = declared_quota(settings, GEMINI_QUOTAS), settings.quota_margin
    if given is not None:
        declared = quota_table(default, given, margin, "argument quotas")
    else:
        tables = cast("Mapping[str, object]", table.get("quota", {}))
        declared = quota_table(default, tables, margin, f"{file} [gemini.quota]")
    if settings.quota_tier is None:
        return declared
    return with_preset(declared, preset("gemini", settings.quota_tier), margin)
