"""Model: etcd's multi-version key-value store. Pure: no I/O, no clock, no randomness.

The state is etcd's own: an ordered index of keys, each with generations of revisions, over a log of
what every revision wrote. A range at a revision walks the index and looks each key's revision up;
there is no snapshot of anything. That is on purpose: this is the truth that snapshots are checked
against. Leases, nested transactions and sorting are not here.

One thread at a time; a lazy `scan` survives writes and compactions that happen between its items.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from BTrees.OOBTree import OOBTree

from etcdsim.errors import ErrCompacted, ErrEmptyKey, ErrFutureRev
from etcdsim.keyindex import KeyIndex, Revision
from etcdsim.txn import Compare, DeleteRange, Op, Put, Range, bounds, check_txn, holds

ALL = b"\0"  # as a key: the smallest one there can be; as a range end: no end


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key at a revision. A tombstone has only `key` and `mod_revision`; its version is 0."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `prev_kv` is what was there before, where it was asked for and still known."""

    kind: Literal["put", "delete"]
    kv: KeyValue
    prev_kv: KeyValue | None = None


class RangeResult(NamedTuple):
    """`count`: keys in the range at that revision, whatever the limit. `revision`: the store's."""

    kvs: list[KeyValue]
    more: bool
    count: int  # type: ignore[assignment]  # etcd's name for it, which tuples use for a method
    revision: int


class PutResult(NamedTuple):
    """The revision that the put made, and what the key had before, None if it was not there."""

    revision: int
    prev_kv: KeyValue | None


class DeleteResult(NamedTuple):
    """`prev_kvs`: what was deleted, in key order."""

    revision: int
    deleted: int
    prev_kvs: list[KeyValue]


class TxnResult(NamedTuple):
    """`responses`: one for each operation of the branch that was taken."""

    succeeded: bool
    responses: list[PutResult | DeleteResult | RangeResult]
    revision: int


def prefix_end(prefix: bytes) -> bytes:
    """The range_end that makes a range of every key with `prefix`; for b"" or all 0xff: no end."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else ALL


def prefix_range(prefix: bytes) -> tuple[bytes, bytes]:
    """(key, range_end) of every key with `prefix`; of every key for b""."""
    return prefix or ALL, prefix_end(prefix)


# Takes the place of a record that was compacted out of a revision whose other records stay.
_DROPPED = KeyValue(b"", b"", 0, 0, 0)


class Model:
    """The store. A put costs O(log keys)."""

    def __init__(self) -> None:
        self._index: Any = OOBTree()  # key -> KeyIndex
        self._log: dict[int, Sequence[KeyValue]] = {}  # main -> its records by sub, ascending
        self._revision = 1  # of the empty store, as in etcd
        self._compact_revision = -1
        self._keys_changed = 0  # how often a key entered or left the index
        self._key_bytes_max = 0  # of every key there ever was

    @property
    def revision(self) -> int:
        """The current revision."""
        return self._revision

    @property
    def compact_revision(self) -> int:
        """The lowest revision that can be read; -1 before the first compaction."""
        return self._compact_revision

    # Writes

    def put(self, key: bytes, value: bytes) -> PutResult:
        """Set `key`: one revision. Raises ErrEmptyKey."""
        if not key:
            raise ErrEmptyKey
        main = self._revision + 1
        kv, prev_kv = self._put(key, value, main, 0)
        self._log[main] = (kv,)
        self._revision = main
        return PutResult(main, prev_kv)

    def delete_range(self, key: bytes, range_end: bytes = b"") -> DeleteResult:
        """Delete the keys of the range: one revision, or none if there are no such keys."""
        if not key:
            raise ErrEmptyKey
        return self.delete_keys(self._live_keys(key, range_end, self._revision))

    def delete_keys(self, keys: Iterable[bytes]) -> DeleteResult:
        """Delete these keys at one revision, in key order: what the end of a lease does. Keys that
        don't exist are passed over."""
        main, changes = self._revision + 1, list[KeyValue]()
        prev_kvs = self._delete_all(sorted(set(keys)), main, changes)
        self._commit(main, changes)
        return DeleteResult(self._revision, len(prev_kvs), prev_kvs)

    def txn(
        self, compares: Sequence[Compare], success: Sequence[Op], failure: Sequence[Op] = ()
    ) -> TxnResult:
        """If every compare holds do `success`, else `failure`: at most one revision.

        Ranges see the writes before them. Raises before anything was written: ErrTooManyOps,
        ErrEmptyKey, ErrKeyNotFound, ErrDuplicateKey; ErrCompacted and ErrFutureRev for a range of
        the branch that is taken, judged by the revision before the transaction.
        """
        check_txn(compares, success, failure)
        succeeded = all(
            holds(compare, list(self.scan(compare.key, compare.range_end))) for compare in compares
        )
        branch = success if succeeded else failure
        for op in branch:
            if isinstance(op, Range):
                self._readable(op.revision, self._revision)
        main, changes = self._revision + 1, list[KeyValue]()
        self._log[main] = changes  # so that ranges of this transaction find the records
        responses = [self._do(op, main, changes) for op in branch]
        self._commit(main, changes)
        return TxnResult(succeeded, responses, self._revision)

    def _do(
        self, op: Op, main: int, changes: list[KeyValue]
    ) -> PutResult | DeleteResult | RangeResult:
        match op:
            case Put(key, value):
                kv, prev_kv = self._put(key, value, main, len(changes))
                changes.append(kv)
                return PutResult(main, prev_kv)
            case DeleteRange(key, range_end):
                keys = self._live_keys(key, range_end, main)
                prev_kvs = self._delete_all(keys, main, changes)
                return DeleteResult(main if changes else main - 1, len(prev_kvs), prev_kvs)
            case Range():
                return self._range(op, main if changes else main - 1)

    def _put(
        self, key: bytes, value: bytes, main: int, sub: int
    ) -> tuple[KeyValue, KeyValue | None]:
        index = self._index.get(key)
        if index is None:
            index = self._index[key] = KeyIndex()
            self._keys_changed += 1
            self._key_bytes_max = max(self._key_bytes_max, len(key))
        newest = index.newest()
        prev_kv = self._log[newest[0]][newest[1]] if newest else None
        created, version = index.put(main, sub)
        return KeyValue(key, value, created, main, version), prev_kv

    def _live_keys(self, key: bytes, range_end: bytes, revision: int) -> list[bytes]:
        if not range_end:
            return [key]  # alive or not: deleting a key that isn't there does nothing
        return [kv.key for kv in self._scan(key, range_end, revision, reverse=False)]

    def _delete_all(
        self, keys: Iterable[bytes], main: int, changes: list[KeyValue]
    ) -> list[KeyValue]:
        prev_kvs: list[KeyValue] = []
        for key in keys:
            index = self._index.get(key)
            newest = index.newest() if index is not None else None
            if newest is not None:
                prev_kvs.append(self._log[newest[0]][newest[1]])
                index.tombstone(main, len(changes))
                changes.append(KeyValue(key, b"", 0, main, 0))
        return prev_kvs

    def _commit(self, main: int, changes: list[KeyValue]) -> None:
        # A write that changes nothing doesn't advance the revision.
        if changes:
            self._log[main] = tuple(changes)
            self._revision = main
        else:
            self._log.pop(main, None)

    def compact(self, revision: int) -> int:
        """Forget everything below `revision` -> the current revision. O(keys + records forgotten).

        Reading exactly at it still works. Raises ErrCompacted, ErrFutureRev.
        """
        if revision <= self._compact_revision:
            raise ErrCompacted
        if revision > self._revision:
            raise ErrFutureRev
        self._compact_revision = revision
        kept: set[Revision] = set()
        gone: list[bytes] = []
        for key, index in self._index.iteritems():
            newest = index.compact(revision)
            if newest is not None:
                kept.add(newest)
            elif index.is_empty:
                gone.append(key)
        for key in gone:
            del self._index[key]
        self._keys_changed += 1
        self._forget(revision, kept)
        return self._revision

    def _forget(self, revision: int, kept: set[Revision]) -> None:
        old: list[int] = []
        for main in self._log:  # in the order of insertion, so ascending
            if main > revision:
                break
            old.append(main)
        for main in old:
            stay = [(main, sub) in kept for sub in builtins.range(len(self._log[main]))]
            if not any(stay):
                del self._log[main]
            elif not all(stay):
                pairs = zip(self._log[main], stay, strict=True)
                self._log[main] = tuple(kv if keep else _DROPPED for kv, keep in pairs)

    # Reads

    def range(
        self,
        key: bytes,
        range_end: bytes = b"",
        revision: int = 0,
        limit: int = 0,
        *,
        keys_only: bool = False,
        count_only: bool = False,
    ) -> RangeResult:
        """The keys of a range as they were at `revision` (0: now). O(keys in the range).

        Raises ErrEmptyKey, ErrCompacted, ErrFutureRev.
        """
        if not key:
            raise ErrEmptyKey
        op = Range(key, range_end, revision, limit, keys_only, count_only)
        return self._range(op, self._revision)

    def _range(self, op: Range, current: int) -> RangeResult:
        at = self._readable(op.revision, current)
        kvs: list[KeyValue] = []
        count = 0
        unlimited = op.limit <= 0
        for kv in self._scan(op.key, op.range_end, at, reverse=False):
            if not op.count_only and (unlimited or count < op.limit):
                kvs.append(kv)
            count += 1
        if op.keys_only:
            kvs = [
                KeyValue(kv.key, b"", kv.create_revision, kv.mod_revision, kv.version, kv.lease)
                for kv in kvs
            ]
        more = not op.count_only and count > len(kvs)
        return RangeResult(kvs, more, count, current)

    def scan(
        self, key: bytes, range_end: bytes = b"", revision: int = 0, reverse: bool = False
    ) -> Iterator[KeyValue]:
        """The keys of a range as they were at `revision` (0: now), one by one, in key order.

        O(log keys + keys passed); in reverse O(log keys) for each key. Nothing is counted. The
        state is the one at the revision of the call, whatever is written meanwhile. Raises
        ErrEmptyKey, ErrCompacted, ErrFutureRev; ErrCompacted while it runs, if compacted beyond.
        """
        if not key:
            raise ErrEmptyKey
        return self._scan(key, range_end, self._readable(revision, self._revision), reverse)

    def _readable(self, revision: int, current: int) -> int:
        if revision <= 0:
            return current
        if revision > current:
            raise ErrFutureRev
        if revision < self._compact_revision:
            raise ErrCompacted
        return revision

    def _scan(
        self, key: bytes, range_end: bytes, revision: int, reverse: bool
    ) -> Iterator[KeyValue]:
        low, high = bounds(key, range_end)
        items = self._backward if reverse else self._forward
        for _, index in items(low, high):
            if revision < self._compact_revision:
                raise ErrCompacted
            found = index.at(revision)
            if found is not None:
                yield self._log[found[0]][found[1]]

    def _forward(self, low: bytes, high: bytes | None) -> Iterator[tuple[bytes, KeyIndex]]:
        # A BTree must not change while it is iterated over: if it did, go on behind the last key.
        while high is None or low < high:
            seen = self._keys_changed
            for key, index in self._index.iteritems(low, high, excludemax=high is not None):
                yield key, index
                if seen != self._keys_changed:
                    low = key + b"\0"
                    break
            else:
                return

    def _backward(self, low: bytes, high: bytes | None) -> Iterator[tuple[bytes, KeyIndex]]:
        # BTrees only iterate forwards, but find the greatest key up to a bound in O(log n).
        try:
            key = self._index.maxKey() if high is None else self._index.maxKey(self._before(high))
            while key >= low:
                yield key, self._index[key]
                key = self._index.maxKey(self._before(key))
        except ValueError:  # there is no such key
            return

    def _before(self, key: bytes) -> bytes:
        # Not less than any key of the index that is less than `key`, and less than `key`.
        if key[-1] == 0:
            return key[:-1]
        return key[:-1] + bytes((key[-1] - 1,)) + b"\xff" * self._key_bytes_max

    # The log

    def records_at(self, revision: int) -> Sequence[KeyValue]:
        """What `revision` wrote, tombstones included, in the order of its changes. O(1).

        Raises ErrCompacted below the compact revision, ErrFutureRev above the current one.
        """
        if revision < self._compact_revision:
            raise ErrCompacted
        if revision > self._revision:
            raise ErrFutureRev
        return self._log.get(revision, ())

    def events_at(
        self, revision: int, key: bytes = ALL, range_end: bytes = ALL, prev_kv: bool = False
    ) -> tuple[Event, ...]:
        """The events of one revision on the keys of a range, in order. O(changes of the revision).

        With `prev_kv` each carries what was there at revision - 1, unless that is compacted. Raises
        as `records_at` does.
        """
        low, high = bounds(key, range_end)
        return tuple(
            Event(
                "put" if kv.version else "delete",
                kv,
                self._before_record(kv) if prev_kv else None,
            )
            for kv in self.records_at(revision)
            if kv.key >= low and (high is None or kv.key < high)
        )

    def events(
        self,
        start_revision: int,
        stop_revision: int,
        key: bytes = ALL,
        range_end: bytes = ALL,
        prev_kv: bool = False,
    ) -> Iterator[tuple[int, tuple[Event, ...]]]:
        """(revision, its events) for start <= revision < stop, without the revisions that have no
        event in the range. Raises as `records_at` does."""
        for revision in builtins.range(start_revision, stop_revision):
            events = self.events_at(revision, key, range_end, prev_kv)
            if events:
                yield revision, events

    def _before_record(self, kv: KeyValue) -> KeyValue | None:
        before = kv.mod_revision - 1
        if kv.version == 1 or before < self._compact_revision:
            return None
        found = self._index[kv.key].at(before)
        return self._log[found[0]][found[1]] if found else None
