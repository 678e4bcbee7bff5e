"""Which transport the gateway sends over, and through which proxy."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
from collections.abc import Mapping
from typing import Any

import pytest
from tests.transports import http, request, respond, serving

from headgate.core.errors import ConfigurationError
from headgate.core.ports import TransportError
from headgate.testing import VirtualClock
from headgate.transport.http import HttpTransport
from headgate.transport.lean import LeanTransport
from headgate.wiring.clock import SystemClock
from headgate.wiring.gateway import open_upstreams
from headgate.wiring.gateway_settings import load_gateway
from headgate.wiring.gateway_transport import Sending, open_transport, proxy_for, sending
from headgate.wiring.observers import Observers
from headgate.wiring.settings import load_gemini

UPSTREAM = "https://generativelanguage.googleapis.com"
PROXY = "http://ann:CANARY-proxy-password@proxy.example:3128"
KEYS = {"GEMINI_API_KEYS": "AIzaCANARY-transport-1-xxxxxxxxxx|one"}


def made(asked: Sending, environ: Mapping[str, str], clock: VirtualClock) -> Any:
    return open_transport(asked, load_gemini(environ={**KEYS, **environ}), clock, environ)


async def test_it_is_the_lean_one_unless_a_proxy_is_asked_for(clock: VirtualClock) -> None:
    assert isinstance(made(Sending.AUTO, {}, clock), LeanTransport)
    assert isinstance(made(Sending.AUTO, {"HTTPS_PROXY": PROXY}, clock), HttpTransport)
    spared = {"HTTPS_PROXY": PROXY, "NO_PROXY": ".googleapis.com"}
    assert isinstance(made(Sending.AUTO, spared, clock), LeanTransport)
    assert isinstance(made(Sending.LEAN, {}, clock), LeanTransport)
    assert isinstance(made(Sending.AIOHTTP, {}, clock), HttpTransport)


async def test_without_httptools_it_is_the_one_on_aiohttp(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "headgate.wiring.gateway_transport.find_spec",
        lambda name: None if name == "httptools" else real(name),
    )
    assert isinstance(made(Sending.AUTO, {}, clock), HttpTransport)


async def test_lean_and_a_proxy_contradict_each_other(clock: VirtualClock) -> None:
    with pytest.raises(ConfigurationError, match=r"lean transport has none.*NO_PROXY") as caught:
        made(Sending.LEAN, {"HTTPS_PROXY": PROXY}, clock)
    assert "CANARY" not in caught.value.message


async def test_every_engine_is_built_with_what_was_asked_for(clock: VirtualClock) -> None:
    environ = {
        **KEYS,
        "ANTHROPIC_API_KEYS": "sk-ant-CANARY-transport-xxxxxxxx|two",
        "OPENAI_API_KEYS": "sk-CANARY-transport-xxxxxxxxxxxx|three",
        "HTTPS_PROXY": PROXY,
        "NO_PROXY": "api.anthropic.com",
    }
    upstreams = open_upstreams(clock=clock, observer=Observers(), warn=lambda _: None, environ=environ)
    kinds = {upstream.name: type(upstream.engine.transport) for upstream in upstreams}
    assert kinds == {"gemini": HttpTransport, "anthropic": LeanTransport, "openai": HttpTransport}


@pytest.mark.parametrize(
    ("environ", "url", "expected"),
    [
        ({}, UPSTREAM, None),
        ({"https_proxy": "http://p:1"}, UPSTREAM, "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, UPSTREAM, "http://p:1"),
        ({"HTTPS_PROXY": "http://big:1", "https_proxy": "http://small:1"}, UPSTREAM, "http://small:1"),
        ({"HTTPS_PROXY": "p:1"}, UPSTREAM, "http://p:1"),
        ({"ALL_PROXY": "http://p:1"}, UPSTREAM, "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, UPSTREAM, None),
        ({"HTTP_PROXY": "http://p:1"}, "http://up.example", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, "http://up.example", None),
        ({"http_proxy": "http://p:1", "REQUEST_METHOD": "GET"}, "http://up.example", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, UPSTREAM, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "other.example, googleapis.com"}, UPSTREAM, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "apis.com"}, UPSTREAM, "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "no_proxy": "localhost:8765"}, "http://localhost:8765", None),
        ({"ALL_PROXY": "http://p:1", "no_proxy": "localhost:8765"}, "http://localhost:1", "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "no_proxy": "[::1]"}, "http://[::1]:8765", None),
        ({"ALL_PROXY": "http://p:1", "no_proxy": "::2, ,."}, "http://[::1]:8765", "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "no_proxy": "Up.Example:443"}, "https://up.example", None),
        ({"ALL_PROXY": "  "}, UPSTREAM, None),
    ],
)
def test_the_proxy_is_the_one_that_the_environment_names(
    environ: dict[str, str], url: str, expected: str | None
) -> None:
    assert proxy_for(url, environ) == expected


@pytest.mark.parametrize("proxy", ["socks5://ann:CANARY-secret@p:1080", "http://", "ftp://p"])
def test_a_proxy_that_cannot_be_used_is_told_at_the_start(proxy: str) -> None:
    with pytest.raises(ConfigurationError, match="http://host:port") as caught:
        proxy_for(UPSTREAM, {"ALL_PROXY": proxy})
    assert "CANARY" not in caught.value.message


def test_the_setting_is_read_and_a_wrong_one_named() -> None:
    assert load_gateway({}).transport is Sending.AUTO
    assert load_gateway({"HEADGATE_TRANSPORT": " Lean "}).transport is Sending.LEAN
    assert sending("aiohttp") is Sending.AIOHTTP
    with pytest.raises(
        ConfigurationError, match="HEADGATE_TRANSPORT is 'curl'; it takes auto, lean, aio"
    ):
        load_gateway({"HEADGATE_TRANSPORT": "curl"})


def test_a_request_goes_to_the_proxy_and_its_password_nowhere_else() -> None:
    async def main() -> bytes:
        async with serving(respond(http(b"{}"))) as proxy:
            named = proxy.url.replace("http://", "http://ann:CANARY-proxy@")
            transport = HttpTransport(SystemClock(), proxy=named)
            exchange = await transport.open(request("http://up.example"), {}, None)
            assert (exchange.status, await exchange.read()) == (200, b"{}")
            await exchange.aclose()
            await transport.aclose()
            return proxy.requests[0]

    head = asyncio.run(main())
    assert head.startswith(b"POST http://up.example/v1beta/models/m:x HTTP/1.1\r\n")
    expected = base64.b64encode(b"ann:CANARY-proxy")
    assert b"proxy-authorization: basic " + expected.lower() in head.lower()
    assert b"\r\nauthorization" not in head.lower()


def test_a_proxy_that_refuses_is_no_fault_of_the_upstream() -> None:
    async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            seen.append(head)
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        writer.close()

    seen: list[bytes] = []

    async def main() -> TransportError:
        server = await asyncio.start_server(refusing, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        transport = HttpTransport(SystemClock(), proxy=f"http://127.0.0.1:{port}")
        try:
            with pytest.raises(TransportError) as caught:
                await transport.open(
                    request("https://up.example"), {"x-goog-api-key": "AIzaCANARY-x"}, None
                )
        finally:
            await transport.aclose()
            server.close()
            await server.wait_closed()
        return caught.value

    error = asyncio.run(main())
    assert (error.outcome.kind.value, error.sent) == ("network", False)
    assert error.outcome.message == "The proxy refused the connection: HTTP 407."
    assert seen[0].startswith(b"CONNECT up.example:443 ")
    assert b"CANARY" not in seen[0], "the proxy sees no key"
