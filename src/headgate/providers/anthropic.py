"""The Anthropic API's wire format, as far as the engine asks it: messages, whole and streamed.

Replies are read typed and tolerant: block types, fields and events that are not known here pass.
Anthropic counts what it read from and wrote to its cache beside the input; here they are part of the
prompt, as everywhere in Headgate. How a stream is read is in `anthropic_stream.py`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec

from headgate.core.call import Blob, Call, Chunk, Key, Operation, Part, Reply
from headgate.core.errors import InvalidCallError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Event, Request
from headgate.core.quota import Limit
from headgate.providers import anthropic_errors, anthropic_raw, anthropic_stream
from headgate.providers.anthropic_usage import WireUsage, as_usage
from headgate.providers.json_body import Media, json_body

__all__ = ["MESSAGE_OPTIONS", "NO_SAMPLING_FROM", "SAMPLING", "AnthropicProvider"]

MESSAGE_OPTIONS = (
    "max_tokens",
    "system",
    "tools",
    "tool_choice",
    "stop_sequences",
    "temperature",
    "top_p",
    "top_k",
    "thinking",
    "output_config",
    "metadata",
    "cache_control",
    "container",
    "context_management",
    "mcp_servers",
    "service_tier",
    "inference_geo",
    "speed",
)
"""Options that travel in the body, under their own names."""

_COUNT_OPTIONS = frozenset(
    ("betas", "cache_control", "output_config", "speed", "system", "thinking", "tool_choice", "tools")
)
"""Those of them that count_tokens takes, as in the anthropic SDK 2.11.0."""

SAMPLING = ("temperature", "top_p", "top_k")

NO_SAMPLING_FROM = "2026-10-21"
"""The version of the API from which sampling parameters are refused, even at their defaults."""


# What may be left out may also be null: proxies write it so.
class _Message(msgspec.Struct):
    type: str | None = None
    id: str | None = None
    model: str | None = None
    content: list[dict[str, Any]] | None = None
    stop_reason: str | None = None
    stop_details: Any = None
    usage: WireUsage | None = None
    error: msgspec.Raw | None = None


class _Count(msgspec.Struct):
    input_tokens: int


_DECODE_MESSAGE = msgspec.json.Decoder(_Message, strict=False)
_DECODE_COUNT = msgspec.json.Decoder(_Count, strict=False)


class AnthropicProvider:
    """Writes and reads the Anthropic API.

    Args:
        base_url: scheme and host, without a path.
        version: sent as `anthropic-version`.
    """

    name = "anthropic"

    def __init__(self, base_url: str, version: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._url = f"{self._base_url}/v1/messages"
        self._version = version

    # ── writing ─────────────────────────────────────────────────────────────────────────────────

    def write(self, call: Call, model: str) -> Request:
        """See `Provider.write`."""
        if call.raw is not None:
            return anthropic_raw.request(self._base_url, self._version, call, call.raw, model)
        if call.operation is Operation.EMBED:
            raise InvalidCallError("Claude makes no embeddings: ask another provider for them.")
        self._check_sampling(call)
        headers = {"content-type": "application/json", "anthropic-version": self._version}
        body = _body(call, model)
        if betas := body.pop("betas", None):
            headers["anthropic-beta"] = _betas(betas)
        counts = call.operation is Operation.COUNT
        return Request(
            "POST",
            f"{self._url}/count_tokens" if counts else self._url,
            headers,
            json_body(body),
            streaming=call.operation is Operation.STREAM,
        )

    def _check_sampling(self, call: Call) -> None:
        given = [name for name in SAMPLING if name in call.options]
        if call.operation is Operation.COUNT:
            return  # not sent
        if given and self._version >= NO_SAMPLING_FROM:  # dates in ISO form: text order is their order
            raise InvalidCallError(
                f"anthropic-version {self._version} takes no {', '.join(given)}, not even at the "
                f"default: leave out, or use a version before {NO_SAMPLING_FROM}."
            )

    def credential(self, key: Key) -> Mapping[str, str]:
        """See `Provider.credential`."""
        return {"x-api-key": key.value}

    # ── reading ─────────────────────────────────────────────────────────────────────────────────

    def read(self, call: Call, body: bytes) -> Reply | Outcome:
        """See `Provider.read`."""
        if call.raw is not None:
            return anthropic_raw.read(call, body)
        if call.operation is Operation.COUNT:
            return _counted(body)
        try:
            message = _DECODE_MESSAGE.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return anthropic_stream.no_answer(body)
        if message.error or message.type == "error" or message.content is None:
            return anthropic_stream.no_answer(body)
        usage = as_usage(message.usage)
        if (
            refused := anthropic_stream.refusal(message.stop_reason, message.stop_details, usage)
        ) is not None:
            return refused
        return Reply(
            text=_text(message.content),
            finish_reason=message.stop_reason,
            usage=usage,
            model=message.model or "",
            content=tuple(message.content),
            upstream_id=message.id or "",
        )

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """See `Provider.read_error`."""
        return anthropic_errors.classify(status, headers, body)

    def named_limits(self, headers: Mapping[str, str]) -> tuple[Limit, ...]:
        """See `Provider.named_limits`."""
        return anthropic_errors.named_limits(headers)

    def chunks(
        self, events: AsyncGenerator[Event], *, raw: bool = False
    ) -> AsyncGenerator[Chunk | Outcome]:
        """See `Provider.chunks`. A stream without `message_stop` was cut, however quietly it ended."""
        return anthropic_raw.chunks(events) if raw else self._chunks(events)

    async def _chunks(self, events: AsyncGenerator[Event]) -> AsyncGenerator[Chunk | Outcome]:
        reading = anthropic_stream.Reading()
        try:
            async for event in events:
                for item in reading.take(event):
                    yield item
                    if isinstance(item, Outcome):
                        return
        finally:
            await events.aclose()
        if not reading.stopped:
            what = "It ended without message_stop."
            yield Outcome(Kind.PROTOCOL, what, 200, usage=reading.usage)


def _counted(body: bytes) -> Reply | Outcome:
    try:
        count = _DECODE_COUNT.decode(body).input_tokens
    except (msgspec.DecodeError, UnicodeDecodeError):
        return anthropic_stream.no_answer(body)
    return Reply(tokens=max(0, count))


def _body(call: Call, model: str) -> dict[str, object]:
    options = dict(call.options)
    extra = options.pop("extra_body", None)
    if call.operation is Operation.COUNT:  # it takes what shapes the prompt, and refuses the rest
        options = {name: value for name, value in options.items() if name in _COUNT_OPTIONS}
    elif not options.get("max_tokens"):
        raise InvalidCallError("A message needs max_tokens: the longest answer, in tokens.")
    body: dict[str, object] = {"model": model, "messages": _messages(call), **options}
    if isinstance(extra, Mapping):
        body.update(extra)
    body.pop("stream", None)  # whether it streams is said by the call alone
    if call.operation is Operation.STREAM:
        body["stream"] = True
    return body


def _messages(call: Call) -> list[Mapping[str, object]]:
    if call.messages:
        return list(call.messages)
    if not call.parts:
        raise InvalidCallError("The prompt is empty: pass some text, or a list of messages.")
    if all(isinstance(part, str) for part in call.parts):
        return [
            {"role": "user", "content": "\n".join(part for part in call.parts if isinstance(part, str))}
        ]
    return [{"role": "user", "content": [_block(part) for part in call.parts]}]


def _block(part: Part) -> dict[str, object]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    source: dict[str, object] = {
        "type": "base64",
        "media_type": part.mime_type,
        "data": Media(part.data),
    }
    return {"type": _kind_of(part), "source": source}


def _kind_of(blob: Blob) -> str:
    if blob.mime_type.startswith("image/"):
        return "image"
    if blob.mime_type == "application/pdf":
        return "document"
    raise InvalidCallError(
        f"Claude takes images and PDF; {blob.mime_type} cannot be sent. Pass its text instead."
    )


def _betas(betas: object) -> str:
    names = (
        [betas] if isinstance(betas, str) else list(betas) if isinstance(betas, list | tuple) else []
    )
    if not names or not all(isinstance(n, str) and n.isascii() and n.isprintable() for n in names):
        raise InvalidCallError("betas takes the name of a beta feature, or a list of such names.")
    return ",".join(names)


def _text(content: list[dict[str, Any]]) -> str:
    texts = (block.get("text") for block in content if block.get("type") == "text")
    return "".join(text for text in texts if isinstance(text, str))
