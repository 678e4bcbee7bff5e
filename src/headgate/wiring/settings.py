"""Settings: the only room that reads the environment and `headgate.toml`.

Order of precedence: an explicit argument, an environment variable that is set, `headgate.toml`, the
documented default. Each value remembers where it came from, for `headgate config check`.

A table of our own rather than pydantic-settings: docs/adr/0002-settings-by-table.md has the reasons
and the measurement.
"""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from headgate.core.call import Key
from headgate.core.errors import ConfigurationError
from headgate.policy.models import ModelPolicy
from headgate.policy.redaction import redact
from headgate.wiring.keys import find_keys

__all__ = ["OPTIONS", "GeminiSettings", "Option", "Resolved", "load_gemini", "resolve"]


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: its name in `headgate.toml` and as an argument, its variable, its default.

    `parse` takes text or a TOML value and raises `ValueError` with the allowed values.
    """

    name: str
    variable: str
    default: object
    parse: Callable[[object], object]
    meaning: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """The value of an option and where it came from."""

    option: Option
    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class GeminiSettings:
    """What a Gemini client is built from. Times in seconds.

    Attributes:
        keys: at least one; shown without values.
        keys_origin: the variable or file they came from.
        backoff_seconds: cool-down of a domain after a refusal without a hint.
        max_wait_seconds: longest wait of a call for a key, where it has no deadline.
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
    resolved: tuple[Resolved, ...] = field(repr=False, default=())


_TRUE = {"true", "1", "yes", "on"}
_FALSE = {"false", "0", "no", "off"}


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError("true, false, 1, 0, yes, no, on or off")


def _integer(least: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        allowed = ValueError(f"a whole number, {least} or more")
        if isinstance(value, bool | float):
            raise allowed
        try:
            number = int(str(value).strip())
        except ValueError:
            raise allowed from None
        if number < least:
            raise allowed
        return number

    return parse


def _seconds(*, least: float) -> Callable[[object], float]:
    def parse(value: object) -> float:
        allowed = ValueError(f"a number of seconds, {least:g} or more")
        if isinstance(value, bool):
            raise allowed
        try:
            number = float(str(value).strip())
        except ValueError:
            raise allowed from None
        if not math.isfinite(number) or number < least:
            raise allowed
        return number

    return parse


def _name(value: object) -> str:
    text = str(value).strip()
    if not isinstance(value, str) or not text or not text.isascii() or any(c in text for c in " ?#"):
        raise ValueError("the name of a model, such as gemini-3.8-flash")
    return text


def _policy(value: object) -> ModelPolicy:
    try:
        return ModelPolicy(str(value).strip().lower())
    except ValueError:
        raise ValueError(", ".join(ModelPolicy)) from None


def _base_url(value: object) -> str:
    text = str(value).strip().rstrip("/")
    parts = urlsplit(text)
    try:
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        port_is_good = False
    good = parts.scheme in ("http", "https") and parts.hostname and not parts.username and port_is_good
    if not good or parts.path or parts.query or parts.fragment:
        raise ValueError(
            "scheme and host without a path, such as https://proxy.example or http://127.0.0.1:8765"
        )
    return text


def _optional(parse: Callable[[object], object]) -> Callable[[object], object]:
    return lambda value: None if value is None else parse(value)


GOOGLE = "https://generativelanguage.googleapis.com"

OPTIONS: tuple[Option, ...] = (
    Option("base_url", "HEADGATE_GEMINI_BASE_URL", GOOGLE, _base_url,
           "where Gemini calls go"),
    Option("default_model", "GEMINI_DEFAULT_MODEL", "gemini-2.5-flash", _name,
           "model of a generation that names none"),
    Option("embedding_model", "GEMINI_EMBEDDING_MODEL", "gemini-embedding-001", _name,
           "model of an embedding that names none"),
    Option("model_policy", "HEADGATE_MODEL_POLICY", ModelPolicy.SUCCESSOR, _policy,
           "what to do about a retired model"),
    Option("rotation_enabled", "GEMINI_API_KEY_ROTATION_ENABLED", True, _boolean,
           "whether keys beyond the first are used"),
    Option("backoff_seconds", "GEMINI_API_KEY_ROTATION_BACKOFF_SECONDS", 60, _integer(1),
           "cool-down after a refusal without a hint"),
    Option("max_retries", "GEMINI_API_KEY_ROTATION_MAX_RETRIES", 3, _integer(0),
           "extra tries of a call; rotations are free"),
    Option("max_wait_seconds", "HEADGATE_MAX_WAIT_SECONDS", None, _optional(_seconds(least=0)),
           "longest wait for a key; unset: backoff_seconds"),
    Option("connect_timeout_seconds", "HEADGATE_CONNECT_TIMEOUT_SECONDS", 10.0, _seconds(least=0.001),
           "until a connection stands"),
    Option("attempt_timeout_seconds", "HEADGATE_ATTEMPT_TIMEOUT_SECONDS", 300.0, _seconds(least=0.001),
           "until a whole answer is in"),
    Option("stream_idle_seconds", "HEADGATE_STREAM_IDLE_SECONDS", 120.0, _seconds(least=0.001),
           "longest silence in a stream"),
)  # fmt: skip
"""Every setting of `[gemini]` in `headgate.toml` but `keys_file`, which names the file of keys."""


def resolve(
    arguments: Mapping[str, object], environ: Mapping[str, str], table: Mapping[str, object], file: str
) -> tuple[Resolved, ...]:
    """Each option's value and origin. Raises `ConfigurationError`: option, value, what is allowed."""
    found = []
    for option in OPTIONS:
        if arguments.get(option.name) is not None:
            raw, origin = arguments[option.name], f"argument {option.name}"
        elif environ.get(option.variable, "").strip():
            raw, origin = environ[option.variable], option.variable
        elif option.name in table:
            raw, origin = table[option.name], f"{file} [gemini] {option.name}"
        else:
            raw, origin = option.default, "default"
        try:
            value = option.parse(raw)
        except ValueError as error:
            shown = redact(str(raw), limit=80)
            if "@" in shown:  # a URL with a password in it
                shown = f"…@{shown.rpartition('@')[2]}"
            raise ConfigurationError(f"{origin} is {shown!r}; it takes {error}.") from None
        found.append(Resolved(option, value, origin))
    return tuple(found)


def load_gemini(
    arguments: Mapping[str, object] | None = None,
    *,
    keys: tuple[Key, ...] | None = None,
    environ: Mapping[str, str] | None = None,
) -> GeminiSettings:
    """The settings of a Gemini client.

    Args:
        arguments: explicit values by option name; None means not given.
        keys: explicit keys, instead of those of the environment.
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
    return GeminiSettings(keys, origin, **values, resolved=resolved)  # type: ignore[arg-type] # parsed above


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
    _refuse_unknown(table, {option.name for option in OPTIONS} | {"keys_file"}, f"{path} [gemini]")
    if not isinstance(table.get("keys_file", ""), str):
        raise ConfigurationError(f"{path} [gemini] keys_file takes the path of a file.")
    return table, str(path)


def _refuse_unknown(table: Mapping[str, object], known: set[str], where: str) -> None:
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}."
            raise ConfigurationError(f"{where}: there is no setting {name!r}; {hint}")
