"""Checks as functions: each raises AssertionError when what it stands for does not hold.

They are the checks that the suite makes elsewhere, small and seeded, so that a mutant can be held
against them. BTREECACHE_VERIFY is off in all but the ones about it: each check is on its own.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from btreecache import (
    Batch,
    Bounds,
    Cache,
    Checker,
    Compacted,
    Conflict,
    Element,
    Event,
    FeedFault,
    Follower,
    NotReady,
    Progress,
    Snapshot,
    Store,
    Tree,
)
from btreecache.cli.simulation import Simulation
from btreecache.digest import recompute
from btreecache.node import Node
from tests import sim
from tests.fakes import Clock, DictTruth, ScriptedSource, ScriptedStream, batch, delete, put

UNBOUNDED = Bounds(age_s=None)

State = dict[bytes, Element]


class History:
    """Seeded batches of one to four keys, and the dict that the state at each revision must be."""

    def __init__(self, seed: int, keys: int = 60) -> None:
        self.rng = Random(seed)
        self.states: dict[int, State] = {1: {}}
        self._keys = [b"%s/%03d" % (b"abc"[i % 3 : i % 3 + 1], i) for i in range(keys)]

    @property
    def revision(self) -> int:
        return next(reversed(self.states))

    @property
    def latest(self) -> State:
        return self.states[self.revision]

    def at(self, revision: int) -> State:
        known = [*self.states]
        return self.states[known[bisect_right(known, revision) - 1]]

    def step(self) -> Batch:
        """The next batch; `states` holds what it must lead to before anybody applies it."""
        rng, now = self.rng, dict(self.latest)
        revision = self.revision + rng.choice((1, 1, 2, 3))
        events = []
        for key in rng.sample(self._keys, rng.randint(1, 4)):
            old = now.get(key)
            if old and rng.random() < 0.45:
                del now[key]
                events.append(delete(key))
            else:
                created, version = (old.create_revision, old.version) if old else (revision, 0)
                events.append(put(key, b"at %d" % revision, revision, created, version + 1))
                now[key] = events[-1].element  # type: ignore[assignment]
        self.states[revision] = now
        return Batch(revision, tuple(events))


@contextmanager
def verifying(level: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BTREECACHE_VERIFY", level)
        yield


@contextmanager
def small_nodes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Node, "most", 4)
        patch.setattr(Node, "least", 2)
        yield


@contextmanager
def small_segments() -> Iterator[None]:
    """So that every few revisions are a border between segments of a window."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("btreecache.window.SEGMENT_ENTRIES", 4)
        yield


def expect_equal(snapshot: Snapshot, state: State, rng: Random) -> None:
    """The snapshot answers everything as the dict does: list, count, get, pages, range, digest."""
    where = f"at revision {snapshot.revision}"
    expected = [state[key] for key in sorted(state)]
    assert [*snapshot] == expected, f"list {where}"
    assert len(snapshot) == len(expected), f"count {where}"
    if expected:
        first = rng.randrange(len(expected))
        rest = snapshot.list(start=expected[first].key, limit=5).elements
        assert rest == expected[first : first + 5], f"list from a key on {where}"
    prefix = rng.choice((b"", b"a/", b"b/", b"c/"))
    listed = [kept for kept in expected if kept.key.startswith(prefix)]
    assert snapshot.count(prefix) == len(listed), f"count of {prefix!r} {where}"
    for key in (*rng.sample(sorted(state), min(3, len(state))), b"a/nothing"):
        assert snapshot.get(key) == state.get(key), f"get {key!r} {where}"
    page = snapshot.list(prefix, limit=rng.randint(1, 9))
    chain = [*page.elements]
    while page.next_start is not None:
        assert page.remaining == len(listed) - len(chain), f"remaining {where}"
        page = snapshot.list(prefix, start=page.next_start, limit=rng.randint(1, 9))
        assert page.elements, f"I7: an empty page in the middle {where}"
        chain += page.elements
    assert chain == listed, f"I7: pages {where}"
    for mode in ("keys", "values"):
        assert snapshot.digest(mode, prefix) == recompute(listed, mode), f"digest {where}"


def expect_compacted(call: Callable[[], object], what: str) -> None:
    try:
        given = call()
    except Compacted:
        return
    raise AssertionError(f"{what}: Compacted was due, and {given!r} came")


def expect_sound(tree: Tree[Any, Any]) -> None:
    problems = [*tree.check()]
    assert not problems, problems[0]


# Tree


def tree_equals_a_dict_per_version() -> None:
    """Every version ever made is compared again at the end, by content, ranges, ranks, checks."""
    with small_nodes():
        for seed in range(6):
            rng = Random(seed)
            tree: Tree[int, int] = Tree()
            versions: list[tuple[Tree[int, int], dict[int, int]]] = [(tree, {})]
            for step in range(60):
                editor, now = tree.edit(), dict(versions[-1][1])
                for _ in range(rng.randint(1, 5)):
                    key = rng.randrange(50)
                    if key in now and rng.random() < (0.3 if step < 30 else 0.7):
                        assert editor.get(key) is not None, f"content: {key} is lost"
                        editor.delete(key)
                        del now[key]
                    else:
                        editor.set(key, step)
                        now[key] = step
                tree = editor.freeze()
                versions.append((tree, now))
            for tree, now in versions:
                _expect_tree(tree, now, rng)
            for (old, before), (new, after) in pairwise(versions):
                changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
                assert {key for key, _, _ in old.changes(new)} == changed, "changes"


def _expect_tree(tree: Tree[int, int], now: dict[int, int], rng: Random) -> None:
    assert [*tree.items()] == sorted(now.items()), "content"
    assert len(tree) == len(now), "length"
    expect_sound(tree)
    for _ in range(8):
        low, high = sorted((rng.randrange(-1, 51), rng.randrange(-1, 51)))
        start, stop = rng.choice(((low, high), (None, high), (low, None)))
        within = [
            key
            for key in sorted(now)
            if (start is None or key >= start) and (stop is None or key < stop)
        ]
        assert [*tree.keys(start, stop)] == within, "range"
        assert [*tree.keys(start, stop, reverse=True)] == within[::-1], "range from its end"
        assert tree.count(start, stop) == len(within), "count of a range"


def tree_check_finds_nothing() -> None:
    """Only `Tree.check`, no model: what I1 and I2 alone can see."""
    with small_nodes():
        rng = Random(5)
        tree: Tree[int, int] = Tree.from_sorted((key, 0) for key in range(100))
        for _ in range(300):
            key = rng.randrange(100)
            tree = tree.delete(key) if key in tree else tree.set(key, 1)
            expect_sound(tree)


# Cache


def _filled(history: History, steps: int, bounds: Bounds = UNBOUNDED) -> Cache:
    cache = Cache(bounds=bounds)
    cache.replace(1, [])
    for _ in range(steps):
        cache.apply(history.step())
    return cache


def cache_equals_a_dict_per_revision() -> None:
    with small_nodes(), verifying("0"):
        history = History(1)
        cache = Cache(bounds=UNBOUNDED)
        cache.replace(1, [])
        for _ in range(150):
            cache.apply(history.step())
            # While they are new too, so that what is kept with nodes is made early and inherited.
            expect_equal(cache.snapshot(), history.latest, history.rng)
        for revision in range(1, history.revision + 1):
            expect_equal(cache.snapshot(revision), history.at(revision), history.rng)


def self_checks_are_quiet(level: str = "all") -> None:
    """The same work under BTREECACHE_VERIFY and nothing else."""
    with small_nodes(), verifying(level):
        _filled(History(2), 120)


def readers_keep_what_they_hold() -> None:
    """States taken now and then read the same however much is applied and evicted after."""
    with verifying("0"):
        for bounds in (Bounds(age_s=None, revisions=40), Bounds(age_s=None, bytes=200_000)):
            history = History(3)
            cache = _filled(history, 1, bounds)
            held = []
            for step in range(700):
                cache.apply(history.step())
                if step % 60 == 0:
                    held.append((cache.state, cache.oldest, cache.revision))
            assert len(cache.state.readable()) < 600, "nothing was evicted"
            for state, oldest, newest in held:
                for revision in range(oldest, newest + 1):
                    expected = history.at(revision)
                    found = {kept.key: kept for kept in state.at(revision)}
                    assert found == expected, f"a held state changed at {revision}"
                assert state.readable().batch_after(newest) is None, "read past the end"


def compaction_keeps_its_floor() -> None:
    """I8 at random compactions: nothing below, everything from the floor on."""
    with small_segments(), verifying("0"):
        history, rng = History(4), Random(4)
        cache = _filled(history, 1)
        floor = 1
        for _ in range(120):
            cache.apply(history.step())
            if rng.random() < 0.2:
                cache.progress(Progress(cache.revision))
                floor = max(floor, rng.randint(floor, cache.revision))
                cache.compact(floor)
            for revision in range(floor, cache.revision + 1):
                try:
                    snapshot = cache.snapshot(revision)
                except (Compacted, LookupError) as error:
                    detail = f"I8: no read at {revision}, compacted {floor}: {error!r}"
                    raise AssertionError(detail) from error
                found = {kept.key: kept for kept in snapshot}
                assert found == history.at(revision), f"I8: the read at {revision}, floor {floor}"
            for revision in range(max(floor - 3, 1), floor):
                expect_compacted(lambda: cache.snapshot(revision), f"I8: the read at {revision}")


def watchers_fold_to_the_state(bounds: Bounds = UNBOUNDED) -> None:
    """Every watcher sees each batch of its prefix once, whole and in order, or Compacted."""
    with verifying("0"):
        history, rng = History(5), Random(5)
        cache = _filled(history, 1, bounds)
        batches: list[Batch] = []
        watchers = []
        for step in range(700):
            if step % 50 == 0:
                prefix = rng.choice((b"", b"a/", b"b/"))
                watchers.append((cache.watch(prefix=prefix), prefix, cache.revision, []))
            made = history.step()
            batches.append(made)
            cache.apply(made)
        for watcher, prefix, after, seen in watchers:
            wanted = [
                (made.revision, kept)
                for made in batches
                if made.revision > after
                if (kept := [e for e in _shown(made) if e[0].startswith(prefix)])
            ]
            try:
                while found := watcher.receive(0):
                    seen.append((found.revision, _shown(found)))
            except Compacted:
                wanted = wanted[: len(seen)]
            assert seen == wanted, f"I6: a watch of {prefix!r} after {after}"


def _shown(made: Batch) -> list[tuple[bytes, Element | None]]:
    return [(event.key, event.element) for event in made.events]


def watchers_under_eviction_see_no_gap() -> None:
    watchers_fold_to_the_state(Bounds(age_s=None, revisions=300))


class _Observed(tuple[Event, ...]):
    """Events of a batch between which somebody looks at the cache."""

    look: Callable[[], None]

    def __iter__(self) -> Iterator[Event]:
        for event in super().__iter__():
            self.look()
            yield event
            self.look()


def nothing_of_a_batch_is_seen_early() -> None:
    """I5: whoever looks between two events of a batch sees the revision before it, and that."""
    with verifying("0"):
        history = History(6)
        cache = _filled(history, 1)
        before = cache.revision

        def look() -> None:
            assert cache.revision == before, "I5: a revision is published before all of it is in"
            found = {kept.key: kept for kept in cache.snapshot()}
            assert found == history.at(before), "I5: part of a batch is seen"

        for _ in range(50):
            before = cache.revision
            made = history.step()
            events = _Observed(made.events)
            events.look = look
            cache.apply(Batch(made.revision, events))
            expect_equal(cache.snapshot(), history.latest, history.rng)


def a_resynchronisation_replaces_everything() -> None:
    """After a list nothing older is served, old watchers are told, the new content is right."""
    with verifying("0"):
        for as_batch in (False, True):
            history = History(7)
            cache = _filled(history, 30)
            old, watcher = cache.revision, cache.watch()
            for _ in range(20):
                history.step()
            listed = [kept for _, kept in sorted(history.latest.items())]
            cache.replace(history.revision, listed, as_batch=as_batch)
            expect_equal(cache.snapshot(), history.latest, history.rng)
            for revision in (old, history.revision - 1):
                expect_compacted(
                    lambda: cache.snapshot(revision), "a snapshot from before a resync"
                )
            cache.apply(history.step())
            if as_batch:
                found = watcher.receive(0)
                assert found is not None, "no net change for the watcher"
                assert found.synthetic, "a net change that looks like a revision"
            else:
                expect_compacted(lambda: watcher.receive(0), "a watcher went on over a gap")


def breaches() -> list[tuple[str, Batch | Progress]]:
    """What a feed must never send to a cache with a (3, version 1) and b (12), told of 15."""
    return [
        ("a revision again", batch(12, put(b"b", b"", 12))),
        ("a revision from before", batch(11, put(b"z", b"", 11))),
        ("an event that a mark had vouched for", batch(14, put(b"z", b"", 14))),
        ("a mark that takes back", Progress(13)),
        ("a put after a lost put", batch(16, put(b"a", b"", 16, created=3, version=3))),
        ("a create after a lost delete", batch(16, put(b"a", b"", 16))),
        ("a put after a lost create", batch(16, put(b"z", b"", 16, created=14, version=2))),
        ("a delete after a lost create", batch(16, delete(b"z"))),
        ("an element of another revision", batch(16, put(b"z", b"", 15))),
    ]


def breaches_are_refused() -> None:
    with verifying("0"):
        for name, broken in breaches():
            cache = Cache()
            cache.replace(10, [put(b"a", b"", 3).element])  # type: ignore[list-item]
            cache.apply(batch(12, put(b"b", b"", 12)))
            cache.progress(Progress(15))
            try:
                if isinstance(broken, Batch):
                    cache.apply(broken)
                else:
                    cache.progress(broken)
            except FeedFault:
                continue
            raise AssertionError(f"a breach of the feed's contract was taken: {name}")


def nothing_suspect_is_served() -> None:
    """A put is lost and only the key's next event proves it: what lies between is refused."""
    with verifying("0"):
        for seed in range(40):
            history, rng = History(seed, keys=12), Random(seed)
            cache = _filled(history, 20)
            watcher = cache.watch()
            lost = history.step()
            del lost
            for _ in range(40):
                try:
                    cache.apply(history.step())
                except FeedFault:
                    break
            if cache.consistent:
                continue  # A lost put that a lost delete hides: docs/guarantees.md says so.
            for revision in range(1, cache.revision + 1):
                try:
                    snapshot = cache.snapshot(revision)
                except NotReady:
                    continue
                found = {kept.key: kept for kept in snapshot}
                assert found == history.at(revision), f"suspect: {revision} is served"
                expect_equal(snapshot, history.at(revision), rng)
            good = cache.state.suspect_after
            while made := watcher.receive(0):
                assert good is not None
                assert made.revision <= good, f"suspect: batch {made.revision} is handed out"


def a_stale_expectation_is_refused() -> None:
    with verifying("0"):
        store = Store()
        seen = store.put(b"a", b"1")
        store.put(b"a", b"2", expect=seen)
        try:
            store.put(b"a", b"3", expect=seen)
        except Conflict:
            return
        raise AssertionError("an update would have been lost")


def watchers_hear_of_what_they_lost() -> None:
    """Eviction throws off who has yet to see an evicted batch of its own prefix, nobody else."""
    with verifying("0"):
        cache = Cache(bounds=Bounds(age_s=None, revisions=3), now=Clock())
        cache.replace(10, [])
        busy, quiet = cache.watch(prefix=b"a/"), cache.watch(prefix=b"b/")
        for revision in range(11, 20):
            cache.apply(batch(revision, put(b"a/%d" % revision, b"", revision)))
        cache.apply(batch(20, put(b"b/1", b"", 20)))
        try:
            found = quiet.receive(0)
        except Compacted:
            raise AssertionError("told and not lost") from None
        assert found is not None, "nothing came"
        try:
            busy.receive(0)
        except Compacted:
            return
        raise AssertionError("lost and not told")


def waiters_are_woken() -> None:
    """A waiting reader hears of a batch; not by looking again when its patience ends."""
    with verifying("0"):
        history = History(8)
        cache = _filled(history, 1)
        target, heard = history.revision + 1, threading.Event()

        def wait() -> None:
            if cache.wait_until(lambda state: state.readable().current >= target, 30.0):
                heard.set()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        while not cache._changed._waiters:  # type: ignore[attr-defined]
            time.sleep(0.001)
        cache.apply(history.step())
        woken = heard.wait(2.5)
        cache.close()
        thread.join()
        assert woken, "nobody was woken"


def no_wakeup_is_lost() -> None:
    """What is published between a look and the wait after it ends the wait at once."""
    with verifying("0"):
        history, looks = History(8), list[object]()
        cache = _filled(history, 1)

        def predicate(state: object) -> bool:
            looks.append(state)
            if len(looks) == 1:
                cache.apply(history.step())
            return len(looks) > 1

        began = time.monotonic()
        assert cache.wait_until(predicate, 2.5)
        assert time.monotonic() - began < 2.4, "a wakeup was lost"


# Checker


def _checker(cache: Cache, truth: DictTruth, **options: Any) -> Checker:
    clock = Clock()

    def tick(seconds: float) -> None:
        clock.now_s += seconds

    return Checker(cache, truth, mode="values", now=clock, sleep=tick, **options)


def a_planted_lie_is_found() -> None:
    """The truth is made wrong in one place; a checker that looks at it must say so."""
    with verifying("0"):
        for seed in range(8):
            history, rng = History(seed), Random(seed)
            cache = _filled(history, 30)
            outcome = _checker(cache, DictTruth(history.states)).check("all")
            assert outcome.verdict == "consistent", outcome.reason
            revision = rng.choice([known for known in history.states if history.states[known]])
            key = rng.choice(sorted(history.states[revision]))
            right = history.states[revision]
            wrong = Element(key, b"a lie", *_numbers(right[key]))
            lies = [{**right, key: wrong}, {k: v for k, v in right.items() if k != key}]
            for lie in lies:
                truth = DictTruth({**history.states, revision: lie})
                outcome = _checker(cache, truth).check("all")
                assert outcome.verdict == "inconsistent", (
                    f"a planted lie was not found: {outcome.verdict}"
                )
                assert [(d.revision, d.key) for d in outcome.differences] == [(revision, key)]


def _numbers(kept: Element) -> tuple[int, int, int]:
    return kept.mod_revision, kept.create_revision, kept.version


def a_lie_in_a_history_is_found() -> None:
    """As the job runs it: one write of the simulated truth differs from what the feed delivered."""
    simulation = _simulation("clean", seed=3)
    simulation.write(100, _never(), lambda done: None)
    truth = simulation._truth
    right, page = truth.get_at, truth.page_at
    revision = simulation._cache.revision - 20
    key = next(iter(simulation._cache.snapshot(revision))).key

    def lie(kept: Element) -> Element:
        return Element(kept.key, b"a lie", *_numbers(kept)) if kept.key == key else kept

    def get_at(at: int, asked: bytes) -> Element | None:
        found = right(at, asked)
        return lie(found) if found else None

    truth.get_at = get_at  # type: ignore[method-assign]
    truth.page_at = lambda at, start, limit: [  # type: ignore[method-assign]
        lie(kept) for kept in page(at, start, limit)
    ]
    outcome = simulation.check("all", _never(), lambda done: None)
    assert outcome.verdict == "inconsistent", f"a planted lie was not found: {outcome.verdict}"


def undecided_is_unknown() -> None:
    """I11: a truth that has forgotten everything proves nothing."""
    with verifying("0"):
        history = History(9)
        cache = _filled(history, 10)
        outcome = _checker(cache, DictTruth(history.states, compacted=10**6)).check("all")
        assert outcome.verdict == "unknown", "I11: a check that compared nothing decided"


# Whole runs


def _never() -> threading.Event:
    return threading.Event()


def _simulation(fault: str, seed: int, objects: int = 60) -> Simulation:
    return Simulation(
        "kubernetes",
        seed=seed,
        objects=objects,
        faults=[] if fault == "clean" else [f"{fault}=0.05"],
        prefix=b"",
        mode="values",
        bounds=UNBOUNDED,
    )


def a_clean_run_is_consistent() -> None:
    with verifying("0"):
        for seed in range(3):
            run = sim.run_one("clean", seed, 60, 200)
            assert sim.is_expected(run), f"{run['verdict']}: {run}"


def faulty_runs_are_inconsistent() -> None:
    with verifying("0"):
        for fault in ("drop", "duplicate", "reorder", "split"):
            for seed in range(2):
                run = sim.run_one(fault, seed, 60, 200)
                assert sim.is_expected(run), f"{fault} ended {run['verdict']}"


def the_truth_is_apart_from_the_feed() -> None:
    """With the feed's own proofs silenced, what it lost must still be found by comparing."""
    with verifying("0"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("btreecache.cache.check_event", lambda *_: None)
        patch.setattr("btreecache.tree.Editor.delete", _forgiving_delete())
        simulation = _simulation("drop", seed=1)
        simulation.write(200, _never(), lambda done: None)
        outcome = simulation.check("all", _never(), lambda done: None)
        assert simulation.simulator.injected["drop"] > 0, "nothing was lost"
        assert outcome.feed_faults_total == 0
        assert outcome.differences_total > 0, "the truth lost what the feed lost"


def _forgiving_delete() -> Callable[[Any, Any], None]:
    from btreecache.tree import Editor

    original = Editor.delete

    def forgiving(self: Any, key: Any) -> None:
        if self.get(key) is not None:
            original(self, key)

    return forgiving


def the_follower_believes_only_marks() -> None:
    """After each step of a follower, what the cache calls complete is what was delivered."""
    with verifying("0"):
        history = History(10)
        items: list[Any] = []
        delivered = [1]
        for step in range(60):
            items.append(history.step())
            if step % 5 == 4:
                items.append(Progress(history.revision))
        source = ScriptedSource([(1, [])], [ScriptedStream(items)])
        source.current_revision = lambda: history.revision  # type: ignore[method-assign]
        clock = Clock()
        cache = Cache(bounds=UNBOUNDED)
        follower = Follower(source, cache, now=clock)
        follower.step()
        follower.step()
        for item in items:
            follower.step()
            delivered.append(item.revision)
            assert cache.revision <= delivered[-1], "progress was believed too early"
            assert not cache.feed_faults, "progress was believed too early"
            found = {kept.key: kept for kept in cache.snapshot()}
            assert found == history.at(cache.revision), f"at {cache.revision}"
        follower.close()
