"""What listeners are told. Instants are aware UTC, durations seconds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from headgate.gateway.manage.views import ConfigChangeView, KeyView

__all__ = ["AttemptEvent", "CallEvent", "ConfigEvent", "KeyEvent", "OrderEvent"]


class AttemptEvent(Struct, frozen=True, kw_only=True):
    """An attempt ended. `result` is `success` or what the upstream's answer was classified as."""

    at: datetime
    request_id: str
    attempt: int
    provider: str
    model: str
    operation: str
    caller: str
    key: str
    domain: str
    result: str
    status: int | None
    message: str
    seconds: float
    input_tokens: int
    output_tokens: int


class CallEvent(Struct, frozen=True, kw_only=True):
    """A call ended. `error` is None for a success."""

    at: datetime
    request_id: str
    provider: str
    model: str
    operation: str
    caller: str
    key: str | None
    error: str | None
    attempts: int
    retries: int
    rotations: int
    waited: float
    seconds: float
    cached: bool
    fallback: str | None


class OrderEvent(Struct, frozen=True, kw_only=True):
    """Somebody who manages did something."""

    at: datetime
    what: str
    about: Mapping[str, str]


class ConfigEvent(Struct, frozen=True, kw_only=True):
    """A configuration was taken over, or refused."""

    at: datetime
    change: ConfigChangeView


class KeyEvent(Struct, frozen=True, kw_only=True):
    """A key changed. `before` is the state it had; None: it is new."""

    at: datetime
    before: str | None
    key: KeyView
