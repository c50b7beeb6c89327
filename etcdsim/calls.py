"""Calls: unary calls to an etcd, for what makes traffic on a real one. Needs grpcio."""

from __future__ import annotations

from typing import Any

from etcdsim import wire
from etcdsim.record import RecordError
from etcdsim.txn import DeleteRange, Put

CALL_TIMEOUT_S = 10.0


class Calls:
    """One connection to HOST:PORT. Threads: any.

    Raises RecordError in one line: no grpcio, or no etcd there.
    """

    def __init__(self, endpoint: str) -> None:
        try:
            import grpc  # noqa: PLC0415
        except ImportError:
            text = "traffic on an etcd needs grpcio: install btreecache[etcd]"
            raise RecordError(text) from None
        self.error: type[Exception] = grpc.RpcError
        self.last_error = ""  # what was said to the last call that failed
        self.channel: Any = grpc.insecure_channel(
            endpoint,
            options=[
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )
        if self.ask(wire.STATUS, wire.StatusRequest()) is None:
            self.channel.close()
            raise RecordError(f"no etcd answers at {endpoint}")

    def ask(self, method: wire.Method, request: Any) -> Any:
        """The answer, None if there was none or an error."""
        call = self.channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        try:
            return call(request, timeout=CALL_TIMEOUT_S)
        except self.error as error:
            details = getattr(error, "details", lambda: "")()
            self.last_error = " ".join(str(details).split())
            return None


def operation(op: Put | DeleteRange) -> Any:
    """A RequestOp of a Put without options or a DeleteRange."""
    if isinstance(op, Put):
        return wire.RequestOp(request_put=wire.PutRequest(key=op.key, value=op.value))
    request = wire.DeleteRangeRequest(key=op.key, range_end=op.range_end)
    return wire.RequestOp(request_delete_range=request)
