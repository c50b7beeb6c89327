"""Tree: an immutable ordered mapping, a B+-tree whose versions share their nodes.

The one idea: a node is never changed once it is published (I3). To put a key is to copy the leaf
that holds it and the branches above that leaf, three nodes out of thousands, and to leave the rest
where it is. The result is a second tree beside the first. Both are whole, both can be read from any
thread without a lock, and keeping both costs what differs. A snapshot is a reference to a root.

All items are in the leaves. A branch holds children, and with each child a key that nothing below
the child is lower than. The first of these is never compared: what belongs to no other child
belongs to the first. Such a bound need not be a key that still exists, so deletes leave it alone.
Leaves and branches have one shape, two parallel tuples, because there bisection, slicing and
joining run at the speed of C and the only Python left is a step per level. Tuples are never
changed, not even in a fresh node: an update that only replaces a value shares all its keys with the
tree before. And tuples, unlike lists, can leave the care of the garbage collector, which otherwise
spends as much time on a long line of kept trees as the writes that make them.

Copying the same path once per change would be waste where many changes make one revision. An Editor
therefore signs the nodes that it makes with a token, an object that nobody else has. A node that
carries the editor's token can't have been seen by anyone yet and is changed in place; any other is
copied first, in `Editor._own` and nowhere else. `freeze` forgets the token, and with it goes the
last right to change those nodes. What is above a signed node is signed too, because a copy is
always hung into a copied parent.

What never changes can be remembered. A value computed from the items below a node (an `Aggregate`:
bytes, a digest) is kept with the node and is right for every tree that contains the node, so after
a write only the written path is computed again. For the same reason two trees are compared by
looking only at the nodes that they don't share.

What this module deliberately does not do: no I/O and no revisions (see `window`), no bound on the
memory of kept values (see `block`), no locks, no editor shared by threads.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import reduce
from itertools import chain, count, islice, pairwise, starmap
from operator import add, lt
from typing import Any, ClassVar, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, cast

import msgspec

#: Most items of a leaf and most children of a branch; the least is half of it (I2). To be justified
#: by the project's benchmark; until then a short loop, 100k keys of 57 bytes, every tree kept, best
#: of 3, CPython 3.11 on two busy shared cores, 2026-11-24. Times vary by a third from run to run:
#:     fan-out   update   delete or insert      get   bytes a tree   height
#:          32   8.8 us             9.8 us   1.9 us           1127        4
#:          64   9.5 us            10.4 us   1.3 us           1564        3
#:         128   9.0 us            11.5 us   1.3 us           1935        3
FAN_OUT: Final = 64


class Ordered(Protocol):
    """A key: totally ordered with every other key of the same tree, and never changing."""

    def __lt__(self, other: Any, /) -> bool: ...


class Absent(Enum):
    """The type of `ABSENT`, which stands for "no such key" where None could be a value."""

    ABSENT = "ABSENT"


ABSENT: Final = Absent.ABSENT

K = TypeVar("K", bound=Ordered)
V = TypeVar("V")
M = TypeVar("M")


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate(Generic[K, V, M]):
    """A value of a run of items that can be joined from the values of its parts: a monoid.

    `combine` must be associative with `zero` as its neutral element; it need not be commutative.
    Both functions must be pure: what they return is kept with nodes and shared by every tree and
    thread. Equality is identity, so make an aggregate once and pass it around. A value must not
    lead back to a tree: nodes are not garbage-collected (see Node), so it would never be freed.
    """

    name: str
    zero: M
    measure: Callable[[K, V], M]
    combine: Callable[[M, M], M]


class Diff(NamedTuple, Generic[K, V]):
    """What changed from an old tree to a new one, each list in the order of keys."""

    added: list[tuple[K, V]]
    removed: list[tuple[K, V]]
    changed: list[tuple[K, V, V]]


class Node(msgspec.Struct, Generic[K], gc=False, eq=False):
    """A leaf (height 0) with a value for each key, or a branch with a child for each key.

    In a branch `keys[i]` separates child i - 1 from child i: lower keys are on its left (I1). So
    `keys[0]` is the separator of the whole branch, or means nothing in the first of its level.
    `count` is the number of items below. `kept` is None or the aggregates computed so far, and is
    replaced as a whole. The rest may change only while `owner` is the token of a living editor.

    Nodes alone form no cycles, so the garbage collector need not know them (`gc=False`), and it
    drops tuples of what it doesn't know too: millions of nodes add nothing to a collection. In turn
    a cycle through a node, as of a value that holds its own tree, is never freed.
    """

    most: ClassVar[int] = FAN_OUT
    least: ClassVar[int] = (FAN_OUT + 1) // 2

    height: int
    keys: tuple[K, ...]
    entries: tuple[Any, ...]
    count: int
    owner: object
    kept: dict[Aggregate[Any, Any, Any], Any] | None = None


class Tree(Generic[K, V]):
    """An immutable ordered mapping. `set`, `delete` and `edit` lead to other trees, sharing nodes.

    `size(key, value)` gives the bytes of an item for `size_bytes`; every tree derived from this one
    has it too. Any thread may read any tree at any time. Ranges are half-open, `start <= key <
    stop`, and None is no bound. Equal means the same items, found in O(nodes not shared); so a tree
    is unhashable, as no hash of its items would be cheaper than reading them all.
    """

    __slots__ = ("_root", "_size")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, *, size: Callable[[K, V], int] | None = None) -> None:
        """The empty tree. O(1)."""
        self._root: Node[K] = Node(0, (), (), 0, None)
        self._size: Aggregate[K, V, int] | None = None
        if size is not None:
            self._size = Aggregate("size_bytes", 0, size, add)

    @classmethod
    def from_sorted(
        cls, pairs: Iterable[tuple[K, V]], *, size: Callable[[K, V], int] | None = None
    ) -> Tree[K, V]:
        """The tree of (key, value) pairs whose keys strictly increase, else ValueError. O(n).

        Pairs are consumed as they come. Nodes are three quarters full, to leave room for inserts.
        """
        tree = cls(size=size)
        level = list(_load_leaves(pairs))
        while len(level) > 1:
            level = [_branch(nodes, None) for nodes in _groups(level)]
        if level:
            tree._root = level[0]
        return tree

    def __len__(self) -> int:
        return self._root.count

    def __bool__(self) -> bool:
        return self._root.count > 0

    def __iter__(self) -> Iterator[K]:
        return self.keys()

    def __contains__(self, key: K) -> bool:
        return _find(self._root, key) is not ABSENT

    def __getitem__(self, key: K) -> V:
        value = _find(self._root, key)
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
        value = _find(self._root, key)
        return default if value is ABSENT else cast(V, value)

    def items(
        self, start: K | None = None, stop: K | None = None, reverse: bool = False
    ) -> Iterator[tuple[K, V]]:
        """The (key, value) pairs of a range in order, or from its end. Lazy, O(log n + read)."""
        return chain.from_iterable(starmap(zip, _runs(self._root, start, stop, reverse)))

    def keys(
        self, start: K | None = None, stop: K | None = None, reverse: bool = False
    ) -> Iterator[K]:
        """The keys of a range, as `items`."""
        return chain.from_iterable(keys for keys, _ in _runs(self._root, start, stop, reverse))

    def values(
        self, start: K | None = None, stop: K | None = None, reverse: bool = False
    ) -> Iterator[V]:
        """The values of a range in the order of keys, as `items`."""
        return chain.from_iterable(run for _, run in _runs(self._root, start, stop, reverse))

    def set(self, key: K, value: V) -> Tree[K, V]:
        """A tree that also holds `key` with `value`; this one if it does already. O(log n)."""
        editor = Editor(self)
        editor.set(key, value)
        return editor.freeze()

    def delete(self, key: K) -> Tree[K, V]:
        """A tree without `key`. O(log n). KeyError if there is no such key."""
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
            rank += _total(node.entries[:i])
            node = node.entries[i]
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
        low = 0 if start is None else self.rank(start)
        high = len(self) if stop is None else self.rank(stop)
        return max(0, high - low)

    def aggregate(
        self, agg: Aggregate[K, V, M], start: K | None = None, stop: K | None = None
    ) -> M:
        """The value of `agg` over a range.

        O(log n) once kept: values of whole nodes are computed once and stay with the nodes, which
        other trees share; the two leaves that a range cuts are measured each time. Two threads may
        compute the same value twice, and it does not matter whose is kept.
        """
        return _aggregate(self._root, agg, start, stop)

    def size_bytes(self, start: K | None = None, stop: K | None = None) -> int:
        """The bytes of a range by the tree's size function, as `aggregate`. TypeError without."""
        if self._size is None:
            raise TypeError("this tree has no size function: make it with Tree(size=...)")
        return _aggregate(self._root, self._size, start, stop)

    def changes(self, other: Tree[K, V]) -> Iterator[tuple[K, V | Absent, V | Absent]]:
        """(key, old, new) of each key that differs, in order; self is old, `other` is new.

        ABSENT stands for the side that lacks the key. A value that is the same object, or equal, is
        unchanged. O(nodes not shared): the first `next` finds those, items are compared lazily.
        """
        # A key of a leaf that isn't shared can't be in a leaf that is, or the other tree would hold
        # it twice. So the leaves, the last level, that aren't shared decide alone.
        *_, (old_leaves, new_leaves) = _unshared(self._root, other._root)
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
        if old:
            yield from ((key, value, ABSENT) for key, value in chain([old], olds))
        if new:
            yield from ((key, ABSENT, value) for key, value in chain([new], news))

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
        fresh = None
        if fresh_from is not None:
            levels = _unshared(fresh_from._root, self._root)
            fresh = {id(node) for _, news in levels for node in news}
        stack: list[_Place] = [(self._root, self._root.height, None, None, "root")]
        while stack:
            place = stack.pop()
            yield from _check_place(place)
            if fresh is None or id(place[0]) in fresh:
                yield from _check_node(place)
                node, _, low, high, path = place
                edges = pairwise([low, *node.keys[1:], high])
                below = zip(node.entries if node.height else (), edges, count())
                stack += [(n, node.height - 1, *edge, f"{path}/{i}") for n, edge, i in below][::-1]


class Editor(Generic[K, V]):
    """Many changes to a tree with one copy of each node touched; `freeze` gives the result.

    For one thread. The tree that it came from stays as it is. A change that raises (a missing key,
    a key that can't be compared) has changed nothing. `copied` is the number of nodes copied or
    created so far, a measure of the memory that the result has for its own.
    """

    __slots__ = ("_base", "_root", "_token", "copied")

    def __init__(self, base: Tree[K, V]) -> None:
        self._base = base
        self._root = base._root
        self._token: object | None = object()
        self.copied = 0

    def get(self, key: K, default: V | None = None) -> V | None:
        """The value that `key` has by now, or `default`. O(log n)."""
        self._check_open()
        value = _find(self._root, key)
        return default if value is ABSENT else cast(V, value)

    def set(self, key: K, value: V) -> None:
        """Let `key` have `value`. O(log n)."""
        path, leaf, i, found = self._seek(key)
        if found and leaf.entries[i] is value:
            return
        leaf = self._own(leaf)
        if found:
            leaf.entries = _spliced(leaf.entries, i, 1, value)
        else:
            leaf.keys = _spliced(leaf.keys, i, 0, key)
            leaf.entries = _spliced(leaf.entries, i, 0, value)
            leaf.count += 1
        self._hang(path, leaf, 0 if found else 1)

    def delete(self, key: K) -> None:
        """Take `key` out. O(log n). KeyError if there is no such key."""
        path, leaf, i, found = self._seek(key)
        if not found:
            raise KeyError(key)
        leaf = self._own(leaf)
        leaf.keys = _spliced(leaf.keys, i, 1)
        leaf.entries = _spliced(leaf.entries, i, 1)
        leaf.count -= 1
        self._hang(path, leaf, -1)

    def freeze(self) -> Tree[K, V]:
        """The result; the original tree if nothing changed. O(1). Ends the editor.

        Any use of the editor afterwards is a RuntimeError, except to read `copied`.
        """
        self._check_open()
        self._token = None  # I3: from here on nobody can prove to own the new nodes.
        base, root = self._base, self._root
        if root is base._root:
            return base
        tree: Tree[K, V] = Tree.__new__(Tree)
        tree._root, tree._size = root, base._size
        return tree

    def _check_open(self) -> None:
        if self._token is None:
            raise RuntimeError("this editor is frozen: take a new one from Tree.edit()")

    def _seek(self, key: K) -> tuple[list[tuple[Node[K], int]], Node[K], int, bool]:
        """The way to `key`, its leaf, its place there, and whether it is there. Only reads."""
        self._check_open()
        node, path = self._root, []
        while node.height:
            i = bisect_right(node.keys, key, 1) - 1
            path.append((node, i))
            node = node.entries[i]
        keys = node.keys
        i = bisect_left(keys, key)
        return path, node, i, i < len(keys) and keys[i] == key

    def _own(self, node: Node[K]) -> Node[K]:
        """The node itself if this editor made it, else a copy: the only way to a writable node."""
        if node.owner is self._token:
            return node
        self.copied += 1
        return Node(node.height, node.keys, node.entries, node.count, self._token)

    def _hang(self, path: list[tuple[Node[K], int]], node: Node[K], change: int) -> None:
        """Hang `node`, our own, at the end of `path`; own the path and mend sizes on the way up."""
        for old, i in reversed(path):
            parent = self._own(old)
            if parent.entries[i] is not node:
                parent.entries = _spliced(parent.entries, i, 1, node)
            parent.count += change
            size = len(node.entries)
            if size > node.most:
                self._split(parent, i)
            elif size < node.least:
                self._refill(parent, i)
            node = parent
        if len(node.entries) > node.most:
            self.copied += 1
            node = _branch([node], self._token)
            self._split(node, 0)
        elif node.height and len(node.entries) == 1:
            node = node.entries[0]
        self._root = node

    def _split(self, parent: Node[K], i: int) -> None:
        """Make two of child `i`, which is our own and too large (I2)."""
        left = parent.entries[i]
        middle = len(left.entries) // 2
        keys, entries = left.keys[middle:], left.entries[middle:]
        count = _total(entries) if left.height else len(entries)
        right = Node(left.height, keys, entries, count, self._token)
        left.keys, left.entries = left.keys[:middle], left.entries[:middle]
        left.count -= count
        parent.keys = _spliced(parent.keys, i + 1, 0, keys[0])
        parent.entries = _spliced(parent.entries, i + 1, 0, right)
        self.copied += 1

    def _refill(self, parent: Node[K], i: int) -> None:
        """Join child `i`, which is too small (I2), with a neighbour: the left one if there is one.

        If both together are too large they are split in the middle. That is stealing, of half of
        what the neighbour can spare at once, so that the next deletes here find room.
        """
        i = max(1, i)
        left, right = self._own(parent.entries[i - 1]), parent.entries[i]
        left.keys = left.keys + right.keys
        left.entries += right.entries
        left.count += right.count
        parent.keys = _spliced(parent.keys, i, 1)
        parent.entries = _spliced(parent.entries, i - 1, 2, left)
        if len(left.entries) > left.most:
            self._split(parent, i - 1)


def _spliced(run: tuple[M, ...], i: int, dropped: int, *new: M) -> tuple[M, ...]:
    """The run with some entries dropped at `i` and others put there."""
    entries = [*run]  # A list is the fastest way from one tuple to another.
    entries[i : i + dropped] = new
    return tuple(entries)


def _total(nodes: Iterable[Node[K]]) -> int:
    return sum([node.count for node in nodes])


def _branch(nodes: list[Node[K]], owner: object) -> Node[K]:
    keys = tuple([node.keys[0] for node in nodes])
    return Node(nodes[0].height + 1, keys, tuple(nodes), _total(nodes), owner)


def _find(node: Node[K], key: K) -> object:
    """The value of `key`, or ABSENT."""
    while node.height:
        node = node.entries[bisect_right(node.keys, key, 1) - 1]
    keys = node.keys
    i = bisect_left(keys, key)
    return node.entries[i] if i < len(keys) and keys[i] == key else ABSENT


def _cut(node: Node[K], start: K | None, stop: K | None) -> tuple[int, int]:
    """From where to where the entries of a node can have to do with a range."""
    keys, low = node.keys, 0
    if start is not None:
        low = bisect_right(keys, start, 1) - 1 if node.height else bisect_left(keys, start)
    return low, len(keys) if stop is None else bisect_left(keys, stop, 1 if node.height else 0)


def _runs(
    root: Node[K], start: K | None, stop: K | None, reverse: bool
) -> Iterator[tuple[tuple[K, ...], tuple[Any, ...]]]:
    """The range leaf by leaf, from either end: the keys and values of each leaf that it meets."""
    step = -1 if reverse else 1
    stack = [iter([root])]
    while stack:
        node = next(stack[-1], None)
        if node is None:
            stack.pop()
            continue
        low, high = _cut(node, start, stop)
        entries = node.entries[low:high][::step]
        if node.height:
            stack.append(iter(entries))
            continue
        # The bound where the walk begins can cut only the first leaf: spare the others.
        start, stop = (start, None) if reverse else (None, stop)
        yield node.keys[low:high][::step], entries


def _groups(source: Iterable[M]) -> Iterator[list[M]]:
    """Cut a stream into entries of nodes: three quarters full, the last two at least half (I2)."""
    most, least = Node.most, Node.least
    target = max(least, most * 3 // 4)
    stream = iter(source)
    group = list(islice(stream, target + least))
    while len(group) == target + least:
        yield group[:target]
        group = [*group[target:], *islice(stream, target)]
    if len(group) > most:
        yield group[: len(group) // 2]
        group = group[len(group) // 2 :]
    if group:
        yield group


def _load_leaves(pairs: Iterable[tuple[K, V]]) -> Iterator[Node[K]]:
    last: tuple[K, ...] = ()
    for group in _groups(pairs):
        keys = tuple([key for key, _ in group])
        order = last + keys
        if not all(map(lt, order, order[1:])):
            a, b = next((a, b) for a, b in pairwise(order) if not a < b)
            raise ValueError(f"keys must strictly increase: {a!r} is followed by {b!r}")
        last = keys[-1:]
        yield Node(0, keys, tuple([value for _, value in group]), len(keys), None)


def _aggregate(node: Node[K], agg: Aggregate[K, V, M], start: K | None, stop: K | None) -> M:
    """The value over what a range has of the items below `node`. Recurs as deep as the tree."""
    if start is None and stop is None:
        return _whole(node, agg)
    low, high = _cut(node, start, stop)
    entries = node.entries[low:high]
    if not node.height:
        return reduce(agg.combine, map(agg.measure, node.keys[low:high], entries), agg.zero)
    value, last = agg.zero, len(entries) - 1
    for i, child in enumerate(entries):
        part = _aggregate(child, agg, None if i else start, None if i < last else stop)
        value = agg.combine(value, part)
    return value


def _whole(node: Node[K], agg: Aggregate[K, V, M]) -> M:
    """The value over all items below `node`, kept with it from the first time on."""
    kept = node.kept
    if kept is not None and agg in kept:
        return cast(M, kept[agg])
    value = _recompute(node, agg)
    # One assignment publishes it. If two threads keep two aggregates at this moment one may be
    # lost: that costs computing it again, and nothing else.
    node.kept = {**(node.kept or {}), agg: value}
    return value


def _recompute(node: Node[K], agg: Aggregate[K, V, M]) -> M:
    if node.height:
        return reduce(agg.combine, [_whole(child, agg) for child in node.entries], agg.zero)
    return reduce(agg.combine, map(agg.measure, node.keys, node.entries), agg.zero)


def _unshared(old: Node[K], new: Node[K]) -> Iterator[tuple[list[Node[K]], list[Node[K]]]]:
    """The nodes that only one of two trees contains, level by level down to the leaves.

    A node that both contain has one height in both. And its parents are the same node or both not
    shared, or else one tree would contain it twice. So each level follows from the one above.
    """
    olds: list[Node[K]] = []
    news: list[Node[K]] = []
    for height in range(max(old.height, new.height), -1, -1):
        olds = [child for node in olds for child in node.entries]
        news = [child for node in news for child in node.entries]
        if height == old.height:
            olds = [old]
        if height == new.height:
            news = [new]
        shared = {id(node) for node in olds}.intersection([id(node) for node in news])
        olds = [node for node in olds if id(node) not in shared]
        news = [node for node in news if id(node) not in shared]
        yield olds, news


#: A node where it hangs: the height and the bounds, low <= key < high, that its parent demands.
_Place: TypeAlias = tuple[Node[Any], int, Any, Any, str]


def _check_place(place: _Place) -> Iterator[str]:
    """What a node owes to the place where it hangs. Opens at most its two edges."""
    node, height, low, high, path = place
    if node.height != height:
        yield f"I2 at {path}: height {node.height} where {height} is wanted"
    if path != "root" and len(node.entries) < node.least:
        yield f"I2 at {path}: {len(node.entries)} entries are less than {node.least}"
    if node.height and low is not None and node.keys[0] != low:
        yield f"I1 at {path}: own separator {node.keys[0]!r} is not its parent's, {low!r}"
    first = last = node
    while first.height and first.entries and last.height and last.entries:
        first, last = first.entries[0], last.entries[-1]
    for key in [*first.keys[:1], *last.keys[-1:]]:
        if low is not None and key < low:
            yield f"I1 at {path}: key {key!r} is below the separator {low!r}"
        if high is not None and not key < high:
            yield f"I1 at {path}: key {key!r} is not below the separator {high!r}"


def _check_node(place: _Place) -> Iterator[str]:
    """What can be said of a node without opening its children."""
    node, _, _, _, path = place
    size = items = len(node.entries)
    if node.height:
        items = _total(node.entries)
        if size < 2:
            yield f"I2 at {path}: a branch with {size} children"
    for a, b in pairwise(node.keys[1:] if node.height else node.keys):
        if not a < b:
            yield f"I1 at {path}: key {a!r} is not below its successor {b!r}"
    if size > node.most:
        yield f"I2 at {path}: {size} entries are more than {node.most}"
    if size != len(node.keys):
        yield f"I2 at {path}: {len(node.keys)} keys for {size} entries"
    if node.count != items:
        yield f"I2 at {path}: counts {node.count} items and has {items}"
    for agg, value in (node.kept or {}).items():
        right = _recompute(node, agg)
        if right != value:
            yield f"I2 at {path}: keeps {value!r} as {agg.name}, its items give {right!r}"
