"""Tree: every tree ever made is checked again at the end. `test_tree_machine.py` shrinks better."""

from __future__ import annotations

import operator
from random import Random

from btreecache.tree import Aggregate, Tree
from tests.machines.model import Machine, outcome

ORDER: Aggregate[bytes, int, bytes] = Aggregate(
    "order of machines", b"", lambda key, value: key + b"=%d;" % value, operator.add
)


class TreeMachine(Machine):
    rules = (*["edit"] * 3, *["set"] * 3, *["delete"] * 3, "read", "read", "diff", "back")

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self.model = {b"%02d" % i: 0 for i in range(rng.randint(0, 61))}
        self.tree: Tree[bytes, int] = Tree.from_sorted(sorted(self.model.items()))
        self.made: list[tuple[Tree[bytes, int], dict[bytes, int]]] = []
        self.keep(self.tree)

    def key(self, rng: Random) -> bytes:
        return b"%02d" % rng.randint(0, 60)

    def keep(self, tree: Tree[bytes, int]) -> None:
        before, self.tree = self.tree, tree
        assert [*tree.check(fresh_from=before)] == []
        assert len(tree) == len(self.model)
        self.made.append((tree, dict(self.model)))

    def set(self, rng: Random) -> None:
        key, value = self.key(rng), rng.randint(0, 3)
        self.model[key] = value
        self.keep(self.tree.set(key, value))

    def delete(self, rng: Random) -> None:
        key = self.key(rng)
        if self.model.pop(key, None) is None:
            assert outcome(lambda: self.tree.delete(key)) is KeyError
        else:
            self.keep(self.tree.delete(key))

    def edit(self, rng: Random) -> None:
        edit, deletes = self.tree.edit(), rng.random()
        for _ in range(rng.randint(0, 30)):
            key = self.key(rng)
            if rng.random() >= deletes:
                self.model[key] = rng.randint(0, 3)
                edit.set(key, self.model[key])
            elif self.model.pop(key, None) is None:
                assert outcome(lambda key=key: edit.delete(key)) is KeyError
            else:
                edit.delete(key)
            assert edit.get(key) == self.model.get(key)
        self.keep(edit.freeze())
        assert outcome(lambda: edit.get(b"")) is RuntimeError

    def back(self, rng: Random) -> None:
        """Go on from an earlier tree: a branch of the history."""
        self.tree, model = rng.choice(self.made)
        self.model = dict(model)

    def read(self, rng: Random) -> None:
        tree, model = rng.choice(self.made)
        start, stop = (rng.choice([None, self.key(rng)]) for _ in range(2))
        low, high = start or b"", b"\xff" if stop is None else stop
        wanted = sorted((k, v) for k, v in model.items() if low <= k < high)
        assert [*tree.items(start, stop)] == wanted
        assert [*tree.items(start, stop, reverse=True)] == wanted[::-1]
        assert tree.count(start, stop) == len(wanted)
        assert tree.aggregate(ORDER, start, stop) == b"".join(k + b"=%d;" % v for k, v in wanted)
        assert tree.rank(low) == sum(k < low for k in model)
        index = rng.randint(0, len(model))
        found = outcome(lambda: tree.select(index))
        assert found == (sorted(model.items())[index] if index < len(model) else IndexError)

    def diff(self, rng: Random) -> None:
        (old, a), (new, b) = rng.choice(self.made), rng.choice(self.made)
        added, removed, changed = old.diff(new)
        assert added == sorted((k, b[k]) for k in b.keys() - a.keys())
        assert removed == sorted((k, a[k]) for k in a.keys() - b.keys())
        assert changed == sorted((k, a[k], b[k]) for k in a.keys() & b.keys() if a[k] != b[k])

    def finish(self) -> None:
        for tree, model in self.made:
            assert [*tree.items()] == sorted(model.items())
            assert [*tree.check()] == []
