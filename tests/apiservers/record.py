"""What one client wrote of one resource, and so what a server has to answer.

The client writes one object after the other, so the order of its changes is known. Every revision
that it is told (by a write or a list) belongs to a place in that order; what a list or a watch owes
follows from it. Nothing here comes from another list or watch: only a deletion's revision, which no
answer tells, is taken from the first watch that shows it, and every other watch must agree.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
#: Namespace ("" without) and name: the order of the keys in etcd, as none holds a byte below "/".
Key = tuple[str, str]


def key_of(thing: Object) -> Key:
    metadata = thing["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def revision_of(thing: Object) -> int:
    return int(thing["metadata"]["resourceVersion"])


def plain(thing: Object) -> Object:
    """Without what only some answers repeat for each object: its type."""
    return {name: value for name, value in thing.items() if name not in ("kind", "apiVersion")}


def last_words(thing: Object) -> Object:
    """An object as the event of its deletion has to show it: what is stamped by then left out."""
    stamped = ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds")
    metadata = {name: value for name, value in thing["metadata"].items() if name not in stamped}
    return {**plain(thing), "metadata": metadata}


@dataclass
class Change:
    type: str  # ADDED, MODIFIED, DELETED
    object: Object  # of a deletion: the last state
    revision: int | None  # of a deletion: None until a watch shows it


class Record:
    """The changes in their order. Not for threads."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.now: dict[Key, Object] = {}
        self._revisions: list[int] = []  # that the client was told, ascending
        self._places: list[int] = []  # how many changes each of them covers

    def put(self, answer: Object) -> None:
        """A write was answered with the object that it made."""
        thing = plain(answer)
        known = key_of(thing) in self.now
        self.now[key_of(thing)] = thing
        revision = revision_of(thing)
        self.changes.append(Change("MODIFIED" if known else "ADDED", thing, revision))
        self.told(revision)

    def delete(self, key: Key) -> None:
        self.changes.append(Change("DELETED", self.now.pop(key), None))

    def told(self, revision: int) -> None:
        """The store was at `revision` after the last change."""
        if self._revisions and revision < self._revisions[-1]:
            raise AssertionError(f"the store went back from {self._revisions[-1]} to {revision}")
        self._revisions.append(revision)
        self._places.append(len(self.changes))

    @property
    def last_told(self) -> int:
        return self._revisions[-1]

    def place(self, revision: int) -> int:
        """How many changes the state at a revision holds, one that was told. O(log n)."""
        index = bisect_right(self._revisions, revision) - 1
        if index < 0 or self._revisions[index] != revision:
            raise KeyError(revision)
        return self._places[index]

    def places(self, revision: int) -> range:
        """The same of any revision: deletions behind the last one told may or may not count."""
        index = bisect_right(self._revisions, revision) - 1
        first = self._places[index] if index >= 0 else 0
        last = first
        while last < len(self.changes) and self._covered(self.changes[last], revision):
            last += 1
        return range(first, last + 1)

    @staticmethod
    def _covered(change: Change, revision: int) -> bool:
        return change.revision is None or change.revision <= revision

    def told_below(self, floor: int) -> Sequence[int]:
        """Every revision told that is older than `floor`, ascending."""
        return self._revisions[: bisect_right(self._revisions, floor - 1)]

    def at(self, place: int) -> dict[Key, Object]:
        """The objects after so many changes, in the order of their keys. O(changes)."""
        state: dict[Key, Object] = {}
        for change in self.changes[:place]:
            key = key_of(change.object)
            if change.type == "DELETED":
                del state[key]
            else:
                state[key] = change.object
        return dict(sorted(state.items()))


def wrong_list(items: Sequence[Object], expected: Sequence[Object]) -> str | None:
    """The first difference of a list from what it should be, None if there is none."""
    for index, (item, other) in enumerate(zip(items, expected, strict=False)):
        if plain(item) != other:
            return f"item {index} is {short(item)}, not {short(other)}"
    if len(items) != len(expected):
        return f"{len(items)} items, not {len(expected)}"
    return None


def wrong_events(events: Sequence[Object], owed: Iterable[Change]) -> str | None:
    """The first event that isn't the change it should be; learns the revisions of deletions."""
    changes = iter(owed)
    before = 0
    for index, event in enumerate(events):
        thing = event["object"]
        if event["type"] == "BOOKMARK":
            continue
        change = next(changes, None)
        what = f"event {index} is {event['type']} {short(thing)}"
        if change is None:
            return f"{what}, and nothing was to come"
        if event["type"] != change.type:
            return f"{what}, not {change.type} {short(change.object)}"
        revision = revision_of(thing)
        if revision <= before:
            return f"{what}, behind revision {before}"
        before = revision
        if change.type != "DELETED":
            if plain(thing) != change.object:
                return f"{what}, not {short(change.object)}"
        elif last_words(thing) != last_words(change.object):
            return f"{what}, but the last state was {short(change.object)}"
        elif change.revision not in (None, revision) or revision <= revision_of(change.object):
            return f"{what}, but it was deleted at {change.revision}"
        else:
            change.revision = revision
    return None


def wrong_bookmark(events: Sequence[Object], changes: Sequence[Change]) -> str | None:
    """A bookmark that is ahead of a change which the watch still owed (changes: from its start)."""
    seen = 0
    for event in events:
        if event["type"] != "BOOKMARK":
            seen += 1
            continue
        mark = revision_of(event["object"])
        owed = changes[seen] if seen < len(changes) else None
        if owed is not None and owed.revision is not None and owed.revision <= mark:
            return f"a bookmark of {mark} before {owed.type} {short(owed.object)}"
    return None


def short(thing: Object) -> str:
    """An object in a line, for people."""
    metadata = thing.get("metadata", {})
    name = "/".join(filter(None, key_of(thing))) if "name" in metadata else str(thing)[:200]
    return f"{name} at {metadata.get('resourceVersion')}"
