"""An answer of the OpenAI surface on its way out: its headers, its framing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from aiohttp import hdrs, web

from headgate.emulator.delivery import Delivery
from headgate.emulator.openai_errors import OpenAIRefusal, known

__all__ = ["OpenAIDelivery", "encoded"]

_DONE = b"data: [DONE]\n\n"


class OpenAIDelivery(Delivery):
    """Writes one answer to one request.

    Attributes:
        request_id: in a header of every answer.
        organisation: named in a header, where the key is known.
        extra: headers beside the usual ones, as they stand when the answer begins.
        deviations: what it does otherwise than the vendor's API.
    """

    json_kind = "application/json"
    stream_kind = "text/event-stream; charset=utf-8"
    request_id = ""
    organisation = ""
    extra: Mapping[str, str] = {}
    deviations: Collection[str] = ()

    async def refuse_openai(self, refusal: OpenAIRefusal) -> web.StreamResponse:
        """An error body."""
        await self._clock.sleep(self._pace.refusal())
        self.extra = {**self.extra, **refusal.headers}
        return await self._whole(encoded(refusal.body(self.deviations)), refusal.status)

    def headers(self, kind: str, duration: int) -> Mapping[str, str]:
        """See `Delivery.headers`."""
        headers = {
            hdrs.CONTENT_TYPE: kind,
            hdrs.DATE: self.date(duration),
            hdrs.SERVER: "cloudflare",
            "openai-processing-ms": str(duration),
            "openai-version": "2020-10-01",
            "x-request-id": self.request_id,
            **self.extra,
        }
        if self.organisation:
            headers["openai-organization"] = f"org-{self.organisation}"
        return headers

    def stream_error(self) -> Any:
        """See `Delivery.stream_error`."""
        return known("overload", {}).body(self.deviations)

    def framed(self, chunk: Any, kind: str, *, sse: bool, first: bool) -> bytes:  # noqa: ARG002 - one framing
        """See `Delivery.framed`."""
        return b"data: " + encoded(chunk) + b"\n\n"

    def ending(self, kind: str, *, sse: bool) -> bytes:  # noqa: ARG002 - the same for every stream
        """See `Delivery.ending`."""
        return b"" if "no_done" in self.deviations else _DONE


def encoded(value: Any) -> bytes:
    """JSON without blanks."""
    return msgspec.json.encode(value)
