"""Faults that act on a stream as a whole, on its progress marks, or on reads."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque

from etcdsim.event_faults import under_number
from etcdsim.fault import (
    Fault,
    HoldingStage,
    Parcel,
    Stage,
    Tally,
    compaction,
    revision_of,
)
from etcdsim.prng import Prng
from etcdsim.watch import WatchResponse

DELAY_RESPONSES_MAX = 8  # later responses that `delay` waits for
LAG_REVISIONS_MAX = 20  # of the member that `stale` reads from
RECENT_REVISIONS = 8  # that a broken stream leaves to the next one

BROKEN_OFF = WatchResponse(0, canceled=True)


def _mark(revision: int) -> WatchResponse:
    return WatchResponse(revision, progress=True)


class _DelayStage(HoldingStage):
    def __init__(self, tally: Tally, prng: Prng) -> None:
        super().__init__(tally, prng)
        self._awaited = 0  # later responses

    def take(self, parcel: Parcel) -> list[Parcel]:
        if parcel.has_events:
            self.tally.see()
            if not self._held:
                if not self.strikes():
                    return [parcel]
                self._awaited = 1 + self.prng.below(DELAY_RESPONSES_MAX)
                self._held.append(parcel)
                return []
            self._held.append(parcel)
            self._awaited -= 1
            return [] if self._awaited else self.release_counted()
        if self._held and parcel.response is None:
            self._held.append(parcel)
            return []
        late = sum(held.has_events for held in self._held) > 1
        return [*(self.release_counted() if late else self.release()), parcel]


class Delay(Fault):
    """A revision is held back until 1 to 8 later ones have come, and so are they: order is kept. A
    progress mark ends it. Touches a revision that has a successor before the next progress mark;
    counts delays."""

    __slots__ = ()
    name = "delay"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _DelayStage(tally, prng)


class _LateProgressStage(HoldingStage):
    def take(self, parcel: Parcel) -> list[Parcel]:
        if parcel.has_events:
            self.tally.see()
        response = parcel.response
        if response is None and self._held:
            self._held.append(parcel)
            return []
        before = self.release_counted() if self._held else []
        if response is not None and response.progress and self.strikes():
            self._held.append(parcel)
            return before
        return [*before, parcel]


class LateProgress(Fault):
    """A progress mark is held back until the next response goes out: as late as it can come without
    naming a revision below one that was delivered. The last mark of a run may so never come. Counts
    marks."""

    __slots__ = ()
    name = "late_progress"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _LateProgressStage(tally, prng)


class _EarlyProgressStage(Stage):
    def take(self, parcel: Parcel) -> list[Parcel]:
        response = parcel.response
        if response is None or not response.events:
            return [parcel]
        self.tally.see()
        if not self.strikes():
            return [parcel]
        early = _mark(revision_of(response))
        return [Parcel(None).inject(self.tally, 1, early), parcel]


class EarlyProgress(Fault):
    """A progress mark promises everything up to a revision that is delivered only after it. Touches
    every revision; counts marks."""

    __slots__ = ()
    name = "early_progress"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _EarlyProgressStage(tally, prng)


class _OvertakeStage(HoldingStage):
    def take(self, parcel: Parcel) -> list[Parcel]:
        if parcel.has_events:
            self.tally.see()
        response = parcel.response
        if response is not None and response.progress and self._held:
            return [parcel, *self.release_counted()]
        if self._held and (response is None or response.events):
            self._held.append(parcel)
            return []
        if parcel.has_events and self.strikes():
            self._held.append(parcel)
            return []
        return [*self.release(), parcel]


class Etcd15220(Fault):
    """etcd 15220: a progress mark overtakes events. From a revision on, all are held back until the
    next mark has gone out. Counts marks."""

    __slots__ = ()
    name = "etcd_15220"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _OvertakeStage(tally, prng)


class _CancelStage(Stage):
    def take(self, parcel: Parcel) -> list[Parcel]:
        if not parcel.has_events:
            return [parcel]
        self.tally.see()
        if not self.strikes():
            return [parcel]
        return [parcel, Parcel(None).inject(self.tally, 1, BROKEN_OFF)]


class Cancel(Fault):
    """The stream is broken off behind a revision; whoever goes on behind it loses nothing. Touches
    every revision; counts streams."""

    __slots__ = ()
    name = "cancel"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _CancelStage(tally, prng)


class _CompactRaceStage(HoldingStage):
    def take(self, parcel: Parcel) -> list[Parcel]:
        response = parcel.response
        if parcel.has_events:
            self.tally.see()
        if not self._held:
            if parcel.has_events and self.strikes():
                self._held.append(parcel)
                return []
            return [parcel]
        if response is None:
            self._held.append(parcel)
            return []
        position = self._held[0].response
        assert position is not None
        if response.canceled or revision_of(response) <= revision_of(position):
            return [*self.release(), parcel]  # a mark at the position itself: no race
        for lost in [*self.release(), parcel]:
            lost.lose()
        revision = revision_of(response)
        self.tally.compacted = max(self.tally.compacted, revision)
        return [Parcel(None).inject(self.tally, 1, compaction(revision))]


class CompactRace(Fault):
    """The stream's next revision is compacted before it is delivered: the stream is cancelled with
    a compact revision above it, and the client has to list again. From then on the feed refuses to
    read or watch from below; the model keeps what the truth has to answer. Touches a revision
    behind which the store has another; counts streams."""

    __slots__ = ()
    name = "compact_race"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _CompactRaceStage(tally, prng)


class _ReopenStage(Stage):
    """Breaks the stream off, and acts on the beginning of the one that is opened next."""

    def __init__(self, tally: Tally, prng: Prng) -> None:
        super().__init__(tally, prng)
        self._carried, tally.carried = tally.carried, ()
        self._recent: deque[WatchResponse] = deque(maxlen=RECENT_REVISIONS)

    def take(self, parcel: Parcel) -> list[Parcel]:
        response = parcel.response
        if response is None or not response.events:
            return [parcel]
        self.tally.see()
        carried, self._carried = self._carried, ()
        if carried:
            return self.reopened(parcel, response, carried)
        self._recent.append(response)
        if not self.can_break(response) or not self.strikes():
            return [parcel]
        self.tally.carried = tuple(self._recent)
        return self.broken_off(parcel)

    def can_break(self, response: WatchResponse) -> bool:
        """Whether the stream may be broken off at this revision."""
        return len(self._recent) > 1

    def broken_off(self, parcel: Parcel) -> list[Parcel]:
        """The end of the stream, at the parcel that it is broken off at."""
        return [parcel, Parcel(BROKEN_OFF)]

    @abstractmethod
    def reopened(
        self, parcel: Parcel, response: WatchResponse, carried: tuple[WatchResponse, ...]
    ) -> list[Parcel]:
        """What the new stream begins with instead of its first revision; `carried`: the last
        revisions of the one before."""


class _RestartStage(_ReopenStage):
    def reopened(
        self, parcel: Parcel, response: WatchResponse, carried: tuple[WatchResponse, ...]
    ) -> list[Parcel]:
        older = revision_of(carried[self.prng.below(len(carried))])
        return [parcel.inject(self.tally, 1, under_number(response, older))]


class RestartAtOlderRevision(Fault):
    """The stream is broken off, and the server behind the next one has been restored from an older
    state: it gives a number again that had been given to another revision. Touches every revision
    but a stream's first; counts revisions with a number that was used before."""

    __slots__ = ()
    name = "restart_at_older_revision"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _RestartStage(tally, prng)


class _LostDeleteStage(_ReopenStage):
    def can_break(self, response: WatchResponse) -> bool:
        # Behind a delivered revision: a client resumes there, not before deletes lost earlier.
        deletes = any(event.kind == "delete" for event in response.events)
        return deletes and super().can_break(response)

    def broken_off(self, parcel: Parcel) -> list[Parcel]:
        parcel.lose()  # the next stream delivers it
        return [Parcel(BROKEN_OFF)]

    def reopened(
        self, parcel: Parcel, response: WatchResponse, carried: tuple[WatchResponse, ...]
    ) -> list[Parcel]:
        if revision_of(response) != revision_of(carried[-1]):
            return [parcel]  # the client did not go on there
        puts = tuple(event for event in response.events if event.kind == "put")
        left = WatchResponse(response.header_revision, puts) if puts else None
        return [parcel.inject(self.tally, len(response.events) - len(puts), left)]


class LostDeleteAtCompaction(Fault):
    """The stream is broken off before a revision with deletes, and the next one, opened at exactly
    that revision as at the boundary of a compaction, leaves the deletes out. Touches revisions with
    deletes but a stream's first; counts deletes."""

    __slots__ = ()
    name = "lost_delete_at_compaction"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _LostDeleteStage(tally, prng)


class Etcd18089(LostDeleteAtCompaction):
    """etcd 18089 and 19179. As `lost_delete_at_compaction`."""

    __slots__ = ()
    name = "etcd_18089"


class _OldEventsStage(_ReopenStage):
    def reopened(
        self, parcel: Parcel, response: WatchResponse, carried: tuple[WatchResponse, ...]
    ) -> list[Parcel]:
        old = carried[self.prng.below(len(carried)) :]
        return [*(Parcel(None).inject(self.tally, 1, again) for again in old), parcel]


class Etcd15271(Fault):
    """etcd 15271: a watch goes back in time. The stream is broken off, and the next one begins with
    1 to 8 revisions below its start. Counts those."""

    __slots__ = ()
    name = "etcd_15271"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _OldEventsStage(tally, prng)


class _OldMarkStage(_ReopenStage):
    def reopened(
        self, parcel: Parcel, response: WatchResponse, carried: tuple[WatchResponse, ...]
    ) -> list[Parcel]:
        old = revision_of(carried[self.prng.below(len(carried) - 1)])
        return [Parcel(None).inject(self.tally, 1, _mark(old)), parcel]


class Etcd20221(Fault):
    """etcd 20221: a watch whose start is ahead of the server gets progress from before its start.
    The stream is broken off, and the next one begins with such a mark. Counts marks."""

    __slots__ = ()
    name = "etcd_20221"

    def stage(self, tally: Tally, prng: Prng) -> Stage:
        return _OldMarkStage(tally, prng)


class Stale(Fault):
    """A member that lags answers a read of the current state, or of the current revision, as of 1
    to 20 revisions ago, and says so in the header. A watch that goes on from there gets everything
    since. Touches reads of `Feed`; the first one is always struck. Counts reads."""

    __slots__ = ()
    name = "stale"
    on_streams = False

    def lag(self, tally: Tally, prng: Prng, revision: int, floor: int) -> int:
        struck = prng.chance(self.rate) or tally.is_owed
        if not struck or revision <= floor:
            return 0
        tally.injected += 1
        return 1 + prng.below(min(LAG_REVISIONS_MAX, revision - floor))
