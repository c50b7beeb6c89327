"""Nodes: what a Tree is made of, and how to read and check them. See `tree` for the idea.

Nothing here makes a tree or changes a published node (I3), except that it keeps aggregates.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import reduce
from itertools import chain, islice, pairwise, repeat
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Generic,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
    cast,
)

import msgspec
from msgspec.structs import astuple

#: Most items of a leaf and most children of a branch; the least is half of it (I2). Microseconds,
#: best of 40 interleaved rounds in one process (CPU time), 100k keys of about 57 bytes, a new value
#: object each time; CPython 3.11 on two shared cores of an EPYC (Zen 3), 2026-11-24. The edits (get
#: and set) free the oldest of 1,000 trees each, elsewhere every tree is kept.
#:     fan-out   set value   insert   delete    edit    get   page of 500   full scan
#:          16       4.6us    5.8us    5.0us   7.9us  1.8us          68us  102ns an item
#:          24       4.6us    5.6us    4.6us   8.2us  1.6us          55us          82ns
#:          32       4.7us    6.2us    5.6us   9.1us  1.7us          52us          72ns
#:          48       5.2us    6.5us    6.3us  10.0us  1.6us          48us          65ns
#:          64       5.5us    7.1us    6.8us   9.4us  1.5us          45us          61ns
#: 24 pays a tenth less than 32 for all writes but of a value, and more for every read of a range.
FAN_OUT: Final = 32

#: The places of a node: the names of the fields of its entries. A node that is about to be split
#: holds one entry too many.
PLACES: Final = tuple([f"entry_{i}" for i in range(FAN_OUT + 1)])


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
    thread. Equality is identity, so make an aggregate once and pass it around.
    """

    name: str
    zero: M
    measure: Callable[[K, V], M]
    combine: Callable[[M, M], M]


class Node(msgspec.Struct, Generic[K], gc=False, eq=False):
    """A leaf (height 0) with a value for each key, or a branch with a child for each key.

    In a branch `keys[i]` separates child i - 1 from child i: lower keys are on its left (I1). So
    `keys[0]` is the separator of the whole branch, or means nothing in the first of its level.
    `count` is the number of items below. `kept` is None or the aggregates and blocks of it, and is
    replaced as a whole. The rest may change only while `owner` is the token of a living editor.

    The entries, values or children, are fields too, one for each of PLACES, and those without a key
    are None: `make` makes a node. To copy it is one call and one allocation, and the entry at a
    known place is one attribute, read by `getattr` and written by `setattr`.

    Nodes alone form no cycles, so the garbage collector need not see them (`gc=False`): a tuple of
    entries it would visit again for every write. In turn a cycle through a node, as of a value that
    holds its own tree, is never freed.
    """

    most: ClassVar[int] = FAN_OUT
    least: ClassVar[int] = (FAN_OUT + 1) // 2

    height: int
    keys: tuple[K, ...]
    count: int
    owner: object
    kept: dict[Any, Any] | None

    if TYPE_CHECKING:  # msgspec has it and does not tell.

        def __copy__(self) -> Self: ...

    @property
    def entries(self) -> tuple[Any, ...]:
        """One for each key. O(fan-out), as to set them; set `keys` first."""
        return astuple(self)[_HEAD : _HEAD + len(self.keys)]

    @entries.setter
    def entries(self, entries: Iterable[Any]) -> None:
        for place, entry in zip(PLACES, chain(entries, repeat(None)), strict=False):
            setattr(self, place, entry)


#: How many fields of a node come before its entries.
_HEAD: Final = len(Node.__struct_fields__)

_Whole: Final = cast(
    Callable[..., Node[Any]],
    msgspec.defstruct(
        "Node", [(place, Any, None) for place in PLACES], bases=(Node,), gc=False, eq=False
    ),
)


def make(
    height: int, keys: tuple[K, ...], entries: Iterable[Any], count: int, owner: object
) -> Node[K]:
    """A node with these entries, one for each key."""
    return _Whole(height, keys, count, owner, None, *entries)


def opened(node: Node[K]) -> Node[K]:
    """The node itself: of one that stays in an archive until it is looked at, what is there."""
    return node if type(node) is _Whole else node.load()  # type: ignore[attr-defined]


def spliced(run: tuple[M, ...], i: int, dropped: int, *new: M) -> tuple[M, ...]:
    """The run with some entries dropped at `i` and others put there."""
    entries = [*run]  # A list is the fastest way from one tuple to another.
    entries[i : i + dropped] = new
    return tuple(entries)


def inserted(leaf: Node[K], i: int, key: K, value: object, owner: object) -> Node[K]:
    """The leaf with one more item, at place `i`, which may be one too many. Faster than `make`."""
    keys, fields = [*leaf.keys], astuple(opened(leaf))
    keys.insert(i, key)
    low, high = fields[_HEAD : _HEAD + i], fields[_HEAD + i : -1]
    return _Whole(0, tuple(keys), len(keys), owner, None, *low, value, *high)


def removed(leaf: Node[K], i: int, owner: object) -> Node[K]:
    """The leaf without the item at place `i`, which may leave too few."""
    keys, fields = [*leaf.keys], astuple(opened(leaf))
    del keys[i]
    low, high = fields[_HEAD : _HEAD + i], fields[_HEAD + i + 1 :]
    return _Whole(0, tuple(keys), len(keys), owner, None, *low, *high)


def branch(nodes: list[Node[K]], owner: object) -> Node[K]:
    """A branch over nodes of one height, in order."""
    keys, items = tuple([n.keys[0] for n in nodes]), sum([n.count for n in nodes])
    return make(nodes[0].height + 1, keys, nodes, items, owner)


def find(node: Node[K], key: K) -> object:
    """The value of `key`, or ABSENT."""
    while node.height:
        node = getattr(node, PLACES[bisect_right(node.keys, key, 1) - 1])
    keys = node.keys
    i = bisect_left(keys, key)
    return getattr(node, PLACES[i]) if i < len(keys) and keys[i] == key else ABSENT


#: From the root to a leaf: each branch and the place where the way goes on.
Path: TypeAlias = list[tuple[Node[K], int]]


def seek(node: Node[K], key: K) -> tuple[Path[K], Node[K], int, bool]:
    """The path to `key`, its leaf, its place there, and whether it is there."""
    path = []
    while node.height:
        i = bisect_right(node.keys, key, 1) - 1
        path.append((node, i))
        node = getattr(node, PLACES[i])
    keys = node.keys
    i = bisect_left(keys, key)
    return path, node, i, i < len(keys) and keys[i] == key


def trail(node: Node[K], key: K) -> tuple[list[Node[K]], str, Node[K], int, bool]:
    """As `seek`, and copies the branches on the way down, each hung in the place of its original.

    The copies, the place in the last of them where the leaf hangs, the leaf (no copy), the place of
    `key` there, and whether it is there. Nobody is asked whose a branch is: it was published, and
    the token on it is nobody's any more. One way down and none back is what makes it fast.
    """
    copies: list[Node[K]] = []
    place, above = "", None
    while node.height:
        copy = node.__copy__()
        if copy.kept is not None:  # To look costs less than to write, and most keep nothing.
            copy.kept = None
        if above is not None:
            setattr(above, place, copy)
        copies.append(copy)
        above, place = copy, PLACES[bisect_right(copy.keys, key, 1) - 1]
        node = getattr(copy, place)
    keys = node.keys
    i = bisect_left(keys, key)
    return copies, place, node, i, i < len(keys) and keys[i] == key


def hung(copies: list[Node[K]], place: str, leaf: Node[K], change: int) -> Node[K]:
    """The root of a `trail` that ends with a leaf of `change` more items, which must fit (I2)."""
    if not copies:
        return leaf
    setattr(copies[-1], place, leaf)
    if change:
        for copy in copies:
            copy.count += change
    return copies[0]


def cut(node: Node[K], start: K | None, stop: K | None) -> tuple[int, int]:
    """From where to where the entries of a node can have to do with a range."""
    keys, low = node.keys, 0
    if start is not None:
        low = bisect_right(keys, start, 1) - 1 if node.height else bisect_left(keys, start)
    return low, len(keys) if stop is None else bisect_left(keys, stop, 1 if node.height else 0)


def runs(
    root: Node[K], start: K | None, stop: K | None, reverse: bool
) -> Iterator[tuple[tuple[K, ...], tuple[Any, ...]]]:
    """The range leaf by leaf, from either end: the keys and values of each leaf that it meets."""
    stack = [iter([root])]
    while stack:
        for node in stack[-1]:
            keys, fields = node.keys, astuple(opened(node))
            # What no bound cuts, all leaves of a walk forward but the last, needs no search.
            if start is None and (stop is None or (keys and keys[-1] < stop)):
                entries = fields[_HEAD : _HEAD + len(keys)]
            else:
                low, high = cut(node, start, stop)
                keys, entries = keys[low:high], fields[_HEAD + low : _HEAD + high]
            if node.height:
                stack.append(iter(entries[::-1] if reverse else entries))
                break
            # The bound where the walk begins can cut only the first leaf: spare the others.
            if reverse:
                keys, entries, stop = keys[::-1], entries[::-1], None
            else:
                start = None
            yield keys, entries
        else:
            stack.pop()


def groups(source: Iterable[M]) -> Iterator[list[M]]:
    """Entries of nodes: three quarters full, for inserts to come, the last two at least half."""
    most, least = Node.most, Node.least
    target = max(least, most * 3 // 4)
    stream = iter(source)
    group = list(islice(stream, target + least))
    while len(group) == target + least:
        yield group[:target]
        group = [*group[target:], *islice(stream, target)]
    half = len(group) // 2 if len(group) > most else 0
    yield from filter(None, (group[:half], group[half:]))


def load_leaves(pairs: Iterable[tuple[K, V]]) -> Iterator[Node[K]]:
    """Leaves that hold a stream of pairs. ValueError unless the keys strictly increase (I1)."""
    last: tuple[K, ...] = ()
    for group in groups(pairs):
        keys = tuple([key for key, _ in group])
        for a, b in pairwise(last + keys):
            if not a < b:
                raise ValueError(f"keys must strictly increase: {a!r} is followed by {b!r}")
        last = keys[-1:]
        yield make(0, keys, [value for _, value in group], len(keys), None)


def aggregate(node: Node[K], agg: Aggregate[K, V, M], start: K | None, stop: K | None) -> M:
    """The value over what a range has of the items below `node`. Recurs as deep as the tree."""
    if start is None and stop is None:
        return whole(node, agg)
    low, high = cut(node, start, stop)
    entries = node.entries[low:high]
    if not node.height:
        return reduce(agg.combine, map(agg.measure, node.keys[low:high], entries), agg.zero)
    value, last = agg.zero, len(entries) - 1
    for i, child in enumerate(entries):
        part = aggregate(child, agg, None if i else start, None if i < last else stop)
        value = agg.combine(value, part)
    return value


def whole(node: Node[K], agg: Aggregate[K, V, M]) -> M:
    """The value over all items below `node`, kept with it from the first time on."""
    kept = node.kept or {}
    if agg not in kept:
        # One assignment publishes it. A thread that keeps another value now may undo it: no harm.
        kept = node.kept = {agg: recompute(node, agg), **(node.kept or {})}
    return cast(M, kept[agg])


def recompute(node: Node[K], agg: Aggregate[K, V, M]) -> M:
    """The value over all items below `node`, from its entries' values and not from its own."""
    if node.height:
        return reduce(agg.combine, [whole(child, agg) for child in node.entries], agg.zero)
    return reduce(agg.combine, map(agg.measure, node.keys, node.entries), agg.zero)


def unshared(old: Node[K], new: Node[K]) -> Iterator[tuple[list[Node[K]], list[Node[K]]]]:
    """The nodes that only one of two trees contains, level by level down to the leaves.

    A node that both contain has one height in both, and its parents are one node or not shared,
    else one tree would contain it twice. So each level follows from the one above.
    """
    olds, news = list[Node[K]](), list[Node[K]]()
    for height in range(max(old.height, new.height), -1, -1):
        olds = [old] if height == old.height else [n for node in olds for n in node.entries]
        news = [new] if height == new.height else [n for node in news for n in node.entries]
        shared = {id(node) for node in olds}.intersection([id(node) for node in news])
        olds = [node for node in olds if id(node) not in shared]
        news = [node for node in news if id(node) not in shared]
        yield olds, news


#: A node where it hangs: the height and the bounds, low <= key < high, that its parent demands.
Place: TypeAlias = tuple[Node[Any], int, Any, Any, str]


def check_place(place: Place) -> Iterator[str]:
    """What a node owes to the place where it hangs. Opens at most its two edges."""
    node, height, low, high, path = place
    if node.height != height:
        yield f"I2 at {path}: height {node.height} where {height} is wanted"
    if path != "root" and len(node.keys) < node.least:
        yield f"I2 at {path}: {len(node.keys)} entries are less than {node.least}"
    if node.height and low is not None and node.keys[0] != low:
        yield f"I1 at {path}: own separator {node.keys[0]!r} is not its parent's, {low!r}"
    first = last = node
    while first.height and first.keys and last.height and last.keys:
        first, last = first.entries[0], last.entries[-1]
    for key in [*first.keys[:1], *last.keys[-1:]]:
        if (low is not None and key < low) or (high is not None and not key < high):
            yield f"I1 at {path}: key {key!r} is outside of its bounds, {low!r} to {high!r}"


def check_node(place: Place) -> Iterator[str]:
    """What can be said of a node without opening its children."""
    node, _, _, _, path = place
    size = len(node.keys)
    items = sum([child.count for child in node.entries]) if node.height else size
    if node.height and size < 2:
        yield f"I2 at {path}: a branch with {size} children"
    for a, b in pairwise(node.keys[1:] if node.height else node.keys):
        if not a < b:
            yield f"I1 at {path}: key {a!r} is not below its successor {b!r}"
    if size > node.most:
        yield f"I2 at {path}: {size} entries are more than {node.most}"
    spare = sum([entry is not None for entry in astuple(opened(node))[_HEAD + size :]])
    if spare:
        yield f"I2 at {path}: {spare} entries without a key"
    if node.count != items:
        yield f"I2 at {path}: counts {node.count} items and has {items}"
    for kind, value in (node.kept or {}).items():
        # What else is kept is a Block, which its store vouches for.
        if isinstance(kind, Aggregate) and (right := recompute(node, kind)) != value:
            yield f"I2 at {path}: keeps {value!r} as {kind.name}, its items give {right!r}"
