"""Security items of trust.md 2.2 at the gateway; those proven elsewhere are listed in
`test_security_items.py`."""

from __future__ import annotations

import ast
import base64
import json
import logging
import re
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway import (
    CALLER_KEY,
    CALLERS,
    CLAUDE_KEYS,
    ENVIRON,
    GEMINI_KEYS,
    OPENAI_KEYS,
    Got,
    ask,
    scripted_gateway,
)
from tests.managing import ADMIN, ADMIN_KEY, Managed
from tests.support import MODEL, Ear, bad_key, overloaded, quota, said
from tests.unit.test_gateway import by_api

from headgate.core.records import AttemptRecord, CallRecord
from headgate.policy.redaction import mask
from headgate.testing import Answer, Broken, Sent, VirtualClock
from headgate.wiring.clock import SystemClock
from headgate.wiring.gateway_settings import GatewaySettings, load_gateway
from headgate.wiring.gateway_usage import open_usage
from headgate.wiring.options import api_url, base_url

SOURCE = Path(__file__).parents[2] / "src" / "headgate"
GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
BODY = {"contents": [{"parts": [{"text": "hi"}]}]}
CLAUDE = {"model": "claude-x", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
CHAT = {"model": "gpt-x", "messages": [{"role": "user", "content": "hi"}]}
CALLS = [
    (GENERATE, BODY), ("/anthropic/v1/messages", CLAUDE), ("/openai/v1/chat/completions", CHAT),
]  # fmt: skip
SECRETS = [*GEMINI_KEYS, *CLAUDE_KEYS, *OPENAI_KEYS, *(key.value for key in CALLERS)]

# ── where a call goes ───────────────────────────────────────────────────────────────────────────

STEERING = [
    "api_base", "api-base", "apiBase", "base_url", "base-url", "baseUrl", "baseURL", "basePath",
    "endpoint",
    "api_endpoint", "url", "host", "api_host", "api_key", "api-key", "apiKey", "key", "keys", "token",
    "proxy", "http_proxy", "https_proxy", "proxies", "headers", "extra_headers", "extraHeaders",
    "default_headers", "custom_headers", "http_options", "httpOptions", "client_options", "transport",
    "organization", "project", "azure_endpoint", "azure_deployment", "vertex_project",
    "vertex_location",
    "vertex_credentials", "aws_region_name", "aws_secret_access_key", "custom_llm_provider", "provider",
    "deployment_id", "router", "fallbacks", "user_config", "litellm_params", "metadata", "x-base-url",
    "x-portkey-custom-host", "x-portkey-provider", "x-portkey-config", "x-goog-api-host", "x-upstream",
    "x-forwarded-host", "x-original-url", "x-rewrite-url", "x-host", "forwarded",
    "x-http-host-override",
    "x-litellm-api-base", "helicone-target-url", "x-envoy-original-path",
]  # fmt: skip


async def test_x1_no_name_anybody_knows_moves_a_call(clock: VirtualClock) -> None:
    """More than sixty of them, as a field, a header and a query: each surface's calls go to its
    provider, with a key of ours and no header that a client made up."""
    gateway, transport = scripted_gateway(by_api, clock)
    evil = "https://evil.test/v1"
    hosts = {"generativelanguage.googleapis.com", "api.anthropic.com", "api.openai.com"}
    allowed = {"content-type", "user-agent", "anthropic-version", "anthropic-beta", "x-goog-api-client"}
    for path, body in CALLS:
        for name in STEERING:
            header = {} if name in ("host", "key") else {name.replace("_", "-"): evil}
            await ask(gateway, "POST", f"{path}?{name}={evil}", {**body, name: evil}, header)
    assert len(transport.sent) > 150
    for sent in transport.sent:
        url = re.match(r"https://([^/?#]+)(/[^?#]*)(\?.*)?$", sent.request.url)
        assert url is not None
        assert url[1] in hosts
        assert "evil" not in sent.request.url
        assert set(sent.request.headers) <= allowed
        assert "evil" not in str(sent.request.headers)
        assert list(sent.credential.values())[0].removeprefix("Bearer ") in SECRETS  # noqa: RUF015


@pytest.mark.parametrize(
    "url",
    ["http://user@host", "http://user:pw@host", "https://:pw@host", "https://@host", "ftp://host",
     "//host",
     "file:///etc/passwd", "gopher://host", "http://", "https://host/path", "https://host?x",
     "https://host#x",
     "http://127.1", "http://0x7f.1", "http://0x7f000001", "http://2130706433", "http://0177.0.0.1",
     "http://1.2.3", "https://169.254.169.254", "http://169.254.169.254", "http://[fe80::1]",
     "http://[::ffff:169.254.169.254]", "http://[64:ff9b::a9fe:a9fe]", "http://[::ffff:a9fe:a9fe]",
     "http://api.openai.com", "http://generativelanguage.googleapis.com", "http://8.8.8.8",
     "http://0.0.0.0", "https://224.0.0.1", "https://metadata.google.internal", "https://ho st",
     "https://host\\evil", "https://host:0", "https://host:99999", "https://ho%73t", "https://[::1",
     "http://example.com.", "https://a..b"],
)  # fmt: skip
def test_x2_a_base_url_that_could_lead_elsewhere_is_refused(url: str) -> None:
    """Without TLS to this machine and to private networks alone; no credential; addresses as everybody
    writes them, and none where a cloud keeps its machines' credentials."""
    for read in (base_url, api_url):
        if read is api_url and url == "https://host/path":
            continue  # there a path may stand
        with pytest.raises(ValueError, match="scheme"):
            read(url)


@pytest.mark.parametrize(
    "url",
    ["https://api.openai.com", "https://proxy.example:8443", "http://127.0.0.1:8765",
     "http://localhost:1",
     "http://[::1]:8080", "http://10.1.2.3", "http://192.168.0.5:80", "http://emulator:8765",
     "http://headgate.default.svc.cluster.local", "http://box.local", "http://llm.internal:9",
     "https://8.8.8.8", "https://xn--bcher-kva.example", "http://[fd00::5]:1"],
)  # fmt: skip
def test_x2_and_others_are_taken(url: str) -> None:
    assert base_url(url) == url
    assert api_url(url) == f"{url}/v1"


async def test_x3_what_a_call_names_is_not_fetched(clock: VirtualClock) -> None:
    """Addresses in a prompt are the provider's to fetch, or nobody's: nothing is sent but the call."""
    gateway, transport = scripted_gateway(by_api, clock)
    sink = "http://169.254.169.254/latest/meta-data"
    bodies: list[tuple[str, object]] = [
        (GENERATE,
        {"contents": [{"parts": [{"fileData": {"fileUri": sink, "mimeType": "image/png"}}]}]}),
        ("/anthropic/v1/messages", {**CLAUDE, "messages": [{"role": "user", "content": [
            {"type": "image", "source": {"type": "url", "url": sink}}]}]}),
        ("/openai/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": sink}}]}]}),
    ]  # fmt: skip
    for path, body in bodies:
        before = len(transport.sent)
        assert (await ask(gateway, "POST", path, body)).status == 200
        assert len(transport.sent) == before + 1
        assert "169.254" not in transport.sent[-1].request.url


@pytest.mark.parametrize(
    "host", ["x/?", "x/#", "foo?", "x/livez", "@x", "", "evil.test", "a b", "x\\y", "[::1"]
)
async def test_x4_a_host_changes_neither_the_path_nor_who_may(clock: VirtualClock, host: str) -> None:
    """BadHost: what is public is decided by the path of the request line alone."""
    gateway, transport = scripted_gateway(by_api, clock, settings=GatewaySettings(callers=CALLERS))
    for method, path in (("POST", GENERATE), ("GET", "/metrics"), ("GET", "/gemini/v1beta/models")):
        got = await ask(gateway, method, path, BODY if method == "POST" else b"", {"host": host})
        assert got.status == 401, path
    assert not transport.sent


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────


def forms(secret: str) -> set[str]:
    """What a secret may look like where it does not belong."""
    return {
        secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode().rstrip("="),
        secret[:20], secret[-12:],
    }  # fmt: skip


def check_no_secret(where: str, text: str) -> None:
    for secret in SECRETS:
        for form in forms(secret):
            assert form not in text, f"a secret is in {where}"


async def test_x6_keys_travel_in_headers_and_never_in_an_address(clock: VirtualClock) -> None:
    gateway, transport = scripted_gateway(by_api, clock, settings=GatewaySettings(callers=CALLERS))
    for path, body in CALLS:
        await ask(gateway, "POST", f"{path}?key={CALLER_KEY}", body)
        await ask(gateway, "GET", f"{path.split('/v1')[0]}/v1/models?key={CALLER_KEY}")
    assert len(transport.sent) > 4
    for sent in transport.sent:
        check_no_secret("a URL", sent.request.url)
        check_no_secret("a header that is not the credential", str(sent.request.headers))
        check_no_secret("a body", sent.request.body.decode())
        assert len(sent.credential) == 1


async def test_x7_a_sweep_finds_no_secret_anywhere(
    clock: VirtualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls that succeed, are refused, echo the key, break and time out; then every place that a person
    or a program can look at is searched for each key in every form."""
    caplog.set_level(logging.DEBUG)
    environ = {**ENVIRON, "HEADGATE_USAGE": str(tmp_path / "usage.sqlite3")}
    usage = open_usage(SystemClock(), kept_days=1, environ=environ)
    assert usage is not None
    ear = Ear()

    def answers(sent: Sent) -> Answer | Broken:
        secret = next(iter(sent.credential.values()))
        echo = json.dumps({"error": {"code": 400, "message": f"bad key {secret}"}}).encode()
        turn = len(transport.sent) % 6
        return (by_api(sent), Answer(400, echo), bad_key(), quota("Minute", "1s"), overloaded(),
                Broken(message=f"cannot reach https://x/?key={secret}"))[turn]  # fmt: skip

    settings = GatewaySettings(callers=CALLERS, cache_seconds=60.0)
    gateway, transport = scripted_gateway(
        answers, clock, settings=settings, observers=[ear, usage.observer]
    )
    seen: list[Got] = []
    credentials = ({"x-goog-api-key": CALLER_KEY}, {"authorization": f"Bearer {CALLER_KEY}"}, {})
    for number in range(24):
        path, body = CALLS[number % 3]
        headers = {**credentials[number % 3 if number < 18 else 0], "x-headgate-timeout": "3"}
        seen.append(await ask(gateway, "POST", path, {**body, "n": number}, headers))
    for path in ("/livez", "/readyz", "/metrics", "/nothing", "/openapi.json"):
        got = await ask(gateway, "GET", path, b"", credentials[1])
        seen.append(got)
    await gateway.aclose()
    usage.close()
    for got in seen:
        check_no_secret("an answer", got.body.decode() + str(got.headers))
    check_no_secret("a record", repr(ear.attempts) + repr(ear.calls))
    check_no_secret("a repr", repr(gateway) + repr(vars(gateway)) + repr(settings) + repr(transport))
    check_no_secret("a log", caplog.text)
    for file in tmp_path.iterdir():  # noqa: ASYNC240 - nothing else runs here
        check_no_secret(file.name, file.read_bytes().decode("latin-1"))
    assert len({got.status for got in seen}) > 3, "the sweep met more than one kind of answer"


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=80))
@settings(max_examples=100, deadline=None)
def test_x8_a_mask_shows_four_characters_at_most(secret: str) -> None:
    shown = mask(secret)
    assert not any(secret[at : at + 5] in shown for at in range(len(secret) - 4))
    assert len(shown) <= 5
    if len(secret) < 20:
        assert shown == "…"


def test_x9_whoever_observes_gets_facts_and_never_a_request() -> None:
    """Records hold names, numbers and words of closed sets: no header, body, prompt or credential."""
    for record in (AttemptRecord, CallRecord):
        names = set(record.__struct_fields__)
        assert not names & {"headers", "body", "request", "raw", "prompt", "key", "value", "credential",
                            "contents", "messages", "scope"}, record  # fmt: skip
        assert "key_name" in names


# ── what nobody may do ──────────────────────────────────────────────────────────────────────────

INJECTIONS = [
    "' OR '1'='1", "'; DROP TABLE usage;--", '" OR ""="', "1; SELECT * FROM usage",
    "') UNION SELECT 1--",
    "admin'--", "%27%20OR%201=1", "\\'; DELETE FROM usage; --", "1 AND SLEEP(5)", "$(touch /tmp/x)",
    "\x00'",
]  # fmt: skip


async def test_x15_no_text_is_ever_a_statement(clock: VirtualClock, tmp_path: Path) -> None:
    """In every place that reaches the ledger: model, caller's header, priority, path, query."""
    file = tmp_path / "usage.sqlite3"
    environ = {**ENVIRON, "HEADGATE_USAGE": str(file)}
    usage = open_usage(SystemClock(), kept_days=1, environ=environ)
    assert usage is not None
    gateway, _ = scripted_gateway(by_api, clock, observers=[usage.observer])
    for text in INJECTIONS:
        await ask(gateway, "POST", "/openai/v1/chat/completions", {**CHAT, "model": text})
        header = {"user-agent": text, "x-headgate-priority": text, "authorization": f"Bearer {text}"}
        await ask(gateway, "POST", GENERATE, BODY, header)
        await ask(gateway, "GET", f"/gemini/v1beta/models?pageToken={quote(text)}")
    await gateway.aclose()
    usage.close()
    with closing(sqlite3.connect(file)) as ledger:
        models = {row[0] for row in ledger.execute("SELECT model FROM usage")}
        (whole,) = ledger.execute("PRAGMA integrity_check").fetchone()
    assert whole == "ok"
    assert set(INJECTIONS) & models, "they are rows, and nothing else"


BANNED_CALLS = {"eval", "exec", "compile", "__import__"}
BANNED_MODULES = {
    "pickle",
    "marshal",
    "shelve",
    "dill",
    "jinja2",
    "code",
    "codeop",
    "xmlrpc",
    "telnetlib",
}
SUSPECT = re.compile(
    rf"(?<![.\w])(?:{'|'.join(sorted(BANNED_CALLS))})\(|import (?:{'|'.join(sorted(BANNED_MODULES))})\b"
    rf"|from (?:{'|'.join(sorted(BANNED_MODULES))})\b|\byaml\b|\bos\.(?:system|popen)|subprocess"
)
STARTS_PROCESSES = {"stores/held_folder.py", "gateway/worker_process.py"}
"""Rooms that start processes, none with a word of a request in its command."""


def test_x16_nothing_a_client_sends_can_become_code() -> None:
    found = {}
    for file in sorted(SOURCE.rglob("*.py")):
        text, room = file.read_text(encoding="utf-8"), str(file.relative_to(SOURCE))
        if SUSPECT.search(text):  # to parse all of them takes seconds
            found[room] = [what for node in ast.walk(ast.parse(text)) if (what := unsafe(node, room))]
    assert set(found) >= STARTS_PROCESSES, "it looks where there is something to see"
    assert not any(found.values()), found


def unsafe(node: ast.AST, room: str) -> str:
    """What a piece of source does that could make code of data; empty where nothing."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        own = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        names = [own, *(one.name for one in node.names)] if not own else [own]
        return ", ".join({name.partition(".")[0] for name in names} & BANNED_MODULES)
    if not isinstance(node, ast.Call):
        return ""
    if isinstance(node.func, ast.Name):
        return node.func.id if node.func.id in BANNED_CALLS else ""
    if not isinstance(node.func, ast.Attribute):
        return ""
    called, whose = node.func.attr, getattr(node.func.value, "id", "")
    if (whose, called) in {("yaml", "load"), ("yaml", "full_load"), ("os", "system"), ("os", "popen")}:
        return called
    if whose == "subprocess" or called == "create_subprocess_shell":
        return called
    return called if called == "create_subprocess_exec" and room not in STARTS_PROCESSES else ""


MANAGED = [
    ("GET", "/keys"), ("GET", "/callers"), ("GET", "/config"), ("GET", "/usage"), ("GET", "/cache"),
    ("POST", "/cache/clear"), ("POST", "/callers"), ("DELETE", "/callers/ann"),
]  # fmt: skip


async def test_x12_what_is_kept_of_the_admin_key_opens_nothing(clock: VirtualClock) -> None:
    """Pass-the-hash: neither a hash of it nor a part."""
    managed = Managed([said()], clock)
    digest = sha256(ADMIN_KEY.encode()).hexdigest()
    wrong = [
        digest,
        digest.upper(),
        ADMIN_KEY[:20],
        ADMIN_KEY[:-1],
        f"{ADMIN_KEY}x",
        f"sha256:{digest}",
    ]
    for method, path in MANAGED:
        for key in wrong:
            got = await managed.client(method, path, {}, {"authorization": f"Bearer {key}"}).run()
            assert got.status == 401, (path, key)
            assert ADMIN_KEY not in got.body.decode()
            assert digest not in got.body.decode()
    await managed.gateway.aclose()


async def test_x13_a_caller_manages_nothing_and_a_manager_calls_nothing(clock: VirtualClock) -> None:
    """Role by role and endpoint by endpoint: a key is good for what it was made for."""
    settings = GatewaySettings(callers=CALLERS, admin=ADMIN)
    managed = Managed(by_api, clock, settings=settings)
    for method, path in MANAGED:
        got = await managed.client(method, path, {}, {"authorization": f"Bearer {CALLER_KEY}"}).run()
        assert got.status == 401, path
    for path, body in CALLS:
        got = await ask(managed.gateway, "POST", path, body, {"authorization": f"Bearer {ADMIN_KEY}"})
        assert got.status == 401, path
        got = await ask(managed.gateway, "POST", path, body, {"authorization": f"Bearer {CALLER_KEY}"})
        assert got.status == 200, path
    await managed.gateway.aclose()


# ── callers ─────────────────────────────────────────────────────────────────────────────────────


async def test_x18_headers_about_where_a_call_comes_from_are_nobodys_word(clock: VirtualClock) -> None:
    """A caller is its key; without one no such header lets anybody in, or makes it another."""
    forged = ("x-forwarded-for", "forwarded", "x-real-ip", "cf-connecting-ip", "true-client-ip",
              "x-client-ip", "x-headgate-caller", "x-user", "remote-user")  # fmt: skip
    ear = Ear()
    settings = GatewaySettings(callers=CALLERS)
    gateway, _ = scripted_gateway(by_api, clock, settings=settings, observers=[ear])
    for number in range(200):
        lies = dict.fromkeys(forged, f"127.0.0.{number % 250}")
        assert (await ask(gateway, "POST", GENERATE, BODY, lies)).status == 401
        got = await ask(gateway, "POST", GENERATE, BODY, {**lies, "x-goog-api-key": CALLER_KEY})
        assert got.status == 200
    assert {record.caller for record in ear.calls} == {"ann"}


async def test_x21_a_client_chooses_neither_room_nor_likeness_of_kept_answers(
    clock: VirtualClock,
) -> None:
    """Fields, headers and queries that name a namespace, a tenant or a threshold: another caller's
    answer is never found by them, and the own one is found in spite of headers."""
    settings = GatewaySettings(callers=CALLERS, cache_seconds=60.0)
    gateway, transport = scripted_gateway([said()], clock, settings=settings)
    keys = {key.name: {"x-goog-api-key": key.value} for key in CALLERS}
    await ask(gateway, "POST", GENERATE, BODY, keys["ann"])
    names = ("namespace", "x-headgate-namespace", "x-headgate-partition", "cache-namespace",
             "tenant", "x-tenant-id", "similarity-threshold", "x-cache-similarity",
             "x-portkey-cache-namespace")  # fmt: skip
    for value in ("gateway ann", "ann", "*", "0.0", ""):
        for name in names:
            got = await ask(gateway, "POST", GENERATE, BODY, {**keys["ann"], name: value})
            assert got.headers["x-headgate-cache"] == "hit"
            bob = {**keys["bob"], name: value, "cache-control": "no-store"}
            got = await ask(gateway, "POST", f"{GENERATE}?{name}={quote(value)}", BODY, bob)
            assert got.headers["x-headgate-cache"] != "hit"
    assert len(transport.sent) == 1 + 5 * len(names)


def test_x30_the_bounds_that_were_promised_are_the_defaults() -> None:
    """20 MiB, 64 KiB and 100 headers, 200 levels, ten seconds and a least rate."""
    bounds: Any = load_gateway({})
    assert bounds.max_body_mib == 20
    assert (bounds.max_head_kib, bounds.max_headers) == (64, 100)
    assert bounds.max_json_depth == 200
    assert bounds.head_seconds == 10.0
    assert bounds.slowest_sender_kib > 0
    assert bounds.reader_stall_seconds <= 60.0
