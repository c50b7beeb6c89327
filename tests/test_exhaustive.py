"""Every small history there is, with one thing more at every place, read in every way.

A history is up to four batches over two keys, deletes and batches of two keys included. The thing
more is a progress mark, a compaction at each revision, or a list that stands for a batch that the
feed lost, as a cut or as a batch, after a feed fault or without. A reader that pages and two that
watch, a lazy and an eager one, live through all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product

import pytest

from btreecache import (
    Batch,
    Cache,
    Compacted,
    Element,
    Event,
    FeedFault,
    FutureRevision,
    NotReady,
    Page,
    Progress,
    Watcher,
)
from btreecache.cache import State
from tests.fakes import delete, element, put

Content = dict[bytes, Element]
Thing = tuple[str, int]

KEYS = [b"a", b"b"]
FIRST = 10
START: Content = {b"a": element(b"a", b"0", 3)}

#: What a batch does: a small letter puts that key, a capital one deletes it.
ALL_BATCHES = ("a", "b", "A", "B", "ab", "aB", "Ab", "AB")
SOME_BATCHES = ("a", "b", "A", "aB", "AB")
FEW_BATCHES = ("a", "A", "aB")


def histories(length: int, choices: tuple[str, ...], keys: str = "a") -> Iterator[tuple[str, ...]]:
    """Every sequence of batches that a store could make; `keys` are those that exist."""
    if length == 0:
        yield ()
        return
    for choice in choices:
        if all(letter.lower() in keys for letter in choice if letter.isupper()):
            gone = [key for key in keys if key.upper() not in choice]
            after = {*gone, *(letter for letter in choice if letter.islower())}
            for rest in histories(length - 1, choices, "".join(sorted(after))):
                yield choice, *rest


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except (Compacted, FutureRevision, NotReady) as error:
        return type(error)


@dataclass
class Story:
    """A cache, and beside it the dict and the batch of each revision."""

    cache: Cache = field(default_factory=Cache)
    contents: dict[int, Content] = field(default_factory=lambda: {FIRST: START})
    batches: dict[int, Batch] = field(default_factory=dict)
    oldest: int = FIRST
    current: int = FIRST
    floor: int = FIRST
    gaps: list[range] = field(default_factory=list)
    cuts: int = 0
    good: int | None = None
    held: list[tuple[State, dict[int, object]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cache.replace(FIRST, START.values())
        self.lazy, self.eager = self.cache.watch(), self.cache.watch()
        self.seen = dict(START)
        self.pages = self.cache.list(limit=1)
        self.paged = [*self.pages.elements]

    @property
    def newest(self) -> Content:
        return self.contents[max(self.contents)]

    def at(self, revision: int) -> Content:
        if self.good is not None and revision > self.good:
            raise NotReady("suspect")
        if revision < self.oldest:
            raise Compacted(revision)
        if revision > self.current:
            raise FutureRevision(revision, self.current)
        return self.contents[max(known for known in self.contents if known <= revision)]

    # What happens.

    def following(self, letters: str, revision: int) -> tuple[Batch, Content]:
        events, after = [], dict(self.newest)
        for letter in letters:
            key = letter.lower().encode()
            old = after.get(key)
            if letter.isupper():
                events.append(delete(key))
                del after[key]
                continue
            created, version = (old.create_revision, old.version + 1) if old else (revision, 1)
            events.append(put(key, b"%d" % revision, revision, created, version))
            after[key] = events[-1].element
        return Batch(revision, tuple(events)), after

    def apply(self, letters: str) -> None:
        batch, after = self.following(letters, self.current + 2)
        self.cache.apply(batch)
        self.take(batch, after)

    def take(self, batch: Batch, after: Content) -> None:
        events = (Event(e.key, e.element, self.newest.get(e.key)) for e in batch.events)
        self.batches[batch.revision] = Batch(batch.revision, tuple(events), batch.synthetic)
        self.contents[batch.revision] = after
        self.current = batch.revision

    def mark(self) -> None:
        self.current += 3
        self.cache.progress(Progress(self.current))

    def compact(self, revision: int) -> None:
        self.cache.compact(revision)
        if revision > self.oldest:
            self.oldest, self.floor = revision, max(self.floor, revision - 1)

    def fault(self) -> None:
        """The newest revision comes a second time."""
        last = max(self.contents)
        with pytest.raises(FeedFault):
            self.cache.apply(Batch(last, (put(b"z", b"", last),)))
        self.good = last - 1

    def resync(self, letters: str, *, as_batch: bool) -> None:
        """A list in which a batch shows that was not delivered."""
        revision = self.current + 2
        _, after = self.following(letters, revision)
        self.cache.replace(revision, [after[key] for key in sorted(after)], as_batch=as_batch)
        last = max(self.contents)
        if as_batch:
            self.gaps.append(range(self.current + 1, revision))
            if self.good is not None:
                self.floor = max(self.floor, last)
            changed = [key for key in KEYS if after.get(key) != self.newest.get(key)]
            net = tuple(Event(key, after.get(key)) for key in changed)
            self.take(Batch(revision, net, synthetic=True), after)
        else:
            self.cuts += 1
            self.contents, self.batches, self.floor = {revision: after}, {}, revision
            self.gaps.clear()
        self.oldest = self.current = revision
        self.good = None

    # What must hold.

    def live_on(self) -> None:
        """The readers' next step, after everything that happens."""
        self.held.append((self.cache.state, {
            revision: outcome(lambda: self.at(revision))
            for revision in range(FIRST - 1, self.current + 2)
        }))  # fmt: skip
        while isinstance(found := outcome(lambda: self.eager.receive(0)), Batch):
            for event in found.events:
                self.seen.pop(event.key, None)
                if event.element:
                    self.seen[event.key] = event.element
        if found is Compacted:
            assert self.cuts
        elif self.good is None:
            assert self.seen == self.newest
        if self.pages.next_start:
            start = self.pages.next_start
            page = outcome(lambda: self.cache.list(revision=FIRST, start=start, limit=1))
            if isinstance(wanted := outcome(lambda: self.at(FIRST)), type):
                assert page is wanted
                return
            assert isinstance(page, Page)
            self.pages = page
            self.paged += page.elements
        if not self.pages.next_start:
            assert self.paged == [*START.values()]

    def read_everything(self) -> None:
        for revision in range(FIRST - 2, self.current + 3):
            content = outcome(lambda: self.at(revision))
            if isinstance(content, type):
                self.refused(revision, content)
            else:
                assert isinstance(content, dict)
                self.answered(revision, content)
        for position in range(FIRST - 2, self.current + 2):
            found = outcome(lambda: drained(self.cache.watch(position)))
            assert found == self.wanted(position), position

    def end(self) -> None:
        self.read_everything()
        # It began before what was forgotten: only a forgotten batch throws it off.
        lost = self.cuts or any(at <= self.floor for at in self.batches)
        wanted = Compacted if lost else self.wanted(max(FIRST, self.floor))
        assert outcome(lambda: drained(self.lazy)) == wanted
        for state, answers in self.held:
            for revision, answer in answers.items():
                found = outcome(lambda: {kept.key: kept for kept in state.at(revision)})
                assert found == answer

    def wanted(self, position: int) -> object:
        if position < self.floor or any(position in gap for gap in self.gaps):
            return Compacted
        last = self.current if self.good is None else self.good
        return [batch for at, batch in sorted(self.batches.items())
                if position < at <= last and batch.events]  # fmt: skip

    def refused(self, revision: int, error: type) -> None:
        cache = self.cache
        assert outcome(lambda: cache.snapshot(revision)) is error
        assert outcome(lambda: cache.get(b"a", revision)) is error
        assert outcome(lambda: cache.list(revision=revision)) is error
        assert outcome(lambda: cache.list(b"b", revision=revision, limit=1)) is error
        assert outcome(lambda: cache.diff(revision, revision)) is error
        waited = outcome(lambda: cache.wait_for(revision, 0))
        assert waited is (FutureRevision if revision > self.current else error)

    def answered(self, revision: int, content: Content) -> None:
        cache = self.cache
        whole = [content[key] for key in sorted(content)]
        snapshot = cache.wait_for(revision, 0)
        assert [*snapshot] == [*cache.snapshot(revision)] == whole
        assert cache.list(revision=revision) == (revision, whole, None, 0)
        for key in KEYS:
            assert cache.get(key, revision) == content.get(key)
            assert snapshot.count(key) == (key in content)
            only = [kept for kept in whole if kept.key == key]
            assert cache.list(key, revision=revision, limit=1).elements == only
        for limit in (1, 2):
            page, read = cache.list(revision=revision, limit=limit), []
            while True:
                read += page.elements
                assert page.elements == whole[len(read) - len(page.elements) :][:limit]
                assert page.remaining == len(whole) - len(read)
                if page.next_start is None:
                    break
                page = cache.list(revision=revision, start=page.next_start, limit=limit)
            assert read == whole
        for other in range(self.oldest, revision + 1):
            old = outcome(lambda: self.at(other))
            assert isinstance(old, dict)
            added, removed, changed = cache.diff(other, revision)
            assert [key for key, _ in added] == [k for k in KEYS if k in content and k not in old]
            assert [key for key, _ in removed] == [k for k in KEYS if k in old and k not in content]
            assert changed == [(k, old[k], content[k]) for k in KEYS
                               if k in old and k in content and old[k] != content[k]]  # fmt: skip


def drained(watcher: Watcher) -> list[Batch]:
    found = []
    while batch := watcher.receive(0):
        found.append(batch)
    return found


def things(length: int) -> Iterator[tuple[int, Thing]]:
    """Each thing more at each place in a history, with its argument."""
    yield 0, ("nothing", 0)
    for place in range(length + 1):
        yield place, ("mark", 0)
        yield from ((place, ("compact", back)) for back in range(2 * place + 1))
        if place < length:
            yield from ((place, (kind, 0)) for kind in
                        ("cut", "as batch", "fault and cut", "fault and as batch"))  # fmt: skip
        yield place, ("fault", 0)


def tell(history: tuple[str, ...], place: int, thing: Thing) -> None:
    """One story from beginning to end."""
    story, (kind, argument) = Story(), thing
    batches = [*history]
    for step in range(len(history) + 1):
        if step == place:
            if kind == "mark":
                story.mark()
            elif kind == "compact":
                story.compact(story.current - argument)
            elif kind.startswith("fault"):
                story.fault()
                story.read_everything()
            if kind.endswith(("cut", "as batch")):
                story.resync(batches.pop(0), as_batch=kind.endswith("as batch"))
            story.live_on()
            if kind == "fault":
                break
        if batches and step < len(history):
            story.apply(batches.pop(0))
            story.live_on()
    story.end()


@pytest.mark.parametrize(("length", "choices"), [(0, ALL_BATCHES), (1, ALL_BATCHES),
                         (2, ALL_BATCHES), (3, SOME_BATCHES), (4, FEW_BATCHES)])  # fmt: skip
def test_every_small_history_with_one_thing_more(length: int, choices: tuple[str, ...]) -> None:
    told = 0
    for history, (place, thing) in product([*histories(length, choices)], [*things(length)]):
        try:
            tell(history, place, thing)
        except Exception:
            print(f"tell({history!r}, {place}, {thing!r})")  # noqa: T201
            raise
        told += 1
    assert told >= 3
