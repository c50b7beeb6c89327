"""Checkpoints: from a tree in memory to the records that it is made of, each written once.

Nodes that the tree shares with the one before have their records already; elements that were in the
one before have their places. So what is new is found by `unshared`, and costs what changed.

Elements of a leaf that are written together form a run. A run lives as long as one of its elements
is referred to, so a leaf that would keep alive more than twice its own bytes of runs has all its
elements written anew: garbage that nothing can collect is bounded, at the price of writing an
element at most twice on average.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from btreecache.archive.nodes import Place, places_of
from btreecache.archive.records import Branch, Leaf, Run
from btreecache.element import Element
from btreecache.node import Node, unshared
from btreecache.tree import Tree

#: A run is cut where it exceeds this, so that reading one element never loads much more.
RUN_BYTES = 64 << 10

#: How many bytes of runs a leaf may keep alive beside twice its own.
SLACK_BYTES = 64 << 10

#: What it takes to write a reference to a record, and what stands around an element in a run.
REFERENCE_BYTES, ELEMENT_BYTES = 20, 30


def cost(element: Element) -> int:
    """What an element takes in a run, roughly."""
    return len(element.key) + len(element.value) + ELEMENT_BYTES


def size_of(run: Run) -> int:
    """What a run takes, roughly. Loads it."""
    return sum([len(key) + len(value) + ELEMENT_BYTES for key, value, *_ in run.state])


def run_of(elements: Sequence[Element]) -> Run:
    """A record of elements as the source holds them."""
    return Run(
        tuple(
            (
                element.key,
                element.value if element.source_digest else element.source_value(),
                element.mod_revision,
                element.create_revision,
                element.version,
                element.source_digest,
            )
            for element in elements
        )
    )


def runs_of(elements: Iterable[Element]) -> Iterator[tuple[Run, list[Element], int]]:
    """Runs of elements, each with what is in it and its bytes."""
    group: list[Element] = []
    size = 0
    for element in elements:
        group.append(element)
        size += cost(element)
        if size >= RUN_BYTES:
            yield run_of(group), group, size
            group, size = [], 0
    if group:
        yield run_of(group), group, size


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

    def store(self, tree: Tree[bytes, Element]) -> Stored:
        """Records for what is new in `tree`. O(nodes not shared). Changes nothing here:
        `keep` does, once they are committed."""
        levels = list(unshared(self._tree.root, tree.root))
        new: dict[int, Leaf | Branch] = {}
        placed: dict[int, Place] = {}
        size = 0
        known = self._places(levels[-1][0])
        for leaf in levels[-1][1]:
            self._recognise(leaf, known)
            record, written = _leaf(leaf, known, placed)
            new[id(leaf)] = record
            size += written
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
        """Where the elements of leaves are, and the size of the run there, by id."""
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


def _leaf(
    leaf: Node[bytes], known: dict[int, tuple[Place, int]], placed: dict[int, Place]
) -> tuple[Leaf, int]:
    """The record of a leaf, with runs for what isn't `known`; what it costs to write."""
    elements: tuple[Element, ...] = leaf.entries
    sizes = {known[id(e)][0][0]: known[id(e)][1] for e in elements if id(e) in known}
    live = sum(map(cost, elements))
    rewrite = sum(sizes.values()) > 2 * live + SLACK_BYTES
    if rewrite:
        sizes = {}
    written = sum(map(len, leaf.keys)) + REFERENCE_BYTES * len(elements)
    for run, group, size in runs_of(e for e in elements if rewrite or id(e) not in known):
        sizes[run] = size
        written += size
        placed.update({id(element): (run, index) for index, element in enumerate(group)})
    places = [placed.get(id(element)) or known[id(element)][0] for element in elements]
    return leaf_of(leaf.keys, places, sizes), written


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
