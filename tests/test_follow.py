"""Follower: what it does after each kind of trouble, step by step and as a thread."""

from __future__ import annotations

import threading
from random import Random

from btreecache import (
    Bounds,
    BtreecacheError,
    Cache,
    Compacted,
    Follower,
    Progress,
    SourceError,
    Unavailable,
)
from btreecache.backoff import Backoff
from tests.fakes import Clock, ScriptedSource, ScriptedStream, batch, element, put

FIRST = (10, [element(b"a", b"", 3)])
AGAIN = (30, [element(b"b", b"", 25)])


def follow(source: ScriptedSource, clock: Clock, **options: object) -> tuple[Cache, Follower]:
    cache = Cache(bounds=Bounds(age_s=None))
    return cache, Follower(source, cache, now=clock, **options)  # type: ignore[arg-type]


def run(follower: Follower, clock: Clock, steps: int = 30) -> None:
    """Step until nothing happens and no pause is due."""
    for _ in range(steps):
        if not follower.step():
            clock.now_s += 60.0


def test_lists_then_watches_after_the_list() -> None:
    clock = Clock()
    stream = ScriptedStream([batch(12, put(b"b", b"", 12)), Progress(15)])
    source = ScriptedSource([FIRST], [stream])
    cache, follower = follow(source, clock)
    run(follower, clock)
    assert (source.listed, source.watched_after) == (1, [10])
    assert (cache.revision, len(cache.snapshot())) == (15, 2)
    assert follower.trouble is None
    assert follower.request_progress()
    assert stream.progress_requests == 1
    follower.close()
    assert stream.closed


def test_a_lost_connection_resumes_after_what_was_applied() -> None:
    clock = Clock()
    for trouble in (Unavailable("gone"), SourceError("odd")):
        streams = [
            ScriptedStream([batch(12, put(b"b", b"", 12)), trouble]),
            ScriptedStream([batch(13, put(b"c", b"", 13)), Progress(14), trouble]),
            ScriptedStream([batch(20, put(b"d", b"", 20))]),
        ]
        source = ScriptedSource([FIRST], streams)
        cache, follower = follow(source, clock)
        run(follower, clock)
        assert source.watched_after == [10, 12, 14]
        assert source.listed == 1
        assert cache.oldest == 10
        assert all(stream.closed for stream in streams[:2])


def test_a_source_that_is_away_is_tried_again_for_list_and_watch() -> None:
    clock = Clock()
    source = ScriptedSource(
        [Unavailable("down"), Unavailable("down"), FIRST], [Unavailable("down"), ScriptedStream([])]
    )
    cache, follower = follow(source, clock)
    assert follower.step()
    assert isinstance(follower.trouble, Unavailable)
    assert not follower.step(), "it pauses before it tries again"
    run(follower, clock)
    assert cache.ready
    assert source.watched_after == [10, 10]


def test_a_compacted_position_or_a_broken_feed_lists_again() -> None:
    troubles: list[list[object]] = [
        [Compacted(11, 20)],
        [batch(12, put(b"b", b"", 12)), batch(12, put(b"b", b"", 12))],
        [Progress(20), batch(15, put(b"b", b"", 15))],
    ]
    for items in troubles:
        clock = Clock()
        source = ScriptedSource([FIRST, AGAIN], [ScriptedStream(items)])  # type: ignore[arg-type]
        cache, follower = follow(source, clock)
        run(follower, clock)
        assert source.listed == 2
        assert source.watched_after == [10, 30]
        assert cache.ready
        assert (cache.oldest, cache.revision) == (30, 30)
        assert len(cache.feed_faults) == (0 if isinstance(items[0], Compacted) else 1)


def test_a_list_compacted_half_way_is_begun_anew() -> None:
    def half() -> object:
        yield element(b"a", b"", 3)
        raise Compacted(10, 20)

    clock = Clock()
    source = ScriptedSource([(10, half()), AGAIN])  # type: ignore[list-item]
    cache, follower = follow(source, clock)
    run(follower, clock)
    assert (source.listed, cache.oldest) == (2, 30)


def test_on_gap_diff_hands_watchers_the_net_change() -> None:
    clock = Clock()
    source = ScriptedSource([FIRST, AGAIN], [ScriptedStream([Compacted(11, 20)])])
    cache, follower = follow(source, clock, on_gap="diff")
    follower.step()
    watcher = cache.watch()
    run(follower, clock)
    found = watcher.receive(0)
    assert found is not None
    assert found.synthetic
    assert {event.key for event in found.events} == {b"a", b"b"}


def test_pauses_double_up_to_the_ceiling_and_start_afresh() -> None:
    clock = Clock()
    backoff = Backoff(clock, Random(1), 0.05, 30.0)
    pauses = []
    for _ in range(14):
        backoff.fail()
        pauses.append(backoff.remaining_s())
        clock.now_s += pauses[-1]
        assert backoff.remaining_s() == 0
    for index, pause in enumerate(pauses):
        longest = min(0.05 * 2**index, 30.0)
        assert longest / 2 <= pause <= longest
    clock.now_s += 1000.0
    backoff.fail()
    assert backoff.remaining_s() <= 0.05


def test_streams_that_break_but_bring_the_cache_on_do_not_make_it_fall_behind() -> None:
    """Found by the `cancel` fault: each break doubled the pause, up to 30 s, while the cache was
    still catching up."""
    clock, trouble = Clock(), SourceError("broken off")
    useful = [
        ScriptedStream([batch(revision, put(b"%d" % revision, b"", revision)), trouble])
        for revision in range(11, 21)
    ]
    useless = [ScriptedStream([trouble]) for _ in range(5)]
    cache, follower = follow(ScriptedSource([FIRST], [*useful, *useless]), clock)
    pauses = []
    while len(pauses) < 15:
        if not follower.step():
            pauses.append(follower._backoff.remaining_s())
            clock.now_s += pauses[-1]
    assert cache.revision == 20
    assert max(pauses[:10]) <= 0.05
    assert pauses[14] > 0.4


def test_a_thread_follows_until_closed_and_leaves_nothing_behind() -> None:
    before = threading.active_count()
    stream = ScriptedStream([batch(12, put(b"b", b"", 12))])
    cache = Cache()
    with Follower(ScriptedSource([FIRST], [stream]), cache) as follower:
        assert cache.wait_for(12, timeout_s=5)
        follower.close()
        follower.close()
    assert stream.closed
    assert threading.active_count() == before
    assert cache.get(b"b") is not None


def test_what_a_source_raises_never_escapes_a_step() -> None:
    class Odd(BtreecacheError):
        pass

    clock = Clock()
    source = ScriptedSource([Odd("odd"), FIRST], [Odd("odd")])
    cache, follower = follow(source, clock)
    run(follower, clock)
    assert cache.ready


def test_a_cache_that_holds_a_state_is_followed_from_there() -> None:
    clock = Clock()
    source = ScriptedSource([AGAIN], [ScriptedStream([batch(12, put(b"b", b"", 12))])])
    cache = Cache(bounds=Bounds(age_s=None))
    cache.replace(*FIRST)
    run(Follower(source, cache, now=clock), clock)
    assert (source.listed, source.watched_after) == (0, [10])
    assert [element.key for element in cache.list().elements] == [b"a", b"b"]
    gone = ScriptedSource([AGAIN], [Compacted(15), ScriptedStream([])])
    run(Follower(gone, cache, now=clock), clock)
    assert (gone.listed, gone.watched_after) == (1, [12, 30])
