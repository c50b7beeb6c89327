"""HashKV: one number for the whole history that a member can still tell, as etcd computes it.

CRC-32C over the bytes `key`, then over every record as it lies in etcd's backend: the revision as
8 bytes, `_`, 8 bytes, a `t` if it is a tombstone, then the serialised KeyValue (`mvcc/hash.go`).
Two members with the same hash at a revision hold the same history up to it.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from etcdsim import wire
from etcdsim.errors import ErrCompacted, ErrFutureRev
from etcdsim.keyindex import Revision
from etcdsim.model import KeyValue, Model

_CASTAGNOLI = 0x82F63B78
_KEPT_MAX = 10  # etcd's hashStorageMaxSize


@cache
def _tables() -> tuple[list[int], list[int]]:
    """What 16 bits do to the sum, as the last and as the first half of 32 bits."""
    by_byte: list[int] = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (_CASTAGNOLI if number & 1 else 0)  # noqa: PLW2901
        by_byte.append(number)
    last: list[int] = []
    for number in range(1 << 16):
        half = by_byte[number & 0xFF] ^ number >> 8
        last.append(by_byte[half & 0xFF] ^ half >> 8)
    first = [last[number & 0xFFFF] ^ number >> 16 for number in last]
    return first, last


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli). O(bytes), about 20 MB/s; the first call makes tables in 0.05 s."""
    first, last = _tables()
    whole = len(data) & ~3
    crc = 0xFFFFFFFF
    for word in memoryview(data[:whole]).cast("I") if whole else ():
        crc ^= word
        crc = first[crc & 0xFFFF] ^ last[crc >> 16]
    for byte in data[whole:]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def stored(main: int, sub: int, kv: KeyValue) -> bytes:
    """A record as it lies in etcd's backend: its key, then its value."""
    key = main.to_bytes(8, "big") + b"_" + sub.to_bytes(8, "big")
    if not kv.version:
        return key + b"t" + bytes(wire.KeyValue(key=kv.key).SerializeToString())
    value = wire.KeyValue(
        key=kv.key,
        create_revision=kv.create_revision,
        mod_revision=kv.mod_revision,
        version=kv.version,
        value=kv.value,
        lease=kv.lease,
    )
    return key + bytes(value.SerializeToString())


class Hash(NamedTuple):
    """`revision`: up to where; `compact_revision`: from where on the history is whole."""

    number: int
    revision: int
    compact_revision: int


def keeps_tombstones(version: tuple[int, int, int]) -> bool:
    """Whether a compaction of this version keeps the tombstones of its own revision."""
    return (3, 4, 34) <= version < (3, 5) or version >= (3, 5, 16)


class KvHashes:
    """The hashes of a model, with what the emulated version is known to do differently.

    From 3.5.5 on a member remembers the hashes of its last compactions and answers with those, also
    where a hash of now would differ: a compaction at 0 makes every question for revision 0, the
    newest one, get the hash of an empty history. One thread.
    """

    def __init__(self, model: Model, version: tuple[int, int, int]) -> None:
        self._model = model
        self._remembers = version >= (3, 5, 5)
        self._old = version < (3, 5)
        self._keeps_tombstones = keeps_tombstones(version)
        self.kept: list[Hash] = []  #: those remembered, by revision

    def before_compaction(self, revision: int) -> None:
        """To be called before the model is compacted at `revision`. O(records before it)."""
        if self._remembers:
            keep = set(self._model.alive_at(revision))
            if self._keeps_tombstones:
                written = self._model.records_at(revision)
                keep |= {(revision, sub) for sub, kv in enumerate(written) if not kv.version}
            hashed = self._hash(revision, keep)
            self.kept = sorted([*self.kept, hashed], key=lambda kept: kept.revision)
            del self.kept[:-_KEPT_MAX]

    def at(self, revision: int) -> Hash:
        """The hash up to `revision` (0: the newest one). O(records). Raises ErrCompacted,
        ErrFutureRev."""
        for kept in self.kept:
            if kept.revision == revision:
                return kept
        compacted = self._model.compact_revision
        if 0 < revision < compacted or (self._old and 0 < revision == compacted):
            raise ErrCompacted
        if revision > self._model.revision:
            raise ErrFutureRev
        at = revision or self._model.revision
        return self._hash(at, set(self._model.alive_at(at)))

    def _hash(self, revision: int, keep: set[Revision]) -> Hash:
        compacted = self._model.compact_revision
        parts = [b"key"]
        for main, sub, kv in self._model.records():
            if main > revision:
                break
            # What the compaction leaves is only counted if it is visible; unless nothing is.
            if main <= compacted and keep and (main, sub) not in keep:
                continue
            if main == compacted and not kv.version and self._keeps_tombstones:
                continue
            parts.append(stored(main, sub, kv))
        return Hash(crc32c(b"".join(parts)), revision, compacted)
