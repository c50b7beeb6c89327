"""A checkpoint: all that a member has to know after a restart, as records of a log.

First a head, then the store's records in order, some thousand to a record of the log, then none.
MessagePack throughout, so reading one makes plain data and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from etcdsim import services
from etcdsim.auth import Auth, Permission, User
from etcdsim.errors import DamagedLogError, DataDirError, ErrLeaseNotFound
from etcdsim.hash_kv import Hash
from etcdsim.lease import Lessor
from etcdsim.model import KeyValue
from etcdsim.server.member import Member

FORMAT = 1
_PART_BYTES = 1024 * 1024

#: (main, sub, key, value, create_revision, version, lease)
_Row = tuple[int, int, bytes, bytes, int, int, int]


class _Stamp(msgspec.Struct):
    """What every format says of itself."""

    format: int


class Head(msgspec.Struct, kw_only=True):
    """All but the store's records."""

    format: int = FORMAT
    version: str
    revision: int
    compact_revision: int
    raft_index: int
    db_bytes: int
    hashes: list[Hash]
    leases: list[tuple[int, int]]  # id, TTL in seconds; the one that ends first in front
    alarms: list[tuple[int, int]]
    users: dict[str, list[str]]
    roles: dict[str, bytes]
    auth_revision: int
    passwords: dict[str, str] = {}
    auth_enabled: bool = False


_rows = msgspec.msgpack.Decoder(list[_Row])


def checkpoint(member: Member, lessor: Lessor) -> Iterator[bytes]:
    """The records of a checkpoint of now, lazily, whatever is written meanwhile.

    Only the call reads the member, O(records); the work comes with the iteration, which may be
    another thread's.
    """
    auth = member.auth
    head = Head(
        version=member.version_text,
        revision=member.model.revision,
        compact_revision=member.model.compact_revision,
        raft_index=member.raft_index,
        db_bytes=member.db_bytes,
        hashes=member.hashes.kept(),
        leases=[(lease.lease_id, lease.ttl_s) for lease in lessor.leases()],
        alarms=sorted(member.alarms),
        users={name: user.roles for name, user in auth.users.items()},
        roles={name: _packed(auth.roles[name]) for name in auth.roles},
        auth_revision=auth.revision,
        passwords={name: user.password for name, user in auth.users.items()},
        auth_enabled=auth.enabled,
    )
    return _written(msgspec.msgpack.encode(head), member.model.records())


def _packed(permissions: list[Permission]) -> bytes:
    perm = [{"permType": p.kind, "key": p.key, "range_end": p.range_end} for p in permissions]
    return bytes(services.ROLE_GET.response(perm=perm).SerializeToString())


def _written(head: bytes, records: Iterable[tuple[int, int, KeyValue]]) -> Iterator[bytes]:
    yield head
    rows: list[_Row] = []
    size = 0
    for main, sub, kv in records:
        rows.append((main, sub, kv.key, kv.value, kv.create_revision, kv.version, kv.lease))
        size += len(kv.key) + len(kv.value) + 32
        if size >= _PART_BYTES:
            yield msgspec.msgpack.encode(rows)
            rows, size = [], 0
    if rows:
        yield msgspec.msgpack.encode(rows)
    yield msgspec.msgpack.encode([])


def restore(member: Member, lessor: Lessor, records: Iterator[bytes]) -> None:
    """Let a new member be what the checkpoint tells that `records` begins with; the rest is left.

    Leases last their whole TTL from now on. Raises DataDirError for one of another version of etcd
    or of a newer format, DamagedLogError.
    """
    try:
        head = _head(next(records, b""), member.version_text)
        for lease_id, ttl_s in head.leases:
            lessor.grant(ttl_s, lease_id)
        member.model.restore(_kvs(records), head.revision, head.compact_revision)
    except (msgspec.MsgspecError, ErrLeaseNotFound):
        raise DamagedLogError("no log of etcdsim, or its checkpoint is damaged") from None
    member.raft_index, member.db_bytes = head.raft_index, head.db_bytes
    member.hashes.restore(head.hashes)
    member.alarms |= set(head.alarms)
    _restore_auth(member.auth, head)


def _restore_auth(auth: Auth, head: Head) -> None:
    for name, roles in head.users.items():
        auth.users[name] = User(head.passwords.get(name, ""), roles)
    for name, packed in head.roles.items():
        auth.roles[name] = [
            Permission(perm.key, perm.range_end, perm.permType)
            for perm in services.ROLE_GET.response.FromString(packed).perm
        ]
    auth.revision, auth.enabled = head.auth_revision, head.auth_enabled


def _head(data: bytes, version: str) -> Head:
    written = msgspec.msgpack.decode(data, type=_Stamp).format
    if written != FORMAT:
        text = f"written in format {written}; this etcdsim knows up to {FORMAT}"
        raise DataDirError(text)
    head = msgspec.msgpack.decode(data, type=Head)
    if head.version != version:
        raise DataDirError(f"written as etcd {head.version}, not {version}")
    return head


def _kvs(records: Iterator[bytes]) -> Iterator[tuple[int, int, KeyValue]]:
    while rows := _rows.decode(next(records, b"")):
        for main, sub, key, value, created, version, lease in rows:
            yield main, sub, KeyValue(key, value, created, main, version, lease)
