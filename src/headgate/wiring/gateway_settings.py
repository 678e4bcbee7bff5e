"""What the gateway itself is set to; what each provider is set to is said where its client's is.

    HEADGATE_CALLER_KEYS = entry ("," entry)*        entry = key ["|" name]

Settings follow `wiring/settings.py`: a variable that is set, the table `[gateway]` of `headgate.toml`,
the default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headgate.core.call import Key
from headgate.core.errors import ConfigurationError, KeyFormatError
from headgate.stores.usage_url import UsageUrl, UsageWhere
from headgate.wiring.file import read_table
from headgate.wiring.gateway_transport import Sending, sending
from headgate.wiring.keys import parse_keys, secret_from_file
from headgate.wiring.options import (
    Option,
    Resolved,
    boolean,
    optional,
    resolve_one,
    seconds,
    web_address,
    whole_number,
)

__all__ = [
    "GATEWAY_OPTIONS",
    "SHORTEST_CALLER_KEY",
    "GatewaySettings",
    "admin_key",
    "caller_keys",
    "load_gateway",
]

SHORTEST_CALLER_KEY = 16
"""Characters. A key of random letters and digits has 95 bits then; a shorter one can be tried out."""

SHORTEST_ADMIN_KEY = 24
"""Characters: 96 random bits in the poorest alphabet that generators use, hexadecimal digits."""

_ADMIN_KEY, _ADMIN_KEY_FILE = "HEADGATE_ADMIN_KEY", "HEADGATE_ADMIN_KEY_FILE"
_CALLER_KEYS, _CALLER_KEYS_FILE = "HEADGATE_CALLER_KEYS", "HEADGATE_CALLER_KEYS_FILE"
_VERSIONS = ("as_asked", "v1", "v1beta", "v1alpha")


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What a gateway is built from.

    Attributes:
        callers: their keys and names; shown without values. Without any, everybody may call, and the
            gateway listens on loopback only.
        admin: the key of those who manage, or None; shown without its value.
        project_roots: folders that projects named over HTTP must lie below.
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
        content: whether the content service is served on the same address.
        callers_file: where callers are kept that come and go; None: there are only those of `callers`.
        caller_rpm, caller_tpm, caller_rpd, caller_concurrent: requests and tokens a minute, requests a
            day and calls at a time of each caller that has no such limit of its own; None: no limit.
        inbound_rpm: requests a minute of all callers together; None: no limit.
        inbound_fail_open: whether limits of each process stand in where the shared store fails.
        caller_unpriced: `refuse` or `allow` calls of callers with a budget whose cost nobody knows.
        workers: processes that serve, behind one port.
        max_connections: of one process at a time; 0: as many as it may have open.
        head_seconds: from the first byte of a request until its head is in.
        max_head_kib: names and values of its headers, in KiB.
        max_headers: of a request.
        slowest_sender_kib: KiB a second, by which the time for a body is counted.
        reader_stall_seconds: how long a client may read nothing of its answer.
        max_json_depth: arrays and objects within one another in a body.
    """

    callers: tuple[Key, ...] = ()
    admin: Key | None = None
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
    content: bool = False
    callers_file: str | None = None
    caller_rpm: int | None = None
    caller_tpm: int | None = None
    caller_rpd: int | None = None
    caller_concurrent: int | None = None
    inbound_rpm: int | None = None
    inbound_fail_open: bool = True
    caller_unpriced: str = "refuse"
    project_roots: tuple[str, ...] = ()
    workers: int = 1
    max_connections: int = 0
    head_seconds: float = 10.0
    max_head_kib: int = 64
    max_headers: int = 100
    slowest_sender_kib: int = 64
    reader_stall_seconds: float = 60.0
    max_json_depth: int = 200
    resolved: tuple[Resolved, ...] = field(repr=False, default=())


def _callers_file(value: object) -> str:
    try:
        url = UsageUrl.read(value)
    except ValueError:
        url = None
    if url is None or url.where is not UsageWhere.SQLITE:
        raise ValueError(
            "the path of a file, such as callers.db or sqlite:///var/lib/headgate/callers.db"
        )
    return url.written


def _folders(value: object) -> tuple[str, ...]:
    parts = value if isinstance(value, list | tuple) else str(value).split(os.pathsep)
    folders = tuple(str(part).strip() for part in parts if str(part).strip())
    if any(not os.path.isabs(folder) for folder in folders):
        raise ValueError("absolute paths of folders, separated by colons")
    return folders


def _unpriced(value: object) -> str:
    text = str(value).strip().lower()
    if text not in ("refuse", "allow"):
        raise ValueError("refuse or allow")
    return text


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
    Option("public_url", "HEADGATE_GATEWAY_PUBLIC_URL", None, optional(web_address),
           "scheme and host by which clients reach it; unset: as they say"),
    Option("transport", "HEADGATE_TRANSPORT", Sending.AUTO, sending,
           "what calls are sent over; auto: lean where there is no proxy"),
    Option("content", "HEADGATE_GATEWAY_CONTENT", False, boolean,
           "whether the content service is served on the same address"),
    Option("usage_retention_days", "HEADGATE_GATEWAY_USAGE_RETENTION_DAYS", 90, whole_number(1),
           "how long rows of the usage ledger are kept"),
    Option("callers_file", "HEADGATE_CALLERS", None, optional(_callers_file),
           "file of callers that come and go; unset: those of HEADGATE_CALLER_KEYS alone"),
    Option("caller_rpm", "HEADGATE_CALLER_RPM", None, optional(whole_number(1)),
           "requests a minute of a caller without such a limit"),
    Option("caller_tpm", "HEADGATE_CALLER_TPM", None, optional(whole_number(1)),
           "tokens a minute of a caller without such a limit"),
    Option("caller_rpd", "HEADGATE_CALLER_RPD", None, optional(whole_number(1)),
           "requests a day of a caller without such a limit"),
    Option("caller_concurrent", "HEADGATE_CALLER_CONCURRENT", None, optional(whole_number(1)),
           "calls at a time of a caller without such a limit"),
    Option("inbound_rpm", "HEADGATE_INBOUND_RPM", None, optional(whole_number(1)),
           "requests a minute of all callers together"),
    Option("inbound_fail_open", "HEADGATE_INBOUND_FAIL_OPEN", True, boolean,
           "whether limits of each process stand in where the shared store fails"),
    Option("caller_unpriced", "HEADGATE_CALLER_UNPRICED", "refuse", _unpriced,
           "what becomes of a call whose cost nobody knows, if its caller has a budget"),
    Option("project_roots", "HEADGATE_GATEWAY_PROJECT_ROOTS", (), _folders,
           "folders that projects named over HTTP must lie below, separated by colons"),
    Option("workers", "HEADGATE_GATEWAY_WORKERS", 1, whole_number(1),
           "processes that serve, behind one port"),
    Option("max_connections", "HEADGATE_GATEWAY_MAX_CONNECTIONS", 0, whole_number(0),
           "connections of a process at a time; 0: as many as it may have open"),
    Option("head_seconds", "HEADGATE_GATEWAY_HEAD_SECONDS", 10.0, seconds(least=0.001),
           "from the first byte of a request until its head is in"),
    Option("max_head_kib", "HEADGATE_GATEWAY_MAX_HEAD_KIB", 64, whole_number(1),
           "headers of a request, in KiB"),
    Option("max_headers", "HEADGATE_GATEWAY_MAX_HEADERS", 100, whole_number(1),
           "headers of a request"),
    Option("slowest_sender_kib", "HEADGATE_GATEWAY_SLOWEST_SENDER_KIB", 64, whole_number(1),
           "KiB a second, by which the time for a body is counted"),
    Option("reader_stall_seconds", "HEADGATE_GATEWAY_READER_STALL_SECONDS", 60.0, seconds(least=0.001),
           "how long a client may read nothing of its answer"),
    Option("max_json_depth", "HEADGATE_GATEWAY_MAX_JSON_DEPTH", 200, whole_number(1),
           "arrays and objects within one another in a body"),
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
    callers = caller_keys(environ)
    admin = admin_key(environ, callers)
    return GatewaySettings(callers, admin, **values, resolved=resolved)  # type: ignore[arg-type] # parsed above


def admin_key(environ: Mapping[str, str], callers: Sequence[Key] = ()) -> Key | None:
    """The key of `HEADGATE_ADMIN_KEY`, or of the file that `HEADGATE_ADMIN_KEY_FILE` names; None: there
    is none. Raises `ConfigurationError`, never with the key.

    Args:
        callers: whose keys it must not be.
    """
    value, source = environ.get(_ADMIN_KEY, "").strip(), _ADMIN_KEY
    if not value and (path := environ.get(_ADMIN_KEY_FILE, "").strip()):
        source = _ADMIN_KEY_FILE
        value = secret_from_file(path, source, environ).strip()
        if not value:
            raise ConfigurationError(f"{source}: {path} holds no key.")
    if not value:
        return None
    if len(value) < SHORTEST_ADMIN_KEY or not value.isascii() or not value.isprintable():
        raise ConfigurationError(
            f"{source} takes {SHORTEST_ADMIN_KEY} or more printable ASCII characters. Make one with "
            "`openssl rand -hex 24`."
        )
    if any(caller.value == value for caller in callers):
        raise ConfigurationError(
            f"{source} is the key of a caller too. Who calls must not manage: make another one."
        )
    return Key("admin", value, "key:admin")


def caller_keys(environ: Mapping[str, str]) -> tuple[Key, ...]:
    """The keys of `HEADGATE_CALLER_KEYS`, and whose they are. Raises `ConfigurationError`,
    `KeyFormatError`."""
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
