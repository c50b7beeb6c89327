"""Record: traces of several watches of several clients of the simulator, and their runs again.

Deterministic: the same simulator gives the same trace. The truth is the model's own events.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

from etcdsim.faults import parse_fault
from etcdsim.history import record
from etcdsim.model import ALL, Event, prefix_range
from etcdsim.prng import Prng
from etcdsim.simulator import Simulator, Stream
from etcdsim.trace import Origin, Response, Trace, WatchRequest, WatchTrace, from_watch, write_trace

WATCHES_MAX = 6  # that one client of the simulator opens in a run


class RecordError(Exception):
    """The recording can't be made; says why in one line."""


@dataclass(slots=True)
class _Open:
    """A watch of the simulator while it is recorded."""

    client: int
    request: WatchRequest
    stream: Stream
    responses: list[Response]

    @property
    def is_canceled(self) -> bool:
        return self.responses[-1].kind == "canceled"

    def drain(self) -> None:
        while (response := self.stream.poll()) is not None:
            self.responses.append(from_watch(response))


class _Truth:
    """The model's events, read as they are made: before anything can be compacted."""

    def __init__(self, simulator: Simulator) -> None:
        self._model = simulator.model
        self.revisions: list[tuple[Event, ...]] = []

    def follow(self) -> None:
        for revision in range(len(self.revisions) + 2, self._model.revision + 1):
            self.revisions.append(self._model.events_at(revision))


def record_simulated(simulator: Simulator, writes: int, clients: int) -> Trace:
    """Run a fresh simulator for `writes` steps, watched by `clients` that each open watches at
    random revisions on random ranges, poll them now and then, and close some."""
    prng = Prng(simulator.seed).fork("clients")
    truth = _Truth(simulator)
    simulator.load()
    truth.follow()
    watches: list[_Open] = []
    closed: set[int] = set()
    opened = [0] * clients
    resumed: set[int] = set()
    for step in range(writes):
        for client in range(clients):
            due = step >= opened[client] * (writes // WATCHES_MAX)
            if due and opened[client] < WATCHES_MAX and prng.chance(0.5):
                watches.append(_open(simulator, client, prng, truth.revisions))
                opened[client] += 1
        simulator.step()
        truth.follow()
        for number, watch in enumerate(watches):
            if number not in closed and prng.chance(0.2):
                watch.drain()
                if prng.chance(0.05):
                    watch.stream.request_progress()
                elif prng.chance(0.03):
                    watch.stream.close()
                    closed.add(number)
                elif watch.is_canceled and number not in resumed:
                    resumed.add(number)
                    watches.append(_resume(simulator, watch))
    simulator.finish()
    truth.follow()
    for number, watch in enumerate(watches):
        if number not in closed:
            watch.drain()
            watch.stream.close()
    header = Origin(
        "simulator", "model", "", simulator.profile, simulator.seed, simulator.objects, writes,
        tuple(str(fault) for fault in simulator.faults), clients,
    )  # fmt: skip
    done = tuple(WatchTrace(w.client, w.request, tuple(w.responses)) for w in watches)
    return Trace(header, done, simulator.model.revision, tuple(truth.revisions))


def _open(
    simulator: Simulator, client: int, prng: Prng, truth: Sequence[tuple[Event, ...]]
) -> _Open:
    request = _request(prng, truth, simulator.model.revision, simulator.model.compact_revision)
    return _watch(simulator, client, request)


def _watch(simulator: Simulator, client: int, request: WatchRequest) -> _Open:
    stream = simulator.feed.watch(
        request.key, request.range_end, request.start_revision, request.prev_kv
    )
    return _Open(client, request, stream, [Response("created", simulator.model.revision)])


def _resume(simulator: Simulator, watch: _Open) -> _Open:
    # As a client does: at the revision behind the last one that it knows of, or where it can.
    request = replace(watch.request, start_revision=_next_revision(watch))
    return _watch(simulator, watch.client, request)


def _next_revision(watch: _Open) -> int:
    known = [watch.request.start_revision or watch.responses[0].header_revision + 1]
    for response in watch.responses:
        known += [event.kv.mod_revision + 1 for event in response.events]
        if response.kind == "progress":
            known.append(response.header_revision + 1)
        known.append(response.compact_revision)
    return max(known)


def _request(
    prng: Prng, truth: Sequence[tuple[Event, ...]], revision: int, compacted: int
) -> WatchRequest:
    key = prng.choice(prng.choice(truth)).kv.key  # of any change so far
    kind = prng.below(4)
    if kind == 0:
        key, range_end = ALL, ALL
    elif kind == 1:
        range_end = b""
    else:
        key, range_end = prefix_range(key[: prng.below(len(key) + 1)])
    first = max(2, compacted)
    start = first + prng.below(revision + 3 - first) if prng.chance(0.7) else 0
    return WatchRequest(key, range_end, start, prng.chance(0.5))


def again(header: Origin) -> Simulator:
    """A fresh simulator as a trace's header says. Raises ValueError if there can be none."""
    return Simulator(
        header.profile,
        seed=header.seed,
        objects=header.objects,
        faults=[parse_fault(text) for text in header.faults],
    )


def rerun(trace: Trace) -> tuple[bytes, Trace]:
    """What recording the run of a simulated trace again gives: the bytes of its file, and the trace
    with the model's truth, which a trace of format 1 doesn't hold itself. Raises ValueError."""
    simulator = again(trace.header)
    file = io.BytesIO()
    if trace.header.truth == "model":
        recorded = record_simulated(simulator, trace.header.writes, trace.header.clients)
        write_trace(recorded, file)
        return file.getvalue(), recorded
    record(simulator, trace.header.writes, file)
    truth = _Truth(simulator)
    truth.follow()
    return file.getvalue(), replace(
        trace, header=replace(trace.header, truth="model"), truth=tuple(truth.revisions)
    )
