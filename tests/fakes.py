"""A source that a test scripts item by item, and short ways to write elements, events, batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from btreecache import Batch, BtreecacheError, Compacted, Element, Event, FutureRevision, Progress
from btreecache.source import Listing, RangePage


def element(key: bytes, value: bytes, revision: int, created: int = 0, version: int = 1) -> Element:
    return Element(key, value, revision, created or revision, version)


def put(key: bytes, value: bytes, revision: int, created: int = 0, version: int = 1) -> Event:
    return Event(key, element(key, value, revision, created, version))


def delete(key: bytes) -> Event:
    return Event(key, None)


def batch(revision: int, *events: Event) -> Batch:
    return Batch(revision, events)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class ScriptedStream:
    """Hands out what `items` holds; an exception in it is raised instead."""

    def __init__(self, items: Iterable[Batch | Progress | BtreecacheError]) -> None:
        self.items = deque(items)
        self.closed = False
        self.progress_requests = 0

    def receive(self, timeout_s: float) -> Batch | Progress | None:
        assert not self.closed
        if not self.items:
            return None
        item = self.items.popleft()
        if isinstance(item, BtreecacheError):
            raise item
        return item

    def request_progress(self) -> bool:
        self.progress_requests += 1
        return True

    def close(self) -> None:
        self.closed = True


class ScriptedSource:
    """`lists` and `streams` are handed out in turn; the last list again and again."""

    name = "scripted"

    def __init__(
        self,
        lists: Iterable[tuple[int, list[Element]] | BtreecacheError],
        streams: Iterable[ScriptedStream | BtreecacheError] = (),
    ) -> None:
        self.lists = deque(lists)
        self.streams = deque(streams)
        self.watched_after: list[int] = []
        self.listed = 0

    def list(self, prefix: bytes) -> Listing:
        self.listed += 1
        item = self.lists.popleft() if len(self.lists) > 1 else self.lists[0]
        if isinstance(item, BtreecacheError):
            raise item
        return Listing(*item)

    def watch(self, prefix: bytes, after: int) -> ScriptedStream:
        self.watched_after.append(after)
        item = self.streams.popleft() if self.streams else ScriptedStream([])
        if isinstance(item, BtreecacheError):
            raise item
        return item

    def current_revision(self) -> int:
        raise AssertionError("not scripted")

    def range_at(
        self,
        revision: int,
        prefix: bytes,
        start: bytes | None = None,
        limit: int | None = None,
        keys_only: bool = False,
    ) -> RangePage:
        raise AssertionError("not scripted")

    def close(self) -> None:
        pass


class DictTruth:
    """A truth made of one dict of elements per revision: nothing of the cache's own machinery."""

    def __init__(self, states: dict[int, dict[bytes, Element]], compacted: int = 0) -> None:
        self.states = states
        self.compacted = compacted
        self.asked: list[int] = []

    def current_revision(self) -> int:
        return max(self.states)

    def range_at(
        self,
        revision: int,
        prefix: bytes,
        start: bytes | None = None,
        limit: int | None = None,
        keys_only: bool = False,
    ) -> RangePage:
        self.asked.append(revision)
        if revision < self.compacted:
            raise Compacted(revision, self.compacted)
        if revision > max(self.states):
            raise FutureRevision(revision, max(self.states))
        state = self.states[max(known for known in self.states if known <= revision)]
        found = [
            kept
            for key, kept in sorted(state.items())
            if key.startswith(prefix) and key >= (start or b"")
        ]
        page = found if limit is None else found[:limit]
        return RangePage(page, len(page) < len(found), len(found), sum(len(e.key) for e in page))
