"""Asking the Gemini API what models it has. Costs no quota of generations, and no retry: one key after
the other is tried until one is accepted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec import structs

from headgate.core.call import Key
from headgate.core.errors import UpstreamError
from headgate.core.model_card import ModelMetadata
from headgate.core.outcome import Kind, Next, Outcome
from headgate.core.ports import Request, Transport, TransportError
from headgate.policy.redaction import redact
from headgate.providers.gemini import GeminiProvider
from headgate.providers.gemini_models import (
    ModelPage,
    get_request,
    list_request,
    read_model,
    read_page,
)

__all__ = ["MOST_PAGES", "Discovery"]

MOST_PAGES = 20
"""Of a list: 20,000 models are more than there will be; a list without end must end here."""

T = TypeVar("T", ModelPage, ModelMetadata)


class Discovery:
    """The upstream's own word on its models.

    Args:
        keys: tried in this order.
    """

    def __init__(self, transport: Transport, base_url: str, keys: Sequence[Key]) -> None:
        self._transport = transport
        self._base_url = base_url
        self._keys = keys
        self._provider = GeminiProvider(base_url)

    async def models(self, deadline: float) -> list[ModelMetadata]:
        """All it lists. Raises `UpstreamError`; a list that ends in an error is none.

        Args:
            deadline: monotonic seconds.
        """
        cards: list[ModelMetadata] = []
        token = ""
        for _ in range(MOST_PAGES):
            page = await self._ask(_page_request(self._base_url, token), read_page, deadline)
            cards += page.cards
            token = page.next_token
            if not token:
                break
        return cards

    async def model(self, name: str, deadline: float) -> ModelMetadata | None:
        """What it says of one; None: it has none of that name, or none for these keys.

        Raises:
            InvalidCallError: that is no name.
            UpstreamError: it cannot be asked.
        """
        try:
            return await self._ask(get_request(self._base_url, name), read_model, deadline)
        except UpstreamError as error:
            if error.outcome.status == 404 or error.outcome.kind in (
                Kind.KEY_MODEL,
                Kind.PROJECT_MODEL,
            ):
                return None
            raise

    async def _ask(self, request: Request, read: Callable[[bytes], T | Outcome], deadline: float) -> T:
        """The first answer to any of the keys; the last refusal where there is none."""
        refused: tuple[Outcome, Key] | None = None
        for key in self._keys:
            answer = await self._ask_with(key, request, read, deadline)
            if not isinstance(answer, Outcome):
                return answer
            refused = answer, key
            if answer.rule.next is not Next.ROTATE:
                break
        assert refused is not None  # noqa: S101 - settings hold at least one key
        outcome, key = refused
        safe = structs.replace(outcome, message=redact(outcome.message, key.value))
        raise UpstreamError(safe, key_name=key.name)

    async def _ask_with(
        self, key: Key, request: Request, read: Callable[[bytes], T | Outcome], deadline: float
    ) -> T | Outcome:
        try:
            exchange = await self._transport.open(request, self._provider.credential(key), deadline)
            try:
                body = await exchange.read()
            finally:
                await exchange.aclose()
        except TransportError as failure:
            return failure.outcome
        if exchange.status != 200:
            return self._provider.read_error(exchange.status, exchange.headers, body)
        return read(body)


def _page_request(base_url: str, token: str) -> Request:
    try:
        return list_request(base_url, token)
    except ValueError as error:
        raise UpstreamError(
            Outcome(Kind.PROTOCOL, f"The model list goes on with {error}.", 200)
        ) from None
