"""The KV service: Range, RangeStream, Put, DeleteRange, Txn, Compact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from etcdsim import services, wire
from etcdsim.errors import EtcdError
from etcdsim.server.member import Call, Handlers, Member
from etcdsim.server.messages import (
    delete_response,
    fill_kv,
    grows,
    put_of,
    put_response,
    range_of,
    range_response,
    txn_of,
    txn_response,
    writes,
)
from etcdsim.txn import Range, check_put, check_range, check_txn

_STREAM_KEYS_FIRST = 10  # in the first part of a RangeStream
_STREAM_BYTES = 1_572_864  # what a part of it should come near


def kv_handlers(member: Member) -> Handlers:
    """What answers the methods of KV; RangeStream from 3.7 on."""
    kv = _KV(member)
    handlers: Handlers = {
        wire.RANGE: kv.range,
        wire.PUT: kv.put,
        wire.DELETE_RANGE: kv.delete_range,
        wire.TXN: kv.txn,
        wire.COMPACT: kv.compact,
    }
    if member.version >= (3, 7):
        handlers[services.RANGE_STREAM] = kv.range_stream
    return handlers


class _KV:
    def __init__(self, member: Member) -> None:
        self._member = member
        self._strict = member.version >= (3, 6)

    def range(self, request: Any) -> Any:
        result = self._member.model.do_range(range_of(request, self._strict))
        return range_response(result, self._member.header(result.revision))

    def put(self, request: Any) -> Any:
        put = put_of(request)
        check_put(put)
        self._member.propose(request, adds=True)
        result = self._member.model.do_put(put)
        return put_response(result, self._member.header(), request.prev_kv)

    def delete_range(self, request: Any) -> Any:
        model = self._member.model
        if request.key:
            self._member.propose(request)
        result = model.delete_range(request.key, request.range_end)
        return delete_response(result, self._member.header(), request.prev_kv)

    def txn(self, request: Any) -> Any:
        txn = txn_of(request, self._strict)
        check_txn(txn)
        if writes(request):
            self._member.propose(request, adds=grows(request))
        result = self._member.model.do_txn(txn)
        return txn_response(request, result, self._member.header())

    def compact(self, request: Any) -> Any:
        self._member.propose(request)
        self._member.compact(request.revision)
        return wire.CompactionResponse(header=self._member.header())

    async def range_stream(self, request: Any, call: Call) -> None:
        """Parts of a range at one revision, in key order; what belongs to the whole comes last."""
        op = range_of(request, self._strict)
        check_range(op)
        if (op.sort_order, op.sort_target) not in (("NONE", "KEY"), ("ASCEND", "KEY")):
            text = "RangeStream does not support custom sort orders"
            raise EtcdError("UNIMPLEMENTED", text)
        if op.is_filtered:
            raise EtcdError("UNIMPLEMENTED", "RangeStream does not support revision filters")
        model = self._member.model
        header = self._member.header()
        op = replace(op, revision=op.revision if op.revision > 0 else model.revision)
        response = services.RANGE_STREAM.response
        whole = model.do_range(replace(op, count_only=True))
        if op.count_only:
            last = range_response(whole, header)
            await call.write(response(range_response=last))
            return
        await self._send_parts(op, header, whole.count, call.write)

    async def _send_parts(
        self, op: Range, header: Any, count: int, write: Callable[[Any], Any]
    ) -> None:
        response = services.RANGE_STREAM.response
        left, keys, part = op.limit if op.limit > 0 else count, _STREAM_KEYS_FIRST, op
        while True:
            page = self._member.model.do_range(replace(part, limit=min(keys, left)))
            left -= len(page.kvs)
            more = page.count > len(page.kvs)
            answer = wire.RangeResponse()
            for kv in page.kvs:
                fill_kv(answer.kvs.add(), kv)
            if not (more and left):
                answer.header.CopyFrom(header)
                answer.more, answer.count = more, count
                await write(response(range_response=answer))
                return
            await write(response(range_response=answer))
            size = answer.ByteSize()
            if size < _STREAM_BYTES // 2:
                keys *= 2
            elif size > _STREAM_BYTES * 2:
                keys = max(1, keys // 2)
            part = replace(part, key=page.kvs[-1].key + b"\0")
