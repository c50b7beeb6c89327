"""Runs: which elements are written into one record, and as what.

A record costs some 20 microseconds to load, however little is in it, so few updates of a group
share one, where their leaves have one parent. But a run lives as long as one of its elements is
referred to: few are bound to the fate of others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from btreecache.archive.records import Run, StoredElement, check_of
from btreecache.digest import MODULUS, element_digest
from btreecache.element import Element

#: A run is cut where it exceeds this, so that reading one element never loads much more.
RUN_BYTES = 64 << 10

#: Elements of different leaves share a run until there are so many; then less than twice as many.
SHARED = 8

#: What stands around an element in a run.
ELEMENT_BYTES = 40


def cost(element: Element) -> int:
    """What an element takes in a run, roughly."""
    return len(element.key) + len(element.value) + ELEMENT_BYTES


def size_of(run: Run) -> int:
    """What a run takes, roughly. Loads it."""
    return sum([len(each.key) + len(each.value) + ELEMENT_BYTES for each in run.state])


class Written(NamedTuple):
    """A run, what is in it, and its bytes."""

    run: Run
    elements: Sequence[Element]
    bytes: int


class Runs:
    """Makes the runs of one transaction. `recipe`: of the codec that has made the elements, b"" if
    nobody can tell. Hashes an element once."""

    def __init__(self, recipe: bytes = b"") -> None:
        self._recipe = recipe
        self._digests: dict[int, int] = {}

    def digest(self, elements: Iterable[Element]) -> int:
        """Of elements that live until the transaction is made, mode `values`."""
        return sum(map(self._digest, elements)) % MODULUS

    def of(self, elements: Iterable[Element]) -> Iterator[Written]:
        """Runs of elements."""
        group: list[Element] = []
        size = 0
        for element in elements:
            group.append(element)
            size += cost(element)
            if size >= RUN_BYTES:
                yield Written(self._run(group), group, size)
                group, size = [], 0
        if group:
            yield Written(self._run(group), group, size)

    def shared(self, leaves: Iterable[Sequence[Element]]) -> Iterator[Written]:
        """Runs of the elements of neighbours: of a leaf each where it has many, else of several."""
        few: list[Element] = []
        for elements in leaves:
            if len(elements) >= SHARED:
                yield from self.of(few)
                yield from self.of(elements)
                few = []
                continue
            few += elements
            if len(few) >= SHARED:
                yield from self.of(few)
                few = []
        yield from self.of(few)

    def _run(self, elements: Sequence[Element]) -> Run:
        return Run(tuple(map(self._stored, elements)), self._recipe)

    def _stored(self, element: Element) -> StoredElement:
        key, mod_revision, version = element.key, element.mod_revision, element.version
        create_revision, digest = element.create_revision, element.source_digest
        check = check_of(self._digest(element))
        if digest or element.problem or not self._recipe:
            value = element.value if digest else element.source_value()
            return StoredElement(key, value, mod_revision, create_revision, version, digest, check)
        return StoredElement(
            key, element.value, mod_revision, create_revision, version, b"", check,
            element.labels, element.fields, element.undo,
        )  # fmt: skip

    def _digest(self, element: Element) -> int:
        found = self._digests.get(id(element))
        if found is None:
            found = self._digests[id(element)] = element_digest(element, "values")
        return found
