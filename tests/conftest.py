"""For every test: the caches' self-checks are on, and in CI nothing is skipped.

A test that could not run in CI has failed: a skip there would be a hole that nobody sees.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

# Here and not in the Makefile alone: on however pytest is started. `=all` from outside stays.
os.environ.setdefault("BTREECACHE_VERIFY", "1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report
