"""Checkpoints: from a tree in memory to the records that it is made of, each written once.

Nodes that the tree shares with the one before have their records already; elements that were in the
one before have their places. So what is new is found by `unshared`, and costs what changed.

Elements that are written together form runs, which the leaves of one branch may share. A run lives
as long as one of its elements is referred to, so where a branch would keep alive more than twice
its own bytes of runs, all its elements are written anew: garbage that nothing can collect is
bounded, at the price of writing an element at most twice on average.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from btreecache.archive.nodes import Place, places_of
from btreecache.archive.records import Branch, Leaf, Run
from btreecache.archive.runs import Runs, cost
from btreecache.element import Element
from btreecache.node import Node, unshared
from btreecache.tree import Tree

#: How many bytes of runs a branch may keep alive beside twice its own, for each leaf.
SLACK_BYTES = 64 << 10

#: More than anything keeps alive.
UNKNOWN = 1 << 62

#: What it takes to write a reference to a record.
REFERENCE_BYTES = 20


class Stored(NamedTuple):
    """A tree that was written, and how its nodes and its new elements are found again.

    placed   by the id of an element that is new in this tree: where it is
    gone, new   ids of nodes that only the tree before has, records of those that only this one has
    kept        bytes of runs that the new parents of leaves keep alive, at most, by their ids
    """

    tree: Tree[bytes, Element]
    root: Leaf | Branch
    placed: dict[int, Place]
    gone: list[int]
    new: dict[int, Leaf | Branch]
    kept: dict[int, int]
    bytes: int


class _Known(NamedTuple):
    """An element that was written: where, how large the run there is, and the id of its leaf."""

    place: Place
    run_bytes: int
    leaf: int


class Checkpoint:
    """The last tree that was written, and the record of each of its nodes. For one thread."""

    def __init__(self) -> None:
        self._tree: Tree[bytes, Element] = Tree()
        self._records: dict[int, Leaf | Branch] = {}
        self._kept: dict[int, int] = {}  # What isn't known, after a restart, is counted.

    @property
    def tree(self) -> Tree[bytes, Element]:
        return self._tree

    @property
    def root(self) -> Leaf | Branch | None:
        """The record of the tree; None: nothing was written."""
        return self._records.get(id(self._tree.root))

    def adopt(self, tree: Tree[bytes, Element], records: dict[int, Leaf | Branch]) -> None:
        """Go on from a tree whose records exist: `records` by the ids of its nodes."""
        self._tree, self._records = tree, records

    def attach(self, connection: Any) -> None:
        """Refer to the records through this connection: ZODB writes no references to another's
        objects. O(nodes), loads nothing."""
        cache = connection._cache
        for node, record in self._records.items():
            oid = record._p_oid
            found = cache.get(oid)
            if found is None:
                found = type(record).__new__(type(record))
                cache.new_ghost(oid, found)
            self._records[node] = found

    def store(self, tree: Tree[bytes, Element], runs: Runs) -> Stored:
        """Records for what is new in `tree`. O(nodes not shared). Changes nothing here:
        `keep` does, once they are committed."""
        levels = list(unshared(self._tree.root, tree.root))
        new: dict[int, Leaf | Branch] = {}
        placed: dict[int, Place] = {}
        kept: dict[int, int] = {}
        size = 0
        known = self._known(levels[-1][0])
        for leaf in levels[-1][1]:
            self._recognise(leaf, known)
        before = {id(leaf): id(node) for node in _parents(levels, 0) for leaf in _leaves(node)}
        for parent in _parents(levels, 1):
            leaves, unwritten, kept[id(parent)] = self._renewed(parent, known, before)
            sizes: dict[Run, int] = {}
            for run, group, written in runs.shared(unwritten):
                size += written
                sizes[run] = written
                placed.update({id(element): (run, index) for index, element in enumerate(group)})
            for leaf in leaves:
                new[id(leaf)] = _leaf(leaf, known, placed, sizes)
                size += sum(map(len, leaf.keys)) + REFERENCE_BYTES * leaf.count
        for _, nodes in levels[-2::-1]:
            for node in nodes:
                children = node.entries
                records = tuple([new.get(id(n)) or self._records[id(n)] for n in children])
                counts = tuple([n.count for n in children])
                new[id(node)] = Branch((node.height, node.keys, records, counts))
                size += sum(map(len, node.keys)) + REFERENCE_BYTES * len(children)
        root = new.get(id(tree.root)) or self._records[id(tree.root)]
        gone = [id(node) for olds, _ in levels for node in olds]
        return Stored(tree, root, placed, gone, new, kept, size)

    def keep(self, stored: Stored) -> None:
        """What `store` made was committed."""
        for node in stored.gone:
            self._records.pop(node, None)  # The empty tree of the beginning has none.
            self._kept.pop(node, None)
        self._records.update(stored.new)
        self._kept.update(stored.kept)
        self._tree = stored.tree

    def _known(self, leaves: Iterable[Node[bytes]]) -> dict[int, _Known]:
        """Where the elements of leaves are, by id."""
        found: dict[int, _Known] = {}
        for leaf in leaves:
            record = self._records.get(id(leaf))
            if record is None:
                continue
            sizes = dict(zip(record.state[2], record.state[3], strict=True))
            for element, place in zip(leaf.entries, places_of(record), strict=True):
                found[id(element)] = _Known(place, sizes[place[0]], id(leaf))
            record._p_deactivate()
        return found

    def _recognise(self, leaf: Node[bytes], known: dict[int, _Known]) -> None:
        """A list brings elements that were written before, as other objects."""
        for element in leaf.entries:
            if id(element) not in known:
                before = self._tree.get(element.key)
                if before is not None and id(before) in known and before == element:
                    known[id(element)] = known[id(before)]

    def _renewed(
        self, parent: Node[bytes], known: dict[int, _Known], before: dict[int, int]
    ) -> tuple[Sequence[Node[bytes]], Sequence[Sequence[Element]], int]:
        """The leaves of a parent that need a record, what of each is to be written, and the bytes
        of runs that all its leaves keep alive then, at most."""
        every = _leaves(parent)
        leaves = [leaf for leaf in every if id(leaf) not in self._records]
        unwritten = [[e for e in leaf.entries if id(e) not in known] for leaf in leaves]
        live = sum([cost(element) for leaf in every for element in leaf.entries])
        most = 2 * live + SLACK_BYTES * len(every)
        adding = sum([cost(element) for elements in unwritten for element in elements])
        kept = self._estimated(every, known, before) + adding
        if kept > most:
            kept = self._counted(every, known) + adding
        if kept > most:
            return every, [leaf.entries for leaf in every], live
        return leaves, unwritten, kept

    def _estimated(
        self, leaves: Sequence[Node[bytes]], known: dict[int, _Known], before: dict[int, int]
    ) -> int:
        """What the parents `before` that any of these leaves comes from kept alive. O(elements)."""
        origins = set[int | None]()
        for leaf in leaves:
            if id(leaf) in self._records:
                origins.add(before.get(id(leaf)))
            else:
                found = [known.get(id(element)) for element in leaf.entries]
                origins.update(before.get(there.leaf) for there in found if there)
        return sum([self._kept.get(origin or 0, UNKNOWN) for origin in origins])

    def _counted(self, leaves: Sequence[Node[bytes]], known: dict[int, _Known]) -> int:
        """Bytes of the runs that these leaves refer to. Loads the records that they have."""
        sizes: dict[bytes, int] = {}
        for leaf in leaves:
            record = self._records.get(id(leaf))
            if record is not None:
                runs = zip(record.state[2], record.state[3], strict=True)
                sizes.update({run._p_oid: size for run, size in runs})
                record._p_deactivate()
                continue
            for there in filter(None, [known.get(id(element)) for element in leaf.entries]):
                sizes[there.place[0]._p_oid] = there.run_bytes
        return sum(sizes.values())


def _parents(
    levels: Sequence[tuple[list[Node[bytes]], list[Node[bytes]]]], tree: int
) -> list[Node[bytes]]:
    """Of the leaves that one of two trees doesn't share; itself where it is a leaf."""
    above = levels[-2][tree] if len(levels) > 1 else []
    return above or levels[-1][tree]


def _leaves(parent: Node[bytes]) -> Sequence[Node[bytes]]:
    return parent.entries if parent.height else (parent,)


def _leaf(
    leaf: Node[bytes],
    known: dict[int, _Known],
    placed: dict[int, Place],
    sizes: dict[Run, int],
) -> Leaf:
    """The record of a leaf whose elements are `placed` anew or `known` to be somewhere. `sizes`: of
    the new runs."""
    refers: dict[Run, int] = {}
    places = []
    for element in leaf.entries:
        place = placed.get(id(element))
        if place is not None:
            refers[place[0]] = sizes[place[0]]
        else:
            place, run_bytes, _ = known[id(element)]
            refers[place[0]] = run_bytes
        places.append(place)
    return leaf_of(leaf.keys, places, refers)


def leaf_of(keys: Sequence[bytes], places: Sequence[Place], sizes: dict[Run, int]) -> Leaf:
    """A record of keys and where their elements are, in runs of these sizes."""
    numbers = {run: number for number, run in enumerate(sizes)}
    prefix = _common(keys[0], keys[-1]) if keys else b""
    suffixes = tuple([key[len(prefix) :] for key in keys])
    flat = tuple([number for run, index in places for number in (numbers[run], index)])
    return Leaf((prefix, suffixes, tuple(sizes), tuple(sizes.values()), flat))


def _common(first: bytes, last: bytes) -> bytes:
    """What two keys, and so all between them, begin with."""
    length = 0
    for mine, theirs in zip(first, last, strict=False):
        if mine != theirs:
            break
        length += 1
    return first[:length]
