"""The Claude door: calls over many keys and organisations, limits and accounts for them.

    client = ResilientClaudeClient()                    # keys from ANTHROPIC_API_KEYS
    text = await client.message_text("Why is the sky blue?")

    limiter = ClaudeRateLimiter(redis_client, max_rpm=10)
    await limiter.check_claude_limit("claude-3-opus")

The references are docs/reference/claude.md and docs/reference/limits.md.
"""

from headgate.claude.client import ClaudeReply, ResilientClaudeClient
from headgate.claude.errors import ClaudeCallError, ClaudeError, ClaudeQuotaError
from headgate.claude.limits import ClaudeRateLimiter
from headgate.core.call import Blob, Chunk, Usage

__all__ = [
    "Blob",
    "Chunk",
    "ClaudeCallError",
    "ClaudeError",
    "ClaudeQuotaError",
    "ClaudeRateLimiter",
    "ClaudeReply",
    "ResilientClaudeClient",
    "Usage",
]
