"""Mutants of reads and watches. The reader's machine, on a few seeds, must catch each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from btreecache import Batch, Cache, Element, Watcher, plan, reads, watch_stream
from btreecache.options import ListOptions
from btreecache.reader import Reader
from btreecache.reads import Reads
from btreecache.resources import BUILT_IN
from btreecache.scope import Scopes
from btreecache.selection import UNREADABLE, Keys
from btreecache.snapshot import Snapshot
from btreecache.watch_stream import DeletedElements, WatchEvent, WatchStream
from btreecache.window import Window
from tests.machines.__main__ import run_one
from tests.machines.pods import CODEC, PREFIX
from tests.mutants.mutants import Patch, caught

SEEDS = 20


def reads_and_watches_hold() -> None:
    for seed in range(SEEDS):
        error = run_one(("reader", seed), 200)["error"]
        assert error is None, error


def a_misfiled_object_is_found() -> None:
    """Under the key of another object, which a selector pins."""
    key = PREFIX + b"a/p1"
    metadata = {"name": "p2", "namespace": "b"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    cache = Cache(PREFIX, codec=CODEC)
    cache.replace(1, [Element(key, json.dumps(pod).encode(), 1, 1, 1)])
    reader = Reader(cache, codec=CODEC, resource=BUILT_IN.named("pods"))
    options = ListOptions(resource_version="0", field_selector="metadata.namespace=b")
    found = [element.key for element in reader.list(options).elements]
    assert found == [key], "I12: what a selector finds depends on where it is stored"


def _changes_through(patch: Patch, change: Any) -> None:
    """What a filter makes of a batch goes through `change(event, batch)`; None leaves it out."""
    original = watch_stream._changes

    def changes(batch: Batch, *given: Any) -> Iterator[WatchEvent]:
        for event in original(batch, *given):
            changed = change(event, batch)
            if changed is not None:
                yield changed

    patch.setattr(watch_stream, "_changes", changes)


@caught(reads_and_watches_hold, "I6: (never told|not Said).*DELETED|I6: another object")
def an_object_that_leaves_a_selector_is_nothing(patch: Patch) -> None:
    def change(event: WatchEvent, batch: Batch) -> WatchEvent | None:
        new = {one.key for one in batch.events if one.element is not None}
        left = event.type == "DELETED" and event.element is not None and event.element.key in new
        return None if left else event

    _changes_through(patch, change)


@caught(reads_and_watches_hold, "I6: not Said.*ADDED")
def an_object_that_enters_a_selector_is_modified(patch: Patch) -> None:
    def change(event: WatchEvent, batch: Batch) -> WatchEvent:
        old = {one.key for one in batch.events if one.previous is not None}
        entered = event.type == "ADDED" and event.element is not None and event.element.key in old
        return replace(event, type="MODIFIED") if entered else event

    _changes_through(patch, change)


@caught(reads_and_watches_hold, "I6: never told of .*ERROR|I6: not Said.*ERROR|I5")
def what_cannot_be_read_is_left_out_of_a_watch(patch: Patch) -> None:
    _changes_through(patch, lambda event, _: None if event.type == "ERROR" else event)


@caught(reads_and_watches_hold, "I5|I6: never told")
def a_watch_is_told_two_changes_of_a_revision(patch: Patch) -> None:
    original = watch_stream._changes
    patch.setattr(watch_stream, "_changes", lambda *given: iter([*original(*given)][:2]))


@caught(reads_and_watches_hold, "I6: another revision of the object")
def a_deleted_object_keeps_its_revision(patch: Patch) -> None:
    patch.setattr(DeletedElements, "__call__", lambda self, element, revision: element)


@caught(reads_and_watches_hold, "I6: never told|I6: it is behind|I6: a position")
def a_watcher_skips_a_batch(patch: Patch) -> None:
    original = Watcher.poll

    def poll(self: Any) -> Batch | None:
        found = original(self)
        return original(self) if found and found.revision % 5 == 0 else found

    patch.setattr(Watcher, "poll", poll)


@caught(reads_and_watches_hold, "I6: told before")
def a_watcher_repeats_a_batch(patch: Patch) -> None:
    original, repeated = Watcher.poll, set[tuple[int, int]]()

    def poll(self: Any) -> Batch | None:
        found = original(self)
        if found and found.revision % 5 == 0 and (id(self), found.revision) not in repeated:
            repeated.add((id(self), found.revision))
            self.position -= 1
        return found

    patch.setattr(Watcher, "poll", poll)


@caught(reads_and_watches_hold, "I6: went on|I6: never told")
def a_watcher_survives_the_end_of_its_history(patch: Patch) -> None:
    original = Watcher.poll

    def poll(self: Any) -> Batch | None:
        self._epoch = self._cache.state.epoch
        return original(self)

    patch.setattr(Watcher, "poll", poll)


@caught(reads_and_watches_hold, "I6: went on from inside a gap")
def a_watch_goes_on_from_inside_a_gap(patch: Patch) -> None:
    patch.setattr(Window, "in_gap", lambda self, position: False)


@caught(reads_and_watches_hold, "I6: never told")
def an_eviction_is_kept_from_a_watch(patch: Patch) -> None:
    patch.setattr(Scopes, "forget", lambda self, batch: [])


@caught(reads_and_watches_hold, "I6: not Said|I6: another state|I5: stopped inside")
def a_watch_begins_with_an_older_state(patch: Patch) -> None:
    original = watch_stream._begin

    def begin(cache: Any, *given: Any) -> Any:
        snapshot, watcher = original(cache, *given)
        older = cache.state.at(max(cache.oldest, snapshot.revision - 1))
        return Snapshot(snapshot.revision, older.tree, older.indexes), watcher

    patch.setattr(watch_stream, "_begin", begin)


@caught(reads_and_watches_hold, "I6: never told|I6: it is behind|I5")
def a_watch_goes_on_one_revision_after_its_state(patch: Patch) -> None:
    original = watch_stream._begin

    def begin(*given: Any) -> Any:
        snapshot, watcher = original(*given)
        watcher.position += 1
        return snapshot, watcher

    patch.setattr(watch_stream, "_begin", begin)


@caught(reads_and_watches_hold, "I6: the state is older than what was asked for")
def a_watch_does_not_wait_for_its_state(patch: Patch) -> None:
    patch.setattr(plan, "_initial_steps", lambda start, _: start.step(plan.After.NEWEST))


@caught(reads_and_watches_hold, "I6: never told|I6: not Said|I6: told before")
def a_bookmark_comes_before_what_it_vouches_for(patch: Patch) -> None:
    original = WatchStream._advance

    def advance(self: Any, now_s: float) -> bool:
        more = original(self, now_s)
        if self._pending is not None and not self._ended:
            events = [*self._pending]
            if events and events[-1].type == "BOOKMARK":
                events = [events[-1], *events[:-1]]
            self._pending = iter(events)
        return more

    patch.setattr(WatchStream, "_advance", advance)


@caught(reads_and_watches_hold, "no bookmark came")
def bookmarks_are_forgotten(patch: Patch) -> None:
    original = WatchStream._bookmark

    def bookmark(self: Any, now_s: float) -> tuple[WatchEvent, ...]:
        original(self, now_s)
        return ()

    patch.setattr(WatchStream, "_bookmark", bookmark)


@caught(reads_and_watches_hold, "I5: a position inside a revision")
def a_position_runs_ahead_of_its_events(patch: Patch) -> None:
    original = WatchStream._advance

    def advance(self: Any, now_s: float) -> bool:
        more = original(self, now_s)
        if self._pending is not None and not self._ended:
            self.position = self._watcher.position
        return more

    patch.setattr(WatchStream, "_advance", advance)


@caught(reads_and_watches_hold, "went on after its deadline")
def a_watch_forgets_its_deadline(patch: Patch) -> None:
    original = WatchStream._begin

    def begin(self: Any, *given: Any) -> None:
        original(self, *given)
        self._deadline_s = float("inf")

    patch.setattr(WatchStream, "_begin", begin)


@caught(reads_and_watches_hold, "I5: ended inside|I6: never told")
def a_drained_watch_is_cut_short(patch: Patch) -> None:
    patch.setattr(WatchStream, "drain", WatchStream.close)


@caught(reads_and_watches_hold, "another revision than was asked for|504 for what has been reached")
def a_wait_is_followed_by_the_state_from_before(patch: Patch) -> None:
    original = Reads._prepared

    def prepared(self: Any, step: Any, state: Any) -> Any:
        step, _ = yield from original(self, step, state)
        return step, state

    patch.setattr(Reads, "_prepared", prepared)


@caught(reads_and_watches_hold, "410 for the newest state, which can be had")
def a_pinned_read_gives_up_at_once(patch: Patch) -> None:
    patch.setattr(reads, "ATTEMPTS_MAX", 1)


@caught(reads_and_watches_hold, "another revision than was asked for|not found, but it is there")
def the_cache_may_be_older_than_asked(patch: Patch) -> None:
    original = plan._Read.latest
    patch.setattr(plan._Read, "latest", lambda self, _: original(self, 0))


@caught(reads_and_watches_hold, "another revision than was asked for|not found, but it is there")
def the_source_may_be_older_than_asked(patch: Patch) -> None:
    original = plan._Read.source
    patch.setattr(
        plan._Read, "source", lambda self, revision=None, at_least=0: original(self, revision)
    )


@caught(a_misfiled_object_is_found, "I12")
def keys_are_believed_to_be_names(patch: Patch) -> None:
    patch.setattr(Keys, "are_names", lambda *_: True)


@caught(reads_and_watches_hold, "assert pod.readable|I4: another content")
def unreadable_objects_count_for_nothing(patch: Patch) -> None:
    original = reads.any_in

    def any_in(snapshot: Any, kind: Any, *given: Any) -> bool:
        return kind is not UNREADABLE and original(snapshot, kind, *given)

    patch.setattr(reads, "any_in", any_in)
