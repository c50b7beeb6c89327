"""Mutants of the archive, and the small checks that must catch them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from msgspec.structs import replace

from btreecache import Bounds, Cache, Compacted, Store
from btreecache.archive import (
    Archive,
    Retention,
    checkpoint,
    log,
    reading,
    restore,
    retention,
    writer,
)
from btreecache.archive import archive as archives
from btreecache.archive.pending import Pending
from btreecache.archive.reading import Reading
from btreecache.archive.records import Run
from btreecache.archive.runs import Runs
from btreecache.archive.verify import Verification
from btreecache.archive.writer import HistoryWriter
from btreecache.element import Element
from btreecache.errors import ArchiveError
from tests.fakes import Clock, batch, put
from tests.machines.archive import FlakyStorage, committed, opened
from tests.machines.model import outcome
from tests.mutants.mutants import Patch, caught

KEYS = [b"/k/%d" % index for index in range(6)]


class World:
    """A store and its archive, committed step by step, and what each revision must be."""

    def __init__(self, **options: Any) -> None:
        self.wall = Clock()
        self.wall.now_s = 100.0
        self.options = {"group_revisions": 4, "wall": self.wall, **options}
        self.storage = FlakyStorage()
        self.archive = opened(self.storage, **self.options)
        self.store = Store(archive=self.archive.history())
        self.rng = Random(0)
        self.states: dict[int, list[Element]] = {self.store.revision: []}
        self.arrived_s: dict[int, float] = {self.store.revision: self.wall()}

    def put(self, count: int) -> None:
        for _ in range(count):
            self.wall.now_s += 1.0
            key = self.rng.choice(KEYS)
            if self.rng.random() < 0.2 and self.store.snapshot().get(key):
                self.store.delete(key)
            else:
                self.store.put(key, self.rng.randbytes(5))
            self.states[self.store.revision] = [*self.store.snapshot()]
            self.arrived_s[self.store.revision] = self.wall()

    def commit(self) -> bool:
        return self.archive.recorder._commit()

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        with Reading(self.archive._database, b"") as found:
            yield found

    def check(self, first: int = 1) -> None:
        """Every revision from `first` to the newest is what it was."""
        with self.reading() as found:
            assert found.oldest <= first, f"{first} isn't readable, {found.oldest} is the oldest"
            for revision in range(first, found.newest + 1):
                try:
                    elements = [*found.snapshot(revision)]
                except Exception as error:
                    raise AssertionError(f"{revision} can't be read: {error!r}") from error
                assert elements == self.states[revision], f"content at {revision}"

    def check_batches(self) -> None:
        with self.reading() as found:
            revisions = [batch.revision for batch, _ in found.batches(0)]
        assert revisions == [*self.states][1:], "a batch is missing"

    def killed(self) -> int:
        """The newest revision that another process finds."""
        self.archive = opened(self.storage, **self.options)
        with self.reading() as found:
            return found.newest


def every_revision_is_as_it_was() -> None:
    world = World()
    for count in (3, 9, 1, 6):
        world.put(count)
        world.commit()
        world.check()
    committed(world.archive)
    world.check()
    with world.reading() as found:
        assert found.newest == world.store.revision
    world.check_batches()


def what_is_durable_is_there_after_a_kill() -> None:
    for fails in ("vote", "finish", "answer", ""):
        world = World()
        world.put(5)
        world.commit()
        world.put(9)
        world.storage.fails = fails
        world.commit()
        durable = world.store.durable_revision
        assert durable <= world.killed(), f"{durable} was durable, {world.killed()} is there"
        world.check()


def what_failed_is_written_once() -> None:
    world = World()
    committed(world.archive)
    for count, fails in ((1, "answer"), (3, "vote"), (2, "answer"), (1, "finish"), (1, "answer")):
        world.put(count)  # An attempt has more to write than the one before.
        world.storage.fails = fails
        world.commit()
    committed(world.archive)
    assert world.store.durable_revision == world.store.revision, "not all is durable"
    world.check()
    world.check_batches()


def what_is_retained_can_be_read() -> None:
    for kept in (Retention(revisions=7), Retention(thinning=((5.0, 4.0),))):
        world = World(retention=kept)
        for _ in range(6):
            world.put(4)
            world.wall.now_s += 11.0  # Retention is looked at.
            committed(world.archive)
        world.wall.now_s += 11.0
        world.commit()
        with world.reading() as found:
            assert found.newest == world.store.revision
            ends = [*found.state.groups.keys()]
            for revision in range(1, found.newest + 1):
                try:
                    assert [*found.snapshot(revision)] == world.states[revision], "content"
                except Compacted:
                    assert revision not in ends, f"the checkpoint at {revision} is gone"
                except ArchiveError as error:
                    raise AssertionError(f"{revision} can't be read: {error}") from error
        if kept.revisions:
            world.check(
                first=world.store.revision - kept.revisions + world.options["group_revisions"]
            )


def a_pack_takes_nothing_that_is_needed() -> None:
    world = World()
    world.put(13)
    committed(world.archive)
    world.archive.pack()
    world.check()


def verify_finds_nothing() -> None:
    world = World()
    world.put(11)
    committed(world.archive)
    with world.reading() as walk, world.reading() as replay:
        found = [*Verification(walk, replay).problems()]
    assert not found, f"verify: {found[0]}"


def the_state_at_a_time() -> None:
    world = World()
    world.put(10)
    committed(world.archive)
    with world.reading() as found:
        for revision, arrived_s in world.arrived_s.items():
            for time_s in (arrived_s, arrived_s + 0.5):
                at = outcome(lambda time_s=time_s: found.revision_at(time_s))
                assert at == revision, f"{at} at the time of {revision}"


def what_is_suspect_is_nowhere() -> None:
    world = World()
    world.put(6)
    committed(world.archive)
    world.put(3)
    history = world.archive.history()
    good = world.store.revision - 5
    history.distrusted(good)
    world.put(2)
    committed(world.archive)
    assert history.durable_revision <= good, "what is suspect is called durable"
    with world.reading() as found:
        assert found.newest <= good, f"suspect: {good + 1} is readable"
    world.check()


def what_was_not_archived_is_a_gap() -> None:
    world = World(queue_revisions=4)
    world.put(9)
    committed(world.archive)
    with world.reading() as found:
        last, first = 4, world.store.revision
        assert [*found.snapshot(first)] == world.states[first]
        for revision in range(last + 1, first):
            read = outcome(lambda revision=revision: found.snapshot(revision))
            assert read is Compacted, f"no gap at {revision}: {read}"
        assert [gap[:3] for gap in found.state.gaps] == [(last, first, "overflow")], (
            "no gap is said"
        )


def a_reader_stays_where_it_is() -> None:
    world = World()
    world.put(4)
    committed(world.archive)
    with world.reading() as found:
        newest = found.newest
        held = found.snapshot()
        world.put(4)
        committed(world.archive)
        assert found.newest == newest, "a reader sees a later group"
        assert [*held] == [*found.snapshot()] == world.states[newest], "a reader sees a later group"
        found.refresh()
        assert found.newest == world.store.revision


def a_group_costs_what_it_changes() -> None:
    archive = opened(FlakyStorage())
    cache = Cache(archive=archive.history())
    cache.replace(1, [Element(b"/k/%03d" % i, b"", 1, 1, 1) for i in range(400)])
    committed(archive)
    before = archive.size()[1]
    cache.apply(batch(2, put(b"/k/200", b"", 2, 1, 2)))
    committed(archive)
    assert archive.size()[1] - before <= 5, "what didn't change is written again"


def a_second_writer_is_refused() -> None:
    world = World()
    world.put(2)
    committed(world.archive)
    other = Archive(world.archive._database, rng=Random(99))
    second = Store(archive=other.history())
    second.put(b"/k/0", b"theirs")
    committed(other)
    world.put(1)
    world.commit()
    assert "another process" in str(world.archive.recorder.trouble), "two write one history"


def a_damaged_history_is_not_restored() -> None:
    world = World()
    world.put(6)
    committed(world.archive)
    with root_of(world.archive) as root:
        state = root["btreecache"].state[1][b""].read()
        last = state.groups[state.groups.maxKey()].read()
        run = first_run(last.root)
        first, *others = run.state
        run.state = (replace(first, check=first.check ^ 1), *others)
    cache = Cache(archive=opened(world.storage).history(), bounds=Bounds(age_s=None))
    assert outcome(cache.restore) is ArchiveError, "damage was restored"


@contextmanager
def root_of(archive: Archive) -> Iterator[Any]:
    with archive._database.transaction() as connection:
        yield connection.root()


def first_run(record: Any) -> Run:
    while not isinstance(record, Run):
        record = record.state[2][0]
    return record


# What is written


@caught(every_revision_is_as_it_was, "content at")
@caught(verify_finds_nothing, "verify: ")
def a_shared_run_is_rewritten(patch: Patch) -> None:
    original, last = Runs._run, []

    def run_of(self: Runs, elements: Any) -> Run:
        run = original(self, elements)
        if last and last[0]._p_jar is not None:
            last[0].state = run.state
            return last[0]  # type: ignore[no-any-return]
        last[:] = [run]
        return run

    patch.setattr(Runs, "_run", run_of)


@caught(verify_finds_nothing, "verify: .*digest")
def the_digest_keeps_what_is_gone(patch: Patch) -> None:
    original, calls = writer.recompute, [0]

    def recomputed(elements: Any, mode: Any) -> int:
        calls[0] += 1
        return 0 if calls[0] % 2 == 0 else original(elements, mode)

    patch.setattr(writer, "recompute", recomputed)


@caught(what_is_durable_is_there_after_a_kill, "was durable")
def durable_before_it_is_committed(patch: Patch) -> None:
    original = HistoryWriter.prepare

    def prepare(self: HistoryWriter, *given: Any) -> bool:
        found = original(self, *given)
        if self._prepared:
            self.pending.written(self._prepared.complete)
        return found

    patch.setattr(HistoryWriter, "prepare", prepare)


@caught(what_is_durable_is_there_after_a_kill, "was durable|content at|KeyError")
@caught(every_revision_is_as_it_was, "content at")
def complete_beyond_what_is_written(patch: Patch) -> None:
    """What still waits is called complete."""
    original = Pending.take

    def take(self: Pending, *given: Any) -> Any:
        taken, _ = original(self, *given)
        return taken, self._complete

    patch.setattr(Pending, "take", take)


@caught(what_failed_is_written_once, "content|missing|durable")
def what_failed_is_forgotten(patch: Patch) -> None:
    patch.setattr(Pending, "put_back", lambda self, steps: None)


@caught(what_failed_is_written_once, "can't be read|content|missing|never idle")
def a_lost_answer_is_not_noticed(patch: Patch) -> None:
    """What was committed stays, beside what is written again."""
    patch.setattr(writer, "_cut", lambda state, after: state)


@caught(a_second_writer_is_refused, "two write one history")
def nobody_looks_who_writes(patch: Patch) -> None:
    original = HistoryWriter._record

    def record(self: HistoryWriter, histories: Any) -> Any:
        self._known = None
        return original(self, histories)

    patch.setattr(HistoryWriter, "_record", record)


@caught(what_was_not_archived_is_a_gap, "no gap is said")
def a_gap_is_not_recorded(patch: Patch) -> None:
    original = HistoryWriter._began

    def began(self: HistoryWriter, state: Any, *given: Any) -> Any:
        return original(self, state, *given)._replace(gaps=state.gaps)

    patch.setattr(HistoryWriter, "_began", began)


@caught(what_was_not_archived_is_a_gap, "no gap at")
def a_gap_is_bridged(patch: Patch) -> None:
    """The state before a gap is called complete up to the one after it."""
    original = HistoryWriter._began

    def began(self: HistoryWriter, state: Any, step: Any, *given: Any) -> Any:
        return original(self, state._replace(complete=step.revision - 1), step, *given)

    patch.setattr(HistoryWriter, "_began", began)


@caught(what_is_suspect_is_nowhere, "suspect")
def suspect_batches_are_archived(patch: Patch) -> None:
    patch.setattr(Pending, "distrusted", lambda self, after: None)


@caught(what_is_suspect_is_nowhere, "suspect")
def a_cut_leaves_what_is_written(patch: Patch) -> None:
    """Only what still waits is forgotten."""
    original = writer._cut
    patch.setattr(writer, "_cut", lambda state, after: original(state, max(after, state.complete)))


@caught(a_group_costs_what_it_changes, "written again")
def nothing_is_shared(patch: Patch) -> None:
    patch.setattr(checkpoint.Checkpoint, "keep", lambda self, stored: None)


# Retention and packing


@caught(what_is_retained_can_be_read, "can't be read|is gone")
def a_kept_log_loses_its_checkpoint(patch: Patch) -> None:
    def forget(kept: Any, revisions: Any) -> None:
        for revision in revisions:
            kept.pop(revision, None)

    patch.setattr(writer, "forget", forget)


@caught(what_is_retained_can_be_read, "isn't readable")
def one_group_too_many_is_forgotten(patch: Patch) -> None:
    original = retention.dropped

    def dropped(kept: Any, known: Any, now_s: float) -> Iterator[int]:
        gone = {*original(kept, known, now_s)}
        left = [one.revision for one in known if one.revision not in gone]
        yield from sorted({*gone, *(left[:1] if gone and len(left) > 1 else ())})

    patch.setattr(writer, "dropped", dropped)


@caught(a_pack_takes_nothing_that_is_needed, "can't be read")
def a_pack_takes_what_only_a_log_refers_to(patch: Patch) -> None:
    original = archives.pack

    def pack(database: Any) -> None:
        original(database)
        with database.transaction() as connection:
            state = connection.root()["btreecache"].state[1][b""].read()
            runs = {
                run._p_oid
                for group in state.groups.values()
                if (of := group.read()).log is not None
                for run in of.log.state[0]
            }
            kept = {run._p_oid for group in state.groups.values() for run in _runs(group)}
        for oid in runs - kept:
            del database.storage._data[oid]

    patch.setattr(archives, "pack", pack)


def _runs(group: Any) -> Iterator[Run]:
    stack = [group.read().root]
    while stack:
        record = stack.pop()
        if isinstance(record, Run):
            yield record
        else:
            stack += record.state[2]


# Reading


@caught(every_revision_is_as_it_was, "content at")
def a_replay_stops_one_short(patch: Patch) -> None:
    original = log.replayed
    patch.setattr(reading, "replayed", lambda tree, of, at: original(tree, of, at - 1))


@caught(the_state_at_a_time, "the time of")
def the_time_of_arrival_is_too_late(patch: Patch) -> None:
    patch.setattr(reading, "bisect_right", reading.bisect_left)


@caught(the_state_at_a_time, "the time of")
def a_revision_before_the_one_that_had_arrived(patch: Patch) -> None:
    original = Reading._inside
    patch.setattr(Reading, "_inside", lambda self, of, at_s: original(self, of, at_s - 0.7))


@caught(a_reader_stays_where_it_is, "a later group")
def a_reader_sees_a_later_group(patch: Patch) -> None:
    patch.setattr(
        Reading, "newest", property(lambda self: (self.refresh(), self._state.complete)[1])
    )


@caught(a_damaged_history_is_not_restored, "damage was restored")
def a_restored_digest_is_not_compared(patch: Patch) -> None:
    patch.setattr(restore, "check_of", lambda digest: 0)
