"""A request made into a call of the engine: every field checked, and named where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from headgate.backend.files import media_of
from headgate.backend.remembering import keeping_of
from headgate.backend.settings import BackendConfig, ContextOverflow, PreprocessConfig
from headgate.backend.structures import FunctionResult, GeminiRequest
from headgate.core.call import Call, Operation, Part, Preparation, Role, Turn
from headgate.core.errors import InvalidCallError
from headgate.core.fallback import FallbackStrategy
from headgate.core.model_card import ModelMetadata
from headgate.core.ports import Clock
from headgate.policy.requirements import SWITCHED
from headgate.wiring.calls import framed

__all__ = ["call_of", "code_request", "preparation_of", "process_request", "results_of"]

_JSON = "application/json"
_MOST_STOPS = 5  # Gemini API, GenerationConfig
_PROCESS = {"temperature": 0.7, "top_k": 10, "top_p": 0.95}
_PROCESS_TOKENS = 8192
"""What S3-09 asks for always."""

QUEUE_SECONDS = 30.0
"""The longest a request without a timeout of its own waits for quota (C15)."""

CODE_SECONDS = 120.0
"""The longest a request about code takes (S3-10)."""


def call_of(
    request: GeminiRequest,
    config: BackendConfig,
    clock: Clock,
    *,
    system: str | None = None,
    api_key: str | None = None,
) -> Call:
    """The call of a request, without the conversation before it.

    Args:
        system: the session's system instruction, for a request without its own.
        api_key: the caller's own key: its replies are remembered for it alone.

    Raises:
        InvalidCallError: a field is wrong; nothing was sent.
    """
    _check(request)
    media = media_of(request)
    parts: tuple[Part, ...] = (*media, request.prompt) if request.prompt else media
    frame: dict[str, object] = {"priority": request.priority, "caller": request.caller}
    if request.timeout_seconds is not None:
        frame["timeout"] = request.timeout_seconds
    try:
        framing = framed(frame, clock, QUEUE_SECONDS)
    except TypeError as error:
        raise InvalidCallError(f"timeout_seconds: {error}.") from None
    return Call(
        Operation.STREAM if request.stream else Operation.GENERATE,
        request.model,
        parts,
        _options(request, system),
        turns=results_of(request),
        preparation=preparation_of(request, config),
        keeping=keeping_of(request, config, api_key),
        fallbacks=_fallbacks(request, config),
        **framing,
    )


def preparation_of(request: GeminiRequest, config: BackendConfig) -> Preparation:
    """What is to happen to a request before it is sent: its own wishes, else the backend's."""
    how = request.preprocess_config or config.preprocess_config
    overflow = request.context_overflow or config.context_overflow
    return Preparation(
        sanitize=how.sanitize_input,
        redact=how.strip_sensitive_data,
        restore=how.strip_sensitive_data and how.restore_redacted,
        enforce_tokens=how.enforce_token_limits,
        truncate=how.auto_truncate,
        drop_turns=overflow is not ContextOverflow.REFUSE,
        schema=_schema(request, how),
    )


def _schema(request: GeminiRequest, how: PreprocessConfig) -> Mapping[str, object] | None:
    if not how.validate_json_schema:
        return None
    if request.response_schema is not None:
        return request.response_schema
    return {} if request.response_mime_type == _JSON else None  # any JSON will do


def _fallbacks(request: GeminiRequest, config: BackendConfig) -> tuple[FallbackStrategy, ...]:
    """The request's own strategies, else the backend's. Raises `InvalidCallError`."""
    given: object = config.fallback if request.fallback is None else request.fallback
    if isinstance(given, list | tuple) and all(isinstance(one, FallbackStrategy) for one in given):
        return tuple(given)
    raise InvalidCallError("fallback takes a list of FallbackStrategy, such as FailFast().")


def _options(request: GeminiRequest, system: str | None) -> dict[str, object]:
    options: dict[str, object] = {
        "temperature": request.temperature,
        "max_output_tokens": request.max_output_tokens,
        "top_k": request.top_k,
        "top_p": request.top_p,
        "stop_sequences": None if request.stop_sequences is None else list(request.stop_sequences),
        "system_instruction": request.system_instruction or system,
        "response_mime_type": request.response_mime_type,
        "tools": None if request.tools is None else list(request.tools),
        "tool_config": request.tool_config,
    }
    if request.response_schema is not None:
        google = _googles_dialect(request.response_schema)
        options["response_schema" if google else "response_json_schema"] = request.response_schema
        options["response_mime_type"] = request.response_mime_type or _JSON
    return {name: value for name, value in options.items() if value is not None}


def _googles_dialect(schema: Mapping[str, object]) -> bool:
    """Google's own schemas write types in capitals and know `nullable`; JSON Schema does neither."""
    kind = schema.get("type")
    return (isinstance(kind, str) and kind.isupper()) or "nullable" in schema


# ── checks ──────────────────────────────────────────────────────────────────────────────────────


def _check(request: GeminiRequest) -> None:
    _text("model", request.model)
    if not isinstance(request.prompt, str):
        raise InvalidCallError(f"prompt takes text; got {type(request.prompt).__name__}.")
    said = request.prompt.strip() or request.images or request.files or request.function_results
    if not said:
        raise InvalidCallError("The prompt is empty: pass some text, or an image or file.")
    for name in ("prompt", "system_instruction"):
        _encodable(name, getattr(request, name))
    _number("temperature", request.temperature, 0.0, 2.0)
    _number("top_p", request.top_p, 0.0, 1.0)
    _whole("top_k", request.top_k)
    _whole("max_output_tokens", request.max_output_tokens)
    _stops(request.stop_sequences)
    for name in ("response_schema", "tool_config"):
        value = getattr(request, name)
        if value is not None and not isinstance(value, Mapping):
            raise InvalidCallError(f"{name} takes an object; got {type(value).__name__}.")
    if request.response_schema is not None and request.response_mime_type not in (None, _JSON):
        raise InvalidCallError(
            f"response_schema needs response_mime_type {_JSON}; got {request.response_mime_type!r}."
        )
    tools = request.tools or ()
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, Mapping) for tool in tools):
        raise InvalidCallError("tools takes a list of objects, as the API defines them.")


def results_of(request: GeminiRequest) -> tuple[Turn, ...]:
    """The turn that brings results of functions, if the request has any. Raises `InvalidCallError`."""
    parts: list[Mapping[str, object]] = []
    given: Sequence[object] = request.function_results or ()
    for result in given:
        if not isinstance(result, FunctionResult) or not isinstance(result.response, Mapping):
            raise InvalidCallError(
                "function_results takes a list of FunctionResult, each with an object as its response."
            )
        answer: dict[str, object] = {"name": result.name, "response": result.response}
        if result.id is not None:
            answer["id"] = result.id
        parts.append({"functionResponse": answer})
    return (Turn(Role.USER, tuple(parts)),) if parts else ()


def _text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise InvalidCallError(f"{name} takes a text that is not empty.")


def _encodable(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        raise InvalidCallError(f"{name} takes text; got {type(value).__name__}.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidCallError(
            f"{name} holds half a surrogate pair, which is no character: decode its source with "
            "errors='replace'."
        ) from None


def _number(name: str, value: object, least: float, most: float) -> None:
    if value is None:
        return
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not least <= float(value) <= most:  # type: ignore[arg-type]
        raise InvalidCallError(f"{name} takes a number from {least:g} to {most:g}; got {value!r:.80}.")


def _whole(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidCallError(f"{name} takes a whole number, 1 or more; got {value!r:.80}.")


def _stops(value: object) -> None:
    if value is None:
        return
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidCallError("stop_sequences takes a list of texts.")
    if len(value) > _MOST_STOPS or not all(isinstance(stop, str) and stop for stop in value):
        raise InvalidCallError(f"stop_sequences takes up to {_MOST_STOPS} texts that are not empty.")


# ── requests of a fixed form ────────────────────────────────────────────────────────────────────


def process_request(
    prompt: str,
    model: str,
    card: ModelMetadata | None,
    *,
    session_id: str | None = None,
    stream: bool = False,
) -> GeminiRequest:
    """The request of S3-09: fixed parameters, as far as the model takes them."""
    can = None if card is None else card.capabilities
    taken = {
        name: value
        for name, value in _PROCESS.items()
        if can is None or getattr(can, SWITCHED[name]) is not False
    }
    most = None if can is None else can.max_output_tokens
    tokens = _PROCESS_TOKENS if most is None else min(most, _PROCESS_TOKENS)
    return GeminiRequest(
        prompt, model, session_id=session_id, stream=stream, max_output_tokens=tokens,
        temperature=taken.get("temperature"), top_p=taken.get("top_p"),
        top_k=None if "top_k" not in taken else int(taken["top_k"]),
    )  # fmt: skip


def code_request(
    prompt: str,
    model: str,
    project_path: str,
    *,
    temperature: float | None = None,
    max_output_tokens: int | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_sequences: Sequence[str] | None = None,
    system_instruction: str | None = None,
) -> GeminiRequest:
    """The request of S3-10. The path must exist; nothing in it is read. Raises `InvalidCallError`."""
    _text("prompt", prompt)
    _text("model", model)
    _text("project_path", project_path)
    if "\0" in project_path or not Path(project_path).exists():
        raise InvalidCallError(f"project_path {project_path[:200]!r} does not exist.")
    return GeminiRequest(
        prompt, model, temperature=temperature, max_output_tokens=max_output_tokens, top_k=top_k,
        top_p=top_p, stop_sequences=stop_sequences, system_instruction=system_instruction,
        timeout_seconds=CODE_SECONDS,
    )  # fmt: skip
