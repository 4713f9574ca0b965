"""Every fault has a seed, a log and figures: shown when it fails, and as a report at the end of `make chaos`."""

from collections.abc import Iterator

import pytest

from tests.support.chaos import Chaos

_REPORTS = pytest.StashKey[list[str]]()


@pytest.fixture
def chaos(request: pytest.FixtureRequest) -> Iterator[Chaos]:
    """This test's fault, named by the first line of its docstring."""
    chaos = Chaos(f"{request.node.nodeid.rpartition('/')[2]}: {(request.function.__doc__ or '').splitlines()[0]}")
    yield chaos
    print(chaos.report())
    request.config.stash.setdefault(_REPORTS, []).append(chaos.report())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The report. With several test processes each has its own part of it, so there is none."""
    reports = config.stash.get(_REPORTS, [])
    if reports:
        terminalreporter.section("faults, figures and logs")
        for report in reports:
            terminalreporter.write_line(report)
