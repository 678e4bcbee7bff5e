"""Asks an upstream whether it accepts a key: a model list of one entry, which costs no quota."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from headgate.core.call import Key
from headgate.core.outcome import Booking, Kind, Outcome
from headgate.core.ports import Clock, Provider, Request, Transport, TransportError
from headgate.policy.redaction import redact
from headgate.providers.anthropic import AnthropicProvider
from headgate.providers.gemini import API_VERSION, GeminiProvider
from headgate.providers.openai import OpenAIProvider
from headgate.providers.openai_models import list_request
from headgate.wiring.claude import ClaudeSettings
from headgate.wiring.openai import OpenAISettings
from headgate.wiring.settings import GeminiSettings

__all__ = ["AnySettings", "Finding", "Verdict", "ask_key", "list_of_one"]

AnySettings = GeminiSettings | ClaudeSettings | OpenAISettings

_CALLED = {"gemini": "Gemini", "anthropic": "Anthropic", "openai": "OpenAI"}


class Verdict(StrEnum):
    """What became of a check."""

    OK = "ok"
    LIMITED = "limited"  # the key is accepted, its project is out of quota or credit
    INVALID = "invalid"
    UNREACHABLE = "unreachable"  # no answer that says anything about the key


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one key."""

    state: Verdict
    reason: str
    seconds: float

    @property
    def works(self) -> bool:
        """Whether the upstream accepts the key."""
        return self.state in (Verdict.OK, Verdict.LIMITED)

    def to_dict(self) -> dict[str, object]:
        """JSON-able."""
        return {
            "state": self.state.value,
            "reason": self.reason or None,
            "seconds": round(self.seconds, 3),
        }


async def ask_key(
    provider: Provider, transport: Transport, request: Request, key: Key, clock: Clock, timeout: float
) -> Finding:
    """A finding for one key. Never raises for an upstream's doing.

    Args:
        request: the list, as `list_of_one` gives it.
        timeout: seconds.
    """
    started = clock.monotonic()
    outcome = await _ask(provider, transport, request, key, started + timeout)
    reason = "" if outcome.kind is Kind.SUCCESS else redact(outcome.message, key.value)
    return Finding(_verdict(outcome), reason, clock.monotonic() - started)


def list_of_one(settings: AnySettings) -> tuple[Provider, Request]:
    """Who is asked, and for what."""
    if isinstance(settings, OpenAISettings):  # its list has one page
        return OpenAIProvider(settings.base_url), list_request(settings.base_url)
    if isinstance(settings, GeminiSettings):
        url = f"{settings.base_url}/{API_VERSION}/models?pageSize=1"
        return GeminiProvider(settings.base_url), Request("GET", url, {}, b"")
    headers = {"anthropic-version": settings.version}
    url = f"{settings.base_url}/v1/models?limit=1"
    return AnthropicProvider(settings.base_url, settings.version), Request("GET", url, headers, b"")


async def _ask(
    provider: Provider, transport: Transport, request: Request, key: Key, deadline: float
) -> Outcome:
    try:
        exchange = await transport.open(request, provider.credential(key), deadline)
        try:
            body = await exchange.read()
        finally:
            await exchange.aclose()
    except TransportError as failure:
        return failure.outcome
    if exchange.status != 200:
        return provider.read_error(exchange.status, exchange.headers, body)
    if not body.lstrip().startswith(b"{"):  # a proxy's page greets with 200 as well
        api = _CALLED.get(provider.name, provider.name)
        return Outcome(Kind.PROTOCOL, f"The answer is no model list; is this the {api} API?", 200)
    return Outcome(Kind.SUCCESS, status=200)


def _verdict(outcome: Outcome) -> Verdict:
    rule = outcome.rule
    if outcome.kind is Kind.SUCCESS:
        return Verdict.OK
    if rule.is_quota or outcome.kind is Kind.CAPACITY:
        return Verdict.LIMITED
    denied = rule.booking is not Booking.NOTHING or outcome.kind in (Kind.REQUEST, Kind.EGRESS)
    return Verdict.INVALID if denied else Verdict.UNREACHABLE
