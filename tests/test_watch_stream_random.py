"""I6 on random histories: what a stream tells, folded, is the filtered state at every revision.

The oracle is a dict per revision and a filter of Python's; nothing of the cache's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btreecache import Bounds, Compacted, Element, FeedFault
from btreecache.event import Batch, Event
from btreecache.watch_stream import DeletedElements, WatchEvent, WatchStream
from tests.watching import PREFIX, Pods, begin, labelled, pod, pod_key

NAMES = ["a/1", "a/2", "a/11", "b/1", "b/2", "c/1"]
KEYS = [pod_key(name) for name in NAMES]
#: The prefix of some keys, whether it is one key, and the keys that are in it.
SCOPES = [
    (PREFIX, False),
    (PREFIX + b"a/", False),
    (PREFIX + b"a/1", False),
    (PREFIX + b"a/1", True),
    (PREFIX + b"none/", False),
]
#: A label selector, and whether stored labels match it.
SELECTORS: list[tuple[str, Callable[[str, str], bool]]] = [
    ("", lambda color, size: True),
    ("color=red", lambda color, size: color == "red"),
    ("color!=red", lambda color, size: color != "red"),
    ("color=red,size", lambda color, size: color == "red" and size != ""),
    ("!size", lambda color, size: size == ""),
]

State = dict[bytes, Element]


class View(NamedTuple):
    """What one stream sees, told by the oracle."""

    prefix: bytes
    exact: bool
    matches: Callable[[str, str], bool]
    labels: dict[bytes, tuple[str, str]]

    def of(self, state: State) -> State:
        def seen(key: bytes, element: Element) -> bool:
            inside = key == self.prefix if self.exact else key.startswith(self.prefix)
            return inside and self.matches(*self.labels[element.value])

        return {key: element for key, element in state.items() if seen(key, element)}


class Writer:
    """Random transactions on a handful of keys, in a cache that decodes; labels by value."""

    def __init__(self, rng: Random, bounds: Bounds | None = None) -> None:
        self.rng = rng
        self.pods = Pods(bounds or Bounds(age_s=None))
        self.labels: dict[bytes, tuple[str, str]] = {}

    def write(self) -> None:
        rng, pods = self.rng, self.pods
        if rng.random() < 0.15:
            pods.elsewhere()
            return
        writes: list[tuple[bytes, bytes | None]] = []
        state = pods.states[pods.revision]
        for name in rng.sample(NAMES, rng.choice((1, 1, 2, 3))):
            key = pod_key(name)
            if key in state and rng.random() < 0.35:
                writes.append((key, None))
                continue
            color, size = rng.choice(("red", "blue")), rng.choice(("", "s"))
            value = pod(name, color=color, **({"size": size} if size else {}))
            self.labels[value] = color, size
            writes.append((key, value))
        pods.txn(writes)

    def pick(self) -> tuple[View, dict[str, Any]]:
        """A view at random, and the options of a stream that sees it."""
        (prefix, exact), (text, matches) = self.rng.choice(SCOPES), self.rng.choice(SELECTORS)
        predicate = labelled(text) if text else None
        view = View(prefix, exact, matches, self.labels)
        return view, {"prefix": prefix, "exact": exact, "predicate": predicate}


class Follower:
    """Folds what a stream tells, and holds it to the truth at every revision that it passes."""

    def __init__(
        self, writer: Writer, view: View, stream: WatchStream, position: int, *, initial: bool
    ) -> None:
        self.states, self.view, self.stream = writer.pods.states, view, stream
        self.revision = position
        self.seen: dict[bytes, bytes] = {} if initial else self.truth(position)
        self.initial = initial
        self.told: list[WatchEvent] = []

    def truth(self, revision: int) -> dict[bytes, bytes]:
        state = self.states[revision]
        return {key: element.value for key, element in self.view.of(state).items()}

    def check_up_to(self, revision: int) -> None:
        """Nothing was told of the revisions before: nothing must have changed in them."""
        for passed in range(self.revision, revision):
            assert self.seen == self.truth(passed), passed

    def take(self, event: WatchEvent) -> None:
        self.told.append(event)
        if self.initial:
            self.take_initial(event)
            return
        if event.type == "BOOKMARK":
            assert event.revision >= self.revision
            self.check_up_to(event.revision + 1)
            self.revision = event.revision
            return
        assert event.revision >= self.revision
        if event.revision > self.revision:
            self.check_up_to(event.revision)
            self.revision = event.revision
        element = event.element
        assert element is not None
        assert element.mod_revision == event.revision
        assert b'"resourceVersion":"%d"' % event.revision in element.value
        match event.type:
            case "ADDED":
                assert element.key not in self.seen
                self.seen[element.key] = element.source_value()
            case "MODIFIED":
                assert element.key in self.seen
                self.seen[element.key] = element.source_value()
            case "DELETED":
                assert self.seen.pop(element.key) == element.source_value()
            case _:
                raise AssertionError(event)

    def take_initial(self, event: WatchEvent) -> None:
        if event.ends_initial_events:
            self.initial = False
            self.revision = event.revision
            assert self.seen == self.truth(event.revision)
            assert [*self.seen] == sorted(self.seen)
            return
        assert event.type == "ADDED"
        assert event.element is not None
        assert event.element.mod_revision <= event.revision
        self.seen[event.element.key] = event.element.source_value()

    def read(self, events: int | None = None) -> bool:
        """Take so many events, None: all there are. Whether the stream told an error."""
        while events != 0 and (event := self.stream.poll()) is not None:
            if event.type == "ERROR":
                assert isinstance(event.error, Compacted)
                return True
            self.take(event)
            assert self.stream.position <= self.revision or not self.told
            events = None if events is None else events - 1
        return False

    def finish(self) -> None:
        """Nothing more to come: the state is the newest one."""
        assert not self.read()
        self.check_up_to(max(self.states) + 1)


seeds = st.integers(0, 2**32)


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_from_any_revision_the_events_fold_to_every_state_after_it(seed: int) -> None:
    writer = Writer(Random(seed))
    for _ in range(25):
        writer.write()
    pods = writer.pods
    for start in pods.states:
        view, options = writer.pick()
        stream = pods.stream(begin(start, bookmarks=True), **options)
        follower = Follower(writer, view, stream, start, initial=False)
        follower.finish()
        assert stream.position == pods.revision


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_who_resumes_loses_nothing_and_repeats_nothing(seed: int) -> None:
    """At the position after any event: that is the event's revision where it was the last of it."""
    writer = Writer(Random(seed))
    for _ in range(20):
        writer.write()
        writer.pods.clock.now_s += writer.rng.choice((0.0, 30.0))
    pods = writer.pods
    start = writer.rng.randint(1, pods.revision)
    _, options = writer.pick()
    stream = pods.stream(begin(start, bookmarks=True), **options)
    told: list[tuple[str, int, Element | None]] = []
    marks: list[tuple[int, int]] = []
    while True:
        pods.clock.now_s += writer.rng.choice((0.0, 0.0, 61.0))
        event = stream.poll()
        if event is None:
            break
        if event.type != "BOOKMARK":
            told.append((event.type, event.revision, event.element))
        else:
            assert stream.position == event.revision
        marks.append((stream.position, event.revision))
    for position, _ in marks:
        resumed = pods.stream(begin(position), **options)
        after = []
        while (event := resumed.poll()) is not None:
            after.append((event.type, event.revision, event.element))
        assert after == [one for one in told if one[1] > position]
    for (position, revision), (_, following) in pairwise(marks):
        # Behind the event at once, unless more of the same revision follows.
        assert position <= revision
        assert revision in (position, following)


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_streams_begun_and_read_at_any_time(seed: int) -> None:
    """Writes, streams with and without the state, reads of a few events, bookmarks, evictions and
    resynchronisations in any order: every stream is right, or ends with 410 and had to."""
    rng = Random(seed)
    bounds = Bounds(age_s=None, revisions=rng.choice((3, 8, 1_000)))
    writer = Writer(rng, bounds)
    pods, deleted = writer.pods, DeletedElements(8)
    followers: list[tuple[Follower, int]] = []
    history = 0
    for _ in range(80):
        match rng.choice(("write", "write", "write", "read", "read", "begin", "time", "list")):
            case "write":
                writer.write()
            case "time":
                pods.clock.now_s += rng.choice((1.0, 30.0, 61.0))
            case "begin":
                initial = rng.random() < 0.5
                start = begin(pods.revision, initial=initial, end_bookmark=initial, bookmarks=True)
                view, options = writer.pick()
                stream = pods.stream(start, deleted=deleted, **options)
                follower = Follower(writer, view, stream, pods.revision, initial=initial)
                followers.append((follower, history))
            case "read" if followers:
                follower, begun = rng.choice(followers)
                if follower.read(rng.randint(1, 4)):
                    followers.remove((follower, begun))
                    assert_had_to_end(follower, writer, begun != history)
            case "list" if rng.random() < 0.2:
                history += 1
                resynchronise(writer)
    for follower, begun in followers:
        if follower.read():
            assert_had_to_end(follower, writer, begun != history)
        else:
            assert begun == history
            follower.finish()


def resynchronise(writer: Writer) -> None:
    """A feed fault, and the list that mends it, at a revision of its own."""
    pods = writer.pods
    wrong = Batch(pods.revision, (Event(KEYS[0], None),))
    with pytest.raises(FeedFault):
        pods.cache.apply(wrong)
    state = pods.states[pods.revision]
    pods.states[pods.revision + 1] = state
    pods.cache.replace(pods.revision, [state[key] for key in sorted(state)])


def assert_had_to_end(follower: Follower, writer: Writer, cut: bool) -> None:
    """History was cut, or a change inside the scope that wasn't read yet is no longer kept."""
    states, view = writer.pods.states, follower.view
    if cut:
        return
    kept = writer.pods.cache.state.readable().watch_floor
    everything = View(view.prefix, view.exact, lambda color, size: True, view.labels)
    position = follower.stream.position
    revisions = sorted(states)
    missed = [
        later
        for later in revisions[bisect_right(revisions, position) :]
        if later <= kept and everything.of(states[later]) != everything.of(states[later - 1])
    ]
    assert missed, "a stream ended though nothing of its scope was evicted"
