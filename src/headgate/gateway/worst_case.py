"""What a call may use at the most, so that a budget can hold the money for it.

Text is certain: a token is at least a byte of it. What a call only refers to – a file, an address, a
cache, what a tool of the provider reads – may fill the model's window, and so may a document or a
recording in the body; then that is what counts. What providers charge beside tokens, such as a fee for
each search, is in no price list here, and so in no budget.
"""

from __future__ import annotations

from headgate.core.call import Call, Operation, Raw
from headgate.core.tokens import Usage
from headgate.policy.estimate import LONGEST_OUTPUT

__all__ = ["LARGEST_WINDOW", "is_billed", "most_used"]

LARGEST_WINDOW = 2_097_152
"""Tokens of a prompt to a model whose window nobody knows: the largest of Google's models so far
(gemini-1.5-pro; Gemini API, models page, 2025)."""

_TOOLS_PROMPT = 1_000
"""Tokens that a provider may put before a prompt with tools: Anthropic's page on tool use names up to
some 800 (read 2026-11)."""

_ELSEWHERE = (
    b"fileUri", b"file_uri", b"fileData", b"file_data", b"file_id", b"cachedContent", b"cached_content",
    b"googleSearch", b"google_search", b"googleMaps", b"google_maps", b"fileSearch", b"file_search",
    b"urlContext", b"url_context", b"codeExecution", b"code_execution", b"web_search", b"web_fetch",
    b"mcp_servers", b'"container"', b"previous_response_id", b'"url"', b'"file"',
    b"audio/", b"video/", b"input_audio", b"application/",
    b"\\u004", b"\\u005", b"\\u006", b"\\u007",  # letters as escapes: only to hide one of these words
)  # fmt: skip
"""Words of bodies whose prompt may be larger than the body. That some text holds one by chance makes
the hold larger, and nothing else."""

_NO_DOCUMENT = b"application/json"
"""What answers are to be, not what a prompt has in it."""

_LARGE = 1024 * 1024
"""Bytes of a body from which it is not looked through: it takes longer than a call may hold up others,
and so much text fills most windows anyway."""


def is_billed(call: Call, raw: Raw) -> bool:
    """Whether a call costs anything: to list models or count tokens does not, to keep a cache does."""
    if not call.operation.is_free:
        return True
    return raw.method in ("POST", "PATCH") and raw.model.startswith("cachedContents")


def most_used(call: Call, raw: Raw, window: int | None, longest: int | None) -> Usage:
    """Tokens of one attempt at the most.

    Args:
        window: of the model's prompts, in tokens; None: nobody knows.
        longest: answer of the model, in tokens; None: nobody knows.
    """
    weight = raw.weight
    prompt = weight.ceiling
    if b'"tools"' in raw.body:
        prompt += _TOOLS_PROMPT
    if _refers(raw.body):
        prompt = max(prompt, window or LARGEST_WINDOW)
    output = 0
    if call.operation is not Operation.EMBED:
        output = weight.most_output or (longest or LONGEST_OUTPUT) * weight.answers
    # To write a cache costs more than to read the prompt, and the longer kind more than the other.
    written = prompt if b"cache_control" in raw.body else 0
    return Usage(prompt, output, cache_write=written, cache_write_long=written)


def _refers(body: bytes) -> bool:
    """Whether a prompt may be larger than its body."""
    if len(body) > _LARGE:
        return True
    if _NO_DOCUMENT in body:
        body = body.replace(_NO_DOCUMENT, b"")
    return any(word in body for word in _ELSEWHERE)
