"""Exporting a history, or a range of its revisions, as lines."""

from __future__ import annotations

from collections.abc import Iterator

from btreecache.archive import lines
from btreecache.archive.log import packed
from btreecache.archive.reading import Reading
from btreecache.archive.records import GroupState
from btreecache.digest import element_digest
from btreecache.errors import ArchiveError, BadRequest
from btreecache.event import Event
from btreecache.snapshot import Snapshot
from btreecache.tree import ABSENT


def exported(reading: Reading, first: int, last: int) -> Iterator[lines.AnyLine]:
    """The state at `first` and all that came after it, up to `last`. O(elements + changes), lazy.

    Raises BadRequest, and what Reading.snapshot raises; ArchiveError where the archive is damaged.
    """
    if first > last:
        raise BadRequest(f"revision {first} is above {last}")
    yield lines.Header(lines.FORMAT, *lines.text_or_bytes(reading.prefix))
    reading.snapshot(last)
    yield from _first(reading, reading.snapshot(first))
    known = first
    for group in reading.groups(first):
        if group.log is None:
            if group.revision > last:
                break
            yield from _listed(reading, known, group)
            known = group.revision
        else:
            for batch, arrived_s in reading.batches(known, min(last, group.revision)):
                events = tuple(map(_event, batch.events))
                yield lines.BatchLine(batch.revision, arrived_s, events)
                known = batch.revision
        if group.revision <= last:
            yield lines.Checkpoint(group.revision, group.elements, group.digest.hex())
        if group.revision >= last:
            break
    if last > known:
        yield lines.Progressed(last)


def _first(reading: Reading, snapshot: Snapshot) -> Iterator[lines.AnyLine]:
    """The state that it begins with."""
    groups = reading.state.groups
    group: GroupState = groups[groups.maxKey(snapshot.revision)].read()
    since = [arrived_s for _, arrived_s in reading.batches(group.revision, snapshot.revision)]
    yield lines.Listed(snapshot.revision, since[-1] if since else group.last_s)
    digest = 0
    for element in snapshot:
        digest += element_digest(element, "values")
        yield lines.put(element)
    found = packed(digest)
    if not since and found != group.digest:
        raise ArchiveError(f"revision {group.revision} is not as it was saved: see archive verify")
    yield lines.Checkpoint(snapshot.revision, len(snapshot), found.hex())


def _listed(reading: Reading, known: int, group: GroupState) -> Iterator[lines.AnyLine]:
    """A state that doesn't follow: what differs from the one before."""
    groups = reading.state.groups
    complete = groups[groups.maxKey(group.revision - 1)].read().complete
    if complete > known:
        yield lines.Progressed(complete)
    reasons = {revision: reason for _, revision, reason, _ in reading.state.gaps}
    reason = reasons.get(group.revision, "thinned")
    yield lines.Listed(group.revision, group.last_s, reason)  # type: ignore[arg-type]  # one of ours
    before, now = reading.snapshot(known), reading.snapshot(group.revision)
    for key, _, element in before.tree.changes(now.tree):
        if element is ABSENT:
            yield lines.Delete(*lines.text_or_bytes(key))
        else:
            yield lines.put(element)


def _event(event: Event) -> lines.Put | lines.Delete:
    if event.element is None:
        return lines.Delete(*lines.text_or_bytes(event.key))
    return lines.put(event.element)
