"""HashKV: one number for the whole history that a member can still tell, as etcd computes it.

CRC-32C over the bytes `key`, then over every record as it lies in etcd's backend: the revision as
8 bytes, `_`, 8 bytes, a `t` if it is a tombstone, then the serialised KeyValue (`mvcc/hash.go`).
Two members with the same hash at a revision hold the same history up to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from etcdsim import wire
from etcdsim.checksum import crc32c
from etcdsim.errors import ErrCompacted, ErrFutureRev
from etcdsim.keyindex import Revision
from etcdsim.model import KeyValue, Model

_KEPT_MAX = 10  # etcd's hashStorageMaxSize
#: A slice of the work takes about a millisecond.
_SLICE_BYTES, _RECORD_COSTS_BYTES = 256 * 1024, 1024


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


class Hashing:
    """A hash in the making: it holds the history that it is of until it is done. One thread.

    `records`: as they lie in the backend; what isn't to be counted is empty.
    """

    def __init__(self, records: Iterable[bytes], revision: int, compact_revision: int) -> None:
        self._done: Hash | None = None
        self._slices = self._run(records, revision, compact_revision)

    @classmethod
    def of(cls, known: Hash) -> Hashing:
        """One that is done."""
        hashing = cls((), known.revision, known.compact_revision)
        hashing._done = known
        return hashing

    def _run(self, records: Iterable[bytes], revision: int, compacted: int) -> Iterator[None]:
        number = crc32c(b"key")
        parts: list[bytes] = []
        size = 0
        for record in records:
            parts.append(record)
            size += len(record) + _RECORD_COSTS_BYTES
            if size >= _SLICE_BYTES:
                number = crc32c(b"".join(parts), number)
                parts, size = [], 0
                yield
        self._done = Hash(crc32c(b"".join(parts), number), revision, compacted)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self._done is not None

    def step(self) -> None:
        """Do a slice of the work, about a millisecond."""
        next(self._slices, None)

    def finish(self) -> Hash:
        """The hash, at once. O(records left)."""
        while self._done is None:
            self.step()
        return self._done


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
        self._kept: list[tuple[int, Hashing]] = []  # those remembered, by revision

    def before_compaction(self, revision: int) -> None:
        """To be called before the model is compacted at `revision`. The hash is still to be made,
        of what the store holds now. O(keys)."""
        if self._remembers:
            keep = self._alive_at(revision)
            if self._keeps_tombstones:
                written = self._model.records_at(revision)
                keep |= {(revision, sub) for sub, kv in enumerate(written) if not kv.version}
            self._keep(revision, self._hashing(revision, keep))

    def _keep(self, revision: int, hashing: Hashing) -> None:
        self._kept = sorted([*self._kept, (revision, hashing)], key=lambda kept: kept[0])
        del self._kept[:-_KEPT_MAX]

    @property
    def unfinished(self) -> Hashing | None:
        """A hash of a compaction that is still to be made, if there is one."""
        return next((hashing for _, hashing in self._kept if not hashing.is_done), None)

    def kept(self) -> list[Hash]:
        """The hashes remembered, by revision. O(records that are still to be hashed)."""
        return [hashing.finish() for _, hashing in self._kept]

    def restore(self, kept: Iterable[Hash]) -> None:
        """Remember what another one did."""
        self._kept = [(known.revision, Hashing.of(known)) for known in kept]

    def at(self, revision: int) -> Hashing:
        """The hash up to `revision` (0: the newest one), of what the store holds now. O(keys).
        Raises ErrCompacted, ErrFutureRev."""
        for known, hashing in self._kept:
            if known == revision:
                return hashing
        compacted = self._model.compact_revision
        if 0 < revision < compacted or (self._old and 0 < revision == compacted):
            raise ErrCompacted
        if revision > self._model.revision:
            raise ErrFutureRev
        at = revision or self._model.revision
        return self._hashing(at, self._alive_at(at))

    def _alive_at(self, revision: int) -> set[Revision]:
        return set(self._model.alive_at(revision))

    def _hashing(self, revision: int, keep: set[Revision]) -> Hashing:
        compacted = self._model.compact_revision
        records = self._counted(self._model.records(), revision, compacted, keep)
        return Hashing(records, revision, compacted)

    def _counted(
        self,
        records: Iterator[tuple[int, int, KeyValue]],
        revision: int,
        compacted: int,
        keep: set[Revision],
    ) -> Iterator[bytes]:
        for main, sub, kv in records:
            if main > revision:
                return
            # What the compaction leaves is only counted if it is visible; unless nothing is.
            hidden = main <= compacted and keep and (main, sub) not in keep
            if hidden or (main == compacted and not kv.version and self._keeps_tombstones):
                yield b""
            else:
                yield stored(main, sub, kv)
