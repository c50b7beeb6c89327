"""WatchIndex: whose range a key lies in, without asking everybody.

Watches are of single keys and of prefixes; those are found by the key itself and by its beginnings.
Only ranges that are neither are gone through one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from etcdsim.model import ALL, prefix_end
from etcdsim.txn import bounds

W = TypeVar("W", bound=Hashable)

_Range = tuple[bytes, bytes]


class WatchIndex(Generic[W]):
    """Ranges and who waits for them; many may share a range. One thread."""

    def __init__(self) -> None:
        self._keys: dict[bytes, dict[W, None]] = {}
        self._prefixes: dict[bytes, dict[W, None]] = {}
        self._lengths: Counter[int] = Counter()  # of the prefixes that there are
        self._ranges: dict[_Range, dict[W, None]] = {}

    def add(self, key: bytes, range_end: bytes, watch: W) -> None:
        """Let `watch` wait for [key, range_end), as `bounds` reads it. O(1)."""
        if not range_end:
            self._keys.setdefault(key, {})[watch] = None
            return
        prefix = _prefix(key, range_end)
        if prefix is None:
            self._ranges.setdefault((key, range_end), {})[watch] = None
            return
        if prefix not in self._prefixes:
            self._prefixes[prefix] = {}
            self._lengths[len(prefix)] += 1
        self._prefixes[prefix][watch] = None

    def discard(self, key: bytes, range_end: bytes, watch: W) -> None:
        """Undo `add`; nothing happens if that wasn't called. O(1)."""
        if not range_end:
            _drop(self._keys, key, watch)
            return
        prefix = _prefix(key, range_end)
        if prefix is None:
            _drop(self._ranges, (key, range_end), watch)
        elif _drop(self._prefixes, prefix, watch):
            self._lengths[len(prefix)] -= 1
            if not self._lengths[len(prefix)]:
                del self._lengths[len(prefix)]

    def at(self, key: bytes) -> Iterator[W]:
        """Who waits for `key`, each once. O(lengths of prefixes + ranges that are none + found)."""
        yield from self._keys.get(key, ())
        for length in self._lengths:
            if length <= len(key):
                yield from self._prefixes.get(key[:length], ())
        for (start, range_end), watches in self._ranges.items():
            low, high = bounds(start, range_end)
            if key >= low and (high is None or key < high):
                yield from watches


def _prefix(key: bytes, range_end: bytes) -> bytes | None:
    if (key, range_end) == (ALL, ALL):
        return b""
    return key if range_end == prefix_end(key) else None


K = TypeVar("K")


def _drop(groups: dict[K, dict[W, None]], name: K, watch: W) -> bool:
    """Whether the group is gone with its last member."""
    group = groups.get(name)
    if group is None:
        return False
    group.pop(watch, None)
    if group:
        return False
    del groups[name]
    return True
