"""A fault at work: how what is injected travels to the client, and how it is counted.

The model stays the truth. A fault is a value (`Drop(rate=0.01)`); for every watch stream it makes a
stage, and a Line runs the responses through the stages in the order of `faults.FAULTS`. A stage
takes parcels, a response and the injections that it carries, and gives on as many as it likes. An
injection is counted when the client has received what it did, and not if the stream was closed or
broken off before that.

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

    injected   times that a client received what the fault did
    pending    times that it has struck and that no client has received yet
    carried    what a stream that the fault broke off leaves to the next one
    compacted  the lowest revision that clients can still read, as the fault has it
    """

    __slots__ = ("_force_from", "carried", "compacted", "fault", "injected", "pending", "seen")

    def __init__(self, fault: Fault, prng: Prng) -> None:
        self.fault = fault
        self.injected = self.pending = self.seen = self.compacted = 0
        self.carried: tuple[WatchResponse, ...] = ()
        self._force_from = prng.below(FORCE_WITHIN_REVISIONS)

    @property
    def is_owed(self) -> bool:
        """Nothing has been injected yet, and something has to be."""
        return self.fault.rate > 0 and not self.injected and not self.pending

    def set_rate(self, rate: float) -> None:
        """Strike as often as that from now on. Raises ValueError for a rate outside 0..1."""
        self.fault = replace(self.fault, rate=rate)

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


def revision_of(response: WatchResponse) -> int:
    """That of the events or of the mark. The header of events may name a later one."""
    return response.events[0].kv.mod_revision if response.events else response.header_revision


def compaction(revision: int) -> WatchResponse:
    """The end of a watch whose position is below `revision`, up to which all was compacted."""
    return WatchResponse(0, compact_revision=revision, canceled=True)


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

    def lose(self) -> None:
        """The client will never receive it: what it carries was never injected."""
        for tally in self.injections:
            tally.pending -= 1


class Stage(ABC):
    """One fault at work on one stream."""

    def __init__(self, tally: Tally, prng: Prng) -> None:
        self.tally, self.prng = tally, prng

    @property
    def rate(self) -> float:
        return self.tally.fault.rate

    @abstractmethod
    def take(self, parcel: Parcel) -> list[Parcel]:
        """Take the next parcel of the stream; give on what leaves now, in order."""

    def strikes(self) -> bool:
        """Whether to strike what is at hand, which can be touched. Draws one number."""
        return self.prng.chance(self.rate) or self.tally.is_due

    def held(self) -> Sequence[Parcel]:
        """What was taken and not given on yet."""
        return ()

    def release(self) -> list[Parcel]:
        """Give on what is held, in order; what it was held for doesn't come."""
        return []


class HoldingStage(Stage):
    """A stage that holds parcels back."""

    def __init__(self, tally: Tally, prng: Prng) -> None:
        super().__init__(tally, prng)
        self._held: list[Parcel] = []

    def held(self) -> Sequence[Parcel]:
        return self._held

    def release(self) -> list[Parcel]:
        held, self._held = self._held, []
        return held

    def release_counted(self) -> list[Parcel]:
        """Everything held, the first of it carrying an injection."""
        first, *others = self.release()
        return [first.inject(self.tally, 1, first.response), *others]


@dataclass(frozen=True, slots=True)
class Fault(ABC):
    """A fault: its name, how often it strikes what it can touch, and a seed of its own that moves
    it about while the traffic stays the same. Raises ValueError for a rate outside 0..1.

    on_streams  whether it acts on watch streams; if not, it acts on reads
    """

    name: ClassVar[str]
    on_streams: ClassVar[bool] = True
    rate: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:  # nan is refused here too
            raise ValueError(f"fault {self.name}: the rate must be from 0 to 1, not {self.rate}")

    def __str__(self) -> str:
        return f"{self.name}={self.rate!r}"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        """The fault at work on a new stream; only if it is `on_streams`."""
        raise AssertionError(f"{self.name} acts on reads")

    def lag(self, tally: Tally, prng: Prng, revision: int, floor: int) -> int:
        """By how many revisions a read that should be answered at `revision` is behind; the answer
        must not be below `floor`. Called only if it is not `on_streams`."""
        raise AssertionError(f"{self.name} acts on streams")


class Line:
    """What one watch has on its way to the client: responses are pushed in, run through the stages,
    and taken out. One thread."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages
        self._ready: deque[Parcel] = deque()
        self.is_over = False  # nothing goes in any more: it was closed or cancelled

    def push(self, response: WatchResponse) -> None:
        """Run a response through the stages; nothing comes behind one that ends the watch."""
        if not self.is_over:
            self._run([Parcel(response)], 0)

    def _run(self, parcels: list[Parcel], first: int) -> None:
        for stage in self._stages[first:]:
            parcels = [given for parcel in parcels for given in stage.take(parcel)]
        while parcels:
            self._ready.append(parcels.pop(0))
            last = self._ready[-1].response
            if last is not None and last.canceled:
                self._end(parcels)
                break

    def take(self) -> WatchResponse | None:
        """The next response, None if there is none; what it carries counts as injected."""
        while self._ready:
            parcel = self._ready.popleft()
            for tally in parcel.injections:
                tally.pending -= 1
                tally.injected += 1
            if parcel.response is not None:
                return parcel.response
        return None

    @property
    def holds(self) -> bool:
        """Whether a stage holds something back."""
        return any(stage.held() for stage in self._stages)

    def release(self) -> None:
        """Let what the stages hold back go on, in order: nothing that they wait for comes."""
        for number in reversed(range(len(self._stages))):
            if not self.is_over:
                self._run(self._stages[number].release(), number + 1)

    def close(self) -> None:
        """Nothing goes in or out any more. What is on its way was never injected. Idempotent."""
        self._end(self._ready)
        self._ready.clear()

    def _end(self, lost: Iterable[Parcel]) -> None:
        self.is_over = True
        held = [parcel for stage in self._stages for parcel in stage.held()]
        for parcel in [*lost, *held]:
            parcel.lose()
        self._stages = ()


class FaultyChannel:
    """A watch stream as the client sees it: the watcher's responses, run through the stages.

    With `compacted` that is all that it says. What happens doesn't depend on when it is polled or
    pumped. One thread.
    """

    def __init__(self, watcher: Watcher, stages: Sequence[Stage], compacted: int = 0) -> None:
        self._watcher = watcher
        self._line = Line(() if compacted else stages)
        if compacted:
            self._line.push(compaction(compacted))
            watcher.close()

    @property
    def is_open(self) -> bool:
        """It was neither closed nor cancelled."""
        return self._watcher.is_open

    def poll(self) -> WatchResponse | None:
        """The next response, None if there is nothing new."""
        while (response := self._line.take()) is None and self._pull():
            pass
        return response

    def pump(self) -> None:
        """Run everything that the watcher has through the stages and keep it for later polls."""
        while self._pull():
            pass

    def _pull(self) -> bool:
        response = self._watcher.poll()
        if response is None:
            return False
        self._line.push(response)
        if self._line.is_over:
            self._watcher.close()
        return True

    def request_progress(self) -> None:
        """Ask for a progress mark; it comes in its place behind the events."""
        self._watcher.request_progress()

    def close(self) -> None:
        """End the stream. What is on its way or held back is lost and was never injected."""
        self._watcher.close()
        self._line.close()
