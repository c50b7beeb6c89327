"""Tree: exhaustive small cases, instrumented deletes, aggregates, diffs, proof of sharing."""

from __future__ import annotations

import operator
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import permutations
from random import Random
from typing import Any

import pytest

from btreecache.tree import ABSENT, Aggregate, Editor, Node, Tree

SUM: Aggregate[int, int, int] = Aggregate("sum", 0, lambda key, value: value, operator.add)
TEXT: Aggregate[int, Any, str] = Aggregate("text", "", lambda key, value: f"{key},", operator.add)


def resize(monkeypatch: pytest.MonkeyPatch, fan_out: int) -> None:
    monkeypatch.setattr(Node, "most", fan_out)
    monkeypatch.setattr(Node, "least", (fan_out + 1) // 2)


@pytest.fixture(params=[4, 5])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Fan-out 4 or 5, so that few keys make deep trees."""
    resize(monkeypatch, request.param)
    return int(request.param)


def nodes(tree: Tree[Any, Any]) -> list[Node[Any]]:
    found, level = [], [tree._root]
    while level:
        found += level
        level = [child for node in level if node.height for child in node.entries]
    return found


def assert_is(tree: Tree[Any, Any], wanted: dict[Any, Any]) -> None:
    assert list(tree.check()) == []
    assert list(tree.items()) == sorted(wanted.items())
    assert len(tree) == len(wanted)


def grown(n: int, step: int = 1) -> Tree[int, int]:
    return Tree.from_sorted((key, key * 10) for key in range(0, n * step, step))


# Exhaustive: every order of inserts and of deletes, with every tree on the way kept


@pytest.mark.parametrize(("fan_out", "n"), [(3, 6), (4, 6)])
def test_every_insert_order(monkeypatch: pytest.MonkeyPatch, fan_out: int, n: int) -> None:
    resize(monkeypatch, fan_out)
    for order in permutations(range(n)):
        tree: Tree[int, int] = Tree()
        made = [tree]
        for key in order:
            tree = tree.set(key, -key)
            assert list(tree.check()) == []
            made.append(tree)
        for i, old in enumerate(made):
            assert list(old.items()) == sorted((key, -key) for key in order[:i])


@pytest.mark.parametrize("fan_out", [3, 4])
def test_every_delete_order(monkeypatch: pytest.MonkeyPatch, fan_out: int) -> None:
    resize(monkeypatch, fan_out)
    full: Tree[int, int] = Tree()
    for key in range(7):
        full = full.set(key, key)
    for order in permutations(range(7), 6):
        tree, left = full, set(range(7))
        for key in order:
            before, expected = tree, sorted(left)
            tree = tree.delete(key)
            left.remove(key)
            assert list(tree) == sorted(left)
            assert list(before) == expected
            assert list(tree.check()) == []
    assert list(full) == list(range(7))
    assert list(full.check()) == []


def test_every_insert_order_then_every_delete_order(small: int) -> None:
    """Four keys overflow nothing at these sizes, so a body of four more stands around them."""
    body = dict.fromkeys((0, 2, 4, 6, 8, 10, 12, 14), 0)
    base = Tree.from_sorted(sorted(body.items()))
    for inserts in permutations((1, 5, 9, 13)):
        made: list[tuple[Tree[int, int], dict[int, int]]] = [(base, dict(body))]
        for key in inserts:
            tree, wanted = made[-1]
            made.append((tree.set(key, 1), {**wanted, key: 1}))
        top = made[-1]
        for deletes in permutations((0, 5, 9, 14)):
            tree, wanted = top
            for key in deletes:
                tree, wanted = tree.delete(key), {k: v for k, v in wanted.items() if k != key}
                made.append((tree, wanted))
        for tree, wanted in made:
            assert_is(tree, wanted)


# Reads


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 12, 31])
def test_ranges_ranks_and_counts_over_all_bounds(small: int, n: int) -> None:
    tree, keys = grown(n, 2), list(range(0, 2 * n, 2))
    bounds: list[int | None] = [None, *range(-1, 2 * n + 1)]
    for start in bounds:
        for stop in bounds:
            wanted = [
                key
                for key in keys
                if (start is None or key >= start) and (stop is None or key < stop)
            ]
            assert list(tree.keys(start, stop)) == wanted
            assert list(tree.keys(start, stop, reverse=True)) == wanted[::-1]
            assert list(tree.items(start, stop)) == [(key, key * 10) for key in wanted]
            assert list(tree.values(start, stop, True)) == [key * 10 for key in wanted[::-1]]
            assert tree.count(start, stop) == len(wanted)
            assert tree.aggregate(TEXT, start, stop) == "".join(f"{key}," for key in wanted)
    for key in range(-1, 2 * n + 1):
        assert tree.rank(key) == sum(k < key for k in keys)
        assert (key in tree) == (key in keys)
        assert tree.get(key, -7) == (key * 10 if key in keys else -7)
    assert [tree.select(i) for i in range(n)] == [(key, key * 10) for key in keys]
    for index in (-1, n):
        with pytest.raises(IndexError):
            tree.select(index)


def test_mapping_manners() -> None:
    tree: Tree[bytes, Any] = Tree()
    assert not tree
    assert list(tree) == []
    one = tree.set(b"a", None)
    assert one
    assert one[b"a"] is None
    assert b"a" in one
    assert one.get(b"b") is None
    assert repr(one) == "Tree(1 items, height 1)"
    for call in (lambda: one[b"b"], lambda: one.delete(b"b"), lambda: tree.delete(b"a")):
        with pytest.raises(KeyError):
            call()
    with pytest.raises(TypeError):
        hash(one)
    assert one == Tree[bytes, Any]().set(b"a", None)
    assert one != tree
    assert one != one.set(b"a", 1)
    assert one != {b"a": None}


def test_iteration_is_lazy() -> None:
    """A page at the far end of 100k keys compares few keys: O(log n + what is read)."""
    tree, counter = counted_tree(100_000)
    walk = tree.items(Counted(99_000, counter), None)
    assert [next(walk)[0].value for _ in range(10)] == list(range(99_000, 99_010))
    assert counter["compared"] < 40


def test_set_of_the_same_object_returns_the_same_tree() -> None:
    value = object()
    tree = Tree[int, object]().set(1, value)
    assert tree.set(1, value) is tree
    assert tree.edit().freeze() is tree


# Bulk load


def test_from_sorted_of_every_size(small: int) -> None:
    for n in range(301):
        tree = grown(n)
        assert list(tree.check()) == []
        assert list(tree.items()) == [(key, key * 10) for key in range(n)]


@pytest.mark.parametrize("n", [64, 65, 79, 80, 81, 96, 1000, 3072, 3073, 5000])
def test_from_sorted_at_full_size(n: int) -> None:
    tree = grown(n)
    assert_is(tree, {key: key * 10 for key in range(n)})
    if n > 1000:
        leaves = [node for node in nodes(tree) if not node.height]
        assert 0.7 < n / len(leaves) / Node.most < 0.8


def test_from_sorted_streams_and_refuses_disorder() -> None:
    read: list[int] = []

    def pairs(keys: list[int]) -> Iterator[tuple[int, int]]:
        for key in keys:
            read.append(key)
            yield key, key

    # The last one falls back exactly where one leaf of 48 ends and the next begins.
    for bad in (
        [1, 1],
        [2, 1],
        [*range(200), 199, *range(300, 1000)],
        [*range(48), *range(47, 300)],
    ):
        read.clear()
        with pytest.raises(ValueError, match="strictly increase"):
            Tree.from_sorted(pairs(bad))
        assert len(read) < 400


# Writes of one item: the short way of `Tree` and the Editor's must come to the same tree


def shape(tree: Tree[Any, Any]) -> list[tuple[int, tuple[Any, ...], int, tuple[Any, ...] | None]]:
    return [(n.height, n.keys, n.count, None if n.height else n.entries) for n in nodes(tree)]


@pytest.mark.parametrize("n", [0, 1, 4, 5, 9, 14, 26])
def test_every_write_of_one_item_does_what_an_editor_does(small: int, n: int) -> None:
    """At every place of loaded and grown trees, with leaves of every fill, that keep values."""
    keys = range(0, 2 * n, 2)
    one_by_one: Tree[int, int] = Tree()
    for key in Random(n).sample(keys, n):
        one_by_one = one_by_one.set(key, key * 10)
    for tree in (grown(n, 2), one_by_one):
        tree.aggregate(TEXT)
        before = shape(tree)
        for key in range(-1, 2 * n + 1):
            editor = tree.edit()
            editor.set(key, -1)
            pairs = [(tree.set(key, -1), editor.freeze())]
            if key in keys:
                editor = tree.edit()
                editor.delete(key)
                pairs.append((tree.delete(key), editor.freeze()))
            for short, long in pairs:
                assert shape(short) == shape(long)
                assert [*short.check(fresh_from=tree)] == []
                assert short.aggregate(TEXT) == "".join(f"{k}," for k in short)
        assert shape(tree) == before


# Deletes: that merges and steals happen, from both sides and at both levels, and hurt nobody


def test_deletes_reach_every_way_of_mending_and_no_old_tree_changes(
    small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: Counter[tuple[str, str, str]] = Counter()
    refill = Editor._refill

    def spy(editor: Editor[Any, Any], parent: Node[Any], i: int) -> None:
        level = "branch" if parent.height > 1 else "leaf"
        children = len(parent.entries)
        refill(editor, parent, i)
        how = "merge" if len(parent.entries) < children else "steal"
        ways[level, how, "right" if i == 0 else "left"] += 1

    monkeypatch.setattr(Editor, "_refill", spy)
    rng = Random(7)
    kept: list[tuple[Tree[int, int], list[tuple[int, int]]]] = []
    for _ in range(6):
        tree = Tree.from_sorted((key, 0) for key in range(300))
        model = dict.fromkeys(range(300), 0)
        while model:
            for _ in range(rng.randrange(1, 4)):
                if model and rng.random() < 0.75:
                    key = rng.choice(list(model))
                    tree = tree.delete(key)
                    del model[key]
                else:
                    key = rng.randrange(300)
                    value = rng.randrange(1000)
                    tree, model[key] = tree.set(key, value), value
            kept.append((tree, sorted(model.items())))
    wanted = {(a, b, c) for a in ("leaf", "branch") for b in ("merge", "steal")
              for c in ("left", "right")}  # fmt: skip
    assert set(ways) == wanted
    for tree, items in kept:
        assert list(tree.items()) == items
        assert list(tree.check()) == []


# Editor


def test_editor_copies_each_touched_node_once() -> None:
    base = grown(10_000)
    height = base._root.height + 1
    one = base.edit()
    one.set(5000, -1)
    assert one.copied == height
    one.set(5000, -2)
    one.set(5001, -2)
    assert one.copied == height
    every = base.edit()
    for _ in range(3):
        for key in range(10_000):
            every.set(key, key + every.copied)
    assert every.copied == len(nodes(base))
    tree = every.freeze()
    assert not {id(n) for n in nodes(tree)} & {id(n) for n in nodes(base)}
    assert_is(base, {key: key * 10 for key in range(10_000)})
    assert list(tree.check()) == []


def test_copied_counts_the_nodes_that_are_not_shared(small: int) -> None:
    """With inserts only, no node that the editor made is thrown away again."""
    base = grown(200, 10)
    editor = base.edit()
    for key in Random(3).sample(range(2000), 150):
        editor.set(key, 1)
    tree = editor.freeze()
    fresh = {id(n) for n in nodes(tree)} - {id(n) for n in nodes(base)}
    assert editor.copied == len(fresh)
    assert list(tree.check()) == []


def test_editor_agrees_with_single_steps_and_leaves_its_tree_alone(small: int) -> None:
    rng = Random(11)
    base = grown(60)
    model = dict(base.items())
    editor, tree = base.edit(), base
    for _ in range(400):
        key = rng.randrange(90)
        if key in model and rng.random() < 0.6:
            editor.delete(key)
            tree = tree.delete(key)
            del model[key]
        else:
            model[key] = rng.randrange(1000)
            editor.set(key, model[key])
            tree = tree.set(key, model[key])
        assert editor.get(key, -1) == model.get(key, -1)
    result = editor.freeze()
    assert_is(result, model)
    assert result == tree
    assert_is(base, {key: key * 10 for key in range(60)})


def test_frozen_editor_refuses() -> None:
    editor = grown(10).edit()
    editor.set(3, 0)
    tree = editor.freeze()
    uses: list[Callable[[], Any]] = [
        lambda: editor.set(1, 1), lambda: editor.delete(1), lambda: editor.get(1), editor.freeze,
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(RuntimeError, match="frozen"):
            use()
    assert editor.copied == 1
    assert tree[1] == 10


def test_two_editors_of_one_tree_do_not_meet(small: int) -> None:
    base: Tree[int, Any] = grown(50)
    first, second = base.edit(), base.edit()
    for key in range(50):
        first.set(key, "first")
        second.delete(key)
    assert set(first.freeze().values()) == {"first"}
    assert len(second.freeze()) == 0
    assert_is(base, {key: key * 10 for key in range(50)})


def test_a_change_that_raises_changes_nothing(small: int) -> None:
    editor = grown(50).edit()
    strange: Any = "x"
    with pytest.raises(TypeError):
        editor.set(strange, 1)
    with pytest.raises(TypeError):
        editor.delete(strange)
    with pytest.raises(KeyError):
        editor.delete(99)
    assert editor.copied == 0
    assert editor.freeze() == grown(50)


# Aggregates


def test_kept_values_are_shared_between_trees() -> None:
    calls: Counter[str] = Counter()

    def measure(key: int, value: int) -> int:
        calls["measure"] += 1
        return value

    total = Aggregate("total", 0, measure, operator.add)
    tree = grown(10_000)
    assert tree.aggregate(total) == sum(range(10_000)) * 10
    assert calls.pop("measure") == 10_000
    assert tree.aggregate(total) == sum(range(10_000)) * 10
    assert calls["measure"] == 0
    after = tree.set(1234, 0)
    assert after.aggregate(total) == sum(range(10_000)) * 10 - 12_340
    assert calls.pop("measure") <= Node.most
    assert after.aggregate(total, 17, 9_000) == sum(range(17, 9_000)) * 10 - 12_340
    assert calls.pop("measure") <= 2 * Node.most
    assert tree.aggregate(SUM) == sum(range(10_000)) * 10
    assert list(after.check()) == list(tree.check()) == []


def test_order_matters_and_writes_are_seen(small: int) -> None:
    rng, tree = Random(5), grown(0)
    model: set[int] = set()
    for _ in range(300):
        key = rng.randrange(60)
        tree = tree.delete(key) if key in model else tree.set(key, 0)
        model ^= {key}
        assert tree.aggregate(TEXT) == "".join(f"{key}," for key in sorted(model))
        assert list(tree.check()) == []


def test_size_bytes(small: int) -> None:
    def size(key: bytes, value: bytes) -> int:
        return len(key) + len(value)

    tree = Tree.from_sorted(((b"%03d" % i, b"x" * i) for i in range(100)), size=size)
    assert tree.size_bytes() == 300 + sum(range(100))
    assert tree.size_bytes(b"010", b"020") == 30 + sum(range(10, 20))
    grown_tree = tree.set(b"100", b"y" * 7)
    assert grown_tree.size_bytes() == tree.size_bytes() + 10
    assert Tree(size=size).set(b"a", b"bc").size_bytes() == 3
    with pytest.raises(TypeError, match="size function"):
        Tree[bytes, bytes]().size_bytes()


def test_readers_that_compute_at_once_agree() -> None:
    tree = grown(20_000)
    results: list[Any] = []
    barrier = threading.Barrier(4)
    old = sys.getswitchinterval()

    def read() -> None:
        barrier.wait()
        results.append((tree.aggregate(SUM), tree.aggregate(TEXT, 10, 100)))

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(old)
    assert len(results) == 4
    assert set(results) == {(sum(range(20_000)) * 10, "".join(f"{key}," for key in range(10, 100)))}
    assert list(tree.check()) == []


# Differences


class Counted:
    """A key that counts its comparisons."""

    __slots__ = ("counter", "value")

    def __init__(self, value: int, counter: Counter[str]) -> None:
        self.value, self.counter = value, counter

    def __lt__(self, other: Counted) -> bool:
        self.counter["compared"] += 1
        return self.value < other.value

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Counted)
        self.counter["compared"] += 1
        return self.value == other.value

    def __hash__(self) -> int:
        return self.value


def counted_tree(n: int) -> tuple[Tree[Counted, int], Counter[str]]:
    counter: Counter[str] = Counter()
    tree = Tree.from_sorted((Counted(i, counter), i) for i in range(n))
    counter.clear()
    return tree, counter


def assert_differ(old: Tree[int, Any], new: Tree[int, Any]) -> None:
    a, b = dict(old.items()), dict(new.items())
    diff = old.diff(new)
    assert diff.added == sorted((k, b[k]) for k in b.keys() - a.keys())
    assert diff.removed == sorted((k, a[k]) for k in a.keys() - b.keys())
    assert diff.changed == sorted((k, a[k], b[k]) for k in a.keys() & b.keys() if a[k] != b[k])
    changes = list(old.changes(new))
    assert [key for key, _, _ in changes] == sorted(key for part in diff for key, *_ in part)
    assert all((o is ABSENT) == (k not in a) and (n is ABSENT) == (k not in b)
               for k, o, n in changes)  # fmt: skip
    assert (old == new) == (a == b)


def test_diff_of_relatives_and_strangers(small: int) -> None:
    rng = Random(13)
    family: list[Tree[int, int]] = [Tree(), grown(1), grown(40), grown(300)]
    for _ in range(60):
        tree = rng.choice(family)
        editor = tree.edit()
        for _ in range(rng.choice([1, 2, 10, 200])):
            key = rng.randrange(400)
            if rng.random() < 0.5:
                editor.set(key, rng.randrange(3))
            elif editor.get(key) is not None:
                editor.delete(key)
        family.append(editor.freeze())
    for _ in range(400):
        assert_differ(rng.choice(family), rng.choice(family))
    for tree in family:
        assert_differ(tree, tree)
        copy = Tree.from_sorted(tree.items())
        assert tree.diff(copy) == ([], [], [])
        assert tree == copy


def test_equal_values_are_no_change() -> None:
    old = Tree.from_sorted((i, [i]) for i in range(10))
    new = old.set(3, [3])
    assert new is not old
    assert list(old.changes(new)) == []
    nan = float("nan")
    assert Tree[int, float]().set(1, nan).diff(Tree[int, float]().set(1, nan)).changed == []


def test_one_revision_apart_visits_the_changed_path_only() -> None:
    tree, counter = counted_tree(100_000)
    writes: list[Callable[[Tree[Counted, int]], Tree[Counted, int]]] = [
        lambda t: t.set(Counted(50_000, counter), -1),
        lambda t: t.delete(Counted(77_777, counter)),
        lambda t: t.set(Counted(-1, counter), 0),
    ]
    for write in writes:
        after = write(tree)
        counter.clear()
        assert len(list(tree.changes(after))) == 1
        assert counter["compared"] <= 4 * Node.most
        counter.clear()
        assert len(list(tree.check(fresh_from=after))) == 0
        assert counter["compared"] <= 20 * Node.most
        counter.clear()
        assert after != tree


# Checks: each kind of damage is seen and told with its path


def damage_count(tree: Tree[Any, Any]) -> None:
    tree._root.count += 1


def damage_leaf_order(tree: Tree[Any, Any]) -> None:
    leaf = nodes(tree)[-1]
    leaf.keys = (leaf.keys[1], leaf.keys[0], *leaf.keys[2:])


def damage_low_bound(tree: Tree[Any, Any]) -> None:
    leaf = nodes(tree)[-1]
    leaf.keys = (-5, *leaf.keys[1:])


def damage_high_bound(tree: Tree[Any, Any]) -> None:
    leaf = next(node for node in nodes(tree) if not node.height)
    leaf.keys = (*leaf.keys[:-1], 10_000)


def damage_separator(tree: Tree[Any, Any]) -> None:
    tree._root.keys = (tree._root.keys[0], 10_000, *tree._root.keys[2:])


def damage_separator_order(tree: Tree[Any, Any]) -> None:
    branch = next(node for node in nodes(tree) if node.height and len(node.keys) > 2)
    branch.keys = (branch.keys[0], branch.keys[2], branch.keys[1], *branch.keys[3:])


def damage_own_separator(tree: Tree[Any, Any]) -> None:
    branch = tree._root.entries[-1]
    branch.keys = (branch.keys[0] + 1, *branch.keys[1:])


def damage_depth(tree: Tree[Any, Any]) -> None:
    root = tree._root
    root.entries = (*root.entries[:-1], root.entries[-1].entries[-1])


def damage_fill(tree: Tree[Any, Any]) -> None:
    leaf = nodes(tree)[-1]
    leaf.keys, leaf.entries, leaf.count = leaf.keys[:1], leaf.entries[:1], 1


def damage_overfill(tree: Tree[Any, Any]) -> None:
    leaf = nodes(tree)[-1]
    leaf.keys += tuple(range(1000, 1006))
    leaf.entries += (0,) * 6
    leaf.count += 6


def damage_values(tree: Tree[Any, Any]) -> None:
    leaf = nodes(tree)[-1]
    leaf.entries = (*leaf.entries, 0)


def damage_root(tree: Tree[Any, Any]) -> None:
    root = tree._root
    root.keys, root.entries = root.keys[:1], root.entries[:1]
    root.count = root.entries[0].count


def damage_kept(tree: Tree[Any, Any]) -> None:
    tree.aggregate(SUM)
    nodes(tree)[-1].kept = {SUM: 1}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_count, "I2 at root: counts"),
        (damage_leaf_order, "is not below its successor"),
        (damage_low_bound, "key -5 is outside of its bounds"),
        (damage_high_bound, "key 10000 is outside of its bounds, None to"),
        (damage_separator, "is not below its successor|own separator"),
        (damage_separator_order, "is not below its successor"),
        (damage_own_separator, "I1 at root/[0-9]: own separator"),
        (damage_depth, "height 0 where 1 is wanted"),
        (damage_fill, "1 entries are less than"),
        (damage_overfill, "entries are more than"),
        (damage_values, "I2 at root/[0-9/]+: 1 entries without a key"),
        (damage_root, "I2 at root: a branch with 1 children"),
        (damage_kept, "keeps 1 as sum"),
    ],
)
def test_check_tells(small: int, damage: Callable[[Any], None], says: str) -> None:
    import re

    sound = Tree[int, int].from_sorted((key, 1) for key in range(40))
    assert sound._root.height == 2
    editor = sound.edit()
    for key in range(40):
        editor.set(key, 2)
    tree = editor.freeze()
    damage(tree)
    for found in (list(tree.check()), list(tree.check(fresh_from=sound))):
        assert [line for line in found if re.search(says, line)], found
        assert all(re.match("I[12] at root[0-9/]*: ", line) for line in found)


def test_check_tells_everything(small: int) -> None:
    tree = grown(40)
    damage_fill(tree)
    damage_high_bound(tree)
    found = list(tree.check())
    assert any("less than" in line for line in found)
    assert any("outside of its bounds" in line for line in found)


def test_check_of_fresh_nodes_skips_shared_ones_but_sees_where_they_hang() -> None:
    old = grown(10_000)
    new = old.set(5_000, 0)
    shared = next(n for n in nodes(old) if not n.height)
    assert any(n is shared for n in nodes(new))
    shared.count += 1  # Inside a shared node: not looked for.
    assert [line for line in new.check(fresh_from=old) if "root/0/0" in line] == []
    assert [line for line in new.check() if "root/0/0" in line]
    shared.count -= 1
    # In its place: two shared neighbours change sides under a fresh branch.
    branch = next(n for n in nodes(new) if n.height == 1 and not any(n is o for o in nodes(old)))
    leaves = [n for n in branch.entries if any(n is o for o in nodes(old))]
    i, j = branch.entries.index(leaves[0]), branch.entries.index(leaves[1])
    swapped = list(branch.entries)
    swapped[i], swapped[j] = swapped[j], swapped[i]
    branch.entries = tuple(swapped)
    found = list(new.check(fresh_from=old))
    assert sum("is outside of its bounds" in line for line in found) == 4


def test_nodes_are_free_of_the_garbage_collector() -> None:
    import gc

    tree = Tree.from_sorted((b"%d" % i, b"") for i in range(10_000, 30_000))
    tree = tree.set(b"10500", b"x")
    gc.collect()
    assert not gc.is_tracked(tree)
    for node in nodes(tree):
        assert not gc.is_tracked(node)
        assert not gc.is_tracked(node.keys)


def test_a_new_value_makes_no_work_for_the_garbage_collector() -> None:
    """Neither by `set` nor by an editor: however many trees are kept, nothing is tracked."""
    import gc

    tree = Tree.from_sorted((b"%05d" % i, b"") for i in range(10_000))
    made = [tree] * 200
    gc.collect()
    before = len(gc.get_objects())
    for i in range(0, 200, 2):
        made[i] = tree = tree.set(b"%05d" % i, b"x")
        editor = tree.edit()
        editor.set(b"%05d" % (i + 5000), b"y")
        made[i + 1] = tree = editor.freeze()
    del editor
    # Less than one object for a hundred trees: what the interpreter does on its own.
    assert len(gc.get_objects()) - before < 2
    assert tree[b"05198"] == b"y"
