"""The emulator judges the client, so it may share nothing with it but time, days and errors."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[2] / "src" / "headgate" / "emulator"
ALLOWED = {
    "headgate.core.errors",
    "headgate.core.ports",
    "headgate.policy.days",
    "headgate.wiring.clock",
}


@pytest.mark.parametrize("module", sorted(ROOM.glob("*.py")), ids=lambda path: path.name)
def test_a_module_imports_nothing_of_the_client(module: Path) -> None:
    found = set()
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    own = {name for name in found if name.startswith("headgate.emulator")}
    ours = {name for name in found if name.startswith("headgate")} - own
    assert ours <= ALLOWED


def test_data_of_others_stands_beside_its_licence() -> None:
    assert "MIT" in (ROOM / "data" / "LICENCE-GeminiDotnet.txt").read_text("utf-8")
    assert "GeminiDotnet" in (ROOM / "data" / "requests.json").read_text("utf-8")[:600]
