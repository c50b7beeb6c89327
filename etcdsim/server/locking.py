"""The Lock service: a lock is the oldest key below a name; keys hang on the leases of their owners.

What etcd's own service does through a client of its (`v3lock`, `concurrency.Mutex`), done on the
member itself.
"""

from __future__ import annotations

import asyncio
from typing import Any

from etcdsim import services, wire
from etcdsim.errors import EtcdError
from etcdsim.lease import Lessor
from etcdsim.model import prefix_range
from etcdsim.server.member import Handlers, Member
from etcdsim.server.writes import Writes

_SESSION_TTL_S = 60  # of the lease that a lock gets whose client named none
_KEEP_ALIVE_INTERVAL_S = 20.0


def lock_handlers(member: Member, lessor: Lessor, writes: Writes) -> Handlers:
    """What answers Lock and Unlock. `lessor`: the one of the member's model."""
    locking = _Locking(member, lessor, writes)
    return {services.LOCK: locking.lock, services.UNLOCK: locking.unlock}


class _Locking:
    def __init__(self, member: Member, lessor: Lessor, writes: Writes) -> None:
        self._member, self._lessor, self._writes = member, lessor, writes

    async def lock(self, request: Any) -> Any:
        """Answered once the caller owns the lock; a caller that gives up leaves the queue."""
        lease = request.lease or await self._new_lease()
        prefix = request.name + b"/"
        key = prefix + b"%x" % lease
        absent = wire.Compare(key=key, target="CREATE", create_revision=0)
        put = wire.RequestOp(request_put=wire.PutRequest(key=key, lease=lease))
        try:
            await self._writes.submit(wire.TXN, wire.TxnRequest(compare=[absent], success=[put]))
            await self._wait(prefix, key, 0 if request.lease else lease)
        except asyncio.CancelledError:
            self._delete(key)
            raise
        return services.LOCK.response(header=self._member.header(), key=key)

    async def _new_lease(self) -> int:
        request = services.LEASE_GRANT.request(TTL=_SESSION_TTL_S)
        return int((await self._writes.submit(services.LEASE_GRANT, request)).ID)

    async def _wait(self, prefix: bytes, key: bytes, own_lease: int) -> None:
        """Until `key` is the oldest one with the prefix. O(waiting) for each write meanwhile."""
        changed = asyncio.Event()
        unsubscribe = self._member.subscribe(changed.set)
        try:
            while True:
                changed.clear()
                kvs = self._member.model.range(*prefix_range(prefix), keys_only=True).kvs
                if not any(kv.key == key for kv in kvs):
                    raise EtcdError("UNKNOWN", "mutex: session is expired")
                if min(kvs, key=lambda kv: kv.create_revision).key == key:
                    return
                try:
                    await asyncio.wait_for(changed.wait(), _KEEP_ALIVE_INTERVAL_S)
                except TimeoutError:
                    if own_lease:
                        self._lessor.keep_alive(own_lease)
        finally:
            unsubscribe()

    def _delete(self, key: bytes) -> asyncio.Future[Any]:
        return self._writes.submit(wire.DELETE_RANGE, wire.DeleteRangeRequest(key=key))

    async def unlock(self, request: Any) -> Any:
        await self._delete(request.key)
        return services.UNLOCK.response(header=self._member.header())
