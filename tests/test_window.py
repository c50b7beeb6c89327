"""Window: reads between revisions, bounds, compaction, and readers that hold an old one."""

from __future__ import annotations

from random import Random

import pytest

from btreecache import Compacted, FutureRevision, Tree
from btreecache.window import SEGMENT_ENTRIES, Bounds, Window
from tests.fakes import batch, element, put

NO_BOUNDS = Bounds(age_s=None)


def grow(window: Window, revisions: list[int], each_bytes: int = 10) -> Window:
    for revision in revisions:
        tree = window.newest.set(b"key", element(b"key", b"%d" % revision, revision))
        change = batch(revision, put(b"key", b"%d" % revision, revision))
        window = window.append(change, tree, float(revision), each_bytes)
    return window


def start(revision: int = 1) -> Window:
    return Window.of(revision, Tree(), float(revision))


def value_at(window: Window, revision: int) -> int:
    found = window.at(revision).get(b"key")
    return int(found.value) if found else 0


def test_reads_between_revisions_see_the_one_below() -> None:
    window = grow(start(2), [5, 9]).progress(20)
    assert [value_at(window, r) for r in (2, 4, 5, 8, 9, 20)] == [0, 0, 5, 5, 9, 9]
    with pytest.raises(Compacted) as old:
        window.at(1)
    assert (old.value.revision, old.value.oldest) == (1, 2)
    with pytest.raises(FutureRevision) as new:
        window.at(21)
    assert (new.value.revision, new.value.current) == (21, 20)


@pytest.mark.parametrize(
    "length", [1, 2, SEGMENT_ENTRIES - 1, SEGMENT_ENTRIES, 3 * SEGMENT_ENTRIES]
)
def test_every_revision_reads_right_across_segments(length: int) -> None:
    window = grow(start(1), [10 * i for i in range(1, length + 1)])
    assert len(window) == length + 1
    for revision in range(1, 10 * length + 1):
        assert value_at(window, revision) == revision // 10 * 10


def test_revision_bound_keeps_the_newest_and_reads_from_its_oldest() -> None:
    window = grow(start(1), list(range(2, 1000))).evict(Bounds(age_s=None, revisions=300), 0.0)
    assert len(window) == 300
    assert [*window.revisions()] == list(range(700, 1000))
    assert value_at(window, 700) == 700
    with pytest.raises(Compacted):
        window.at(699)
    assert len(window.evict(Bounds(age_s=None, revisions=1), 0.0)) == 1


def test_age_bound_keeps_what_was_current_within_the_age() -> None:
    # Revision 40 was current until 50, so at time 75 with 30 s of history it is still needed.
    window = grow(start(1), [10, 20, 30, 40, 50, 60]).evict(Bounds(age_s=30.0), 75.0)
    assert [*window.revisions()] == [40, 50, 60]
    assert [*grow(start(1), [10]).evict(Bounds(age_s=1.0), 1e9).revisions()] == [10]


def test_byte_bound_counts_what_eviction_sets_free() -> None:
    window = grow(start(1), list(range(2, 102)), each_bytes=10)
    assert window.retained_bytes == 1000
    for ceiling in (0, 9, 10, 555, 999, 1000):
        evicted = window.evict(Bounds(age_s=None, bytes=ceiling), 0.0)
        assert evicted.retained_bytes <= ceiling
        assert evicted.retained_bytes > ceiling - 10 or len(evicted) == 1


def test_compaction_keeps_the_floor_snapshot_of_a_quiet_prefix() -> None:
    """I8, and what Kubernetes loses: nothing was written since 9, compacted at 15."""
    window = grow(start(1), [5, 9]).progress(30).compact(15)
    assert value_at(window, 15) == 9
    assert value_at(window, 30) == 9
    with pytest.raises(Compacted) as caught:
        window.at(14)
    assert caught.value.oldest == 15
    assert window.compact(3) is window
    with pytest.raises(FutureRevision):
        window.compact(31)


def test_a_watch_may_start_at_the_compacted_revision_and_not_below() -> None:
    window = grow(start(1), [5, 9, 12]).compact(9)
    assert window.watch_floor == 8
    found = window.batch_after(8)
    assert found is not None
    assert found.revision == 9
    with pytest.raises(Compacted):
        window.batch_after(7)


def test_a_new_window_can_be_watched_from_its_list_on() -> None:
    window = grow(start(4), [5])
    with pytest.raises(Compacted):
        window.batch_after(3)
    found = window.batch_after(4)
    assert found is not None
    assert found.revision == 5
    assert window.batch_after(5) is None


def test_a_reader_keeps_its_window_whatever_the_writer_evicts() -> None:
    held = grow(start(1), list(range(2, 600)))
    after = grow(held, list(range(600, 1500))).evict(Bounds(age_s=None, revisions=10), 0.0)
    assert len(after) == 10
    assert [value_at(held, r) for r in (1, 300, 599)] == [0, 300, 599]
    assert held.current == 599
    assert held.batch_after(599) is None


def test_appending_to_an_old_window_is_refused() -> None:
    old = start(1)
    grow(old, [2])
    with pytest.raises(AssertionError, match="not the newest"):
        grow(old, [3])


def test_random_histories_equal_a_dict_per_revision() -> None:
    for seed in range(40):
        rng = Random(seed)
        window, model, oldest, revision = start(1), {1: 0}, 1, 1
        for _ in range(rng.randrange(1, 700)):
            revision += rng.randrange(1, 4)
            window = grow(window, [revision])
            model[revision] = revision
            if rng.random() < 0.02:
                oldest = max(oldest, rng.randrange(1, revision + 1))
                window = window.compact(oldest)
            if rng.random() < 0.02:
                window = window.evict(Bounds(age_s=None, revisions=rng.randrange(1, 400)), 0.0)
                oldest = window.oldest
        for asked in range(1, revision + 1):
            if asked < oldest:
                with pytest.raises(Compacted):
                    window.at(asked)
            else:
                assert value_at(window, asked) == model[max(r for r in model if r <= asked)]
