"""WatchStream: the rows of the API server's watch tests, and what a stream promises beside them.

Tests named TestWatch... or after a row have the name of the upstream test (RunTest...) whose row
they are. Not here, as there is nothing of the kind: WatchInitializationSignal (a stream exists once
it is made). Of the units of upstream's CacheWatcher: HandlesFiltering is the table of the event
transform, Draining is DelayedWatchDelivery, TimeBucketWatchers and BookmarkAfterResourceVersion are
the bookmarks, ResourceVersionAfterInitEvents is WatchSemantics, StoppedInAnotherGoroutine is the
thread that is told of the end, CleanupNotBlockedByResult is WatcherTimeout. There are no channels
to fill.
"""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from time import monotonic, sleep
from typing import Any

import pytest

from btreecache import Batch, Bounds, Cache, Compacted, Element, Event, FeedFault, NotReady, Store
from btreecache.codec import Kubernetes, Raw, strip_managed_fields
from btreecache.codec.revision import with_revision
from btreecache.errors import status
from btreecache.index import Index
from btreecache.options import WatchOptions
from btreecache.plan import After
from btreecache.selectors import LabelSelector
from btreecache.watch_stream import BURST, DeletedElements, WatchEvent, WatchStream
from tests.codec.objects import recorded
from tests.fakes import batch, put
from tests.watching import (
    CODEC,
    PREFIX,
    Pods,
    begin,
    labelled,
    pod,
    pod_key,
    rest,
    tell,
    told,
    with_fields,
)

NOT_OLDER = "NotOlderThan"


def one(stream: WatchStream) -> WatchEvent:
    """The next event, which must be there."""
    event = stream.poll()
    assert event is not None
    return event


# The rows of the API server's watch tests.

WATCH_CASES: dict[str, tuple[str | None, list[tuple[str, str]]]] = {
    # selector, then pairs of a write and what must be told. A write is labels, or "-" to delete.
    "create a key": (None, [("a=1", "ADDED")]),
    "key updated to match predicate": ("b", [("a=1", ""), ("b=1", "ADDED")]),
    "update": (None, [("a=1", "ADDED"), ("a=2", "MODIFIED")]),
    "delete because of being filtered": ("a", [("a=1", "ADDED"), ("b=1", "DELETED")]),
    "filtering": (
        "a",
        [("a=1", "ADDED"), ("b=1", "DELETED"), ("a=2", "ADDED"), ("a=3", "MODIFIED"),
         ("b=2", "DELETED"), ("-", ""), ("a=1", "ADDED"), ("-", "DELETED")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("recursive", [True, False])
@pytest.mark.parametrize("case", WATCH_CASES)
def test_watch(case: str, recursive: bool) -> None:
    selector, steps = WATCH_CASES[case]
    pods = Pods()
    predicate = None if selector is None else labelled(selector)
    prefix = PREFIX if recursive else pod_key("ns/foo")
    stream = pods.stream(begin(1), prefix, exact=not recursive, predicate=predicate)
    for write, expected in steps:
        if write == "-":
            revision = pods.delete("ns/foo")
        else:
            name, _, value = write.partition("=")
            revision = pods.put("ns/foo", **{name: value})
        assert tell(stream) == ([f"{expected} ns/foo@{revision}"] if expected else [])
        assert stream.position == revision


def test_watch_from_zero() -> None:
    pods = Pods()
    pods.put("ns/foo")
    zero = WatchOptions(resource_version="0")
    stream = pods.watch(zero)
    assert tell(stream) == ["ADDED ns/foo@2"]
    pods.put("ns/foo", a="1")
    assert tell(stream) == ["MODIFIED ns/foo@3"]
    second = pods.watch(zero)
    assert tell(second) == ["ADDED ns/foo@3"]
    pods.put("ns/foo", a="2")
    pods.cache.compact(4)
    assert tell(pods.watch(zero)) == ["ADDED ns/foo@4"]
    old = pods.stream(begin(2))
    (event,) = rest(old)
    assert event.error is not None
    assert status(event.error)["code"] == 410
    assert old.ended


def test_watch_from_non_zero() -> None:
    pods = Pods()
    first = pods.put("ns/foo")
    stream = pods.watch(WatchOptions(resource_version=str(first)))
    assert rest(stream) == []
    pods.put("ns/foo", a="1")
    assert tell(stream) == ["MODIFIED ns/foo@3"]


def test_delete_trigger_watch() -> None:
    pods = Pods()
    stream = pods.watch(WatchOptions(resource_version=str(pods.put("ns/foo"))))
    pods.delete("ns/foo")
    assert tell(stream) == ["DELETED ns/foo@3"]


def test_watch_delete_event_object_have_latest_rv() -> None:
    """And all else is the old content, byte for byte but for the number."""
    pods = Pods()
    pods.put("ns/foo", node="n1", a="1")
    stream = pods.stream(begin(2))
    before = pods.cache.get(pod_key("ns/foo"))
    pods.delete("ns/foo")
    (event,) = rest(stream)
    assert event.element is not None
    assert before is not None
    assert event.element.value == before.value.replace(b'"2"', b'"3"')
    assert (event.element.labels, event.element.fields) == (before.labels, before.fields)
    assert event.revision == event.element.mod_revision == 3
    assert event.element.source_value() == pod("ns/foo", "n1", a="1")


def test_delayed_watch_delivery() -> None:
    """Upstream promises 11 of the 21, what fits in its channels; here all of them arrive."""
    pods = Pods()
    stream = pods.stream(begin(1))
    for number in range(21):
        pods.put(f"ns/{number}")
    assert told(one(stream)) == "ADDED ns/0@2"
    stream.drain()
    pods.put("ns/later")
    assert tell(stream) == [f"ADDED ns/{number}@{number + 2}" for number in range(1, 21)]
    assert stream.ended
    assert stream.position == 22


def test_watch_error() -> None:
    pods = Pods()
    stream = pods.stream(begin(1))
    pods.put("ns/good")
    pods.txn([(pod_key("ns/bad"), b"no object")])
    good, bad = rest(stream)
    assert told(good) == "ADDED ns/good@2"
    assert (bad.type, bad.revision) == ("ERROR", 3)
    assert bad.error is not None
    answer = status(bad.error)
    assert (answer["code"], answer["reason"]) == (500, "InternalError")
    assert "ns/bad" in str(answer["message"])


@pytest.mark.parametrize("initial", [True, False])
def test_watch_error_is_blocking_further_events(initial: bool) -> None:
    pods = Pods()
    pods.put("ns/a")
    pods.txn([(pod_key("ns/b"), b"{}")])
    pods.put("ns/c")
    stream = pods.stream(begin(1, initial=initial, end_bookmark=True))
    assert tell(stream) == ["ADDED ns/a@2", "ERROR InternalError"]
    pods.clock.now_s = 100.0
    pods.put("ns/d")
    assert stream.ended
    assert rest(stream) == []
    assert list(stream) == []


def test_watch_with_unsafe_delete() -> None:
    """The content of what is deleted can't be read, so it can't be said what was deleted."""
    pods = Pods()
    pods.txn([(pod_key("ns/bad"), b"no object")])
    stream = pods.stream(begin(2))
    pods.delete("ns/bad")
    pods.put("ns/good")
    assert tell(stream) == ["ERROR InternalError"]
    assert tell(pods.stream(begin(3))) == ["ADDED ns/good@4"]


def test_an_object_that_becomes_readable_is_new() -> None:
    pods = Pods()
    pods.txn([(pod_key("ns/bad"), b"no object")])
    stream = pods.stream(begin(2))
    pods.put("ns/bad")
    assert tell(stream) == ["ADDED ns/bad@3"]


def test_watch_context_cancel() -> None:
    pods = Pods()
    stream = pods.stream(begin(1, initial=True, end_bookmark=True))
    pods.put("ns/foo")
    stream.close()
    assert rest(stream) == []
    assert stream.ended
    assert stream.next_wakeup_s() is None
    stream.close()


def test_watcher_timeout() -> None:
    """Fifty that don't read delay nobody."""
    pods = Pods()
    idle = [pods.stream(begin(1)) for _ in range(50)]
    reading = pods.stream(begin(1))
    for number in range(200):
        revision = pods.put(f"ns/{number}")
        assert tell(reading) == [f"ADDED ns/{number}@{revision}"]
    assert all(len(rest(stream)) == 200 for stream in idle)


def test_progress_notify() -> None:
    """A bookmark without a write here: the source's revision went on."""
    pods = Pods()
    pods.put("ns/foo")
    stream = pods.stream(begin(2, bookmarks=True))
    revision = pods.elsewhere()
    assert rest(stream) == []
    pods.clock.now_s = 60.0
    assert tell(stream) == [f"BOOKMARK @{revision}"]


SCOPES = [
    options
    for options in product(
        ("", "ns1"), ("", "foo"), ("", "ns1", "ns2"), ("", "foo", "bar"), ("", "n1")
    )
    if options[0] or not options[1]
]


@pytest.mark.parametrize(("namespace", "name", "in_ns", "named", "node"), SCOPES)
def test_namespace_scoped_watch(
    namespace: str, name: str, in_ns: str, named: str, node: str
) -> None:
    """Requested namespace and name by every selector of metadata.namespace, metadata.name and a
    field of the kind: a superset of the 17 upstream rows."""
    pods = Pods()
    wanted = {"metadata.namespace": in_ns, "metadata.name": named, "spec.nodeName": node}
    selector = ",".join(f"{field}={value}" for field, value in wanted.items() if value)
    prefix = PREFIX + (f"{namespace}/{name}".encode() if namespace else b"")
    predicate = with_fields(selector) if selector else None
    stream = pods.stream(begin(1), prefix, exact=bool(name), predicate=predicate)
    before: dict[tuple[str, str], str] = {}
    for own_ns, own, on in product(("ns1", "ns2"), ("foo", "bar"), ("n1", "n2", "n1", None)):
        full = f"{own_ns}/{own}"
        revision = pods.delete(full) if on is None else pods.put(full, node=on)
        is_named = namespace in ("", own_ns) and name in ("", own)
        is_named = is_named and in_ns in ("", own_ns) and named in ("", own)
        was = is_named and (own_ns, own) in before and node in ("", before[own_ns, own])
        now = is_named and on is not None and node in ("", on)
        before.pop((own_ns, own), None)
        if on is not None:
            before[own_ns, own] = on
        kind = ("MODIFIED" if was else "ADDED") if now else "DELETED" if was else None
        assert tell(stream) == ([f"{kind} {full}@{revision}"] if kind else [])


@pytest.mark.parametrize("named", ["", "foo", "bar"])
@pytest.mark.parametrize("name", ["", "foo"])
def test_cluster_scoped_watch(name: str, named: str) -> None:
    """Keys without a namespace."""
    prefix = b"/registry/nodes/"
    cache = Cache(prefix, codec=Kubernetes())
    cache.replace(1, ())
    predicate = with_fields(f"metadata.name={named}") if named else None
    scope = prefix + name.encode()
    stream = WatchStream(cache, begin(1), scope, exact=bool(name), predicate=predicate)
    expected = []
    for revision, own in enumerate(("foo", "bar", "foobar"), 2):
        value = b'{"kind":"Node","apiVersion":"v1","metadata":{"name":"%s"}}' % own.encode()
        cache.apply(batch(revision, put(prefix + own.encode(), value, revision)))
        if name in ("", own) and named in ("", own):
            expected.append(("ADDED", revision))
    assert [(event.type, event.revision) for event in rest(stream)] == expected


@pytest.mark.parametrize("allowed", [True, False])
def test_watch_dispatch_bookmark_events(allowed: bool) -> None:
    """Three seconds long: the bookmark comes a second in, for a write in another namespace."""
    pods = Pods()
    first = pods.put("ns1/foo")
    options = WatchOptions(
        resource_version=str(first), timeout_s=3.0, allow_watch_bookmarks=allowed
    )
    stream = pods.watch(options, PREFIX + b"ns1/")
    other = pods.put("ns2/foo")
    assert rest(stream) == []
    assert stream.next_wakeup_s() == (1.0 if allowed else 3.0)
    pods.clock.now_s = 1.0
    assert tell(stream) == ([f"BOOKMARK @{other}"] if allowed else [])
    assert stream.next_wakeup_s() == 3.0
    pods.clock.now_s = 3.0
    assert rest(stream) == []
    assert stream.ended


def test_optional_watch_bookmarks_with_correct_resource_version() -> None:
    """With writers at the same time: a bookmark is at or above all before it, below all after."""
    store = Store()
    stream = WatchStream(
        store, begin(1, bookmarks=True), b"a/", bookmark_interval_s=0.001
    )  # fmt: skip
    done = threading.Event()

    def write() -> None:
        for number in range(300):
            store.put(b"a/%d" % (number % 7), b"")
            store.put(b"b/x", b"")
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    last, marks, seen = 1, 0, 0
    while not (done.is_set() and store.revision == stream.position):
        event = stream.receive(0.01)
        if event is None:
            continue
        if event.type == "BOOKMARK":
            assert event.revision >= last
            marks += 1
        else:
            assert event.revision > last
            seen += 1
        last = event.revision
    writer.join()
    assert seen + len(rest(stream)) >= 300
    assert marks


@pytest.mark.parametrize("bookmarks", [True, False])
@pytest.mark.parametrize("version", ["", "0", "2"])
def test_send_initial_events_backward_compatibility(version: str, bookmarks: bool) -> None:
    """Without sendInitialEvents: the state from nowhere or 0, and no bookmark that ends it."""
    pods = Pods()
    pods.put("ns/a")
    pods.put("ns/b")
    stream = pods.watch(WatchOptions(resource_version=version, allow_watch_bookmarks=bookmarks))
    expected = ["ADDED ns/b@3"] if version == "2" else ["ADDED ns/a@2", "ADDED ns/b@3"]
    assert tell(stream) == expected


SEMANTICS = [
    (bookmarks, events, version)
    for bookmarks in (True, False)
    for events in (True, False)
    for version in ("", "0", "1", "current")
] + [(False, None, "0"), (False, None, "")]


@pytest.mark.parametrize(("bookmarks", "events", "version"), SEMANTICS)
def test_watch_semantics(bookmarks: bool, events: bool | None, version: str) -> None:
    pods = Pods()
    for name in ("ns/1", "ns/2", "other/3"):
        pods.put(name)
    options = WatchOptions(
        resource_version=str(pods.revision) if version == "current" else version,
        resource_version_match="" if events is None else NOT_OLDER,
        send_initial_events=events,
        allow_watch_bookmarks=bookmarks,
    )
    stream = pods.watch(options)
    everything = ["ADDED ns/1@2", "ADDED ns/2@3", "ADDED other/3@4"]
    # From revision 1 without initial events: all that happened since is replayed.
    expected = everything if events is not False or version == "1" else []
    end = ["BOOKMARK @4 end"] if bookmarks and events else []
    assert tell(stream) == expected + end
    pods.put("ns/2", a="1")
    pods.put("ns/4")
    assert tell(stream) == ["MODIFIED ns/2@5", "ADDED ns/4@6"]
    assert not stream.ended


@pytest.mark.parametrize("version", ["", "0", "3"])
def test_watch_semantic_initial_events_extended(version: str) -> None:
    """The end bookmark is at the revision of the whole source, not at that of an object."""
    pods = Pods()
    pods.put("ns/1")
    revision = pods.elsewhere()
    options = WatchOptions(
        resource_version=version, resource_version_match=NOT_OLDER, send_initial_events=True,
        allow_watch_bookmarks=True,
    )  # fmt: skip
    stream = pods.watch(options)
    assert tell(stream) == ["ADDED ns/1@2", f"BOOKMARK @{revision} end"]
    assert stream.position == revision


def test_watch_list_match_single() -> None:
    pods = Pods()
    pods.put("ns/foo")
    pods.put("ns/bar")
    revision = pods.elsewhere()
    options = WatchOptions(
        resource_version_match=NOT_OLDER, send_initial_events=True, allow_watch_bookmarks=True
    )
    by_selector = pods.watch(replace(options, field_selector="metadata.name=foo"))
    for stream in (by_selector, pods.watch(options, pod_key("ns/foo"), exact=True)):
        assert tell(stream) == ["ADDED ns/foo@2", f"BOOKMARK @{revision} end"]
    none = pods.watch(options, pod_key("ns/none"), exact=True)
    assert tell(none) == [f"BOOKMARK @{revision} end"]


# The event transform (kubernetes.md 2.8; upstream: CacheWatcherHandlesFiltering).

#: What a key holds: nothing, something that the filter leaves out, something that it selects.
HELD: dict[str, bytes | None] = {
    "absent": None,
    "other": pod("ns/x", b="1"),
    "match": pod("ns/x", a="1"),
}


@pytest.mark.parametrize("filtered", [True, False])
@pytest.mark.parametrize(("before", "now"), [*product(HELD, HELD)][1:])
def test_the_event_transform(before: str, now: str, filtered: bool) -> None:
    pods = Pods()
    if HELD[before] is not None:
        pods.txn([(pod_key("ns/x"), HELD[before])])
    stream = pods.stream(
        begin(pods.revision), predicate=labelled("a") if filtered else None
    )  # fmt: skip
    revision = pods.txn([(pod_key("ns/x"), HELD[now])])
    prev = before == "match" if filtered else before != "absent"
    cur = now == "match" if filtered else now != "absent"
    kind = {(False, True): "ADDED", (True, True): "MODIFIED", (True, False): "DELETED"}
    expected = kind.get((prev, cur))
    found = rest(stream)
    assert [event.type for event in found] == ([expected] if expected else [])
    for event in found:
        assert event.element is not None
        stored = HELD[now] if cur else HELD[before]
        assert event.element.source_value() == stored
        assert json.loads(event.element.value)["metadata"]["resourceVersion"] == str(revision)
        assert event.revision == event.element.mod_revision == revision


def test_events_of_one_revision_come_one_after_the_other_and_are_never_split() -> None:
    """Neither by a bookmark nor by the deadline; and nobody resumes inside of one (I5)."""
    pods = Pods()
    pods.put("ns/a", a="1")
    start = begin(2, bookmarks=True, deadline_s=100.0)
    stream = pods.stream(start, predicate=labelled("a"))
    writes = [("ns/b", pod("ns/b", a="1")), ("ns/n", pod("ns/n", b="1")), ("ns/a", None),
              ("ns/c", pod("ns/c", a="1")), ("ns/o", pod("ns/o", b="1"))]  # fmt: skip
    pods.txn((pod_key(name), value) for name, value in writes)
    pods.elsewhere()
    pods.clock.now_s = 60.0
    found, positions = [], []
    for _ in range(2):
        found.append(told(one(stream)))
        positions.append(stream.position)
    pods.clock.now_s = 100.0
    found += tell(stream)
    assert found == ["ADDED ns/b@3", "DELETED ns/a@3", "ADDED ns/c@3", "BOOKMARK @3"]
    assert positions == [2, 2]
    assert stream.position == 3
    assert stream.ended


def test_the_position_is_behind_the_last_event_of_a_revision_at_once() -> None:
    pods = Pods()
    stream = pods.stream(begin(1))
    pods.txn([(pod_key("ns/a"), pod("ns/a")), (pod_key("ns/b"), pod("ns/b"))])
    assert stream.poll() is not None
    assert stream.position == 1
    assert stream.poll() is not None
    assert stream.position == 2


# Bookmarks and the deadline.


def test_bookmarks_come_every_minute_and_two_seconds_before_the_end() -> None:
    pods = Pods()
    stream = pods.stream(begin(1, bookmarks=True, deadline_s=150.0))
    at: dict[float, list[str]] = {}
    while not stream.ended:
        pods.elsewhere()
        if found := tell(stream):
            at[pods.clock.now_s] = found
        pods.clock.now_s += 0.5
    assert at == {
        60.0: ["BOOKMARK @122"],
        120.0: ["BOOKMARK @242"],
        148.0: ["BOOKMARK @298"],
    }
    assert pods.clock.now_s == 150.5


def test_no_bookmark_where_the_watch_began_nor_at_a_revision_ahead() -> None:
    pods = Pods()
    level, ahead = (pods.stream(begin(at, bookmarks=True)) for at in (1, 9))
    pods.clock.now_s = 60.0
    assert rest(level) == rest(ahead) == []
    pods.put("ns/a")
    pods.clock.now_s = 119.0
    assert tell(level) == ["ADDED ns/a@2"]
    assert rest(ahead) == []
    pods.clock.now_s = 120.0
    assert tell(level) == ["BOOKMARK @2"]
    assert rest(ahead) == []
    while pods.revision < 9:
        pods.put("ns/b")
    assert rest(ahead) == []
    pods.put("ns/b")
    assert tell(ahead) == ["MODIFIED ns/b@10"]


def test_a_bookmark_that_falls_due_between_events_comes_after_what_it_covers() -> None:
    pods = Pods()
    stream = pods.stream(begin(1, bookmarks=True))
    for number in range(3):
        pods.put(f"ns/{number}")
    pods.clock.now_s = 61.0
    assert tell(stream) == ["ADDED ns/0@2", "BOOKMARK @2", "ADDED ns/1@3", "ADDED ns/2@4"]
    assert stream.next_wakeup_s() == 121.0


def test_a_watch_shorter_than_the_lead_of_the_last_bookmark_has_none() -> None:
    pods = Pods()
    stream = pods.stream(begin(1, bookmarks=True, deadline_s=1.5))
    assert stream.next_wakeup_s() == 1.5


def test_bookmarks_due_while_the_state_is_sent_wait_for_its_end() -> None:
    pods = Pods()
    pods.put("ns/a")
    pods.put("ns/b")
    stream = pods.stream(begin(initial=True, end_bookmark=True))
    assert told(one(stream)) == "ADDED ns/a@2"
    assert stream.position == 0
    pods.put("ns/c")
    pods.clock.now_s = 60.0
    assert tell(stream) == ["ADDED ns/b@3", "BOOKMARK @3 end", "ADDED ns/c@4", "BOOKMARK @4"]


def test_the_deadline_ends_a_watch_without_a_word_also_inside_the_state() -> None:
    pods = Pods()
    for name in ("ns/a", "ns/b"):
        pods.put(name)
    stream = pods.stream(begin(initial=True, deadline_s=5.0))
    assert stream.poll() is not None
    pods.clock.now_s = 5.0
    assert rest(stream) == []
    assert stream.ended
    assert stream.position == 0


# What ends a stream.


def test_what_was_evicted_is_410_in_the_stream() -> None:
    pods = Pods(Bounds(age_s=None, revisions=2))
    late = pods.stream(begin(1))
    for number in range(5):
        pods.put(f"ns/{number}")
    never = pods.stream(begin(1))
    for stream in (late, never):
        (event,) = rest(stream)
        assert isinstance(event.error, Compacted)
        assert event.error.__traceback__ is None
        assert stream.ended
    assert tell(pods.stream(begin(5))) == ["ADDED ns/4@6"]


@pytest.mark.parametrize("initial", [True, False])
def test_a_resynchronisation_is_410_in_the_stream(initial: bool) -> None:
    pods = Pods()
    pods.put("ns/a")
    stream = pods.stream(begin(2, initial=initial))
    expected = ["ADDED ns/a@2"] if initial else []
    with pytest.raises(FeedFault):
        pods.cache.apply(batch(2, put(pod_key("ns/b"), b"", 2)))
    assert tell(stream) == expected
    pods.cache.replace(9, ())
    assert tell(stream) == ["ERROR Expired"]
    assert stream.ended


def test_a_cache_without_a_state_has_no_watch() -> None:
    for initial in (True, False):
        with pytest.raises(NotReady):
            WatchStream(Cache(), begin(initial=initial), b"")


def test_the_state_is_never_one_that_a_fault_made_suspect() -> None:
    pods = Pods()
    pods.put("ns/a")
    pods.put("ns/b")
    lost = Element(pod_key("ns/a"), pod("ns/a"), 4, 2, 9)
    with pytest.raises(FeedFault):
        pods.cache.apply(Batch(4, (Event(lost.key, lost),)))
    with pytest.raises(NotReady):
        pods.stream(begin(initial=True))


def test_closing_the_cache_ends_a_stream_after_what_it_has() -> None:
    pods = Pods()
    stream = pods.stream(begin(1, bookmarks=True))
    pods.put("ns/a")
    pods.cache.close()
    assert tell(stream) == ["ADDED ns/a@2"]
    assert stream.ended


def test_what_a_filter_raises_goes_to_the_reader_and_ends_the_stream() -> None:
    def broken(element: Element) -> bool:
        if element.key.endswith(b"b"):
            raise ZeroDivisionError
        return True

    for initial in (True, False):
        pods = Pods()
        stream = pods.stream(begin(1), predicate=broken)
        for name in ("ns/a", "ns/b", "ns/c"):
            pods.put(name)
        if initial:
            stream = pods.stream(begin(initial=True), predicate=broken)
        assert stream.poll() is not None
        with pytest.raises(ZeroDivisionError):
            stream.poll()
        assert stream.ended
        assert stream.poll() is None


# Waiting.


def test_a_thread_waits_and_is_woken() -> None:
    store = Store()
    stream = WatchStream(store, begin(1), b"a/")
    found: list[WatchEvent] = []
    reader = threading.Thread(target=lambda: found.extend(stream))
    reader.start()
    for number in range(50):
        store.put(b"a/%d" % number, b"")
        store.put(b"b", b"")
    store.close()
    reader.join(10)
    assert not reader.is_alive()
    assert [event.revision for event in found] == [2 + 2 * number for number in range(50)]


@pytest.mark.parametrize("how", ["drain", "close"])
def test_a_thread_that_waits_is_told_of_the_end(how: str) -> None:
    store = Store()
    stream = WatchStream(store, begin(1), b"")
    reader = threading.Thread(target=lambda: [*stream])
    reader.start()
    getattr(stream, how)()
    reader.join(10)
    assert not reader.is_alive()
    assert not stream._waiters


def test_receive_waits_as_long_as_it_is_told() -> None:
    stream = WatchStream(Store(), begin(1), b"")
    assert stream.receive(0) is None
    assert stream.receive(0.01) is None
    assert not stream.ended


def test_a_reader_wakes_itself_for_bookmarks_and_the_deadline() -> None:
    store = Store()
    stream = WatchStream(store, begin(1, bookmarks=True), b"a/", bookmark_interval_s=0.01)
    store.put(b"b", b"")
    started = monotonic()
    found = stream.receive(10)
    assert found is not None
    assert (found.type, found.revision) == ("BOOKMARK", 2)
    assert monotonic() - started < 3
    ending = WatchStream(store, begin(1, deadline_s=monotonic() + 0.02), b"a/")
    assert [*ending] == []


def test_a_deadline_further_than_a_thread_can_wait() -> None:
    store = Store()
    stream = WatchStream(store, begin(1, deadline_s=1e18), b"")
    found: list[WatchEvent] = []
    reader = threading.Thread(target=lambda: found.extend(stream))
    reader.start()
    while not stream._waiters and reader.is_alive():
        sleep(0.001)
    store.put(b"a", b"")
    store.close()
    reader.join(10)
    assert [event.revision for event in found] == [2]


def asynchronous(test: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 20))

    run.__name__ = test.__name__
    return run


@asynchronous
async def test_a_task_waits_and_is_woken_by_a_writer_in_another_thread() -> None:
    store = Store()
    stream = WatchStream(store, begin(initial=True, end_bookmark=True), b"a/")

    def write() -> None:
        for number in range(200):
            store.put(b"a/%d" % number, b"")
            store.put(b"b", b"")
        store.close()

    writer = asyncio.get_running_loop().run_in_executor(None, write)
    found = [event.revision async for event in stream]
    await writer
    assert found == [1, *range(2, 401, 2)]


@asynchronous
async def test_many_tasks_over_one_cache_and_their_ends() -> None:
    store = Store()
    streams = [WatchStream(store, begin(1), b"a/") for _ in range(20)]

    async def read(stream: WatchStream) -> list[int]:
        return [event.revision async for event in stream]

    tasks = [asyncio.create_task(read(stream)) for stream in streams]
    await asyncio.sleep(0)
    for number in range(5):
        store.put(b"a/%d" % number, b"")
        await asyncio.sleep(0)
    streams[0].close()
    streams[1].drain()
    tasks[2].cancel()
    store.put(b"a/last", b"")
    with pytest.raises(asyncio.CancelledError):
        await tasks[2]
    store.close()
    read_by_first, read_by_second, *others = await asyncio.gather(*tasks[:2], *tasks[3:])
    assert len(read_by_first) <= 5
    assert read_by_second == [2, 3, 4, 5, 6]
    assert others == [[2, 3, 4, 5, 6, 7]] * 17
    assert not any(stream._waiters for stream in streams)


@asynchronous
async def test_a_task_wakes_itself_for_the_deadline() -> None:
    store = Store()
    stream = WatchStream(store, begin(1, deadline_s=monotonic() + 0.02), b"")
    assert [event async for event in stream] == []
    assert stream.ended


@asynchronous
async def test_a_long_state_leaves_the_loop_to_others() -> None:
    store = Store()
    for number in range(BURST * 4):
        store.put(b"%d" % number, b"")
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    stream = WatchStream(store, begin(initial=True), b"")
    for _ in range(BURST * 4):
        await anext(stream)
    task.cancel()
    assert turns >= 3


def test_a_loop_that_was_closed_does_not_hurt_the_writer() -> None:
    store = Store()
    stream = WatchStream(store, begin(1), b"")
    kept: list[Callable[[], object]] = []

    async def wait() -> None:
        task = asyncio.create_task(stream.receive_async())
        await asyncio.sleep(0)
        kept.extend(stream._waiters)
        task.cancel()

    asyncio.run(wait())
    assert len(kept) == 1
    stream.add_waiter(kept[0])
    store.put(b"a", b"")


# What a stream costs.


def test_the_state_is_begun_without_reading_it() -> None:
    """O(log n) and no copy, however long the list; and it stays the state of that revision."""
    store = Store()
    elements = [Element(b"%05d" % number, b"", 2, 2, 1) for number in range(20_000)]
    store.replace(2, elements)
    looked_at = 0

    def counting(element: Element) -> bool:
        nonlocal looked_at
        looked_at += 1
        return True

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        stream = WatchStream(store, begin(initial=True), b"", predicate=counting)
        assert looked_at == 0
        assert stream.poll() is not None
        assert looked_at == 1
        assert tracemalloc.get_traced_memory()[0] - before < 8_000
    finally:
        tracemalloc.stop()
    store.delete(b"19999")
    found = rest(stream)
    assert len(found) == 20_000
    assert [event.type for event in found[-2:]] == ["ADDED", "DELETED"]


def test_a_slow_reader_holds_no_memory() -> None:
    """Not what it has yet to read, and not what was evicted before it could."""

    def grown(readers: int) -> int:
        store = Store(bounds=Bounds(age_s=None, revisions=10))
        streams = [WatchStream(store, begin(1), b"") for _ in range(readers)]
        store.put(b"a", b"")
        for stream in streams:
            assert stream.poll() is not None
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(200):
            store.put(b"%d" % (number % 20), bytes(1_000))
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        assert all(stream.poll() is not None for stream in streams)
        return after - before

    tracemalloc.start()
    try:
        grown(1)
        assert grown(200) - grown(1) < 20_000
    finally:
        tracemalloc.stop()


def test_initial_elements_are_found_by_an_index_and_are_the_same() -> None:
    node = CODEC.fields.index("spec.nodeName")

    def on(element: Element) -> str | None:
        return element.fields[node] if element.fields else None

    cache = Cache(PREFIX, codec=CODEC, indexes=[Index("f:spec.nodeName", on)])
    names = [f"ns/{number:03}" for number in range(200)]
    cache.replace(
        2, [Element(pod_key(n), pod(n, "n1" if n.endswith("7") else "n2"), 2, 2, 1) for n in names]
    )
    looked_at = 0
    match = with_fields("spec.nodeName=n1")

    def counting(element: Element) -> bool:
        nonlocal looked_at
        looked_at += 1
        return match(element)

    options: dict[str, Any] = {"predicate": counting, "requirements": [("f:spec.nodeName", "n1")]}
    found = tell(WatchStream(cache, begin(initial=True), PREFIX, **options))
    assert looked_at == 20
    assert found == [f"ADDED ns/{number:03}@2" for number in range(7, 200, 10)]
    assert tell(WatchStream(cache, begin(initial=True), PREFIX, predicate=match)) == found
    bad = Element(pod_key("ns/000a"), b"bad", 3, 3, 1)
    cache.apply(Batch(3, (Event(bad.key, bad),)))
    stream = WatchStream(cache, begin(initial=True), PREFIX, **options)
    assert tell(stream) == ["ERROR InternalError"], "what can't be read is in no index"


# Deleted objects.


@pytest.mark.parametrize("one", recorded(), ids=lambda one: f"{one.kind} {one.key.decode()}")
@pytest.mark.parametrize("form", ["as stored", "json", "json with a version"])
def test_a_deleted_object_is_what_the_codec_makes_of_it_at_that_revision(
    one: Any, form: str
) -> None:
    value = {"as stored": one.stored, "json": one.as_stored_json, "json with a version": one.json}
    stored = Element(one.key, value[form], one.revision, 3, 2)
    later = Element(one.key, value[form], 12_345_678_901, 3, 2)
    codec = Kubernetes()
    made = with_revision(codec.decode(stored), later.mod_revision)
    assert made == codec.decode(later)
    stripped = with_revision(strip_managed_fields(codec.decode(stored)), later.mod_revision)
    expected = strip_managed_fields(codec.decode(later))
    assert stripped.value == expected.value
    assert stripped.undo == expected.undo
    assert bool(stripped.source_digest) == bool(expected.source_digest)
    assert (stripped.mod_revision, stripped.labels, stripped.fields) == (
        later.mod_revision, expected.labels, expected.fields,
    )  # fmt: skip


def test_a_deleted_object_that_no_codec_wrote_into_keeps_its_value() -> None:
    raw = Element(b"k", pod("ns/x"), 5, 4, 2)
    assert with_revision(Raw().decode(raw), 9) == Element(b"k", pod("ns/x"), 9, 4, 2)
    bad = CODEC.decode(Element(b"k", b"bad", 5, 4, 2))
    moved = with_revision(bad, 9)
    assert (moved.value, moved.problem, moved.mod_revision) == (b"bad", bad.problem, 9)
    dropped = CODEC.decode(raw).altered(b"gone")
    assert with_revision(dropped, 9).value == b"gone"
    raw_altered = raw.altered(b'{"kind":"Pod","apiVersion":"v1","metadata":{}}')
    assert with_revision(raw_altered, 9).value == raw_altered.value


def test_deleted_elements_are_made_once_for_all_streams() -> None:
    made = DeletedElements(size=2)
    pods = Pods()
    streams = [pods.stream(begin(1), deleted=made) for _ in range(3)]
    pods.put("ns/a")
    pods.delete("ns/a")
    first, second, third = ([*rest(stream)][1].element for stream in streams)
    assert first is not None
    assert first is second is third
    other = Element(first.key, b"", 2, 2, 1)
    assert made(other, 3) == Element(first.key, b"", 3, 2, 1), "another history's, same numbers"
    for number in range(5):
        made(Element(b"%d" % number, b"", 2, 2, 1), 3)
    assert len(made._known) == 2


def test_a_stream_over_label_selectors_of_a_store() -> None:
    """Raw values have no labels: only what asks for none matches."""
    store = Store()
    store.put(b"a", b"1")
    for text, count in (("!x", 1), ("x", 0)):
        selector = LabelSelector.parse(text)
        stream = WatchStream(
            store, begin(initial=True), b"", predicate=lambda e: selector.matches_pairs(e.labels)
        )
        assert len(rest(stream)) == count


def test_a_list_between_state_and_watcher_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state and the watcher are of one history, whatever the writer does in between."""
    pods = Pods()
    pods.put("ns/a")
    watch, calls = pods.cache.watch, 0

    def late(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            pods.cache.replace(2, [Element(pod_key("ns/z"), pod("ns/z"), 2, 2, 1)])
        elif calls == 2:
            pods.cache.replace(7, [Element(pod_key("ns/y"), pod("ns/y"), 7, 7, 1)])
        return watch(*args, **options)

    monkeypatch.setattr(pods.cache, "watch", late)
    stream = pods.stream(begin(initial=True, end_bookmark=True))
    assert tell(stream) == ["ADDED ns/y@7", "BOOKMARK @7 end"]
    assert calls == 3


def test_a_watch_from_the_newest_begins_there() -> None:
    pods = Pods()
    pods.put("ns/a")
    stream = pods.stream(begin(After.NEWEST))
    assert stream.position == 2
    pods.put("ns/b")
    assert tell(stream) == ["ADDED ns/b@3"]
