"""Event: one key changed. Batch: all the events of ONE revision. Progress: a mark without events.

A batch is the unit of everything: it is applied, published, kept and handed to watchers whole (I5).
"""

from __future__ import annotations

import msgspec

from btreecache.element import Element


class Event(msgspec.Struct, frozen=True, gc=False):
    """A put (`element` is what the key now holds) or a delete (`element` is None).

    `previous` is what the key held before, None if it did not exist or if the source was not asked;
    the cache fills it in from its own snapshot when it applies the event.
    """

    key: bytes
    element: Element | None
    previous: Element | None = None

    @property
    def is_delete(self) -> bool:
        return self.element is None


class Batch(msgspec.Struct, frozen=True, gc=False):
    """All the events of one revision, in the order of the transaction; each key at most once.

    `synthetic`: not a revision of the source but the net change over a gap, up to `revision`.
    """

    revision: int
    events: tuple[Event, ...]
    synthetic: bool = False


class Progress(msgspec.Struct, frozen=True, gc=False):
    """The source's promise that every event at or below `revision` has been delivered."""

    revision: int
