"""HistoryWriter: makes groups of what one cache has told, within the transactions of a Recorder.

A step of it changes nothing here that a failed commit would have to undo: `prepare` makes records,
`keep` takes over what was committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from btreecache.archive.checkpoint import Checkpoint, Stored
from btreecache.archive.log import log_of
from btreecache.archive.pending import Appended, Began, Distrusted, Pending, Step
from btreecache.archive.records import (
    Branch,
    Group,
    Groups,
    GroupState,
    History,
    HistoryState,
    Leaf,
)
from btreecache.archive.retention import Retention, Summary, dropped
from btreecache.digest import MODULUS, element_digest, recompute
from btreecache.element import Element
from btreecache.errors import ArchiveError
from btreecache.tree import Tree

#: Gaps remembered, the newest.
GAPS_MAX = 1_000

#: How often retention is looked after.
RETENTION_S = 10.0


class _Prepared(NamedTuple):
    """What a transaction writes for one history, and what is taken over once it is committed."""

    steps: list[Step]
    stored: Stored | None
    digest: int
    added: Summary | None
    gone: list[int]
    complete: int


class HistoryWriter:
    """Writes the history of one prefix. `prepare`, `keep`, `give_up`: the recorder's thread.

    number   of this writer: if another one writes the same history, one of the two fails
    """

    def __init__(
        self,
        prefix: bytes,
        pending: Pending,
        retention: Retention,
        number: int,
        wall: Callable[[], float],
    ) -> None:
        self.prefix = prefix
        self.pending = pending
        self.durable_revision = 0
        self.oldest = 0
        self._retention = retention
        self._number = number
        self._wall = wall
        self._checkpoint = Checkpoint()
        self._digest = 0
        self._groups: list[Summary] | None = None
        self._known: tuple[int, int] | None = None  # the writer and the last group of the history
        self._at = 0  # the revision of the checkpoint
        self._connection: Any = None
        self._looked_s = 0.0
        self._prepared: _Prepared | None = None

    def adopt(
        self,
        tree: Tree[bytes, Element],
        records: dict[int, Leaf | Branch],
        digest: int,
        oldest: int,
        durable_revision: int,
        found: HistoryState,
    ) -> None:
        """Go on from a state that was `found`, before anything is written."""
        self._checkpoint.adopt(tree, records)
        self._connection = None
        self._digest = digest
        self.oldest, self.durable_revision = oldest, durable_revision
        self._at = durable_revision
        self._known = found.writer, _last(found.groups)

    def attach(self, connection: Any) -> None:
        """Write through this connection from now on. O(nodes) if it is another one than before."""
        if connection is not self._connection:
            self._checkpoint.attach(connection)
            self._connection = connection

    def prepare(self, histories: dict[bytes, History], steps_max: int, bytes_max: int) -> bool:
        """Make one group of what waits, if anything does, in the transaction under way.

        Raises ArchiveError if another writer has written to the history since we found it.
        """
        record = self._record(histories)
        state = self._settled(record.read())
        steps, complete = self.pending.take(steps_max, bytes_max)
        count = _first_of_kind(steps)
        if count < len(steps):
            self.pending.put_back(steps[count:])
            steps, complete = steps[:count], 0
        try:
            prepared = self._write(state, steps, complete)
        except BaseException:
            self.pending.put_back(steps)
            raise
        if not steps and not prepared.gone and prepared.complete <= state.complete:
            return False
        self._prepared = prepared
        gaps = state.gaps
        if prepared.added and isinstance(steps[0], Began) and state.complete:
            gap = (state.complete, steps[0].revision, steps[0].reason, steps[0].arrived_s)
            gaps = (*gaps, gap)[-GAPS_MAX:]
        complete = prepared.complete
        record.state = HistoryState(state.groups, complete, self._wall(), gaps, self._number)[:]
        return True

    def keep(self) -> None:
        """The transaction was committed."""
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            return
        if prepared.stored is not None:
            self._checkpoint.keep(prepared.stored)
            self._at = prepared.complete
        elif prepared.gone and any(
            isinstance(s, Distrusted) and s.after < self._at for s in prepared.steps
        ):
            # Nothing retained holds its records any more: a pack may take them at any time.
            self._checkpoint = Checkpoint()
        self._digest = prepared.digest
        assert self._groups is not None
        added = [prepared.added] if prepared.added else []
        gone = {*prepared.gone, *(group.revision for group in added)}
        self._groups = [group for group in self._groups if group.revision not in gone] + added
        self._known = self._number, self._groups[-1].revision if self._groups else 0
        self.oldest = self._groups[0].revision if self._groups else 0
        self.durable_revision = prepared.complete

    def give_up(self) -> None:
        """The transaction failed: what it would have written waits again."""
        prepared, self._prepared = self._prepared, None
        self._groups = None  # It may have been committed, and only the answer was lost.
        if prepared is not None:
            self.pending.put_back(prepared.steps)

    def _record(self, histories: dict[bytes, History]) -> History:
        """The history's record, made at first."""
        record = histories.get(self.prefix)
        if record is None:
            record = History(HistoryState(Groups(), 0, 0.0, (), self._number)[:])
            histories[self.prefix] = record
        return record

    def _settled(self, state: HistoryState) -> HistoryState:
        """What to go on from: the history as we left it. Raises ArchiveError if it isn't."""
        groups = state.groups
        if self._known is None:
            self._known = state.writer, _last(groups)
        if state.writer == self._number:
            # What is above our last group was committed, but the answer was lost: written again.
            for revision in [*groups.keys(self._known[1] + 1)]:
                del groups[revision]
            complete = self.durable_revision
            gaps = tuple(gap for gap in state.gaps if gap[1] <= complete)
            state = state._replace(complete=complete, gaps=gaps)
        elif self._known != (state.writer, _last(groups)):
            raise ArchiveError(f"another process writes the history of {self.prefix!r}")
        if self._groups is None:
            self._groups = [summary(group.read()) for group in groups.values()]
        return state

    def _write(self, state: HistoryState, steps: list[Step], complete: int) -> _Prepared:
        groups, now_s = state.groups, self._wall()
        gone: list[int] = []
        stored, added, digest = None, None, self._digest
        revision = state.complete
        if steps and isinstance(steps[0], Distrusted):
            revision = min(revision, steps[0].after)
            gone, added = _distrust(groups, steps[0].after)
        elif steps:
            stored, digest, group = self._group(groups, steps)
            if group.base is None and group.revision <= state.complete:
                self._listed_again(groups, group, state.complete)
            else:
                groups[group.revision] = Group(group[:])
                added = summary(group)
            revision = max(revision, group.revision)
        known = [group for group in self._groups or () if group.revision not in gone]
        known += [added] if added else []
        if now_s - self._looked_s >= RETENTION_S:
            self._looked_s = now_s
            forgotten = [*dropped(self._retention, known, now_s)]
            forget(groups, forgotten)
            gone += forgotten
        return _Prepared(steps, stored, digest, added, gone, max(revision, complete))

    def _listed_again(self, groups: Any, listed: GroupState, complete: int) -> None:
        """A list that isn't newer than what is archived must be the same state. Raises
        ArchiveError: a source that went back tells another history, and this one isn't lost."""
        last = groups[groups.maxKey()]
        state = last.read()
        if listed.revision < state.revision or listed.digest != state.digest:
            raise ArchiveError(
                f"the source of {self.prefix!r} is at revision {listed.revision}, the archive at"
                f" {complete}: another history, which needs an archive of its own"
            )
        last.state = state._replace(root=listed.root)[:]

    def _group(self, groups: Any, steps: Sequence[Any]) -> tuple[Stored, int, GroupState]:
        """The records of one list, or of batches that follow from the last group."""
        first, last = steps[0], steps[-1]
        stored = self._checkpoint.store(last.tree)
        if isinstance(first, Began):
            digest = recompute(last.tree.values(), "values")
            base, log, batches, size = None, None, 0, stored.bytes
        else:
            digest = self._digest
            for event in (event for step in steps for event in step.batch.events):
                if event.previous is not None:
                    digest -= element_digest(event.previous, "values")
                if event.element is not None:
                    digest += element_digest(event.element, "values")
            digest %= MODULUS
            base = groups.maxKey()
            batches = len(steps)
            log, size = log_of([(s.batch, s.arrived_s) for s in steps], stored.placed)
            size += stored.bytes
        group = GroupState(
            base, last.revision, first.arrived_s, last.arrived_s, stored.root, len(last.tree),
            digest.to_bytes(32, "big"), log, batches, size,
        )  # fmt: skip
        return stored, digest, group


def _last(groups: Any) -> int:
    return int(groups.maxKey()) if groups else 0


def summary(group: GroupState) -> Summary:
    """What retention has to know of a group."""
    return Summary(group.revision, group.last_s, group.batches, group.size_bytes)


def forget(groups: Any, revisions: Sequence[int]) -> None:
    """Take groups out. The log of a group whose base went leads nowhere, so it goes as well."""
    for revision in revisions:
        del groups[revision]
        following = next(iter(groups.values(revision)), None)
        if following is not None:
            state = following.read()
            if state.log is not None and state.root is not None:
                following.state = state._replace(base=None, log=None)[:]


def _first_of_kind(steps: Sequence[Step]) -> int:
    """How many steps make one group: a list alone, a cut alone, batches together."""
    if not steps or not isinstance(steps[0], Appended):
        return len(steps[:1])
    for index, step in enumerate(steps):
        if not isinstance(step, Appended):
            return index
    return len(steps)


def _distrust(groups: Any, after: int) -> tuple[list[int], Summary | None]:
    """Forget what is above a revision: the groups that went, and what is left of the one that has
    it inside."""
    gone, added = [], None
    for revision in list(groups.keys(after + 1)):
        state = groups[revision].read()
        gone.append(revision)
        del groups[revision]
        if state.base is not None and state.base < after and state.log is not None:
            cut = state._replace(revision=after, root=None, digest=b"")
            groups[after] = Group(cut[:])
            added = summary(cut)
    return gone, added
