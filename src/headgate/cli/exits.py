"""Exit codes: one meaning each, the same for every command. docs/reference/cli.md lists them."""

from __future__ import annotations

from enum import IntEnum

from headgate.core.errors import HeadgateError

__all__ = ["MEANINGS", "ExitCode", "exit_code"]


class ExitCode(IntEnum):
    """What a command ends with."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    CONFIGURATION = 3
    QUOTA = 4
    REFUSED = 5
    UPSTREAM = 6
    NO_USABLE_KEY = 7
    RUN_FAILED = 8
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.FAILURE: "unexpected failure, or the demo's books do not agree",
    ExitCode.USAGE: "wrong command, option or argument",
    ExitCode.CONFIGURATION: "a setting or a list of keys is missing or wrong; nothing was sent",
    ExitCode.QUOTA: "no quota left on any key; stderr says when to come back",
    ExitCode.REFUSED: "the call was refused, blocked or invalid; sending it again will not help",
    ExitCode.UPSTREAM: "the upstream or the store failed, could not be reached or took too long",
    ExitCode.NO_USABLE_KEY: "the upstream accepts none of the keys",
    ExitCode.RUN_FAILED: "an agent run ended without success, or some of a list could not be created",
    ExitCode.INTERRUPTED: "interrupted with Ctrl-C",
    ExitCode.BROKEN_PIPE: "whoever read the output stopped, as `head` does",
}

_BY_KIND: dict[str, ExitCode] = {
    "configuration": ExitCode.CONFIGURATION,
    "key_format": ExitCode.CONFIGURATION,
    "no_keys": ExitCode.CONFIGURATION,
    "quota": ExitCode.QUOTA,
    "rate_limit": ExitCode.QUOTA,
    "budget": ExitCode.QUOTA,
    "not_found": ExitCode.REFUSED,
    "conflict": ExitCode.REFUSED,
    "bulk": ExitCode.RUN_FAILED,
    "webhook": ExitCode.REFUSED,
    "uncertain": ExitCode.REFUSED,
    "store": ExitCode.UPSTREAM,
    "blocked": ExitCode.REFUSED,
    "invalid": ExitCode.REFUSED,
    "model_retired": ExitCode.REFUSED,
    "model_not_found": ExitCode.REFUSED,
    "unsupported": ExitCode.REFUSED,
    "too_large": ExitCode.REFUSED,
    "resource": ExitCode.REFUSED,
    "storage_quota": ExitCode.REFUSED,
    "egress": ExitCode.REFUSED,
    "management": ExitCode.REFUSED,
    "unavailable": ExitCode.UPSTREAM,
    "server": ExitCode.UPSTREAM,
    "network": ExitCode.UPSTREAM,
    "timeout": ExitCode.UPSTREAM,
    "protocol": ExitCode.UPSTREAM,
    "busy": ExitCode.UPSTREAM,
    "schema": ExitCode.UPSTREAM,
    "quality": ExitCode.UPSTREAM,
    "tls": ExitCode.UPSTREAM,
    "upstream": ExitCode.UPSTREAM,
    "auth": ExitCode.NO_USABLE_KEY,
    "no_access": ExitCode.NO_USABLE_KEY,
}


def exit_code(error: HeadgateError) -> ExitCode:
    """The code of an error: its kind decides, so that a new class of a known kind is known here."""
    return _BY_KIND.get(error.kind, ExitCode.FAILURE)
