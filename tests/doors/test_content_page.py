"""The page in a real browser: the whole way, what goes wrong on it, and who can use it (issue 7, 5)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from tests.content import CALLER_KEY, picture, prompt_of, refused, system_of
from tests.page import SUBTOPICS, Site, browser, model, site
from tests.support import key

from headgate.content.page import version
from headgate.emulator import Emulator, EmulatorConfig, InThread, Project
from headgate.testing import Answer

DESK = {"width": 1280, "height": 900}
PHONE = {"width": 320, "height": 640}
"""As narrow as a page must be readable without scrolling sideways (WCAG 2.2, 1.4.10)."""

TONGUES = ("en", "es", "fr", "de", "zh", "ja", "ar", "he", "fa", "ur")
TO_THE_LEFT = ("ar", "he", "fa", "ur")
FETCHED_TWICE = """async () => {
  const headers = {"content-type": "application/json"};
  const body = JSON.stringify({topic: "Water"});
  const posted = await fetch("api/create_subtopics", {method: "POST", headers, body});
  const where = posted.headers.get("content-location");
  for (let time = 0; time < 2; time++) await (await fetch(where)).text();
  return performance.getEntriesByName(new URL(where, location).href).map((each) => each.transferSize);
}"""
"""Fetches a result twice; bytes that went over the network each time."""

TOMORROW = """async (where) => {
  const notices = await import(new URL(where, document.baseURI));
  notices.complain({kind: "quota", detail: "RPD limit exceeded", wait: 60_000, fits: 0}, {again() {}});
}"""
"""What a quota of a day says: nobody counts sixty thousand seconds."""

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def ample() -> Iterator[Site]:
    """A service whose quota is no matter."""
    with site(QUOTA_RPM="1000") as made:
        yield made


class Visit:
    """A tab of a new visitor. At its end nothing may have gone wrong in it unseen."""

    def __init__(self, chromium: Browser, where: Site, **options: Any) -> None:
        options = {"viewport": DESK, "locale": "en-GB", "reduced_motion": "reduce", **options}
        self.context = chromium.new_context(**options)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._heard)
        self.context.set_default_timeout(10_000)
        self.page.goto(where.url)
        self.ready()

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.context.close()
        assert kind or not self.complaints

    def _heard(self, message: Any) -> None:
        # That a status was 401 or 429, or there was no network, is told on the page.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def ready(self) -> None:
        self.page.wait_for_selector("html[data-ready]")

    def find(self, topic: str = "Rainbows") -> None:
        self.page.get_by_label("Topic", exact=True).fill(topic)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("#step-choose:not([hidden])")

    def choose(self, count: int) -> None:
        self.page.locator("#none").click()
        for box in self.page.locator("#subtopics input").all()[:count]:
            box.check()

    def explained(self) -> None:
        self.page.wait_for_selector("#exports:not([hidden])")

    def check_access(self, what: str) -> None:
        """No violation that axe knows, and nothing that has to be scrolled sideways."""
        violations = Axe().run(self.page, options=RULES).response["violations"]
        told = [(each["id"], [node["html"] for node in each["nodes"]]) for each in violations]
        assert not told, (what, told)
        width = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert width <= 0, what


def slow(body: Mapping[str, Any]) -> Answer:
    return model(body, delay=0.05)


def lucky(body: Mapping[str, Any]) -> Answer:
    """Nothing fails any more."""
    return model({"contents": [{"parts": [{"text": prompt_of(body).replace("unlucky", "lucky")}]}]})


def test_against_the_emulator(chromium: Browser) -> None:
    """The same service over HTTP to an upstream, which refuses one of the calls by the way."""
    emulated = Emulator(EmulatorConfig(projects=[Project("alpha", keys={"k0": key(0)})]))
    with InThread(emulated) as emulator:
        emulator.script("high_demand", times=1)
        where = {"HEADGATE_GEMINI_BASE_URL": emulator.base_url}
        with site(None, **where) as served, Visit(chromium, served) as visit:
            visit.find("Water")
            visit.choose(3)
            visit.page.click("#explain")
            visit.explained()
            expect(visit.page.locator("#progress-text")).to_contain_text(re.compile("of 3|All 3"))
            left = visit.page.locator("#gauge-text")
            expect(left).to_contain_text("of 12 requests left this minute")
            expect(left).not_to_contain_text("12 of 12")
            asked, from_cache = visit.page.evaluate(FETCHED_TWICE)
            assert asked > 0
            assert from_cache == 0, "a browser keeps results by content (S4-11)"
        assert emulator.report().totals.faults == {"high_demand": 1}


def test_the_whole_way_by_keyboard(chromium: Browser, ample: Site, tmp_path: Path) -> None:
    """From a topic to files, without a mouse; the focus goes along, what a model wrote is text."""
    ample.model = slow
    with Visit(chromium, ample) as visit:
        page, keyboard = visit.page, visit.page.keyboard
        keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        keyboard.press("Enter")
        keyboard.press("Tab")
        expect(page.locator("#topic")).to_be_focused()
        keyboard.press("Enter")
        expect(page.locator("#topic-problem")).to_have_text("Write a topic, or choose a picture.")
        expect(page.locator("#topic")).to_have_attribute("aria-invalid", "true")
        keyboard.type("Rainbows")
        expect(page.locator("#topic-problem")).to_be_hidden()
        for _ in range(5):
            keyboard.press("Tab")
        expect(page.locator("#find")).to_be_focused()
        keyboard.press("Enter")
        expect(page.locator("#choose-title")).to_be_focused()
        expect(page.locator("#chosen-count")).to_have_text("Chosen: 5 of 15")
        for _ in range(2 + 1 + 5):  # the buttons, then as far as the first that is not chosen
            keyboard.press("Tab")
        keyboard.press("Space")
        expect(page.locator("#chosen-count")).to_have_text("Chosen: 6 of 15")
        page.locator("#own").focus()
        keyboard.type("Moonbows")
        keyboard.press("Enter")
        expect(page.locator("#chosen-count")).to_have_text("Chosen: 7 of 16")
        expect(page.locator("#fits")).to_contain_text("Needs up to 7 requests")
        page.locator("#explain").focus()
        keyboard.press("Enter")
        expect(page.locator("#read-title")).to_be_focused()
        expect(page.locator("#progress-text")).to_have_text(re.compile(r"\d of 7 explained"))
        visit.explained()
        expect(page.locator("#progress-text")).to_have_text("All 7 explained.")
        expect(page.locator("#status")).to_have_text("All 7 explained.")
        assert page.locator("#pages h2").all_inner_texts() == [*SUBTOPICS[:6], "Moonbows"]
        assert page.locator("#pages img, #pages b:not(.world b)").count() == 0
        expect(page.locator("#pages .text").first).to_contain_text("<img src=x onerror=alert(1)>")
        with page.expect_download() as saved:
            page.locator("#to-markdown").press("Enter")
        assert saved.value.suggested_filename == "Rainbows.md"
        text = Path(saved.value.path()).read_text(encoding="utf-8")
        assert text.startswith("# Rainbows\n\n## How light bends in a drop\n\n")
        assert "\\<img src=x onerror=alert(1)\\>" in text
        assert text.count("\n## ") == 7
        with page.expect_download() as saved:
            page.locator("#to-html").press("Enter")
        kept = tmp_path / "kept.html"
        saved.value.save_as(kept)
        alone = visit.context.new_page()
        alone.on("dialog", lambda dialog: visit.complaints.append(dialog.message))
        alone.goto(kept.as_uri())
        assert alone.locator("h2").all_inner_texts() == [*SUBTOPICS[:6], "Moonbows"]
        assert alone.locator("img").count() == 0
        alone.close()
        page.emulate_media(media="print")
        for hidden in (".bar", "#exports", ".way", "footer"):
            expect(page.locator(hidden)).to_be_hidden()
        assert page.locator("#pages .text").first.is_visible()
        page.emulate_media(media="screen")
        page.reload()
        visit.ready()
        assert page.locator("#pages h2").count() == 7, "a reload loses nothing"


def test_a_picture_is_a_beginning(chromium: Browser, ample: Site) -> None:
    ample.model = model
    with Visit(chromium, ample) as visit:
        page = visit.page
        page.set_input_files("#image", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"x"})
        expect(page.locator("#image-note")).to_have_text("This is no PNG, JPEG, GIF or WebP.")
        shown = {"name": "a.png", "mimeType": "image/png", "buffer": picture("PNG", (64, 48))}
        page.set_input_files("#image", shown)
        expect(page.locator("#topic")).to_have_value("Lighthouses at dusk")
        expect(page.locator("#preview")).to_be_visible()
        broken = {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"}
        page.set_input_files("#image", broken)
        expect(page.locator(".notice strong")).to_have_text("The service does not accept this.")


def test_what_fails_is_said_in_its_place_and_can_be_tried_again(chromium: Browser, ample: Site) -> None:
    ample.model = model
    with Visit(chromium, ample) as visit:
        page = visit.page
        visit.find("Rainbows and luck")
        visit.choose(2)
        page.fill("#own", "An unlucky one")
        page.click("#add")
        page.click("#explain")
        visit.explained()
        expect(page.locator("#progress-text")).to_contain_text("2 of 3 explained")
        expect(page.locator(".failed")).to_have_text("This one could not be explained.")
        expect(page.locator(".failed + p")).to_have_text("What the model wrote was not good enough.")
        visit.check_access("a failed one")
        ample.model = lucky
        page.get_by_role("button", name="Try again: An unlucky one").click()
        expect(page.locator("#progress-text")).to_have_text("All 3 explained.")
        # Upstream refuses everything: the service says so, and nothing that was there is lost.
        ample.model = lambda _: refused(400)
        page.click("#again-topic")
        page.fill("#topic", "Something else")
        page.click("#find")
        expect(page.get_by_role("alert")).to_be_visible()
        expect(page.locator("#topic")).to_have_value("Something else")
        ample.model = model
        page.get_by_role("button", name="Try again").click()
        page.wait_for_selector("#step-choose:not([hidden])")
        expect(page.get_by_role("alert")).to_have_count(0)


def test_quota_that_is_used_up_says_when_and_how_much(chromium: Browser) -> None:
    """Four requests a minute: one finds subtopics, three explain, and a fourth has to wait."""
    with site(QUOTA_RPM="5") as small, Visit(chromium, small) as visit:
        page = visit.page
        expect(page.locator("#gauge-text")).to_have_text("4 of 4 requests left this minute")
        visit.find()
        expect(page.locator("#gauge-text")).to_have_text("3 of 4 requests left this minute")
        visit.choose(4)
        expect(page.locator("#fits")).to_have_text(
            "Needs up to 4 requests, but only 3 are left this minute."
        )
        page.click("#gauge summary")
        expect(page.locator("#quota-rows tr").first).to_have_text(
            re.compile(r"Requests a minute\s*1\s*3")
        )
        visit.check_access("the gauge open")
        page.keyboard.press("Escape")
        expect(page.locator("#quota-rows")).to_be_hidden()
        page.click("#explain")
        notice = page.get_by_role("alert")
        expect(notice).to_contain_text("There is quota for 3 of these now.")
        expect(notice).to_contain_text(re.compile(r"It goes on in \d+ seconds\."))
        expect(notice.get_by_role("button", name="Try again")).to_be_disabled()
        visit.check_access("quota used up")
        notice.get_by_role("button", name="Explain the first 3").click()
        expect(page.locator("#progress-text")).to_contain_text("3 of 4 explained")
        expect(page.locator("#gauge-text")).to_have_text("0 of 4 requests left this minute")
        expect(page.locator("#gauge")).to_have_class(re.compile("low"))
        page.get_by_role("button", name=f"Try again: {SUBTOPICS[3]}").click()
        expect(notice).to_contain_text("The quota is used up for now.")
        page.evaluate(TOMORROW, f"assets/{version()}/notices.js")
        expect(notice).to_contain_text(re.compile(r"It goes on at \w+day.* \d+:\d\d"))


def test_without_a_network_nothing_is_lost(chromium: Browser, ample: Site) -> None:
    ample.model = model
    with Visit(chromium, ample) as visit:
        page = visit.page
        visit.find("Rainbows without a network")
        visit.context.set_offline(True)
        expect(page.get_by_role("alert")).to_contain_text("No connection to the service.")
        page.click("#explain")
        expect(page.get_by_role("alert")).to_contain_text("Nothing is lost.")
        visit.context.set_offline(False)
        expect(page.get_by_role("alert")).to_have_count(0)
        page.locator("#pages button").first.click()
        expect(page.locator("#pages .text").first).to_be_visible()
        page.click("#back-choose")
        page.click("#explain")
        visit.explained()
        expect(page.locator("#progress-text")).to_have_text("All 5 explained.")


def test_what_is_under_way_can_be_stopped(chromium: Browser, ample: Site) -> None:
    ample.model = lambda body: model(body, delay=0.0 if "one 1" in prompt_of(body) else 30.0)
    with Visit(chromium, ample) as visit:
        page = visit.page
        ample.model, hanging = model, ample.model
        visit.find("Rainbows to stop")
        ample.model = hanging
        page.click("#none")
        for number in (1, 2, 3):
            page.fill("#own", f"one {number}")
            page.click("#add")
        page.click("#explain")
        expect(page.locator("#progress-text")).to_have_text("1 of 3 explained")
        page.click("#stop")
        expect(page.locator("#exports")).to_be_visible()
        expect(page.locator("#progress-text")).to_contain_text("1 of 3 explained")
        expect(page.get_by_role("alert")).to_have_count(0)


def test_a_service_that_asks_for_a_key_gets_one(chromium: Browser) -> None:
    """Once, for this tab; a wrong one is asked for again."""
    with site(HEADGATE_CALLER_KEYS=f"{CALLER_KEY}|ann") as keyed, Visit(chromium, keyed) as visit:
        page = visit.page
        page.fill("#topic", "Rainbows")
        page.click("#find")
        expect(page.locator("#key-dialog")).to_be_visible()
        visit.check_access("the key is asked for")
        expect(page.locator("#key-problem")).to_be_hidden()
        page.fill("#key", "not-the-key-of-anybody")
        page.keyboard.press("Enter")
        expect(page.locator("#key-problem")).to_have_text("The service does not know this key.")
        page.fill("#key", CALLER_KEY)
        page.keyboard.press("Enter")
        page.wait_for_selector("#step-choose:not([hidden])")
        expect(page.locator("#key-dialog")).to_be_hidden()
        assert CALLER_KEY not in page.url
        stored = page.evaluate("JSON.stringify([{...localStorage}, document.cookie])")
        assert CALLER_KEY not in stored


def test_every_step_is_for_everybody(chromium: Browser, ample: Site) -> None:
    """Light and dark, on a desk and on a phone."""
    ample.model = model
    with Visit(chromium, ample) as visit:
        page = visit.page
        looks = {
            "topic": (("light", DESK), ("dark", PHONE)),
            "choose": (("dark", DESK), ("light", PHONE)),
            "read": (("light", DESK), ("dark", PHONE)),
        }
        for step, some in looks.items():
            for scheme, size in some:
                page.emulate_media(color_scheme=scheme)
                page.set_viewport_size(size)
                visit.check_access(f"{step} {scheme} {size['width']}")
            if step == "topic":
                visit.find("Rainbows for everybody")
            elif step == "choose":
                visit.choose(2)
                page.click("#explain")
                visit.explained()


def test_ten_languages_in_both_directions(chromium: Browser, ample: Site) -> None:
    """On a phone: words, direction and digits change, and the choice is remembered by the service."""
    ample.model = model
    asked: list[str] = []

    def listening(body: Mapping[str, Any]) -> Answer:
        asked.append(system_of(body))
        return model(body)

    ample.model = listening
    with Visit(chromium, ample, viewport=PHONE) as visit:
        page, titles = visit.page, set()
        for tongue in TONGUES:
            page.select_option("#language", tongue)
            page.wait_for_selector(f"html[lang={tongue}]")
            direction = "rtl" if tongue in TO_THE_LEFT else "ltr"
            expect(page.locator("html")).to_have_attribute("dir", direction)
            titles.add(page.locator("#topic-title").inner_text())
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, tongue
        assert len(titles) == len(TONGUES)
        page.select_option("#language", "fa")
        expect(page.locator("#gauge-text")).to_contain_text("۸۰۰")
        page.fill("#topic", "رنگین‌کمان")
        page.click("#find")
        page.wait_for_selector("#step-choose:not([hidden])")
        page.click("#explain")
        visit.explained()
        visit.check_access("explained to the left")
        assert any("in Persian" in prompt for prompt in asked)
        again = visit.context.new_page()  # another tab, which knows nothing but the cookie
        again.goto(ample.url)
        again.wait_for_selector("html[data-ready]")
        expect(again.locator("html")).to_have_attribute("lang", "fa")
        (cookie,) = visit.context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("session_id", True, "Lax")


def test_every_language_says_everything() -> None:
    """The same words with the same values in them, and every word that the page asks for."""
    folder = files("headgate.content").joinpath("assets")
    words: dict[str, dict[str, str]] = {}
    for tongue in TONGUES:
        text = folder.joinpath("words", f"{tongue}.js").read_text(encoding="utf-8")
        words[tongue] = dict(re.findall(r'\b(\w+): "((?:[^"\\]|\\.)*)"', text))
    for tongue in TONGUES[1:]:
        assert words[tongue].keys() == words["en"].keys(), tongue
        for name, text in words["en"].items():
            values = set(re.findall(r"\{\w+\}", text))
            assert set(re.findall(r"\{\w+\}", words[tongue][name])) == values, (tongue, name)
    page = folder.joinpath("index.html").read_text(encoding="utf-8")
    scripts = [each for each in folder.iterdir() if each.name.endswith(".js")]
    code = "".join(each.read_text(encoding="utf-8") for each in scripts)
    used = set(re.findall(r'data-w(?:-label)?="(\w+)"', page)) | set(re.findall(r'\bt\("(\w+)"', code))
    assert used <= words["en"].keys()
    for name in words["en"].keys() - used:  # those that are chosen by what happened
        assert f'"{name}"' in code, f"{name} is said nowhere"
