"""The Gemini door: a client that rotates keys, waits only where it helps, and says what it did.

    client = ResilientGeminiClient()                    # keys from GEMINI_API_KEYS
    text = await client.generate_content("Why is the sky blue?")

The tutorial is docs/tutorial/first-answer.md, the reference docs/reference/gemini.md.
"""

from headgate.core.call import Blob, Chunk, Usage
from headgate.gemini.client import GeminiReply, ResilientGeminiClient
from headgate.gemini.errors import (
    AllKeysExhaustedError,
    GeminiAPICallError,
    GeminiKeyRotationError,
    InvalidKeyConfigError,
    NoValidKeysError,
    QuotaExceededError,
)
from headgate.gemini.keys import ApiKeyConfig, ApiKeyMetrics, GeminiKeyManager, KeyStatus

__all__ = [
    "AllKeysExhaustedError",
    "ApiKeyConfig",
    "ApiKeyMetrics",
    "Blob",
    "Chunk",
    "GeminiAPICallError",
    "GeminiKeyManager",
    "GeminiKeyRotationError",
    "GeminiReply",
    "InvalidKeyConfigError",
    "KeyStatus",
    "NoValidKeysError",
    "QuotaExceededError",
    "ResilientGeminiClient",
    "Usage",
]
