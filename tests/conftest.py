"""Every coroutine test runs in virtual time; no key may appear in what a test leaves behind."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from headgate.core.errors import HeadgateError
from headgate.testing import VirtualClock

# The same examples in every run, so that main is green or red for a reason; a loaded machine is none.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

CANARY = "CANARY"
"""Part of every credential the tests use: found anywhere it does not belong, the test fails."""


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests on the test's own virtual clock."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    clock = pyfuncitem.funcargs.get("clock") or VirtualClock()
    clock.run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture
def clock() -> VirtualClock:
    """The virtual clock this test's loop runs on."""
    return VirtualClock()


_OURS = ("ANTHROPIC_", "CODEGEN_", "GEMINI_", "GOOGLE_", "HEADGATE_", "OPENAI_", "OTEL_")
"""Beginnings of the variables that are read somewhere."""


@pytest.fixture(autouse=True)
def no_settings_of_the_developer(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What stands in the environment of whoever runs the tests must not decide them."""
    # A backend keeps its usage ledger in its user's state folder: never in that of the developer.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
    monkeypatch.delenv("ENVIRONMENT", raising=False)
    for name in list(os.environ):  # noqa: TID251 - to clear it
        if name.startswith(_OURS):
            monkeypatch.delenv(name)


class _Sink(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.leaks: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if CANARY in self.format(record):  # the format includes tracebacks
            self.leaks.append(record.name)


@pytest.fixture(autouse=True)
def no_key_in_logs() -> Iterator[None]:
    """Fail a test in which any logger, ours or a library's, wrote a canary key."""
    sink, root = _Sink(), logging.getLogger()
    level = root.level
    root.addHandler(sink)
    root.setLevel(logging.DEBUG)
    yield
    root.removeHandler(sink)
    root.setLevel(level)
    assert not sink.leaks, f"a key was logged by {sink.leaks}"


@pytest.fixture(autouse=True)
def no_key_in_errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in which any error of ours, raised or not, was given a canary key to say."""
    leaks: list[str] = []
    made = HeadgateError.__init__

    def noted(self: HeadgateError, message: str, **details: Any) -> None:
        if CANARY in message:
            leaks.append(type(self).__name__)
        made(self, message, **details)

    monkeypatch.setattr(HeadgateError, "__init__", noted)
    yield
    assert not leaks, f"a key stands in {leaks}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Fail a passing test whose captured output holds a canary key."""
    report = yield
    if report.when == "teardown" and report.passed:
        shown = "".join(text for _, text in report.sections)
        if CANARY in shown:
            report.outcome = "failed"
            report.longrepr = "a key was printed: see the captured output of this test"
    return report
