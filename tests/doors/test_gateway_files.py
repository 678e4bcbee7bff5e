"""google-genai, unmodified, uploads files and makes caches through the gateway, with two projects."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from google import genai
from google.genai import types
from tests.gateway import CALLER_KEY, CALLERS, GEMINI_KEYS, GatewayInThread

from headgate.wiring.gateway_settings import GatewaySettings

MODEL = "gemini-3.5-flash"
ENVIRON = {"GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|a1|alpha,{GEMINI_KEYS[1]}|b1|beta"}
SETTINGS = GatewaySettings(callers=CALLERS, linger_seconds=0.0)


class Google(BaseHTTPRequestHandler):
    """Keeps files and caches for the key they came with, and shows them to no other."""

    protocol_version = "HTTP/1.1"
    kept: dict[str, tuple[str, bytes]] = {}  # noqa: RUF012 - of all connections
    asked: list[tuple[str, str]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.look()

    def do_DELETE(self) -> None:
        if self.look():
            del self.kept[self.name()]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        key = self.headers["x-goog-api-key"]
        self.asked.append((key, self.path))
        if self.path.startswith("/upload/"):
            self.upload(key, body)
        elif self.path.endswith("/cachedContents"):
            name = f"cachedContents/c{len(self.kept)}"
            self.kept[name] = (key, body)
            self.say({"name": name, "model": f"models/{MODEL}"})
        else:
            named = [name for name in self.kept if name in body.decode()]
            if any(self.kept[name][0] != key for name in named):
                self.refuse()
                return
            part = {"text": f"{len(named)} of yours"}
            candidate = {"content": {"parts": [part], "role": "model"}, "finishReason": "STOP"}
            self.say({"candidates": [candidate], "usageMetadata": {"promptTokenCount": 3}})

    def upload(self, key: str, body: bytes) -> None:
        if self.headers["x-goog-upload-command"] == "start":
            host = f"http://127.0.0.1:{self.server.server_address[1]}"
            name = f"f{len(self.kept)}"
            self.kept[f"files/{name}"] = (key, b"")
            self.say({}, **{"x-goog-upload-url": f"{host}/upload/v1beta/files?upload_id={name}",
                            "x-goog-upload-status": "active"})  # fmt: skip
            return
        name = f"files/{self.path.partition('upload_id=')[2]}"
        owner, before = self.kept[name]
        assert owner == key, "bytes come with the key of the first step"
        self.kept[name] = (owner, before + body)
        final = "finalize" in self.headers["x-goog-upload-command"]
        file = {"name": name, "uri": f"https://generativelanguage.googleapis.com/v1beta/{name}",
                "mimeType": "text/plain", "state": "ACTIVE"}  # fmt: skip
        self.say({"file": file}, **{"x-goog-upload-status": "final" if final else "active"})

    def name(self) -> str:
        return "/".join(self.path.partition("?")[0].split("/")[2:])

    def look(self) -> bool:
        key = self.headers["x-goog-api-key"]
        self.asked.append((key, self.path))
        owner, _ = self.kept.get(self.name(), ("", b""))
        if owner != key:
            self.refuse()
            return False
        self.say({"name": self.name()} if self.command == "GET" else {})
        return True

    def refuse(self) -> None:
        what = "You do not have permission to access the File or it may not exist."
        error = {"code": 403, "message": what, "status": "PERMISSION_DENIED"}
        self.say({"error": error}, 403)

    def say(self, body: Any, status: int = 200, **headers: str) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def client() -> Iterator[genai.Client]:
    Google.kept.clear()
    Google.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Google)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    with GatewayInThread(url, environ=ENVIRON, settings=SETTINGS) as served:
        options = types.HttpOptions(base_url=f"{served.base_url}/gemini", api_version="v1beta")
        made = genai.Client(api_key=CALLER_KEY, http_options=options)
        yield made
        made.close()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_is_uploaded_used_shown_and_deleted_by_one_key(client: genai.Client) -> None:
    """Points 19 and 20: ten megabytes, in the SDK's pieces of eight."""
    content = bytes(range(256)) * 40_000
    config = types.UploadFileConfig(mime_type="text/plain", display_name="x")
    file = client.files.upload(file=io.BytesIO(content), config=config)
    owner, kept = Google.kept[str(file.name)]
    assert kept == content
    for _ in range(3):
        reply = client.models.generate_content(model=MODEL, contents=["What is it?", file])
        assert reply.text == "1 of yours"
    assert client.files.get(name=str(file.name)).name == file.name
    client.files.delete(name=str(file.name))
    assert {key for key, _ in Google.asked} == {owner}
    assert not Google.kept


def test_a_cache_is_used_by_the_key_that_made_it(client: genai.Client) -> None:
    made = [
        client.caches.create(
            model=MODEL, config=types.CreateCachedContentConfig(contents=[f"long text {number}"])
        )
        for number in range(2)
    ]
    owners = [Google.kept[str(cache.name)][0] for cache in made]
    assert set(owners) == set(GEMINI_KEYS), "two calls, two projects"
    for cache in [*made, *made]:
        config = types.GenerateContentConfig(cached_content=cache.name)
        reply = client.models.generate_content(model=MODEL, contents="And?", config=config)
        assert reply.text == "1 of yours"
    client.caches.delete(name=str(made[0].name))
    assert len(Google.kept) == 1
