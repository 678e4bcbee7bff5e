"""docs/reference/emulator.md names everything a user can configure, script or read."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from headgate import emulator
from headgate.emulator.vocabulary import ALIASES, BEHAVIOURS, CODEGEN_FAULTS, METHODS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "emulator.md").read_text("utf-8")
CONFIGURED = [
    emulator.EmulatorConfig,
    emulator.Project,
    emulator.Limits,
    emulator.Latency,
    emulator.Fault,
    emulator.Model,
    emulator.Counts,
    emulator.CodegenTeam,
]
FIELDS = sorted({field.name for struct in CONFIGURED for field in msgspec.structs.fields(struct)})


@pytest.mark.parametrize("name", [*FIELDS, *BEHAVIOURS, *ALIASES, *ALIASES.values(), *CODEGEN_FAULTS])
def test_the_reference_has_every_field_and_every_kind_of_fault(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", [f.name for f in msgspec.structs.fields(emulator.QuotaReport)])
def test_the_reference_has_every_member_of_a_quotas_report(name: str) -> None:
    assert re.search(rf"\b{name}\b", PAGE)


@pytest.mark.parametrize("name", METHODS)
def test_the_reference_has_every_method(name: str) -> None:
    assert name in PAGE
