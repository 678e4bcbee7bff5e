"""What the content service is set to: the accepted variables of S4, and a few of ours.

Settings follow `wiring/settings.py`: an argument, a variable that is set, the table `[content]` of
`headgate.toml`, the default. Keys of the provider, its URL and time-outs are those of `[gemini]`; those
of callers those of the gateway; the cache, its store and sessions are in `cache_settings.py`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files

from headgate.content.cache_settings import CACHE_OPTIONS, CacheSettings, load_cache_settings
from headgate.core.call import Key
from headgate.core.errors import ConfigurationError
from headgate.policy.quota.table import Quota
from headgate.stores.urls import StoreUrl
from headgate.wiring.content import ContentNeeds
from headgate.wiring.file import read_table
from headgate.wiring.gateway_settings import SHORTEST_CALLER_KEY, caller_keys
from headgate.wiring.keys import secret_from_file
from headgate.wiring.options import (
    Option,
    Resolved,
    boolean,
    model_name,
    optional,
    resolve_one,
    seconds,
    share,
    whole_number,
)
from headgate.wiring.settings import process_environment
from headgate.wiring.stores import IN_MEMORY, check_store

__all__ = ["CONTENT_OPTIONS", "ContentSettings", "load_content", "with_packages"]

_ADMIN_KEY, _ADMIN_KEY_FILE = "HEADGATE_ADMIN_KEY", "HEADGATE_ADMIN_KEY_FILE"
_STORE_NAMES = ("HEADGATE_STORE", "REDIS_HOST", "REDIS_PASSWORD", "REDIS_PASSWORD_FILE")


@dataclass(frozen=True, slots=True)
class ContentSettings:
    """What a content service is built from. Times in seconds; `CONTENT_OPTIONS` says what each is.

    Attributes:
        callers: their keys and names. Without any, everybody on this machine may call.
        admin_key: of operators; without one their routes answer this machine alone.
        cache: what is kept where and for how long.
        store: where quota ledgers live.
        store_named: whether somebody said where. A default that nobody runs is no fault.
    """

    callers: tuple[Key, ...] = ()
    admin_key: str | None = field(repr=False, default=None)
    cache: CacheSettings = field(default_factory=CacheSettings)
    store: StoreUrl = field(default_factory=lambda: StoreUrl.read("memory"))
    store_named: bool = False
    quota_rpm: int = 15
    quota_rpd: int = 1500
    quota_tpm: int = 1_000_000
    quota_tpd: int = 50_000_000
    quota_safety_margin: float = 0.8
    quota_enable_fallback: bool = True
    quota_fallback_cache_ttl: float = 3600.0
    quota_max_queue_size: int = 100
    quota_queue_timeout: float = 30.0
    rate_limit_enabled: bool = False
    rate_limit_user_per_minute: int = 10
    rate_limit_user_per_hour: int = 100
    rate_limit_user_per_day: int = 500
    rate_limit_ip_per_minute: int = 20
    rate_limit_ip_per_hour: int = 200
    rate_limit_global_per_minute: int = 100
    rate_limit_global_per_hour: int = 1000
    redis_critical: bool = False
    model: str = ""
    image_model: str = ""
    open_routes: bool = False
    quota_tracking: bool = True
    caching: bool = True
    metrics: bool = True
    page: bool = True
    drain_seconds: float = 30.0
    linger_seconds: float = 5.0
    resolved: tuple[Resolved, ...] = field(repr=False, default=())

    def __post_init__(self) -> None:
        for name in ("model", "image_model"):
            if not getattr(self, name):
                object.__setattr__(self, name, _shipped()[name])

    @property
    def needs(self) -> ContentNeeds:
        """What its engine is built from."""
        quota = Quota(rpm=self.quota_rpm, tpm=self.quota_tpm, rpd=self.quota_rpd, tpd=self.quota_tpd)
        return ContentNeeds(
            quota=quota if self.quota_tracking else Quota(),
            margin=self.quota_safety_margin,
            store=self.store,
            store_named=self.store_named,
        )


@cache
def _shipped() -> Mapping[str, str]:
    text = files("headgate.wiring").joinpath("data", "content.toml").read_text(encoding="utf-8")
    content: Mapping[str, str] = tomllib.loads(text)
    return content


CONTENT_OPTIONS: tuple[Option, ...] = (
    Option("quota_rpm", "QUOTA_RPM", 15, whole_number(1), "requests a minute of each project"),
    Option("quota_rpd", "QUOTA_RPD", 1500, whole_number(1), "requests a day of each project"),
    Option("quota_tpm", "QUOTA_TPM", 1_000_000, whole_number(1), "tokens a minute of each project"),
    Option("quota_tpd", "QUOTA_TPD", 50_000_000, whole_number(1), "tokens a day of each project"),
    Option("quota_safety_margin", "QUOTA_SAFETY_MARGIN", 0.8, share,
           "share of each quota that is used"),
    Option("quota_enable_fallback", "QUOTA_ENABLE_FALLBACK", True, boolean,
           "whether an earlier result is given where the quota is used up"),
    Option("quota_fallback_cache_ttl", "QUOTA_FALLBACK_CACHE_TTL", 3600.0, seconds(least=1),
           "how long a result may stand in, after it is no longer kept as one"),
    Option("quota_max_queue_size", "QUOTA_MAX_QUEUE_SIZE", 100, whole_number(1),
           "pieces of work that may wait for quota"),
    Option("quota_queue_timeout", "QUOTA_QUEUE_TIMEOUT", 30.0, seconds(least=0.001),
           "how long one may wait"),
    Option("rate_limit_enabled", "RATE_LIMIT_ENABLED", False, boolean,
           "whether callers are limited before the quota is"),
    Option("rate_limit_user_per_minute", "RATE_LIMIT_USER_PER_MINUTE", 10, whole_number(1),
           "requests of a caller a minute"),
    Option("rate_limit_user_per_hour", "RATE_LIMIT_USER_PER_HOUR", 100, whole_number(1),
           "requests of a caller an hour"),
    Option("rate_limit_user_per_day", "RATE_LIMIT_USER_PER_DAY", 500, whole_number(1),
           "requests of a caller a day"),
    Option("rate_limit_ip_per_minute", "RATE_LIMIT_IP_PER_MINUTE", 20, whole_number(1),
           "requests of an address a minute"),
    Option("rate_limit_ip_per_hour", "RATE_LIMIT_IP_PER_HOUR", 200, whole_number(1),
           "requests of an address an hour"),
    Option("rate_limit_global_per_minute", "RATE_LIMIT_GLOBAL_PER_MINUTE", 100, whole_number(1),
           "requests of all a minute"),
    Option("rate_limit_global_per_hour", "RATE_LIMIT_GLOBAL_PER_HOUR", 1000, whole_number(1),
           "requests of all an hour"),
    Option("redis_critical", "HEADGATE_CONTENT_REDIS_CRITICAL", False, boolean,
           "whether the service is not ready without its shared store"),
    Option("model", "HEADGATE_CONTENT_MODEL", None, optional(model_name),
           "model for texts and for reading images; unset: a shipped one"),
    Option("image_model", "HEADGATE_CONTENT_IMAGE_MODEL", None, optional(model_name),
           "model that makes images; unset: a shipped one"),
    Option("open_routes", "HEADGATE_CONTENT_OPEN", False, boolean,
           "whether everybody may call, also from elsewhere, without caller keys"),
    Option("quota_tracking", "HEADGATE_CONTENT_QUOTA", True, boolean,
           "whether calls are held to the quotas above"),
    Option("caching", "HEADGATE_CONTENT_CACHE", True, boolean, "whether results are kept"),
    Option("metrics", "HEADGATE_CONTENT_METRICS", True, boolean, "whether `/metrics` is served"),
    Option("page", "HEADGATE_CONTENT_PAGE", True, boolean, "whether the page is served"),
    Option("drain_seconds", "HEADGATE_CONTENT_DRAIN_SECONDS", 30.0, seconds(least=0),
           "how long calls may go on after SIGTERM"),
    Option("linger_seconds", "HEADGATE_CONTENT_LINGER_SECONDS", 5.0, seconds(least=0),
           "how long new ones are still taken then"),
)  # fmt: skip
"""Every setting of the content service but keys, and what `cache_settings.py` holds."""


def load_content(
    arguments: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> ContentSettings:
    """The settings of a content service. Raises `ConfigurationError`, `KeyFormatError`.

    Args:
        arguments: explicit values by option name; None means not given.
        environ: instead of the process environment.
    """
    environ = process_environment(environ)
    known = [option.name for option in (*CONTENT_OPTIONS, *CACHE_OPTIONS)]
    table, file = read_table(environ, "content", known)
    where = f"{file} [content]"
    given = arguments or {}
    resolved = tuple(resolve_one(option, given, environ, table, where) for option in CONTENT_OPTIONS)
    values = {item.option.name: item.value for item in resolved}
    values |= {name: values[name] or "" for name in ("model", "image_model")}
    cache_settings = load_cache_settings(environ, table, where)
    in_file = "redis_host" in table or "store" in table
    named = in_file or any(environ.get(name, "").strip() for name in _STORE_NAMES)
    return ContentSettings(
        caller_keys(environ), _admin_key(environ), cache_settings, cache_settings.store, named,
        **values, resolved=resolved,  # type: ignore[arg-type] # parsed above
    )  # fmt: skip


def with_packages(settings: ContentSettings) -> ContentSettings:
    """The same without a store that nobody named, where the package for it is missing. Raises
    `ConfigurationError` where somebody named it."""
    try:
        check_store(settings.store)
    except ConfigurationError:
        if settings.store_named:
            raise
        return replace(settings, store=IN_MEMORY, cache=replace(settings.cache, store=IN_MEMORY))
    return settings


def _admin_key(environ: Mapping[str, str]) -> str | None:
    key = environ.get(_ADMIN_KEY, "").strip()
    if not key and (path := environ.get(_ADMIN_KEY_FILE, "").strip()):
        key = secret_from_file(path, _ADMIN_KEY_FILE, environ).strip()
    if key and len(key) < SHORTEST_CALLER_KEY:
        raise ConfigurationError(
            f"{_ADMIN_KEY} is shorter than {SHORTEST_CALLER_KEY} characters. Make one with "
            "`openssl rand -hex 24`."
        )
    return key or None
