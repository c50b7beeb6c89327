"""Blocks: against a model of an LRU, under threads, and while snapshots come and go."""

from __future__ import annotations

import gc
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btreecache.block import BLOCK_BYTES, Block, Blocks, Kind
from btreecache.node import Node
from btreecache.tree import Tree


def leaf() -> Node[bytes]:
    return Node(0, (b"a",), (b"1",), 1, None)


def kind_of(compute: Callable[[Any], bytes]) -> Kind[Any, bytes]:
    return Kind("test", compute, len)


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
    store, small, large = Blocks(1_000), leaf(), leaf()
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
    store, node, kind = Blocks(1_000), leaf(), kind_of(lambda _: b"x" * 300)
    store.get(node, kind)
    kept = node.kept
    assert kept is not None
    block = kept[kind]
    store.get(leaf(), kind)
    other = leaf()
    store.get(other, kind)
    assert node.kept is kept
    assert block.entry.value is None
    assert store.get(node, kind) == b"x" * 300
    assert node.kept is kept
    assert kept[kind] is block


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
    """The computation ends only when all others wait for it: a second one would be counted."""
    calls, entered = list[int](), threading.Semaphore(0)
    store, node = Blocks(10_000), leaf()

    def compute(_: object) -> bytes:
        calls.append(1)
        for _ in range(8):
            assert entered.acquire(timeout=10)
        assert not store._lock.locked() or store.used_bytes == 0  # used_bytes needs the lock: free.
        if fails:
            raise ValueError("broken")
        return b"value"

    kind, seen = kind_of(compute), list[object]()

    def read(_: int) -> None:
        entered.release()
        try:
            seen.append(store.get(node, kind))
        except ValueError as error:
            seen.append(error)

    together(8, read)
    assert len(seen) == 8
    if fails:
        assert all(isinstance(one, ValueError) for one in seen)
        assert not store._flights
    else:
        assert len(calls) == 1
        assert set(seen) == {b"value"}


def test_an_interrupt_of_the_one_that_computes_does_not_reach_the_others() -> None:
    class Interrupt(BaseException):
        pass

    store, node, begun = Blocks(10_000), leaf(), threading.Event()
    calls, seen = list[int](), list[object]()

    def compute(_: object) -> bytes:
        calls.append(1)
        if len(calls) == 1:
            begun.set()
            raise Interrupt
        return b"value"

    kind = kind_of(compute)

    def read(_: int) -> None:
        try:
            seen.append(store.get(node, kind))
        except Interrupt:
            seen.append(Interrupt)

    together(8, read)
    assert seen.count(Interrupt) == 1
    assert seen.count(b"value") == 7


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


@given(
    st.integers(0, 4_000),
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 1), st.integers(0, 1_500), st.booleans()),
        max_size=60,
    ),
)
def test_a_model_of_an_lru_agrees_at_every_step(
    budget: int, steps: list[tuple[int, int, int, bool]]
) -> None:
    sizes = {"next": 0}
    kinds = [kind_of(lambda _: b"x" * sizes["next"]) for _ in range(2)]
    store, nodes = Blocks(budget), [leaf() for _ in range(6)]
    model: OrderedDict[tuple[int, int], int] = OrderedDict()
    for at, which, size, dies in steps:
        if dies:
            nodes[at] = leaf()
            for place in [(at, 0), (at, 1)]:
                model.pop(place, None)
        sizes["next"] = size
        found = len(store.get(nodes[at], kinds[which]))
        if (at, which) in model:
            assert found == model[at, which]
            model.move_to_end((at, which))
        else:
            assert found == size
            cost = size + BLOCK_BYTES
            if cost <= budget:
                while sum(model.values()) + len(model) * BLOCK_BYTES + cost > budget:
                    model.popitem(last=False)
                model[at, which] = size
        real = {
            (at, kinds.index(kind)): len(block.entry.value)
            for at, node in enumerate(nodes)
            for kind, block in (node.kept or {}).items()
            if block.entry.value is not None
        }
        assert real == dict(model)
        assert store.used_bytes == sum(model.values()) + len(model) * BLOCK_BYTES <= budget
    store.clear()
    assert store.used_bytes == 0
