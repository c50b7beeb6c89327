"""Between the messages of the wire and the model's own types.

What no enum of etcd's names is taken as etcd takes it: before 3.6 an unknown order sorts nothing,
an unknown target of a compare compares nothing.
"""

from __future__ import annotations

from typing import Any, cast

from etcdsim import wire
from etcdsim.model import DeleteResult, KeyValue, PutResult, RangeResult, TxnResult
from etcdsim.txn import Compare, DeleteRange, Op, Put, Range, Result, SortOrder, SortTarget, Txn

_ORDERS: tuple[SortOrder, ...] = ("NONE", "ASCEND", "DESCEND")
_TARGETS: tuple[SortTarget, ...] = ("KEY", "VERSION", "CREATE", "MOD", "VALUE")
_RESULTS: tuple[Result, ...] = ("EQUAL", "GREATER", "LESS", "NOT_EQUAL")
#: By the number of the target: its name, and the field that holds what is compared with.
_OPERANDS = (
    ("VERSION", "version"),
    ("CREATE", "create_revision"),
    ("MOD", "mod_revision"),
    ("VALUE", "value"),
    ("LEASE", "lease"),
)


def range_of(request: Any, strict: bool) -> Range:
    """A RangeRequest. `strict`: an unknown order makes it invalid, as an unknown target does."""
    order, target = request.sort_order, request.sort_target
    sort_order: SortOrder
    if not 0 <= target < len(_TARGETS) or (strict and not 0 <= order < len(_ORDERS)):
        sort_order, target = "INVALID", 0  # for such a target older servers crash
    elif 0 <= order < len(_ORDERS):
        sort_order = _ORDERS[order]
    else:
        sort_order, target = "ASCEND", 0
    return Range(
        request.key,
        request.range_end,
        request.revision,
        request.limit,
        request.keys_only,
        request.count_only,
        sort_order,
        _TARGETS[target],
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    )


def put_of(request: Any) -> Put:
    """A PutRequest."""
    return Put(
        request.key, request.value, request.lease, request.ignore_value, request.ignore_lease
    )


def _compare_of(compare: Any) -> Compare:
    key, range_end = compare.key, compare.range_end
    always = Compare(key, "VERSION", "GREATER", -1, range_end)
    if not 0 <= compare.target < len(_OPERANDS):
        holds = compare.result == 0 or compare.result >= len(_RESULTS)
        return always if holds else Compare(key, "VERSION", "LESS", 0, range_end)
    target, field = _OPERANDS[compare.target]
    if not 0 <= compare.result < len(_RESULTS):
        # True of everything, but a value of a key that isn't there never compares.
        return Compare(key, "VERSION", "GREATER", 0, range_end) if target == "VALUE" else always
    # Another field of the oneof reads as zero, as it does for etcd.
    operand = getattr(compare, field)
    return Compare(key, cast(Any, target), _RESULTS[compare.result], operand, range_end)


def txn_of(request: Any, strict: bool) -> Txn:
    """A TxnRequest; an operation that is none becomes None, which `check_txn` refuses."""
    return Txn(
        [_compare_of(compare) for compare in request.compare],
        [_op_of(op, strict) for op in request.success],
        [_op_of(op, strict) for op in request.failure],
    )


def _op_of(op: Any, strict: bool) -> Op:
    match op.WhichOneof("request"):
        case "request_range":
            return range_of(op.request_range, strict)
        case "request_put":
            return put_of(op.request_put)
        case "request_delete_range":
            return DeleteRange(op.request_delete_range.key, op.request_delete_range.range_end)
        case "request_txn":
            return txn_of(op.request_txn, strict)
    return cast(Op, None)


def writes(request: Any) -> bool:
    """Whether a TxnRequest goes through the log, as it does unless it only reads, and not in a
    transaction inside."""
    ops = (*request.success, *request.failure)
    return any(op.WhichOneof("request") != "request_range" for op in ops)


def grows(request: Any) -> bool:
    """Whether a TxnRequest could add something, as etcd's quota counts: puts of its own."""
    ops = (*request.success, *request.failure)
    return any(op.WhichOneof("request") == "request_put" for op in ops)


def fill_kv(message: Any, kv: KeyValue) -> None:
    """Let a mvccpb.KeyValue say `kv`.

    In place: messages that are made one by one and then copied in take four times as long.
    """
    message.key = kv.key
    message.value = kv.value
    message.create_revision = kv.create_revision
    message.mod_revision = kv.mod_revision
    message.version = kv.version
    message.lease = kv.lease


def range_response(result: RangeResult, header: Any) -> Any:
    """A RangeResponse. O(bytes)."""
    response = wire.RangeResponse(header=header, more=result.more, count=result.count)
    for kv in result.kvs:
        fill_kv(response.kvs.add(), kv)
    return response


def put_response(result: PutResult, header: Any, prev_kv: bool) -> Any:
    """A PutResponse; `prev_kv`: whether what was there was asked for."""
    response = wire.PutResponse(header=header)
    if prev_kv and result.prev_kv is not None:
        fill_kv(response.prev_kv, result.prev_kv)
    return response


def delete_response(result: DeleteResult, header: Any, prev_kv: bool) -> Any:
    """A DeleteRangeResponse; `prev_kv`: whether what was there was asked for."""
    response = wire.DeleteRangeResponse(header=header, deleted=result.deleted)
    for kv in result.prev_kvs if prev_kv else ():
        fill_kv(response.prev_kvs.add(), kv)
    return response


def txn_response(request: Any, result: TxnResult, header: Any) -> Any:
    """The TxnResponse to `request`. Headers inside have a revision only, those of transactions
    nothing at all."""
    ops = request.success if result.succeeded else request.failure
    return wire.TxnResponse(
        header=header,
        succeeded=result.succeeded,
        responses=[
            _response_op(op, response) for op, response in zip(ops, result.responses, strict=True)
        ],
    )


def _response_op(op: Any, result: PutResult | DeleteResult | RangeResult | TxnResult) -> Any:
    header = wire.ResponseHeader(revision=result.revision)
    match result:
        case PutResult():
            put = put_response(result, header, op.request_put.prev_kv)
            return wire.ResponseOp(response_put=put)
        case DeleteResult():
            deleted = delete_response(result, header, op.request_delete_range.prev_kv)
            return wire.ResponseOp(response_delete_range=deleted)
        case RangeResult():
            return wire.ResponseOp(response_range=range_response(result, header))
        case TxnResult():
            inner = txn_response(op.request_txn, result, wire.ResponseHeader())
            return wire.ResponseOp(response_txn=inner)
