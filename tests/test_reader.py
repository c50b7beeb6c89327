"""Reader and AsyncReader: every step of a plan and every way that it can end, on a clock of paper.

The source is a dict of states that notes what it is asked; time passes in `World.wait`, which first
lets happen what a test has put on for it. Each test runs with both drivers.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest

from btreecache import (
    BadRequest,
    Bounds,
    Cache,
    Compacted,
    Element,
    FeedFault,
    FutureRevision,
    NotReady,
    Progress,
    SourceError,
    Store,
    Unavailable,
)
from btreecache.cache import State
from btreecache.codec import Kubernetes
from btreecache.continue_token import EXPIRED, INCONSISTENT_CONTINUE, decode, encode
from btreecache.errors import Invalid, NotFound, status
from btreecache.features import Features
from btreecache.fields import fields_of
from btreecache.index import field_index, label_index
from btreecache.options import GetOptions, ListOptions, WatchOptions
from btreecache.reader import AsyncReader, Reader
from btreecache.reads import Answer, ListPage
from btreecache.resources import BUILT_IN
from btreecache.source import RangePage
from btreecache.watch_stream import WatchStream
from tests.fakes import Clock, DictTruth, batch, delete, element, put

PREFIX = b"/registry/pods/"
PODS = BUILT_IN.named("pods")
FIELDS = fields_of("", "pods")
CODEC = Kubernetes(FIELDS.fields)

Content = dict[bytes, Element]


def key_of(name: str) -> bytes:
    return PREFIX + name.encode()


def pod(name: str, node: str = "", **labels: str) -> bytes:
    """A pod by "namespace/name"."""
    namespace, own = name.split("/")
    metadata = {"name": own, "namespace": namespace, "labels": labels}
    pod = {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"nodeName": node}}
    return json.dumps(pod).encode()


def names(page: ListPage) -> list[str]:
    return [one.key[len(PREFIX) :].decode() for one in page.elements]


class NotingTruth(DictTruth):
    """A truth that notes what it is asked, after it let happen what a test put on `before`."""

    name = "noting"

    def __init__(self, states: dict[int, Content]) -> None:
        super().__init__(states)
        self.calls: list[str] = []
        self.before: deque[Callable[[], object]] = deque()
        self.current = 0

    def current_revision(self) -> int:
        self.calls.append("ask")
        self._happen()
        return max(self.current, *self.states)

    def range_at(
        self,
        revision: int,
        prefix: bytes,
        start: bytes | None = None,
        limit: int | None = None,
        keys_only: bool = False,
    ) -> RangePage:
        self.calls.append(f"range at {revision}" + (f" limit {limit}" if limit else ""))
        self._happen()
        self.states.setdefault(max(self.current, *self.states), self.states[max(self.states)])
        return super().range_at(revision, prefix, start, limit, keys_only)

    def _happen(self) -> None:
        if self.before:
            self.before.popleft()()


class World:
    """A cache of pods, the truth that it follows, and one reader.

    turns   what happens while a read waits, one thing a turn; after them only time passes
    """

    def __init__(
        self,
        driver: str = "blocking",
        *,
        fill: bool = True,
        progress: bool = True,
        cache: Cache | None = None,
        **options: Any,
    ) -> None:
        self.driver, self.clock = driver, Clock()
        self.turns: deque[Callable[[], object]] = deque()
        self.progress, self.progress_requests = progress, 0
        self.source = NotingTruth({1: {}})
        self.cache = cache or Cache(
            PREFIX,
            codec=CODEC,
            bounds=Bounds(age_s=None),
            indexes=[label_index("app"), field_index("spec.nodeName", FIELDS_AT["spec.nodeName"])],
            now=self.clock,
        )
        if fill and cache is None:
            self.cache.replace(10, [])
            self.source.states[10] = {}
        options = {"source": self.source, "follower": self, "codec": CODEC, "fields": FIELDS,
                   "resource": PODS, "now": self.clock, "wait": self.wait} | options  # fmt: skip
        self.reader = Reader(self.cache, **options)

    def request_progress(self) -> bool:
        self.progress_requests += self.progress
        return self.progress

    def wait(self, predicate: Callable[[State], object], timeout_s: float) -> bool:
        if predicate(self.cache.state):
            return True
        if timeout_s <= 0 or self.cache.closed:
            return False
        if self.turns:
            self.turns.popleft()()
            self.clock.now_s += min(timeout_s, 0.01)
        else:
            self.clock.now_s += timeout_s + 1e-6  # a real wait is never shorter
        return bool(predicate(self.cache.state))

    # Both drivers.

    def get(self, name: str, **options: Any) -> Answer:
        key, asked = key_of(name), GetOptions(**options)
        if self.driver == "blocking":
            return self.reader.get(key, asked)
        return asyncio.run(AsyncReader(self.reader).get(key, asked))

    def list(
        self, prefix: bytes | None = None, *, recursive: bool = True, **options: Any
    ) -> ListPage:
        asked = ListOptions(**options)
        if self.driver == "blocking":
            return self.reader.list(asked, prefix, recursive=recursive)
        return asyncio.run(AsyncReader(self.reader).list(asked, prefix, recursive=recursive))

    def watch(
        self, prefix: bytes | None = None, *, exact: bool = False, **options: Any
    ) -> WatchStream:
        asked = WatchOptions(**options)
        if self.driver == "blocking":
            return self.reader.watch(asked, prefix, exact=exact)
        return asyncio.run(AsyncReader(self.reader).watch(asked, prefix, exact=exact))

    # Writing: to the truth, and to the cache if it is told.

    def write(self, revision: int, *, told: bool = True, **values: bytes | None) -> None:
        """`ns__name=value` puts, `ns__name=None` deletes."""
        before = self.source.states[max(self.source.states)]
        after, events = dict(before), []
        for mangled, value in values.items():
            key = key_of(mangled.replace("__", "/"))
            if value is None:
                del after[key]
                events.append(delete(key))
                continue
            old = before.get(key)
            made, version = (old.create_revision, old.version + 1) if old else (revision, 1)
            after[key] = element(key, value, revision, made, version)
            events.append(put(key, value, revision, made, version))
        self.source.states[revision] = after
        if told:
            self.cache.apply(batch(revision, *events))

    def pods(self, revision: int, *names: str, told: bool = True, **labels: str) -> None:
        values = {name.replace("/", "__"): pod(name, **labels) for name in names}
        self.write(revision, told=told, **values)

    def tell(self, revision: int) -> None:
        """The cache catches up, as by a list."""
        state = self.source.states[max(r for r in self.source.states if r <= revision)]
        self.cache.replace(revision, [state[key] for key in sorted(state)])

    def progress_to(self, revision: int) -> None:
        self.cache.progress(Progress(revision))

    def break_feed(self) -> None:
        """A feed fault: only what came before the last batch can be trusted."""
        revision = self.cache.revision
        with pytest.raises(FeedFault):
            self.cache.apply(batch(revision, put(PREFIX + b"x/x", b"", revision)))


FIELDS_AT = {name: place for place, name in enumerate(CODEC.fields)}


@pytest.fixture(params=["blocking", "async"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def world(driver: str) -> World:
    world = World(driver)
    world.pods(11, "a/one")
    world.pods(12, "a/two")
    world.pods(13, "b/one")
    return world


# Reads of the newest state.


def test_level_with_the_source(world: World) -> None:
    page = world.list()
    assert names(page) == ["a/one", "a/two", "b/one"]
    assert page.meta.members() == {"resourceVersion": "13"}
    assert world.get("a/two").resource_version == "13"
    assert world.get("a/two").element == world.cache.get(key_of("a/two"))
    assert world.source.calls == ["ask"] * 3


def test_behind_the_source_until_told(world: World) -> None:
    world.pods(14, "c/new", told=False)
    world.turns.extend([lambda: None, lambda: world.tell(14)])
    assert names(world.list(prefix=PREFIX + b"c/")) == ["c/new"]
    assert world.source.calls == ["ask"]
    assert world.progress_requests >= 1


def test_a_progress_mark_is_as_good_as_a_write(world: World) -> None:
    world.source.current = 20  # somewhere else something was written
    world.turns.append(lambda: world.progress_to(20))
    assert world.list().meta.resource_version == "20"
    assert world.source.calls == ["ask"]


def test_progress_is_asked_for_every_tenth_of_a_second(world: World) -> None:
    world.source.current = 20
    assert world.list(timeout_s=2.0).meta.resource_version == "20"
    assert world.source.calls == ["ask", "ask", "range at 20 limit 500"]
    assert 19 <= world.progress_requests <= 21


def test_what_happens_after_the_question_may_be_in_the_answer_before_it_must(world: World) -> None:
    world.source.before.append(lambda: world.pods(14, "c/new", told=False))
    world.turns.append(lambda: world.tell(14))
    assert names(world.list(prefix=PREFIX + b"c/")) == ["c/new"]


def test_not_told_in_time_the_source_answers(world: World) -> None:
    world.pods(14, "c/new", told=False)
    began = world.clock.now_s
    page = world.list(limit=1, prefix=PREFIX + b"c/")
    assert names(page) == ["c/new"]
    assert page.meta.resource_version == "14"
    assert world.clock.now_s - began == pytest.approx(3.0, abs=0.15)
    assert world.source.calls == ["ask", "ask", "range at 14 limit 1"]
    assert json.loads(page.elements[0].value)["metadata"]["resourceVersion"] == "14"


@pytest.mark.parametrize(("timeout_s", "waited_s"), [(0.5, 0.5), (10.0, 10.0), (1e9, 60.0)])
def test_a_wait_takes_the_callers_timeout(world: World, timeout_s: float, waited_s: float) -> None:
    world.pods(14, "c/new", told=False)
    assert world.get("c/new", timeout_s=timeout_s).resource_version == "14"
    assert world.clock.now_s == pytest.approx(waited_s, abs=0.15)


def test_no_time_to_wait_is_enough_where_nothing_has_to_be_awaited(world: World) -> None:
    assert world.list(timeout_s=0.0).meta.resource_version == "13"
    assert world.source.calls == ["ask"]


@pytest.mark.parametrize(
    "options", [{"progress": False}, {"features": Features(consistent_list_from_cache=False)}]
)
def test_without_progress_or_its_gate_the_source_answers(
    driver: str, options: dict[str, Any]
) -> None:
    world = World(driver, **options)
    world.pods(11, "a/one")
    assert names(world.list()) == ["a/one"]
    assert world.get("a/one").resource_version == "11"
    assert world.source.calls == ["ask", "range at 11 limit 500", "ask", "range at 11 limit 1"]


def test_while_the_cache_was_never_filled(driver: str) -> None:
    world = World(driver, fill=False)
    world.source.states[5] = {key_of("a/x"): element(key_of("a/x"), pod("a/x"), 5)}
    assert world.get("a/x").resource_version == "5"
    assert names(world.list(limit=7)) == ["a/x"]
    world.clock.now_s += 30
    for options in ({}, {"resource_version": "0"}, {"limit": 1, "label_selector": "a=b"}):
        with pytest.raises(NotReady) as caught:
            world.list(**options)
        assert caught.value.retry_after_s == 6
        assert "storage is (re)initializing" in str(caught.value)


def test_a_source_that_is_away(world: World) -> None:
    def away() -> None:
        raise Unavailable("away")

    world.source.before.append(away)
    with pytest.raises(Unavailable, match="away"):
        world.list()
    assert world.list(resource_version="0").meta.resource_version == "13"


def test_spoiled_while_it_waits(world: World) -> None:
    """NOT_READY: a GET goes to the source, a list is told to come again."""
    world.source.current = 13
    world.pods(14, "c/new", told=False)

    def spoil() -> None:
        world.tell(14)
        world.break_feed()

    world.turns.append(spoil)
    assert world.get("c/new").resource_version == "14"
    assert world.source.calls == ["ask", "ask", "range at 14 limit 1"]
    world.tell(14)
    world.pods(15, "c/newer", told=False)
    world.turns.append(lambda: (world.tell(15), world.break_feed()))
    with pytest.raises(NotReady):
        world.list(resource_version="15")


# Reads at a revision.


def test_exact_from_its_snapshot(world: World) -> None:
    for revision, wanted in ((10, []), (11, ["a/one"]), (13, ["a/one", "a/two", "b/one"])):
        page = world.list(resource_version=str(revision), resource_version_match="Exact")
        assert (names(page), page.meta.resource_version) == (wanted, str(revision))
    answer = world.get("a/one", resource_version="12", resource_version_match="Exact")
    assert answer.resource_version == "12"
    with pytest.raises(NotFound, match='pods "two" not found'):
        world.get("a/two", resource_version="11", resource_version_match="Exact")
    assert world.source.calls == []


def test_exact_ahead_waits_and_is_refused_in_the_end(world: World) -> None:
    world.pods(15, "c/new", told=False)
    world.turns.append(lambda: world.tell(15))
    options = {"resource_version": "14", "resource_version_match": "Exact"}
    # The list at 15 cut history: 14 is gone by then, and the source still has it.
    assert world.list(**options).meta.resource_version == "14"
    assert world.source.calls == ["range at 14 limit 500"]
    with pytest.raises(FutureRevision) as caught:
        world.list(resource_version="16", resource_version_match="Exact")
    assert (caught.value.revision, caught.value.current) == (16, 15)
    assert status(caught.value)["details"] == {
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }
    world.turns.append(lambda: world.pods(16, "c/last"))
    found = world.get("c/last", resource_version="16", resource_version_match="Exact")
    assert found.resource_version == "16"


def test_exact_ahead_without_progress_is_for_the_source_to_judge(driver: str) -> None:
    world = World(driver, progress=False)
    world.pods(11, "a/one", told=False)
    assert names(world.list(resource_version="11", limit=5)) == ["a/one"]
    with pytest.raises(FutureRevision) as caught:
        world.list(resource_version="12", limit=5)
    assert caught.value.retry_after_s == 0
    with pytest.raises(FutureRevision):
        world.list(resource_version=str(2**63), limit=5)
    assert world.source.calls == ["range at 11 limit 5", "range at 12 limit 5"]


def test_exact_no_longer_kept(world: World) -> None:
    world.cache.compact(12)
    page = world.list(resource_version="11", resource_version_match="Exact")
    assert names(page) == ["a/one"]
    assert world.source.calls == ["range at 11 limit 500"]
    world.source.compacted = 12
    with pytest.raises(Compacted) as caught:
        world.list(resource_version="11", resource_version_match="Exact")
    assert status(caught.value)["message"] == EXPIRED
    assert caught.value.continue_token == ""
    with pytest.raises(Compacted):
        world.get("a/one", resource_version="11", resource_version_match="Exact")


def test_a_chain_that_is_compacted_goes_on_at_the_newest(world: World) -> None:
    token = world.list(limit=1).meta.continue_token
    world.pods(14, "a/one1")
    world.cache.compact(14)
    world.source.compacted = 14
    with pytest.raises(Compacted) as caught:
        world.list(limit=1, continue_token=token)
    assert status(caught.value)["message"] == INCONSISTENT_CONTINUE
    fresh = caught.value.continue_token
    assert decode(fresh, PREFIX) == (key_of("a/one\0"), -1)
    page = world.list(limit=1, continue_token=fresh)
    assert names(page) == ["a/one1"]
    assert decode(page.meta.continue_token, PREFIX) == (key_of("a/one1\0"), 14)
    assert page.meta.remaining_item_count == 2


def test_the_gate_of_snapshots_off(driver: str) -> None:
    world = World(driver, features=Features(list_from_cache_snapshot=False))
    world.pods(11, "a/one", "a/two")
    page = world.list(limit=1)
    assert world.source.calls == ["ask"]
    rest = world.list(limit=1, continue_token=page.meta.continue_token)
    assert (names(page), names(rest)) == (["a/one"], ["a/two"])
    assert names(world.list(resource_version="11", resource_version_match="Exact")) == [
        "a/one",
        "a/two",
    ]
    newest = encode(key_of("a/one\0"), PREFIX, -1)
    assert names(world.list(continue_token=newest)) == ["a/two"]
    assert world.source.calls[1:] == [
        "range at 11 limit 1", "range at 11 limit 500", "ask", "range at 11 limit 500",
    ]  # fmt: skip


# Reads that may be stale.


def test_any_state_and_one_not_older(world: World) -> None:
    world.pods(14, "c/new", told=False)
    assert world.list(resource_version="0").meta.resource_version == "13"
    assert world.list(resource_version="12").meta.resource_version == "13"
    page = world.list(resource_version="0", limit=2)
    assert names(page) == ["a/one", "a/two"]
    assert page.meta.remaining_item_count == 1
    world.turns.append(lambda: world.tell(14))
    assert world.get("c/new", resource_version="14").resource_version == "14"
    with pytest.raises(FutureRevision) as caught:
        world.list(resource_version="15", timeout_s=1.0)
    assert (caught.value.revision, caught.value.current) == (15, 14)
    assert world.clock.now_s == pytest.approx(1.01, abs=0.15)
    assert world.source.calls == []


def test_everything_from_the_source(driver: str) -> None:
    world = World(driver, read="source")
    world.pods(12, "a/one", told=False)
    assert world.list().meta.resource_version == "12"
    assert world.list(resource_version="0").meta.resource_version == "12"
    assert world.list(resource_version="11").meta.resource_version == "12"
    exact = world.list(resource_version="11", resource_version_match="Exact")
    assert (names(exact), exact.meta.resource_version) == ([], "11")
    with pytest.raises(FutureRevision) as caught:
        world.get("a/one", resource_version="13")
    assert (caught.value.current, caught.value.retry_after_s) == (12, 0)
    with pytest.raises(NotFound):
        world.get("a/on")  # a prefix of a key is no key
    assert world.progress_requests == 0


def test_the_newest_state_is_compacted_while_it_is_read(driver: str) -> None:
    world = World(driver, read="source")

    def overtaken() -> None:
        newest = max(world.source.states) + 1
        world.source.states[newest] = {}
        world.source.compacted = newest

    world.source.before.extend([lambda: None, overtaken])
    assert world.list().meta.resource_version == "11"
    assert world.source.calls == ["ask", "range at 10 limit 500", "ask", "range at 11 limit 500"]
    world.source.before.extend([lambda: None, overtaken] * 3)
    with pytest.raises(Compacted, match="too old"):
        world.list()


def test_without_a_source(driver: str) -> None:
    world = World(driver, source=None, progress=False)
    assert world.list(resource_version="0").meta.resource_version == "10"
    with pytest.raises(Unavailable):
        world.list()
    with pytest.raises(Unavailable):
        world.list(resource_version="9", resource_version_match="Exact")


def test_a_store_asks_nobody(driver: str) -> None:
    store = Store()
    world = World(driver, cache=store, source=None, codec=None, fields=None, resource=None)
    store.put(b"/registry/pods/a/one", b"1")
    store.put(b"/registry/pods/a/two", b"2")
    assert world.list(PREFIX, limit=1).meta.remaining_item_count == 1
    assert names(world.list(resource_version="2", resource_version_match="Exact")) == ["a/one"]
    assert world.get("a/two").element.value == b"2"
    with pytest.raises(NotFound, match=r'key "/registry/pods/x/x" not found'):
        world.get("x/x")
    with pytest.raises(FutureRevision):
        world.list(resource_version="9")
    store.compact(3)
    with pytest.raises(Compacted, match="too old"):
        world.list(resource_version="2", resource_version_match="Exact")


# Ends of waits.


def test_a_closed_cache_ends_every_wait(world: World) -> None:
    world.source.current = 20
    world.turns.append(world.cache.close)
    with pytest.raises(NotReady, match="closed"):
        world.list()
    assert world.clock.now_s < 1


def test_a_cancelled_read_ends(world: World) -> None:
    cancelled = threading.Event()
    world.source.current = 20
    world.turns.extend([lambda: None, cancelled.set])
    with pytest.raises(CancelledError):
        world.reader.list(cancelled=cancelled.is_set)
    assert world.clock.now_s < 1
    calls = len(world.source.calls)
    with pytest.raises(CancelledError):
        world.reader.list(cancelled=cancelled.is_set)
    assert len(world.source.calls) == calls, "nothing is begun for who has gone"


def test_a_cancelled_task_ends() -> None:
    world = World("async")
    world.source.current = 20
    reader = Reader(world.cache, world.source, follower=world)  # type: ignore[arg-type]

    async def scene() -> None:
        task = asyncio.create_task(AsyncReader(reader).list(ListOptions()))
        while not world.source.calls:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(scene(), 10))


@pytest.mark.parametrize("how", ["blocking", "async"])
def test_many_wait_in_real_time_and_one_write_frees_them(how: str) -> None:
    """Threads and tasks on the real condition; one trip or two for all, bounded in time."""
    world = World()
    world.source.current = 20
    reader = Reader(world.cache, world.source, follower=world)  # type: ignore[arg-type]
    pages: list[ListPage] = []
    threads = [threading.Thread(target=lambda: pages.append(reader.list())) for _ in range(20)]

    async def tasks() -> None:
        shared = AsyncReader(reader)
        pages.extend(await asyncio.gather(*[shared.list() for _ in range(20)]))

    if how == "async":
        threads = [threading.Thread(target=lambda: asyncio.run(tasks()))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while not world.cache._waiting and time.monotonic() < deadline:
        time.sleep(0.001)
    world.progress_to(20)
    for thread in threads:
        thread.join(10)
    assert [page.meta.resource_version for page in pages] == ["20"] * 20
    assert set(world.source.calls) == {"ask"}
    assert len(world.source.calls) <= (20 if how == "blocking" else 2)


class Live(NotingTruth):
    """A truth that says its newest revision and nothing else: only the cache can answer."""

    def __init__(self) -> None:
        super().__init__({10: {}})
        self.newest = 10

    def current_revision(self) -> int:
        return self.newest

    def range_at(self, *_: object, **__: object) -> RangePage:
        raise AssertionError("the cache was not waited for")


@pytest.mark.parametrize("how", ["blocking", "async"])
def test_reads_beside_a_writer_are_never_older_than_their_question(how: str) -> None:
    """The source knows of a write first, the cache a moment later, and both go on all the time."""
    world, source = World(), Live()
    reader = Reader(world.cache, source, follower=world, resource=PODS)  # type: ignore[arg-type]
    done, wrong, reads = threading.Event(), list[tuple[int, int]](), [0]

    def write() -> None:
        revision = 10
        while not done.is_set():
            revision += 1
            source.newest = revision
            key = key_of(f"a/p{revision % 50}")
            held = world.cache.get(key)
            made, version = (held.create_revision, held.version + 1) if held else (revision, 1)
            world.cache.apply(batch(revision, put(key, pod("a/p"), revision, made, version)))

    def judge(before: int, said: str) -> None:
        reads[0] += 1
        if not before <= int(said):
            wrong.append((before, int(said)))

    def read() -> None:
        for _ in range(100):
            judge(source.newest, reader.list(ListOptions(limit=5)).meta.resource_version)

    async def task(shared: AsyncReader) -> None:
        for _ in range(20):
            before = source.newest
            judge(before, (await shared.list(ListOptions(limit=5))).meta.resource_version)

    async def tasks() -> None:
        shared = AsyncReader(reader)
        await asyncio.gather(*[task(shared) for _ in range(10)])

    writer = threading.Thread(target=write)
    readers = [threading.Thread(target=read) for _ in range(3)]
    if how == "async":
        readers = [threading.Thread(target=lambda: asyncio.run(tasks()))]
    for thread in [writer, *readers]:
        thread.start()
    for thread in readers:
        thread.join(20)
    done.set()
    writer.join(20)
    assert not wrong
    assert reads[0] >= 200, "a reader died"


# Pages and selectors.


def walk(world: World, **options: Any) -> tuple[list[str], set[str], int]:
    """A whole chain: the names, the revisions said, the pages."""
    found, revisions, pages, token = list[str](), set[str](), 0, ""
    while True:
        page = world.list(continue_token=token, **options)
        pages += 1
        found += names(page)
        revisions.add(page.meta.resource_version)
        token = page.meta.continue_token
        options.pop("resource_version", None)
        if not token:
            return found, revisions, pages


SELECTORS = [
    ({"label_selector": "app=x"}, lambda i: i % 3 == 0),
    ({"label_selector": "app!=x"}, lambda i: i % 3 != 0),
    ({"label_selector": "app in (x,y),rare"}, lambda i: i == 30),
    ({"field_selector": "spec.nodeName=n1"}, lambda i: i % 4 == 1),
    ({"field_selector": "spec.host=n1"}, lambda i: i % 4 == 1),
    ({"field_selector": "spec.nodeName=n1", "label_selector": "app=y"},
     lambda i: i % 4 == 1 and i % 3 == 1),
    ({"field_selector": "metadata.name=p07"}, lambda i: i == 7),
    ({"field_selector": "metadata.name=p07,metadata.namespace=a"}, lambda i: i == 7),
    ({"field_selector": "metadata.name=p07,metadata.namespace=b"}, lambda i: False),
    ({"field_selector": "metadata.namespace=a"}, lambda i: i % 2 == 1),
    ({"field_selector": "metadata.namespace!=a,metadata.name!=p02"},
     lambda i: i % 2 == 0 and i != 2),
    ({"field_selector": "spec.restartPolicy=Always"}, lambda i: True),
    ({"label_selector": " ", "field_selector": ",,"}, lambda i: True),
    ({"label_selector": ""}, lambda i: True),
]  # fmt: skip


def fleet(driver: str, **options: Any) -> World:
    """40 pods in two namespaces, then a write that must not be seen by reads at 11."""
    world = World(driver, **options)
    values = {}
    for i in range(40):
        name = f"{'ba'[i % 2]}/p{i:02}"
        labels = {"app": "xyz"[i % 3]} | ({"rare": "1"} if i == 30 else {})
        values[name.replace("/", "__")] = pod(name, f"n{i % 4}", **labels)
    world.write(11, **values)
    world.write(12, a__p07=None, b__p02=pod("b/p02", "n1", app="q"))
    return world


FLEET = sorted((f"{'ba'[i % 2]}/p{i:02}", i) for i in range(40))


@pytest.mark.parametrize(
    "options",
    [{}, {"use_indexes": False}, {"resource": None}, {"read": "source"},
     {"features": Features(list_from_cache_snapshot=False)}],
    ids=["index", "no index", "no keys", "source", "no snapshots"],
)  # fmt: skip
def test_a_chain_selects_the_same_however_it_is_found(driver: str, options: dict[str, Any]) -> None:
    world = fleet(driver, **options)
    asyncio_pages = (0, 1, 7) if driver == "blocking" else (3,)
    for selectors, chosen in SELECTORS:
        wanted = [name for name, i in FLEET if chosen(i)]
        for limit in asyncio_pages:
            exact = {} if limit else {"resource_version_match": "Exact"}
            found, revisions, pages = walk(
                world, limit=limit, resource_version="11", **selectors, **exact
            )
            assert found == wanted, (selectors, limit)
            assert revisions == {"11"}
            assert pages <= len(wanted) // max(limit, 1) + 2


@pytest.mark.parametrize("read", ["cache", "source"])
def test_what_is_left_is_counted_without_selectors_only(driver: str, read: str) -> None:
    world = fleet(driver, read=read)
    at = {"resource_version": "11", "limit": 15}
    assert world.list(**at).meta.remaining_item_count == 25
    assert world.list(PREFIX + b"a/", **at).meta.remaining_item_count == 5
    assert world.list(field_selector=",", **at).meta.remaining_item_count == 25
    some = world.list(label_selector="app", **at).meta
    assert some.remaining_item_count is None
    assert some.continue_token
    assert not world.list(limit=40, resource_version="11").meta.continue_token


def test_selected_pages_of_the_source_double(driver: str) -> None:
    world = fleet(driver, read="source")
    page = world.list(label_selector="rare", resource_version="11", limit=1)
    assert names(page) == ["b/p30"]
    assert not page.meta.continue_token, "the last page was read to its end"
    assert world.source.calls == [f"range at 11 limit {size}" for size in (1, 2, 4, 8, 16, 32)]
    page = world.list(label_selector="rare", resource_version="11", limit=36)
    assert names(page) == ["b/p30"]
    early = world.list(label_selector="app=x", resource_version="11", limit=13)
    assert early.meta.continue_token, "what was not read may match"


def test_a_list_of_one_key(world: World) -> None:
    for read in ("cache", "source"):
        world = World(world.driver, read=read)
        world.pods(11, "a/one", "a/one1", app="x")
        key = key_of("a/one")
        alone = {"recursive": False, "resource_version": "11"}
        assert names(world.list(key, **alone)) == ["a/one"]
        assert names(world.list(key, limit=1, **alone)) == ["a/one"]
        assert names(world.list(key, label_selector="app=x", **alone)) == ["a/one"]
        assert names(world.list(key, label_selector="app=y", **alone)) == []
        assert names(world.list(key_of("a/on"), **alone)) == []
        assert names(world.list(PREFIX + b"a/", **alone)) == []
        assert names(world.list(key + b"/", resource_version="11")) == []
        assert world.list(key, limit=1, **alone).meta.members() == {"resourceVersion": "11"}


def test_an_object_under_another_name_is_found_by_its_own(driver: str) -> None:
    """What narrows a list must not change it: one misfiled object, and names are looked for."""
    world = fleet(driver)
    at = {"resource_version": "0", "field_selector": "metadata.name=stray,metadata.namespace=b"}
    assert world.list(**at).elements == []
    world.write(13, a__misfiled=pod("b/stray"))
    assert names(world.list(**at)) == ["a/misfiled"]
    assert names(world.list(prefix=PREFIX + b"b/", **at)) == []
    world.write(14, a__misfiled=None)
    assert world.list(**at).elements == []


# Objects that can't be read.


@pytest.mark.parametrize("options", [{}, {"use_indexes": False}, {"read": "source"}])
def test_an_unreadable_object_fails_who_must_read_it_and_nobody_else(
    driver: str, options: dict[str, Any]
) -> None:
    world = World(driver, **options)
    world.pods(11, "a/one", "a/zwei", "b/one", app="x")
    world.write(12, a__rotten=b"{")
    said = 'unable to read the object at key "/registry/pods/a/rotten": '
    with pytest.raises(SourceError) as caught:
        world.get("a/rotten")
    answer = status(caught.value)
    assert (answer["code"], answer["reason"]) == (500, "InternalError")
    assert str(answer["message"]).startswith(f"Internal error occurred: {said}")
    for failing in (
        {},
        {"prefix": PREFIX + b"a/"},
        {"label_selector": "app=x"},
        {"label_selector": "app=none"},
        {"field_selector": "spec.nodeName=n"},
        {"field_selector": "metadata.name=rotten"},
        {"limit": 2},
        {"prefix": key_of("a/rotten"), "recursive": False},
    ):
        with pytest.raises(SourceError, match="a/rotten"):
            world.list(resource_version="12", **failing)
    for fine, wanted in (
        ({"prefix": PREFIX + b"b/"}, ["b/one"]),
        ({"limit": 1}, ["a/one"]),
        ({"limit": 1, "label_selector": "app=x"}, ["a/one"]),
        ({"field_selector": "metadata.name=one"}, ["a/one", "b/one"]),
        ({"field_selector": "metadata.name=one,metadata.namespace=a"}, ["a/one"]),
        ({"field_selector": "metadata.namespace=b"}, ["b/one"]),
        ({"continue_token": encode(key_of("a/rotten\0"), PREFIX, 12)}, ["a/zwei", "b/one"]),
        ({"resource_version": "11", "resource_version_match": "Exact"},
         ["a/one", "a/zwei", "b/one"]),
    ):  # fmt: skip
        at = {"resource_version": "" if "continue_token" in fine else "12"} | fine
        assert names(world.list(**at)) == wanted, fine
    assert world.get("a/one").element.problem is None


def test_an_error_names_ten_of_many(world: World) -> None:
    rotten = {f"z__{i:02}": b"?" for i in range(12)}
    world.write(14, **rotten)
    with pytest.raises(SourceError, match=r"z/09.*; and 2 more$"):
        world.list(resource_version="0")


# Prefixes.


def test_a_prefix_ends_with_a_slash(world: World) -> None:
    """ "a" doesn't list "ab", and its pages don't lose the slash between prefix and name."""
    world.pods(14, "ab/x", "a/three")
    for prefix in (b"a", b"a/"):
        found, revisions, pages = walk(world, prefix=PREFIX + prefix, limit=1)
        assert (found, revisions, pages) == (["a/one", "a/three", "a/two"], {"14"}, 3)
    assert names(world.list(PREFIX[:-1])) == ["a/one", "a/three", "a/two", "ab/x", "b/one"]


@pytest.mark.parametrize("prefix", [b"", b"/"])
def test_a_page_that_no_token_can_continue_is_refused(driver: str, prefix: bytes) -> None:
    """A token's leading slash means nothing, so the page after such a key would be a wrong one."""
    store = Store()
    world = World(driver, cache=store, source=None, codec=None, fields=None, resource=None)
    for key in (b"//x", b"/a", b"/b", b"c"):
        store.put(key, b"")
    with pytest.raises(BadRequest, match="unable to encode next field"):
        world.list(prefix, limit=1)
    page = world.list(b"/", limit=2)
    rest = world.list(b"/", continue_token=page.meta.continue_token)
    assert [one.key for one in page.elements + rest.elements] == [b"//x", b"/a", b"/b"]
    for key in (b"/\xfe", b"/\xff"):
        store.put(key, b"")
    with pytest.raises(BadRequest, match="not UTF-8"):
        world.list(b"/", limit=4)


# What means nothing.


def test_what_nobody_can_answer(world: World) -> None:
    refused: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (BadRequest, "lies outside", {"prefix": b"/registry/nodes/"}),
        (BadRequest, "unable to parse requirement", {"label_selector": "a in x"}),
        (BadRequest, "invalid selector", {"field_selector": "x"}),
        (BadRequest, "field label not supported: spec.x", {"field_selector": "spec.x=1"}),
        (BadRequest, "invalid resource version", {"resource_version": "x"}),
        (BadRequest, "invalid continue token", {"continue_token": "x"}),
        (Invalid, "forbidden", {"resource_version_match": "Exact"}),
    ]
    for error, text, options in refused:
        with pytest.raises(error, match=f"(?i){text}"):
            world.list(**options)
    with pytest.raises(BadRequest):
        world.get("a/one", resource_version="-1")
    with pytest.raises(BadRequest, match="lies outside"):
        world.reader.get(b"/registry/nodes/n")
    with pytest.raises(BadRequest, match="empty key"):
        Reader(Store()).get(b"")
    assert world.source.calls == []


def test_a_plan_is_told_without_being_carried_out(world: World) -> None:
    assert world.reader.plan(GetOptions(resource_version="0")).explain() == (
        "read of any state\n  read the cache at its newest revision\n"
        "    if the cache isn't ready by then:\n      read the source at its newest revision"
    )
    text = world.reader.plan(ListOptions(limit=3, label_selector="a"), PREFIX + b"a/").explain()
    assert text.startswith("consistent read\n  ask the source for its current revision\n")
    with pytest.raises(BadRequest):
        world.reader.plan(ListOptions(field_selector="nonsense=1"))
    assert world.source.calls == []


# Watches.


def seen(stream: WatchStream) -> list[str]:
    """Everything that a stream has to say now."""
    said = []
    while (event := stream.poll()) is not None:
        what = event.element.key[len(PREFIX) :].decode() if event.element else ""
        reason = type(event.error).__name__ if event.error else ""
        said.append(f"{event.type} {what or reason}@{event.revision}")
    return said


def test_a_watch_of_the_newest_state_waits_for_it(world: World) -> None:
    world.pods(14, "b/two", told=False)
    world.turns.append(lambda: world.tell(14))
    stream = world.watch(
        send_initial_events=True, resource_version_match="NotOlderThan",
        allow_watch_bookmarks=True, field_selector="metadata.namespace=b",
    )  # fmt: skip
    assert seen(stream) == ["ADDED b/one@14", "ADDED b/two@14", "BOOKMARK @14"]
    world.pods(15, "a/one", "b/one", app="x")
    assert seen(stream) == ["MODIFIED b/one@15"]
    assert not stream.ended


def test_a_watch_after_a_revision_and_of_one_key(world: World) -> None:
    assert seen(world.watch(resource_version="11")) == ["ADDED a/two@12", "ADDED b/one@13"]
    one = world.watch(PREFIX + b"a/one", exact=True, resource_version="10")
    assert seen(one) == ["ADDED a/one@11"]
    within = world.watch(PREFIX + b"b", resource_version="10")
    assert seen(within) == ["ADDED b/one@13"]
    assert world.source.calls == []


def test_what_a_watch_meets_on_its_way_is_its_only_event(world: World) -> None:
    initial = {"send_initial_events": True, "resource_version_match": "NotOlderThan"}
    ahead = world.watch(resource_version="99", **initial)
    assert seen(ahead) == ["ERROR FutureRevision@0"]
    assert world.clock.now_s == pytest.approx(3.0, abs=0.2)
    gone = world.watch(resource_version="3")
    assert seen(gone) == ["ERROR Compacted@0"]
    world.source.before.append(lambda: _raise(Unavailable("away")))
    away = world.watch(**initial)
    assert seen(away) == ["ERROR Unavailable@0"]
    assert ahead.ended
    assert gone.ended
    assert away.ended


def _raise(error: Exception) -> None:
    raise error


def test_what_a_watch_is_refused_for(world: World, driver: str) -> None:
    refused: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (BadRequest, "lies outside", {"prefix": b"/registry/nodes/"}),
        (BadRequest, "field label not supported: spec.x", {"field_selector": "spec.x=1"}),
        (BadRequest, "unable to parse requirement", {"label_selector": "a in x"}),
        (BadRequest, "invalid resource version", {"resource_version": "x"}),
        (Invalid, "forbidden", {"resource_version_match": "Exact"}),
    ]
    for error, text, options in refused:
        with pytest.raises(error, match=f"(?i){text}"):
            world.watch(**options)
    of_source = World(driver, read="source")
    with pytest.raises(BadRequest, match="the source itself does"):
        of_source.watch(resource_version="1")
    never_filled = World(driver, fill=False)
    with pytest.raises(NotReady):
        never_filled.watch(resource_version="1")


@pytest.mark.parametrize("use_indexes", [True, False])
def test_a_watch_selects_the_same_however_its_state_is_found(
    driver: str, *, use_indexes: bool
) -> None:
    world = World(driver, use_indexes=use_indexes)
    world.pods(11, "a/one", app="x")
    world.pods(12, "a/two", app="y")
    stream = world.watch(label_selector="app=x", resource_version="0")
    assert seen(stream) == ["ADDED a/one@12"]
    world.pods(13, "a/two", app="x")
    world.pods(14, "a/one", app="y")
    assert seen(stream) == ["ADDED a/two@13", "DELETED a/one@14"]


def test_a_streamed_list_while_there_is_no_stream_waits(world: World) -> None:
    """Found by the fuzzer (seed 10): between a list and its watch the follower has no stream, and
    the client was told that progress can't be asked for at all."""
    answers: deque[bool | None] = deque([None, True])
    world.reader = Reader(
        world.cache, world.source, follower=Answering(answers), codec=CODEC, fields=FIELDS,
        resource=PODS, now=world.clock, wait=world.wait,
    )  # type: ignore[arg-type]  # fmt: skip
    stream = world.watch(
        send_initial_events=True, resource_version_match="NotOlderThan",
        allow_watch_bookmarks=True,
    )  # fmt: skip
    assert seen(stream) == ["ADDED a/one@13", "ADDED a/two@13", "ADDED b/one@13", "BOOKMARK @13"]


class Answering:
    """A follower that says what it is told to, then the last for ever."""

    def __init__(self, answers: deque[bool | None]) -> None:
        self._answers = answers

    def request_progress(self) -> bool | None:
        return self._answers.popleft() if len(self._answers) > 1 else self._answers[0]


def test_a_watch_of_one_name_outlives_an_unreadable_neighbour(driver: str) -> None:
    """kubectl get pod x -w: what the neighbour's key says is enough to leave it out."""
    world = World(driver)
    world.pods(11, "a/x", "a/y")
    world.write(12, a__y=b"{")
    stream = world.watch(field_selector="metadata.name=x", resource_version="0")
    assert seen(stream) == ["ADDED a/x@12"]
    world.write(13, a__y=b"[")
    world.pods(14, "a/x", app="z")
    assert seen(stream) == ["MODIFIED a/x@14"]
    everybody = world.watch(label_selector="app=z", resource_version="12")
    assert seen(everybody) == ["ERROR SourceError@13"]
    world.write(15, a__x=b"{")
    assert seen(stream) == ["ERROR SourceError@15"]
