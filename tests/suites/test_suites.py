"""What judges the suites finds a difference."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("grpc")

from tests.suites.__main__ import compare, outcomes

REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_kv" name="test_put"/>
<testcase classname="tests.test_kv" name="test_put"><error/></testcase>
<testcase classname="tests.test_kv" name="test_get"><failure/></testcase>
<testcase classname="tests.test_lock" name="test_lock"/>
</testsuite></testsuites>"""


def test_how_each_test_ended(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    assert outcomes(tmp_path / "report.xml") == {
        "test_kv.test_put": "error",  # of a fixture, behind it
        "test_kv.test_get": "failure",
        "test_lock.test_lock": "passed",
    }


@pytest.mark.parametrize(
    ("suite", "name", "real", "simulated", "fails"),
    [
        ("aetcd", "test_kv.test_put", "passed", "passed", False),
        ("aetcd", "test_kv.test_put", "passed", "failure", True),
        ("aetcd", "test_kv.test_put", "failure", "passed", True),
        ("aetcd", "test_kv.test_put", "failure", "failure", False),
        ("aetcd", "test_kv.test_put", "passed", "skipped", True),
        ("aetcd", "test_maintenance.test_snapshot", "passed", "error", False),
        ("aetcd", "test_maintenance.test_snapshot", "error", "passed", True),
        ("etcetra", "test_maintenance.test_snapshot", "passed", "error", True),
    ],
)
def test_a_difference(suite: str, name: str, real: str, simulated: str, fails: bool) -> None:
    assert compare(suite, {name: real}, {name: simulated}) is fails


def test_a_test_that_did_not_run_is_a_difference() -> None:
    assert compare("aetcd", {"test_kv.test_put": "passed"}, {})
    assert compare("aetcd", {}, {})
