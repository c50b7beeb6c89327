"""The `etcdsim` command: output, exit codes, and one line for every mistake."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from etcdsim.cli import main

SMALL = ["record", "--profile", "churn", "--objects", "10", "--writes", "30", "--seed", "0x5"]


def test_record_to_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace"
    assert main([*SMALL, "--output", str(path), "--fault", "drop=0.1", "--fault", "split=1"]) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert f"sha256={sha256(path.read_bytes()).hexdigest()}\n" in err
    assert "profile=churn seed=5 objects=10 writes=" in err
    assert "drop=" in err
    assert path.read_bytes().startswith(b'{"type":"header","format":1,"profile":"churn","seed":5,')


def test_record_to_stdout_as_a_module() -> None:
    command = [sys.executable, "-m", "etcdsim", *SMALL]
    done = subprocess.run(command, capture_output=True, check=True)
    assert sha256(done.stdout).hexdigest().encode() in done.stderr
    assert done.stdout.endswith(b'"injected":{}}\n')


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["record", "--profile", "nomad"], "unknown profile 'nomad': known profiles are kubern"),
        (["record", "--fault", "lag=1"], "unknown fault 'lag': known faults are drop, "),
        (["record", "--fault", "drop"], "fault drop: expected drop=RATE"),
        (["record", "--fault", "drop=x"], "fault drop: the rate is not a number: 'x'"),
        (["record", "--fault", "drop=2"], "fault drop: the rate must be from 0 to 1, not 2.0"),
        (["record", "--fault", "drop=1", "--fault", "drop=1"], "fault drop is given twice"),
        (["record", "--writes", "-1"], "argument --writes: must not be negative: -1"),
        (["record", "--objects", "0"], "a run needs at least 1 object: 0"),
        (["record", "--seed", "x"], "argument --seed: not an integer: 'x'"),
        (["record", "--seed", str(1 << 64)], "a seed is between"),
        (["record", "--output", "/nowhere/x"], "can't write /nowhere/x: No such file"),
        (["record", "--nope"], "unrecognized arguments: --nope"),
        (["erase"], "invalid choice: 'erase'"),
        ([], "COMMAND"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("etcdsim: ")
    assert err.count("\n") == 1
    assert message in err


def test_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "--help"]) == 0
    out, _ = capfd.readouterr()
    for flag in ("--profile", "--seed", "--objects", "--writes", "--fault", "--output"):
        assert flag in out
