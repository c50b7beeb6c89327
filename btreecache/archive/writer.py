"""HistoryWriter: makes groups of what one cache has told, within the transactions of a Recorder.

A step of it changes nothing here that a failed commit would have to undo: `prepare` makes records,
`keep` takes over what was committed. A commit that failed may have been made all the same, and only
its answer was lost: then what it wrote is written again, over it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from btreecache.archive.checkpoint import Checkpoint, Stored
from btreecache.archive.groups import cut, forget, newest
from btreecache.archive.log import log_of, packed
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
from btreecache.archive.runs import Runs
from btreecache.digest import MODULUS, recompute
from btreecache.element import Element
from btreecache.errors import ArchiveError
from btreecache.tree import Tree

#: Gaps and turns of the clock that are remembered, the newest.
GAPS_MAX = 1_000

#: How often retention is looked after.
RETENTION_S = 10.0


class _Prepared(NamedTuple):
    """What a transaction writes for one history, and what is taken over once it is committed."""

    steps: list[Step]
    complete: int
    last: int
    stored: Stored | None
    digest: int
    summaries: list[Summary]
    looked_s: float


class HistoryWriter:
    """Writes the history of one prefix. `prepare`, `keep`, `give_up`: the recorder's thread.

    number   of this writer: if another one writes the same history, one of the two fails
    recipe   of the codec that makes the cache's elements, b"" if nobody can tell (`Codec.recipe`)
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
        self.oldest = 0
        self.recipe = b""
        self._retention = retention
        self._number = number
        self._wall = wall
        self._checkpoint = Checkpoint()
        self._digest = 0
        self._known: tuple[int, int] | None = None  # the writer and the last group of the history
        self._summaries: list[Summary] | None = None
        self._connection: Any = None
        self._looked_s = 0.0
        self._prepared: _Prepared | None = None

    def adopt(
        self,
        tree: Tree[bytes, Element],
        records: dict[int, Leaf | Branch],
        digest: int,
        oldest: int,
        found: HistoryState,
    ) -> None:
        """Go on from the last group of a history that was `found` so; nothing is written yet."""
        self._checkpoint.adopt(tree, records)
        self._connection = None
        self._digest = digest
        self._known = found.writer, _last(found.groups)
        self.oldest = oldest
        self.pending.written(found.complete)

    def attach(self, connection: Any) -> None:
        """Write through this connection from now on. O(nodes) if it is another one than before."""
        if connection is not self._connection:
            self._checkpoint.attach(connection)
            self._connection = connection

    def prepare(self, histories: dict[bytes, History], steps_max: int, bytes_max: int) -> bool:
        """Make one group of what waits, if anything does, in the transaction under way; or let
        retention drop some. Whether anything is to be committed.

        Raises ArchiveError if another writer has written to the history since we found it, or if
        the cache follows another source by now.
        """
        record = self._record(histories)
        before = record.read()
        summaries = self._summaries
        if summaries is None:
            summaries = [summary(group.read()) for group in before.groups.values()]
        now_s = self._wall()
        if not 0 <= now_s - self._looked_s < RETENTION_S:  # A clock may go back.
            # Never in one transaction with a group: if its answer is lost, the group before the one
            # that is written again must still be there.
            forgotten = [*dropped(self._retention, summaries, now_s)]
            if forgotten:
                self._forget(record, before, summaries, forgotten, now_s)
                return True
            self._looked_s = now_s
        steps, complete = self.pending.take(steps_max, bytes_max)
        try:
            state, stored, digest = self._written(before, steps)
        except BaseException:
            self.pending.put_back(steps)
            raise
        if not steps and complete <= state.complete:
            return False
        last = _last(state.groups)
        state = state._replace(
            complete=max(state.complete, complete), complete_s=now_s, writer=self._number
        )
        record.state = state[:]
        summaries = [known for known in summaries if known.revision < last]
        group = newest(state.groups)
        if group is not None:
            summaries.append(summary(group))
        self._prepared = _Prepared(
            steps, state.complete, last, stored, digest, summaries, self._looked_s
        )
        return True

    def keep(self) -> None:
        """The transaction was committed."""
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            return
        if prepared.stored is not None:
            self._checkpoint.keep(prepared.stored)
        self._digest = prepared.digest
        self._known = self._number, prepared.last
        self._looked_s = prepared.looked_s
        self._summaries = prepared.summaries
        self.oldest = prepared.summaries[0].revision if prepared.summaries else 0
        self.pending.written(prepared.complete)

    def give_up(self) -> None:
        """The transaction failed: what it would have written waits again."""
        prepared, self._prepared = self._prepared, None
        self._summaries = self._connection = None
        if prepared is not None:
            self.pending.put_back(prepared.steps)

    def _record(self, histories: dict[bytes, History]) -> History:
        """The history's record, made at first; checked to be ours."""
        record = histories.get(self.prefix)
        if record is None:
            nothing = HistoryState(Groups(), 0, 0.0, (), self._number, 0, None, ())
            record = histories[self.prefix] = History(nothing[:])
        state = record.read()
        if self._known is None:
            self._known = state.writer, _last(state.groups)
        if state.writer != self._number and self._known != (state.writer, _last(state.groups)):
            raise ArchiveError(f"another process writes the history of {self.prefix!r}")
        self._share(state)
        return record

    def _share(self, state: HistoryState) -> None:
        """Share only with a tree that the history holds: a commit whose answer was lost may have
        let go of ours, and a pack may have taken it since."""
        assert self._known is not None
        ours, last = self._checkpoint.root, state.groups.get(self._known[1])
        held = [state.tail, last.read().root if last else None]
        if ours is not None and all(root is None or root._p_oid != ours._p_oid for root in held):
            self._checkpoint = Checkpoint()

    def _forget(
        self,
        record: History,
        state: HistoryState,
        summaries: list[Summary],
        forgotten: list[int],
        now_s: float,
    ) -> None:
        forget(state.groups, forgotten)
        kept = [known for known in summaries if known.revision not in {*forgotten}]
        turns = tuple([turn for turn in state.turns if turn > kept[0].revision])
        record.state = state._replace(turns=turns, writer=self._number)[:]
        self._prepared = _Prepared(
            [], state.complete, kept[-1].revision, None, self._digest, kept, now_s
        )

    def _written(
        self, state: HistoryState, steps: Sequence[Any]
    ) -> tuple[HistoryState, Stored | None, int]:
        """The history with the steps, the tree that was written for them, and its digest."""
        if not steps:
            return state, None, self._digest
        if isinstance(steps[0], Distrusted):
            return _cut(state, max(steps[0].after, state.listed)), None, self._digest
        runs = Runs(self.recipe)
        stored = self._checkpoint.store(steps[-1].tree, runs)
        if isinstance(steps[0], Began):
            digest = runs.digest(steps[0].tree.values())
            return self._began(state, steps[0], stored, digest), stored, digest
        assert self._known is not None
        if state.writer == self._number:
            # What is above our last group was committed, and only the answer was lost.
            state = _cut(state, self._known[1])
        events = [event for step in steps for event in step.batch.events]
        put = runs.digest(event.element for event in events if event.element)
        gone = recompute((event.previous for event in events if event.previous), "values")
        digest = (self._digest + put - gone) % MODULUS
        log, size = log_of([(step.batch, step.arrived_s) for step in steps], stored.placed, runs)
        size += stored.bytes
        group = _group(self._known[1], steps, stored, digest, log, len(steps), size)
        if _last(state.groups) != group.base:  # Trimmed, when a lost commit had followed on it.
            group = group._replace(base=None, log=None)
        return _added(state, group), stored, digest

    def _began(self, state: HistoryState, step: Began, stored: Stored, digest: int) -> HistoryState:
        group = _group(None, [step], stored, digest, None, 0, stored.bytes)
        before = newest(state.groups)
        if before is None:
            state = _added(state, group)
        elif step.revision > state.complete:
            state.groups[before.revision].state = before._replace(complete=state.complete)[:]
            gap = (state.complete, step.revision, step.reason, step.arrived_s)
            state = state._replace(gaps=(*state.gaps, gap)[-GAPS_MAX:])
            state = _added(state, group)
        elif step.revision < before.revision or group.digest != before.digest:
            # A source that went back tells another history, and this one isn't lost for it.
            raise ArchiveError(
                f"the source of {self.prefix!r} is at revision {step.revision}, the archive at"
                f" {state.complete}: another history, which needs an archive of its own"
            )
        else:
            state = state._replace(tail=stored.root)
        listed = step.revision if step.is_list else state.listed
        return state._replace(listed=listed)


def summary(group: GroupState) -> Summary:
    """What a writer remembers of a group."""
    return Summary(group.revision, group.last_s, group.batches, group.size_bytes)


def _last(groups: Any) -> int:
    return int(groups.maxKey()) if groups else 0


def _group(
    base: int | None,
    steps: Sequence[Began | Appended],
    stored: Stored,
    digest: int,
    log: Any,
    batches: int,
    size_bytes: int,
) -> GroupState:
    first, last = steps[0], steps[-1]
    return GroupState(
        base, last.revision, last.revision, first.arrived_s, last.arrived_s, stored.root,
        len(last.tree), packed(digest), log, batches, size_bytes,
    )  # fmt: skip


def _added(state: HistoryState, group: GroupState) -> HistoryState:
    """The history with one more group at its end."""
    before, turns = newest(state.groups), state.turns
    if before is not None and group.first_s < before.last_s:
        turns = (*turns, group.revision)[-GAPS_MAX:]
    state.groups[group.revision] = Group(group[:])
    return state._replace(complete=group.revision, tail=group.root, turns=turns)


def _cut(state: HistoryState, after: int) -> HistoryState:
    """The history without what is above a revision."""
    known = cut(state.groups, after)
    complete = min(state.complete, after if known is None else known)
    gaps = tuple([gap for gap in state.gaps if gap[1] <= complete])
    turns = tuple(sorted({min(turn, _last(state.groups)) for turn in state.turns}))
    return state._replace(complete=complete, gaps=gaps, turns=turns)
