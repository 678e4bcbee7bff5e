"""What importing a door loads: who asks a model with a plain client waits for nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("aiohttp", "opentelemetry", "prometheus_client", "pydantic", "redis", "structlog", "uvicorn")
A_BACKENDS = (
    "headgate.engine.screening",
    "headgate.engine.stages.degrade",
    "headgate.engine.stages.recall",
    "headgate.policy.privacy",
    "headgate.policy.screening",
)
A_SHARED_STORES = ("headgate.stores.sharing", "headgate.stores.valkey")

CODE = """
import importlib, json, sys
client = importlib.import_module(sys.argv[1])
made = getattr(client, sys.argv[2])(keys=["import-CANARY-key-number-one"], environ={})
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize(
    ("door", "client"),
    [("headgate.gemini", "ResilientGeminiClient"), ("headgate.claude", "ResilientClaudeClient")],
)
def test_a_plain_client_loads_nothing_that_only_others_need(door: str, client: str) -> None:
    """The transport aside, which it makes where it has none of its own."""
    code = CODE.replace("environ={})", "environ={}, transport=object())")
    command = [sys.executable, "-c", code, door, client]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
    loaded: list[str] = json.loads(done.stdout)
    assert door in loaded
    forbidden = (*HEAVY, *A_BACKENDS, *A_SHARED_STORES)
    assert [name for name in loaded if name.startswith(forbidden)] == []


def test_a_backend_has_what_a_plain_client_does_without() -> None:
    """So that the names above stay those of something."""
    code = "import json, sys, headgate.backend as b; b.GeminiBackend; print(json.dumps([*sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code.replace("b.GeminiBackend;", "b.GeminiBackend(environ={});")],
        capture_output=True, check=True, text=True, timeout=60,
    )  # fmt: skip
    loaded = json.loads(done.stdout)
    assert "headgate.policy.registry" in loaded
