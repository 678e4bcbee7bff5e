"""An upstream behind TLS: nginx on the other core, with a certificate made for the run."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path

from bench.rivals.gateway.contenders import free_port
from bench.rivals.gateway.tree import started

__all__ = ["authority", "upstream"]

_SIGN = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", "ec",
         "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"]  # fmt: skip


def authority(folder: Path) -> Path:
    """The certificate whose signer a contender must trust."""
    return folder / "certificate.pem"


def upstream(stack: ExitStack, folder: Path, core: int) -> int:
    """Start it; the port. Answers every request at once with the Gemini answer of `folder`."""
    port = free_port()
    key, certificate = folder / "key.pem", authority(folder)
    subprocess.run(
        [*_SIGN, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    answer = json.dumps(json.loads((folder / "gemini.json").read_bytes()))
    config = folder / "tls.conf"
    config.write_text(f"""
worker_processes 1; daemon off; pid {folder}/tls.pid; error_log {folder}/tls.err;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_max_body_size 64m;
  client_body_temp_path {folder}/tls1; proxy_temp_path {folder}/tls2;
  fastcgi_temp_path {folder}/tls3; uwsgi_temp_path {folder}/tls4; scgi_temp_path {folder}/tls5;
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096; keepalive_requests 100000000;
    ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_session_cache shared:s:1m;
    default_type "application/json; charset=UTF-8";
    location / {{ return 200 '{answer}'; }}
  }}
}}
""")
    stack.enter_context(
        started(["nginx", "-c", str(config), "-e", f"{folder}/tls.err"], core, folder, "tls")
    )
    return port
