"""The emulator's configuration: what it reads, and what it says when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.core.errors import ConfigurationError
from headgate.emulator import Emulator, EmulatorConfig, Fault, Latency, Limits, Model, Project
from headgate.emulator.catalogue import Catalogue

KEY = "AIzaCANARY-alpha-1"
WHOLE = """
minute_seconds = 6.0
seed = 7

[[projects]]
name = "alpha"
tier = "paid_2"
keys = { alpha-1 = "AIzaCANARY-alpha-1", alpha-2 = "AIzaCANARY-alpha-2" }
closed_models = ["gemini-3.5-flash"]

[projects.limits."*"]
rpm = 10
tpm = 250_000
rpd = 100
mechanism = "sliding_log"

[projects.limits."gemini-3.8-flash"]
rpm = 5
mechanism = "token_bucket"

[latency]
first_byte = 0.4
distribution = "lognormal"
spread = 0.5

[[faults]]
kind = "overload"
probability = 0.05
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "emulator.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_toml_file_reads_as_the_same_configuration_written_in_python(tmp_path: Path) -> None:
    everything = Limits(rpm=10, tpm=250_000, rpd=100, mechanism="sliding_log")
    project = Project(
        "alpha",
        keys={"alpha-1": KEY, "alpha-2": "AIzaCANARY-alpha-2"},
        limits={"*": everything, "gemini-3.8-flash": Limits(rpm=5, mechanism="token_bucket")},
        tier="paid_2",
        closed_models=["gemini-3.5-flash"],
    )
    expected = EmulatorConfig(
        projects=[project],
        minute_seconds=6.0,
        seed=7,
        latency=Latency(first_byte=0.4, distribution="lognormal", spread=0.5),
        faults=[Fault(kind="overload", probability=0.05)],
    )
    assert EmulatorConfig.from_toml(written(tmp_path, WHOLE)) == expected


@pytest.mark.parametrize(
    ("old", "new", "place", "allowed"),
    [
        ('"sliding_log"', '"leaky"', "mechanism", "fixed, sliding_counter, sliding_log, token_bucket"),
        ("rpm = 10", 'rpm = "ten"', "rpm", "a whole number"),
        ("rpm = 10", "rpm = -1", "limits", "0 or more"),
        ("rpd = 100", "rpq = 100", "limits", "rpm, tpm, rpd, mechanism"),
        ('tier = "paid_2"', 'tier = "gold"', "tier", "free, paid, paid_2, paid_3"),
        ('kind = "overload"', 'kind = "meteor"', "faults", "reset, close, stall"),
        ("probability = 0.05", "probability = 5", "faults", "0 to 1"),
        ("minute_seconds = 6.0", "minute_seconds = 0", "$", "more than 0"),
        ("seed = 7", "sead = 7", "$", "projects, minute_seconds"),
        ('"lognormal"', '"normal"', "latency.distribution", "exponential, fixed, lognormal, uniform"),
    ],
)
def test_an_error_names_the_file_the_place_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, place: str, allowed: str
) -> None:
    assert old in WHOLE
    path = written(tmp_path, WHOLE.replace(old, new, 1))
    with pytest.raises(ConfigurationError) as caught:
        EmulatorConfig.from_toml(path)
    message = caught.value.message
    assert str(path) in message
    assert place in message
    assert allowed in message
    assert "CANARY" not in message


def test_a_missing_file_and_broken_toml_are_configuration_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        EmulatorConfig.from_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigurationError, match="not valid TOML"):
        EmulatorConfig.from_toml(written(tmp_path, "projects = ["))


def test_a_key_belongs_to_one_project_and_a_name_to_one_key() -> None:
    with pytest.raises(ValueError, match="same value") as caught:
        EmulatorConfig(projects=[Project("a", {"a-1": KEY}), Project("b", {"b-1": KEY})])
    assert "CANARY" not in str(caught.value)
    with pytest.raises(ValueError, match="key names repeat: x"):
        EmulatorConfig(projects=[Project("a", {"x": "1"}), Project("b", {"x": "2"})])
    with pytest.raises(ValueError, match="project names repeat: a"):
        EmulatorConfig(projects=[Project("a", {}), Project("a", {})])


def test_a_key_that_is_denied_or_in_a_state_must_exist() -> None:
    with pytest.raises(ValueError, match=r"`denied` names the key `a-2`; allowed: a-1"):
        Project("a", {"a-1": KEY}, denied={"a-2": ["gemini-3.5-flash"]})
    with pytest.raises(ValueError, match="`key_states`"):
        Project("a", {"a-1": KEY}, key_states={"a-2": "leaked"})


def test_an_emulator_checks_what_python_does_not() -> None:
    limits = Limits(rpm=10, mechanism="leaky")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="allowed: fixed, sliding_counter"):
        Emulator(EmulatorConfig(projects=[Project("a", {"a-1": KEY}, limits={"*": limits})]))


def test_no_repr_shows_a_key() -> None:
    config = EmulatorConfig(projects=[Project("alpha", keys={"alpha-1": KEY})])
    assert "CANARY" not in repr(config) + repr(config.projects[0]) + repr(Emulator(config))
    assert "alpha-1" in repr(config)


def test_a_configured_model_adds_to_or_replaces_a_shipped_one() -> None:
    shipped = Catalogue(EmulatorConfig(projects=[])).resolve("gemini-3.5-flash", "v1", 0.0)
    added = [Model(id="my-model"), Model(id="gemini-3.5-flash", input_tokens=10)]
    catalogue = Catalogue(EmulatorConfig(projects=[], models=added))
    assert shipped is not None
    assert shipped.input_tokens > 10
    assert [catalogue.resolve(model.id, "v1", 0.0) for model in added] == added
