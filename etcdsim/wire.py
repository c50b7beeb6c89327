"""The etcd v3 API as data: message classes and method paths, from a table of facts.

The names and numbers below are etcd's wire format (`rpc.proto`, `kv.proto`); the descriptors are
built from them into a descriptor pool of our own. So no generated code is shipped, and any other
etcd client may live in the same process: two copies of `etcdserverpb` in protobuf's default pool
refuse to load, a private pool never meets them. Here is what a client of ours needs; what only a
server speaks is in `etcdsim.services`.

A message class is typed `Any`: its attributes exist only at run time. Importing this module costs
about a millisecond, does no I/O and starts nothing.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

#: One block per message: `package.Message` at the margin, then `name number type` per field.
#: `oneof.name` puts a field into a oneof, `*` before a type makes it repeated. A type that is no
#: scalar and no full name is looked for in the message itself, then in its package.
#: `enum Name: VALUE..` counts its values from 0. A package comes after those that it refers to.
_TABLE = """
mvccpb.KeyValue
    key 1 bytes
    create_revision 2 int64
    mod_revision 3 int64
    version 4 int64
    value 5 bytes
    lease 6 int64
mvccpb.Event
    enum EventType: PUT DELETE
    type 1 EventType
    kv 2 KeyValue
    prev_kv 3 KeyValue

etcdserverpb.ResponseHeader
    cluster_id 1 uint64
    member_id 2 uint64
    revision 3 int64
    raft_term 4 uint64

etcdserverpb.RangeRequest
    enum SortOrder: NONE ASCEND DESCEND
    enum SortTarget: KEY VERSION CREATE MOD VALUE
    key 1 bytes
    range_end 2 bytes
    limit 3 int64
    revision 4 int64
    sort_order 5 SortOrder
    sort_target 6 SortTarget
    serializable 7 bool
    keys_only 8 bool
    count_only 9 bool
    min_mod_revision 10 int64
    max_mod_revision 11 int64
    min_create_revision 12 int64
    max_create_revision 13 int64
etcdserverpb.RangeResponse
    header 1 ResponseHeader
    kvs 2 *mvccpb.KeyValue
    more 3 bool
    count 4 int64

etcdserverpb.PutRequest
    key 1 bytes
    value 2 bytes
    lease 3 int64
    prev_kv 4 bool
    ignore_value 5 bool
    ignore_lease 6 bool
etcdserverpb.PutResponse
    header 1 ResponseHeader
    prev_kv 2 mvccpb.KeyValue

etcdserverpb.DeleteRangeRequest
    key 1 bytes
    range_end 2 bytes
    prev_kv 3 bool
etcdserverpb.DeleteRangeResponse
    header 1 ResponseHeader
    deleted 2 int64
    prev_kvs 3 *mvccpb.KeyValue

etcdserverpb.Compare
    enum CompareResult: EQUAL GREATER LESS NOT_EQUAL
    enum CompareTarget: VERSION CREATE MOD VALUE LEASE
    result 1 CompareResult
    target 2 CompareTarget
    key 3 bytes
    target_union.version 4 int64
    target_union.create_revision 5 int64
    target_union.mod_revision 6 int64
    target_union.value 7 bytes
    target_union.lease 8 int64
    range_end 64 bytes
etcdserverpb.RequestOp
    request.request_range 1 RangeRequest
    request.request_put 2 PutRequest
    request.request_delete_range 3 DeleteRangeRequest
    request.request_txn 4 TxnRequest
etcdserverpb.ResponseOp
    response.response_range 1 RangeResponse
    response.response_put 2 PutResponse
    response.response_delete_range 3 DeleteRangeResponse
    response.response_txn 4 TxnResponse
etcdserverpb.TxnRequest
    compare 1 *Compare
    success 2 *RequestOp
    failure 3 *RequestOp
etcdserverpb.TxnResponse
    header 1 ResponseHeader
    succeeded 2 bool
    responses 3 *ResponseOp

etcdserverpb.CompactionRequest
    revision 1 int64
    physical 2 bool
etcdserverpb.CompactionResponse
    header 1 ResponseHeader

etcdserverpb.WatchCreateRequest
    enum FilterType: NOPUT NODELETE
    key 1 bytes
    range_end 2 bytes
    start_revision 3 int64
    progress_notify 4 bool
    filters 5 *FilterType
    prev_kv 6 bool
    watch_id 7 int64
    fragment 8 bool
etcdserverpb.WatchCancelRequest
    watch_id 1 int64
etcdserverpb.WatchProgressRequest
etcdserverpb.WatchRequest
    request_union.create_request 1 WatchCreateRequest
    request_union.cancel_request 2 WatchCancelRequest
    request_union.progress_request 3 WatchProgressRequest
etcdserverpb.WatchResponse
    header 1 ResponseHeader
    watch_id 2 int64
    created 3 bool
    canceled 4 bool
    compact_revision 5 int64
    cancel_reason 6 string
    fragment 7 bool
    events 11 *mvccpb.Event

etcdserverpb.AuthenticateRequest
    name 1 string
    password 2 string
etcdserverpb.AuthenticateResponse
    header 1 ResponseHeader
    token 2 string

etcdserverpb.StatusRequest
etcdserverpb.StatusResponse
    header 1 ResponseHeader
    version 2 string
    dbSize 3 int64
    leader 4 uint64
    raftIndex 5 uint64
    raftTerm 6 uint64
    raftAppliedIndex 7 uint64
    errors 8 *string
    dbSizeInUse 9 int64
    isLearner 10 bool
    storageVersion 11 string
    dbSizeQuota 12 int64
"""

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _FIELD.TYPE_BOOL,
    "bytes": _FIELD.TYPE_BYTES,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "string": _FIELD.TYPE_STRING,
    "uint32": _FIELD.TYPE_UINT32,
    "uint64": _FIELD.TYPE_UINT64,
}


def _blocks(table: str) -> dict[str, list[str]]:
    """`package.Message` -> its lines, stripped."""
    blocks: dict[str, list[str]] = {}
    owner = ""
    for line in filter(None, table.splitlines()):
        if line.startswith(" "):
            blocks[owner].append(line.strip())
        else:
            owner = line
            blocks[owner] = []
    return blocks


def _add_enum(message: descriptor_pb2.DescriptorProto, line: str) -> None:
    name, _, values = line.removeprefix("enum ").partition(":")
    enum = message.enum_type.add(name=name)
    for number, value in enumerate(values.split()):
        enum.value.add(name=value, number=number)


def _add_field(
    message: descriptor_pb2.DescriptorProto, line: str, owner: str, defined: set[str]
) -> None:
    name, number, kind = line.split()
    oneof, _, name = name.rpartition(".")
    field = message.field.add(name=name, number=int(number), label=_FIELD.LABEL_OPTIONAL)
    if oneof:
        if oneof not in [group.name for group in message.oneof_decl]:
            message.oneof_decl.add(name=oneof)
        field.oneof_index = len(message.oneof_decl) - 1
    if kind.startswith("*"):
        field.label = _FIELD.LABEL_REPEATED
        kind = kind[1:]
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        package = owner.rpartition(".")[0]
        names = (kind, f"{owner}.{kind}", f"{package}.{kind}")
        # `type` stays unset: the pool finds out whether the name is a message's or an enum's.
        field.type_name = "." + next(name for name in names if name in defined)


def _types(messages: dict[str, list[str]]) -> set[str]:
    """The full names of the messages and of their enums."""
    enums = {
        f"{owner}.{line.split()[1].rstrip(':')}"
        for owner, lines in messages.items()
        for line in lines
        if line.startswith("enum ")
    }
    return messages.keys() | enums


class Messages:
    """The message classes of tables, in one private pool. One thread while a table is added."""

    def __init__(self, table: str) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        self._defined: set[str] = set()
        self._files: list[str] = []
        self.add(table)

    def add(self, table: str) -> None:
        """Add messages, which may refer to those that are there. O(table)."""
        messages = _blocks(table)
        self._defined |= _types(messages)
        files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        for owner, lines in messages.items():
            package, _, name = owner.rpartition(".")
            if package not in files:
                files[package] = descriptor_pb2.FileDescriptorProto(
                    # A package may come in several tables, a file only once.
                    name=f"{package}.{len(self._files)}.proto",
                    package=package,
                    syntax="proto3",
                    dependency=self._files,
                )
                self._files.append(files[package].name)
            message = files[package].message_type.add(name=name)
            for line in lines:
                if line.startswith("enum "):
                    _add_enum(message, line)
                else:
                    _add_field(message, line, owner, self._defined)
        for file in files.values():
            self._pool.AddSerializedFile(file.SerializeToString())

    def __getitem__(self, name: str) -> Any:
        """The class of `package.Message`. Raises KeyError."""
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))


MESSAGES = Messages(_TABLE)

KeyValue = MESSAGES["mvccpb.KeyValue"]
Event = MESSAGES["mvccpb.Event"]

ResponseHeader = MESSAGES["etcdserverpb.ResponseHeader"]
RangeRequest = MESSAGES["etcdserverpb.RangeRequest"]
RangeResponse = MESSAGES["etcdserverpb.RangeResponse"]
PutRequest = MESSAGES["etcdserverpb.PutRequest"]
PutResponse = MESSAGES["etcdserverpb.PutResponse"]
DeleteRangeRequest = MESSAGES["etcdserverpb.DeleteRangeRequest"]
DeleteRangeResponse = MESSAGES["etcdserverpb.DeleteRangeResponse"]
Compare = MESSAGES["etcdserverpb.Compare"]
RequestOp = MESSAGES["etcdserverpb.RequestOp"]
ResponseOp = MESSAGES["etcdserverpb.ResponseOp"]
TxnRequest = MESSAGES["etcdserverpb.TxnRequest"]
TxnResponse = MESSAGES["etcdserverpb.TxnResponse"]
CompactionRequest = MESSAGES["etcdserverpb.CompactionRequest"]
CompactionResponse = MESSAGES["etcdserverpb.CompactionResponse"]
WatchCreateRequest = MESSAGES["etcdserverpb.WatchCreateRequest"]
WatchCancelRequest = MESSAGES["etcdserverpb.WatchCancelRequest"]
WatchProgressRequest = MESSAGES["etcdserverpb.WatchProgressRequest"]
WatchRequest = MESSAGES["etcdserverpb.WatchRequest"]
WatchResponse = MESSAGES["etcdserverpb.WatchResponse"]
AuthenticateRequest = MESSAGES["etcdserverpb.AuthenticateRequest"]
AuthenticateResponse = MESSAGES["etcdserverpb.AuthenticateResponse"]
StatusRequest = MESSAGES["etcdserverpb.StatusRequest"]
StatusResponse = MESSAGES["etcdserverpb.StatusResponse"]


class Method(NamedTuple):
    """A method of the API. `stream`: both sides are streams of messages, else one each.

    `answers`: one request, a stream of answers.
    """

    path: str
    request: Any
    response: Any
    stream: bool = False
    answers: bool = False


RANGE = Method("/etcdserverpb.KV/Range", RangeRequest, RangeResponse)
PUT = Method("/etcdserverpb.KV/Put", PutRequest, PutResponse)
DELETE_RANGE = Method("/etcdserverpb.KV/DeleteRange", DeleteRangeRequest, DeleteRangeResponse)
TXN = Method("/etcdserverpb.KV/Txn", TxnRequest, TxnResponse)
COMPACT = Method("/etcdserverpb.KV/Compact", CompactionRequest, CompactionResponse)
WATCH = Method("/etcdserverpb.Watch/Watch", WatchRequest, WatchResponse, stream=True)
AUTHENTICATE = Method("/etcdserverpb.Auth/Authenticate", AuthenticateRequest, AuthenticateResponse)
STATUS = Method("/etcdserverpb.Maintenance/Status", StatusRequest, StatusResponse)


def marks_are_safe(version: str) -> bool:
    """Whether no progress mark of an etcd of this version overtakes an event.

    Before 3.4.31 and in 3.5.0 to 3.5.12 one may (etcd issue 15220). The rule is kube-apiserver's
    feature check. An unreadable version is not trusted.
    """
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    numbers = tuple(map(int, match.groups())) if match else (0,)
    return numbers >= (3, 4, 31) and not (3, 5, 0) <= numbers < (3, 5, 13)
