"""What callers pass, checked before anything is sent. Every mistake is the door's `ValidationError`."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict, Field, field_validator

from headgate.codegen.errors import ValidationError
from headgate.policy.privacy.markers import take_out

__all__ = [
    "AgentType",
    "CheckSuiteSettingsRequest",
    "CreateAgentRunRequest",
    "EditPRInput",
    "GenerateSetupCommandsInput",
    "GenerateTokenRequest",
    "PRState",
    "ResumeAgentRunInput",
    "StopAgentRunInput",
    "checked",
    "number_of",
    "page_query",
    "refused",
    "shielded",
]

M = TypeVar("M", bound=BaseModel)

_DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,(?P<data>.+)", re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,18}")


class AgentType(StrEnum):
    """Which agent runs."""

    CODEGEN = "codegen"
    CLAUDE_CODE = "claude_code"


class PRState(StrEnum):
    """What a pull request can be set to."""

    OPEN = "open"
    CLOSED = "closed"
    DRAFT = "draft"
    READY_FOR_REVIEW = "ready_for_review"


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    def body(self) -> dict[str, Any]:
        """As it is sent: what was not given is left out."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in given.items() if value is not None}


class _Prompted(_Input):
    prompt: str
    images: list[str] | None = None

    @field_validator("prompt")
    @classmethod
    def _not_blank(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("must not be blank")
        return prompt

    @field_validator("images")
    @classmethod
    def _data_uris(cls, images: list[str] | None) -> list[str] | None:
        for position, image in enumerate(images or (), start=1):
            match = _DATA_URI.fullmatch(image)
            try:
                if match is None:
                    raise ValueError(image[:0])
                base64.b64decode(match["data"], validate=True)
            except (ValueError, binascii.Error):
                raise ValueError(
                    f"image {position} is no base64 data URI (data:image/png;base64,…)"
                ) from None
        return images


class CreateAgentRunRequest(_Prompted):
    """What a run is created from; the API calls it `CreateAgentRunInput`."""

    metadata: dict[str, Any] | None = None
    repo_id: int | None = None
    model: str | None = None
    agent_type: AgentType | None = None


class ResumeAgentRunInput(_Prompted):
    """What a run is resumed with."""

    agent_run_id: int


class StopAgentRunInput(_Input):
    """Which run's pull request is left alone, or no more."""

    agent_run_id: int
    before_card_order_id: str | None = None
    after_card_order_id: str | None = None


class CheckSuiteSettingsRequest(_Input):
    """What changes in the treatment of failed checks."""

    check_retry_count: int | None = Field(default=None, ge=0, le=10)
    ignored_checks: list[str] | None = None
    check_retry_counts: dict[str, int] | None = None
    custom_prompts: dict[str, str] | None = None
    high_priority_apps: list[str] | None = None


class EditPRInput(_Input):
    """The state a pull request is set to."""

    state: PRState


class GenerateSetupCommandsInput(_Input):
    """Which repository to work out set-up commands for."""

    repo_id: int
    prompt: str | None = None
    trigger_source: str = "setup-commands"


class GenerateTokenRequest(_Input):
    """Whose Slack account to connect."""

    org_id: int


def shielded(prompt: Any, redact: bool) -> Any:
    """The prompt; with `redact`, markers such as `[EMAIL]` stand for the personal data in it."""
    return take_out(prompt).text if redact and isinstance(prompt, str) else prompt


def checked(model: type[M], values: Mapping[str, object]) -> M:
    """The input made of these values. Raises the door's `ValidationError`, which names each field."""
    try:
        return model.model_validate(
            {name: value for name, value in values.items() if value is not None}
        )
    except pydantic.ValidationError as error:
        fields: dict[str, list[str]] = {}
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            name = ".".join(str(part) for part in problem["loc"]) or "request"
            fields.setdefault(name, []).append(problem["msg"].removeprefix("Value error, "))
    raise refused(fields)


def refused(fields: dict[str, list[str]]) -> ValidationError:
    """The error for these fields."""
    said = "; ".join(f"{name}: {', '.join(errors)}" for name, errors in fields.items())
    return ValidationError(f"Nothing was sent. {said}.", fields)


def number_of(value: object, field: str) -> int:
    """An id: a whole number or numeric text. Raises the door's `ValidationError` on `field`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return int(value.strip())
    raise refused({field: ["takes a whole number, such as 123 or '123'"]})


def page_query(skip: object, limit: object, **others: object) -> dict[str, str]:
    """The query of a list. Raises the door's `ValidationError` for what the API would refuse."""
    first = number_of(skip, "skip")
    most = number_of(limit, "limit")
    if not 1 <= most <= 100:
        raise refused({"limit": ["takes 1 to 100"]})
    query = {"skip": str(first), "limit": str(most)}
    for name, value in others.items():
        if value is not None:
            query[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return query
