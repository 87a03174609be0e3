"""A run says what it skipped and why; a skip that nobody expects fails it."""

import re
import signal

import hypothesis  # noqa: F401  # before a kernel in this process freezes the collector, which it looks into
import pytest

EXPECTED_SKIPS = (
    r"no PostgreSQL server is installed",
    r"PostgreSQL does not run as root",
    r"strace is not installed",
    r"no small file system can be mounted",
    r"no C\+\+ compiler",
    r"no GPU",
    r"Triton is made for Linux",
    r"no retail data",
)
"""What a machine may lack. The models are not among them: `make test` pulls them."""

UNEXPECTED_SKIP = 6
"""Exit status of a run that passed but for skips that should not be; pytest's own end at 5."""


def skip_reason(report: pytest.TestReport) -> str:
    """Return why a test was skipped."""
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)


def is_expected(reason: str) -> bool:
    """Whether a machine may lack what the test needed."""
    return any(re.search(pattern, reason) for pattern in EXPECTED_SKIPS)


class SkipJudge:
    """Collects the unexpected skips of a run."""

    def __init__(self) -> None:
        self.unexpected: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in a test's report, from a worker too."""
        if report.skipped and not hasattr(report, "wasxfail") and not is_expected(skip_reason(report)):
            self.unexpected.append(f"{report.nodeid}: {skip_reason(report)}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn a passed run with unexpected skips into a failed one."""
        if self.unexpected and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = UNEXPECTED_SKIP

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name them."""
        for line in self.unexpected:
            terminalreporter.write_line(f"unexpected skip: {line}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C reach what the tests start, and judge where the reports come together: not in the workers."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a run in the background inherits that, and passes it on
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipJudge(), "skip-judge")
