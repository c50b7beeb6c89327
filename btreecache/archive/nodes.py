"""Archived trees: ordinary immutable nodes, loaded from records when they are looked at.

The one idea: a child that isn't in memory is represented by a `Stub`, which knows what its parent
says of it (height and count) and loads the rest when it is asked. So everything that works on
trees, ranges, ranks, diffs, editors, works on archived ones, and reads only the nodes on its way.
What was loaded is remembered up to a budget of bytes, the least recently used is forgotten.

There is one stub of a record as long as anybody holds it, so trees of one `Nodes` share them as
trees in memory share nodes, and a diff looks only at what differs.

What is remembered refers back weakly: the garbage collector doesn't see nodes, and a cycle through
them would be there for ever. Trees, which nothing remembered holds, keep it all alive.

For one thread, as the ZODB connection that records come from.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any, ClassVar, NamedTuple, TypeAlias, cast
from weakref import ReferenceType, WeakValueDictionary, ref

from msgspec.structs import replace
from ZODB.POSException import POSKeyError, ReadConflictError

from btreecache.archive.records import Branch, Leaf, Run, StoredElement, contents_of
from btreecache.archive.storage import told
from btreecache.element import Element, restore
from btreecache.errors import ArchiveError, Compacted
from btreecache.node import ABSENT, Absent, Aggregate, M, Node, find, make, opened
from btreecache.tree import Editor, Tree

#: What is remembered of one archive by one reader.
CACHE_BYTES = 32 << 20

#: What a node and an element cost beside the bytes in them, roughly.
NODE_BYTES, ELEMENT_BYTES = 2_000, 300

#: Where an element is: a run, and its place in it.
Place: TypeAlias = tuple[Run, int]


class Packed(Compacted):
    """A record isn't there, or no longer as it was: no retained revision needs it, and it was
    packed away beside us. Or the archive is damaged, which `archive verify` tells."""

    def __init__(self, revision: int) -> None:
        super().__init__(revision, message="no longer archived: packed meanwhile")


@contextmanager
def readable(revision: int = 0) -> Iterator[None]:
    """What goes wrong while an archive is read, in our words."""
    with told("the archive can't be read"):
        try:
            yield
        except (POSKeyError, ReadConflictError):
            raise Packed(revision) from None


class Stub:
    """A node that is in the archive. It has what a Node has; reading most of it loads it."""

    owner: ClassVar[None] = None

    __slots__ = ("__weakref__", "_nodes", "count", "height", "kept", "record")

    def __init__(
        self, nodes: ReferenceType[Nodes], record: Leaf | Branch, height: int, count: int
    ) -> None:
        self._nodes = nodes
        self.record = record
        self.height = height
        self.count = count
        self.kept: dict[Any, Any] | None = None

    def load(self) -> Node[bytes]:
        """The node itself."""
        nodes = self._nodes()
        assert nodes is not None, "a tree keeps them alive"
        return nodes.node(self.record)

    def __getattr__(self, name: str) -> Any:
        # Keys, entries, and how to copy them; `kept` belongs to the stub, which lives longer.
        return getattr(self.load(), name)


class Patched:
    """A node of which some items have other values: changes[low:high] of all, in key order. What is
    below it is patched as well, when it is looked at."""

    owner: ClassVar[None] = None

    __slots__ = ("_nodes", "base", "changes", "count", "height", "high", "kept", "low")

    def __init__(
        self, nodes: ReferenceType[Nodes], base: Any, changes: Changes, low: int, high: int
    ) -> None:
        self._nodes = nodes
        self.base = base
        self.changes = changes
        self.low, self.high = low, high
        self.height: int = base.height
        self.count: int = base.count
        self.kept: dict[Any, Any] | None = None

    def load(self) -> Node[bytes]:
        """The node itself."""
        nodes = self._nodes()
        assert nodes is not None, "a tree keeps them alive"
        return nodes.patched(self)

    def made(self) -> Node[bytes]:
        """The node anew. O(fan-out + changes below it if it is a leaf)."""
        node = opened(self.base)
        keys, entries = self.changes.keys, [*node.entries]
        low = self.low
        if node.height:
            stops = [bisect_left(keys, separator, low, self.high) for separator in node.keys[1:]]
            for i, stop in enumerate([*stops, self.high]):
                if low < stop:
                    entries[i] = Patched(self._nodes, entries[i], self.changes, low, stop)
                low = stop
        else:
            for change in range(low, self.high):
                i = bisect_left(node.keys, keys[change])
                if node.keys[i : i + 1] != (keys[change],):
                    raise ArchiveError(f"the archive is damaged: {keys[change]!r} isn't there")
                entries[i] = self.changes.places[change]
        return make(node.height, node.keys, entries, node.count, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.load(), name)


class Changes(NamedTuple):
    """Other values of keys that a tree has, ascending."""

    keys: Sequence[bytes]
    places: Sequence[Place]


class Nodes:
    """Nodes and elements of one archive by their records, for one thread.

    thread        the one that may load from it: the maker's, until somebody sets another
    read          what is made of the source's elements
    recipe        identifies that: what was archived as made by the same needn't be made again
    cache_bytes   of nodes and elements that are remembered, estimated
    """

    def __init__(
        self,
        read: Callable[[Element], Element] | None = None,
        cache_bytes: int = CACHE_BYTES,
        recipe: bytes = b"",
    ) -> None:
        self.thread = get_ident()
        self.weak = ref(self)
        self._read = read
        self._recipe = recipe
        self._cache_bytes = cache_bytes
        self._cached: OrderedDict[bytes | Patched, tuple[Any, int]] = OrderedDict()
        self._used_bytes = 0
        self._aggregates: dict[Any, Aggregate[bytes, Any, Any]] = {}
        self._stubs: WeakValueDictionary[bytes, Stub] = WeakValueDictionary()

    def tree(self, root: Leaf | Branch, count: int) -> ArchivedTree:
        """The tree below a root record."""
        height = root.state[0] if isinstance(root, Branch) else 0
        return ArchivedTree(cast(Node[bytes], self._stub(root, height, count)), nodes=self)

    def node(self, record: Leaf | Branch) -> Node[bytes]:
        """The node of a record, its children stubs, its items places."""
        return cast(Node[bytes], self._remembered(record, self._load_node))

    def patched(self, node: Patched) -> Node[bytes]:
        """The node itself."""
        self._check_thread()
        found = self._cached.get(node)
        if found is not None:
            self._cached.move_to_end(node)
            return cast(Node[bytes], found[0])
        made = node.made()
        self._remember(node, made, NODE_BYTES)
        return made

    def element(self, place: Place) -> Element:
        """The element at a place. What `read` makes of it is remembered with its run."""
        run, index = place
        elements: list[StoredElement | Element]
        recipe, elements = self._remembered(run, _load_run)
        element = elements[index]
        if not isinstance(element, Element):
            element = elements[index] = self.made(element, recipe)
        return element

    def made(self, stored: StoredElement, recipe: bytes) -> Element:
        """The element of a stored one in a run of that recipe."""
        if stored.labels is not None and recipe == self._recipe:
            return Element(
                stored.key, stored.value, stored.mod_revision, stored.create_revision,
                stored.version, stored.labels, stored.fields, stored.undo,
            )  # fmt: skip
        element = source_of(stored)
        if self._read is None:
            return element
        digest = stored.source_digest
        if not digest:
            return self._read(element)
        # Of what a transform has altered only the value served is there: nothing leads back.
        element = self._read(replace(element, source_digest=b""))
        return replace(element, undo=b"", source_digest=digest)

    def of_places(self, agg: Aggregate[bytes, Element, M]) -> Aggregate[bytes, Any, M]:
        """An aggregate over elements as one over places: always the same one, as it is kept."""
        found = self._aggregates.get(agg)
        if found is None:
            nodes = self.weak

            def measure(key: bytes, item: Any) -> M:
                if not isinstance(item, Element):
                    item = cast(Nodes, nodes()).element(item)
                return agg.measure(key, item)

            found = Aggregate(agg.name, agg.zero, measure, agg.combine)
            self._aggregates[agg] = found
        return found

    def _remembered(self, record: Any, load: Callable[[Any], tuple[Any, int]]) -> Any:
        self._check_thread()
        oid, cached = record._p_oid, self._cached
        found = cached.get(oid)
        if found is not None:
            cached.move_to_end(oid)
            return found[0]
        with readable():
            value, size = load(record)
        record._p_deactivate()  # What was made of it is kept; its own state would be a second copy.
        self._remember(oid, value, size)
        return value

    def _check_thread(self) -> None:
        assert get_ident() == self.thread, (
            "an archived snapshot belongs to the thread that opened it"
        )

    def _remember(self, key: bytes | Patched, value: Any, size: int) -> None:
        self._cached[key] = value, size
        self._used_bytes += size
        while self._used_bytes > self._cache_bytes and len(self._cached) > 1:
            self._used_bytes -= self._cached.popitem(last=False)[1][1]

    def _load_node(self, record: Leaf | Branch) -> tuple[Node[bytes], int]:
        if isinstance(record, Branch):
            height, keys, children, counts = record.state
            entries: tuple[Any, ...] = tuple(
                self._stub(child, height - 1, count)
                for child, count in zip(children, counts, strict=True)
            )
            return make(height, keys, entries, sum(counts), None), NODE_BYTES
        keys, entries = keys_of(record), tuple(places_of(record))
        size = NODE_BYTES + sum(map(len, keys))
        return make(0, keys, entries, len(keys), None), size

    def _stub(self, record: Leaf | Branch, height: int, count: int) -> Stub:
        oid = record._p_oid
        stub = self._stubs.get(oid)
        if stub is None:
            stub = self._stubs[oid] = Stub(self.weak, record, height, count)
        if stub.height != height:  # So no way down is endless, whatever the archive says.
            raise ArchiveError("the archive can't be read: a node hangs at two heights")
        return stub


class ArchivedTree(Tree[bytes, Element], gc=False, eq=False):
    """A tree whose items are places in runs, and are read as the elements there.

    `nodes` is where they are loaded from. What an editor puts may be places or elements.
    """

    nodes: Nodes | None = None

    def _element(self, item: Any) -> Element:
        if isinstance(item, Element):
            return item
        assert self.nodes is not None
        return self.nodes.element(item)

    def __getitem__(self, key: bytes) -> Element:
        return self._element(super().__getitem__(key))

    def get(self, key: bytes, default: Element | None = None) -> Element | None:
        item = find(self._root, key)
        return default if item is ABSENT else self._element(item)

    def items(
        self, start: bytes | None = None, stop: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, Element]]:
        for key, item in super().items(start, stop, reverse):
            yield key, self._element(item)

    def values(
        self, start: bytes | None = None, stop: bytes | None = None, reverse: bool = False
    ) -> Iterator[Element]:
        return map(self._element, super().values(start, stop, reverse))

    def select(self, index: int) -> tuple[bytes, Element]:
        key, item = super().select(index)
        return key, self._element(item)

    def aggregate(
        self,
        agg: Aggregate[bytes, Element, M],
        start: bytes | None = None,
        stop: bytes | None = None,
    ) -> M:
        assert self.nodes is not None
        return super().aggregate(self.nodes.of_places(agg), start, stop)

    def changes(
        self, other: Tree[bytes, Element]
    ) -> Iterator[tuple[bytes, Element | Absent, Element | Absent]]:
        theirs = other._element if isinstance(other, ArchivedTree) else _itself
        for key, old, new in super().changes(other):
            was = old if old is ABSENT else self._element(old)
            now = new if new is ABSENT else theirs(new)
            if was != now:  # An element may have been written down twice.
                yield key, was, now

    def edited(self, editor: Editor[bytes, Any]) -> ArchivedTree:
        """What an editor of this tree has made of it."""
        tree = editor.freeze()
        return self if tree is self else ArchivedTree(tree._root, nodes=self.nodes)

    def patched(self, places: Mapping[bytes, Place]) -> ArchivedTree:
        """This tree with other values of keys that it has. O(places * log places)."""
        if not places:
            return self
        assert self.nodes is not None
        changes = Changes(sorted(places), [places[key] for key in sorted(places)])
        root = Patched(self.nodes.weak, self._root, changes, 0, len(places))
        return ArchivedTree(cast(Node[bytes], root), nodes=self.nodes)


def _itself(element: Element) -> Element:
    return element


def keys_of(leaf: Leaf) -> tuple[bytes, ...]:
    """The keys of a leaf."""
    prefix, suffixes = leaf.state[:2]
    return tuple([prefix + suffix for suffix in suffixes])


def places_of(leaf: Leaf) -> Iterator[Place]:
    """Where the elements of a leaf are, in the order of its keys."""
    runs, _, places = leaf.state[2:]
    return ((runs[run], index) for run, index in batched_pairs(places))


def batched_pairs(flat: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(0th, 1st), (2nd, 3rd), ..."""
    return zip(flat[::2], flat[1::2], strict=True)


def _load_run(run: Run) -> tuple[tuple[bytes, list[StoredElement | Element]], int]:
    recipe, elements = contents_of(run)
    size = sum([len(e.key) + len(e.value) + ELEMENT_BYTES for e in elements])
    return (recipe, [*elements]), size


def source_of(stored: StoredElement) -> Element:
    """The element as the source holds it, but for what a transform has dropped."""
    value = restore(stored.value, stored.undo) if stored.undo else stored.value
    return Element(
        stored.key, value, stored.mod_revision, stored.create_revision, stored.version,
        source_digest=stored.source_digest,
    )  # fmt: skip
