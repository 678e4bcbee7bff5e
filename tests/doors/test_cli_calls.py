"""`headgate ask` and `headgate embed`, against an emulator in a thread."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from headgate.cli.main import app
from headgate.core.call import Usage
from headgate.emulator import Emulator, EmulatorConfig, InThread, Limits, Project
from headgate.gemini import GeminiReply, ResilientGeminiClient

KEYS = {
    f"{name}-{number}": f"AIza-CANARY-{name}-{number}-000000000" for name in "ab" for number in "12"
}
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000"
    "00030101"
    "0018dd8db00000000049454e44ae426082"
)


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    assert "CANARY" not in result.output
    assert "Traceback" not in result.output
    return result


def use(monkeypatch: pytest.MonkeyPatch, upstream: InThread, keys: dict[str, str] = KEYS) -> None:
    entries = (f"{value}|{name}|{name[0]}" for name, value in keys.items())
    monkeypatch.setenv("GEMINI_API_KEYS", ",".join(entries))
    monkeypatch.setenv("HEADGATE_GEMINI_BASE_URL", upstream.base_url)
    monkeypatch.setenv("GEMINI_DEFAULT_MODEL", "gemini-3.5-flash-lite")
    monkeypatch.setenv("HEADGATE_MAX_WAIT_SECONDS", "0")


def config(limits: Limits | None = None, **states: str) -> EmulatorConfig:
    projects = [
        Project(
            name,
            {key: value for key, value in KEYS.items() if key[0] == name},
            {"*": limits or Limits()},
            key_states={key: state for key, state in states.items() if key[0] == name},  # type: ignore[misc]
        )
        for name in "ab"
    ]
    return EmulatorConfig(projects=projects)


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[InThread]:
    with Emulator(config()).in_thread() as running:
        use(monkeypatch, running)
        yield running


def requests(upstream: InThread) -> int:
    return upstream.report().totals.requests


# ── ask ─────────────────────────────────────────────────────────────────────────────────────────────


def test_ask_streams_the_answer_to_stdout_and_nothing_to_stderr(upstream: InThread) -> None:
    result = run("ask", "Why", "is the sky blue?")
    assert result.exit_code == 0
    assert len(result.stdout) > 40
    assert result.stdout.endswith("\n")
    assert not result.stderr
    assert "streamGenerateContent" not in result.output


def test_s3_10_a_project_is_context_only(upstream: InThread, tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("do_not_send_this = 1\n")
    result = run("ask", "Review", "--project", str(tmp_path), "--json")
    assert json.loads(result.stdout)["cwd"] == str(tmp_path)
    assert "cwd" not in json.loads(run("ask", "Review", "--json").stdout)
    assert "do_not_send_this" not in result.output


def test_s3_10_a_project_must_exist_and_its_question_ends(
    upstream: InThread, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = run("ask", "Review", "--project", str(tmp_path / "nowhere"))
    assert result.exit_code == 2
    assert requests(upstream) == 0
    seen: list[object] = []

    async def noted(client: object, prompt: str, model: object, **options: object) -> GeminiReply:
        seen.append((prompt, options["timeout"]))
        return GeminiReply("x", (), "STOP", Usage(), "m", "k", 1, 0, 0, 0.0, 0.0, "r")

    monkeypatch.setattr(ResilientGeminiClient, "generate_reply", noted)
    for extra in (("--project", str(tmp_path)), ("--project", str(tmp_path), "--timeout", "7"), ()):
        assert run("ask", "Review", "--json", *extra).exit_code == 0
    assert seen == [("Review", 120.0), ("Review", 7.0), ("Review", None)]


def test_ask_without_streaming_prints_the_same_answer(upstream: InThread) -> None:
    assert run("ask", "Hello", "--no-stream").stdout == run("ask", "Hello").stdout


def test_ask_json_has_the_documented_shape(upstream: InThread) -> None:
    reply = json.loads(run("ask", "Hello", "--json").stdout)
    assert list(reply) == [
        "text", "model", "key_name", "finish_reason", "usage", "attempts", "rotations", "retries",
        "waited", "elapsed", "request_id", "media",
    ]  # fmt: skip
    assert reply["model"] == "gemini-3.5-flash-lite"
    assert reply["key_name"] in KEYS
    assert reply["usage"]["total"] > reply["usage"]["prompt"] > 0
    assert (reply["attempts"], reply["finish_reason"]) == (1, "STOP")


def sent_prompt(monkeypatch: pytest.MonkeyPatch, *arguments: str, stdin: str | None = None) -> Any:
    """The prompt and options a command hands to the client."""
    seen: list[Any] = []

    async def record(self: object, prompt: str, model: object = None, **options: object) -> GeminiReply:
        seen.append((prompt, {name: value for name, value in options.items() if value is not None}))
        raise KeyboardInterrupt

    monkeypatch.setattr(ResilientGeminiClient, "generate_reply", record)
    run("ask", "--no-stream", *arguments, stdin=stdin)
    return seen[0]


def test_text_from_stdin_follows_the_prompt(
    upstream: InThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sent_prompt(monkeypatch, "Sum up:", stdin="one\ntwo\n")[0] == "Sum up:\n\none\ntwo"


@pytest.mark.parametrize("arguments", [("-",), ()])
def test_stdin_alone_is_a_prompt(
    upstream: InThread, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    assert sent_prompt(monkeypatch, *arguments, stdin="Hello\n")[0] == "Hello"


def test_every_option_reaches_the_call(
    upstream: InThread, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image, schema = tmp_path / "a.png", tmp_path / "s.json"
    image.write_bytes(PNG)
    schema.write_text('{"type": "object"}')
    _, options = sent_prompt(
        monkeypatch, "Hi", "-i", str(image), "-f", str(image), "-s", "Be brief", "-t", "0.5",
        "--max-output-tokens", "9", "--schema", str(schema), "--timeout", "8",
    )  # fmt: skip
    assert options == {
        "images": [image],
        "files": [image],
        "system_instruction": "Be brief",
        "temperature": 0.5,
        "max_output_tokens": 9,
        "response_json_schema": {"type": "object"},
        "timeout": 8.0,
    }


def test_an_image_and_a_schema_are_understood_by_the_upstream(
    upstream: InThread, tmp_path: Path
) -> None:
    image, schema = tmp_path / "a.png", tmp_path / "s.json"
    image.write_bytes(PNG)
    schema.write_text('{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}')
    result = run("ask", "What is it?", "--image", str(image), "--schema", str(schema))
    assert list(json.loads(result.stdout)) == ["a"]


def test_a_made_picture_is_saved_or_told_about(upstream: InThread, tmp_path: Path) -> None:
    told = run("ask", "Draw", "-m", "gemini-3-pro-image", "--no-stream")
    assert "image/png" in told.stderr
    assert "--output" in told.stderr
    saved = run("ask", "Draw", "-m", "gemini-3-pro-image", "-o", str(tmp_path / "cat"))
    assert (tmp_path / "cat.png").read_bytes().startswith(b"\x89PNG")
    assert "Saved" in saved.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "nothing to ask"),
        (("Hi", "--image", "absent.png"), "does not exist"),
        (("Hi", "--schema", __file__), "is not valid JSON"),
        (("Hi", "--temperature", "3"), "0.0 to 2.0"),
        (("Hi", "--output", "no-such-folder/a.png"), "there is no folder"),
        (("Hi", "--modle", "x"), "--model"),
    ],
)
def test_a_wrong_use_of_ask_ends_with_2_and_sends_nothing(
    upstream: InThread, arguments: tuple[str, ...], says: str
) -> None:
    result = run("ask", *arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())
    assert requests(upstream) == 0


def test_stdin_that_is_no_text_is_refused_with_advice(upstream: InThread) -> None:
    result = run("ask", "Hi", stdin=b"\xff\xfe\x00")
    assert result.exit_code == 2
    assert "--file" in result.stderr


# ── how calls fail ──────────────────────────────────────────────────────────────────────────────────


def test_no_quota_left_ends_with_4_and_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with Emulator(config(Limits(rpm=0, rpd=0))).in_thread() as upstream:
        use(monkeypatch, upstream)
        result = run("ask", "Hi")
    assert result.exit_code == 4
    # A day's end is tried hourly: an hour away at the most, less in the last one before midnight.
    come_back = r"Come back (on \d{4}-\d\d-\d\d )?at \d\d:\d\d(:\d\d)?, in \d+ (min|s)\b"
    assert re.search(come_back, result.stderr)
    assert not result.stdout


def test_a_short_wait_is_told_in_seconds_and_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    with Emulator(config(Limits(rpm=1, mechanism="sliding_log"))).in_thread() as upstream:
        use(monkeypatch, upstream)
        codes = [run("ask", "Hi").exit_code for _ in range(2)]  # one for each project
        result = run("ask", "Hi")
    assert (*codes, result.exit_code) == (0, 0, 4)
    assert re.search(r"Come back at \d\d:\d\d:\d\d, in \d+ s", result.stderr)


def test_dead_keys_end_with_7_and_name_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = dict.fromkeys((name.replace("-", "_") for name in KEYS), "expired")
    states = {name.replace("_", "-"): state for name, state in dead.items()}
    with Emulator(config(**states)).in_thread() as upstream:
        use(monkeypatch, upstream)
        result = run("ask", "Hi")
    assert result.exit_code == 7
    assert "headgate keys --check" in result.stderr


@pytest.mark.parametrize(
    ("kind", "code", "says"),
    [
        ("blocked", 5, "Change the prompt"),
        ("location", 5, "region"),
        ("404-unknown-model", 5, "Correct"),
    ],
)
def test_a_refused_call_ends_with_5(upstream: InThread, kind: str, code: int, says: str) -> None:
    upstream.script(kind, times=9)
    result = run("ask", "Hi")
    assert result.exit_code == code
    assert says in result.stderr
    assert "request " in result.stderr


def test_a_failing_upstream_ends_with_6(upstream: InThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY_ROTATION_MAX_RETRIES", "0")
    upstream.script("internal")
    assert run("ask", "Hi").exit_code == 6


def test_a_deadline_ends_with_6(upstream: InThread) -> None:
    upstream.script("stall", times=9)
    assert run("ask", "Hi", "--timeout", "0.05").exit_code == 6


def test_a_stream_that_breaks_off_keeps_what_came_and_ends_with_6(upstream: InThread) -> None:
    upstream.script("silent_eof", after=1)
    result = run("ask", "Tell me a long story about the sea")
    assert result.exit_code == 6
    assert result.stdout.endswith("\n")
    assert len(result.stdout) > 1


def test_no_key_ends_with_3_and_says_where_to_put_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEYS", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    result = run("ask", "Hi")
    assert result.exit_code == 3
    assert "GEMINI_API_KEYS" in result.stderr
    assert "headgate demo" in result.stderr


def test_verbose_shows_the_attempts_on_stderr(upstream: InThread) -> None:
    upstream.script("overload")
    result = run("ask", "Hi", "--verbose")
    assert "attempt 1 with key" in result.stderr
    assert "overload" in result.stderr
    assert "attempt" not in result.stdout


# ── embed ───────────────────────────────────────────────────────────────────────────────────────────


def test_embed_prints_one_vector_a_line_in_the_order_of_the_texts(upstream: InThread) -> None:
    lines = run("embed", "one", "two", "--dimensions", "4").stdout.splitlines()
    assert [len(json.loads(line)) for line in lines] == [4, 4]
    assert run("embed", "two", "--dimensions", "4").stdout.strip() == lines[1]
    assert lines[0] != lines[1]


def test_embed_passes_the_task_on(upstream: InThread) -> None:
    assert run("embed", "one", "--task-type", "RETRIEVAL_QUERY").exit_code == 0
    assert run("embed", "one", "--task-type", "NO_SUCH_TASK").exit_code == 5


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_embed_takes_the_lines_of_stdin_and_skips_empty_ones(
    upstream: InThread, arguments: tuple[str, ...]
) -> None:
    result = run("embed", *arguments, stdin="one\n\ntwo\nthree\n")
    assert len(result.stdout.splitlines()) == 3


def test_embed_json_has_the_documented_shape(upstream: InThread) -> None:
    shape = json.loads(run("embed", "one", "--dimensions", "4", "--json").stdout)
    assert shape["model"] == "gemini-embedding-001"
    (entry,) = shape["embeddings"]
    assert (entry["index"], entry["dimensions"], len(entry["values"])) == (0, 4, 4)


def test_embed_with_nothing_to_embed_ends_with_2(upstream: InThread) -> None:
    result = run("embed", stdin="\n")
    assert result.exit_code == 2
    assert "nothing to embed" in result.stderr


def test_one_failed_text_fails_embed_with_its_own_error(upstream: InThread) -> None:
    upstream.script("location", times=9)
    result = run("embed", "one", "two", "three")
    assert result.exit_code == 5
    assert "region" in result.stderr
