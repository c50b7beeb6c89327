"""The Source contract: one class of tests for every implementation of `btreecache.source.Source`.

A test module subclasses `SourceContract` and gives a fixture `bench` (see `Bench`): a source whose
store is empty, and the means to write to that store. The source must list in pages of few keys (at
most `PAGE_KEYS`), so that these tests cross page boundaries.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Protocol

import pytest

from btreecache.element import Element
from btreecache.errors import Compacted, FutureRevision, Unavailable
from btreecache.event import Batch, Progress
from btreecache.source import Source, Stream

PAGE_KEYS = 7

#: No step of these tests takes as long; a source that hangs fails instead.
TIMEOUT_S = 10.0

#: In key order, no two equal: what a source must carry unharmed.
ODD_KEYS = (
    b"\x00",
    b"\x00\x00",
    b"a",
    b"a\x00",
    b"a\xff",
    b"a\xff\xff",
    b"b",
    b"\xff",
    b"\xff\xff",
)
ODD_VALUES = (b"", b"\x00", b"\xff\xfe", b"\x80 not UTF-8", b"\r\n", "ü".encode(), b"x" * 70_000)


class Bench(Protocol):
    """A source and the writes to its store. Each write returns the revision that it made."""

    source: Source

    def put(self, key: bytes, value: bytes) -> int: ...
    def delete(self, key: bytes) -> int | None:
        """None, and no new revision, where there is no such key."""

    def txn(self, changes: Sequence[tuple[bytes, bytes] | bytes]) -> int:
        """All in one revision, in this order: (key, value) is a put, a bare key a deletion."""

    def compact(self, revision: int) -> None: ...


def batches(stream: Stream, upto: int) -> list[Batch]:
    """The next batches, up to the one of revision `upto`; marks are passed over."""
    found: list[Batch] = []
    deadline = time.monotonic() + TIMEOUT_S
    while not found or found[-1].revision < upto:
        assert time.monotonic() < deadline, f"no batch of revision {upto} after {found[-3:]}"
        item = stream.receive(0.5)
        if isinstance(item, Batch):
            found.append(item)
    return found


def progress(stream: Stream, seen: list[Batch] | None = None) -> Progress:
    """Ask until a mark comes; batches before it go to `seen`.

    A source owes none while nothing at all was written after the position that the watch began at:
    etcd from 3.4.31 and 3.5.13 on doesn't answer below a watcher's start_revision.
    """
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        assert stream.request_progress()
        while (item := stream.receive(0.2)) is not None:
            if isinstance(item, Progress):
                return item
            if seen is not None:
                seen.append(item)
    raise AssertionError("no progress mark")


def state(bench: Bench, prefix: bytes = b"") -> dict[bytes, bytes]:
    return {element.key: element.value for element in bench.source.list(prefix).elements}


def changes(batch: Batch) -> list[tuple[bytes, bytes | None]]:
    return [(event.key, event.element and event.element.value) for event in batch.events]


def fill(bench: Bench, count: int, prefix: bytes = b"key-") -> list[bytes]:
    """Puts `count` keys, the value of each its own name."""
    keys = [prefix + b"%03d" % number for number in range(count)]
    for key in keys:
        bench.put(key, key)
    return keys


class ListContract:
    def test_list_of_an_empty_store(self, bench: Bench) -> None:
        listing = bench.source.list(b"")
        assert listing.revision == bench.source.current_revision()
        assert list(listing.elements) == []

    def test_list_of_one(self, bench: Bench) -> None:
        revision = bench.put(b"a", b"1")
        listing = bench.source.list(b"")
        assert listing.revision == revision
        assert list(listing.elements) == [Element(b"a", b"1", revision, revision, 1)]

    @pytest.mark.parametrize("count", [PAGE_KEYS - 1, PAGE_KEYS, PAGE_KEYS + 1, 3 * PAGE_KEYS, 50])
    def test_list_of_pages_is_complete_and_in_key_order(self, bench: Bench, count: int) -> None:
        keys = fill(bench, count)
        assert [element.key for element in bench.source.list(b"key-").elements] == keys

    def test_all_pages_are_of_one_revision(self, bench: Bench) -> None:
        keys = fill(bench, 40)
        listing = bench.source.list(b"")
        elements = iter(listing.elements)
        got = [next(elements) for _ in range(3)]
        bench.put(keys[1], b"written behind the reader")
        bench.put(keys[-1], b"written ahead of the reader")
        bench.delete(keys[-2])
        bench.put(b"key-999", b"created")
        got += elements
        assert {element.key: element.value for element in got} == {key: key for key in keys}
        assert max(element.mod_revision for element in got) == listing.revision

    def test_list_compacted_between_pages(self, bench: Bench) -> None:
        fill(bench, 40)
        elements = iter(bench.source.list(b"").elements)
        next(elements)
        bench.compact(bench.put(b"key-000", b"new"))
        with pytest.raises(Compacted):
            list(elements)

    def test_odd_keys_and_values(self, bench: Bench) -> None:
        values = {key: ODD_VALUES[n % len(ODD_VALUES)] for n, key in enumerate(ODD_KEYS)}
        for key, value in values.items():
            bench.put(key, value)
        assert list(state(bench).items()) == list(values.items())
        for value in ODD_VALUES:
            bench.put(b"a", value)
            assert state(bench)[b"a"] == value

    @pytest.mark.parametrize(
        ("prefix", "expected"),
        [
            (b"", ODD_KEYS),
            (b"\x00", (b"\x00", b"\x00\x00")),
            (b"a", (b"a", b"a\x00", b"a\xff", b"a\xff\xff")),
            (b"a\xff", (b"a\xff", b"a\xff\xff")),
            (b"a\xff\xff", (b"a\xff\xff",)),
            (b"\xff", (b"\xff", b"\xff\xff")),
            (b"\xff\xff", (b"\xff\xff",)),
            (b"c", ()),
        ],
    )
    def test_prefix(self, bench: Bench, prefix: bytes, expected: tuple[bytes, ...]) -> None:
        """list, range_at and watch agree on what a prefix is."""
        revision = bench.txn([(key, b"") for key in ODD_KEYS])
        assert tuple(state(bench, prefix)) == expected
        page = bench.source.range_at(revision, prefix)
        assert tuple(element.key for element in page.elements) == expected
        if expected:
            stream = bench.source.watch(prefix, revision - 1)
            (batch,) = batches(stream, revision)
            assert tuple(event.key for event in batch.events) == expected
            stream.close()

    def test_element_fields(self, bench: Bench) -> None:
        first = bench.put(b"a", b"1")
        second = bench.put(b"a", b"2")
        (element,) = bench.source.list(b"a").elements
        assert element == Element(b"a", b"2", second, first, 2)

    def test_a_recreated_key_starts_at_version_1(self, bench: Bench) -> None:
        first = bench.put(b"a", b"1")
        bench.put(b"a", b"2")
        bench.delete(b"a")
        created = bench.put(b"a", b"3")
        (element,) = bench.source.list(b"a").elements
        assert element == Element(b"a", b"3", created, created, 1)
        stream = bench.source.watch(b"a", first - 1)
        versions = [batch.events[0].element for batch in batches(stream, created)]
        assert [element and element.version for element in versions] == [1, 2, None, 1]
        stream.close()


class RangeContract:
    def test_range_at_each_revision(self, bench: Bench) -> None:
        history: dict[int, dict[bytes, bytes]] = {}
        model: dict[bytes, bytes] = {}
        for number in range(20):
            key = b"key-%d" % (number % 4)
            if number % 3 == 2 and key in model:
                del model[key]
                revision = bench.delete(key)
                assert revision is not None
            else:
                model[key] = b"%d" % number
                revision = bench.put(key, model[key])
            history[revision] = dict(model)
        for revision, expected in history.items():
            page = bench.source.range_at(revision, b"key-")
            assert {element.key: element.value for element in page.elements} == expected
            assert page.count == len(expected)
            assert not page.more

    def test_pages_with_start_and_limit(self, bench: Bench) -> None:
        keys = fill(bench, 10)
        revision = bench.source.current_revision()
        bench.put(b"key-0005", b"later")
        bench.put(b"other", b"outside")
        got: list[bytes] = []
        start = None
        while True:
            page = bench.source.range_at(revision, b"key-", start, 3)
            assert page.count == len(keys) - len(got)
            assert page.bytes_read > 0
            got += [element.key for element in page.elements]
            assert page.more == (len(got) < len(keys))
            if not page.more:
                break
            assert len(page.elements) == 3
            start = got[-1] + b"\x00"
        assert got == keys

    def test_limit_equal_to_the_number_of_keys(self, bench: Bench) -> None:
        fill(bench, 4)
        page = bench.source.range_at(bench.source.current_revision(), b"key-", None, 4)
        assert (len(page.elements), page.more, page.count) == (4, False, 4)

    @pytest.mark.parametrize(
        ("start", "expected"),
        [
            (b"", [b"b/1", b"b/2"]),
            (b"a", [b"b/1", b"b/2"]),
            (b"b/1", [b"b/1", b"b/2"]),
            (b"b/1\x00", [b"b/2"]),
            (b"b/3", []),
            (b"c", []),
        ],
    )
    def test_start_never_leaves_the_prefix(
        self, bench: Bench, start: bytes, expected: list[bytes]
    ) -> None:
        revision = bench.txn([(key, b"") for key in (b"a/1", b"b/1", b"b/2", b"c/1")])
        page = bench.source.range_at(revision, b"b/", start)
        assert [element.key for element in page.elements] == expected
        assert page.count == len(expected)

    def test_keys_only(self, bench: Bench) -> None:
        first = bench.put(b"a", b"x" * 10_000)
        second = bench.put(b"a", b"y" * 10_000)
        whole = bench.source.range_at(second, b"a")
        page = bench.source.range_at(second, b"a", keys_only=True)
        assert page.elements == [Element(b"a", b"", second, first, 2)]
        assert 0 < page.bytes_read < 1000
        assert whole.bytes_read > 10_000

    def test_compacted(self, bench: Bench) -> None:
        keys = fill(bench, 3)
        old = bench.source.current_revision()
        bench.delete(keys[0])
        new = bench.put(keys[1], b"new")
        bench.compact(new)
        for revision in (1, old, new - 1):
            with pytest.raises(Compacted) as failure:
                bench.source.range_at(revision, b"")
            assert failure.value.revision == revision
        page = bench.source.range_at(new, b"")
        assert [element.key for element in page.elements] == keys[1:]

    def test_future(self, bench: Bench) -> None:
        current = bench.put(b"a", b"1")
        with pytest.raises(FutureRevision) as failure:
            bench.source.range_at(current + 1, b"")
        assert (failure.value.revision, failure.value.current) == (current + 1, current)

    def test_current_revision(self, bench: Bench) -> None:
        for number in range(10):
            assert bench.put(b"a", b"%d" % number) == bench.source.current_revision()
        before = bench.source.current_revision()
        assert bench.delete(b"nothing") is None
        bench.compact(before)
        assert bench.source.current_revision() == before


class WatchContract:
    def test_watch_from_the_past_then_live(self, bench: Bench) -> None:
        start = bench.source.current_revision()
        revisions = [bench.put(b"a", b"%d" % number) for number in range(5)]
        stream = bench.source.watch(b"", revisions[1])
        assert [batch.revision for batch in batches(stream, revisions[-1])] == revisions[2:]
        live = bench.put(b"a", b"live")
        assert [changes(batch) for batch in batches(stream, live)] == [[(b"a", b"live")]]
        whole = bench.source.watch(b"", start)
        assert [batch.revision for batch in batches(whole, live)] == [*revisions, live]
        stream.close()
        whole.close()

    def test_watch_from_now(self, bench: Bench) -> None:
        now = bench.put(b"a", b"old")
        stream = bench.source.watch(b"", now)
        revision = bench.put(b"a", b"new")
        (batch,) = batches(stream, revision)
        assert changes(batch) == [(b"a", b"new")]
        stream.close()

    def test_a_transaction_is_one_batch_in_its_own_order(self, bench: Bench) -> None:
        before = bench.txn([(b"k/1", b"1"), (b"k/2", b"2"), (b"k/3", b"3")])
        revision = bench.txn([b"k/3", (b"k/2", b"new"), (b"other", b"x"), b"k/1", (b"k/0", b"0")])
        stream = bench.source.watch(b"k/", before - 1)
        first, second = batches(stream, revision)
        assert changes(first) == [(b"k/1", b"1"), (b"k/2", b"2"), (b"k/3", b"3")]
        assert changes(second) == [(b"k/3", None), (b"k/2", b"new"), (b"k/1", None), (b"k/0", b"0")]
        assert second.events[1].element == Element(b"k/2", b"new", revision, before, 2)
        assert not second.synthetic
        stream.close()

    def test_nothing_from_outside_the_prefix(self, bench: Bench) -> None:
        start = bench.source.current_revision()
        stream = bench.source.watch(b"k/", start)
        for key in (b"k", b"k.", b"k0", b"", b"\xff"):
            if key:
                bench.put(key, b"outside")
        revision = bench.put(b"k/", b"inside")
        assert [batch.revision for batch in batches(stream, revision)] == [revision]
        stream.close()

    def test_a_delete_of_nothing_makes_no_batch(self, bench: Bench) -> None:
        start = bench.source.current_revision()
        stream = bench.source.watch(b"", start)
        assert bench.delete(b"nothing") is None
        revision = bench.put(b"a", b"1")
        assert [batch.revision for batch in batches(stream, revision)] == [revision]
        stream.close()

    def test_watch_after_compaction(self, bench: Bench) -> None:
        revisions = [bench.put(b"a", b"%d" % number) for number in range(5)]
        bench.compact(revisions[3])
        with pytest.raises(Compacted) as failure:
            batches(bench.source.watch(b"", revisions[0]), revisions[-1])
        assert failure.value.oldest in (revisions[3], 0)
        assert failure.value.revision == revisions[1]

    def test_watch_from_the_compacted_revision_itself(self, bench: Bench) -> None:
        revisions = [bench.put(b"key-%d" % number, b"") for number in range(5)]
        bench.compact(revisions[2])
        stream = bench.source.watch(b"", revisions[2] - 1)
        assert [batch.revision for batch in batches(stream, revisions[-1])] == revisions[2:]
        stream.close()

    def test_list_then_watch_is_the_state(self, bench: Bench) -> None:
        fill(bench, 20)
        listing = bench.source.list(b"")
        model = {element.key: element.value for element in listing.elements}
        stream = bench.source.watch(b"", listing.revision)
        bench.delete(b"key-003")
        bench.txn([(b"key-004", b"new"), b"key-005", (b"key-100", b"created")])
        last = bench.put(b"key-006", b"last")
        for batch in batches(stream, last):
            for event in batch.events:
                if event.element is None:
                    del model[event.key]
                else:
                    model[event.key] = event.element.value
        assert model == state(bench)
        stream.close()

    def test_two_streams_at_once(self, bench: Bench) -> None:
        start = bench.source.current_revision()
        streams = [bench.source.watch(prefix, start) for prefix in (b"a", b"", b"")]
        revisions = [bench.put(key, b"") for key in (b"a", b"b", b"a", b"b", b"a")]
        got = [[batch.revision for batch in batches(stream, revisions[-1])] for stream in streams]
        assert got == [revisions[::2], revisions, revisions]
        streams[0].close()
        last = bench.put(b"a", b"")
        assert [batch.revision for batch in batches(streams[1], last)] == [last]
        for stream in streams:
            stream.close()


class ProgressContract:
    def test_progress_after_a_request(self, bench: Bench) -> None:
        start = bench.put(b"a", b"1")
        stream = bench.source.watch(b"other", start)
        if not stream.request_progress():
            assert stream.receive(0.3) is None, "a mark that can't be trusted"
            stream.close()
            return
        current = bench.put(b"a", b"2")
        deadline = time.monotonic() + TIMEOUT_S
        while progress(stream).revision < current:
            assert time.monotonic() < deadline
        stream.close()

    def test_progress_is_never_ahead_of_events(self, bench: Bench) -> None:
        start = bench.source.current_revision()
        stream = bench.source.watch(b"", start)
        if not stream.request_progress():
            bench.put(b"a", b"1")
            batches(stream, bench.source.current_revision())
            assert stream.receive(0.3) is None, "a mark that can't be trusted"
            stream.close()
            return
        seen: list[Batch] = []
        written: list[int] = []
        mark = start
        for number in range(40):
            written += [bench.put(b"a", b"%d" % number) for _ in range(5)]
            mark = max(mark, progress(stream, seen).revision)
            missing = {r for r in written if r <= mark} - {batch.revision for batch in seen}
            assert not missing, f"mark {mark} came before the events of {sorted(missing)}"
        assert mark > start
        seen += batches(stream, written[-1]) if seen[-1].revision < written[-1] else []
        assert [batch.revision for batch in seen] == written
        stream.close()


class LifeContract:
    def test_receive_0_does_not_wait(self, bench: Bench) -> None:
        stream = bench.source.watch(b"", bench.source.current_revision())
        start = time.monotonic()
        for _ in range(20):
            assert stream.receive(0) is None
        assert time.monotonic() - start < 1.0
        stream.close()

    def test_receive_waits_no_longer_than_asked(self, bench: Bench) -> None:
        stream = bench.source.watch(b"", bench.source.current_revision())
        start = time.monotonic()
        assert stream.receive(0.3) is None
        assert 0.25 <= time.monotonic() - start < 2.0
        stream.close()

    def test_a_closed_stream_raises(self, bench: Bench) -> None:
        start = bench.source.current_revision()
        bench.put(b"a", b"1")
        stream = bench.source.watch(b"", start)
        stream.close()
        stream.close()
        for _ in range(2):
            with pytest.raises(Unavailable):
                stream.receive(0.1)
        assert not stream.request_progress()

    def test_close_wakes_a_receive_in_another_thread(self, bench: Bench) -> None:
        stream = bench.source.watch(b"", bench.source.current_revision())
        ended: list[BaseException] = []

        def receive() -> None:
            try:
                stream.receive(TIMEOUT_S)
            except Unavailable as error:
                ended.append(error)

        thread = threading.Thread(target=receive)
        thread.start()
        time.sleep(0.1)
        stream.close()
        thread.join(TIMEOUT_S / 2)
        assert not thread.is_alive()
        assert len(ended) == 1

    def test_close_ends_the_threads(self, bench: Bench) -> None:
        before = set(threading.enumerate())
        start = bench.source.current_revision()
        streams = [bench.source.watch(b"", start) for _ in range(3)]
        revision = bench.put(b"a", b"1")
        batches(streams[0], revision)
        for stream in streams:
            stream.close()
        deadline = time.monotonic() + TIMEOUT_S
        while left := set(threading.enumerate()) - before:
            assert time.monotonic() < deadline, left
            time.sleep(0.02)

    def test_closing_the_source_ends_its_streams(self, bench: Bench) -> None:
        stream = bench.source.watch(b"", bench.source.current_revision())
        bench.source.close()
        bench.source.close()
        with pytest.raises(Unavailable):
            stream.receive(TIMEOUT_S)
        with pytest.raises(Unavailable):
            bench.source.current_revision()
        with pytest.raises(Unavailable):
            bench.source.watch(b"", 1)


class SourceContract(ListContract, RangeContract, WatchContract, ProgressContract, LifeContract):
    """Everything above: what a Source must do."""
