"""Tree against dict, driven by hypothesis: every tree ever made is checked again at the end."""

from __future__ import annotations

import hashlib
import operator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from btreecache.tree import Aggregate, Editor, Node, Tree

KEYS = st.integers(0, 60).map(lambda i: b"%02d" % i)
VALUES = st.integers(0, 3)
ORDER: Aggregate[bytes, int, bytes] = Aggregate(
    "order", b"", lambda key, value: key + b"=%d;" % value, operator.add
)


def digest(model: dict[bytes, int]) -> str:
    return hashlib.sha256(repr(sorted(model.items())).encode()).hexdigest()


class TreeMachine(RuleBasedStateMachine):
    """One line of trees; `made` is every tree on it, with what it must hold for ever (I3)."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = Node.most, Node.least
        self.tree: Tree[bytes, int] = Tree()
        self.model: dict[bytes, int] = {}
        self.editor: Editor[bytes, int] | None = None
        self.made: list[tuple[Tree[bytes, int], dict[bytes, int], str]] = []

    @initialize(fan_out=st.sampled_from([3, 4, 5, 8]), n=st.integers(0, 61))
    def begin(self, fan_out: int, n: int) -> None:
        Node.most, Node.least = fan_out, (fan_out + 1) // 2
        self.model = {b"%02d" % i: 0 for i in range(n)}
        self.keep(Tree.from_sorted(sorted(self.model.items())))

    def keep(self, tree: Tree[bytes, int]) -> None:
        before, self.tree = self.tree, tree
        assert list(tree.check(fresh_from=before)) == []
        self.made.append((tree, dict(self.model), digest(self.model)))

    def missing(self, call: Any, key: bytes) -> None:
        try:
            call(key)
        except KeyError:
            return
        raise AssertionError(f"delete of the missing {key!r} did not raise")

    @precondition(lambda self: self.editor is None)
    @rule(key=KEYS, value=VALUES)
    def set(self, key: bytes, value: int) -> None:
        self.model[key] = value
        self.keep(self.tree.set(key, value))

    @precondition(lambda self: self.editor is None)
    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        if self.model.pop(key, None) is None:
            self.missing(self.tree.delete, key)
        else:
            self.keep(self.tree.delete(key))

    @precondition(lambda self: self.editor is None)
    @rule()
    def edit(self) -> None:
        self.editor = self.tree.edit()

    @precondition(lambda self: self.editor is not None)
    @rule(keys=st.lists(KEYS, min_size=1, max_size=20), value=VALUES)
    def editor_set(self, keys: list[bytes], value: int) -> None:
        assert self.editor is not None
        for key in keys:
            self.editor.set(key, value)
            self.model[key] = value
            assert self.editor.get(key) == value

    @precondition(lambda self: self.editor is not None)
    @rule(keys=st.lists(KEYS, min_size=1, max_size=30))
    def editor_delete(self, keys: list[bytes]) -> None:
        assert self.editor is not None
        for key in keys:
            if self.model.pop(key, None) is None:
                self.missing(self.editor.delete, key)
            else:
                self.editor.delete(key)
            assert self.editor.get(key) is None

    @precondition(lambda self: self.editor is not None)
    @rule()
    def freeze(self) -> None:
        assert self.editor is not None
        self.keep(self.editor.freeze())
        self.editor = None

    @rule(start=st.none() | KEYS, stop=st.none() | KEYS, data=st.data())
    def read(self, start: bytes | None, stop: bytes | None, data: st.DataObject) -> None:
        tree, model, _ = data.draw(st.sampled_from(self.made))
        low, high = start or b"", b"\xff" if stop is None else stop
        wanted = sorted((k, v) for k, v in model.items() if low <= k < high)
        assert list(tree.items(start, stop)) == wanted
        assert list(tree.items(start, stop, reverse=True)) == wanted[::-1]
        assert tree.count(start, stop) == len(wanted)
        assert tree.aggregate(ORDER, start, stop) == b"".join(k + b"=%d;" % v for k, v in wanted)
        if start is not None:
            assert tree.rank(start) == sum(k < start for k in model)

    @rule(data=st.data())
    def diff(self, data: st.DataObject) -> None:
        old, a, _ = data.draw(st.sampled_from(self.made))
        new, b, _ = data.draw(st.sampled_from(self.made))
        added, removed, changed = old.diff(new)
        assert added == sorted((k, b[k]) for k in b.keys() - a.keys())
        assert removed == sorted((k, a[k]) for k in a.keys() - b.keys())
        assert changed == sorted((k, a[k], b[k]) for k in a.keys() & b.keys() if a[k] != b[k])

    def teardown(self) -> None:
        try:
            for tree, model, was in self.made:
                assert list(tree.items()) == sorted(model.items())
                assert list(tree.check()) == []
                assert digest(dict(tree.items())) == was
        finally:
            Node.most, Node.least = self.sizes


TestTreeMachine = TreeMachine.TestCase
TestTreeMachine.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
