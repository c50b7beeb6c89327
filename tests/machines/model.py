"""What the machines share: histories made at random, and a window modelled by plain lists."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from btreecache import Batch, Bounds, Compacted, Element, Event, FutureRevision
from btreecache import window as window_module
from btreecache.tree import Node

Content = dict[bytes, Element]

KEYS = [b"a/%d" % i for i in range(6)] + [b"a/b/1", b"a/b/2", b"a/\xff", b"b/1", b"b/2", b"c"]
PREFIXES = [b"", b"a/", b"a/b", b"b/", b"a/\xff", b"nothing/"]


@contextmanager
def small_sizes() -> Iterator[None]:
    """Nodes of four entries and segments of four, so that few keys already meet every edge."""
    before = Node.most, Node.least, window_module.SEGMENT_ENTRIES
    Node.most, Node.least, window_module.SEGMENT_ENTRIES = 4, 2, 4
    try:
        yield
    finally:
        Node.most, Node.least, window_module.SEGMENT_ENTRIES = before


def under(content: Content, prefix: bytes) -> Content:
    return {key: kept for key, kept in content.items() if key.startswith(prefix)}


def in_order(content: Content) -> list[Element]:
    return [content[key] for key in sorted(content)]


def following(content: Content, key: bytes, value: bytes, revision: int) -> Element:
    """What a put of `key` at `revision` makes of it, as etcd counts."""
    old = content.get(key)
    created, version = (old.create_revision, old.version) if old else (revision, 0)
    return Element(key, value, revision, created, version + 1)


def random_events(rng: Random, content: Content, revision: int, prefix: bytes) -> tuple[Event, ...]:
    """Puts and deletes of one to four keys that can follow from `content`."""
    keys = [key for key in KEYS if key.startswith(prefix)]
    events = []
    for key in rng.sample(keys, min(rng.randint(1, 4), len(keys))):
        if key in content and rng.random() < 0.4:
            events.append(Event(key, None))
        else:
            value = b"%d" % rng.randint(0, 9)
            events.append(Event(key, following(content, key, value, revision)))
    return tuple(events)


def fold(content: Content, events: tuple[Event, ...]) -> Content:
    after = dict(content)
    for event in events:
        if event.element is None:
            after.pop(event.key, None)
        else:
            after[event.key] = event.element
    return after


def with_previous(content: Content, batch: Batch) -> Batch:
    """The batch as the cache keeps it: each event with what its key held before."""
    events = (Event(event.key, event.element, content.get(event.key)) for event in batch.events)
    return Batch(batch.revision, tuple(events), batch.synthetic)


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the class of what it raises: to compare with what it should do."""
    try:
        return call()
    except AssertionError:
        raise
    except Exception as error:
        return type(error)


@dataclass
class Entry:
    revision: int
    content: Content
    batch: Batch | None
    time_s: float = 0.0
    freed_bytes: int = 0
    thing: Any = None


@dataclass
class WindowModel:
    """A window in the plainest way: a list that only grows, and what of it may be seen.

    `freeze` gives what a reader holds who took the window now.
    """

    entries: list[Entry]
    start: int = 0
    stop: int = 1
    oldest: int = 0
    current: int = 0
    floor: int = 0
    revisions: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, entry: Entry) -> WindowModel:
        at = entry.revision
        return cls([entry], 0, 1, at, at, at, [at])

    def freeze(self) -> WindowModel:
        return replace(self)

    @property
    def visible(self) -> list[Entry]:
        return self.entries[self.start : self.stop]

    @property
    def newest(self) -> Entry:
        return self.entries[self.stop - 1]

    @property
    def retained_bytes(self) -> int:
        return sum(entry.freed_bytes for entry in self.visible[1:])

    def append(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.revisions.append(entry.revision)
        self.stop += 1
        self.current = entry.revision

    def compact(self, revision: int) -> None:
        if revision > self.oldest:
            while self.start + 1 < self.stop and self.revisions[self.start + 1] <= revision:
                self.start += 1
            self.oldest = revision
            self.floor = max(self.floor, revision - 1)

    def evict(self, bounds: Bounds, now_s: float) -> None:
        def too_much() -> bool:
            later = self.entries[self.start + 1]
            return (
                (bounds.revisions is not None and self.stop - self.start > bounds.revisions)
                or (bounds.bytes is not None and self.retained_bytes > bounds.bytes)
                or (bounds.age_s is not None and later.time_s <= now_s - bounds.age_s)
            )

        while self.stop - self.start > 1 and too_much():
            self.floor = max(self.floor, self.revisions[self.start])
            self.start += 1
            self.oldest = max(self.oldest, self.revisions[self.start])

    def at(self, revision: int) -> Entry:
        if revision < self.oldest:
            raise Compacted(revision, self.oldest)
        if revision > self.current:
            raise FutureRevision(revision, self.current)
        return self.entries[bisect_right(self.revisions, revision, 0, self.stop) - 1]

    def entry_after(self, position: int) -> Entry | None:
        if position < self.floor:
            raise Compacted(position, self.floor)
        index = bisect_right(self.revisions, position, self.start, self.stop)
        return self.entries[index] if index < self.stop else None

    def entries_after(self, position: int) -> list[Entry]:
        """All that ever came after `position`, forgotten or not."""
        return self.entries[bisect_right(self.revisions, position, 0, self.stop) : self.stop]


class Machine:
    """One checked thing at each step; `log` says what was done, for whoever reads a failure."""

    #: Names of methods that take a generator, the frequent ones more than once.
    rules: tuple[str, ...]

    def __init__(self, rng: Random) -> None:
        self.log: list[str] = []

    def step(self, rng: Random) -> None:
        name = rng.choice(self.rules)
        self.log.append(name)
        getattr(self, name)(rng)
        self.check()

    def note(self, text: object) -> None:
        self.log[-1] += f" {text}"

    def check(self) -> None:
        """What must hold after every step."""

    def finish(self) -> None:
        """Everything that was ever held, again."""
