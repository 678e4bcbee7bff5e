"""Who is measured: how each is started, and where and with what it is called."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.rivals.gateway.bodies import GEMINI_MODEL, GEMINI_REQUEST, OPENAI_REQUEST

__all__ = ["Contender", "Place", "Running", "all_of", "free_port", "missing"]

ROOT = Path(__file__).parents[3]
RIVALS = ROOT / ".venv-rivals" / "bin"
PORTKEY = Path(__file__).parent / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build"
_KEYS = 10
_BEYOND = 100_000_000  # a minute: declared, so that the ledger works, and never reached
_GEMINI_HEADERS = {
    "Content-Type": "application/json",
    "x-goog-api-key": "caller-key-of-the-bench",
    "User-Agent": "google-genai-sdk/3.4.0 gl-python/3.11.7",
    "x-goog-api-client": "google-genai-sdk/3.4.0 gl-python/3.11.7",
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate",
}
_OPENAI_HEADERS = {
    "Content-Type": "application/json",
    "Authorization": "Bearer caller-key-of-the-bench",
    "User-Agent": "OpenAI/Python 2.8.0",
    "Accept": "application/json",
}
_GEMINI_PATH = f"/v1beta/models/{GEMINI_MODEL}:generateContent"
_GEMINI_STREAM = f"/v1beta/models/{GEMINI_MODEL}:streamGenerateContent?alt=sse"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contender stands.

    Attributes:
        port: to listen at.
        upstream: the port of its upstream.
        folder: for its files.
        trusts: the certificate of an upstream behind TLS; None: it is plain.
    """

    port: int
    upstream: int
    folder: Path
    trusts: Path | None = None

    @property
    def address(self) -> str:
        """Of the upstream, without a path."""
        return f"{'http' if self.trusts is None else 'https'}://127.0.0.1:{self.upstream}"


@dataclass(frozen=True, slots=True)
class Running:
    """How a contender is started against one upstream.

    Attributes:
        command: its words.
        variables: of its environment, beyond PATH and HOME.
    """

    command: list[str]
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contender:
    """One gateway, in one of its surfaces.

    Attributes:
        name: as in the table.
        run: how to start it.
        path: where a whole answer is asked for.
        stream: where a streamed one is; nothing where it cannot.
        headers: of every call.
        body: what is sent.
        needs: a program or file without which it cannot run.
        telling: it takes a free port itself and prints it.
        secure: it is measured with an upstream behind TLS, too.
    """

    name: str
    run: Callable[[Place], Running]
    path: str
    headers: Mapping[str, str]
    body: bytes
    stream: str = ""
    needs: str = ""
    telling: bool = False
    secure: bool = False


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def missing(one: Contender) -> str:
    """What a contender lacks to run here; nothing if it lacks nothing."""
    if not one.needs or Path(one.needs).exists() or shutil.which(one.needs):
        return ""
    return one.needs


def _nginx(at: Place) -> Running:
    config = at.folder / "nginx.conf"
    config.write_text(f"""
worker_processes 1; daemon off; pid {at.folder}/nginx.pid; error_log {at.folder}/nginx.err;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_buffer_size 512k; client_max_body_size 64m;
  client_body_temp_path {at.folder}/body; proxy_temp_path {at.folder}/proxy;
  fastcgi_temp_path {at.folder}/f; uwsgi_temp_path {at.folder}/u; scgi_temp_path {at.folder}/s;
  upstream there {{ server 127.0.0.1:{at.upstream}; keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{at.port} backlog=4096; keepalive_requests 100000000;
    location / {{
      proxy_pass {at.address.partition(":")[0]}://there; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
""")
    return Running(["nginx", "-c", str(config), "-e", f"{at.folder}/nginx.err"])


def _headgate(store: Callable[[Path], str] | None = None) -> Callable[[Place], Running]:
    def run(at: Place) -> Running:
        config = at.folder / "headgate.toml"
        limits = f"quota_rpm = {_BEYOND}\nquota_tpm = {_BEYOND * 100}\n"
        config.write_text(f"[gemini]\n{limits}[openai]\n{limits}", encoding="ascii")
        variables = {
            "HEADGATE_CONFIG": str(config),
            "GEMINI_API_KEYS": ",".join(f"upstream-key-{n}|g{n}" for n in range(_KEYS)),
            "OPENAI_API_KEYS": ",".join(f"sk-upstream-key-{n}|o{n}" for n in range(_KEYS)),
            "HEADGATE_CALLER_KEYS": "caller-key-of-the-bench|bench",
            "HEADGATE_GEMINI_BASE_URL": at.address,
            "HEADGATE_OPENAI_BASE_URL": f"{at.address}/v1",
            "HEADGATE_USAGE": f"sqlite:///{at.folder}/usage.sqlite3",
            "PYTHONPATH": str(ROOT / "src"),
        }
        if at.trusts is not None:
            variables["SSL_CERT_FILE"] = str(at.trusts)
        if store is not None:
            variables["HEADGATE_STORE"] = store(at.folder)
        command = [
            sys.executable,
            "-m",
            "headgate",
            "serve",
            "--host",
            "127.0.0.1",
            "--port",
            str(at.port),
        ]
        return Running(command, variables)

    return run


def _tensorzero(at: Place) -> Running:
    config = at.folder / "tensorzero.toml"
    config.write_text(f"""
[gateway]
observability.enabled = false

[models.mock]
routing = ["mock"]

[models.mock.providers.mock]
type = "openai"
model_name = "gpt-4o-mini"
api_base = "http://127.0.0.1:{at.upstream}/v1/"
api_key_location = "none"
""")
    program = at.folder / "start.py"
    program.write_text("""
import sys, time
import tensorzero
gateway = tensorzero._start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False)
print("AT", gateway.base_url, flush=True)
while True:
    time.sleep(60)
""")
    return Running([str(RIVALS / "python"), str(program), str(config)])


def _portkey(at: Place) -> Running:
    return Running(["node", str(PORTKEY / "start-server.js"), f"--port={at.port}", "--headless"])


def _litellm(at: Place) -> Running:
    config = at.folder / "litellm.json"
    model = {
        "model": "openai/gpt-4o-mini",
        "api_base": f"http://127.0.0.1:{at.upstream}/v1",
        "api_key": "sk-x",
    }
    config.write_text(json.dumps({
        "model_list": [{"model_name": "gpt-4o-mini", "litellm_params": model}],
        "general_settings": {"master_key": "caller-key-of-the-bench"},
    }))  # fmt: skip
    command = [
        str(RIVALS / "litellm"),
        "--config",
        str(config),
        "--host",
        "127.0.0.1",
        "--port",
        str(at.port),
    ]
    variables = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
    }
    return Running([*command, "--num_workers", "1", "--telemetry", "False"], variables)


def _in(prefix: str, name: str, run: Callable[[Place], Running]) -> Contender:
    gemini = prefix == "/gemini"
    return Contender(
        name,
        run,
        prefix + (_GEMINI_PATH if gemini else "/v1/chat/completions"),
        _GEMINI_HEADERS if gemini else _OPENAI_HEADERS,
        GEMINI_REQUEST if gemini else OPENAI_REQUEST,
        stream=prefix + (_GEMINI_STREAM if gemini else "/v1/chat/completions"),
        secure=gemini,
    )


_PORTKEY_HEADERS = {
    "x-portkey-provider": "openai",
    "x-portkey-custom-host": "http://127.0.0.1:{upstream}/v1",
}


def all_of(store: Callable[[Path], str]) -> list[Contender]:
    """Every contender.

    Args:
        store: starts a Valkey in a folder and says its URL.
    """
    here = "/v1/chat/completions"
    model = json.loads(OPENAI_REQUEST)
    named = json.dumps({**model, "model": "tensorzero::model_name::mock"}).encode()
    return [
        Contender(
            "nginx",
            _nginx,
            _GEMINI_PATH,
            _GEMINI_HEADERS,
            GEMINI_REQUEST,
            _GEMINI_STREAM,
            needs="nginx",
            secure=True,
        ),
        _in("/gemini", "Headgate, Gemini", _headgate()),
        _in("/openai", "Headgate, OpenAI", _headgate()),
        _in("/gemini", "Headgate, Gemini, Valkey", _headgate(store)),
        Contender(
            "TensorZero",
            _tensorzero,
            here,
            _OPENAI_HEADERS,
            named,
            here,
            needs=str(RIVALS / "python"),
            telling=True,
        ),
        Contender(
            "Portkey",
            _portkey,
            here,
            _OPENAI_HEADERS | _PORTKEY_HEADERS,
            OPENAI_REQUEST,
            needs=str(PORTKEY),
        ),
        Contender(
            "LiteLLM",
            _litellm,
            here,
            _OPENAI_HEADERS,
            OPENAI_REQUEST,
            here,
            needs=str(RIVALS / "litellm"),
        ),
    ]
