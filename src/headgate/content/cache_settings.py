"""What the layered cache, the shared store under it and visitors' sessions are set to.

The accepted variables name a Redis by its parts; they are read as the one store setting of the house.
`HEADGATE_STORE` says the same as a URL, and wins where it is set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import quote

from headgate.core.errors import ConfigurationError
from headgate.stores.urls import MEMORY, StoreUrl
from headgate.wiring.keys import secret_from_file
from headgate.wiring.options import Option, Resolved, boolean, optional, resolve_one, whole_number
from headgate.wiring.settings import process_environment
from headgate.wiring.stores import IN_MEMORY
from headgate.wiring.values import ValueBounds

__all__ = ["CACHE_OPTIONS", "CacheSettings", "load_cache_settings"]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
"""A name of a cookie: a token of RFC 9110, section 5.6.2."""

_FILE_VARIABLE = "REDIS_PASSWORD_FILE"

_BYTES_A_VALUE = 64_000
"""Bytes of memory for each value that may be kept there: several times as long as an explanation is."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Lifetimes in seconds.

    Attributes:
        store: that instances share; memory where there is none.
        redis_ttl: of a value in it, where whoever keeps the value says nothing else.
        memory_ttl: after which a copy leaves the memory of a process.
        memory_entries: values in that memory at most.
        browser_ttl, cdn_ttl: what `Cache-Control` allows browsers and caches that many share.
        cdn: whether replies also speak to a CDN in a header of its own (RFC 9213).
        precaching: values that are asked for often are made anew before their time is up.
        popular_threshold: how often that is, in the life of a value.
        session_ttl: of a visitor's session, from its last use.
        session_cookie: its name.
    """

    store: StoreUrl = IN_MEMORY
    redis_ttl: int = 7200
    memory_ttl: int = 3600
    memory_entries: int = 1000
    browser_ttl: int = 300
    cdn_ttl: int = 900
    cdn: bool = False
    precaching: bool = False
    popular_threshold: int = 10
    session_ttl: int = 86_400
    session_cookie: str = "session_id"
    resolved: tuple[Resolved, ...] = field(repr=False, default=())

    @property
    def bounds(self) -> ValueBounds:
        """Of the values that are kept."""
        return ValueBounds(
            entries=self.memory_entries,
            bytes=self.memory_entries * _BYTES_A_VALUE,
            memory_seconds=float(self.memory_ttl),
        )


def _text(value: object) -> str:
    return str(value)


def _host(value: object) -> str:
    text = str(value).strip()
    if not text or any(sign in text for sign in "/@?# ") or text.count(":") == 1:
        raise ValueError("a host, such as localhost or 10.0.0.7; its port goes into REDIS_PORT")
    return text


def _port(value: object) -> int:
    number = whole_number(1)(value)
    if number > 65_535:
        raise ValueError("a port, 1 to 65535")
    return number


def _cookie_name(value: object) -> str:
    text = str(value).strip()
    if not _TOKEN.fullmatch(text):
        raise ValueError("a name of a cookie: up to 64 letters, digits, - or _")
    return text


_REDIS: tuple[Option, ...] = (
    Option("redis_enabled", "REDIS_ENABLED", True, boolean,
           "whether instances share a Redis or Valkey"),
    Option("redis_host", "REDIS_HOST", "localhost", _host, "where it is"),
    Option("redis_port", "REDIS_PORT", 6379, _port, "its port"),
    Option("redis_db", "REDIS_DB", 0, whole_number(0), "number of its database"),
    Option("redis_password", "REDIS_PASSWORD", None, optional(_text), "its password", secret=True),
    Option("store", "HEADGATE_STORE", None, optional(StoreUrl.read),
           "the same as a URL; it wins", secret=True),
)  # fmt: skip

_REST: tuple[Option, ...] = (
    Option("redis_ttl", "CACHE_REDIS_TTL", 7200, whole_number(1), "seconds a value is kept in it"),
    Option("memory_ttl", "CACHE_MEMORY_TTL", 3600, whole_number(1),
           "seconds after which a copy leaves the memory of a process"),
    Option("memory_entries", "CACHE_MEMORY_MAX_SIZE", 1000, whole_number(0),
           "values in that memory; 0: none"),
    Option("browser_ttl", "CACHE_BROWSER_TTL", 300, whole_number(0),
           "seconds a browser may keep a result"),
    Option("cdn_ttl", "CACHE_CDN_TTL", 900, whole_number(0),
           "seconds a cache that many share may keep it"),
    Option("cdn", "CACHE_CDN_ENABLED", False, boolean,
           "whether a CDN is told in a header of its own as well"),
    Option("precaching", "CACHE_PRECACHING", False, boolean,
           "make values that are asked for often anew before their time is up"),
    Option("popular_threshold", "CACHE_POPULAR_THRESHOLD", 10, whole_number(1),
           "how often that is, in the life of a value"),
    Option("session_ttl", "SESSION_TTL", 86_400, whole_number(1),
           "seconds a session lasts after its last use"),
    Option("session_cookie", "SESSION_COOKIE_NAME", "session_id", _cookie_name,
           "name of its cookie"),
)  # fmt: skip

CACHE_OPTIONS: tuple[Option, ...] = (*_REDIS, *_REST)
"""Every setting here, with its accepted variable and default."""


def load_cache_settings(
    environ: Mapping[str, str] | None = None,
    table: Mapping[str, object] | None = None,
    where: str = "headgate.toml [content]",
) -> CacheSettings:
    """The settings. Raises `ConfigurationError`: which one, and what is allowed.

    Args:
        environ: instead of the process environment.
        table: of `headgate.toml`, if it was read.
        where: that table is, for errors.
    """
    environ, table = process_environment(environ), table or {}
    resolved = tuple(resolve_one(option, {}, environ, table, where) for option in CACHE_OPTIONS)
    values = {item.option.name: item.value for item in resolved}
    if values["redis_password"] is None and (path := environ.get(_FILE_VARIABLE, "").strip()):
        values["redis_password"] = secret_from_file(path, _FILE_VARIABLE, environ).strip() or None
    rest = {option.name: values[option.name] for option in _REST}
    return CacheSettings(_store(values), **rest, resolved=resolved)  # type: ignore[arg-type] # parsed above


def _store(values: Mapping[str, object]) -> StoreUrl:
    if values["store"] is not None:
        return cast("StoreUrl", values["store"])
    if not values["redis_enabled"]:
        return StoreUrl.read(MEMORY)
    host, password = str(values["redis_host"]), values["redis_password"]
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    secret = f":{quote(str(password), safe='')}@" if password else ""
    read: Callable[[object], StoreUrl] = StoreUrl.read
    try:
        return read(f"redis://{secret}{shown}:{values['redis_port']}/{values['redis_db']}")
    except ValueError as error:
        raise ConfigurationError(f"REDIS_HOST and REDIS_PORT take {error}.") from None
