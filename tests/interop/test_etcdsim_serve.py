"""`etcdsim serve` as etcd's own command-line client sees it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.conftest import VERSIONS, etcd_binary
from tests.interop.etcdsim_server import EtcdsimServer

pytestmark = pytest.mark.interop

START_S_MAX = 0.5
TIMEOUT_S = 20


class Etcdctl:
    """Commands to one server; each returns its stdout, or raises with its stderr."""

    def __init__(self, binary: Path, endpoint: str) -> None:
        self._command = [str(binary), f"--endpoints=http://{endpoint}"]

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        return subprocess.run(
            [*self._command, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=True,
            timeout=TIMEOUT_S,
            env={"ETCDCTL_API": "3"},
        ).stdout

    def refused(self, *arguments: str) -> str:
        """What it says when the server refuses."""
        with pytest.raises(subprocess.CalledProcessError) as caught:
            self(*arguments)
        return str(caught.value.stderr)


@pytest.fixture(params=VERSIONS)
def etcdctl(request: pytest.FixtureRequest) -> Iterator[Etcdctl]:
    """The client of each version, on a fresh simulation."""
    binary = etcd_binary(request.param).with_name("etcdctl")
    with EtcdsimServer() as server:
        yield Etcdctl(binary, server.endpoint)


def test_keys(etcdctl: Etcdctl) -> None:
    assert etcdctl("put", "a", "1") == "OK\n"
    assert etcdctl("put", "--prev-kv", "a", "2") == "OK\na\n1\n"
    assert etcdctl("put", "ab", "3") == "OK\n"
    assert etcdctl("get", "a") == "a\n2\n"
    assert etcdctl("get", "--prefix", "a") == "a\n2\nab\n3\n"
    assert etcdctl("get", "--rev=2", "a") == "a\n1\n"
    assert etcdctl("get", "--prefix", "--keys-only", "a") == "a\n\nab\n\n"
    assert etcdctl("get", "--prefix", "--order=DESCEND", "--sort-by=KEY", "a") == "ab\n3\na\n2\n"
    assert etcdctl("put", "--ignore-value", "a") == "OK\n"
    found = json.loads(etcdctl("get", "a", "-w", "json"))
    assert (found["count"], found["kvs"][0]["version"]) == (1, 3)
    assert etcdctl("del", "--prefix", "--prev-kv", "a") == "2\na\n2\nab\n3\n"
    assert etcdctl("get", "--prefix", "a") == ""


def test_transactions_and_compaction(etcdctl: Etcdctl) -> None:
    etcdctl("put", "a", "1")
    script = 'value("a") = "1"\n\nput a 2\nget a\n\nput b 1\n\n'
    assert etcdctl("txn", stdin=script) == "SUCCESS\n\nOK\n\na\n2\n"
    assert etcdctl("txn", stdin=script) == "FAILURE\n\nOK\n"
    assert etcdctl("compaction", "3") == "compacted revision 3\n"
    assert "required revision has been compacted" in etcdctl.refused("compaction", "3")
    assert "required revision has been compacted" in etcdctl.refused("get", "--rev=2", "a")
    assert "required revision is a future revision" in etcdctl.refused("get", "--rev=9", "a")


def test_maintenance(etcdctl: Etcdctl, tmp_path: Path) -> None:
    [status] = json.loads(etcdctl("endpoint", "status", "-w", "json"))
    assert status["Status"]["version"] == "3.5.30"
    [hashed] = json.loads(etcdctl("endpoint", "hashkv", "-w", "json"))
    assert hashed["HashKV"]["hash"]
    members = json.loads(etcdctl("member", "list", "-w", "json"))["members"]
    assert [member["name"] for member in members] == ["default"]
    assert etcdctl("alarm", "list") == ""
    assert "Finished defragmenting" in etcdctl("defrag")
    saved = tmp_path / "snapshot.db"
    etcdctl("snapshot", "save", str(saved))
    assert saved.stat().st_size % 512 == 32  # a digest behind whole sectors
    assert "requested lease not found" in etcdctl.refused("lease", "revoke", "1234")
    assert "member not found" in etcdctl.refused("member", "remove", "1234").lower()
    assert "root user does not exist" in etcdctl.refused("auth", "enable")


def test_leases_and_locks(etcdctl: Etcdctl) -> None:
    granted = json.loads(etcdctl("lease", "grant", "100", "-w", "json"))
    lease = f"{granted['ID']:x}"
    etcdctl("put", f"--lease={lease}", "held", "1")
    assert "granted with TTL(100s)" in etcdctl("lease", "timetolive", lease)
    assert "[held]" in etcdctl("lease", "timetolive", "--keys", lease)
    assert lease in etcdctl("lease", "list")
    assert f"lease {lease} revoked" in etcdctl("lease", "revoke", lease)
    assert etcdctl("get", "held") == ""


def test_the_process() -> None:
    before = time.monotonic()
    with EtcdsimServer("--profile=churn", "--seed=3", "--objects=20", "--writes=50") as server:
        started_s = time.monotonic() - before
        assert server.stop() == 0
    # The promise is half a second; a machine that runs other tests may take its time.
    assert started_s < 4 * START_S_MAX
