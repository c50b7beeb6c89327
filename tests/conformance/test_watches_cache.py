"""Watches: where the cache's history begins, breaks and ends, over all eight targets."""

from __future__ import annotations

import gc
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random

import pytest

from btreecache import Compacted, Features, Unavailable
from btreecache.resources import BUILT_IN
from btreecache.server import caches
from btreecache.source import Listing
from btreecache.window import Bounds
from tests.conformance.conftest import Worlds
from tests.conformance.frames import (
    CHANGES,
    STATE,
    break_feed,
    labelled,
    listed,
    revision_of,
    take,
    tell,
    told,
    unread,
)
from tests.conformance.target import (
    Counting,
    Ended,
    Events,
    Http,
    Kind,
    Library,
    Status,
    Target,
    kinds,
    object_at,
    path_of,
    wait_for,
)


def test_empty_watch_event_cache(target: Target) -> None:
    """Of a cache that has just listed: from the list on, and nothing before it."""
    for _ in range(3):
        target.put_elsewhere()
    before = target.put("ns/foo")
    break_feed(target, Compacted(before, before))
    # Where the list was made: on a server that others write to it may be later.
    begun = target.cache.revision
    assert begun >= before
    with target.watch(resourceVersion=begun - 1) as events:
        (refused,) = events.rest()
        assert told(refused) == "ERROR 410 Expired"
        assert refused["object"]["message"] == f"too old resource version: {begun - 1} ({begun})"
    with (
        target.watch(resourceVersion=begun) as level,
        target.watch(resourceVersion=begun + 1) as ahead,
    ):
        first, second = target.put("ns/a"), target.put("ns/b")
        assert take(level, 2) == [f"ADDED ns/a@{first}", f"ADDED ns/b@{second}"]
        assert take(ahead, 1) == [f"ADDED ns/b@{second}"]


class Away(Counting):
    """A source whose lists fail until it is there."""

    is_there = False

    def list(self, prefix: bytes) -> Listing:
        if not self.is_there:
            raise Unavailable("the source is away")
        return super().list(prefix)


@pytest.mark.parametrize("kind", kinds())
def test_watch_not_hanging_on_startup_failure(
    worlds: Worlds, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told to come again, at once but for the moment that a first list is waited for, and
    served once there is one."""
    monkeypatch.setattr(caches, "FIRST_LIST_S", 0.1)
    pods = BUILT_IN.named("pods")
    assert pods is not None
    opened = Library if kind.access == "library" else Http
    features = Features(list_from_cache_snapshot=kind.snapshots)
    with worlds.open(kind) as neighbour, ExitStack() as stack:
        source, root = Away(neighbour.backend.source), neighbour.root + b"-away"
        access = opened(source, root, pods, features, Bounds())
        stack.callback(access.close)
        began = time.monotonic()
        for query in ({}, {"resourceVersion": "0"}, {"resourceVersion": "5"}):
            refused = access.watch("", "", query)
            assert isinstance(refused, Status)
            assert (refused.code, refused.reason) == (429, "TooManyRequests")
            assert refused.details["retryAfterSeconds"] == 1
        assert time.monotonic() - began < 2
        source.is_there = True
        wait_for(lambda: access.cache.ready)
        value = json.dumps(object_at("ns/foo", pods)).encode()
        revision = neighbour.backend.put(root + b"/pods/ns/foo", value)
        begun = access.watch("", "", {})
        assert isinstance(begun, Events)
        with begun as events:
            assert take(events, 1) == [f"ADDED ns/foo@{revision}"]


@contextmanager
def writing(target: Target, paths: int = 5) -> Iterator[list[int]]:
    """A writer of a few objects, which now and then deletes one; the revisions that it made."""
    done, revisions, rng = threading.Event(), list[int](), Random(paths)
    there: set[str] = set()

    def write() -> None:
        while not done.wait(0.001):
            path = f"ns/{rng.randrange(paths)}"
            if path in there and rng.random() < 0.3:
                there.remove(path)
                revisions.append(target.delete(path))
            else:
                there.add(path)
                revisions.append(target.put(path))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_for(lambda: len(revisions) > 20)
        yield revisions
    finally:
        done.set()
        writer.join()


def test_watcher_not_going_back_in_time(target: Target) -> None:
    """Wherever a watch begins while there is writing: after its state come later changes only,
    each once and in order, none missing."""
    start = target.current_revision()
    with ExitStack() as stack:
        watches = []
        with writing(target) as revisions:
            for turn in range(12):
                at = [None, 0, start, revisions[-1]][turn % 4]
                asked = {} if at else {"allowWatchBookmarks": True, **STATE}
                events = stack.enter_context(target.watch(resourceVersion=at, **asked))
                watches.append((at, events))
                time.sleep(0.01)
        target.caught_up()
        target.cache.close()
        for at, events in watches:
            frames = events.rest()
            begun = at or 0
            if not at:
                ends = [told(frame).endswith(" end") for frame in frames].index(True)
                begun = revision_of(frames[ends])
                state, frames = frames[:ends], frames[ends + 1 :]
                assert all(frame["type"] == "ADDED" for frame in state)
                assert all(revision_of(frame) <= begun for frame in state)
                assert len({path_of(frame["object"]) for frame in state}) == len(state)
            heard = [revision_of(frame) for frame in frames]
            assert heard == [one for one in revisions if one > begun]


def test_cacher_dont_accept_requests_stopped(target: Target) -> None:
    """A watch that is open ends without an error, after what it has; there are no new ones, but
    what a cache in a program holds stays readable."""
    first = target.put("ns/foo")
    with target.watch(resourceVersion=first) as events:
        second = target.put("ns/bar")
        target.caught_up()
        if isinstance(target.access, Http):
            target.access.caches.stop()
            refusals = [target.watch_refusal(), target.refusal(), target.refusal(resourceVersion=0)]
            assert [refusal.code for refusal in refusals] == [429] * 3
        else:
            target.cache.close()
            with target.watch(resourceVersion=second) as late, pytest.raises(Ended):
                late.next()
            assert target.page(resourceVersion=0).names == ["ns/bar", "ns/foo"]
        assert tell(events.rest()) == [f"ADDED ns/bar@{second}"]


@pytest.mark.parametrize("lost", ["connection", "history"])
def test_cacher_dont_miss_events_on_reinitialization(target: Target, lost: str) -> None:
    """Whoever lists and watches as clients do has heard of everything in the end. A connection that
    was lost is not even noticed; where history was, it is 410, and a list again."""
    error = Unavailable("lost") if lost == "connection" else Compacted(1, 2)
    state: dict[str, str] = {}
    lists, heard = 0, list[int]()
    with writing(target) as revisions, ExitStack() as stack:
        events: Events | None = None
        for turn in range(4):
            if turn:
                break_feed(target, error)
            wanted = revisions[-1] + 5
            reached = 0
            while reached < wanted:
                if events is None:
                    page = listed(target)
                    reached, lists = page.revision, lists + 1
                    state = {path_of(one): one["metadata"]["resourceVersion"] for one in page.items}
                    events = stack.enter_context(target.watch(resourceVersion=reached))
                frame = events.next()
                if frame["type"] == "ERROR":
                    assert told(frame) == "ERROR 410 Expired"
                    events = None
                    continue
                assert revision_of(frame) > reached, "not back in time"
                reached = revision_of(frame)
                heard.append(reached)
                path = path_of(frame["object"])
                state.pop(path, None)
                if frame["type"] != "DELETED":
                    state[path] = str(reached)
    assert lists == (1 if lost == "connection" else 4)
    if lost == "connection":
        assert heard == [one for one in revisions if heard[0] <= one <= heard[-1]]
    page = target.page(resourceVersion=reached, resourceVersionMatch="Exact")
    assert state == {path_of(one): one["metadata"]["resourceVersion"] for one in page.items}


def test_cacher_no_leak_with_multiple_watchers(target: Target) -> None:
    """Of watches that were closed nothing is left, however they were left."""
    first = target.put("ns/foo")
    for turn in range(20):
        with (
            target.watch(f"ns{turn}", **CHANGES),
            target.watch("ns", "foo", allowWatchBookmarks=True),
            target.watch(resourceVersion=first) as events,
        ):
            first = target.put("ns/foo")
            assert take(events, 1) == [f"MODIFIED ns/foo@{first}"]
    del events

    def is_forgotten() -> bool:
        gc.collect()
        return not any(True for _ in target.cache._scopes)

    wait_for(is_forgotten)


@pytest.mark.parametrize("kind", kinds())
def test_cache_interval_invalidation_stops_watch(worlds: Worlds, kind: Kind) -> None:
    """A watch that fell behind what is kept: what comes is without a gap, and then it is 410."""
    # Over HTTP the connection takes some: enough, and large enough, for it to be full.
    size, count = (10, 100) if kind.access == "library" else (500_000, 60)
    with worlds.open(kind, bounds=Bounds(age_s=None, revisions=10)) as target:
        first = target.put("ns/foo")
        with unread(target, first) as read, target.watch(resourceVersion=first) as reading:
            for number in range(count):
                revision = labelled(target, "ns/foo", node="n" * size)
                assert revision == first + 1 + number
                assert take(reading, 1) == [f"MODIFIED ns/foo@{revision}"]
            target.caught_up()
            *heard, last = tell(read())
        assert last == "ERROR 410 Expired"
        assert heard == [f"MODIFIED ns/foo@{first + 1 + number}" for number in range(len(heard))]
        assert len(heard) < count - 10
        with target.watch(resourceVersion=first) as late:
            assert tell(late.rest()) == ["ERROR 410 Expired"]


def test_wait_until_watch_cache_fresh_and_force_all_events(target: Target) -> None:
    """The state waits until the cache has reached what the source had when it was asked for, and
    has all of it; where it doesn't in time, that is said and nothing else."""
    first = target.put("ns/a")
    target.caught_up()
    target.source.is_stalled = True
    second = target.put("ns/b")
    asked = {"allowWatchBookmarks": True, **STATE}

    for version in (None, second, second + 1000):
        # -1: no time to wait.
        with target.watch(resourceVersion=version, timeoutSeconds=-1, **asked) as events:
            (refused,) = events.rest()
        assert told(refused) == "ERROR 504 Timeout"
        causes = refused["object"]["details"]["causes"]
        assert [cause["reason"] for cause in causes] == ["ResourceVersionTooLarge"]
    later = threading.Timer(0.2, setattr, [target.source, "is_stalled", False])
    later.start()
    with target.watch(**asked) as events:
        assert take(events, 3) == [
            f"ADDED ns/a@{first}", f"ADDED ns/b@{second}", f"BOOKMARK @{second} end",
        ]  # fmt: skip
    later.join()


def test_watch_list_is_synchronised_when_no_events_from_store_received(target: Target) -> None:
    """A progress mark is enough: nothing of the resource has ever been written."""
    elsewhere = target.put_elsewhere()
    with target.watch(allowWatchBookmarks=True, **STATE) as events:
        assert take(events, 1) == [f"BOOKMARK @{elsewhere} end"]
        first = target.put("ns/foo")
        assert take(events, 1) == [f"ADDED ns/foo@{first}"]
