"""Restoring: the window of a cache as it was, in memory, from the archive.

Checkpoints become ordinary trees that share nodes and elements as their records do, so that the
next group written after a restart shares with the last one before it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

from btreecache.archive.groups import descending
from btreecache.archive.log import batches_of, packed
from btreecache.archive.nodes import Nodes, keys_of, places_of
from btreecache.archive.reading import Reading
from btreecache.archive.records import Branch, GroupState, Leaf
from btreecache.cache import NODE_BYTES
from btreecache.digest import element_digest, recompute
from btreecache.element import Element
from btreecache.errors import ArchiveError
from btreecache.event import Batch, Event
from btreecache.history import Restored, RestoredStep
from btreecache.node import Node, branch, make
from btreecache.tree import Tree
from btreecache.window import Bounds


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
    reading: Reading, read: Callable[[Element], Element], bounds: Bounds, now_s: float
) -> tuple[Restored, Adopted] | None:
    """What a window needs of a history, and what its writer goes on from; None: there is nothing.

    Reads the last state, and the changes before it until they are more than the window keeps, no
    further than the last gap. `now_s`: seconds since 1970. Raises ArchiveError if a digest differs.
    """
    groups = descending(reading.state.groups)
    first = last = next(groups, None)
    if first is None or last is None:
        return None
    made = Materialised(read)
    parts: list[list[RestoredStep]] = []
    batches = size_bytes = 0
    while first.base is not None and not (
        (bounds.age_s is not None and now_s - first.last_s > bounds.age_s)
        or (bounds.revisions is not None and batches >= bounds.revisions)
        or (bounds.bytes is not None and size_bytes > bounds.bytes)
    ):
        before = next(groups)
        parts.append(_steps(made, before, first, now_s))
        batches += len(parts[-1])
        size_bytes += sum(step.superseded_bytes for step in parts[-1])
        first = before
    tree, newest = made.tree(first.root), made.tree(last.root)
    _check(first, recompute(tree.values(), "values"))
    steps = tuple(chain.from_iterable(reversed(parts)))
    window = Restored(first.revision, tree, max(now_s - first.last_s, 0.0), steps, reading.newest)
    records = made.records(last.root)
    return window, Adopted(newest, records, int.from_bytes(last.digest, "big"))


def _steps(
    made: Materialised, base: GroupState, group: GroupState, now_s: float
) -> list[RestoredStep]:
    """The batches of a group, each with the tree after it."""
    tree = made.tree(base.root)
    digest, put = int.from_bytes(base.digest, "big"), 0
    steps = []
    for archived, arrived_s in batches_of(group.log, made.nodes):
        editor = tree.edit()
        events = []
        superseded_bytes = 0
        for event in archived.events:
            key, element = event.key, event.element
            previous = editor.get(key)
            if element is None:
                editor.delete(key)
            else:
                editor.set(key, element)
                put += element_digest(element, "values")
            if previous is not None:
                superseded_bytes += previous.size_bytes()
                digest -= element_digest(previous, "values")
            events.append(Event(key, element, previous))
        superseded_bytes += NODE_BYTES * editor.copied
        tree = editor.freeze()
        if archived.revision == group.revision:
            tree = made.tree(group.root)
        batch = Batch(archived.revision, tuple(events), archived.synthetic)
        age_s = max(now_s - arrived_s, 0.0)
        steps.append(RestoredStep(batch, tree, age_s, superseded_bytes))
    _check(group, digest + put)
    _check(group._replace(digest=group.log.state[2]), put)
    return steps


def _check(group: GroupState, digest: int) -> None:
    """That what was read of a group is what was written: a damaged disk isn't believed."""
    if packed(digest) != group.digest:
        raise ArchiveError(
            f"the archive is damaged: another digest at revision {group.revision} than when it was"
            " written"
        )
