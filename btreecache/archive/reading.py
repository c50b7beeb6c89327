"""Reading: one history as it is in the archive, for one thread; snapshots at any of its revisions.

A revision is a checkpoint, or lies between two: then it is the first of them and a replay of the
log between. The state at a time is the last one that had arrived by then.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from threading import get_ident
from typing import Any, TypeVar

from btreecache.archive.log import batches_of, replayed
from btreecache.archive.nodes import CACHE_BYTES, ArchivedTree, Nodes, Packed, readable
from btreecache.archive.records import NAME, Group, GroupState, History, HistoryState
from btreecache.archive.storage import Transactions
from btreecache.element import Element
from btreecache.errors import ArchiveError, BadRequest, Compacted, FutureRevision
from btreecache.event import Batch
from btreecache.snapshot import Snapshot

#: Trees that were replayed and are remembered: of page chains that are being walked.
REPLAYED_MAX = 8

#: How often a state is looked at anew that a pack has taken away while we looked.
ATTEMPTS = 5

T = TypeVar("T")


class Reading:
    """One history of an archive. For the thread that made it; close it there.

    What is read is what was committed when it was made, or when `refresh` was last called. A record
    that a pack takes away meanwhile belongs to a revision that is no longer retained: Compacted.

    read          what is made of the source's elements; None: nothing
    recipe        of the codec if that is all that `read` is (`Codec.recipe`)
    cache_bytes   of what is remembered of nodes and elements, estimated
    """

    def __init__(
        self,
        database: Any,
        prefix: bytes | None,
        read: Callable[[Element], Element] | None = None,
        cache_bytes: int = CACHE_BYTES,
        recipe: bytes = b"",
    ) -> None:
        self._manager = Transactions()
        self._connection: Any = None
        self._nodes = Nodes(read, cache_bytes, recipe)
        self._replayed: OrderedDict[int, ArchivedTree] = OrderedDict()
        self._state: HistoryState
        self._oldest = 0
        try:
            with readable():
                self._connection = database.open(self._manager)
                self._manager.begin()
                histories = self._connection.root()[NAME].state[1]
            self.prefix = _only(histories) if prefix is None else prefix
            self.refresh()
        except BaseException:
            self.close()
            raise

    def refresh(self) -> None:
        """See what was committed meanwhile. What is remembered stays right: records never change.
        Raises ArchiveError if the archive has no history of the prefix (any more)."""
        self._check_thread()
        for attempt in range(ATTEMPTS):
            try:
                with readable():
                    self._begin()
                return
            except Packed:
                if attempt == ATTEMPTS - 1:
                    raise

    def _begin(self) -> None:
        self._manager.abort()
        self._manager.begin()
        record = self._connection.root()[NAME].state[1].get(self.prefix)
        if record is None:
            raise ArchiveError(f"the archive has no history of {self.prefix!r}")
        assert isinstance(record, History)
        self._state = record.read()
        self._oldest = int(self._state.groups.minKey()) if self._state.groups else 0

    def rest(self) -> None:
        """Nothing is read until the next `refresh`: a server may forget what was seen here."""
        with readable():
            self._manager.abort()

    def take_over(self) -> None:
        """It belongs to the calling thread from now on. The one before must be done with it."""
        self._nodes.thread = get_ident()

    def close(self) -> None:
        """Idempotent. Never raises."""
        connection, self._connection = self._connection, None
        self._replayed.clear()
        if connection is not None:
            with suppress(Exception):  # Of a server that is away, which has closed its end anyway.
                self._manager.abort()
                connection.close()

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def oldest(self) -> int:
        """The lowest revision that can be read; 0 if there is none."""
        return self._oldest

    @property
    def newest(self) -> int:
        """The highest revision that can be read; 0 if there is none."""
        return self._state.complete if self._oldest else 0

    @property
    def state(self) -> HistoryState:
        """What the archive says of this history."""
        return self._state

    @property
    def nodes(self) -> Nodes:
        return self._nodes

    def groups(self, after: int = 0) -> Iterator[GroupState]:
        """The retained groups above a revision, ascending. Lazy."""
        while (group := self._lasting(partial(self._next, after))) is not None:
            yield group
            after = group.revision

    def _next(self, after: int) -> GroupState | None:
        group = next(iter(self._state.groups.values(after + 1)), None)
        return GroupState(*group.state) if group else None

    def snapshot(self, revision: int | None = None) -> Snapshot:
        """The state at `revision`, None: the newest. O(log n), and O(events) to replay.

        Raises Compacted where it isn't retained or was never archived, FutureRevision above the
        newest, ArchiveError if the archive is damaged.
        """
        self._check_thread()
        revision = self.newest if revision is None else revision
        return Snapshot(revision, self._lasting(partial(self._tree, revision), revision))

    def revision_at(self, time_s: float) -> int:
        """The last revision that had arrived by a time, in seconds since 1970. O(groups), and
        O(log groups + batches of a group) loads. Raises Compacted if it isn't retained.

        Where the clock went back a time came twice: it is the later one.
        """
        self._check_thread()
        return self._lasting(partial(self._revision_at, time_s))

    def _revision_at(self, time_s: float) -> int:
        revisions = list(self._state.groups.keys())
        stop = len(revisions)
        for turn in (*reversed(self._state.turns), 0):
            # Between two turns of the clock times ascend.
            start = bisect_left(revisions, turn, 0, stop)
            index = bisect_right(revisions, time_s, start, stop, key=self._arrived_s)
            inside = self._inside(revisions[index], time_s) if index < stop else 0
            if inside:
                return inside
            if index > start:
                return revisions[index - 1] if index < len(revisions) else self.newest
            stop = start
        raise Compacted(0, self.oldest, message=_too_early(time_s, self._next(0)))

    def batches(self, after: int, upto: int | None = None) -> Iterator[tuple[Batch, float]]:
        """The retained batches above `after` and not above `upto`, with their times of arrival. The
        events don't say what was there before. Lazy."""
        for group in self.groups(after):
            if group.log is not None:
                with readable():
                    yield from batches_of(group.log, self._nodes, after, upto)
            if upto is not None and group.revision >= upto:
                return

    def _tree(self, revision: int) -> ArchivedTree:
        groups, newest = self._state.groups, self.newest
        if revision > newest:
            raise FutureRevision(revision, newest)
        if not groups:
            raise Compacted(revision, message="nothing is archived")
        following = next(iter(groups.values(revision)), None)
        if following is None:
            # Progress was promised above the last batch: the same content.
            return self._checkpoint(groups[groups.maxKey()].read())
        state = following.read()
        if state.revision == revision:
            return self._checkpoint(state)
        if state.base is not None:
            return self._replay(state, revision)
        before = groups[groups.maxKey(revision)].read() if self.oldest <= revision else None
        if before is not None and revision <= before.complete:
            return self._checkpoint(before)
        raise Compacted(revision, self.oldest, message=self._why_not(revision, state))

    def _replay(self, state: GroupState, revision: int) -> ArchivedTree:
        tree = self._replayed.get(revision)
        if tree is None:
            assert state.base is not None
            before: Group = self._state.groups[state.base]
            tree = replayed(self._checkpoint(before.read()), state.log, revision)
            self._replayed[revision] = tree
            if len(self._replayed) > REPLAYED_MAX:
                self._replayed.popitem(last=False)
        self._replayed.move_to_end(revision)
        return tree

    def _checkpoint(self, state: GroupState) -> ArchivedTree:
        return self._nodes.tree(state.root, state.elements)

    def _arrived_s(self, revision: int) -> float:
        """When all of a group had arrived."""
        state: GroupState = self._state.groups[revision].read()
        return state.last_s

    def _inside(self, revision: int, time_s: float) -> int:
        """The last revision inside a group that had arrived by a time; 0: none had."""
        log = self._state.groups[revision].read().log
        batches = log.state[1] if log else ()
        return max((at for at, arrived_s, *_ in batches if arrived_s <= time_s), default=0)

    def _why_not(self, revision: int, following: GroupState) -> str:
        if revision < self.oldest:
            return f"too old resource version: {revision} ({self.oldest})"
        for after, upto, reason, _ in self._state.gaps:
            if after < revision < upto:
                return f"resource version {revision} was not archived: {reason} at {upto}"
        return f"resource version {revision} is no longer archived: {following.revision} is next"

    def _lasting(self, look: Callable[[], T], revision: int = 0) -> T:
        """What is found in the state that was seen last or, if a pack has taken that away, in the
        one of now: what is retained is in both."""
        for _ in range(ATTEMPTS):
            try:
                with readable(revision):
                    return look()
            except Packed:
                self.refresh()
        raise Packed(revision)

    def _check_thread(self) -> None:
        assert get_ident() == self._nodes.thread, "a Reading belongs to the thread that made it"


def prefixes(database: Any) -> list[bytes]:
    """Of which there are histories. Raises ArchiveError."""
    with readable(), database.transaction() as connection:
        return sorted(connection.root()[NAME].state[1])


def _only(histories: dict[bytes, Any]) -> bytes:
    if len(histories) != 1:
        names = ", ".join(sorted(repr(prefix) for prefix in histories)) or "none"
        raise BadRequest(f"name one of the archive's prefixes: {names}")
    return next(iter(histories))


def _too_early(time_s: float, oldest: GroupState | None) -> str:
    if oldest is None:
        return "the archive is empty"
    return f"nothing was archived {oldest.first_s - time_s:.3f} s before the oldest revision"
