"""`python -m bench.install`: what the benches compare against, in an environment of its own.

`.venv-bench` is ignored by git and made from `requirements/bench.txt`, exact versions with hashes, so
the lock of Headgate stays free of its rivals. Where it is missing, benches run without them and say so.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["ENVIRONMENT", "MISSING", "install", "interpreter"]

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".venv-bench"
LOCK = ROOT / "requirements" / "bench.txt"
MISSING = "**Rivals are missing**: `python -m bench.install` was not run for this lock, or failed."


def interpreter() -> Path | None:
    """The Python of that environment, if what the lock names is installed there."""
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / "lock"
    found = python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == _digest()
    return python if found else None


def install() -> int:
    """Make it and install what the lock names, unless it is there. Returns pip's exit status."""
    if interpreter() is not None:
        return 0
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(LOCK)]
    status = subprocess.run(command, check=False).returncode
    if status:
        print("pip failed: the benches run without rivals, and say so.", file=sys.stderr)
    else:
        (ENVIRONMENT / "lock").write_text(_digest(), encoding="utf-8")
    return status


def _digest() -> str:
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(install())
