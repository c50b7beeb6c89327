"""Hostile clients of `etcdsim serve`: the status that etcd gives, and everybody else is served on.

`tests/interop/test_etcdsim_hostile.py` puts the same rows to a real etcd.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

grpc = pytest.importorskip("grpc")

from google.protobuf.message import DecodeError  # noqa: E402
from hypothesis import example, given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from etcdsim import services, wire  # noqa: E402
from etcdsim.server.malformed import Malformed, parse  # noqa: E402
from tests.etcdsim import hostile  # noqa: E402
from tests.etcdsim.hostile import Row, outcome  # noqa: E402
from tests.etcdsim.served import Served, client  # noqa: E402


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as running:
        yield running


@pytest.fixture(scope="module")
def channel(served: Served) -> Iterator[Any]:
    with hostile.connect(served.endpoint) as connected:
        yield connected


def check(channel: Any, served: Served, row: Row) -> None:
    assert outcome(channel, row) == (*row.ends, row.answers)
    with client(served.endpoint) as other:
        assert other.ask(wire.STATUS).version == "3.5.30"


@pytest.mark.parametrize("row", hostile.ROWS, ids=lambda row: row.name)
def test_hostile(channel: Any, served: Served, row: Row) -> None:
    check(channel, served, row)


def test_an_empty_range_end_means_everything_from_the_key_on() -> None:
    """But not in what is written, a transaction inside another included."""
    with Served() as served, hostile.connect(served.endpoint) as channel:
        answers = hostile.empty_ends(channel)[4:]
    keys = [[kv.key for kv in answer.kvs] for answer in (*answers[:2], *answers[3:5])]
    assert keys == [[b"b", b"c"], [b"b"], [b"a", b"b", b"c"], [b"a", b"b"]]
    assert (answers[1].count, answers[1].more) == (2, True)
    assert [answer.succeeded for answer in answers[5:8]] == [False, False, True]
    in_txns = (answers[6], answers[8], answers[9].responses[0].response_txn)
    assert [txn.responses[0].response_range.count for txn in in_txns] == [2, 1, 1]
    assert answers[10].responses[0].response_delete_range.deleted == answers[12].deleted == 1
    no_key = ("INVALID_ARGUMENT", "etcdserver: key is not provided")
    assert answers[2] == answers[13] == no_key


def test_every_method_refuses_what_is_no_message(channel: Any, served: Served) -> None:
    methods = tuple(served.simulation.handlers)
    assert len(methods) > 40
    for row in hostile.malformed(methods):
        check(channel, served, row)


@pytest.mark.parametrize(
    "first",
    [
        b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        Random(7).randbytes(10_000),
        b"",
    ],
    ids=["HTTP/1.1", "TLS", "no frame", "random", "nothing"],
)
def test_what_is_no_grpc(served: Served, first: bytes) -> None:
    host, _, port = served.endpoint.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(first)
        with client(served.endpoint) as other:
            other.put(b"still", b"there")


def test_a_compressed_message_may_not_be_large_inside(channel: Any, served: Served) -> None:
    put = hostile.field(1, b"k") + hostile.field(2, bytes(20 * hostile.MIB))
    call = channel.unary_unary(wire.PUT.path)
    with pytest.raises(grpc.RpcError) as refused:
        call(put, compression=grpc.Compression.Gzip, timeout=10)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    call(hostile.PUT, compression=grpc.Compression.Gzip, timeout=10)


# The parser, without a server.


@given(st.binary(max_size=60))
@example(b"\x0a\x01k\x12\x01v")
@example(b"\x2a\x02\x00\x01")  # packed
@example(b"\x28\x00\x28\x01")  # not packed
def test_parsing_ends_in_a_message_or_in_malformed(data: bytes) -> None:
    for message in (wire.TxnRequest, wire.WatchCreateRequest, services.message("AlarmRequest")):
        with contextlib.suppress(Malformed):
            parsed = parse(message, data)
            known = message.FromString(data)
            known.DiscardUnknownFields()
            assert parsed == known


@given(st.data())
def test_what_is_well_formed_is_taken(data: st.DataObject) -> None:
    """In another order, with unknown fields between, numbers longer than they need be."""
    fields = data.draw(
        st.permutations(
            [
                b"\x0a\x02kk",
                b"\x12\x01e",
                b"\x18\x85\x00",
                b"\x98\x06\x01",
                b"\x9b\x06\x08\x01\x9c\x06",
            ]
        )
    )
    request = parse(wire.WatchCreateRequest, b"".join(fields))
    assert (request.key, request.range_end, request.start_revision) == (b"kk", b"e", 5)


def test_a_message_is_cut_off_everywhere() -> None:
    compare = wire.Compare(key=b"key", target="VALUE", value=b"value", range_end=b"z")
    put = wire.RequestOp(request_put=wire.PutRequest(key=b"a", value=b"b", lease=77))
    whole = wire.TxnRequest(compare=[compare], success=[put, put]).SerializeToString()
    whole_fields = {len(whole)}
    for end in range(len(whole)):
        try:
            wire.TxnRequest.FromString(whole[:end])
        except DecodeError:
            with pytest.raises(Malformed, match="unexpected EOF"):
                parse(wire.TxnRequest, whole[:end])
        else:
            parse(wire.TxnRequest, whole[:end])
            whole_fields.add(end)
    assert len(whole_fields) == 4  # nothing, the compare, one operation, the other
