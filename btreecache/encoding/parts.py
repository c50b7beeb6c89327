"""Parts: a tree of elements cut into runs of some 20 KB, which the next tree finds again.

What is encoded from a run of elements and kept (block.py) is worth most if a run is some size in
bytes, however many elements that is: compression needs a few dozen KB, and what a change makes
worthless should be no more. Nodes don't have that size: one of 2 KB pods is far too large, one of
leases too small. So a Part is a run of neighbouring entries of ONE node, elements of a leaf or
whole children of a branch.

When an element changes, its leaf and the branches above are new nodes, and are cut anew; but each
entry of them that is still the same object is known to have begun a part. That part is taken again
if it has the same entries. So a change costs one part, and an insertion does not move the cuts
behind it. A part is known as long as a tree with it was walked and lives: the window (window.py)
sees to that.

A few parts are a Strip, on which blocks hang; the strips of one node are a Stretch, a block itself.
Walking a tree that was walked before touches little more than its strips.

A compressor does far better on a part if it knows what stands before it, an element or two of the
same sort. That is the part's seed, and changes what is made of it: `Strip.seed` is the first's.

What this module deliberately does not do: no encoding, no order but the tree's, no selection.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain
from operator import add, itemgetter
from typing import Any, Final, NamedTuple
from weakref import ref

import msgspec

from btreecache.block import Blocks, Kind
from btreecache.element import Element
from btreecache.node import PLACES, Aggregate, Node, cut, runs, whole
from btreecache.tree import Tree

#: What a part has, more or less; an element or a child that is larger is a part of its own.
PART_BYTES: Final = 20 << 10

#: The parts of a strip at most.
STRIP_PARTS: Final = 4

#: What a seed has at least, in whole elements; where they make more than the most there is none: a
#: large element gains little from what stands before it.
SEED_BYTES: Final = 1 << 10
SEED_BYTES_MAX: Final = 16 << 10

#: What they take beside the entries, by tracemalloc over 1,700 parts; a stretch with the sums of
#: two forms. A tenth more than measured.
_PART_BYTES: Final = 560
_STRIP_BYTES: Final = 300
_STRETCH_BYTES: Final = 600


class Part(msgspec.Struct, eq=False, weakref=True):
    """Neighbouring entries of one node, which never change.

    `height` is the node's: the entries are elements (0) or nodes. `first`, `last`: the lowest and
    the highest key. `tail`: the last elements, the seed of what follows, or none. `made`: weak
    references to what was made of the part, by form; whoever keeps such a thing keeps it findable.
    """

    height: int
    entries: tuple[Any, ...]
    size: int
    first: bytes
    last: bytes
    tail: tuple[Element, ...]
    made: dict[Any, Any] | None = None

    def elements(self) -> Iterator[Element]:
        """In order."""
        if not self.height:
            return iter(self.entries)
        return chain.from_iterable(chain.from_iterable(map(_values, self.entries)))


class Strip(msgspec.Struct, eq=False):
    """A few parts in a row, which never change; blocks may hang on it (`block.Holder`).

    `seed`: elements that stand before the first part where this strip is used. `fleeting`: made for
    one reader, so that nothing made of it is worth keeping.
    """

    parts: tuple[Part, ...]
    seed: tuple[Element, ...] = ()
    fleeting: bool = False
    seeded: Strip | None = None
    kept: dict[Any, Any] | None = None

    def after(self, tail: tuple[Element, ...]) -> Strip:
        """This strip where `tail` stands before it. One such is remembered, the last."""
        if not tail:
            return self
        seeded = self.seeded
        if seeded is None or seeded.seed != tail:
            seeded = self.seeded = Strip(self.parts, tail, self.fleeting)
        return seeded


class Stretch(msgspec.Struct, eq=False):
    """A node cut into strips. `strips`: in order, each after the one before it. `bare`: without.

    `height` is the node's, `tail` that of the last part. `sums`: what anyone knows of the whole of
    it and could compute again; a few dozen bytes each.
    """

    height: int
    bare: tuple[Strip, ...]
    strips: tuple[Strip, ...]
    tail: tuple[Element, ...]
    sums: dict[Any, Any]


class Cut(NamedTuple):
    """Strips in a row, each after the one before; with `sums` they are all those of a stretch."""

    strips: Sequence[Strip]
    sums: dict[Any, Any] | None


def value_bytes(element: Element) -> int:
    """The bytes of an element's value."""
    return len(element.value)


class Parts:
    """Cuts the trees of one cache, whose keys must be those of their elements.

    Any thread may use it. Make one and keep it: it remembers the parts that the blocks hold.
    """

    def __init__(
        self,
        blocks: Blocks,
        *,
        size_of: Callable[[Element], int] = value_bytes,
        part_bytes: int = PART_BYTES,
    ) -> None:
        """`size_of`: the bytes that an element counts, about."""
        self.blocks = blocks
        self._size_of = size_of
        self._size: Aggregate[bytes, Element, int] = Aggregate(
            "part_bytes", 0, lambda _, element: size_of(element), add
        )
        self._part_bytes = part_bytes
        self._most = part_bytes * 3 // 2
        #: By the id of the first entry, which the part holds.
        self._parts: dict[int, ref[Part]] = {}
        self._stretch = Kind("parts", self._cut_node, _stretch_bytes)

    def walk(
        self, tree: Tree[bytes, Element], start: bytes | None = None, stop: bytes | None = None
    ) -> Iterator[Cut]:
        """The elements of a range, start <= key < stop, strip by strip. Lazy.

        O(strips) where the nodes were walked before. A strip that a bound cuts is fleeting.
        """
        tail: tuple[Element, ...] = ()
        for strips, sums in self._walk(tree.root, start, stop):
            yield Cut((strips[0].after(tail), *strips[1:]), sums)
            tail = strips[-1].parts[-1].tail

    def _walk(self, node: Node[bytes], start: bytes | None, stop: bytes | None) -> Iterator[Cut]:
        if node.height > 1:
            low, high = cut(node, start, stop)
            last = high - 1
            for i, child in enumerate(node.entries[low:high], low):
                yield from self._walk(
                    child, start if i == low else None, stop if i == last else None
                )
            return
        stretch = self.blocks.get(node, self._stretch)
        bare, strips = stretch.bare, stretch.strips
        low = 0 if start is None else bisect_left(bare, start, key=_last)
        high = len(bare) if stop is None else bisect_left(bare, stop, key=_first)
        if low >= high:
            return
        cuts_low = start is not None and _first(bare[low]) < start
        cuts_high = stop is not None and _last(bare[high - 1]) >= stop
        inner_low, inner_high = low + cuts_low, high - cuts_high
        if inner_high - inner_low == len(bare):
            yield Cut((bare[0], *strips[1:]), stretch.sums)
            return
        if cuts_low or inner_low > inner_high:
            yield from self._edge(bare[low], start, stop)
        if inner_low < inner_high:
            yield Cut((bare[inner_low], *strips[inner_low + 1 : inner_high]), None)
        if cuts_high and inner_low <= inner_high:
            yield from self._edge(bare[high - 1], None, stop)

    def _edge(self, strip: Strip, start: bytes | None, stop: bytes | None) -> Iterator[Cut]:
        """What of a strip lies in a range, for one reader."""
        parts = []
        for part in strip.parts:
            if (start is None or start <= part.first) and (stop is None or part.last < stop):
                parts.append(part)
                continue
            elements = tuple(
                [
                    element
                    for element in part.elements()
                    if (start is None or start <= element.key)
                    and (stop is None or element.key < stop)
                ]
            )
            if elements:
                parts.append(self._part(0, elements, 0))
        if parts:
            yield Cut((Strip(tuple(parts), fleeting=True),), None)

    def _cut_node(self, node: Node[bytes]) -> Stretch:
        height, entries = node.height, node.entries
        bare: list[Strip] = []
        strips: list[Strip] = []
        tail: tuple[Element, ...] = ()
        if height and self._are_large(entries):
            for child in entries:
                below = self.blocks.get(child, self._stretch)
                bare += below.bare
                strips.append(below.bare[0].after(tail))
                strips += below.strips[1:]
                tail = below.tail
        else:
            parts = self._cut(height, entries)
            for i in range(0, len(parts), STRIP_PARTS):
                strip = Strip(tuple(parts[i : i + STRIP_PARTS]))
                bare.append(strip)
                strips.append(strip.after(tail))
                tail = strip.parts[-1].tail
        return Stretch(height, tuple(bare), tuple(strips), tail, {})

    def _are_large(self, leaves: tuple[Node[bytes], ...]) -> bool:
        """Whether leaves are to be cut each by itself: most of them, or any one, is too large.

        The first is estimated by the first elements, since to count the bytes of every leaf that
        changed costs as much as to cut it.
        """
        firsts = [getattr(leaf, PLACES[0]) for leaf in leaves]
        size = sum([self._size_of(e) * leaf.count for e, leaf in zip(firsts, leaves, strict=True)])
        if size > self._most * len(leaves):
            return True
        return max([whole(leaf, self._size) for leaf in leaves]) > 2 * self._most

    def _cut(self, height: int, entries: tuple[Any, ...]) -> list[Part]:
        """The parts of a node from left to right, those that are known already where they fit."""
        parts: list[Part] = []
        sizes: list[int] = []
        i = 0
        while i < len(entries):
            part = self._find(entries, i)
            if part is None:
                if not sizes and height:
                    sizes = [whole(child, self._size) for child in entries]
                elif not sizes:
                    sizes = [*map(self._size_of, entries)]
                j = self._end(entries, sizes, i)
                part = self._part(height, entries[i:j], sum(sizes[i:j]))
                self._remember(part)
            parts.append(part)
            i += len(part.entries)
        return parts

    def _remember(self, part: Part) -> None:
        """Until it dies, in whichever thread. (A WeakValueDictionary raises for what it lacks.)"""
        parts, key = self._parts, id(part.entries[0])

        def forget(dead: ref[Part]) -> None:
            if parts.get(key) is dead:
                parts.pop(key, None)  # If it was replaced just now, that will be made anew.

        parts[key] = ref(part, forget)

    def _find(self, entries: tuple[Any, ...], i: int) -> Part | None:
        """The part that begins with entry `i`, if it is known and neither changed nor a scrap."""
        known = self._parts.get(id(entries[i]))
        part = None if known is None else known()
        if part is None:
            return None
        j = i + len(part.entries)
        if part.entries != entries[i:j] or (part.size < self._part_bytes // 2 and j < len(entries)):
            return None
        return part

    def _end(self, entries: tuple[Any, ...], sizes: list[int], i: int) -> int:
        """Where a new part ends: before one that is known, or else when it has its portion."""
        ends = [*accumulate(sizes[i:])]
        least, most = bisect_left(ends, self._part_bytes // 2), bisect_right(ends, self._most)
        for j in range(i + 1 + least, min(i + 1 + most, len(entries))):
            if self._find(entries, j):
                return j
        portion = ends[-1] // max(1, round(ends[-1] / self._part_bytes))
        count = bisect_left(ends, portion)
        reached = ends[count - 1] if count else 0
        return i + max(1, count + (portion - reached >= sizes[i + count] // 2))

    def _part(self, height: int, entries: tuple[Any, ...], size: int) -> Part:
        low, high, ends = entries[0], entries[-1], entries
        for _ in range(height):
            ends = high.entries
            low, high = low.entries[0], ends[-1]
        return Part(height, entries, size, low.key, high.key, self._tail(ends))

    def _tail(self, elements: tuple[Element, ...]) -> tuple[Element, ...]:
        """The last elements that make a seed, or none."""
        size = 0
        for i in range(len(elements) - 1, -1, -1):
            size += self._size_of(elements[i])
            if size >= SEED_BYTES:
                return elements[i:] if size <= SEED_BYTES_MAX else ()
        return ()


def _values(node: Node[bytes]) -> Iterator[tuple[Element, ...]]:
    """The elements below a node, leaf by leaf."""
    return map(itemgetter(1), runs(node, None, None, False))


def _first(strip: Strip) -> bytes:
    return strip.parts[0].first


def _last(strip: Strip) -> bytes:
    return strip.parts[-1].last


def _stretch_bytes(stretch: Stretch) -> int:
    """What is of a node below is in the account of that, save the strips behind other strips."""
    size = _STRETCH_BYTES + 16 * len(stretch.strips)
    for strip in stretch.bare:
        if strip.parts[0].height == stretch.height:
            size += _STRIP_BYTES
            size += sum([_PART_BYTES + 8 * len(part.entries) for part in strip.parts])
    return size
