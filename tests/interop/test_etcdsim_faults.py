"""Faults of `etcdsim serve`: the check tells those that a client must survive from those that lose
data, and etcdctl gets the statuses of an etcd."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.interop.conftest import VERSIONS, etcd_binary
from tests.interop.etcd_server import Writer
from tests.interop.etcdsim_server import EtcdsimServer

pytestmark = pytest.mark.interop

KEYS = 40
TIMEOUT_S = 60

#: A fault, the rate that shows it within a second, and what the check must say. What the wire does
#: to a watcher it survives, what loses or alters data it names.
VERDICTS = [
    ("slow", 0.2, "consistent"),
    ("leader_change", 0.02, "consistent"),
    ("unavailable", 0.05, "consistent"),
    ("reset", 0.02, "consistent"),
    ("restart", 0.01, "consistent"),
    ("cancel", 0.05, "consistent"),
    ("delay", 0.2, "consistent"),
    ("late_progress", 0.5, "consistent"),
    ("compact_race", 0.01, "consistent"),
    ("stale", 0.5, "consistent"),
    ("etcd_20221", 0.05, "consistent"),  # EtcdSource takes no mark from below a watch's start
    ("drop", 0.05, "inconsistent"),
    ("reorder", 0.05, "inconsistent"),
    ("split", 0.05, "inconsistent"),
    ("duplicate", 0.05, "inconsistent"),
    ("corrupt_value", 0.05, "inconsistent"),
    ("corrupt_revision", 0.05, "inconsistent"),
    ("duplicate_revision", 0.05, "inconsistent"),
    ("early_progress", 0.05, "inconsistent"),
    ("restart_at_older_revision", 0.05, "inconsistent"),
    ("lost_delete_at_compaction", 0.05, "inconsistent"),
    ("etcd_15220", 0.5, "inconsistent"),
    ("etcd_15271", 0.05, "inconsistent"),
    ("etcd_17247", 0.05, "inconsistent"),
    ("etcd_17529", 0.05, "inconsistent"),
    ("etcd_18089", 0.05, "inconsistent"),
]


class Faulty(EtcdsimServer):
    """With an admin endpoint and the truth beside."""

    def __init__(self, *flags: str) -> None:
        super().__init__("--admin-listen=127.0.0.1:0", "--truth-listen=127.0.0.1:0", *flags)
        self.admin = self.truth = ""

    def __enter__(self) -> Faulty:
        super().__enter__()
        assert self._process is not None
        assert self._process.stdout is not None
        for word in ("ADMIN", "TRUTH"):
            said, _, endpoint = self._process.stdout.readline().strip().partition(" ")
            assert said == word
            setattr(self, word.lower(), endpoint)
        return self

    def ask(self, method: str, path: str, **rates: float) -> dict[str, dict[str, float]]:
        body = json.dumps(rates).encode() if rates else None
        request = Request(f"http://{self.admin}{path}", data=body, method=method)
        with urlopen(request, timeout=10) as answer:
            return dict(json.load(answer))


@contextmanager
def writes(endpoint: str) -> Iterator[None]:
    """Puts, deletes and transactions of several keys on the truth, until the end."""
    stop = threading.Event()

    def write() -> None:
        with Writer(endpoint) as writer:
            number = 0
            while not stop.is_set():
                number += 1
                first, second, third = (b"/k/%d" % (number * step % KEYS) for step in (1, 3, 7))
                changes: dict[bytes, Any] = {first: (first, b"%d" % number)}
                if number % 3 == 0:
                    changes[second] = second
                if number % 4 == 0:
                    changes[third] = (third, b"%d" % number)
                writer.txn([*changes.values()])
                # Now and then a pause, in which marks are sent.
                stop.wait(0.005 if number % 40 else 0.3)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def check(server: Faulty, *options: str) -> dict[str, Any]:
    """What `btreecache check` of the faulty endpoint says, compared with the truth."""
    command = [sys.executable, "-m", "btreecache", "check", "--etcd", server.endpoint]
    command += ["--truth", server.truth, "--mode", "values", "--output", "json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.stderr == ""
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize(("name", "rate", "verdict"), VERDICTS)
def test_the_check_tells_what_loses_data(name: str, rate: float, verdict: str) -> None:
    flags = (f"--fault={name}={rate}", "--seed=5", "--progress-notify-interval=100ms")
    with Faulty(*flags) as server, writes(server.truth):
        found = check(server, "--for=2s", "--interval=500ms", "--revisions=10")
        injected = server.ask("GET", "/faults")[name]["injected"]
    assert injected > 0
    assert found["verdict"] == verdict, (injected, found)
    if verdict == "consistent":
        assert found["feed_faults"] == found["differences"] == []
        assert found["revisions_checked"] > 0
    else:
        assert found["feed_faults"] or found["differences"]


@pytest.mark.parametrize("version", VERSIONS)
def test_etcdctl(version: str) -> None:
    binary = str(etcd_binary(version).with_name("etcdctl"))
    with Faulty() as server, Writer(server.truth) as truth:
        command = [binary, f"--endpoints=http://{server.endpoint}"]
        environment = {"ETCDCTL_API": "3"}

        def run(*arguments: str) -> tuple[int, str]:
            done = subprocess.run(
                [*command, *arguments],
                capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False,
            )  # fmt: skip
            return done.returncode, done.stdout + done.stderr

        server.ask("PUT", "/faults", unavailable=1.0)
        code, said = run("put", "k", "0")
        assert code != 0
        assert "Error: etcdserver: " in said
        server.ask("PUT", "/faults", reset=1.0)
        code, said = run("put", "k", "0")
        assert code != 0
        assert "code = Unavailable" in said
        server.ask("PUT", "/faults", drop=0.0)
        assert run("put", "k", "1") == (0, "OK\n")

        # Its watch goes on behind a reset and a restart, and ends with the leader it asks for.
        watching = subprocess.Popen(
            [*command, "watch", "k", "--rev=2"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        )  # fmt: skip
        try:
            assert watching.stdout is not None
            lines = iter(watching.stdout.readline, "")
            for number, path in enumerate(("/reset", "/restart", "/leader_change"), start=2):
                truth.put(b"k", b"value %d" % number)
                while next(lines) != f"value {number}\n":
                    pass
                server.ask("POST", path)
            assert "etcdserver: no leader" in watching.stdout.read()
        finally:
            watching.kill()
            watching.wait()
            assert watching.stdout is not None
            watching.stdout.close()
