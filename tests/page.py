"""The page of a content service in a real browser: Debian's Chromium, driven by Playwright.

The service runs in a thread, on a port of loopback; its model answers from a script, so that what the
browser shows is known. Quota is the service's own.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from tests.content import ENVIRON, answered, body_of, prompt_of

from headgate.content import Outside, app, load_content
from headgate.content.server import ContentServer
from headgate.testing import Answer, Broken, ScriptedTransport, Sent
from headgate.wiring.clock import SystemClock

SUBTOPICS = [
    "How light bends in a drop", "The order of the colours", "Why a bow is round", "Double rainbows",
    "Rainbows at night", "Where to stand", "Fog bows and glories", "Stories about rainbows",
]  # fmt: skip

Model = Callable[[Mapping[str, Any]], Answer | Broken]


def explanation(subtopic: str) -> dict[str, str]:
    """One that is good enough, and holds what must never be taken for markup."""
    return {
        "explanation": f"{subtopic}: sunlight enters a drop of rain, is bent at its surface, thrown "
        "back by its far side, and bent once more on its way out. Each colour leaves at an angle of "
        "its own, between forty and forty-two degrees, so that every drop sends one colour to your "
        "eye.\n\nAll the drops that send you the same colour lie on a circle around the point "
        "opposite the sun. <img src=x onerror=alert(1)> & <b>such things</b> are text.",
        "real_world_application": "Headlights and road signs throw light back to where it came from in "
        "much the same way.",
        "youtube_search_query": f"{subtopic} experiment",
    }


def model(body: Mapping[str, Any], delay: float = 0.0) -> Answer:
    """Subtopics of the rainbow, and explanations; a subtopic with `unlucky` in it fails."""
    topic, _, subtopic = prompt_of(body).partition("\nSubtopic: ")
    if subtopic:
        text = "Too short." if "unlucky" in subtopic else explanation(subtopic)
        return answered(json.dumps(text), delay=delay)
    if topic.startswith("Topic: "):
        many = SUBTOPICS + [f"A finer point, number {number}" for number in range(1, 8)]
        return answered(json.dumps(many), delay=delay)
    return answered(json.dumps({"topic": "Lighthouses at dusk"}), delay=delay)


class Site:
    """A content service under test.

    Attributes:
        url: where it is.
        model: what answers now; a test may put another in its place. None: the upstream that the
            environment names.
    """

    def __init__(self, answers: Model | None, environ: Mapping[str, str]) -> None:
        self.model = answers
        self.url = ""
        self._environ = {**ENVIRON, **environ}
        self._server: ContentServer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    async def _serve(self) -> None:
        clock = SystemClock()
        transport = None if self.model is None else ScriptedTransport(self._answer, clock)
        outside = Outside(clock=clock, environ=self._environ, transport=transport)
        self._loop = asyncio.get_running_loop()
        made = app(load_content(environ=self._environ), outside)
        self._server = ContentServer(made, "127.0.0.1", 0)
        self.url = self._server.address
        try:
            await self._server.serve(lambda _: self._begun.set())
        finally:
            self._begun.set()

    def _answer(self, sent: Sent) -> Answer | Broken:
        assert self.model is not None
        return self.model(body_of(sent))

    def start(self) -> None:
        self._thread.start()
        assert self._begun.wait(20)

    def stop(self) -> None:
        assert self._loop is not None
        assert self._server is not None
        self._loop.call_soon_threadsafe(lambda: self._server and self._server.stop(linger=False))
        self._thread.join(20)


@contextmanager
def site(answers: Model | None = model, **environ: str) -> Iterator[Site]:
    """A service while the context lasts."""
    made = Site(answers, environ)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def browser() -> Iterator[Browser]:
    """One start of the system's Chromium."""
    binary = shutil.which("chromium")
    assert binary, "the tests drive Debian's chromium: `make test` installs it"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=binary,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
        )
        try:
            yield started
        finally:
            started.close()
