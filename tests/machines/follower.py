"""Follower: a source that lies, breaks and forgets; the cache must end at the source's truth.

A dropped event that no `version` proves (docs/guarantees.md, "What is not covered") may be served
between revisions; `unproven` remembers which revisions those could be, and nothing else is excused.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from btreecache import (
    Batch,
    Bounds,
    Cache,
    Compacted,
    Element,
    Event,
    FeedFault,
    Follower,
    NotReady,
    Progress,
    SourceError,
    Unavailable,
    Watcher,
)
from btreecache.source import Listing, RangePage
from tests.fakes import Clock
from tests.machines.model import (
    KEYS,
    PREFIXES,
    Content,
    Machine,
    fold,
    following,
    in_order,
    outcome,
    random_events,
    under,
)

#: How often a source that is in the mood for it misbehaves at a call.
FAULT_RATE = 0.12


class FaultySource:
    """The truth, a dict per revision, behind lists and watches that go wrong while `rng` is set.

    spoiled     the first revision that an open fault makes wrong; the next item proves it
    unproven    dropped revisions with their keys: each is proved only by its key's next event
    """

    name = "faulty"

    def __init__(self) -> None:
        self.rng: Random | None = None
        self.contents: dict[int, Content] = {1: {}}
        self.batches: list[Batch] = []
        self.current = 1
        self.compacted = 0
        self.streams_open = 0
        self.spoiled: int | None = None
        self.unproven: dict[int, set[bytes]] = {}
        self.injected: list[str] = []

    @property
    def newest(self) -> Content:
        return self.contents[max(self.contents)]

    def at(self, revision: int) -> Content:
        known = [*self.contents]
        return self.contents[known[bisect_right(known, revision) - 1]]

    def write(self, events: tuple[Event, ...]) -> None:
        self.contents[self.current] = fold(self.newest, events)
        self.batches.append(Batch(self.current, events))

    def fault(self, *kinds: str) -> str:
        """What goes wrong at this call, "" for nothing."""
        if self.rng is None or self.rng.random() >= FAULT_RATE:
            return ""
        kind = self.rng.choice(kinds)
        self.injected.append(kind)
        return kind

    def list(self, prefix: bytes) -> Listing:
        kind = self.fault("away", "half compacted", "half lost", "out of order")
        if kind == "away":
            raise Unavailable("away")
        return Listing(self.current, self.pages(in_order(under(self.newest, prefix)), kind))

    def pages(self, elements: list[Element], kind: str) -> Iterator[Element]:
        half = len(elements) // 2
        yield from elements[:half]
        if kind == "half compacted":
            raise Compacted(self.current, self.current + 1)
        if kind == "half lost":
            raise Unavailable("lost half way through a list")
        if kind == "out of order" and half:
            yield elements[half - 1]
        yield from elements[half:]

    def watch(self, prefix: bytes, after: int) -> FaultyStream:
        kind = self.fault("away", "compacted", "odd")
        if kind == "away":
            raise Unavailable("away")
        if kind == "odd":
            raise SourceError("odd")
        if kind == "compacted" or after + 1 < self.compacted:
            raise Compacted(after, self.compacted)
        return FaultyStream(self, prefix, after)

    def current_revision(self) -> int:
        raise AssertionError("a follower doesn't ask")

    def range_at(self, *_: object, **__: object) -> RangePage:
        raise AssertionError("a follower doesn't ask")

    def close(self) -> None:
        pass


class FaultyStream:
    """Batches of the truth; a fault that takes two items to show has the second one `due`."""

    def __init__(self, source: FaultySource, prefix: bytes, after: int) -> None:
        self.source, self.prefix, self.position = source, prefix, after
        self.due: deque[Batch | Progress] = deque()
        self.is_open = True
        source.streams_open += 1

    def undelivered(self) -> list[Batch]:
        found = []
        for batch in self.source.batches:
            events = tuple(e for e in batch.events if e.key.startswith(self.prefix))
            if batch.revision > self.position and events:
                found.append(Batch(batch.revision, events))
        return found

    def receive(self, timeout_s: float) -> Batch | Progress | None:
        assert self.is_open
        assert timeout_s == 0
        if self.due:
            return self.due.popleft()
        source = self.source
        kind = source.fault("lost", "compacted", "drop", "repeat", "reorder", "split", "early mark",
                            "mark back")  # fmt: skip
        if kind == "lost":
            raise Unavailable("lost")
        if kind == "compacted" or self.position + 1 < source.compacted:
            raise Compacted(self.position, source.compacted)
        ahead = self.undelivered()
        if kind == "mark back":
            return Progress(self.position - 1)
        if not ahead:
            self.position = source.current
            return Progress(self.position)
        batch = ahead[0]
        self.position = batch.revision
        if kind:
            return self.misdeliver(kind, ahead)
        return batch

    def misdeliver(self, kind: str, ahead: list[Batch]) -> Batch | Progress | None:
        source, batch = self.source, ahead[0]
        if kind == "drop":
            source.unproven[batch.revision] = {event.key for event in batch.events}
            return None
        if kind == "repeat":
            self.due.append(batch)
        elif kind == "reorder" and len(ahead) > 1:
            source.spoiled = batch.revision
            self.due.append(batch)
            return ahead[1]
        elif kind == "split" and len(batch.events) > 1:
            source.spoiled = batch.revision
            self.due.append(Batch(batch.revision, batch.events[1:]))
            return Batch(batch.revision, batch.events[:1])
        elif kind == "early mark":
            source.spoiled = batch.revision
            self.due.append(batch)
            return Progress(source.current)
        return batch

    def request_progress(self) -> bool:
        return False

    def close(self) -> None:
        assert self.is_open, "closed twice"
        self.is_open = False
        self.source.streams_open -= 1


@dataclass
class Reader:
    watcher: Watcher
    prefix: bytes
    content: Content


class FollowerMachine(Machine):
    rules = (*["follow"] * 8, *["write"] * 4, "move", "compact", "watch_begin", *["watch_on"] * 2,
             "pause")  # fmt: skip

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self.clock, self.source = Clock(), FaultySource()
        self.prefix = rng.choice([b"", b"a/"])
        bounds = Bounds(age_s=None, revisions=rng.choice([None, rng.randint(1, 20)]))
        self.cache = Cache(self.prefix, bounds=bounds, now=self.clock)
        self.on_gap = rng.choice(["resync", "diff"])
        self.follower = Follower(
            self.source, self.cache, on_gap=self.on_gap, now=self.clock, rng=Random(rng.random())
        )
        self.readers: list[Reader] = []
        self.refused: set[int] = set()
        self.compacted_readers = 0

    def write(self, rng: Random) -> None:
        self.source.current += rng.randint(1, 3)
        self.source.write(random_events(rng, self.source.newest, self.source.current, b""))
        self.note(self.source.current)

    def move(self, rng: Random) -> None:
        """The revision grows where nobody looks."""
        self.source.current += rng.randint(1, 3)

    def compact(self, rng: Random) -> None:
        if rng.random() < 0.5:
            self.source.compacted = rng.randint(self.source.compacted, self.source.current)
        elif self.cache.revision:
            self.cache.compact(rng.randint(self.cache.oldest, self.cache.revision))

    def pause(self, rng: Random) -> None:
        self.clock.now_s += rng.choice([0.05, 1.0, 60.0])

    def follow(self, rng: Random) -> None:
        self.source.rng, injected = rng, len(self.source.injected)
        self.one_step()
        self.source.rng = None
        self.note(self.source.injected[injected:])

    def one_step(self) -> bool:
        source, cache = self.source, self.cache
        before = cache.stats()
        done = self.follower.step()
        after = cache.stats()
        if after.replacements > before.replacements:
            source.spoiled = None
            source.unproven.clear()
        if after.feed_faults > before.feed_faults:
            self.faulted()
        return done

    def faulted(self) -> None:
        """What a fault proves: it must have been put below everything that it spoiled."""
        fault, good = self.cache.feed_faults[-1], self.cache.state.suspect_after
        assert good is not None
        assert self.source.spoiled is None or good < self.source.spoiled
        self.source.spoiled = None
        for revision, keys in [*self.source.unproven.items()]:
            if fault.key in keys and not self.erased(fault, revision):
                assert good < revision
            if good < revision:
                del self.source.unproven[revision]
        window = self.cache.state.window
        if window is not None:
            self.refused |= {revision for revision in window.revisions() if revision > good}

    def erased(self, fault: FeedFault, revision: int) -> bool:
        """Whether a delete delivered since then leaves no trace of what was lost at `revision`."""
        return any(
            event.key == fault.key and event.is_delete
            for batch in self.source.batches
            if revision < batch.revision < fault.revision
            and batch.revision not in self.source.unproven
            for event in batch.events
        )

    def readable(self) -> Iterator[int]:
        state = self.cache.state
        if state.window is not None:
            last, good = state.window.current, state.suspect_after
            last = last if good is None else min(last, good)
            yield from range(state.window.oldest, last + 1)

    def check(self) -> None:
        """Every revision that can be read is the truth's, but for what no fault can prove yet."""
        source = self.source
        excused = [*source.unproven, *([source.spoiled] if source.spoiled else [])]
        first = min(excused, default=source.current + 1)
        for revision in self.readable():
            if revision < first:
                assert revision <= source.current
                wanted = in_order(under(source.at(revision), self.prefix))
                assert [*self.cache.snapshot(revision)] == wanted, revision
        good = self.cache.state.suspect_after
        assert good is None or outcome(lambda: self.cache.snapshot(good + 1)) is NotReady
        assert source.streams_open <= 1

    def watch_begin(self, rng: Random) -> None:
        revisions, prefix = [*self.readable()], rng.choice(PREFIXES)
        if revisions:
            revision = rng.choice([revisions[0], revisions[-1], rng.choice(revisions)])
            watcher = outcome(lambda: self.cache.watch(revision, prefix))
            assert isinstance(watcher, Watcher) or watcher is Compacted
            if isinstance(watcher, Watcher):
                content = {kept.key: kept for kept in self.cache.list(prefix, revision=revision)[1]}
                self.readers.append(Reader(watcher, prefix, content))

    def watch_on(self, rng: Random) -> None:
        if self.readers:
            self.receive(rng.choice(self.readers))

    def receive(self, reader: Reader) -> bool:
        before = reader.watcher.position
        batch = outcome(lambda: reader.watcher.receive(0))
        if batch is Compacted:
            self.readers.remove(reader)
            self.compacted_readers += 1
            return False
        if batch is None:
            return False
        assert batch.events
        assert batch.revision > before
        assert batch.synthetic or batch.revision not in self.refused, "suspect and handed out"
        assert all(event.key.startswith(reader.prefix) for event in batch.events)
        reader.content = fold(reader.content, batch.events)
        return True

    def finish(self) -> None:
        """Without new faults, and with a put of each key to prove the drops, all comes right."""
        source = self.source
        for key in KEYS:
            source.current += 1
            source.write((Event(key, following(source.newest, key, b"last", source.current)),))
        quiet = 0
        for _ in range(1000):
            quiet = quiet + 1 if self.cache.ready and self.cache.revision == source.current else 0
            if quiet == 2:
                break
            if not self.one_step():
                self.clock.now_s += 60.0
        assert quiet == 2, "it never settled"
        assert self.follower.trouble is None
        self.check()
        wanted = under(source.newest, self.prefix)
        assert [*self.cache.snapshot()] == in_order(wanted)
        for reader in [*self.readers]:
            while self.receive(reader):
                pass
            if reader in self.readers:
                assert reader.content == under(wanted, reader.prefix)
        self.follower.close()
        assert source.streams_open == 0
