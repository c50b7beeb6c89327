"""Compactions of the etcd below the API servers, and what may have expired for that reason."""

from __future__ import annotations

import asyncio

import grpc

from etcdsim import wire
from tests.interop.etcd_server import Writer

#: Where the API servers agree on who compacts next: its value is the revision, written before.
COMPACT_KEY = b"compact_rev_key"


class Compactor:
    """Compacts on demand; the API servers do so too, by themselves.

    `done`: every revision below it is gone.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._lock = asyncio.Lock()
        self._wanted = 0
        self.done = 0
        self.count = 0

    async def compact(self, revision: int) -> None:
        """Drop what is older than `revision`."""
        async with self._lock:
            self._wanted = max(self._wanted, revision)
            if self._wanted == self.done:
                return
            try:
                await asyncio.to_thread(self._writer.compact, self._wanted)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.OUT_OF_RANGE:  # An API server was first.
                    raise
            self.count += 1
            self.done = self._wanted

    async def asked(self) -> int:
        """Below this, a revision may have expired."""
        request = wire.RangeRequest(key=COMPACT_KEY)
        answer = await asyncio.to_thread(self._writer.ask, wire.RANGE, request)
        return max([self._wanted, *(int(kv.value) for kv in answer.kvs)])
