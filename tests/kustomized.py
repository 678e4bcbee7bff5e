"""What `kubectl apply -k` would send: the parts of kustomize that deploy/kubernetes uses.

Anything else that a kustomization says is refused, so that no test passes for want of a feature.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

__all__ = ["built", "named"]

Manifest = dict[str, Any]
_KNOWN = {"apiVersion", "kind", "namespace", "labels", "resources", "images", "patches"}
_WITHOUT_NAMESPACE = {"Namespace"}


def built(folder: Path) -> list[Manifest]:
    """All manifests of a kustomization."""
    said = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    assert set(said) <= _KNOWN, set(said) - _KNOWN
    found = [manifest for place in said["resources"] for manifest in _read(folder / place)]
    for manifest in found:
        if "namespace" in said and manifest["kind"] not in _WITHOUT_NAMESPACE:
            manifest["metadata"].setdefault("namespace", said["namespace"])
        for labels in said.get("labels", ()):
            _label(manifest, labels)
    for patch in said.get("patches", ()):
        assert set(patch) == {"path"}, patch
        for change in yaml.safe_load_all((folder / patch["path"]).read_text(encoding="utf-8")):
            merge(named(found, change["kind"], change["metadata"]["name"]), change)
    for image in said.get("images", ()):
        for container in _containers(found):
            if container["image"].partition(":")[0] == image["name"]:
                container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
                break
        else:
            raise AssertionError(f"no container runs {image['name']}")
    return found


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The one of this kind and name."""
    (found,) = (one for one in manifests if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def merge(into: Manifest, change: Manifest) -> None:
    """As a strategic merge does: mappings key by key, lists of named things thing by thing."""
    for key, value in change.items():
        there = into.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            merge(there, value)
        elif _of_named(value) and _of_named(there):
            by_name = {one["name"]: one for one in there}
            for one in value:
                assert one["name"] in by_name, f"a patch names {one['name']}, which is not there"
                merge(by_name[one["name"]], one)
        else:
            into[key] = copy.deepcopy(value)


def _of_named(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and "name" in one for one in value)
    )


def _read(place: Path) -> Iterator[Manifest]:
    if place.is_dir():
        yield from built(place)
    else:
        yield from yaml.safe_load_all(place.read_text(encoding="utf-8"))


def _label(manifest: Manifest, labels: dict[str, Any]) -> None:
    assert set(labels) <= {"pairs", "includeTemplates"}
    manifest["metadata"].setdefault("labels", {}).update(labels["pairs"])
    template = manifest.get("spec", {}).get("template") if labels.get("includeTemplates") else None
    if template is not None:
        template["metadata"]["labels"].update(labels["pairs"])


def _containers(manifests: list[Manifest]) -> Iterator[Manifest]:
    for manifest in manifests:
        template = manifest.get("spec", {}).get("template")
        if template is not None:
            yield from template["spec"]["containers"]
