"""Reading and judging request bodies, with the real API's complaints."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web

from headgate.emulator import schema, structure, tokens
from headgate.emulator.config import EmulatorConfig, Model
from headgate.emulator.errors import Refusal, Refused, bad_request, recorded, unknown_fields
from headgate.emulator.replies import response_schema, signature_is_ours

__all__ = ["body", "check_embed", "check_generate", "check_resources", "countable"]

_LARGEST = {"BatchEmbedContentsRequest": 4_194_304, "EmbedContentRequest": 4_194_304}
_LARGEST_OTHER = 20_971_520
_INLINE = 100 * 2**20  # documented for media inside of a call, 2026; base64 makes four bytes of three
_LARGEST |= dict.fromkeys(
    ("GenerateContentRequest", "CountTokensRequest"), _INLINE * 4 // 3 + _LARGEST_OTHER
)
_DUMMY_SIGNATURE = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
_FILE = re.compile(r"/files/([\w-]+)")


async def body(request: web.BaseRequest, message: str, *, strict: bool) -> dict[str, Any]:
    """The request's JSON with fields in lowerCamel. Raises `Refused`."""
    limit = _LARGEST.get(message, _LARGEST_OTHER)
    raw = bytearray()
    async for piece in request.content.iter_any():
        raw += piece
        if len(raw) > limit:
            text = f"Request payload size exceeds the limit: {limit} bytes."
            raise Refused(bad_request(text, "payload_size"))
    try:
        given = msgspec.json.decode(bytes(raw) or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = f"Invalid JSON payload received. {error}"
        raise Refused(unknown_fields([("", text)])) from None
    if not isinstance(given, dict):
        text = 'Invalid JSON payload received. Unknown name "": Root element must be a message.'
        raise Refused(unknown_fields([("", text)]))
    read, violations = schema.read(given, message)
    if violations and strict:
        raise Refused(unknown_fields(violations))
    return read


def check_generate(
    request: Mapping[str, Any], model: Model, config: EmulatorConfig, prompt: tokens.Tally
) -> None:
    """What generateContent refuses. Raises `Refused`."""
    contents = request.get("contents", [])
    if not contents:
        _invalid("* GenerateContentRequest.contents: contents is not specified\n")
    for index, content in enumerate(contents):
        if content.get("role", "user") not in ("user", "model", "function", ""):
            _invalid("Please use a valid role: user, model.")
        if not content.get("parts"):
            where = f"GenerateContentRequest.contents[{index}].parts"
            _invalid(f"* {where}: contents.parts must not be empty.\n")
    _check_modalities(request, model)
    _check_schemas(request)
    total = sum(prompt.values())
    if total > model.input_tokens:
        most = f"exceeds the maximum number of tokens allowed ({model.input_tokens})."
        raise Refused(bad_request(f"The input token count ({total}) {most}", "too_many_tokens"))
    if config.thought_signatures != "off" and model.generation >= 3:
        _check_signatures(contents, config)


def check_embed(items: Sequence[Mapping[str, Any]], model: Model, *, batch: bool) -> None:
    """What the embedding methods refuse. Raises `Refused`."""
    prefix = "BatchEmbedContentsRequest.requests" if batch else "EmbedContentRequest"
    if batch and len(items) > 100:
        _invalid(f"* {prefix}: at most 100 requests can be in one batch\n")
    if not items:
        _invalid(f"* {prefix}: requests is not specified\n")
    for index, item in enumerate(items):
        where = f"{prefix}[{index}]" if batch else prefix
        if batch and not item.get("model"):
            _invalid(f"* {where}.model: model is not specified\n")
        if not item.get("content", {}).get("parts"):
            _invalid(f"* {where}.content: content is not specified\n")
        wanted = dimensions(item)
        if wanted is not None and not 1 <= wanted <= model.dimensions:
            _invalid(f"* {where}.output_dimensionality: must be between 1 and {model.dimensions}\n")


def dimensions(item: Mapping[str, Any]) -> int | None:
    """The outputDimensionality of an embedding request, in either of its places."""
    nested = item.get("embedContentConfig", {}).get("outputDimensionality")
    wanted: int | None = item.get("outputDimensionality", nested)
    return wanted


def countable(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a countTokens request that is counted. Raises `Refused`."""
    nested: Mapping[str, Any] | None = request.get("generateContentRequest")
    if nested is not None and request.get("contents"):
        _invalid("Only one of contents and generate_content_request may be set.")
    counted = request if nested is None else nested
    if not counted.get("contents"):
        _invalid("* CountTokensRequest.contents: contents is not specified\n")
    return counted


def check_resources(request: Mapping[str, Any], see: Callable[[str], None]) -> None:
    """Whether the call may have what it names. There are no caches here, so whoever names one may not
    see it. Raises `Refused`.

    Args:
        see: raises it for a file that may not be named.
    """
    if request.get("cachedContent"):
        raise Refused(recorded("403-cached-content", {}, "resource"))
    for content in request.get("contents", []):
        for part in content.get("parts", []):
            file = _FILE.search(part.get("fileData", {}).get("fileUri", ""))
            if file is not None:
                see(f"files/{file[1]}")


def _check_modalities(request: Mapping[str, Any], model: Model) -> None:
    wanted = request.get("generationConfig", {}).get("responseModalities", [])
    possible = {"TEXT", "IMAGE"} if model.kind == "image" else {"TEXT"}
    if not set(wanted) <= possible:
        combination = ", ".join(wanted)
        _invalid(
            f"The requested combination of response modalities ({combination}) is not supported by "
            f"the model. models/{model.id} accepts the following combination of response modalities:\n"
            + "".join(f"* {name}\n" for name in sorted(possible, reverse=True))
        )


def _check_schemas(request: Mapping[str, Any]) -> None:
    """JSON schemas are free JSON to the message's own schema, so nobody has looked at them yet."""
    schemas = [response_schema(request.get("generationConfig", {}))]
    for tool in request.get("tools", []):
        for declaration in tool.get("functionDeclarations", []):
            schemas += [declaration.get("parametersJsonSchema"), declaration.get("parameters")]
    for wanted in schemas:
        if wanted is not None and not structure.is_usable(wanted):
            _invalid("The specified schema is not a valid JSON schema.")


def _check_signatures(contents: Sequence[Mapping[str, Any]], config: EmulatorConfig) -> None:
    """The first function call of every step of the current turn must bring its signature back."""
    for index in range(_turn_start(contents), len(contents)):
        if contents[index].get("role") != "model":
            continue
        calls = [part for part in contents[index].get("parts", []) if "functionCall" in part]
        if not calls:
            continue
        signature = calls[0].get("thoughtSignature")
        if not signature:
            name = calls[0]["functionCall"].get("name", "")
            raise Refused(_missing_signature(name, index + 1))
        forged = signature != _DUMMY_SIGNATURE and not signature_is_ours(signature, config.seed)
        if config.thought_signatures == "verified" and forged:
            raise Refused(bad_request("Thought signature is not valid.", "thought_signature"))


def _turn_start(contents: Sequence[Mapping[str, Any]]) -> int:
    """Index after the last message of the user that is no mere function result."""
    for index in range(len(contents) - 1, -1, -1):
        parts = contents[index].get("parts", [])
        by_user = contents[index].get("role", "user") in ("user", "")
        if by_user and any("functionResponse" not in part for part in parts):
            return index + 1
    return 0


def _missing_signature(name: str, position: int) -> Refusal:
    refusal = recorded("400-thought-signature", {}, "thought_signature")
    error = refusal.body["error"]
    text = error["message"].replace("default_api:X", f"default_api:{name}")
    error["message"] = text.replace("position 2", f"position {position}")
    return refusal


def _invalid(message: str) -> None:
    raise Refused(bad_request(message))
