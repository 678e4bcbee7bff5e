"""What ships in deploy/, read: rules, panels, and the names of metrics that their queries use."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from headgate.telemetry.metrics.catalogue import CATALOGUE, series_names

__all__ = [
    "BOARDS",
    "GRAFANA",
    "PROMETHEUS",
    "ROOT",
    "RULES",
    "alerts",
    "exported",
    "names_in",
    "queries",
    "read",
    "rules",
]

ROOT = Path(__file__).parents[1]
PROMETHEUS, GRAFANA = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "grafana"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
BOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))


@cache
def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    return [rule for file in RULES for group in read(file)["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def queries() -> list[tuple[str, str]]:
    """Of all panels: board and title, and a query."""
    return [
        (f"{board.stem}: {panel['title']}", target["expr"])
        for board in BOARDS
        for panel in json.loads(board.read_text(encoding="utf-8"))["panels"]
        for target in panel["targets"]
    ]


NAME = re.compile(r"(?<![\w:.])[a-z_][\w:]*(?![\w:]|\s*\()")
WORDS = {"and", "or", "unless", "on", "by", "le", "offset", "vector", "ignoring", "group_left"}
GROUPING = re.compile(r"\b(?:by|on|without)\s*\([^)]*\)")
KEPT_OUT = re.compile(r"\{[^}]*\}|\[[^\]]*\]")
OF_PROMETHEUS = {"up"}


def names_in(query: str) -> set[str]:
    """The metrics that a query reads; a pattern of names is read as every one it matches."""
    patterns = re.findall(r'__name__=~"([^"]*)"', query)
    matched = {name for name in exported() for pattern in patterns if re.fullmatch(pattern, name)}
    assert bool(matched) is bool(patterns)
    bare = KEPT_OUT.sub(" ", GROUPING.sub(" ", query))
    return {name for name in NAME.findall(bare) if name not in WORDS} | matched


@cache
def exported() -> frozenset[str]:
    """What the catalogue has, and what rules record."""
    of_catalogue = {name for family in CATALOGUE for name in series_names(family)}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    return frozenset(of_catalogue | recorded | OF_PROMETHEUS)
