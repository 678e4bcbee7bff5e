"""deploy/: the compose file, nginx before it, and the image, read as Docker and nginx would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from headgate.content import load_content
from headgate.content.pictures import MOST_IMAGE_BYTES

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose"
BACKENDS = ["backend-1", "backend-2", "backend-3"]
ONCE = {"valkey-folder", "prometheus-folder"}


@cache
def compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))
    return read


def services() -> list[tuple[str, dict[str, Any]]]:
    return list(compose()["services"].items())


def lasting() -> list[tuple[str, dict[str, Any]]]:
    return [(name, service) for name, service in services() if name not in ONCE]


# ── compose.yaml ────────────────────────────────────────────────────────────────────────────────


def test_s4_33_the_compose_file_follows_its_published_schema() -> None:
    schema = published_schema()
    found = list(jsonschema.Draft202012Validator(schema).iter_errors(compose()))
    assert found == []
    wrong = {"services": {"a": {"image": "b", "restarts": "always"}}}
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(wrong))


def published_schema() -> dict[str, Any]:
    """Of compose files, as the package check-jsonschema has it from compose-spec."""
    name = "check_jsonschema/builtin_schemas/vendor/compose-spec.json"
    path = Path(str(distribution("check-jsonschema").locate_file(name)))
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema


def test_s4_33_what_was_accepted_is_there() -> None:
    named = dict(services())
    assert set(named) == {*BACKENDS, *ONCE, "valkey", "nginx", "prometheus", "grafana"}
    ports = {name: service["ports"] for name, service in services() if "ports" in service}
    assert ports == {
        "nginx": ["127.0.0.1:8080:8080"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    image, version = named["valkey"]["image"].split(":")
    assert image == "valkey/valkey"
    assert [int(part) for part in version.partition("-")[0].split(".")] >= [8, 1, 4], "CVE-2025-49844"
    assert "valkey:/data" in named["valkey"]["volumes"]
    settings = (COMPOSE / "valkey.conf").read_text(encoding="utf-8")
    assert {"appendonly yes", "maxmemory-policy noeviction"} <= set(settings.splitlines())


@pytest.mark.parametrize(("name", "service"), services(), ids=[name for name, _ in services()])
def test_every_service_is_bounded_and_hardened(name: str, service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert ":" in service["image"]
    assert not service["image"].endswith(":latest")
    if name in ONCE:
        assert (service["restart"], service["cap_add"]) == ("no", ["CHOWN"])
        assert service["network_mode"] == "none"
        return
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"]
    assert "cap_add" not in service
    if name != "nginx":  # whose image runs as nobody of its own
        assert service["user"].startswith("${HEADGATE_USER:?")


def test_no_secret_has_a_value_anywhere() -> None:
    """And what is not set refuses to start with a sentence, instead of with a default."""
    text = (COMPOSE / "compose.yaml").read_text(encoding="utf-8")
    assert not re.search(r"(?i)password[\"']?\s*[:=]\s*[\"']?[a-z0-9]{4,}\s*$", text, re.MULTILINE)
    assert "admin/admin" not in text
    assert ":?run deploy/compose/make-secrets.sh first" in text
    for name, secret in compose()["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
    asked = {
        one if isinstance(one, str) else one["source"]
        for _, service in services()
        for one in service.get("secrets", ())
    }
    assert asked == set(compose()["secrets"])


def test_settings_of_the_service_are_ones_that_it_has() -> None:
    environ = compose()["services"]["backend-1"]["environment"]
    files = {key: value for key, value in environ.items() if key.endswith("_FILE")}
    secrets = compose()["services"]["backend-1"]["secrets"]
    assert set(files.values()) == {f"/run/secrets/{name}" for name in secrets}
    given = {
        key: re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", value)
        for key, value in environ.items()
        if key not in files
    }
    settings = load_content(environ=given)
    assert (settings.quota_rpm, settings.quota_rpd) == (15, 1500)
    assert (settings.quota_tpm, settings.quota_tpd) == (1_000_000, 50_000_000)
    assert settings.store_named
    grace = compose()["services"]["backend-1"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) >= settings.linger_seconds + settings.drain_seconds + 5


def test_addresses_are_the_same_everywhere() -> None:
    found = [compose()["services"][name]["networks"]["inside"]["ipv4_address"] for name in BACKENDS]
    upstream = (DEPLOY / "nginx/upstream.conf").read_text(encoding="utf-8")
    assert re.findall(r"server ([\d.]+):8080 ", upstream) == found
    targets = yaml.safe_load((COMPOSE / "targets.yml").read_text(encoding="utf-8"))
    assert targets == [{"targets": [f"{address}:8080" for address in found]}]
    (subnet,) = compose()["networks"]["inside"]["ipam"]["config"]
    assert all(address.startswith(subnet["subnet"].removesuffix("0/24")) for address in found)


def test_files_that_are_mounted_exist() -> None:
    mounted = [
        volume.split(":")[0]
        for _, service in services()
        for volume in service.get("volumes", ())
        if volume.startswith(".")
    ]
    assert len(mounted) >= 8
    assert [place for place in mounted if not (COMPOSE / place).exists()] == []
    named = {v.split(":")[0] for _, s in services() for v in s.get("volumes", ()) if v[0] not in "./"}
    assert named == set(compose()["volumes"])


def test_valkey_alone_has_no_way_out() -> None:
    assert compose()["networks"]["inside"]["internal"] is True
    assert [name for name, service in lasting() if "outside" not in service["networks"]] == ["valkey"]


# ── the scripts ─────────────────────────────────────────────────────────────────────────────────


def test_secrets_are_made_once_for_their_owner_only(tmp_path: Path) -> None:
    script = tmp_path / "make-secrets.sh"
    shutil.copy(COMPOSE / "make-secrets.sh", script)

    def run(given: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(script)], input=given, capture_output=True, text=True, check=False, timeout=20
        )

    nothing = run("\n")
    assert nothing.returncode == 1
    assert "No Gemini key" in nothing.stderr
    assert not (tmp_path / ".env").exists()
    done = run("CANARY-gemini-key|k0|alpha\n")
    assert done.returncode == 0, done.stderr
    assert "CANARY" not in done.stdout + done.stderr
    secrets = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    assert set(secrets) == set(compose()["secrets"])
    assert all(len(text.strip()) >= 24 for text in secrets.values())
    assert len(set(secrets.values())) == len(secrets)
    for file in (tmp_path / "secrets").iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    assert re.fullmatch(r"HEADGATE_USER=[1-9]\d*:\d+\n", (tmp_path / ".env").read_text())
    assert run("").returncode == 0
    again = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    assert again == secrets
    settings = load_content(
        environ={
            "HEADGATE_CALLER_KEYS_FILE": str(tmp_path / "secrets/caller_keys"),
            "HEADGATE_ADMIN_KEY_FILE": str(tmp_path / "secrets/admin_key"),
            "REDIS_PASSWORD_FILE": str(tmp_path / "secrets/valkey_password"),
        }
    )
    assert [key.name for key in settings.callers] == ["first-caller", "prometheus"]
    assert settings.callers[1].value == secrets["metrics_key"]
    assert settings.store_named
    assert secrets["valkey_password"].strip() in str(settings.store.nodes)
    assert secrets["valkey_password"].strip() not in repr(settings)


def test_the_rolling_script_takes_each_instance_out_of_nginx() -> None:
    """Its expression, on the shipped file: one server each time."""
    script = (COMPOSE / "roll.sh").read_text(encoding="utf-8")
    (expression,) = re.findall(r'sed "(s/.*?)" "\$before"', script)
    before = (DEPLOY / "nginx/upstream.conf").read_text(encoding="utf-8")
    for number in (1, 2, 3):
        chosen = expression.replace("$number", str(number)).replace("\\\\", "\\")
        after = subprocess.run(
            ["sed", chosen], input=before, capture_output=True, text=True, check=True
        ).stdout
        changed = [line for line in after.splitlines() if line not in before.splitlines()]
        assert len(changed) == 1
        assert re.fullmatch(rf" +server 172\.29\.83\.1{number}:8080 .* down;", changed[0])
    for name in ("roll.sh", "make-secrets.sh"):
        subprocess.run(["bash", "-n", str(COMPOSE / name)], check=True)


@pytest.mark.parametrize("place", ["compose", "kubernetes"])
def test_valkey_is_told_its_password_and_is_the_process_that_is_told_to_end(
    place: str, tmp_path: Path
) -> None:
    """The shipped command, with a server that says who it is and what it was given."""
    if place == "compose":
        command = [word.replace("$$", "$") for word in compose()["services"]["valkey"]["entrypoint"]]
    else:
        file = DEPLOY / "kubernetes/base/redis-statefulset.yaml"
        pod = yaml.safe_load(file.read_text(encoding="utf-8"))["spec"]["template"]["spec"]
        command = pod["containers"][0]["command"]
    for name, text in (
        ("conf", "port 6379\n# sure\nappendonly yes\n"),
        ("password", "CANARY-password"),
    ):
        (tmp_path / name).write_text(text)
    script = re.sub(r"\$\(cat \S+conf\)", f"$(cat {tmp_path}/conf)", command[-1])
    script = re.sub(r"\$\(cat \S+password\)", f"$(cat {tmp_path}/password)", script)
    server = tmp_path / "valkey-server"
    server.write_text('#!/bin/sh\necho "$$ $*"\ncat\n')
    server.chmod(0o700)
    with subprocess.Popen(
        [*command[:-1], script], stdout=subprocess.PIPE, text=True,
        env={"PATH": f"{tmp_path}:{os.defpath}"},
    ) as process:  # fmt: skip
        said = process.communicate(timeout=20)[0].splitlines()
    assert said[0] == f"{process.pid} -", "no shell stands before it"
    settings = (tmp_path / "conf").read_text().splitlines()
    assert said[1:] == [*settings, "dir /data", "requirepass CANARY-password"]


# ── nginx ───────────────────────────────────────────────────────────────────────────────────────


def nginx_says(folder: Path) -> subprocess.CompletedProcess[str]:
    paths = os.environ.get("PATH", "") + ":/usr/sbin"  # noqa: TID251 - Debian's place for it
    binary = shutil.which("nginx", path=paths)
    assert binary, "nginx is missing: `make test` installs it (requirements/system.sh)"
    return subprocess.run(
        [binary, "-t", "-e", "stderr", "-p", f"{folder}/", "-c", str(folder / "conf/nginx.conf")],
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip


def test_s4_33_nginx_takes_its_configuration(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "nginx", tmp_path / "conf")
    said = nginx_says(tmp_path)
    assert said.returncode == 0, said.stderr
    assert "warn" not in said.stderr
    (tmp_path / "conf/upstream.conf").write_text("upstream backend { server }")
    assert nginx_says(tmp_path).returncode != 0


def test_s4_33_nginx_streams_and_repeats_only_what_may_be() -> None:
    text = (DEPLOY / "nginx/nginx.conf").read_text(encoding="utf-8")
    said = re.sub(r"#.*", "", text)
    assert re.findall(r"proxy_buffering (\w+);", said) == ["off"]
    repeatable = re.search(r"location @repeatable \{.*?\}", said, re.DOTALL)
    assert repeatable is not None
    assert said.count("non_idempotent") == repeatable[0].count("non_idempotent") == 1
    (most,) = re.findall(r"client_max_body_size (\d+)m;", said)
    assert int(most) * 1024 * 1024 >= 2 * MOST_IMAGE_BYTES


# ── the image ───────────────────────────────────────────────────────────────────────────────────


def instructions() -> list[tuple[str, str]]:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    pairs = [line.split(maxsplit=1) for line in lines]
    return [(word.upper(), rest) for word, rest in pairs]


def test_the_image_runs_as_nobody_and_is_built_of_exact_versions() -> None:
    found = instructions()
    (base,) = [rest for word, rest in found if word == "ARG"]
    assert re.fullmatch(r"PYTHON=python:3\.\d+\.\d+-slim-\w+", base)
    starts = [number for number, (word, _) in enumerate(found) if word == "FROM"]
    assert [found[number][1] for number in starts] == ["${PYTHON} AS build", "${PYTHON}"]
    last = found[starts[-1] :]
    (user,) = [rest for word, rest in last if word == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    copied = [rest for word, rest in last if word in {"COPY", "ADD"}]
    assert copied == ["--from=build /opt/headgate /opt/headgate"], "nothing of the build but its result"
    assert not any("apt-get" in rest for _, rest in found), "no build tools"
    installs = re.findall(r"pip (?:--python \S+ )?install [^&]*", " ".join(r for _, r in found))
    assert len(installs) == 3
    assert all("--require-hashes" in one or "--no-index" in one for one in installs)


def test_no_secret_is_built_in() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert not re.search(r"(?i)(api_?key|password|token|secret)\w*\s*=", text)
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[1] == "*", "everything stays out but what is named"
    named = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    assert [name for name in named if not (ROOT / name).exists()] == []
    copied = " ".join(rest for word, rest in instructions() if word == "COPY" and "--from" not in rest)
    assert all(part in copied for part in named)


def test_the_image_runs_the_versions_that_are_tested() -> None:
    """And every line of its requirements has a hash."""
    image, tested = (pinned(ROOT / f"requirements/{name}.txt") for name in ("image", "dev"))
    assert {"starlette", "uvicorn", "redis", "pillow", "prometheus-client"} <= set(image)
    assert {name: version for name, version in image.items() if tested.get(name) != version} == {}
    for word in ("pytest", "hatchling", "mypy"):
        assert word not in image


def pinned(file: Path) -> dict[str, str]:
    text = file.read_text(encoding="utf-8")
    found = dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE))
    assert len(re.findall(r"^[\w.-]+==.*\\\n +--hash=sha256:", text, re.MULTILINE)) == len(found)
    return found
