"""The Lock service, and queues for what one may have at a time: the oldest key below a name owns
it, and the keys hang on the leases of those who wait.

What etcd's own services do through a client of its (`v3lock`, `concurrency.Mutex`), done on the
member itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from etcdsim import services, wire
from etcdsim.errors import EtcdError
from etcdsim.model import prefix_range
from etcdsim.server.member import Handlers, Member
from etcdsim.server.writes import Writes

_SESSION_TTL_S = 60  # of the lease that a client gets who named none; nobody keeps it alive


def lock_handlers(member: Member, writes: Writes) -> Handlers:
    """What answers Lock and Unlock."""
    locking = _Locking(member, writes)
    return {
        services.LOCK: by_client(locking.lock),
        services.UNLOCK: by_client(locking.unlock),
    }


def by_client(answer: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    """The same, but errors lose their codes, as they do on their way through a client."""

    async def answered(request: Any) -> Any:
        try:
            return await answer(request)
        except EtcdError as error:
            raise EtcdError("UNKNOWN", error.text) from None

    return answered


class Queue:
    """Queues of keys on a member."""

    def __init__(self, member: Member, writes: Writes) -> None:
        self._member, self._writes = member, writes

    async def session(self, lease: int) -> int:
        """A lease; 0 means a new one. Raises EtcdError."""
        if lease:
            return lease
        request = services.LEASE_GRANT.request(TTL=_SESSION_TTL_S)
        return int((await self._writes.submit(services.LEASE_GRANT, request)).ID)

    async def join(self, key: bytes, lease: int, value: bytes = b"") -> Any:
        """Put a key on a lease, unless it is there -> the TxnResponse: `succeeded` if it wasn't,
        else the key as it is. Raises EtcdError."""
        put = wire.RequestOp(request_put=wire.PutRequest(key=key, value=value, lease=lease))
        get = wire.RequestOp(request_range=wire.RangeRequest(key=key))
        return await self.change(key, 0, put, get)

    async def change(self, key: bytes, created: int, *ops: Any) -> Any:
        """If `key` was created at a revision (0: isn't there) do the first operation, else the
        second, if there is one -> the TxnResponse. Raises EtcdError."""
        compare = wire.Compare(key=key, target="CREATE", create_revision=created)
        request = wire.TxnRequest(compare=[compare], success=ops[:1], failure=ops[1:])
        return await self._writes.submit(wire.TXN, request)

    async def wait(self, name: bytes, created: int) -> None:
        """Until no key below a name is older. O(waiting) for each write meanwhile."""
        changed = asyncio.Event()
        unsubscribe = self._member.subscribe(changed.set)
        try:
            while any(kv.create_revision < created for kv in self.keys(name)):
                changed.clear()
                await changed.wait()
        finally:
            unsubscribe()

    def keys(self, name: bytes) -> list[Any]:
        """The keys below a name, the one that owns it first."""
        kvs = self._member.model.range(*prefix_range(name + b"/")).kvs
        return sorted(kvs, key=lambda kv: kv.create_revision)

    def leave(self, key: bytes) -> asyncio.Future[Any]:
        """Delete a key."""
        return self._writes.submit(wire.DELETE_RANGE, wire.DeleteRangeRequest(key=key))


def key_of(name: bytes, lease: int) -> bytes:
    """The key below a name that hangs on a lease."""
    return b"%s/%x" % (name, lease)


def created_at(joined: Any) -> int:
    """The revision that made the key which `Queue.join` answered of."""
    if joined.succeeded:
        return int(joined.header.revision)
    return int(joined.responses[0].response_range.kvs[0].create_revision)


class _Locking:
    def __init__(self, member: Member, writes: Writes) -> None:
        self._member, self._queue = member, Queue(member, writes)

    async def lock(self, request: Any) -> Any:
        """Answered once the caller owns the lock; a caller that gives up leaves the queue."""
        lease = await self._queue.session(request.lease)
        key = key_of(request.name, lease)
        try:
            joined = await self._queue.join(key, lease)
            await self._queue.wait(request.name, created_at(joined))
        except asyncio.CancelledError:
            self._queue.leave(key)
            raise
        if not any(kv.key == key for kv in self._queue.keys(request.name)):
            raise EtcdError("UNKNOWN", "mutex: session is expired")
        return services.LOCK.response(header=self._member.header(), key=key)

    async def unlock(self, request: Any) -> Any:
        await self._queue.leave(request.key)
        return services.UNLOCK.response(header=self._member.header())
