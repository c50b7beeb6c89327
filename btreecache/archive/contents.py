"""Contents: what an archive holds of one history, for people and for retention."""

from __future__ import annotations

from typing import NamedTuple

from btreecache.archive.reading import Reading


class Gap(NamedTuple):
    """Revisions above `after` and below `revision` are not known; `at_s` when that was seen."""

    after: int
    revision: int
    reason: str
    at_s: float


class Contents(NamedTuple):
    """prefix     of the history
    oldest       the lowest revision that can be read
    durable      the highest: everything up to it is safe
    first_s      when the oldest group arrived, seconds since 1970; 0: there is none
    last_s       when the last group did
    known_s      when `durable` was last known to be the newest
    groups       that are retained
    checkpoints  that are retained: groups without one need their log
    batches      that can be replayed
    elements     of the newest state
    size_bytes   written for the groups that are retained, as estimated when they were
    gaps         ascending
    """

    prefix: bytes
    oldest: int
    durable: int
    first_s: float
    last_s: float
    known_s: float
    groups: int
    checkpoints: int
    batches: int
    elements: int
    size_bytes: int
    gaps: tuple[Gap, ...]


def contents(reading: Reading) -> Contents:
    """What there is of a history. O(groups)."""
    state = reading.state
    groups = checkpoints = batches = elements = size = 0
    first_s = last_s = 0.0
    for group in reading.groups():
        first_s = first_s if groups else group.first_s
        groups += 1
        checkpoints += group.root is not None
        batches += group.batches if group.log is not None else 0
        elements, last_s = group.elements, group.last_s
        size += group.size_bytes
    return Contents(
        reading.prefix, reading.oldest, reading.newest, first_s, last_s, state.complete_s,
        groups, checkpoints, batches, elements, size, tuple(Gap(*gap) for gap in state.gaps),
    )  # fmt: skip
