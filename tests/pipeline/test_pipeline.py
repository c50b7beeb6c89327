"""The benchmark measures what it says: small runs of every row; what the collector has to see."""

from __future__ import annotations

import gc

import pytest

from btreecache.event import Batch
from btreecache.sources.etcd import _event
from etcdsim import wire
from tests.pipeline import measure
from tests.pipeline.traffic import PREFIX, Traffic


def apply_all(traffic: Traffic, cache: measure.Cache, events: int) -> None:
    for raw in traffic.responses(events, 50):
        for wired in wire.WatchResponse.FromString(raw).events:
            event, revision = _event(wired)
            cache.apply(Batch(revision, (event,)))


def test_traffic_keeps_the_feeds_contract() -> None:
    """No feed fault, even where a key is written more than 256 times."""
    traffic = Traffic(5)
    cache = measure.loaded(traffic)
    assert [kept.key for kept in cache.list(PREFIX).elements] == [traffic.key(i) for i in range(5)]
    apply_all(traffic, cache, 2_000)
    assert sum(kept.version - 1 for kept in cache.list().elements) == 2_000
    assert cache.stats().feed_faults == 0


def test_every_row_comes_out() -> None:
    rows = [
        measure.wire_to_window(200, 100, 1, 1),
        measure.wire_to_window(200, 100, 50, 1),
        measure.from_simulator(200, 100),
        measure.kubernetes_to_window(200, 100, 1, "JSON"),
        measure.kubernetes_to_window(200, 100, 1, "protobuf"),
        measure.load_and_update(500, 1_000),
    ]
    for row in rows:
        assert all(
            value > 0 for name, value in row.items() if "pause" not in name and name != "row"
        )


def test_pauses_sees_a_collection() -> None:
    with measure.Pauses() as pauses:
        gc.collect()
    gc.collect()
    assert pauses.count == 1
    assert pauses.longest_s > 0


def test_retained_revisions_are_nearly_nothing_to_the_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thousand more revisions: at most their trees, and a handful beside."""
    monkeypatch.setenv("BTREECACHE_VERIFY", "0")  # self-checks keep digests with nodes
    traffic = Traffic(2_000)
    cache = measure.loaded(traffic)
    apply_all(traffic, cache, 1_000)
    gc.collect()
    before = len(gc.get_objects())
    apply_all(traffic, cache, 1_000)
    gc.collect()
    trees = 1_000 if gc.is_tracked(cache.state.readable().newest) else 0
    assert len(gc.get_objects()) - before < trees + 50
