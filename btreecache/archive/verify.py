"""Verifying an archive: every retained checkpoint and every log, from the records up.

A checkpoint is good if each record that it refers to can be read and fits where it hangs, if the
digest of its elements, each hashed anew, is the one that was saved with it, and if its tree keeps
the invariants. A log is good if it leads from its base to its checkpoint. What isn't good is named:
history, group, the path of child numbers from the root, and the record.

Whatever a damaged record makes Python raise is a finding. Trees share records, and what a record
is good for is remembered up to a bound, so that a group costs what its batches changed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from ZODB.POSException import POSKeyError, ReadConflictError

from btreecache.archive.log import packed, replayed
from btreecache.archive.nodes import ArchivedTree, Packed, Place, keys_of, places_of, source_of
from btreecache.archive.reading import Reading
from btreecache.archive.records import (
    Branch,
    GroupState,
    Leaf,
    Log,
    Run,
    StoredElement,
    check_of,
    contents_of,
)
from btreecache.digest import MODULUS, element_digest

#: What is remembered: of nodes, and of elements in runs.
NODES_MAX, ELEMENTS_MAX = 100_000, 100_000

#: How often a group is looked at that changes under the feet.
ATTEMPTS = 5

V = TypeVar("V")


class Problem(NamedTuple):
    """Something that is wrong.

    prefix, revision   of the history and the group; revision 0: of the history as a whole
    where              the path from the root of the tree, `log`, or "": the group itself; `file`:
                       it is of no history
    """

    prefix: bytes
    revision: int
    where: str
    what: str

    def __str__(self) -> str:
        if self.where == "file":
            return f"file: {self.what}"
        of = f" group {self.revision}" if self.revision else ""
        where = f" {self.where}" if self.where else ""
        return f"history {self.prefix!r}{of}{where}: {self.what}"


class _Known(NamedTuple):
    """A node that was looked at, and everything below it."""

    height: int
    items: int
    digest: int
    newest: int
    is_sound: bool


class _Kept(NamedTuple):
    """An element of a run."""

    key: bytes
    mod_revision: int
    digest: int


class _Recent(Generic[V]):
    """What was remembered last, up to a cost."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[bytes, tuple[V, int]] = OrderedDict()
        self._cost = 0

    def get(self, key: bytes) -> V | None:
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: bytes, value: V, cost: int) -> None:
        self._entries[key] = value, cost
        self._cost += cost
        while self._cost > self._most and len(self._entries) > 1:
            self._cost -= self._entries.popitem(last=False)[1][1]

    def clear(self) -> None:
        self._entries.clear()
        self._cost = 0


class Verification:
    """One history under examination. For the thread of its Readings.

    walk     to look at records with. Nothing of it stays in memory for longer than it is looked at,
             so that each reference is followed anew
    replay   the same history, to check trees and replay logs with
    groups, checkpoints, batches   looked at so far
    elements                       hashed so far
    """

    def __init__(self, walk: Reading, replay: Reading) -> None:
        self._walk, self._replay = walk, replay
        self._nodes: _Recent[_Known] = _Recent(NODES_MAX)
        self._runs: _Recent[list[_Kept]] = _Recent(ELEMENTS_MAX)
        self._found: list[tuple[str, str]] = []
        self._sound: ArchivedTree | None = None
        self._last = 0
        self._is_stale = False
        self.groups = self.checkpoints = self.batches = self.elements = 0

    def problems(self, advance: Callable[[int], object] = lambda done: None) -> Iterator[Problem]:
        """Everything that is wrong, group by group; `advance` is told the groups done so far.

        O(records), memory bounded. A group that retention forgets meanwhile, and a pack removes, is
        no problem.
        """
        prefix = self._walk.prefix
        try:
            revisions = self._revisions()
        except Exception as error:
            yield Problem(prefix, 0, "", f"its list of groups can't be read: {self._why(error)}")
            return
        for revision in revisions:
            yield from (Problem(prefix, revision, *found) for found in self._examined(revision))
            self.groups += 1
            advance(self.groups)
        yield from (Problem(prefix, 0, "", what) for what in self._of_the_whole())

    def _revisions(self) -> list[int]:
        try:
            return list(self._walk.state.groups.keys())
        except ReadConflictError:
            self._walk.refresh()
            return list(self._walk.state.groups.keys())

    def _examined(self, revision: int) -> list[tuple[str, str]]:
        """What is wrong with a group. Where a pack has taken away what was seen of it, as behind a
        server, it is looked at again, as it is now."""
        before = self._last, self._sound
        for _ in range(ATTEMPTS):
            self._last, self._sound = before
            self._found, self._is_stale = [], False
            self._group(revision)
            if not self._found or not self._is_retained(revision):
                return []
            if not self._is_stale:
                break
            self._nodes.clear()
            self._replay.refresh()
        return self._found

    def _why(self, error: Exception) -> str:
        self._is_stale |= isinstance(error, ReadConflictError | Packed)
        if isinstance(error, POSKeyError):
            return "broken reference: there is no such record"
        return f"{type(error).__name__}: {error}"

    def _is_retained(self, revision: int) -> bool:
        self._walk.refresh()
        return revision in self._walk.state.groups

    def _of_the_whole(self) -> Iterator[str]:
        """What the groups and what is said of them have to do with each other."""
        state = self._walk.state
        last = int(state.groups.maxKey()) if state.groups else 0
        if state.complete < last:
            yield f"complete up to {state.complete}, but there is a group at {last}"
        for after, upto, _, _ in state.gaps:
            if after >= upto:
                yield f"a gap from {after} to {upto}"
        if state.tail is None:
            return
        self._found = []
        tail = self._node(state.tail, None, "root")
        yield from (f"the tree written last, {where}: {what}" for where, what in self._found)
        # What was distrusted is above `complete`.
        if tail.is_sound and last < tail.newest <= state.complete:
            yield f"a tree of revision {tail.newest} was written, but the last group is {last}"

    def _group(self, revision: int) -> None:
        last, self._last = self._last, 0
        base, self._sound = self._sound, None
        try:
            state = self._walk.state.groups[revision].read()
            if state.revision != revision:
                self._report("", f"says that it is of revision {state.revision}")
            self.checkpoints += 1
            self._sound = self._checkpoint(state, base)
            if state.log is not None:
                self._log(state, last, base)
            self._last = revision
        except Exception as error:
            self._report("", f"can't be read: {self._why(error)}")

    def _again(self, state: GroupState) -> GroupState:
        """The same group, to replay."""
        return self._replay.state.groups[state.revision].read()  # type: ignore[no-any-return]

    def _report(self, where: str, what: str) -> None:
        self._found.append((where, what))

    # Checkpoints.

    def _checkpoint(self, state: GroupState, base: ArchivedTree | None) -> ArchivedTree | None:
        """The tree, if nothing is wrong with it. `base`: the one before, if it was sound."""
        known = self._node(state.root, None, "root")
        if not known.is_sound:
            self._report("", "its checkpoint refers to broken records")
            return None
        reported = len(self._found)
        if known.items != state.elements:
            self._report("", f"{state.elements} elements are promised, {known.items} are there")
        if known.digest.to_bytes(32, "big") != state.digest:
            self._report("", "the digest of its elements is not the one that was saved")
        if known.newest > state.revision:
            self._report("", f"it holds an element of revision {known.newest}")
        tree = self._replay.nodes.tree(self._again(state).root, state.elements)
        for violation in tree.check(fresh_from=base):
            self._report("", violation)
        return tree if len(self._found) == reported else None

    def _node(self, record: Any, height: int | None, path: str) -> _Known:
        """What a node and all below it come to; what is broken there is reported, once."""
        known = self._nodes.get(record._p_oid)
        if known is None:
            try:
                known = self._known(record, height, path)
            except Exception as error:
                self._report(path, f"{_named(record)}: {self._why(error)}")
                known = _Known(height or 0, 0, 0, 0, is_sound=False)
            self._nodes.put(record._p_oid, known, 1)
            record._p_deactivate()
        if known.is_sound and type(record) is not (Branch if known.height else Leaf):
            self._report(path, f"{_named(record)} is referred to as what it isn't")
            return known._replace(is_sound=False)
        if height is not None and known.is_sound and known.height != height:
            self._report(path, f"{_named(record)} has height {known.height}, not {height}")
            return known._replace(is_sound=False)
        return known

    def _known(self, record: Any, height: int | None, path: str) -> _Known:
        if isinstance(record, Leaf):
            return self._leaf(record, path)
        if not isinstance(record, Branch):
            raise ValueError("neither a leaf nor a branch")
        own, _, children, counts = record.state
        if own < 1 or (height is not None and own != height):
            raise ValueError(f"a branch of height {own}")  # So that no cycle is followed.
        digest = newest = total = 0
        sound = True
        for i, (child, count) in enumerate(zip(children, counts, strict=True)):
            below = self._node(child, own - 1, f"{path}/{i}")
            if below.is_sound and below.items != count:
                self._report(f"{path}/{i}", f"{count} elements are promised, not {below.items}")
            sound = sound and below.is_sound and below.items == count
            total, digest = total + below.items, digest + below.digest
            newest = max(newest, below.newest)
        return _Known(own, total, digest % MODULUS, newest, sound)

    def _leaf(self, leaf: Leaf, path: str) -> _Known:
        digest = newest = 0
        sound = True
        keys = keys_of(leaf)
        for key, place in zip(keys, places_of(leaf), strict=True):
            found = self._element(place, key, path)
            if found is None:
                sound = False
            else:
                digest += found.digest
                newest = max(newest, found.mod_revision)
        return _Known(0, len(keys), digest % MODULUS, newest, sound)

    def _element(self, place: Place, key: bytes, path: str) -> _Kept | None:
        """The element at a place, None if it is not there; then that is reported."""
        run, index = place
        try:
            elements = self._elements(run)
        except Exception as error:
            what = f"{_named(run)}: {self._why(error)}"
            if self._found[-1:] != [(path, what)]:  # Not for each element of the run.
                self._report(path, what)
            return None
        if not 0 <= index < len(elements) or elements[index].key != key:
            self._report(path, f"{_named(run)} does not hold {key!r} at place {index}")
            return None
        return elements[index]

    def _elements(self, run: Run) -> list[_Kept]:
        if type(run) is not Run:
            raise ValueError("no run")
        found = self._runs.get(run._p_oid)
        if found is None:
            found = [_kept(stored) for stored in contents_of(run)[1]]
            self.elements += len(found)
            self._runs.put(run._p_oid, found, len(found))
            run._p_deactivate()
        return found

    # Logs.

    def _log(self, state: GroupState, last: int, base: ArchivedTree | None) -> None:
        """That the log leads from its base to the checkpoint, and that its elements are there."""
        if state.base != last:
            self._report("log", f"its base, the checkpoint at {state.base}, is not there")
            return
        tree, different = self._sound, None
        try:
            if not self._events(state.log, state) or tree is None:
                return
            if base is None:
                self._report("log", f"its base, the checkpoint at {state.base}, is broken")
                return
            made = replayed(base, self._again(state).log, state.revision)
            different = next(made.changes(tree), None)
        except Exception as error:
            self._report("log", f"{_named(state.log)}: {self._why(error)}")
        if different is not None:
            self._report("log", f"it doesn't lead to the checkpoint: {different[0]!r} differs")

    def _events(self, log: Log, state: GroupState) -> bool:
        """That each batch is in its place and each element as its event says."""
        reported = len(self._found)
        runs, batches, saved = log.state
        last, digest = state.base or 0, 0
        for revision, _, synthetic, events in batches:
            if not last < revision <= state.revision:
                self._report("log", f"batch {revision} follows {last}")
            last = revision
            for event in events:
                if isinstance(event, bytes):
                    continue
                key, run, index, *_ = event
                found = self._element((runs[run], index), key, "log")
                if found is None:
                    continue
                digest += found.digest
                if found.mod_revision != revision and not synthetic:
                    what = f"{key!r} in batch {revision} is of revision {found.mod_revision}"
                    self._report("log", what)
        self.batches += len(batches)
        if packed(digest) != saved and len(self._found) == reported:
            self._report("log", "the digest of what was put is not the one that was saved")
        if len(batches) != state.batches:
            self._report("log", f"{state.batches} batches are promised, {len(batches)} are there")
        if last != state.revision:
            self._report("log", f"it ends at {last}")
        log._p_deactivate()
        return len(self._found) == reported


def _kept(stored: StoredElement) -> _Kept:
    digest = element_digest(source_of(stored), "values")
    if stored.check not in (None, check_of(digest)):
        raise ValueError(f"{stored.key!r} is not what was written")
    return _Kept(stored.key, stored.mod_revision, digest)


def _named(record: Any) -> str:
    kind = type(record).__name__.lower()
    oid = getattr(record, "_p_oid", None)
    return f"{kind} 0x{int.from_bytes(oid, 'big'):x}" if oid else kind
