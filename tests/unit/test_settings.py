"""Each setting: where it comes from, which comes first, and what a wrong value is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headgate.core.errors import ConfigurationError, KeyFormatError, NoKeysError
from headgate.policy.models import ModelPolicy
from headgate.stores.urls import StoreUrl
from headgate.stores.usage_url import AUTO, UsageUrl
from headgate.wiring.keys import find_keys, parse_keys
from headgate.wiring.settings import OPTIONS, Option, load_gemini, resolve
from headgate.wiring.stores import IN_MEMORY

KEYS = parse_keys("AIzaCANARY-one|k0")

# name: default, (text, value) that are right, texts that are wrong, part of what is allowed
TABLE: dict[str, tuple[object, list[tuple[str, object]], list[str], str]] = {
    "base_url": (
        "https://generativelanguage.googleapis.com",
        [("http://127.0.0.1:8765", "http://127.0.0.1:8765"), (" https://a.b/ ", "https://a.b")],
        ["a.b", "ftp://a.b", "https://", "https://a.b/v1", "https://a.b?x=1", "https://u:p@a.b",
         "https://a.b:0", "https://a.b:99999", "https://a.b:x"],
        "scheme and host",
    ),
    "default_model": (
        "gemini-2.5-flash",
        [("gemini-3.8-flash", "gemini-3.8-flash"), (" m ", "m")],
        ["a b", "a?b", "a#b", "modèle"],
        "name of a model",
    ),
    "embedding_model": (
        "gemini-embedding-001",
        [("gemini-embedding-2", "gemini-embedding-2")],
        ["a b"],
        "name of a model",
    ),
    "model_policy": (
        ModelPolicy.SUCCESSOR,
        [("strict", ModelPolicy.STRICT), ("AS_ASKED", ModelPolicy.AS_ASKED)],
        ["lenient", "1"],
        "successor, strict, as_asked",
    ),
    "rotation_enabled": (
        True,
        [("no", False), ("ON", True), ("0", False)],
        ["2", "nope"],
        "true, false, 1, 0, yes, no, on or off",
    ),
    "backoff_seconds": (60, [("1", 1), ("900", 900)], ["0", "-1", "1.5", "x", "nan"], "1 or more"),
    "max_retries": (3, [("0", 0), ("10", 10)], ["-1", "2.0", "x"], "0 or more"),
    "max_wait_seconds": (
        None,
        [("0", 0.0), ("1.5", 1.5)],
        ["-0.1", "nan", "inf", "x"],
        "number of seconds",
    ),
    "quota_tier": (None, [("free", "free"), (" Tier1 ", "tier1")], ["gold", "1"], "free, tier1, tier2"),
    "quota_learning": (True, [("off", False), ("1", True)], ["maybe"], "true, false"),
    "quota_rpm": (None, [("10", 10)], ["0", "1.5", "x"], "1 or more"),
    "quota_tpm": (None, [("250000", 250000)], ["0", "x"], "1 or more"),
    "quota_rpd": (None, [("20", 20)], ["-1", "x"], "1 or more"),
    "quota_tpd": (None, [("1", 1)], ["0"], "1 or more"),
    "quota_concurrency": (None, [("4", 4)], ["0", "2.5", "x"], "1 or more"),
    "quota_margin": (
        1.0,
        [("0.8", 0.8), ("1", 1.0)],
        ["0", "1.1", "nan", "x"],
        "a share above 0 and up to 1",
    ),
    "store": (
        IN_MEMORY,
        [("redis://h:1", StoreUrl.read("redis://h:1")), ("MEMORY", IN_MEMORY)],
        ["redis+x://u:p@", "http://u:p@"],  # a text that may hold a password is not repeated
        "memory, or redis://",
    ),
    "usage": (
        AUTO,
        [("off", UsageUrl.read("off")), ("/x/u.db", UsageUrl.read("/x/u.db")), ("Auto", AUTO)],
        ["mysql://u:p@", "postgresql://u:p@", "@"],
        "auto, off, the path of a file",
    ),
    "connect_timeout_seconds": (10.0, [("2", 2.0)], ["0", "-1", "inf", "x"], "0.001 or more"),
    "attempt_timeout_seconds": (300.0, [("2.5", 2.5)], ["0", "x"], "0.001 or more"),
    "stream_idle_seconds": (120.0, [("2.5", 2.5)], ["0", "x"], "0.001 or more"),
}  # fmt: skip
BY_NAME = {option.name: option for option in OPTIONS}
WRONG = [(name, text) for name, (_, _, wrong, _) in TABLE.items() for text in wrong]
RIGHT = [(name, text, value) for name, (_, right, _, _) in TABLE.items() for text, value in right]


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def one(option: Option, **sources: Any) -> tuple[object, str]:
    arguments, environ, table = (sources.get(name, {}) for name in ("arguments", "environ", "table"))
    for item in resolve(arguments, environ, table, "headgate.toml"):
        if item.option is option:
            return item.value, item.origin
    raise AssertionError(option.name)


def test_the_table_knows_every_option() -> None:
    assert set(TABLE) == set(BY_NAME)
    assert len({option.variable for option in OPTIONS}) == len(OPTIONS)


@pytest.mark.parametrize("name", TABLE)
def test_the_default(name: str) -> None:
    assert one(BY_NAME[name]) == (TABLE[name][0], "default")


@pytest.mark.parametrize(("name", "text", "value"), RIGHT)
def test_each_source_is_read_and_remembered(name: str, text: str, value: object) -> None:
    option = BY_NAME[name]
    assert one(option, environ={option.variable: text}) == (value, option.variable)
    assert one(option, table={name: text}) == (value, f"headgate.toml [gemini] {name}")
    assert one(option, arguments={name: text}) == (value, f"argument {name}")
    assert one(option, environ={option.variable: "  "}) == (TABLE[name][0], "default")
    assert one(option, arguments={name: None}) == (TABLE[name][0], "default")


@pytest.mark.parametrize("name", TABLE)
def test_argument_before_variable_before_file_before_default(name: str) -> None:
    option = BY_NAME[name]
    (text, value), *_ = TABLE[name][1]
    nonsense = "\x00 not a value"
    assert one(option, arguments={name: text}, environ={option.variable: nonsense})[0] == value
    assert one(option, environ={option.variable: text}, table={name: nonsense})[0] == value


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_a_wrong_value_names_place_value_and_what_is_allowed(name: str, text: str) -> None:
    option = BY_NAME[name]
    shown = text.rpartition("@")[2]
    for sources, place in (
        ({"environ": {option.variable: text}}, option.variable),
        ({"table": {name: text}}, f"headgate.toml [gemini] {name}"),
        ({"arguments": {name: text}}, f"argument {name}"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            one(option, **sources)
        for part in (place, shown, TABLE[name][3]):
            assert part in caught.value.message


def test_typed_values_of_a_file_are_taken_and_mistyped_ones_refused() -> None:
    option = BY_NAME["rotation_enabled"]
    assert one(option, table={"rotation_enabled": False})[0] is False
    for name, value in (
        ("max_retries", True),
        ("max_retries", 2.0),
        ("max_wait_seconds", True),
        ("default_model", 7),
        ("rotation_enabled", "perhaps"),
        ("backoff_seconds", []),
    ):
        with pytest.raises(ConfigurationError, match=name):
            one(BY_NAME[name], table={name: value})


def test_no_message_shows_a_key_or_a_password() -> None:
    for name in TABLE:
        with pytest.raises(ConfigurationError) as caught:
            one(BY_NAME[name], arguments={name: "AIzaCANARY-secret-0123456789 ?"})
        assert "CANARY" not in caught.value.message
    with pytest.raises(ConfigurationError) as caught:
        one(BY_NAME["base_url"], arguments={"base_url": "https://user:CANARY@a.b"})
    assert "CANARY" not in caught.value.message


def test_the_longest_wait_is_the_backoff_unless_it_is_set() -> None:
    assert load_gemini({"backoff_seconds": 17}, keys=KEYS, environ={}).max_wait_seconds == 17.0
    given = {"backoff_seconds": 17, "max_wait_seconds": 0}
    assert load_gemini(given, keys=KEYS, environ={}).max_wait_seconds == 0.0


def test_settings_show_no_key() -> None:
    settings = load_gemini(keys=KEYS, environ={})
    assert "CANARY" not in repr(settings)
    assert settings.keys_origin == "argument keys"
    assert {item.option.name for item in settings.resolved} == set(TABLE)


# ── the file ────────────────────────────────────────────────────────────────────────────────────


def write(path: Path, text: str) -> dict[str, str]:
    path.write_text(text, encoding="utf-8")
    return {"HEADGATE_CONFIG": str(path)}


def test_a_file_in_the_working_directory_is_read(tmp_path: Path) -> None:
    write(tmp_path / "headgate.toml", "[gemini]\nmax_retries = 7\n")
    assert load_gemini(keys=KEYS, environ={}).max_retries == 7


def test_a_named_file_is_read_instead(tmp_path: Path) -> None:
    write(tmp_path / "headgate.toml", "[gemini]\nmax_retries = 7\n")
    environ = write(tmp_path / "other.toml", "[gemini]\nmax_retries = 8\n")
    settings = load_gemini(keys=KEYS, environ=environ)
    assert settings.max_retries == 8
    (found,) = [item for item in settings.resolved if item.option.name == "max_retries"]
    assert found.origin == f"{tmp_path / 'other.toml'} [gemini] max_retries"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[gemini\n", "not valid TOML"),
        ("[gemni]\n", "did you mean gemini"),
        ("[gemini]\nmax_retry = 1\n", "did you mean max_retries"),
        ("[gemini]\nzzz = 1\n", "known are"),
        ("gemini = 1\n", "must be a table"),
        ("[gemini]\nkeys_file = 7\n", "path of a file"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, text: str, hint: str) -> None:
    environ = write(tmp_path / "wrong.toml", text)
    with pytest.raises(ConfigurationError, match=hint) as caught:
        load_gemini(keys=KEYS, environ=environ)
    assert "wrong.toml" in caught.value.message


def test_a_named_file_must_be_there_and_be_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="HEADGATE_CONFIG"):
        load_gemini(keys=KEYS, environ={"HEADGATE_CONFIG": str(tmp_path / "missing.toml")})
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="HEADGATE_CONFIG"):
        load_gemini(keys=KEYS, environ={"HEADGATE_CONFIG": str(tmp_path / "binary.toml")})


def test_keys_may_stand_in_a_file_the_configuration_names(tmp_path: Path) -> None:
    secrets = tmp_path / "keys"
    secrets.write_text("AIzaCANARY-one|a\nAIzaCANARY-two|b\n", encoding="utf-8")
    secrets.chmod(0o600)
    environ = write(tmp_path / "c.toml", f'[gemini]\nkeys_file = "{secrets}"\n')
    settings = load_gemini(environ=environ)
    assert [key.name for key in settings.keys] == ["a", "b"]
    assert settings.keys_origin == "gemini.keys_file"
    environ["GEMINI_API_KEYS"] = "AIzaCANARY-three|c"
    assert [key.name for key in load_gemini(environ=environ).keys] == ["c"]


def test_a_file_that_is_not_needed_need_not_be_there(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    environ = write(tmp_path / "c.toml", f'[gemini]\nkeys_file = "{missing}"\n')
    environ["GEMINI_API_KEYS"] = "AIzaCANARY-one|a"
    assert [key.name for key in load_gemini(environ=environ).keys] == ["a"]
    environ["GEMINI_API_KEYS_FILE"] = missing
    assert [key.name for key in load_gemini(environ=environ).keys] == ["a"]


def test_a_key_of_the_environment_comes_before_the_file_of_the_configuration(tmp_path: Path) -> None:
    secrets = tmp_path / "keys"
    secrets.write_text("AIzaCANARY-of-the-file|f", encoding="utf-8")
    secrets.chmod(0o600)
    environ = write(tmp_path / "c.toml", f'[gemini]\nkeys_file = "{secrets}"\n')
    assert [key.name for key in load_gemini(environ=environ).keys] == ["f"]
    environ["GOOGLE_API_KEY"] = "AIzaCANARY-of-the-environment"
    assert [key.name for key in load_gemini(environ=environ).keys] == ["primary"]


# ── keys ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("environ", "names", "origin"),
    [
        ({"GEMINI_API_KEYS": "a1|x,b1"}, ["x", "key_2"], "GEMINI_API_KEYS"),
        ({"GEMINI_API_KEYS": " , ", "GEMINI_API_KEY": "a1"}, ["primary"], "GEMINI_API_KEY"),
        (
            {"GEMINI_API_KEY": "a1", "GEMINI_API_KEY_2": " b1 "},
            ["primary", "backup-1"],
            "GEMINI_API_KEY",
        ),
        ({"GOOGLE_API_KEY": "a1"}, ["primary"], "GOOGLE_API_KEY"),
    ],
)
def test_keys_are_found_with_their_origin(
    environ: dict[str, str], names: list[str], origin: str
) -> None:
    keys, where = find_keys(environ)
    assert ([key.name for key in keys], where) == (names, origin)


def test_a_key_without_a_project_is_a_domain_of_its_own() -> None:
    domains = [key.domain for key in parse_keys("a1,b1,c1|c|p,d1|d|p")]
    assert len(set(domains)) == 3
    assert domains[2] == domains[3] == "p"


def test_no_key_says_where_one_may_stand() -> None:
    with pytest.raises(NoKeysError, match="GEMINI_API_KEYS_FILE"):
        find_keys({})


def test_a_key_with_a_dot_or_any_other_form_is_a_key() -> None:
    assert [key.value for key in parse_keys("AQ.Ab8-x_y.z,sk~1/+=")] == ["AQ.Ab8-x_y.z", "sk~1/+="]
    with pytest.raises(KeyFormatError):
        parse_keys("käse")
