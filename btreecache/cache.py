"""Cache: one prefix, one window. Applies batches, answers get, list, watch at retained revisions.

One writer calls `replace`, `apply`, `progress`, `compact`; it publishes an immutable `State` by one
assignment. Readers take that `State` once and need no lock, and nothing reachable from it is ever
mutated. The condition is only for those who wait for a change; it is never held while anybody
else's code runs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from time import monotonic
from types import MappingProxyType

import msgspec
from msgspec.structs import replace

from btreecache.codec import Codec, Transform
from btreecache.element import Element
from btreecache.errors import Compacted, FeedFault, FutureRevision, NotReady
from btreecache.event import Batch, Event, Progress
from btreecache.feed import check_event, check_keys, check_order, check_progress
from btreecache.history import History
from btreecache.index import Index, Indexes
from btreecache.scope import Scope, Scopes
from btreecache.snapshot import Page, Snapshot
from btreecache.tree import ABSENT, Diff, Tree
from btreecache.verify import Verifier, level_from
from btreecache.watch import Watcher
from btreecache.window import Bounds, Window

#: What one copied tree node costs, for the byte bound: its fields, and a tuple of keys where those
#: changed. As measured for whole updates, 1,300 bytes at three levels.
NODE_BYTES = 450

#: Feed faults remembered in full; all are counted.
FAULTS_MAX = 1_000


class State(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Everything that a reader may see, published by one assignment.

    window          None until the first list
    suspect_after   a feed fault is being mended: revisions above this one are not served
    epoch           grows when history is cut: positions of an earlier epoch mean nothing any more
    """

    window: Window | None
    suspect_after: int | None
    epoch: int
    updated_s: float

    def readable(self) -> Window:
        """The window, or NotReady."""
        if self.window is None:
            raise NotReady("the cache was never filled")
        return self.window

    def at(self, revision: int | None) -> Snapshot:
        """The snapshot at `revision`, None: the latest. Raises as Cache.snapshot."""
        window, suspect_after = self.readable(), self.suspect_after
        if revision is None:
            revision = window.current
        if suspect_after is not None and revision > suspect_after:
            raise NotReady(
                f"revisions above {suspect_after} are suspect after a feed fault: resynchronising"
            )
        return window.snapshot(revision)


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters since the cache was made, and gauges. Sizes are estimates in bytes.

    received_events   of batches that the feed brought, those that broke its contract among them
    history_s         seconds since the oldest retained snapshot was the newest
    """

    received_events: int
    applied_batches: int
    applied_events: int
    feed_faults: int
    replacements: int
    elements: int
    snapshots: int
    retained_bytes: int
    oldest: int
    current: int
    history_s: float


class Cache:
    """Follows one prefix of an event history and keeps a snapshot for every revision in a window.

    Reads may come from any thread at any time. Writes come from one thread, usually a Follower's.
    Raises NotReady from every read until it was filled.

    bounds     what the window keeps
    codec      makes of the source's elements those that are served; None: they are served raw
    transform  called with every element after the codec, before it is stored. It may drop content
               (Element.altered), not change the key or the revisions; and must not raise
    indexes    declared indexes, kept in every snapshot
    archive    where all this is written down and can be read again: `restore` takes it up
    now        clock in seconds
    """

    def __init__(
        self,
        prefix: bytes = b"",
        *,
        bounds: Bounds | None = None,
        codec: Codec | None = None,
        transform: Transform | None = None,
        indexes: Iterable[Index] = (),
        archive: History | None = None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self.prefix = prefix
        self.archive = archive
        self.bounds = bounds or Bounds()
        self.indexes = tuple(indexes)
        self._read = _reader(codec, transform)
        self._recipe = getattr(codec, "recipe", b"") if transform is None else b""
        self._unreadable: Mapping[bytes, str] = MappingProxyType({})
        self._now = now
        self._state = State(None, None, 0, now())
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0  # threads inside `_changed.wait`; under the lock
        self._scopes = Scopes()  # under the lock
        self._closed = False
        self._suspect: Snapshot | None = None
        self._faults: list[FeedFault] = []
        self._fault_count = 0
        self._received = self._batches = self._events = self._replacements = 0
        level = level_from(os.environ)
        self._verifier = None if level == "off" else Verifier(level, Random(0))

    # Reading: any thread, no lock.

    @property
    def state(self) -> State:
        """The published state: a consistent view of everything below, as long as it is held."""
        return self._state

    @property
    def revision(self) -> int:
        """The newest revision that is known to be complete here; 0 before the first fill."""
        window = self._state.window
        return window.current if window else 0

    @property
    def oldest(self) -> int:
        """The lowest revision that can be read; 0 before the first fill."""
        window = self._state.window
        return window.oldest if window else 0

    @property
    def ready(self) -> bool:
        """Whether the cache was filled and is not resynchronising after a feed fault."""
        return self._state.window is not None and self.consistent

    @property
    def consistent(self) -> bool:
        """False from a feed fault until the resynchronisation that mends it."""
        return self._state.suspect_after is None

    @property
    def age_s(self) -> float:
        """Seconds since the source was last heard."""
        return self._now() - self._state.updated_s

    @property
    def feed_faults(self) -> list[FeedFault]:
        """The first FAULTS_MAX feed faults, oldest first."""
        return list(self._faults)

    @property
    def suspect(self) -> Snapshot | None:
        """The newest state that the last feed fault spoiled: never served, kept for a checker."""
        return self._suspect

    @property
    def unreadable(self) -> Mapping[bytes, str]:
        """The keys of the newest state that the codec can't read, and why (Element.problem). O(1).

        Never changes: the next one is another mapping.
        """
        return self._unreadable

    def stats(self) -> Stats:
        window = self._state.window
        return Stats(
            received_events=self._received,
            applied_batches=self._batches,
            applied_events=self._events,
            feed_faults=self._fault_count,
            replacements=self._replacements,
            elements=len(window.newest) if window else 0,
            snapshots=len(window) if window else 0,
            retained_bytes=window.retained_bytes if window else 0,
            oldest=window.oldest if window else 0,
            current=window.current if window else 0,
            history_s=self._now() - window.since_s if window else 0.0,
        )

    def snapshot(self, revision: int | None = None) -> Snapshot:
        """The state at `revision`; None: at the newest. O(log window).

        Raises Compacted below the window, FutureRevision above it, NotReady before the first fill
        and for revisions that a feed fault made suspect.
        """
        return self._state.at(revision)

    def get(self, key: bytes, revision: int | None = None) -> Element | None:
        """The element at `key`, None if there is none, at `revision` or now. Raises as snapshot."""
        return self._state.at(revision).get(key)

    def list(
        self,
        prefix: bytes | None = None,
        *,
        revision: int | None = None,
        start: bytes | None = None,
        limit: int | None = None,
    ) -> Page:
        """A page of the elements with `prefix` (None: the cache's), at `revision` or now.

        To read on, ask again with `revision=page.revision, start=page.next_start`. O(log n + page).
        Raises as snapshot, and BadRequest.
        """
        prefix = self.prefix if prefix is None else prefix
        return self._state.at(revision).list(prefix, start=start, limit=limit)

    def read(self, element: Element) -> Element:
        """The source's element as this cache would serve it: through its codec and transform."""
        return element if self._read is None else self._read(element)

    def diff(self, older: int, newer: int) -> Diff[bytes, Element]:
        """What changed from one retained revision to another. O(nodes that changed)."""
        state = self._state
        return state.at(older).diff(state.at(newer))

    def watch(
        self, after: int | None = None, prefix: bytes | None = None, *, exact: bool = False
    ) -> Watcher:
        """A watcher that yields every batch above revision `after` (None: from now on).

        Of the keys with `prefix`, or with `exact` of that key alone. Raises Compacted here or later
        when a batch that it should see is no longer retained.
        """
        return Watcher(self, after, self.prefix if prefix is None else prefix, exact=exact)

    def enter(self, prefix: bytes, *, exact: bool) -> tuple[Scope, State]:
        """A live scope, and a state above which it notes everything. For Watcher. O(1)."""
        with self._lock:
            state = self._state
            return self._scopes.enter(prefix, exact=exact, since=state.readable().current), state

    def archived(self, revision: int) -> AbstractContextManager[Snapshot]:
        """The state at a revision that the window no longer holds, read from the archive's disk;
        for one thread, until the end of the context.

        Raises Compacted if there is none, as ArchivedHistory.snapshot otherwise.
        """
        if self.archive is None:
            raise Compacted(revision, self.oldest)
        return self.archive.snapshot(revision, self.read, self._recipe)

    @property
    def durable_revision(self) -> int:
        """Everything up to it outlives this process; 0: nothing does, or there is no archive."""
        return self.archive.durable_revision if self.archive else 0

    def wait_for(self, revision: int, timeout_s: float | None = None) -> Snapshot:
        """Wait until the cache has reached `revision`; the snapshot at it.

        Raises FutureRevision on timeout, Compacted if it is gone, NotReady if the cache was closed.
        """
        self.wait_until(lambda state: state.window and state.window.current >= revision, timeout_s)
        if self.revision < revision:
            if self._closed:
                raise NotReady("the cache is closed")
            raise FutureRevision(revision, self.revision)
        return self.snapshot(revision)

    def wait_until(
        self, predicate: Callable[[State], object], timeout_s: float | None = None
    ) -> bool:
        """Wait until a published state satisfies `predicate` (called without the condition held).

        False on timeout or when the cache is closed meanwhile. Waits are in real time, whatever
        clock the cache was given: a thread can't sleep on a virtual one.
        """
        deadline = None if timeout_s is None else monotonic() + timeout_s
        while True:
            seen = self._state
            if predicate(seen):
                return True
            with self._changed:
                remaining = None if deadline is None else deadline - monotonic()
                if self._closed or (remaining is not None and remaining <= 0):
                    return False
                if self._state is seen:
                    self._waiting += 1
                    try:
                        self._changed.wait(remaining)
                    finally:
                        self._waiting -= 1

    def close(self) -> None:
        """Wake everybody who waits, for good. What was published stays readable. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            scopes = [*self._scopes]
        for scope in scopes:
            scope.wake()

    @property
    def closed(self) -> bool:
        return self._closed

    # Writing: one thread.

    def restore(self, confirm: Callable[[Snapshot], bool] | None = None) -> bool:
        """Take up the window that the archive holds; whether that was done. Reads the disk.

        To be called before anything was written here: the source is then followed on from
        `self.revision`. `confirm` is asked whether it goes on from the newest state; if not,
        nothing is taken up. O(elements + changes in the window). Raises ArchiveError, and what
        `confirm` raises.
        """
        assert self._state.window is None, "a cache is restored before it is filled"
        if self.archive is None:
            return False
        found = self.archive.restore(self.read, self.bounds, self._recipe)
        if found is None:
            return False
        now = self._now()
        indexes = Indexes.of(self.indexes, found.tree.values())
        window = Window.of(found.revision, found.tree, now - found.age_s, indexes)
        for batch, tree, age_s, superseded_bytes in found.steps:
            editor = indexes.edit()
            for event in batch.events:
                editor.change(event.previous, event.element)
            indexes = editor.freeze()
            size_bytes = superseded_bytes + NODE_BYTES * editor.copied + editor.dropped_bytes
            window = window.append(batch, tree, now - age_s, size_bytes, indexes)
        window = window.progress(max(found.current, window.current)).evict(self.bounds, now)
        if confirm and not confirm(window.snapshot(window.current)):
            return False
        if self._read is not None:
            problems = {kept.key: kept.problem for kept in window.newest.values() if kept.problem}
            self._unreadable = MappingProxyType(problems)
        if self._verifier:
            self._verifier.replaced(window.newest)
        self._publish(State(window, None, 0, now))
        return True

    def replace(
        self, revision: int, elements: Iterable[Element], *, as_batch: bool = False
    ) -> None:
        """Take a fresh list as the state at `revision`; a new window begins there.

        Watchers of the old window get Compacted. With `as_batch`, they get the net change as one
        synthetic batch instead, and go on; reads below `revision` are refused all the same. Those
        that have yet to see a batch which a feed fault made suspect get Compacted even so, and all
        do where `revision` isn't above `self.revision`: a batch there could be missed. So do those
        who start inside the gap: what of the net change they know already, nobody can tell.
        Raises FeedFault if the elements are not in key order or lie outside the prefix.
        """
        tree = self._tree_of(revision, elements)
        indexes = Indexes.of(self.indexes, tree.values())
        if self._read is not None:
            found = {kept.key: kept.problem for kept in tree.values() if kept.problem}
            self._unreadable = MappingProxyType(found)
        state, now = self._state, self._now()
        if self._verifier:
            self._verifier.replaced(tree)
        self._replacements += 1
        if as_batch and state.window and revision > state.window.current:
            window, last = state.window, state.window.last_revision
            if state.suspect_after is not None and state.suspect_after < last:
                window = window.watchable_from(last)
            batch = Batch(revision, _net_change(window.newest, tree), synthetic=True)
            superseded_bytes = sum(e.previous.size_bytes() for e in batch.events if e.previous)
            window = window.append(batch, tree, now, superseded_bytes, indexes)
            window = window.with_gap(state.window.current, revision).readable_from(revision)
            window = window.evict(self.bounds, now)
            self._publish(State(window, None, state.epoch, now), batch)
        else:
            window = Window.of(revision, tree, now, indexes)
            self._publish(State(window, None, state.epoch + 1, now))
        if self.archive:
            self.archive.began(revision, tree)

    def _tree_of(self, revision: int, elements: Iterable[Element]) -> Tree[bytes, Element]:
        if self._read is not None:
            elements = map(self._read, elements)
        try:
            tree = Tree.from_sorted((element.key, element) for element in elements)
        except ValueError as error:
            raise self._faulty(
                FeedFault("list_out_of_order", revision, 0, None, str(error))
            ) from None
        if tree:
            first, last = tree.select(0)[0], tree.select(len(tree) - 1)[0]
            if not (first.startswith(self.prefix) and last.startswith(self.prefix)):
                detail = f"keys from {first!r} to {last!r} listed for prefix {self.prefix!r}"
                raise self._faulty(FeedFault("foreign_key", revision, 0, first, detail))
        return tree

    def apply(self, batch: Batch) -> None:
        """Apply one whole revision and publish its snapshot (I4, I5). O(events * log n).

        Raises FeedFault when the batch can't follow from the state: nothing of it is applied, the
        fault is recorded, and the revisions it makes suspect are no longer served.
        """
        state = self._state
        window = state.readable()
        self._received += len(batch.events)
        before = window.newest
        edit, prefix, read = before.edit(), self.prefix, self._read
        indexes = window.newest_indexes.edit() if self.indexes else None
        events, superseded_bytes = [], 0
        try:
            check_order(window, batch)
            if len(batch.events) > 1:
                check_keys(batch)
            for event in batch.events:
                key, element = event.key, event.element
                previous = edit.get(key)
                check_event(batch, event, previous, prefix)
                if element is None:
                    edit.delete(key)
                else:
                    if read is not None:
                        element = read(element)
                    edit.set(key, element)
                if indexes is not None:
                    indexes.change(previous, element)
                if previous is not None:
                    superseded_bytes += previous.size_bytes()
                events.append(Event(key, element, previous))
        except FeedFault as fault:
            raise self._faulty(fault) from None
        kept = Batch(batch.revision, tuple(events), batch.synthetic)
        now = self._now()
        superseded_bytes += edit.copied * NODE_BYTES
        if indexes is None:
            window = window.append(kept, edit.freeze(), now, superseded_bytes)
        else:
            superseded_bytes += indexes.copied * NODE_BYTES + indexes.dropped_bytes
            window = window.append(kept, edit.freeze(), now, superseded_bytes, indexes.freeze())
        window = window.evict(self.bounds, now)
        if self._verifier:
            self._verifier.applied(before, window)
        self._batches += 1
        self._events += len(events)
        if read is not None:
            self._note_unreadable(kept)
        self._publish(State(window, state.suspect_after, state.epoch, now), kept)
        if self.archive:
            self.archive.appended(kept, window.newest)

    def progress(self, mark: Progress) -> None:
        """Take the source's word that everything up to the mark was delivered. Raises FeedFault."""
        state = self._state
        window = state.readable()
        try:
            check_progress(window, mark)
        except FeedFault as fault:
            raise self._faulty(fault) from None
        now = self._now()
        window = window.progress(mark.revision).evict(self.bounds, now)
        self._publish(State(window, state.suspect_after, state.epoch, now))
        if self.archive:
            self.archive.progressed(mark.revision)

    def compact(self, revision: int) -> None:
        """Forget below `revision` (I8). Raises FutureRevision, NotReady."""
        state = self._state
        self._publish(replace(state, window=state.readable().compact(revision)))

    def _faulty(self, fault: FeedFault) -> FeedFault:
        """Record the fault and stop serving what it makes suspect, until the next `replace`."""
        self._fault_count += 1
        if len(self._faults) < FAULTS_MAX:
            self._faults.append(fault)
        state = self._state
        if state.window:
            self._suspect = Snapshot(state.window.last_revision, state.window.newest)
        good = fault.good if state.suspect_after is None else min(fault.good, state.suspect_after)
        self._publish(replace(state, suspect_after=good))
        if self.archive:
            self.archive.distrusted(good)
        return fault

    def _note_unreadable(self, batch: Batch) -> None:
        now: dict[bytes, str] | None = None
        for event in batch.events:
            problem = event.element.problem if event.element else None
            if problem or event.key in self._unreadable:
                now = {**self._unreadable} if now is None else now
                now.pop(event.key, None)
                if problem:
                    now[event.key] = problem
        if now is not None:
            self._unreadable = MappingProxyType(now)

    def _publish(self, state: State, batch: Batch | None = None) -> None:
        """Publish a state, by a batch or without one, and wake those who wait for it.

        No wakeup is lost: a waiter counts itself and looks at the state in one turn with the lock.
        That turn came before this one, and it is counted here, or after, and it sees this state.
        Without waiters, which is the rule, a publication costs no more than the lock.
        """
        scopes, before = self._scopes, self._state
        touched: list[Scope] = []
        with self._lock:
            if scopes and state.epoch != before.epoch:
                # What they noted is another history's, which may even have been ahead of this one.
                touched, self._scopes = [*scopes], Scopes()
            elif scopes and state.window and before.window:
                # A batch that is about to go was in the window before.
                old, floor = before.window, state.window.watch_floor
                for forgotten in old.batches(old.watch_floor, floor):
                    lost = scopes.forget(forgotten)
                    if before.suspect_after is not None:
                        # Its watchers sleep through a suspect batch, and would through its end.
                        touched += lost
                if batch is not None:
                    noted = scopes.note(batch)
                    # Who waits ahead of the cache may have fallen into the gap, in any scope.
                    touched += [*scopes] if batch.synthetic else noted
            self._state = state
            if self._waiting:
                self._changed.notify_all()
        for scope in touched:
            scope.wake()


def _reader(
    codec: Codec | None, transform: Transform | None
) -> Callable[[Element], Element] | None:
    """What is done to each element on its way in, None: nothing."""
    if codec is None:
        return transform
    if transform is None:
        return codec.decode
    return lambda element: transform(codec.decode(element))


def _net_change(before: Tree[bytes, Element], after: Tree[bytes, Element]) -> tuple[Event, ...]:
    return tuple(
        Event(key, None if new is ABSENT else new, None if old is ABSENT else old)
        for key, old, new in before.changes(after)
    )
