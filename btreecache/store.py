"""Store: a cache without a source; its own puts, deletes and transactions make the revisions.

Semantics are etcd's: an empty store is at revision 1, a write that changes nothing makes no
revision, a transaction is one revision, a key may change once in it, `version` counts the puts
since a key was created.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from btreecache.cache import Cache
from btreecache.codec import Codec, Transform
from btreecache.element import Element
from btreecache.errors import BadRequest, Conflict
from btreecache.event import Batch, Event
from btreecache.history import History
from btreecache.index import Index
from btreecache.snapshot import Snapshot
from btreecache.window import Bounds


class Put(NamedTuple):
    """A write in a transaction: `key` holds `value` afterwards."""

    key: bytes
    value: bytes


class Delete(NamedTuple):
    """A write in a transaction: `key` is gone afterwards; nothing happens if it wasn't there."""

    key: bytes


class Store(Cache):
    """An ordered key-value store with a readable snapshot for every revision in its window.

    Reads are the Cache's, from any thread without a lock; writes may come from any thread and take
    turns. `bounds` say how much history is kept; `codec`, `transform` and `indexes` are a Cache's.
    With an `archive` the store goes on from what is archived, which is read here; a write is safe
    once `durable_revision` has reached it. Raises ArchiveError.
    """

    def __init__(
        self,
        *,
        bounds: Bounds | None = None,
        codec: Codec | None = None,
        transform: Transform | None = None,
        indexes: Iterable[Index] = (),
        archive: History | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            bounds=bounds,
            codec=codec,
            transform=transform,
            indexes=indexes,
            archive=archive,
            now=now,
        )
        self._writing = threading.Lock()
        if not self.restore():
            self.replace(1, ())

    def put(self, key: bytes, value: bytes, *, expect: int | None = None) -> int:
        """Set one key; the new revision. `expect`: see txn."""
        return self.txn([Put(key, value)], expect=None if expect is None else {key: expect})

    def delete(self, key: bytes, *, expect: int | None = None) -> int:
        """Remove one key; the new revision, or the current one if it wasn't there."""
        return self.txn([Delete(key)], expect=None if expect is None else {key: expect})

    def txn(
        self, writes: Iterable[Put | Delete], *, expect: Mapping[bytes, int] | None = None
    ) -> int:
        """Do all the writes as one revision, or none; the revision. O(writes * log n).

        `expect` maps keys to the mod_revision that each must have now, 0: must not exist.
        Raises Conflict if one differs, BadRequest for an empty key or one that is written twice.
        """
        checked, wanted = _checked(writes), dict(expect or {})
        with self._writing:
            latest = self.snapshot()
            for key, expected in wanted.items():
                element = latest.get(key)
                found = element.mod_revision if element else 0
                if found != expected:
                    raise Conflict(key, expected, found)
            revision = latest.revision + 1
            events = [event for write in checked if (event := _event(latest, write, revision))]
            if not events:
                return latest.revision
            self.apply(Batch(revision, tuple(events)))
            return revision

    def compact(self, revision: int) -> None:
        """Forget below `revision`, as Cache.compact."""
        with self._writing:
            super().compact(revision)


def _checked(writes: Iterable[Put | Delete]) -> list[Put | Delete]:
    """The writes without repeated deletes, which etcd allows. Raises BadRequest."""
    kept: dict[bytes, Put | Delete] = {}
    for write in writes:
        if not write.key:
            raise BadRequest("key is not provided")
        earlier = kept.setdefault(write.key, write)
        if earlier is not write and (isinstance(write, Put) or isinstance(earlier, Put)):
            raise BadRequest(f"duplicate key {write.key!r} given in one transaction")
    return [*kept.values()]


def _event(latest: Snapshot, write: Put | Delete, revision: int) -> Event | None:
    previous = latest.get(write.key)
    if isinstance(write, Delete):
        return Event(write.key, None, previous) if previous else None
    created, version = (previous.create_revision, previous.version) if previous else (revision, 0)
    element = Element(write.key, write.value, revision, created, version + 1)
    return Event(write.key, element, previous)
