"""The house stays as docs/architecture.md draws it: rules that imports and linters cannot see."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "headgate"
MODULES = sorted(SOURCE.rglob("*.py"))
LONGEST_FILE = 400
LONGEST_FUNCTION = 60
NO_ROOMS = {"utils", "util", "helpers", "common", "misc", "manager", "service", "base"}


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_room_is_small_and_says_what_it_is_for(module: Path) -> None:
    text = module.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module opens with what it is for"
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, node.name


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_nobody_inside_imports_the_package_root(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "headgate", f"line {node.lineno}"
        if isinstance(node, ast.Import):
            assert all(alias.name != "headgate" for alias in node.names), f"line {node.lineno}"


def test_no_room_is_a_lumber_room() -> None:
    assert not {path.stem for path in SOURCE.rglob("*") if path.stem in NO_ROOMS}


def test_every_module_with_public_names_lists_them() -> None:
    for module in MODULES:
        tree = ast.parse(module.read_text())
        public = [
            node.name
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and not node.name.startswith("_")
        ]
        lists = any(
            isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
            for node in tree.body
        )
        assert lists or not public, f"{name_of(module)} has {public} and no __all__"


def test_the_door_opens_without_heavy_libraries() -> None:
    code = "import sys, headgate.gemini; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    ).stdout.split()
    heavy = {"aiohttp", "pydantic", "prometheus_client", "rich", "typer", "structlog", "redis", "httpx"}
    assert not heavy & set(loaded)


def test_no_model_name_stands_in_code_but_the_documented_defaults() -> None:
    literal = re.compile(r"gemini-\d[\w.\-]*|gemini-embedding-\w+")
    allowed = {"gemini-2.5-flash", "gemini-embedding-001", "gemini-3.8-flash"}  # two defaults, a hint
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = set(literal.findall(node.value)) - allowed
                assert not found or node.value.count("\n"), f"{name_of(module)}:{node.lineno} {found}"


def test_no_tracked_file_names_a_machine_or_a_registry() -> None:
    places = [r"/" + "root/", r"/" + "work/", r"/" + "home/"]
    hosts = [r"pypi[.]" + "org", "python[h]osted", r"npmjs[.]" + "org", r"debian[.]" + "org"]
    pattern = re.compile("|".join(places + hosts))
    for path in tracked():
        if path.suffix == ".png" or path.name == "recorded.jsonl":
            continue
        found = pattern.search(path.read_text(encoding="utf-8", errors="replace"))
        assert not found, f"{path.relative_to(ROOT)}: {found[0] if found else ''}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_the_lock_pins_every_package_with_hashes() -> None:
    for name in ("run.txt", "dev.txt"):
        text = (ROOT / "requirements" / name).read_text()
        pins = re.findall(r"^[\w.\-]+==\S+", text, re.MULTILINE)
        assert len(pins) > 10
        assert text.count("--hash=sha256:") >= len(pins)
        assert not re.search(r"^[\w.\-]+ *(>=|@|$)", text, re.MULTILINE)


def test_the_wheel_holds_the_package_its_data_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {
        f"headgate/{path.relative_to(SOURCE)}" for path in tracked() if path.is_relative_to(SOURCE)
    }
    assert shipped <= names
    others = {name for name in names - shipped if ".dist-info/" not in name}
    assert not others
    assert "headgate/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
