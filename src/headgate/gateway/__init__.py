"""The gateway: an ASGI application that unmodified SDKs talk to, over the engine.

`Gateway` runs under any ASGI server; `headgate.gateway.server` is ours, with the deadlines for slow
senders and readers and the orderly end that others lack. It needs the `serve` extra.
"""

from __future__ import annotations

from headgate.gateway.app import PUBLIC_PATHS, Gateway

__all__ = ["PUBLIC_PATHS", "Gateway"]
