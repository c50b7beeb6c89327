"""Bugs that the machines found, each in the fewest steps."""

from __future__ import annotations

import pytest

from btreecache import Bounds, Cache, Compacted, FeedFault, Progress, Tree
from btreecache.window import GAPS_MAX, Window
from tests.fakes import Clock, batch, delete, element, put


def filled(bounds: Bounds | None = None) -> Cache:
    cache = Cache(bounds=bounds, now=Clock())
    cache.replace(10, [element(b"a", b"", 3)])
    return cache


def test_an_up_to_date_watcher_survives_eviction_where_revisions_have_gaps() -> None:
    """A window of one snapshot threw every watcher off at each revision that was not the next."""
    cache = filled(Bounds(revisions=1))
    watcher = cache.watch()
    for revision in (15, 22, 40):
        cache.apply(batch(revision, put(b"k%d" % revision, b"", revision)))
        found = watcher.receive(0)
        assert found is not None
        assert found.revision == revision
    cache.apply(batch(50, put(b"k50", b"", 50)))
    cache.apply(batch(60, put(b"k60", b"", 60)))
    with pytest.raises(Compacted):
        watcher.receive(0)


def test_a_scope_does_not_outlive_its_history() -> None:
    """A fresh list below the newest revision left a later watcher deaf to what came between."""
    cache = filled()
    old = cache.watch(prefix=b"")
    cache.apply(batch(70, put(b"b", b"", 70)))
    cache.replace(61, [element(b"a", b"", 3)])
    watcher = cache.watch(prefix=b"")
    cache.apply(batch(64, put(b"c", b"", 64)))
    found = watcher.receive(0)
    assert found is not None
    assert found.revision == 64
    with pytest.raises(Compacted):
        old.receive(0)


def test_the_watch_floor_after_eviction_is_the_last_batch_forgotten() -> None:
    window = Window.of(1, Tree(), 0.0)
    for revision in (5, 9, 20):
        window = window.append(batch(revision, delete(b"k")), Tree(), 0.0, 0)
    window = window.evict(Bounds(age_s=None, revisions=1), 0.0)
    assert (window.oldest, window.watch_floor) == (20, 9)
    found = window.batch_after(9)
    assert found is not None
    assert found.revision == 20
    with pytest.raises(Compacted):
        window.batch_after(8)


def test_a_suspect_batch_is_not_handed_out_after_the_resynchronisation_either() -> None:
    """on_gap="diff" let watchers that were behind read on through what the fault had spoiled."""
    cache = filled()
    behind, level = cache.watch(), cache.watch()
    cache.apply(batch(12, put(b"b", b"half of it", 12)))
    assert level.receive(0) is not None
    with pytest.raises(FeedFault):
        cache.apply(batch(12, put(b"c", b"the other half", 12)))
    cache.replace(20, [element(b"a", b"", 3), element(b"c", b"", 12)], as_batch=True)
    with pytest.raises(Compacted):
        behind.receive(0)
    with pytest.raises(Compacted):
        cache.watch(after=11)
    net = level.receive(0)
    assert net is not None
    assert [(event.key, event.is_delete) for event in net.events] == [(b"b", True), (b"c", False)]


def test_a_batch_before_the_suspect_ones_does_not_end_a_watcher_at_a_resynchronisation() -> None:
    """A fault in the marks alone spoils no batch: who is behind reads on."""
    cache = filled()
    behind = cache.watch()
    cache.apply(batch(12, put(b"b", b"", 12)))
    cache.progress(Progress(18))
    with pytest.raises(FeedFault):
        cache.progress(Progress(15))
    cache.replace(20, [element(b"a", b"", 3)], as_batch=True)
    received = [behind.receive(0), behind.receive(0)]
    assert [found.revision for found in received if found] == [12, 20]


def test_a_net_change_at_a_promised_revision_is_not_missed() -> None:
    """A watcher stood at 20 by an early mark; the list that mends it is of 20 too."""
    cache = filled()
    cache.progress(Progress(20))
    watcher = cache.watch()
    with pytest.raises(FeedFault, match="progress_ran_ahead"):
        cache.apply(batch(15, put(b"b", b"", 15)))
    cache.replace(20, [element(b"a", b"", 3), element(b"b", b"", 15)], as_batch=True)
    with pytest.raises(Compacted):
        watcher.receive(0)
    assert len(cache.snapshot(20)) == 2


def test_resynchronisations_as_batches_stay_within_the_bounds() -> None:
    cache = filled(Bounds(revisions=3))
    for revision in range(11, 31):
        cache.replace(revision, [element(b"a", b"", revision)], as_batch=True)
        assert cache.stats().snapshots <= 3
    assert cache.oldest == 30


def test_a_batch_without_events_is_not_handed_out() -> None:
    cache = filled()
    watcher = cache.watch()
    cache.replace(20, [element(b"a", b"", 3)], as_batch=True)
    assert watcher.receive(0) is None
    assert watcher.position == 20
    cache.apply(batch(21, delete(b"a")))
    found = watcher.receive(0)
    assert found is not None
    assert found.revision == 21


def test_a_watch_does_not_go_on_from_inside_a_gap() -> None:
    """What happened in it before the watch began was told again, what it undid never."""
    cache = filled()
    ahead = cache.watch(12, b"b")
    cache.replace(15, [element(b"a", b"", 3), element(b"c", b"", 11)], as_batch=True)
    with pytest.raises(Compacted):
        cache.watch(12)
    with pytest.raises(Compacted):
        ahead.receive(0)
    assert cache.watch(15).receive(0) is None
    found = cache.watch(10).receive(0)
    assert found is not None
    assert (found.revision, found.synthetic) == (15, True)


def test_who_waits_ahead_of_a_gap_is_woken_in_any_scope() -> None:
    cache, woken = filled(), list[bool]()
    ahead = cache.watch(12, b"b")
    ahead.add_waiter(lambda: woken.append(True))
    cache.replace(15, [element(b"a", b"", 3)], as_batch=True)
    assert woken
    with pytest.raises(Compacted):
        ahead.receive(0)


def test_of_many_gaps_the_oldest_are_told_as_one() -> None:
    window = Window.of(1, Tree(), 0.0)
    for base in range(10, 10 + 10 * (GAPS_MAX + 1), 10):
        window = window.with_gap(base, base + 5)
    assert len(window.gaps) == GAPS_MAX
    assert window.in_gap(17)
    assert not window.in_gap(26)
    assert not window.in_gap(30)
    assert not window.in_gap(35)
    assert window.in_gap(34)
