"""Watchers: every event once, in order, whole revisions; marks behind the events they promise."""

from __future__ import annotations

import pytest

from etcdsim.errors import ErrCompacted, ErrEmptyWatcherRange
from etcdsim.model import Event, Model
from etcdsim.prng import Prng
from etcdsim.txn import DeleteRange, Put
from etcdsim.watch import Watcher, WatchResponse

ALL = (b"\0", b"\0")


def written(seed: int, revisions: int) -> Model:
    model, prng = Model(), Prng(seed)
    while model.revision < revisions:
        write(model, prng)
    return model


def write(model: Model, prng: Prng) -> None:
    keys = [b"k%d" % prng.below(12) for _ in range(1 + prng.below(3))]
    ops = [Put(k, b"v") if prng.chance(0.7) else DeleteRange(k) for k in dict.fromkeys(keys)]
    model.txn([], ops)


def drain(watcher: Watcher) -> list[WatchResponse]:
    return list(iter(watcher.poll, None))


def revisions_of(response: WatchResponse) -> list[int]:
    return sorted({event.kv.mod_revision for event in response.events})


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("prev_kv", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_the_events_are_those_of_the_log(seed: int, prev_kv: bool, batch: int) -> None:
    model, prng = written(seed, 60), Prng(seed)
    start = 1 + prng.below(60)
    watcher = Watcher(model, b"k2", b"k8", start, prev_kv, batch_revisions=batch)
    responses: list[WatchResponse] = []
    for _ in range(80):
        write(model, prng)
        if prng.chance(0.3):
            watcher.request_progress()
        if prng.chance(0.4):
            responses += drain(watcher)
    responses += drain(watcher)
    expected: list[Event] = []
    for _, events in model.events(start, model.revision + 1, b"k2", b"k8", prev_kv):
        expected += events
    assert [event for response in responses for event in response.events] == expected

    delivered = promised = 0
    for response in responses:
        if response.progress:
            assert response.header_revision >= promised
            promised = response.header_revision
            continue
        first, *_, last = [0, *revisions_of(response)][1:] * 2
        assert first > max(delivered, promised)  # no revision split, none after its mark
        assert last <= response.header_revision
        delivered = last


def test_a_mark_is_right_about_what_was_delivered() -> None:
    model, prng = written(1, 30), Prng(1)
    watcher = Watcher(model, *ALL, 10)
    watcher.request_progress()
    model.put(b"later", b"")
    batch, mark, live = drain(watcher)
    assert revisions_of(batch) == list(range(10, 31))
    assert mark == WatchResponse(30, progress=True)
    assert revisions_of(live) == [31]
    watcher.request_progress()
    watcher.request_progress()
    assert drain(watcher) == [WatchResponse(31, progress=True)]
    write(model, prng)


def test_a_watcher_that_was_behind_gets_batches_and_then_single_revisions() -> None:
    model = written(2, 30)
    watcher = Watcher(model, *ALL, 2, batch_revisions=12)
    assert [(r.header_revision, len(revisions_of(r))) for r in drain(watcher)] == [
        (30, 12), (30, 12), (30, 5),
    ]  # fmt: skip
    model.put(b"x", b"")
    model.put(b"y", b"")
    assert [(r.header_revision, revisions_of(r)) for r in drain(watcher)] == [
        (31, [31]), (32, [32]),
    ]  # fmt: skip


def test_from_now_and_from_the_future() -> None:
    model = written(3, 10)
    now, future = Watcher(model, *ALL, 0), Watcher(model, *ALL, 13)
    future.request_progress()
    for _ in range(3):
        model.put(b"x", b"")
    assert [revisions_of(r) for r in drain(now)] == [[11], [12], [13]]
    assert [revisions_of(r) for r in drain(future)] == [[13]]


def test_prev_kv_is_absent_where_it_was_compacted() -> None:
    model = Model()
    for value in (b"a", b"b", b"c"):
        model.put(b"k", value)
    model.compact(3)
    (response,) = drain(Watcher(model, b"k", b"", 3, prev_kv=True))
    first, second = response.events
    assert first.prev_kv is None
    assert second.prev_kv is not None
    assert second.prev_kv.value == b"b"


def test_compaction_cancels_a_watch_that_is_behind() -> None:
    model = written(4, 40)
    behind, at = Watcher(model, *ALL, 20), Watcher(model, *ALL, 25)
    done = Watcher(model, *ALL, 20)
    drain(done)
    model.compact(25)
    done.request_progress()
    behind.request_progress()
    assert drain(behind) == [WatchResponse(0, compact_revision=25, canceled=True)]
    assert not behind.is_open
    assert revisions_of(drain(at)[0])[0] == 25
    assert drain(done) == [WatchResponse(40, progress=True)]
    assert drain(Watcher(model, *ALL, 24))[0].canceled


def test_refused_watches_and_closed_ones() -> None:
    model = written(5, 10)
    with pytest.raises(ErrCompacted):
        Watcher(model, *ALL, -1)
    with pytest.raises(ErrEmptyWatcherRange):
        Watcher(model, b"b", b"a", 0)
    watcher = Watcher(model, b"", b"\0", 2)
    watcher.close()
    watcher.close()
    watcher.request_progress()
    assert drain(watcher) == []
