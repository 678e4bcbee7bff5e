"""Options: what one setting is, how its value is parsed, and where it came from.

Parsers take text or a TOML value and raise `ValueError` with the allowed values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from headgate.core.errors import ConfigurationError
from headgate.policy.redaction import redact
from headgate.wiring.addresses import may_serve

__all__ = [
    "Option",
    "Resolved",
    "api_url",
    "base_url",
    "boolean",
    "model_name",
    "optional",
    "resolve_one",
    "seconds",
    "share",
    "web_address",
    "whole_number",
]


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: its name in `headgate.toml` and as an argument, its variable, its default.

    `parse` takes text or a TOML value and raises `ValueError` with the allowed values. `general` is a
    variable that speaks for every provider: it counts where this one says nothing of its own. What a
    `secret` one holds may be a credential: messages do not repeat it.
    """

    name: str
    variable: str
    default: object
    parse: Callable[[object], object]
    meaning: str
    general: str = ""
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Resolved:
    """The value of an option and where it came from."""

    option: Option
    value: object
    origin: str


_TRUE = {"true", "1", "yes", "on"}
_FALSE = {"false", "0", "no", "off"}


def boolean(value: object) -> bool:
    """Yes or no, in the words people use for it."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError("true, false, 1, 0, yes, no, on or off")


def whole_number(least: int) -> Callable[[object], int]:
    """A parser of whole numbers from `least` on."""

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


def seconds(*, least: float) -> Callable[[object], float]:
    """A parser of finite seconds from `least` on."""

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


def share(value: object) -> float:
    """A part of a whole: above 0 and up to 1."""
    try:
        number = float(str(value).strip())
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not 0 < number <= 1:
        raise ValueError("a share above 0 and up to 1")
    return number


def model_name(value: object) -> str:
    """The name of a model."""
    text = str(value).strip()
    if not isinstance(value, str) or not text or not text.isascii() or any(c in text for c in " ?#"):
        raise ValueError("the name of a model, such as gemini-3.8-flash")
    return text


def web_address(value: object) -> str:
    """Scheme and host, without a path."""
    text = str(value).strip().rstrip("/")
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, good = urlsplit(""), False
    if not good or "@" in parts.netloc or parts.path or parts.query or parts.fragment:
        raise ValueError("scheme and host without a path, such as https://gate.example")
    return text


def base_url(value: object) -> str:
    """Scheme and host, without a path, where keys may be sent."""
    try:
        text = web_address(value)
        parts = urlsplit(text)
        good = may_serve(parts.hostname or "", encrypted=parts.scheme == "https")
    except ValueError:
        text, good = "", False
    if not good:
        raise ValueError(
            "scheme and host without a path, such as https://proxy.example or http://127.0.0.1:8765; "
            "http:// only to this machine and private networks, where nobody else can read the keys"
        )
    return text


def api_url(value: object) -> str:
    """Scheme, host and the path that an API's own paths follow; where there is none, `/v1`."""
    text, path, host = str(value).strip().rstrip("/"), "", ""
    try:
        path = urlsplit(text).path
        host = base_url(text.removesuffix(path))
    except ValueError:
        host = ""
    if not host or not re.fullmatch(r"(?:/[\w.~@:-]+)*", path):
        raise ValueError(
            "scheme, host and path of an API, such as https://api.openai.com/v1 or "
            "http://127.0.0.1:8765/v1"
        )
    return f"{host}{path or '/v1'}"


def optional(parse: Callable[[object], object]) -> Callable[[object], object]:
    """A parser that lets None stand."""
    return lambda value: None if value is None else parse(value)


def resolve_one(
    option: Option,
    arguments: Mapping[str, object],
    environ: Mapping[str, str],
    table: Mapping[str, object],
    where: str,
) -> Resolved:
    """The value of an option: argument, variable, file, default. Raises `ConfigurationError`.

    `where` names the table in messages: `headgate.toml [gemini]`.
    """
    if arguments.get(option.name) is not None:
        raw, origin = arguments[option.name], f"argument {option.name}"
    elif environ.get(option.variable, "").strip():
        raw, origin = environ[option.variable], option.variable
    elif option.name in table:
        raw, origin = table[option.name], f"{where} {option.name}"
    elif option.general and environ.get(option.general, "").strip():
        raw, origin = environ[option.general], option.general
    else:
        raw, origin = option.default, "default"
    try:
        return Resolved(option, option.parse(raw), origin)
    except ValueError as error:
        if option.secret:
            raise ConfigurationError(f"{origin} is not right; it takes {error}.") from None
        shown = redact(str(raw), limit=80)
        if "@" in shown:  # a URL with a password in it
            shown = f"…@{shown.rpartition('@')[2]}"
        raise ConfigurationError(f"{origin} is {shown!r}; it takes {error}.") from None
