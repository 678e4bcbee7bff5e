"""The gateway behind a real nginx, with the configuration that the how-to shows, word for word."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from tests.gateway import CALLER_KEY, CALLERS, GEMINI_KEYS, GatewayInThread
from tests.nginx import Nginx
from tests.support import Ear

from headgate.emulator import Emulator, EmulatorConfig, InThread, Project
from headgate.wiring.gateway_settings import GatewaySettings

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "serve-behind-a-proxy.md"
MODEL = "gemini-3.5-flash"
GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
STREAM = f"/gemini/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
BODY = json.dumps({"contents": [{"parts": [{"text": "How does a headgate work?"}]}]}).encode()
HEADERS = {"content-type": "application/json", "x-goog-api-key": CALLER_KEY}
CONFIG = EmulatorConfig(projects=[Project("alpha", {"g1": GEMINI_KEYS[0]})])
ENVIRON = {"GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|g1|alpha"}


class Documented(Nginx):
    """nginx as the page says, but without TLS and on other ports."""

    def __init__(self, gateway: str) -> None:
        super().__init__({})
        shown = re.search(
            r"## nginx\n.*?```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
        )
        bounds = re.search(r"```text\n(client_max_body_size.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
        assert shown is not None
        assert bounds is not None
        own = shown[1].replace("127.0.0.1:8080", gateway.removeprefix("http://"))
        own = own.replace("listen 443 ssl;", f"listen 127.0.0.1:{self.port};")
        further = bounds[1].replace("client_max_body_size 20m;", "").replace("proxy_buffering off;", "")
        folder = self._folder
        paths = "".join(
            f"{name}_temp_path {folder}/{name};"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "conf").write_text(
            f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log warn;\n"
            f"events {{}}\nhttp {{\naccess_log off; {paths}\n{further}\n{own}\n}}\n"
        )


def until(done: Callable[[], object]) -> None:
    """Another process gets there: looked at again and again, for ten seconds."""
    for _ in range(1000):
        if done():
            return
        time.sleep(0.01)  # noqa: TID251 - a real server has no virtual clock
    raise AssertionError("it did not happen")


@pytest.fixture(scope="module")
def upstream() -> Iterator[InThread]:
    with Emulator(CONFIG).in_thread() as emulator:
        yield emulator


def test_the_page_serves_streams_lets_go_and_keeps_what_is_inner_inside(upstream: InThread) -> None:
    """One start: calls pass; events come one by one; a client that leaves takes its call with it;
    errors of the gateway reach the client; what is not for the outside is not there."""
    ear = Ear()
    settings = GatewaySettings(callers=CALLERS, linger_seconds=0.0, drain_seconds=5.0)
    gateway = GatewayInThread(upstream.base_url, environ=ENVIRON, settings=settings, observers=[ear])
    with gateway, Documented(gateway.base_url) as nginx:
        got = nginx.ask("POST", GENERATE, BODY, **HEADERS)
        assert (got.status, got.headers["x-headgate-key"]) == (200, "g1")
        assert nginx.ask("POST", GENERATE, BODY, Content_Type="application/json").status == 401
        assert nginx.ask("GET", "/readyz").status == 200
        for path in ("/metrics", "/manage/v1/keys", "/docs", "/openapi.json"):
            assert nginx.ask("GET", path, **HEADERS).status == 403
        long = nginx.ask("POST", f"{GENERATE}?a={'b' * 9000}", BODY, **HEADERS)
        assert long.status == 414

        upstream.script("stall_mid", after=1)
        connection = HTTPConnection("127.0.0.1", nginx.port, timeout=10)
        connection.request("POST", STREAM, BODY, HEADERS)
        response = connection.getresponse()
        assert response.readline().startswith(b"data:"), "before the stream is over"
        calls = len(ear.calls)
        response.close()
        connection.close()
        until(lambda: len(ear.calls) > calls)
        assert ear.calls[-1].error == "cancelled"
        until(lambda: not gateway.gateway.visits)

        upstream.script("reset_mid", after=1)
        cut = nginx.ask("POST", STREAM, BODY, **HEADERS)
        last = [line for line in cut.body.splitlines() if line][-1]
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == 502
