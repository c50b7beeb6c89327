"""Cache: what it serves, what it refuses, who it wakes."""

from __future__ import annotations

import threading

import pytest

from btreecache import (
    BadRequest,
    Batch,
    Bounds,
    Cache,
    Compacted,
    Element,
    FeedFault,
    FutureRevision,
    NotReady,
    Progress,
)
from tests.fakes import Clock, batch, delete, element, put


def filled(bounds: Bounds | None = None) -> Cache:
    cache = Cache(b"", bounds=bounds)
    cache.replace(10, [element(b"a", b"a3", 3), element(b"b", b"b9", 9)])
    return cache


def content(cache: Cache, revision: int | None = None) -> dict[bytes, bytes]:
    return {kept.key: kept.value for kept in cache.snapshot(revision)}


def test_nothing_is_served_before_the_first_fill() -> None:
    cache = Cache()
    assert (cache.ready, cache.revision, cache.oldest) == (False, 0, 0)
    for read in (cache.snapshot, cache.list, cache.watch, lambda: cache.get(b"a")):
        with pytest.raises(NotReady):
            read()
    with pytest.raises(NotReady):
        cache.apply(batch(1, put(b"a", b"", 1)))


def test_each_revision_stays_readable() -> None:
    cache = filled()
    cache.apply(batch(11, put(b"c", b"c11", 11)))
    cache.apply(batch(13, put(b"a", b"a13", 13, created=3, version=2), delete(b"b")))
    cache.progress(Progress(20))
    assert content(cache, 10) == {b"a": b"a3", b"b": b"b9"}
    assert content(cache, 11) == content(cache, 12) == {b"a": b"a3", b"b": b"b9", b"c": b"c11"}
    assert content(cache, 13) == content(cache) == {b"a": b"a13", b"c": b"c11"}
    assert cache.revision == cache.list().revision == 20
    assert cache.get(b"a", 12) == element(b"a", b"a3", 3)
    assert cache.get(b"b") is None
    with pytest.raises(Compacted):
        cache.get(b"a", 9)
    with pytest.raises(FutureRevision):
        cache.get(b"a", 21)


def test_diff_between_two_revisions() -> None:
    cache = filled()
    cache.apply(batch(11, put(b"c", b"c11", 11)))
    cache.apply(batch(12, put(b"a", b"a12", 12, created=3, version=2), delete(b"b")))
    found = cache.diff(10, 12)
    assert [key for key, _ in found.added] == [b"c"]
    assert [key for key, _ in found.removed] == [b"b"]
    assert [(key, new.value) for key, _, new in found.changed] == [(b"a", b"a12")]


def test_pages_of_a_chain_concatenate_to_the_list_of_page_one() -> None:
    """I7, with writes between the pages that touch what is still to come and what was read."""
    cache = Cache()
    keys = [b"p/%03d" % i for i in range(50)]
    cache.replace(100, [element(b"o/x", b"", 1), *(element(key, b"v", 2) for key in keys)])
    for limit in (1, 7, 50, 51):
        whole = cache.list(b"p/").elements
        page = cache.list(b"p/", limit=limit)
        revision, read = page.revision, [*page.elements]
        while page.next_start:
            assert page.remaining == len(whole) - len(read)
            before = cache.revision + 1
            victim = cache.list(b"p/", start=page.next_start, limit=1).elements[0].key
            cache.apply(batch(before, delete(victim), put(b"p/new%d" % before, b"", before)))
            page = cache.list(b"p/", revision=revision, start=page.next_start, limit=limit)
            read += page.elements
        assert read == whole


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_must_be_positive(limit: int) -> None:
    with pytest.raises(BadRequest):
        filled().list(limit=limit)


def test_a_start_outside_the_prefix_is_refused() -> None:
    cache = filled()
    for start in (b"`", b"b\0"):
        with pytest.raises(BadRequest):
            cache.list(b"a", start=start)
    assert cache.list(b"a", start=b"a\xff").elements == []


def test_prefixes_that_end_in_ff() -> None:
    cache = Cache()
    keys = [b"\xfe", b"\xff", b"\xff\x00", b"\xff\xff", b"\xff\xff\xff"]
    cache.replace(5, [element(key, b"", 1) for key in keys])
    assert [kept.key for kept in cache.list(b"\xff").elements] == keys[1:]
    assert [kept.key for kept in cache.list(b"\xff\xff").elements] == keys[3:]
    assert cache.snapshot().count(b"\xff\xff") == 2
    assert [kept.key for kept in cache.list(b"").elements] == keys


class TestFeedFaults:
    """Each breach of the Source contract is named, recorded and stops what may be wrong."""

    @pytest.mark.parametrize(
        ("broken", "kind", "good"),
        [
            (batch(12, put(b"z", b"", 12)), "revision_repeated", 11),
            (batch(11, put(b"z", b"", 11)), "revision_went_back", 10),
            (batch(13, put(b"z", b"", 13)), "progress_ran_ahead", 12),
            (batch(15, put(b"z", b"", 15)), "progress_ran_ahead", 14),
            (batch(16, delete(b"z")), "unknown_key_deleted", 0),
            (batch(16, put(b"a", b"", 16, created=3, version=3)), "version_gap", 3),
            (batch(16, put(b"a", b"", 16)), "version_gap", 3),
            (batch(16, put(b"a", b"", 16, created=14, version=2)), "version_gap", 3),
            (batch(16, put(b"z", b"", 16, created=14, version=2)), "version_gap", 13),
            (batch(16, put(b"z", b"", 15)), "misplaced_event", 15),
            (batch(16, put(b"z", b"", 16, created=16, version=2)), "misplaced_event", 15),
            (batch(16, put(b"z", b"", 16, created=15, version=1)), "misplaced_event", 15),
            (batch(16, put(b"a", b"", 16, created=3, version=2), delete(b"a")),
             "key_repeated", 15),
        ],
    )  # fmt: skip
    def test_broken_batches(self, broken: Batch, kind: str, good: int) -> None:
        cache = filled()
        cache.apply(batch(12, put(b"c", b"c12", 12)))
        cache.progress(Progress(15))
        before = content(cache)
        with pytest.raises(FeedFault) as caught:
            cache.apply(broken)
        assert (caught.value.kind, caught.value.good) == (kind, good)
        assert [fault.kind for fault in cache.feed_faults] == [kind]
        assert not cache.consistent
        assert not cache.ready
        for revision in range(cache.oldest, 16):
            if revision > good:
                with pytest.raises(NotReady):
                    cache.snapshot(revision)
            else:
                assert content(cache, revision) == (
                    before if revision >= 12 else content(cache, 10)
                )
        assert cache.suspect is not None
        assert cache.suspect.revision == 12
        cache.replace(30, [element(b"a", b"new", 30)])
        assert cache.ready
        assert content(cache) == {b"a": b"new"}
        assert cache.oldest == 30

    def test_a_key_changes_at_most_once_in_a_batch(self) -> None:
        """Even where its versions fit. The same event object twice is no better."""
        first = put(b"z", b"1", 11)
        after = put(b"z", b"2", 11, created=11, version=2)
        other = put(b"y", b"", 11)
        for events in ([first, after], [first, other, after], [first, delete(b"z")], [first] * 2):
            cache = filled()
            with pytest.raises(FeedFault, match="key_repeated") as caught:
                cache.apply(batch(11, *events))
            assert (caught.value.key, caught.value.good) == (b"z", 10)
            assert content(cache, 10) == {b"a": b"a3", b"b": b"b9"}
        cache.replace(10, [])
        cache.apply(batch(11, first, other))
        assert content(cache) == {b"y": b"", b"z": b"1"}

    def test_a_mark_that_takes_back_a_promise(self) -> None:
        cache = filled()
        cache.progress(Progress(20))
        cache.progress(Progress(20))
        with pytest.raises(FeedFault, match="progress_went_back"):
            cache.progress(Progress(19))
        with pytest.raises(NotReady):
            cache.snapshot(20)
        assert content(cache, 19)

    def test_a_foreign_key(self) -> None:
        cache = Cache(b"p/")
        cache.replace(1, [element(b"p/a", b"", 1)])
        with pytest.raises(FeedFault, match="foreign_key"):
            cache.apply(batch(2, put(b"q/a", b"", 2)))

    @pytest.mark.parametrize("keys", [[b"p/b", b"p/a"], [b"p/a", b"p/a"], [b"p/a", b"q/a"], [b"o"]])
    def test_a_broken_list_keeps_what_was_there(self, keys: list[bytes]) -> None:
        cache = Cache(b"p/")
        cache.replace(1, [element(b"p/x", b"", 1)])
        with pytest.raises(FeedFault):
            cache.replace(5, [element(key, b"", 1) for key in keys])
        assert cache.oldest == 1
        assert not cache.ready

    def test_nothing_of_a_faulty_batch_is_applied(self) -> None:
        cache = filled()
        held = cache.state
        with pytest.raises(FeedFault):
            cache.apply(batch(11, put(b"a", b"half", 11, created=3, version=2), delete(b"nope")))
        assert held.at(10).get(b"a") == element(b"a", b"a3", 3)
        assert cache.stats().applied_batches == 0

    def test_versions_are_not_checked_where_the_source_has_none(self) -> None:
        cache = Cache()
        cache.replace(1, [Element(b"a", b"", 1, 1, 0)])
        cache.apply(batch(2, put(b"a", b"2", 2, created=0, version=0)))
        assert content(cache) == {b"a": b"2"}


class TestWatching:
    def test_from_a_retained_revision_then_live(self) -> None:
        cache = filled()
        cache.apply(batch(11, put(b"c", b"c11", 11)))
        watcher = cache.watch(after=10)
        cache.apply(batch(12, delete(b"c"), put(b"d", b"d12", 12)))
        first, second = watcher.receive(0), watcher.receive(0)
        assert first is not None
        assert second is not None
        assert (first.revision, second.revision) == (11, 12)
        assert [event.key for event in second.events] == [b"c", b"d"]
        assert second.events[0].is_delete
        assert second.events[0].previous == element(b"c", b"c11", 11)
        assert watcher.receive(0) is None
        assert watcher.receive(0.01) is None
        assert cache.watch().receive(0) is None

    def test_only_its_prefix(self) -> None:
        cache = filled()
        watcher = cache.watch(prefix=b"c")
        cache.apply(batch(11, put(b"x", b"", 11)))
        cache.apply(batch(12, put(b"c1", b"", 12), put(b"x2", b"", 12)))
        found = watcher.receive(0)
        assert found is not None
        assert [event.key for event in found.events] == [b"c1"]
        assert watcher.receive(0) is None
        assert watcher.position == 12

    def test_evicted_under_it(self) -> None:
        cache = filled(Bounds(revisions=2))
        watcher = cache.watch(after=10)
        for revision in range(11, 20):
            cache.apply(batch(revision, put(b"k%d" % revision, b"", revision)))
        with pytest.raises(Compacted):
            watcher.receive(0)
        with pytest.raises(Compacted):
            cache.watch(after=10)
        assert cache.watch(after=17).receive(0) is not None

    def test_a_resynchronisation_ends_every_watcher(self) -> None:
        cache = filled()
        behind, level, ahead = cache.watch(after=10), cache.watch(), cache.watch(after=99)
        cache.replace(10, [])
        for watcher in (behind, level, ahead):
            with pytest.raises(Compacted):
                watcher.receive(0)

    def test_with_as_batch_it_gets_the_net_change(self) -> None:
        cache = filled()
        watcher = cache.watch()
        cache.replace(30, [element(b"b", b"b30", 30), element(b"c", b"c20", 20)], as_batch=True)
        found = watcher.receive(0)
        assert found is not None
        assert found.synthetic
        assert {event.key: event.is_delete for event in found.events} == {
            b"a": True, b"b": False, b"c": False,
        }  # fmt: skip
        with pytest.raises(Compacted):
            cache.snapshot(29)
        assert content(cache, 30) == {b"b": b"b30", b"c": b"c20"}
        assert content(cache) == {b"b": b"b30", b"c": b"c20"}

    def test_suspect_batches_are_not_handed_out(self) -> None:
        cache = filled()
        cache.apply(batch(11, put(b"c", b"", 11)))
        cache.apply(batch(12, put(b"d", b"", 12)))
        watcher = cache.watch(after=10)
        with pytest.raises(FeedFault):
            cache.apply(batch(12, put(b"d", b"", 12)))
        assert watcher.receive(0) is not None
        assert watcher.receive(0) is None

    def test_a_blocked_reader_is_woken_and_a_closed_cache_ends_it(self) -> None:
        cache = filled()
        seen: list[int] = []

        def read() -> None:
            seen.extend(found.revision for found in cache.watch(after=10))

        reader = threading.Thread(target=read)
        reader.start()
        for revision in range(11, 61):
            cache.apply(batch(revision, put(b"k%d" % revision, b"", revision)))
        assert cache.wait_for(60, timeout_s=5).revision == 60
        while len(seen) < 50:
            reader.join(0.001)
        cache.close()
        reader.join(5)
        assert not reader.is_alive()
        assert seen == [*range(11, 61)]


class TestWaiting:
    def test_wait_for_is_woken_by_a_batch_and_by_a_mark(self) -> None:
        for news in (lambda: cache.apply(batch(15, put(b"z", b"", 15))),
                     lambda: cache.progress(Progress(15))):  # fmt: skip
            cache = filled()
            timer = threading.Timer(0.02, news)
            timer.start()
            assert cache.wait_for(15, timeout_s=5).revision == 15
            timer.join()

    def test_timeout_says_how_far_it_got(self) -> None:
        with pytest.raises(FutureRevision) as caught:
            filled().wait_for(11, timeout_s=0.01)
        assert caught.value.current == 10

    def test_close_ends_a_wait(self) -> None:
        cache = filled()
        timer = threading.Timer(0.02, cache.close)
        timer.start()
        with pytest.raises(NotReady, match="closed"):
            cache.wait_for(11, timeout_s=5)
        timer.join()


def test_bounds_and_compaction_hold_while_applying() -> None:
    clock = Clock()
    cache = Cache(bounds=Bounds(age_s=10.0), now=clock)
    cache.replace(1, [])
    for revision in range(2, 50):
        clock.now_s += 1.0
        cache.apply(batch(revision, put(b"k%d" % revision, b"", revision)))
    assert cache.oldest == 39
    cache.compact(45)
    assert (cache.oldest, len(cache.snapshot(45))) == (45, 44)
    with pytest.raises(Compacted):
        cache.snapshot(44)
    clock.now_s += 100.0
    assert cache.age_s == 100.0
    cache.progress(Progress(60))
    assert (cache.oldest, cache.revision) == (49, 60)


@pytest.mark.parametrize("verify_level", ["", "0", "1", "all"])
def test_verification_sees_a_published_snapshot_change(
    verify_level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I3: a snapshot written to after it was published is caught at the levels that look."""
    monkeypatch.setenv("BTREECACHE_VERIFY", verify_level)
    half = 30 if verify_level == "all" else 300
    cache = filled()
    for revision in range(11, half):
        cache.apply(batch(revision, put(b"k%d" % revision, b"", revision)))
    leaf = cache.snapshot(10).tree._root
    leaf.entries = (element(b"a", b"tampered", 4), *leaf.entries[1:])
    try:
        for revision in range(half, 2 * half):
            cache.apply(batch(revision, put(b"k%d" % revision, b"", revision)))
        caught = False
    except AssertionError as error:
        caught = "I3" in str(error)
    assert caught == (verify_level in ("1", "all"))


def test_an_unknown_verify_level_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTREECACHE_VERIFY", "yes")
    with pytest.raises(ValueError, match="BTREECACHE_VERIFY"):
        Cache()


def test_a_waiting_watcher_hears_at_once_that_a_suspect_batch_was_replaced() -> None:
    """It slept until its own timeout, or for ever, after a resynchronisation with as_batch."""
    cache = Cache()
    cache.replace(10, [element(b"a/1", b"", 3)])
    watcher = cache.watch(prefix=b"a/")
    cache.apply(batch(12, put(b"a/2", b"", 12)))
    cache.apply(batch(13, put(b"b/1", b"", 13)))
    with pytest.raises(FeedFault):
        cache.apply(batch(14, put(b"a/1", b"", 14, created=3, version=3)))
    woken = threading.Event()
    watcher.add_waiter(woken.set)
    cache.replace(20, [element(b"a/1", b"", 14, 3, 3)], as_batch=True)
    assert woken.is_set()
    with pytest.raises(Compacted):
        watcher.receive(0)


def test_a_batch_from_before_the_close_is_still_received() -> None:
    cache = Cache()
    cache.replace(10, [])
    watcher = cache.watch()
    cache.apply(batch(11, put(b"a", b"", 11)))
    cache.close()
    assert [found.revision for found in watcher] == [11]
