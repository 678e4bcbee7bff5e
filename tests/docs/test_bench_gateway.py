"""The bench of gateways, as far as it needs no compiler, no load generator and no rival."""

from __future__ import annotations

import json
from pathlib import Path

from bench.rivals.gateway.bodies import (
    GEMINI_REQUEST,
    LARGE_REQUEST,
    OPENAI_REQUEST,
    streamed,
    write_answers,
)
from bench.rivals.gateway.contenders import Contender, Place, all_of, missing
from bench.rivals.gateway.load import Answered
from bench.rivals.gateway.measure import Row
from bench.rivals.gateway.tables import goals, table

ROOT = Path(__file__).parents[2]


def row(contender: str, cpu: float, scene: str = "32 connections", note: str = "") -> Row:
    return Row(contender, scene, 1000.0, cpu, 1.0, 2.0, 40.0, 0.5, note)


def test_requests_are_of_the_size_the_method_names() -> None:
    assert 900 < len(GEMINI_REQUEST) < 1200
    assert 900 < len(OPENAI_REQUEST) < 1200
    assert 95_000 < len(LARGE_REQUEST) < 110_000
    assert json.loads(streamed(OPENAI_REQUEST)) == json.loads(OPENAI_REQUEST) | {"stream": True}


def test_a_stream_of_the_upstream_says_why_it_stopped(tmp_path: Path) -> None:
    """Without that it has broken off, and a gateway that says so would be blamed for it."""
    write_answers(tmp_path)
    for name, field, reason in (
        ("gemini", "finishReason", "STOP"),
        ("openai", "finish_reason", "stop"),
    ):
        events = {}
        for part in ("event", "final"):
            text = (tmp_path / f"{name}.{part}").read_text(encoding="utf-8")
            assert text.startswith("data: ")
            [events[part]] = json.loads(text[6:])["candidates" if name == "gemini" else "choices"]
        assert not events["event"].get(field)
        assert events["final"][field] == reason
        assert json.loads((tmp_path / f"{name}.json").read_bytes())


def test_a_row_with_an_error_is_void() -> None:
    """Errors are fast: a contender that refuses looks like a good one."""
    assert Answered(10, 1.0, 1.0, 1.0, refused=0, broken=0).sound
    assert not Answered(10, 1.0, 1.0, 1.0, refused=1, broken=0).sound
    assert not Answered(10, 1.0, 1.0, 1.0, refused=0, broken=1).sound
    assert not Answered(0, 1.0, 1.0, 1.0, refused=0, broken=0).sound


def test_every_contender_is_told_where_it_stands(tmp_path: Path) -> None:
    """Each listens on its port and calls its upstream, and no name of a key or path is shared."""
    contenders = all_of(lambda _folder: "redis://127.0.0.1:3")
    assert len({one.name for one in contenders}) == len(contenders)
    for number, one in enumerate(contenders):
        folder = tmp_path / str(number)
        folder.mkdir()
        running = one.run(Place(1234, 4321, folder))
        said = " ".join([
            *running.command,
            *running.variables.values(),
            *one.headers.values(),
            *(file.read_text(encoding="utf-8") for file in folder.iterdir()),
        ]).format_map({"upstream": 4321}) if one.name == "Portkey" else " ".join([
            *running.command,
            *running.variables.values(),
            *(file.read_text(encoding="utf-8") for file in folder.iterdir()),
        ])  # fmt: skip
        assert "4321" in said, one.name
        assert one.telling or "1234" in said, one.name


def test_what_is_missing_is_named() -> None:
    lacks = Contender("x", lambda at: None, "/", {}, b"", needs="a-program-nobody-has")  # type: ignore[arg-type,return-value]
    assert missing(lacks) == "a-program-nobody-has"
    assert missing(Contender("x", lambda at: None, "/", {}, b"")) == ""  # type: ignore[arg-type,return-value]


def test_goals_compare_processor_time_of_one_run() -> None:
    """More requests a core is less time a request; each rival is met on the surface it has."""
    rows = [
        row("nginx", 16.0),
        row("Headgate, Gemini", 160.0),
        row("Headgate, OpenAI", 100.0),
        row("Headgate, Gemini, Valkey", 200.0),
        row("TensorZero", 110.0),
        row("Portkey", 650.0),
    ]
    found = "\n".join(goals(rows))
    assert "| ≥ 1.1 × TensorZero per core | 1.10 × |" in found
    assert "| ≥ 7.0 × Portkey per core | 6.50 × |" in found
    assert "| ≥ 0.2 × nginx per core | 0.10 × |" in found
    assert "| with Valkey ≥ 0.6 × memory | 0.80 × |" in found
    assert "LiteLLM" not in found


def test_the_page_has_a_table_for_each_scene_and_what_speaks_against_a_row() -> None:
    rows = [
        row("nginx", 16.0),
        row("nginx", 20.0, "400 streams, an event", "void: 3 refused, 0 broken"),
    ]
    text = table(rows, ["**x is missing**"], {"cores": "2"}, "quiet")
    assert text.count("## ") == 4
    assert "void: 3 refused" in text
    assert "**x is missing**" in text


def test_the_lock_of_portkey_names_no_registry() -> None:
    text = (ROOT / "bench/rivals/gateway/portkey/package-lock.json").read_text(encoding="utf-8")
    assert "resolved" not in text
    assert "integrity" in text
