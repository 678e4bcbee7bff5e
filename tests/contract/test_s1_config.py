"""S1: keys and settings out of the environment."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from tests.support import environment, key, keys, said, scripted, vector

from headgate.core.errors import ConfigurationError
from headgate.gemini import (
    ApiKeyConfig,
    GeminiKeyRotationError,
    InvalidKeyConfigError,
    NoValidKeysError,
    ResilientGeminiClient,
)
from headgate.testing import ScriptedTransport, VirtualClock

A, B, C = key(0), key(1), key(2)


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Sets exactly these variables."""

    def arrange(**variables: str) -> None:
        environment(monkeypatch, tmp_path, **variables)

    arrange()
    return arrange


def names() -> list[str]:
    return [entry["name"] for entry in ResilientGeminiClient().get_key_metrics()["keys"]]


def values() -> list[str]:
    return [config.value for config in ResilientGeminiClient().key_manager.keys]


def secret_file(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return str(path)


# ── the list ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{A}|primary,{B}|backup-1,{C}|backup-2", ["primary", "backup-1", "backup-2"]),
        (A, ["key_1"]),
        (f"{A},{B}", ["key_1", "key_2"]),
        (f" {A} | primary , {B} ", ["primary", "key_2"]),
        (f"{A}|primary,", ["primary"]),
        (f",{A}, ,{B}|b,,", ["key_1", "b"]),
        (f"{A}|,{B}||p2", ["key_1", "key_2"]),
        (f"{A}|a|p1,{B}|b|p1", ["a", "b"]),
    ],
)
def test_s1_22_the_list_is_read(env: Any, text: str, expected: list[str]) -> None:
    env(GEMINI_API_KEYS=text)
    assert names() == expected


def test_s1_22_the_third_field_is_the_project(env: Any) -> None:
    env(GEMINI_API_KEYS=f"{A}|a|p1,{B}|b,{C}||p1")
    assert [config.project for config in ResilientGeminiClient().key_manager.keys] == ["p1", None, "p1"]


@pytest.mark.parametrize(
    ("text", "position"),
    [
        (f"{A}|a|p|x", 1),
        (f"{A}|a,{B}|b|p|x|y", 2),
        (f"{A}|a, |b", 2),
        ("|", 1),
        (f"{A}|a,{B}|b,{A}|c", 3),
        (f"{A}|a,{B}|a", 2),
        (f"{A}|key_2,{B}", 2),
        (f"{A} {B}|a", 1),
        (f"{A}\u2019|a", 1),
        (f"{A}|{A}", 1),
        (f"{A}|a|{A}", 1),
        (f"a|{A}", 1),  # key and name the wrong way round
        ("CANARY-one|a,CANARY-two|CANARY-one", 2),  # a name that is another entry's key
        ("CANARY-one|a||", 1),
        ("CANARY-one|CANARY-3,CANARY-two|CANARY-3,CANARY-3|c", 2),
        ("CANARY-one|a|CANARY-two,CANARY-two|b", 1),
        ("CANARY-one|CANARY-two,CANARY-two|CANARY-two", 2),
        ("CANARY-two|b,CANARY-one|CANARY-two,CANARY-three|CANARY-two", 3),
    ],
)
def test_s1_22_a_malformed_list_names_the_position_and_never_the_key(
    env: Any, text: str, position: int
) -> None:
    """The pitfalls: extra pipes ignored, no duplicate check, key values in messages."""
    env(GEMINI_API_KEYS=text)
    with pytest.raises(InvalidKeyConfigError) as caught:
        ResilientGeminiClient()
    assert caught.value.position == position
    assert str(position) in caught.value.message
    assert "GEMINI_API_KEYS" in caught.value.message
    assert "CANARY" not in repr(caught.value) + str(caught.value) + caught.value.message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"GEMINI_API_KEY_3": f"{A} {B}"}, "GEMINI_API_KEY_3 has a key with a blank"),
        ({"GEMINI_API_KEY_3": A}, "GEMINI_API_KEY_3 repeats the key of GEMINI_API_KEY."),
        ({"GEMINI_API_KEY_3": f"{B},{C}"}, "GEMINI_API_KEY_3 takes one key without a name"),
        ({"GEMINI_API_KEY_3": f"{C}|name"}, "GEMINI_API_KEY_3 takes one key without a name"),
        ({"GEMINI_API_KEY_3": "backup-1"}, "GEMINI_API_KEY_2 uses a key as a name"),
    ],
)
def test_s1_22_what_is_wrong_in_a_variable_of_one_key_names_that_variable(
    env: Any, wrong: dict[str, str], said: str
) -> None:
    """Its position is its place among the variables that follow each other."""
    env(GEMINI_API_KEY=A, GEMINI_API_KEY_2=B, **wrong)
    with pytest.raises(InvalidKeyConfigError) as caught:
        ResilientGeminiClient()
    assert said in caught.value.message
    assert caught.value.position == (2 if "_2 uses" in said else 3)
    assert "CANARY" not in caught.value.message


def test_s1_22_nothing_found_is_no_valid_keys(env: Any) -> None:
    for variables in ({}, {"GEMINI_API_KEYS": " , ,"}, {"GEMINI_API_KEY": "  "}):
        env(**variables)
        with pytest.raises(NoValidKeysError) as caught:
            ResilientGeminiClient()
        assert "GEMINI_API_KEYS" in caught.value.message


def test_s1_22_single_keys_are_named_primary_and_backup_as_far_as_they_follow(env: Any) -> None:
    singles = {f"GEMINI_API_KEY_{number}": key(number) for number in range(2, 11)}
    env(GEMINI_API_KEY=key(1), **singles)
    assert names() == ["primary", *(f"backup-{number}" for number in range(1, 10))]
    assert values() == [key(number) for number in range(1, 11)]


@pytest.mark.parametrize("missing", [2, 3, 7, 10])
def test_s1_22_a_gap_ends_the_row_of_single_keys(env: Any, missing: int) -> None:
    singles = {f"GEMINI_API_KEY_{n}": key(n) for n in range(2, 11) if n != missing}
    env(GEMINI_API_KEY=key(1), **singles)
    assert len(names()) == missing - 1


def test_s1_22_there_is_no_eleventh_single_key(env: Any) -> None:
    env(GEMINI_API_KEY=key(1), **{f"GEMINI_API_KEY_{n}": key(n) for n in range(2, 13)})
    assert len(names()) == 10


def test_s1_22_a_second_key_without_a_first_is_nothing(env: Any) -> None:
    env(GEMINI_API_KEY_2=key(2))
    with pytest.raises(NoValidKeysError):
        ResilientGeminiClient()


def test_s1_22_google_api_key_comes_last(env: Any) -> None:
    env(GOOGLE_API_KEY=key(3))
    assert (names(), values()) == (["primary"], [key(3)])
    env(GOOGLE_API_KEY=key(3), GEMINI_API_KEY=key(2))
    assert values() == [key(2)]
    env(GOOGLE_API_KEY=key(3), GEMINI_API_KEY=key(2), GEMINI_API_KEYS=key(1))
    assert values() == [key(1)]


@pytest.mark.parametrize("variable", ["GEMINI_API_KEY", "GOOGLE_API_KEY"])
def test_s1_22_a_list_in_the_place_of_one_key_is_refused(env: Any, variable: str) -> None:
    env(**{variable: f"{A},{B}"})
    with pytest.raises(InvalidKeyConfigError, match=variable):
        ResilientGeminiClient()


def test_s1_22_the_same_single_key_twice_is_refused(env: Any) -> None:
    env(GEMINI_API_KEY=A, GEMINI_API_KEY_2=A)
    with pytest.raises(InvalidKeyConfigError):
        ResilientGeminiClient()


def test_s1_22_each_secret_is_also_read_from_a_file(env: Any, tmp_path: Path) -> None:
    one = secret_file(tmp_path / "one", f"{A}\n")
    env(GEMINI_API_KEY_FILE=one)
    assert (names(), values()) == (["primary"], [A])
    many = secret_file(tmp_path / "many", f"# ours\n{A}|a\n{B}|b,{C}|c\n\n")
    env(GEMINI_API_KEYS_FILE=many)
    assert names() == ["a", "b", "c"]
    env(GEMINI_API_KEYS_FILE=many, GEMINI_API_KEYS=f"{C}|here")
    assert names() == ["here"], "a variable that is set comes before its file"
    env(GEMINI_API_KEY_FILE=one, GEMINI_API_KEY_2=B)
    assert names() == ["primary", "backup-1"]


@pytest.mark.parametrize("variable", ["GEMINI_API_KEYS_FILE", "GEMINI_API_KEY_FILE"])
def test_s1_22_a_file_that_cannot_be_read_is_named(env: Any, tmp_path: Path, variable: str) -> None:
    env(**{variable: str(tmp_path / "missing")})
    with pytest.raises(ConfigurationError, match=variable):
        ResilientGeminiClient()


def test_s1_22_a_malformed_file_names_its_variable_and_never_the_key(env: Any, tmp_path: Path) -> None:
    env(GEMINI_API_KEYS_FILE=secret_file(tmp_path / "keys", f"{A}|a\n{A}|b\n"))
    with pytest.raises(InvalidKeyConfigError, match="GEMINI_API_KEYS_FILE") as caught:
        ResilientGeminiClient()
    assert "CANARY" not in str(caught.value)


def test_s1_45_a_key_file_others_may_read_is_refused(env: Any, tmp_path: Path) -> None:
    path = secret_file(tmp_path / "keys", f"{A}|a", mode=0o644)
    env(GEMINI_API_KEYS_FILE=path)
    with pytest.raises(ConfigurationError, match="chmod"):
        ResilientGeminiClient()
    env(GEMINI_API_KEYS_FILE=path, HEADGATE_KEY_FILE_CHECK="off")
    assert names() == ["a"]
    os.chmod(path, 0o640)
    env(GEMINI_API_KEYS_FILE=path)
    assert names() == ["a"]


def test_s1_22_keys_given_by_hand_pass_the_same_grammar(env: Any) -> None:
    given = [
        keys(2),
        [f"{A}|k0", f"{B}|k1"],
        [ApiKeyConfig(A, "k0"), ApiKeyConfig(B, "k1")],
    ]
    for each in given:
        client = ResilientGeminiClient(keys=each)
        assert [(c.value, c.name) for c in client.key_manager.keys] == [(A, "k0"), (B, "k1")]
    with pytest.raises(InvalidKeyConfigError):
        ResilientGeminiClient(keys=[A, A])
    with pytest.raises(ConfigurationError):
        ResilientGeminiClient(keys=[])


# ── the rest ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", ["true", "TRUE", "1", "yes", "Yes", "on", " oN "])
def test_s1_23_rotation_is_switched_on(env: Any, text: str) -> None:
    env(GEMINI_API_KEYS=keys(1), GEMINI_API_KEY_ROTATION_ENABLED=text)
    assert ResilientGeminiClient().settings.rotation_enabled is True


@pytest.mark.parametrize("text", ["false", "False", "0", "no", "NO", "off"])
def test_s1_23_rotation_is_switched_off(env: Any, text: str) -> None:
    env(GEMINI_API_KEYS=keys(1), GEMINI_API_KEY_ROTATION_ENABLED=text)
    assert ResilientGeminiClient().settings.rotation_enabled is False


def test_s1_23_rotation_is_on_by_default(env: Any) -> None:
    env(GEMINI_API_KEYS=keys(1))
    assert ResilientGeminiClient().settings.rotation_enabled is True
    env(GEMINI_API_KEYS=keys(1), GEMINI_API_KEY_ROTATION_ENABLED="  ")
    assert ResilientGeminiClient().settings.rotation_enabled is True, "blank counts as not set"


@pytest.mark.parametrize("text", ["maybe", "2", "y", "None"])
def test_s1_23_anything_else_names_variable_value_and_allowed_values(env: Any, text: str) -> None:
    env(GEMINI_API_KEYS=keys(1), GEMINI_API_KEY_ROTATION_ENABLED=text)
    with pytest.raises(ConfigurationError) as caught:
        ResilientGeminiClient()
    for part in ("GEMINI_API_KEY_ROTATION_ENABLED", text, "true, false, 1, 0, yes, no, on or off"):
        assert part in caught.value.message
    assert not isinstance(caught.value, GeminiKeyRotationError)


def test_s1_23_a_key_in_the_wrong_variable_is_not_shown(env: Any) -> None:
    env(GEMINI_API_KEYS=keys(1), GEMINI_API_KEY_ROTATION_ENABLED=A)
    with pytest.raises(ConfigurationError) as caught:
        ResilientGeminiClient()
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "name", "default", "least"),
    [
        ("GEMINI_API_KEY_ROTATION_BACKOFF_SECONDS", "backoff_seconds", 60, 1),
        ("GEMINI_API_KEY_ROTATION_MAX_RETRIES", "max_retries", 3, 0),
    ],
)
def test_s1_24_backoff_and_s1_25_retries_are_whole_numbers(
    env: Any, variable: str, name: str, default: int, least: int
) -> None:
    env(GEMINI_API_KEYS=keys(1))
    assert getattr(ResilientGeminiClient().settings, name) == default
    for good in (least, 17):
        env(GEMINI_API_KEYS=keys(1), **{variable: str(good)})
        assert getattr(ResilientGeminiClient().settings, name) == good
    for bad in (str(least - 1), "1.5", "ten", "nan", "inf", "1e3"):
        env(GEMINI_API_KEYS=keys(1), **{variable: bad})
        with pytest.raises(ConfigurationError) as caught:
            ResilientGeminiClient()
        for part in (variable, bad, f"{least} or more"):
            assert part in caught.value.message


async def test_s1_24_the_backoff_is_what_a_refusal_without_a_hint_costs(clock: VirtualClock) -> None:
    from tests.support import quota

    client, _ = scripted([quota("Minute"), said()], clock, backoff_seconds=7)
    await client.generate_content("hi")
    assert clock.monotonic() == pytest.approx(7)


async def test_s1_26_the_default_model_stays_and_resolves_with_one_warning(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    client, transport = scripted([said()], clock)
    assert client.settings.default_model == "gemini-2.5-flash"
    with caplog.at_level(logging.WARNING, logger="headgate.gemini"):
        for _ in range(3):
            await client.generate_content("hi")
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "gemini-2.5-flash" in warning
    assert "gemini-3.5-flash-lite" in warning
    assert all("/models/gemini-3.5-flash-lite:" in sent.request.url for sent in transport.sent)


async def test_s1_26_before_its_retirement_the_default_model_is_asked_itself() -> None:
    clock = VirtualClock(wall=1_782_000_000.0)  # 2026-06-21
    client, transport = scripted([said()], clock)
    await client.generate_content("hi")
    assert "/models/gemini-2.5-flash:" in transport.sent[0].request.url


def test_s1_26_the_default_model_comes_from_its_variable(env: Any, clock: VirtualClock) -> None:
    env(GEMINI_API_KEYS=keys(1), GEMINI_DEFAULT_MODEL="gemini-3.8-flash")
    transport = ScriptedTransport([said()], clock)
    client = ResilientGeminiClient(transport=transport, clock=clock)
    clock.run(client.generate_content("hi"))
    assert "/models/gemini-3.8-flash:generateContent" in transport.sent[0].request.url


async def test_s1_27_the_embedding_model_is_never_silently_moved(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Even after its end: another model's vectors are not comparable, so warn and ask as told."""
    client, transport = scripted([vector()], clock)
    assert client.settings.embedding_model == "gemini-embedding-001"
    await client.embed_content("text")
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    clock.advance(2 * 366 * 86_400.0)
    with caplog.at_level(logging.WARNING, logger="headgate.gemini"):
        await client.embed_content("text")
    assert ["gemini-embedding-001:embedContent" in s.request.url for s in transport.sent] == [
        True,
        True,
    ]
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "cannot be compared" in warning


def test_s1_27_the_embedding_model_comes_from_its_variable(env: Any, clock: VirtualClock) -> None:
    env(GEMINI_API_KEYS=keys(1), GEMINI_EMBEDDING_MODEL="gemini-embedding-2")
    transport = ScriptedTransport([vector()], clock)
    client = ResilientGeminiClient(transport=transport, clock=clock)
    clock.run(client.embed_content("hi"))
    assert "/models/gemini-embedding-2:embedContent" in transport.sent[0].request.url


def test_s1_28_an_argument_beats_the_environment_and_none_means_the_environment(env: Any) -> None:
    env(
        GEMINI_API_KEYS=keys(2),
        GEMINI_API_KEY_ROTATION_ENABLED="false",
        GEMINI_API_KEY_ROTATION_BACKOFF_SECONDS="30",
        GEMINI_API_KEY_ROTATION_MAX_RETRIES="9",
    )
    inherited = ResilientGeminiClient(None, None, None).settings
    assert (inherited.rotation_enabled, inherited.backoff_seconds, inherited.max_retries) == (
        False,
        30,
        9,
    )
    given = ResilientGeminiClient(True, 5, 0).settings
    assert (given.rotation_enabled, given.backoff_seconds, given.max_retries) == (True, 5, 0)
    explicit = ResilientGeminiClient(keys=f"{C}|mine")
    assert [config.name for config in explicit.key_manager.keys] == ["mine"]


def test_s1_28_the_environment_beats_the_file_and_the_file_the_default(
    env: Any, tmp_path: Path
) -> None:
    env(GEMINI_API_KEYS=keys(1), GEMINI_API_KEY_ROTATION_MAX_RETRIES="9")
    text = "[gemini]\nmax_retries = 5\nbackoff_seconds = 17\n"
    (tmp_path / "headgate.toml").write_text(text, encoding="utf-8")
    settings = ResilientGeminiClient().settings
    assert (settings.max_retries, settings.backoff_seconds) == (9, 17)
    assert settings.default_model == "gemini-2.5-flash"


def test_s1_28_a_wrong_argument_is_a_configuration_error(env: Any) -> None:
    env(GEMINI_API_KEYS=keys(1))
    for arguments in ({"backoff_seconds": 0}, {"max_retries": -1}, {"max_wait_seconds": -1}):
        with pytest.raises(ConfigurationError, match=next(iter(arguments))):
            ResilientGeminiClient(**arguments)  # type: ignore[arg-type]
