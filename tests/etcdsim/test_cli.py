"""The `etcdsim` command: output, exit codes, and one line for every mistake."""

from __future__ import annotations

import json
import socket
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
        (["record", "--for", "1s"], "--for is of a real etcd: it needs --etcd"),
        (["record", "--etcd", "a:1", "--for", "1"], "not a duration such as 500ms, 10s or 5m: '1'"),
        (["record", "--etcd", "a:1", "--writes", "5"], "--writes is of the simulator"),
        (["record", "--etcd", "nohost"], "--etcd: expected HOST:PORT, not 'nohost'"),
        (["record", "--etcd", "a:1", "--clients", "0"], "at least 1 client"),
        (["record", "--etcd", "a:1", "--profile", "churn"], "not allowed with argument --etcd"),
        (["validate"], "required: FILE"),
        (["validate", "/nowhere/x"], "can't read /nowhere/x: No such file"),
        (["replay", "/nowhere/x"], "can't read /nowhere/x: No such file"),
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


def test_what_is_recorded_is_valid_and_runs_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one, several = str(tmp_path / "one"), str(tmp_path / "several")
    assert main([*SMALL, "--output", one]) == 0
    assert main([*SMALL, "--clients", "2", "--output", several]) == 0
    capfd.readouterr()
    assert main(["validate", one, several]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    first, second = out.splitlines()
    assert first.startswith(f"{one}: valid watches=1 responses=")
    assert second.startswith(f"{several}: valid watches=12 responses=")
    assert main(["replay", one]) == main(["replay", several]) == 0
    assert capfd.readouterr().out == f"{one}: equal\n{several}: equal\n"


def test_a_broken_trace_is_named_and_a_changed_one_differs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace"
    assert main([*SMALL, "--clients", "2", "--fault", "drop=0.1", "--output", str(path)]) == 0
    capfd.readouterr()
    assert main(["validate", str(path)]) == 1
    line = capfd.readouterr().out.splitlines()[1]
    assert line.startswith(f"{path}: Reliable broken: watch 0 response ")
    assert main(["validate", "--output", "json", str(path)]) == 1
    done = json.loads(capfd.readouterr().out)
    assert (done["file"], done["verdict"]) == (str(path), "broken")
    verdict = done["verdicts"][3]
    assert (verdict["guarantee"], verdict["state"], verdict["watch"]) == ("Reliable", "broken", 0)
    assert main(["replay", str(path)]) == 0
    data = path.read_bytes().replace(b'"faults":["drop=0.1"]', b'"faults":[]')
    path.write_bytes(data)
    assert main(["replay", str(path)]) == 1
    assert "differs from line" in capfd.readouterr().out


def test_an_incomplete_truth_is_exit_code_3(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace"
    assert main([*SMALL, "--clients", "1", "--output", str(path)]) == 0
    first, _, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, *rest]))
    capfd.readouterr()
    assert main(["validate", str(path)]) == 3
    assert ": all guarantees unknown: the truth has no revision 2" in capfd.readouterr().out


def test_files_that_are_no_traces(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace"
    assert main([*SMALL, "--clients", "1", "--output", str(path)]) == 0
    cut = path.read_bytes()[:-30]
    for content in (b"", b"\xff\n", b"[]\n", b'"text"\n', cut, cut.rpartition(b"\n")[0] + b"\n"):
        path.write_bytes(content)
        for command in (["validate", str(path)], ["replay", str(path)]):
            capfd.readouterr()
            assert main(command) == 2
            out, err = capfd.readouterr()
            assert (out, err.count("\n")) == ("", 1)
            assert err.startswith(f"etcdsim: {path}: ")


def test_no_etcd_there_is_one_line(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.socket() as bound:  # a port that nobody listens on
        bound.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{bound.getsockname()[1]}"
        assert main(["record", "--etcd", endpoint, "--output", str(tmp_path / "x")]) == 3
    assert capfd.readouterr().err == f"etcdsim: no etcd answers at {endpoint}\n"


def test_without_grpcio_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    assert main(["record", "--etcd", "127.0.0.1:1", "--output", str(tmp_path / "x")]) == 3
    assert capfd.readouterr().err == (
        "etcdsim: traffic on an etcd needs grpcio: install btreecache[etcd]\n"
    )
