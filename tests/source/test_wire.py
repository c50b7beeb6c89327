"""etcdsim.wire: the bytes are etcd's, and the descriptors are nobody else's."""

from __future__ import annotations

import subprocess
import sys

import pytest
from google.protobuf import descriptor_pool

from etcdsim import wire

#: Messages and their bytes, written by hand from the protobuf encoding rules and etcd's numbers.
BYTES = [
    (wire.KeyValue(key=b"k", create_revision=2, mod_revision=3, version=4, value=b"v", lease=5),
     b"\x0a\x01k\x10\x02\x18\x03\x20\x04\x2a\x01v\x30\x05"),
    (wire.Event(type="DELETE", kv=wire.KeyValue(key=b"k")), b"\x08\x01\x12\x03\x0a\x01k"),
    (wire.RangeRequest(key=b"a", range_end=b"b", limit=1, revision=2, keys_only=True),
     b"\x0a\x01a\x12\x01b\x18\x01\x20\x02\x40\x01"),
    (wire.Compare(result="GREATER", target="MOD", key=b"k", mod_revision=0, range_end=b"l"),
     b"\x08\x01\x10\x02\x1a\x01k\x30\x00\x82\x04\x01l"),
    (wire.WatchRequest(progress_request=wire.WatchProgressRequest()), b"\x1a\x00"),
    (wire.WatchRequest(create_request=wire.WatchCreateRequest(filters=["NODELETE"], fragment=True)),
     b"\x0a\x05\x2a\x01\x01\x40\x01"),
    (wire.WatchResponse(watch_id=-1, canceled=True, compact_revision=9, events=[wire.Event()]),
     b"\x10" + b"\xff" * 9 + b"\x01" + b"\x20\x01\x28\x09\x5a\x00"),
    (wire.StatusResponse(version="3.5.30", errors=["x"]), b"\x12\x063.5.30\x42\x01x"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "encoded"), BYTES, ids=lambda value: type(value).__name__)
def test_bytes(message: object, encoded: bytes) -> None:
    assert message.SerializeToString() == encoded  # type: ignore[attr-defined]
    assert type(message).FromString(encoded) == message  # type: ignore[attr-defined]


def test_a_transaction_nests() -> None:
    inner = wire.TxnRequest(
        compare=[wire.Compare(target="VALUE", key=b"k", value=b"v")],
        success=[wire.RequestOp(request_put=wire.PutRequest(key=b"k"))],
        failure=[wire.RequestOp(request_range=wire.RangeRequest(key=b"k"))],
    )
    outer = wire.TxnRequest(success=[wire.RequestOp(request_txn=inner)])
    decoded = wire.TxnRequest.FromString(outer.SerializeToString())
    assert decoded.success[0].request_txn == inner
    assert decoded.success[0].WhichOneof("request") == "request_txn"
    assert decoded.success[0].request_txn.compare[0].WhichOneof("target_union") == "value"


def test_every_oneof_is_declared() -> None:
    oneofs = {
        f"{message.DESCRIPTOR.name}.{oneof.name}": len(oneof.fields)
        for message in vars(wire).values()
        if isinstance(message, type) and hasattr(message, "DESCRIPTOR")
        for oneof in message.DESCRIPTOR.oneofs
    }
    assert {
        "Compare.target_union": 5,
        "RequestOp.request": 4,
        "ResponseOp.response": 4,
        "WatchRequest.request_union": 3,
    }.items() <= oneofs.items()


def test_enums_are_attributes() -> None:
    assert (wire.Event.PUT, wire.Event.DELETE) == (0, 1)
    assert wire.RangeRequest.SortTarget.Value("VALUE") == 4
    assert wire.Compare.CompareResult.Name(3) == "NOT_EQUAL"


def test_the_pool_is_private() -> None:
    assert wire.KeyValue.DESCRIPTOR.full_name == "mvccpb.KeyValue"
    for name in ("mvccpb.KeyValue", "etcdserverpb.RangeRequest"):
        with pytest.raises(KeyError):
            descriptor_pool.Default().FindMessageTypeByName(name)


OTHER_CLIENT = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
file = descriptor_pb2.FileDescriptorProto(name="kv.proto", package="mvccpb", syntax="proto3")
file.message_type.add(name="KeyValue").field.add(name="key", number=1, type=12, label=1)
pool = descriptor_pool.Default()
pool.AddSerializedFile(file.SerializeToString())
theirs = message_factory.GetMessageClass(pool.FindMessageTypeByName("mvccpb.KeyValue"))
"""
OURS = "from etcdsim import wire\n"
CHECK = "assert theirs(key=b'k').SerializeToString() == wire.KeyValue(key=b'k').SerializeToString()"


@pytest.mark.parametrize("order", [OURS + OTHER_CLIENT, OTHER_CLIENT + OURS])
def test_another_client_in_the_same_process(order: str) -> None:
    """What another etcd client's generated code does, before us and after us."""
    subprocess.run([sys.executable, "-W", "error", "-c", order + CHECK], check=True, timeout=30)


def test_it_stands_alone() -> None:
    """The module itself, without its package: the standard library and protobuf suffice."""
    program = (
        "import runpy, sys; runpy.run_path(sys.argv[1]);"
        "assert not {'etcdsim', 'btreecache', 'grpc', 'msgspec', 'BTrees'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(wire.__file__)], check=True, timeout=30)
