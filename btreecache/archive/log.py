"""Logs: the batches of a group, from which every revision between two checkpoints is made again.

A log refers to elements in runs. Those that the group's own checkpoint still holds are in its runs;
those that were superseded inside the group are in runs that only the log refers to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from btreecache.archive.checkpoint import REFERENCE_BYTES
from btreecache.archive.nodes import ArchivedTree, Nodes, Place
from btreecache.archive.records import Log
from btreecache.archive.runs import Runs
from btreecache.digest import MODULUS, recompute
from btreecache.element import Element
from btreecache.event import Batch, Event
from btreecache.node import ABSENT


def log_of(
    batches: Iterable[tuple[Batch, float]], placed: dict[int, Place], runs: Runs
) -> tuple[Log, int]:
    """The log of batches, each with its time of arrival, and what it costs to write. O(events).

    placed   where the elements are that the checkpoint after the batches has written
    """
    batches = list(batches)
    puts = [e.element for batch, _ in batches for e in batch.events if e.element is not None]
    superseded = [element for element in puts if id(element) not in placed]
    where, size = dict(placed), 0
    for run, group, written in runs.of(superseded):
        size += written
        where.update({id(element): (run, index) for index, element in enumerate(group)})
    numbers: dict[Any, int] = {}
    written_batches = []
    for batch, arrived_s in batches:
        events: list[bytes | tuple[bytes, int, int, int]] = []
        for event in batch.events:
            size += len(event.key) + REFERENCE_BYTES
            if event.element is None:
                events.append(event.key)
                continue
            run, index = where[id(event.element)]
            number = numbers.setdefault(run, len(numbers))
            events.append((event.key, number, index, int(event.previous is None)))
        written_batches.append((batch.revision, arrived_s, batch.synthetic, tuple(events)))
    return Log((tuple(numbers), tuple(written_batches), packed(runs.digest(puts)))), size


def replayed(tree: ArchivedTree, log: Log, revision: int) -> ArchivedTree:
    """The tree after the batches of a log up to a revision. O(events), and O(log n) loads for each
    key that came or went: what only got another value waits until its leaf is looked at."""
    runs, batches, _ = log.state
    last: dict[bytes, Any] = {}
    came_or_went = set[bytes]()
    for at, _, _, events in batches:
        if at > revision:
            break
        for event in events:
            if isinstance(event, bytes):
                last[event] = ABSENT
                came_or_went.add(event)
            else:
                key, run, index, *is_new = event
                last[key] = runs[run], index
                if is_new != [0]:
                    came_or_went.add(key)
    editor = tree.edit()
    for key in came_or_went:
        place = last.pop(key)
        if place is not ABSENT:
            editor.set(key, place)
        elif editor.get(key) is not None:
            editor.delete(key)
    return tree.edited(editor).patched(last)


def upto(log: Log, nodes: Nodes, revision: int) -> Log:
    """A log of the batches up to a revision. It may refer to a few runs too many. O(events)."""
    runs, batches, _ = log.state
    kept = tuple([batch for batch in batches if batch[0] <= revision])
    found = batches_of(log, nodes, upto=revision)
    puts = (event.element for batch, _ in found for event in batch.events if event.element)
    return Log((runs, kept, packed(recompute(puts, "values"))))


def packed(digest: int) -> bytes:
    """A digest as it is archived."""
    return (digest % MODULUS).to_bytes(32, "big")


def batches_of(
    log: Log, nodes: Nodes, after: int = 0, upto: int | None = None
) -> Iterator[tuple[Batch, float]]:
    """The batches of a log above `after` and not above `upto`, each with its time of arrival.

    The events don't say what was there before. Lazy: an element is loaded with its batch.
    """
    runs, batches, _ = log.state
    for revision, arrived_s, synthetic, events in batches:
        if revision > after and (upto is None or revision <= upto):
            found = tuple([_event(event, runs, nodes) for event in events])
            yield Batch(revision, found, synthetic), arrived_s


def puts_of(log: Log) -> Iterator[Place]:
    """Where all is that a log has put, in its order."""
    runs, batches, _ = log.state
    for *_, events in batches:
        for event in events:
            if not isinstance(event, bytes):
                yield runs[event[1]], event[2]


def _event(event: Any, runs: tuple[Any, ...], nodes: Nodes) -> Event:
    if isinstance(event, bytes):
        return Event(event, None)
    key, run, index, *_ = event
    element: Element = nodes.element((runs[run], index))
    return Event(key, element)
