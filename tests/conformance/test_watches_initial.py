"""Watches: what they begin with, and the bookmark that ends it, over all eight targets."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import product

import pytest

from btreecache.features import Features
from tests.conformance.conftest import Worlds
from tests.conformance.frames import CHANGES, STATE, emptied, labelled, take
from tests.conformance.target import Kind, Target, kinds


@pytest.fixture
def pods(standing: Target) -> Target:
    """The standing target, emptied: no namespace of it, as all of it is watched."""
    emptied(standing)
    return standing


#: What is asked by sendInitialEvents.
ASKED: dict[str, dict[str, object]] = {"state": {**STATE}, "changes": {**CHANGES}, "nothing": {}}

SEMANTICS = [
    # allowWatchBookmarks, what is asked, resourceVersion
    *product((True, False), ("state", "changes"), ("unset", "0", "old", "current")),
    (False, "nothing", "0"),
    (False, "nothing", "unset"),
]


@pytest.mark.parametrize(("bookmarks", "asked", "version"), SEMANTICS)
def test_watch_semantics(pods: Target, bookmarks: bool, asked: str, version: str) -> None:
    """Without allowWatchBookmarks the state comes, but no bookmark that ends it. Changes from an
    old revision on are replayed; upstream's old one is 1, where its history begins."""
    old = pods.current_revision()
    written = {path: pods.put(path) for path in ("ns/1", "ns/2", "other/3")}
    current = pods.caught_up()
    versions = {"unset": None, "0": 0, "old": old, "current": current}
    with pods.watch(
        resourceVersion=versions[version], allowWatchBookmarks=bookmarks, **ASKED[asked]
    ) as events:
        everything = [f"ADDED {path}@{revision}" for path, revision in written.items()]
        expected = everything if asked != "changes" or version == "old" else []
        end = [f"BOOKMARK @{current} end"] if bookmarks and asked == "state" else []
        assert take(events, len(expected + end)) == expected + end
        later = [labelled(pods, "ns/2", a="1"), pods.put("ns/4"), pods.delete("ns/1")]
        assert take(events, 3) == [
            f"MODIFIED ns/2@{later[0]}", f"ADDED ns/4@{later[1]}", f"DELETED ns/1@{later[2]}",
        ]  # fmt: skip


@pytest.mark.parametrize("kind", kinds())
def test_send_initial_events_backward_compatibility(worlds: Worlds, kind: Kind) -> None:
    """Where nobody asks for initial events, as before there was WatchList: from nowhere or 0 the
    state comes first all the same, and no bookmark ends it."""
    features = Features(list_from_cache_snapshot=kind.snapshots, watch_list=False)
    with worlds.open(kind, features=features) as target:
        first, second = target.put("ns/a"), target.put("ns/b")
        target.caught_up()
        with ExitStack() as stack:
            watches = {
                (version, bookmarks): stack.enter_context(
                    target.watch(resourceVersion=version, allowWatchBookmarks=bookmarks)
                )
                for version in (None, 0, first)
                for bookmarks in (True, False)
            }
            third = target.put("ns/c")
            for (version, _), events in watches.items():
                state = [] if version else [f"ADDED ns/a@{first}"]
                expected = [*state, f"ADDED ns/b@{second}", f"ADDED ns/c@{third}"]
                assert take(events, len(expected)) == expected
        refused = target.watch_refusal(**STATE)
        assert (refused.code, refused.reason) == (422, "Invalid")
        assert "unless the WatchList feature gate is enabled" in refused.message


@pytest.mark.parametrize("version", ["unset", "0", "object", "current"])
def test_watch_semantic_initial_events_extended(pods: Target, version: str) -> None:
    """The bookmark is at the revision of the whole source, not at that of an object."""
    first = pods.put("ns/1")
    elsewhere = pods.put_elsewhere()
    if version in ("0", "object"):
        pods.caught_up()  # else an older state would do
    versions = {"unset": None, "0": 0, "object": first, "current": elsewhere}
    with pods.watch(resourceVersion=versions[version], allowWatchBookmarks=True, **STATE) as events:
        assert take(events, 2) == [f"ADDED ns/1@{first}", f"BOOKMARK @{elsewhere} end"]
        second = pods.put("ns/2")
        assert take(events, 1) == [f"ADDED ns/2@{second}"]


@pytest.mark.parametrize("way", ["selector", "name", "namespace"])
def test_watch_list_match_single(pods: Target, way: str) -> None:
    written = {path: pods.put(path) for path in ("ns/bar", "ns/foo", "ns/foo2")}
    elsewhere = pods.put_elsewhere()
    namespace, name, selector = {
        "selector": ("", "", "metadata.name=foo"),
        "name": ("ns", "foo", None),
        "namespace": ("ns", "", "metadata.name=foo,metadata.namespace=ns"),
    }[way]
    with pods.watch(
        namespace, name, fieldSelector=selector, allowWatchBookmarks=True, **STATE
    ) as events:
        assert take(events, 2) == [
            f"ADDED ns/foo@{written['ns/foo']}",
            f"BOOKMARK @{elsewhere} end",
        ]
        pods.put("ns/foo2")
        gone = pods.delete("ns/foo")
        assert take(events, 1) == [f"DELETED ns/foo@{gone}"]
    with pods.watch(
        namespace, name, fieldSelector=selector, allowWatchBookmarks=True, **STATE
    ) as events:
        assert take(events, 1) == [f"BOOKMARK @{gone} end"]


def test_watch_list_semantics_simple(pods: Target) -> None:
    """The state is never older than what was asked for, also where the cache has yet to hear."""
    for turn in range(5):
        newest = pods.put(f"ns/{turn}")
        for version in (None, newest):
            with pods.watch(resourceVersion=version, allowWatchBookmarks=True, **STATE) as events:
                *state, end = take(events, turn + 2)
                assert state[-1] == f"ADDED ns/{turn}@{newest}"
                assert end == f"BOOKMARK @{newest} end"


def test_from_store_sorted(pods: Target) -> None:
    """The state comes in the order of its keys, which is not that of namespaces and names, and
    each object has its own revision."""
    paths = ["b/x", "a/y", "a-b/z", "a/x", "a0/x", "a/x-", "a.b/x", "a/x0"]
    written = {path: pods.put(path) for path in paths}
    pods.caught_up()
    with pods.watch(resourceVersion=0) as events:
        ordered = sorted(paths, key=str.encode)
        assert ordered[:2] == ["a-b/z", "a.b/x"]
        assert take(events, len(paths)) == [f"ADDED {path}@{written[path]}" for path in ordered]


def test_lazy_snapshot_empty(pods: Target) -> None:
    """Of nothing, of a namespace without objects, and of a selector that none matches."""
    current = pods.caught_up()
    with pods.watch(allowWatchBookmarks=True, **STATE) as events:
        assert take(events, 1) == [f"BOOKMARK @{current} end"]
    first = labelled(pods, "ns/a", x="1")
    for namespace, selector in (("none", None), ("ns", "x=2"), ("", "!x")):
        with pods.watch(
            namespace, labelSelector=selector, allowWatchBookmarks=True, **STATE
        ) as events:
            assert take(events, 1) == [f"BOOKMARK @{first} end"]
            second = labelled(pods, f"{namespace or 'ns'}/b", x="2")
            if namespace:
                assert take(events, 1) == [f"ADDED {namespace}/b@{second}"]
            first = pods.delete(f"{namespace or 'ns'}/b")


def test_the_state_and_what_comes_after_it_have_no_gap(pods: Target) -> None:
    """While the state is read it may change; nothing of that is lost, and nothing comes twice."""
    revisions = [pods.put(f"ns/{number:03}") for number in range(300)]
    with pods.watch(allowWatchBookmarks=True, **STATE) as events:
        begun = take(events, 1)
        changed = [labelled(pods, f"ns/{number:03}", a="1") for number in range(0, 300, 50)]
        expected = [f"ADDED ns/{number:03}@{revision}" for number, revision in enumerate(revisions)]
        expected.append(f"BOOKMARK @{revisions[-1]} end")
        expected += [
            f"MODIFIED ns/{number:03}@{revision}"
            for number, revision in zip(range(0, 300, 50), changed, strict=True)
        ]
        assert begun + take(events, len(expected) - 1) == expected
