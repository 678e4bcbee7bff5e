"""The labels that several families share, each closed or bounded."""

from __future__ import annotations

from headgate.core.call import Operation
from headgate.core.outcome import RULES, Kind
from headgate.telemetry.metrics.family import Label

__all__ = [
    "BREAKER_STATES",
    "CODE",
    "COST_TYPE",
    "DOMAIN",
    "ERROR_KIND",
    "FALLBACK",
    "LIMIT",
    "MODEL",
    "OPERATION",
    "OUTCOME",
    "PROVIDER",
    "RESULT",
    "TOKEN_TYPE",
    "alias_of",
    "code_of",
    "result_of",
]

PROVIDER = Label("provider", values=("gemini", "anthropic", "openai", "codegen", "other"))
OPERATION = Label("operation", values=(*(operation.value for operation in Operation), "other"))
OUTCOME = Label("outcome", values=(*(kind.value for kind in Kind), "other"))

MODEL = Label("model", most=50)
"""Canonical ids. A model earns its place by an answer or a quota refusal, which only a model that is
there gives: names that callers make up are `other`."""

DOMAIN = Label("quota_domain", most=200)
"""Aliases of quota domains as they are configured, never a key."""

LIMIT = Label("limit", values=("rpm", "rpd", "tpm", "tpd", "itpm", "otpm", "concurrency", "other"))

_CODES = (200, 400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 499, 500, 502, 503, 504, 529)
CODE = Label("code", values=("none", *map(str, _CODES), "1xx", "2xx", "3xx", "4xx", "5xx", "other"))
"""HTTP statuses one by one where they mean something here, by their class otherwise; `none` where no
answer came."""

TOKEN_TYPE = Label("type", values=("input", "output", "cache_read", "cache_write", "reasoning"))

COST_TYPE = Label("type", values=("input", "cache_read", "output", "reasoning"))

FALLBACK = Label(
    "strategy",
    values=(
        "UseCachedResponse", "SwitchModel", "DefaultResponse", "PartialResponse", "FailFast", "other",
    ),
)  # fmt: skip

BREAKER_STATES = ("closed", "open", "half_open")

_OF_ERRORS = (
    "configuration", "key_format", "no_keys", "model_retired", "store", "schema", "upstream", "fault",
    "queue_full", "other",
)  # fmt: skip
ERROR_KIND = Label(
    "error_type",
    values=tuple(sorted({rule.public_kind for rule in RULES.values()} - {"success"} | {*_OF_ERRORS})),
)
"""Public kinds of errors (`HeadgateError.kind`), `fault` for one of ours."""

RESULT = Label(
    "result", values=("success", "quota", "cancelled", "caller", "upstream", "gateway", "cut", "other")
)
"""Whose doing it is that a call ended as it did. `quota`: no key had room in time. `caller`: the
request itself, or what was asked for, is refused. `upstream`: the provider failed. `gateway`: Headgate
did, or is not configured for it. `cut`: a stream that broke after its first piece."""

_RESULTS = {
    "quota": "quota",
    "cancelled": "cancelled",
    **dict.fromkeys(("invalid", "blocked", "resource", "no_access", "model_retired"), "caller"),
    "storage_quota": "caller",
    "schema": "upstream",
    **dict.fromkeys(("unavailable", "server", "network", "timeout", "protocol", "tls"), "upstream"),
    "upstream": "upstream",
    **dict.fromkeys(("auth", "egress", "busy", "queue_full", "store", "fault"), "gateway"),
    **dict.fromkeys(("configuration", "key_format", "no_keys"), "gateway"),
}


def result_of(error: str | None) -> str:
    """The word of `RESULT` for the kind of error a caller got; `success` for None."""
    return "success" if error is None else _RESULTS.get(error, "other")


def alias_of(domain: str) -> str:
    """The word of `DOMAIN` for a domain: of a key without a project, the name of the key."""
    return domain.removeprefix("key:")


def code_of(status: int | None) -> str:
    """The word of `CODE` for an HTTP status; `none` for no answer."""
    if status is None:
        return "none"
    if status in _CODES:
        return str(status)
    return f"{status // 100}xx" if 100 <= status < 600 else "other"
