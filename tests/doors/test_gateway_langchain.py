"""LangChain's chat models through the gateway, in a Python of their own: their google-genai is another.

`make test` makes that Python from `requirements/langchain.txt`; without it this fails and says so.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.gateway import CALLER_KEY, CALLERS, CLAUDE_KEYS, GEMINI_KEYS, GatewayInThread, listed

from headgate.emulator import Emulator, EmulatorConfig, Organisation, Project
from headgate.wiring.gateway_settings import GatewaySettings

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv" / "langchain" / "bin" / "python"
PROGRAM = ROOT / "tests" / "data" / "langchain_chat.py"


def run_it() -> dict[str, dict[str, Any]]:
    """What each step of the program printed."""
    assert PYTHON.exists(), "run `make .venv/langchain/stamp`: LangChain has an environment of its own"
    config = EmulatorConfig(
        projects=[Project("alpha", {"g1": GEMINI_KEYS[0]}), Project("beta", {"g2": GEMINI_KEYS[1]})],
        organisations=[Organisation("org", {"c1": CLAUDE_KEYS[0]}, retry_after_share=0.0)],
    )
    environ = {
        "GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|g1|alpha,{GEMINI_KEYS[1]}|g2|beta",
        "ANTHROPIC_API_KEYS": listed(CLAUDE_KEYS[:1]),
    }
    settings = GatewaySettings(callers=CALLERS, linger_seconds=0.0, drain_seconds=5.0)
    with (
        Emulator(config).in_thread() as upstream,
        GatewayInThread(upstream.base_url, settings=settings, environ=environ) as gateway,
    ):
        done = subprocess.run(
            [str(PYTHON), str(PROGRAM)],
            env={
                "PATH": os.defpath,
                "GOOGLE_GEMINI_BASE_URL": f"{gateway.base_url}/gemini",
                "GOOGLE_API_KEY": CALLER_KEY,
                "ANTHROPIC_BASE_URL": f"{gateway.base_url}/anthropic",
                "ANTHROPIC_API_KEY": CALLER_KEY,
                "LANGSMITH_TRACING": "false",
            },
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert CALLER_KEY not in done.stdout
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row.pop("step"): row for row in rows}


def test_langchain_chats_streams_calls_tools_makes_structures_and_vectors_and_raises() -> None:
    """One run of the program for all: its imports take longer than its calls."""
    said = run_it()
    for package in ("google", "anthropic"):
        got = said[package]
        assert got["text"], package
        assert got["tokens"] > 0
        assert got["pieces"] > 1
        assert got["streamed"]
        assert got["tools"] == ["water_level"]
        refused = said[f"{package} refused"]
        assert refused["kind"], package
        assert "404" in refused["said"] or "not found" in refused["said"].lower()
    assert set(said["google schema"]["made"]) == {"name", "width"}
    assert said["google vectors"]["length"] > 100
