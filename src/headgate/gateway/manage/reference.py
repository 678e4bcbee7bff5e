"""The reference page of the management API, made of its OpenAPI document.

python -m headgate.gateway.manage.reference > docs/reference/management-api.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from headgate.gateway.manage.openapi import document
from headgate.gateway.manage.opening import TABLE

__all__ = ["page"]

_BEGIN = """# Management API

<!-- Made of the table of endpoints: `python -m headgate.gateway.manage.reference`. Change that. -->

What there is to see and to do about a running gateway, at `/manage/v1`. `/openapi.json` has the same for
programs, `/docs` for browsers; [a how-to](../how-to/manage-a-gateway.md) shows it in use.

## Who may

| | |
|---|---|
| `HEADGATE_ADMIN_KEY` is set (or `HEADGATE_ADMIN_KEY_FILE`) | whoever sends it as `Authorization: Bearer …`; it has 24 characters or more, and is no caller's key |
| no admin key, and no callers either | programs on this machine, under `localhost` and loopback addresses; no web page of another site |
| no admin key, but callers | nobody ([why](../adr/0073-who-may-manage.md)) |

The page at `/docs` is open, and shows nothing without the document, for which it asks for the key.

## In every request

- **Errors** are `application/problem+json` (RFC 9457): `type`, `title`, `status`, `detail`, a `hint` that says what
  to do next, and `request_id`, which stands in the log. [All kinds](#problems).
- **Lists** come in pages: `limit` items, and `next`, the `cursor` of the page after it. Nothing is shown twice or left
  out where items come and go meanwhile.
- **A POST with `Idempotency-Key`** is done once in 24 hours, also where its client goes away; repeating it gives the
  same answer, with `idempotency-replayed: true`. A key for another request gets 422, one whose request goes on 409.
  An answer that held a caller's key is not kept, and not given again. The last 1,000 answers of a process are kept,
  by it alone: with several workers repeat on the same connection, and a process that starts anew remembers none.
- **Answers** have `cache-control: no-store`; instants are UTC with microseconds and `+00:00`. There is no CORS.
- **Several workers**: what is shown is of the process that answers. Orders – to drain and resume, to reset and forget,
  to configure the backend – reach all workers; callers and usage are kept where all see them; each worker reads
  the configuration by itself.
"""  # noqa: E501 - a page of Markdown: rows of its tables cannot be broken

_EVENTS = """
Events are `attempt`, `call`, `key`, `alert`, `order` and `config`, each with JSON as its data; `lost` says how many
were not kept for a listener that was away or did not read, `end` that the gateway goes. A listener that does not read
has 1,000 events waiting for it at the most; 64 may listen.
"""  # noqa: E501 - as above


def page() -> str:
    """The whole page."""
    found = document(TABLE)
    lines = [_BEGIN]
    for tag in found["tags"]:
        lines += [f"## {tag['name'].capitalize()}\n", f"{tag['description']}\n"]
        rows = list(_of_tag(found, tag["name"]))
        lines += ["| | |", "|---|---|"]
        lines += [f"| `{verb} {path}` | {_short(operation)} |" for path, verb, operation in rows]
        lines.append("")
        for path, verb, operation in rows:
            lines += _details(path, verb, operation)
        if tag["name"] == "gateway":
            lines.append(_EVENTS.lstrip("\n"))
    lines += ["## Problems\n", "| type | status | | what to do |", "|---|---|---|---|"]
    for name, kind in found["x-problems"].items():
        lines.append(
            f"| `/docs#problem-{name}` | {kind['status']} | {kind['title']} | {kind['hint']} |"
        )
    return "\n".join(lines) + "\n"


def _of_tag(found: Mapping[str, Any], tag: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, verbs in found["paths"].items():
        for verb, operation in verbs.items():
            if operation["tags"] == [tag]:
                yield path.removeprefix("/manage/v1"), verb.upper(), operation


def _short(operation: Mapping[str, Any]) -> str:
    said = f"{operation['summary']}."
    if "description" in operation:
        said += f" {operation['description']}"
    return said


def _details(path: str, verb: str, operation: Mapping[str, Any]) -> list[str]:
    """What it takes, beyond the names in its path; nothing where it takes nothing."""
    takes = [
        f"`{one['name']}` ({_kind(one['schema'])}{', needed' if one['required'] else ''})"
        for one in operation["parameters"]
        if one["in"] == "query"
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if not takes and not body:
        return []
    said = [f"`{verb} {path}`"]
    if takes:
        said.append(f"takes {', '.join(takes)}")
    if body:
        named = body["schema"].get("$ref", "").rpartition("/")[2] or "JSON"
        said.append(f"{'and ' if takes else 'takes '}a body `{named}`, such as `{_example(body)}`")
    return [f"{' '.join(said)}.", ""]


def _example(body: Mapping[str, Any]) -> str:
    import json  # noqa: PLC0415 - of this page only

    return json.dumps(body.get("example", {}))


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(str(word) for word in schema["enum"])
    words = str(schema.get("format") or schema.get("type", "any"))
    if "minimum" in schema and "maximum" in schema:
        words += f" from {schema['minimum']} to {schema['maximum']}"
    if schema.get("default") not in (None, "", False):
        words += f", {schema['default']} if nothing is said"
    return words


if __name__ == "__main__":
    sys.stdout.write(page())
