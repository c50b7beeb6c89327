"""The units of the watch cache, as far as a client can see them, over all eight targets: what it
keeps, from where on it can be watched and read, and how it gets to what is asked of it."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from btreecache import Batch, Compacted, Element, Event, Unavailable
from btreecache.source import Listing
from btreecache.window import Bounds
from tests.conformance.conftest import Worlds
from tests.conformance.frames import break_feed, emptied, labelled, take, tell
from tests.conformance.target import Kind, Object, Page, Status, Target, kinds, path_of, wait_for

EXACT = {"resourceVersionMatch": "Exact"}


@pytest.fixture
def pods(standing: Target) -> Target:
    """The standing target, emptied: no namespace of it, as all of it is watched."""
    emptied(standing)
    return standing


def shown(page: Page) -> list[str]:
    """What is listed: which object, and its resourceVersion."""
    return [f"{path_of(item)}@{item['metadata']['resourceVersion']}" for item in page.items]


def test_watch_cache_basic(pods: Target) -> None:
    """Added, updated, deleted, and replaced as a whole."""
    first = pods.put("ns/a")
    assert shown(pods.page()) == [f"ns/a@{first}"]
    second = labelled(pods, "ns/a", x="1")
    page = pods.page()
    assert shown(page) == [f"ns/a@{second}"]
    assert page.items[0]["metadata"]["labels"] == {"x": "1"}
    third = pods.put("ns/b")
    pods.delete("ns/a")
    assert shown(pods.page()) == [f"ns/b@{third}"]
    missing = pods.get("ns/a")
    assert isinstance(missing, Status)
    assert missing.code == 404
    break_feed(pods, Compacted(1, 2))
    for query in ({}, {"resourceVersion": 0}, {"resourceVersion": third}):
        assert shown(pods.page(**query)) == [f"ns/b@{third}"]


@pytest.mark.parametrize("kind", kinds())
def test_events(worlds: Worlds, kind: Kind) -> None:
    """Each revision that is kept can be watched from, none before that; after a list as a whole
    none before it."""
    with worlds.open(kind, bounds=Bounds(age_s=None, revisions=5)) as target:
        written = [labelled(target, "ns/a", n=str(number)) for number in range(12)]
        floor = target.caught_up(written[-1]) - 5
        for number, revision in enumerate(written[:-1]):
            with target.watch(resourceVersion=revision) as events:
                if revision < floor:
                    assert tell(events.rest()) == ["ERROR 410 Expired"]
                else:
                    later = [f"MODIFIED ns/a@{one}" for one in written[number + 1 :]]
                    assert take(events, len(later)) == later
        break_feed(target, Compacted(1, 2))
        with target.watch(resourceVersion=written[-1] - 1) as events:
            assert tell(events.rest()) == ["ERROR 410 Expired"]
        with target.watch(resourceVersion=written[-1]) as events:
            gone = target.delete("ns/a")
            assert take(events, 1) == [f"DELETED ns/a@{gone}"]


def test_wait_until_fresh(pods: Target) -> None:
    """Whoever names what was written gets it at once, however the cache has to hear of it."""
    for turn in range(5):
        written = labelled(pods, "ns/a", turn=str(turn))
        with pods.counted() as calls:
            answer = pods.get("ns/a", resourceVersion=written)
            assert isinstance(answer, Object)
            assert answer.revision == written
            assert shown(pods.page(resourceVersion=written)) == [f"ns/a@{written}"]
            assert shown(pods.page("ns", "a", resourceVersion=written)) == [f"ns/a@{written}"]
        elsewhere = pods.put_elsewhere()
        page = pods.page(resourceVersion=elsewhere)
        assert (shown(page), page.revision >= elsewhere) == ([f"ns/a@{written}"], True)
        assert calls == {}


def test_watch_cache_storage_snapshots(target: Target) -> None:
    """A state for each revision: of what was added, changed and deleted, and in between. A list as
    a whole begins anew; what was before it only the source knows."""
    for _ in range(2):
        target.put_elsewhere()
    empty = target.put_elsewhere()
    added = target.put("ns/a")
    changed = labelled(target, "ns/a", x="1")
    deleted = target.delete("ns/a")
    gap = target.put_elsewhere()
    target.caught_up(gap)
    states = {empty: [], added: [f"ns/a@{added}"], changed: [f"ns/a@{changed}"], deleted: [],
              gap: []}  # fmt: skip

    def read_all() -> int:
        """Read all of them; how many of them reached the source."""
        with target.counted() as calls:
            for revision, expected in states.items():
                page = target.page(resourceVersion=revision, **EXACT)
                assert (shown(page), page.revision) == (expected, revision)
        return calls["range_at"]

    assert read_all() == (0 if target.kind.snapshots else len(states))
    break_feed(target, Compacted(1, 2))
    assert read_all() == len(states) - (1 if target.kind.snapshots else 0)


@pytest.mark.parametrize("version", ["newest", "any", "exact"])
def test_watch_cache_snapshot_concurrency(pods: Target, version: str) -> None:
    """Beside a writer each list is one state: that of the revision that it names."""
    start = pods.caught_up()
    written = [start]
    done = threading.Event()

    def write() -> None:
        while not done.wait(0.004):
            number = len(written)
            paths = [f"ns/{number % 7}", f"other/{number % 7}"]
            written.append(pods.txn(*[(path, pods.object_at(path)) for path in paths]))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        pages = []
        while len(written) < 40:
            time.sleep(0.003)
            pods.caught_up(written[-1])
            at = {"newest": None, "any": 0, "exact": written[-1]}[version]
            more = EXACT if version == "exact" else {}
            pages.append((written[-1], pods.page(resourceVersion=at, **more)))
    finally:
        done.set()
        writer.join()
    for least, page in pages:
        assert page.revision >= least or version != "newest"
        state: dict[str, int] = {}
        for number, revision in enumerate(written[1:], 1):
            if revision <= page.revision:
                state |= dict.fromkeys([f"ns/{number % 7}", f"other/{number % 7}"], revision)
        assert shown(page) == [f"{path}@{revision}" for path, revision in sorted(state.items())]
    assert len({page.revision for _, page in pages}) > 1, "and not all of one"


def test_mark_consistent(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a broken feed may have spoiled is never served: the source answers what it can, other
    reads are told to come again, and what was before it is read as ever. Once there is a new list
    all is as before, and whoever watched is told to begin anew."""
    first, second = target.put("ns/a"), labelled(target, "ns/a", x="1")
    third = target.put("ns/b")
    target.caught_up()
    watch = target.watch(resourceVersion=second)
    assert take(watch, 1) == [f"ADDED ns/b@{third}"]
    mended = threading.Event()
    lists = target.source.list

    def list_(prefix: bytes) -> Listing:
        if not mended.is_set():
            raise Unavailable("not yet")
        return lists(prefix)

    monkeypatch.setattr(target.source, "list", list_)
    key = target.key("ns/b")
    spoil(target, Batch(third, (Event(key, Element(key, b"", third, third, 1)),)))
    with target.counted() as calls:
        for revision, expected in ((first, f"ns/a@{first}"), (second, f"ns/a@{second}")):
            assert shown(target.page(resourceVersion=revision, **EXACT)) == [expected]
    assert calls == ({} if target.kind.snapshots else {"range_at": 2})
    both = [f"ns/a@{second}", f"ns/b@{third}"]
    with target.counted() as calls:
        assert shown(target.page(resourceVersion=third, **EXACT)) == both
        answer = target.get("ns/b", resourceVersion=third)
        assert isinstance(answer, Object)
        assert shown(target.page(limit=5)) == both
    assert calls["range_at"] == 3
    for query in ({}, {"resourceVersion": 0}, {"resourceVersion": third}):
        assert target.refusal(**query).code == 429
    for query in ({}, {"resourceVersion": 0}, {"resourceVersion": third}):
        assert target.watch_refusal(**query).code == 429
    mended.set()
    target.caught_up(target.put_elsewhere())
    wait_for(lambda: target.cache.ready)
    assert shown(target.page(resourceVersion=0)) == both
    with watch:
        assert tell(watch.rest()) == ["ERROR 410 Expired"]


def spoil(target: Target, batch: Batch) -> None:
    """Have the cache's feed bring a batch that no source could."""
    stream: Any = target.access.follower._stream
    items = [batch]
    receive = stream.receive
    stream.receive = lambda timeout_s: items.pop() if items else receive(timeout_s)
    wait_for(lambda: not target.cache.ready)
