"""Ten thousand watchers with mixed scopes on many objects: what each costs, and whom a write wakes.

`python -m tests.test_watchers_many` measures at full size, 10,000 watchers on 100,000 objects, and
prints one line of JSON.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from time import perf_counter
from typing import Any

import pytest

from btreecache import Bounds, Cache, Compacted, Element
from btreecache.event import Batch, Event
from btreecache.watch_stream import DeletedElements, WatchStream
from tests.fakes import Clock
from tests.watching import begin

#: What an idle watcher may cost in bytes, its waiter included.
WATCHER_BYTES_MAX = 2_048

BOUNDS = Bounds(age_s=None, revisions=100)


class Crowd:
    """Watchers of keys, of namespaces and of everything: six in ten, nearly four, one in a hundred.

    Ten objects a namespace; there are more objects than are watched. `woken` counts what waiters
    are called, by the watcher's index.
    """

    def __init__(self, watchers: int, objects: int) -> None:
        self.clock = Clock()
        self.cache = Cache(b"/pods/", bounds=BOUNDS, now=self.clock)
        self.keys = [b"/pods/%05d/%d" % (at // 10, at % 10) for at in range(objects)]
        self.cache.replace(1, (Element(key, b"value", 1, 1, 1) for key in self.keys))
        self.puts: Counter[bytes] = Counter()
        self.revision = 1
        self.scopes: list[tuple[bytes, bool]] = []
        for at in range(watchers):
            key = self.keys[at * 7 % objects]
            if at % 100 == 0:
                self.scopes.append((b"/pods/", False))
            elif at % 10 < 6:
                self.scopes.append((key, True))
            else:
                self.scopes.append((key[: key.rindex(b"/") + 1], False))
        self.woken: Counter[int] = Counter()
        self.streams: list[WatchStream] = []
        self.deleted = DeletedElements()

    def enter(self) -> None:
        start = begin(1, bookmarks=True)
        for at, (prefix, exact) in enumerate(self.scopes):
            # A copy of the bytes: in a server each request has its own.
            scope = bytes(bytearray(prefix))
            stream = WatchStream(
                self.cache, start, scope, exact=exact, now=self.clock, deleted=self.deleted
            )
            stream.add_waiter(partial(self.wake, at))
            self.streams.append(stream)

    def wake(self, at: int) -> None:
        self.woken[at] += 1

    def write(self, key: bytes) -> None:
        self.revision += 1
        self.puts[key] += 1
        element = Element(key, b"value", self.revision, 1, 1 + self.puts[key])
        self.cache.apply(Batch(self.revision, (Event(key, element),)))

    def watching(self, key: bytes) -> set[int]:
        """Who must hear of the key, told without the cache."""
        return {
            at
            for at, (prefix, exact) in enumerate(self.scopes)
            if (key == prefix if exact else key.startswith(prefix))
        }


@pytest.fixture
def crowd() -> Crowd:
    crowd = Crowd(watchers=1_000, objects=5_000)
    crowd.enter()
    return crowd


def test_an_idle_watcher_costs_at_most_two_kilobytes() -> None:
    crowd = Crowd(watchers=2_000, objects=5_000)
    assert watcher_bytes(crowd) <= WATCHER_BYTES_MAX


def test_a_write_wakes_the_watchers_of_its_scope_and_nobody_else(crowd: Crowd) -> None:
    for key in crowd.keys[::501]:
        crowd.woken.clear()
        crowd.write(key)
        assert crowd.woken == dict.fromkeys(crowd.watching(key), 1)
        for at in crowd.woken:
            event = crowd.streams[at].poll()
            assert event is not None
            assert event.revision == crowd.revision
    assert crowd.watching(crowd.keys[0])


def test_no_watcher_feels_the_slowness_of_another(crowd: Crowd) -> None:
    """All but one of everything never read; that one hears all, and the others lose only what is
    no longer kept."""
    reading = crowd.streams[0]
    for at in range(300):
        crowd.write(crowd.keys[at * 13 % len(crowd.keys)])
        event = reading.poll()
        assert event is not None
        assert event.revision == crowd.revision
        assert reading.poll() is None
    behind = crowd.streams[100].poll()
    assert behind is not None
    assert isinstance(behind.error, Compacted)


def test_a_quiet_watcher_outlives_everybody_elses_events(crowd: Crowd) -> None:
    """Ten windows of events go by, none of its scope; then its own comes, and a bookmark before."""
    busy = {crowd.keys[-1], crowd.keys[-11]}
    quiet = set(range(len(crowd.streams))).difference(*map(crowd.watching, busy))
    for _ in range(5 * (BOUNDS.revisions or 0)):
        for key in busy:
            crowd.write(key)
    crowd.clock.now_s = 60.0
    last = crowd.revision
    assert crowd.cache.state.readable().watch_floor > 1
    for at in quiet:
        mark = crowd.streams[at].poll()
        assert mark is not None
        assert (mark.type, mark.revision) == ("BOOKMARK", last)
    owners = {at: crowd.scopes[at] for at in sorted(quiet)[::97]}
    for at, (prefix, exact) in owners.items():
        key = prefix if exact else next(key for key in crowd.keys if key.startswith(prefix))
        crowd.write(key)
        event = crowd.streams[at].poll()
        while event is not None and event.revision < crowd.revision:
            event = crowd.streams[at].poll()
        assert event is not None
        assert (event.type, event.revision) == ("MODIFIED", crowd.revision)


def watcher_bytes(crowd: Crowd) -> float:
    """Bytes that one watcher costs, from making it on, everything that it makes the cache hold."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        crowd.enter()
        for stream in crowd.streams:
            assert stream.poll() is None
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / len(crowd.streams)
    finally:
        tracemalloc.stop()


def write_us(crowd: Crowd, writes: int = 5_000) -> float:
    """Microseconds a write, random keys, waiters called; best of three."""
    rng = Random(1)

    def timed(act: Callable[[bytes], None]) -> float:
        keys = rng.choices(crowd.keys, k=writes)
        started = perf_counter()
        for key in keys:
            act(key)
        return (perf_counter() - started) / writes * 1e6

    return min(timed(crowd.write) for _ in range(3))


def main() -> None:
    """Measure at full size."""
    os.environ["BTREECACHE_VERIFY"] = "0"
    alone = Crowd(watchers=0, objects=100_000)
    crowd = Crowd(watchers=10_000, objects=100_000)
    bytes_each = watcher_bytes(crowd)
    figures: dict[str, Any] = {
        "watchers": len(crowd.streams),
        "objects": len(crowd.keys),
        "bytes_per_watcher": round(bytes_each),
        "write_us_without_watchers": round(write_us(alone), 1),
        "write_us": round(write_us(crowd), 1),
    }
    crowd.scopes = [scope for scope in crowd.scopes if scope[0] != b"/pods/"]
    crowd.streams = []
    crowd.enter()
    figures["write_us_without_those_of_everything"] = round(write_us(crowd), 1)
    json.dump(figures, sys.stdout)
    print()  # noqa: T201


if __name__ == "__main__":
    main()
