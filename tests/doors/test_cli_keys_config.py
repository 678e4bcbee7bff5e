"""`headgate keys` and `headgate config check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from headgate.cli.main import app
from headgate.cli.probe import Verdict, probe
from headgate.core.call import Key
from headgate.core.outcome import Kind
from headgate.emulator import Emulator, EmulatorConfig, Fault, Organisation, Project
from headgate.testing import Answer, Broken, ScriptedTransport, VirtualClock
from headgate.wiring.claude import CLAUDE_OPTIONS, load_claude
from headgate.wiring.settings import OPTIONS, load_gemini

KEYS = {"one": "AIza-CANARY-one-0000000000", "two": "AIza-CANARY-two-0000000000"}
OWN_KEY = "AIza-CANARY-own-0000000000"
KEY_VARIABLES = (
    "GEMINI_API_KEYS", "GEMINI_API_KEYS_FILE", "GEMINI_API_KEY", "GOOGLE_API_KEY",
    "ANTHROPIC_API_KEYS", "ANTHROPIC_API_KEYS_FILE", "ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY_FILE",
)  # fmt: skip
CLAUDE_KEYS = "sk-ant-CANARY-one-1111|first|acme,sk-ant-CANARY-two-2222|second"


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert "CANARY" not in result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two keys of one project and one without, no other setting, and a folder of its own."""
    for name in (
        *KEY_VARIABLES,
        *(option.variable for option in (*OPTIONS, *CLAUDE_OPTIONS)),
        "HEADGATE_CONFIG",
    ):
        monkeypatch.delenv(name, raising=False)
    entries = [f"{value}|{name}|shared" for name, value in KEYS.items()]
    monkeypatch.setenv("GEMINI_API_KEYS", ",".join([*entries, f"{OWN_KEY}|own"]))
    monkeypatch.chdir(tmp_path)


def emulator(*faults: Fault, **states: Any) -> Emulator:
    shared = Project("shared", KEYS, key_states={n: s for n, s in states.items() if n in KEYS})
    own = Project("own", {"own": OWN_KEY}, key_states={n: s for n, s in states.items() if n == "own"})
    return Emulator(EmulatorConfig(projects=[shared, own], faults=list(faults)))


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────


def test_keys_shows_a_row_for_each_key_and_says_that_history_is_not_its_own() -> None:
    result = run("keys")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0][:4] == ["#", "key", "project", "state"]
    assert rows[1] == ["0", "one", "shared", "ACTIVE", "0", "0.0", "–"]
    assert rows[3] == ["2", "own", "–", "ACTIVE", "0", "0.0", "–"]
    assert "starts at nought" in result.stderr


def test_keys_status_is_the_same_as_keys() -> None:
    assert run("keys", "status").stdout == run("keys").stdout


def test_keys_json_is_what_the_client_tells() -> None:
    metrics = json.loads(run("keys", "--json").stdout)
    assert list(metrics) == [
        "timestamp", "total_keys", "active_keys", "rotation_enabled", "backoff_seconds",
        "current_key_index", "keys",
    ]  # fmt: skip
    assert [key["name"] for key in metrics["keys"]] == ["one", "two", "own"]


def test_a_check_tells_good_keys_from_bad_ones_and_uses_no_quota(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with emulator(two="expired").in_thread() as upstream:
        monkeypatch.setenv("HEADGATE_GEMINI_BASE_URL", upstream.base_url)
        result = run("keys", "status", "--check", "--json")
        report = upstream.report()
    checks = {key["name"]: key["check"] for key in json.loads(result.stdout)["keys"]}
    assert {name: check["state"] for name, check in checks.items()} == {
        "one": "ok",
        "two": "invalid",
        "own": "ok",
    }
    assert "expired" in checks["two"]["reason"]
    assert checks["one"]["reason"] is None
    assert result.exit_code == 0
    assert report.totals.requests == 3
    assert report.totals.charged_requests == 0


def test_a_check_that_finds_no_working_key_ends_with_7(monkeypatch: pytest.MonkeyPatch) -> None:
    with emulator(one="leaked", two="invalid", own="suspended").in_thread() as upstream:
        monkeypatch.setenv("HEADGATE_GEMINI_BASE_URL", upstream.base_url)
        result = run("keys", "--check")
    assert result.exit_code == 7
    assert result.stdout.count("invalid") >= 3
    assert "none of the keys works" in result.stderr


def test_a_check_without_a_connection_says_unreachable_and_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEADGATE_GEMINI_BASE_URL", "http://127.0.0.1:9")
    result = run("keys", "--check")
    assert result.exit_code == 7
    assert result.stdout.count("unreachable") == 3
    assert "No connection to 127.0.0.1:9" in result.stdout


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (Answer(200, b'{"models": []}'), Verdict.OK),
        (Answer(200, b"<html>Sign in</html>"), Verdict.UNREACHABLE),
        (Answer(302, b""), Verdict.UNREACHABLE),
        (Answer(401, b"who are you"), Verdict.INVALID),
        (Answer(429, b"slow down"), Verdict.LIMITED),
        (Answer(503, b"later"), Verdict.UNREACHABLE),
        (Answer(delay=99), Verdict.UNREACHABLE),
        (Broken(Kind.TLS), Verdict.UNREACHABLE),
    ],
)
async def test_every_kind_of_answer_has_its_verdict(
    clock: VirtualClock, answer: Answer | Broken, verdict: Verdict
) -> None:
    transport = ScriptedTransport([answer], clock)
    settings = load_gemini(keys=(Key("k", "CANARY-key-0000000000", "key:k"),), environ={})
    (finding,) = await probe(settings, 15.0, transport=transport, clock=clock)
    assert finding.state is verdict
    assert clock.monotonic() <= 15.0
    assert transport.open_exchanges == 0
    assert transport.sent[0].request.method == "GET"
    assert "CANARY" not in transport.sent[0].request.url


# ── config check ────────────────────────────────────────────────────────────────────────────────────


def shape(result: Result) -> Any:
    return json.loads(result.stdout)


def test_config_check_shows_every_setting_its_value_and_where_it_came_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("headgate.toml").write_text("[gemini]\nmax_retries = 7\n")
    monkeypatch.setenv("GEMINI_API_KEY_ROTATION_BACKOFF_SECONDS", "33")
    result = run("config", "check")
    assert result.exit_code == 0
    for option in OPTIONS:
        assert option.name in result.stdout
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert lines["max_retries"].split()[1:] == ["7", "headgate.toml", "[gemini]"]
    assert lines["backoff_seconds"].split()[1:] == ["33", "GEMINI_API_KEY_ROTATION_BACKOFF_SECONDS"]
    assert lines["connect_timeout_seconds"].endswith("default")
    assert "3 keys from GEMINI_API_KEYS" in result.stdout
    assert "File: headgate.toml" in result.stdout


def test_config_check_json_has_the_documented_shape() -> None:
    found = shape(run("config", "check", "--json"))
    assert list(found) == [
        "ok", "file", "options", "keys", "quotas", "models", "claude", "openai", "problems", "codegen",
        "gateway", "content",
    ]  # fmt: skip
    assert found["claude"] is found["openai"] is found["codegen"] is found["gateway"] is None
    assert found["content"] is None
    assert found["quotas"] == []
    assert found["ok"] is True
    assert found["file"] is None
    assert [option["name"] for option in found["options"]] == [option.name for option in OPTIONS]
    assert list(found["options"][0]) == ["name", "variable", "value", "origin", "meaning"]
    assert found["keys"]["origin"] == "GEMINI_API_KEYS"
    assert found["keys"]["keys"][0] == {"name": "one", "project": "shared", "value": "…0000"}
    assert found["keys"]["keys"][2]["project"] is None
    assert list(found["models"]) == ["data_date", "data_age_days", "default_model", "embedding_model"]
    assert list(found["models"]["default_model"]) == ["asked", "resolved", "warning"]


def test_config_check_reports_every_problem_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_GEMINI_BASE_URL", "nowhere")
    monkeypatch.setenv("GEMINI_API_KEY_ROTATION_MAX_RETRIES", "many")
    monkeypatch.setenv("HEADGATE_MAX_WAIT_SECONDS", "-1")
    monkeypatch.setenv("GEMINI_API_KEYS", f"{OWN_KEY},{OWN_KEY}")
    result = run("config", "check", "--json")
    assert result.exit_code == 3
    problems = shape(result)["problems"]
    assert len(problems) == 4
    for name in ("BASE_URL", "MAX_RETRIES", "MAX_WAIT", "GEMINI_API_KEYS: entry 2"):
        assert sum(name in problem for problem in problems) == 1
        assert name in result.stderr


def test_config_check_names_a_wrong_setting_in_the_file_once() -> None:
    Path("headgate.toml").write_text("[gemini]\nmax_retry = 7\n")
    result = run("config", "check")
    assert result.exit_code == 3
    assert result.stderr.count("max_retries") == 1


def test_config_check_without_a_key_ends_with_3_and_still_shows_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GEMINI_API_KEYS")
    result = run("config", "check")
    assert result.exit_code == 3
    assert "No Gemini key found" in result.stderr
    assert "max_retries" in result.stdout


def test_config_check_refuses_a_retired_model_under_the_strict_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GEMINI_DEFAULT_MODEL", "gemini-1.5-flash")
    assert "gemini-1.5-flash →" in run("config", "check").stdout
    monkeypatch.setenv("HEADGATE_MODEL_POLICY", "strict")
    result = run("config", "check")
    assert result.exit_code == 3
    assert "default_model" in result.stderr


def test_config_check_names_the_file_of_headgate_config(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "other.toml"
    path.write_text("[gemini]\nmax_retries = 1\n")
    monkeypatch.setenv("HEADGATE_CONFIG", str(path))
    assert shape(run("config", "check", "--json"))["file"] == str(path)


# ── Claude ──────────────────────────────────────────────────────────────────────────────────────────


def test_keys_shows_organisations_where_they_are_asked_for_or_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEYS", CLAUDE_KEYS)
    rows = [line.split() for line in run("keys", "--provider", "claude").stdout.splitlines()]
    assert rows[0][:4] == ["#", "key", "organisation", "state"]
    assert rows[1][:4] == ["0", "first", "acme", "ACTIVE"]
    assert rows[2][:3] == ["1", "second", "–"]
    assert "project" in run("keys").stdout  # Gemini comes first where both have keys
    monkeypatch.delenv("GEMINI_API_KEYS")
    assert run("keys").stdout == run("keys", "--provider", "claude").stdout
    assert run("keys", "--provider", "gemini").exit_code == 3
    monkeypatch.delenv("ANTHROPIC_API_KEYS")
    result = run("keys")
    assert (result.exit_code, "No Gemini key found" in result.stderr) == (3, True)


def test_a_check_of_claude_keys_asks_for_a_list_of_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEYS", CLAUDE_KEYS)
    values = [entry.split("|")[0] for entry in CLAUDE_KEYS.split(",")]
    organisations = [
        Organisation("acme", {"first": values[0]}),
        Organisation("own", {"second": values[1]}, key_states={"second": "invalid"}),
    ]
    with Emulator(EmulatorConfig(organisations=organisations)).in_thread() as upstream:
        monkeypatch.setenv("HEADGATE_ANTHROPIC_BASE_URL", upstream.base_url)
        result = run("keys", "--provider", "claude", "--check", "--json")
        report = upstream.report()
    checks = [key["check"]["state"] for key in json.loads(result.stdout)["keys"]]
    assert checks == ["ok", "invalid"]
    assert report.totals.requests == 2
    assert report.totals.charged_requests == 0
    monkeypatch.setenv("HEADGATE_ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    nowhere = run("keys", "--provider", "claude", "--check")
    assert nowhere.exit_code == 7
    assert "HEADGATE_ANTHROPIC_BASE_URL" in nowhere.stderr


async def test_another_apis_page_is_no_verdict_on_a_claude_key(clock: VirtualClock) -> None:
    transport = ScriptedTransport([Answer(200, b"<html>Sign in</html>")], clock)
    settings = load_claude(keys=(Key("k", "CANARY-key-0000000000", "key:k"),), environ={})
    (finding,) = await probe(settings, 15.0, transport=transport, clock=clock)
    assert finding.state is Verdict.UNREACHABLE
    assert "Anthropic API" in finding.reason
    assert transport.sent[0].request.headers["anthropic-version"] == "2023-06-01"


def test_config_check_shows_claude_beside_gemini(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("headgate.toml").write_text(
        "[gemini]\nquota_rpm = 5\n"
        "[gemini.quota.models.m]\ntpm = 9\n"
        "[claude]\nmax_retries = 7\nquota_margin = 0.5\n"
        "[claude.quota.models.claude-opus-4-8]\nitpm = 100\n"
        "[claude.quota.organisations.acme]\notpm = 50\n"
        "[claude.quota.organisations.acme.models.claude-haiku-5]\nconcurrency = 6\n"
    )
    monkeypatch.setenv("ANTHROPIC_API_KEYS", CLAUDE_KEYS)
    monkeypatch.setenv("HEADGATE_CLAUDE_QUOTA_RPM", "40")
    result = run("config", "check", "--json")
    assert result.exit_code == 0
    found = shape(result)
    claude = found["claude"]
    assert list(claude) == ["options", "keys", "quotas", "models"]
    origins = {option["name"]: option["origin"] for option in claude["options"]}
    assert origins["max_retries"] == "headgate.toml [claude] max_retries"
    assert origins["quota_rpm"] == "HEADGATE_CLAUDE_QUOTA_RPM"
    assert claude["keys"]["keys"] == [
        {"name": "first", "organisation": "acme", "value": "…1111"},
        {"name": "second", "organisation": None, "value": "…2222"},
    ]
    assert claude["quotas"] == [
        {"organisation": None, "model": None, "from": "declared", "rpm": 20},
        {"organisation": None, "model": "claude-opus-4", "from": "declared", "itpm": 50},
        {"organisation": "acme", "model": None, "from": "declared", "otpm": 25},
        {"organisation": "acme", "model": "claude-haiku-5", "from": "declared", "concurrency": 3},
    ]
    assert found["quotas"] == [
        {"project": None, "model": None, "from": "declared", "rpm": 5},
        {"project": None, "model": "m", "from": "declared", "tpm": 9},
    ]
    text = run("config", "check").stdout
    for line in ("Gemini", "Claude", "2 keys from ANTHROPIC_API_KEYS", "quota of organisation"):
        assert line in text
    rows = [row.split() for row in text.splitlines()]
    assert ["each", "claude-opus-4", "itpm", "50", "declared"] in rows


def test_config_check_is_content_with_keys_of_one_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEYS")
    monkeypatch.setenv("ANTHROPIC_API_KEYS", CLAUDE_KEYS)
    result = run("config", "check")
    assert (result.exit_code, "No key of Gemini was found" in result.stdout) == (0, True)
    monkeypatch.setenv("ANTHROPIC_API_KEYS", f"{CLAUDE_KEYS},|x|y|z")
    result = run("config", "check")
    assert result.exit_code == 3
    assert "ANTHROPIC_API_KEYS: entry 3" in result.stderr


def test_config_check_says_each_problem_of_the_file_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEYS", CLAUDE_KEYS)
    Path("headgate.toml").write_text("[claud]\n")
    result = run("config", "check", "--json")
    assert shape(result)["problems"] == [
        "headgate.toml: there is no setting 'claud'; did you mean claude?"
    ]
    Path("headgate.toml").write_text("[claude]\nmax_tokns = 7\n[claude.quota]\nrpm = 5\n")
    assert "did you mean max_tokens?" in shape(run("config", "check", "--json"))["problems"][0]
    Path("headgate.toml").write_text("[claude.quota.models.m]\ntpm = 5\n")
    (problem,) = shape(run("config", "check", "--json"))["problems"]
    assert "headgate.toml [claude.quota] models.m: there is no quota 'tpm'" in problem
    assert "declare itpm and otpm" in problem


def test_config_check_shows_codegen_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("headgate.toml").write_text("[codegen]\nmax_retries = 9\n")
    monkeypatch.setenv("CODEGEN_API_TOKEN", "CANARY-codegen-token-0123456789")
    monkeypatch.setenv("CODEGEN_HEADER_X_TEAM", "CANARY-team")
    options = {option["name"]: option for option in shape(run("config", "check", "--json"))["codegen"]}
    assert options["max_retries"]["origin"] == "headgate.toml [codegen] max_retries"
    assert options["api_token"]["value"] == "…6789"
    assert options["webhook_secret"]["value"] is None
    assert options["custom_headers"]["value"] == ["x-team"]
    rows = [row.split() for row in run("config", "check").stdout.splitlines()]
    assert ["Codegen"] in rows
    assert ["max_retries", "9", "headgate.toml", "[codegen]"] in rows
    assert ["webhook_secret", "unset", "default"] in rows


def test_config_check_takes_a_codegen_token_for_keys_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEYS")
    assert run("config", "check").exit_code == 3
    monkeypatch.setenv("CODEGEN_API_TOKEN", "CANARY-codegen-token-0123456789")
    assert run("config", "check").exit_code == 0
    monkeypatch.setenv("CODEGEN_TIMEOUT", "soon")
    result = run("config", "check", "--json")
    assert result.exit_code == 3
    (problem,) = (text for text in shape(result)["problems"] if "CODEGEN_TIMEOUT" in text)
    assert "'soon'" in problem


def test_config_check_shows_the_gateway_and_no_caller_key(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("headgate.toml").write_text("[gateway]\nmax_body_mib = 64\ntransport = 'aiohttp'\n")
    monkeypatch.setenv("GEMINI_API_KEY", "AIzaCANARY-0123456789-0123456789")
    monkeypatch.setenv("HEADGATE_CALLER_KEYS", "CANARY-caller-0123456789-abcd|ann")
    monkeypatch.setenv("HEADGATE_GATEWAY_DRAIN_SECONDS", "9")
    found = shape(run("config", "check", "--json"))["gateway"]
    options = {option["name"]: option for option in found["options"]}
    assert options["max_body_mib"]["origin"] == "headgate.toml [gateway] max_body_mib"
    assert options["drain_seconds"]["value"] == 9
    assert (options["transport"]["value"], options["transport"]["origin"]) == (
        "aiohttp",
        "headgate.toml [gateway] transport",
    )
    assert found["callers"] == [{"name": "ann", "value": "…abcd"}]
    shown = run("config", "check").stdout
    assert "Gateway" in shown
    assert "ann" in shown


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HEADGATE_CALLER_KEYS", "CANARY-short|ann", "shorter than 16 characters"),
        ("HEADGATE_CALLER_KEYS", "CANARY-caller-0123456789|ann|team", "the form is key|name"),
        ("HEADGATE_CALLER_KEYS", ",".join(["CANARY-caller-0123456789|a"] * 2), "repeats the key"),
        ("HEADGATE_GATEWAY_MAX_BODY_MIB", "none", "a whole number, 1 or more"),
        ("HEADGATE_GATEWAY_GEMINI_VERSION", "v9", "as_asked, v1, v1beta, v1alpha"),
        ("HEADGATE_GATEWAY_LINGER_SECONDS", "-1", "a number of seconds, 0 or more"),
    ],
)
def test_config_check_names_what_is_wrong_with_the_gateway(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "AIzaCANARY-0123456789-0123456789")
    monkeypatch.setenv(name, value)
    result = run("config", "check")
    assert result.exit_code == 3
    assert said in " ".join(result.stderr.split())
    assert name in result.stderr
    assert "CANARY" not in result.stdout + result.stderr


def test_caller_keys_may_stand_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "callers"
    keys = ("CANARY-caller-0123456789-abcd|ann", "CANARY-caller-0123456789-efgh|bob")
    file.write_text("\n".join(("# a comment", *keys, "")))
    file.chmod(0o600)
    monkeypatch.setenv("GEMINI_API_KEY", "AIzaCANARY-0123456789-0123456789")
    monkeypatch.setenv("HEADGATE_CALLER_KEYS_FILE", str(file))
    found = shape(run("config", "check", "--json"))["gateway"]
    assert [caller["name"] for caller in found["callers"]] == ["ann", "bob"]
    file.write_text("\n")
    result = run("config", "check")
    assert result.exit_code == 3
    assert "holds no key" in result.stderr


def test_config_check_shows_the_content_service_where_somebody_said_anything_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "AIzaCANARY-0123456789-0123456789")
    monkeypatch.setenv("HEADGATE_STORE", "redis://there")  # which says nothing of it
    assert shape(run("config", "check", "--json"))["content"] is None
    monkeypatch.setenv("QUOTA_RPM", "40")
    monkeypatch.setenv("REDIS_PASSWORD", "CANARY-redis-password")
    shown = {row["name"]: row for row in shape(run("config", "check", "--json"))["content"]}
    assert (shown["quota_rpm"]["value"], shown["quota_rpm"]["origin"]) == (40, "QUOTA_RPM")
    assert shown["redis_password"]["value"] == shown["store"]["value"] == "set"
    assert "Content" in run("config", "check").stdout
    monkeypatch.setenv("QUOTA_RPM", "many")
    wrong = run("config", "check")
    assert wrong.exit_code == 3
    assert "QUOTA_RPM is 'many'" in wrong.stderr
