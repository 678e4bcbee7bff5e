"""`python -m bench.rivals.gateway.install`: the rivals, in environments of their own.

LiteLLM's proxy and TensorZero come from `requirements/rivals.txt` into `.venv-rivals` (1 GB), Portkey
from `portkey/package-lock.json`, both with hashes. What cannot be installed is missing from the bench,
which says so.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["install"]

ROOT = Path(__file__).parents[3]
_LOCK = ROOT / "requirements" / "rivals.txt"
_ENVIRONMENT = ROOT / ".venv-rivals"
_PORTKEY = Path(__file__).parent / "portkey"


def install() -> int:
    """Install both. Returns the first exit status that is not 0."""
    python = _ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(_ENVIRONMENT, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(_LOCK)]
    status = subprocess.run(pip, check=False).returncode
    npm = shutil.which("npm")
    if npm is None:
        print("npm is missing: the bench runs without Portkey.", file=sys.stderr)
        return status or 1
    words = [npm, "ci", "--silent", "--ignore-scripts", "--omit=dev"]
    return status or subprocess.run(words, cwd=_PORTKEY, check=False).returncode


if __name__ == "__main__":
    sys.exit(install())
