"""A seed means the same on every Python: the same trace, byte for byte, under other interpreters.

BTREECACHE_OTHER_PYTHONS names them (paths, separated as in PATH); each must have BTrees installed.
Without it the test is skipped, but not in CI.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from etcdsim.faults import FAULTS
from etcdsim.traffic import PROFILES

ROOT = Path(__file__).parents[2]
VARIABLE = "BTREECACHE_OTHER_PYTHONS"


def trace_summary(python: str, profile: str) -> bytes:
    """The summary line, with the SHA-256 of a trace with every fault in it."""
    faults = [part for name in FAULTS for part in ("--fault", f"{name}=0.01")]
    run = ["record", "--profile", profile, "--seed", "11", "--objects", "300", "--writes", "600"]
    # Another hash seed, so that an order that came from a set or a hash would show.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "4711"}
    command = [python, "-m", "etcdsim", *run, *faults, "--output", os.devnull]
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    return done.stderr


def other_pythons() -> list[str]:
    pythons = [path for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path]
    if not pythons:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{VARIABLE} is not set: CI has to try another Python")
        pytest.skip(f"{VARIABLE} is not set")
    return pythons


@pytest.mark.parametrize("profile", PROFILES)
def test_the_trace_is_the_same_under_other_pythons(profile: str) -> None:
    others = other_pythons()
    here = trace_summary(sys.executable, profile)
    assert b"sha256=" in here
    for python in others:
        assert trace_summary(python, profile) == here, python
