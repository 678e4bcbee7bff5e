"""Where workers of one gateway count their quotas: in one place, or not at all."""

from __future__ import annotations

import sys

import pytest
from tests.gateway import CLAUDE_KEYS, GEMINI_KEYS

from headgate.core.errors import ConfigurationError
from headgate.wiring.workers import shared_store

KEYS = {"GEMINI_API_KEY": GEMINI_KEYS[0], "ANTHROPIC_API_KEY": CLAUDE_KEYS[0]}
STORE = "redis://:CANARY-secret@store:6379"


def test_without_a_store_they_need_one_of_their_own() -> None:
    assert shared_store(KEYS) is None
    assert shared_store({**KEYS, "HEADGATE_STORE": "memory"}) is None


def test_a_store_that_all_share_is_the_one() -> None:
    found = shared_store({**KEYS, "HEADGATE_STORE": STORE})
    assert found is not None
    assert found.written == STORE
    assert "CANARY" not in str(found)


def test_half_a_store_is_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each worker would spend the whole quota of the provider that was forgotten."""
    file = tmp_path_factory.mktemp("h") / "headgate.toml"
    file.write_text(f'[gemini]\nstore = "{STORE}"\n')
    with pytest.raises(ConfigurationError, match="HEADGATE_STORE") as caught:
        shared_store({**KEYS, "HEADGATE_CONFIG": str(file)})
    assert "CANARY" not in str(caught.value)


def test_a_package_that_any_store_needs_is_missed_before_workers_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "headgate.stores.valkey_link", None)
    with pytest.raises(ConfigurationError, match=r"headgate\[redis\]"):
        shared_store(KEYS)
