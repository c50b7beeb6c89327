"""Watches: bookmarks, over all eight targets.

A watch gets its last bookmark two seconds before its end, so one of three seconds has it after one.
All that is watched here begins at the same time, and the tests look at what was heard.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from btreecache.watch_stream import LAST_BOOKMARK_S
from tests.conformance.conftest import Worlds
from tests.conformance.frames import CHANGES, revision_of
from tests.conformance.target import Ended, Events, Frame, Target, kinds

#: The length of a watch, and by when its only bookmark has come.
WATCH_S, BOOKMARK_S = 3, 1.3

#: Watches over the objects that are written all the time: those that go on and those that are
#: stopped around the time of their bookmark; and how far apart they begin and end.
BUSY_WATCHES, STOPPED_WATCHES, APART_S = 6, 6, 0.03

#: Frames that are read after a bookmark.
AFTER = 20


@dataclass
class Heard:
    """What was heard in that time, by watch, and the revisions that matter.

    start       of the quiet watches
    neighbour   a write to another namespace, while they ran
    elsewhere   a write to another resource, while they ran
    written     revisions of the busy target
    busy        watches of it
    stopped     watches of it that were stopped
    """

    start: int = 0
    neighbour: int = 0
    elsewhere: int = 0
    frames: dict[str, list[Frame]] = field(default_factory=dict)
    busy: list[list[Frame]] = field(default_factory=list)
    stopped: list[list[Frame]] = field(default_factory=list)
    written: list[int] = field(default_factory=list)


@pytest.fixture(scope="module", params=kinds())
def heard(request: pytest.FixtureRequest, worlds: Worlds) -> Heard:
    """Two targets of each kind: one without a write but those that matter, one full of them."""
    found = Heard()
    with (
        worlds.open(request.param) as quiet,
        worlds.open(request.param) as busy,
        ExitStack() as stack,
        ThreadPoolExecutor(BUSY_WATCHES + STOPPED_WATCHES) as readers,
    ):
        began = time.monotonic()
        watches = begin(quiet, found, stack)
        with writing(busy, found.written):
            stopping = [stack.enter_context(watch(busy)) for _ in range(STOPPED_WATCHES)]
            stopped = [readers.submit(events.rest) for events in stopping]
            busy_from = time.monotonic()
            reading = []
            for _ in range(BUSY_WATCHES):
                events = stack.enter_context(watch(busy))
                reading.append(readers.submit(past_a_bookmark, events))
                time.sleep(APART_S)
            sleep_until(busy_from + WATCH_S - LAST_BOOKMARK_S - STOPPED_WATCHES / 2 * APART_S)
            for events in stopping:
                events.close()
                time.sleep(APART_S)
            found.stopped = [one.result() for one in stopped]
            found.busy = [one.result() for one in reading]
        sleep_until(began + BOOKMARK_S)
        found.frames = {name: so_far(events) for name, events in watches.items()}
    return found


def sleep_until(time_s: float) -> None:
    time.sleep(max(0.0, time_s - time.monotonic()))


def watch(target: Target, namespace: str = "", *, bookmarks: bool = True) -> Events:
    return target.watch(namespace, timeoutSeconds=WATCH_S, allowWatchBookmarks=bookmarks, **CHANGES)


def begin(target: Target, found: Heard, stack: ExitStack) -> dict[str, Events]:
    """The quiet watches, and what is written while they run."""
    found.start = target.put("ns1/foo")
    ahead = {"resourceVersion": 10**12, "allowWatchBookmarks": True, "timeoutSeconds": WATCH_S}
    watches = {
        "allowed": watch(target, "ns1"),
        "not allowed": watch(target, "ns1", bookmarks=False),
        "ahead": target.watch("ns1", **ahead),
    }
    for events in watches.values():
        stack.enter_context(events)
    found.neighbour = target.put("ns2/foo")
    found.elsewhere = target.put_elsewhere()
    target.caught_up()
    return watches


@contextmanager
def writing(target: Target, revisions: list[int]) -> Iterator[None]:
    """Two writers to a target, and the revisions that they made, in order once they have ended."""
    done = threading.Event()

    def write(name: str) -> None:
        while not done.wait(0.025):
            revisions.extend([target.put(f"{name}/{number}") for number in range(3)])

    writers = [threading.Thread(target=write, args=[name]) for name in "ab"]
    for thread in writers:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in writers:
            thread.join()
        revisions.sort()


def past_a_bookmark(events: Events) -> list[Frame]:
    """All up to the first bookmark, and a little more."""
    found = [events.next()]
    while found[-1]["type"] != "BOOKMARK":
        found.append(events.next())
    return found + events.take(AFTER)


def so_far(events: Events) -> list[Frame]:
    """What has come by now."""
    found = []
    with suppress(TimeoutError, Ended):
        while True:
            found.append(events.next(0.01))
    return found


def test_watch_dispatch_bookmark_events(heard: Heard) -> None:
    """Only if allowed, and at a revision that no event of the watch tells of."""
    (bookmark,) = heard.frames["allowed"]
    assert bookmark["type"] == "BOOKMARK"
    assert revision_of(bookmark) >= heard.neighbour > heard.start
    assert heard.frames["not allowed"] == []


def test_progress_notify(heard: Heard) -> None:
    """Nor does any event of the resource: the source said how far it is."""
    (bookmark,) = heard.frames["allowed"]
    assert revision_of(bookmark) >= heard.elsewhere > heard.neighbour
    assert bookmark["object"] == {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": str(revision_of(bookmark))},
    }


def test_a_watch_from_a_revision_ahead_has_no_bookmark(heard: Heard) -> None:
    """It would be below where the watch began."""
    assert heard.frames["ahead"] == []


def test_optional_watch_bookmarks_with_correct_resource_version(heard: Heard) -> None:
    """With writers at the same time: a bookmark is at or above all that came before it, below all
    that comes after, and nothing up to it is missing."""
    assert len(heard.busy) == BUSY_WATCHES
    for frames in heard.busy:
        at = [frame["type"] for frame in frames].index("BOOKMARK")
        assert at > 1
        assert len(frames) == at + 1 + AFTER
        check_order(frames, heard.written)


def test_dispatching_bookmark_events_with_concurrent_stop(heard: Heard) -> None:
    """Stopped just before, at and just after its bookmark, a watch ends within an order that holds
    so far, and without an error."""
    assert len(heard.stopped) == STOPPED_WATCHES
    for frames in heard.stopped:
        assert frames
        check_order(frames, heard.written)


def check_order(frames: list[Frame], written: list[int]) -> None:
    """That the frames are all that was written between the first and the last, with at most one
    bookmark, at or above what is before it and below what is after it."""
    revisions = [revision_of(frame) for frame in frames]
    marks = [at for at, frame in enumerate(frames) if frame["type"] == "BOOKMARK"]
    assert len(marks) <= 1
    for at in marks:
        assert all(one <= revisions[at] for one in revisions[:at])
        assert all(one > revisions[at] for one in revisions[at + 1 :])
    changes = [one for at, one in enumerate(revisions) if at not in marks]
    assert changes == [one for one in written if changes[0] <= one <= changes[-1]]
