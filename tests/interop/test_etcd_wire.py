"""The field numbers of etcdsim.wire, put to a real etcd: each request does what its names say."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

import grpc
import pytest

from etcdsim import wire
from tests.interop.etcd_server import EtcdServer, Writer

pytestmark = pytest.mark.interop


def keys(answer: Any) -> list[bytes]:
    return [kv.key for kv in answer.kvs]


def test_range(writer: Writer) -> None:
    for key, value in ((b"a", b"3"), (b"b", b"1"), (b"c", b"2"), (b"a", b"4")):
        writer.put(key, value)

    def ask(**fields: Any) -> Any:
        return writer.ask(wire.RANGE, wire.RangeRequest(key=b"a", range_end=b"z", **fields))

    assert keys(ask()) == [b"a", b"b", b"c"]
    assert keys(ask(sort_order="DESCEND", sort_target="KEY")) == [b"c", b"b", b"a"]
    assert keys(ask(sort_order="ASCEND", sort_target="VALUE")) == [b"b", b"c", b"a"]
    assert keys(ask(sort_order="DESCEND", sort_target="VERSION", limit=1)) == [b"a"]
    assert keys(ask(sort_order="ASCEND", sort_target="MOD")) == [b"b", b"c", b"a"]
    assert keys(ask(sort_order="ASCEND", sort_target="CREATE")) == [b"a", b"b", b"c"]
    assert keys(ask(min_mod_revision=4)) == [b"a", b"c"]
    assert keys(ask(max_mod_revision=3)) == [b"b"]
    assert keys(ask(min_create_revision=3)) == [b"b", b"c"]
    assert keys(ask(max_create_revision=2)) == [b"a"]
    page = ask(limit=2, serializable=True, keys_only=True)
    assert (keys(page), page.more, page.count) == ([b"a", b"b"], True, 3)
    assert [kv.value for kv in page.kvs] == [b"", b""]
    count = ask(count_only=True)
    assert (len(count.kvs), count.count) == (0, 3)
    old = ask(revision=2)
    assert old.kvs == [
        wire.KeyValue(key=b"a", value=b"3", create_revision=2, mod_revision=2, version=1)
    ]
    assert old.header.revision == 5
    assert old.header.cluster_id
    assert old.header.member_id
    assert old.header.raft_term


def test_put_and_delete(writer: Writer) -> None:
    writer.put(b"a", b"1")
    put = wire.PutRequest(key=b"a", value=b"2", prev_kv=True)
    assert writer.ask(wire.PUT, put).prev_kv.value == b"1"
    kept = writer.ask(wire.PUT, wire.PutRequest(key=b"a", ignore_value=True, prev_kv=True))
    assert (kept.prev_kv.value, kept.prev_kv.version) == (b"2", 2)
    writer.ask(wire.PUT, wire.PutRequest(key=b"a", value=b"3", ignore_lease=True))
    with pytest.raises(grpc.RpcError, match="lease not found"):
        writer.ask(wire.PUT, wire.PutRequest(key=b"a", lease=4711))
    writer.put(b"b", b"x")
    request = wire.DeleteRangeRequest(key=b"a", range_end=b"c", prev_kv=True)
    answer = writer.ask(wire.DELETE_RANGE, request)
    assert answer.deleted == 2
    assert [kv.value for kv in answer.prev_kvs] == [b"3", b"x"]


@pytest.mark.parametrize(
    ("compare", "succeeded"),
    [
        ({"result": "EQUAL", "target": "VERSION", "version": 2}, True),
        ({"result": "GREATER", "target": "VERSION", "version": 2}, False),
        ({"result": "EQUAL", "target": "CREATE", "create_revision": 2}, True),
        ({"result": "LESS", "target": "CREATE", "create_revision": 2}, False),
        ({"result": "EQUAL", "target": "MOD", "mod_revision": 3}, True),
        ({"result": "NOT_EQUAL", "target": "MOD", "mod_revision": 3}, False),
        ({"result": "EQUAL", "target": "VALUE", "value": b"2"}, True),
        ({"result": "LESS", "target": "VALUE", "value": b"2"}, False),
        ({"result": "EQUAL", "target": "LEASE", "lease": 0}, True),
        ({"result": "GREATER", "target": "LEASE", "lease": 0}, False),
        ({"result": "EQUAL", "target": "VERSION", "version": 2, "range_end": b"b"}, True),
        ({"result": "EQUAL", "target": "VERSION", "version": 2, "range_end": b"c"}, False),
    ],
)
def test_txn(writer: Writer, compare: dict[str, Any], succeeded: bool) -> None:
    for key, value in ((b"a", b"1"), (b"a", b"2"), (b"b", b"x")):
        writer.put(key, value)
    inner = wire.TxnRequest(
        success=[
            wire.RequestOp(request_put=wire.PutRequest(key=b"n", value=b"1")),
            wire.RequestOp(request_range=wire.RangeRequest(key=b"n")),
            wire.RequestOp(request_delete_range=wire.DeleteRangeRequest(key=b"b")),
        ]
    )
    request = wire.TxnRequest(
        compare=[wire.Compare(key=b"a", **compare)],
        success=[wire.RequestOp(request_txn=inner)],
        failure=[wire.RequestOp(request_range=wire.RangeRequest(key=b"b"))],
    )
    answer = writer.ask(wire.TXN, request)
    assert answer.succeeded is succeeded
    (response,) = answer.responses
    if succeeded:
        put, found, deleted = response.response_txn.responses
        assert put.WhichOneof("response") == "response_put"
        assert found.response_range.kvs[0].key == b"n"
        assert deleted.response_delete_range.deleted == 1
    else:
        assert response.response_range.kvs[0].value == b"x"


def test_watch(etcd: EtcdServer, writer: Writer) -> None:
    writer.put(b"a", b"1")
    requests: SimpleQueue[Any] = SimpleQueue()
    with grpc.insecure_channel(etcd.endpoint) as channel:
        call = channel.stream_stream(
            wire.WATCH.path,
            request_serializer=wire.WatchRequest.SerializeToString,
            response_deserializer=wire.WatchResponse.FromString,
        )(iter(requests.get, None), timeout=20)
        create = wire.WatchCreateRequest(
            key=b"a", watch_id=7, start_revision=3, filters=["NOPUT"], prev_kv=True, fragment=True
        )
        requests.put(wire.WatchRequest(create_request=create))
        created = next(call)
        assert (created.created, created.watch_id, created.header.revision) == (True, 7, 2)
        writer.put(b"a", b"2")
        writer.delete(b"a")
        response = next(call)
        (event,) = response.events
        assert (event.type, event.kv.key, event.kv.mod_revision) == (wire.Event.DELETE, b"a", 4)
        assert event.prev_kv.value == b"2"
        requests.put(wire.WatchRequest(progress_request=wire.WatchProgressRequest()))
        mark = next(call)
        assert (mark.watch_id, mark.header.revision, len(mark.events)) == (-1, 4, 0)
        requests.put(wire.WatchRequest(cancel_request=wire.WatchCancelRequest(watch_id=7)))
        cancelled = next(call)
        assert (cancelled.canceled, cancelled.watch_id) == (True, 7)
        duplicate = wire.WatchCreateRequest(key=b"a", watch_id=8)
        requests.put(wire.WatchRequest(create_request=duplicate))
        assert next(call).created
        requests.put(wire.WatchRequest(create_request=duplicate))
        assert "duplicate watch ID" in next(call).cancel_reason
        writer.compact(4)
        past = wire.WatchCreateRequest(key=b"a", watch_id=9, start_revision=1)
        requests.put(wire.WatchRequest(create_request=past))
        assert next(call).created
        compacted = next(call)
        assert (compacted.canceled, compacted.compact_revision) == (True, 4)
        requests.put(None)
        call.cancel()


def test_status(writer: Writer) -> None:
    writer.put(b"a", b"1")
    status = writer.ask(wire.STATUS, wire.StatusRequest())
    assert status.version.startswith("3.")
    assert 0 < status.dbSizeInUse <= status.dbSize
    assert status.leader == status.header.member_id
    assert status.raftTerm == status.header.raft_term
    assert 0 < status.raftAppliedIndex <= status.raftIndex
    assert not status.isLearner
    assert not status.errors
