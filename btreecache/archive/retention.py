"""Retention: which groups of a history are kept.

What isn't retained is only forgotten here; a pack sets the space free. The last group is always
kept: it is what the next one shares with, and what a restart begins from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

#: Seconds, and the seconds between two checkpoints that are kept of what is older.
Thinning = tuple[tuple[float, float], ...]

#: All of the last hour, one a minute of the last day, one an hour of what is older.
THINNED: Thinning = ((3_600.0, 60.0), (86_400.0, 3_600.0))


@dataclass(frozen=True, slots=True)
class Retention:
    """Ceilings on what is kept; None: no ceiling.

    age_s      seconds of history
    revisions  batches
    bytes      what was written for the groups that are kept; what they share is counted with the
               group that wrote it
    thinning   (age, interval) pairs, ascending: of what is older than `age` seconds, one checkpoint
               in `interval` seconds. Its neighbours' revisions can't be read any more
    """

    age_s: float | None = None
    revisions: int | None = None
    bytes: int | None = None
    thinning: Thinning = ()


class Summary(NamedTuple):
    """What a writer remembers of a group."""

    revision: int
    last_s: float
    batches: int
    bytes: int


def dropped(retention: Retention, groups: Sequence[Summary], now_s: float) -> Iterator[int]:
    """The revisions of the groups to forget, out of all, ascending by revision. O(groups)."""
    batches = size = 0
    slot: tuple[float, int] | None = None
    for index in range(len(groups) - 1, -1, -1):
        group = groups[index]
        age_s = now_s - group.last_s
        kept = index == len(groups) - 1 or not (
            (retention.age_s is not None and age_s > retention.age_s)
            or (retention.revisions is not None and batches >= retention.revisions)
            or (retention.bytes is not None and size >= retention.bytes)
        )
        if kept and index < len(groups) - 1:
            interval_s = _interval_s(retention.thinning, age_s)
            if interval_s is not None:
                here = interval_s, int(group.last_s // interval_s)
                kept, slot = here != slot, here
        if kept:
            batches += group.batches
            size += group.bytes
        else:
            yield group.revision


def _interval_s(thinning: Thinning, age_s: float) -> float | None:
    found = None
    for older_s, interval_s in thinning:
        if age_s > older_s:
            found = interval_s
    return found
