"""An answer of the Anthropic surface on its way out: its headers, its framing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import hdrs, web

from headgate.emulator.anthropic_errors import ClaudeRefusal, known
from headgate.emulator.delivery import Delivery

__all__ = ["ClaudeDelivery", "encoded"]

_MOST_PADDING = 16
_PING = b'{"type": "ping"}'


class ClaudeDelivery(Delivery):
    """Writes one answer to one request.

    Attributes:
        request_id: in the header, and in every error.
        extra: headers beside the usual ones, as they stand when the answer begins.
    """

    json_kind = "application/json"
    stream_kind = "text/event-stream; charset=utf-8"
    request_id = ""
    extra: Mapping[str, str] = {}

    async def refuse_claude(self, refusal: ClaudeRefusal) -> web.StreamResponse:
        """An error body."""
        await self._clock.sleep(self._pace.refusal())
        self.extra = {**self.extra, **refusal.headers}
        return await self._whole(encoded(refusal.body(self.request_id)), refusal.status)

    def headers(self, kind: str, duration: int) -> Mapping[str, str]:
        """See `Delivery.headers`."""
        headers = {
            hdrs.CONTENT_TYPE: kind,
            hdrs.DATE: self.date(duration),
            hdrs.SERVER: "cloudflare",
            hdrs.VARY: "Accept-Encoding",
            "Server-Timing": f"x-originResponse;dur={duration}",
            "request-id": self.request_id,
            **self.extra,
        }
        if kind == self.stream_kind:
            headers[hdrs.CACHE_CONTROL] = "no-cache"
        return headers

    def stream_error(self) -> dict[str, Any]:
        """See `Delivery.stream_error`."""
        return known("overload", {}).body(self.request_id)

    def framed(self, chunk: dict[str, Any], kind: str, *, sse: bool, first: bool) -> bytes:  # noqa: ARG002 - one framing
        """See `Delivery.framed`. Blanks before the last brace, as the real ones have."""
        name: str = chunk["type"]
        data = _PING if name == "ping" else encoded(chunk)
        if name not in ("ping", "error"):
            data = data[:-1] + b" " * (len(data) * 7 % _MOST_PADDING) + b"}"
        return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def encoded(value: Mapping[str, Any]) -> bytes:
    """JSON without blanks."""
    return msgspec.json.encode(value)
