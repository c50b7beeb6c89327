"""Scopes: who must hear of a batch, and what of it they have yet to see.

A scope is one key, or all keys with a prefix (a namespace, a resource). While anybody watches it
the scope is live: the writer notes in it which revisions touched it. So a write costs the scopes
that it touches and nobody else, a watcher of a quiet scope sleeps through everything, and only an
event of its own scope can ever be evicted before it saw it.

Scopes that nobody watches are not known here and cost nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from weakref import ref

from btreecache.event import Batch

#: Scopes that go live between two sweeps of the dead, at least.
SWEEP_MIN = 64


class Scope:
    """A live scope. Lives as long as a watcher holds it.

    The writer changes it; readers need no lock: a list of revisions only grows at its end and is
    replaced as a whole when it is trimmed, and `floor` rises before that.

    revisions  that touched it since it went live, ascending
    since      everything above this revision is noted
    floor      the newest revision that touched it and was evicted since; 0: none
    """

    __slots__ = ("__weakref__", "exact", "floor", "prefix", "revisions", "since", "waiters")

    def __init__(self, prefix: bytes, *, exact: bool, since: int) -> None:
        self.prefix = prefix
        self.exact = exact
        self.since = since
        self.floor = 0
        self.revisions: list[int] = []
        self.waiters: set[Callable[[], object]] = set()

    def __contains__(self, key: bytes) -> bool:
        return key == self.prefix if self.exact else key.startswith(self.prefix)

    def next_after(self, position: int) -> int | None:
        """The first noted revision above `position`, None if there is none. O(log n)."""
        revisions = self.revisions
        at = bisect_right(revisions, position)
        return revisions[at] if at < len(revisions) else None

    def wake(self) -> None:
        """Tell everybody who waits for this scope. Any thread."""
        for waiter in tuple(self.waiters):
            waiter()


class Scopes:
    """The live scopes of one cache.

    Every call is made with the cache's lock held: `enter` together with taking the state, `note`
    together with publishing one. So a batch that the state taken does not show is noted (I6,
    Reliable).
    """

    def __init__(self) -> None:
        self._keys: dict[bytes, ref[Scope]] = {}
        self._prefixes: dict[bytes, ref[Scope]] = {}
        # The lengths of prefixes that end elsewhere than at a "/": looked for in every key. The
        # others are looked for at the slashes of a key only.
        self._odd_lengths: set[int] = set()
        self._entered = 0

    def __len__(self) -> int:
        return len(self._keys) + len(self._prefixes)

    def __iter__(self) -> Iterator[Scope]:
        """Every live scope."""
        for known in [*self._keys.values(), *self._prefixes.values()]:
            if (scope := known()) is not None:
                yield scope

    def enter(self, prefix: bytes, *, exact: bool, since: int) -> Scope:
        """The live scope, which notes everything above `since` at the latest. O(1) amortised."""
        table = self._keys if exact else self._prefixes
        known = table.get(prefix)
        if known is not None and (scope := known()) is not None:
            return scope
        self._entered += 1
        if self._entered > SWEEP_MIN and self._entered * 2 > len(self):
            self._sweep()
        scope = Scope(prefix, exact=exact, since=since)
        table = self._keys if exact else self._prefixes
        table[prefix] = ref(scope)
        if not (exact or prefix.endswith(b"/")):
            self._odd_lengths.add(len(prefix))
        return scope

    def _sweep(self) -> None:
        """Drop the scopes that nobody holds any more. O(those known)."""
        self._entered = 0
        self._keys = {key: known for key, known in self._keys.items() if known() is not None}
        self._prefixes = {p: known for p, known in self._prefixes.items() if known() is not None}
        self._odd_lengths = {len(p) for p in self._prefixes if not p.endswith(b"/")}

    def note(self, batch: Batch) -> list[Scope]:
        """Note the batch in every live scope that it touches; those. O(events * depth of keys)."""
        touched = self._touched(batch)
        for scope in touched:
            scope.revisions.append(batch.revision)
        return touched

    def forget(self, batch: Batch) -> list[Scope]:
        """The batch is evicted: whoever has yet to see it in a scope of his has lost it; those."""
        touched = self._touched(batch)
        for scope in touched:
            scope.floor = max(scope.floor, batch.revision)
            gone = bisect_right(scope.revisions, batch.revision)
            if gone * 2 > len(scope.revisions):
                scope.revisions = scope.revisions[gone:]
        return touched

    def _touched(self, batch: Batch) -> list[Scope]:
        keys, prefixes, odd = self._keys, self._prefixes, self._odd_lengths
        found: dict[int, Scope] = {}
        for event in batch.events:
            key = event.key
            candidates = [keys.get(key)]
            if prefixes:
                slash = key.find(b"/")
                while slash >= 0:
                    candidates.append(prefixes.get(key[: slash + 1]))
                    slash = key.find(b"/", slash + 1)
                candidates += [prefixes.get(key[:length]) for length in odd if length <= len(key)]
            for known in candidates:
                if known is not None and (scope := known()) is not None:
                    found[id(scope)] = scope
        return [*found.values()]
