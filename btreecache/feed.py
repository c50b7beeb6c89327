"""The feed's contract: what a batch or a progress mark must be for the snapshots to be right.

A source promises whole revisions, once each, in order, with nothing left out (etcd's Ordered,
Unique, Atomic, Reliable, Bookmarkable). Most breaches prove themselves: by the order of revisions,
or by the `version` and `create_revision` that etcd counts per key. What can't prove itself here is
left to the checker.

Each fault says the last good revision: everything after it may be wrong.
"""

from __future__ import annotations

from btreecache.element import Element
from btreecache.errors import FeedFault
from btreecache.event import Batch, Event, Progress
from btreecache.window import Window


def check_order(window: Window, batch: Batch) -> None:
    """Raise FeedFault unless the batch is a revision above everything delivered or promised."""
    revision, last, promised = batch.revision, window.last_revision, window.current
    if revision > promised:
        return
    if revision > last:
        kind, detail = "progress_ran_ahead", f"a progress mark promised everything up to {promised}"
    elif revision == last:
        kind, detail = "revision_repeated", "this revision was delivered before"
    else:
        kind, detail = "revision_went_back", f"revision {last} was delivered before"
    raise FeedFault(kind, revision, revision - 1, None, detail)


def check_keys(batch: Batch) -> None:
    """Raise FeedFault if a key changes twice: etcd refuses such a transaction. O(events)."""
    if len({event.key for event in batch.events}) == len(batch.events):
        return
    seen: set[bytes] = set()
    for event in batch.events:
        if event.key in seen:
            raise _fault("key_repeated", batch, event, batch.revision - 1, "twice in one revision")
        seen.add(event.key)


def check_progress(window: Window, mark: Progress) -> None:
    """Raise FeedFault if a mark takes back what an earlier mark or event promised."""
    if mark.revision < window.current:
        raise FeedFault(
            "progress_went_back",
            mark.revision,
            mark.revision,
            None,
            f"revision {window.current} was promised before",
        )


def check_event(batch: Batch, event: Event, previous: Element | None, prefix: bytes) -> None:
    """Raise FeedFault unless the event follows from `previous`, what the key held before it.

    A put must have the key's `version` plus one and its `create_revision`; a delete must find a
    key. `version` 0 means that the source doesn't count, and then only existence is checked.
    """
    key, element = event.key, event.element
    if not key.startswith(prefix):
        raise _fault("foreign_key", batch, event, batch.revision - 1, "outside the watched prefix")
    if element is None:
        if previous is None:
            # Its put may have been lost at any time since the key was last seen to be absent.
            raise _fault("unknown_key_deleted", batch, event, 0, "a delete of a key not known")
        return
    if element.key != key or element.mod_revision != batch.revision:
        detail = f"an element with mod_revision {element.mod_revision} in another revision's batch"
        raise _fault("misplaced_event", batch, event, batch.revision - 1, detail)
    if element.version:
        _check_version(batch, event, element, previous)


def _check_version(batch: Batch, event: Event, element: Element, previous: Element | None) -> None:
    if element.version == 1 or element.create_revision == batch.revision:
        if element.version != 1 or element.create_revision != batch.revision:
            detail = f"version {element.version}, created at {element.create_revision}"
            raise _fault("misplaced_event", batch, event, batch.revision - 1, detail)
        if previous is not None:
            detail = f"created, but it was there with version {previous.version}: a lost delete"
            raise _fault("version_gap", batch, event, previous.mod_revision, detail)
        return
    if previous is None:
        detail = f"version {element.version} of a key not known: a lost create"
        raise _fault("version_gap", batch, event, element.create_revision - 1, detail)
    expected = (previous.create_revision, previous.version + 1)
    if (element.create_revision, element.version) != expected:
        detail = f"version {element.version} after version {previous.version}: lost events"
        raise _fault("version_gap", batch, event, previous.mod_revision, detail)


def _fault(kind: str, batch: Batch, event: Event, good: int, detail: str) -> FeedFault:
    return FeedFault(kind, batch.revision, good, event.key, f"key {event.key!r}: {detail}")
