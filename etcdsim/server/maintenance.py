"""Maintenance, Cluster and health: what operators and monitors ask of a member."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from etcdsim import services, wire
from etcdsim.errors import ErrBadLeaderTransferee, ErrMemberNotFound, EtcdError
from etcdsim.hash_kv import stored
from etcdsim.server.hashing import finished
from etcdsim.server.member import Call, Handlers, Member

MEMBER_NAME = "default"  # etcd's
PEER_URL = "http://localhost:2380"  # etcd's default; nobody listens there
_BLOB_BYTES = 32 * 1024
_SECTOR_BYTES = 512
_SNAPSHOT_HEAD = b"etcdsim snapshot 1\n"
_SERVING, _SERVICE_UNKNOWN = 1, 3
_ALARM_NAMES = ("NONE", "NOSPACE", "CORRUPT")


def maintenance_handlers(member: Member) -> Handlers:
    """What answers the methods of Maintenance, Cluster and grpc.health.v1.Health."""
    service = _Maintenance(member)
    return {
        wire.STATUS: service.status,
        services.ALARM: service.alarm,
        services.DEFRAGMENT: lambda _: services.DEFRAGMENT.response(),
        services.HASH: service.hash,
        services.HASH_KV: service.hash_kv,
        services.SNAPSHOT: service.snapshot,
        services.MOVE_LEADER: service.move_leader,
        services.MEMBER_LIST: service.member_list,
        services.MEMBER_ADD: service.member_add,
        services.MEMBER_REMOVE: service.member_remove,
        services.MEMBER_UPDATE: service.member_update,
        services.HEALTH_CHECK: service.health,
        services.HEALTH_WATCH: service.watch_health,
    }


class _Maintenance:
    def __init__(self, member: Member) -> None:
        self._member = member

    def status(self, _: Any) -> Any:
        member = self._member
        response = wire.StatusResponse(
            header=member.header(),
            version=member.version_text,
            dbSize=member.db_size,
            dbSizeInUse=member.db_size,
            leader=member.member_id,
            raftIndex=member.raft_index,
            raftAppliedIndex=member.raft_index,
            raftTerm=member.raft_term,
            errors=[
                f"memberID:{owner} alarm:{_ALARM_NAMES[kind]} " for kind, owner in member.alarms
            ],
        )
        if member.version >= (3, 6):
            response.storageVersion = f"{member.version[0]}.{member.version[1]}.0"
            response.dbSizeQuota = 2 * 1024**3
        return response

    def alarm(self, request: Any) -> Any:
        """GET, ACTIVATE, DEACTIVATE; an activated alarm acts at once."""
        member, kind = self._member, request.alarm
        named = (kind, request.memberID)
        found: list[tuple[int, int]] = []
        if request.action == 0:
            found = sorted(raised for raised in member.alarms if kind in (0, raised[0]))
        elif request.action == 1 and 0 < kind < len(_ALARM_NAMES):
            member.alarms.add(named)
            found = [named]
        elif request.action == 2 and named in member.alarms:
            member.alarms.remove(named)
            found = [named]
        member.raft_index += 1
        response = services.ALARM.response()
        for raised, owner in found:
            response.alarms.add(memberID=owner, alarm=raised)
        if member.version >= (3, 5):
            response.header.CopyFrom(member.header())
        return response

    async def hash(self, _: Any) -> Any:
        header = self._member.header()
        hashed = await finished(self._member.hashes.at(self._member.model.revision))
        return services.HASH.response(header=header, hash=hashed.number)

    async def hash_kv(self, request: Any) -> Any:
        header = self._member.header()
        hashed = await finished(self._member.hashes.at(request.revision))
        response = services.HASH_KV.response(
            header=header,
            hash=hashed.number,
            compact_revision=hashed.compact_revision,
        )
        if self._member.version >= (3, 6):
            response.hash_revision = hashed.revision
        return response

    async def snapshot(self, _: Any, call: Call) -> None:
        """The records in a format of our own: a bolt file is more than a simulation owes."""
        data = _SNAPSHOT_HEAD + b"".join(self._records())
        data += bytes(-len(data) % _SECTOR_BYTES)  # etcdctl finds the digest by that
        for start in range(0, len(data), _BLOB_BYTES):
            blob = data[start : start + _BLOB_BYTES]
            await call.write(
                services.SNAPSHOT.response(remaining_bytes=len(data) - start - len(blob), blob=blob)
            )
        await call.write(services.SNAPSHOT.response(blob=sha256(data).digest()))

    def _records(self) -> Iterator[bytes]:
        for main, sub, kv in self._member.model.records():
            record = stored(main, sub, kv)
            yield len(record).to_bytes(4, "big") + record

    def move_leader(self, _: Any) -> Any:
        raise ErrBadLeaderTransferee

    def _cluster_header(self) -> Any:
        return self._member.header(0)

    def member_list(self, _: Any) -> Any:
        member = self._member
        response = services.MEMBER_LIST.response(header=self._cluster_header())
        response.members.add(
            ID=member.member_id,
            name=MEMBER_NAME,
            peerURLs=[PEER_URL],
            clientURLs=[member.client_url],
        )
        return response

    def member_add(self, _: Any) -> Any:
        raise EtcdError("UNIMPLEMENTED", "etcdsim: a cluster of one member stays one")

    def member_remove(self, request: Any) -> Any:
        if self._member.member_id != request.ID:
            raise ErrMemberNotFound
        raise EtcdError("UNIMPLEMENTED", "etcdsim: a cluster of one member stays one")

    def member_update(self, request: Any) -> Any:
        if self._member.member_id != request.ID:
            raise ErrMemberNotFound
        raise EtcdError("UNIMPLEMENTED", "etcdsim: a cluster of one member stays one")

    def health(self, request: Any) -> Any:
        if request.service:
            raise EtcdError("NOT_FOUND", "unknown service")
        return services.HEALTH_CHECK.response(status=_SERVING)

    async def watch_health(self, request: Any, call: Call) -> None:
        """It never changes: one answer, and then nothing until the client ends it."""
        status = _SERVICE_UNKNOWN if request.service else _SERVING
        await call.write(services.HEALTH_WATCH.response(status=status))
        await asyncio.Event().wait()
