"""Tree: an immutable ordered mapping, a B+-tree whose versions share their nodes.

The one idea: a node is never changed once it is published (I3). To put a key is to copy its leaf
and the branches above, three nodes out of thousands. The result is a second tree beside the first.
Both are whole, any thread may read both without a lock, and keeping both costs what differs.

All items are in the leaves. A branch holds children, and with each child a key that nothing below
the child is lower than. The first of these is never compared: what belongs to no other child
belongs to the first. Such a bound need not be a key that still exists, so deletes leave it alone.
Leaves and branches have one shape: a tuple of keys, where bisection runs at the speed of C, and for
each key an entry in a field of its own, so that a node is copied in one go and the garbage
collector, which otherwise takes as long as the writes, sees nothing of it. Tuples are never
changed, not even in a fresh node: an update that only replaces a value shares all its keys with the
tree before.

To copy the same path once per change would be waste where many changes make one revision. An Editor
signs the nodes that it makes with a token, an object that nobody else has. A node with the editor's
token can't have been seen by anyone yet and is changed in place; any other is copied first, in
`Editor._own`, or replaced. `freeze` forgets the token, and with it goes the last right to change
those nodes. Only the commonest writes do without: `Tree.set` and `Tree.delete` of one item whose
leaf neither overflows nor runs short copy every node of one path and needn't know whose they are.

What never changes can be remembered. A value computed from the items below a node (an `Aggregate`)
is kept with the node and is right for every tree that contains it: after a write only the written
path is computed again. And two trees are compared by looking only at what they don't share.

What this module deliberately does not do: no I/O and no revisions (see `window`), no bound on the
memory of kept values, no locks, no editor shared by threads.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count, pairwise, starmap
from operator import add
from typing import Any, Final, Generic, NamedTuple, cast

import msgspec

from btreecache.node import (
    ABSENT,
    PLACES,
    Absent,
    Aggregate,
    K,
    M,
    Node,
    Path,
    Place,
    V,
    aggregate,
    branch,
    check_node,
    check_place,
    find,
    groups,
    hung,
    inserted,
    load_leaves,
    make,
    removed,
    runs,
    seek,
    spliced,
    trail,
    unshared,
)

__all__ = ["ABSENT", "Absent", "Aggregate", "Diff", "Editor", "Node", "Tree"]

_FROZEN: Final = "this editor is frozen: take a new one from Tree.edit()"


class Diff(NamedTuple, Generic[K, V]):
    """What changed from an old tree to a new one, each list in the order of keys."""

    added: list[tuple[K, V]]
    removed: list[tuple[K, V]]
    changed: list[tuple[K, V, V]]


class Tree(msgspec.Struct, Generic[K, V], gc=False, eq=False):
    """An immutable ordered mapping. `set`, `delete` and `edit` lead to other trees, sharing nodes.

    `Tree()` is empty. `Tree(size=function)`: `function(key, value)` gives the bytes of an item,
    here and in every tree derived from this one. Any thread may read any tree at any time. Ranges
    are half-open, `start <= key < stop`; None is no bound. Equal means the same items, found in
    O(nodes not shared), hence a tree is unhashable. The garbage collector doesn't see trees.
    """

    _root: Node[K] = msgspec.field(default_factory=lambda: make(0, (), (), 0, None))
    size: Callable[[K, V], int] | Aggregate[K, V, int] | None = None

    __hash__ = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.size is not None and not isinstance(self.size, Aggregate):
            self.size = Aggregate("size_bytes", 0, self.size, add)

    @classmethod
    def from_sorted(
        cls, pairs: Iterable[tuple[K, V]], *, size: Callable[[K, V], int] | None = None
    ) -> Tree[K, V]:
        """The tree of streamed (key, value) pairs. O(n). ValueError if keys don't increase."""
        tree = cls(size=size)
        level = list(load_leaves(pairs))
        while len(level) > 1:
            level = [branch(nodes, None) for nodes in groups(level)]
        if level:
            tree._root = level[0]
        return tree

    @property
    def root(self) -> Node[K]:
        """Where the nodes are found that values are kept with. Not to be changed (I3)."""
        return self._root

    def __len__(self) -> int:
        return self._root.count

    def __iter__(self) -> Iterator[K]:
        return self.keys()

    def __contains__(self, key: K) -> bool:
        return find(self._root, key) is not ABSENT

    def __getitem__(self, key: K) -> V:
        value = find(self._root, key)
        if value is ABSENT:
            raise KeyError(key)
        return cast(V, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tree):
            return NotImplemented
        return len(self) == len(other) and next(self.changes(other), None) is None

    def __repr__(self) -> str:
        return f"Tree({len(self)} items, height {self._root.height + 1})"

    def get(self, key: K, default: V | None = None) -> V | None:
        """The value of `key`, or `default`. O(log n)."""
        value = find(self._root, key)
        return default if value is ABSENT else cast(V, value)

    def items(
        self, start: K | None = None, stop: K | None = None, reverse: bool = False
    ) -> Iterator[tuple[K, V]]:
        """The (key, value) pairs of a range in order, or from its end. Lazy, O(log n + read)."""
        return chain.from_iterable(starmap(zip, runs(self._root, start, stop, reverse)))

    def keys(
        self, start: K | None = None, stop: K | None = None, reverse: bool = False
    ) -> Iterator[K]:
        """The keys of a range, as `items`."""
        return chain.from_iterable(keys for keys, _ in runs(self._root, start, stop, reverse))

    def values(
        self, start: K | None = None, stop: K | None = None, reverse: bool = False
    ) -> Iterator[V]:
        """The values of a range in the order of keys, as `items`."""
        return chain.from_iterable(run for _, run in runs(self._root, start, stop, reverse))

    def set(self, key: K, value: V) -> Tree[K, V]:
        """A tree that also holds `key` with `value`; this one if it does already. O(log n)."""
        copies, place, leaf, i, found = trail(self._root, key)
        if found:
            if getattr(leaf, PLACES[i]) is value:
                return self
            leaf = leaf.__copy__()
            leaf.kept = None
            setattr(leaf, PLACES[i], value)
            return Tree(hung(copies, place, leaf, 0), self.size)
        if len(leaf.keys) < leaf.most:
            leaf = inserted(leaf, i, key, value, None)
            return Tree(hung(copies, place, leaf, 1), self.size)
        editor = Editor(self)
        editor.set(key, value)
        return editor.freeze()

    def delete(self, key: K) -> Tree[K, V]:
        """A tree without `key`. O(log n). KeyError if there is no such key."""
        copies, place, leaf, i, found = trail(self._root, key)
        if not found:
            raise KeyError(key)
        if not copies or len(leaf.keys) > leaf.least:
            return Tree(hung(copies, place, removed(leaf, i, None), -1), self.size)
        editor = Editor(self)
        editor.delete(key)
        return editor.freeze()

    def edit(self) -> Editor[K, V]:
        """An editor that starts from this tree: many changes, one copy per node. O(1)."""
        return Editor(self)

    def rank(self, key: K) -> int:
        """How many keys are lower than `key`. O(log n)."""
        node, rank = self._root, 0
        while node.height:
            i = bisect_right(node.keys, key, 1) - 1
            rank += sum([child.count for child in node.entries[:i]])
            node = getattr(node, PLACES[i])
        return rank + bisect_left(node.keys, key)

    def select(self, index: int) -> tuple[K, V]:
        """The item of rank `index`, counted from 0. O(log n). IndexError outside 0..len - 1."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside of 0..{len(self) - 1}")
        node = self._root
        while node.height:
            for child in node.entries:
                if index < child.count:
                    break
                index -= child.count
            node = child
        return node.keys[index], node.entries[index]

    def count(self, start: K | None = None, stop: K | None = None) -> int:
        """How many keys a range holds. O(log n)."""
        high = len(self) if stop is None else self.rank(stop)
        return max(0, high - (0 if start is None else self.rank(start)))

    def aggregate(
        self, agg: Aggregate[K, V, M], start: K | None = None, stop: K | None = None
    ) -> M:
        """The value of `agg` over a range.

        O(log n) once kept: values of whole nodes stay with the nodes, which other trees share; the
        two leaves that a range cuts are measured each time. Two threads may compute a value twice,
        and it does not matter whose is kept.
        """
        return aggregate(self._root, agg, start, stop)

    def size_bytes(self, start: K | None = None, stop: K | None = None) -> int:
        """The bytes of a range by the tree's size function, as `aggregate`. TypeError without."""
        if not isinstance(self.size, Aggregate):
            raise TypeError("this tree has no size function: make it with Tree(size=...)")
        return aggregate(self._root, self.size, start, stop)

    def changes(self, other: Tree[K, V]) -> Iterator[tuple[K, V | Absent, V | Absent]]:
        """(key, old, new) of each key that differs, in order; self is old, `other` is new.

        ABSENT stands for the side that lacks the key. A value that is the same object, or equal, is
        unchanged. O(nodes not shared): the first `next` finds those, items are compared lazily.
        """
        # A key of a leaf that isn't shared can't be in a leaf that is, or the other tree would hold
        # it twice. So the leaves, the last level, that aren't shared decide alone.
        *_, (old_leaves, new_leaves) = unshared(self._root, other._root)
        olds = chain.from_iterable(zip(n.keys, n.entries, strict=True) for n in old_leaves)
        news = chain.from_iterable(zip(n.keys, n.entries, strict=True) for n in new_leaves)
        old, new = next(olds, None), next(news, None)
        while old and new:
            if old[0] < new[0]:
                yield *old, ABSENT
                old = next(olds, None)
            elif new[0] < old[0]:
                yield new[0], ABSENT, new[1]
                new = next(news, None)
            else:
                if old[1] is not new[1] and old[1] != new[1]:
                    yield *old, new[1]
                old, new = next(olds, None), next(news, None)
        yield from ((key, value, ABSENT) for key, value in chain([old] if old else [], olds))
        yield from ((key, ABSENT, value) for key, value in chain([new] if new else [], news))

    def diff(self, other: Tree[K, V]) -> Diff[K, V]:
        """What leads from this tree to `other`: `changes`, complete and sorted by kind."""
        diff: Diff[K, V] = Diff([], [], [])
        for key, old, new in self.changes(other):
            if new is ABSENT:
                diff.removed.append((key, cast(V, old)))
            elif old is ABSENT:
                diff.added.append((key, new))
            else:
                diff.changed.append((key, old, new))
        return diff

    def check(self, *, fresh_from: Tree[K, V] | None = None) -> Iterator[str]:
        """Every violation of I1 and I2, with its path of child numbers from the root. O(n).

        With `fresh_from`, a tree known to be sound, the nodes that both trees contain are only
        checked to fit where they hang now, and not opened again: O(nodes not shared).
        """
        base = None if fresh_from is None else fresh_from._root
        fresh = {id(n) for _, new in (unshared(base, self._root) if base else ()) for n in new}
        stack: list[Place] = [(self._root, self._root.height, None, None, "root")]
        while stack:
            place = stack.pop()
            yield from check_place(place)
            if base is None or id(place[0]) in fresh:
                yield from check_node(place)
                node, _, low, high, path = place
                edges = pairwise([low, *node.keys[1:], high])
                below = zip(node.entries if node.height else (), edges, count())
                stack += [(n, node.height - 1, *edge, f"{path}/{i}") for n, edge, i in below][::-1]


class Editor(Generic[K, V]):
    """Many changes to a tree with one copy of each node touched; `freeze` gives the result.

    For one thread. A change that raises (a missing key, a key that can't be compared) has changed
    nothing. `copied`: nodes copied or created so far, the memory that the result has for its own.
    """

    __slots__ = ("_base", "_root", "_sought", "_token", "copied")

    def __init__(self, base: Tree[K, V]) -> None:
        self._base = base
        self._root = base._root
        self._token: object | None = object()
        self._sought: tuple[K, tuple[Path[K], Node[K], int, bool]] | None = None
        self.copied = 0

    def get(self, key: K, default: V | None = None) -> V | None:
        """The value that `key` has by now, or `default`. O(log n)."""
        _, leaf, i, found = self._seek(key)
        return cast(V, getattr(leaf, PLACES[i])) if found else default

    def set(self, key: K, value: V) -> None:
        """Let `key` have `value`. O(log n)."""
        path, leaf, i, found = self._seek(key)
        if not found:
            self.copied += leaf.owner is not self._token
            self._hang(path, inserted(leaf, i, key, value, self._token), 1)
        elif getattr(leaf, PLACES[i]) is not value:
            own = self._own(leaf)
            setattr(own, PLACES[i], value)
            if own is not leaf:  # Else the way up to it is our own too.
                self._hang(path, own, 0)

    def delete(self, key: K) -> None:
        """Take `key` out. O(log n). KeyError if there is no such key."""
        path, leaf, i, found = self._seek(key)
        if not found:
            raise KeyError(key)
        self.copied += leaf.owner is not self._token
        self._hang(path, removed(leaf, i, self._token), -1)

    def freeze(self) -> Tree[K, V]:
        """The result; the original tree if nothing changed. O(1). Ends the editor.

        Any use of the editor afterwards is a RuntimeError, except to read `copied`.
        """
        if self._token is None:
            raise RuntimeError(_FROZEN)
        self._token = None  # I3: from here on nobody can prove to own the new nodes.
        if self._root is self._base._root:
            return self._base
        return Tree(self._root, self._base.size)

    def _seek(self, key: K) -> tuple[Path[K], Node[K], int, bool]:
        """As `node.seek`. A second call with the same key and no change between costs nothing."""
        if self._token is None:
            raise RuntimeError(_FROZEN)
        if self._sought is None or self._sought[0] is not key:
            self._sought = (key, seek(self._root, key))
        return self._sought[1]

    def _own(self, node: Node[K]) -> Node[K]:
        """The node itself if this editor made it, else a copy: the only way to a writable node."""
        if node.owner is self._token:
            return node
        self.copied += 1
        copy: Node[K] = node.__copy__()
        copy.owner = self._token
        if copy.kept is not None:  # As in `node.trail`.
            copy.kept = None
        return copy

    def _hang(self, path: Path[K], node: Node[K], change: int) -> None:
        """Hang `node`, our own, at the end of `path`; own the path and mend sizes on the way up."""
        self._sought = None
        for old, i in reversed(path):
            parent = self._own(old)
            setattr(parent, PLACES[i], node)
            if change:
                parent.count += change
                size = len(node.keys)
                if size > node.most:
                    self._split(parent, i)
                elif size < node.least:
                    self._refill(parent, i)
            node = parent
        if len(node.keys) > node.most:
            self.copied += 1
            node = branch([node], self._token)
            self._split(node, 0)
        elif node.height and len(node.keys) == 1:
            node = node.entries[0]
        self._root = node

    def _split(self, parent: Node[K], i: int) -> None:
        """Make two of child `i`, which is our own and too large (I2)."""
        left = parent.entries[i]
        right = self._halve(left, left.keys, left.entries)
        keys, nodes = parent.keys, parent.entries
        parent.keys = spliced(keys, i + 1, 0, right.keys[0])
        parent.entries = spliced(nodes, i + 1, 0, right)

    def _halve(self, left: Node[K], keys: tuple[K, ...], entries: tuple[Any, ...]) -> Node[K]:
        """Leave one half of the entries to `left`, our own, and make a node of the other half."""
        middle = len(keys) // 2
        low, high = entries[:middle], entries[middle:]
        left.keys, left.entries = keys[:middle], low
        left.count = sum([n.count for n in low]) if left.height else len(low)
        count = sum([n.count for n in high]) if left.height else len(high)
        self.copied += 1
        return make(left.height, keys[middle:], high, count, self._token)

    def _refill(self, parent: Node[K], i: int) -> None:
        """Join child `i`, which is too small (I2), with a neighbour: the left one if there is one.

        If both together are too large they are split in the middle: half of what the neighbour can
        spare is stolen at once, so that the next deletes here find room.
        """
        i = max(1, i)
        nodes = parent.entries
        left, right = self._own(nodes[i - 1]), nodes[i]
        keys, entries = left.keys + right.keys, left.entries + right.entries
        if len(keys) > left.most:
            right = self._halve(left, keys, entries)
            parent.keys = spliced(parent.keys, i, 1, right.keys[0])
            parent.entries = spliced(nodes, i - 1, 2, left, right)
        else:
            left.keys, left.entries = keys, entries
            left.count += right.count
            parent.keys = spliced(parent.keys, i, 1)
            parent.entries = spliced(nodes, i - 1, 2, left)
