"""Processes that archive, killed at random instants: 30 kills; by hand, `tests.archive_kill`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.interop

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("storage", "seeds"), [("file", "0:9"), ("zeo", "0:1")])
def test_nothing_durable_is_lost_by_a_kill(tmp_path: Path, storage: str, seeds: str) -> None:
    # A process of its own, as it forks.
    command = [sys.executable, "-m", "tests.archive_kill", "--storage", storage, "--seeds", seeds]
    ended = subprocess.run(
        [*command, "--out", str(tmp_path / "kills")], cwd=ROOT, env=os.environ, timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    first, last = map(int, seeds.split(":"))
    assert len((tmp_path / "kills").read_text().splitlines()) == last - first
