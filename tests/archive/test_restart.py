"""A follower that begins with an archive, whatever the source says, and when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from btreecache import Cache, Compacted, Element, Follower, Store, Unavailable
from btreecache.archive import Archive
from btreecache.source import Listing, RangePage
from tests.fakes import Clock, ScriptedSource, ScriptedStream, batch, put

ARCHIVED = [Element(b"/a", b"1", 3, 3, 1), Element(b"/b", b"2", 5, 5, 1)]


class Source(ScriptedSource):
    """One that is away at first, and then has a state."""

    def __init__(self, revision: int, elements: list[Element], stream: ScriptedStream) -> None:
        super().__init__([(revision, elements)], [stream])
        self.revision, self.elements = revision, elements
        self.is_away = True

    def list(self, prefix: bytes) -> Listing:
        self._may_be_away()
        return super().list(prefix)

    def range_at(
        self,
        revision: int,
        prefix: bytes,
        start: bytes | None = None,
        limit: int | None = None,
        keys_only: bool = False,
    ) -> RangePage:
        self._may_be_away()
        if revision != self.revision:
            raise Compacted(revision, self.revision)
        return RangePage(self.elements, False, len(self.elements), 0)

    def _may_be_away(self) -> None:
        if self.is_away:
            raise Unavailable("away")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """One that an archive has a state of."""
    uri = str(tmp_path / "archive")
    with Archive.open(uri) as archive:
        Cache(archive=archive.history()).replace(5, ARCHIVED)
        assert archive.flush()
    with Archive.open(uri) as archive:
        yield Cache(archive=archive.history())


def followed(source: Source, cache: Cache) -> tuple[Follower, Clock]:
    """After a step with the source away: it serves."""
    clock = Clock()
    follower = Follower(source, cache, now=clock)
    assert follower.step()
    assert isinstance(follower.trouble, Unavailable)
    assert [*cache.snapshot()] == ARCHIVED
    clock.now_s += 100.0
    assert follower.step()  # Still away.
    assert (cache.ready, cache.revision, source.watched_after) == (True, 5, [])
    clock.now_s += 100.0
    source.is_away = False
    return follower, clock


def test_a_source_that_is_back_is_resumed(cache: Cache) -> None:
    source = Source(5, ARCHIVED, ScriptedStream([batch(6, put(b"/c", b"", 6))]))
    follower, _ = followed(source, cache)
    watcher = cache.watch(5)
    for _ in range(3):
        assert follower.step()
    assert (source.listed, source.watched_after, cache.revision) == (0, [5], 6)
    found = watcher.receive(0)
    assert found is not None
    assert found.revision == 6
    assert follower.trouble is None


@pytest.mark.parametrize("revision", [3, 5, 9])
def test_another_source_is_listed(cache: Cache, revision: int) -> None:
    """Who watched what was archived is told to list again."""
    theirs = [Element(b"/z", b"", 3, 3, 1)]
    source = Source(revision, theirs, ScriptedStream([]))
    follower, _ = followed(source, cache)
    watcher = cache.watch(5)
    for _ in range(2):
        assert follower.step()
    assert (source.listed, cache.revision) == (1, revision)
    assert [*cache.snapshot()] == theirs
    with pytest.raises(Compacted):
        watcher.receive(0)


def test_pages_and_watches_from_before_go_on(tmp_path: Path) -> None:
    uri = str(tmp_path / "archive")
    with Archive.open(uri, group_revisions=3) as archive:
        store = Store(archive=archive.history())
        for number in range(9):
            store.put(b"/k/%d" % (number % 4), b"%d" % number)
        page = store.snapshot(5).list(limit=2)
        watcher = store.watch(5)
        told = [watcher.receive(0) for _ in range(store.revision - 5)]
        assert archive.flush()
        rest = store.snapshot(5).list(start=page.elements[-1].key + b"\0").elements
    with Archive.open(uri) as archive:
        store = Store(archive=archive.history())
        assert store.snapshot(5).list(start=page.elements[-1].key + b"\0").elements == rest
        watcher = store.watch(5)
        assert [watcher.receive(0) for _ in told] == told
        store.put(b"/k/9", b"")
        found = watcher.receive(0)
        assert found is not None
        assert found.revision == store.revision
