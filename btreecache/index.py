"""Indexes: which keys have a value, as trees of their own beside the tree of every snapshot.

The one idea: an entry is the pair (indexed value, key of the element), written as one byte string
that sorts as the pair does. So the keys that have a value are a range of a tree, in key order: they
are counted in O(log n) by rank, also within a prefix or from a page's start, and their versions
share nodes as snapshots do. An entry names its element and does not hold it. Therefore a write
touches an index only when the indexed value changes, and who reads by an index looks the elements
up in the main tree of the same snapshot: the same answer as without, at every revision (I12).

What this module deliberately does not do: it parses no selectors and filters nothing. An index
gives candidates; whether they match is for the predicate of the list to say (`snapshot`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import is_
from typing import NamedTuple, TypeAlias

from btreecache.element import Element
from btreecache.tree import Editor, Tree

#: (name of an index, value): the element must have this value. What a selector demands exactly.
Requirement: TypeAlias = tuple[str, str]

#: Entry -> None.
IndexTree: TypeAlias = Tree[bytes, None]

#: Reading one element by an index costs about as much as scanning this many: an entry is cut and
#: its key looked up in the main tree. 100k elements, a predicate that compares one field, CPython
#: 3.11 on two busy shared cores, 2026-11-24: 1.3 us by an index, 0.4 us by a scan; a dearer
#: predicate brings them closer.
LOOKUP_COST = 4


@dataclass(frozen=True, slots=True)
class Index:
    """A declared index. `name`: `l:<label>` or `f:<field>`, as the API server calls them.

    `value_of` gives the value of an element, None if it is not in this index. It must be pure, must
    not raise, and must give `value` for every element that the requirement (name, value) admits.
    """

    name: str
    value_of: Callable[[Element], str | None]

    def __post_init__(self) -> None:
        if self.name[:2] not in ("l:", "f:") or len(self.name) < 3:
            raise ValueError(f"an index is named l:<label> or f:<field>, not {self.name!r}")


class Choice(NamedTuple):
    """How the candidates for a list are found, decided by what each way costs.

    requirement  the one whose index is read; None: the main tree is scanned
    candidates   how many elements that way looks at, if it looks at all of them
    in_range     how many elements the range holds, whatever is required
    """

    requirement: Requirement | None
    candidates: int
    in_range: int


def head(value: str) -> bytes:
    """What the entries of `value`, and no others, begin with.

    Values in their order as code points, none a prefix of another: NUL is escaped as 00 01, and the
    end of the value is 00 00. Lone surrogates are let through: sources hold what they like.
    """
    return value.encode("utf-8", "surrogatepass").replace(b"\0", b"\0\1") + b"\0\0"


def entry(value: str, key: bytes) -> bytes:
    """The pair (value, key) as one byte string: injective, and sorted as the pairs are."""
    return head(value) + key


class Indexes:
    """The declared indexes at one revision: a tree each, immutable, shared while untouched.

    Any thread may read it at any time.
    """

    __slots__ = ("declared", "trees")

    def __init__(self, declared: tuple[Index, ...], trees: tuple[IndexTree, ...]) -> None:
        """Trees that belong to the declared indexes, in their order; `of` makes them."""
        self.declared = declared
        self.trees = trees

    @classmethod
    def of(cls, declared: Iterable[Index], elements: Iterable[Element] = ()) -> Indexes:
        """The indexes of elements, in any order. O(n log n). ValueError if two have one name."""
        declared = tuple(declared)
        names = [index.name for index in declared]
        if len({*names}) < len(names):
            raise ValueError(f"two indexes have the same name: {sorted(names)}")
        found: list[list[bytes]] = [[] for _ in declared]
        for element in elements if declared else ():
            for index, entries in zip(declared, found, strict=True):
                value = index.value_of(element)
                if value is not None:
                    entries.append(entry(value, element.key))
        trees = []
        for entries in found:
            entries.sort()
            trees.append(Tree.from_sorted((each, None) for each in entries))
        return cls(declared, tuple(trees))

    def __repr__(self) -> str:
        sizes = [f"{i.name}: {len(t)}" for i, t in zip(self.declared, self.trees, strict=True)]
        return f"Indexes({', '.join(sizes)})"

    def edit(self) -> IndexesEditor:
        """An editor that starts from these indexes, for the changes of one batch. O(1)."""
        return IndexesEditor(self)

    def cheapest(
        self,
        requirements: Sequence[Requirement],
        start: bytes,
        stop: bytes | None,
        in_range: int,
    ) -> Choice:
        """The best way to the elements of a key range that meet all requirements. O(log n) each.

        `in_range`: how many elements the range holds. A limit doesn't matter: matches are as many
        whichever way is taken, so to find the first few of them costs the same share of each way.
        Requirements on indexes that were not declared are passed over.
        """
        choice, cost = Choice(None, in_range, in_range), in_range
        for requirement in requirements:
            if self.tree(requirement[0]) is not None:
                candidates = self.count(requirement, start, stop)
                if candidates * LOOKUP_COST < cost:
                    choice = Choice(requirement, candidates, in_range)
                    cost = candidates * LOOKUP_COST
        return choice

    def tree(self, name: str) -> IndexTree | None:
        """The tree of an index, None if it was not declared."""
        for index, tree in zip(self.declared, self.trees, strict=True):
            if index.name == name:
                return tree
        return None

    def count(self, requirement: Requirement, start: bytes, stop: bytes | None) -> int:
        """How many keys of a range have the value. O(log n). KeyError: no such index."""
        tree, begin, end = self._range(requirement, start, stop)
        return tree.count(begin, end)

    def keys(self, requirement: Requirement, start: bytes, stop: bytes | None) -> Iterator[bytes]:
        """The keys of a range that have the value, in order. Lazy, O(log n + read). KeyError."""
        tree, begin, end = self._range(requirement, start, stop)
        skip = len(head(requirement[1]))
        return (each[skip:] for each in tree.keys(begin, end))

    def _range(
        self, requirement: Requirement, start: bytes, stop: bytes | None
    ) -> tuple[IndexTree, bytes, bytes]:
        """The tree of an index, and which of its entries are of the value and the key range."""
        name, value = requirement
        tree, begin = self.tree(name), head(value)
        if tree is None:
            raise KeyError(name)
        # The entries of the value end before 00 01, which would go on with an escaped NUL.
        return tree, begin + start, begin[:-1] + b"\1" if stop is None else begin + stop

    def check(self, elements: Iterable[Element]) -> Iterator[str]:
        """Every violation of I1 and I2, and each entry that `elements` give otherwise. O(n)."""
        wanted = Indexes.of(self.declared, elements)
        for index, tree, right in zip(self.declared, self.trees, wanted.trees, strict=True):
            yield from (f"{index.name}: {problem}" for problem in tree.check())
            diff = tree.diff(right)
            yield from (f"I12: {index.name} lacks {each!r}" for each, _ in diff.added)
            yield from (f"I12: {index.name} has {each!r} too much" for each, _ in diff.removed)


class IndexesEditor:
    """The changes of one batch; `freeze` gives the indexes after it. For one thread.

    `dropped_bytes`: the entries that only older snapshots have from now on, for byte budgets.
    """

    __slots__ = ("_base", "_editors", "dropped_bytes")

    def __init__(self, base: Indexes) -> None:
        self._base = base
        self._editors: list[Editor[bytes, None] | None] = [None] * len(base.declared)
        self.dropped_bytes = 0

    @property
    def copied(self) -> int:
        """Nodes copied or created so far, the memory that the result has for its own."""
        return sum([editor.copied for editor in self._editors if editor])

    def change(self, previous: Element | None, element: Element | None) -> None:
        """What a key held, and what it holds now; None: nothing. O(log n) per value that changed.

        The same key may be changed repeatedly, each time from what it held last. Raises KeyError if
        `previous` is not what was indexed: then give this editor up.
        """
        for i, index in enumerate(self._base.declared):
            old = None if previous is None else index.value_of(previous)
            new = None if element is None else index.value_of(element)
            if old == new:
                continue
            editor = self._editors[i]
            if editor is None:
                editor = self._editors[i] = self._base.trees[i].edit()
            if previous is not None and old is not None:
                dropped = entry(old, previous.key)
                editor.delete(dropped)
                self.dropped_bytes += len(dropped)
            if element is not None and new is not None:
                editor.set(entry(new, element.key), None)

    def freeze(self) -> Indexes:
        """The result; the original indexes if no value changed. O(indexes). Ends the editor."""
        base = self._base
        trees = tuple(
            editor.freeze() if editor else tree
            for editor, tree in zip(self._editors, base.trees, strict=True)
        )
        return base if all(map(is_, base.trees, trees)) else Indexes(base.declared, trees)


def label_index(label: str) -> Index:
    """The index `l:<label>`: elements that have the label, by its value."""

    def value_of(element: Element) -> str | None:
        labels = element.labels
        names = labels[::2]
        return labels[2 * names.index(label) + 1] if label in names else None

    return Index(f"l:{label}", value_of)


def field_index(field: str, position: int) -> Index:
    """The index `f:<field>` of the field at `position` in `Element.fields`.

    A field that is missing has the value "" to a field selector, so it has here.
    """

    def value_of(element: Element) -> str | None:
        fields = element.fields
        return fields[position] if position < len(fields) else ""

    return Index(f"f:{field}", value_of)


#: No indexes declared.
NO_INDEXES = Indexes((), ())
