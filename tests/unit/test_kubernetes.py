"""deploy/kubernetes: valid by the published schemas, restricted, and every name leads somewhere."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from tests.kustomized import Manifest, built, merge, named

from headgate.content import load_content

DEPLOY = Path(__file__).parents[2] / "deploy"
FOLDERS = {"base": "base", "production": "overlays/production"}
VERSIONS = ("1.29", kubernetes_validate.latest_version().rpartition(".")[0])
"""The oldest that has everything in it (eviction policies of budgets), and the newest."""

SECRETS = {"headgate-keys", "headgate-redis", "content-certificate"}
"""Made by hand or by an operator of the cluster: docs/how-to/deploy.md says how."""


@cache
def manifests(name: str) -> list[Manifest]:
    return built(DEPLOY / "kubernetes" / FOLDERS[name])


def pods(name: str) -> list[tuple[str, Manifest]]:
    """The specification of each pod, by the name of what makes it."""
    return [
        (one["metadata"]["name"], one["spec"]["template"])
        for one in manifests(name)
        if "template" in one.get("spec", {})
    ]


@pytest.mark.parametrize(("name", "version"), list(zip(FOLDERS, VERSIONS, strict=True)))
def test_s4_34_every_manifest_follows_its_published_schema(name: str, version: str) -> None:
    for manifest in manifests(name):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_field_that_kubernetes_does_not_have_is_found() -> None:
    manifest = named(built(DEPLOY / "kubernetes/base"), "Deployment", "backend")
    manifest["spec"]["replica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, "1.29", strict=True)


def test_s4_34_what_was_accepted_is_there() -> None:
    found = manifests("base")
    backend = named(found, "Service", "backend")["spec"]
    assert (backend["type"], backend["ports"][0]["port"]) == ("ClusterIP", 8080)
    redis = named(found, "Service", "redis")["spec"]
    assert (redis["type"], redis["ports"][0]["port"]) == ("ClusterIP", 6379)
    assert named(found, "Deployment", "backend")["spec"]["replicas"] == 3
    kinds = {one["kind"] for one in found}
    assert kinds >= {
        "ConfigMap", "Ingress", "StatefulSet", "PodDisruptionBudget", "HorizontalPodAutoscaler",
        "NetworkPolicy",
    }  # fmt: skip
    assert "Secret" not in kinds, "values of secrets are in no file"


@pytest.mark.parametrize("name", FOLDERS)
def test_every_name_leads_somewhere(name: str) -> None:
    found = manifests(name)
    there = {(one["kind"], one["metadata"]["name"]) for one in found}
    there |= {("Secret", secret) for secret in SECRETS}
    asked = {reference for one in found for reference in references(one)}
    kinds = {"ConfigMap", "Secret", "ServiceAccount", "Service", "Deployment"}
    assert {kind for kind, _ in asked} == kinds
    assert asked <= there, asked - there
    namespaces = {one["metadata"].get("namespace") for one in found if one["kind"] != "Namespace"}
    assert namespaces == {named(found, "Namespace", "headgate")["metadata"]["name"]}


def references(value: Any, key: str = "") -> set[tuple[str, str]]:
    """What a manifest asks for by name, wherever it stands in it."""
    found: set[tuple[str, str]] = set()
    if isinstance(value, list):
        for one in value:
            found |= references(one, key)
    elif isinstance(value, dict):
        for name, one in value.items():
            if name == "secretName":
                found.add(("Secret", one))
            elif name == "serviceAccountName":
                found.add(("ServiceAccount", one))
            elif name == "serviceName":
                found.add(("Service", one))
            elif name == "configMapRef" or (name == "configMap" and "name" in one):
                found.add(("ConfigMap", one["name"]))
            elif name == "service" and key == "backend":
                found.add(("Service", one["name"]))
            elif name == "scaleTargetRef":
                found.add((one["kind"], one["name"]))
            else:
                found |= references(one, name)
    return found


@pytest.mark.parametrize("name", FOLDERS)
def test_what_selects_pods_selects_some(name: str) -> None:
    found = manifests(name)
    labels = [template["metadata"]["labels"] for _, template in pods(name)]
    selectors = [one["spec"]["selector"] for one in found if one["kind"] == "Service"]
    for one in found:
        spec = one.get("spec", {})
        if one["kind"] in {"Deployment", "StatefulSet", "PodDisruptionBudget"}:
            selectors.append(spec["selector"]["matchLabels"])
        if one["kind"] == "NetworkPolicy":
            selectors.append(spec["podSelector"].get("matchLabels", {}))
    assert len(selectors) == 8
    for selector in selectors:
        assert any(selector.items() <= own.items() for own in labels), selector


@pytest.mark.parametrize("name", FOLDERS)
def test_ports_and_volumes_by_name_exist(name: str) -> None:
    ports = {
        pod: {port["name"]: port["containerPort"] for one in template["spec"]["containers"]
              for port in one["ports"]}
        for pod, template in pods(name)
    }  # fmt: skip
    assert ports == {"backend": {"http": 8080}, "redis": {"redis": 6379}}
    for service in (one for one in manifests(name) if one["kind"] == "Service"):
        wanted = service["spec"]["selector"]["app.kubernetes.io/name"]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports[wanted])
    for pod, template in pods(name):
        claims = named(manifests(name), "StatefulSet", "redis")["spec"]["volumeClaimTemplates"]
        volumes = {one["name"] for one in template["spec"]["volumes"]}
        volumes |= {one["metadata"]["name"] for one in claims} if pod == "redis" else set()
        mounts = {one["name"] for c in template["spec"]["containers"] for one in c["volumeMounts"]}
        assert mounts == volumes


@pytest.mark.parametrize("name", FOLDERS)
def test_s4_34_pods_are_as_restricted_as_their_namespace_asks(name: str) -> None:
    """Kubernetes' profile `restricted`, and a root that nobody can write to."""
    namespace = named(manifests(name), "Namespace", "headgate")["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"
    for _, template in pods(name):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        secure = spec["securityContext"]
        assert secure["runAsNonRoot"] is True
        assert secure["runAsUser"] > 0
        assert secure["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all(
            set(one) - {"name"} <= {"secret", "emptyDir", "configMap"} for one in spec["volumes"]
        )
        for container in spec["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]) == {"requests", "limits"}
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
            assert ":" in container["image"]
            assert not container["image"].endswith(":latest")


@pytest.mark.parametrize("name", FOLDERS)
def test_s4_34_the_grace_period_is_longer_than_the_drain(name: str) -> None:
    """Pods are given lingering, draining and five seconds more (trust §1.5)."""
    settings = load_content(environ=of_pods(name))
    backend = dict(pods(name))["backend"]["spec"]
    longest = settings.linger_seconds + settings.drain_seconds + 5
    assert backend["terminationGracePeriodSeconds"] >= longest
    probe = backend["containers"][0]["readinessProbe"]
    assert probe["httpGet"]["path"] == "/api/ready"
    assert backend["containers"][0]["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert settings.linger_seconds >= probe["periodSeconds"] * probe["failureThreshold"] + 5


def of_pods(name: str) -> dict[str, str]:
    """The environment of the service in its pod, without the files that are not here."""
    data: dict[str, str] = named(manifests(name), "ConfigMap", "backend")["data"]
    assert all(isinstance(value, str) for value in data.values())
    return {key: value for key, value in data.items() if not key.endswith("_FILE")}


@pytest.mark.parametrize("name", FOLDERS)
def test_files_of_secrets_are_where_they_are_mounted(name: str) -> None:
    container = dict(pods(name))["backend"]["spec"]["containers"][0]
    mounts = [one["mountPath"] for one in container["volumeMounts"]]
    data = named(manifests(name), "ConfigMap", "backend")["data"]
    files = [value for key, value in data.items() if key.endswith("_FILE")]
    assert len(files) == 4
    assert {file.rpartition("/")[0] for file in files} <= set(mounts)


def test_settings_of_the_overlay_win() -> None:
    assert load_content(environ=of_pods("base")).quota_rpm == 15
    assert load_content(environ=of_pods("production")).quota_rpm == 1000
    backend = dict(pods("production"))["backend"]["spec"]["containers"][0]
    assert backend["image"] == "registry.example.com/headgate:0.1.0"
    limits = dict(pods("production"))["redis"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"memory": "1Gi"}


def test_valkey_is_set_as_in_compose() -> None:
    text = named(manifests("base"), "ConfigMap", "redis")["data"]["valkey.conf"]
    there = (DEPLOY / "compose" / "valkey.conf").read_text(encoding="utf-8")
    assert text.split() == "\n".join(
        line for line in there.splitlines() if not line.startswith("#")
    ).split()  # fmt: skip
    settings = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert settings["maxmemory-policy"] == "noeviction", "a ledger must not be driven out"
    assert settings["appendonly"] == "yes"


def test_nothing_may_be_reached_but_what_is_named() -> None:
    found = manifests("base")
    closed = named(found, "NetworkPolicy", "nothing-else")["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert named(found, "NetworkPolicy", "redis")["spec"]["egress"] == []
    outward = named(found, "NetworkPolicy", "backend")["spec"]["egress"][-1]
    excepted = {cidr for to in outward["to"] for cidr in to["ipBlock"]["except"]}
    assert "169.254.0.0/16" in excepted, "metadata of the cloud's machines"


def test_the_autoscaler_begins_where_the_deployment_does_and_the_budget_leaves_room() -> None:
    found = manifests("base")
    scaler = named(found, "HorizontalPodAutoscaler", "backend")["spec"]
    replicas = named(found, "Deployment", "backend")["spec"]["replicas"]
    assert scaler["minReplicas"] == replicas < scaler["maxReplicas"]
    assert named(found, "PodDisruptionBudget", "backend")["spec"]["minAvailable"] < replicas


def test_every_file_is_used() -> None:
    used = set()
    for folder in FOLDERS.values():
        said = yaml.safe_load((DEPLOY / "kubernetes" / folder / "kustomization.yaml").read_text())
        used |= {f"{folder}/{place}" for place in said["resources"] if place.endswith(".yaml")}
        used |= {f"{folder}/{patch['path']}" for patch in said.get("patches", ())}
        used.add(f"{folder}/kustomization.yaml")
    root = DEPLOY / "kubernetes"
    assert {str(file.relative_to(root)) for file in root.rglob("*.yaml")} == used


def test_a_merge_goes_into_lists_of_named_things() -> None:
    into = {"a": [{"name": "x", "b": {"c": 1}}], "d": [1]}
    merge(into, {"a": [{"name": "x", "b": {"e": 2}}], "d": [2]})
    assert into == {"a": [{"name": "x", "b": {"c": 1, "e": 2}}], "d": [2]}
