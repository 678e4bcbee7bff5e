"""How the page is served: strict, complete, kept by what its files are (issue 7, 5; trust 5.3)."""

from __future__ import annotations

import gzip
import re

import pytest
from tests.dressed import Dressed

from headgate.content.page import Page, assets, version


def policy(headers: dict[str, str]) -> dict[str, list[str]]:
    rules = [rule.split() for rule in headers["content-security-policy"].split(";")]
    return {name: values for name, *values in rules}


async def test_the_page_runs_nothing_but_its_own_files() -> None:
    app = Dressed(Page())
    got = await app.ask("GET", "/")
    assert (got.status, got.headers["content-type"]) == (200, "text/html; charset=utf-8")
    rules = policy(got.headers)
    assert rules["default-src"] == ["'none'"]
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == ["'self'"]
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == ["'none'"]
    assert rules["require-trusted-types-for"] == ["'script'"]
    assert "unsafe" not in got.headers["content-security-policy"]
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["referrer-policy"] == "no-referrer"
    text = got.body.decode()
    assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:", text), "nothing that it would refuse"
    assert re.findall(r"<script(.*?)>", text) == [f' type="module" src="assets/{version()}/app.js"']
    assert "{version}" not in text


async def test_files_are_kept_for_good_under_a_name_that_changes_with_them() -> None:
    app = Dressed(Page())
    names = re.findall(rf"assets/{version()}/([\w./]+)", (await app.ask("GET", "/")).body.decode())
    scripts = {name for name in assets() if name.endswith(".js") and not name.startswith("words/")}
    assert scripts <= set(names), "all are asked for at once, not one after another"
    for name in [*names, "words/fa.js", "speech.js"]:
        got = await app.ask("GET", f"/assets/{version()}/{name}")
        assert (got.status, got.body) == (200, assets()[name])
        assert got.headers["cache-control"] == "public, max-age=31536000, immutable"
        head = await app.ask("HEAD", f"/assets/{version()}/{name}")
        assert (head.body, head.headers) == (b"", got.headers)
        packed = await app.ask(
            "GET", f"/assets/{version()}/{name}", headers={"accept-encoding": "gzip"}
        )
        assert gzip.decompress(packed.body) == assets()[name]
        assert packed.headers["vary"] == got.headers["vary"] == "Accept-Encoding"
    old = await app.ask("GET", "/assets/0123456789abcdef/app.js")
    assert (old.status, old.headers["cache-control"]) == (200, "no-store"), "while they change over"


@pytest.mark.parametrize(
    "name", ["index.html", "../page.py", "..%2fpage.py", "words", "words/", "nothing.js", "/etc/passwd"]
)
async def test_there_is_nothing_else(name: str) -> None:
    got = await Dressed(Page()).ask("GET", f"/assets/{version()}/{name}")
    assert got.status == 404
    assert "error" in got.json


async def test_the_page_itself_is_asked_about() -> None:
    app = Dressed(Page())
    got = await app.ask("GET", "/")
    assert got.headers["cache-control"] == "no-cache"
    zipped = {"accept-encoding": "gzip"}
    packed = await app.ask("GET", "/", headers=zipped)
    assert gzip.decompress(packed.body) == got.body
    tags = [each.headers["etag"] for each in (got, packed)]
    assert tags[0] != tags[1]
    for tag, more in zip(tags, ({}, zipped), strict=True):
        again = await app.ask("GET", "/", headers={"if-none-match": tag, **more})
        assert (again.status, again.body) == (304, b"")
    assert (await app.ask("GET", "/", headers={"if-none-match": '"x"'})).status == 200


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """Its own files only; what they import is there; addresses of others are links for people."""
    imported = set()
    for name, content in assets().items():
        text = content.decode()
        folder = name.rpartition("/")[0]
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text), name
        for module in re.findall(r'from "(\.[^"]+)"', text):
            imported.add(f"{folder}/{module[2:]}".strip("/"))
        for address in re.findall(r"https?://[\w.]+", text):
            assert address in ("https://www.youtube.com", "http://www.w3.org"), (name, address)
        assert len(text.splitlines()) <= 400, name
    assert imported <= set(assets())
    assert imported == {name for name in assets() if re.fullmatch(r"[a-z]+\.js", name)} - {"app.js"} | {
        "words/en.js"
    }
