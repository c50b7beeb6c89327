"""Blocks: under threads, against their costs, and while snapshots come and go.

The random run against a model of an LRU is `tests/test_block_machine.py`.
"""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import add
from random import Random
from time import monotonic
from typing import Any

import pytest

from btreecache.block import BLOCK_BYTES, EMPTIED_BYTES, Block, Blocks, Kind
from btreecache.node import Node, make, whole
from btreecache.tree import Aggregate, Tree


def leaf() -> Node[bytes]:
    return make(0, (b"a",), (b"1",), 1, None)


def kind_of(compute: Callable[[Any], bytes]) -> Kind[Any, bytes]:
    return Kind("test", compute, len)


def is_full(node: Node[bytes], kind: Kind[Any, bytes]) -> bool:
    block: Block | None = (node.kept or {}).get(kind)  # type: ignore[call-overload]
    return block is not None and block.entry.value is not None


def counting(measure: Callable[[bytes, bytes], int]) -> Aggregate[bytes, bytes, int]:
    return Aggregate("count", 0, measure, add)


def leaves(node: Node[bytes]) -> Iterator[Node[bytes]]:
    if not node.height:
        yield node
        return
    for child in node.entries:
        yield from leaves(child)


@contextmanager
def fast_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def wait_for_waiters(store: Blocks, count: int) -> None:
    """Until `count` threads wait for computations: from then on what they get is settled."""
    deadline = monotonic() + 30
    while store.stats().waiting < count:
        assert monotonic() < deadline, "they don't wait"
    assert store.stats().waiting == count


def together(count: int, work: Callable[[int], None]) -> None:
    """Run `work` in threads that start at once; raise what one of them raised."""
    barrier, errors = threading.Barrier(count), list[BaseException]()

    def run(number: int) -> None:
        try:
            barrier.wait(10)
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(count)]
    with fast_switches():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads), "threads hang"
    if errors:
        raise errors[0]


def test_a_block_is_computed_once_and_the_node_keeps_it() -> None:
    calls = []
    kind = kind_of(lambda node: calls.append(node) or b"value")  # type: ignore[func-returns-value]
    store, node = Blocks(10_000), leaf()
    first = store.get(node, kind)
    assert store.get(node, kind) is first
    assert len(calls) == 1
    assert node.kept is not None
    assert isinstance(node.kept[kind], Block)
    assert store.used_bytes == 5 + BLOCK_BYTES


def test_a_value_larger_than_the_budget_is_returned_and_evicts_nothing() -> None:
    store, small, large = Blocks(BLOCK_BYTES + 400), leaf(), leaf()
    store.get(small, kind_of(lambda _: b"x"))
    assert store.get(large, kind_of(lambda _: b"x" * 1_000)) == b"x" * 1_000
    assert large.kept is None
    stats = store.stats()
    assert (stats.blocks, stats.evicted, stats.too_large) == (1, 0, 1)
    with pytest.raises(ValueError, match="negative"):
        Blocks(-1)


def test_the_last_byte_of_the_budget_is_used_and_not_one_more() -> None:
    kind = kind_of(lambda _: b"xx")
    for budget, kept in ((2 * (BLOCK_BYTES + 2), 2), (2 * (BLOCK_BYTES + 2) - 1, 1), (0, 0)):
        store, nodes = Blocks(budget), [leaf(), leaf()]
        for node in nodes:
            store.get(node, kind)
        assert store.stats().blocks == kept


def test_eviction_empties_a_block_and_leaves_the_node_as_it_is() -> None:
    store, node, kind = Blocks(BLOCK_BYTES + 300), leaf(), kind_of(lambda _: b"x" * 300)
    store.get(node, kind)
    kept = node.kept
    assert kept is not None
    block = kept[kind]
    other = leaf()
    store.get(other, kind)
    assert node.kept is kept
    assert block.entry.value is None
    assert store.get(node, kind) == b"x" * 300
    assert node.kept is kept
    assert kept[kind] is block


def test_what_was_read_last_goes_last() -> None:
    store, nodes, kind = (
        Blocks(3 * BLOCK_BYTES + 3),
        [leaf() for _ in range(4)],
        kind_of(lambda _: b"x"),
    )
    for at in (0, 1, 2, 0, 1, 0):
        store.get(nodes[at], kind)
    full = []
    for at in (3, 2, 1, 0):
        store.get(nodes[at], kind)
        full.append([i for i, n in enumerate(nodes) if is_full(n, kind)])
    assert full == [[0, 1, 3], [0, 2, 3], [1, 2, 3], [0, 1, 2]]


def test_the_bytes_go_with_the_node_at_once_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        store, kind = Blocks(10_000), kind_of(lambda _: b"x" * 100)
        nodes = [leaf() for _ in range(5)]
        for node in nodes:
            store.get(node, kind)
        del node, nodes[2:]
        assert store.used_bytes == 2 * (BLOCK_BYTES + 100)
        nodes.clear()
        assert store.used_bytes == 0
    finally:
        gc.enable()


def test_the_store_stays_small_while_nodes_come_and_go() -> None:
    store, kind = Blocks(1_000_000), kind_of(lambda _: b"x")
    for _ in range(2_000):
        store.get(leaf(), kind)
    assert store.stats().blocks == 0
    assert len(store._heap) <= 130
    assert not store._dead


def test_snapshots_come_and_go_within_the_budget() -> None:
    def encode(node: Node[bytes]) -> bytes:
        return b",".join(node.entries)

    budget, kind = 60_000, kind_of(encode)
    store = Blocks(budget)
    tree = Tree.from_sorted((b"%05d" % i, b"v" * 50) for i in range(2_000))
    window = [tree]
    for step in range(300):
        tree = tree.set(b"%05d" % (step * 37 % 2_000), b"%050d" % step)
        window = [*window[-10:], tree]
        for snapshot in (window[0], tree):
            found = b",".join(store.get(node, kind) for node in leaves(snapshot._root))
            assert found == b",".join(snapshot.values())
            assert store.used_bytes <= budget
    assert store.stats().evicted
    window.clear()
    del tree, snapshot
    assert store.used_bytes == 0


def test_an_error_is_not_kept() -> None:
    answers: list[bytes | Exception] = [ValueError("broken"), b"whole"]

    def compute(_: object) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    store, node, kind = Blocks(10_000), leaf(), kind_of(compute)
    with pytest.raises(ValueError, match="broken"):
        store.get(node, kind)
    assert (node.kept, store.used_bytes) == (None, 0)
    assert store.get(node, kind) == b"whole"


def test_a_computation_that_asks_for_itself_is_told_so() -> None:
    store, node = Blocks(10_000), leaf()
    kind: Kind[Any, bytes] = kind_of(lambda node: store.get(node, kind))
    with pytest.raises(RuntimeError, match="its own result"):
        store.get(node, kind)


def test_a_computation_may_ask_for_the_blocks_below() -> None:
    store = Blocks(100_000)

    def join(node: Node[bytes]) -> bytes:
        if node.height:
            return b",".join([store.get(child, kind) for child in node.entries])
        return b",".join(node.keys)

    kind: Kind[Any, bytes] = kind_of(join)
    tree = Tree.from_sorted((b"%04d" % i, i) for i in range(500))
    assert store.get(tree._root, kind) == b",".join(tree)


@pytest.mark.parametrize("fails", [False, True])
def test_eight_threads_share_one_computation_and_its_error(fails: bool) -> None:
    """The computation ends only once the other seven wait for it, and holds no lock meanwhile."""
    calls, seen = list[int](), list[object]()
    store, node = Blocks(10_000), leaf()

    def compute(_: object) -> bytes:
        calls.append(1)
        wait_for_waiters(store, 7)
        if fails:
            raise ValueError("broken")
        return b"value"

    kind = kind_of(compute)

    def read(_: int) -> None:
        try:
            seen.append(store.get(node, kind))
        except ValueError as error:
            seen.append(error)

    together(8, read)
    assert (len(calls), len(seen), store.stats().waiting) == (1, 8, 0)
    if fails:
        assert len({id(one) for one in seen}) == 1
        assert isinstance(seen[0], ValueError)
        assert (node.kept, store.used_bytes) == (None, 0)
    else:
        assert set(seen) == {b"value"}


def test_an_interrupt_of_the_one_that_computes_does_not_reach_the_others() -> None:
    class Interrupt(BaseException):
        pass

    store, node = Blocks(10_000), leaf()
    calls, seen = list[int](), list[object]()

    def compute(_: object) -> bytes:
        calls.append(1)
        if len(calls) == 1:
            wait_for_waiters(store, 7)
            raise Interrupt
        return b"value"

    kind = kind_of(compute)

    def read(_: int) -> None:
        try:
            seen.append(store.get(node, kind))
        except Interrupt:
            seen.append(Interrupt)

    together(8, read)
    assert len(calls) == 2
    assert seen.count(Interrupt) == 1
    assert seen.count(b"value") == 7


def test_two_kinds_of_one_node_are_computed_at_the_same_time() -> None:
    """Each waits inside of its computation for the other: one lock for both would hang."""
    store, node, meet = Blocks(10_000), leaf(), threading.Barrier(2)

    def check(value: bytes) -> None:
        assert value == b"value1"

    kinds = [kind_of(lambda _: b"value%d" % (meet.wait(10) < 2)) for _ in range(2)]
    together(2, lambda number: check(store.get(node, kinds[number])))
    assert store.stats().blocks == 2


def test_an_aggregate_kept_during_the_computation_stays_and_the_other_way_round() -> None:
    store, count = Blocks(10_000), counting(lambda _, __: 1)
    tree = Tree.from_sorted([(b"a", b"1"), (b"b", b"2")])
    kind = kind_of(lambda _: b"x" * tree.aggregate(count))
    assert store.get(tree._root, kind) == b"xx"
    assert set(tree._root.kept or ()) == {count, kind}

    def measure(_: bytes, __: bytes) -> int:
        return len(store.get(other._root, plain))

    plain, other = kind_of(lambda _: b"xxx"), Tree.from_sorted([(b"a", b"1"), (b"b", b"2")])
    measured = counting(measure)
    assert other.aggregate(measured) == 6
    assert set(other._root.kept or ()) == {measured, plain}


class Raced:
    """A leaf of one item. `meanwhile` runs once, between a read of `kept` and what follows it."""

    height, keys, entries = 0, (b"a",), (b"1",)

    def __init__(self) -> None:
        self._kept: dict[Any, Any] | None = None
        self.meanwhile: Callable[[], object] | None = None

    @property
    def kept(self) -> dict[Any, Any] | None:
        found, meanwhile = self._kept, self.meanwhile
        if meanwhile:
            self.meanwhile = None
            meanwhile()
        return found

    @kept.setter
    def kept(self, kept: dict[Any, Any] | None) -> None:
        self._kept = kept


def test_a_block_that_an_aggregate_undoes_leaves_the_account_and_is_computed_again() -> None:
    """`whole` reads `kept`, then writes it: a Block published between goes, and its bytes."""
    calls, store, node = list[int](), Blocks(10_000), Raced()
    kind = kind_of(lambda _: calls.append(1) or b"value")  # type: ignore[func-returns-value]

    def measure(_: bytes, __: bytes) -> int:
        node.meanwhile = lambda: store.get(node, kind)
        return 1

    count = counting(measure)
    assert whole(node, count) == 1  # type: ignore[arg-type]
    assert node.kept == {count: 1}
    assert (len(calls), store.stats().blocks, store.used_bytes) == (1, 0, 0)
    assert store.get(node, kind) == b"value"
    assert (len(calls), store.stats().blocks) == (2, 1)
    assert set(node.kept) == {count, kind}


def test_a_block_that_was_undone_and_comes_back_is_counted_as_long_as_it_lives() -> None:
    """A slow writer of `kept` puts back a Block after another was computed in its place."""
    store, node, kind = Blocks(10_000), Raced(), kind_of(lambda _: b"value")
    store.get(node, kind)
    before = node.kept
    assert before is not None
    node.kept = None
    store.get(node, kind)
    assert store.stats().blocks == 2
    node.kept = before
    assert store.stats().blocks == 1
    assert store.get(node, kind) is before[kind].entry.value
    del before
    node.kept = None
    assert (store.stats().blocks, store.used_bytes) == (0, 0)


def test_an_aggregate_that_a_block_undoes_is_computed_again() -> None:
    """The same race the other way: only the aggregate is lost, and nothing of the account."""
    store, node, kind = Blocks(10_000), Raced(), kind_of(lambda _: b"value")
    calls = list[int]()
    count = counting(lambda _, __: calls.append(1) or 1)  # type: ignore[func-returns-value]

    def compute_and_race(_: object) -> bytes:
        node.meanwhile = lambda: whole(node, count)  # type: ignore[arg-type]
        return b"raced"

    store.get(node, kind)
    raced = kind_of(compute_and_race)
    assert store.get(node, raced) == b"raced"
    assert set(node.kept or ()) == {kind, raced}
    assert store.used_bytes == 2 * (BLOCK_BYTES + 5)
    assert whole(node, count) == 1  # type: ignore[arg-type]
    assert (len(calls), set(node.kept or ())) == (2, {count, kind, raced})


def test_threads_within_the_budget_while_nodes_come_and_go() -> None:
    budget = 5 * (BLOCK_BYTES + 100)
    store = Blocks(budget)
    shared: list[Node[bytes]] = [leaf() for _ in range(8)]
    kinds = [kind_of(lambda _, fill=fill: fill * 100) for fill in (b"a", b"b")]  # type: ignore[misc]

    def work(number: int) -> None:
        for step in range(300):
            at = (number * 7 + step * 3) % len(shared)
            which = step % 2
            node = shared[at]
            assert store.get(node, kinds[which]) == (b"a", b"b")[which] * 100
            if step % 5 == 0:
                shared[at] = leaf()
            assert store.used_bytes <= budget

    together(8, work)
    del work
    full = sum(
        block.entry.value is not None for node in shared for block in (node.kept or {}).values()
    )
    assert store.stats().blocks == full
    assert store.used_bytes == full * (BLOCK_BYTES + 100)
    assert not store._flights
    shared.clear()
    assert store.used_bytes == 0


def traced_bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@contextmanager
def tracing() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kinds", [1, 2])
def test_block_bytes_is_what_blocks_cost_beside_their_values(kinds: int) -> None:
    """With as many dead entries in the heap as living ones, the most; and once emptied."""
    count, value = 2_000, b"value"
    some = [kind_of(lambda _: value) for _ in range(kinds)]
    nodes, gone = [leaf() for _ in range(count)], [leaf() for _ in range(count)]  # untraced
    with tracing():
        before, store = traced_bytes(), Blocks(1 << 30)
        for node in gone + nodes:
            for kind in some:
                store.get(node, kind)
        gone.clear()
        assert store.stats().blocks == count * kinds
        cost = (traced_bytes() - before) / count
        assert len(store._heap) == 2 * count * kinds
        store.clear()
        emptied = (traced_bytes() - before) / count
    assert BLOCK_BYTES * 0.6 * kinds < cost <= BLOCK_BYTES * kinds
    assert EMPTIED_BYTES * 0.8 < emptied <= EMPTIED_BYTES + (kinds - 1) * EMPTIED_BYTES / 2


def coming_and_going(store: Blocks | None, kind: Kind[Any, bytes]) -> list[int]:
    """Bytes in use at times while 1,000 snapshots of 5,000 keys come and go, ten at a time."""
    rng, levels, nodes = Random(7), list[int](), list[Node[bytes]]()
    tree = Tree.from_sorted((b"%05d" % i, b"v" * 50) for i in range(5_000))
    window = [tree]
    for step in range(1_000):
        tree = tree.set(b"%05d" % rng.randrange(5_000), b"%050d" % step)
        window = [*window[-9:], tree]
        if step % 20 == 0:
            nodes = list(leaves(rng.choice(window)._root))
        for node in rng.sample(nodes, 5):
            if store is not None:
                store.get(node, kind)
        if step % 50 == 49:
            levels.append(traced_bytes())
    return levels


def test_memory_stays_within_the_budget_while_snapshots_come_and_go() -> None:
    """Against the same run without blocks: the budget, and what emptied blocks may cost."""
    budget = 150_000
    kind: Kind[Any, bytes] = Kind("all", lambda node: b",".join(node.entries), sys.getsizeof)
    with tracing():
        without = coming_and_going(None, kind)
    with tracing():
        store = Blocks(budget)
        with_blocks = coming_and_going(store, kind)
    stats = store.stats()
    assert stats.evicted > 500, "the budget is short"
    assert stats.blocks == 0, "the snapshots are gone"
    leaves_max = 5_000 // 16 + 40  # Half full at the least; and the old ones of those held.
    extra = [b - a for a, b in zip(without, with_blocks, strict=True)]
    assert budget / 2 < max(extra) < budget + leaves_max * EMPTIED_BYTES
