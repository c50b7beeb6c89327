"""Restoring: the window of a cache as it was, in memory, from the archive.

Checkpoints become ordinary trees that share nodes and elements as their records do, so that the
next group written after a restart shares with the last one before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from btreecache.archive.log import batches_of
from btreecache.archive.nodes import Nodes, keys_of, places_of
from btreecache.archive.reading import Reading
from btreecache.archive.records import Branch, GroupState, Leaf
from btreecache.element import Element
from btreecache.event import Batch, Event
from btreecache.history import Restored
from btreecache.node import Node, branch, make
from btreecache.tree import Tree


class Adopted(NamedTuple):
    """A checkpoint in memory, to go on from: its tree, the record of each node, its digest."""

    tree: Tree[bytes, Element]
    records: dict[int, Leaf | Branch]
    digest: int


class Materialised:
    """Trees in memory from the records of checkpoints. A record is loaded once, in all trees."""

    def __init__(self, read: Callable[[Element], Element]) -> None:
        self.nodes = Nodes(read, cache_bytes=1 << 62)  # All of it stays in the cache anyway.
        self._made: dict[bytes, Node[bytes]] = {}

    def tree(self, root: Leaf | Branch) -> Tree[bytes, Element]:
        """The tree below a root record. O(records not loaded yet)."""
        return Tree(self._node(root))

    def records(self, root: Leaf | Branch) -> dict[int, Leaf | Branch]:
        """The record of each node of a tree that was made, by the node's id. O(nodes)."""
        found: dict[int, Leaf | Branch] = {}
        stack = [root]
        while stack:
            record = stack.pop()
            found[id(self._made[record._p_oid])] = record
            if isinstance(record, Branch):
                stack += record.state[2]
                record._p_deactivate()
        return found

    def _node(self, record: Any) -> Node[bytes]:
        made = self._made.get(record._p_oid)
        if made is None:
            if isinstance(record, Branch):
                _, keys, children, _ = record.state
                made = branch([self._node(child) for child in children], None)
                made.keys = keys
            else:
                keys = keys_of(record)
                elements = [self.nodes.element(place) for place in places_of(record)]
                made = make(0, keys, elements, len(keys), None)
            record._p_deactivate()
            self._made[record._p_oid] = made
        return made


def restored(
    reading: Reading,
    read: Callable[[Element], Element],
    ages_s: float | None,
    revisions: int | None,
    now_s: float,
) -> tuple[Restored, Adopted] | None:
    """What a window needs of a history, and what its writer goes on from; None: there is nothing.

    Reads the last state and all changes of the last `ages_s` seconds and `revisions`, no further
    than the last gap. `now_s`: seconds since 1970.
    """
    groups = _since(reading, ages_s, revisions, now_s)
    if not groups:
        return None
    materialised = Materialised(read)
    first, last = groups[0], groups[-1]
    tree = before = materialised.tree(first.root)
    steps: list[tuple[Batch, Tree[bytes, Element], float]] = []
    for group in groups[1:]:
        for batch, arrived_s in batches_of(group.log, materialised.nodes):
            made, before = _applied(before, batch)
            if batch.revision == group.revision:
                before = materialised.tree(group.root)
            steps.append((made, before, max(now_s - arrived_s, 0.0)))
    newest = materialised.tree(last.root)
    is_last = last.revision == reading.state.groups.maxKey()
    window = Restored(
        first.revision,
        tree,
        max(now_s - first.last_s, 0.0),
        steps,
        reading.newest if is_last else last.revision,
        tuple((after, upto) for after, upto, _, _ in reading.state.gaps if upto > first.revision),
    )
    records = materialised.records(last.root)
    return window, Adopted(newest, records, int.from_bytes(last.digest, "big"))


def _since(
    reading: Reading, ages_s: float | None, revisions: int | None, now_s: float
) -> list[GroupState]:
    """The groups of a window: a checkpoint, and the groups after it that follow from each other."""
    groups: list[GroupState] = []
    batches = 0
    for group in reversed(list(reading.groups())):
        if group.root is None:
            # What came after it was distrusted, so it ends without a checkpoint, and a list follows
            # if anything does.
            if groups:
                break
            continue
        groups.append(group)
        enough = (ages_s is not None and now_s - group.last_s > ages_s) or (
            revisions is not None and batches >= revisions
        )
        if enough or group.base is None or group.log is None:
            break
        batches += group.batches
    return groups[::-1]


def _applied(before: Tree[bytes, Element], batch: Batch) -> tuple[Batch, Tree[bytes, Element]]:
    """The tree after a batch, and the batch with what was there before it."""
    editor = before.edit()
    events = []
    for event in batch.events:
        previous = editor.get(event.key)
        if event.element is None:
            editor.delete(event.key)
        else:
            editor.set(event.key, event.element)
        events.append(Event(event.key, event.element, previous))
    return Batch(batch.revision, tuple(events), batch.synthetic), editor.freeze()
