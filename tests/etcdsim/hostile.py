"""What no client of etcd's sends, and what has to come back: rows for the simulator and for a real
etcd. On the wire every call is a stream of messages, so one function asks them all."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import grpc

from etcdsim import services, wire

MIB = 1024 * 1024
LONG_S = 10.0
#: How long to wait for the end of a call that is to go on.
GOES_ON_S = 0.4
GOES_ON = ("CANCELLED", "Locally cancelled by application!")


class Row(NamedTuple):
    """`ends`: code and text, an open end of a text as `...`; or GOES_ON. `answers`: how many
    messages come before. `real`: code and text of 3.5.30 where it does something else, with the
    reason in `docs/etcdsim.md`."""

    name: str
    path: str
    messages: Sequence[bytes]
    ends: tuple[str, str]
    answers: int = 0
    real: tuple[str, str] | None = None


def connect(endpoint: str) -> Any:
    """A channel with a connection of its own, and no limits."""
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
    ]
    return grpc.insecure_channel(endpoint, options=options)


def ask(channel: Any, path: str, messages: Sequence[bytes], wait_s: float) -> tuple[Any, ...]:
    """Send the messages and that no more come -> (code, text, the answers before)."""
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    for message in (*messages, None):
        requests.put(message)
    call = channel.stream_stream(path)(iter(requests.get, None), wait_for_ready=True)
    giving_up = threading.Timer(wait_s, call.cancel)  # a deadline would be told the server too
    giving_up.start()
    answers: list[bytes] = []
    try:
        answers.extend(call)
    except grpc.RpcError:
        pass
    finally:
        giving_up.cancel()
    return call.code().name, call.details(), answers


def outcome(channel: Any, row: Row) -> tuple[str, str, int]:
    """What came of it: code, text, number of answers. A text that the row leaves open is cut."""
    wait_s = GOES_ON_S if row.ends == GOES_ON else LONG_S
    code, text, answers = ask(channel, row.path, row.messages, wait_s)
    known, open_end, _ = row.ends[1].partition("...")
    if open_end and text.startswith(known):
        text = row.ends[1]
    return code, text, len(answers)


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, or a message in a message, put together by hand."""
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2]) + bytes(length) + bytes([size]) + content


def nested(depth: int) -> bytes:
    """A transaction in a transaction, and so on."""
    data = field(2, field(2, field(1, b"nested")))
    for _ in range(depth):
        data = field(2, field(4, data))
    return data


PUT = wire.PutRequest(key=b"hostile", value=b"x").SerializeToString()
RANGE = wire.RangeRequest(key=b"hostile").SerializeToString()
WATCH = wire.WatchRequest(create_request={"key": b"hostile/never"}).SerializeToString()
KEEP_ALIVE = services.LEASE_KEEP_ALIVE.request(ID=5).SerializeToString()
LARGE = field(1, b"x" * 3 * MIB)

UNARY = "grpc: error unmarshalling request: "
STREAM = "grpc: failed to unmarshal the received message: "
EOF = "unexpected EOF"
TOO_LARGE = "grpc: received message larger than max ({} vs. 2097152)".format
INVALID = "INVALID_ARGUMENT"


def malformed(methods: Sequence[wire.Method]) -> list[Row]:
    """Bytes that are no message, for each of the methods."""
    rows = []
    for method in methods:
        prefix = STREAM if method.stream or method.answers else UNARY
        tag = f"proto: {method.request.DESCRIPTOR.name}: illegal tag 0 (wire type 0)"
        # That of gRPC's own service is another parser, which varies its words.
        foreign = method.path.startswith("/grpc.")
        texts = ("proto:...", "proto:...") if foreign else (EOF, tag)
        for data, text in zip((b"\x80", b"\x00\x01"), texts, strict=True):
            name = f"{method.path} {data.hex()}"
            rows.append(Row(name, method.path, [data], ("INTERNAL", prefix + text)))
    return rows


_UPB = "proto: cannot parse invalid wire-format data"


def _malformed_put(name: str, data: bytes, text: str, real: tuple[str, str] | None = None) -> Row:
    return Row(f"put: {name}", wire.PUT.path, [data], ("INTERNAL", UNARY + text), 0, real)


ROWS = [
    # Too few messages, and too many.
    Row("put: no message", wire.PUT.path, [], ("UNKNOWN", "EOF")),
    Row("put: two messages", wire.PUT.path, [PUT, PUT], ("OK", ""), 1),
    Row("put: two messages, the second is none", wire.PUT.path, [PUT, b"\xff"], ("OK", ""), 1),
    Row(
        "snapshot: no message",
        services.SNAPSHOT.path,
        [],
        (
            "INTERNAL",
            "cardinality violation: received no request message from non-client-streaming RPC",
        ),
    ),
    Row("put: an empty one", wire.PUT.path, [b""], (INVALID, "etcdserver: key is not provided")),
    # Bytes that are no message.
    _malformed_put("a number for a key", b"\x08\x01", "proto: wrong wireType = 0 for field Key"),
    _malformed_put(
        "64 bits for a key", b"\x09" + bytes(8), "proto: wrong wireType = 1 for field Key"
    ),
    _malformed_put(
        "text for a lease", PUT + b"\x1a\x01x", "proto: wrong wireType = 2 for field Lease"
    ),
    _malformed_put("an endless tag", b"\xff" * 12, "proto: integer overflow"),
    _malformed_put("a tag that is cut off", PUT + b"\xff", EOF),
    _malformed_put("a key that is cut off", b"\x0a\x05ab", EOF),
    _malformed_put(
        "a key of negative length",
        b"\x0a" + b"\xff" * 9 + b"\x01",
        "proto: negative length found during unmarshaling",
    ),
    _malformed_put(
        "the end of no group", PUT + b"\x7c", "proto: PutRequest: wiretype end group for non-group"
    ),
    _malformed_put("a group that doesn't end", PUT + b"\xfb\x07", EOF),
    _malformed_put("the end of another group", PUT + b"\xfb\x07\xf4\x07", _UPB, ("OK", "")),
    _malformed_put("a wire type that isn't", PUT + b"\x7e", "proto: illegal wireType 6"),
    Row("put: an unknown field", wire.PUT.path, [PUT + b"\xf8\x07\x01"], ("OK", ""), 1),
    Row("put: an unknown group", wire.PUT.path, [PUT + b"\xfb\x07\xfc\x07"], ("OK", ""), 1),
    Row("put: a key twice", wire.PUT.path, [PUT + PUT], ("OK", ""), 1),
    Row(
        "put: a number longer than it need be",
        wire.PUT.path,
        [PUT + b"\x20\x80\x00"],
        ("OK", ""),
        1,
    ),
    Row(
        "role: a name that isn't UTF-8",
        services.ROLE_ADD.path,
        [b"\x0a\x02\xff\xfe"],
        ("INTERNAL", UNARY + _UPB),
        0,
        ("OK", ""),
    ),
    # Transactions.
    Row("txn: 40 deep", wire.TXN.path, [nested(40)], ("OK", ""), 1),
    *(
        Row(
            f"txn: {depth} deep",
            wire.TXN.path,
            [nested(depth)],
            ("INTERNAL", UNARY + _UPB),
            0,
            real,
        )
        for depth, real in (
            (60, ("OK", "")),
            (1_000, (INVALID, "etcdserver: too many operations in txn request")),
            (20_000, (INVALID, "etcdserver: too many operations in txn request")),
        )
    ),
    Row(
        "txn: an operation that isn't",
        wire.TXN.path,
        [b"\x12\x02\x2a\x00"],
        (INVALID, "etcdserver: key not found"),
    ),
    Row(
        "txn: a number deep inside for a key",
        wire.TXN.path,
        [field(2, field(4, field(2, field(2, b"\x08\x01"))))],
        ("INTERNAL", UNARY + "proto: wrong wireType = 0 for field Key"),
    ),
    Row(
        "txn: 10,000 compares",
        wire.TXN.path,
        [field(1, field(3, b"k")) * 10_000],
        (INVALID, "etcdserver: too many operations in txn request"),
    ),
    # Streams.
    Row("watch: half-closed at once", wire.WATCH.path, [], GOES_ON),
    Row("watch: half-closed", wire.WATCH.path, [WATCH], GOES_ON, 1),
    Row("watch: an empty message", wire.WATCH.path, [b""], GOES_ON),
    Row(
        "watch: no message behind one",
        wire.WATCH.path,
        [WATCH, b"\xff"],
        ("INTERNAL", STREAM + EOF),
        1,
    ),
    Row("keep alive: half-closed at once", services.LEASE_KEEP_ALIVE.path, [], ("OK", "")),
    Row("keep alive: half-closed", services.LEASE_KEEP_ALIVE.path, [KEEP_ALIVE] * 3, ("OK", ""), 3),
    Row(
        "keep alive: no message behind one",
        services.LEASE_KEEP_ALIVE.path,
        [KEEP_ALIVE, b"\xff"],
        ("INTERNAL", STREAM + EOF),
        1,
    ),
    # Methods.
    Row(
        "no such method",
        "/etcdserverpb.KV/Nothing",
        [b"\xff"],
        ("UNIMPLEMENTED", "unknown method Nothing for service etcdserverpb.KV"),
    ),
    Row(
        "no method",
        "/etcdserverpb.KV/",
        [PUT],
        ("UNIMPLEMENTED", "unknown method  for service etcdserverpb.KV"),
    ),
    Row(
        "RangeStream, which 3.7 has",
        services.RANGE_STREAM.path,
        [RANGE],
        ("UNIMPLEMENTED", "unknown method RangeStream for service etcdserverpb.KV"),
    ),
    Row("no such service", "/foo.Bar/Put", [PUT], ("UNIMPLEMENTED", "unknown service foo.Bar")),
    Row(
        "a path before the service",
        "/a/etcdserverpb.KV/Put",
        [PUT],
        ("UNIMPLEMENTED", "unknown service a/etcdserverpb.KV"),
    ),
    Row("one word", "/Put", [PUT], ("UNIMPLEMENTED", 'malformed method name: "/Put"')),
    Row("no path", "/", [PUT], ("UNIMPLEMENTED", 'malformed method name: "/"')),
    # Sizes.
    Row("put: 3 MiB", wire.PUT.path, [LARGE], ("RESOURCE_EXHAUSTED", TOO_LARGE(len(LARGE)))),
    Row(
        "put: 20 MiB",
        wire.PUT.path,
        [b"x" * 20 * MIB],
        ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (20971520 vs. 16777216)"),
        0,
        ("RESOURCE_EXHAUSTED", TOO_LARGE(20 * MIB)),
    ),
    Row("watch: 3 MiB", wire.WATCH.path, [LARGE], ("RESOURCE_EXHAUSTED", TOO_LARGE(len(LARGE)))),
    Row(
        "keep alive: 3 MiB behind one",
        services.LEASE_KEEP_ALIVE.path,
        [KEEP_ALIVE, LARGE],
        ("RESOURCE_EXHAUSTED", TOO_LARGE(len(LARGE))),
        1,
    ),
    Row(
        "put: more than 1.5 MiB",
        wire.PUT.path,
        [field(1, b"k") + field(2, b"x" * 1_572_864)],
        (INVALID, "etcdserver: request is too large"),
    ),
    Row(
        "txn: more than 1.5 MiB",
        wire.TXN.path,
        [field(2, field(2, field(1, b"k") + field(2, b"x" * 1_572_864)))],
        (INVALID, "etcdserver: request is too large"),
    ),
    Row("range: a key of 1.9 MiB", wire.RANGE.path, [field(1, b"k" * 2_000_000)], ("OK", ""), 1),
    Row(
        "no such method, 3 MiB",
        "/etcdserverpb.KV/Nothing",
        [LARGE],
        ("UNIMPLEMENTED", "unknown method Nothing for service etcdserverpb.KV"),
    ),
]


#: Requests with a `range_end` that is there and empty, in this order on one store.
EMPTY_END = field(2, b"")
_A, _FROM_B = field(1, b"a"), field(1, b"b") + EMPTY_END
_COMPARE = field(3, b"b") + b"\x20\x01\x82\x04\x00"  # every version from b on is 1
_PUTS = [field(1, key) + field(2, b"v") for key in (b"a", b"b", b"c", b"c")]
EMPTY_ENDS: list[tuple[wire.Method, bytes]] = [
    *((wire.PUT, put) for put in _PUTS),
    (wire.RANGE, _FROM_B),
    (wire.RANGE, _FROM_B + b"\x18\x01"),
    (wire.RANGE, EMPTY_END),
    (wire.RANGE, _A + field(2, b"b") + EMPTY_END),
    (wire.RANGE, _A + EMPTY_END + field(2, b"c")),
    (wire.TXN, field(1, _COMPARE)),
    (wire.TXN, field(1, _COMPARE) + field(3, field(1, _FROM_B))),
    (wire.TXN, field(1, _COMPARE) + field(2, field(2, _PUTS[0]))),
    (wire.TXN, field(2, field(1, _FROM_B)) + field(2, field(2, _PUTS[0]))),
    (wire.TXN, field(2, field(4, field(2, field(1, _FROM_B))))),
    (wire.TXN, field(2, field(3, _FROM_B)) + field(2, field(2, _PUTS[3]))),
    (wire.PUT, _PUTS[1]),
    (wire.DELETE_RANGE, _FROM_B),
    (wire.DELETE_RANGE, EMPTY_END),
]


def empty_ends(channel: Any) -> list[Any]:
    """What comes of EMPTY_ENDS, headers aside: answers, or the code and the text."""
    got: list[Any] = []
    for method, data in EMPTY_ENDS:
        try:
            answer = method.response.FromString(channel.unary_unary(method.path)(data))
        except grpc.RpcError as error:
            got.append((error.code().name, error.details()))
        else:
            answer.ClearField("header")
            got.append(answer)
    return got
