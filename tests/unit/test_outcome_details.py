"""What the S3 error types tell apart and the engine does not: found where the facts are."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from headgate.core.call import Call, Operation
from headgate.core.outcome import Detail, Kind, Outcome
from headgate.core.ports import Request, TransportError
from headgate.providers.gemini import GeminiProvider
from headgate.providers.gemini_models import get_request, list_request, read_model, read_page
from headgate.transport.http import HttpTransport, _translate
from headgate.wiring.clock import SystemClock


def test_a_name_that_is_not_resolved_is_told_from_other_failures() -> None:
    async def ask() -> Outcome:
        transport = HttpTransport(SystemClock())
        try:
            await transport.open(Request("GET", "http://nowhere.invalid/", {}, b""), {}, None)
        except TransportError as failure:
            return failure.outcome
        finally:
            await transport.aclose()
        raise AssertionError("it was there")

    outcome = asyncio.run(ask())
    assert (outcome.kind, outcome.detail) == (Kind.NETWORK, Detail.DNS)


@pytest.mark.parametrize(
    ("error", "kind", "detail"),
    [
        (aiohttp.ConnectionTimeoutError(), Kind.NETWORK, Detail.CONNECT_TIMEOUT),
        (aiohttp.SocketTimeoutError(), Kind.TIMEOUT, None),
        (aiohttp.ServerDisconnectedError(), Kind.NETWORK, None),
        (
            aiohttp.ClientConnectorDNSError(SimpleNamespace(host="h", port=1, ssl=None), OSError()),  # type: ignore[arg-type]
            Kind.NETWORK,
            Detail.DNS,
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_ways_of_failing_to_connect(error: Exception, kind: Kind, detail: Detail | None) -> None:
    outcome = _translate(error).outcome
    assert (outcome.kind, outcome.detail) == (kind, detail)


@pytest.mark.parametrize(
    ("reason", "detail"),
    [
        ("SAFETY", Detail.SAFETY),
        ("PROHIBITED_CONTENT", Detail.SAFETY),
        ("RECITATION", Detail.RECITATION),
        ("IMAGE_RECITATION", Detail.RECITATION),
        ("LANGUAGE", None),
    ],
)
def test_why_an_answer_was_withheld(reason: str, detail: Detail | None) -> None:
    body = json.dumps({"candidates": [{"finishReason": reason}]}).encode()
    outcome = GeminiProvider("https://x").read(Call(Operation.GENERATE, "m", ("hi",)), body)
    assert isinstance(outcome, Outcome)
    assert (outcome.kind, outcome.detail) == (Kind.BLOCKED, detail)


# ── the model list on the wire ──────────────────────────────────────────────────────────────────


def card(**fields: Any) -> Any:
    return read_model(json.dumps({"name": "models/m", **fields}).encode())


def test_a_model_without_a_word_about_its_methods_is_not_judged() -> None:
    can = card().capabilities
    assert all(getattr(can, name) is None for name in can.__struct_fields__)


def test_what_methods_show_is_told_and_nothing_else() -> None:
    can = card(supportedGenerationMethods=["generateContent"], topK=40).capabilities
    assert (can.text_generation, can.context_caching, can.supports_top_k) == (True, False, None)
    assert card(supportedGenerationMethods=["generateContent"]).capabilities.supports_top_k is False
    embeds = card(supportedGenerationMethods=["embedContent"], outputTokenLimit=1).capabilities
    assert (embeds.text_generation, embeds.supports_top_k) == (False, None)
    assert embeds.max_output_tokens is None  # an embedding writes no tokens, whatever the list says


def test_what_is_new_in_the_list_does_not_break_it() -> None:
    found = card(future={"a": 1}, inputTokenLimit="123", version="002")
    assert (found.id, found.capabilities.max_input_tokens, found.version) == ("m", 123, "002")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"models": 3}', b"\xff", b"[" * 50_000])
def test_a_list_that_is_none_is_an_outcome(body: bytes) -> None:
    found = read_page(body)
    assert isinstance(found, Outcome)
    assert found.kind is Kind.PROTOCOL


def test_an_empty_list_is_a_list() -> None:
    page = read_page(b"{}")
    assert not isinstance(page, Outcome)
    assert (page.cards, page.next_token) == ((), "")


def test_requests_hold_no_key_and_take_no_foreign_token() -> None:
    assert list_request("https://x").url == "https://x/v1beta/models?pageSize=1000"
    assert list_request("https://x", "abc-_=").url.endswith("&pageToken=abc-_=")
    assert get_request("https://x", "m").headers == {}
    with pytest.raises(ValueError, match="token"):
        list_request("https://x", "a&key=b")
