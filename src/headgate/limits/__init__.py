"""The limits door: token buckets for your own callers, in memory or shared through Redis or Valkey.

    limiter = RateLimiter(redis_client)      # or RateLimiter() for one process
    await limiter.check_rate_limit("user:17", max_requests=10, window_seconds=60)

The how-to is docs/how-to/limit-callers.md, the reference docs/reference/limits.md.
"""

from headgate.core.buckets import RateLimitExceeded
from headgate.core.errors import StoreError
from headgate.limits.identity import PeerAddress
from headgate.limits.limiter import Decision, Limit, RateLimiter, Remaining
from headgate.limits.middleware import RateLimitMiddleware

__all__ = [
    "Decision",
    "Limit",
    "PeerAddress",
    "RateLimitExceeded",
    "RateLimitMiddleware",
    "RateLimiter",
    "Remaining",
    "StoreError",
]
