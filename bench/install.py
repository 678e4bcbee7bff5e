"""The bench's own environment for contenders from packages: the lock of this repository stays clean."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["ENVIRONMENT", "install", "interpreter"]

ENVIRONMENT = Path(__file__).parents[2] / ".venv-bench"
WANTED = "litellm!=1.107.0"  # that release was reported as compromised


def interpreter() -> Path | None:
    """The Python of that environment, if it has what is wanted."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        return None
    probe = "import importlib.metadata as m; m.version('litellm')"
    found = subprocess.run([python, "-c", probe], check=False, capture_output=True)
    return python if found.returncode == 0 else None


def install(requirement: str = WANTED) -> int:
    """Make it and install the contenders. Returns pip's exit status."""
    if not (ENVIRONMENT / "bin" / "python").exists():
        venv.create(ENVIRONMENT, with_pip=True)
    python = str(ENVIRONMENT / "bin" / "python")
    command = [python, "-m", "pip", "install", "--quiet", requirement]
    status = subprocess.run(command, check=False).returncode
    if status:
        print("litellm could not be installed: `run` goes on without it, and says so.", file=sys.stderr)
    return status
