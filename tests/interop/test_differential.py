"""etcdsim against a real etcd: the same requests get the same answers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from etcdsim import services, wire
from tests import differential
from tests.differential import Difference, Request, Requests, Server, compare, version_of
from tests.interop.conftest import VERSIONS, etcd_binary
from tests.interop.etcd_server import EtcdServer
from tests.interop.etcdsim_server import EtcdsimServer

pytestmark = pytest.mark.interop

OPERATIONS = int(os.environ.get("BTREECACHE_DIFFERENTIAL", "2000"))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_same_answers(version: str, data_dir: Path) -> None:
    counts = differential.run_seed(etcd_binary(version), data_dir, 2026, OPERATIONS)
    asked = {"Put", "Range", "DeleteRange", "Txn", "Compact", "HashKV", "LeaseGrant", "LeaseRevoke"}
    assert asked <= counts.keys()
    assert sum(counts.values()) - counts["errors"] == OPERATIONS
    assert OPERATIONS / 20 < counts["errors"] < OPERATIONS / 2


def test_another_answer_is_noticed(etcd: EtcdServer) -> None:
    """The comparison itself: the two don't hold the same."""
    with Server(etcd.endpoint) as real:
        flag = f"--emulated-version={version_of(real)}"
        with EtcdsimServer(flag) as etcdsim, Server(etcdsim.endpoint) as simulated:
            put = Request(wire.PUT, wire.PutRequest(key=b"only/etcd"))
            real.start(put).result()
            with pytest.raises(Difference, match=r"(?s)request 0: .*--- etcd\n.*--- etcdsim\n"):
                compare(real, simulated, Requests(1), 1)
            simulated.start(put).result()
            compare(real, simulated, Requests(1), 1)


def test_the_hash_of_one_history(etcd: EtcdServer) -> None:
    """Told apart from the random ones, so that a difference in hashing says that it is one."""
    with Server(etcd.endpoint) as real:
        flag = f"--emulated-version={version_of(real)}"
        with EtcdsimServer(flag) as etcdsim, Server(etcdsim.endpoint) as simulated:
            hashes: list[list[int]] = [[], []]
            for got, server in zip(hashes, (real, simulated), strict=True):
                for request in history():
                    server.start(request).result()
                for revision in range(1, 9):
                    ask = services.HASH_KV.request(revision=revision)
                    got.append(server.start(Request(services.HASH_KV, ask)).result().hash)
                compaction = wire.CompactionRequest(revision=6, physical=True)
                server.start(Request(wire.COMPACT, compaction)).result()
                for revision in (0, 7, 8):
                    ask = services.HASH_KV.request(revision=revision)
                    got.append(server.start(Request(services.HASH_KV, ask)).result().hash)
    assert hashes[0] == hashes[1], json.dumps(hashes)
    assert len(set(hashes[0])) >= 9


def history() -> list[Request]:
    """Revisions 2 to 8: puts, an end, a beginning again, a transaction of two."""
    both = [
        wire.RequestOp(request_put=wire.PutRequest(key=b"b", value=b"1")),
        wire.RequestOp(request_put=wire.PutRequest(key=b"c", value=b"2")),
    ]
    return [
        Request(wire.PUT, wire.PutRequest(key=b"a", value=b"1")),
        Request(wire.PUT, wire.PutRequest(key=b"a", value=b"2")),
        Request(wire.DELETE_RANGE, wire.DeleteRangeRequest(key=b"a")),
        Request(wire.TXN, wire.TxnRequest(success=both)),
        Request(wire.DELETE_RANGE, wire.DeleteRangeRequest(key=b"b")),
        Request(wire.PUT, wire.PutRequest(key=b"a", value=b"3")),
        Request(wire.PUT, wire.PutRequest(key=b"c", value=b"4")),
    ]
