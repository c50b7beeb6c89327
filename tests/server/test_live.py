"""A simulator that writes while others read: what they read is what it wrote."""

from __future__ import annotations

import json
import threading
import time

import pytest

from btreecache.cache import Cache
from btreecache.cli.live import KEPT_REVISIONS, LiveSimulation
from btreecache.errors import Compacted, Unavailable
from btreecache.follow import Follower

TIMEOUT_S = 20.0


def test_followers_keep_up_with_the_writer() -> None:
    simulation = LiveSimulation("kubernetes", seed=3, objects=200, faults=[], writes_per_s=2_000)
    with simulation:
        source = simulation.source
        prefixes = [b"/registry/pods/", b"/registry/events/", b""]
        caches = [Cache(prefix) for prefix in prefixes]
        followers = [Follower(source, cache).start() for cache in caches]
        began = source.current_revision()
        deadline = time.monotonic() + TIMEOUT_S
        while source.current_revision() < began + 1_000:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        revision = source.current_revision()
        for cache, follower in zip(caches, followers, strict=True):
            while cache.revision < revision:
                assert time.monotonic() < deadline
                follower.request_progress()
                time.sleep(0.01)
            there = source.range_at(revision, cache.prefix).elements
            assert there == cache.list(revision=revision).elements
            follower.close()
    with pytest.raises(Unavailable):
        source.current_revision()
    assert not [one for one in threading.enumerate() if one.name == "btreecache-traffic"]


def test_old_revisions_are_compacted() -> None:
    simulation = LiveSimulation("hot_key", seed=1, objects=2, faults=[], writes_per_s=0)
    with simulation:
        first = simulation.source.current_revision()
        simulation.write(2 * KEPT_REVISIONS + 10)
        newest = simulation.source.current_revision()
        # One more, as API servers write down what they have compacted.
        assert newest == first + 2 * KEPT_REVISIONS + 11
        with pytest.raises(Compacted):
            simulation.source.range_at(first, b"")
        assert simulation.source.range_at(newest - KEPT_REVISIONS + 1, b"").count == 2


def test_the_same_seed_writes_the_same() -> None:
    found = []
    for seed in (5, 5, 6):
        with LiveSimulation("kubernetes", seed=seed, objects=50, faults=[], writes_per_s=0) as one:
            one.write(100)
            revision = one.source.current_revision()
            found.append(one.source.range_at(revision, b"").elements)
    assert found[0] == found[1] != found[2]


def test_what_it_cannot_be() -> None:
    for profile, objects, faults in (("no", 1, []), ("churn", 0, []), ("churn", 1, ["no=1"])):
        with pytest.raises(ValueError, match=r"\w"):
            LiveSimulation(profile, seed=0, objects=objects, faults=faults, writes_per_s=0)


def test_objects_are_as_old_as_the_time_of_day_says() -> None:
    day_s = 2_000_000_000.0
    with LiveSimulation(
        "cluster", seed=1, objects=20, faults=[], writes_per_s=0, wall_s=lambda: day_s
    ) as one:
        nodes = one.source.list(b"/registry/minions/").elements
        created = json.loads(nodes[0].value)["metadata"]["creationTimestamp"]
        assert created == "2033-05-18T02:33:20Z"  # an hour before
        one.write(1_000)
        newest = max(
            json.loads(found.value)["metadata"]["creationTimestamp"]
            for found in one.source.list(b"/registry/pods/").elements
        )
        assert newest >= "2033-05-18T03:33:20Z"
