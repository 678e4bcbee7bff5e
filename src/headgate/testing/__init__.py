"""What Headgate is tested with, and you can test with: a clock that jumps, scripted upstreams."""

from headgate.testing.clock import VirtualClock
from headgate.testing.transport import BROKEN, Answer, Broken, ScriptedTransport, Sent

__all__ = ["BROKEN", "Answer", "Broken", "ScriptedTransport", "Sent", "VirtualClock"]
