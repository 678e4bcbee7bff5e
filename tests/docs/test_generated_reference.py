"""The generated blocks of the reference are what the code says now."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from enum import StrEnum
from pathlib import Path

import msgspec
import pytest
from tools import reference

from headgate import backend

BACKEND = reference.ROOT / "docs" / "reference" / "backend.md"


@pytest.mark.parametrize("page", reference.PAGES, ids=lambda page: page.name)
def test_a_page_is_what_would_be_written(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert reference.fresh(text) == text, f"`python -m tools.reference` writes {page.name} anew"


def public(kind: type) -> list[str]:
    things = {name: getattr(backend, name) for name in backend.__all__}
    return [
        name
        for name, thing in things.items()
        if inspect.isclass(thing) and issubclass(thing, kind) and not issubclass(thing, Exception)
    ]


BY_HAND = {
    # described where they are used, with what they mean rather than with their fields
    "Alert", "AlertCleared", "AlertRaised", "AlertRules", "AnyFallback", "DefaultResponse", "ErrorType",
    "FailFast", "FallbackStrategy", "PartialResponse", "Priority", "SwitchModel", "UseCachedResponse",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted({*public(msgspec.Struct), *public(StrEnum)} - BY_HAND))
def test_every_structure_of_the_backend_stands_in_a_generated_block(name: str) -> None:
    heads = [match["what"] for match in reference._BLOCK.finditer(BACKEND.read_text("utf-8"))]
    assert f"headgate.backend.{name}" in " ".join(heads).split()


class Sort(StrEnum):
    """What sort it is."""

    FINE = "fine"
    COARSE = "coarse"


class Sieve(msgspec.Struct, kw_only=True):
    """What sieves (S3-99).

    And more.

    Attributes:
        mesh_ms, holes: how fine it is,
            or | how coarse.
        sort: its sort.
    """

    mesh_ms: float
    holes: int = 1_000_000
    sort: Sort = Sort.FINE
    marks: tuple[str, ...] = ()
    note: str | None = None


@dataclasses.dataclass
class Shovel:
    """What shovels."""

    size: float = 2.0
    parts: list[str] = dataclasses.field(default_factory=list)

    async def dig(self, depth: int, *, sort: Sort = Sort.COARSE) -> str | None:
        """S3-98: digs.

        Args:
            depth: how deep.
            sort: of the hole.

        Raises:
            ValueError: there is rock,
                or water.
        """

    def lean(self) -> None:
        """Leans on a wall. Ours."""


HERE = __name__


def block(kind: str, *names: str) -> list[str]:
    """The lines of a block about things of this file."""
    head = f"<!-- generated: {kind} {' '.join(f'{HERE}.{name}' for name in names)} -->\n"
    text = reference.fresh(f"before\n{head}old\n<!-- /generated -->\nafter\n")
    assert text.startswith(f"before\n{head}")
    assert text.endswith("<!-- /generated -->\nafter\n")
    return text.splitlines()[2:-2]


def test_fields_come_with_type_default_unit_and_meaning() -> None:
    assert block("structure", "Sieve")[2:] == [
        r"| `mesh_ms` | `float` | required | ms | how fine it is, or \| how coarse. |",
        r"| `holes` | `int` | 1,000,000 |  | how fine it is, or \| how coarse. |",
        "| `sort` | `Sort` | `FINE` |  | its sort. |",
        "| `marks` | `tuple[str, ...]` | none |  |  |",
        r"| `note` | `str \| None` | `None` |  |  |",
    ]


def test_several_structures_are_told_apart_by_their_summaries() -> None:
    lines = block("structure", "Sieve", "Shovel")
    assert lines[0] == "`Sieve`: What sieves."
    assert "`Shovel`: What shovels." in lines
    assert lines[-2:] == [
        "| `size` | `float` | 2 |  |  |",
        "| `parts` | `list[str]` | none |  |  |",
    ]


def test_commands_come_with_signature_and_errors() -> None:
    dig, lean = block("commands", "Shovel")[2:]
    assert dig == (
        r"| `dig(depth: int, *, sort: Sort = Sort.COARSE) → str \| None` | Digs. `depth`: how deep; "
        "`sort`: of the hole. | `ValueError`: there is rock, or water |"
    )
    assert lean == "| `lean() → None` | Leans on a wall. *sync* |  |"


def test_values_and_names_are_lines() -> None:
    assert block("values", "Sort")[2:] == ["| `Sort` | What sort it is. `fine`, `coarse` |"]
    (names,) = block("names", "Sieve")[2:]
    assert names == "| `Sieve` | What sieves. `mesh_ms` (ms), `holes`, `sort`, `marks`, `note` |"


def test_a_kind_that_is_none_is_an_error() -> None:
    with pytest.raises(LookupError, match="'fields'; known are structure"):
        block("fields", "Sieve")


def test_check_fails_and_writes_nothing_where_a_page_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "old.md"
    old = "<!-- generated: values headgate.backend.CircuitState -->\n<!-- /generated -->\n"
    page.write_text(old)
    monkeypatch.setattr(reference, "PAGES", [page])
    monkeypatch.setattr(sys, "argv", ["tools.reference", "--check"])
    assert reference.main() == 1
    assert page.read_text() == old
    monkeypatch.setattr(sys, "argv", ["tools.reference"])
    assert reference.main() == 0
    assert "`half_open`" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["tools.reference", "--check"])
    assert reference.main() == 0
    assert capsys.readouterr().out == "old.md is out of date\nold.md written\n"
