"""The OpenAPI document says what is done: valid, complete, with examples that fit."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any
from urllib.parse import unquote, urlencode

import jsonschema
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core import NOT_SET
from tests.gateway import CALLERS
from tests.managing import ADMIN, Managed
from tests.support import said

from headgate.gateway.manage.openapi import document
from headgate.gateway.manage.opening import TABLE
from headgate.gateway.manage.page import PAGE_FILES, POLICY
from headgate.gateway.manage.table import Endpoint
from headgate.gateway.manage.trouble import KINDS
from headgate.testing import Answer, Sent, VirtualClock
from headgate.wiring.gateway_settings import GatewaySettings

DOCUMENT = document(TABLE)


def endpoint_id(one: Endpoint) -> str:
    return f"{one.method} {one.path}"


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that finds what it refers to."""
    return {**schema, "components": DOCUMENT["components"]}


def test_every_reference_leads_somewhere() -> None:
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(DOCUMENT)):
        found: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def test_names_of_operations_are_unique_and_tags_are_described() -> None:
    names = [one.name for one in TABLE.endpoints]
    assert len(names) == len(set(names))
    assert {one.tag for one in TABLE.endpoints} == {tag["name"] for tag in DOCUMENT["tags"]}
    assert all(kind in KINDS for one in TABLE.endpoints for kind in one.problems)


def test_schemas_are_schemas() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("one", TABLE.endpoints, ids=endpoint_id)
def test_examples_fit_what_they_are_examples_of(one: Endpoint) -> None:
    """By the schema that is shown, and by the structure that is used."""
    assert set(one.path_examples) == set(one.parameters)
    query = {name: str(value) for name, value in one.query_example.items()}
    msgspec.convert(query, one.query, strict=False)
    operation = DOCUMENT["paths"][one.path][one.method.lower()]
    for kind, example, where in (
        (one.body, one.body_example, operation.get("requestBody", {})),
        (one.answer, one.answer_example, operation["responses"][str(one.status)]),
    ):
        if kind is None:
            continue
        assert example is not None, "it needs an example"
        msgspec.convert(example, kind, strict=True) if kind is one.body else None
        schema = where["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator(resolved(schema)).validate(example)


async def test_it_is_served_to_those_who_manage(clock: VirtualClock) -> None:
    managed = Managed([], clock)
    got = await managed.ask("GET", "/openapi.json")
    assert (got.status, got.json) == (200, json.loads(msgspec.json.encode(DOCUMENT)))
    assert got.headers["content-type"] == "application/json"
    assert (await managed.ask("GET", "/openapi.json", authorization="")).status == 401
    assert (await managed.ask("POST", "/openapi.json")).status == 405
    await managed.aclose()


# ── the page ─────────────────────────────────────────────────────────────────────────────────────


async def test_x25_the_page_is_static_and_lets_nothing_in(clock: VirtualClock) -> None:
    """It shows nothing without the document, which takes the key; so it is open itself (X-11)."""
    managed = Managed([], clock, settings=GatewaySettings(admin=ADMIN, callers=CALLERS))
    for path, (_, kind) in PAGE_FILES.items():
        got = await managed.ask("GET", path, authorization="")
        assert got.status == 200
        assert got.headers["content-type"] == kind.decode()
        assert got.headers["content-security-policy"] == POLICY.decode()
        assert got.headers["x-content-type-options"] == "nosniff"
        text = got.body.decode()
        assert not re.search(r"https?://(?!www\.w3\.org)", text), "it works without any other host"
        assert "innerHTML" not in text
        assert not re.search(r"\son\w+=|style=|<script(?! type=\"module\" src=)|<style", text), path
    for path in ("/docs/../app.py", "/docs/openapi.py", "/docs/docs.html"):
        assert (await managed.ask("GET", path)).status == 404
    await managed.aclose()


# ── calls that nobody thought of ─────────────────────────────────────────────────────────────────


def upstream(sent: Sent) -> Answer:
    if sent.request.method == "GET":
        return Answer(body=b'{"models": [], "name": "models/x"}')
    return said()


def generated(each: int) -> list[Any]:
    """Cases of every endpoint, good ones and bad ones."""
    schema = schemathesis.openapi.from_dict(msgspec.json.decode(msgspec.json.encode(DOCUMENT)))
    found: list[Any] = []
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path == "/manage/v1/events":  # it never ends
            continue
        for mode in schemathesis.GenerationMode:

            @settings(
                max_examples=each, database=None, deadline=None, derandomize=True,
                phases=[Phase.generate], suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy(generation_mode=mode))
            def note(case: Any) -> None:
                found.append(case)

            with contextlib.suppress(Unsatisfiable):  # what takes nothing has no bad cases
                note()
    return found


def written(body: Any) -> bytes:
    if isinstance(body, bytes) or body is NOT_SET:
        return body if isinstance(body, bytes) else b""
    return json.dumps(body).encode()


def path_of(case: Any) -> str:
    """The path as a server hands it on, with the query."""
    path = case.path
    for name, value in (case.path_parameters or {}).items():
        path = path.replace(f"{{{name}}}", unquote(str(value)))
    query = case.query or {}
    return f"{path}?{urlencode(query, doseq=True)}" if query else path


async def test_schemathesis_finds_nothing(clock: VirtualClock) -> None:
    """Generated requests, good and bad, to every endpoint: never a fault of ours, no status and no
    answer that the document does not have. In process: the gateway is asked without a socket."""
    managed = Managed(upstream, clock)
    cases = generated(each=1)
    assert len({case.operation.label for case in cases}) == len(TABLE.endpoints) - 1
    schemas: dict[str, Any] = {}
    for case in cases:
        path = path_of(case).removeprefix("/manage/v1")
        if "?" in unquote(path.partition("?")[0]):
            continue  # a name with a question mark in it is another address here
        body = written(case.body)
        got = await managed.client(case.method, path, body, {"content-length": str(len(body))}).run()
        operation = DOCUMENT["paths"][case.operation.path][case.method.lower()]
        what = f"{case.method} {path[:90]} {body[:200]!r} {got.status} {got.body[:300]!r}"
        assert got.status != 500, what
        told = operation["responses"].get(str(got.status)) or operation["responses"].get("default")
        assert told is not None, what
        kind = got.headers.get("content-type", "")
        if kind.endswith("json"):
            schema = told["content"][kind]["schema"]
            key = json.dumps(schema)
            if key not in schemas:
                schemas[key] = jsonschema.Draft202012Validator(resolved(schema))
            assert schemas[key].is_valid(got.json), what
    await managed.aclose()
