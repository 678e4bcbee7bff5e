"""Files and caches through the gateway: what names one goes to a key of its project or nowhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.gateway import CALLER_KEY, CALLERS, GEMINI_KEYS, ask, scripted_gateway
from tests.support import MODEL, bad_key, failure, quota, said

from headgate.gateway.worker_link import Crew
from headgate.testing import Answer, Sent, VirtualClock
from headgate.wiring.gateway_settings import GatewaySettings

ENVIRON = {
    "GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|a1|alpha,{GEMINI_KEYS[1]}|b1|beta",
    "HEADGATE_MAX_WAIT_SECONDS": "100",
}
GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
BASE = "https://generativelanguage.googleapis.com"


class Google:
    """Two projects that keep files and caches, each its own."""

    def __init__(self) -> None:
        self.kept: dict[str, set[str]] = {GEMINI_KEYS[0]: set(), GEMINI_KEYS[1]: set()}
        self.log: list[tuple[str, str, str]] = []  # key, method, path
        self.upload_url = f"{BASE}/upload/v1beta/files?upload_id=CANARY-id&upload_protocol=resumable"
        self.refusal: Answer | None = None

    def __call__(self, sent: Sent) -> Answer:
        key, request = sent.credential["x-goog-api-key"], sent.request
        path = request.url.removeprefix(BASE)
        self.log.append((key, request.method, path))
        assert set(sent.credential) == {"x-goog-api-key"}
        if self.refusal is not None:
            refusal, self.refusal = self.refusal, None
            return refusal
        if path.startswith("/upload/"):
            return self.upload(request.headers, key)
        kind, _, name = path.partition("?")[0].removeprefix("/v1beta/").partition("/")
        if kind not in ("files", "cachedContents"):
            return self.generate(key, request.body)
        if request.method == "POST":
            return self.made(key, f"{kind}/c{len(self.log)}")
        if not name:
            return self.page(key, kind, path)
        if f"{kind}/{name}" not in self.kept[key]:
            return failure(403, "You do not have permission to access the File or it may not exist.",
                           "PERMISSION_DENIED")  # fmt: skip
        if request.method == "DELETE":
            self.kept[key].discard(f"{kind}/{name}")
            return Answer(body=b"{}")
        return Answer(body=json.dumps({"name": f"{kind}/{name}"}).encode())

    def upload(self, headers: Any, key: str) -> Answer:
        if headers["x-goog-upload-command"] == "start":
            urls = dict.fromkeys(("x-goog-upload-url", "x-goog-upload-control-url"), self.upload_url)
            return Answer(headers={**urls, "x-goog-upload-status": "active"})
        if "finalize" not in headers["x-goog-upload-command"]:
            return Answer(headers={"x-goog-upload-status": "active"})
        self.kept[key].add("files/up")
        body = json.dumps({"file": {"name": "files/up", "uri": f"{BASE}/v1beta/files/up"}}).encode()
        return Answer(body=body, headers={"x-goog-upload-status": "final"})

    def made(self, key: str, name: str) -> Answer:
        self.kept[key].add(name)
        return Answer(body=json.dumps({"name": name, "model": "models/m"}).encode())

    def page(self, key: str, kind: str, path: str) -> Answer:
        """One to a page."""
        names = sorted(name for name in self.kept[key] if name.startswith(kind))
        start = int(path.partition("pageToken=")[2] or 0)
        body: dict[str, object] = {}
        if names[start : start + 1]:
            body[kind] = [{"name": names[start]}]
        if names[start + 1 :]:
            body["nextPageToken"] = str(start + 1)
        return Answer(body=json.dumps(body).encode())

    def generate(self, key: str, body: bytes) -> Answer:
        for name in ("files/up", "cachedContents/c1"):
            if name.encode() in body and name not in self.kept[key]:
                return failure(
                    403, "CachedContent not found (or permission denied)", "PERMISSION_DENIED"
                )
        return said()

    def keys(self) -> list[str]:
        return [key for key, _, _ in self.log]


@pytest.fixture
def google() -> Google:
    return Google()


def using(*names: str) -> dict[str, Any]:
    parts = [{"file_data": {"file_uri": f"{BASE}/v1beta/{n}"}} for n in names if n.startswith("files")]
    body: dict[str, Any] = {"contents": [{"parts": [{"text": "hi"}, *parts]}]}
    for name in names:
        if name.startswith("cached"):
            body["cachedContent"] = name
    return body


async def test_a_call_with_a_cache_goes_to_the_key_that_made_it(
    clock: VirtualClock, google: Google
) -> None:
    """Point 20 of what is most often got wrong."""
    gateway, _ = scripted_gateway(google, clock, environ=ENVIRON)
    made = await ask(gateway, "POST", "/gemini/v1beta/cachedContents", {"model": "models/m"})
    name, owner = made.json["name"], google.keys()[-1]
    for _ in range(4):
        got = await ask(gateway, "POST", GENERATE, using(name))
        assert got.status == 200
    assert google.keys()[1:] == [owner] * 4
    await ask(gateway, "POST", GENERATE, using())
    await ask(gateway, "POST", GENERATE, using())
    assert len(set(google.keys()[-2:])) == 2, "calls without one go to each in turn"


async def test_what_belongs_to_a_project_is_never_rotated_away_from_it(
    clock: VirtualClock, google: Google
) -> None:
    gateway, _ = scripted_gateway(google, clock, environ=ENVIRON)
    name = (await ask(gateway, "POST", "/gemini/v1beta/cachedContents", {"model": "models/m"})).json[
        "name"
    ]
    owner = google.keys()[-1]
    google.refusal = quota("Minute", "20s")
    got = await ask(gateway, "POST", GENERATE, using(name))
    assert got.status == 200
    assert google.keys()[1:] == [owner, owner]
    assert clock.monotonic() >= 20, "it waited for the project, though another had room"


@pytest.mark.parametrize("rpm", ["", "1"])
async def test_with_declared_quotas_it_waits_for_its_own_project_too(
    clock: VirtualClock, google: Google, rpm: str
) -> None:
    environ = {**ENVIRON, "HEADGATE_QUOTA_RPM": rpm} if rpm else ENVIRON
    gateway, _ = scripted_gateway(google, clock, environ=environ)
    name = (await ask(gateway, "POST", "/gemini/v1beta/cachedContents", {"model": "models/m"})).json[
        "name"
    ]
    owner = google.keys()[-1]
    for _ in range(2):
        assert (await ask(gateway, "POST", GENERATE, using(name))).status == 200
    assert google.keys()[1:] == [owner, owner]
    assert (clock.monotonic() > 10) is bool(rpm)


async def test_a_name_nobody_remembers_is_looked_for(clock: VirtualClock, google: Google) -> None:
    """Another process made it, or this one began anew."""
    google.kept[GEMINI_KEYS[1]].add("files/up")
    gateway, _ = scripted_gateway(google, clock, environ=ENVIRON)
    got = await ask(gateway, "POST", GENERATE, using("files/up"))
    assert got.status == 200
    assert [(key, method) for key, method, _ in google.log] == [
        (GEMINI_KEYS[0], "GET"), (GEMINI_KEYS[1], "GET"), (GEMINI_KEYS[1], "POST"),
    ]  # fmt: skip
    google.log.clear()
    await ask(gateway, "POST", GENERATE, using("files/up"))
    assert google.keys() == [GEMINI_KEYS[1]], "and then it is remembered"


async def test_a_name_that_is_nobodys_is_refused_as_google_does_and_not_looked_for_again(
    clock: VirtualClock, google: Google
) -> None:
    gateway, _ = scripted_gateway(google, clock, environ=ENVIRON)
    for _ in range(2):
        got = await ask(gateway, "GET", "/gemini/v1beta/files/gone")
        assert (got.status, got.json["error"]["status"]) == (403, "PERMISSION_DENIED")
    assert len(google.log) == 2 + 1 + 1
    await clock.sleep(61)
    await ask(gateway, "GET", "/gemini/v1beta/files/gone")
    assert len(google.log) == 4 + 2 + 1


async def test_two_projects_things_fit_no_call(clock: VirtualClock, google: Google) -> None:
    google.kept[GEMINI_KEYS[0]].add("files/up")
    google.kept[GEMINI_KEYS[1]].add("cachedContents/c1")
    gateway, _ = scripted_gateway(google, clock, environ=ENVIRON)
    got = await ask(gateway, "POST", GENERATE, using("files/up", "cachedContents/c1"))
    assert got.status == 400
    assert "different projects" in got.json["error"]["message"]
    assert all(method == "GET" for _, method, _ in google.log)


async def test_addresses_elsewhere_and_words_of_the_prompt_bind_nothing(
    clock: VirtualClock, google: Google
) -> None:
    gateway, _ = scripted_gateway(google, clock, environ=ENVIRON)
    body = using()
    body["contents"][0]["parts"] += [
        {"text": "files/zz"}, {"fileData": {"fileUri": "https://video.test/watch?v=files"}},
        {"fileData": {"fileUri": 7}},
    ]  # fmt: skip
    for _ in range(2):
        assert (await ask(gateway, "POST", GENERATE, body)).status == 200
    assert len(set(google.keys())) == len(google.keys()) == 2


async def test_a_list_goes_through_every_project(clock: VirtualClock, google: Google) -> None:
    google.kept[GEMINI_KEYS[0]] |= {"files/a", "files/b", "cachedContents/x"}
    google.kept[GEMINI_KEYS[1]] |= {"files/c"}
    gateway, _ = scripted_gateway(google, clock, environ=ENVIRON)
    for kind, expected in (("files", ["a", "b", "c"]), ("cachedContents", ["x"])):
        found, token, pages = [], "", 0
        while True:
            query = f"?pageToken={token}" if token else ""
            got = await ask(gateway, "GET", f"/gemini/v1beta/{kind}{query}")
            found += [row["name"] for row in got.json.get(kind, [])]
            token, pages = got.json.get("nextPageToken", ""), pages + 1
            if not token:
                break
        assert found == [f"{kind}/{name}" for name in expected]
        assert pages <= len(expected) + 1
    for token in ("9.", "x", "-1.", "99999."):
        got = await ask(gateway, "GET", f"/gemini/v1beta/files?pageToken={token}")
        assert got.status == 400


async def test_deleting_and_changing_go_to_the_owner(clock: VirtualClock, google: Google) -> None:
    google.kept[GEMINI_KEYS[1]].add("cachedContents/c1")
    gateway, transport = scripted_gateway(google, clock, environ=ENVIRON)
    path = "/gemini/v1beta/cachedContents/c1"
    got = await ask(gateway, "PATCH", f"{path}?updateMask=ttl", {"ttl": "60s"})
    assert got.status == 200
    assert transport.sent[-1].request.url.endswith("/cachedContents/c1?updateMask=ttl")
    assert (await ask(gateway, "DELETE", path)).json == {}
    assert google.keys()[-1] == GEMINI_KEYS[1]
    assert (await ask(gateway, "PUT", path)).status == 405


async def test_what_makes_something_is_not_sent_twice(clock: VirtualClock, google: Google) -> None:
    gateway, _ = scripted_gateway(google, clock, environ=ENVIRON)
    google.refusal = failure(503, "The model is overloaded.", "UNAVAILABLE")
    got = await ask(gateway, "POST", "/gemini/v1beta/cachedContents", {"model": "models/m"})
    assert got.status == 503
    assert len(google.log) == 1


# ── uploads ─────────────────────────────────────────────────────────────────────────────────────

START = {
    "x-goog-upload-protocol": "resumable",
    "x-goog-upload-command": "start",
    "x-goog-upload-header-content-length": "5",
    "x-goog-upload-header-content-type": "text/plain",
}


async def test_an_upload_goes_on_at_the_gateway_with_the_key_that_began_it(
    clock: VirtualClock, google: Google
) -> None:
    """Point 19: the SDK follows the address it is given, and sends no key with the bytes."""
    settings = GatewaySettings(callers=CALLERS)
    gateway, transport = scripted_gateway(google, clock, environ=ENVIRON, settings=settings)
    headers = {**START, "x-goog-api-key": CALLER_KEY, "host": "gate.test:8080"}
    got = await ask(gateway, "POST", "/gemini/upload/v1beta/files", {"file": {}}, headers)
    url = got.headers["x-goog-upload-url"]
    assert url.startswith("http://gate.test:8080/gemini/upload/v1beta/files?upload_id=")
    assert got.headers["x-goog-upload-control-url"] == url
    assert "CANARY-id" not in url
    first = google.keys()[-1]
    path = url.removeprefix("http://gate.test:8080")
    for command in ("upload", "upload, finalize"):
        more = {"x-goog-upload-command": command, "x-goog-upload-offset": "0", "host": "gate.test:8080",
                "content-type": "application/octet-stream"}  # fmt: skip
        got = await ask(gateway, "POST", path, b"\x00\xffraw", more)
        assert got.status == 200
        sent = transport.sent[-1]
        assert sent.request.body == b"\x00\xffraw"
        assert sent.request.url == google.upload_url
        assert google.keys()[-1] == first
    assert got.headers["x-goog-upload-status"] == "final"
    assert got.json["file"]["name"] == "files/up"
    key = {"x-goog-api-key": CALLER_KEY}
    assert (await ask(gateway, "POST", GENERATE, using("files/up"), key)).status == 200
    assert google.keys()[-1] == first
    assert (await ask(gateway, "POST", path, b"more", more)).status == 401, "the ticket is used up"


async def test_an_upload_goes_on_at_another_worker(clock: VirtualClock, google: Google) -> None:
    """It knows the ticket, and that a key of the same project must serve it."""
    settings = GatewaySettings(callers=CALLERS)
    crews = [Crew(number, 2, 2, "CANARY-seal") for number in (1, 2)]
    first, second = (
        scripted_gateway(google, clock, environ=ENVIRON, settings=settings, crew=crew)[0]
        for crew in crews
    )
    stranger, _ = scripted_gateway(google, clock, environ=ENVIRON, settings=settings)
    headers = {**START, "x-goog-api-key": CALLER_KEY, "host": "gate.test"}
    got = await ask(first, "POST", "/gemini/upload/v1beta/files", {"file": {}}, headers)
    path, began = got.headers["x-goog-upload-url"].removeprefix("http://gate.test"), google.keys()[-1]
    more = {"x-goog-upload-command": "upload, finalize", "x-goog-upload-offset": "0",
            "content-type": "application/octet-stream"}  # fmt: skip
    assert (await ask(stranger, "POST", path, b"raw", more)).status == 401, "another gateway's"
    assert (await ask(second, "POST", path, b"raw", more)).status == 200
    assert google.keys()[-1] == began


async def test_no_ticket_no_upload(clock: VirtualClock, google: Google) -> None:
    gateway, _ = scripted_gateway(google, clock, environ=ENVIRON)
    got = await ask(gateway, "POST", "/gemini/upload/v1beta/files?upload_id=guess", b"x",
                    {"x-goog-upload-command": "upload", "content-type": "text/plain"})  # fmt: skip
    assert got.status == 404
    with_callers, _ = scripted_gateway(
        google, clock, environ=ENVIRON, settings=GatewaySettings(callers=CALLERS)
    )
    got = await ask(with_callers, "POST", "/gemini/upload/v1beta/files?upload_id=guess", b"x")
    assert got.status == 401
    assert not google.log


async def test_an_upload_that_would_go_on_elsewhere_is_refused(
    clock: VirtualClock, google: Google
) -> None:
    """No key of ours is sent to a host that an answer names."""
    gateway, _ = scripted_gateway(google, clock, environ=ENVIRON)
    google.upload_url = "https://evil.test/upload/v1beta/files?upload_id=x"
    got = await ask(gateway, "POST", "/gemini/upload/v1beta/files", {"file": {}}, START)
    assert got.status == 502
    assert "x-goog-upload-url" not in got.headers


async def test_behind_a_proxy_uploads_go_on_at_the_public_address(
    clock: VirtualClock, google: Google
) -> None:
    settings = GatewaySettings(public_url="https://llm.example")
    gateway, _ = scripted_gateway(google, clock, environ=ENVIRON, settings=settings)
    got = await ask(gateway, "POST", "/upload/v1beta/files", {"file": {}}, START)
    assert got.headers["x-goog-upload-url"].startswith(
        "https://llm.example/gemini/upload/v1beta/files?"
    )


async def test_without_a_key_of_its_project_nothing_serves_it(
    clock: VirtualClock, google: Google
) -> None:
    gateway, _ = scripted_gateway(google, clock, environ=ENVIRON)
    made = await ask(gateway, "POST", "/gemini/v1beta/cachedContents", {"model": "models/m"})
    owner = google.keys()[-1]
    google.refusal = bad_key()
    got = await ask(gateway, "POST", GENERATE, using(made.json["name"]))
    assert (got.status, got.headers["x-should-retry"]) == (503, "false")
    assert google.keys()[1:] == [owner]
    got = await ask(gateway, "POST", GENERATE, using())
    assert got.status == 200, "what names nothing goes to the other project"


async def test_with_one_project_nothing_need_be_looked_for(clock: VirtualClock, google: Google) -> None:
    environ = {"GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|a1|alpha,{GEMINI_KEYS[1]}|a2|alpha"}
    gateway, _ = scripted_gateway(google, clock, environ=environ)
    google.kept[GEMINI_KEYS[0]] = google.kept[GEMINI_KEYS[1]] = {"files/up"}
    for _ in range(2):
        assert (await ask(gateway, "POST", GENERATE, using("files/up"))).status == 200
    assert [method for _, method, _ in google.log] == ["POST", "POST"]
