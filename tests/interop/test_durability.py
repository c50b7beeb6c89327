"""`etcdsim serve --data-dir` as a process: killed while clients write, and on a full disk."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import grpc
import pytest

from etcdsim import wire
from tests.durability import EVERYTHING, ask, run_seed
from tests.interop.etcdsim_server import EtcdsimServer

pytestmark = pytest.mark.interop

HARD_LIMIT = resource.RLIM_INFINITY


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_lost_by_a_kill(seed: int, tmp_path: Path) -> None:
    counts = run_seed(tmp_path, seed, kills=2)
    assert counts["acknowledged"] > 2
    assert counts["revisions"] >= counts["acknowledged"]


def keys(channel: Any) -> list[tuple[bytes, int]]:
    return [(kv.key, kv.mod_revision) for kv in ask(channel, wire.RANGE, **EVERYTHING).kvs]


def test_a_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files is a disk that is full: half a record fits."""
    with EtcdsimServer(f"--data-dir={tmp_path}") as server:
        with grpc.insecure_channel(server.endpoint) as channel:
            ask(channel, wire.PUT, key=b"a", value=b"before")
            limit = (tmp_path / "log.fs").stat().st_size + 20_000
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (limit, HARD_LIMIT))
            for value in (b"x" * 40_000, b"x" * 400_000):
                with pytest.raises(grpc.RpcError) as full:
                    ask(channel, wire.PUT, key=b"lost", value=value)
                assert full.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert full.value.details() == "etcdserver: mvcc: database space exceeded"
                assert keys(channel) == [(b"a", 2)]
            ask(channel, wire.PUT, key=b"b", value=b"fits")
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (HARD_LIMIT, HARD_LIMIT))
            ask(channel, wire.PUT, key=b"c", value=b"x" * 400_000)
            before = keys(channel)
        server.kill()
    assert before == [(b"a", 2), (b"b", 3), (b"c", 4)]
    with EtcdsimServer(f"--data-dir={tmp_path}") as server:
        with grpc.insecure_channel(server.endpoint) as channel:
            assert keys(channel) == before
        assert server.stop() == 0
