"""Restoring: the window of a cache as it was, in memory, from the archive.

Checkpoints become ordinary trees that share nodes and elements as their records do, so that the
next group written after a restart shares with the last one before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from msgspec.structs import replace

from btreecache.archive.groups import descending
from btreecache.archive.log import batches_of, puts_of
from btreecache.archive.nodes import Nodes, Place, batched_pairs, readable, source_of
from btreecache.archive.reading import Reading
from btreecache.archive.records import (
    Branch,
    GroupState,
    Leaf,
    Reference,
    StoredElement,
    check_of,
    loaded,
)
from btreecache.cache import NODE_BYTES
from btreecache.digest import element_digest
from btreecache.element import Element
from btreecache.errors import ArchiveError
from btreecache.event import Batch, Event
from btreecache.history import Restored, RestoredStep
from btreecache.node import Node, branch, make
from btreecache.tree import Tree
from btreecache.window import Bounds

#: Of runs that were loaded, before what nobody asked for is forgotten.
FRESH_BYTES = 64 << 20


class Adopted(NamedTuple):
    """A checkpoint in memory, to go on from: its tree, the record of each node, its digest."""

    tree: Tree[bytes, Element]
    records: dict[int, Leaf | Branch]
    digest: int


class Materialised(Nodes):
    """Trees in memory from the records of checkpoints. A record is loaded once, in all trees, and
    all of them at that: what is looked at afterwards stays in the cache anyway."""

    def __init__(
        self, storage: Any, read: Callable[[Element], Element], recipe: bytes = b""
    ) -> None:
        super().__init__(read, recipe=recipe)
        self._storage = storage
        self._runs: dict[bytes, _Loaded] = {}
        self._made: dict[bytes, _Made] = {}
        self._strings: dict[str, str] = {}
        self._fresh: list[_Loaded] = []
        self._fresh_bytes = 0

    def whole(self, group: GroupState) -> Tree[bytes, Element]:
        """The tree of a checkpoint. O(records not loaded yet). Raises ArchiveError if it isn't the
        one that was written."""
        made = self._whole(_reference(group.root))
        _check(group.revision, made.check, group.digest)
        return Tree(made.node)

    def records(self, group: GroupState) -> dict[int, Leaf | Branch]:
        """The record of each node of a tree that was made, by the node's id. O(nodes)."""
        found: dict[int, Leaf | Branch] = {}
        stack = [_reference(group.root)]
        while stack:
            oid, kind = stack.pop()
            made = self._made[oid]
            record = found[id(made.node)] = kind.__new__(kind)
            record._p_oid = oid
            stack += made.children
        return found

    def element(self, place: Place) -> Element:
        run, index = place
        return self._element(self._run(_reference(run)), index)

    def check(self, place: Place) -> int:
        """`check_of` the digest of the element at a place that was looked at."""
        run, index = place
        return self._runs[run._p_oid].checks[index]

    def made(self, stored: StoredElement, recipe: bytes) -> Element:
        element = super().made(stored, recipe)
        if not element.labels:
            return element
        # One copy of each string, as a codec has it.
        one = self._strings.setdefault
        return replace(element, labels=tuple(map(one, element.labels, element.labels)))

    def _element(self, run: _Loaded, index: int) -> Element:
        element = run.elements.get(index)
        if element is None:
            stored = (run.stored or self._load(run))[index]
            element = run.elements[index] = self.made(stored, run.recipe)
            run.checks[index] = _check_of(stored) if stored.check is None else stored.check
        return element

    def _run(self, reference: Reference) -> _Loaded:
        found = self._runs.get(reference[0])
        if found is None:
            found = self._runs[reference[0]] = _Loaded(reference)
        return found

    def _load(self, run: _Loaded) -> tuple[StoredElement, ...]:
        """What is in a run, and remember it until it is too much."""
        if self._fresh_bytes > FRESH_BYTES:
            for other in self._fresh:
                other.stored = None
            self._fresh, self._fresh_bytes = [], 0
        run.recipe, stored = loaded(self._storage, run.reference)
        run.stored = stored
        self._fresh.append(run)
        self._fresh_bytes += sum([len(each.value) for each in stored])
        return stored  # type: ignore[no-any-return]

    def _whole(self, reference: Reference) -> _Made:
        oid, kind = reference
        made = self._made.get(oid)
        if made is None:
            state = loaded(self._storage, reference)
            made = self._branch(*state) if kind is Branch else self._leaf(*state)
            self._made[oid] = made
        return made

    def _branch(self, height: int, keys: Any, children: Any, _: Any) -> _Made:
        below = [self._whole(child) for child in children]
        if any(made.node.height != height - 1 for made in below):
            raise ArchiveError("the archive is damaged: a node hangs at another height")
        node = branch([made.node for made in below], None)
        node.keys = keys
        return _Made(node, sum([made.check for made in below]), children)

    def _leaf(self, prefix: bytes, suffixes: Any, runs: Any, _: Any, places: Any) -> _Made:
        there = [self._run(run) for run in runs]
        elements, check = [], 0
        for number, index in batched_pairs(places):
            run = there[number]
            elements.append(self._element(run, index))
            check += run.checks[index]
        keys = tuple([prefix + suffix for suffix in suffixes])
        if [element.key for element in elements] != [*keys]:
            raise ArchiveError("the archive is damaged: an element is under another's key")
        return _Made(make(0, keys, elements, len(keys), None), check, ())


class _Loaded:
    """A run: what is in it, for a while, and what was made of it, by the place: most of an old run
    is dead.

    checks   `check_of` the digest of each of `elements`

    Nothing here is of interest to the garbage collector, which would look at it again and again.
    """

    __slots__ = ("checks", "elements", "recipe", "reference", "stored")

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.recipe = b""
        self.stored: tuple[StoredElement, ...] | None = None
        self.elements: dict[int, Element] = {}
        self.checks: dict[int, int] = {}


class _Made(NamedTuple):
    """A node, the sum of the checks of all elements below it, and the records below it."""

    node: Node[bytes]
    check: int
    children: Sequence[Reference]


def _reference(record: Any) -> Reference:
    return record._p_oid, type(record)


def restored(
    reading: Reading,
    read: Callable[[Element], Element],
    bounds: Bounds,
    now_s: float,
    recipe: bytes = b"",
) -> tuple[Restored, Adopted] | None:
    """What a window needs of a history, and what its writer goes on from; None: there is nothing.

    Reads the last state, and the changes before it until they are more than the window keeps, no
    further than the last gap. `now_s`: seconds since 1970. Raises ArchiveError if a digest differs.
    """
    with readable():
        return _restored(reading, read, bounds, now_s, recipe)


def _restored(
    reading: Reading,
    read: Callable[[Element], Element],
    bounds: Bounds,
    now_s: float,
    recipe: bytes,
) -> tuple[Restored, Adopted] | None:
    groups = descending(reading.state.groups)
    first = last = next(groups, None)
    if first is None or last is None:
        return None
    made = Materialised(first.root._p_jar._storage, read, recipe)
    parts: list[list[RestoredStep]] = []
    batches = size_bytes = 0
    while first.base is not None and not (
        (bounds.age_s is not None and now_s - first.last_s > bounds.age_s)
        or (bounds.revisions is not None and batches >= bounds.revisions)
        or (bounds.bytes is not None and size_bytes > bounds.bytes)
    ):
        before = next(groups)
        parts.append(_steps(made, before, first, now_s))
        batches += len(parts[-1])
        size_bytes += sum(step.superseded_bytes for step in parts[-1])
        first = before
    tree, newest = made.whole(first), made.whole(last)
    steps = tuple(chain.from_iterable(reversed(parts)))
    window = Restored(first.revision, tree, max(now_s - first.last_s, 0.0), steps, reading.newest)
    records = made.records(last)
    return window, Adopted(newest, records, int.from_bytes(last.digest, "big"))


def _steps(
    made: Materialised, base: GroupState, group: GroupState, now_s: float
) -> list[RestoredStep]:
    """The batches of a group, each with the tree after it."""
    tree, after = made.whole(base), made.whole(group)
    steps = []
    for archived, arrived_s in batches_of(group.log, made):
        editor = tree.edit()
        events = []
        superseded_bytes = 0
        for event in archived.events:
            key, element = event.key, event.element
            previous = editor.get(key)
            if element is None:
                editor.delete(key)
            else:
                editor.set(key, element)
            if previous is not None:
                superseded_bytes += previous.size_bytes()
            events.append(Event(key, element, previous))
        superseded_bytes += NODE_BYTES * editor.copied
        tree = editor.freeze()
        batch = Batch(archived.revision, tuple(events), archived.synthetic)
        age_s = max(now_s - arrived_s, 0.0)
        steps.append(RestoredStep(batch, tree, age_s, superseded_bytes))
    _check(group.revision, sum(map(made.check, puts_of(group.log))), group.log.state[2])
    if not steps or steps[-1].batch.revision != group.revision or any(tree.changes(after)):
        raise _damaged(group.revision)
    steps[-1] = steps[-1]._replace(tree=after)
    return steps


def _check(revision: int, check: int, digest: bytes) -> None:
    """That what was read is what was written: a damaged disk isn't believed."""
    if check_of(check) != check_of(int.from_bytes(digest, "big")):
        raise _damaged(revision)


def _check_of(stored: StoredElement) -> int:
    return check_of(element_digest(source_of(stored), "values"))


def _damaged(revision: int) -> ArchiveError:
    return ArchiveError(
        f"the archive is damaged: another digest at revision {revision} than when it was written"
    )
