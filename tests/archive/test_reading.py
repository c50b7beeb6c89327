"""What reading costs in memory, whose a reading is, and how much is written."""

from __future__ import annotations

import gc
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from btreecache import Cache, Element, Store
from btreecache.archive import Archive
from btreecache.archive.reading import Reading
from btreecache.archive.records import Branch, Leaf, Run
from btreecache.digest import recompute
from tests.fakes import batch, put

MB = 1 << 20


@pytest.fixture(scope="module")
def bulky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """20 MB in 1,200 elements."""
    uri = str(tmp_path_factory.mktemp("bulky") / "archive")
    with Archive.open(uri) as archive:
        cache = Cache(archive=archive.history())
        value = Random(0).randbytes(17_000)
        elements = [Element(b"/k/%04d" % i, b"%04d" % i + value, 1, 1, 1) for i in range(1_200)]
        cache.replace(1, elements)
        assert archive.flush()
        yield archive


def test_a_scan_of_everything_stays_within_the_budget(bulky: Archive) -> None:
    budget = 2 * MB
    with Reading(bulky._database, b"", cache_bytes=budget) as reading:
        total = 0
        tracemalloc.start()
        try:
            for _ in range(2):
                total += sum(len(element.value) for element in reading.snapshot())
                assert reading.nodes._used_bytes <= budget
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert total == 2 * 1_200 * 17_004
        # And one run that is being read, as a record and as elements.
        assert budget // 2 < peak < budget + MB
    # A run that is larger than the budget is read all the same.
    with Reading(bulky._database, b"", cache_bytes=1_000) as reading:
        assert len([*reading.snapshot()]) == 1_200


def test_what_was_read_is_let_go(bulky: Archive) -> None:
    """Nodes aren't seen by the garbage collector: a cycle through them would stay for ever."""
    with bulky.reading() as reading:
        snapshot = reading.snapshot()
        assert snapshot.get(b"/k/0007") is not None
        assert snapshot.digest("values") == recompute(snapshot, "values")
        kept = weakref.ref(reading.nodes)
    del reading, snapshot
    gc.collect()
    assert kept() is None


def elsewhere(look: Callable[[], object]) -> BaseException | None:
    """What another thread gets."""
    raised: list[BaseException | None] = []

    def run() -> None:
        try:
            look()
        except BaseException as error:
            raised.append(error)
        else:
            raised.append(None)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=10)
    return raised[0]


def test_a_reading_belongs_to_its_thread(bulky: Archive) -> None:
    with bulky.reading() as reading:
        snapshot = reading.snapshot()
        for look in (
            reading.refresh,
            reading.snapshot,
            lambda: reading.revision_at(1e12),
            lambda: snapshot.get(b"/k/0007"),
            lambda: [*snapshot],
            lambda: snapshot.digest("values"),
        ):
            error = elsewhere(look)
            assert isinstance(error, AssertionError), error
            assert "belongs to the thread" in str(error)
        assert snapshot.get(b"/k/0007") is not None
        # Handed over, it is the other one's.
        reading.take_over()
        assert elsewhere(lambda: (reading.take_over(), reading.refresh())) is None
        with pytest.raises(AssertionError, match="belongs to the thread"):
            snapshot.get(b"/k/0007")


def test_values_of_1_5_megabytes(tmp_path: Path) -> None:
    """As large as etcd takes them."""
    rng, states = Random(1), {}
    with Archive.open(str(tmp_path / "archive")) as archive:
        store = Store(archive=archive.history())
        for number in range(4):
            store.put(b"/k/%d" % (number % 3), rng.randbytes(3 * MB // 2))
            states[store.revision] = recompute(store.snapshot(), "values")
        assert archive.flush()
        with archive.reading() as reading:
            for revision, digest in states.items():
                assert recompute(reading.snapshot(revision), "values") == digest
    restored = Store(archive=(archive := Archive.open(str(tmp_path / "archive"))).history())
    assert recompute(restored.snapshot(), "values") == digest
    archive.close()


def records_below(root: Any, seen: dict[bytes, Any]) -> None:
    if root._p_oid in seen:
        return
    seen[root._p_oid] = root
    if isinstance(root, Branch):
        for child in root.state[2]:
            records_below(child, seen)
    elif isinstance(root, Leaf):
        seen.update({run._p_oid: run for run in root.state[2]})


def test_a_group_shares_what_did_not_change(tmp_path: Path) -> None:
    """One of 10,000 keys: a leaf, the branches above it, and a run."""
    with Archive.open(str(tmp_path / "archive")) as archive:
        cache = Cache(archive=archive.history())
        cache.replace(1, [Element(b"/k/%05d" % i, b"", 1, 1, 1) for i in range(10_000)])
        assert archive.flush()
        before = archive.size()[1]
        cache.apply(batch(2, put(b"/k/05000", b"", 2, 1, 2)))
        assert archive.flush()
        written = archive.size()[1] - before
        with archive.reading() as reading:
            first, second = [*reading.groups()][-2:]
            old: dict[bytes, Any] = {}
            new: dict[bytes, Any] = {}
            records_below(first.root, old)
            records_below(second.root, new)
            own = [new[oid] for oid in new.keys() - old.keys()]
            height = second.root.state[0]
            assert sorted(type(record).__name__ for record in own) == [
                *["Branch"] * height, "Leaf", "Run",
            ]  # fmt: skip
            assert len(new) > 300
            assert written == len(own) + 2  # the group and its log


def test_many_small_updates_keep_little_garbage_alive(tmp_path: Path) -> None:
    """What is reachable from one checkpoint is at most twice what it holds, and a run a leaf."""
    with Archive.open(str(tmp_path / "archive"), group_revisions=20) as archive:
        store, rng = Store(archive=archive.history()), Random(2)
        for _ in range(800):
            store.put(b"/k/%03d" % rng.randrange(60), rng.randbytes(rng.choice([10, 20_000])))
        assert archive.flush()
        with archive.reading() as reading:
            *_, last = reading.groups()
            found: dict[bytes, Any] = {}
            records_below(last.root, found)
            stored = sum(
                len(each.value)
                for record in found.values()
                if isinstance(record, Run)
                for each in record.state
            )
            leaves = sum(isinstance(record, Leaf) for record in found.values())
            held = sum(len(element.value) for element in reading.snapshot())
            assert held < stored < 2 * held + leaves * (64 << 10)
            written = sum(group.size_bytes for group in reading.groups())
            assert written < 3 * 800 * 10_000
