"""Faults: what can go wrong between the model and a client, each named and seeded.

The model stays the truth. A fault is a value (`Drop(rate=0.01)`); for every watch stream it makes a
stage, and a FaultyChannel runs the responses through the stages in the order of FAULTS. A stage
takes parcels, a response and the injections that it carries, and gives on as many as it likes. An
injection is counted when the client has received what it did, and not if the client closed the
stream before that.

At a rate above 0 something is injected in every run: from a seeded place in the first part of the
run on, the first thing that the fault can touch is touched, unless one already was.

Every events response that comes in holds one revision: the channel's watcher must not batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from etcdsim.prng import Prng
from etcdsim.watch import Watcher, WatchResponse

FORCE_WITHIN_REVISIONS = 32  # the seeded place is one of these first revisions of a stream


class Tally:
    """What one fault did in one run, over all its streams.

    injected  times that a client received what the fault did
    pending   times that it has struck and that no client has received yet
    """

    __slots__ = ("_force_from", "fault", "injected", "pending", "seen")

    def __init__(self, fault: Fault, prng: Prng) -> None:
        self.fault = fault
        self.injected = self.pending = self.seen = 0
        self._force_from = prng.below(FORCE_WITHIN_REVISIONS)

    @property
    def is_owed(self) -> bool:
        """Nothing has been injected yet, and something has to be."""
        return self.fault.rate > 0 and not self.injected and not self.pending

    def force(self) -> None:
        """Strike at the next chance, wherever the seeded place is."""
        self._force_from = 0

    def see(self) -> None:
        """Count one revision that came by."""
        self.seen += 1

    @property
    def is_due(self) -> bool:
        """What is touchable now has to be touched."""
        return self.seen > self._force_from and self.is_owed


@dataclass(frozen=True, slots=True)
class Parcel:
    """A response on its way, None if nothing of it is left, and the injections that the client has
    received once it has received this."""

    response: WatchResponse | None
    injections: tuple[Tally, ...] = ()

    @property
    def has_events(self) -> bool:
        return self.response is not None and bool(self.response.events)

    def inject(self, tally: Tally, times: int, response: WatchResponse | None) -> Parcel:
        """The parcel with `response` in it, carrying `times` more injections."""
        tally.pending += times
        return Parcel(response, self.injections + (tally,) * times)


class Stage(ABC):
    """One fault at work on one stream."""

    def __init__(self, tally: Tally, prng: Prng) -> None:
        self.tally, self.prng, self.rate = tally, prng, tally.fault.rate

    @abstractmethod
    def take(self, parcel: Parcel) -> list[Parcel]:
        """Take the next parcel of the stream; give on what leaves now, in order."""

    def held(self) -> Sequence[Parcel]:
        """What was taken and not given on yet."""
        return ()


@dataclass(frozen=True, slots=True)
class Fault(ABC):
    """A fault: its name, how often it strikes what it can touch, and a seed of its own that moves
    it about while the traffic stays the same. Raises ValueError for a rate outside 0..1."""

    name: ClassVar[str]
    rate: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:  # nan is refused here too
            raise ValueError(f"fault {self.name}: the rate must be from 0 to 1, not {self.rate}")

    def __str__(self) -> str:
        return f"{self.name}={self.rate!r}"

    @abstractmethod
    def stage(self, tally: Tally, prng: Prng) -> Stage:
        """The fault at work on a new stream."""


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


class _ReorderStage(Stage):
    def __init__(self, tally: Tally, prng: Prng) -> None:
        super().__init__(tally, prng)
        self._held: list[Parcel] = []  # a revision, and vanished ones behind it

    def take(self, parcel: Parcel) -> list[Parcel]:
        if parcel.has_events:
            self.tally.see()
            if self._held:
                return [parcel.inject(self.tally, 1, parcel.response), *self._release()]
            if self.prng.chance(self.rate) or self.tally.is_due:
                self._held.append(parcel)
                return []
            return [parcel]
        if self._held and parcel.response is None:
            self._held.append(parcel)
            return []
        return [*self._release(), parcel]  # nothing is swapped across a progress mark

    def _release(self) -> list[Parcel]:
        held, self._held = self._held, []
        return held

    def held(self) -> Sequence[Parcel]:
        return self._held


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


# In the order in which a stream passes through them: what vanished can't be swapped, a revision is
# swapped whole and split afterwards, and a copy follows what was really delivered.
FAULTS: dict[str, type[Fault]] = {
    fault.name: fault for fault in (Drop, Reorder, Split, Duplicate)
}  # fmt: skip


def parse_fault(text: str) -> Fault:
    """`NAME=RATE` as a fault. Raises ValueError, in one line: unknown name, malformed or out of
    range rate."""
    name, equals, rate = text.partition("=")
    if name not in FAULTS:
        raise ValueError(f"unknown fault {name!r}: known faults are {', '.join(FAULTS)}")
    if not equals:
        raise ValueError(f"fault {name}: expected {name}=RATE")
    try:
        number = float(rate)
    except ValueError:
        raise ValueError(f"fault {name}: the rate is not a number: {rate!r}") from None
    return FAULTS[name](number)


class Tallies:
    """The faults of one run, in the order of FAULTS, each at most once (else ValueError)."""

    def __init__(self, faults: Iterable[Fault], prng: Prng) -> None:
        by_name: dict[str, Fault] = {}
        for fault in faults:
            if fault.name in by_name:
                raise ValueError(f"fault {fault.name} is given twice")
            by_name[fault.name] = fault
        self._prng = prng
        self._tallies = [
            Tally(by_name[name], self._fork(by_name[name], "force"))
            for name in FAULTS
            if name in by_name
        ]

    def _fork(self, fault: Fault, label: str) -> Prng:
        return self._prng.fork(f"{fault.name} {fault.seed} {label}")

    def stages(self, stream: int) -> list[Stage]:
        """The faults at work on a new stream, which has a number of its own."""
        return [
            tally.fault.stage(tally, self._fork(tally.fault, f"stream {stream}"))
            for tally in self._tallies
        ]

    @property
    def faults(self) -> list[Fault]:
        return [tally.fault for tally in self._tallies]

    def force(self) -> None:
        """Every fault that has injected nothing yet strikes at its next chance."""
        for tally in self._tallies:
            tally.force()

    @property
    def injected(self) -> dict[str, int]:
        return {tally.fault.name: tally.injected for tally in self._tallies}

    @property
    def owed(self) -> tuple[str, ...]:
        """The faults at a rate above 0 that have injected nothing yet."""
        return tuple(tally.fault.name for tally in self._tallies if tally.is_owed)


class FaultyChannel:
    """A watch stream as the client sees it: the watcher's responses, run through the stages.

    What happens doesn't depend on when it is polled or pumped. One thread.
    """

    def __init__(self, watcher: Watcher, stages: Sequence[Stage]) -> None:
        self._watcher, self._stages = watcher, stages
        self._ready: deque[Parcel] = deque()

    @property
    def is_open(self) -> bool:
        """It was neither closed nor cancelled."""
        return self._watcher.is_open

    def poll(self) -> WatchResponse | None:
        """The next response, None if there is nothing new."""
        while True:
            while self._ready:
                parcel = self._ready.popleft()
                for tally in parcel.injections:
                    tally.pending -= 1
                    tally.injected += 1
                if parcel.response is not None:
                    return parcel.response
            if not self._pull():
                return None

    def pump(self) -> None:
        """Run everything that the watcher has through the stages and keep it for later polls."""
        while self._pull():
            pass

    def _pull(self) -> bool:
        response = self._watcher.poll()
        if response is None:
            return False
        parcels = [Parcel(response)]
        for stage in self._stages:
            parcels = [given for parcel in parcels for given in stage.take(parcel)]
        self._ready += parcels
        return True

    def request_progress(self) -> None:
        """Ask for a progress mark; it comes in its place behind the events."""
        self._watcher.request_progress()

    def close(self) -> None:
        """End the stream. What is on its way or held back is lost and was never injected."""
        self._watcher.close()
        lost = [*self._ready, *(parcel for stage in self._stages for parcel in stage.held())]
        for parcel in lost:
            for tally in parcel.injections:
                tally.pending -= 1
        self._ready.clear()
        self._stages = ()
