"""Checkpoints: from a tree in memory to the records that it is made of, each written once.

Nodes that the tree shares with the one before have their records already; elements that were in the
one before have their places. So what is new is found by `unshared`, and costs what changed.

Elements that are written together form runs. A run lives as long as one of its elements is referred
to, so a leaf that would keep alive more than twice its own bytes of what it brought has all its
elements written anew: garbage that nothing can collect is bounded, at the price of writing an
element at most twice on average.
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

#: How many bytes of runs a leaf may keep alive beside twice its own.
SLACK_BYTES = 64 << 10

#: What it takes to write a reference to a record.
REFERENCE_BYTES = 20


class Stored(NamedTuple):
    """A tree that was written, and how its nodes and its new elements are found again.

    placed   by the id of an element that is new in this tree: where it is
    gone, new   ids of nodes that only the tree before has, records of those that only this one has
    """

    tree: Tree[bytes, Element]
    root: Leaf | Branch
    placed: dict[int, Place]
    gone: list[int]
    new: dict[int, Leaf | Branch]
    bytes: int


class Checkpoint:
    """The last tree that was written, and the record of each of its nodes. For one thread."""

    def __init__(self) -> None:
        self._tree: Tree[bytes, Element] = Tree()
        self._records: dict[int, Leaf | Branch] = {}

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
        size = 0
        leaves, known = levels[-1][1], self._places(levels[-1][0])
        for leaf in leaves:
            self._recognise(leaf, known)
        for run, group, written in runs.shared([_unwritten(leaf, known) for leaf in leaves]):
            size += written
            placed.update({id(element): (run, index) for index, element in enumerate(group)})
        for leaf in leaves:
            new[id(leaf)] = _leaf(leaf, known, placed)
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
        return Stored(tree, root, placed, gone, new, size)

    def keep(self, stored: Stored) -> None:
        """What `store` made was committed."""
        for node in stored.gone:
            self._records.pop(node, None)  # The empty tree of the beginning has none.
        self._records.update(stored.new)
        self._tree = stored.tree

    def _recognise(self, leaf: Node[bytes], known: dict[int, tuple[Place, int]]) -> None:
        """A list brings elements that were written before, as other objects."""
        for element in leaf.entries:
            if id(element) not in known:
                before = self._tree.get(element.key)
                if before is not None and id(before) in known and before == element:
                    known[id(element)] = known[id(before)]

    def _places(self, leaves: Iterable[Node[bytes]]) -> dict[int, tuple[Place, int]]:
        """Where the elements of leaves are, and the leaf's share in the run there, by id."""
        found: dict[int, tuple[Place, int]] = {}
        for leaf in leaves:
            record = self._records.get(id(leaf))
            if record is None:
                continue
            sizes = dict(zip(record.state[2], record.state[3], strict=True))
            for element, place in zip(leaf.entries, places_of(record), strict=True):
                found[id(element)] = place, sizes[place[0]]
            record._p_deactivate()
        return found


def _unwritten(leaf: Node[bytes], known: dict[int, tuple[Place, int]]) -> Sequence[Element]:
    """The elements of a leaf that are to be written: those that aren't `known`, or all of them."""
    elements: tuple[Element, ...] = leaf.entries
    there = [known[id(each)] for each in elements if id(each) in known]
    kept_alive = sum({run: share for (run, _), share in there}.values())
    if kept_alive > 2 * sum(map(cost, elements)) + SLACK_BYTES:
        return elements
    return [each for each in elements if id(each) not in known]


def _leaf(leaf: Node[bytes], known: dict[int, tuple[Place, int]], placed: dict[int, Place]) -> Leaf:
    """The record of a leaf whose elements are `placed` anew or `known` to be somewhere."""
    shares: dict[Run, int] = {}
    places = []
    for element in leaf.entries:
        place = placed.get(id(element))
        if place is not None:
            shares[place[0]] = shares.get(place[0], 0) + cost(element)
        else:
            place, share = known[id(element)]
            shares[place[0]] = share
        places.append(place)
    return leaf_of(leaf.keys, places, shares)


def leaf_of(keys: Sequence[bytes], places: Sequence[Place], shares: dict[Run, int]) -> Leaf:
    """A record of keys and where their elements are, in these runs, of which it has shares."""
    numbers = {run: number for number, run in enumerate(shares)}
    prefix = _common(keys[0], keys[-1]) if keys else b""
    suffixes = tuple([key[len(prefix) :] for key in keys])
    flat = tuple([number for run, index in places for number in (numbers[run], index)])
    return Leaf((prefix, suffixes, tuple(shares), tuple(shares.values()), flat))


def _common(first: bytes, last: bytes) -> bytes:
    """What two keys, and so all between them, begin with."""
    length = 0
    for mine, theirs in zip(first, last, strict=False):
        if mine != theirs:
            break
        length += 1
    return first[:length]
