"""Every setting of the Codegen client: its name, variable and default, and where a value came from.

    explicit argument > variable that is set > headgate.toml [codegen] > preset > default

Token and secret may stand in files that CODEGEN_API_TOKEN_FILE and CODEGEN_WEBHOOK_SECRET_FILE name.
The defaults are those accepted as S5-14, S5-15 and §6.4; presets are data in codegen-limits.toml.
"""

from __future__ import annotations

import logging
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from urllib.parse import urlsplit

import msgspec

from headgate.core.errors import ConfigurationError
from headgate.policy.redaction import redact
from headgate.wiring.file import read_table
from headgate.wiring.keys import secret_from_file
from headgate.wiring.options import Option, Resolved, boolean, seconds, whole_number

__all__ = [
    "CODEGEN_OPTIONS",
    "SECRETS",
    "CodegenData",
    "codegen_data",
    "parsed",
    "preset_for",
    "resolve_codegen",
]

SECRETS = frozenset({"api_token", "webhook_secret"})
"""Options whose value is never shown, and which may stand in a file named by `<variable>_FILE`."""

_HEADER_VARIABLE = "CODEGEN_HEADER_"
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class CodegenData(msgspec.Struct, frozen=True):
    """The dated data that ships with the package."""

    date: str
    limits: Mapping[str, tuple[int, float]]
    shelves: Mapping[str, float]
    adaptive: Mapping[str, int]
    presets: Mapping[str, Mapping[str, object]]


@cache
def codegen_data() -> CodegenData:
    """Limits, lifetimes and presets."""
    text = files("headgate.wiring").joinpath("data", "codegen-limits.toml").read_text(encoding="utf-8")
    raw = tomllib.loads(text)
    return msgspec.convert({**raw, "date": str(raw["date"])}, CodegenData)


def _text(value: object) -> str:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError("a text")  # noqa: TRY004 - as every parser of options
    return str(value).strip()


def _api_url(value: object) -> str:
    text = str(value).strip().rstrip("/")
    parts = urlsplit(text)
    try:
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        port_is_good = False
    web = parts.scheme in ("http", "https") and bool(parts.hostname)
    if not (web and port_is_good) or parts.username or parts.query or parts.fragment:
        raise ValueError("an http or https address, such as https://api.codegen.com/v1")
    return text


def _number(
    least: float, most: float = float("inf"), *, above: bool = False
) -> Callable[[object], float]:
    parse_seconds = seconds(least=least)
    bounds = f"more than {least:g}" if above else f"{least:g} or more"
    allowed = f"a number, {bounds}" if most == float("inf") else f"a number from {least:g} to {most:g}"

    def parse(value: object) -> float:
        try:
            number = parse_seconds(value)
        except ValueError:
            raise ValueError(allowed) from None
        if number > most or (above and number <= least):
            raise ValueError(allowed)
        return number

    return parse


def _level(value: object) -> str:
    name = logging.getLevelName(value) if type(value) is int else str(value).strip().upper()
    if name not in _LEVELS:
        raise ValueError(", ".join(_LEVELS))
    return str(name)


def _headers(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError("a mapping of header names to texts")  # noqa: TRY004 - likewise
    headers = {str(name).strip().lower(): str(text) for name, text in value.items()}
    for name, text in headers.items():
        if not re.fullmatch(r"[a-z0-9!#$%&'*+.^_`|~-]+", name) or not text.isprintable():
            raise ValueError("header names and values as HTTP has them")
    return headers


_positive = _number(0, above=True)

CODEGEN_OPTIONS: tuple[Option, ...] = (
    Option("api_token", "CODEGEN_API_TOKEN", "", _text,
           "the API token; checked when the first request is made"),
    Option("org_id", "CODEGEN_ORG_ID", "", _text,
           "the organisation of calls that name none"),
    Option("base_url", "CODEGEN_BASE_URL", "https://api.codegen.com/v1", _api_url,
           "where calls go; CODEGEN_API_BASE_URL is read where it is unset"),
    Option("timeout", "CODEGEN_TIMEOUT", 30.0, _positive,
           "seconds for each attempt"),
    Option("max_retries", "CODEGEN_MAX_RETRIES", 3, whole_number(0),
           "extra tries of a call"),
    Option("retry_delay", "CODEGEN_RETRY_DELAY", 1.0, _positive,
           "seconds, the longest first delay before a retry"),
    Option("retry_backoff_factor", "CODEGEN_RETRY_BACKOFF_FACTOR", 2.0, _number(1),
           "what each further delay is multiplied by"),
    Option("retry_jitter", "CODEGEN_RETRY_JITTER", True, boolean,
           "spread delays over the whole interval"),
    Option("agent_run_timeout", "CODEGEN_AGENT_RUN_TIMEOUT", 1800.0, _positive,
           "seconds to wait for a run"),
    Option("rate_limit_requests_per_period", "CODEGEN_RATE_LIMIT_REQUESTS", 60, whole_number(1),
           "requests of the standard class in a period"),
    Option("rate_limit_period_seconds", "CODEGEN_RATE_LIMIT_PERIOD", 60.0, _positive,
           "the period, in seconds"),
    Option("rate_limit_buffer", "CODEGEN_RATE_LIMIT_BUFFER", 0.0, _number(0, 1),
           "share of every limit that is left free"),
    Option("enable_caching", "CODEGEN_ENABLE_CACHING", True, boolean,
           "keep answers for a time"),
    Option("cache_ttl_seconds", "CODEGEN_CACHE_TTL", 300.0, _number(0),
           "seconds an answer is kept; set explicitly it holds for all, else users 600, "
           "organisations 1800, runs 60"),
    Option("cache_max_size", "CODEGEN_CACHE_MAX_SIZE", 128, whole_number(1),
           "answers kept at the most"),
    Option("enable_webhooks", "CODEGEN_ENABLE_WEBHOOKS", True, boolean,
           "allow receiving webhooks"),
    Option("enable_bulk_operations", "CODEGEN_ENABLE_BULK_OPERATIONS", True, boolean,
           "allow bulk operations"),
    Option("enable_streaming", "CODEGEN_ENABLE_STREAMING", True, boolean,
           "allow streaming pagination"),
    Option("enable_metrics", "CODEGEN_ENABLE_METRICS", True, boolean,
           "count and time requests"),
    Option("bulk_max_workers", "CODEGEN_BULK_MAX_WORKERS", 5, whole_number(1),
           "items of a bulk operation under way at once"),
    Option("bulk_batch_size", "CODEGEN_BULK_BATCH_SIZE", 100, whole_number(1),
           "items taken in at once"),
    Option("webhook_secret", "CODEGEN_WEBHOOK_SECRET", "", _text,
           "what webhooks are signed with"),
    Option("webhook_timeout", "CODEGEN_WEBHOOK_TIMEOUT", 30.0, _positive,
           "seconds a webhook handler may take"),
    Option("log_level", "CODEGEN_LOG_LEVEL", "INFO", _level,
           "the least severe message that is logged"),
    Option("log_requests", "CODEGEN_LOG_REQUESTS", True, boolean,
           "log each request"),
    Option("log_responses", "CODEGEN_LOG_RESPONSES", False, boolean,
           "log each answer"),
    Option("log_sensitive_data", "CODEGEN_LOG_SENSITIVE_DATA", False, boolean,
           "log bodies too; keys stay masked"),
    Option("debug_mode", "CODEGEN_DEBUG_MODE", False, boolean,
           "log attempts and waits whatever log_level says"),
    Option("mock_responses", "CODEGEN_MOCK_RESPONSES", False, boolean,
           "answer from the emulator, without a network"),
    Option("custom_headers", "CODEGEN_HEADER_*", {}, _headers,
           "headers sent with each request"),
)  # fmt: skip
"""`CODEGEN_HEADER_X_TEAM=blue` sends `x-team: blue`."""

_BY_NAME = {option.name: option for option in CODEGEN_OPTIONS}


def preset_for(environ: Mapping[str, str] | None = None) -> str | None:
    """The preset that `ENVIRONMENT` names; None where it is unset. Raises `ConfigurationError`."""
    environ = os.environ if environ is None else environ  # noqa: TID251 - settings are read here
    name = environ.get("ENVIRONMENT", "").strip().lower()
    if name and name not in codegen_data().presets:
        known = ", ".join(sorted(codegen_data().presets))
        raise ConfigurationError(f"ENVIRONMENT is {redact(name, limit=40)!r}; it takes {known}.")
    return name or None


def resolve_codegen(
    arguments: Mapping[str, object],
    preset: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Resolved]:
    """Each option's value and origin.

    Raises:
        ConfigurationError: an option is unknown or wrong; the value of a secret is never shown.
    """
    environ = os.environ if environ is None else environ  # noqa: TID251 - settings are read here
    for name in arguments:
        if name not in _BY_NAME:
            known = ", ".join(_BY_NAME)
            raise ConfigurationError(
                f"There is no setting {name!r} of the Codegen client; known: {known}."
            )
    table, file = _table(environ)
    values = codegen_data().presets[preset] if preset else {}
    return {
        option.name: _resolved(option, arguments, environ, (table, file), (values, preset or ""))
        for option in CODEGEN_OPTIONS
    }


def _resolved(
    option: Option,
    arguments: Mapping[str, object],
    environ: Mapping[str, str],
    table: tuple[Mapping[str, object], str],
    preset: tuple[Mapping[str, object], str],
) -> Resolved:
    raw: object
    if arguments.get(option.name) is not None:
        raw, origin = arguments[option.name], f"argument {option.name}"
    elif found := _variable(option, environ):
        raw, origin = found
    elif option.name in table[0]:
        raw, origin = table[0][option.name], f"{table[1]} [codegen] {option.name}"
    elif option.name in preset[0]:
        raw, origin = preset[0][option.name], f"preset {preset[1]}"
    else:
        raw, origin = option.default, "default"
    return Resolved(option, parsed(option.name, origin, raw), origin)


def parsed(name: str, origin: str, raw: object) -> object:
    """The parsed value of an option. Raises `ConfigurationError`: origin, value, what is allowed."""
    option = _BY_NAME[name]
    try:
        return option.parse(raw)
    except ValueError as error:
        value = "a secret" if name in SECRETS else repr(redact(str(raw), limit=80))
        if "@" in value:  # an address with a password in it
            value = f"'…@{value.rpartition('@')[2]}"
        raise ConfigurationError(f"{origin} is {value}; it takes {error}.") from None


def _variable(option: Option, environ: Mapping[str, str]) -> tuple[object, str] | None:
    if option.name == "custom_headers":
        headers = {
            name.removeprefix(_HEADER_VARIABLE).replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith(_HEADER_VARIABLE) and name != _HEADER_VARIABLE
        }
        return (headers, option.variable) if headers else None
    variables = [option.variable]
    if option.name == "base_url":
        variables.append("CODEGEN_API_BASE_URL")
    for variable in variables:
        if text := environ.get(variable, "").strip():
            return text, variable
    if option.name in SECRETS and (path := environ.get(f"{option.variable}_FILE", "").strip()):
        source = f"{option.variable}_FILE"
        return secret_from_file(path, source, environ).strip(), source
    return None


def _table(environ: Mapping[str, str]) -> tuple[Mapping[str, object], str]:
    known = [name for name in _BY_NAME if name not in SECRETS]
    table, file = read_table(environ, "codegen", known)
    for name in ("keys_file", "quota"):  # other doors have them
        if name in table:
            raise ConfigurationError(
                f"{file} [codegen]: there is no setting {name!r}; known are {', '.join(known)}."
            )
    return table, file
