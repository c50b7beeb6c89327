"""Faults that act on events: lost, repeated, out of order, in parts, altered."""

from __future__ import annotations

from dataclasses import replace

from etcdsim.fault import Fault, HoldingStage, Parcel, Stage, Tally, revision_of
from etcdsim.model import Event
from etcdsim.prng import Prng
from etcdsim.watch import WatchResponse

REVISIONS_OFF_MAX = 8  # by which corrupt_revision alters a number
STARVED_REVISIONS_MAX = 5  # that etcd_17529 loses at a time


class _DropStage(Stage):
    def take(self, parcel: Parcel) -> list[Parcel]:
        response = parcel.response
        if response is None or not response.events:
            return [parcel]
        self.tally.see()
        kept = [event for event in response.events if not self.prng.chance(self.rate)]
        if len(kept) == len(response.events) and self.tally.is_due:
            del kept[self.prng.below(len(kept))]
        dropped = len(response.events) - len(kept)
        if not dropped:
            return [parcel]
        left = replace(response, events=tuple(kept)) if kept else None
        return [parcel.inject(self.tally, dropped, left)]


class Drop(Fault):
    """An event vanishes; a response of which nothing is left vanishes too. Touches every event;
    counts events. A progress mark that follows goes out nevertheless."""

    __slots__ = ()
    name = "drop"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _DropStage(tally, prng)


class _ReorderStage(HoldingStage):
    def take(self, parcel: Parcel) -> list[Parcel]:
        if parcel.has_events:
            self.tally.see()
            if self._held:
                return [parcel.inject(self.tally, 1, parcel.response), *self.release()]
            if self.strikes():
                self._held.append(parcel)
                return []
            return [parcel]
        if self._held and parcel.response is None:
            self._held.append(parcel)
            return []
        return [*self.release(), parcel]  # nothing is swapped across a progress mark


class Reorder(Fault):
    """Two successive revisions of the stream swap places. Touches a revision that has a successor
    before the next progress mark: it is held back until then. Counts swaps."""

    __slots__ = ()
    name = "reorder"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _ReorderStage(tally, prng)


class _SplitStage(Stage):
    def take(self, parcel: Parcel) -> list[Parcel]:
        response = parcel.response
        if response is None or not response.events:
            return [parcel]
        self.tally.see()
        events = response.events
        if len(events) < 2 or not (self.prng.chance(self.rate) or self.tally.is_due):
            return [parcel]
        cut = 1 + self.prng.below(len(events) - 1)
        first = replace(response, events=events[:cut])
        second = replace(response, events=events[cut:])
        return [
            Parcel(first, parcel.injections),
            Parcel(None).inject(self.tally, 1, second),
        ]


class Split(Fault):
    """A revision of several events arrives as two responses. Counts revisions."""

    __slots__ = ()
    name = "split"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _SplitStage(tally, prng)


class _DuplicateStage(Stage):
    def take(self, parcel: Parcel) -> list[Parcel]:
        response = parcel.response
        if response is None or not response.events:
            return [parcel]
        self.tally.see()
        strikes = sum(self.prng.chance(self.rate) for _ in response.events)
        if not strikes and not self.tally.is_due:
            return [parcel]
        return [parcel, Parcel(None).inject(self.tally, 1, response)]


class Duplicate(Fault):
    """A response is delivered again right after. Touches every event: if one of them is struck the
    whole response comes again. Counts responses."""

    __slots__ = ()
    name = "duplicate"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _DuplicateStage(tally, prng)


class Etcd17247(Duplicate):
    """etcd 17247: an event is delivered twice. As `duplicate`."""

    __slots__ = ()
    name = "etcd_17247"


class _StarveStage(Stage):
    def __init__(self, tally: Tally, prng: Prng) -> None:
        super().__init__(tally, prng)
        self._left = 0  # revisions still to lose

    def take(self, parcel: Parcel) -> list[Parcel]:
        if not parcel.has_events:
            return [parcel]
        self.tally.see()
        if not self._left:
            if not self.strikes():
                return [parcel]
            self._left = 1 + self.prng.below(STARVED_REVISIONS_MAX)
        self._left -= 1
        return [parcel.inject(self.tally, 1, None)]


class Etcd17529(Fault):
    """etcd 17529: a stream that is starved loses events. From a revision on, 1 to 5 in a row
    vanish; the progress marks go out nevertheless. Counts revisions."""

    __slots__ = ()
    name = "etcd_17529"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _StarveStage(tally, prng)


class _CorruptValueStage(Stage):
    def take(self, parcel: Parcel) -> list[Parcel]:
        response = parcel.response
        if response is None or not response.events:
            return [parcel]
        self.tally.see()
        events = list(response.events)
        puts = [index for index, event in enumerate(events) if event.kind == "put"]
        struck = [index for index in puts if self.prng.chance(self.rate)]
        if puts and not struck and self.tally.is_due:
            struck = [puts[self.prng.below(len(puts))]]
        for index in struck:
            kv = events[index].kv
            events[index] = replace(events[index], kv=replace(kv, value=self._altered(kv.value)))
        return [parcel.inject(self.tally, len(struck), replace(response, events=tuple(events)))]

    def _altered(self, value: bytes) -> bytes:
        if not value:
            return b"?"
        place, bit = self.prng.below(len(value)), 1 << self.prng.below(8)
        return value[:place] + bytes((value[place] ^ bit,)) + value[place + 1 :]


class CorruptValue(Fault):
    """One bit of a put's value is flipped; an empty value becomes `?`. Touches puts; counts
    events. Nothing in the stream tells."""

    __slots__ = ()
    name = "corrupt_value"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _CorruptValueStage(tally, prng)


def _renumbered(event: Event, revision: int) -> Event:
    return replace(event, kv=replace(event.kv, mod_revision=revision))


class _CorruptRevisionStage(Stage):
    def take(self, parcel: Parcel) -> list[Parcel]:
        response = parcel.response
        if response is None or not response.events:
            return [parcel]
        self.tally.see()
        struck = {i for i in range(len(response.events)) if self.prng.chance(self.rate)}
        if not struck and self.tally.is_due:
            struck = {self.prng.below(len(response.events))}
        events = tuple(
            self._altered(event) if index in struck else event
            for index, event in enumerate(response.events)
        )
        return [parcel.inject(self.tally, len(struck), replace(response, events=events))]

    def _altered(self, event: Event) -> Event:
        off = 1 + self.prng.below(REVISIONS_OFF_MAX)
        what, kv = self.prng.below(3), event.kv
        if what == 0 and event.kind == "put":
            return replace(event, kv=replace(kv, version=kv.version + off))
        if what == 1 and kv.mod_revision > off:
            return _renumbered(event, kv.mod_revision - off)
        return _renumbered(event, kv.mod_revision + off)


class CorruptRevision(Fault):
    """An event's mod_revision is 1 to 8 too low or too high, or a put's version too high. Touches
    every event; counts events."""

    __slots__ = ()
    name = "corrupt_revision"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _CorruptRevisionStage(tally, prng)


def under_number(response: WatchResponse, revision: int) -> WatchResponse:
    """The response as if its events were those of `revision`."""
    events = tuple(_renumbered(event, revision) for event in response.events)
    return replace(response, header_revision=revision, events=events)


class _DuplicateRevisionStage(Stage):
    def __init__(self, tally: Tally, prng: Prng) -> None:
        super().__init__(tally, prng)
        self._before = 0  # number under which the last revision went out

    def take(self, parcel: Parcel) -> list[Parcel]:
        response = parcel.response
        if response is None or not response.events:
            return [parcel]
        self.tally.see()
        if self._before and self.strikes():
            return [parcel.inject(self.tally, 1, under_number(response, self._before))]
        self._before = revision_of(response)
        return [parcel]


class DuplicateRevision(Fault):
    """Two revisions are delivered under one number: the later one under that of the one before.
    Touches every revision but a stream's first; counts revisions."""

    __slots__ = ()
    name = "duplicate_revision"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _DuplicateRevisionStage(tally, prng)
