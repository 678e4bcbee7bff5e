"""The page of the management API in a real browser, over a gateway on a port."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect
from tests.gateway import ENVIRON, GatewayInThread
from tests.managing import ADMIN, ADMIN_KEY
from tests.page import browser

from headgate.gateway.manage.ears import Ears
from headgate.gateway.manage.opening import TABLE
from headgate.gateway.managing import attach
from headgate.wiring.clock import SystemClock
from headgate.wiring.gateway import Upstream, open_upstreams
from headgate.wiring.gateway_settings import GatewaySettings
from headgate.wiring.observers import Observers

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
VIEWS = (({"width": 360, "height": 740}, "dark"), ({"width": 1440, "height": 900}, "light"))


class Served:
    """A gateway on a port, the file of its configuration, and what a signal would do."""

    def __init__(self, running: GatewayInThread, file: Path) -> None:
        self.running = running
        self.url = running.base_url
        self.file = file

    def hang_up(self) -> None:
        loop = self.running._loop
        assert loop is not None
        loop.call_soon_threadsafe(self.running._server.reload)

    def asked(self, path: str, method: str = "GET", key: str = ADMIN_KEY) -> Any:
        request = urllib.request.Request(f"{self.url}{path}", method=method)  # noqa: S310 - ours
        request.add_header("authorization", f"Bearer {key}")
        try:
            return urllib.request.urlopen(request, timeout=10)  # noqa: S310 - as above
        except urllib.error.HTTPError as error:
            return error


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    file = tmp_path_factory.mktemp("managed") / "headgate.toml"
    file.write_text("")
    environ = {**ENVIRON, "HEADGATE_USAGE": "off", "HEADGATE_CONFIG": str(file)}
    settings = GatewaySettings(admin=ADMIN, linger_seconds=0.0, drain_seconds=5.0)
    clock = SystemClock()

    def opened(given: GatewaySettings, cache: Any, before: Any) -> tuple[Upstream, ...]:
        return open_upstreams(
            clock=clock, observer=Observers(), warn=lambda _: None, environ=environ, before=before
        )

    with GatewayInThread("http://127.0.0.1:9", settings=settings, environ=environ) as running:
        attach(running.gateway, clock, opened, Ears(), environ=environ)
        yield Served(running, file)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


def test_the_page_reads_the_document_and_everybody_can_use_it(
    chromium: Browser, gateway: Served
) -> None:
    """X-24, X-25: with the key, by keyboard alone; no complaint of the browser, none of axe (WCAG 2.2
    AA), light and dark, on a phone and on a desk."""
    for size, scheme in VIEWS:
        context = chromium.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type] # as Playwright has them
        context.set_default_timeout(10_000)
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error, said=complaints: said.append(str(error)))
        page.on("console", lambda message, said=complaints: _heard(message, said))
        page.goto(f"{gateway.url}/docs")
        expect(page.get_by_role("status")).to_have_text("Enter the admin key to read the document.")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.type(ADMIN_KEY)
        page.keyboard.press("Enter")
        page.wait_for_selector("#columns:not([hidden])")
        assert page.locator("main article").count() >= len(TABLE.endpoints)
        assert page.locator("#key").input_value() == ""
        assert ADMIN_KEY not in page.content()
        page.get_by_label("Find").fill("drain")
        shown = page.locator("#index li:visible").count()
        assert 2 <= shown < len(TABLE.endpoints)
        # All are made alike: what is found is looked at, for axe takes its time with what is shown.
        page.locator("#drain_key > details > summary").press("Enter")
        page.wait_for_selector("#drain_key table")
        page.locator("#drain_key details details > summary").first.press("Enter")
        found = Axe().run(page, options=RULES)
        assert found.violations_count == 0, found.generate_report()
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, "it scrolls sideways"
        assert not complaints
        context.close()


def _heard(message: Any, said: list[str]) -> None:
    if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
        said.append(message.text)


def test_a_server_says_the_same_as_the_application(gateway: Served) -> None:
    """Over a socket: credentials, HEAD, an answer without a body, a stream that a client leaves."""
    asked = gateway.asked
    with asked("/manage/v1/status") as got:
        assert json.loads(got.read())["access"] == "admin"
    with asked("/manage/v1/status", "HEAD") as got:
        assert (got.status, got.read()) == (200, b"")
    with asked("/manage/v1/status", key="CANARY-not-the-admin-key-at-all") as got:
        assert (got.status, got.headers["content-type"]) == (401, "application/problem+json")
    with asked("/manage/v1/keys/gemini/k0/drain", "POST") as got:
        assert json.loads(got.read())["state"] == "drained"
    with asked("/manage/v1/events") as got:
        assert got.read(5) == b"retry"
    with asked("/manage/v1/keys/gemini/k0/resume", "POST") as got:
        assert json.loads(got.read())["state"] == "ready"


def test_a_signal_reads_the_configuration_again(gateway: Served) -> None:
    gateway.file.write_text("[gemini]\nmax_retries = 1\n")
    with gateway.asked("/manage/v1/events?kinds=config") as heard:
        gateway.hang_up()
        text = b""
        while b"event: config" not in text or not text.endswith(b"\n\n"):
            text += heard.readline()
    with gateway.asked("/manage/v1/config/history") as got:
        change = json.loads(got.read())[0]
    assert (change["cause"], change["taken"]) == ("signal", True)
    assert "gemini.max_retries" in change["changed"]
