"""The archive against a dict for every revision: what was put in comes out, after restarts too."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from random import Random

import pytest

from btreecache import Store
from btreecache.archive import Archive
from btreecache.digest import recompute
from btreecache.errors import Compacted, FutureRevision
from btreecache.window import Bounds

States = dict[int, dict[bytes, bytes]]


def written(store: Store, rng: Random, revisions: int) -> States:
    """Random writes; the content at every revision."""
    model = {element.key: element.value for element in store.snapshot()}
    states = {store.revision: dict(model)}
    for _ in range(revisions):
        key = b"/registry/pods/%04d" % rng.randrange(300)
        if key in model and rng.random() < 0.3:
            store.delete(key)
            del model[key]
        else:
            model[key] = rng.randbytes(rng.choice([0, 10, 300]))
            store.put(key, model[key])
        states[store.revision] = dict(model)
    return states


@pytest.mark.parametrize("seed", range(2))
def test_every_revision_comes_back_after_restarts(tmp_path: Path, seed: int) -> None:
    rng, uri = Random(seed), str(tmp_path / "archive")
    states: States = {}
    for _ in range(3):
        with Archive.open(uri, group_revisions=rng.choice([1, 7, 50]), group_age_s=60) as archive:
            store = Store(archive=archive.history(), bounds=Bounds(revisions=20))
            if states:
                assert store.revision == max(states)
                assert {e.key: e.value for e in store.snapshot()} == states[store.revision]
            states |= written(store, rng, 150)
            assert archive.flush()
            assert store.durable_revision == store.revision
    with Archive.open(uri, read_only=True) as archive, archive.reading() as reading:
        assert (reading.oldest, reading.newest) == (min(states), max(states))
        for revision, content in states.items():
            snapshot = reading.snapshot(revision)
            assert {element.key: element.value for element in snapshot} == content
            assert len(snapshot) == len(content)
            assert [*snapshot.tree.check()] == []
        for group in reading.groups():
            digest = recompute(reading.snapshot(group.revision), "values")
            assert digest.to_bytes(32, "big") == group.digest
        with pytest.raises(FutureRevision):
            reading.snapshot(reading.newest + 1)
        with pytest.raises(Compacted):
            reading.snapshot(reading.oldest - 1)


def test_the_file_is_private(tmp_path: Path) -> None:
    uri = str(tmp_path / "archive")
    with Archive.open(uri) as archive:
        Store(archive=archive.history()).put(b"a", b"secret")
        archive.flush()
        archive.pack()
        for path in tmp_path.iterdir():
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600, path
