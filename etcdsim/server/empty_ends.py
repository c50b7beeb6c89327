"""A `range_end` that is on the wire, and empty.

To etcd that is not the same as none: its parser makes of it an empty slice, of none nil, and for a
range the one means every key from `key` on, which clients write as `\\0`. It only is so where a
request is done as it came. What goes through the log of a cluster is written anew on its way, and
there an empty field is left out; a watch takes the two for the same.
"""

from __future__ import annotations

from typing import Any

from etcdsim import wire
from etcdsim.model import ALL
from etcdsim.server.messages import writes

#: The same messages, as far as they matter here: a field of a choice tells whether it was given.
_GIVEN = wire.Messages("""
given.RangeRequest
    end.range_end 2 bytes
given.Compare
    end.range_end 64 bytes
given.RequestOp
    request_range 1 RangeRequest
given.TxnRequest
    compare 1 *Compare
    success 2 *RequestOp
    failure 3 *RequestOp
""")
_RangeGiven, _TxnGiven = _GIVEN["given.RangeRequest"], _GIVEN["given.TxnRequest"]


def read_empty_ends(request: Any, data: bytes) -> None:
    """Let a request, parsed from `data`, say what an empty end means. O(bytes)."""
    if isinstance(request, wire.RangeRequest):
        _read(request, _RangeGiven.FromString(data))
    elif isinstance(request, wire.TxnRequest) and not writes(request):
        given = _TxnGiven.FromString(data)
        for compare, its in zip(request.compare, given.compare, strict=True):
            _read(compare, its)
        for ops, theirs in ((request.success, given.success), (request.failure, given.failure)):
            for op, its in zip(ops, theirs, strict=True):
                _read(op.request_range, its.request_range)


def _read(ranged: Any, given: Any) -> None:
    if given.HasField("range_end") and not given.range_end:
        ranged.range_end = ALL
