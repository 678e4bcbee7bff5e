"""What machines ask a gateway about itself: does it live, does it take calls. What it counts is shown
by `wiring/gateway_metrics.py`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headgate.gateway.worker_link import Crew
from headgate.wiring.gateway import Upstream

__all__ = ["live", "ready"]


def live() -> bytes:
    """The process answers: that alone, whatever it depends on."""
    return b'{"status":"live"}'


def ready(
    upstreams: Sequence[Upstream], *, draining: bool, crew: Crew | None = None
) -> tuple[int, bytes]:
    """Status and body: whether calls should come here. Keys that cool down come back, so one that was
    not refused for good is enough. Where there are several workers all must be there, for whoever asks
    one cannot know which of them its calls will come to."""
    words = {upstream.name: "ready" if upstream.usable else "no usable key" for upstream in upstreams}
    shown: dict[str, object] = {"upstreams": words}
    if crew is not None:
        shown["workers"] = {"ready": crew.ready, "of": crew.workers}
    good = any(upstream.usable for upstream in upstreams)
    status = "ready" if good else "no usable key"
    if crew is not None and not crew.whole:
        status, good = "starting", False
    if draining:
        status, good = "draining", False
    return 200 if good else 503, msgspec.json.encode({"status": status, **shown})
