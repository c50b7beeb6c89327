"""Blocks against a model of an LRU, at random, while the trees that hold them come and go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from operator import add
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from btreecache.block import BLOCK_BYTES, Block, Blocks, Kind
from btreecache.node import Node
from btreecache.tree import Aggregate, Tree

#: A node by its id and a kind by its number: the model is told of every death, before any birth.
Place = tuple[int, int]

KEYS = st.integers(0, 150)
LENGTHS = st.sampled_from([0, 1, 7, 30, 70])
#: A tree, a node of it, a kind.
PICKS = st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 1))
COUNT: Aggregate[int, bytes, int] = Aggregate("count", 0, lambda _, __: 1, add)


def below(node: Node[int]) -> Iterator[Node[int]]:
    yield node
    if node.height:
        for child in node.entries:
            yield from below(child)


class BlocksMachine(RuleBasedStateMachine):
    """Kinds: 0, the first value of a node; 1, all its values, by the blocks of its children."""

    def __init__(self) -> None:
        super().__init__()
        self.trees: list[Tree[int, bytes]] = []
        self.model: OrderedDict[Place, int] = OrderedDict()
        self.computed = self.evicted = self.too_large = 0
        self.kinds: list[Kind[Any, bytes]] = [
            Kind("first", self.first, len),
            Kind("all", self.all_below, len),
        ]

    def first(self, node: Node[int]) -> bytes:
        while node.height:
            node = node.entries[0]
        return node.entries[0] if node.keys else b""

    def all_below(self, node: Node[int]) -> bytes:
        if node.height:
            return b"".join([self.store.get(child, self.kinds[1]) for child in node.entries])
        return b"".join(node.entries)

    def expect(self, node: Node[int], kind: int) -> bytes:
        """What the store must answer; the model does what the store must do."""
        place = id(node), kind
        if place in self.model:
            self.model.move_to_end(place)
        if kind == 1 and node.height and place not in self.model:
            value = b"".join([self.expect(child, 1) for child in node.entries])
        elif kind == 1:
            value = b"".join([v for n in below(node) if not n.height for v in n.entries])
        else:
            value = self.first(node)
        if place in self.model:
            return value
        self.computed += 1
        cost = len(value) + BLOCK_BYTES
        if cost > self.budget:
            self.too_large += 1
            return value
        while self.used + cost > self.budget:
            self.model.popitem(last=False)
            self.evicted += 1
        self.model[place] = len(value)
        return value

    @property
    def used(self) -> int:
        return sum(self.model.values()) + len(self.model) * BLOCK_BYTES

    @initialize(blocks=st.integers(0, 6), more=st.integers(0, 1_000))
    def begin(self, blocks: int, more: int) -> None:
        self.budget = blocks * BLOCK_BYTES + more
        self.store = Blocks(self.budget)

    @precondition(lambda self: len(self.trees) < 6)
    @rule(size=KEYS, length=LENGTHS)
    def plant(self, size: int, length: int) -> None:
        self.trees.append(Tree.from_sorted((key, b"p" * length) for key in range(size)))

    @precondition(lambda self: 0 < len(self.trees) < 6)
    @rule(at=st.integers(0, 5), writes=st.dictionaries(KEYS, st.none() | LENGTHS, max_size=5))
    def write(self, at: int, writes: dict[int, int | None]) -> None:
        tree = self.trees[at % len(self.trees)]
        editor = tree.edit()
        for key, length in writes.items():
            if length is not None:
                editor.set(key, b"w" * length)
            elif editor.get(key) is not None:
                editor.delete(key)
        self.trees.append(editor.freeze())

    @precondition(lambda self: self.trees)
    @rule(at=st.integers(0, 5))
    def drop(self, at: int) -> None:
        del self.trees[at % len(self.trees)]
        living = {id(node) for tree in self.trees for node in below(tree._root)}
        for place in [place for place in self.model if place[0] not in living]:
            del self.model[place]

    @precondition(lambda self: self.trees)
    @rule(picks=st.lists(PICKS, min_size=3, max_size=15))
    def read(self, picks: list[tuple[int, int, int]]) -> None:
        """Many at once: recency shows only between a hit and the next few misses."""
        for at, number, kind in picks:
            nodes = list(below(self.trees[at % len(self.trees)]._root))
            node = nodes[number % len(nodes)]
            wanted = self.expect(node, kind)
            assert self.store.get(node, self.kinds[kind]) == wanted

    @precondition(lambda self: self.trees)
    @rule(at=st.integers(0, 5))
    def read_leaves(self, at: int) -> None:
        tree = self.trees[at % len(self.trees)]
        nodes = [node for node in below(tree._root) if not node.height]
        wanted = [self.expect(node, 1) for node in nodes]
        assert [self.store.get(node, self.kinds[1]) for node in nodes] == wanted
        assert b"".join(wanted) == b"".join(tree.values())

    @precondition(lambda self: self.trees)
    @rule(at=st.integers(0, 5))
    def aggregate(self, at: int) -> None:
        """What shares `kept` with the blocks."""
        tree = self.trees[at % len(self.trees)]
        assert tree.aggregate(COUNT) == len(tree)
        assert not list(tree.check())

    @rule()
    def clear(self) -> None:
        self.store.clear()
        self.evicted += len(self.model)
        self.model.clear()

    @invariant()
    def agrees(self) -> None:
        living = {id(node): node for tree in self.trees for node in below(tree._root)}
        real = {
            (at, self.kinds.index(kind)): len(kept.entry.value)
            for at, node in living.items()
            for kind, kept in (node.kept or {}).items()
            if isinstance(kept, Block) and kept.entry.value is not None
        }
        assert real == dict(self.model)
        stats = self.store.stats()
        assert stats.used_bytes == self.store.used_bytes == self.used <= self.budget
        assert (stats.blocks, stats.waiting) == (len(self.model), 0)
        counted = (stats.computed, stats.evicted, stats.too_large)
        assert counted == (self.computed, self.evicted, self.too_large)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.trees.clear()
            assert self.store.used_bytes == 0


TestBlocksMachine = BlocksMachine.TestCase
TestBlocksMachine.settings = settings(
    max_examples=50,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
