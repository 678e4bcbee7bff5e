"""Unmodified SDKs and a gateway with managed callers: each refusal is the SDK's own error, and what may
be repeated is repeated by the SDK itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors, types
from tests.callers import canary_key, dollars, limits
from tests.gateway import CLAUDE_KEYS, GEMINI_KEYS, OPENAI_KEYS, GatewayInThread, listed

from headgate.emulator import Emulator, EmulatorConfig, Organisation, Project
from headgate.gateway.caller_book import CallerSpec
from headgate.gateway.caller_opening import open_book
from headgate.wiring.clock import SystemClock
from headgate.wiring.gateway_settings import GatewaySettings

GEMINI, CLAUDE = "gemini-3.5-flash", "claude-opus-5-5"
CONFIG = EmulatorConfig(
    projects=[Project("alpha", {"g1": GEMINI_KEYS[0]})],
    organisations=[Organisation("org", {"c1": CLAUDE_KEYS[0]})],
)
ENVIRON = {
    "GEMINI_API_KEYS": listed(GEMINI_KEYS[:1]),
    "ANTHROPIC_API_KEYS": listed(CLAUDE_KEYS[:1]),
    "OPENAI_API_KEYS": listed(OPENAI_KEYS[:1]),
}
SPECS = {
    "poor": CallerSpec("poor", budget=dollars(0.000001, "day")),
    "narrow": CallerSpec("narrow", models=("nothing-*",)),
    "slow": CallerSpec("slow", limits=limits(rpm=1)),
    "gone": CallerSpec("gone"),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """Where the gateway is, and a key of each caller."""
    path = tmp_path_factory.mktemp("callers") / "callers.db"
    settings = GatewaySettings(callers_file=str(path), linger_seconds=0.0, drain_seconds=5.0)
    keys = asyncio.run(made(settings))
    with (
        Emulator(CONFIG).in_thread() as emulator,
        GatewayInThread(emulator.base_url, settings=settings, environ=ENVIRON) as gateway,
    ):
        yield gateway.base_url, keys


async def made(settings: GatewaySettings) -> dict[str, str]:
    opened = open_book(settings, SystemClock())
    assert opened is not None
    book, store = opened
    book._new_key = canary_key
    keys: dict[str, str] = {"nobody": "CANARY-a-key-that-nobody-made"}
    for name, spec in SPECS.items():
        keys[name] = str((await book.create(spec)).key)
    await book.revoke("gone")
    store.close()
    return keys


def google(url: str, key: str) -> None:
    client = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=f"{url}/gemini"))
    try:
        client.models.generate_content(model=GEMINI, contents="hi")
    finally:
        client.close()


def claude(url: str, key: str) -> None:
    with anthropic.Anthropic(api_key=key, base_url=f"{url}/anthropic", max_retries=0) as client:
        client.messages.create(
            model=CLAUDE, max_tokens=10, messages=[{"role": "user", "content": "hi"}]
        )


def gpt(url: str, key: str) -> None:
    with openai.OpenAI(api_key=key, base_url=f"{url}/openai/v1", max_retries=0) as client:
        client.chat.completions.create(model="gpt-4.1", messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    ("caller", "status"), [("nobody", 401), ("gone", 401), ("narrow", 403), ("poor", 429)]
)
def test_google_raises_its_client_error(
    served: tuple[str, dict[str, str]], caller: str, status: int
) -> None:
    url, keys = served
    with pytest.raises(errors.ClientError) as caught:
        google(url, keys[caller])
    assert caught.value.code == status
    assert caught.value.status == {
        401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED",
    }[status]  # fmt: skip


@pytest.mark.parametrize(
    ("caller", "kind"),
    [
        ("nobody", anthropic.AuthenticationError),
        ("gone", anthropic.AuthenticationError),
        ("narrow", anthropic.PermissionDeniedError),
        ("poor", anthropic.RateLimitError),
    ],
)
def test_anthropic_raises_its_own(
    served: tuple[str, dict[str, str]], caller: str, kind: type[anthropic.APIStatusError]
) -> None:
    url, keys = served
    with pytest.raises(kind) as caught:
        claude(url, keys[caller])
    assert caught.value.request_id


@pytest.mark.parametrize(
    ("caller", "kind"),
    [
        ("nobody", openai.AuthenticationError),
        ("gone", openai.AuthenticationError),
        ("narrow", openai.PermissionDeniedError),
        ("poor", openai.PermissionDeniedError),  # what gpt-4.1 costs nobody knows here
    ],
)
def test_openai_raises_its_own(
    served: tuple[str, dict[str, str]], caller: str, kind: type[openai.APIStatusError]
) -> None:
    url, keys = served
    with pytest.raises(kind) as caught:
        gpt(url, keys[caller])
    assert caught.value.request_id


def test_a_limit_is_a_rate_limit_error_with_a_time(served: tuple[str, dict[str, str]]) -> None:
    url, keys = served
    claude(url, keys["slow"])
    with pytest.raises(anthropic.RateLimitError) as of_claude:
        claude(url, keys["slow"])
    with pytest.raises(openai.RateLimitError) as of_gpt:
        gpt(url, keys["slow"])
    with pytest.raises(errors.ClientError) as of_google:
        google(url, keys["slow"])
    for error in (of_claude.value, of_gpt.value):
        assert 1 <= int(error.response.headers["retry-after"]) <= 60
        assert error.response.headers["x-should-retry"] == "true"
        assert error.response.headers["ratelimit"].startswith('"requests-per-minute";r=0;t=')
    delay = next(one for one in of_google.value.details["error"]["details"] if "retryDelay" in one)
    assert delay["retryDelay"].endswith("s")


def test_a_budget_is_not_asked_again(served: tuple[str, dict[str, str]]) -> None:
    """The SDK would repeat a 429 twice by itself; `x-should-retry` keeps it from that."""
    url, keys = served
    seen: list[int] = []
    with anthropic.Anthropic(api_key=keys["poor"], base_url=f"{url}/anthropic") as client:
        client._client.event_hooks["response"].append(lambda answer: seen.append(answer.status_code))
        with pytest.raises(anthropic.RateLimitError, match="budget of the caller poor"):
            client.messages.create(
                model=CLAUDE, max_tokens=10, messages=[{"role": "user", "content": "hi"}]
            )
    assert seen == [429]
