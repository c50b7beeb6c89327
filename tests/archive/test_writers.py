"""Who writes a history: one at a time, through whatever connection, and exactly once."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from ZODB.POSException import StorageError

from btreecache import Cache, Store
from btreecache.archive import Archive
from btreecache.archive.storage import open_database
from btreecache.digest import recompute
from btreecache.errors import ArchiveError

KEYS = [b"/k/%02d" % index for index in range(40)]

Digests = dict[int, int]


def put(store: Store, value: bytes) -> Digests:
    """One value everywhere, a revision each."""
    states = {}
    for key in KEYS:
        store.put(key, value)
        states[store.revision] = recompute(store.snapshot(), "values")
    return states


def archived(archive: Archive) -> Digests:
    """Of every retained revision."""
    with archive.reading() as reading:
        return {
            revision: recompute(reading.snapshot(revision), "values")
            for revision in range(reading.oldest, reading.newest + 1)
        }


def test_a_restored_history_is_written_through_any_connection(tmp_path: Path) -> None:
    # The records were loaded through a connection that somebody else has now.
    uri = str(tmp_path / "archive")
    with Archive.open(uri, group_revisions=7) as archive:
        put(Store(archive=archive.history()), b"before")
    database = open_database(uri, read_only=False)
    with Archive(database, group_revisions=7) as archive:
        store = Store(archive=archive.history())
        with archive.reading(), archive.reading():
            states = put(store, b"after")
            assert archive.flush()
        assert store.durable_revision == store.revision
        assert archived(archive).items() >= states.items()


@pytest.mark.parametrize("lost", [[1], [1, 2], [2], [3, 4, 6]])
def test_a_commit_whose_answer_was_lost_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: list[int]
) -> None:
    with Archive.open(str(tmp_path / "archive"), group_revisions=7, rng=Random(0)) as archive:
        commit, number = archive.recorder._manager.commit, 0

        def lossy() -> None:
            nonlocal number
            number += 1
            commit()
            if number in lost:
                raise StorageError("the answer was lost")

        monkeypatch.setattr(archive.recorder._manager, "commit", lossy)
        store = Store(archive=archive.history())
        states = put(store, b"value")
        written(archive, store)
        assert number > max(lost)
        assert archived(archive).items() >= states.items()
        with archive.reading() as reading:
            assert not [gap for gap in reading.state.gaps if gap[1] - gap[0] > 1]


def written(archive: Archive, store: Store) -> None:
    """Flush until all is written, whatever goes wrong meanwhile."""
    for _ in range(50):
        try:
            if archive.flush() and store.durable_revision == store.revision:
                return
        except ArchiveError:
            continue
    pytest.fail(f"written up to {store.durable_revision}, not {store.revision}")


def test_a_second_writer_is_told_so(tmp_path: Path) -> None:
    database: Any = open_database(str(tmp_path / "archive"), read_only=False)
    with Archive(database) as old:
        first = Store(archive=old.history())
        put(first, b"first")
        assert old.flush()
        # Two that begin with the same state: who writes first goes on.
        new, late = Archive(database).start(), Archive(database).start()
        second, third = Store(archive=new.history()), Store(archive=late.history())
        states = put(second, b"second")
        assert new.flush()
        for archive, store in [(old, first), (late, third)]:
            put(store, b"refused")
            with pytest.raises(ArchiveError, match="another process writes the history of b''"):
                archive.flush()
            assert store.durable_revision == first.revision - len(KEYS)
        assert archived(new).items() >= states.items()
        late.recorder.close()
        new.recorder.close()


def test_nothing_written_refuses_nobody(tmp_path: Path) -> None:
    database: Any = open_database(str(tmp_path / "archive"), read_only=False)
    with Archive(database) as archive:
        put(Store(archive=archive.history()), b"first")
        assert archive.flush()
        idle = Archive(database).start()
        Store(archive=idle.history())
        assert idle.flush()
        store = Store(archive=idle.history())
        put(store, b"second")
        assert idle.flush()
        assert store.durable_revision == store.revision
        idle.recorder.close()


def test_what_was_distrusted_is_written_anew(tmp_path: Path) -> None:
    # Its records may have been packed away by the time of the next list.
    with Archive.open(str(tmp_path / "archive"), group_revisions=7) as archive:
        history = archive.history()
        store = Store(archive=history)
        put(store, b"value")
        assert archive.flush()
        history.distrusted(1)
        assert archive.flush()
        archive.pack()
        snapshot = store.snapshot()
        history.began(store.revision, snapshot.tree)
        assert archive.flush()
        with archive.snapshot(store.revision) as read:
            assert recompute(read, "values") == recompute(snapshot, "values")


def test_a_history_that_may_not_be_written_holds_up_no_other(tmp_path: Path) -> None:
    uri = str(tmp_path / "archive")
    with Archive.open(uri) as archive:
        store = Store(archive=archive.history(b"a"))
        for number in range(5):
            store.put(b"k%d" % number, b"")
        assert archive.flush()
    with Archive.open(uri) as archive:
        other = Cache(archive=archive.history(b"a"))
        other.replace(2, [])  # A source that went back.
        store = Store(archive=archive.history(b"b"))
        store.put(b"k", b"v")
        for _ in range(5):  # A group at a time: its list, then the put.
            with pytest.raises(ArchiveError, match="another history"):
                archive.flush()
            if store.durable_revision == store.revision:
                break
        assert store.durable_revision == store.revision
