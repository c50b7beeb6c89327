"""Store: puts, deletes and transactions, done and refused, against etcd's arithmetic in a dict."""

from __future__ import annotations

from random import Random

from btreecache import BadRequest, Batch, Conflict, Delete, Event, FutureRevision, Put, Store
from tests.machines.cache import READS, Published, ReadingMachine
from tests.machines.model import KEYS, Entry, WindowModel, following, outcome


class StoreMachine(ReadingMachine):
    rules = (*READS, *["put"] * 4, *["delete"] * 3, *["txn"] * 4, "refused", "compact")

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self.cache = self.store = Store(bounds=self.bounds, now=self.clock)
        self.published = Published(WindowModel.of(Entry(1, {}, None)), None, 1)

    def expected(self, key: bytes) -> int:
        old = self.newest.get(key)
        return old.mod_revision if old else 0

    def written(self, writes: list[Put | Delete], found: int) -> None:
        """What the writes must have made: one revision with every change, or none at all."""
        revision, events = self.window.current + 1, []
        for write in writes:
            old = self.newest.get(write.key)
            if isinstance(write, Put):
                element = following(self.newest, write.key, write.value, revision)
                events.append(Event(write.key, element))
            elif old and not any(event.key == write.key for event in events):
                events.append(Event(write.key, None))
        assert found == (revision if events else revision - 1)
        if events:
            self.appended(Batch(revision, tuple(events)))
            assert self.store.get(events[-1].key) == events[-1].element

    def put(self, rng: Random) -> None:
        key, value = rng.choice(KEYS), b"%d" % rng.randint(0, 9)
        expect = rng.choice([None, self.expected(key)])
        self.written([Put(key, value)], self.store.put(key, value, expect=expect))

    def delete(self, rng: Random) -> None:
        key = rng.choice(KEYS)
        expect = rng.choice([None, self.expected(key)])
        self.written([Delete(key)], self.store.delete(key, expect=expect))

    def txn(self, rng: Random) -> None:
        writes: list[Put | Delete] = []
        for key in rng.sample(KEYS, rng.randint(0, 5)):
            if rng.random() < 0.5:
                writes.append(Put(key, b"%d" % rng.randint(0, 9)))
            else:
                writes += [Delete(key)] * rng.randint(1, 2)
        expect = {key: self.expected(key) for key in rng.sample(KEYS, rng.randint(0, 3))}
        self.note(len(writes))
        self.written(writes, self.store.txn(writes, expect=expect))

    def refused(self, rng: Random) -> None:
        """Nothing of a refused transaction is seen, whatever was right in it."""
        key, other = rng.sample(KEYS, 2)
        good, before = Put(other, b"never"), self.store.state
        wrong = {other: self.expected(other), key: self.expected(key) + rng.choice([-1, 1, 10**6])}
        assert outcome(lambda: self.store.txn([good], expect=wrong)) is Conflict
        repeated = rng.choice([Put(key, b""), Delete(key)])
        for bad in ([good, Put(key, b""), repeated], [good, Delete(b"")], [good, Put(b"", b"")]):
            assert outcome(lambda bad=bad: self.store.txn(bad)) is BadRequest
        assert self.store.state is before

    def compact(self, rng: Random) -> None:
        revision = self.any_revision(rng)
        if revision > self.window.current:
            assert outcome(lambda: self.store.compact(revision)) is FutureRevision
            return
        self.store.compact(revision)
        self.window.compact(revision)
