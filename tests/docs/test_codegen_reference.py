"""The Codegen pages keep up with the code: whatever is public stands in the reference."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headgate import codegen
from headgate.codegen.bulk import BulkOperationConfig, BulkOperationResult
from headgate.providers.codegen import CODEGEN_ENDPOINTS
from headgate.wiring.codegen_options import CODEGEN_OPTIONS, codegen_data
from headgate.wiring.options import Option

PAGE = (Path(__file__).parents[2] / "docs/reference/codegen.md").read_text(encoding="utf-8")
HIDDEN = {"edit_repository_pull_request"}  # `edit_pull_request` with `repo_id`


@pytest.mark.parametrize(
    "name",
    [
        *codegen.__all__,
        *(name for name in vars(codegen.AsyncCodegenClient) if not name.startswith("_")),
        *sorted(set(CODEGEN_ENDPOINTS) - HIDDEN),
        *BulkOperationConfig.model_fields,
        *BulkOperationResult.model_fields,
        *codegen.RetryConfig.model_fields,
        *re.findall(
            r"headgate_codegen_\w+",
            (Path(__file__).parents[2] / "src/headgate/codegen/export.py").read_text(),
        ),
    ],
)
def test_the_reference_has_every_public_name(name: str) -> None:
    assert name in PAGE


@pytest.mark.parametrize("option", CODEGEN_OPTIONS, ids=lambda option: option.name)
def test_the_reference_has_every_setting(option: Option) -> None:
    rows = [
        row for row in PAGE.splitlines() if row.startswith(f"| `{option.name}` | `{option.variable}`")
    ]
    assert len(rows) == 1
    default = option.default
    shown = str(default).lower() if isinstance(default, bool) else default
    shown = f"{default:g}" if isinstance(default, float) else shown
    assert f"| {f'`{shown}`' if default not in ('', {}) else 'unset'} |" in rows[0]


@pytest.mark.parametrize("name", CODEGEN_ENDPOINTS)
def test_the_reference_has_every_operation_with_its_limit(name: str) -> None:
    endpoint = CODEGEN_ENDPOINTS[name]
    requests, seconds = codegen_data().limits[endpoint.group]
    wanted = f"| `{endpoint.method} {endpoint.path}` |"
    (row,) = [row for row in PAGE.splitlines() if wanted in row]
    assert f"{requests}/{seconds:g} s" in row
    assert row.endswith("| yes |" if endpoint.repeatable else "| **no** |")
