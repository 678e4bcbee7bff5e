"""What the gateway itself is set to; what each provider is set to is said where its client's is.

    HEADGATE_CALLER_KEYS = entry ("," entry)*        entry = key ["|" name]

Settings follow `wiring/settings.py`: a variable that is set, the table `[gateway]` of `headgate.toml`,
the default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from headgate.core.call import Key
from headgate.core.errors import ConfigurationError, KeyFormatError
from headgate.wiring.file import read_table
from headgate.wiring.gateway_transport import Sending, sending
from headgate.wiring.keys import parse_keys, secret_from_file
from headgate.wiring.options import (
    Option,
    Resolved,
    base_url,
    optional,
    resolve_one,
    seconds,
    whole_number,
)

__all__ = ["GATEWAY_OPTIONS", "SHORTEST_CALLER_KEY", "GatewaySettings", "load_gateway"]

SHORTEST_CALLER_KEY = 16
"""Characters. A key of random letters and digits has 95 bits then; a shorter one can be tried out."""

_CALLER_KEYS, _CALLER_KEYS_FILE = "HEADGATE_CALLER_KEYS", "HEADGATE_CALLER_KEYS_FILE"
_VERSIONS = ("as_asked", "v1", "v1beta", "v1alpha")


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What a gateway is built from.

    Attributes:
        callers: their keys and names; shown without values. Without any, everybody may call, and the
            gateway listens on loopback only.
        max_body_mib: the largest body of a request, in MiB.
        max_calls: at a time; more are refused at once.
        linger_seconds: how long after SIGTERM new calls are still taken, while load balancers notice.
        drain_seconds: how long after that calls may go on before they are cut.
        gemini_version: of Google's API that calls are sent to, or `as_asked`.
        cache_seconds: how long an answer is kept and given again to the same caller; 0: not at all.
        cache_mib: of answers that this process keeps, in MiB.
        public_url: scheme and host by which clients reach the gateway, where that is not how it sees
            itself: behind a proxy that ends TLS. Uploads of files go on there.
        transport: what calls are sent over.
        usage_retention_days: how long rows of the usage ledger are kept.
    """

    callers: tuple[Key, ...] = ()
    max_body_mib: int = 20
    max_calls: int = 4096
    linger_seconds: float = 5.0
    drain_seconds: float = 60.0
    gemini_version: str = "as_asked"
    public_url: str | None = None
    cache_seconds: float = 0.0
    cache_mib: int = 64
    transport: Sending = Sending.AUTO
    usage_retention_days: int = 90
    resolved: tuple[Resolved, ...] = field(repr=False, default=())


def _gemini_version(value: object) -> str:
    text = str(value).strip().lower()
    if text not in _VERSIONS:
        raise ValueError(", ".join(_VERSIONS))
    return text


GATEWAY_OPTIONS: tuple[Option, ...] = (
    Option("max_body_mib", "HEADGATE_GATEWAY_MAX_BODY_MIB", 20, whole_number(1),
           "largest body of a request, in MiB"),
    Option("max_calls", "HEADGATE_GATEWAY_MAX_CALLS", 4096, whole_number(1),
           "calls at a time; more are refused at once"),
    Option("linger_seconds", "HEADGATE_GATEWAY_LINGER_SECONDS", 5.0, seconds(least=0),
           "how long after SIGTERM new calls are still taken"),
    Option("drain_seconds", "HEADGATE_GATEWAY_DRAIN_SECONDS", 60.0, seconds(least=0),
           "how long after that calls may go on before they are cut"),
    Option("gemini_version", "HEADGATE_GATEWAY_GEMINI_VERSION", "as_asked", _gemini_version,
           "version of Google's API that calls are sent to"),
    Option("cache_seconds", "HEADGATE_GATEWAY_CACHE_SECONDS", 0.0, seconds(least=0),
           "how long an answer is given again to the same caller; 0: never"),
    Option("cache_mib", "HEADGATE_GATEWAY_CACHE_MIB", 64, whole_number(1),
           "of answers that a process keeps, in MiB"),
    Option("public_url", "HEADGATE_GATEWAY_PUBLIC_URL", None, optional(base_url),
           "scheme and host by which clients reach it; unset: as they say"),
    Option("transport", "HEADGATE_TRANSPORT", Sending.AUTO, sending,
           "what calls are sent over; auto: lean where there is no proxy"),
    Option("usage_retention_days", "HEADGATE_GATEWAY_USAGE_RETENTION_DAYS", 90, whole_number(1),
           "how long rows of the usage ledger are kept"),
)  # fmt: skip
"""Every setting of the gateway but the keys of its callers."""


def load_gateway(environ: Mapping[str, str] | None = None) -> GatewaySettings:
    """The gateway's settings. Raises `ConfigurationError`, `KeyFormatError`.

    Args:
        environ: instead of the process environment.
    """
    environ = os.environ if environ is None else environ  # noqa: TID251 - read here, once
    table, file = read_table(environ, "gateway", [option.name for option in GATEWAY_OPTIONS])
    where = f"{file} [gateway]"
    resolved = tuple(resolve_one(option, {}, environ, table, where) for option in GATEWAY_OPTIONS)
    values = {item.option.name: item.value for item in resolved}
    return GatewaySettings(_callers(environ), **values, resolved=resolved)  # type: ignore[arg-type] # parsed above


def _callers(environ: Mapping[str, str]) -> tuple[Key, ...]:
    text, source = environ.get(_CALLER_KEYS, "").strip(), _CALLER_KEYS
    if not text and (path := environ.get(_CALLER_KEYS_FILE, "").strip()):
        source = _CALLER_KEYS_FILE
        text = secret_from_file(path, source, environ).strip()
        if not text:
            raise ConfigurationError(f"{source}: {path} holds no key; without one everybody may call.")
    keys = parse_keys(text, source)
    for position, key in enumerate(keys, start=1):
        if key.domain != f"key:{key.name}":
            raise KeyFormatError(
                f"{source}: entry {position} has two '|' signs; the form is key|name.",
                position=position,
            )
        if len(key.value) < SHORTEST_CALLER_KEY:
            raise KeyFormatError(
                f"{source}: entry {position} is shorter than {SHORTEST_CALLER_KEY} characters. Make "
                "one with `openssl rand -hex 24`.",
                position=position,
            )
    return keys
