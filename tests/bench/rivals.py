"""What is compared: one class for each way to keep a snapshot for every revision in Python.

All have one interface, so that a test can hold every one of them to the answers of a dict. The
loops stand inside of the methods: what is timed is the rival and not the harness. Where a rival
lacks an operation it does what its user would have to do, and the comment says so; where there is
no sensible way the method is missing and the table shows a dash.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

Pair = tuple[bytes, bytes]
Snapshot = Any

#: Bound above all keys, for rivals whose ranges need one.
HIGHEST = b"\xff"


def merged_difference(old: Iterable[Pair], new: Iterable[Pair]) -> int:
    """How many keys differ, both sides read in full and in order."""
    # A pair on one side only is a key that differs; a changed key would be counted on both.
    seen: dict[bytes, bytes] = {}
    for key, value in heapq.merge(old, new):
        if seen.get(key) == value:
            del seen[key]
        else:
            seen[key] = value
    return len(seen)


class Rival(ABC):
    """A mutable holder of the current state, and the operations on the snapshots taken of it."""

    #: As the table names it; the modules that it needs; whether tracemalloc sees its memory.
    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    traced: ClassVar[bool] = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for module in self.needs:  # not in what `load` is timed for
            import_module(module)

    @classmethod
    def missing(cls) -> str | None:
        """The module that isn't installed, if there is one."""
        for module in cls.needs:
            try:
                import_module(module)
            except ImportError:
                return module
        return None

    @abstractmethod
    def load(self, pairs: list[Pair]) -> None:
        """Become the sorted `pairs`."""

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """The state as it is now, for good."""

    @abstractmethod
    def put(self, pairs: Sequence[Pair], kept: Any) -> None:
        """Set each pair in turn; after each one append a snapshot to `kept`."""

    @abstractmethod
    def delete(self, keys: Sequence[bytes], kept: Any) -> None:
        """Delete each key in turn; after each one append a snapshot to `kept`."""

    def advance(self, pairs: Sequence[Pair]) -> None:
        """Set the pairs, no snapshot wanted in between."""
        self.put(pairs, _Nowhere())

    def get(self, snapshot: Snapshot, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, None for those that aren't there."""
        get = snapshot.get
        return [get(key) for key in keys]

    def items(self, snapshot: Snapshot) -> Iterable[Pair]:
        """All pairs, lazily where the rival can."""
        return snapshot.items()

    def disk_bytes(self) -> int | None:
        """Bytes of its files; None for one that keeps everything in memory."""
        return None

    def close(self) -> None:  # noqa: B027
        """Let go of files, where there are any."""


class _Nowhere:
    """A window that keeps nothing."""

    def append(self, _: object) -> None:
        pass


class Ours(Rival):
    """btreecache.tree.Tree."""

    name = "btreecache"
    needs = ("btreecache.tree",)
    traced = True

    def load(self, pairs: list[Pair]) -> None:
        from btreecache.tree import Tree

        self.state: Any = Tree.from_sorted(pairs)

    def snapshot(self) -> Snapshot:
        return self.state

    def put(self, pairs: Sequence[Pair], kept: Any) -> None:
        state, keep = self.state, kept.append
        for key, value in pairs:
            state = state.set(key, value)
            keep(state)
        self.state = state

    def delete(self, keys: Sequence[bytes], kept: Any) -> None:
        state, keep = self.state, kept.append
        for key in keys:
            state = state.delete(key)
            keep(state)
        self.state = state

    def page(self, snapshot: Snapshot, start: bytes, limit: int) -> list[Pair]:
        return list(islice(snapshot.items(start), limit))

    def count(self, snapshot: Snapshot, start: bytes, stop: bytes) -> int:
        return snapshot.count(start, stop)

    def diff(self, old: Snapshot, new: Snapshot) -> int:
        return sum(1 for _ in old.changes(new))


class ImmutablesMap(Rival):
    """immutables.Map: a hash trie in C, no order: no page, no range."""

    name = "immutables.Map"
    needs = ("immutables",)
    traced = True

    def load(self, pairs: list[Pair]) -> None:
        from immutables import Map

        self.state: Any = Map(pairs)

    snapshot = Ours.snapshot
    put = Ours.put
    delete = Ours.delete

    def diff(self, old: Snapshot, new: Snapshot) -> int:
        # It has no comparison of its own: every item of one is looked up in the other.
        get = old.get
        differ = sum(1 for key, value in new.items() if get(key) != value)
        return differ + sum(1 for key in old if key not in new)


class PersistentSorted(Rival):
    """pypersistent.PersistentSortedDict: a red-black tree in C++."""

    name = "pypersistent"
    needs = ("pypersistent",)

    def load(self, pairs: list[Pair]) -> None:
        from pypersistent import PersistentSortedDict

        self.state: Any = PersistentSortedDict.from_dict(dict(pairs))

    snapshot = Ours.snapshot
    put = Ours.put
    delete = Ours.delete

    def get(self, snapshot: Snapshot, keys: Sequence[bytes]) -> list[bytes | None]:
        get = snapshot.get
        return [get(key, None) for key in keys]

    def page(self, snapshot: Snapshot, start: bytes, limit: int) -> list[Pair]:
        # A range needs its end, which a page doesn't know, and is copied.
        return list(islice(snapshot.subseq(start, HIGHEST).items(), limit))

    def count(self, snapshot: Snapshot, start: bytes, stop: bytes) -> int:
        return len(snapshot.subseq(start, stop))

    def diff(self, old: Snapshot, new: Snapshot) -> int:
        return merged_difference(old.items(), new.items())


class Copied(Rival):
    """A mutable mapping that is copied for every snapshot."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.state: Any = None
        self.copy: Callable[[Any], Any] = lambda state: state.copy()

    def snapshot(self) -> Snapshot:
        return self.copy(self.state)

    def put(self, pairs: Sequence[Pair], kept: Any) -> None:
        state, keep, copy = self.state, kept.append, self.copy
        for key, value in pairs:
            state[key] = value
            keep(copy(state))

    def delete(self, keys: Sequence[bytes], kept: Any) -> None:
        state, keep, copy = self.state, kept.append, self.copy
        for key in keys:
            del state[key]
            keep(copy(state))

    def advance(self, pairs: Sequence[Pair]) -> None:
        self.state.update(pairs)

    def diff(self, old: Snapshot, new: Snapshot) -> int:
        return merged_difference(old.items(), new.items())


class SortedCopied(Copied):
    """sortedcontainers.SortedDict, copied."""

    name = "SortedDict copied"
    needs = ("sortedcontainers",)
    traced = True

    def load(self, pairs: list[Pair]) -> None:
        from sortedcontainers import SortedDict

        self.state = SortedDict(pairs)

    def page(self, snapshot: Snapshot, start: bytes, limit: int) -> list[Pair]:
        return [(key, snapshot[key]) for key in islice(snapshot.irange(start), limit)]

    def count(self, snapshot: Snapshot, start: bytes, stop: bytes) -> int:
        return snapshot.bisect_left(stop) - snapshot.bisect_left(start)


class OOBTreeCopied(Copied):
    """BTrees.OOBTree, copied."""

    name = "OOBTree copied"
    needs = ("BTrees.OOBTree",)

    def load(self, pairs: list[Pair]) -> None:
        from BTrees.OOBTree import OOBTree

        self.state, self.copy = OOBTree(pairs), OOBTree

    def page(self, snapshot: Snapshot, start: bytes, limit: int) -> list[Pair]:
        return list(islice(snapshot.iteritems(start), limit))

    def count(self, snapshot: Snapshot, start: bytes, stop: bytes) -> int:
        return len(snapshot.keys(start, stop, excludemax=True))

    def items(self, snapshot: Snapshot) -> Iterable[Pair]:
        return snapshot.iteritems()


class ZodbCommit(Rival):
    """ZODB: an OOBTree in a FileStorage, a commit per revision.

    A snapshot is a transaction id; it is read through a connection opened at that id, opened once
    and kept, with a cache for all objects.
    """

    name = "ZODB commit"
    needs = ("ZODB", "BTrees.OOBTree")

    def load(self, pairs: list[Pair]) -> None:
        import transaction
        import ZODB
        from BTrees.OOBTree import OOBTree

        big = 10_000_000
        self.db: Any = ZODB.DB(
            str(self.folder / "Data.fs"), cache_size=big, historical_cache_size=big
        )
        self.transaction = transaction.TransactionManager()
        self.opened: dict[bytes, Any] = {}
        self.root = self.db.open(self.transaction).root()
        self.state = self.root["tree"] = OOBTree(pairs)
        self.transaction.commit()

    def snapshot(self) -> Snapshot:
        return self.db.storage.lastTransaction()

    def put(self, pairs: Sequence[Pair], kept: Any) -> None:
        for key, value in pairs:
            self.state[key] = value
            self.transaction.commit()
            kept.append(self.db.storage.lastTransaction())

    def delete(self, keys: Sequence[bytes], kept: Any) -> None:
        for key in keys:
            del self.state[key]
            self.transaction.commit()
            kept.append(self.db.storage.lastTransaction())

    def advance(self, pairs: Sequence[Pair]) -> None:
        self.state.update(pairs)
        self.transaction.commit()

    def _at(self, snapshot: bytes) -> Any:
        if snapshot not in self.opened:
            import transaction

            # at= is inclusive; a manager of its own: this connection never commits.
            self.opened[snapshot] = self.db.open(transaction.TransactionManager(), at=snapshot)
        return self.opened[snapshot].root()["tree"]

    def get(self, snapshot: Snapshot, keys: Sequence[bytes]) -> list[bytes | None]:
        return super().get(self._at(snapshot), keys)

    def items(self, snapshot: Snapshot) -> Iterable[Pair]:
        return self._at(snapshot).iteritems()

    def page(self, snapshot: Snapshot, start: bytes, limit: int) -> list[Pair]:
        return list(islice(self._at(snapshot).iteritems(start), limit))

    def count(self, snapshot: Snapshot, start: bytes, stop: bytes) -> int:
        return len(self._at(snapshot).keys(start, stop, excludemax=True))

    def diff(self, old: Snapshot, new: Snapshot) -> int:
        return merged_difference(self.items(old), self.items(new))

    def disk_bytes(self) -> int | None:
        return self.db.getSize()

    def close(self) -> None:
        for connection in self.opened.values():
            connection.close()
        self.db.close()


class LmdbReaders(Rival):
    """LMDB: a write transaction per revision, not synced; a snapshot is a read transaction."""

    name = "LMDB readers"
    needs = ("lmdb",)

    def load(self, pairs: list[Pair]) -> None:
        import lmdb

        self.env: Any = lmdb.open(
            str(self.folder), map_size=1 << 36, max_readers=200_000, sync=False, max_spare_txns=0
        )
        with self.env.begin(write=True) as txn, txn.cursor() as cursor:
            cursor.putmulti(pairs, append=True)

    def snapshot(self) -> Snapshot:
        return self.env.begin(buffers=False)

    def put(self, pairs: Sequence[Pair], kept: Any) -> None:
        begin, keep = self.env.begin, kept.append
        for key, value in pairs:
            with begin(write=True) as txn:
                txn.put(key, value)
            keep(begin())

    def delete(self, keys: Sequence[bytes], kept: Any) -> None:
        begin, keep = self.env.begin, kept.append
        for key in keys:
            with begin(write=True) as txn:
                txn.delete(key)
            keep(begin())

    def advance(self, pairs: Sequence[Pair]) -> None:
        with self.env.begin(write=True) as txn:
            for key, value in pairs:
                txn.put(key, value)

    def items(self, snapshot: Snapshot) -> Iterable[Pair]:
        return iter(snapshot.cursor())

    def page(self, snapshot: Snapshot, start: bytes, limit: int) -> list[Pair]:
        cursor = snapshot.cursor()
        return list(islice(cursor, limit)) if cursor.set_range(start) else []

    def count(self, snapshot: Snapshot, start: bytes, stop: bytes) -> int:
        cursor, counted = snapshot.cursor(), 0
        if cursor.set_range(start):
            for key in cursor.iternext(values=False):
                if key >= stop:
                    break
                counted += 1
        return counted

    def diff(self, old: Snapshot, new: Snapshot) -> int:
        return merged_difference(self.items(old), self.items(new))

    def disk_bytes(self) -> int | None:
        return (self.env.info()["last_pgno"] + 1) * self.env.stat()["psize"]

    def close(self) -> None:
        with suppress(Exception):  # read transactions may still be open
            self.env.close()


RIVALS: dict[str, type[Rival]] = {
    rival.name: rival
    for rival in (
        Ours, ImmutablesMap, PersistentSorted, SortedCopied, OOBTreeCopied, ZodbCommit, LmdbReaders,
    )
}  # fmt: skip
