"""The description of the content service says what it does: valid, and answers fit it (S4 §5.6)."""

from __future__ import annotations

from typing import Any

import jsonschema
from openapi_spec_validator import validate
from tests.content import Content, form, ordered, picture
from tests.gateway import Got

from headgate.testing import VirtualClock


async def described(content: Content) -> dict[str, Any]:
    document: dict[str, Any] = (await content.get("/api/docs")).json
    return document


def check(document: dict[str, Any], method: str, path: str, got: Got) -> None:
    """An answer is one of those that are described, and fits its schema."""
    responses = document["paths"][path][method.lower()]["responses"]
    assert str(got.status) in responses, (method, path, got.status, got.body[:200])
    kind = got.headers["content-type"].partition(";")[0]
    if kind != "application/json":
        return
    schema = responses[str(got.status)]["content"][kind]["schema"]
    whole = {**schema, "components": document["components"]}
    jsonschema.Draft202012Validator(whole).validate(got.json)


async def test_it_is_valid_and_what_is_answered_fits_it(clock: VirtualClock) -> None:
    content = Content(clock, environ={"QUOTA_RPM": "20"})
    document = await described(content)
    validate(document)
    upload, headers = form(picture("PNG"))
    calls: list[tuple[str, str, Any, dict[str, str]]] = [
        ("POST", "/api/create_subtopics", {"topic": "Bees"}, {}),
        ("POST", "/api/create_subtopics", {"topic": "Bees"}, {}),
        ("POST", "/api/create_subtopics", {}, {}),
        ("POST", "/api/create_subtopics", {}, {"content-type": "text/plain"}),
        ("POST", "/api/create_presentation", ordered(), {}),
        ("POST", "/api/create_presentation", ordered(focus=[f"P {n}" for n in range(20)]), {}),
        ("POST", "/api/image2topic", upload, headers),
        ("POST", "/api/image2topic", b"", headers),
        ("POST", "/api/generate_image", {"prompt": "Bees"}, {}),
        ("POST", "/api/cache/invalidate", {"namespace": "subtopics", "pattern": "*"}, {}),
        ("GET", "/api/quota/stats", b"", {"host": "attacker.example"}),
    ]
    for method, path, body, extra in calls:
        check(document, method, path, await content.ask(method, path, body, extra))
    for path, methods in document["paths"].items():
        if "get" in methods:
            check(document, "GET", path, await content.get(path.replace("{name}", "gemini-3.8-flash")))
