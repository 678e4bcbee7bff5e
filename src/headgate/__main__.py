"""`python -m headgate` is the same as `headgate`."""

from headgate.cli.main import run

run()
