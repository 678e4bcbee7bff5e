"""The one error tree. Each class knows its kind, HTTP status and whether trying again can help.

    HeadgateError
    ├── ConfigurationError      a setting is missing or wrong; nothing was sent
    │   ├── KeyFormatError      a list of keys is malformed; names the position, never the key
    │   └── NoKeysError         no key was found anywhere
    ├── InvalidCallError        the caller's mistake, found before anything was sent
    ├── ModelRetiredError       the model is gone and the policy is `strict`
    ├── QuotaExhaustedError     every usable key waits for quota; `retry_after` says until when
    ├── NoUsableKeyError        no key may serve this model: disabled, or without access to it
    ├── DeadlineExceededError   the call's own deadline passed
    ├── QueueFullError          too many calls wait already; `retry_after` says when to come back
    ├── ReplySchemaError        the reply does not fit the schema that was asked for
    ├── StoreError              the shared store did not answer in time, or not usefully
    ├── UpstreamError           the upstream refused or failed; `outcome` says how
    └── (doors)                 accepted names of each door, e.g. GeminiKeyRotationError

A message says what happened, why, and what to do next. No message ever holds a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from headgate.core.outcome import Outcome

__all__ = [
    "ConfigurationError",
    "DeadlineExceededError",
    "HeadgateError",
    "InvalidCallError",
    "KeyFormatError",
    "ModelRetiredError",
    "NoKeysError",
    "NoUsableKeyError",
    "QueueFullError",
    "QuotaExhaustedError",
    "ReplySchemaError",
    "StoreError",
    "UpstreamError",
]


class HeadgateError(Exception):
    """Base of every error Headgate raises on purpose.

    Attributes:
        message: the whole sentence, safe to show and to log.
        kind: a short stable word for programs (`quota`, `auth`, `blocked`, …).
        http_status: the status a gateway would answer with.
        retryable: whether the same call may succeed later without a change.
        retry_after: seconds until it may, where that is known.
        request_id: the id of the call, as in logs and records.
        attempts: how many were sent before it was raised.
    """

    default_kind: ClassVar[str] = "error"
    http_status: int = 500
    retryable: bool = False
    attempts: int = 0

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "default_kind" not in cls.__dict__:
            raise TypeError(f"{cls.__name__} must say its default_kind: every error has one")

    def __init__(
        self,
        message: str,
        *,
        kind: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind or self.default_kind
        self.retry_after = retry_after
        self.request_id = request_id

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process boundaries whole, whatever their constructors ask for."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    cls: type[HeadgateError], args: tuple[object, ...], state: dict[str, object]
) -> HeadgateError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class ConfigurationError(HeadgateError):
    """A setting is missing or wrong. Names the setting and the allowed values, never a secret."""

    default_kind = "configuration"


class KeyFormatError(ConfigurationError):
    """A list of keys is malformed. Names the position in the list, never the key.

    Attributes:
        position: 1-based, empty entries not counted.
    """

    default_kind = "key_format"

    def __init__(self, message: str, *, position: int) -> None:
        super().__init__(message)
        self.position = position


class NoKeysError(ConfigurationError):
    """No key was found in any of the places where one may stand."""

    default_kind = "no_keys"


class InvalidCallError(HeadgateError):
    """The call cannot be sent as it is: the caller's mistake, found before any byte was written."""

    default_kind = "invalid"
    http_status = 400


class ModelRetiredError(HeadgateError):
    """The model has been shut down and the model policy is `strict`."""

    default_kind = "model_retired"
    http_status = 404


class QuotaExhaustedError(HeadgateError):
    """Every usable key is out of quota for this model, and waiting does not fit the call.

    Attributes:
        total_keys: number of configured keys.
    """

    default_kind = "quota"
    http_status = 429
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        total_keys: int,
        retry_after: float | None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after, request_id=request_id)
        self.total_keys = total_keys


class NoUsableKeyError(HeadgateError):
    """No key may serve this model, and no amount of waiting changes that."""

    default_kind = "auth"
    http_status = 503


class DeadlineExceededError(HeadgateError):
    """The call's own deadline passed before an answer came. Of kind `busy`: while it waited its turn
    here, and nothing was sent."""

    default_kind = "timeout"
    http_status = 504
    retryable = True


class QueueFullError(HeadgateError):
    """Too many calls wait already: this one was refused at once, and nothing was sent."""

    default_kind = "busy"
    http_status = 503
    retryable = True


class StoreError(HeadgateError):
    """The shared store did not answer in time, or not usefully. Callers inside fall back at once."""

    default_kind = "store"
    http_status = 503
    retryable = True


class ReplySchemaError(HeadgateError):
    """The reply does not fit the schema that was asked for. It was billed; another try may fit.

    Attributes:
        text: the reply; not part of the message.
        problems: what does not fit, as sentences with places such as `$.items[2].name`.
    """

    default_kind = "schema"
    http_status = 502
    retryable = True

    def __init__(
        self, message: str, *, text: str, problems: tuple[str, ...], request_id: str | None = None
    ) -> None:
        super().__init__(message, request_id=request_id)
        self.text = text
        self.problems = problems


class UpstreamError(HeadgateError):
    """The upstream refused the call or failed while serving it.

    Attributes:
        outcome: the classified result of the last attempt.
        key_name: the key it was made with, or None.
    """

    default_kind = "upstream"
    http_status = 502

    def __init__(
        self,
        outcome: Outcome,
        message: str | None = None,
        *,
        key_name: str | None = None,
        request_id: str | None = None,
    ) -> None:
        rule = outcome.rule
        super().__init__(
            message or outcome.message,
            kind=rule.public_kind,
            retry_after=outcome.retry_after,
            request_id=request_id,
        )
        self.outcome = outcome
        self.key_name = key_name
        self.http_status = rule.http_status
        self.retryable = rule.retryable
