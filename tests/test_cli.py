"""The `btreecache` command: exit codes, one line of error, the JSON report."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from btreecache import FeedFault
from btreecache.cli import main, report
from btreecache.cli.arguments import duration_s
from btreecache.consistency import Difference, Round

SMALL = ["check", "--sim", "churn", "--objects", "50", "--writes", "100"]


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    try:
        code = main(argv)
    except SystemExit as ended:
        code = int(ended.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, Any]]:
    code, out, _ = run(capsys, *argv, "--output", "json")
    assert out.count("\n") == 1
    return code, json.loads(out)


def test_the_json_report_has_every_promised_field(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = run_json(capsys, *SMALL)
    assert code == 0
    assert set(found) >= {
        "verdict", "rounds", "revisions_checked", "keys_compared", "bytes_read", "duration_s",
        "differences", "differences_total", "feed_faults", "faults_injected", "not_checkable",
        "source", "seed",
    }  # fmt: skip
    assert (found["verdict"], found["revisions_checked"], found["seed"]) == ("consistent", 101, 0)
    assert found["source"] == "simulated churn"
    assert found["bytes_read"] > 0
    assert len(found["rounds"]) == 1


def test_a_seed_is_a_reproduction(capsys: pytest.CaptureFixture[str]) -> None:
    def once(seed: str) -> dict[str, Any]:
        _, found = run_json(capsys, *SMALL, "--fault", "drop=0.05", "--seed", seed)
        del found["duration_s"], found["rounds"]
        return found

    assert once("1") == once("1")
    assert once("1") != once("2")


@pytest.mark.parametrize("mode", ["keys", "values"])
@pytest.mark.parametrize("prefix", ["", "/registry/churn/group-01", "nothing/here", "\udcff"])
@pytest.mark.parametrize("revisions", ["latest", "7", "all"])
def test_modes_prefixes_and_revisions(
    capsys: pytest.CaptureFixture[str], mode: str, prefix: str, revisions: str
) -> None:
    code, found = run_json(
        capsys, *SMALL, "--mode", mode, "--prefix", prefix, "--revisions", revisions
    )
    assert (code, found["verdict"]) == (0, "consistent"), found
    if prefix in ("", "/registry/churn/group-01") or revisions == "latest":
        assert found["revisions_checked"] >= {"latest": 1, "7": 2, "all": 5}[revisions]


def test_a_fault_is_named_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = run_json(capsys, *SMALL, "--fault", "duplicate=0.01")
    assert (code, found["verdict"]) == (1, "inconsistent")
    assert found["faults_injected"]["duplicate"] >= 1
    assert found["feed_faults"][0]["kind"] == "revision_repeated"
    assert found["feed_faults_total"] >= 1


def test_several_rounds_go_on_with_the_history(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = run_json(capsys, *SMALL, "--for", "300ms", "--interval", "100ms")
    assert code == 0
    assert len(found["rounds"]) >= 2
    revisions = [one["revision"] for one in found["rounds"]]
    assert revisions == sorted(set(revisions))
    assert revisions[1] - revisions[0] == 100


def test_text_ends_with_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *SMALL, "--fault", "reorder=0.1")
    assert code == 1
    assert out.splitlines()[-1].split() == ["verdict", "inconsistent"]
    assert "feed fault: revision_went_back at revision" in out
    assert err == ""


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["chekc"],
        ["check", "--sim", "nonsense"],
        ["check", "--fault", "nonsense=0.1"],
        ["check", "--fault", "drop"],
        ["check", "--fault", "drop="],
        ["check", "--fault", "drop=x"],
        ["check", "--fault", "drop=1.5"],
        ["check", "--fault", "drop=-0.1"],
        ["check", "--fault", "drop=nan"],
        ["check", "--fault", "drop=0.1", "--fault", "drop=0.1"],
        ["check", "--for", "10"],
        ["check", "--for", "s"],
        ["check", "--for", "0s"],
        ["check", "--for", "-1s"],
        ["check", "--for", "1s2"],
        ["check", "--interval", "1w"],
        ["check", "--once", "--for", "1s"],
        ["check", "--revisions", "0"],
        ["check", "--revisions", "many"],
        ["check", "--objects", "0"],
        ["check", "--objects", "x"],
        ["check", "--writes", "-1"],
        ["check", "--seed", "-1"],
        ["check", "--mode", "both"],
        ["check", "--output", "xml"],
        ["check", "--sim", "churn", "--etcd", "127.0.0.1:2379"],
        ["check", "--etcd", "127.0.0.1"],
        ["check", "--etcd", "127.0.0.1:"],
        ["check", "--etcd", "127.0.0.1:0"],
        ["check", "--etcd", "127.0.0.1:65536"],
        ["check", "--etcd", ":2379"],
        ["check", "--etcd", "127.0.0.1:abc"],
        ["check", "--etcd", "ftp://127.0.0.1:2379"],
        ["check", "--etcd", "127.0.0.1:2379", "--objects", "5"],
        ["check", "--etcd", "127.0.0.1:2379", "--fault", "drop=0.1"],
        ["check", "--etcd", "127.0.0.1:2379,"],
        ["check", "--etcd", "127.0.0.1:2379", "--user", "root"],
        ["check", "--etcd", "127.0.0.1:2379", "--user", ":secret"],
        ["check", "--etcd", "127.0.0.1:2379", "--cacert", "/nonexistent"],
        ["check", "--etcd", "127.0.0.1:2379", "--cert", __file__],
        ["check", "--etcd", "127.0.0.1:2379", "--key", __file__],
        ["check", "--etcd", "http://127.0.0.1:2379", "--cacert", __file__],
        ["check", "--sim", "churn", "--user", "root:secret"],
        ["check", "--cacert", __file__],
        ["check", "--truth", "127.0.0.1:2379"],
    ],
)
def test_usage_errors_are_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("btreecache")


def test_an_unexpected_error_is_one_line_and_exits_3(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("btreecache.cli.simulation.Simulation.write", broken)
    code, out, err = run(capsys, *SMALL)
    assert (code, out, err) == (3, "", "btreecache: RuntimeError: two lines\n")
    with pytest.raises(RuntimeError):
        main([*SMALL, "--debug"])


def test_a_missing_extra_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    monkeypatch.delitem(sys.modules, "btreecache.sources.etcd", raising=False)
    code, _, err = run(capsys, "check", "--etcd", "127.0.0.1:2379")
    assert code == 3
    assert "pip install 'btreecache[etcd]'" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("answer", [None, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
@pytest.mark.parametrize("scheme", ["", "https://"])
def test_an_endpoint_that_is_no_etcd_exits_3_within_seconds(
    capsys: pytest.CaptureFixture[str], scheme: str, answer: bytes | None
) -> None:
    """Nobody listens; somebody listens and says nothing; somebody speaks something else."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    held: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                held.append(server.accept()[0])
                held[-1].sendall(answer or b"")

    serving = threading.Thread(target=serve)
    if answer is None:
        server.close()
    else:
        serving.start()
    started = time.monotonic()
    code, out, err = run(capsys, "check", "--etcd", f"{scheme}127.0.0.1:{port}")
    assert time.monotonic() - started < 6
    if answer is not None:
        server.shutdown(socket.SHUT_RDWR)
        serving.join()
    for one in [server, *held]:
        one.close()
    assert (code, out) == (3, "")
    assert err.count("\n") == 1
    assert f"127.0.0.1:{port}" in err


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("1.5s", 1.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("verdicts", "verdict", "code"),
    [
        (["consistent", "consistent"], "consistent", 0),
        (["consistent", "unknown", "consistent"], "unknown", 3),
        (["unknown", "inconsistent", "unknown"], "inconsistent", 1),
        ([], "unknown", 3),
    ],
)
def test_the_verdict_over_rounds(verdicts: list[str], verdict: str, code: int) -> None:
    found = report.Report("a source", 0)
    found.rounds = [(Round(verdict=one), 0.1) for one in verdicts]  # type: ignore[arg-type]
    assert (found.verdict, found.exit_code) == (verdict, code)
    assert report.as_text(found).endswith(verdict)


def test_junit_has_a_case_a_round_with_failures_and_errors() -> None:
    bad = Round(verdict="inconsistent", revision=7)
    bad.add(Difference(7, b"a\x00\x1b<&>\xff", "stale"))
    bad.feed_faults.append(FeedFault("version_gap", 7, 3, b"k", "key b'k': lost\x01 events"))
    bad.feed_faults_total = 1
    rounds = [Round(verdict="consistent"), bad, Round(verdict="unknown", reason="away \x08 <")]
    found = report.Report("a source", 0, [(one, 0.5) for one in rounds])
    suite = ElementTree.fromstring(report.as_junit(found))
    assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "3", "failures": "1", "errors": "1",
    }  # fmt: skip
    cases = suite.findall("testcase")
    assert [[part.tag for part in case] for case in cases] == [[], ["failure"], ["error"]]
    text = cases[1][0].text or ""
    assert "stale at revision 7" in text
    assert "version_gap at revision 7" in text


def test_junit_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *SMALL, "--fault", "duplicate=0.01", "--output", "junit")
    assert code == 1
    assert ElementTree.fromstring(out).get("failures") == "1"


def test_keys_that_are_not_text_are_base64() -> None:
    outcome = Round(verdict="inconsistent")
    for key in (b"plain", b"\xff\xfe", b""):
        outcome.add(Difference(5, key, "missing"))
    found = report.Report("a source", 0, [(outcome, 0.1)])
    keys = json.loads(report.as_json(found))["differences"]
    assert keys == [
        {"revision": 5, "key": "plain", "kind": "missing"},
        {"revision": 5, "key_base64": base64.b64encode(b"\xff\xfe").decode(), "kind": "missing"},
        {"revision": 5, "kind": "missing"},
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_the_verdict_so_far(number: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "btreecache", *SMALL, "--interval", "50ms", "--output", "json"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=environment
    ) as process:
        # Not before the command catches it, however slow the machine is today.
        status = Path(f"/proc/{process.pid}/status")
        while not int(re.findall(r"SigCgt:\s*(\w+)", status.read_text())[0], 16) >> 14 & 1:
            time.sleep(0.05)
        time.sleep(1.0)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert err == b""
    found = json.loads(out)
    assert found["verdict"] == "consistent"
    assert found["rounds"]


def test_debug_shows_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(logging.getLogger("btreecache").handlers)
    code, _, err = run(capsys, *SMALL, "--fault", "duplicate=0.01", "--debug")
    assert code == 1
    assert logging.getLogger("btreecache").handlers == before
    assert "revision_repeated" in err
