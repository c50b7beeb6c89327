"""Store: etcd's semantics without an etcd."""

from __future__ import annotations

import json
import threading
from random import Random

import pytest

from btreecache import (
    BadRequest,
    Bounds,
    Compacted,
    Conflict,
    Delete,
    ListOptions,
    Put,
    SourceError,
    Store,
)
from btreecache.codec import Kubernetes, strip_managed_fields
from btreecache.index import label_index
from btreecache.reader import Reader


def test_revisions_versions_and_what_changes_nothing() -> None:
    store = Store()
    assert store.revision == 1
    assert store.put(b"a", b"1") == 2
    assert store.put(b"a", b"2") == 3
    assert store.delete(b"nope") == 3
    assert store.txn([]) == 3
    assert store.delete(b"a") == 4
    assert store.put(b"a", b"3") == 5
    found = store.get(b"a")
    assert found is not None
    assert (found.mod_revision, found.create_revision, found.version) == (5, 5, 1)
    older = store.get(b"a", 3)
    assert older is not None
    assert (older.mod_revision, older.create_revision, older.version) == (3, 2, 2)


def test_a_transaction_is_one_revision_and_one_batch() -> None:
    store = Store()
    store.put(b"old", b"")
    watcher = store.watch()
    revision = store.txn([Put(b"b", b"1"), Delete(b"old"), Delete(b"old"), Put(b"a", b"2")])
    found = watcher.receive(0)
    assert found is not None
    assert (found.revision, [event.key for event in found.events]) == (
        revision,
        [b"b", b"old", b"a"],
    )
    assert watcher.receive(0) is None


@pytest.mark.parametrize(
    "writes",
    [
        [Put(b"", b"")],
        [Delete(b"")],
        [Put(b"a", b"1"), Put(b"a", b"2")],
        [Put(b"a", b"1"), Delete(b"a")],
        [Delete(b"a"), Put(b"a", b"1")],
    ],
)
def test_a_refused_transaction_writes_nothing(writes: list[Put | Delete]) -> None:
    store = Store()
    store.put(b"a", b"0")
    with pytest.raises(BadRequest):
        store.txn([Put(b"first", b""), *writes])
    assert (store.revision, len(store.snapshot())) == (2, 1)


def test_expect_guards_creates_updates_and_deletes() -> None:
    store = Store()
    revision = store.put(b"a", b"1", expect=0)
    with pytest.raises(Conflict) as caught:
        store.put(b"a", b"2", expect=0)
    assert (caught.value.expected, caught.value.found) == (0, revision)
    assert store.put(b"a", b"2", expect=revision) == revision + 1
    with pytest.raises(Conflict):
        store.delete(b"a", expect=revision)
    with pytest.raises(Conflict):
        store.txn([Put(b"b", b"")], expect={b"a": revision + 1, b"b": 7})
    assert store.get(b"b") is None


def test_compaction() -> None:
    store = Store(bounds=Bounds(age_s=None))
    for _ in range(10):
        store.put(b"a", b"")
    store.compact(6)
    with pytest.raises(Compacted):
        store.snapshot(5)
    assert store.snapshot(6).revision == 6


def test_every_revision_equals_a_dict_kept_beside_it() -> None:
    rng = Random(1)
    store, model, history = Store(bounds=Bounds(age_s=None)), {}, {1: {}}  # type: ignore[var-annotated]
    for step in range(2000):
        keys = {b"%d" % rng.randrange(120) for _ in range(rng.randrange(1, 6))}
        writes: list[Put | Delete] = []
        for key in sorted(keys):
            if rng.random() < 0.4:
                writes.append(Delete(key))
                model.pop(key, None)
            else:
                writes.append(Put(key, b"%d" % step))
                model[key] = b"%d" % step
        history[store.txn(writes)] = dict(model)
    for revision, state in history.items():
        assert {kept.key: kept.value for kept in store.snapshot(revision)} == state


def test_writers_take_turns() -> None:
    store = Store()

    def count() -> None:
        for _ in range(200):
            while True:
                found = store.get(b"n")
                value = int(found.value) if found else 0
                try:
                    store.put(b"n", b"%d" % (value + 1), expect=found.mod_revision if found else 0)
                    break
                except Conflict:
                    continue

    writers = [threading.Thread(target=count) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = store.get(b"n")
    assert found is not None
    assert (found.value, found.version, store.revision) == (b"800", 800, 801)


def test_a_store_reads_what_is_put_through_its_codec() -> None:
    codec = Kubernetes()
    store = Store(codec=codec, indexes=[label_index("app")], transform=strip_managed_fields)
    metadata = {"name": "x", "labels": {"app": "a"}, "managedFields": [{"manager": "m"}]}
    value = json.dumps({"kind": "Node", "apiVersion": "v1", "metadata": metadata}).encode()
    first = store.put(b"/nodes/x", value)
    store.put(b"/nodes/x", value.replace(b'"a"', b'"b"'))
    store.put(b"/nodes/bad", b"{")
    kept = store.get(b"/nodes/x", first)
    assert kept is not None
    assert json.loads(kept.value)["metadata"] == {
        "name": "x", "labels": {"app": "a"}, "resourceVersion": str(first),
    }  # fmt: skip
    assert list(store.unreadable) == [b"/nodes/bad"]
    of_b = ListOptions(label_selector="app=b")
    with pytest.raises(SourceError, match="/nodes/bad"):
        Reader(store, codec=codec).list(of_b, b"/nodes/")
    store.delete(b"/nodes/bad")
    found = Reader(store, codec=codec).list(of_b, b"/nodes/")
    assert [element.key for element in found.elements] == [b"/nodes/x"]
    (batch,) = [*store.state.readable().batches(first, first + 1)]
    assert batch.events[0].previous is kept
