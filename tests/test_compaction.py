"""Compaction: what the source has forgotten, from its key and from its refusals."""

from __future__ import annotations

import time

import pytest

from btreecache import Bounds, Cache, Compacted, Follower, ListOptions, Progress, Unavailable
from btreecache.compaction import KEY, Compaction
from btreecache.reader import Reader
from btreecache.sources.simulated import SimulatedSource
from etcdsim.model import Model
from etcdsim.simulator import Truth
from tests.fakes import Clock, ScriptedSource, ScriptedStream, element


class World:
    """A model with pods, a cache that follows it, and what is known of its compaction."""

    def __init__(self) -> None:
        self.clock, self.model = Clock(), Model()
        self.source = SimulatedSource(Truth(self.model), "model")
        self.compaction = Compaction(self.source, now=self.clock)
        self.cache = Cache(b"/pods/", bounds=Bounds(age_s=None), now=self.clock)
        self.follower = Follower(
            self.source, self.cache, compaction=self.compaction, now=self.clock
        )  # fmt: skip

    def settle(self) -> None:
        for _ in range(20):
            self.compaction.step()
            self.follower.step()
        self.clock.now_s += 60

    def write(self, count: int) -> int:
        for at in range(count):
            self.model.put(b"/pods/%d" % (at % 3), b"%d" % at)
        return self.model.revision


def test_a_cache_forgets_where_api_servers_say_that_they_compacted() -> None:
    world = World()
    world.write(10)
    world.settle()
    world.write(10)
    world.settle()
    oldest = world.cache.oldest
    world.model.put(KEY, b"%d" % (oldest + 4))
    world.settle()
    assert (world.compaction.revision, world.cache.oldest) == (oldest + 4, oldest + 4)
    with pytest.raises(Compacted):
        world.cache.snapshot(oldest + 3)
    assert world.cache.snapshot(oldest + 4).revision == oldest + 4


def test_a_quiet_cache_is_readable_at_and_above() -> None:
    """I8; upstream's cache loses the newest snapshot of a resource that nobody writes."""
    world = World()
    wrote = world.write(3)
    world.settle()
    for at in range(20):
        world.model.put(b"/elsewhere/%d" % at, b"")
    world.cache.progress(Progress(world.model.revision))
    world.model.put(KEY, b"%d" % (wrote + 10))
    world.settle()
    assert world.cache.oldest == wrote + 10
    assert len(world.cache.snapshot(wrote + 10)) == 3


def test_a_number_above_the_cache_compacts_what_there_is() -> None:
    world = World()
    world.write(5)
    world.settle()
    world.compaction.note(10**12)
    world.settle()
    assert world.cache.oldest == world.cache.revision
    assert world.cache.list().elements
    world.write(1)
    world.settle()
    assert world.cache.oldest == world.cache.revision


@pytest.mark.parametrize("value", [b"", b"x", b"-5", b"1e3", b" 7", b"9" * 30, b"\xff"])
def test_what_is_no_number_says_nothing(value: bytes) -> None:
    world = World()
    world.model.put(KEY, value)
    world.model.put(KEY + b"_other", b"99")
    world.settle()
    assert world.compaction.revision == 0


def test_it_never_falls() -> None:
    world = World()
    for value in (b"9", b"4", b"11", b"10"):
        world.model.put(KEY, value)
        world.settle()
    assert world.compaction.revision == 11


def test_a_refused_read_tells() -> None:
    world = World()
    wrote = world.write(20)
    reader = Reader(world.cache, world.source, compaction=world.compaction, now=world.clock)
    world.settle()
    world.cache.compact(world.cache.revision)
    world.model.compact(wrote - 5)
    with pytest.raises(Compacted):
        reader.list(ListOptions(resource_version=str(wrote - 9), limit=5), b"/pods/")
    assert world.compaction.revision == wrote - 8


def test_a_refused_watch_tells_and_trouble_is_waited_out() -> None:
    clock = Clock()
    source = ScriptedSource(
        [(10, [element(b"a", b"", 3)])], [ScriptedStream([Compacted(11, 40), Unavailable("x")])]
    )
    cache = Cache(bounds=Bounds(age_s=None))
    compaction = Compaction(source, now=clock)
    follower = Follower(source, cache, compaction=compaction, now=clock)
    for _ in range(3):
        follower.step()
    assert compaction.revision == 40


def test_a_lost_watch_of_the_key_is_taken_up_again() -> None:
    world = World()
    """Compacted beyond where it was, it reads the key anew: nothing is missed."""
    world.compaction.step()
    world.write(5)
    world.model.compact(world.model.revision)
    world.model.put(KEY, b"9000")
    world.compaction.step()
    assert not world.compaction.step(), "it pauses"
    for _ in range(3):
        world.clock.now_s += 60
        world.compaction.step()
    assert world.compaction.revision == 9000


def test_in_a_thread() -> None:
    model = Model()
    source = SimulatedSource(Truth(model), "model")
    model.put(KEY, b"5")
    compaction = Compaction(source).start()
    until = time.monotonic() + 5
    while compaction.revision < 5 and time.monotonic() < until:
        time.sleep(0.01)
    compaction.close()
    assert compaction.revision == 5
    compaction.close()
