"""Options and fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.scratch import scratch as scratch_directory


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips", action="store_true", help="a skipped test is a failure: the continuous integration uses this"
    )
    parser.addoption(
        "--measure",
        action="store_true",
        help="write the tables of docs/interoperability.md (tests/interop/test_matrix.py)",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if item.config.getoption("--no-skips") and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and --no-skips counts that as a failure: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = yield
    if collector.config.getoption("--no-skips") and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped, and --no-skips counts that as a failure: {report.longrepr}"
    return report


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A short, world-searchable directory: for sockets and for what runs as another user."""
    with scratch_directory() as directory:
        yield directory
