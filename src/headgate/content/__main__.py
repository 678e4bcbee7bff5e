"""`python -m headgate.content` is `headgate content serve` in fewer words: the same bounds of
connections, the same usage ledger, the same log.

The command is named and not imported: a door knows nothing of the command line, which knows it.
"""

from __future__ import annotations

import runpy
import sys

__all__ = ["main"]


def main() -> None:
    """Serve until a signal ends it."""
    sys.argv[1:1] = ["content", "serve"]
    runpy.run_module("headgate", run_name="__main__")


if __name__ == "__main__":
    main()
