"""A sample of `python -m tests.load`, which runs at full size by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.conftest import etcd_binary
from tests.load.__main__ import Plan, run

pytestmark = pytest.mark.interop

SAMPLE = Plan(
    watches=100, writes=100.0, walkers=10, lists=2, each=15, warmup_s=1.0, seconds=5.0, seed=1
)


def test_no_answer_is_wrong_under_load(data_dir: Path) -> None:
    found = run(SAMPLE, etcd_binary("3.5"), data_dir)
    assert found["wrong"] == []
    checked = found["checked"]
    assert checked["events"] > 100
    assert checked["lists"] > 2
    assert checked["chains"] > 2
