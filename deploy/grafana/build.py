"""Builds the dashboards of `boards.toml`: `python deploy/grafana/build.py`.

What a board shows is said there, once; what Grafana wants to be told besides is the same for all, and
said here. Ids of boards are fixed, so that links to them last, and no datasource is named: the board
asks for one.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "boards", "built"]

HERE = Path(__file__).parent
FOLDER = HERE / "dashboards"

WIDTH = 24
SCHEMA = 39
"""Of Grafana's dashboards: 11 and later read it."""

SOURCE = {"type": "prometheus", "uid": "${datasource}"}

USUAL = {"unit": "short", "kind": "timeseries", "width": 12, "height": 8}
"""Of a panel that does not say otherwise."""

_DATASOURCE = {
    "name": "datasource",
    "type": "datasource",
    "query": "prometheus",
    "label": "Data source",
}
_KEY = {
    "name": "key",
    "type": "query",
    "label": "Key",
    "datasource": SOURCE,
    "query": "label_values(headgate:key_requests:rate15m, key)",
    "refresh": 2,
    "includeAll": True,
    "multi": True,
    "allValue": ".*",
    "current": {"text": "All", "value": "$__all"},
}

Board = Mapping[str, Any]


def boards() -> Sequence[Board]:
    """What `boards.toml` says."""
    found: Sequence[Board] = tomllib.loads((HERE / "boards.toml").read_text(encoding="utf-8"))["board"]
    return found


def built(board: Board) -> str:
    """The file of a board."""
    whole = {
        "uid": board["uid"],
        "title": board["title"],
        "description": board["about"],
        "tags": ["headgate"],
        "timezone": "browser",
        "schemaVersion": SCHEMA,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_DATASOURCE, _KEY] if board.get("by_key") else [_DATASOURCE]},
        "panels": list(_placed(board["panel"])),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _placed(panels: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Panels from left to right, and down when a line is full."""
    x = y = tallest = 0
    for number, given in enumerate(panels, start=1):
        panel = {**USUAL, **given}
        if x + panel["width"] > WIDTH:
            x, y, tallest = 0, y + tallest, 0
        yield _shown(number, panel, {"x": x, "y": y, "w": panel["width"], "h": panel["height"]})
        x, tallest = x + panel["width"], max(tallest, panel["height"])


def _shown(number: int, panel: Mapping[str, Any], place: Mapping[str, int]) -> dict[str, Any]:
    defaults = {"unit": panel["unit"], "min": 0}
    if "most" in panel:
        defaults["max"] = panel["most"]
    targets = [
        {
            "refId": chr(ord("A") + position),
            "datasource": SOURCE,
            "expr": query,
            "legendFormat": legend,
            **_asked_how(panel["kind"]),
        }
        for position, (query, legend) in enumerate(panel["ask"])
    ]
    return {
        "id": number,
        "title": panel["title"],
        "type": panel["kind"],
        "description": panel["about"],
        "datasource": SOURCE,
        "gridPos": place,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {},
    }


def _asked_how(kind: str) -> dict[str, Any]:
    """A table is of this moment, its labels columns; everything else is of the time that is shown."""
    if kind == "table":
        return {"instant": True, "range": False, "format": "table"}
    return {"instant": False, "range": True, "format": "time_series"}


if __name__ == "__main__":
    for one in boards():
        (FOLDER / f"{one['uid']}.json").write_text(built(one), encoding="utf-8")
