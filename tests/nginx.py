"""A real nginx for tests: Debian's package, on a port of loopback, its files in a folder of its own."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.valkey import free_port

WAIT = 10.0
"""Seconds it may take to come up."""

_CONFIG = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  proxy_cache_path {folder}/cache keys_zone=results:1m;
  server {{
    listen 127.0.0.1:{port};
    proxy_cache results; proxy_cache_revalidate on;
    proxy_http_version 1.1; proxy_set_header Connection "";
    add_header X-Cache $upstream_cache_status always;
{locations}
  }}
}}
"""


class Reply(NamedTuple):
    """What came through."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def cache(self) -> str:
        """What nginx's cache did: MISS, HIT, EXPIRED, REVALIDATED …"""
        return self.headers.get("x-cache", "")


class Nginx:
    """nginx as a shared cache before servers on loopback. A context: it runs while it lasts.

    Args:
        upstreams: base URLs by the first part of the path that leads to them.
    """

    def __init__(self, upstreams: Mapping[str, str]) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="nginx-"))
        locations = "\n".join(
            f"    location /{name}/ {{ proxy_pass {url}/; }}" for name, url in upstreams.items()
        )
        text = _CONFIG.format(folder=self._folder, port=self.port, locations=locations)
        (self._folder / "conf").write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Nginx:
        paths = os.environ.get("PATH", "") + ":/usr/sbin"  # noqa: TID251 - Debian's place for it
        binary = shutil.which("nginx", path=paths)
        assert binary, "the tests drive nginx: `make test` installs it"
        self._process = subprocess.Popen(
            [binary, "-e", str(self._folder / "error.log"), "-c", str(self._folder / "conf")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + WAIT  # noqa: TID251 - a real process needs real time
        while True:
            try:
                self.ask("GET", "/")
            except OSError:
                log = self._folder / "error.log"
                running = self._process.poll() is None and time.monotonic() < end  # noqa: TID251
                assert running, log.read_text() if log.exists() else "nginx did not start"
                time.sleep(0.01)  # noqa: TID251
            else:
                return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(WAIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        try:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, fields)
            reply = connection.getresponse()
            named = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(reply.status, named, reply.read())
        finally:
            connection.close()
