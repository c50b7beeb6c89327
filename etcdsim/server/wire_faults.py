"""The faults of a server by name: those of a simulated stream, and those that need a wire.

A wire fault strikes answers, one to each unary call and the responses of streams. What each does
is in `faulty`; here is whether it strikes, and how often it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from etcdsim.fault import Fault, Line, Tally, revision_of
from etcdsim.faults import FAULTS, Tallies, parse_fault
from etcdsim.prng import Prng
from etcdsim.txn import bounds
from etcdsim.watch import WatchResponse


class WireFault(Fault):
    """A fault that acts on calls and connections, whatever they say.

    ends  whether the call that it strikes is over, so that no other strikes the same answer
    """

    __slots__ = ()
    on_streams = False
    ends: ClassVar[bool] = True


class Slow(WireFault):
    """An answer leaves late, and what follows on its stream behind it."""

    __slots__ = ()
    name = "slow"
    ends = False


class Unavailable(WireFault):
    """A call ends with UNAVAILABLE, before or after it was done."""

    __slots__ = ()
    name = "unavailable"


class Reset(WireFault):
    """A connection is reset, with every call on it, before or after the call was done."""

    __slots__ = ()
    name = "reset"


class LeaderChange(WireFault):
    """The leader is lost and another one elected."""

    __slots__ = ()
    name = "leader_change"
    ends = False


class Restart(WireFault):
    """The member goes down and comes back on the same port with all that it had."""

    __slots__ = ()
    name = "restart"


WIRE_FAULTS: dict[str, type[WireFault]] = {
    fault.name: fault for fault in (Slow, LeaderChange, Unavailable, Reset, Restart)
}
SERVED_FAULTS: dict[str, type[Fault]] = {**FAULTS, **WIRE_FAULTS}

#: Faults that go together. `flaky` is what etcd may do, `lossy` and `hostile` are what it must not.
MIXES: dict[str, dict[str, float]] = {
    "flaky": {
        **dict.fromkeys(("slow", "unavailable", "cancel", "delay", "late_progress"), 0.01),
        **{"reset": 0.005, "leader_change": 0.001, "restart": 0.001},
    },
    "lossy": dict.fromkeys(("drop", "etcd_17529", "lost_delete_at_compaction"), 0.01),
    "hostile": {name: 0.001 if name == "restart" else 0.01 for name in SERVED_FAULTS},
}


def parse_rates(mix: str | None, faults: Iterable[str]) -> dict[str, float]:
    """The rates by name of a mix and of `NAME=RATE` each, which go before the mix's.

    Raises ValueError, in one line: unknown or repeated name, malformed or out of range rate.
    """
    if mix is not None and mix not in MIXES:
        raise ValueError(f"unknown faults {mix!r}: known are {', '.join(MIXES)}")
    given: dict[str, float] = {}
    for text in faults:
        fault = parse_fault(text, SERVED_FAULTS)
        if fault.name in given:
            raise ValueError(f"fault {fault.name} is given twice")
        given[fault.name] = fault.rate
    return {**(MIXES[mix] if mix else {}), **given}


class Dice:
    """Which answers of one stream, or of all unary calls, the wire faults strike. That depends on
    the seed and on the number of the answer; `prng` says in which way they do."""

    def __init__(self, tallies: Mapping[str, Tally], prng: Prng, label: str) -> None:
        self._tallies = tallies
        self._prngs = {name: prng.fork(f"{name} {label}") for name in tallies}
        self.prng = prng.fork(f"how {label}")

    def roll(self) -> list[str]:
        """The faults that strike the next answer, in the order in which they act."""
        struck: list[str] = []
        over = False
        for name, tally in self._tallies.items():
            tally.see()
            if (self._prngs[name].chance(tally.fault.rate) or tally.is_due) and not over:
                tally.injected += 1
                struck.append(name)
                over = WIRE_FAULTS[name].ends
        return struck


class WireFaults:
    """The faults of one server: their rates, which may change, and how often each has struck.

    Whether a fault strikes is the seed's, by the number of the call or stream and of the answer on
    it; which call comes when is the clients'. One thread. Raises ValueError for a rate outside
    0..1.
    """

    def __init__(self, rates: Mapping[str, float], seed: int) -> None:
        self._prng = Prng(seed).fork("wire faults")
        self._watched = Tallies([fault(0.0) for fault in FAULTS.values()], self._prng)
        self._wired = {
            name: Tally(fault(0.0), self._prng.fork(f"{name} force"))
            for name, fault in WIRE_FAULTS.items()
        }
        self._streams = self._lines = 0
        self.is_on = False  # some rate is above 0
        self.of_calls = self._dice("calls")
        self.set_rates(rates)

    def _dice(self, label: str) -> Dice:
        return Dice(self._wired, self._prng, label)

    def of_stream(self) -> Dice:
        """Those of the answers on a new stream."""
        self._streams += 1
        return self._dice(f"stream {self._streams - 1}")

    @property
    def rates(self) -> dict[str, float]:
        """Of every fault."""
        faults = [*self._watched.faults, *(tally.fault for tally in self._wired.values())]
        return {fault.name: fault.rate for fault in faults}

    @property
    def injected(self) -> dict[str, int]:
        """How often each fault has struck."""
        wired = {name: tally.injected for name, tally in self._wired.items()}
        return {**self._watched.injected, **wired}

    def count(self, name: str) -> None:
        """A wire fault was made to happen by hand."""
        self._wired[name].injected += 1

    def set_rates(self, rates: Mapping[str, float]) -> None:
        """Let these faults strike that often from now on, also on what is open. All or none.

        Raises ValueError, in one line: unknown name, a rate outside 0..1.
        """
        for name, rate in rates.items():
            if name not in SERVED_FAULTS:
                known = ", ".join(SERVED_FAULTS)
                raise ValueError(f"unknown fault {name!r}: known faults are {known}")
            SERVED_FAULTS[name](rate)
        self._watched.set_rates({name: rates[name] for name in rates if name in FAULTS})
        for name in rates:
            if name in WIRE_FAULTS:
                self._wired[name].set_rate(rates[name])
        self.is_on = any(self.rates.values())

    def line(self, key: bytes, range_end: bytes, start_revision: int) -> Line:
        """What the faults do to a new watch of [key, range_end) from `start_revision` on."""
        low, high = bounds(key, range_end)

        def goes_on(left: tuple[WatchResponse, ...]) -> bool:
            # Two revisions at least; one that loses its last as it breaks goes on before that.
            return start_revision > revision_of(left[-2]) and all(
                event.kv.key >= low and (high is None or event.kv.key < high)
                for response in left
                for event in response.events
            )

        self._lines += 1
        return Line(self._watched.stages(self._lines - 1, goes_on))

    @property
    def compacted(self) -> int:
        """The lowest revision that clients can still read, as the faults have it; 0: all."""
        return self._watched.compacted

    def answered_at(self, revision: int, floor: int) -> int:
        """The revision, at least `floor`, of the answer to a read of the newest, `revision`."""
        return self._watched.answered_at(revision, floor)
