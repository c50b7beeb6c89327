"""Revisions inside a group: the checkpoint before them and a replay, of which only what is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from btreecache import Batch, Cache, Element, Event
from btreecache.archive import Archive
from btreecache.archive.nodes import Nodes
from btreecache.errors import ArchiveError

KEYS, REVISIONS = 800, 60


def batches(rng: Random, cache: Cache) -> Iterator[Batch]:
    """Puts of what is there, of what isn't, deletes, and what was deleted put again."""
    for revision in range(2, REVISIONS + 2):
        events = {}
        for _ in range(rng.randrange(1, 6)):
            key = b"/k/%04d" % rng.randrange(KEYS + 50)
            known = cache.get(key)
            element = None
            if known is None or rng.random() < 0.7:
                created, version = (
                    (known.create_revision, known.version) if known else (revision, 0)
                )
                element = Element(key, rng.randbytes(4), revision, created, version + 1)
            events[key] = Event(key, element)
        yield Batch(revision, tuple(events.values()))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Cache]:
    """An archive of one list and one group, and the cache that still has all of it."""
    uri = str(tmp_path_factory.mktemp("replay") / "archive")
    with Archive.open(uri, group_age_s=3_600.0) as archive:
        cache = Cache(archive=archive.history())
        cache.replace(1, [Element(b"/k/%04d" % i, b"", 1, 1, 1) for i in range(KEYS)])
        assert archive.flush()
        for batch in batches(Random(3), cache):
            cache.apply(batch)
    return uri, cache


def test_every_revision_inside_a_group_is_as_it_was(written: tuple[str, Cache]) -> None:
    uri, cache = written
    rng = Random(4)
    with Archive.open(uri, read_only=True) as archive, archive.reading() as reading:
        assert [group.batches for group in reading.groups()] == [0, REVISIONS]
        for revision in [1, *rng.sample(range(2, REVISIONS + 2), 12)]:
            found, expected = reading.snapshot(revision), cache.snapshot(revision)
            assert len(found) == len(expected)
            assert [*found] == [*expected]
            start = b"/k/%04d" % rng.randrange(KEYS)
            page, same = (s.list(b"/k/", start=start, limit=9) for s in (found, expected))
            assert (page.elements, page.remaining) == (same.elements, same.remaining)
            assert found.digest("values") == expected.digest("values")
            other = rng.randrange(1, REVISIONS + 2)
            assert [*found.diff(reading.snapshot(other)).changed] == [
                *expected.diff(cache.snapshot(other)).changed
            ]


def test_a_page_loads_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not every leaf that was written to."""
    with Archive.open(str(tmp_path / "archive"), group_age_s=3_600.0) as archive:
        cache = Cache(archive=archive.history())
        cache.replace(1, [Element(b"/k/%04d" % i, b"", 1, 1, 1) for i in range(KEYS)])
        assert archive.flush()
        for i in range(KEYS):
            cache.apply(
                Batch(i + 2, (Event(b"/k/%04d" % i, Element(b"/k/%04d" % i, b"x", i + 2, 1, 2)),))
            )
        assert archive.flush()
        seen: list[object] = []
        load = Nodes._load_node
        monkeypatch.setattr(Nodes, "_load_node", lambda *args: seen.append(args) or load(*args))
        with archive.reading() as reading:
            snapshot = reading.snapshot(KEYS)
            assert len(snapshot) == KEYS
            page = snapshot.list(b"/k/", limit=10)
            assert [element.value for element in page.elements] == [b"x"] * 10
            assert 1 < len(seen) < 6
            assert sum(element.value == b"x" for element in snapshot) == KEYS - 1


def test_a_log_that_lies_is_found_out(written: tuple[str, Cache]) -> None:
    with Archive.open(written[0], read_only=True) as archive, archive.reading() as reading:
        tree = reading.snapshot(1).tree
        patched = tree.patched({b"/k/0000x": None})
        assert len(patched) == KEYS
        with pytest.raises(ArchiveError, match="b'/k/0000x' isn't there"):
            patched.get(b"/k/0000")
