"""Cache: reads, pages, watchers and diffs, across batches, faults, compactions and resyncs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from btreecache import (
    ABSENT,
    BadRequest,
    Batch,
    Bounds,
    Cache,
    Compacted,
    Element,
    Event,
    FeedFault,
    FutureRevision,
    NotReady,
    Progress,
    Snapshot,
    Watcher,
)
from btreecache.cache import State
from tests.fakes import Clock
from tests.machines.model import (
    KEYS,
    PREFIXES,
    Content,
    Entry,
    Machine,
    WindowModel,
    fold,
    following,
    in_order,
    outcome,
    random_events,
    under,
    with_previous,
)


@dataclass
class Chain:
    """A list that is read page by page, with the whole of it as page one's revision had it."""

    epoch: int
    revision: int
    prefix: bytes
    limit: int
    whole: list[Element]
    read: list[Element]
    next_start: bytes | None


@dataclass
class Reader:
    """A watcher; `content`: what its reader made of the list that it began with and the events."""

    watcher: Watcher
    prefix: bytes
    epoch: int
    position: int
    content: Content | None


@dataclass
class Published:
    """What a State must answer for ever."""

    window: WindowModel | None
    suspect_after: int | None
    epoch: int

    def readable(self) -> WindowModel:
        if self.window is None:
            raise NotReady("never filled")
        return self.window

    def at(self, revision: int | None) -> Content:
        window = self.readable()
        revision = window.current if revision is None else revision
        if self.suspect_after is not None and revision > self.suspect_after:
            raise NotReady("suspect")
        return window.at(revision).content


class ReadingMachine(Machine):
    """Every way to read a cache, against `published`; what follows a source or a store adds writes.

    `faulty`: entries that a fault made suspect after they were published. Nobody may get them.
    """

    cache: Cache
    prefix: bytes

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self.clock = Clock()
        self.published = Published(None, None, 0)
        self.bounds = Bounds(
            age_s=rng.choice([None, float(rng.randint(1, 60))]),
            revisions=rng.choice([None, rng.randint(1, 30)]),
        )
        self.prefix = b""
        self.chains: list[Chain] = []
        self.readers: list[Reader] = []
        self.snapshots: list[tuple[Snapshot, Content]] = []
        self.states: list[tuple[State, Published]] = []
        self.faulty: list[Batch] = []

    @property
    def window(self) -> WindowModel:
        return self.published.readable()

    @property
    def newest(self) -> Content:
        return self.window.newest.content

    def any_revision(self, rng: Random) -> int:
        window = self.published.window
        if window is None:
            return rng.randint(0, 2)
        edges = [window.oldest - 1, window.oldest, window.current, window.current + 1]
        return rng.choice([*edges, *[rng.randint(window.oldest, window.current)] * 4])

    def tick(self, rng: Random) -> None:
        self.clock.now_s += rng.randint(0, 10)

    def appended(self, batch: Batch) -> None:
        before, window = self.newest, self.window
        kept = with_previous(before, batch)
        window.append(Entry(batch.revision, fold(before, batch.events), kept, self.clock.now_s))
        window.evict(self.bounds, self.clock.now_s)

    # Reading.

    def read(self, rng: Random) -> None:
        revision = rng.choice([None, self.any_revision(rng)])
        prefix, key = rng.choice(PREFIXES), rng.choice(KEYS)
        self.note(revision)
        content = outcome(lambda: self.published.at(revision))
        cache = self.cache
        if isinstance(content, type):
            for call in (
                lambda: cache.snapshot(revision),
                lambda: cache.get(key, revision),
                lambda: cache.list(prefix, revision=revision),
            ):
                assert outcome(call) is content, (revision, content)
            return
        snapshot = cache.snapshot(revision)
        asked = self.window.current if revision is None else revision
        assert snapshot.revision == asked
        wanted = in_order(under(content, prefix))
        assert cache.get(key, revision) == content.get(key)
        assert cache.list(prefix, revision=revision) == (asked, wanted, None, 0)
        assert cache.list(revision=revision).elements == in_order(content)
        assert [*snapshot] == in_order(content)
        assert snapshot.count(prefix) == len(wanted)
        start = prefix + rng.choice([b"", b"1", b"\xff", b"\xff\xff"])
        self.one_page(rng, revision, prefix, start, [e for e in wanted if e.key >= start])

    def one_page(
        self, rng: Random, revision: int | None, prefix: bytes, start: bytes, wanted: list[Element]
    ) -> None:
        limit = rng.randint(-1, 4)
        if limit <= 0:
            call = lambda: self.cache.list(prefix, revision=revision, limit=limit)  # noqa: E731
            assert outcome(call) is BadRequest
            return
        page = self.cache.list(prefix, revision=revision, start=start, limit=limit)
        assert page.elements == wanted[:limit]
        assert page.remaining == max(0, len(wanted) - limit)
        assert (page.next_start is None) == (page.remaining == 0)

    def page_begin(self, rng: Random) -> None:
        revision, prefix, limit = self.any_revision(rng), rng.choice(PREFIXES), rng.randint(1, 3)
        content = outcome(lambda: self.published.at(revision))
        page = outcome(lambda: self.cache.list(prefix, revision=revision, limit=limit))
        if isinstance(content, type):
            assert page is content
            return
        whole = in_order(under(content, prefix))
        assert page.elements == whole[:limit]
        if page.next_start:
            epoch = self.published.epoch
            self.chains.append(
                Chain(epoch, revision, prefix, limit, whole, page.elements, page.next_start)
            )

    def page_on(self, rng: Random) -> None:
        """I7: the next page belongs to page one, or says why not.

        A fresh list may say that the revision of page one never was what the feed had made of it;
        the page then belongs to the list.
        """
        if not self.chains:
            return
        chain = rng.choice(self.chains)
        wanted = outcome(lambda: self.published.at(chain.revision))
        options: dict[str, Any] = {"start": chain.next_start, "limit": chain.limit}
        page = outcome(lambda: self.cache.list(chain.prefix, revision=chain.revision, **options))
        if isinstance(wanted, type):
            assert page is wanted
            self.chains.remove(chain)
            return
        if chain.epoch != self.published.epoch:
            chain.whole = in_order(under(wanted, chain.prefix))
            assert chain.next_start is not None
            chain.read = [kept for kept in chain.whole if kept.key < chain.next_start]
            chain.epoch = self.published.epoch
        chain.read = chain.read + page.elements
        assert chain.read == chain.whole[: len(chain.read)]
        assert page.remaining == len(chain.whole) - len(chain.read)
        chain.next_start = page.next_start
        if page.next_start is None:
            assert chain.read == chain.whole
            self.chains.remove(chain)

    def diff(self, rng: Random) -> None:
        older, newer = self.any_revision(rng), self.any_revision(rng)
        found = outcome(lambda: self.cache.diff(older, newer))
        wanted = outcome(lambda: (self.published.at(older), self.published.at(newer)))
        if isinstance(wanted, type):
            assert found is wanted, (found, wanted)
            return
        old, new = wanted
        both = sorted(old.keys() & new.keys())
        assert found.added == [(k, new[k]) for k in sorted(new.keys() - old.keys())]
        assert found.removed == [(k, old[k]) for k in sorted(old.keys() - new.keys())]
        assert found.changed == [(k, old[k], new[k]) for k in both if old[k] != new[k]]
        assert ABSENT not in [value for _, value in found.added + found.removed]

    def wait(self, rng: Random) -> None:
        revision, window = self.any_revision(rng), self.published.window
        found = outcome(lambda: self.cache.wait_for(revision, timeout_s=0))
        if revision > (window.current if window else 0):
            assert found is FutureRevision
            return
        wanted = outcome(lambda: self.published.at(revision))
        if isinstance(wanted, type):
            assert found is wanted
        else:
            assert (found.revision, [*found]) == (revision, in_order(wanted))

    def hold(self, rng: Random) -> None:
        window = self.published.window
        frozen = Published(
            window and window.freeze(), self.published.suspect_after, self.published.epoch
        )
        self.states.append((self.cache.state, frozen))
        revision = self.any_revision(rng)
        content = outcome(lambda: self.published.at(revision))
        if not isinstance(content, type):
            self.snapshots.append((self.cache.snapshot(revision), content))

    # Watching.

    def watch_begin(self, rng: Random) -> None:
        after = rng.choice([None, self.any_revision(rng)])
        prefix = rng.choice(PREFIXES)
        watcher = outcome(lambda: self.cache.watch(after, prefix))
        if self.published.window is None:
            assert watcher is NotReady
            return
        position = self.window.current if after is None else after
        if position < self.window.floor:
            assert watcher is Compacted
            return
        listed = outcome(lambda: self.published.at(position))
        content = None if isinstance(listed, type) else under(listed, prefix)
        self.readers.append(Reader(watcher, prefix, self.published.epoch, position, content))

    def watch_on(self, rng: Random) -> None:
        for reader in rng.sample(self.readers, min(2, len(self.readers))):
            self.receive(reader)

    def receive(self, reader: Reader) -> bool:
        """One `receive`: the next revision that the prefix is in, whole. False when none came."""
        wanted = outcome(lambda: self.wanted(reader))
        found = outcome(lambda: reader.watcher.receive(0))
        assert found == wanted, (found, wanted)
        if found is not Compacted:
            promised = reader.watcher.position
            missed = [e for e in self.touching(reader) if e.revision <= promised]
            assert not missed, "a position promises that everything up to it was handed out"
        if found is Compacted:
            self.readers.remove(reader)
            return False
        if found is None:
            return False
        assert not any(found.revision == bad.revision and not found.synthetic
                       for bad in self.faulty), "a suspect batch was handed out"  # fmt: skip
        if reader.content is not None:
            before, reader.content = reader.content, fold(reader.content, found.events)
            assert all(e.previous == before.get(e.key) for e in found.events)
            listed = self.window.entry_after(found.revision - 1)
            assert listed is not None
            assert reader.content == under(listed.content, reader.prefix)
        return True

    def wanted(self, reader: Reader) -> Batch | None:
        """By the rule: only a forgotten batch of its own prefix throws a watcher off."""
        window, good = self.window, self.published.suspect_after
        if reader.epoch != self.published.epoch:
            raise Compacted(reader.position)
        for entry in self.touching(reader):
            batch = entry.batch
            assert batch is not None
            events = tuple(e for e in batch.events if e.key.startswith(reader.prefix))
            if entry.revision <= window.floor:
                raise Compacted(reader.position)
            if good is not None and entry.revision > good:
                return None
            reader.position = entry.revision
            return Batch(batch.revision, events, batch.synthetic)
        newest = window.current if good is None else min(good, window.current)
        reader.position = max(reader.position, newest)
        return None

    def touching(self, reader: Reader) -> list[Entry]:
        """What the reader has yet to see, forgotten or not."""
        return [
            entry
            for entry in self.window.entries_after(reader.position)
            if entry.batch and any(e.key.startswith(reader.prefix) for e in entry.batch.events)
        ]

    # What always holds.

    def check(self) -> None:
        cache, window, good = self.cache, self.published.window, self.published.suspect_after
        assert cache.consistent == (good is None)
        assert cache.ready == (good is None and window is not None)
        assert cache.revision == (window.current if window else 0)
        assert cache.oldest == (window.oldest if window else 0)
        assert cache.stats().snapshots == (len(window.visible) if window else 0)
        most = self.bounds.revisions
        assert most is None or cache.stats().snapshots <= most

    def finish(self) -> None:
        for snapshot, content in self.snapshots:
            assert [*snapshot] == in_order(content)
        for state, then in [*self.states, (self.cache.state, self.published)]:
            for revision in range((then.window.current if then.window else 0) + 2):
                wanted = outcome(lambda: then.at(revision))
                found = outcome(lambda: state.at(revision))
                if isinstance(wanted, type):
                    assert found is wanted
                else:
                    assert [*found] == in_order(wanted), revision
        for reader in [*self.readers]:
            while self.receive(reader):
                pass
            level = reader in self.readers and reader.position <= self.window.current
            if level and self.published.suspect_after is None and reader.content is not None:
                assert reader.content == under(self.newest, reader.prefix)
        while self.chains:
            self.page_on(Random(0))


READS = (*["read"] * 3, "page_begin", *["page_on"] * 2, "diff", "wait", "hold", "tick",
         *["watch_begin"] * 2, *["watch_on"] * 3)  # fmt: skip


@dataclass
class Broken:
    """A batch that can't follow: its events (after good ones), its revision, the kind of fault."""

    kind: str
    revision: int
    good: int
    events: list[Event] = field(default_factory=list)


class CacheMachine(ReadingMachine):
    rules = (*READS, *["apply"] * 8, *["progress"] * 2, "compact", "refill", *["fault"] * 2)

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self.prefix = rng.choice([b"", b"a/"])
        self.cache = Cache(self.prefix, bounds=self.bounds, now=self.clock)

    def apply(self, rng: Random) -> None:
        if self.published.window is None:
            assert outcome(lambda: self.cache.apply(Batch(1, ()))) is NotReady
            self.refill(rng)
            return
        revision = self.window.current + rng.randint(1, 3)
        events = random_events(rng, self.newest, revision, self.prefix)
        batch = Batch(revision, () if rng.random() < 0.03 else events)
        self.note(batch.revision)
        self.cache.apply(batch)
        self.appended(batch)

    def progress(self, rng: Random) -> None:
        window = self.published.window
        if window is None:
            assert outcome(lambda: self.cache.progress(Progress(1))) is NotReady
            return
        mark = window.current + rng.randint(0, 4)
        self.note(mark)
        self.cache.progress(Progress(mark))
        window.current = mark
        window.evict(self.bounds, self.clock.now_s)

    def compact(self, rng: Random) -> None:
        revision, window = self.any_revision(rng), self.published.window
        self.note(revision)
        if window is None or revision > window.current:
            wanted = NotReady if window is None else FutureRevision
            assert outcome(lambda: self.cache.compact(revision)) is wanted
            return
        self.cache.compact(revision)
        window.compact(revision)

    def refill(self, rng: Random) -> None:
        """A list: of the state now, of one some unseen batches on, or of one further back."""
        window = self.published.window
        current = window.current if window else 1
        content = self.newest if window else {}
        revision = max(1, current + rng.choice([-2, -1, 0, 0, 1, 2, 5]))
        first = min(revision, current + 1)
        content = {key: kept for key, kept in content.items() if kept.mod_revision < first}
        for at in range(first, revision + 1):
            content = fold(content, random_events(rng, content, at, self.prefix))
        as_batch = rng.random() < 0.6
        self.note(f"{revision} as_batch={as_batch}")
        self.cache.replace(revision, in_order(content), as_batch=as_batch)
        now_s, epoch = self.clock.now_s, self.published.epoch
        if not (as_batch and window and revision > current):
            entry = Entry(revision, content, None, now_s)
            self.published = Published(WindowModel.of(entry), None, epoch + 1)
            self.faulty = []
            return
        batch = Batch(revision, self.net_change(self.newest, content), synthetic=True)
        good, last = self.published.suspect_after, window.newest.revision
        window.append(Entry(revision, content, batch, now_s))
        window.oldest = revision
        if good is not None and good < last:
            window.floor = max(window.floor, last)
        window.evict(self.bounds, now_s)
        self.published = Published(window, None, epoch)

    @staticmethod
    def net_change(old: Content, new: Content) -> tuple[Event, ...]:
        changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        return tuple(Event(key, new.get(key), old.get(key)) for key in changed)

    def fault(self, rng: Random) -> None:
        name = rng.choice(["batch", "batch", "batch", "mark", "list"])
        window = self.published.window
        if window is None:
            return
        call: Callable[[], None]
        if name == "mark":
            mark = window.current - rng.randint(1, 3)
            good, call = mark, lambda: self.cache.progress(Progress(mark))
        elif name == "list":
            key = self.prefix + b"x"
            keys = rng.choice([[key, key], [key, self.prefix], [b"A", key], [key, b"\xff"]])
            if not self.prefix:
                keys = [key, key]
            good = 0
            elements = [Element(key, b"", 1, 1, 1) for key in keys]
            call = lambda: self.cache.replace(window.current + 1, elements)  # noqa: E731
        else:
            broken = self.broken(rng)
            name, good = broken.kind, broken.good
            begin = random_events(rng, self.newest, broken.revision, self.prefix)
            touched = {event.key for event in broken.events}
            before = [event for event in begin if event.key not in touched]
            batch = Batch(broken.revision, (*before, *broken.events))
            call = lambda: self.cache.apply(batch)  # noqa: E731
        self.note(name)
        before_faults = len(self.cache.feed_faults)
        assert outcome(call) is FeedFault
        found = self.cache.feed_faults[before_faults:]
        assert [fault.good for fault in found] == [good]
        assert name in ("mark", "list") or found[0].kind == name
        earlier = self.published.suspect_after
        self.published.suspect_after = good if earlier is None else min(good, earlier)
        self.faulty += [e.batch for e in window.visible
                        if e.batch and e.revision > self.published.suspect_after]  # fmt: skip

    def broken(self, rng: Random) -> Broken:
        """One breach of the Source contract, of a kind that applies to the state now."""
        window, content, at = self.window, self.newest, self.window.current + 1
        last, promised = window.newest.revision, window.current
        known = rng.choice(sorted(content)) if content else None
        unknown = self.prefix + rng.choice([b"never", b"!"])
        fresh = Event(unknown, Element(unknown, b"", at, at, 1))
        away = Element(unknown, b"", at, max(at - 2, 0), 3)
        odd = Element(unknown, b"", at, at, 2)
        early = Element(unknown, b"", at - 1, at - 1, 1)
        second = Event(unknown, rng.choice([None, odd]))
        choices = [
            Broken("key_repeated", at, at - 1, [fresh, second]),
            Broken("revision_repeated", last, last - 1, [fresh]),
            Broken("revision_went_back", last - 1, last - 2, [fresh]),
            Broken("unknown_key_deleted", at, 0, [Event(unknown, None)]),
            Broken("version_gap", at, away.create_revision - 1, [Event(unknown, away)]),
            Broken("misplaced_event", at, at - 1, [Event(unknown, odd)]),
            Broken("misplaced_event", at, at - 1, [Event(unknown, early)]),
            Broken("misplaced_event", at, at - 1, [Event(unknown, following({}, b"a/0", b"", at))]),
        ]
        if promised > last:
            between = rng.randint(last + 1, promised)
            choices += [Broken("progress_ran_ahead", between, between - 1, [fresh])] * 2
        if self.prefix:
            foreign = Element(b"b/1", b"", at, at, 1)
            choices.append(Broken("foreign_key", at, at - 1, [Event(b"b/1", foreign)]))
        if known is not None:
            old = content[known]
            gap = Element(known, b"", at, old.create_revision, old.version + 2)
            again = Element(known, b"", at, at, 1)
            good = old.mod_revision
            choices += [Broken("version_gap", at, good, [Event(known, kept)])
                        for kept in (gap, again)]  # fmt: skip
        return rng.choice(choices)
