"""Model: etcd's multi-version key-value store. Pure: no I/O, no clock, no randomness.

The state is etcd's own: an ordered index of keys, each with generations of revisions, over a log of
what every revision wrote. A range at a revision walks the index and looks each key's revision up;
there is no snapshot of anything. That is on purpose: this is the truth that snapshots are checked
against. Which leases there are somebody else knows, the lessor; the model tells it what hangs on
them.

One thread at a time; a lazy `scan` survives writes and compactions that happen between its items.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from BTrees.OOBTree import OOBTree

from etcdsim.errors import (
    ErrCompacted,
    ErrEmptyKey,
    ErrFutureRev,
    ErrKeyNotFound,
    ErrLeaseNotFound,
)
from etcdsim.keyindex import KeyIndex, Revision
from etcdsim.txn import (
    Compare,
    DeleteRange,
    Lessor,
    NoLeases,
    Op,
    Put,
    Range,
    Txn,
    bounds,
    check_put,
    check_range,
    check_txn,
    holds,
)

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
    responses: list[PutResult | DeleteResult | RangeResult | TxnResult]
    revision: int


def prefix_end(prefix: bytes) -> bytes:
    """The range_end that makes a range of every key with `prefix`; for b"" or all 0xff: no end."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else ALL


def prefix_range(prefix: bytes) -> tuple[bytes, bytes]:
    """(key, range_end) of every key with `prefix`; of every key for b""."""
    return prefix or ALL, prefix_end(prefix)


def _done(txn: Txn, path: Iterator[bool]) -> Iterator[Put | DeleteRange | Range]:
    """The operations that come to be done, in order."""
    for op in txn.success if next(path) else txn.failure:
        if isinstance(op, Txn):
            yield from _done(op, path)
        else:
            yield op


def _records(log: dict[int, Sequence[KeyValue]]) -> Iterator[tuple[int, int, KeyValue]]:
    for main, written in log.items():  # in the order of insertion, so ascending
        for sub, kv in enumerate(written):
            if kv is not _DROPPED:
                yield main, sub, kv


# Takes the place of a record that was compacted out of a revision whose other records stay.
_DROPPED = KeyValue(b"", b"", 0, 0, 0)


_SORT_KEYS: dict[str, Callable[[KeyValue], Any]] = {
    "KEY": attrgetter("key"),
    "VERSION": attrgetter("version"),
    "CREATE": attrgetter("create_revision"),
    "MOD": attrgetter("mod_revision"),
    "VALUE": attrgetter("value"),
}


class Model:
    """The store. A put costs O(log keys).

    `keeps_tombstones`: whether a compaction keeps a tombstone of exactly its own revision, as etcd
    does from 3.4.34 and 3.5.16 on.
    """

    def __init__(self, lessor: Lessor | None = None, *, keeps_tombstones: bool = True) -> None:
        self.lessor: Lessor = NoLeases() if lessor is None else lessor
        self._keeps_tombstones = keeps_tombstones
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

    def put(self, key: bytes, value: bytes, lease: int = 0) -> PutResult:
        """Set `key`: one revision. Raises ErrEmptyKey, ErrLeaseNotFound."""
        if not key:
            raise ErrEmptyKey
        if lease and lease not in self.lessor:
            raise ErrLeaseNotFound
        main = self._revision + 1
        kv, prev_kv = self._put(key, value, lease, main, 0)
        self._log[main] = (kv,)
        self._revision = main
        return PutResult(main, prev_kv)

    def do_put(self, put: Put) -> PutResult:
        """`put` with all its options. Raises as it does, and as `check_put`; ErrKeyNotFound if a
        key isn't there whose value or lease is to be kept."""
        check_put(put)
        if put.lease and put.lease not in self.lessor:
            raise ErrLeaseNotFound
        value, lease = self._kept(put)
        return self.put(put.key, value, lease)

    def _kept(self, put: Put) -> tuple[bytes, int]:
        """The value and the lease to put."""
        if not (put.ignore_value or put.ignore_lease):
            return put.value, put.lease
        kv = self._newest(put.key)
        if kv is None:
            raise ErrKeyNotFound
        return (
            kv.value if put.ignore_value else put.value,
            kv.lease if put.ignore_lease else put.lease,
        )

    def _newest(self, key: bytes) -> KeyValue | None:
        index = self._index.get(key)
        newest = index.newest() if index is not None else None
        return self._log[newest[0]][newest[1]] if newest else None

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

        Compares, those of transactions inside too, see the state before; ranges see the writes
        before them. Raises before anything was written: what `check_txn` does; for the operations
        that come to be done ErrKeyNotFound and ErrLeaseNotFound of puts, ErrCompacted and
        ErrFutureRev of ranges, judged by the state before the transaction.
        """
        return self.do_txn(Txn(compares, success, failure))

    def do_txn(self, txn: Txn) -> TxnResult:
        """`txn` of one value."""
        check_txn(txn)
        path = self._path(txn)
        done = list(_done(txn, iter(path)))
        for op in done:
            if isinstance(op, Put):
                self._check_put_in_txn(op)
        for op in done:
            if isinstance(op, Range):
                self._check_range_in_txn(op.revision)
        main, changes = self._revision + 1, list[KeyValue]()
        self._log[main] = changes  # so that ranges of this transaction find the records
        result = self._do_txn(txn, iter(path), main, changes)
        self._commit(main, changes)
        return result._replace(revision=self._revision)

    def _path(self, txn: Txn) -> list[bool]:
        """Whether the compares of each transaction that comes to be done hold, in their order."""
        taken = all(
            holds(compare, list(self.scan(compare.key, compare.range_end)))
            for compare in txn.compares
        )
        path = [taken]
        for op in txn.success if taken else txn.failure:
            if isinstance(op, Txn):
                path += self._path(op)
        return path

    def _check_put_in_txn(self, put: Put) -> None:
        # In the order of etcd's checkRequestPut; a put on its own is checked in the other order.
        if (put.ignore_value or put.ignore_lease) and self._newest(put.key) is None:
            raise ErrKeyNotFound
        if put.lease and put.lease not in self.lessor:
            raise ErrLeaseNotFound

    def _check_range_in_txn(self, revision: int) -> None:
        # Unlike for a range on its own, a negative revision isn't the newest one here.
        if revision > self._revision:
            raise ErrFutureRev
        if revision and revision < self._compact_revision:
            raise ErrCompacted

    def _do_txn(
        self, txn: Txn, path: Iterator[bool], main: int, changes: list[KeyValue]
    ) -> TxnResult:
        taken = next(path)
        responses = [
            self._do_txn(op, path, main, changes)
            if isinstance(op, Txn)
            else self._do(op, main, changes)
            for op in (txn.success if taken else txn.failure)
        ]
        return TxnResult(taken, responses, main if changes else main - 1)

    def _do(
        self, op: Put | DeleteRange | Range, main: int, changes: list[KeyValue]
    ) -> PutResult | DeleteResult | RangeResult:
        match op:
            case Put():
                value, lease = self._kept(op)
                kv, prev_kv = self._put(op.key, value, lease, main, len(changes))
                changes.append(kv)
                return PutResult(main, prev_kv)
            case DeleteRange(key, range_end):
                keys = self._live_keys(key, range_end, main)
                prev_kvs = self._delete_all(keys, main, changes)
                return DeleteResult(main if changes else main - 1, len(prev_kvs), prev_kvs)
            case Range():
                return self._range(op, main if changes else main - 1)

    def _put(
        self, key: bytes, value: bytes, lease: int, main: int, sub: int
    ) -> tuple[KeyValue, KeyValue | None]:
        index = self._index.get(key)
        if index is None:
            index = self._index[key] = KeyIndex()
            self._keys_changed += 1
            self._key_bytes_max = max(self._key_bytes_max, len(key))
        newest = index.newest()
        prev_kv = self._log[newest[0]][newest[1]] if newest else None
        if prev_kv is not None and prev_kv.lease:
            self.lessor.detach(prev_kv.lease, key)
        if lease:
            self.lessor.attach(lease, key)
        created, version = index.put(main, sub)
        return KeyValue(key, value, created, main, version, lease), prev_kv

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
                kv = self._log[newest[0]][newest[1]]
                if kv.lease:
                    self.lessor.detach(kv.lease, key)
                prev_kvs.append(kv)
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
            newest = index.compact(revision, self._keeps_tombstones)
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
        partly = {main for main, _ in kept}
        for main in old:
            if main not in partly:
                del self._log[main]
                continue
            stay = [(main, sub) in kept for sub in builtins.range(len(self._log[main]))]
            if not all(stay):
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
        op = Range(key, range_end, revision, limit, keys_only, count_only)
        return self.do_range(op)

    def do_range(self, op: Range) -> RangeResult:
        """`range` with all its options; where it sorts, O(keys * log keys)."""
        check_range(op)
        return self._range(op, self._revision)

    def _range(self, op: Range, current: int) -> RangeResult:
        at = self._readable(op.revision, current)
        sorted_by = op.sort_order, op.sort_target
        # One more than asked for tells whether there are more. What is filtered or sorted is read
        # whole; but sorted in no order by something else than the key is only what was read (etcd
        # takes that for ascending too late).
        wanted = op.limit + 1 if op.limit > 0 else 0
        if op.is_filtered or op.sort_order != "NONE":
            wanted = 0
        kvs: list[KeyValue] = []
        count = 0
        for kv in self._scan(op.key, op.range_end, at, reverse=False):
            if not op.count_only and (not wanted or count < wanted):
                kvs.append(kv)
            count += 1
        if op.is_filtered:
            kvs = [kv for kv in kvs if op.passes(kv)]
        if sorted_by not in (("NONE", "KEY"), ("ASCEND", "KEY")):
            kvs.sort(key=_SORT_KEYS[op.sort_target], reverse=op.sort_order == "DESCEND")
        more = 0 < op.limit < len(kvs)
        if more:
            del kvs[op.limit :]
        if op.keys_only:
            kvs = [replace(kv, value=b"") for kv in kvs]
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

    def records(self) -> Iterator[tuple[int, int, KeyValue]]:
        """(revision, place in it, what was written) of all that isn't compacted, in order, with
        tombstones: as it is now, whatever happens meanwhile; any thread may go through it. The call
        itself costs a copied reference for each revision."""
        return _records(self._log.copy())

    def restore(
        self,
        records: Iterable[tuple[int, int, KeyValue]],
        revision: int,
        compact_revision: int,
    ) -> None:
        """Be the model whose `records()` these are, as etcd rebuilds its index. O(records).

        For a new model, whose lessor knows the leases. Raises ErrLeaseNotFound.
        """
        log: dict[int, list[KeyValue]] = {}
        for main, sub, kv in records:
            written = log.setdefault(main, [])
            written += [_DROPPED] * (sub - len(written))
            written.append(kv)
            index = self._index.get(kv.key)
            if index is None:
                index = self._index[kv.key] = KeyIndex()
                self._key_bytes_max = max(self._key_bytes_max, len(kv.key))
            index.restore((main, sub), kv.create_revision, kv.version)
        self._log.update((main, tuple(written)) for main, written in log.items())
        self._revision, self._compact_revision = revision, compact_revision
        for main, sub in self.alive_at(revision):
            kv = self._log[main][sub]
            if kv.lease:
                self.lessor.attach(kv.lease, kv.key)

    def alive_at(self, revision: int) -> Iterator[Revision]:
        """Where the keys that are there at `revision` were written. O(keys)."""
        for index in self._index.itervalues():
            found = index.at(revision)
            if found is not None:
                yield found

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
