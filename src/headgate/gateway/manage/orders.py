"""What an operator orders: done in this process, and told to the other workers of the same gateway."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

import msgspec
from msgspec import Struct

from headgate.backend.commands import GeminiBackend
from headgate.core.replies import ReplyCache
from headgate.gateway.manage.event_views import OrderEvent
from headgate.gateway.manage.feed import EventFeed, EventKind
from headgate.policy.redaction import one_line
from headgate.wiring.gateway import Upstream

__all__ = ["DRAINED", "Order", "Orders", "Relay", "What"]

_log = logging.getLogger("headgate.manage")

DRAINED = "drained by an operator"
"""How the reason of a key begins that an operator took out; the upstream's own reasons never do."""

MOST_RELAYED = 3000
"""Bytes of an order that other workers are told."""


class What(StrEnum):
    """What can be ordered."""

    DRAIN = "drain"
    RESUME = "resume"
    RESET = "reset"
    CLEAR = "clear"
    FORGET = "forget"
    CONFIGURE = "configure"


class Order(Struct, frozen=True, omit_defaults=True):
    """An order. No credential stands in one.

    Attributes:
        names: of the keys that are drained or resumed.
        model: whose breaker is reset.
        text: the reason, or the pattern.
        config: that the backend is to take over.
    """

    what: What
    provider: str = ""
    names: tuple[str, ...] = ()
    model: str = ""
    text: str = ""
    config: msgspec.Raw = msgspec.Raw(b"null")


class Relay(Protocol):
    """The way to the other workers of a gateway."""

    def tell(self, order: bytes) -> None:
        """Pass an order on to each of them, and to those that are started later."""

    def attend(self, hear: Callable[[bytes], None]) -> None:
        """Hear, on the running loop, what others pass on."""


class Orders:
    """Does what is ordered.

    Args:
        upstreams: those of the moment.
        cache: that of the moment.
        backend: whose replies and configuration are meant, too.
    """

    def __init__(
        self,
        upstreams: Callable[[], Sequence[Upstream]],
        cache: Callable[[], ReplyCache | None],
        backend: GeminiBackend,
        feed: EventFeed,
        now: Callable[[], float],
    ) -> None:
        self._upstreams = upstreams
        self._cache = cache
        self._backend = backend
        self._feed = feed
        self._now = now
        self._relay: Relay | None = None

    @property
    def relayed(self) -> bool:
        """Whether orders reach other workers."""
        return self._relay is not None

    def open(self, relay: Relay, own: Callable[[bytes], None]) -> None:
        """From now on orders reach other workers, and theirs are heard, on the running loop.

        Args:
            own: is given each order of another worker, and sees to `hear`.
        """
        self._relay = relay
        relay.attend(own)

    async def give(self, order: Order) -> int:
        """Do it here, and let the other workers know. How many answers were dropped, of those that drop
        some.

        Raises `HeadgateError`: it was not done, here or anywhere.
        """
        done = await self._do(order)
        self._told(order)
        if self._relay is not None:
            written = msgspec.json.encode(order)
            if len(written) <= MOST_RELAYED:
                self._relay.tell(written)
            else:
                _log.warning("manage: an order of %d bytes stays with this worker", len(written))
        return done

    async def hear(self, written: bytes) -> None:
        """Do what another worker was ordered. What cannot be read or done is logged."""
        try:
            order = msgspec.json.decode(written, type=Order)
            await self._do(order)
        except Exception:  # noqa: BLE001 - of another version, or about what this worker has not
            _log.warning("manage: an order of another worker was not done", exc_info=True)

    # ── what they mean ──────────────────────────────────────────────────────────────────────────

    async def _do(self, order: Order) -> int:
        match order.what:
            case What.DRAIN | What.RESUME:
                self._keys(order)
            case What.RESET:
                for upstream in self._of(order.provider):
                    upstream.engine.protection.reset(order.model)
            case What.CLEAR | What.FORGET:
                return await self._forget(order)
            case What.CONFIGURE:
                config = msgspec.json.decode(order.config, type=dict)
                await self._backend.update_gemini_backend_config(config)
        return 0

    def _keys(self, order: Order) -> None:
        for upstream in self._of(order.provider):
            pool = upstream.engine.pool
            for state in pool.states():
                if state.key.name not in order.names:
                    continue
                if order.what is What.RESUME:
                    pool.enable(state.index)
                else:
                    pool.disable(state.index, f"{DRAINED}: {order.text}" if order.text else DRAINED)

    async def _forget(self, order: Order) -> int:
        """The gateway's answers and the backend's."""
        cache = self._cache()
        if order.what is What.CLEAR:
            dropped = 0 if cache is None else await cache.clear()
            return dropped + await self._backend.clear_gemini_cache()
        dropped = 0 if cache is None else await cache.invalidate(order.text)
        return dropped + await self._backend.invalidate_gemini_cache(order.text)

    def _of(self, provider: str) -> Sequence[Upstream]:
        return [one for one in self._upstreams() if one.name == provider]

    def _told(self, order: Order) -> None:
        about: Mapping[str, str] = {
            "provider": order.provider,
            "keys": ", ".join(order.names),
            "model": order.model,
            "text": order.text,
        }
        about = {name: one_line(value)[:200] for name, value in about.items() if value}
        said = " ".join(f"{name}={value!r}" for name, value in about.items())
        _log.info("manage: %s %s", order.what.value, said)
        at = datetime.fromtimestamp(self._now(), UTC)
        self._feed.tell(EventKind.ORDER, OrderEvent(at=at, what=order.what.value, about=about))
