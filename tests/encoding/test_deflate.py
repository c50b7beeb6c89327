"""gzip from kept runs: the stream against the plain body, and how much of it is work done anew."""

from __future__ import annotations

import gzip
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from btreecache.block import Blocks
from btreecache.element import Element
from btreecache.encoding.deflate import (
    CHUNK_BYTES,
    CHUNK_BYTES_MAX,
    RunKind,
    gzip_chunks,
    gzip_list,
    should_compress,
)
from btreecache.encoding.parts import Parts
from btreecache.tree import Tree

HEAD, FOOT = b'{"kind":"List","items":[', b"]}\n"

Elements = Tree[bytes, Element]


def element(key: bytes, value: bytes, revision: int = 1) -> Element:
    return Element(key, value, revision, 1, 1)


def value_of(element: Element) -> bytes:
    return element.value


def tree_of(count: int, value: Callable[[int], bytes]) -> Elements:
    keys = [b"/k/%06d" % i for i in range(count)]
    return Tree.from_sorted((key, element(key, value(i))) for i, key in enumerate(keys))


def pod(i: int, size: int = 2000) -> bytes:
    """Like its neighbours, but for what no compressor can know."""
    unique = Random(i).randbytes(40).hex().encode()
    text = b'{"metadata":{"name":"pod-%06d","uid":"%b"},"spec":{' % (i, unique)
    common = Random(i // 30)
    while len(text) < size - 40:
        text += b'"field%03d":"%04d",' % (common.randrange(200), common.randrange(9999))
    return text + b'"end":0}}'


def plain(tree: Elements, separator: bytes, start: bytes | None, stop: bytes | None) -> bytes:
    return HEAD + separator.join([e.value for e in tree.values(start, stop)]) + FOOT


def unpacked(stream: bytes) -> bytes:
    """By a decoder that stops after the first member: there must be nothing behind it."""
    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
    body = decoder.decompress(stream)
    assert decoder.eof
    assert not decoder.unused_data
    assert gzip.decompress(stream) == body  # Which checks length and CRC.
    return body


class World:
    """A cache's parts, and a form that counts how often it writes an item."""

    def __init__(self, budget_bytes: int = 64 << 20, separator: bytes = b",") -> None:
        self.blocks = Blocks(budget_bytes)
        self.parts = Parts(self.blocks)
        self.separator = separator
        self.form = RunKind("counted", self.item, separator)
        self.items = 0
        self.failing: bytes | None = None

    def item(self, element: Element) -> bytes:
        if element.key == self.failing:
            raise ValueError("no such item")
        self.items += 1
        return element.value

    def chunks(
        self, tree: Elements, start: bytes | None = None, stop: bytes | None = None
    ) -> Iterator[bytes]:
        return gzip_list(self.parts, self.form, tree, HEAD, FOOT, start, stop)

    def list(self, tree: Elements, start: bytes | None = None, stop: bytes | None = None) -> bytes:
        """The stream, which is checked."""
        stream = b"".join(self.chunks(tree, start, stop))
        assert unpacked(stream) == plain(tree, self.separator, start, stop)
        return stream

    def cost(self, tree: Elements) -> int:
        """Items written for a list."""
        before = self.items
        self.list(tree)
        return self.items - before


# The stream


@pytest.mark.parametrize("separator", [b",", b"", b" \n, "])
@pytest.mark.parametrize("size", [0, 1, 90, 2_000, 40_000, 300_000])
@pytest.mark.parametrize("count", [0, 1, 2, 31, 33])
def test_any_number_of_elements_of_any_size(count: int, size: int, separator: bytes) -> None:
    tree = tree_of(count, lambda i: b"%d" % i * (size // 2))
    world = World(separator=separator)
    assert world.list(tree) == world.list(tree)
    for i in range(0, count + 1, 7):
        key = b"/k/%06d" % i
        world.list(tree, start=key)
        world.list(tree, stop=key)


@pytest.mark.parametrize(("count", "size"), [(3_000, 40), (300, 2_000)])
def test_every_kind_of_range(count: int, size: int) -> None:
    tree, rng = tree_of(count, lambda i: pod(i, size)), Random(5)
    world = World()
    for _ in range(60):
        low, high = sorted([rng.randrange(count + 2), rng.randrange(count + 2)])
        start, stop = b"/k/%06d" % low, b"/k/%06d" % high
        world.list(tree, start, stop)
        world.list(tree, start + b"\0", start + b"\1")
    world.list(tree, b"", b"\xff")
    assert world.list(tree, b"/k/", b"/k0") == world.list(tree)


def test_the_head_is_that_of_go() -> None:
    stream = World().list(tree_of(3, pod))
    assert stream[:10] == bytes.fromhex("1f8b08000000000004ff")
    assert next(iter(gzip_chunks([b"x"])))[:10] == stream[:10]


def test_the_gzip_program_reads_it() -> None:
    tree = tree_of(500, pod)
    run = subprocess.run(["gzip", "-dc"], input=World().list(tree), capture_output=True, check=True)
    assert run.stdout == plain(tree, b",", None, None)


def test_chunks_are_of_a_size() -> None:
    rng = Random(1)
    tree = tree_of(300, lambda i: rng.randbytes(900_000 if i % 50 == 7 else 9_000))
    for chunks in (
        list(World().chunks(tree)),
        list(gzip_chunks(map(value_of, tree.values()))),
    ):
        assert max(map(len, chunks)) <= CHUNK_BYTES_MAX
        assert min(map(len, chunks[1:-1])) >= CHUNK_BYTES
        assert sum(map(len, chunks)) > 2 << 20


def test_the_first_chunk_needs_no_more_than_the_first_strip() -> None:
    world = World()
    next(world.chunks(tree_of(1_000, pod)))
    assert world.items < 100


def test_alike_objects_cost_no_more_than_in_one_piece() -> None:
    tree = tree_of(2_000, pod)
    whole = len(zlib.compress(plain(tree, b",", None, None), 1))
    assert len(World().list(tree)) <= 1.06 * whole


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=300)), st.integers(0, 2))
def test_chunks_of_any_source(chunks: list[bytes], large: int) -> None:
    chunks = [*chunks, Random(large).randbytes(large * 300_000)]
    assert unpacked(b"".join(gzip_chunks(chunks))) == b"".join(chunks)


def test_a_separator_has_to_fit_a_stored_block() -> None:
    world = World(separator=b"-" * 0xFFFF)
    world.list(tree_of(40, lambda i: b"%d" % i * 2000))
    with pytest.raises(ValueError, match="too long"):
        RunKind("long", value_of, b"-" * 0x10000)


@pytest.mark.parametrize(
    ("header", "accepts"),
    [
        (None, False), ("", False), ("gzip", True), (" gzip ", True), ("br, gzip", True),
        ("deflate,gzip,br", True), ("gzip;q=0", False), ("gzip;q=1.0", False), ("*", False),
        ("GZIP", False), ("x-gzip", False), ("identity", False), ("gzip2,br", False),
        ("gzip;q=0,gzip", True), ("g zip", False),
    ],
)  # fmt: skip
def test_what_accepts_gzip(header: str | None, accepts: bool) -> None:
    assert should_compress(header) is accepts


# The work


def test_nothing_is_done_twice() -> None:
    tree, world = tree_of(2_000, pod), World()
    assert world.cost(tree) <= 1.2 * len(tree)  # Some are written again as a seed.
    assert world.cost(tree) == 0


@pytest.mark.parametrize("size", [40, 300, 2_000, 20_000])
def test_a_change_costs_a_part(size: int) -> None:
    """That of the element, the next one's if it was its seed, and the seeds of the two."""
    rng, count = Random(3), min(2_000, 1_500_000 // size)
    tree, world = tree_of(count, lambda i: pod(i, size)), World()
    trees = [tree]
    world.list(tree)
    most = 5 + 2 * (24 << 10) // size + 4 * 1024 // size
    for revision in range(2, 40):
        key, old = tree.select(rng.randrange(len(tree)))
        tree = tree.set(key, element(key, old.value + b" ", revision))
        assert world.cost(tree) <= most
        trees.append(tree)
    for revision in range(40, 60):
        key = b"/k/%06d.%d" % (rng.randrange(count), revision)
        tree = tree.set(key, element(key, pod(revision, size), revision))
        assert world.cost(tree) <= 3 * most
        trees.append(tree)
        tree = tree.delete(tree.select(rng.randrange(len(tree)))[0])
        assert world.cost(tree) <= 3 * most
        trees.append(tree)
    assert world.cost(trees[0]) == 0


def test_two_forms_share_the_cuts() -> None:
    tree, world = tree_of(2_000, pod), World()
    world.list(tree)
    before = world.blocks.stats().blocks
    other = RunKind("other", lambda element: b"<" + element.value + b">")
    for _ in range(2):
        stream = b"".join(gzip_list(world.parts, other, tree, HEAD, FOOT))
        body = b"".join([b"<" + e.value + b">" for e in tree.values()])
        assert unpacked(stream) == HEAD + body + FOOT
    assert world.blocks.stats().blocks < 2 * before
    assert world.cost(tree) == 0


def test_pages_use_what_whole_lists_keep() -> None:
    tree, world = tree_of(2_000, pod), World()
    world.list(tree)
    before = world.items
    keys = [*tree][::500]
    for start, stop in zip(keys, [*keys[1:], None], strict=True):
        world.list(tree, start, stop)
    assert world.items - before < 4 * 2 * 20


def test_lists_that_start_elsewhere_do_not_undo_each_other() -> None:
    tree, world = tree_of(2_000, pod), World()
    for _ in range(3):
        before = world.items
        world.list(tree)
        world.list(tree, b"/k/000480")
    assert world.items - before < 60  # What was cut off is written each time.


def test_without_a_budget_nothing_is_kept() -> None:
    tree, world = tree_of(300, pod), World(budget_bytes=0)
    for _ in range(2):
        assert world.cost(tree) >= len(tree)
    assert world.blocks.used_bytes == 0


def test_a_small_budget_holds() -> None:
    tree, world = tree_of(2_000, pod), World(budget_bytes=60_000)
    for _ in range(3):
        for chunk in world.chunks(tree):
            assert chunk
            assert world.blocks.used_bytes <= 60_000
        world.list(tree)
    assert world.blocks.stats().evicted > 0


def test_an_item_that_fails_leaves_nothing_of_its_part() -> None:
    tree, world = tree_of(600, pod), World()
    world.failing = b"/k/000300"
    for _ in range(2):
        with pytest.raises(ValueError, match="no such item"):
            world.list(tree)
    assert world.items <= 2 * 300 + 50
    world.failing = None
    world.list(tree)
    world.failing = b"/k/000300"
    world.list(tree)  # Kept by now.


def test_a_reader_that_goes_leaves_nothing() -> None:
    tree, world = tree_of(2_000, pod), World()
    for taken in range(4):
        chunks = world.chunks(tree)
        for _ in range(taken):
            next(chunks)
        chunks.close()  # type: ignore[attr-defined]
    world.list(tree)
    del tree, chunks
    assert world.blocks.used_bytes == 0
    assert world.blocks.stats().blocks == 0
    assert not world.parts._parts


def test_readers_at_the_same_time_share_the_work() -> None:
    tree, world, streams = tree_of(1_500, pod), World(), list[bytes]()
    gate = threading.Barrier(4)

    def read() -> None:
        gate.wait()
        streams.append(b"".join(world.chunks(tree)))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(streams)) == 1
    assert unpacked(streams[0]) == plain(tree, b",", None, None)
    assert world.items <= 1.5 * len(tree)


# Trees that grow, shrink and are kept, at random

KEYS = st.integers(0, 400)
SIZES = st.sampled_from([0, 3, 60, 700, 3_000, 9_000, 30_000])


class ListsMachine(RuleBasedStateMachine):
    """Every list, of whichever tree and range, unpacks to the plain body."""

    @initialize(
        budget=st.sampled_from([0, 50_000, 10 << 20]),
        separator=st.sampled_from([b"", b","]),
        size=SIZES,
        count=st.sampled_from([0, 5, 60, 300]),
    )
    def start(self, budget: int, separator: bytes, size: int, count: int) -> None:
        self.world = World(budget, separator)
        self.revision = 1
        self.trees = [tree_of(count, lambda i: self.value(i, size))]

    def value(self, key: int, size: int) -> bytes:
        return b"%d/%d/" % (key, self.revision) * (size // 6)

    def key(self, number: int) -> bytes:
        return b"/k/%06d" % number

    @rule(keys=st.lists(KEYS, min_size=1, max_size=3), size=SIZES)
    def put(self, keys: list[int], size: int) -> None:
        tree = self.trees[-1]
        for key in keys:
            self.revision += 1
            value = self.value(key, size)
            tree = tree.set(self.key(key), element(self.key(key), value, self.revision))
        self.trees.append(tree)

    @rule(start=KEYS, count=st.integers(1, 50), size=SIZES)
    def put_many(self, start: int, count: int, size: int) -> None:
        self.revision += 1
        editor = self.trees[-1].edit()
        for i in range(start, start + count):
            editor.set(self.key(i), element(self.key(i), self.value(i, size), self.revision))
        self.trees.append(editor.freeze())

    @rule(start=KEYS, count=st.integers(1, 80))
    def delete_many(self, start: int, count: int) -> None:
        tree = self.trees[-1]
        editor = tree.edit()
        for key in [*tree.keys(self.key(start), self.key(start + count))]:
            editor.delete(key)
        self.trees.append(editor.freeze())

    @rule()
    def forget(self) -> None:
        del self.trees[:-1]

    @rule(which=st.integers(0, 3), bounds=st.tuples(KEYS, KEYS), open_=st.integers(0, 3))
    def list_range(self, which: int, bounds: tuple[int, int], open_: int) -> None:
        tree = self.trees[-1 - which % len(self.trees)]
        start, stop = map(self.key, sorted(bounds))
        self.world.list(tree, None if open_ & 1 else start, None if open_ & 2 else stop)

    @rule()
    def list_all(self) -> None:
        self.world.list(self.trees[-1])

    @invariant()
    def budget_holds(self) -> None:
        assert self.world.blocks.used_bytes <= self.world.blocks.budget_bytes


ListsMachine.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestLists = ListsMachine.TestCase
