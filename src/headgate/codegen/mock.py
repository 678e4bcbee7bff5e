"""`mock_responses`: the emulator's Codegen surface as a transport, in this process, without sockets.

The one place where a door asks another: the emulator is not part of a client, so it is only looked for
when a configuration asks for it.
"""

from __future__ import annotations

from headgate.core.ports import Clock, Transport

__all__ = ["mock_transport"]


def mock_transport(clock: Clock) -> Transport:
    """A transport that answers from an emulated organisation, whatever the token."""
    from headgate.emulator.codegen_transport import EmulatedCodegen  # noqa: PLC0415 - see above

    return EmulatedCodegen(clock)
