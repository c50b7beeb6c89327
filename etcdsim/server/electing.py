"""The Election service: the oldest key below a name is the leader's, its value what he proclaims.

What etcd's own service does through a client of its (`v3election`, `concurrency.Election`), done on
the member itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from etcdsim import services, wire
from etcdsim.errors import EtcdError
from etcdsim.model import KeyValue, prefix_range
from etcdsim.server.locking import Queue, by_client, created_at, key_of
from etcdsim.server.member import Call, Handlers, Member
from etcdsim.server.messages import fill_kv
from etcdsim.server.writes import Writes

_LeaderKey = services.message("v3electionpb.LeaderKey")


def election_handlers(member: Member, writes: Writes) -> Handlers:
    """What answers the methods of Election."""
    electing = _Electing(member, writes)
    return {
        services.CAMPAIGN: by_client(electing.campaign),
        services.PROCLAIM: by_client(electing.proclaim),
        services.LEADER: electing.leader,
        services.OBSERVE: electing.observe,
        services.RESIGN: by_client(electing.resign),
    }


class _Electing:
    def __init__(self, member: Member, writes: Writes) -> None:
        self._member, self._queue = member, Queue(member, writes)

    async def campaign(self, request: Any) -> Any:
        """Answered once the caller leads; a caller that gives up leaves the queue."""
        lease = await self._queue.session(request.lease)
        key = key_of(request.name, lease)
        try:
            joined = await self._queue.join(key, lease, request.value)
            leader = _LeaderKey(name=request.name, key=key, lease=lease, rev=created_at(joined))
            if not joined.succeeded and _value_of(joined) != request.value:
                await self._proclaim(leader, request)
            await self._queue.wait(request.name, leader.rev)
        except asyncio.CancelledError:
            self._queue.leave(key)
            raise
        return services.CAMPAIGN.response(header=joined.header, leader=leader)

    async def _proclaim(self, leader: Any, request: Any) -> Any:
        lease = await self._queue.session(leader.lease)
        put = wire.PutRequest(key=leader.key, value=request.value, lease=lease)
        op = wire.RequestOp(request_put=put)
        done = await self._queue.change(leader.key, leader.rev, op)
        if not done.succeeded:
            raise EtcdError("UNKNOWN", "election: not leader")
        return done.header

    async def proclaim(self, request: Any) -> Any:
        check_leader(request)
        header = await self._proclaim(request.leader, request)
        return services.PROCLAIM.response(header=header)

    async def resign(self, request: Any) -> Any:
        check_leader(request)
        await self._queue.session(request.leader.lease)  # etcd's has no other use for it either
        delete = wire.DeleteRangeRequest(key=request.leader.key)
        op = wire.RequestOp(request_delete_range=delete)
        done = await self._queue.change(request.leader.key, request.leader.rev, op)
        return services.RESIGN.response(header=done.header)

    def leader(self, request: Any) -> Any:
        keys = self._queue.keys(request.name)
        if not keys:
            raise EtcdError("UNKNOWN", "election: no leader")
        return self._response(self._member.header(), keys[0])

    def _response(self, header: Any, kv: KeyValue) -> Any:
        response = services.LEADER.response(header=header)
        fill_kv(response.kv, kv)
        return response

    async def observe(self, request: Any, call: Call) -> None:
        """Who leads, and everything that he proclaims, then who leads after him, until the client
        ends it or a compaction overtakes it. Who may not know gets the end at once."""
        with contextlib.suppress(EtcdError):
            self._member.permit(services.LEADER, request, call.metadata)
            await self._observe(request.name, call)

    async def _observe(self, name: bytes, call: Call) -> None:
        changed = asyncio.Event()
        unsubscribe = self._member.subscribe(changed.set)
        try:
            while True:
                await self._observe_one(name, call, changed)
        finally:
            unsubscribe()

    async def _observe_one(self, name: bytes, call: Call, changed: asyncio.Event) -> None:
        """The leader of now, or the next one, until his key is deleted."""
        model, revision = self._member.model, self._member.model.revision
        led = self._queue.keys(name)
        while not led:
            revision = await self._next(revision, changed)
            events = model.events_at(revision, *prefix_range(name + b"/"))
            led = [event.kv for event in events if event.kind == "put"]
        await call.write(self._response(self._member.header(revision), led[0]))
        while True:
            revision = await self._next(revision, changed)
            for event in model.events_at(revision, led[0].key, b""):
                if event.kind == "delete":
                    return
                await call.write(self._response(self._member.header(revision), event.kv))

    async def _next(self, revision: int, changed: asyncio.Event) -> int:
        """The revision behind this one, once there is one."""
        while revision >= self._member.model.revision:
            changed.clear()
            await changed.wait()
        return revision + 1


def _value_of(joined: Any) -> Any:
    """What the key says that was there already."""
    return joined.responses[0].response_range.kvs[0].value


def check_leader(request: Any) -> None:
    """Raises EtcdError if a request doesn't say who leads."""
    if not request.HasField("leader"):
        raise EtcdError("UNKNOWN", '"leader" field must be provided')
