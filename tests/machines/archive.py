"""The archive of a cache: batches, lists, faults, failed commits, restarts, kills, packs.

What a cache showed when it told of a revision is what the archive must show of it, for ever, from
any process; where it may not, it must say that it can't.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any
from unittest import mock

from ZODB.MappingStorage import MappingStorage
from ZODB.POSException import StorageError

from btreecache import (
    Batch,
    Bounds,
    Cache,
    Compacted,
    Element,
    Event,
    FeedFault,
    FutureRevision,
    Progress,
)
from btreecache.archive import Archive, storage
from btreecache.archive.pending import Distrusted
from btreecache.archive.reading import Reading
from btreecache.archive.retention import Retention
from btreecache.backoff import Backoff
from btreecache.codec import Kubernetes, strip_managed_fields
from btreecache.digest import recompute
from tests.fakes import Clock
from tests.machines.model import KEYS, Content, Machine, fold, following, in_order, outcome

#: So much may wait in the runs in which too much does.
QUEUE_SMALL = 6


class FlakyStorage(MappingStorage):  # type: ignore[misc]  # ZODB has no types
    """In memory; the next commit fails where `fails` says: when it is voted on, when it is
    finished, or after that, when only the answer is lost. Outlives the processes that use it."""

    fails = ""

    def tpc_vote(self, transaction: Any) -> None:
        self._may_fail("vote")
        super().tpc_vote(transaction)

    def tpc_finish(self, transaction: Any, func: Any = lambda tid: None) -> Any:
        self._may_fail("finish")
        tid = super().tpc_finish(transaction, func)
        self._may_fail("answer")
        return tid

    def close(self) -> None:
        """A process has ended."""

    def _may_fail(self, stage: str) -> None:
        if self.fails == stage:
            self.fails = ""
            raise StorageError(f"failed at {stage}")


def opened(kept: MappingStorage, **options: Any) -> Archive:
    """An archive in a storage. Its recorder never pauses after trouble."""
    with mock.patch.object(storage, "_opened", return_value=kept):
        archive = Archive.open("a file", rng=Random(kept._oid), **options)
    archive.recorder._backoff = Backoff(Clock(), Random(0), 0.0, 0.0)
    return archive


def committed(archive: Archive) -> None:
    """All that waits is written, as often as it takes."""
    for _ in range(1_000):
        archive.recorder._commit()
        if all(history.pending.idle for history in archive._histories.values()):
            return
    raise AssertionError(f"never idle: {archive.recorder.trouble}")


@dataclass
class Span:
    """Revisions that are known without a gap: `shown` begins with the first, `upto` is the last."""

    shown: dict[int, list[Element]]
    arrived_s: dict[int, float]
    batches: dict[int, tuple[Event, ...]]
    upto: int

    def at(self, revision: int) -> list[Element]:
        known = [*self.shown]
        return self.shown[known[bisect_right(known, revision) - 1]]

    @property
    def first(self) -> int:
        return next(iter(self.shown))

    def copy(self) -> Span:
        return Span({**self.shown}, {**self.arrived_s}, {**self.batches}, self.upto)

    def cut(self, after: int) -> None:
        for kept in (self.shown, self.arrived_s, self.batches):
            for revision in [known for known in kept if known > after]:
                del kept[revision]
        self.upto = min(self.upto, after)


class ArchiveMachine(Machine):
    rules = (
        *["write"] * 8, *["catch_up"] * 3, "progress", "resync", *["fault"] * 2, "lose", "tick",
        *["commit"] * 4, *["fail"] * 3, "settle", "restart", "kill", "pack", "read",
    )  # fmt: skip

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self.storage = FlakyStorage()
        self.wall = Clock()
        self.wall.now_s = 1_000.0
        self.clock = Clock()
        self.codec = Kubernetes() if rng.random() < 0.3 else None
        self.transform = strip_managed_fields if self.codec else None
        self.bounds = Bounds(
            age_s=rng.choice([None, float(rng.randint(1, 60))]),
            revisions=rng.choice([None, rng.randint(1, 30)]),
            bytes=rng.choice([None, rng.randint(1_000, 50_000)]),
        )
        self.retention = rng.choice(
            [
                *[Retention()] * 3,
                Retention(revisions=rng.randint(1, 40)),
                Retention(age_s=30.0),
                Retention(bytes=rng.randint(1, 20_000)),
                Retention(thinning=((20.0, 10.0), (60.0, 30.0))),
            ]
        )
        self.queue = rng.choice([100_000, 100_000, QUEUE_SMALL])
        self.group = rng.choice([1, 3, 8])
        # The source, and how much of it the cache was told.
        self.revision = 1
        self.content: Content = {}
        self.source: list[tuple[Batch, Content]] = []
        # What must be archived.
        self.spans: list[Span] = []
        self.unsure: set[int] = set()
        self.promise_listed = False
        self.listed, self.lists = 0, {0}
        self.lossy = False
        self.uncut: list[Span] = []
        self.opened()
        self.cache.replace(1, [])
        self.began(1)

    # The source.

    def value(self, rng: Random, key: bytes) -> bytes:
        if self.codec is None:
            return rng.choice([b"", b"%d" % rng.randint(0, 9), bytes([rng.randrange(256)]) * 300])
        pod: dict[str, Any] = {
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": key.hex(), "labels": {"n": str(rng.randint(0, 3))}},
        }  # fmt: skip
        if rng.random() < 0.7:
            pod["metadata"]["managedFields"] = [{"manager": "m" * rng.randint(0, 9)}]
        return rng.choice([json.dumps(pod, separators=(",", ":")).encode(), b"{nothing"])

    def write(self, rng: Random) -> None:
        self.revision += rng.choice((1, 1, 1, 2, 5))
        events = []
        for key in rng.sample(KEYS, rng.randint(1, 4)):
            if key in self.content and rng.random() < 0.4:
                events.append(Event(key, None))
            else:
                value = self.value(rng, key)
                element = following(self.content, key, value, self.revision)
                events.append(Event(key, element))
        batch = Batch(self.revision, tuple(events))
        self.content = fold(self.content, batch.events)
        self.source.append((batch, self.content))

    def catch_up(self, rng: Random) -> None:
        """The next batches reach the cache."""
        told = [batch for batch, _ in self.source if batch.revision > self.cache.revision]
        for batch in told[: rng.randint(1, len(told))] if told else ():
            self.apply(batch)
            if not self.cache.consistent:
                return

    def apply(self, batch: Batch) -> None:
        trusted, cut_waited = self.cache.consistent, self.cut_waits()
        try:
            self.cache.apply(batch)
        except FeedFault as fault:
            if not cut_waited:
                self.uncut = [span.copy() for span in self.spans]
            self.distrust(max(fault.good, self.listed))
            return
        if trusted:
            span = self.spans[-1]
            span.shown[batch.revision] = [*self.cache.snapshot()]
            span.arrived_s[batch.revision] = self.wall()
            span.batches[batch.revision] = self.cache.state.readable().batch_after(span.upto).events
            span.upto = batch.revision

    def lose(self, rng: Random) -> None:
        """A batch never reaches the cache; a later one may tell."""
        told = [batch for batch, _ in self.source if batch.revision > self.cache.revision]
        if len(told) > 1 and self.cache.consistent:
            self.lossy = True
            self.apply(told[1])

    def fault(self, rng: Random) -> None:
        """What can't follow."""
        if not self.cache.consistent:
            # Told all the same: nothing of it may be written.
            self.catch_up(rng)
            return
        at = self.cache.revision
        good = rng.choice([at - 1, at, 0, 0])
        if good == at:
            wrong = Element(KEYS[0], b"", at + 1, at + 7, 1)
            batch = Batch(at + 1, (Event(KEYS[0], wrong),))
        elif good:
            batch = Batch(at, (Event(KEYS[0], None),))
        else:
            batch = Batch(at + 1, (Event(b"nothing", None),))
        self.apply(batch)
        assert not self.cache.consistent

    def progress(self, rng: Random) -> None:
        if self.lossy or not self.cache.consistent:
            return
        if self.source and self.source[-1][0].revision > self.cache.revision:
            return
        self.revision += rng.randint(0, 3)
        self.cache.progress(Progress(self.revision))
        self.spans[-1].upto = self.revision

    def resync(self, rng: Random) -> None:
        if self.lossy or self.revision < self.cache.revision or not self.cache.consistent:
            self.revision += 1
        elements = in_order(self.content)
        if self.codec is None and rng.random() < 0.5:
            elements = [Element(**{f: getattr(e, f) for f in ("key", "value", "mod_revision",
                        "create_revision", "version")}) for e in elements]  # fmt: skip
        self.cache.replace(self.revision, elements, as_batch=rng.random() < 0.5)
        self.began(self.revision)

    def began(self, revision: int) -> None:
        self.lossy, self.listed = False, revision
        self.lists.add(revision)
        if not self.spans or self.spans[-1].upto < revision:
            shown = {revision: [*self.cache.snapshot()]}
            self.spans.append(Span(shown, {revision: self.wall()}, {}, revision))
        else:
            # A list at a revision that was promised: the promise may not have been written, and
            # then the archive takes the list for news.
            last = max(self.spans[-1].shown)
            self.unsure |= {*range(last + 1, revision)}
            self.promise_listed |= revision > last

    def distrust(self, after: int) -> None:
        while self.spans and self.spans[-1].first > after:
            self.spans.pop()
        if self.spans:
            self.spans[-1].cut(after)

    # The archive.

    def opened(self) -> None:
        self.archive = opened(
            self.storage, group_revisions=self.group, group_age_s=5.0, queue_revisions=self.queue,
            wall=self.wall, retention=self.retention,
        )  # fmt: skip
        self.cache = Cache(
            bounds=self.bounds, codec=self.codec, transform=self.transform,
            archive=self.archive.history(), now=self.clock,
        )  # fmt: skip

    def tick(self, rng: Random) -> None:
        seconds = rng.choice([0, 1, 3, 20])
        self.clock.now_s += seconds
        self.wall.now_s += rng.choice([seconds, seconds, seconds, -seconds])

    def commit(self, rng: Random) -> None:
        """The recorder's thread has its turn."""
        before = self.archive.recorder.trouble
        self.archive.recorder.step()
        self.no_other_history(before)

    def fail(self, rng: Random) -> None:
        self.storage.fails = rng.choice(["vote", "finish", "answer"])
        self.note(self.storage.fails)
        if rng.random() < 0.7:
            self.archive.recorder._commit()

    def settle(self, rng: Random) -> None:
        """All is written: everything is as it should be."""
        self.storage.fails = ""
        committed(self.archive)
        assert self.archive.recorder.trouble is None, self.archive.recorder.trouble
        known = self.spans[-1].upto if self.spans and self.cache.consistent else 0
        if self.cache.consistent:
            assert self.cache.durable_revision >= max(self.spans[-1].shown, default=0)
        assert self.cache.durable_revision <= max(known, *[s.upto for s in self.spans], 0)
        self.check_archive()

    def no_other_history(self, before: object) -> None:
        trouble = self.archive.recorder.trouble
        assert trouble in (None, before) or "failed at" in str(trouble), trouble

    def restart(self, rng: Random) -> None:
        self.settle(rng)
        self.archive.close()
        self.begun(rng)

    def kill(self, rng: Random) -> None:
        """The process is gone, and what it had not written."""
        self.storage.fails = ""
        self.begun(rng)

    def begun(self, rng: Random) -> None:
        durable, before, cut_waited = self.cache.durable_revision, self.cache, self.cut_waits()
        self.opened()
        restored = self.cache.restore()
        if not restored:
            assert durable == 0
            self.spans = []
            self.revision += 1
            self.cache.replace(self.revision, in_order(self.content))
            self.began(self.revision)
            return
        found = self.cache.revision
        assert found >= durable, f"{durable} was safe, and {found} is there"
        assert found <= before.revision
        self.told_again_above(found, cut_waited)
        span = self.spans[-1]
        for revision in range(self.cache.oldest, found + 1):
            assert [*self.cache.snapshot(revision)] == span.at(revision), f"restored {revision}"
        assert not [*self.cache.snapshot().tree.check()]
        if rng.random() < 0.5 or self.lossy:
            self.resync(rng)

    def cut_waits(self) -> bool:
        steps = self.cache.archive.pending._steps
        return any(isinstance(step, Distrusted) for step in steps)

    def told_again_above(self, found: int, cut_waited: bool) -> None:
        """What was told above is forgotten."""
        if not self.span_of(found):
            # Killed between a fault and the commit that cuts what it touched.
            assert cut_waited, f"{found} was restored, and is not known"
            self.spans, self.lossy = self.uncut, True
        self.distrust(found)
        with Reading(self.archive._database, b"") as reading:
            assert reading.state.listed in self.lists, "a list that was never told"
            self.listed = reading.state.listed

    def pack(self, rng: Random) -> None:
        self.archive.pack()

    # Reading.

    def read(self, rng: Random) -> None:
        """Somebody else reads while it is written: right, or an error."""
        if not self.archive.prefixes():
            return
        with Reading(self.archive._database, b"", self.cache.read) as reading:
            for _ in range(3):
                revision = rng.randint(0, self.revision + 2)
                span = self.span_of(revision)
                with suppress(Compacted, FutureRevision):
                    found = [*reading.snapshot(revision)]
                    if span is not None and revision <= max(span.shown):
                        assert found == span.at(revision), f"read {revision}"

    def span_of(self, revision: int) -> Span | None:
        for span in self.spans:
            if span.first <= revision <= span.upto:
                return span
        return None

    def check_archive(self) -> None:
        with Reading(self.archive._database, b"", self.cache.read) as reading:
            for revision in range(self.revision + 3):
                span = self.span_of(revision)
                found = outcome(lambda at=revision: [*reading.snapshot(at)])
                if found is Compacted or found is FutureRevision:
                    assert (found is FutureRevision) == (revision > reading.newest)
                    assert span is None or self.may_miss(reading, revision), f"no {revision}"
                else:
                    assert span is not None, f"{revision} is not known, and {found} was read"
                    assert found == span.at(revision), f"content at {revision}"
            self.check_groups(reading)
            self.check_batches(reading)
            self.check_times(reading)

    def may_miss(self, reading: Reading, revision: int) -> bool:
        """Whether a revision that was told need not be there: forgotten, never written for a slow
        disk, or only promised."""
        span = self.span_of(revision)
        promised = revision in self.unsure or (span and revision > max(span.shown))
        forgotten = self.retention != Retention()
        return bool(promised or forgotten or self.queue == QUEUE_SMALL)

    def check_groups(self, reading: Reading) -> None:
        for group in reading.groups():
            snapshot = reading.snapshot(group.revision)
            digest = recompute(snapshot, "values")
            assert digest.to_bytes(32, "big") == group.digest, f"digest at {group.revision}"
            assert snapshot.digest("values") == digest
            assert group.elements == len(snapshot) == len([*snapshot])
            assert not [*snapshot.tree.check()]

    def check_batches(self, reading: Reading) -> None:
        """What is told of changes is what the cache was told, all of it where nothing limits it."""
        wanted = {at: events for span in self.spans for at, events in span.batches.items()}
        found = {}
        for batch, _ in reading.batches(0):
            found[batch.revision] = [(e.key, e.element) for e in batch.events]
            events = [(e.key, e.element) for e in wanted[batch.revision]]
            assert found[batch.revision] == events, f"batch {batch.revision}"
        if self.retention == Retention() and self.queue != QUEUE_SMALL:
            assert found.keys() == wanted.keys()

    def check_times(self, reading: Reading) -> None:
        limited = self.retention != Retention() or self.queue == QUEUE_SMALL
        if limited or self.promise_listed:
            return
        arrived = {at: at_s for span in self.spans for at, at_s in span.arrived_s.items()}
        for time_s in {*arrived.values(), *(at_s + 0.5 for at_s in arrived.values())}:
            wanted = max(at for at, at_s in arrived.items() if at_s <= time_s)
            found = reading.revision_at(time_s)
            assert found == (reading.newest if wanted == max(arrived) else wanted), (
                time_s,
                arrived,
                reading.state.turns,
            )

    def finish(self) -> None:
        if self.cache.consistent:
            self.settle(Random(0))
