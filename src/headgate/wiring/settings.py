"""Settings: the only room that reads the environment and `headgate.toml`.

Order of precedence: an explicit argument, an environment variable that is set, `headgate.toml`, the
documented default. Each value remembers where it came from, for `headgate config check`.

A table of our own rather than pydantic-settings: docs/adr/0002-settings-by-table.md has the reasons
and the measurement.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from headgate.core.call import Key
from headgate.core.errors import ConfigurationError
from headgate.policy.models import ModelPolicy
from headgate.policy.quota.table import Quota, QuotaTable
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
from headgate.wiring.quotas import quota_table

__all__ = [
    "OPTIONS",
    "GeminiSettings",
    "Option",
    "Resolved",
    "Survey",
    "load_gemini",
    "resolve",
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
    quota_margin: float = 1.0
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
    Option("quota_margin", "HEADGATE_QUOTA_MARGIN", 1.0, share,
           "share of each declared quota that is used"),
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
    return tuple(resolve_one(option, arguments, environ, table, file) for option in OPTIONS)


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
    table, file = _read_table(environ)
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
        problems: a sentence for each thing that is wrong.
    """

    file: str | None = None
    resolved: list[Resolved] = field(default_factory=list)
    keys: tuple[Key, ...] = ()
    keys_origin: str | None = None
    problems: list[str] = field(default_factory=list)


def survey_gemini(environ: Mapping[str, str] | None = None) -> Survey:
    """Look at every setting on its own, so that one mistake does not hide the next. Never raises."""
    environ = os.environ if environ is None else environ  # noqa: TID251 - this room owns it
    found, table, file = Survey(), cast("Mapping[str, object]", {}), "headgate.toml"
    try:
        table, file = _read_table(environ)
        found.file = file if Path(file).is_file() else None
    except ConfigurationError as error:
        found.problems.append(error.message)
    for option in OPTIONS:
        try:
            found.resolved.append(resolve_one(option, {}, environ, table, file))
        except ConfigurationError as error:
            found.problems.append(error.message)
    try:
        named = cast("str | None", table.get("keys_file"))
        found.keys, found.keys_origin = find_keys(environ, named)
        if not found.problems:
            load_gemini(keys=found.keys, environ=environ)
    except ConfigurationError as error:
        found.problems.append(error.message)
    return found


def _quotas(
    settings: GeminiSettings,
    table: Mapping[str, object],
    file: str,
    given: Mapping[str, object] | None,
) -> QuotaTable | None:
    default = Quota(settings.quota_rpm, settings.quota_tpm, settings.quota_rpd, settings.quota_tpd)
    if given is not None:
        return quota_table(default, given, settings.quota_margin, "argument quotas")
    tables = cast("Mapping[str, object]", table.get("quota", {}))
    return quota_table(default, tables, settings.quota_margin, f"{file} [gemini.quota]")


def _read_table(environ: Mapping[str, str]) -> tuple[Mapping[str, object], str]:
    named = environ.get("HEADGATE_CONFIG", "").strip()
    path = Path(named or "headgate.toml")
    if not named and not path.is_file():
        return {}, str(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"HEADGATE_CONFIG: cannot read {path} ({type(error).__name__}). Name a readable TOML file."
        ) from None
    _refuse_unknown(content, {"gemini"}, str(path))
    table = content.get("gemini", {})
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}: gemini must be a table, written as [gemini].")
    _refuse_unknown(
        table, {option.name for option in OPTIONS} | {"keys_file", "quota"}, f"{path} [gemini]"
    )
    if not isinstance(table.get("keys_file", ""), str):
        raise ConfigurationError(f"{path} [gemini] keys_file takes the path of a file.")
    if not isinstance(table.get("quota", {}), dict):
        raise ConfigurationError(f"{path} [gemini.quota] must be a table of models and projects.")
    return table, str(path)


def _refuse_unknown(table: Mapping[str, object], known: set[str], where: str) -> None:
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}."
            raise ConfigurationError(f"{where}: there is no setting {name!r}; {hint}")
