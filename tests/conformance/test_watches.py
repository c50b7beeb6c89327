"""Watches: what they say of changes, over all eight targets. Tests have upstream's names.

That nothing comes is seen by what comes next: events are ordered, so what was to be left out would
have come before it.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.conformance.frames import (
    CHANGES,
    STATE,
    emptied,
    labelled,
    leased,
    revision_of,
    take,
    tell,
    told,
    unread,
)
from tests.conformance.target import Ended, Target


@pytest.fixture
def pods(standing: Target) -> Target:
    """The standing target, emptied: no namespace of it, as all of it is watched."""
    emptied(standing)
    return standing


WATCH_CASES: dict[str, tuple[str | None, list[tuple[str, str]]]] = {
    # selector, then pairs of a write and what must be told. A write is labels, or "-" to delete.
    # The last write of each is told, which shows that nothing else came for those before it.
    "Watch: create a key": (None, [("a=1", "ADDED")]),
    "Watch: key updated to match predicate": ("b", [("a=1", ""), ("b=1", "ADDED")]),
    "Watch: update": (None, [("a=1", "ADDED"), ("a=2", "MODIFIED")]),
    "Watch: delete because of being filtered": ("a", [("a=1", "ADDED"), ("b=1", "DELETED")]),
    "Watch: filtering": (
        "a",
        [("a=1", "ADDED"), ("b=1", "DELETED"), ("a=2", "ADDED"), ("a=3", "MODIFIED"),
         ("b=2", "DELETED"), ("-", ""), ("a=1", "ADDED"), ("-", "DELETED")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("recursive", [True, False])
@pytest.mark.parametrize("case", WATCH_CASES)
def test_watch(pods: Target, case: str, recursive: bool) -> None:
    selector, steps = WATCH_CASES[case]
    name = "" if recursive else "foo"
    with pods.watch("ns", name, labelSelector=selector, **CHANGES) as events:
        for write, expected in steps:
            if write == "-":
                revision = pods.delete("ns/foo")
            else:
                label, _, value = write.partition("=")
                revision = labelled(pods, "ns/foo", **{label: value})
            if expected:
                assert take(events, 1) == [f"{expected} ns/foo@{revision}"]


def test_create_with_ttl(pods: Target) -> None:
    """All keys of a lease go at one revision."""
    with pods.watch(**CHANGES) as events:
        end = leased(pods, "ns/a", "ns/b", "ns/c")
        created = events.take(3)
        assert [frame["type"] for frame in created] == ["ADDED"] * 3
        end()
        gone = revision_of(created[-1]) + 1
        assert take(events, 3) == [f"DELETED ns/{name}@{gone}" for name in "abc"]


def test_watch_from_zero(pods: Target) -> None:
    pods.caught_up(first := pods.put("ns/foo"))
    with pods.counted() as calls, pods.watch(resourceVersion=0) as events:
        assert take(events, 1) == [f"ADDED ns/foo@{first}"]
        second = pods.put("ns/foo")
        assert take(events, 1) == [f"MODIFIED ns/foo@{second}"]
        with pods.watch(resourceVersion=0) as later:
            assert take(later, 1) == [f"ADDED ns/foo@{second}"]
    assert calls == {}, "served by the cache"
    with pods.counted() as calls, pods.watch() as newest:
        assert take(newest, 1) == [f"ADDED ns/foo@{second}"]
    assert calls == {"current_revision": 1}


def test_watch_from_zero_after_a_compaction(compactable: Target) -> None:
    pods = compactable
    first = pods.put("ns/foo")
    pods.put("ns/foo")
    third = pods.put("ns/foo")
    pods.compact(third)
    with pods.watch(resourceVersion=0) as events:
        assert take(events, 1) == [f"ADDED ns/foo@{third}"]
    with pods.watch(resourceVersion=first) as events:
        (frame,) = events.rest()
        assert told(frame) == "ERROR 410 Expired"
        assert frame["object"]["message"] == f"too old resource version: {first} ({third - 1})"
    with pods.watch(resourceVersion=third) as events:
        assert take(events, 0) == []
        fourth = pods.delete("ns/foo")
        assert take(events, 1) == [f"DELETED ns/foo@{fourth}"]


def test_watch_from_non_zero(pods: Target) -> None:
    first = pods.put("ns/foo")
    with pods.watch(resourceVersion=first) as events:
        second = pods.put("ns/foo")
        assert take(events, 1) == [f"MODIFIED ns/foo@{second}"]
        pods.caught_up(third := pods.put("ns/bar"))
        with pods.watch(resourceVersion=first) as replay:
            expected = [f"MODIFIED ns/foo@{second}", f"ADDED ns/bar@{third}"]
            assert take(replay, 2) == expected
            assert take(events, 1) == expected[1:]


def test_starting_resource_version(pods: Target) -> None:
    """A revision ahead is taken as it is: nothing until there is something above it."""
    first = pods.put("ns/foo")
    with pods.watch(resourceVersion=first + 3) as events:
        last = [labelled(pods, f"ns/{name}", a=name) for name in "abcde"]
        assert take(events, 2) == [f"ADDED ns/d@{last[3]}", f"ADDED ns/e@{last[4]}"]


def test_delete_trigger_watch(pods: Target) -> None:
    first = pods.put("ns/foo")
    with pods.watch(resourceVersion=first) as events:
        second = pods.delete("ns/foo")
        assert take(events, 1) == [f"DELETED ns/foo@{second}"]


def test_watch_delete_event_object_have_latest_rv(pods: Target) -> None:
    """And all else is the old content."""
    first = labelled(pods, "ns/foo", node="n1", a="1")
    with pods.watch(resourceVersion=first) as events:
        second = pods.delete("ns/foo")
        frame = events.next()
    expected = pods.object_at("ns/foo", {"a": "1"}, nodeName="n1")
    expected["metadata"]["resourceVersion"] = str(second)
    assert frame == {"type": "DELETED", "object": expected}


def test_caching_delete_events(pods: Target) -> None:
    """Whoever loses an object gets its old content at the new revision, the others the new one."""
    first = labelled(pods, "ns/foo", a="1")
    old, new = pods.object_at("ns/foo", {"a": "1"}), pods.object_at("ns/foo", {"b": "1"})
    with ExitStack() as stack:
        all_, leaves, leaves_too, never = (
            stack.enter_context(pods.watch(resourceVersion=first, labelSelector=selector))
            for selector in (None, "a", "a=1", "c")
        )
        second = pods.put("ns/foo", new)
        third = pods.delete("ns/foo")
        for shown in (old, new):
            shown["metadata"]["resourceVersion"] = str(second)
        assert all_.next() == {"type": "MODIFIED", "object": new}
        assert leaves.next() == leaves_too.next() == {"type": "DELETED", "object": old}
        new["metadata"]["resourceVersion"] = str(third)
        assert all_.next() == {"type": "DELETED", "object": new}
        fourth = labelled(pods, "ns/foo", a="1", c="1")
        for events in (all_, leaves, leaves_too, never):
            assert take(events, 1) == [f"ADDED ns/foo@{fourth}"]


def test_delayed_watch_delivery(target: Target) -> None:
    """Upstream promises 11 of the 21, what fits in its channels; here all of them arrive."""
    first = target.current_revision()
    with target.watch(**CHANGES) as events:
        revisions = [target.put(f"ns/{number}") for number in range(21)]
        assert take(events, 1) == [f"ADDED ns/0@{first + 1}"]
        target.caught_up()
        target.cache.close()
        assert tell(events.rest()) == [
            f"ADDED ns/{number}@{revisions[number]}" for number in range(1, 21)
        ]


def test_watch_error(pods: Target) -> None:
    with pods.watch(**CHANGES) as events:
        first = pods.put("ns/good")
        pods.put("ns/bad", b"no object")
        assert take(events, 1) == [f"ADDED ns/good@{first}"]
        (bad,) = events.rest()
    assert told(bad) == "ERROR 500 InternalError"
    assert "/pods/ns/bad" in bad["object"]["message"]
    assert bad["object"]["kind"] == "Status"


@pytest.mark.parametrize("begins_with", ["changes", "state"])
def test_watch_error_is_blocking_further_events(pods: Target, begins_with: str) -> None:
    before = pods.current_revision()
    first = pods.put("ns/a")
    pods.put("ns/b", b"{}")
    pods.put("ns/c")
    pods.caught_up()
    asked = {"resourceVersion": before, **CHANGES} if begins_with == "changes" else STATE
    with pods.watch(allowWatchBookmarks=True, **asked) as events:
        assert tell(events.rest()) == [f"ADDED ns/a@{first}", "ERROR 500 InternalError"]
        pods.put("ns/d")
        with pytest.raises(Ended):
            events.next()
    with pods.watch("other", **STATE) as elsewhere:
        other = pods.put("other/a")
        assert take(elsewhere, 1) == [f"ADDED other/a@{other}"]


def test_watch_with_unsafe_delete(pods: Target) -> None:
    """What was deleted can't be read, so it can't be said what it was; others are not harmed."""
    first = pods.put("ns/bad", b"no object")
    with pods.watch("ns", resourceVersion=first) as events, pods.watch(resourceVersion=0) as state:
        second = pods.delete("ns/bad")
        third = pods.put("ns/good")
        assert tell(events.rest()) == ["ERROR 500 InternalError"]
        assert tell(state.rest()) == ["ERROR 500 InternalError"]
    with pods.watch(resourceVersion=second) as events:
        assert take(events, 1) == [f"ADDED ns/good@{third}"]


def test_watch_context_cancel(pods: Target) -> None:
    """Over a connection what had been sent before may still come, but nothing that came after."""
    pods.put("ns/foo")
    with pods.watch(allowWatchBookmarks=True) as events:
        assert len(events.take(1)) == 1
        events.close()
        pods.caught_up(second := pods.put("ns/foo"))
        assert f"MODIFIED ns/foo@{second}" not in tell(events.rest())
        with pytest.raises(Ended):
            events.next()


def test_watcher_timeout(target: Target) -> None:
    """Fifty that don't read delay nobody: the one that reads has each event before the next."""
    first = target.current_revision()
    with ExitStack() as stack:
        idle = [stack.enter_context(unread(target, first)) for _ in range(50)]
        with target.watch(resourceVersion=first) as events:
            for number in range(30):
                revision = target.put(f"ns/{number}")
                assert take(events, 1) == [f"ADDED ns/{number}@{revision}"]
        target.caught_up()
        target.cache.close()
        assert all(len(read()) == 30 for read in idle)
