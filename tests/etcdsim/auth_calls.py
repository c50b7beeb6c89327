"""Calls of users with and without rights: rows for the simulator and for a real etcd, in order on
one store, since each row finds what those before it left."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator
from typing import Any, NamedTuple

import grpc

from etcdsim import services, wire

TIMEOUT_S = 10.0
READ, WRITE, READWRITE = 0, 1, 2
LEASE, FOREIGN_LEASE, READ_LEASE, WRITE_LEASE = 71, 72, 73, 74
NOBODY, STRANGER, MALFORMED = "", "stranger", "malformed"  # no token, and two that are none
_TOKENS = {STRANGER: "abcdefghijklmnop.5", MALFORMED: "token"}


class Row(NamedTuple):
    """`user`: whose token goes with the call."""

    user: str
    method: wire.Method
    fields: dict[str, Any]


def _calls(user: str, *calls: tuple[wire.Method, dict[str, Any]]) -> list[Row]:
    return [Row(user, method, fields) for method, fields in calls]


def _grant(key: bytes, range_end: bytes, kind: int, role: str = "reader") -> Row:
    perm = {"key": key, "range_end": range_end, "permType": kind}
    return Row("root", services.ROLE_GRANT_PERMISSION, {"name": role, "perm": perm})


def _put(key: bytes, **fields: Any) -> dict[str, Any]:
    return {"key": key, "value": b"v", **fields}


def _login(user: str, password: str) -> Row:
    return Row(NOBODY, wire.AUTHENTICATE, {"name": user, "password": password})


def _do(*ops: dict[str, Any], compare: bytes = b"") -> dict[str, Any]:
    compares = [{"key": compare, "target": "VERSION", "version": 1}] if compare else []
    return {"compare": compares, "success": list(ops)}


_get: Any = lambda **fields: {"request_range": fields}  # noqa: E731
_set: Any = lambda **fields: {"request_put": fields}  # noqa: E731
_cut: Any = lambda **fields: {"request_delete_range": fields}  # noqa: E731
_txn: Any = lambda **fields: {"request_txn": fields}  # noqa: E731

#: Of everything there is one call: for somebody without a token, with a wrong one, with rights to
#: some keys, and for root.
EVERYTHING: list[tuple[wire.Method, dict[str, Any]]] = [
    (wire.RANGE, {"key": b"b"}),
    (wire.RANGE, {"key": b""}),
    (wire.RANGE, {"key": b"b", "serializable": True}),
    (wire.PUT, _put(b"w")),
    (wire.PUT, _put(b"")),
    (wire.PUT, _put(b"w", lease=99)),
    (wire.DELETE_RANGE, {"key": b"w"}),
    (wire.TXN, {}),
    (wire.TXN, _do(_get(key=b"b"))),
    (wire.TXN, _do(_get(key=b"b", revision=9999))),
    (wire.TXN, _do(_set(key=b"w"), _set(key=b"w"))),
    (wire.COMPACT, {"revision": 9999}),
    (services.LEASE_REVOKE, {"ID": 7}),
    (services.LEASE_TIME_TO_LIVE, {"ID": LEASE}),
    (services.LEASE_TIME_TO_LIVE, {"ID": LEASE, "keys": True}),
    (services.LEASE_TIME_TO_LIVE, {"ID": FOREIGN_LEASE, "keys": True}),
    (services.LEASE_TIME_TO_LIVE, {"ID": 7, "keys": True}),
    (services.LEASE_LEASES, {}),
    (services.LEASE_KEEP_ALIVE, {"ID": LEASE}),
    (services.LEASE_KEEP_ALIVE, {"ID": FOREIGN_LEASE}),
    (services.LEASE_KEEP_ALIVE, {"ID": 7}),
    (services.LEASE_GRANT, {"ID": LEASE, "TTL": 5000}),
    (wire.STATUS, {}),
    (services.ALARM, {}),
    (services.ALARM, {"action": "DEACTIVATE", "alarm": "NOSPACE"}),
    (services.DEFRAGMENT, {}),
    (services.HASH, {}),
    (services.HASH_KV, {}),
    (services.SNAPSHOT, {}),
    (services.MOVE_LEADER, {"targetID": 1}),
    (services.MEMBER_LIST, {}),
    (services.MEMBER_REMOVE, {"ID": 1}),
    (services.HEALTH_CHECK, {}),
    (services.AUTH_STATUS, {}),
    (services.AUTH_ENABLE, {}),
    (services.USER_LIST, {}),
    (services.USER_GET, {"name": "ann"}),
    (services.USER_GET, {"name": "root"}),
    (services.USER_GET, {"name": "none"}),
    (services.ROLE_LIST, {}),
    (services.ROLE_GET, {"role": "reader"}),
    (services.ROLE_GET, {"role": "root"}),
    (services.ROLE_GET, {"role": "none"}),
    (services.USER_ADD, {"name": "", "password": "x"}),
    (services.USER_ADD, {"name": "ann", "password": "x"}),
    (services.USER_DELETE, {"name": "none"}),
    (services.USER_CHANGE_PASSWORD, {"name": "none", "password": "x"}),
    (services.USER_GRANT_ROLE, {"user": "none", "role": "root"}),
    (services.USER_REVOKE_ROLE, {"name": "none", "role": "root"}),
    (services.ROLE_ADD, {"name": ""}),
    (services.ROLE_DELETE, {"role": "none"}),
    (services.ROLE_GRANT_PERMISSION, {"name": "none", "perm": {"key": b"a"}}),
    (services.ROLE_REVOKE_PERMISSION, {"role": "none", "key": b"a"}),
    (wire.WATCH, {"key": b"b"}),
    (wire.WATCH, {"key": b"w", "watch_id": 7}),
    (services.LOCK, {"name": b"r/lock", "lease": LEASE}),
    (services.UNLOCK, {"key": b"w"}),
    (services.UNLOCK, {"key": b""}),
    (services.CAMPAIGN, {"name": b"r/chair", "lease": LEASE, "value": b"v"}),
    *((method, {"name": b"r/chair"}) for method in (services.LEADER, services.OBSERVE)),
    *(
        (method, {"leader": {"name": b"r/chair", "key": b"r/chair/47", "rev": 1, "lease": LEASE}})
        for method in (services.PROCLAIM, services.RESIGN)
    ),
    *((method, {}) for method in (services.PROCLAIM, services.RESIGN)),
]

#: What somebody may who may read [b, d) and [d, f), write w and do both in r/, in keys and ranges.
KEYS: list[tuple[wire.Method, dict[str, Any]]] = [
    *((wire.RANGE, {"key": key, "range_end": range_end}) for key, range_end in [
        (b"b", b""), (b"a", b""), (b"f", b""), (b"w", b""), (b"b", b"d"), (b"b", b"f"),
        (b"c", b"e"), (b"b", b"g"), (b"a", b"c"), (b"b", b"\0"), (b"r/x", b"r/z"), (b"d", b"b"),
        (b"s", b"t"), (b"z", b"\0"), (b"z", b""), (b"y", b"\0"), (b"s", b"s"),
    ]),
    (wire.PUT, _put(b"b")),
    (wire.PUT, _put(b"w", prev_kv=True)),
    (wire.PUT, _put(b"r/x", prev_kv=True)),
    (wire.PUT, _put(b"w", lease=FOREIGN_LEASE)),
    (wire.PUT, _put(b"w", lease=LEASE)),
    (wire.PUT, _put(b"w", ignore_value=True)),
    (wire.PUT, {"key": b"w", "ignore_value": True}),
    (wire.DELETE_RANGE, {"key": b"b"}),
    (wire.DELETE_RANGE, {"key": b"w", "prev_kv": True}),
    (wire.DELETE_RANGE, {"key": b"r/", "range_end": b"r0", "prev_kv": True}),
    (wire.DELETE_RANGE, {"key": b"r/", "range_end": b"\0"}),
    (wire.PUT, _put(b"w")),
    (wire.TXN, _do(_set(key=b"w"), compare=b"b")),
    (wire.TXN, _do(_set(key=b"w"), compare=b"w")),
    (wire.TXN, _do(_get(key=b"b"), compare=b"w")),
    (wire.TXN, _do(_get(key=b"b"), _get(key=b"f"))),
    (wire.TXN, _do(_set(key=b"w"), _get(key=b"b", range_end=b"f"))),
    (wire.TXN, {**_do(_set(key=b"w")), "failure": [_cut(key=b"a")]}),
    (wire.TXN, _do(_cut(key=b"w", prev_kv=True))),
    (wire.TXN, _do(_set(key=b"w", prev_kv=True))),
    (wire.TXN, _do(_set(key=b"w", lease=FOREIGN_LEASE))),
    (wire.TXN, _do(_set(key=b"w", lease=12345))),
    (wire.TXN, _do(_txn(success=[_get(key=b"f")]))),
    (wire.TXN, _do(_txn(success=[_set(key=b"secret/x")]))),
    (wire.TXN, _do(_txn(success=[_txn(failure=[_set(key=b"w", prev_kv=True)])]))),
    (wire.TXN, _do(_txn(success=[_txn(compare=[{"key": b"f"}])]))),
    (services.LEASE_TIME_TO_LIVE, {"ID": FOREIGN_LEASE}),
    *((services.LEASE_TIME_TO_LIVE, {"ID": lease, "keys": True})
      for lease in (READ_LEASE, WRITE_LEASE)),
    *((method, {"ID": lease}) for lease in (READ_LEASE, WRITE_LEASE)
      for method in (services.LEASE_KEEP_ALIVE, services.LEASE_REVOKE)),
    (services.LEASE_LEASES, {}),
    (services.LEASE_REVOKE, {"ID": FOREIGN_LEASE}),
    *((wire.WATCH, {"key": key, "range_end": range_end}) for key, range_end in [
        (b"b", b""), (b"b", b"f"), (b"b", b"g"), (b"a", b""), (b"b", b"\0"), (b"", b""),
        (b"y", b"\0"), (b"z", b"\0"), (b"d", b"b"), (b"w", b""), (b"f", b"e"),
    ]),
    (wire.WATCH, {"key": b"a", "start_revision": -5}),
    (wire.WATCH, {"key": b"b", "start_revision": -5}),
    (services.LOCK, {"name": b"f", "lease": LEASE}),
    (services.CAMPAIGN, {"name": b"f", "lease": LEASE}),
    *((method, {"name": b"f"}) for method in (services.LEADER, services.OBSERVE)),
    *((method, {"leader": {"key": b"w", "lease": LEASE}})
      for method in (services.PROCLAIM, services.RESIGN)),
    (services.USER_CHANGE_PASSWORD, {"name": "ann", "password": "other"}),
]  # fmt: skip

ROWS: list[Row] = [
    *_calls(
        NOBODY,
        (services.AUTH_STATUS, {}), (services.AUTH_DISABLE, {}), (services.AUTH_ENABLE, {}),
        (services.USER_ADD, {"name": "root", "password": "pwd"}), (services.AUTH_ENABLE, {}),
        (services.USER_GRANT_ROLE, {"user": "root", "role": "root"}),
        (services.ROLE_ADD, {"name": "root"}),
        (services.USER_GRANT_ROLE, {"user": "root", "role": "root"}),
        (services.USER_GRANT_ROLE, {"user": "root", "role": "root"}),
        (services.USER_ADD, {"name": "ann", "password": "secret"}),
        (services.USER_ADD, {"name": "empty", "password": ""}),
        (services.USER_ADD, {"name": "long", "password": "x" * 80}),
        (services.USER_ADD, {"name": "open", "options": {"no_password": True}}),
        (services.USER_ADD, {"name": "both", "password": "x", "options": {"no_password": True}}),
        (services.ROLE_ADD, {"name": "reader"}), (services.ROLE_ADD, {"name": "reader"}),
        (services.USER_GRANT_ROLE, {"user": "ann", "role": "none"}),
        (services.USER_GRANT_ROLE, {"user": "ann", "role": "reader"}),
        *((wire.PUT, _put(key)) for key in (b"a", b"b", b"c", b"f", b"r/x", b"z", b"zz")),
        *((services.LEASE_GRANT, {"ID": lease, "TTL": 5000})
          for lease in (LEASE, FOREIGN_LEASE, READ_LEASE, WRITE_LEASE)),
        (wire.PUT, _put(b"bb", lease=READ_LEASE)), (wire.PUT, _put(b"w2", lease=WRITE_LEASE)),
        (wire.PUT, _put(b"r/leased", lease=LEASE)),
        (wire.PUT, _put(b"secret/leased", lease=FOREIGN_LEASE)),
        (wire.AUTHENTICATE, {"name": "root", "password": "pwd"}),
        (services.AUTH_STATUS, {}), (services.AUTH_ENABLE, {}), (services.AUTH_ENABLE, {}),
        (wire.AUTHENTICATE, {"name": "root", "password": ""}),
        (wire.AUTHENTICATE, {"name": "none", "password": "x"}),
        (wire.AUTHENTICATE, {"name": "", "password": "x"}),
        (wire.AUTHENTICATE, {"name": "open", "password": "x"}),
        (wire.AUTHENTICATE, {"name": "open", "password": ""}),
        (wire.AUTHENTICATE, {"name": "both", "password": "x"}),
        (wire.AUTHENTICATE, {"name": "empty", "password": ""}),
        (wire.AUTHENTICATE, {"name": "long", "password": "x" * 80}),
    ),
    _login("root", "pwd"),
    _login("ann", "secret"),
    *(_grant(key, range_end, kind) for key, range_end, kind in [
        (b"b", b"d", READ), (b"d", b"f", READ), (b"w", b"", WRITE),
        (b"w2", b"", WRITE), (b"r/", b"r0", READWRITE),
        (b"b", b"d", READ), (b"z", b"\0", READ), (b"y", b"", READ),
        (b"d", b"b", READ), (b"", b"", READ), (b"", b"\0", READ),
    ]),
    *(row for user in (NOBODY, STRANGER, MALFORMED, "ann", "root")
      for row in _calls(user, *EVERYTHING)),
    *_calls("ann", *KEYS),
    *_calls("root", *KEYS),
    Row("ann", services.LEASE_LEASES, {}),  # only those that nothing foreign hangs on are left
    # What ends a token, and what doesn't.
    _login("ann", "other"),
    Row("root", services.ROLE_REVOKE_PERMISSION, {"role": "reader", "key": b"w"}),
    *_calls("ann", (wire.PUT, _put(b"w")), (wire.RANGE, {"key": b"b"})),
    Row("root", services.USER_REVOKE_ROLE, {"name": "ann", "role": "reader"}),
    Row("ann", wire.RANGE, {"key": b"b"}),
    Row("root", services.USER_GRANT_ROLE, {"user": "ann", "role": "reader"}),
    Row("ann", wire.RANGE, {"key": b"b"}),
    Row("root", services.ROLE_DELETE, {"role": "reader"}),
    *_calls("ann", (wire.RANGE, {"key": b"b"}), (services.USER_GET, {"name": "ann"})),
    Row("root", services.USER_GRANT_ROLE, {"user": "ann", "role": "root"}),
    *_calls("ann", (wire.RANGE, {"key": b"a"}), (services.USER_LIST, {})),
    Row("root", services.USER_CHANGE_PASSWORD, {"name": "ann", "password": "third"}),
    Row("ann", wire.RANGE, {"key": b"a"}),
    _login("ann", "secret"),
    _login("ann", "third"),
    Row("ann", wire.RANGE, {"key": b"a"}),
    Row("root", services.USER_DELETE, {"name": "ann"}),
    Row("ann", wire.RANGE, {"key": b"a"}),
    # Root can't be locked out.
    *_calls(
        "root",
        (services.USER_DELETE, {"name": "root"}),
        (services.USER_REVOKE_ROLE, {"name": "root", "role": "root"}),
        (services.ROLE_DELETE, {"role": "root"}),
        (services.ROLE_GET, {"role": "root"}),
        (services.ROLE_REVOKE_PERMISSION, {"role": "root", "key": b"a"}),
        (services.USER_CHANGE_PASSWORD, {"name": "open", "password": "x"}),
        (services.AUTH_STATUS, {}), (services.AUTH_DISABLE, {}), (services.AUTH_STATUS, {}),
        (services.AUTH_DISABLE, {}),
        (wire.RANGE, {"key": b"a"}),
        (services.USER_DELETE, {"name": "root"}), (services.ROLE_DELETE, {"role": "root"}),
        (services.AUTH_ENABLE, {}),
        (services.USER_ADD, {"name": "root", "password": "new"}),
        (services.USER_GRANT_ROLE, {"user": "root", "role": "root"}),
        (services.ROLE_ADD, {"name": "root"}),
        (services.USER_GRANT_ROLE, {"user": "root", "role": "root"}),
        (services.AUTH_ENABLE, {}),
        (wire.RANGE, {"key": b"a"}),
    ),
    _login("root", "pwd"),
    _login("root", "new"),
    *_calls("root", (wire.RANGE, {"key": b"a"}), (services.AUTH_STATUS, {})),
    *_calls(STRANGER, (services.AUTH_DISABLE, {})),
    *_calls(NOBODY, (services.AUTH_DISABLE, {})),
]  # fmt: skip


class Asking:
    """A client of one server, with the tokens that it got."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._tokens = dict(_TOKENS)

    def answer(self, row: Row) -> Any:
        """What came of a row, without what is a server's own: text, or the code and the text."""
        metadata = [("token", self._tokens[row.user])] if row.user else []
        try:
            if row.method.stream or row.method.answers:
                return self._first(row, metadata)
            call = self._channel.unary_unary(row.method.path)
            request = row.method.request(**row.fields).SerializeToString()
            answer = row.method.response.FromString(call(request, TIMEOUT_S, metadata))
        except grpc.RpcError as error:
            return error.code().name, error.details()
        if row.method is wire.AUTHENTICATE:
            name, _, index = answer.token.partition(".")
            assert (len(name), name.isalpha(), index.isdigit()) == (16, True, True)
            self._tokens[row.fields["name"]] = answer.token
            answer.ClearField("token")
        return _settled(row, answer)

    def _first(self, row: Row, metadata: Any) -> Any:
        requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        request = {"create_request": row.fields} if row.method is wire.WATCH else row.fields
        requests.put(row.method.request(**request).SerializeToString())
        if row.method.answers:
            requests.put(None)
        call = self._channel.stream_stream(row.method.path)(
            iter(requests.get, None), TIMEOUT_S, metadata
        )
        try:
            answer = next(call, None)
            return answer and _settled(row, row.method.response.FromString(answer))
        finally:
            call.cancel()
            requests.put(None)


def _settled(row: Row, answer: Any) -> str:
    if row.method in (wire.STATUS, services.MEMBER_LIST, services.SNAPSHOT):
        return "answered"
    with contextlib.suppress(AttributeError):
        for name in ("cluster_id", "member_id", "raft_term"):
            answer.header.ClearField(name)
    if row.method in (services.HASH, services.HASH_KV):
        answer.ClearField("hash")
    if row.method is services.LEASE_TIME_TO_LIVE:
        answer.TTL = min(answer.TTL, 1)
        answer.keys.sort()
    if row.method is services.LEASE_LEASES:
        # That of a lease nobody named is drawn.
        ids = sorted(lease.ID if lease.ID < 1000 else 0 for lease in answer.leases)
        return f"{answer.header} {ids}"
    return str(answer)


def story(channel: Any) -> Iterator[tuple[Row, Any]]:
    """Each row, and what came of it."""
    asking = Asking(channel)
    for row in ROWS:
        yield row, asking.answer(row)
