"""Self-checks on every apply, for tests: BTREECACHE_VERIFY=1 or =all. Off, it costs nothing.

`1`: each apply checks the nodes that it created (I1, I2); every 256 applies the oldest, the newest
and one seeded snapshot are recomputed from their elements, ignoring everything kept with nodes, and
compared with what is kept (I3) and with what they were when they were published.
`all`: every node and every retained snapshot, at every apply; for small tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random
from typing import Literal

from btreecache.digest import DIGESTS, recompute
from btreecache.element import Element
from btreecache.tree import Tree
from btreecache.window import Window

Level = Literal["off", "1", "all"]

#: Applies between two recomputations at level 1.
RECOMPUTE_EVERY = 256


def level_from(environ: Mapping[str, str]) -> Level:
    """The level that BTREECACHE_VERIFY asks for. Raises ValueError for an unknown one."""
    value = environ.get("BTREECACHE_VERIFY", "")
    if value in ("", "0"):
        return "off"
    if value == "1":
        return "1"
    if value == "all":
        return "all"
    raise ValueError(f"BTREECACHE_VERIFY must be 0, 1 or all: {value!r}")


class Verifier:
    """Checks what one cache publishes. Used by its one writer only."""

    def __init__(self, level: Level, rng: Random) -> None:
        self._level = level
        self._rng = rng
        self._applies = 0
        self._published: dict[int, int] = {}

    def replaced(self, tree: Tree[bytes, Element]) -> None:
        """Call when a fresh list begins a new window: its revisions are another history's."""
        self._published.clear()
        problems = list(tree.check())
        assert not problems, "; ".join(problems[:10])

    def applied(self, before: Tree[bytes, Element], window: Window) -> None:
        """Call after each apply, before the window is published. Raises AssertionError."""
        self._applies += 1
        newest = window.newest
        if self._level == "all":
            problems = list(newest.check())
        else:
            problems = list(newest.check(fresh_from=before))
        assert not problems, "; ".join(problems[:10])
        every = self._level == "all"
        if every or self._applies % RECOMPUTE_EVERY == 0:
            problems = list(window.newest_indexes.check(newest.values()))
            assert not problems, "; ".join(problems[:10])
            last = len(window) - 1
            some = {0, self._rng.randint(0, last), last}
            self._recompute(window, range(len(window)) if every else sorted(some))

    def _recompute(self, window: Window, indexes: Iterable[int]) -> None:
        entries = [*zip(window.revisions(), window.trees(), strict=True)]
        for index in indexes:
            revision, tree = entries[index]
            digest = recompute(tree.values(), "keys")
            assert digest == tree.aggregate(DIGESTS["keys"]), f"I3: kept digest at {revision}"
            known = self._published.setdefault(revision, digest)
            assert known == digest, f"I3: the snapshot at {revision} changed after it was published"
            assert len(tree) == sum(1 for _ in tree), f"I2: count at {revision}"
        oldest = entries[0][0]
        for revision in [known for known in self._published if known < oldest]:
            del self._published[revision]
