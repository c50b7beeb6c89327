"""Threads: readers without locks against a writer, waiters, watchers, and who may call whom.

The interpreter is made to switch threads after every microsecond where that makes a race likelier.
Each test bounds itself: it ends when enough was raced, and fails when that takes too long.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from random import Random

import pytest

from btreecache import (
    Batch,
    Bounds,
    Cache,
    Compacted,
    Conflict,
    Element,
    Follower,
    FutureRevision,
    NotReady,
    Progress,
    Put,
    Store,
    Watcher,
)
from btreecache.digest import recompute
from btreecache.source import Listing
from tests.fakes import ScriptedSource, batch, element, put
from tests.mutants.checks import History, State, expect_equal, small_nodes, small_segments

#: How long anything here may take before it counts as stuck.
STUCK_S = 20.0


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Generator[None, None, None]:
    """Every thread that a test or the library started has ended with the test."""
    before, interval = {*threading.enumerate()}, sys.getswitchinterval()
    yield
    assert {*threading.enumerate()} <= before, "a thread was left behind"
    assert sys.getswitchinterval() == interval


@contextmanager
def switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class Crew:
    """Threads that run until `stop`; the first thing that one of them raises is raised by `end`.

    As a context it ends them whatever happens inside.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self, job: Callable[[], object]) -> None:
        def run() -> None:
            try:
                job()
            except BaseException as error:
                self.errors.append(error)
                self.stop.set()

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.end()
        except BaseException:
            if kind is None:
                raise

    def end(self, *, told: bool = True) -> None:
        """Wait for all; `told`: tell them to stop first."""
        if told:
            self.stop.set()
        deadline = time.monotonic() + STUCK_S
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        if self.errors:
            raise self.errors[0]
        assert not any(thread.is_alive() for thread in self._threads), "a thread is stuck"


def within(what: str, condition: Callable[[], object]) -> None:
    """Wait until `condition` holds, or fail."""
    deadline = time.monotonic() + STUCK_S
    while not condition():
        assert time.monotonic() < deadline, f"stuck: {what}"
        time.sleep(0.001)


class Writer:
    """Writes a history into a cache; `expected` has each revision before it can be read."""

    def __init__(self, cache: Cache, seed: int) -> None:
        self.cache, self.history, self._rng = cache, History(seed, keys=40), Random(seed)
        self.expected: dict[int, State] = {1: {}}
        self.batches: dict[int, Batch] = {}
        cache.replace(1, [])

    def prepare(self) -> Batch:
        history = self.history
        before, state = history.revision, history.latest
        made = history.step()
        for revision in range(before + 1, made.revision):
            self.expected[revision] = state
        self.expected[made.revision] = history.latest
        self.batches[made.revision] = made
        return made

    def write(self) -> None:
        self.cache.apply(self.prepare())

    def write_or_worse(self) -> None:
        """Now and then a list instead of a batch, a mark, a compaction."""
        cache, rng = self.cache, self._rng
        if rng.random() < 0.02:
            revision = self.prepare().revision
            listed = [kept for _, kept in sorted(self.expected[revision].items())]
            cache.replace(revision, listed, as_batch=rng.random() < 0.5)
        else:
            self.write()
        if rng.random() < 0.1:
            cache.progress(Progress(cache.revision))
        if rng.random() < 0.05:
            cache.compact(rng.randint(cache.oldest, cache.revision))


def test_readers_see_every_revision_whole_and_right() -> None:
    """Eight of them, at random retained revisions: list, counts, pages, digests, as a dict says."""
    cache = Cache(bounds=Bounds(age_s=None, revisions=200))
    writer, crew = Writer(cache, 1), Crew()
    reads = [0] * 8

    def read(reader: int) -> None:
        rng = Random(reader)
        while not crew.stop.is_set():
            state = cache.state
            window = state.readable()
            revision = rng.randint(window.oldest, window.current)
            expect_equal(state.at(revision), writer.expected[revision], rng)
            newest = cache.snapshot()
            expect_equal(newest, writer.expected[newest.revision], rng)
            try:
                between = cache.snapshot(max(newest.revision - rng.randrange(9), 1))
            except Compacted:
                continue  # Cut off by a compaction meanwhile: refused, never wrong.
            except FutureRevision as error:
                raise AssertionError(f"went back at revision {newest.revision}") from error
            expect_equal(between, writer.expected[between.revision], rng)
            reads[reader] += 1

    with small_nodes(), small_segments(), switching_often(), crew:
        for reader in range(len(reads)):
            crew.start(lambda reader=reader: read(reader))
        began = time.monotonic()
        while not crew.stop.is_set() and time.monotonic() < began + STUCK_S:
            writer.write_or_worse()
            enough = min(reads) >= 5 and len(writer.batches) >= 400
            if enough and time.monotonic() > began + 1.5:
                break
    assert min(reads) >= 5, reads
    assert len(writer.batches) >= 400


def test_a_transaction_is_seen_whole_and_none_is_lost() -> None:
    """No model: every key of the group holds one value in any list, and increments add up."""
    store, crew, writers = Store(bounds=Bounds(age_s=None, revisions=50)), Crew(), Crew()
    group = [b"g/%d" % i for i in range(5)]
    store.txn([Put(key, b"0") for key in group])
    increments, lists, line = 60, [0] * 4, threading.Barrier(4)

    def increment() -> None:
        done = 0
        line.wait(STUCK_S)
        while done < increments:
            kept = store.get(group[0])
            assert kept is not None
            value = b"%d" % (int(kept.value) + 1)
            try:
                writes = [Put(key, value) for key in group]
                store.txn(writes, expect={group[0]: kept.mod_revision})
            except Conflict:
                continue
            done += 1

    def look(reader: int) -> None:
        while not crew.stop.is_set():
            page = store.list(b"g/")
            assert len({kept.value for kept in page.elements}) == 1, "part of a transaction"
            assert {kept.mod_revision for kept in page.elements} == {page.revision}
            lists[reader] += 1

    with switching_often(), crew:
        for reader in range(len(lists)):
            crew.start(lambda reader=reader: look(reader))
        for _ in range(4):
            writers.start(increment)
        writers.end(told=False)
        within("lists", lambda: min(lists) > 0 or crew.stop.is_set())
    assert [kept.value for kept in store.list(b"g/").elements] == [b"240"] * 5, "lost"


def hold_through(applies: int) -> None:
    """A state held while so many batches are applied and evicted reads the same at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BTREECACHE_VERIFY", "0")
        cache = Cache(bounds=Bounds(age_s=None, revisions=100))
    keys = [b"%02d" % i for i in range(16)]
    elements = {key: element(key, b"", 1) for key in keys}
    cache.replace(1, elements.values())

    def write(until: int) -> None:
        for revision in range(cache.revision + 1, until + 1):
            key = keys[revision % 16]
            old = elements[key]
            made = Element(key, b"", revision, old.create_revision, old.version + 1)
            elements[key] = made
            cache.apply(batch(revision, put(key, b"", revision, 1, made.version)))

    write(150)
    held, crew, looks = cache.state, Crew(), [0]
    window = held.readable()
    revisions = [*range(window.oldest, window.current + 1)]
    digests = [recompute(held.at(revision), "keys") for revision in revisions]
    assert len({*digests}) == len(digests)

    def look() -> None:
        while not crew.stop.is_set():
            index = looks[0] % len(revisions)
            snapshot = held.at(revisions[index])
            assert recompute(snapshot, "keys") == snapshot.digest("keys") == digests[index], "held"
            looks[0] += 1
            time.sleep(0.002)

    with crew:
        crew.start(look)
        write(150 + applies)
        within("looks", lambda: looks[0] > len(revisions) or crew.stop.is_set())
    assert [recompute(held.at(revision), "keys") for revision in revisions] == digests
    assert cache.oldest > revisions[-1] + applies - 200


def test_a_state_held_for_100_000_applies_reads_the_same() -> None:
    hold_through(100_000)


def test_watchers_see_a_gap_free_prefix_or_compacted() -> None:
    cache = Cache(bounds=Bounds(age_s=None, revisions=60))
    writer, crew = Writer(cache, 2), Crew()
    done, began = threading.Event(), threading.Event()
    compacted, complete = [0] * 6, [0] * 6

    def follow(watcher: Watcher, after: int) -> bool:
        """Whether it got to the end; else it fell behind. Either way nothing was left out."""
        seen, fell = [], False
        try:
            while not (done.is_set() and watcher.position >= cache.revision):
                found = watcher.receive(0.05)
                if found is not None:
                    seen.append(found)
        except Compacted:
            fell = True
        wanted = [revision for revision in [*writer.batches] if revision > after]
        assert [found.revision for found in seen] == wanted[: len(seen)], "a gap"
        if not fell:
            assert len(seen) == len(wanted)
        for found in seen:
            shown = [(event.key, event.element) for event in found.events]
            made = writer.batches[found.revision]
            assert shown == [(event.key, event.element) for event in made.events], "not whole"
        return not fell

    def watch(number: int) -> None:
        rng = Random(number)
        while not crew.stop.is_set():
            window = cache.state.readable()
            after = rng.randint(window.watch_floor, window.current)
            try:
                watcher = cache.watch(after=after)
            except Compacted:
                continue
            if follow(watcher, after):
                complete[number] += 1
                return
            compacted[number] += 1

    def be_slow() -> None:
        watcher = cache.watch()
        began.set()
        assert done.wait(STUCK_S)
        with pytest.raises(Compacted):
            watcher.receive(0)

    with switching_often(), crew:
        crew.start(be_slow)
        assert began.wait(STUCK_S)
        for number in range(len(complete)):
            crew.start(lambda number=number: watch(number))
        end = time.monotonic() + 1.0
        while len(writer.batches) < 300 or time.monotonic() < end:
            writer.write()
        done.set()
        crew.end(told=False)
    assert complete == [1] * len(complete)


def test_close_wakes_every_kind_of_waiter() -> None:
    cache, crew = Cache(), Crew()
    cache.replace(1, [element(b"a", b"", 1)])
    ended: list[str] = []
    waiting = threading.Semaphore(0)

    def refuse(_: object) -> bool:
        waiting.release()
        return False

    def wait_until() -> None:
        assert not cache.wait_until(refuse)
        ended.append("until")

    def wait_for() -> None:
        waiting.release()
        with pytest.raises(NotReady):
            cache.wait_for(10**9)
        ended.append("for")

    def receive() -> None:
        watcher = cache.watch()
        waiting.release()
        assert watcher.receive() is None
        ended.append("receive")

    def iterate() -> None:
        watcher = cache.watch()
        waiting.release()
        assert [*watcher] == []
        ended.append("iterate")

    with crew:
        for job in (wait_until, wait_for, receive, iterate) * 3:
            crew.start(job)
        for _ in range(12):
            assert waiting.acquire(timeout=STUCK_S)
        time.sleep(0.02)
        cache.close()
    assert sorted(ended) == sorted(["until", "for", "receive", "iterate"] * 3)
    assert cache.get(b"a") is not None, "what was published stays readable"
    assert not cache.wait_until(lambda state: False), "who comes later does not wait"


class StoreSource(ScriptedSource):
    """A source that several threads may use: a store that another thread writes to."""

    def __init__(self, store: Store) -> None:
        super().__init__([])
        self.store, self.open_streams = store, 0

    def list(self, prefix: bytes) -> Listing:
        snapshot = self.store.snapshot()
        return Listing(snapshot.revision, snapshot)

    def watch(self, prefix: bytes, after: int) -> StoreStream:  # type: ignore[override]
        return StoreStream(self, after)


class StoreStream:
    def __init__(self, source: StoreSource, after: int) -> None:
        self._source, self._watcher = source, source.store.watch(after)
        source.open_streams += 1

    def receive(self, timeout_s: float) -> Batch | None:
        return self._watcher.receive(timeout_s)

    def request_progress(self) -> bool:
        return False

    def close(self) -> None:
        self._source.open_streams -= 1


def test_followers_come_and_go_while_readers_read() -> None:
    store, cache, crew = Store(), Cache(bounds=Bounds(age_s=None, revisions=100)), Crew()
    source, expected = StoreSource(store), {1: dict[bytes, bytes]()}
    reads, rounds = [0] * 4, 12

    def write() -> None:
        rng, now = Random(3), dict[bytes, bytes]()
        while not crew.stop.is_set():
            key, value = b"%d" % rng.randrange(30), b"%d" % rng.randrange(10**6)
            now = {**now, key: value}
            expected[store.revision + 1] = now
            store.put(key, value)
            time.sleep(0.0005)

    def read(reader: int) -> None:
        rng = Random(reader)
        while not crew.stop.is_set():
            state = cache.state
            if state.window is None:
                continue
            revision = rng.randint(state.window.oldest, state.window.current)
            found = {kept.key: kept.value for kept in state.at(revision)}
            assert found == expected[revision], f"wrong at {revision}"
            reads[reader] += 1
            time.sleep(0.0005)

    before = {*threading.enumerate()}
    with crew:
        crew.start(write)
        for reader in range(len(reads)):
            crew.start(lambda reader=reader: read(reader))
        for _ in range(rounds):
            with Follower(source, cache):
                ahead = store.revision + 5
                within("the follower", lambda: cache.revision >= ahead or crew.stop.is_set())
            assert not [t for t in threading.enumerate() if t.name == "btreecache-follower"]
            assert source.open_streams == 0
        within("reads", lambda: min(reads) > 0 or crew.stop.is_set())
    assert min(reads) > 0
    assert cache.stats().replacements == 1, "each goes on where the last one ended"
    assert not cache.feed_faults
    assert {*threading.enumerate()} <= before


def elsewhere(job: Callable[[], object], what: str) -> None:
    """Run `job` in another thread while this one is in the middle of something."""
    thread = threading.Thread(target=job, daemon=True)
    thread.start()
    thread.join(2.5)
    assert not thread.is_alive(), f"{what} waits for a lock that is held while user code runs"


def touch_everything(cache: Cache) -> None:
    """Whatever a reader may call."""
    cache.snapshot()
    cache.stats()
    cache.watch().receive(0)
    cache.wait_until(lambda state: False, 0.0)
    cache.wait_for(cache.revision, 0.0)


def test_a_predicate_runs_without_a_lock() -> None:
    """It may read, wait, write when its thread is the writer, and not hold up another writer."""
    cache = Cache()
    cache.replace(1, [])
    calls = []

    def predicate(_: object) -> bool:
        calls.append(cache.revision)
        touch_everything(cache)
        revision = cache.revision + 1
        cache.apply(batch(revision, put(b"%d" % revision, b"", revision)))
        mark = Progress(revision + 1)
        elsewhere(lambda: cache.progress(mark), "a writer")
        elsewhere(lambda: touch_everything(cache), "a reader")
        return len(calls) == 3

    assert cache.wait_until(predicate, STUCK_S)
    assert calls == [1, 3, 5]


def test_the_elements_of_a_list_are_made_without_a_lock() -> None:
    """The iterator that a source hands to `replace` may call back, and others go on meanwhile."""
    cache = Cache()
    cache.replace(1, [element(b"a", b"", 1)])

    def listed() -> Iterator[Element]:
        for number in range(3):
            touch_everything(cache)
            revision = cache.revision + 1
            cache.apply(batch(revision, put(b"k%d" % revision, b"", revision)))
            elsewhere(lambda: touch_everything(cache), "a reader")
            assert cache.snapshot().get(b"new") is None
            yield element(b"new%d" % number, b"", 10)

    cache.replace(10, listed())
    assert [kept.key for kept in cache.snapshot()] == [b"new0", b"new1", b"new2"]


def test_who_watches_may_write() -> None:
    """The writer's own watcher: each batch leads to the next one, and to a list in the end."""
    cache = Cache()
    cache.replace(1, [])
    watcher, seen = cache.watch(), []
    cache.apply(batch(2, put(b"2", b"", 2)))

    def consume() -> None:
        for found in watcher:
            seen.append(found.revision)
            touch_everything(cache)
            elsewhere(lambda: touch_everything(cache), "a reader")
            following = found.revision + 1
            if following < 8:
                cache.apply(batch(following, put(b"%d" % following, b"", following)))
            else:
                cache.replace(20, [])

    with pytest.raises(Compacted):
        consume()
    assert seen == [2, 3, 4, 5, 6, 7]


def test_the_arguments_of_a_transaction_are_read_without_a_lock() -> None:
    """Found by asking who holds a lock: `expect` was read under the one that writers take, so a
    mapping that writes, or waits for who does, never came back."""
    store = Store()

    def writes() -> Iterator[Put]:
        elsewhere(lambda: store.put(b"before", b""), "a writer")
        yield Put(b"own", b"")

    class Expectations(Mapping[bytes, int]):
        def __getitem__(self, key: bytes) -> int:
            elsewhere(lambda: store.put(b"%d" % store.revision, b""), "a writer")
            return 0

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"own"])

        def __len__(self) -> int:
            return 1

    revision = store.txn(writes(), expect=Expectations())
    assert revision == store.revision
    assert [kept.key for kept in store.list().elements] == [b"2", b"before", b"own"]
