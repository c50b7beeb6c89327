"""Certificates, users and several endpoints, on real etcds, through the command line."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from btreecache import Cache, Follower
from btreecache.cli import main
from btreecache.sources.etcd import EtcdSource
from tests.interop.conftest import VERSIONS, etcd_binary
from tests.interop.etcd_server import EtcdServer, Writer, free_port
from tests.interop.test_check_etcd import finish, start_check

pytestmark = pytest.mark.interop


def openssl(*arguments: str, cwd: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root, a server and a client that it signed, and another root that signed nothing."""
    where = tmp_path_factory.mktemp("pki")
    for root in ("ca", "other"):
        openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={root}",
            "-keyout", f"{root}.key", "-out", f"{root}.pem", cwd=where,
        )  # fmt: skip
    (where / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
            "-keyout", f"{name}.key", "-out", f"{name}.csr", cwd=where,
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-extfile", "extensions", "-out", f"{name}.pem",
            cwd=where,
        )  # fmt: skip
    return where


@pytest.fixture(params=VERSIONS)
def secured(request: pytest.FixtureRequest, data_dir: Path, pki: Path) -> Iterator[EtcdServer]:
    """An etcd that speaks TLS and wants a certificate."""
    flags = [
        f"--cert-file={pki / 'server.pem'}",
        f"--key-file={pki / 'server.key'}",
        f"--trusted-ca-file={pki / 'ca.pem'}",
        "--client-cert-auth",
    ]
    with EtcdServer(etcd_binary(request.param), data_dir, *flags, scheme="https") as server:
        yield server


def check(endpoint: str, *options: str, capsys: Any) -> tuple[int, str, str]:
    code = main(["check", "--etcd", endpoint, "--output", "json", *options])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_certificates(secured: EtcdServer, pki: Path, capsys: Any) -> None:
    ours = ["--cert", f"{pki / 'client.pem'}", "--key", f"{pki / 'client.key'}"]
    trust = ["--cacert", f"{pki / 'ca.pem'}"]
    code, out, _ = check(secured.endpoint, *trust, *ours, capsys=capsys)
    assert (code, json.loads(out)["verdict"]) == (0, "consistent")
    for options in (trust, ours, ["--cacert", f"{pki / 'other.pem'}", *ours], []):
        code, out, err = check(secured.endpoint, *options, capsys=capsys)
        assert (code, out) == (3, ""), options
        assert err.count("\n") == 1


def etcdctl(server: EtcdServer, *arguments: str) -> None:
    binary = server._binary.with_name("etcdctl")
    subprocess.run(
        [str(binary), f"--endpoints={server.endpoint}", *arguments],
        env={"ETCDCTL_API": "3"}, check=True, capture_output=True, timeout=30,
    )  # fmt: skip


@pytest.fixture
def guarded(etcd: EtcdServer, writer: Writer) -> EtcdServer:
    """An etcd with auth enabled: root, and a reader who may read /registry/ only."""
    for number in range(50):
        writer.put(b"/registry/%d" % number, b"")
    for command in (
        ["user", "add", "root:secret"],
        ["user", "grant-role", "root", "root"],
        ["role", "add", "reader"],
        ["role", "grant-permission", "reader", "read", "/registry/", "/registry0"],
        ["user", "add", "reader:letmein"],
        ["user", "grant-role", "reader", "reader"],
        ["auth", "enable"],
    ):
        etcdctl(etcd, *command)
    return etcd


def test_a_user(guarded: EtcdServer, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = check(guarded.endpoint, "--user", "root:secret", capsys=capsys)
    assert (code, json.loads(out)["keys_compared"]) == (0, 50)
    monkeypatch.setenv("BTREECACHE_ETCD_PASSWORD", "secret")
    code, out, _ = check(guarded.endpoint, "--user", "root", capsys=capsys)
    assert code == 0
    for options in ([], ["--user", "root:wrong"], ["--user", "nobody:secret"]):
        code, out, err = check(guarded.endpoint, *options, capsys=capsys)
        assert (code, out) == (3, ""), options
        assert err.count("\n") == 1
        assert "secret" not in err


def test_a_forgotten_token_is_fetched_again(guarded: EtcdServer) -> None:
    """Simple tokens live in the server's memory: a restart forgets them."""
    from btreecache.sources.etcd_connection import Access

    source = EtcdSource(guarded.endpoint, access=Access(user=("root", "secret")))
    cache = Cache(b"/registry/")
    with Follower(source, cache):
        before = source.current_revision()
        assert cache.wait_until(lambda state: state.window is not None, 10)
        guarded.restart()
        assert source.current_revision() == before
        etcdctl(guarded, "--user=root:secret", "put", "/registry/new", "x")
        assert cache.wait_for(before + 1, timeout_s=15).get(b"/registry/new")
    source.close()


def test_a_dead_endpoint_before_a_live_one(etcd: EtcdServer, capsys: Any) -> None:
    code, out, _ = check(f"127.0.0.1:{free_port()},{etcd.endpoint}", capsys=capsys)
    assert (code, json.loads(out)["verdict"]) == (0, "consistent")


@pytest.fixture(params=VERSIONS)
def cluster(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[list[EtcdServer]]:
    """Three members of one cluster."""
    binary = etcd_binary(request.param)
    members = []
    for number in range(3):
        where = data_dir / f"m{number}"
        where.mkdir()
        members.append(EtcdServer(binary, where))
    peers = ",".join(
        f"m{number}=http://127.0.0.1:{member._ports[1]}" for number, member in enumerate(members)
    )
    for number, member in enumerate(members):
        # Of a flag that is given twice etcd takes the last.
        member._flags = (
            f"--name=m{number}",
            f"--initial-cluster={peers}",
            "--heartbeat-interval=50",
            "--election-timeout=500",
        )
    with ExitStack() as stack:
        for member in members:
            stack.callback(member.kill)
        starting = [threading.Thread(target=member.start) for member in members]
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
        yield members


def test_failover_while_members_of_a_cluster_come_and_go(cluster: list[EtcdServer]) -> None:
    """Each member in turn is killed and comes back, under writes, while the check goes on."""
    endpoints = ",".join(member.endpoint for member in cluster)
    stop = threading.Event()
    written = [0]

    def write() -> None:
        number = 0
        while not stop.is_set():
            with Writer(cluster[number % 3].endpoint) as writer:
                try:
                    for _ in range(20):
                        writer.txn([(b"/k/%d" % (number % 200), b"%d" % number), (b"/n", b"x")])
                        number += 1
                        written[0] += 1
                except Exception:  # the member is away
                    number += 1
            stop.wait(0.02)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        options = ["--for", "14s", "--interval", "2s", "--revisions", "5", "--mode", "values"]
        process = start_check(endpoints, *options)
        for member in cluster:
            time.sleep(2)
            member.kill()
            time.sleep(2)
            member.start()
        code, found = finish(process, timeout_s=90)
    finally:
        stop.set()
        thread.join()
    assert (code, found["verdict"]) == (0, "consistent"), found
    assert written[0] > 100
    assert found["revisions_checked"] > 10
