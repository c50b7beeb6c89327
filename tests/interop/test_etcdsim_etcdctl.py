"""etcdctl's commands on a real etcd and on etcdsim: the same output, ids and times aside."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.interop.conftest import VERSIONS, etcd_binary
from tests.interop.etcd_server import EtcdServer
from tests.interop.etcdsim_server import EtcdsimServer

pytestmark = pytest.mark.interop

TIMEOUT_S = 20
#: The emulated version of each release line.
EMULATED = {"3.4": "3.4.23", "3.5": "3.5.30"}
TXN = 'mod("a") > "0"\nvalue("a") = "1"\nversion("c") = "0"\n\nput a 2\nget a\ndel ab\n\nget a\n\n'
NEVER = "7fffffffffffff"

#: In this order on one store: a command and what it reads, `{lease}` the one granted last.
COMMANDS: Sequence[tuple[str, str]] = [
    ("put a 1", ""), ("put ab 3 --prev-kv", ""), ("put ab 4 --prev-kv", ""), ("put c", "5"),
    ("put nothing --ignore-value", ""), ("put a --ignore-value", ""),
    ("put a 1 --ignore-lease", ""),
    (f"put a 1 --lease={NEVER}", ""), ("put", ""),
    ("get a", ""), ("get a -w json", ""), ("get a -w fields", ""), ("get a -w simple", ""),
    ("get a c", ""), ("get a --from-key", ""), ("get a --prefix --limit=1 -w json", ""),
    ("get a --prefix --keys-only", ""), ("get a --prefix --sort-by=MODIFY --order=DESCEND", ""),
    ("get a --prefix --sort-by=VALUE --order=ASCEND", ""),
    ("get a --prefix --count-only -w fields", ""),
    ("get a --rev=2", ""), ("get a --rev=99", ""), ("get a --consistency=s", ""), ("get none", ""),
    ("get a --prefix --from-key", ""), ("get", ""),
    ("txn", TXN), ("txn", TXN), ("txn -w json", TXN),
    ("txn", "\nput a 1\nput a 2\n\n\n"), ("del none", ""), ("del a --prefix --prev-kv", ""),
    ("del c -w json", ""), ("put d 1", ""), ("put d 2", ""), ("del d --from-key", ""),
    ("endpoint hashkv", ""),
    ("compaction 4", ""), ("compaction 4", ""), ("compaction 99", ""), ("compaction", ""),
    ("compaction 8 --physical", ""), ("get a --rev=3", ""), ("watch a --rev=3", ""),
    ("lease grant 100", ""), ("put held 1 --lease={lease}", ""),
    ("lease list", ""),
    ("lease timetolive {lease} --keys", ""), ("lease keep-alive {lease} --once", ""),
    ("lease revoke {lease}", ""), ("get held", ""), ("lease revoke {lease}", ""),
    ("lease timetolive {lease}", ""), ("lease keep-alive {lease} --once", ""),
    ("lease grant 0", ""),
    ("lease grant x", ""), ("lease list -w json", ""),
    ("lock mutex echo locked", ""), ("get mutex --prefix", ""),
    ("endpoint health", ""), ("endpoint status -w simple", ""),
    ("member list", ""), ("member list -w json", ""), ("move-leader 1", ""), ("alarm list", ""),
    ("alarm disarm", ""), ("defrag", ""), ("version", ""), ("check perf --load=zzz", ""),
    ("auth disable", ""), ("auth enable", ""), ("user add ann:pw", ""), ("user list", ""),
    ("user get ann", ""), ("user passwd ann --interactive=false", "pw2"), ("user add ann:pw", ""),
    ("role add reader", ""), ("role grant-permission reader read a b", ""), ("role get reader", ""),
    ("role list", ""), ("user grant-role ann reader", ""), ("user get ann --detail", ""),
    ("user revoke-role ann reader", ""), ("role revoke-permission reader a b", ""),
    ("role delete reader", ""), ("role delete reader", ""), ("user delete ann", ""),
    ("user get ann", ""),
    ("user add root:pw", ""), ("user grant-role root root", ""), ("auth enable", ""),
    ("get a", ""), ("--user=root:bad get a", ""), ("--user=root:pw get a", ""),
    ("--user=root:pw user add ann:pw", ""), ("--user=root:pw role add reader", ""),
    ("--user=root:pw user grant-role ann reader", ""),
    ("--user=root:pw role grant-permission reader read a --prefix", ""),
    ("--user=ann:pw get a --prefix", ""), ("--user=ann:pw put a 1", ""),
    ("--user=ann:pw user get root", ""), ("--user=ann:pw endpoint hashkv", ""),
    ("--user=ann:pw auth disable", ""), ("--user=root:pw auth disable", ""), ("get a", ""),
]  # fmt: skip

_NORMAL = (
    (r"http://localhost:2380", "http://HOST"),
    (r'"target":"[^"]*"', "TARGET"),
    (r"127\.0\.0\.1:\d+", "HOST"),
    (r'"ts":"[^"]*"', "TIME"),
    (r"\d+(\.\d+)?(µs|ms|s)\b", "TIME"),
    (r'("(cluster_id|member_id|ID|id|raft_term)"):\d+', r"\1:N"),
    (r'("(ClusterID|MemberID|RaftTerm)"[ :]+)\d+', r"\1N"),
    (r"\b[0-9a-f]{14,16}\b", "ID"),
    (r"\d+(\.\d+)? [kM]B, ", "SIZE, "),
    (r"remaining\(\w+\)", "remaining"),
)


def normal(text: str) -> str:
    """Without what is a store's own: addresses, ids, times, sizes."""
    for pattern, name in _NORMAL:
        text = re.sub(pattern, name, text)
    return text


def ask(etcdctl: Path, endpoint: str, command: str, stdin: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [str(etcdctl), f"--endpoints=http://{endpoint}", *command.split()],
        check=False,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_every_command_says_the_same(version: str, data_dir: Path) -> None:
    binary = etcd_binary(version)
    with (
        EtcdServer(binary, data_dir, "--bcrypt-cost=4") as etcd,
        EtcdsimServer(f"--emulated-version={EMULATED[version]}") as etcdsim,
    ):
        endpoints = (etcd.endpoint, etcdsim.endpoint)
        leases = ["", ""]
        different = []
        for command, stdin in COMMANDS:
            answers = []
            for side, endpoint in enumerate(endpoints):
                asked = command.format(lease=leases[side])
                code, out, err = ask(binary.with_name("etcdctl"), endpoint, asked, stdin)
                if granted := re.match(r"lease (\w+) granted", out):
                    leases[side] = granted[1]
                answers.append((code, normal(out), normal(err)))
            if answers[0] != answers[1]:
                different.append((command, *answers))
        assert not different, "\n".join(map(repr, different))
