"""Mutants: deliberate bugs, each with the check that must catch it and what that check must say.

A mutant is applied by monkeypatch while its check runs. Product code has no hook for them: when it
moves, a mutant that no longer bites survives, and `test_mutants.py` fails.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

import btreecache.node as nodes
from btreecache import (
    Batch,
    Cache,
    Compacted,
    Element,
    Follower,
    Progress,
    Snapshot,
    Store,
    Watcher,
)
from btreecache.cache import State
from btreecache.cli.simulation import Simulation
from btreecache.consistency import Checker
from btreecache.digest import recompute
from btreecache.node import spliced
from btreecache.scope import Scopes
from btreecache.snapshot import Page
from btreecache.sources.simulated import SimulatedStream
from btreecache.tree import Editor
from btreecache.window import SEGMENT_ENTRIES, OpenSegment, Window
from etcdsim.digest import RunningDigest
from tests import test_concurrency, test_follow
from tests.fakes import DictTruth
from tests.mutants import checks

Patch = pytest.MonkeyPatch
Apply = Callable[[Patch], None]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug, the check that must catch it, and what the check must say (a regular expression)."""

    name: str
    apply: Apply
    check: Callable[[], None]
    says: str

    @contextmanager
    def at_large(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            self.apply(patch)
            yield


MUTANTS: list[Mutant] = []


def caught(check: Callable[[], None], says: str) -> Callable[[Apply], Apply]:
    """Register a mutant by its function's name; several of these: several checks must catch it."""

    def register(apply: Apply) -> Apply:
        MUTANTS.append(Mutant(apply.__name__, apply, check, says))
        return apply

    return register


# Tree


@caught(checks.tree_equals_a_dict_per_version, "content")
@caught(checks.cache_equals_a_dict_per_revision, "(list|digest) at")
@caught(checks.readers_keep_what_they_hold, "a held state changed")
@caught(checks.self_checks_are_quiet, "I2 at .*keeps|I3")
@caught(
    test_concurrency.test_readers_see_every_revision_whole_and_right, "at revision|I2 at .*keeps"
)
def shared_node_written(patch: Patch) -> None:
    """The editor takes every node for its own and writes into published ones."""
    patch.setattr(Editor, "_own", lambda self, node: node)


@caught(checks.tree_equals_a_dict_per_version, "content")
@caught(checks.cache_equals_a_dict_per_revision, "list at")
def merge_loses_a_key(patch: Patch) -> None:
    """Where two leaves become one, the last key of the left one is left out; counts agree."""
    original = Editor._refill

    def refill(self: Any, parent: Any, i: int) -> None:
        left = self._own(parent.entries[max(1, i) - 1])
        if not left.height:
            left.keys, left.entries = left.keys[:-1], left.entries[:-1]
            left.count -= 1
            parent.entries = spliced(parent.entries, max(1, i) - 1, 1, left)
        original(self, parent, i)

    patch.setattr(Editor, "_refill", refill)


@caught(checks.tree_check_finds_nothing, "I2 at .*counts")
@caught(checks.self_checks_are_quiet, "I2 at .*counts")
def merge_forgets_a_count(patch: Patch) -> None:
    original = Editor._refill

    def refill(self: Any, parent: Any, i: int) -> None:
        right = parent.entries[max(1, i)].count
        original(self, parent, i)
        parent.entries[max(1, i) - 1].count -= right

    patch.setattr(Editor, "_refill", refill)


@caught(checks.tree_check_finds_nothing, "I2 at .*counts")
@caught(checks.self_checks_are_quiet, "I2 at .*counts")
@caught(checks.cache_equals_a_dict_per_revision, "count at")
def delete_keeps_the_count(patch: Patch) -> None:
    original = Editor._hang

    def hang(self: Any, path: Any, node: Any, change: int) -> None:
        original(self, path, node, max(change, 0))

    patch.setattr(Editor, "_hang", hang)


@caught(checks.tree_check_finds_nothing, "I2 at .*counts")
def a_write_of_one_item_forgets_a_count(patch: Patch) -> None:
    """Where no editor is asked."""
    original = nodes.hung
    patch.setattr("btreecache.tree.hung", lambda *given: original(*given[:-1], 0))


@caught(checks.tree_check_finds_nothing, "I2 at .*less than")
def nodes_are_never_refilled(patch: Patch) -> None:
    patch.setattr(Editor, "_refill", lambda self, parent, i: None)


@caught(checks.tree_check_finds_nothing, "I1 at")
@caught(checks.tree_equals_a_dict_per_version, "I1 at|content")
def split_takes_the_wrong_separator(patch: Patch) -> None:
    """The new right half hangs under its second key."""
    original = Editor._split

    def split(self: Any, parent: Any, i: int) -> None:
        original(self, parent, i)
        right = parent.entries[i + 1]
        parent.keys = spliced(parent.keys, i + 1, 1, right.keys[1])

    patch.setattr(Editor, "_split", split)


@caught(checks.tree_equals_a_dict_per_version, "range")
@caught(checks.cache_equals_a_dict_per_revision, "list from a key on|digest at")
def range_leaves_out_its_start(patch: Patch) -> None:
    original = nodes.cut

    def cut(node: Any, start: Any, stop: Any) -> tuple[int, int]:
        low, high = original(node, start, stop)
        if start is not None and not node.height:
            low = bisect_right(node.keys, start)
        return low, high

    patch.setattr(nodes, "cut", cut)


@caught(checks.tree_equals_a_dict_per_version, "range")
def range_takes_in_its_stop(patch: Patch) -> None:
    original = nodes.cut

    def cut(node: Any, start: Any, stop: Any) -> tuple[int, int]:
        low, high = original(node, start, stop)
        if stop is not None:
            high = bisect_right(node.keys, stop, 1 if node.height else 0)
        return low, high

    patch.setattr(nodes, "cut", cut)


def _keeping(patch: Patch, when: Callable[[], bool]) -> None:
    """A copied node inherits what was kept with the old one."""
    original = Editor._own

    def own(self: Any, node: Any) -> Any:
        copy = original(self, node)
        if copy is not node and when():
            copy.kept = node.kept
        return copy

    patch.setattr(Editor, "_own", own)


@caught(checks.cache_equals_a_dict_per_revision, "digest at")
@caught(checks.self_checks_are_quiet, "I2 at .*keeps|I3: kept digest")
def digest_ignores_deletes(patch: Patch) -> None:
    """What is kept with a node outlives a delete below it."""
    original, deleting = Editor.delete, list[int]()

    def delete(self: Any, key: Any) -> None:
        deleting.append(1)
        original(self, key)
        deleting.pop()

    patch.setattr(Editor, "delete", delete)
    _keeping(patch, lambda: bool(deleting))


@caught(checks.cache_equals_a_dict_per_revision, "digest at")
@caught(checks.self_checks_are_quiet, "I2 at .*keeps|I3: kept digest")
def copies_keep_aggregates(patch: Patch) -> None:
    _keeping(patch, lambda: True)


@caught(checks.a_clean_run_is_consistent, "inconsistent")
def simulator_digest_ignores_deletes(patch: Patch) -> None:
    """The same bug on the other side of the comparison."""
    original = RunningDigest.follow

    def follow(self: Any) -> None:
        total, live = self._total, dict(self._elements)
        original(self)
        for key in live.keys() - self._elements.keys():
            self._total = (self._total + live[key]) % (1 << 256)
        if total != self._total:
            self._totals[-1] = self._total

    patch.setattr(RunningDigest, "follow", follow)


@caught(checks.tree_equals_a_dict_per_version, "changes")
def diff_misses_replaced_values(patch: Patch) -> None:
    from btreecache.tree import Tree

    original = Tree.changes

    def changes(self: Any, other: Any) -> Iterator[Any]:
        for key, old, new in original(self, other):
            if key not in self or key not in other:
                yield key, old, new

    patch.setattr(Tree, "changes", changes)


# Pages


def _pages_from(patch: Patch, next_start: Callable[[Snapshot, Page], bytes]) -> None:
    original = Snapshot.list

    def listed(self: Any, *args: Any, **options: Any) -> Page:
        page = original(self, *args, **options)
        if page.next_start is None:
            return page
        return page._replace(next_start=next_start(self, page))

    patch.setattr(Snapshot, "list", listed)


@caught(checks.cache_equals_a_dict_per_revision, "remaining|I7: pages")
def page_repeats_its_last_key(patch: Patch) -> None:
    _pages_from(patch, lambda snapshot, page: page.elements[-1].key)


@caught(checks.cache_equals_a_dict_per_revision, "remaining|I7")
def page_skips_a_key(patch: Patch) -> None:
    _pages_from(patch, lambda snapshot, page: next(snapshot.tree.keys(page.next_start)) + b"\0")


# Batches


@caught(checks.nothing_of_a_batch_is_seen_early, "I5")
@caught(
    test_concurrency.test_readers_see_every_revision_whole_and_right, "at revision|I2 at .*keeps"
)
def half_a_batch_published(patch: Patch) -> None:
    """Apply publishes after each event."""
    original = Cache.apply

    def apply(self: Any, batch: Batch) -> None:
        state = self._state
        tree = state.window.newest
        for event in batch.events:
            if event.element is not None:
                tree = tree.set(event.key, event.element)
            elif event.key in tree:
                tree = tree.delete(event.key)
            window = Window.of(batch.revision, tree, self._now())
            self._publish(replace(state, window=window))
        self._state = state
        original(self, batch)

    patch.setattr(Cache, "apply", apply)


@caught(checks.a_clean_run_is_consistent, "inconsistent")
def source_splits_its_batches(patch: Patch) -> None:
    """One batch an event, whatever its revision."""
    from btreecache.sources import simulated

    def items(response: Any) -> Iterator[Batch | Progress]:
        if response.progress:
            yield Progress(response.header_revision)
        for event in response.events:
            yield Batch(event.kv.mod_revision, (simulated._event(event),))

    patch.setattr(simulated, "_items", items)


# Window


@caught(checks.compaction_keeps_its_floor, "I8")
def floor_dropped_by_compact(patch: Patch) -> None:
    def compact(self: Any, revision: int) -> Window:
        if revision <= self.oldest:
            return self
        start = min(bisect_left([*self.revisions()], revision) + self.start, self.stop - 1)
        return self._advance(start, revision, revision - 1)

    patch.setattr(Window, "compact", compact)


@caught(checks.compaction_keeps_its_floor, "I8")
def compact_forgets_nothing(patch: Patch) -> None:
    patch.setattr(Window, "compact", lambda self, revision: self)


@caught(checks.readers_keep_what_they_hold, "a held state changed")
def eviction_seen_half_by_a_reader(patch: Patch) -> None:
    """What is evicted is overwritten in the segments that older windows share."""
    original = Window._advance

    def advance(self: Any, start: int, oldest: int, watch_floor: int) -> Window:
        segment, at = self._locate(start)
        for index in range(self.start, start):
            gone, place = self._locate(index)
            if isinstance(gone, OpenSegment):  # what is sealed is safe from this bug
                gone.trees[place] = segment.trees[at]
        return original(self, start, oldest, watch_floor)

    patch.setattr(Window, "_advance", advance)


@caught(checks.watchers_under_eviction_see_no_gap, "I6")
def eviction_forgets_the_watch_floor(patch: Patch) -> None:
    original = Window._advance

    def advance(self: Any, start: int, oldest: int, watch_floor: int) -> Window:
        return original(self, start, oldest, self.watch_floor)

    patch.setattr(Window, "_advance", advance)


@caught(checks.readers_keep_what_they_hold, "read past the end")
def old_windows_read_past_their_end(patch: Patch) -> None:
    """Segments are shared and grow: a window that trusts their length sees what came later."""

    def batch_after(self: Any, position: int) -> Batch | None:
        if position < self.watch_floor:
            raise Compacted(position, self.watch_floor)
        for segment in self.segments:
            at = bisect_right(segment.revisions, position)
            if at < len(segment.revisions):
                return segment.batches[at]
        return None

    patch.setattr(Window, "batch_after", batch_after)


@caught(checks.watchers_fold_to_the_state, "I6")
def watch_loses_a_batch_between_segments(patch: Patch) -> None:
    original = Window.batch_at

    def batch_at(self: Any, revision: int) -> Batch | None:
        first_of_segment = (self._bisect(revision) - 1) % SEGMENT_ENTRIES == 0
        return None if first_of_segment else original(self, revision)

    patch.setattr(Window, "batch_at", batch_at)


@caught(checks.watchers_fold_to_the_state, "I6")
def watch_shows_other_prefixes(patch: Patch) -> None:
    from btreecache import watch

    original = watch._only
    patch.setattr(watch, "_only", lambda batch, prefix: original(batch, prefix) and batch)


# Resynchronisation and suspicion


@caught(checks.a_resynchronisation_replaces_everything, "list at|from before a resync")
def stale_snapshot_after_a_resync(patch: Patch) -> None:
    """Replace keeps the old window and calls it up to date."""

    def replaced(self: Any, revision: int, elements: Any, *, as_batch: bool = False) -> None:
        state = self._state
        if state.window is None:
            tree = self._tree_of(revision, elements)
            self._publish(State(Window.of(revision, tree, 0.0), None, 1, 0.0))
        else:
            window = state.window.progress(revision)
            self._publish(State(window, None, state.epoch + 1, 0.0))

    patch.setattr(Cache, "replace", replaced)


@caught(checks.a_resynchronisation_replaces_everything, "from before a resync")
def old_snapshots_stay_readable_after_a_diff(patch: Patch) -> None:
    patch.setattr(Window, "readable_from", lambda self, revision: self)


@caught(checks.a_resynchronisation_replaces_everything, "went on over a gap")
def watchers_survive_a_resync(patch: Patch) -> None:
    """The epoch isn't counted, and the old positions mean something in the new window."""
    original = Cache._publish

    def publish(self: Any, state: State, batch: Batch | None = None) -> None:
        if state.window is not None and len(state.window) == 1:
            state = replace(state, window=replace(state.window, watch_floor=0))
        original(self, replace(state, epoch=0), batch)

    patch.setattr(Cache, "_publish", publish)


@caught(checks.nothing_suspect_is_served, r"suspect: \d+ is served")
def suspect_revision_served(patch: Patch) -> None:
    original = State.at

    def at(self: Any, revision: int | None) -> Snapshot:
        return original(replace(self, suspect_after=None), revision)

    patch.setattr(State, "at", at)


@caught(checks.nothing_suspect_is_served, r"suspect: \d+ is served")
def only_the_newest_is_suspect(patch: Patch) -> None:
    """A fault is believed to touch nothing before the revision that proves it."""
    original = Cache._faulty

    def faulty(self: Any, fault: Any) -> Any:
        fault.good = fault.revision - 1
        return original(self, fault)

    patch.setattr(Cache, "_faulty", faulty)


@caught(checks.nothing_suspect_is_served, "suspect: batch")
def suspect_batch_handed_out(patch: Patch) -> None:
    original = Watcher.poll

    def poll(self: Any) -> Batch | None:
        cache = self._cache
        self._cache = SimpleNamespace(state=replace(cache.state, suspect_after=None))
        try:
            return original(self)
        finally:
            self._cache = cache

    patch.setattr(Watcher, "poll", poll)


@caught(checks.watchers_hear_of_what_they_lost, "lost and not told")
def eviction_forgets_to_tell_the_scopes(patch: Patch) -> None:
    patch.setattr(Scopes, "forget", lambda self, batch: None)


@caught(checks.watchers_hear_of_what_they_lost, "told and not lost")
def eviction_throws_off_who_lost_nothing(patch: Patch) -> None:
    original = Scopes.forget

    def forget(self: Any, batch: Batch) -> None:
        original(self, batch)
        for scope in self:
            scope.floor = max(scope.floor, batch.revision)

    patch.setattr(Scopes, "forget", forget)


@caught(checks.watchers_fold_to_the_state, "I6")
def only_the_first_event_finds_its_scopes(patch: Patch) -> None:
    original = Scopes.note
    patch.setattr(
        Scopes,
        "note",
        lambda self, batch: original(self, Batch(batch.revision, batch.events[:1])),
    )


# The feed's contract


@caught(checks.breaches_are_refused, "after a lost put")
def version_check_off(patch: Patch) -> None:
    patch.setattr("btreecache.cache.check_event", lambda *_: None)


@caught(checks.breaches_are_refused, "a revision from before")
@caught(checks.faulty_runs_are_inconsistent, "ended")
def order_check_off(patch: Patch) -> None:
    patch.setattr("btreecache.cache.check_order", lambda *_: None)


@caught(checks.breaches_are_refused, "a mark that takes back")
def mark_check_off(patch: Patch) -> None:
    patch.setattr("btreecache.cache.check_progress", lambda *_: None)


@caught(checks.breaches_are_refused, "a mark had vouched for")
def a_mark_binds_nobody(patch: Patch) -> None:
    """Progress believed too early can't be told any more: late events are taken."""
    from btreecache import feed

    original = feed.check_order

    def check_order(window: Window, batch: Batch) -> None:
        original(window.progress(window.last_revision), batch)

    patch.setattr("btreecache.cache.check_order", check_order)


@caught(checks.the_follower_believes_only_marks, "too early")
@caught(checks.a_clean_run_is_consistent, "inconsistent")
def progress_believed_before_the_events(patch: Patch) -> None:
    """The follower takes the source's newest revision for its own progress."""
    original = Follower._receive

    def receive(self: Any, stream: Any, timeout_s: float) -> bool:
        newest = self._source.current_revision()
        if newest > self._cache.revision:
            self._cache.progress(Progress(newest))
        return original(self, stream, timeout_s)

    patch.setattr(Follower, "_receive", receive)


@caught(checks.the_follower_believes_only_marks, "too early")
def a_batch_believed_to_be_a_mark_for_the_next(patch: Patch) -> None:
    original = Follower._receive

    def receive(self: Any, stream: Any, timeout_s: float) -> bool:
        done = original(self, stream, timeout_s)
        self._cache.progress(Progress(self._cache.revision + 1))
        return done

    patch.setattr(Follower, "_receive", receive)


@caught(test_follow.test_lists_then_watches_after_the_list, r"\[1[01]\]")
@caught(test_follow.test_a_lost_connection_resumes_after_what_was_applied, r"\[11, 13, 15\]")
def follower_resumes_one_revision_further(patch: Patch) -> None:
    original = Follower.__init__

    class Ahead:
        def __init__(self, source: Any) -> None:
            self._source = source

        def watch(self, prefix: bytes, after: int) -> Any:
            return self._source.watch(prefix, after + 1)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._source, name)

    def init(self: Any, source: Any, *args: Any, **options: Any) -> None:
        original(self, Ahead(source), *args, **options)

    patch.setattr(Follower, "__init__", init)


@caught(test_follow.test_a_compacted_position_or_a_broken_feed_lists_again, "1 == 2")
def follower_goes_on_after_trouble(patch: Patch) -> None:
    """It watches again from where it was, without a list."""
    original = Follower._recover

    def recover(self: Any, error: Any) -> None:
        original(self, error)
        self._must_list = self._cache.state.window is None

    patch.setattr(Follower, "_recover", recover)


@caught(checks.a_stale_expectation_is_refused, "would have been lost")
def transactions_expect_nothing(patch: Patch) -> None:
    original = Store.txn

    def txn(self: Any, writes: Any, **_: Any) -> int:
        return original(self, writes)

    patch.setattr(Store, "txn", txn)


@caught(checks.waiters_are_woken, "nobody was woken")
def publish_wakes_nobody(patch: Patch) -> None:
    def publish(self: Any, state: State, batch: Batch | None = None) -> None:
        self._state = state

    patch.setattr(Cache, "_publish", publish)


@caught(checks.no_wakeup_is_lost, "a wakeup was lost")
def wait_without_a_second_look(patch: Patch) -> None:
    def wait_until(self: Any, predicate: Any, timeout_s: float) -> bool:
        if not predicate(self._state):
            with self._changed:
                self._changed.wait(timeout_s)
        return bool(predicate(self._state))

    patch.setattr(Cache, "wait_until", wait_until)


@caught(test_concurrency.test_a_predicate_runs_without_a_lock, "a writer waits for a lock")
def predicate_called_with_the_lock_held(patch: Patch) -> None:
    original = Cache.wait_until

    def wait_until(self: Any, predicate: Any, timeout_s: float | None = None) -> bool:
        def locked(state: State) -> object:
            with self._changed:
                return predicate(state)

        return original(self, locked, timeout_s)

    patch.setattr(Cache, "wait_until", wait_until)


@caught(test_concurrency.test_the_elements_of_a_list_are_made_without_a_lock, "a reader waits")
def list_read_with_the_lock_held(patch: Patch) -> None:
    original = Cache._tree_of

    def tree_of(self: Any, revision: int, elements: Any) -> Any:
        with self._changed:
            return original(self, revision, elements)

    patch.setattr(Cache, "_tree_of", tree_of)


# Checker and truth


@caught(checks.a_planted_lie_is_found, "lie was not found: consistent")
@caught(checks.a_lie_in_a_history_is_found, "lie was not found: consistent")
def checker_compares_a_thing_with_itself(patch: Patch) -> None:
    """Whatever is asked of the truth, the cache answers."""

    class Mirror(DictTruth):
        def __init__(self, cache: Cache) -> None:
            self._cache = cache

        def current_revision(self) -> int:
            return self._cache.revision

        def range_at(self, revision: int, *args: Any, **options: Any) -> Any:
            elements = {kept.key: kept for kept in self._cache.snapshot(revision)}
            return DictTruth({revision: elements}).range_at(revision, *args, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(_Sums({}, self._cache.snapshot), name)

    original, history = Checker.__init__, Checker.check_history

    def init(self: Any, cache: Cache, truth: Any, **options: Any) -> None:
        original(self, cache, Mirror(cache), **options)

    patch.setattr(Checker, "__init__", init)
    patch.setattr(Checker, "check_history", lambda self, truth: history(self, self._truth))


@caught(checks.a_planted_lie_is_found, "lie was not found: consistent")
@caught(checks.a_lie_in_a_history_is_found, "lie was not found: consistent")
def comparing_finds_nothing(patch: Patch) -> None:
    patch.setattr("btreecache.consistency.compare", lambda *_: iter(()))


@caught(checks.undecided_is_unknown, "I11")
def nothing_compared_is_consistent(patch: Patch) -> None:
    original = Checker.judge

    def judge(self: Any, outcome: Any) -> Any:
        outcome = original(self, outcome)
        if outcome.reason == "nothing could be compared":
            outcome.verdict = "consistent"
        return outcome

    patch.setattr(Checker, "judge", judge)


class _Sums(DictTruth):
    """The sums that a HistoryTruth needs, over any states of elements."""

    def __init__(
        self, states: dict[int, dict[bytes, Element]], read: Callable[[int], Any] | None = None
    ) -> None:
        super().__init__(states)
        self._read = read or self._state

    def _state(self, revision: int) -> list[Element]:
        known = max(known for known in self.states if known <= revision)
        return [kept for _, kept in sorted(self.states[known].items())]

    def count_at(self, revision: int) -> int:
        return len([*self._read(revision)])

    def digest_at(self, revision: int) -> int:
        return recompute(self._read(revision), "values")

    def recompute_digest(self, revision: int) -> tuple[int, int]:
        return self.count_at(revision), self.digest_at(revision)

    def changed_keys(self, revision: int) -> list[bytes]:
        return [kept.key for kept in self._read(revision) if kept.mod_revision == revision]

    def page_at(self, revision: int, start: bytes, limit: int) -> list[Element]:
        return [kept for kept in self._read(revision) if kept.key >= start][:limit]

    def get_at(self, revision: int, key: bytes) -> Element | None:
        return next((kept for kept in self._read(revision) if kept.key == key), None)


@caught(checks.the_truth_is_apart_from_the_feed, "the truth lost what the feed lost")
def truth_read_through_the_faulted_channel(patch: Patch) -> None:
    """The checker's truth is a copy made of what came through the feed, faults and all."""
    write, receive, listed = Simulation.write, SimulatedStream.receive, Cache.replace
    states: dict[int, dict[bytes, Element]] = {0: {}}

    def copy_list(self: Any, revision: int, elements: Any, **options: Any) -> None:
        listed(self, revision, elements, **options)
        states.clear()
        states[revision] = {kept.key: kept for kept in self.snapshot()}

    def copy_item(self: Any, timeout_s: float) -> Any:
        item = receive(self, timeout_s)
        if item is not None:
            state = dict(states[max(states)])
            for event in getattr(item, "events", ()):
                state.pop(event.key, None)
                if event.element is not None:
                    state[event.key] = event.element
            states[item.revision] = state
        return item

    def written(self: Any, *args: Any) -> None:
        write(self, *args)
        self._truth = self._checker._truth = _Sums(states)

    patch.setattr(Cache, "replace", copy_list)
    patch.setattr(SimulatedStream, "receive", copy_item)
    patch.setattr(Simulation, "write", written)
