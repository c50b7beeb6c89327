"""Faults by name: what can go wrong between the model and a client, each named and seeded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from etcdsim.event_faults import (
    CorruptRevision,
    CorruptValue,
    Drop,
    Duplicate,
    DuplicateRevision,
    Etcd17247,
    Etcd17529,
    Reorder,
    Split,
)
from etcdsim.fault import Fault, Stage, Tally
from etcdsim.prng import Prng
from etcdsim.stream_faults import (
    Cancel,
    CompactRace,
    Delay,
    EarlyProgress,
    Etcd15220,
    Etcd15271,
    Etcd18089,
    Etcd20221,
    LateProgress,
    LostDeleteAtCompaction,
    RestartAtOlderRevision,
    Stale,
)
from etcdsim.watch import WatchResponse

# In the order in which a stream passes through them: what vanished can't be swapped, a revision is
# swapped whole and split afterwards, a copy follows what was really delivered, and what ends a
# stream comes behind what alters it.
FAULTS: dict[str, type[Fault]] = {
    fault.name: fault
    for fault in (
        *(Drop, Reorder, Split, Duplicate),
        *(CorruptValue, CorruptRevision, DuplicateRevision),
        *(Etcd17529, Etcd17247),
        *(Delay, LateProgress, EarlyProgress, Etcd15220),
        *(RestartAtOlderRevision, LostDeleteAtCompaction),
        *(Etcd18089, Etcd15271, Etcd20221),
        *(Cancel, CompactRace),
        Stale,
    )
}


def parse_fault(text: str, known: Mapping[str, type[Fault]] = FAULTS) -> Fault:
    """`NAME=RATE` as one of the `known` faults. Raises ValueError, in one line: unknown name,
    malformed or out of range rate."""
    name, equals, rate = text.partition("=")
    if name not in known:
        raise ValueError(f"unknown fault {name!r}: known faults are {', '.join(known)}")
    if not equals:
        raise ValueError(f"fault {name}: expected {name}=RATE")
    try:
        number = float(rate)
    except ValueError:
        raise ValueError(f"fault {name}: the rate is not a number: {rate!r}") from None
    return known[name](number)


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
        self._reads = {
            tally.fault.name: self._fork(tally.fault, "reads")
            for tally in self._tallies
            if not tally.fault.on_streams
        }

    def _fork(self, fault: Fault, label: str) -> Prng:
        return self._prng.fork(f"{fault.name} {fault.seed} {label}")

    def stages(
        self, stream: int, goes_on: Callable[[tuple[WatchResponse, ...]], bool] | None = None
    ) -> list[Stage]:
        """The faults at work on a new stream, which has a number of its own.

        `goes_on`: whether it goes on where a stream that ended with these responses was broken
        off; by default every stream does. What a fault left to another one stays there for it.
        """
        stages = []
        for tally in self._tallies:
            if not tally.fault.on_streams:
                continue
            kept: tuple[WatchResponse, ...] = ()
            if goes_on is not None and tally.carried and not goes_on(tally.carried):
                kept, tally.carried = tally.carried, ()
            stages.append(tally.fault.stage(tally, self._fork(tally.fault, f"stream {stream}")))
            tally.carried = tally.carried or kept
        return stages

    def set_rates(self, rates: Mapping[str, float]) -> None:
        """Let faults of this run strike at another rate from now on, also on open streams.

        Raises ValueError for a rate outside 0..1, and KeyError for a fault that isn't here.
        """
        tallies = {tally.fault.name: tally for tally in self._tallies}
        for name, rate in rates.items():
            tallies[name].set_rate(rate)

    def answered_at(self, revision: int, floor: int) -> int:
        """The revision, at least `floor`, of the answer to a read of the newest, `revision`."""
        for tally in self._tallies:
            if not tally.fault.on_streams:
                prng = self._reads[tally.fault.name]
                revision -= tally.fault.lag(tally, prng, revision, floor)
        return revision

    @property
    def compacted(self) -> int:
        """The lowest revision that clients can still read, as the faults have it; 0: all."""
        return max((tally.compacted for tally in self._tallies), default=0)

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

    @property
    def owed_on_streams(self) -> bool:
        """Whether one of those that are owed could strike on a watch stream."""
        return any(tally.is_owed and tally.fault.on_streams for tally in self._tallies)
