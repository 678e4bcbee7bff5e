"""The documentation is executed: every fence runs, every link leads somewhere, every name exists.

A page's ```python fences are one script, run in order in a fresh process whose settings point to an
emulator on loopback; any other address is refused. ```toml fences that begin with `# name.toml` are
files beside that script. Lines `$ headgate …` of ```console fences must exit with 0. One test a page,
so that a failure names the page.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from headgate.emulator import CodegenTeam, Emulator, EmulatorConfig, InThread, Project
from headgate.wiring.settings import OPTIONS, Option

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
REFERENCE = DOCS / "reference" / "configuration.md"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

LANGUAGES = {"python", "toml", "console", "sh", "text", "json", "yaml", "promql", "dockerfile"}
OTHERS_VARIABLES = {
    "GOOGLE_API_KEY",
    "GOOGLE_GEMINI_BASE_URL",
    "ANTHROPIC_BASE_URL",
    "OPENAI_BASE_URL",
}  # fmt: skip - of the SDKs
LONGEST_SCRIPT = 30.0  # seconds; a page that needs more is no quick example
NOT_RUN = re.compile(r"^headgate (demo|emulator|emulate|serve)\b(?!.*--help)")  # long, or for ever

KEYS = {
    "primary": ("alpha", "CANARY-docs-first-key-0123456789"),
    "backup-1": ("beta", "CANARY-docs-second-key-0123456789"),
}
CODEGEN_TOKEN = "CANARY-docs-codegen-token-0123456789"

VARIABLE = re.compile(
    r"\b(?:CODEGEN_[A-Z_0-9]+|ANTHROPIC_[A-Z_0-9]+|OPENAI_[A-Z_0-9]+|GEMINI_[A-Z_0-9]+|HEADGATE_[A-Z_]+)\b"
)
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=indent)``` *$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|!\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)

GUARD = """
import socket
_connect, _connect_ex = socket.socket.connect, socket.socket.connect_ex
_getaddrinfo = socket.getaddrinfo
def _checked(address):
    host = address[0] if isinstance(address, tuple) else "unix"
    if host not in ("127.0.0.1", "::1", "localhost", "unix", None, ""):
        raise ConnectionRefusedError(f"documentation runs without a network; asked for {host}")
def connect(self, address):
    _checked(address)
    return _connect(self, address)
def connect_ex(self, address):
    _checked(address)
    return _connect_ex(self, address)
def getaddrinfo(host, *args, **kwargs):
    _checked((host,))
    return _getaddrinfo(host, *args, **kwargs)
socket.socket.connect, socket.socket.connect_ex = connect, connect_ex
socket.getaddrinfo = getaddrinfo
"""


class Fence(NamedTuple):
    """A block of code in a page."""

    language: str
    code: str
    line: int


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def fences(page: Path) -> list[Fence]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        indent = len(match["indent"])
        code = "".join(line[indent:] for line in match["code"].splitlines(keepends=True))
        line = text.count("\n", 0, match.start()) + 1
        found.append(Fence(match["language"].strip(), code, line))
    return found


def prose(page: Path) -> str:
    """A page without its code, where brackets are no links and `#` is no heading."""
    without = FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.sub(r"<!--.*?-->", "", without, flags=re.DOTALL)


def links(page: Path) -> list[str]:
    bare = re.sub(r"`[^`\n]*`", "", prose(page))
    return [first or second for first, second in LINK.findall(bare)]


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors a page offers, named as GitHub names them."""
    found: dict[str, int] = {}
    names = set()
    for heading in HEADING.findall(prose(page)):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        names.add(f"{slug}-{count}" if count else slug)
    return frozenset(names)


@cache
def known_variables() -> frozenset[str]:
    """Every variable the code names, and the numbered keys whose names it builds."""
    names = {option.variable for option in OPTIONS}
    for source in (ROOT / "src").rglob("*.py"):
        names.update(VARIABLE.findall(source.read_text(encoding="utf-8")))
    return frozenset(names | {f"GEMINI_API_KEY_{number}" for number in range(2, 11)})


@pytest.fixture(scope="session")
def upstream() -> Iterator[InThread]:
    projects = [Project(name, {key: value}) for key, (name, value) in KEYS.items()]
    team = CodegenTeam("docs", {"main": CODEGEN_TOKEN}, runs=2, repos=3, run_seconds=0.5, limited=False)
    config = EmulatorConfig(projects=projects, codegen=[team])
    with Emulator(config).in_thread() as emulator:
        yield emulator


@pytest.fixture
def environment(upstream: InThread, tmp_path: Path) -> dict[str, str]:
    """What a reader's shell would hold, plus a guard that knows loopback only."""
    upstream.reset()
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
        "HOME": str(tmp_path),
        "PYTHONPATH": str(guard),
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_COLOR": "1",
        "COLUMNS": "100",
        "GEMINI_API_KEYS": ",".join(f"{value}|{key}|{name}" for key, (name, value) in KEYS.items()),
        "HEADGATE_GEMINI_BASE_URL": upstream.base_url,
        "CODEGEN_API_TOKEN": CODEGEN_TOKEN,
        "CODEGEN_ORG_ID": "1",
        "CODEGEN_BASE_URL": f"{upstream.base_url}/v1",
    }


def run(what: str, command: list[str], folder: Path, environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            check=False,
            text=True,
            timeout=LONGEST_SCRIPT,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"{what} took longer than {LONGEST_SCRIPT:.0f} s", pytrace=False)
    said = f"{done.stdout}\n{done.stderr}"
    if done.returncode != 0:
        pytest.fail(f"{what} exited with {done.returncode}:\n{said}", pytrace=False)
    for value in (CODEGEN_TOKEN, *(value for _, value in KEYS.values())):
        assert value not in said, f"{what} printed a key"
    assert "Unclosed" not in done.stderr, f"{what} left something open:\n{done.stderr}"
    assert "never retrieved" not in done.stderr, f"{what} lost an error:\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_the_page_runs(page: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """The page's Python and its commands do what the page lets expect: they work."""
    folder = tmp_path / "work"
    folder.mkdir()
    script: list[str] = []
    for fence in fences(page):
        assert fence.language in LANGUAGES, f"line {fence.line}: unknown language {fence.language!r}"
        if fence.language == "toml":
            tomllib.loads(fence.code)
            named = re.match(r"# *([\w.\-]+\.toml)\s*$", fence.code.splitlines()[0])
            if named:
                (folder / named[1]).write_text(fence.code, encoding="utf-8")
        if fence.language == "python":
            # Blank lines keep the page's line numbers in a traceback.
            lines = sum(piece.count("\n") for piece in script)
            script.append("\n" * max(0, fence.line - lines) + fence.code)
    if script:
        source = folder / "page.py"
        source.write_text("".join(script), encoding="utf-8")
        run(page_name(page), [sys.executable, "-W", "error", "page.py"], folder, environment)
    for fence in fences(page):
        if fence.language == "console":
            for line in fence.code.splitlines():
                assert not line.startswith("headgate "), (
                    "without `$ ` it looks like output, and is not run"
                )
                command = line.removeprefix("$ ")
                if line.startswith("$ headgate") and not NOT_RUN.match(command):
                    run(command, ["sh", "-c", command], folder, environment)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_the_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that exists and an anchor that it has."""
    broken = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or not target.is_relative_to(ROOT):
            broken.append(link)
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            broken.append(f"{link} (no such anchor)")
    assert not broken, f"{page_name(page)} links to {broken}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_the_variables_exist(page: Path) -> None:
    """Every environment variable a page names, in prose or in a shell, is one the code reads."""
    named = set(VARIABLE.findall(page.read_text(encoding="utf-8")))
    for fence in fences(page):
        if fence.language in ("sh", "console"):
            named.update(re.findall(r"^(?:\$ )?export (\w+)=", fence.code, re.MULTILINE))
    unknown = named - known_variables() - OTHERS_VARIABLES
    assert not unknown, f"{page_name(page)} names {sorted(unknown)}, which nothing reads"


def test_every_page_is_reachable() -> None:
    """From docs/README.md, by links alone."""
    seen: set[Path] = set()
    waiting = [INDEX]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not page.is_file():
            continue
        seen.add(page)
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
    lost = sorted(page_name(page) for page in set(PAGES) - seen if page.is_relative_to(DOCS))
    assert not lost, f"no page leads to {lost}"


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_the_reference_has_every_setting(option: Option) -> None:
    """Name, variable and default of each setting stand in one row of the reference."""
    text = REFERENCE.read_text(encoding="utf-8")
    rows = [
        row for row in text.splitlines() if f"`{option.name}`" in row and f"`{option.variable}`" in row
    ]
    assert len(rows) == 1, f"{REFERENCE.name} needs one row for {option.name}, {option.variable}"
    default = str(option.default).lower() if isinstance(option.default, bool) else option.default
    shown = (
        "unset" if default is None else f"{default:g}" if isinstance(default, float) else str(default)
    )
    assert f"`{shown}`" in rows[0] or shown in rows[0].split("|")[3], (
        f"default of {option.name}: {shown}"
    )
