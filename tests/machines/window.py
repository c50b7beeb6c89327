"""Window: every window ever held keeps answering as on the day it was taken."""

from __future__ import annotations

from random import Random

from btreecache import Batch, Bounds, Compacted, FutureRevision, Tree
from btreecache.window import Window
from tests.machines.model import (
    Entry,
    Machine,
    WindowModel,
    fold,
    in_order,
    outcome,
    random_events,
)


class WindowMachine(Machine):
    rules = (*["append"] * 6, *["read"] * 3, "progress", "evict", "compact", "cut", "hold", "held")

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self.now_s = 0.0
        revision = rng.randint(1, 5)
        tree = Tree()
        self.window = Window.of(revision, tree, self.now_s)
        self.model = WindowModel.of(Entry(revision, {}, None, thing=tree))
        self.takes: list[tuple[Window, WindowModel]] = []

    def append(self, rng: Random) -> None:
        revision = self.window.current + rng.randint(1, 4)
        content = self.model.newest.content
        batch = Batch(revision, random_events(rng, content, revision, b""))
        edit = self.window.newest.edit()
        for event in batch.events:
            if event.element is None:
                edit.delete(event.key)
            else:
                edit.set(event.key, event.element)
        tree = edit.freeze()
        freed = rng.randint(0, 30)
        self.now_s += rng.randint(0, 3)
        self.window = self.window.append(batch, tree, self.now_s, freed)
        after = fold(content, batch.events)
        self.model.append(Entry(revision, after, batch, self.now_s, freed, tree))
        self.note(revision)

    def progress(self, rng: Random) -> None:
        self.model.current += rng.randint(0, 5)
        self.window = self.window.progress(self.model.current)

    def evict(self, rng: Random) -> None:
        bounds = Bounds(
            age_s=rng.choice([None, 0.0, float(rng.randint(0, 40))]),
            bytes=rng.choice([None, rng.randint(0, 400)]),
            revisions=rng.choice([None, rng.randint(1, 30)]),
        )
        self.note(bounds)
        self.window = self.window.evict(bounds, self.now_s)
        self.model.evict(bounds, self.now_s)
        assert bounds.revisions is None or len(self.window) <= bounds.revisions
        assert bounds.bytes is None or self.window.retained_bytes <= bounds.bytes

    def compact(self, rng: Random) -> None:
        revision = rng.randint(max(self.model.oldest - 2, 0), self.model.current + 1)
        self.note(revision)
        if revision > self.model.current:
            assert outcome(lambda: self.window.compact(revision)) is FutureRevision
            return
        self.window = self.window.compact(revision)
        self.model.compact(revision)

    def cut(self, rng: Random) -> None:
        """Reads refused, batches kept: what a resynchronisation does for watchers."""
        if rng.random() < 0.3:
            self.model.oldest = self.model.newest.revision
            self.model.oldest = max(self.model.oldest, self.window.oldest)
            self.window = self.window.readable_from(self.model.oldest)

    def hold(self, rng: Random) -> None:
        self.takes.append((self.window, self.model.freeze()))

    def held(self, rng: Random) -> None:
        if self.takes:
            self.look(rng, *rng.choice(self.takes))

    def read(self, rng: Random) -> None:
        self.look(rng, self.window, self.model)

    def look(self, rng: Random, window: Window, model: WindowModel) -> None:
        edges = [model.oldest - 1, model.oldest, model.current, model.current + 1]
        for revision in [*edges, rng.randint(0, model.current + 2)]:
            self.one_read(window, model, revision)
        edges = [model.floor - 1, model.floor, model.newest.revision, model.current, 10**9]
        for position in [*edges, rng.randint(0, model.current + 2)]:
            self.one_watch(window, model, position)

    def one_read(self, window: Window, model: WindowModel, revision: int) -> None:
        wanted = outcome(lambda: model.at(revision).thing)
        found = outcome(lambda: window.at(revision))
        assert found is wanted, (revision, found, wanted)
        assert (wanted is Compacted) == (revision < window.oldest)

    def one_watch(self, window: Window, model: WindowModel, position: int) -> None:
        entry = outcome(lambda: model.entry_after(position))
        wanted = entry.batch if isinstance(entry, Entry) else entry
        found = outcome(lambda: window.batch_after(position))
        assert found is wanted, (position, found, wanted)

    def check(self) -> None:
        window, model = self.window, self.model
        assert (window.oldest, window.current) == (model.oldest, model.current)
        assert window.watch_floor == model.floor
        assert window.last_revision == model.newest.revision
        assert window.newest is model.newest.thing
        assert window.retained_bytes == model.retained_bytes
        assert len(window) == len(model.visible)

    def finish(self) -> None:
        for window, model in [*self.takes, (self.window, self.model)]:
            assert [*window.revisions()] == [entry.revision for entry in model.visible]
            assert all(
                tree is entry.thing
                for tree, entry in zip(window.trees(), model.visible, strict=True)
            )
            for number in range(model.current + 2):
                self.one_read(window, model, number)
                self.one_watch(window, model, number)
        for entry in self.model.entries:
            assert [*entry.thing.values()] == in_order(entry.content)
            assert [*entry.thing.check()] == []
